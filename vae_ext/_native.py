"""Loads the native library `vae_ext._C`, or says in one sentence why it cannot be."""

from __future__ import annotations

import importlib.util
import mmap
import os
import re
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import torch

_NAME = "vae_ext._C"
_REBUILD = "rebuild it with `make build` or `pip install --no-build-isolation .`"


def load() -> ModuleType:
    """Imports `vae_ext._C`, which registers `torch.ops.vae_ext.*`, after checking that it fits this torch.

    The environment variable VAE_EXT_LIBRARY names another build of the library to load instead, such as one
    with sanitizers.

    Raises:
        ImportError: the library is missing, was built with another torch, or cannot be loaded.
    """
    if _NAME in sys.modules:
        return sys.modules[_NAME]
    spec = _find()
    assert spec.origin is not None
    assert spec.loader is not None
    check_torch_version(torch_built_with(Path(spec.origin)), torch.__version__)
    try:
        module = importlib.util.module_from_spec(spec)
        sys.modules[_NAME] = module
        spec.loader.exec_module(module)
    except ImportError as error:
        sys.modules.pop(_NAME, None)
        raise ImportError(f"vae_ext's native library cannot be loaded ({error}): {_REBUILD}.") from error
    return module


def _find() -> ModuleSpec:
    override = os.environ.get("VAE_EXT_LIBRARY")
    if override:
        return _from_file(Path(override))
    spec = importlib.util.find_spec(_NAME)
    if spec is None:
        version = ".".join(map(str, sys.version_info[:2]))
        raise ImportError(f"vae_ext's native library is not built for this Python {version}: {_REBUILD}.")
    return spec


def _from_file(library: Path) -> ModuleSpec:
    spec = importlib.util.spec_from_file_location(_NAME, library)
    if spec is None or not library.is_file():
        raise ImportError(f"VAE_EXT_LIBRARY is {library}, expected a file named like _C.so.")
    return spec


def torch_built_with(library: Path) -> str:
    """The version of torch that a native library was built with, read from the file without loading it."""
    try:
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            match = re.search(rb"vae_ext built with torch ([^\n\0]+)\n", content)
            version = match and match[1].decode()
    except ValueError:  # An empty file cannot be mapped.
        version = None
    if version is None:
        raise ImportError(f"{library} is not a native library of vae_ext: {_REBUILD}.")
    return version


def check_torch_version(built_with: str, running: str) -> None:
    """Raises ImportError unless both versions of torch have the same major and minor number."""
    if built_with.split(".")[:2] != running.split(".")[:2]:
        raise ImportError(
            f"vae_ext was built with torch {built_with} and this is torch {running}: {_REBUILD}, "
            f"or install torch {built_with}."
        )

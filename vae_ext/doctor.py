"""`vae-ext doctor`: what is installed, what works, what is wrong and how to mend it."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from vae_ext import __version__

INSTALL_TRAINING = "pip install 'vae_ext[train]'"
TRAINING_MODULES = {
    "sklearn": "digits",
    "matplotlib": "the pictures",
    "rich": "the progress bar",
    "pooch": "mnist",
}


@dataclass(frozen=True)
class Finding:
    """One line of the report, and where something is wrong, how to mend it."""

    name: str
    value: str
    remedy: str | None = None

    @property
    def wrong(self) -> bool:
        return self.remedy is not None


def examine() -> list[Finding]:
    """Everything the doctor looks at; no examination raises, whatever is broken."""
    examinations: tuple[Callable[[], Iterator[Finding]], ...] = (
        _python,
        _torch,
        _native,
        _operators,
        _cuda,
        _training,
    )
    return [finding for examination in examinations for finding in _guarded(examination)]


def _guarded(examination: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from examination()
    except Exception as error:
        name = examination.__name__.strip("_")
        yield Finding(name, f"{type(error).__name__}: {_first_line(error)}", "see the line above, or report this")


def _python() -> Iterator[Finding]:
    yield Finding("python", f"{platform.python_version()}, {sys.executable}")
    yield Finding("system", f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs")
    yield Finding("vae_ext", f"{__version__}, {Path(__file__).parent}")


def _torch() -> Iterator[Finding]:
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        yield Finding("torch", f"cannot be imported: {_first_line(error)}", "install torch 2.11 or later")
        return
    yield Finding("torch", f"{torch.__version__}, {torch.get_num_threads()} threads")


def _native() -> Iterator[Finding]:
    try:
        native = _load_native()
    except ImportError as error:
        remedy = "what the line above says, or `make build`, or installing the package again"
        yield Finding("native library", _first_line(error), remedy)
        return
    for key, value in native.build_info().items():
        yield Finding(f"built: {key}", _readable(value))
    yield Finding("cpu capability", str(native.cpu_capability()))


def _operators() -> Iterator[Finding]:
    """One operator, forward and backward, against the same formula in float64 eager PyTorch."""
    try:
        yield _self_check("self-check", "cpu")
    except ImportError:
        yield Finding("self-check", "not run: the operators cannot be imported", "mend what stands above first")


def _self_check(name: str, device: str) -> Finding:
    error = _operator_error(device)
    if error <= 1e-5:
        return Finding(name, f"bernoulli_log_prob agrees with the reference (relative error {error:.1e})")
    remedy = "rebuild with `make build`, and report this"
    return Finding(name, f"bernoulli_log_prob is off by {error:.1e}", remedy)


def _operator_error(device: str) -> float:
    """The largest error of `bernoulli_log_prob` and its gradient, relative to the largest value."""
    import torch

    from vae_ext import ops, reference

    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(4, 100, generator=generator)).to(device)
    x = torch.rand(4, 100, generator=generator).to(device)

    def value_and_gradient(operator: Callable[..., Any], dtype: torch.dtype) -> list[Any]:
        leaf = logits.to(dtype).requires_grad_()
        value = operator(leaf, x.to(dtype))
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
        return [value.detach().double(), gradient.double()]

    ours = value_and_gradient(ops.bernoulli_log_prob, torch.float32)
    expected = value_and_gradient(reference.bernoulli_log_prob, torch.float64)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, expected, strict=True))


def _cuda() -> Iterator[Finding]:
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        return
    if torch.version.cuda is None:
        yield Finding("cuda", "not in this build of torch; everything runs on the CPU")
    elif not torch.cuda.is_available():
        yield Finding("cuda", f"torch has CUDA {torch.version.cuda} but sees no usable GPU; everything runs on the CPU")
    else:
        capability = "{}.{}".format(*torch.cuda.get_device_capability())
        yield Finding("cuda", f"{torch.version.cuda}, {torch.cuda.get_device_name()}, capability {capability}")
        yield _cuda_kernels(capability)


def _cuda_kernels(capability: str) -> Finding:
    """The self-check on the current device."""
    info = _load_native().build_info()
    if info["cuda"] is None:
        return Finding("cuda kernels", "none, vae_ext is built for the CPU alone; with nvcc, BUILD_CUDA=1 builds them")
    try:
        return _self_check("cuda kernels", "cuda")
    except RuntimeError as error:
        built = _readable(info["cuda_architectures"])
        remedy = f"rebuild with TORCH_CUDA_ARCH_LIST={capability} (built for {built})"
        return Finding("cuda kernels", _first_line(error), remedy)


def _training() -> Iterator[Finding]:
    """What `vae-ext train` needs beyond the operators."""
    for module, purpose in TRAINING_MODULES.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            yield Finding(module, f"cannot be imported ({_first_line(error)}): needed for {purpose}", INSTALL_TRAINING)


def _load_native() -> ModuleType:
    from vae_ext import _native

    return _native.load()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def _readable(value: object) -> str:
    if value is None:
        return "none"
    return ", ".join(map(str, value)) or "none" if isinstance(value, (list, tuple)) else str(value)

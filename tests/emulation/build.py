"""Builds the emulation, kept in `build/emulation` from one run to the next."""

from __future__ import annotations

import fcntl
import functools
import os
import subprocess
from pathlib import Path
from typing import Literal, TypeAlias

import build_config

Kind: TypeAlias = Literal["plain", "address", "thread"]

_HERE = Path(__file__).parent
_FOLDER = _HERE.parents[1] / "build" / "emulation"
_SANITIZERS: dict[Kind, str] = {"plain": "", "address": "address,undefined", "thread": "thread"}


@functools.cache
def build(kind: Kind = "plain") -> Path:
    """The folder with everything built, up to date; tests of several processes wait for each other."""
    folder = _FOLDER / kind
    folder.mkdir(parents=True, exist_ok=True)
    cmake, ninja = build_config.find_program("cmake"), build_config.find_program("ninja")
    assert cmake, "cmake was not found: install it with `pip install cmake`"
    generator = ["-GNinja", f"-DCMAKE_MAKE_PROGRAM={ninja}"] if ninja else ["-GUnix Makefiles"]
    jobs = os.environ.get("MAX_JOBS", str(os.cpu_count() or 1))
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _run(cmake, f"-S{_HERE}", f"-B{folder}", f"-DVAE_EXT_SANITIZE={_SANITIZERS[kind]}", *generator)
        _run(cmake, "--build", str(folder), "--parallel", jobs)
    return folder


def _run(*command: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout


def run_sanitized(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What a program of any build has to say."""
    environment = os.environ | {
        # A kernel that the emulation stops leaves its threads' memory behind.
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "TSAN_OPTIONS": "atexit_sleep_ms=0",
    }
    return subprocess.run([str(program), *arguments], env=environment, capture_output=True, text=True)

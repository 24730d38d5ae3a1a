"""What the build decides before CMake runs: the compiler, and whether to build for CUDA.

Nothing here imports torch or has side effects, so that every decision can be tested on any machine.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MIN_GCC = 11
MIN_CLANG = 14
# What CMake reads of the environment when it first configures a folder, and keeps from then on.
KEPT_FLAGS = ("CXXFLAGS", "CUDAFLAGS", "LDFLAGS")
INSTALL_COMPILER = "install g++ (Debian, Ubuntu: apt install g++) or name one with the variable CXX"


class BuildError(Exception):
    """The build cannot go on; the message is one sentence saying why and what to do."""


@dataclass(frozen=True)
class CudaDecision:
    enabled: bool
    reason: str


def find_program(name: str) -> str | None:
    """Finds a program, preferring the one installed beside this Python."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    return shutil.which(name, path=path)


def find_compiler(env: Mapping[str, str]) -> str:
    """The C++ compiler to use, checked to be new enough."""
    names = [env["CXX"]] if env.get("CXX") else ["g++", "c++", "clang++"]
    compiler = next(filter(None, (shutil.which(name, path=env.get("PATH")) for name in names)), None)
    if compiler is None:
        raise BuildError(f"No C++ compiler was found ({', '.join(names)}): {INSTALL_COMPILER}.")
    check_compiler(compiler, banner_of(compiler))
    return compiler


def banner_of(compiler: str) -> str:
    """What a compiler says of its version."""
    return subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout


def check_compiler(compiler: str, banner: str) -> None:
    """Raises BuildError if the compiler's `--version` banner tells of one that is too old."""
    kind, minimum = ("Clang", MIN_CLANG) if "clang" in banner else ("GCC", MIN_GCC)
    version = re.search(r"(\d+)\.\d+", re.sub(r"\([^)]*\)", "", banner))
    if version is None:
        raise BuildError(f"{compiler} --version prints no version number, so {INSTALL_COMPILER}.")
    if int(version[1]) < minimum:
        raise BuildError(f"{compiler} is {kind} {version[0]}, expected {minimum} or later: {INSTALL_COMPILER}.")


def check_python_headers(include: str) -> None:
    if not Path(include, "Python.h").is_file():
        raise BuildError(f"Python.h is not in {include}: install Python's headers (Debian: apt install python3-dev).")


def find_nvcc(env: Mapping[str, str]) -> str | None:
    """nvcc in CUDA_HOME (and nowhere else) if that is set, else on the PATH or in /usr/local/cuda."""
    if env.get("CUDA_HOME"):
        return shutil.which("nvcc", path=str(Path(env["CUDA_HOME"], "bin")))
    return shutil.which("nvcc", path=os.pathsep.join([env.get("PATH", os.defpath), "/usr/local/cuda/bin"]))


def nvcc_version(nvcc: str) -> str:
    """The toolkit's version as "major.minor"."""
    release = re.search(r"release (\d+\.\d+)", banner_of(nvcc))
    if release is None:
        raise BuildError(f"{nvcc} --version names no CUDA release: set CUDA_HOME to a working CUDA toolkit.")
    return release[1]


def cuda_request(env: Mapping[str, str]) -> str:
    """BUILD_CUDA, or "1" where FORCE_CUDA asks for it: one of "auto", "0", "1"."""
    request = env.get("BUILD_CUDA") or "auto"
    if request not in ("auto", "0", "1"):
        raise BuildError(f"BUILD_CUDA is {request!r}, expected auto, 0 or 1.")
    if env.get("FORCE_CUDA", "0") in ("", "0"):
        return request
    if request == "0":
        raise BuildError("FORCE_CUDA asks for CUDA and BUILD_CUDA=0 forbids it: set only one of them.")
    return "1"


def default_arch_list(nvcc: str) -> str:
    """The TORCH_CUDA_ARCH_LIST to build for where none is given; PTX of the last one serves whatever comes after it."""
    blackwell = tuple(map(int, nvcc.split("."))) >= (12, 8)
    return "8.0 9.0 10.0 12.0+PTX" if blackwell else "8.0 9.0+PTX"


def cuda_architectures(arch_list: str) -> list[str]:
    """Translates TORCH_CUDA_ARCH_LIST ("8.0 9.0a+PTX") to CMake's names (80-real, 90a-real, 90a-virtual)."""
    names = []
    for entry in re.split(r"[\s;,]+", arch_list.strip()):
        match = re.fullmatch(r"(\d+)\.(\d[af]?)(\+PTX)?", entry)
        if match is None:
            raise BuildError(
                f"TORCH_CUDA_ARCH_LIST has the entry {entry!r}, expected capabilities as in '8.0;9.0+PTX'."
            )
        arch = match[1] + match[2]
        names += [f"{arch}-real"] + ([f"{arch}-virtual"] if match[3] else [])
    return names


def cuda_options(env: Mapping[str, str], compiler: str) -> list[str]:
    """What CMake is told of a CUDA build that was decided for; `compiler` is the host's."""
    nvcc = find_nvcc(env)
    assert nvcc is not None
    architectures = cuda_architectures(env.get("TORCH_CUDA_ARCH_LIST") or default_arch_list(nvcc_version(nvcc)))
    return [
        "-DVAE_EXT_CUDA=ON",
        f"-DCMAKE_CUDA_COMPILER={nvcc}",
        f"-DCMAKE_CUDA_HOST_COMPILER={compiler}",
        f"-DCMAKE_CUDA_ARCHITECTURES={';'.join(architectures)}",
    ]


def decide_cuda(request: str, torch_version: str, torch_cuda: str | None, nvcc: str | None) -> CudaDecision:
    """Whether to build for CUDA and why; `nvcc` is the toolkit's version. No GPU is ever looked for.

    Raises BuildError if the request is "1" and cannot be met.
    """
    if request == "0":
        return CudaDecision(False, "BUILD_CUDA=0")
    obstacle = cuda_obstacle(torch_version, torch_cuda, nvcc)
    if obstacle is None:
        return CudaDecision(True, f"torch {torch_version} is built with CUDA {torch_cuda} and nvcc is CUDA {nvcc}")
    if request == "1":
        raise BuildError(f"A CUDA build was asked for (BUILD_CUDA=1 or FORCE_CUDA=1), but {obstacle}.")
    return CudaDecision(False, obstacle)


def cuda_obstacle(torch_version: str, torch_cuda: str | None, nvcc: str | None) -> str | None:
    """What stands in the way of a CUDA build, with the remedy, or None."""
    if torch_cuda is None:
        return f"torch {torch_version} is built without CUDA"
    if nvcc is None:
        return f"nvcc was not found (install the CUDA {torch_cuda} toolkit, or set CUDA_HOME to it)"
    if nvcc.split(".")[0] != torch_cuda.split(".")[0]:
        return (
            f"nvcc is CUDA {nvcc} and torch {torch_version} is built with CUDA {torch_cuda} "
            f"(set CUDA_HOME to a CUDA {torch_cuda} toolkit, or install a torch for CUDA {nvcc})"
        )
    return None


def folder_name(options: Sequence[str], env: Mapping[str, str], compilers: Sequence[str]) -> str:
    """The build folder of this configuration: another one for whatever would leave objects of an old one stale.

    That is CMake's options, the flags that it keeps, and what is now at the compilers' paths.
    """
    configuration = [platform.machine(), *options, *(env.get(name, "") for name in KEPT_FLAGS)]
    configuration += map(banner_of, compilers)
    digest = hashlib.sha256(repr(configuration).encode()).hexdigest()[:8]
    return f"{sys.implementation.cache_tag}-{digest}"

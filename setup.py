"""Finds torch, decides CUDA, runs CMake; everything else is in pyproject.toml and CMakeLists.txt."""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "tools"))

import build_config  # noqa: E402
from build_config import BuildError, CudaDecision  # noqa: E402


def import_torch():
    try:
        import torch
    except ImportError as error:
        raise BuildError(
            f"vae_ext is built against the torch it will run with, and torch cannot be imported ({error}): "
            "install torch first, then build with `pip install --no-build-isolation`."
        ) from error
    return torch


def decide_cuda(torch) -> CudaDecision:
    nvcc = build_config.find_nvcc(os.environ)
    return build_config.decide_cuda(
        build_config.cuda_request(os.environ),
        torch.__version__,
        torch.version.cuda,
        nvcc and build_config.nvcc_version(nvcc),
    )


def cmake_options(torch, cuda: bool) -> list[str]:
    """What CMake is told on its command line."""
    build_config.check_python_headers(sysconfig.get_path("include"))
    compiler = build_config.find_compiler(os.environ)
    options = [
        "-DCMAKE_BUILD_TYPE=Release",
        f"-DCMAKE_CXX_COMPILER={compiler}",
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-DTORCH_DIR={Path(torch.__file__).parent}",
        f"-DTORCH_VERSION={torch.__version__}",
        *(build_config.cuda_options(os.environ, compiler) if cuda else []),
    ]
    ninja = build_config.find_program("ninja")
    options += ["-GNinja", f"-DCMAKE_MAKE_PROGRAM={ninja}"] if ninja else ["-GUnix Makefiles"]
    return options + shlex.split(os.environ.get("CMAKE_ARGS", ""))


def build_native() -> Path:
    """Configures and builds in a folder of this configuration's own, so that no cache is stale."""
    torch = import_torch()
    decision = decide_cuda(torch)
    print(f"vae_ext: building for {'CUDA' if decision.enabled else 'CPU'}: {decision.reason}.", flush=True)
    cmake = build_config.find_program("cmake")
    if cmake is None:
        raise BuildError("cmake was not found: install it with `pip install cmake`.")
    options = cmake_options(torch, decision.enabled)
    compilers = [build_config.find_compiler(os.environ)]
    if decision.enabled:
        compilers.append(build_config.find_nvcc(os.environ))
    folder = ROOT / "build" / build_config.folder_name(options, os.environ, compilers)
    jobs = os.environ.get("MAX_JOBS") or str(len(os.sched_getaffinity(0)))
    try:
        configure = [cmake, "--log-level=WARNING", f"-S{ROOT}", f"-B{folder}", *options]
        subprocess.run(configure, check=True, stdout=subprocess.DEVNULL)
        subprocess.run([cmake, "--build", str(folder), "--parallel", jobs], check=True)
    except subprocess.CalledProcessError as error:
        raise BuildError("The native build failed; the compiler's or CMake's own words are above.") from error
    return folder


class BuildNative(build_ext):
    def build_extension(self, ext: Extension) -> None:
        library = Path(self.get_ext_fullpath(ext.name))
        library.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copy2(build_native() / library.name, library)
        except BuildError as error:
            sys.exit(f"error: {error}")


setup(ext_modules=[Extension("vae_ext._C", sources=[])], cmdclass={"build_ext": BuildNative})

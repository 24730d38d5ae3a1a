"""What the build decides and says, for machines that this one is not."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from build_config import (
    BuildError,
    check_compiler,
    check_python_headers,
    cuda_architectures,
    cuda_options,
    cuda_request,
    decide_cuda,
    default_arch_list,
    find_compiler,
    find_nvcc,
    folder_name,
    nvcc_version,
)

from vae_ext import _native

pytestmark = pytest.mark.cpu_only("about the build")

ROOT = Path(__file__).resolve().parent.parent


def executable(path: Path, *, prints: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{prints}\nEND\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("env", "request_"),
    [
        ({}, "auto"),
        ({"BUILD_CUDA": ""}, "auto"),
        ({"BUILD_CUDA": "0"}, "0"),
        ({"BUILD_CUDA": "1"}, "1"),
        ({"FORCE_CUDA": "1"}, "1"),
        ({"FORCE_CUDA": "0"}, "auto"),
        ({"FORCE_CUDA": "1", "BUILD_CUDA": "auto"}, "1"),
    ],
)
def test_cuda_request(env: dict[str, str], request_: str) -> None:
    assert cuda_request(env) == request_


@pytest.mark.parametrize("value", ["yes", "2", "ON"])
def test_cuda_request_rejects_other_values(value: str) -> None:
    with pytest.raises(BuildError, match=f"BUILD_CUDA is '{value}', expected auto, 0 or 1"):
        cuda_request({"BUILD_CUDA": value})


def test_cuda_request_rejects_a_contradiction() -> None:
    with pytest.raises(BuildError, match="FORCE_CUDA asks for CUDA and BUILD_CUDA=0 forbids it"):
        cuda_request({"BUILD_CUDA": "0", "FORCE_CUDA": "1"})


OBSTACLES = [
    pytest.param(None, "13.0", r"torch 2\.13\.0 is built without CUDA", id="torch without CUDA"),
    pytest.param("13.0", None, r"nvcc was not found .*CUDA 13\.0 toolkit", id="no nvcc"),
    pytest.param("13.0", "12.8", r"nvcc is CUDA 12\.8 and torch 2\.13\.0 .*CUDA 13\.0", id="mismatch"),
]


@pytest.mark.parametrize(("torch_cuda", "nvcc", "message"), OBSTACLES)
def test_build_cuda_1_fails_loudly(torch_cuda: str | None, nvcc: str | None, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        decide_cuda("1", "2.13.0", torch_cuda, nvcc)


@pytest.mark.parametrize(("torch_cuda", "nvcc", "message"), OBSTACLES)
def test_build_cuda_auto_builds_for_cpu_and_says_why(torch_cuda: str | None, nvcc: str | None, message: str) -> None:
    decision = decide_cuda("auto", "2.13.0", torch_cuda, nvcc)
    assert not decision.enabled
    with pytest.raises(BuildError, match=message):
        raise BuildError(decision.reason)


@pytest.mark.parametrize("request_", ["auto", "1"])
@pytest.mark.parametrize("nvcc", ["13.0", "13.2"])
def test_cuda_is_built_where_torch_and_nvcc_agree(request_: str, nvcc: str) -> None:
    assert decide_cuda(request_, "2.13.0", "13.0", nvcc).enabled


def test_build_cuda_0_is_obeyed() -> None:
    assert not decide_cuda("0", "2.13.0", "13.0", "13.0").enabled


def test_nvcc_is_looked_for_in_cuda_home_alone(tmp_path: Path) -> None:
    on_path = executable(tmp_path / "path" / "nvcc")
    at_home = executable(tmp_path / "cuda" / "bin" / "nvcc")
    path = {"PATH": str(on_path.parent)}
    assert find_nvcc(path) == str(on_path)
    assert find_nvcc(path | {"CUDA_HOME": str(tmp_path / "cuda")}) == str(at_home)
    assert find_nvcc(path | {"CUDA_HOME": str(tmp_path / "elsewhere")}) is None


def test_nvcc_version(tmp_path: Path) -> None:
    banner = "nvcc: NVIDIA (R) Cuda compiler driver\nCuda compilation tools, release 13.0, V13.0.88"
    assert nvcc_version(str(executable(tmp_path / "nvcc", prints=banner))) == "13.0"
    with pytest.raises(BuildError, match="names no CUDA release"):
        nvcc_version(str(executable(tmp_path / "broken", prints="bus error")))


def test_cuda_architectures() -> None:
    assert cuda_architectures("8.0 9.0a+PTX;12.0") == ["80-real", "90a-real", "90a-virtual", "120-real"]
    with pytest.raises(BuildError, match="'Hopper', expected capabilities"):
        cuda_architectures("8.0;Hopper")


@pytest.mark.parametrize("nvcc", ["12.6", "12.8", "13.0"])
def test_default_architectures_end_in_ptx_for_those_to_come(nvcc: str) -> None:
    names = cuda_architectures(default_arch_list(nvcc))
    assert {"80-real", "90-real"} <= set(names)
    assert ("100-real" in names) == (nvcc != "12.6")
    assert names[-1].endswith("-virtual")


def test_cmake_is_told_the_architectures_that_were_asked_for(tmp_path: Path) -> None:
    nvcc = executable(tmp_path / "bin" / "nvcc", prints="Cuda compilation tools, release 12.6, V12.6.1")
    at_home = {"CUDA_HOME": str(tmp_path)}
    assert f"-DCMAKE_CUDA_COMPILER={nvcc}" in cuda_options(at_home, "g++")
    assert "-DCMAKE_CUDA_HOST_COMPILER=g++" in cuda_options(at_home, "g++")
    assert "-DCMAKE_CUDA_ARCHITECTURES=80-real;90-real;90-virtual" in cuda_options(at_home, "g++")
    wish = at_home | {"TORCH_CUDA_ARCH_LIST": "9.0a"}
    assert "-DCMAKE_CUDA_ARCHITECTURES=90a-real" in cuda_options(wish, "g++")


def test_other_options_flags_and_compilers_have_another_build_folder(tmp_path: Path) -> None:
    compiler = executable(tmp_path / "g++", prints="g++ 12.2.0")
    name = folder_name(["-DA=1"], {}, [str(compiler)])
    assert folder_name(["-DA=1"], {"HOME": "/root"}, [str(compiler)]) == name
    names = {name, folder_name(["-DA=2"], {}, [str(compiler)])}
    names |= {folder_name(["-DA=1"], {flags: "-O1"}, [str(compiler)]) for flags in ("CXXFLAGS", "CUDAFLAGS", "LDFLAGS")}
    executable(compiler, prints="g++ 13.1.0")
    names.add(folder_name(["-DA=1"], {}, [str(compiler)]))
    assert len(names) == 6


@pytest.mark.parametrize(
    "banner",
    [
        "g++ (Debian 12.2.0-14+deb12u1) 12.2.0",
        "g++ (GCC) 11.4.1 20231218 (Red Hat 11.4.1-3)",
        "Ubuntu clang version 14.0.0-1ubuntu1.1",
    ],
)
def test_new_compilers_are_accepted(banner: str) -> None:
    check_compiler("c++", banner)


@pytest.mark.parametrize(
    ("banner", "message"),
    [
        ("g++ (Ubuntu 9.4.0-1ubuntu1~20.04.2) 9.4.0", "is GCC 9.4, expected 11 or later"),
        ("clang version 10.0.0-4ubuntu1", "is Clang 10.0, expected 14 or later"),
        ("", "prints no version number"),
    ],
)
def test_old_compilers_are_named(banner: str, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        check_compiler("c++", banner)


def test_missing_compiler_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"No C\+\+ compiler was found \(icpx\)"):
        find_compiler({"CXX": "icpx", "PATH": str(tmp_path)})
    with pytest.raises(BuildError, match="apt install g"):
        find_compiler({"PATH": str(tmp_path)})


def test_missing_python_headers_are_named(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="apt install python3-dev"):
        check_python_headers(str(tmp_path))


def run_setup(tmp_path: Path, *, env: dict[str, str]) -> str:
    command = [sys.executable, str(ROOT / "setup.py"), "--quiet", "build_ext"]
    folders = ["--build-lib", str(tmp_path / "lib"), "--build-temp", str(tmp_path / "temp")]
    done = subprocess.run(
        command + folders, cwd=ROOT, env=os.environ | env, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    return done.stderr


def test_setup_without_torch_says_to_install_it_first(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('not here')")
    words = run_setup(tmp_path, env={"PYTHONPATH": str(tmp_path)})
    assert "install torch first" in words
    assert "--no-build-isolation" in words
    assert "Traceback" not in words


def test_setup_with_build_cuda_1_fails_in_a_sentence(tmp_path: Path) -> None:
    words = run_setup(tmp_path, env={"BUILD_CUDA": "1", "CUDA_HOME": str(tmp_path)})
    assert "A CUDA build was asked for" in words
    assert "Traceback" not in words


def test_setup_without_a_compiler_fails_in_a_sentence(tmp_path: Path) -> None:
    words = run_setup(tmp_path, env={"CXX": "no-such-compiler", "BUILD_CUDA": "0", "FORCE_CUDA": "0"})
    assert "No C++ compiler was found (no-such-compiler)" in words
    assert "Traceback" not in words


def test_preflight_names_the_missing_venv_module(tmp_path: Path) -> None:
    command = "import sys; sys.modules['ensurepip'] = None; import runpy; runpy.run_path('tools/preflight.py')"
    done = subprocess.run(
        [sys.executable, "-c", command],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "tools")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "apt install python3-venv" in done.stderr
    assert "Traceback" not in done.stderr


def test_make_names_the_missing_python(tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    done = subprocess.run(
        ["make", "build", "PYTHON=no-such-python", f"VENV={tmp_path}/venv"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "no-such-python was not found: install Python 3.10 or later" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_build_info_tells_what_is_running() -> None:
    info = _native.load().build_info()
    assert info["torch"].split(".")[:2] == torch.__version__.split(".")[:2]
    assert info["isas"][0] == "Baseline"
    assert (info["cuda"] in (None, "emulated")) == (not info["cuda_architectures"])


def test_a_library_built_with_another_torch_is_refused(tmp_path: Path) -> None:
    library = tmp_path / "_C.so"
    library.write_bytes(b"\x7fELF\0vae_ext built with torch 1.13.1+cu117\n\0")
    built_with = _native.torch_built_with(library)
    assert built_with == "1.13.1+cu117"
    with pytest.raises(ImportError, match=r"torch 1\.13\.1\+cu117 and this is torch 2\.13\.0: rebuild"):
        _native.check_torch_version(built_with, "2.13.0")
    _native.check_torch_version("2.13.0+cpu", "2.13.1")


def test_a_file_that_is_no_library_is_refused(tmp_path: Path) -> None:
    library = tmp_path / "_C.so"
    library.write_bytes(b"something else")
    with pytest.raises(ImportError, match="is not a native library of vae_ext"):
        _native.torch_built_with(library)


PARALLEL_OPERATOR = """
import torch, vae_ext
torch.set_num_threads(2)
vae_ext.normal_kl(torch.randn(4096, 512), torch.randn(4096, 512))
maps = [line.split()[-1] for line in open("/proc/self/maps") if ".so" in line]
print(*{path for path in maps if any(name in path for name in ("libgomp", "libiomp", "libomp"))}, sep="\\n")
"""


@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc/self/maps")
def test_one_openmp_runtime_is_loaded() -> None:
    output = subprocess.run(
        [sys.executable, "-c", PARALLEL_OPERATOR], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert len(output.split()) == 1, output

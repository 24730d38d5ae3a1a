"""The kernel objects of one instruction set must not leak into code that runs on machines without it."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from vae_ext._native import load

ISAS = ("Baseline", "Avx2", "Avx512")
INFO = load().build_info()

pytestmark = [
    pytest.mark.cpu_only("about instruction sets of the CPU"),
    pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="not an x86-64 machine"),
    pytest.mark.skipif(not (shutil.which("nm") and shutil.which("objdump")), reason="no binutils"),
    pytest.mark.skipif(INFO["sanitizers"] is not None, reason="sanitizers add symbols of their own"),
    pytest.mark.skipif(not Path(INFO["build_dir"]).is_dir(), reason=f"no build tree at {INFO['build_dir']}"),
]


def objects(isa: str) -> list[str]:
    found = sorted(map(str, Path(INFO["build_dir"], "CMakeFiles", f"kernels_{isa}.dir").rglob("*.o")))
    assert found, f"no kernel objects for {isa} in {INFO['build_dir']}"
    return found


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def registers(isa: str) -> set[str]:
    """The kinds of vector register that the code of an instruction set uses."""
    code = "".join(run("objdump", "--disassemble", "--no-show-raw-insn", file) for file in objects(isa))
    return set(re.findall(r"%([xyz]mm)\d", code))


def defined_symbols(isa: str) -> list[tuple[str, str]]:
    """Every symbol the objects define for the linker to see, as (type letter, demangled name)."""
    lines = run("nm", "--demangle", "--extern-only", "--defined-only", *objects(isa)).splitlines()
    matches = (re.fullmatch(r"[0-9a-f]+ (\S) (.+)", line) for line in lines)
    return [(match[1], match[2]) for match in matches if match]


def test_every_instruction_set_is_built() -> None:
    assert INFO["isas"] == list(ISAS)


@pytest.mark.parametrize("isa", ISAS)
def test_no_symbol_can_replace_one_of_another_instruction_set(isa: str) -> None:
    symbols = defined_symbols(isa)
    assert symbols, "the objects define nothing"
    assert [name for kind, name in symbols if kind in "WVuwv"] == []  # weak: the linker keeps any one of them
    expected = re.compile(rf"(void )?vae_ext::cpu::\w+<vae_ext::cpu::{isa}>\(.*")
    assert [name for _, name in symbols if not expected.fullmatch(name)] == []


@pytest.mark.parametrize("isa", ISAS)
def test_kernels_know_nothing_of_torch(isa: str) -> None:
    undefined = run("nm", "--demangle", "--undefined-only", *objects(isa))
    assert re.findall(r".*\b(?:at|c10|torch)::.*", undefined) == []


def test_vector_registers_are_those_of_the_instruction_set() -> None:
    assert registers("Baseline") == {"xmm"}
    assert {"ymm"} <= registers("Avx2") <= {"xmm", "ymm"}
    assert "zmm" in registers("Avx512")

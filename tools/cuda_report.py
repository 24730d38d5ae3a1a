"""What nvcc made of the CUDA kernels: registers, shared memory, spills, and how wide they load.

`python -m tools.cuda_report` takes the build that `vae_ext` loads, and compiles every .cu of it once more with the
build's own flags, for the first of its architectures, to PTX and from there to machine code. It prints a table and
fails where a hot kernel spills registers or has no loads of 16 bytes.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

# What is not hot runs once for a call, on little: its loads may be narrow.
COLD = re.compile(r"\b(sum_spans|sum_event|probe)")

_USAGE = re.compile(
    r"Compiling entry function '(?P<symbol>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)
_ENTRY = re.compile(r"\.entry\s+(\w+)\s*\(")
# From device memory, or from where the compiler cannot tell: ld.global.nc.L1::no_allocate.v4.f32.
_WIDE_LOAD = re.compile(r"\bld(?:\.(?!shared|local|param|const)[\w:]+)*?\.(?:v4|v8|v2(?=\.\w64))\.\w(?:32|64)\b")


class ReportError(Exception):
    """There is nothing to report, or it is bad; the message says why."""


@dataclass(frozen=True)
class Usage:
    """What ptxas says of one kernel; sizes in bytes."""

    registers: int
    shared: int
    stack: int
    spills: int


@dataclass(frozen=True)
class Kernel:
    """One instantiation of one kernel."""

    name: str
    usage: Usage
    wide_loads: int

    @property
    def hot(self) -> bool:
        return COLD.search(self.name) is None


def parse_usage(ptxas_output: str) -> dict[str, Usage]:
    """The symbol and usage of every kernel in the output of `ptxas -v`."""
    found: dict[str, Usage] = {}
    for match in _USAGE.finditer(ptxas_output):
        shared = re.search(r"(\d+)(?:\+\d+)? bytes smem", match["rest"])
        found[match["symbol"]] = Usage(
            registers=int(match["registers"]),
            shared=int(shared[1]) if shared else 0,
            stack=int(match["stack"]),
            spills=int(match["stores"]) + int(match["loads"]),
        )
    return found


def count_wide_loads(ptx: str) -> dict[str, int]:
    """The symbol of every kernel in a PTX text, and how many of its loads are of 16 bytes or more."""
    _, *parts = _ENTRY.split(ptx)
    return {symbol: len(_WIDE_LOAD.findall(body)) for symbol, body in zip(parts[::2], parts[1::2], strict=True)}


def readable(name: str) -> str:
    """A demangled name without return type, namespaces and parameters: `sum_rows<float, NormalKl<ScaleKind 0>>`."""
    name = name.removeprefix("void ").replace("(anonymous namespace)::", "")
    name = re.sub(r"\((?:\w+::)*(\w+)\)(-?\d+)", r"\1 \2", name)
    name = re.sub(r"\b_INTERNAL_\w+::|\bvae_ext::|\bcuda::", "", name)
    return re.sub(r">\s+(?=>)", ">", name.partition("(")[0])


def demangle(symbols: Sequence[str]) -> list[str]:
    """The symbols in C++, where there is a demangler; else as they are."""
    demangler = shutil.which("cu++filt") or shutil.which("c++filt")
    if demangler is None:
        return list(symbols)
    done = subprocess.run([demangler], input="\n".join(symbols), capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def compile_to_ptx(command: Sequence[str], ptx: str) -> tuple[list[str], str]:
    """The build's command for one object turned into one for PTX, and the architecture it is for: "90"."""
    architecture = next((found[1] for word in command if (found := re.search(r"arch=compute_(\d+[af]?)", word))), None)
    if architecture is None:
        raise ReportError(f"{shlex.join(command)} names no architecture, expected --generate-code=arch=compute_...")
    kept = [word for word in command if "arch=compute_" not in word and word != "-c"]
    kept[kept.index("-o") + 1] = ptx
    return [*kept, "-ptx", f"-arch=compute_{architecture}"], architecture


def examine(command: Sequence[str], directory: str) -> tuple[dict[str, Usage], dict[str, int]]:
    """Usage and wide loads of the kernels in one source."""
    with tempfile.TemporaryDirectory() as folder:
        ptx = Path(folder, "kernels.ptx")
        to_ptx, architecture = compile_to_ptx(command, str(ptx))
        _run(to_ptx, directory)
        output = _run(
            [command[0], "-cubin", f"-arch=sm_{architecture}", "-Xptxas=-v", str(ptx), "-o", os.devnull], directory
        )
        return parse_usage(output), count_wide_loads(ptx.read_text())


def _run(command: Sequence[str], directory: str) -> str:
    done = subprocess.run(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise ReportError(f"{shlex.join(command)} failed:\n{done.stdout}")
    return done.stdout


def kernels_of(build: Path) -> list[Kernel]:
    """Every kernel of a build, by name."""
    commands = json.loads((build / "compile_commands.json").read_text())
    cuda = [entry for entry in commands if entry["file"].endswith(".cu")]
    if not cuda:
        raise ReportError(f"{build} was not built with CUDA (build_info()['cuda'] is None): nothing to report.")
    jobs = int(os.environ.get("MAX_JOBS") or len(os.sched_getaffinity(0)))
    usages: dict[str, Usage] = {}
    wide_loads: dict[str, int] = {}
    with ThreadPoolExecutor(jobs) as pool:
        for usage, loads in pool.map(lambda entry: examine(shlex.split(entry["command"]), entry["directory"]), cuda):
            usages |= usage
            wide_loads |= loads
    names = [readable(name) for name in demangle(list(usages))]
    kernels = [Kernel(name, usages[symbol], wide_loads[symbol]) for name, symbol in zip(names, usages, strict=True)]
    return sorted(kernels, key=lambda kernel: kernel.name)


def complaints(kernels: Iterable[Kernel]) -> Iterator[str]:
    """A sentence for every hot kernel that spills, and for every kernel none of whose instantiations loads wide."""
    hot = [kernel for kernel in kernels if kernel.hot]
    for kernel in hot:
        if kernel.usage.spills:
            yield f"{kernel.name} spills {kernel.usage.spills} bytes of registers; expected none."
        if kernel.wide_loads == 0:
            yield f"{kernel.name} never loads 16 bytes at a time."


def table(kernels: Iterable[Kernel]) -> Iterator[str]:
    """A line for each kernel template, over its instantiations."""
    headings = ("registers", "shared", "stack", "spills", "16-byte loads")
    yield " ".join([f"{'kernel':40} variants", *(f"{heading:>13}" for heading in headings)])
    for name, group in groupby(kernels, key=lambda kernel: kernel.name.partition("<")[0]):
        variants = list(group)
        columns = [
            _range(variant.usage.registers for variant in variants),
            _range(variant.usage.shared for variant in variants),
            _range(variant.usage.stack for variant in variants),
            _range(variant.usage.spills for variant in variants),
            _range(variant.wide_loads for variant in variants),
        ]
        yield " ".join([f"{name:40} {len(variants):8}", *(f"{text:>13}" for text in columns)])


def _range(values: Iterable[int]) -> str:
    distinct = sorted(set(values))
    return str(distinct[0]) if len(distinct) == 1 else f"{distinct[0]}-{distinct[-1]}"


def main() -> None:
    from vae_ext import _native

    try:
        kernels = kernels_of(Path(_native.load().build_info()["build_dir"]))
    except ReportError as error:
        sys.exit(f"cuda_report: {error}")
    print(*table(kernels), sep="\n")
    bad = list(complaints(kernels))
    if bad:
        sys.exit("\n".join(bad))


if __name__ == "__main__":
    main()

"""What nvcc made of the CUDA kernels: registers, shared memory, spills, and how wide they load.

`python -m tools.cuda_report` takes the build that `vae_ext` loads, and compiles every .cu of it once more with the
build's own flags, for the first of its architectures, to PTX and from there to machine code. It prints a table and
fails where a hot kernel spills registers, or loads less than the 16 bytes at a time that its alignment allows.
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

# Rows that are dense and aligned, in the types that training is in.
HOT = re.compile(r"\bGroups<(?!double)")
# Halves that are aligned to one group of four, and not to two of them.
NARROW = re.compile(r"\bGroups<b?float16\b[^<>]*, (?:int )?1>")

_USAGE = re.compile(
    r"Compiling entry function '(?P<symbol>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)
_ENTRY = re.compile(r"\.entry\s+(\w+)\s*\(")
_LOAD = re.compile(r"\bld\.[\w.:]+")
_NOT_DEVICE_MEMORY = {"shared", "local", "param", "const"}


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
    widest_load: int  # bytes

    @property
    def hot(self) -> bool:
        return HOT.search(self.name) is not None

    @property
    def expected_load(self) -> int:
        return 8 if NARROW.search(self.name) else 16


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


def widest_loads(ptx: str) -> dict[str, int]:
    """The symbol of every kernel in a PTX text, and the bytes of its widest load of device memory."""
    _, *parts = _ENTRY.split(ptx)
    return {
        symbol: max(map(_loaded_bytes, _LOAD.findall(body)), default=0)
        for symbol, body in zip(parts[::2], parts[1::2], strict=True)
    }


def _loaded_bytes(mnemonic: str) -> int:
    """What ld.global.nc.L1::no_allocate.v4.f32 loads, for instance: 16; nothing, if not from device memory."""
    _, *modifiers, type_ = mnemonic.split(".")
    if _NOT_DEVICE_MEMORY & {modifier.partition("::")[0] for modifier in modifiers}:
        return 0
    count = next((int(modifier[1:]) for modifier in modifiers if re.fullmatch(r"v\d", modifier)), 1)
    return count * int(type_[1:]) // 8


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
    """Usage and widest loads of the kernels in one source."""
    with tempfile.TemporaryDirectory() as folder:
        ptx = Path(folder, "kernels.ptx")
        to_ptx, architecture = compile_to_ptx(command, str(ptx))
        _run(to_ptx, directory)
        output = _run(
            [command[0], "-cubin", f"-arch=sm_{architecture}", "-Xptxas=-v", str(ptx), "-o", os.devnull], directory
        )
        return parse_usage(output), widest_loads(ptx.read_text())


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
    widest: dict[str, int] = {}
    with ThreadPoolExecutor(jobs) as pool:
        for usage, loads in pool.map(lambda entry: examine(shlex.split(entry["command"]), entry["directory"]), cuda):
            usages |= usage
            widest |= loads
    names = [readable(name) for name in demangle(list(usages))]
    kernels = [Kernel(name, usages[symbol], widest[symbol]) for name, symbol in zip(names, usages, strict=True)]
    return sorted(kernels, key=lambda kernel: kernel.name)


def complaints(kernels: Iterable[Kernel]) -> Iterator[str]:
    """A sentence for every hot kernel that spills, or loads less at a time than it could."""
    for kernel in filter(lambda kernel: kernel.hot, kernels):
        if kernel.usage.spills:
            yield f"{kernel.name} spills {kernel.usage.spills} bytes of registers; expected none."
        if kernel.widest_load < kernel.expected_load:
            yield f"{kernel.name} loads {kernel.widest_load} bytes at a time; expected {kernel.expected_load}."


def table(kernels: Iterable[Kernel]) -> Iterator[str]:
    """A line for each kernel template and whether it is hot, over its instantiations."""
    headings = ("registers", "shared", "stack", "spills", "widest load")
    yield " ".join([f"{'kernel':58} variants", *(f"{heading:>13}" for heading in headings)])
    for name, group in groupby(sorted(kernels, key=_family), key=_family):
        variants = list(group)
        columns = [
            _range(variant.usage.registers for variant in variants),
            _range(variant.usage.shared for variant in variants),
            _range(variant.usage.stack for variant in variants),
            _range(variant.usage.spills for variant in variants),
            _range(variant.widest_load for variant in variants),
        ]
        yield " ".join([f"{name:58} {len(variants):8}", *(f"{text:>13}" for text in columns)])


def _family(kernel: Kernel) -> str:
    """The kernel and its formula, less parameterisations and types: `map_rows_kernel<NormalKlGradient>, hot`."""
    kind = re.sub(r"<(ScaleKind|Elements|Groups).*|, .*", "", kernel.name.replace("Plain<", "")).rstrip("<>")
    return f"{kind}>{', hot' if kernel.hot else ''}" if "<" in kind else kind


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

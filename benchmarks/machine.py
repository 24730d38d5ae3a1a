"""The machine that measures: what it is, how fast its memory is, and what else runs on it."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import vae_ext
from benchmarks.timing import seconds_of
from vae_ext import _native

# A machine on which others keep more cores busy than this, and more than this share of all, is not quiet.
_QUIET_CORES, _QUIET_SHARE = 0.15, 0.03

_ROOT = Path(__file__).parent.parent
# On a CUDA device many times what its cache holds; anywhere no more than half of what is free.
_BANDWIDTH_FLOATS = {"cpu": 128 * 1024**2, "cuda": 1024**3}
_BANDWIDTH_CALLS = 15


@dataclass(frozen=True)
class Bandwidth:
    """What memory gives, in bytes per second."""

    read: float
    copy: float  # counting what is read and what is written


def measure_bandwidth(device: str) -> Bandwidth:
    """Reads and copies half a gibibyte, or four, in the ways that torch has, and takes the best."""
    floats = min(_BANDWIDTH_FLOATS[device], available_memory(device) // 16)
    source, destination = torch.ones(2, floats, device=device)
    readers: list[tuple[Callable[[], object], int]] = [
        (source.sum, source.nbytes),
        (lambda: torch.linalg.vector_norm(source), source.nbytes),
        (source.view(torch.int32).amax, source.nbytes),
        (lambda: torch.dot(source, destination), 2 * source.nbytes),
    ]
    return Bandwidth(
        read=max(nbytes / _fastest(reader) for reader, nbytes in readers),
        copy=2 * source.nbytes / _fastest(lambda: destination.copy_(source)),
    )


def _fastest(call: Callable[[], object]) -> float:
    return min(seconds_of(call) for _ in range(_BANDWIDTH_CALLS))


def quiet_cores(cores: int) -> float:
    """How many of so many cores others may keep busy."""
    return max(_QUIET_CORES, _QUIET_SHARE * cores)


class OtherLoad:
    """How many cores are busy with anything but the processes `pids` names, from when this was made.

    What they have started is counted once it has ended: so are processes that another has taken the place of.
    """

    def __init__(self, pids: Callable[[], Sequence[int]]) -> None:
        self._pids = pids
        self._start, self._busy, self._own = time.monotonic(), _busy_seconds(), self._own_seconds()

    def cores(self) -> float:
        busy, own = _busy_seconds() - self._busy, self._own_seconds() - self._own
        return max(0.0, busy - own) / (time.monotonic() - self._start)

    def _own_seconds(self) -> float:
        return sum(_seconds_of_process(pid) for pid in self._pids())


def _busy_seconds() -> float:
    """The time that all cores have spent on anything, or that a hypervisor gave to someone else."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields[:8]
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _seconds_of_process(pid: int) -> float:
    """The time a process has computed, and those of its children that have ended."""
    # Behind the name, which may have spaces: proc(5) counts utime, stime, cutime and cstime as fields 14 to 17.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def available_memory(device: str) -> int:
    """The memory that can be had, on the CPU without swapping, in bytes.

    What this process was given back and keeps for later counts: it is let go first.
    """
    if device == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info()[0]
    # glibc's, which torch is built for.
    ctypes.CDLL(None).malloc_trim(0)
    kibibytes = _field("/proc/meminfo", "MemAvailable").split()[0]
    return int(kibibytes) * 1024


def describe(device: str) -> dict[str, Any]:
    """What a result depends on."""
    native = _native.load()
    gpu = {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda} if device == "cuda" else {}
    return gpu | {
        "cpu": _field("/proc/cpuinfo", "model name") or platform.machine(),
        # Its neighbours are seen in what they take alone.
        "virtual": "hypervisor" in _field("/proc/cpuinfo", "flags").split(),
        "cores": len(os.sched_getaffinity(0)),
        "cores_of_all": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "isa": native.cpu_capability(),
        "system": platform.platform(),
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "vae_ext": vae_ext.__version__,
        "compiler": native.build_info()["compiler"],
        "commit": _commit(),
    }


def _field(path: str, name: str) -> str:
    match = re.search(rf"^{name}\s*:\s*(.*)$", Path(path).read_text(), re.MULTILINE)
    return match[1] if match else ""


def _commit() -> str:
    """The commit of the sources, with "-dirty" after it where they differ from it."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=_ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"

"""What large tensors cost with the allocator as it comes, with huge pages and with memory kept.

`python -m benchmarks.allocator` prints a table of `bernoulli_log_prob` fwd+bwd, float32, ours and eager interleaved,
each row in a process of its own.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table

import vae_ext
from benchmarks.timing import Effort, Timing, interleave
from benchmarks.worker import AS_IT_COMES, PINNED, Worker
from vae_ext import reference

SHAPES = ((4096, 3072), (4096, 12288))
EFFORT = Effort(seconds=3.0, rounds=5)
WIDTH = 120
# Of linux/prctl.h.
_PR_SET_THP_DISABLE = 41


@dataclass(frozen=True)
class Setting:
    """What a process is started with, and whether Linux refuses it huge pages."""

    environment: dict[str, str]
    no_huge_pages: bool = False


SETTINGS = {
    "as it comes, were there no huge pages": Setting(AS_IT_COMES, no_huge_pages=True),
    "as it comes": Setting(AS_IT_COMES),
    "THP_MEM_ALLOC_ENABLE=1": Setting({"THP_MEM_ALLOC_ENABLE": "1"}),
    "pinned": Setting(PINNED),
}


def main() -> None:
    columns = (f"{name} {list(shape)}" for shape in SHAPES for name in ("ours", "eager"))
    table = Table("20th percentiles, ms", *columns)
    for name, setting in SETTINGS.items():
        worker = Worker(setting.environment, {}, None)
        timings = [worker.run(measure, shape, setting.no_huge_pages) for shape in SHAPES]
        worker.close()
        table.add_row(name, *(f"{of[who].p20 / 1000:.1f}" for of in timings for who in ("ours", "eager")))
    Console(width=WIDTH).print(table)


def measure(shape: tuple[int, ...], no_huge_pages: bool) -> dict[str, Timing]:
    """Both contestants at one shape, in this process."""
    if no_huge_pages and ctypes.CDLL(None).prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0):
        raise RuntimeError("Linux does not let this process do without huge pages (prctl)")
    logits = torch.randn(shape, requires_grad=True)
    x = torch.rand(shape)
    calls = {
        "ours": _forward_and_backward(vae_ext.bernoulli_log_prob, logits, x),
        "eager": _forward_and_backward(reference.bernoulli_log_prob, logits, x),
    }
    timings, _ = interleave(calls, EFFORT)
    return timings


def _forward_and_backward(
    function: Callable[..., torch.Tensor], logits: torch.Tensor, x: torch.Tensor
) -> Callable[[], object]:
    gradient = torch.ones(len(x))
    return lambda: torch.autograd.grad(function(logits, x), logits, gradient)


if __name__ == "__main__":
    main()

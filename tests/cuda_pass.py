"""A small pass over the CUDA kernels, for compute-sanitizer: `python -m tests.cuda_pass SECONDS`.

Goes through one case for each way in which a kernel divides its work, forward and backward, however long that takes,
and then through the registered ones until the time is up. It checks nothing: that is for the sanitizer.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from time import monotonic

import torch

from tests.cases import CASES, NOISY, Case
from tests.cuda_cases import BROADCAST_CASES, MANY, SIZE_CASES, event_size
from tests.outputs import bits

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# The longest rows for each number of lanes, and one of two spans.
SIZES = (64, 128, 3072, 6144, 12288, 16384, 16385)


def necessary() -> Iterator[tuple[Case, torch.dtype]]:
    """Every number of lanes, one group at a time and two, several spans, and more replicas than a thread sums."""
    for case in SIZE_CASES:
        if event_size(case) in SIZES:
            yield case, torch.bfloat16 if event_size(case) in SIZES[1:6:2] else torch.float32
    for case in BROADCAST_CASES:
        shapes = [shape for shape in case.shapes.values() if shape]
        if MANY in shapes[0] or (case.operator in NOISY and case.num_samples == MANY):
            yield case, torch.float32


def main() -> None:
    end = monotonic() + float(sys.argv[1])
    torch.set_default_device("cuda")
    first = list(necessary())
    rest = [(case, dtype) for case in CASES if case.values == "ordinary" for dtype in DTYPES]
    random.Random(0).shuffle(rest)
    done = 0
    for case, dtype in [*first, *rest]:
        if done >= len(first) and monotonic() > end:
            break
        bits(case, dtype)
        done += 1
    torch.cuda.synchronize()
    print(f"went through {done} of {len(first) + len(rest)} cases, and so through the {len(first)} necessary ones")


if __name__ == "__main__":
    main()

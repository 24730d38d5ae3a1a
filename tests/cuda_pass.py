"""A small pass over the CUDA kernels, for compute-sanitizer: `python -m tests.cuda_pass SECONDS`.

Goes through the registered cases, forward and backward, in an order that soon meets every kernel, until the time is
up, and says how far it came. It checks nothing: that is for the sanitizer.
"""

from __future__ import annotations

import random
import sys
from time import monotonic

import torch

from tests.cases import CASES
from tests.outputs import bits

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def main() -> None:
    end = monotonic() + float(sys.argv[1])
    calls = [(case, dtype) for case in CASES if case.values == "ordinary" for dtype in DTYPES]
    random.Random(0).shuffle(calls)
    torch.set_default_device("cuda")
    done = 0
    for case, dtype in calls:
        bits(case, dtype)
        done += 1
        if monotonic() > end:
            break
    torch.cuda.synchronize()
    print(f"went through {done} of {len(calls)} cases")


if __name__ == "__main__":
    main()

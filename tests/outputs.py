"""Digests of what the operators compute, to compare processes by: `python -m tests.outputs` prints them."""

from __future__ import annotations

import hashlib
import json

import torch
from torch import Tensor

from tests.cases import CASES, Case, as_tuple, cotangents


def bits(case: Case, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The outputs of `case`, and the gradients of every input that can have one."""
    kwargs = case.make(dtype=dtype, requires_grad=True)
    inputs = [kwargs[name] for name in case.differentiable]
    outputs = as_tuple(case.ours(**kwargs))
    return (*outputs, *torch.autograd.grad(outputs, inputs, cotangents(outputs)))


def digest(tensors: tuple[Tensor, ...]) -> str:
    """A hash of the tensors' bytes, shapes apart."""
    sha256 = hashlib.sha256()
    for tensor in tensors:
        sha256.update(tensor.detach().contiguous().flatten().view(torch.uint8).cpu().numpy().tobytes())
    return sha256.hexdigest()


def digests() -> dict[str, str]:
    """One digest per registered case, and per dtype whose bits are promised."""
    return {
        f"{case.id}-{dtype}": digest(bits(case, dtype))
        for case in CASES
        if not case.gradcheck
        for dtype in (torch.float32, torch.bfloat16, torch.float16)
        if dtype == torch.float32 or case.values == "ordinary"
    }


if __name__ == "__main__":
    capability = torch.backends.cpu.get_cpu_capability()
    print(json.dumps({"capability": capability, "digests": digests()}))

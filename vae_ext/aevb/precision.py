"""What matrix products are computed in. The operators are not concerned: they take what the networks give them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch


@contextmanager
def matrix_products(precision: str) -> Iterator[None]:
    """Runs float32 matrix products, forward and backward, in ``float32`` or in ``medium``; the latter is what
    `torch.set_float32_matmul_precision` means by it: float32 in and out, with TF32 or bfloat16 inside where the device
    has them. Whatever the caller's own setting is, it has no say inside and is there again afterwards.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium" if precision == "medium" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Around the forward pass: under ``bf16`` the networks give bfloat16, half the memory, to operators that compute
    and sum in float32; weights and their gradients stay float32, and backward follows the dtypes of forward.
    """
    if precision != "bf16":
        return nullcontext()
    # A cache of cast weights must not outlive a step that is recorded in a CUDA graph.
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)

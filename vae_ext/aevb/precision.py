"""What matrix products are computed in. The operators are not concerned: they take what the networks give them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def matrix_products(precision: str, device: torch.device) -> Iterator[None]:
    """Runs matrix products in ``float32``, in ``medium`` or in ``bf16``; weights and gradients stay float32.

    ``medium`` is what `torch.set_float32_matmul_precision` means by it: float32 in and out, with TF32 or bfloat16
    inside where the device has them. ``bf16`` is autocast: the networks give bfloat16, half the memory, to operators
    that compute and sum in float32.
    """
    if precision == "bf16":
        # A cache of cast weights must not outlive a step that is recorded in a CUDA graph.
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium" if precision == "medium" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)

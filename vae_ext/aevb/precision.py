"""What matrix products are computed in. The operators are not concerned: they take what the networks give them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

_BACKENDS: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]


@contextmanager
def matrix_products(precision: str) -> Iterator[None]:
    """Runs float32 matrix products, forward and backward, in ``float32`` or in ``medium``; the latter is what
    `torch.set_float32_matmul_precision` means by it: float32 in and out, with TF32 or bfloat16 inside where the device
    has them. Whatever the caller's own setting is, it has no say inside and is there again afterwards.
    """
    before = _setting()
    torch.set_float32_matmul_precision("medium" if precision == "medium" else "highest")
    try:
        yield
    finally:
        _restore(*before)


def _setting() -> tuple[str | None, list[str]]:
    """The caller's, of all kinds of devices at once where torch can say that, and of each."""
    of_each = [backend.fp32_precision for backend in _BACKENDS]
    try:
        return torch.get_float32_matmul_precision(), of_each
    except RuntimeError:  # They were set apart.
        return None, of_each


def _restore(of_all: str | None, of_each: list[str]) -> None:
    if of_all is not None:
        torch.set_float32_matmul_precision(of_all)
    for backend, precision in zip(_BACKENDS, of_each, strict=True):
        backend.fp32_precision = precision


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Around the forward pass: under ``bf16`` the networks give bfloat16, half the memory, to operators that compute
    and sum in float32; weights and their gradients stay float32, and backward follows the dtypes of forward.
    """
    if precision != "bf16":
        return nullcontext()
    # A cache of cast weights must not outlive a step that is recorded in a CUDA graph.
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)

"""Cases beside those of the registry, for what a CUDA kernel divides its work by: emulated, and on a device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.cases import LOCATION_SCALE, NOISY, OPERATORS, ROLES, SCALE_KINDS, Case, Shape, as_tuple, case_of, cotangents

# Around every number of lanes to a row, and the span that one block sums.
SIZES = (
    *(1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 64, 65, 127, 128, 129, 132, 255, 256, 257, 1000, 1023, 1024, 3071, 3072),
    *(3073, 3076, 6144, 6145, 12288, 12289, 16383, 16384, 16385, 20000, 32769),
)
# Of the location-scale families, which have kernels of their own made of the Gaussian's loops: one for each number of
# lanes, tails, two spans.
FEW_SIZES = (3, 64, 128, 132, 784, 3072, 3076, 6144, 12288, 16385)
# More replicas than one thread sums, and than the sums of one round.
MANY, VERY_MANY = 67, 1100


def _case(operator: str, shape: Shape) -> Case:
    """All arguments of one shape, and two samples where there are any."""
    return case_of(operator, shape, prior=True, num_samples=2 if operator in NOISY else None)


SIZE_CASES = [
    _case(operator, (3 if size < 4096 else 2, size))
    for operator in OPERATORS
    for size in (FEW_SIZES if operator == LOCATION_SCALE else SIZES)
]


def _broadcast_cases() -> list[Case]:
    cases = []
    for samples in (MANY, VERY_MANY):
        for operator in NOISY:
            cases.append(case_of(operator, (2, 9), prior=True, num_samples=samples))
            cases.append(Case(operator, {"mean": (2, 12), "scale": (12,)}, num_samples=samples))
            cases.append(Case(operator, {"mean": (2, 12), "scale": ()}, num_samples=samples))
        for event in (5, 8):
            cases.append(Case("bernoulli_log_prob", {"logits": (samples, 2, event), "x": (2, event)}))
            cases.append(Case("bernoulli_log_prob", {"logits": (2, event), "x": (samples, 2, event)}))
            cases.append(Case("normal_kl", {"mean": (samples, event), "scale": (event,), "prior_scale": ()}))
            for scale in ((2, event), (event,), ()):
                shapes: dict[str, Shape | None] = {"mean": (samples, 2, event), "scale": scale, "x": (2, event)}
                cases.append(Case("normal_log_prob", shapes))
    # Rows long enough to be put in the order in which what is broadcast is read again soonest.
    for event in (300, 301):
        cases.append(Case("bernoulli_log_prob", {"logits": (3, 4, event), "x": (4, event)}))
        cases.append(Case("bernoulli_log_prob", {"logits": (3, 1, event), "x": (1, 4, event)}, event_ndim=1))
        cases.append(Case("normal_log_prob", {"mean": (4, event), "scale": (event,), "x": (3, 4, event)}))
        cases.append(Case("normal_rsample_log_ratio", {"mean": (4, event), "scale": (event,)}, num_samples=3))
    # A number for everything, over more than one span.
    cases.append(Case("normal_log_prob", {"mean": (2, 17000), "scale": (), "x": (40, 2, 17000)}))
    return cases


BROADCAST_CASES = _broadcast_cases()
# Rows enough for several blocks.
ROW_CASES = [
    _case(operator, (rows, size))
    for operator in OPERATORS
    for rows, size in ((270, 3), (70, 20), (19, 130), (9, 784), (5, 3100))
]
# Elements enough for a thread to take several groups of a row.
LARGE_CASES = [
    case_of("bernoulli_log_prob", (1100, 1003)),
    Case("normal_kl", {"mean": (2100, 1001), "scale": (1001,)}),
    case_of("normal_rsample", (1100, 1004)),
    case_of("normal_rsample_kl", (3000, 390)),
]
KIND_CASES = [
    case_of(operator, (5, 44), prior=prior, scale_kind=kind, num_samples=3 if operator in NOISY else None)
    for operator, roles in ROLES.items()
    if "scale" in roles
    for kind in SCALE_KINDS
    for prior in ((True, False) if "prior_mean" in roles else (False,))
]
X_CASES = [
    case_of(operator, (3, size), x_dtype=x_dtype)
    for operator in ("bernoulli_log_prob", "normal_log_prob")
    for size in (24, 784, 785)
    for x_dtype in (torch.bool, torch.uint8, torch.float32, torch.float64, torch.bfloat16, torch.float16)
]


def event_size(case: Case) -> int:
    """Of a case whose arguments all have one event dim."""
    shape = next(iter(case.shapes.values()))
    assert shape
    return shape[-1]


def results(case: Case, kwargs: dict[str, Any], grads: tuple[Tensor, ...] | None = None) -> dict[str, Tensor]:
    """The outputs and the gradients by name."""
    names = case.differentiable
    outputs = as_tuple(case.ours(**kwargs))
    gradients = torch.autograd.grad(outputs, [kwargs[name] for name in names], grads or cotangents(outputs))
    return {f"output {i}": output.detach() for i, output in enumerate(outputs)} | {
        f"gradient of {name}": gradient for name, gradient in zip(names, gradients, strict=True)
    }


def shifted(tensor: Tensor, elements: int) -> Tensor:
    """The same values so many elements further on in memory."""
    memory = torch.zeros(tensor.numel() + elements, dtype=tensor.dtype, device=tensor.device)
    copy = memory[elements:].view(tensor.shape)
    return copy.copy_(tensor.detach()).requires_grad_(tensor.requires_grad)

"""Standard gammas of any shape: no inverse CDF or transformation of one is both exact and differentiable in the shape.

Samples are exact, by rejection on our own noise, and gradients pathwise: that in the shape a is the implicit one,
dz/da = -(dF/da) / p(z) (Figurnov et al. 2018), as torch computes it, to a relative error of 1e-3. It can be taken once:
not twice, and not under torch.func. Rejection looks at values, so neither torch.compile(fullgraph=True) nor a CUDA
graph can record it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vae_ext.aevb.families.family import Noise

# What one gamma takes of the parts of a family's noise: one, and two for each round of rejection.
PARTS_OF_GAMMA = 512


def log_standard_gamma(shape: Tensor, noise: Noise) -> Tensor:
    """The logarithm of a gamma of rate 1, which does not underflow where the shape is small.

    A shape a below 1 is drawn as the gamma of a + 1 times U^(1 / a) (Marsaglia & Tsang 2000).
    """
    small = shape < 1
    z: Tensor = _StandardGamma.apply(torch.where(small, shape + 1, shape), noise)  # type: ignore[no-untyped-call]
    return z.log() - torch.where(small, noise("exponential") / shape, 0.0)


class _StandardGamma(torch.autograd.Function):
    """A gamma of shape 1 or more, whose gradient is implicit."""

    @staticmethod
    def forward(ctx: Any, shape: Tensor, noise: Noise) -> Tensor:
        z = _marsaglia_tsang(shape, noise)
        ctx.save_for_backward(shape.expand_as(z), z)
        ctx.shape = shape.shape
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        shape, z = ctx.saved_tensors
        return (grad * torch._standard_gamma_grad(shape, z)).sum_to_size(ctx.shape), None


def _marsaglia_tsang(shape: Tensor, noise: Noise) -> Tensor:
    """By rejection, each attempt on counters of its own: a draw depends on its own row, sample and element alone.

    An attempt is refused with probability 0.05 at most; after all rounds that are left it would be below 1e-300. What
    is no shape, NaN for one, is not attempted again.
    """
    d = shape - 1 / 3
    c = (9 * d).rsqrt()
    z: Tensor | None = None
    accepted = ~((shape >= 1) & shape.isfinite())
    for attempt in range(1, PARTS_OF_GAMMA - 1, 2):
        x = noise.at(attempt)("normal")
        v = (1 + c * x) ** 3
        minus_log_u = noise.at(attempt + 1)("exponential")
        # Where v is not positive its logarithm is NaN or -inf, and the comparison false.
        accepts = -minus_log_u < 0.5 * x.square() + d * (1 - v + v.log())
        z = d * v if z is None else torch.where(accepted, z, d * v)
        accepted = accepted | accepts
        if bool(accepted.all()):
            break
    assert z is not None
    return z

"""Families by composition (Kingma & Welling 2013, section 2.4, approach 3): transformations of other families' samples.

All but the log-normal are made of gammas of any shape (`gamma.py`); their gradients in all parameters but shapes are
exact.

Log-densities are computed in float64 and rounded once: where shapes are large they are small differences.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vae_ext.aevb.families.family import SIMPLEX, Family, Noise, finite_exp, require_positive
from vae_ext.aevb.families.gamma import PARTS_OF_GAMMA, log_standard_gamma
from vae_ext.aevb.families.inverse_cdf import POSITIVE
from vae_ext.aevb.families.location_scale import Normal
from vae_ext.arguments import Scale

UNIT_INTERVAL = "(0, 1)"
# Of shares rounded to bfloat16 the sum is that near to 1, and nearer of those of other dtypes.
SUM_TOLERANCE = 2**-7


class LogNormal(Normal):
    """exp of a Gaussian: log z has mean loc and standard deviation scale."""

    support = POSITIVE

    def _bounds(self) -> tuple[float, float]:
        return 0.0, math.inf

    @property
    def mean(self) -> Tensor:
        return (self.loc + 0.5 * self.scale.square()).exp()

    @property
    def variance(self) -> Tensor:
        return torch.expm1(self.scale.square()) * self.mean.square()

    @property
    def entropy(self) -> Tensor:
        """Of each element, in nats."""
        return super().entropy + self.loc

    def _transform(self, noise: Noise) -> Tensor:
        return finite_exp(super()._transform(noise))

    def _log_density(self, z: Tensor) -> Tensor:
        positive = z != 0
        log_z = torch.where(positive, z, 1.0).log()
        return torch.where(positive, super()._log_density(log_z) - log_z, -math.inf)


class Gamma(Family):
    """Density rate^a z^(a - 1) exp(-rate z) / Gamma(a), a the concentration.

    Args:
        concentration: the shape a, any number greater than 0; the gradient in it is implicit.
        rate: greater than 0.
    """

    support = POSITIVE

    def __init__(
        self, concentration: Scale, rate: Scale = 1.0, *, event_ndim: int | None = None, validate: bool = True
    ) -> None:
        self.concentration, self.rate = self._broadcast(event_ndim, concentration=concentration, rate=rate)
        if validate:
            require_positive(concentration=self.concentration, rate=self.rate)

    def _bounds(self) -> tuple[float, float]:
        return 0.0, math.inf

    @property
    def mean(self) -> Tensor:
        return self.concentration / self.rate

    @property
    def variance(self) -> Tensor:
        return self.concentration / self.rate.square()

    def _transform(self, noise: Noise) -> Tensor:
        return finite_exp(log_standard_gamma(self.concentration, noise)) / self.rate

    def _log_density(self, z: Tensor) -> Tensor:
        a, rate, wide_z = self.concentration.double(), self.rate.double(), z.double()
        density: Tensor = a * rate.log() + torch.special.xlogy(a - 1, wide_z) - rate * wide_z - a.lgamma()
        return density.to(z.dtype)


class ChiSquared(Gamma):
    """The chi-squared distribution of df degrees of freedom, any number greater than 0: Gamma(df / 2, 1 / 2)."""

    def __init__(self, df: Scale, *, event_ndim: int | None = None, validate: bool = True) -> None:
        (self.df,) = self._broadcast(event_ndim, df=df)
        if validate:
            require_positive(df=self.df)
        self.concentration, self.rate = 0.5 * self.df, torch.full_like(self.df, 0.5)


class Beta(Family):
    """Density z^(a - 1) (1 - z)^(b - 1) / B(a, b): the share of a gamma of shape a in its sum with one of shape b."""

    support = UNIT_INTERVAL

    def __init__(self, a: Scale, b: Scale, *, event_ndim: int | None = None, validate: bool = True) -> None:
        self.a, self.b = self._broadcast(event_ndim, a=a, b=b)
        if validate:
            require_positive(a=self.a, b=self.b)

    def _bounds(self) -> tuple[float, float]:
        return 0.0, 1.0

    @property
    def mean(self) -> Tensor:
        return self.a / (self.a + self.b)

    @property
    def variance(self) -> Tensor:
        total = self.a + self.b
        return self.a * self.b / (total.square() * (total + 1))

    def _transform(self, noise: Noise) -> Tensor:
        log_a = log_standard_gamma(self.a, noise)
        log_b = log_standard_gamma(self.b, noise.at(PARTS_OF_GAMMA))
        return torch.sigmoid(log_a - log_b)

    def _log_density(self, z: Tensor) -> Tensor:
        a, b, wide_z = self.a.double(), self.b.double(), z.double()
        log_beta = a.lgamma() + b.lgamma() - (a + b).lgamma()
        density: Tensor = torch.special.xlogy(a - 1, wide_z) + torch.special.xlog1py(b - 1, -wide_z) - log_beta
        return density.to(z.dtype)


class F(Family):
    """The F distribution of df1 and df2 degrees of freedom: the ratio of two chi-squared, each over its degrees.

    The mean is finite for df2 above 2, the variance above 4.
    """

    support = POSITIVE

    def __init__(self, df1: Scale, df2: Scale, *, event_ndim: int | None = None, validate: bool = True) -> None:
        self.df1, self.df2 = self._broadcast(event_ndim, df1=df1, df2=df2)
        if validate:
            require_positive(df1=self.df1, df2=self.df2)

    def _bounds(self) -> tuple[float, float]:
        return 0.0, math.inf

    @property
    def mean(self) -> Tensor:
        less = torch.where(self.df2 > 2, self.df2 - 2, 1.0)
        return torch.where(self.df2 > 2, self.df2 / less, math.inf)

    @property
    def variance(self) -> Tensor:
        # Where it is not taken, degrees for which its gradient is finite too.
        d1, d2 = self.df1, torch.where(self.df2 > 4, self.df2, 5.0)
        finite = 2 * d2.square() * (d1 + d2 - 2) / (d1 * (d2 - 2).square() * (d2 - 4))
        return torch.where(self.df2 > 4, finite, math.inf)

    def _transform(self, noise: Noise) -> Tensor:
        log_1 = log_standard_gamma(0.5 * self.df1, noise)
        log_2 = log_standard_gamma(0.5 * self.df2, noise.at(PARTS_OF_GAMMA))
        return finite_exp(log_1 - log_2) * (self.df2 / self.df1)

    def _log_density(self, z: Tensor) -> Tensor:
        a, b, wide_z = 0.5 * self.df1.double(), 0.5 * self.df2.double(), z.double()
        log_beta = a.lgamma() + b.lgamma() - (a + b).lgamma()
        ratio = a / b
        power = torch.special.xlogy(a - 1, wide_z)
        density: Tensor = a * ratio.log() + power - (a + b) * torch.log1p(ratio * wide_z) - log_beta
        return density.to(z.dtype)


class Dirichlet(Family):
    """Over the simplex of the last dim: gammas of shapes a_1 ... a_K, each over their sum.

    Density prod z_k^(a_k - 1) / B(a) of shares of 0 or more, whose sum is 1 to within 2^-7.
    """

    support = SIMPLEX
    vector_ndim = 1

    def __init__(self, concentration: Tensor, *, event_ndim: int | None = None, validate: bool = True) -> None:
        (self.concentration,) = self._broadcast(event_ndim, concentration=concentration)
        if validate:
            require_positive(concentration=self.concentration)

    @property
    def mean(self) -> Tensor:
        return self.concentration / self.concentration.sum(-1, keepdim=True)

    @property
    def variance(self) -> Tensor:
        return self.mean * (1 - self.mean) / (self.concentration.sum(-1, keepdim=True) + 1)

    def _transform(self, noise: Noise) -> Tensor:
        return log_standard_gamma(self.concentration, noise).softmax(-1)

    def _inside(self, z: Tensor) -> Tensor:
        return z.clamp(min=torch.finfo(z.dtype).tiny)

    def _log_density_anywhere(self, z: Tensor) -> Tensor:
        outside = (z < 0).any(-1) | ((z.sum(-1) - 1).abs() > SUM_TOLERANCE)
        density: Tensor = self._log_density(torch.where(outside.unsqueeze(-1), 1 / z.shape[-1], z))
        return torch.where(outside, -math.inf, density)

    def _log_density(self, z: Tensor) -> Tensor:
        a = self.concentration.double()
        constant = a.sum(-1).lgamma() - a.lgamma().sum(-1)
        density: Tensor = torch.special.xlogy(a - 1, z.double()).sum(-1) + constant
        return density.to(z.dtype)

"""Families of tractable inverse CDF (Kingma & Welling 2013, section 2.4, approach 1): z = F^-1(u; parameters).

u enters as E = -log(1 - u), a standard exponential whose digits hold in both tails, where the inverse CDF is a function
of it. Of the paper's list the logistic is in `location_scale`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from vae_ext.aevb.families.family import Family, Noise, finite_exp, require, require_positive
from vae_ext.aevb.families.location_scale import EULER_GAMMA, LocationScale
from vae_ext.arguments import Scale, resolve_integer

POSITIVE = "(0, inf)"
# Riemann's zeta of 2, 3, 4 and 5.
ZETA = (math.pi**2 / 6, 1.2020569031595943, math.pi**4 / 90, 1.0369277551433699)


class Cauchy(LocationScale):
    """Density 1 / (pi (1 + x^2)) at x = (z - loc) / scale; z = loc + scale tan(pi (u - 1/2)).

    It has no mean and no variance, so the bound of a model with this posterior and the prior N(0, I) is -inf.
    """

    standard = "cauchy"
    standard_mean = math.nan
    standard_variance = math.nan
    standard_entropy = math.log(4 * math.pi)

    @staticmethod
    def _standard_log_density(x: Tensor) -> Tensor:
        return -math.log(math.pi) - torch.log1p(x.square())


class Gumbel(LocationScale):
    """Density exp(-x - exp(-x)) at x = (z - loc) / scale; z = loc - scale log(-log u)."""

    standard = "gumbel"
    standard_mean = EULER_GAMMA
    standard_variance = math.pi**2 / 6
    standard_entropy = 1 + EULER_GAMMA

    @staticmethod
    def _standard_log_density(x: Tensor) -> Tensor:
        return -x - torch.exp(-x)


class _Positive(Family):
    support = POSITIVE

    def _bounds(self) -> tuple[float, float]:
        return 0.0, math.inf


class Exponential(_Positive):
    """Density rate exp(-rate z); z = E / rate."""

    def __init__(self, rate: Scale, *, event_ndim: int | None = None, validate: bool = True) -> None:
        (self.rate,) = self._broadcast(event_ndim, rate=rate)
        if validate:
            require_positive(rate=self.rate)

    @property
    def mean(self) -> Tensor:
        return 1 / self.rate

    @property
    def variance(self) -> Tensor:
        return self.rate**-2

    def _transform(self, noise: Noise) -> Tensor:
        return noise("exponential") / self.rate

    def _log_density(self, z: Tensor) -> Tensor:
        return self.rate.log() - self.rate * z


class Rayleigh(_Positive):
    """Density z / scale^2 exp(-z^2 / (2 scale^2)); z = scale sqrt(2 E)."""

    def __init__(self, scale: Scale, *, event_ndim: int | None = None, validate: bool = True) -> None:
        (self.scale,) = self._broadcast(event_ndim, scale=scale)
        if validate:
            require_positive(scale=self.scale)

    @property
    def mean(self) -> Tensor:
        return math.sqrt(math.pi / 2) * self.scale

    @property
    def variance(self) -> Tensor:
        return (2 - math.pi / 2) * self.scale.square()

    def _transform(self, noise: Noise) -> Tensor:
        return self.scale * (2 * noise("exponential")).sqrt()

    def _log_density(self, z: Tensor) -> Tensor:
        return z.log() - 2 * self.scale.log() - 0.5 * (z / self.scale).square()


class Pareto(Family):
    """Density alpha scale^alpha / z^(alpha + 1) from scale on; z = scale exp(E / alpha).

    The mean is finite for alpha above 1, the variance above 2.
    """

    support = "[scale, inf)"

    def __init__(self, alpha: Scale, scale: Scale, *, event_ndim: int | None = None, validate: bool = True) -> None:
        self.alpha, self.scale = self._broadcast(event_ndim, alpha=alpha, scale=scale)
        if validate:
            require_positive(alpha=self.alpha, scale=self.scale)

    def _bounds(self) -> tuple[Tensor, float]:
        return self.scale, math.inf

    @property
    def mean(self) -> Tensor:
        less = torch.where(self.alpha > 1, self.alpha - 1, 1.0)
        return torch.where(self.alpha > 1, self.alpha * self.scale / less, math.inf)

    @property
    def variance(self) -> Tensor:
        # Where it is not taken, an alpha for which its gradient is finite too.
        alpha = torch.where(self.alpha > 2, self.alpha, 3.0)
        finite = self.scale.square() * alpha / ((alpha - 1).square() * (alpha - 2))
        return torch.where(self.alpha > 2, finite, math.inf)

    def _transform(self, noise: Noise) -> Tensor:
        return self.scale * finite_exp(noise("exponential") / self.alpha)

    def _log_density(self, z: Tensor) -> Tensor:
        return self.alpha.log() + self.alpha * self.scale.log() - (self.alpha + 1) * z.log()


class Weibull(_Positive):
    """Density k / scale (z / scale)^(k - 1) exp(-(z / scale)^k), k the concentration; z = scale E^(1 / k)."""

    def __init__(
        self, concentration: Scale, scale: Scale, *, event_ndim: int | None = None, validate: bool = True
    ) -> None:
        self.concentration, self.scale = self._broadcast(event_ndim, concentration=concentration, scale=scale)
        if validate:
            require_positive(concentration=self.concentration, scale=self.scale)

    @property
    def mean(self) -> Tensor:
        return self.scale * (1 + 1 / self.concentration).lgamma().exp()

    @property
    def variance(self) -> Tensor:
        x = 1 / self.concentration.double()
        # log(E[z^2] / E[z]^2), log Gamma(1 + 2 x) - 2 log Gamma(1 + x), by its series where it is a small difference.
        series = x.square() * (ZETA[0] - 2 * ZETA[1] * x + 3.5 * ZETA[2] * x.square() - 6 * ZETA[3] * x**3)
        excess = torch.where(x < 1e-3, series, (1 + 2 * x).lgamma() - 2 * (1 + x).lgamma())
        relative = (2 * (1 + x).lgamma()).exp() * torch.expm1(excess)
        return (self.scale.double().square() * relative).to(self.scale.dtype)

    def _transform(self, noise: Noise) -> Tensor:
        return self.scale * finite_exp(noise("exponential").log() / self.concentration)

    def _log_density(self, z: Tensor) -> Tensor:
        k, log_scale = self.concentration, self.scale.log()
        power: Tensor = torch.special.xlogy(k - 1, z)
        return k.log() - k * log_scale + power - (k * (z.log() - log_scale)).exp()


class Reciprocal(Family):
    """Density 1 / (z log(high / low)) from low to high: log z is uniform; z = low (high / low)^u."""

    support = "[low, high] above 0"

    def __init__(self, low: Scale, high: Scale, *, event_ndim: int | None = None, validate: bool = True) -> None:
        self.low, self.high = self._broadcast(event_ndim, low=low, high=high)
        if validate:
            require_positive(low=self.low, high=self.high)
            require("low", self.low, self.low < self.high, "a number less than high")

    def _bounds(self) -> tuple[Tensor, Tensor]:
        return self.low, self.high

    @property
    def _log_ratio(self) -> Tensor:
        """log(high / low), in float64."""
        low, high = self.low.double(), self.high.double()
        share = (high - low) / (high + low)
        # Near a ratio of 1 the logarithms would cancel. What is not taken is clamped for the sake of its gradient.
        return torch.where(share < 1 / 3, 2 * share.clamp(max=1 / 3).atanh(), high.log() - low.log())

    @property
    def mean(self) -> Tensor:
        return ((self.high.double() - self.low.double()) / self._log_ratio).to(self.low.dtype)

    @property
    def variance(self) -> Tensor:
        """E[z] sqrt(low high) (cosh h - sinh h / h), h half the logarithm of high / low."""
        low, high, h = self.low.double(), self.high.double(), 0.5 * self._log_ratio
        # The difference by its series where it is small: 2 n h^(2 n) / (2 n + 1)!.
        series = sum((2 * n / math.factorial(2 * n + 1) * h ** (2 * n) for n in range(1, 7)), torch.zeros_like(h))
        spread = torch.where(h < 0.3, series, h.cosh() - h.sinh() / h)
        return ((high - low) / (2 * h) * low.sqrt() * high.sqrt() * spread).to(self.low.dtype)

    def _transform(self, noise: Noise) -> Tensor:
        z = self.low * (self._log_ratio.to(self.low.dtype) * noise("uniform")).exp()
        return torch.minimum(torch.maximum(z, self.low), self.high)

    def _log_density(self, z: Tensor) -> Tensor:
        return -z.log() - self._log_ratio.log().to(z.dtype)


class Gompertz(_Positive):
    """Density shape rate exp(rate z) exp(-shape (exp(rate z) - 1)); z = log(1 + E / shape) / rate.

    Mean and variance have no elementary form; they are quadratures, exact to rounding and differentiable.
    """

    def __init__(self, shape: Scale, rate: Scale, *, event_ndim: int | None = None, validate: bool = True) -> None:
        self.concentration, self.rate = self._broadcast(event_ndim, shape=shape, rate=rate)
        if validate:
            require_positive(shape=self.concentration, rate=self.rate)

    @property
    def mean(self) -> Tensor:
        return _expectation(lambda e: torch.log1p(e / self.concentration)) / self.rate

    @property
    def variance(self) -> Tensor:
        center = self.mean * self.rate
        return _expectation(lambda e: (torch.log1p(e / self.concentration) - center).square()) / self.rate.square()

    def _transform(self, noise: Noise) -> Tensor:
        return torch.log1p(noise("exponential") / self.concentration) / self.rate

    def _log_density(self, z: Tensor) -> Tensor:
        growth = self.rate * z
        return self.concentration.log() + self.rate.log() + growth - self.concentration * torch.expm1(growth)


def _expectation(function: Callable[[float], Tensor]) -> Tensor:
    """Of a function of a standard exponential that is analytic in its logarithm.

    The trapezoidal rule over the logarithm t: the weight exp(t - exp(t)) is analytic for |Im t| < pi / 2, so that the
    error at steps of h is of order exp(-pi^2 / h), below 1e-17 here.
    """
    step = 0.25
    points = [step * k for k in range(-160, 17)]
    return torch.stack([step * math.exp(t - math.exp(t)) * function(math.exp(t)) for t in points]).sum(0)


class Erlang(_Positive):
    """The gamma distribution of an integer shape k, a sum of k exponentials: z = (E_1 + ... + E_k) / rate.

    Differentiable in rate. The shape is one integer; `Gamma` takes any, and is differentiable in it.
    """

    def __init__(self, shape: int, rate: Scale, *, event_ndim: int | None = None, validate: bool = True) -> None:
        try:
            self.k = resolve_integer("shape", shape, 1)
        except TypeError as error:
            raise TypeError(f"{error}, for which Gamma would do otherwise") from None
        (self.rate,) = self._broadcast(event_ndim, rate=rate)
        if validate:
            require_positive(rate=self.rate)

    @property
    def mean(self) -> Tensor:
        return self.k / self.rate

    @property
    def variance(self) -> Tensor:
        return self.k / self.rate.square()

    def _transform(self, noise: Noise) -> Tensor:
        return noise("exponential", (self.k,)).sum(-1) / self.rate

    def _log_density(self, z: Tensor) -> Tensor:
        # In float64, as for a large shape it is a small difference.
        rate, wide_z = self.rate.double(), z.double()
        power: Tensor = torch.special.xlogy(self.k - 1, wide_z)
        return (self.k * rate.log() + power - rate * wide_z - math.lgamma(self.k)).to(z.dtype)

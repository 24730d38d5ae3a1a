"""Location-scale families (Kingma & Welling 2013, section 2.4, approach 2): z = loc + scale * epsilon.

One fused operator, `vae_ext.location_scale_rsample`, draws them all, but for Student's t and the elliptical, whose
epsilon has parameters of its own.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from vae_ext.aevb.families.family import (
    WHOLE_LINE,
    Family,
    Noise,
    as_tensors,
    broadcast_shapes,
    require,
    require_positive,
)
from vae_ext.aevb.families.gamma import log_standard_gamma
from vae_ext.arguments import LocationScaleKind, Scale, Standard, resolve_location_scale

EULER_GAMMA = 0.57721566490153286


class LocationScale(Family):
    """z = loc + scale * epsilon with epsilon of the standard distribution `standard`.

    Args:
        loc: any number.
        scale, log_scale: the scale, greater than 0, or its logarithm, from -80 to 80 in float32, which is not checked
            (beyond 88 its exponential is infinite, below -88 it loses its digits): exactly one of them.

    Example::

        posterior = Laplace(loc, log_scale=log_scale)
        z = posterior.rsample(num_samples=5)
        log_q = posterior.log_prob(z)
    """

    standard: ClassVar[Standard]
    # Of epsilon.
    standard_mean: ClassVar[float] = 0.0
    standard_variance: ClassVar[float]
    standard_entropy: ClassVar[float]

    def __init__(
        self,
        loc: Scale,
        scale: Scale | None = None,
        *,
        log_scale: Scale | None = None,
        event_ndim: int | None = None,
        validate: bool = True,
    ) -> None:
        given, kind = resolve_location_scale(scale, log_scale)
        self.loc, width = self._broadcast(event_ndim, **{"loc": loc, kind: given})
        self._kind: LocationScaleKind = kind
        self._width = width
        if validate and kind == "scale":
            require_positive(scale=width)

    @property
    def scale(self) -> Tensor:
        return self._width.exp() if self._kind == "log_scale" else self._width

    @property
    def log_scale(self) -> Tensor:
        return self._width if self._kind == "log_scale" else self._width.log()

    @property
    def mean(self) -> Tensor:
        return self.loc + self.standard_mean * self.scale if self.standard_mean else self.loc

    @property
    def variance(self) -> Tensor:
        return self.standard_variance * self.scale.square()

    @property
    def entropy(self) -> Tensor:
        """Of each element, in nats."""
        return self.standard_entropy + self.log_scale

    def _transform(self, noise: Noise) -> Tensor:
        return noise.located(self.standard, self.loc, self._kind, self._width)

    def _log_density(self, z: Tensor) -> Tensor:
        return self._standard_log_density((z - self.loc) / self.scale) - self.log_scale

    @staticmethod
    def _standard_log_density(x: Tensor) -> Tensor:
        raise NotImplementedError


class Normal(LocationScale):
    """The Gaussian: density exp(-x^2 / 2) / sqrt(2 pi) at x = (z - loc) / scale.

    A model's Gaussian posterior is better said as a tuple (mean, log_var): its operators are fused further.
    """

    standard = "normal"
    standard_variance = 1.0
    standard_entropy = 0.5 * math.log(2 * math.pi * math.e)

    @staticmethod
    def _standard_log_density(x: Tensor) -> Tensor:
        return -0.5 * (x.square() + math.log(2 * math.pi))


class Laplace(LocationScale):
    """Density exp(-|x|) / 2 at x = (z - loc) / scale."""

    standard = "laplace"
    standard_variance = 2.0
    standard_entropy = 1 + math.log(2)

    @staticmethod
    def _standard_log_density(x: Tensor) -> Tensor:
        return -x.abs() - math.log(2)


class Logistic(LocationScale):
    """Density exp(-x) / (1 + exp(-x))^2 at x = (z - loc) / scale; its inverse CDF is log(u / (1 - u))."""

    standard = "logistic"
    standard_variance = math.pi**2 / 3
    standard_entropy = 2.0

    @staticmethod
    def _standard_log_density(x: Tensor) -> Tensor:
        return -x.abs() - 2 * torch.log1p(torch.exp(-x.abs()))


class _OfAnInterval(LocationScale):
    """A location-scale family of bounded support, from least to greatest."""

    def __init__(self, low: Scale, high: Scale, *, event_ndim: int | None = None, validate: bool = True) -> None:
        low_tensor, high_tensor = self._broadcast(event_ndim, low=low, high=high)
        if validate:
            require("low", low_tensor, (low_tensor < high_tensor) & low_tensor.isfinite(), "a number less than high")
            require("high", high_tensor, high_tensor.isfinite(), "a finite number")
        self.low, self.high = low_tensor, high_tensor
        self._kind = "scale"
        self.loc, self._width = self._located(low_tensor, high_tensor)

    @staticmethod
    def _located(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def _bounds(self) -> tuple[Tensor, Tensor]:
        return self.low, self.high


class Uniform(_OfAnInterval):
    """Density 1 / (high - low) from low to high; low is the location, high - low the scale."""

    support = "[low, high]"
    standard = "uniform"
    standard_mean = 0.5
    standard_variance = 1 / 12
    standard_entropy = 0.0

    @staticmethod
    def _located(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        return low, high - low

    @staticmethod
    def _standard_log_density(x: Tensor) -> Tensor:
        # Not zeros, for the sake of NaN.
        return 0 * x


class Triangular(_OfAnInterval):
    """The symmetric triangle from low to high: density 1 - |x| at x = (z - loc) / scale, loc its middle and mode."""

    support = "[low, high]"
    standard = "triangular"
    standard_variance = 1 / 6
    standard_entropy = 0.5

    @staticmethod
    def _located(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        return 0.5 * (low + high), 0.5 * (high - low)

    @staticmethod
    def _standard_log_density(x: Tensor) -> Tensor:
        # At an end |x| may be rounded to more than 1.
        return torch.log1p(-x.abs().clamp(max=1))


class StudentT(Family):
    """Student's t: density proportional to (1 + x^2 / df)^(-(df + 1) / 2) at x = (z - loc) / scale.

    epsilon is Bailey's (1994) polar form, exact and differentiable in df too:

        sqrt(df (U^(-2 / df) - 1)) cos(2 pi V)

    Args:
        df: degrees of freedom, greater than 0. The mean is there above 1, the variance above 2.
        loc, scale, log_scale: as of `LocationScale`.
    """

    support = WHOLE_LINE

    def __init__(
        self,
        df: Scale,
        loc: Scale,
        scale: Scale | None = None,
        *,
        log_scale: Scale | None = None,
        event_ndim: int | None = None,
        validate: bool = True,
    ) -> None:
        given, kind = resolve_location_scale(scale, log_scale)
        self.df, self.loc, width = self._broadcast(event_ndim, **{"df": df, "loc": loc, kind: given})
        if validate:
            require_positive(df=self.df, **({"scale": width} if kind == "scale" else {}))
        self.scale = width.exp() if kind == "log_scale" else width
        self.log_scale = width if kind == "log_scale" else width.log()

    @property
    def mean(self) -> Tensor:
        return torch.where(self.df > 1, self.loc, math.nan)

    @property
    def variance(self) -> Tensor:
        finite = self.scale.square() * self.df / torch.where(self.df > 2, self.df - 2, 1.0)
        return torch.where(self.df > 2, finite, torch.where(self.df > 1, math.inf, math.nan))

    @property
    def entropy(self) -> Tensor:
        """Of each element, in nats."""
        half, more = 0.5 * self.df.double(), 0.5 * (self.df.double() + 1)
        spread = more * (more.digamma() - half.digamma()) - _log_constant_of_t(self.df)
        return spread.to(self.df.dtype) + self.log_scale

    def _transform(self, noise: Noise) -> Tensor:
        # U = exp(-E), and the factor that grows fastest apart from the root, so as to overflow last.
        share = noise("exponential") / self.df
        radius = self.df.sqrt() * share.exp() * (-torch.expm1(-2 * share)).sqrt()
        epsilon = radius * torch.cos(2 * math.pi * noise.at(1)("uniform"))
        return self.loc + self.scale * epsilon

    def _log_density(self, z: Tensor) -> Tensor:
        x = (z - self.loc) / self.scale
        constant = _log_constant_of_t(self.df).to(self.df.dtype)
        return constant - self.log_scale - 0.5 * (self.df + 1) * torch.log1p(x.square() / self.df)


def _log_constant_of_t(df: Tensor, size: int = 1) -> Tensor:
    """The log-density of a standard t vector at 0, in float64: of many degrees of freedom it is a small difference."""
    half = 0.5 * df.double()
    return (half + 0.5 * size).lgamma() - half.lgamma() - 0.5 * size * (2 * math.pi * half).log()


class Elliptical(Family):
    """z = loc + scale_tril * epsilon for a vector epsilon of spherical distribution: Gaussian, or t of df degrees.

    The multivariate t divides a Gaussian by an independent sqrt(chi^2 / df), whose gradient in df is implicit
    (`Gamma`).

    Args:
        loc: `[*batch, *event, J]`.
        scale_tril: lower triangular of positive diagonal, `[*batch, *event, J, J]`; scale_tril scale_tril^T is the
            covariance of the Gaussian.
        df: greater than 0, `[*batch, *event]` or a number; the Gaussian when left out.

    `[*batch, *event]` is what all of them broadcast to, and each of its vectors is a draw of its own.
    """

    vector_ndim = 1

    def __init__(
        self,
        loc: Tensor,
        scale_tril: Tensor,
        df: Scale | None = None,
        *,
        event_ndim: int | None = None,
        validate: bool = True,
    ) -> None:
        given = {"loc": loc, "scale_tril": scale_tril} | ({} if df is None else {"df": df})
        loc, scale_tril, *degrees = as_tensors(given)
        if loc.dim() == 0 or scale_tril.shape[-2:] != loc.shape[-1:] * 2:
            size = ", ".join(str(length) for length in loc.shape[-1:] * 2)
            raise ValueError(f"scale_tril has shape {list(scale_tril.shape)}; expected it to end in [{size}]")
        shapes = (loc.shape[:-1], scale_tril.shape[:-2], *(tensor.shape for tensor in degrees))
        vectors = broadcast_shapes("Elliptical", dict(zip(given, shapes, strict=True)))
        (self.loc,) = self._broadcast(event_ndim, loc=loc.expand(*vectors, -1))
        self.scale_tril = scale_tril.to(self.loc.dtype)
        self.df = degrees[0].to(self.loc.dtype).expand(vectors) if degrees else None
        if validate:
            require_positive(**{"the diagonal of scale_tril": self.scale_tril.diagonal(dim1=-2, dim2=-1)})
            require("scale_tril", self.scale_tril, self.scale_tril == self.scale_tril.tril(), "0 above its diagonal")
            if self.df is not None:
                require_positive(df=self.df)

    @property
    def mean(self) -> Tensor:
        return self.loc if self.df is None else torch.where(self.df.unsqueeze(-1) > 1, self.loc, math.nan)

    @property
    def variance(self) -> Tensor:
        of_gaussian = self.scale_tril.square().sum(-1).expand(self.shape)
        if self.df is None:
            return of_gaussian
        df = self.df.unsqueeze(-1)
        finite = of_gaussian * df / torch.where(df > 2, df - 2, 1.0)
        return torch.where(df > 2, finite, torch.where(df > 1, math.inf, math.nan))

    def _transform(self, noise: Noise) -> Tensor:
        epsilon = (self.scale_tril @ noise("normal").unsqueeze(-1)).squeeze(-1)
        if self.df is not None:
            per_vector = noise.at(1).of_shape(self.shape[:-1], self.event_ndim - 1)
            half_log_chi2 = 0.5 * (math.log(2) + log_standard_gamma(0.5 * self.df, per_vector))
            epsilon = epsilon * (0.5 * self.df.log() - half_log_chi2).exp().unsqueeze(-1)
        return self.loc + epsilon

    def _log_density(self, z: Tensor) -> Tensor:
        size: int = self.shape[-1]
        residual = (z - self.loc).unsqueeze(-1)
        x: Tensor = torch.linalg.solve_triangular(self.scale_tril, residual, upper=False).squeeze(-1)
        log_det: Tensor = self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        squared: Tensor = x.square().sum(-1)
        if self.df is None:
            return -0.5 * (squared + size * math.log(2 * math.pi)) - log_det
        constant = _log_constant_of_t(self.df, size).to(self.df.dtype)
        return constant - log_det - 0.5 * (self.df + size) * torch.log1p(squared / self.df)

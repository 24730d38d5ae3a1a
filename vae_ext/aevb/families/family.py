"""What all families have in common: parameters, noise, and per-datapoint log-densities."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Generator, Tensor

from vae_ext import ops
from vae_ext.arguments import (
    PARAMETER_DTYPES,
    LocationScaleKind,
    Scale,
    Standard,
    check_devices,
    resolve_integer,
    wide_dtype,
)

WHOLE_LINE = "the whole line"
SIMPLEX = "the simplex"
# What one draw may use of the streams: a family that needs several kinds of noise takes them this far apart.
STREAMS_APART = 2**48


@dataclass(frozen=True)
class Noise:
    """The noise of one draw of a family, made of the counters of `vae_ext.location_scale_rsample`.

    Attributes:
        shape: of one sample, `[*batch, *event]`.
        event_ndim: how many dims at its end are the event.
        dtype: of what is drawn: float32 or float64.
        num_samples, rng_state, first_row, stream: as the operators take them.
        part: sets several uses apart in one family.
    """

    shape: Sequence[int]
    event_ndim: int
    dtype: torch.dtype
    num_samples: int | None
    rng_state: Tensor
    first_row: int
    stream: int
    part: int = 0

    def __call__(self, standard: Standard, trailing: Sequence[int] = ()) -> Tensor:
        """Independent standard variates, `[L, *shape, *trailing]`."""
        loc = torch.zeros((), dtype=self.dtype, device=self.rng_state.device).expand((*self.shape, *trailing))
        return self.located(standard, loc, "scale", 1.0, len(trailing))

    def located(
        self, standard: Standard, loc: Tensor, kind: LocationScaleKind, scale: Scale, trailing_ndim: int = 0
    ) -> Tensor:
        """The same through loc + scale * epsilon, in one pass."""
        return ops.location_scale_rsample(
            loc,
            standard,
            self.num_samples,
            **{kind: scale},  # type: ignore[arg-type]
            rng_state=self.rng_state,
            first_row=self.first_row,
            stream=self.stream + self.part * STREAMS_APART,
            event_ndim=self.event_ndim + trailing_ndim,
        )

    def of_shape(self, shape: Sequence[int], event_ndim: int) -> Noise:
        """Noise for another shape of one sample."""
        return replace(self, shape=shape, event_ndim=event_ndim)

    def at(self, part: int) -> Noise:
        """Noise that is independent of that of all other parts, and of all other streams."""
        return replace(self, part=self.part + part)


class Family(ABC):
    """A distribution over z whose samples are a differentiable function of its parameters and of noise.

    Parameters are tensors, or numbers, that broadcast to one shape `[*batch, *event]`; they are of one dtype. float32
    and float64 are computed as such, half precision in float32.

    Args:
        event_ndim: how many dims at the end are the event, over which log-densities are summed; one less than there
            are when left out.

    Attributes:
        support: where the density is not zero, in words.
        shape, event_ndim, dtype, device: of one sample.

    Raises:
        ValueError: a parameter is outside its domain, or the shapes do not broadcast. Looking at values waits for a
            CUDA device, and is left out with `validate=False`.
        TypeError: no parameter is a floating tensor or a number, or they differ in dtype.
        RuntimeError: they are on several devices.
    """

    support: ClassVar[str] = WHOLE_LINE
    # Dims at the end of an event that have one density together.
    vector_ndim: ClassVar[int] = 0

    def _broadcast(self, event_ndim: int | None, **parameters: Scale) -> tuple[Tensor, ...]:
        """The parameters as tensors of one shape, in the dtype that they are computed in; sets what follows from it."""
        tensors = as_tensors(parameters)
        shapes = (tensor.shape for tensor in tensors)
        self.shape = shape = broadcast_shapes(type(self).__name__, dict(zip(parameters, shapes, strict=True)))
        self.dtype = next((value.dtype for value in parameters.values() if isinstance(value, Tensor)), tensors[0].dtype)
        self.device = tensors[0].device
        self.event_ndim = max(len(shape) - 1, 0)
        if event_ndim is not None:
            self.event_ndim = resolve_integer("event_ndim", event_ndim, self.vector_ndim)
        if not self.vector_ndim <= self.event_ndim <= len(shape):
            raise ValueError(
                f"{type(self).__name__} has parameters of shape {list(shape)} and event_ndim {self.event_ndim};"
                f" expected an event of {self.vector_ndim} or more of these dims"
            )
        wide = wide_dtype(tensors[0])
        return tuple(tensor.to(wide).expand(shape) for tensor in tensors)

    def rsample(
        self,
        num_samples: int | None = None,
        *,
        generator: Generator | None = None,
        rng_state: Tensor | None = None,
        first_row: int = 0,
        stream: int = 0,
    ) -> Tensor:
        """A draw, `[*batch, *event]` or `[L, *batch, *event]`, whose gradient is that of the reparameterisation.

        The arguments are those of `vae_ext.normal_rsample`; `stream` must be less than 2^48. A draw that is rounded to
        0, 1 or infinity where that end is not in the support, at which the density may be infinite, becomes the nearest
        normal number inside of its dtype, and has no gradient.
        """
        if not 0 <= stream < STREAMS_APART:
            raise ValueError(f"stream is {stream}; expected 0 or more, and less than 2**48")
        rng_state = ops.resolve_rng_state(generator, rng_state, self.device)
        wide = torch.float64 if self.dtype == torch.float64 else torch.float32
        noise = Noise(self.shape, self.event_ndim, wide, num_samples, rng_state, first_row, stream)
        return self._inside(self._transform(noise).to(self.dtype))

    def _inside(self, z: Tensor) -> Tensor:
        bounds = self._bounds()
        if bounds is None:
            return z
        of_dtype = torch.finfo(z.dtype)
        inside = {0.0: of_dtype.tiny, 1.0: 1 - of_dtype.eps / 2, math.inf: of_dtype.max}
        least, greatest = (None if isinstance(end, Tensor) else inside[end] for end in bounds)
        return z if least is None and greatest is None else z.clamp(least, greatest)

    def log_prob(self, z: Tensor, event_ndim: int | None = None) -> Tensor:
        """The log-density of z `[*S, *batch, *event]` in nats, `[*S, *batch]`; -inf outside the support.

        `event_ndim`, where it is given, says how many dims at the end of z are the event: a prior of parameters
        `[*event]` knows of no batch.
        """
        density = self._log_density_anywhere(z.to(wide_dtype(z)))
        dims = (self.event_ndim if event_ndim is None else event_ndim) - self.vector_ndim
        return density.sum(tuple(range(-dims, 0))) if dims else density

    def _log_density_anywhere(self, z: Tensor) -> Tensor:
        bounds = self._bounds()
        if bounds is None:
            return self._log_density(z)
        low, high = (bound.to(z.dtype) if isinstance(bound, Tensor) else z.new_full((), bound) for bound in bounds)
        # NaN is not outside, so that its density is NaN as well.
        outside = (z < low) | (z > high) | z.isinf()
        # Somewhere inside, in the place of what is outside: the gradient of a density that is not taken would be NaN.
        interior = torch.where(high.isinf(), low + 1, 0.5 * (low + high))
        return torch.where(outside, -math.inf, self._log_density(torch.where(outside, interior, z)))

    def covers(self, other: Family) -> bool:
        """Whether its density is positive wherever that of the other is; tensors on a device count as if it were."""
        if SIMPLEX in (self.support, other.support):
            return self.support == other.support
        bounds = self._bounds()
        if bounds is None:
            return True
        (low, high), (other_low, other_high) = bounds, other._bounds() or (-math.inf, math.inf)
        return _at_most(low, other_low) and _at_most(other_high, high)

    def _bounds(self) -> tuple[Tensor | float, Tensor | float] | None:
        """The ends of an element's support, None for the line: tensors are in it, the numbers 0, 1 and inf are not."""
        return None

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """The expectation, `[*batch, *event]`; NaN or infinite where there is none."""

    @property
    @abstractmethod
    def variance(self) -> Tensor:
        """The variance of each element, `[*batch, *event]`; NaN or infinite where there is none."""

    @property
    def entropy(self) -> Tensor:
        """Of each element, in nats, `[*batch, *event]`. NotImplementedError where it has no closed form here."""
        raise NotImplementedError(f"{type(self).__name__} has no entropy here")

    def kl_from_standard_normal(self) -> Tensor:
        """The divergence of each element from N(0, 1), in nats, `[*batch, *event]`: -H + (log 2 pi + E[z^2]) / 2."""
        return 0.5 * (math.log(2 * math.pi) + self.variance + self.mean.square()) - self.entropy

    @abstractmethod
    def _transform(self, noise: Noise) -> Tensor:
        """The sample that is made of the noise."""

    @abstractmethod
    def _log_density(self, z: Tensor) -> Tensor:
        """The log-density of each element, or vector, inside the support."""


def as_tensors(parameters: dict[str, Scale]) -> list[Tensor]:
    """Numbers become 0-d tensors beside the first parameter that is one, without a copy from the host.

    They are of the dtype that is computed in: a number is not rounded to half precision.

    Raises TypeError, or RuntimeError where tensors are on several devices.
    """
    given = {name: value for name, value in parameters.items() if isinstance(value, Tensor)}
    like = next(iter(given.values()), torch.zeros(()))
    for name, value in parameters.items():
        if not isinstance(value, (Tensor, int, float)) or isinstance(value, bool):
            raise TypeError(f"{name} is of type {type(value).__name__}; expected a tensor or a number")
    for name, tensor in given.items():
        if tensor.dtype not in PARAMETER_DTYPES or tensor.dtype != like.dtype:
            first = next(iter(given))
            raise TypeError(
                f"{name} is {tensor.dtype}; expected float32, float64, bfloat16 or float16, and that of {first}"
            )
    if given:
        check_devices(**given)
    wide = wide_dtype(like)
    return [
        value if isinstance(value, Tensor) else like.new_full((), value, dtype=wide) for value in parameters.values()
    ]


def _at_most(low: Tensor | float, high: Tensor | float) -> bool:
    """Whether the ends of supports are in that order everywhere, as far as can be said without waiting for a device."""
    if any(isinstance(end, Tensor) and end.device.type != "cpu" for end in (low, high)):
        # Tensors are finite.
        return (isinstance(low, Tensor) or low < math.inf) and (isinstance(high, Tensor) or high > -math.inf)
    return not bool(torch.as_tensor(low > high).any())


def broadcast_shapes(family: str, shapes: dict[str, torch.Size]) -> torch.Size:
    """The one shape of a family's parameters. Raises ValueError."""
    try:
        shape: torch.Size = torch.broadcast_shapes(*shapes.values())
    except RuntimeError:
        named = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise ValueError(f"the parameters of {family} do not broadcast: {named}") from None
    return shape


def finite_exp(x: Tensor) -> Tensor:
    """exp, but finite: where it would not be, half the greatest number, and a gradient of 0 rather than NaN."""
    return x.clamp(max=math.log(torch.finfo(x.dtype).max / 2)).exp()


def require(name: str, value: Tensor, holds: Tensor, expected: str) -> None:
    """Raises ValueError, naming a value for which it does not hold."""
    if not bool(holds.all()):
        bad = value[~holds].flatten()[0].item()
        raise ValueError(f"{name} has the value {bad:g}; expected {expected}")


def require_positive(**values: Tensor) -> None:
    """Raises ValueError unless all values are positive and finite."""
    for name, value in values.items():
        require(name, value, (value > 0) & value.isfinite(), "a finite number greater than 0")

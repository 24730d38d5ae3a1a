"""What the estimators ask of a model: q(z given x), a Gaussian or of another family, and log p(x given z)."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, TypeAlias, get_args

from torch import Tensor

from vae_ext import ops, reference
from vae_ext.aevb.families.family import Family
from vae_ext.arguments import Scale, ScaleKind, as_parameter

SCALE_KINDS = get_args(ScaleKind)


class Gaussian(NamedTuple):
    """A diagonal Gaussian, in the parameterisation a network happens to give it in.

    Attributes:
        mean: `[*S, B, *E]`.
        scale: a tensor like `mean`, or of shape `[*E]`, or a 0-d tensor or a float.
        kind: what `scale` is: log_var, log_std, std or var.
    """

    mean: Tensor
    scale: Scale
    kind: ScaleKind = "log_var"

    @property
    def scale_keyword(self) -> dict[str, Any]:
        """The scale as the keyword that the operators take it by."""
        return {self.kind: self.scale}

    @property
    def std(self) -> Tensor:
        """The standard deviation, of the shape of `mean`."""
        scale = as_parameter(self.kind, self.scale, self.mean)
        return reference.standard_deviation(scale, self.kind).expand_as(self.mean)


# A plain tuple says the same: `return mean, log_var` or `return mean, std, "std"`.
GaussianLike: TypeAlias = Gaussian | tuple[Tensor, Scale] | tuple[Tensor, Scale, ScaleKind]


class Model(Protocol):
    """Any object with these two methods; the prior p(z) is N(0, I).

    A posterior of another family than the Gaussian tuple may have another prior: the model's `prior`, a `Family` too,
    where it has one. It must be positive wherever the posterior is.
    """

    def encode(self, x: Tensor) -> GaussianLike | Family:
        """q(z given x), the recognition model: `[B, *D]` to a Gaussian, or a `Family`, over z, `[B, *J]`."""

    def log_likelihood(self, z: Tensor, x: Tensor) -> Tensor:
        """log p(x given z) of the generative model in nats: z `[L, B, *J]` and x `[B, *D]` to `[L, B]`."""


def require_finite(name: str, rows: Tensor) -> None:
    """Looks at the values of datapoints `[B, ...]`, which waits for the device. Raises ValueError for NaN and inf."""
    if rows.ndim < 2:
        raise ValueError(f"{name} has shape {list(rows.shape)}; expected [B, ...], a row for each datapoint")
    bad = ~rows.isfinite().reshape(len(rows), -1).all(1)
    if bad.any():
        count, first = int(bad.sum()), int(bad.int().argmax())
        raise ValueError(
            f"{name} is not finite in {count:,} of {len(bad):,} datapoints (such as {first}); expected finite values"
        )


def own_prior(model: object) -> Family | None:
    """The model's `prior`; None where p(z) is N(0, I). Raises TypeError where it is no `Family`."""
    prior = getattr(model, "prior", None)
    if prior is None or isinstance(prior, Family):
        return prior
    raise TypeError(f"the model's prior is of type {type(prior).__name__}; expected a family of vae_ext.aevb.families")


def log_prior(model: object, z: Tensor, event_ndim: int) -> Tensor:
    """log p(z) in nats, z `[*S, *event]` to `[*S]`: of the model's own prior, or of N(0, I)."""
    prior = own_prior(model)
    return log_standard_prior(z, event_ndim) if prior is None else prior.log_prob(z, event_ndim)


def log_standard_prior(z: Tensor, event_ndim: int) -> Tensor:
    """log N(z; 0, I) in nats, z `[*S, *event]` to `[*S]`."""
    return ops.normal_log_prob(z.new_zeros(z.shape[z.ndim - event_ndim :]), 0.0, z, event_ndim=event_ndim)


def require_standard_prior(model: object) -> None:
    """For what assumes p(z) to be N(0, I). Raises ValueError where the model has a prior of its own."""
    prior = own_prior(model)
    if prior is not None:
        raise ValueError(
            f"the model has a prior of its own, {type(prior).__name__}; expected p(z) to be N(0, I): another goes with"
            " a posterior that is a Family, through estimator sgvb_a"
        )


def as_gaussian(output: GaussianLike | Family, source: str) -> Gaussian:
    """What the network called `source` returned.

    Raises TypeError when it is no tuple of two or three, ValueError when the third is no kind of scale.
    """
    if isinstance(output, Family):
        raise TypeError(
            f"the {source} returned {type(output).__name__}; expected a Gaussian, as a tuple (mean, log_var): other"
            " families are for posteriors alone, through estimator sgvb_a"
        )
    if isinstance(output, tuple) and len(output) in (2, 3):
        gaussian = Gaussian(*output)
        if gaussian.kind not in SCALE_KINDS:
            raise ValueError(f"the {source}'s kind is {gaussian.kind!r}; expected one of {', '.join(SCALE_KINDS)}")
        return gaussian
    # A tensor could be unpacked too, into its rows.
    raise TypeError(
        f"the {source} returned {type(output).__name__}; expected (mean, log_var), or (mean, scale, kind) with kind"
        " one of 'log_var', 'log_std', 'std', 'var'"
    )

"""Shapes and dtypes of the operators' results, for torch.compile and torch.export.

Real arguments are checked by the operators themselves (csrc/ops); here sizes may be symbolic, and only what shapes
follow from is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from vae_ext.arguments import (
    LocationScaleKind,
    ScaleKind,
    Standard,
    broadcast_batch,
    check_devices,
    check_gaussian,
    check_prior_batch,
    check_together,
    wide_dtype,
)

Size: TypeAlias = Sequence[int]  # or symbolic


def _event(event_ndim: int, tensor: Tensor) -> Size:
    return tensor.shape[tensor.dim() - event_ndim :]


def _sums(like: Tensor, shape: Size) -> Tensor:
    return like.new_empty(shape, dtype=wide_dtype(like))


def _samples(num_samples: int | None) -> Size:
    return () if num_samples is None else (num_samples,)


def _gradients(wanted: Sequence[bool], *arguments: Tensor | None) -> list[Tensor]:
    return [a.new_empty(a.shape) for a, want in zip(arguments, wanted, strict=True) if want and a is not None]


@torch.library.register_fake("vae_ext::bernoulli_log_prob")
def _(logits: Tensor, x: Tensor, event_ndim: int) -> Tensor:
    check_together(event_ndim, logits=logits, x=x)
    return _sums(logits, broadcast_batch(event_ndim, logits, x))


@torch.library.register_fake("vae_ext::bernoulli_log_prob_backward")
def _(grad: Tensor, logits: Tensor, x: Tensor, event_ndim: int, wanted: Sequence[bool]) -> list[Tensor]:
    return _gradients(wanted, logits, x)


@torch.library.register_fake("vae_ext::normal_log_prob")
def _(mean: Tensor, scale: Tensor, x: Tensor, kind: ScaleKind, event_ndim: int) -> Tensor:
    check_gaussian(event_ndim, kind, mean, scale, x=x)
    return _sums(mean, broadcast_batch(event_ndim, mean, scale, x))


@torch.library.register_fake("vae_ext::normal_log_prob_backward")
def _(
    grad: Tensor, mean: Tensor, scale: Tensor, x: Tensor, kind: ScaleKind, event_ndim: int, wanted: Sequence[bool]
) -> list[Tensor]:
    return _gradients(wanted, mean, scale, x)


@torch.library.register_fake("vae_ext::normal_kl")
def _(
    mean: Tensor,
    scale: Tensor,
    prior_mean: Tensor | None,
    prior_scale: Tensor | None,
    kind: ScaleKind,
    event_ndim: int,
) -> Tensor:
    check_gaussian(event_ndim, kind, mean, scale, prior_mean, prior_scale)
    return _sums(mean, broadcast_batch(event_ndim, mean, scale, prior_mean, prior_scale))


@torch.library.register_fake("vae_ext::normal_kl_backward")
def _(
    grad: Tensor,
    mean: Tensor,
    scale: Tensor,
    prior_mean: Tensor | None,
    prior_scale: Tensor | None,
    kind: ScaleKind,
    event_ndim: int,
    wanted: Sequence[bool],
) -> list[Tensor]:
    return _gradients(wanted, mean, scale, prior_mean, prior_scale)


@torch.library.register_fake("vae_ext::normal_rsample")
def _(
    mean: Tensor,
    scale: Tensor,
    rng_state: Tensor,
    num_samples: int | None,
    first_row: int,
    stream: int,
    kind: ScaleKind,
    event_ndim: int,
) -> Tensor:
    check_devices(mean=mean, rng_state=rng_state)
    check_gaussian(event_ndim, kind, mean, scale)
    return mean.new_empty(
        (*_samples(num_samples), *broadcast_batch(event_ndim, mean, scale), *_event(event_ndim, mean))
    )


@torch.library.register_fake("vae_ext::normal_rsample_backward")
def _(grad: Tensor, mean: Tensor, scale: Tensor, *rest: Any) -> list[Tensor]:
    return _gradients(rest[-1], mean, scale)


@torch.library.register_fake("vae_ext::location_scale_rsample")
def _(
    loc: Tensor,
    scale: Tensor,
    rng_state: Tensor,
    num_samples: int | None,
    first_row: int,
    stream: int,
    standard: Standard,
    kind: LocationScaleKind,
    event_ndim: int,
) -> Tensor:
    check_devices(loc=loc, rng_state=rng_state)
    check_together(event_ndim, loc=loc, **{kind: scale})
    return loc.new_empty((*_samples(num_samples), *broadcast_batch(event_ndim, loc, scale), *_event(event_ndim, loc)))


@torch.library.register_fake("vae_ext::location_scale_rsample_backward")
def _(grad: Tensor, loc: Tensor, scale: Tensor, *rest: Any) -> list[Tensor]:
    return _gradients(rest[-1], loc, scale)


def _z_and_sums(
    samples_of_sums: Size,
    mean: Tensor,
    scale: Tensor,
    prior_mean: Tensor | None,
    prior_scale: Tensor | None,
    rng_state: Tensor,
    num_samples: int | None,
    kind: ScaleKind,
    event_ndim: int,
) -> tuple[Tensor, Tensor]:
    check_devices(mean=mean, rng_state=rng_state)
    check_gaussian(event_ndim, kind, mean, scale, prior_mean, prior_scale)
    check_prior_batch(event_ndim, mean, scale, prior_mean, prior_scale)
    batch = broadcast_batch(event_ndim, mean, scale)
    z = mean.new_empty((*_samples(num_samples), *batch, *_event(event_ndim, mean)))
    return z, _sums(mean, (*samples_of_sums, *batch))


@torch.library.register_fake("vae_ext::normal_rsample_kl")
def _(
    mean: Tensor,
    scale: Tensor,
    prior_mean: Tensor | None,
    prior_scale: Tensor | None,
    rng_state: Tensor,
    num_samples: int | None,
    first_row: int,
    stream: int,
    kind: ScaleKind,
    event_ndim: int,
) -> tuple[Tensor, Tensor]:
    return _z_and_sums((), mean, scale, prior_mean, prior_scale, rng_state, num_samples, kind, event_ndim)


@torch.library.register_fake("vae_ext::normal_rsample_kl_backward")
def _(
    grad_z: Tensor,
    grad_kl: Tensor,
    mean: Tensor,
    scale: Tensor,
    prior_mean: Tensor | None,
    prior_scale: Tensor | None,
    *rest: Any,
) -> list[Tensor]:
    return _gradients(rest[-1], mean, scale, prior_mean, prior_scale)


@torch.library.register_fake("vae_ext::normal_rsample_log_ratio")
def _(
    mean: Tensor,
    scale: Tensor,
    prior_mean: Tensor | None,
    prior_scale: Tensor | None,
    rng_state: Tensor,
    num_samples: int | None,
    first_row: int,
    stream: int,
    kind: ScaleKind,
    event_ndim: int,
) -> tuple[Tensor, Tensor]:
    return _z_and_sums(
        _samples(num_samples), mean, scale, prior_mean, prior_scale, rng_state, num_samples, kind, event_ndim
    )


@torch.library.register_fake("vae_ext::normal_rsample_log_ratio_backward")
def _(
    grad_z: Tensor | None,
    grad_r: Tensor | None,
    z: Tensor,
    mean: Tensor,
    scale: Tensor,
    prior_mean: Tensor | None,
    prior_scale: Tensor | None,
    *rest: Any,
) -> list[Tensor]:
    return _gradients(rest[-1], mean, scale, prior_mean, prior_scale)

"""The operators in plain eager PyTorch, with the signatures of `vae_ext.ops`.

They are the oracle of the tests (in float64), the baseline of the benchmarks (in float32), and what the
public functions run under `torch.func` transforms and forward-mode AD: no in-place writes and no control flow
that depends on values, so they can be mapped, and differentiated in either mode as often as wanted.

Half-precision inputs are computed in float32, float64 in float64. The samplers take their noise as `epsilon`,
or draw it with `torch.randn`; the noise of the fused operators can be had from `vae_ext.normal_rsample` of a
zero mean and a unit `std`, and passed here. Shapes broadcast as torch broadcasts them, event dimensions
included: a shape that the fused operators reject is not rejected here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from vae_ext.arguments import (
    Scale,
    ScaleKind,
    Standard,
    as_parameter,
    resolve_event_ndim,
    resolve_location_scale,
    resolve_prior,
    resolve_scale,
    resolve_standard,
    wide_dtype,
)

LOG_2_PI = math.log(2 * math.pi)


def normal_rsample(
    mean: Tensor,
    log_var: Scale | None = None,
    num_samples: int | None = None,
    *,
    log_std: Scale | None = None,
    std: Scale | None = None,
    var: Scale | None = None,
    generator: Generator | None = None,
    rng_state: Tensor | None = None,
    first_row: int = 0,
    stream: int = 0,
    event_ndim: int | None = None,
    epsilon: Tensor | None = None,
) -> Tensor:
    """z = mean + std * epsilon, rounded to the dtype of `mean`.

    Returns `[B, *E]`, or `[num_samples, B, *E]`. `epsilon` has the shape of z; without it the noise is drawn
    from `generator`. `rng_state`, `first_row` and `stream` belong to the fused operators' noise: they say
    where an explicit `epsilon` came from, and raise ValueError without one.
    """
    scale, kind = resolve_scale(log_var=log_var, log_std=log_std, std=std, var=var)
    resolve_event_ndim(event_ndim, mean=mean)
    scale = as_parameter(kind, scale, mean)
    epsilon = _noise(mean, scale, num_samples, epsilon, generator, rng_state, first_row, stream)
    return _rsample(mean, scale, kind, epsilon)


def location_scale_rsample(
    loc: Tensor,
    standard: Standard,
    num_samples: int | None = None,
    *,
    log_scale: Scale | None = None,
    scale: Scale | None = None,
    generator: Generator | None = None,
    rng_state: Tensor | None = None,
    first_row: int = 0,
    stream: int = 0,
    event_ndim: int | None = None,
    epsilon: Tensor | None = None,
) -> Tensor:
    """z = loc + scale * epsilon, rounded to the dtype of `loc`; epsilon, where it is left out, by `quantile`."""
    given, kind = resolve_location_scale(scale, log_scale)
    resolve_event_ndim(event_ndim, loc=loc)
    width = as_parameter(kind, given, loc)
    drawn = epsilon is None
    draw = torch.randn if resolve_standard(standard) == "normal" else torch.rand
    epsilon = _noise(loc, width, num_samples, epsilon, generator, rng_state, first_row, stream, draw)
    if drawn and draw is torch.rand:
        # Of torch.rand 0 is one, which no quantile function takes.
        epsilon = quantile(standard, epsilon.clamp(min=torch.finfo(epsilon.dtype).eps / 4))
    return _rsample(loc, width, "log_std" if kind == "log_scale" else "std", epsilon)


def quantile(standard: Standard, u: Tensor) -> Tensor:
    """The quantile function of a standard distribution, at u in (0, 1)."""
    return _QUANTILES[resolve_standard(standard)](u)


_QUANTILES: dict[Standard, Callable[[Tensor], Tensor]] = {
    "normal": torch.special.ndtri,
    "laplace": lambda u: (u - 0.5).sign() * -torch.log(2 * torch.minimum(u, 1 - u)),
    "logistic": torch.special.logit,
    "uniform": lambda u: u,
    "triangular": lambda u: (u - 0.5).sign() * (1 - (2 * torch.minimum(u, 1 - u)).sqrt()),
    "gumbel": lambda u: -(-u.log()).log(),
    "cauchy": lambda u: (math.pi * (u - 0.5)).tan(),
    "exponential": lambda u: -torch.log1p(-u),
}


def normal_kl(
    mean: Tensor,
    log_var: Scale | None = None,
    prior_mean: Scale | None = None,
    prior_log_var: Scale | None = None,
    *,
    log_std: Scale | None = None,
    std: Scale | None = None,
    var: Scale | None = None,
    prior_log_std: Scale | None = None,
    prior_std: Scale | None = None,
    prior_var: Scale | None = None,
    event_ndim: int | None = None,
) -> Tensor:
    """KL(q || p) in nats, `[B]`: the sum over the event of (exp(v) - 1 - v + d^2 / prior_var) / 2.

    v = log_var - prior_log_var and d = mean - prior_mean. A prior mean that is not given is zero, a prior
    scale that is not given one.
    """
    scale, kind = resolve_scale(log_var=log_var, log_std=log_std, std=std, var=var)
    prior_scale = resolve_prior(
        kind,
        prior_log_var=prior_log_var,
        prior_log_std=prior_log_std,
        prior_std=prior_std,
        prior_var=prior_var,
    )
    event_ndim = resolve_event_ndim(event_ndim, mean=mean)
    return _kl(
        _widen(mean),
        _widen(as_parameter(kind, scale, mean)),
        kind,
        _widen_optional("prior_mean", prior_mean, mean),
        _widen_optional(f"prior_{kind}", prior_scale, mean),
        event_ndim,
    )


def normal_rsample_kl(
    mean: Tensor,
    log_var: Scale | None = None,
    num_samples: int | None = None,
    *,
    log_std: Scale | None = None,
    std: Scale | None = None,
    var: Scale | None = None,
    prior_mean: Scale | None = None,
    prior_log_var: Scale | None = None,
    prior_log_std: Scale | None = None,
    prior_std: Scale | None = None,
    prior_var: Scale | None = None,
    generator: Generator | None = None,
    rng_state: Tensor | None = None,
    first_row: int = 0,
    stream: int = 0,
    event_ndim: int | None = None,
    epsilon: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`(normal_rsample(...), normal_kl(...))` of the same distribution, as described there."""
    scale, kind = resolve_scale(log_var=log_var, log_std=log_std, std=std, var=var)
    prior_scale = resolve_prior(
        kind,
        prior_log_var=prior_log_var,
        prior_log_std=prior_log_std,
        prior_std=prior_std,
        prior_var=prior_var,
    )
    event_ndim = resolve_event_ndim(event_ndim, mean=mean)
    scale = as_parameter(kind, scale, mean)
    epsilon = _noise(mean, scale, num_samples, epsilon, generator, rng_state, first_row, stream)
    kl = _kl(
        _widen(mean),
        _widen(scale),
        kind,
        _widen_optional("prior_mean", prior_mean, mean),
        _widen_optional(f"prior_{kind}", prior_scale, mean),
        event_ndim,
    )
    return _rsample(mean, scale, kind, epsilon), kl


def normal_rsample_log_ratio(
    mean: Tensor,
    log_var: Scale | None = None,
    num_samples: int | None = None,
    *,
    log_std: Scale | None = None,
    std: Scale | None = None,
    var: Scale | None = None,
    prior_mean: Scale | None = None,
    prior_log_var: Scale | None = None,
    prior_log_std: Scale | None = None,
    prior_std: Scale | None = None,
    prior_var: Scale | None = None,
    generator: Generator | None = None,
    rng_state: Tensor | None = None,
    first_row: int = 0,
    stream: int = 0,
    event_ndim: int | None = None,
    epsilon: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """z, and r = log p(z) - log q(z given x) in nats, `[B]` or `[num_samples, B]`, of the z that is returned.

    The gradient of r is that of SGVB's estimator A: z moves with its parameters and epsilon stays, so that
    log q(z given x) depends on the scale alone. Kingma & Welling (2013), equation 6.
    """
    scale, kind = resolve_scale(log_var=log_var, log_std=log_std, std=std, var=var)
    prior_scale = resolve_prior(
        kind,
        prior_log_var=prior_log_var,
        prior_log_std=prior_log_std,
        prior_std=prior_std,
        prior_var=prior_var,
    )
    event_ndim = resolve_event_ndim(event_ndim, mean=mean)
    scale = as_parameter(kind, scale, mean)
    epsilon = _noise(mean, scale, num_samples, epsilon, generator, rng_state, first_row, stream)
    z = _rsample(mean, scale, kind, epsilon)

    wide_z, wide_mean, wide_scale = _widen(z), _widen(mean), _widen(scale)
    # What epsilon is after z was rounded; constant, like epsilon itself.
    rounded_epsilon = ((wide_z - wide_mean) / standard_deviation(wide_scale, kind)).detach()
    log_q = -0.5 * (_log_var(wide_scale, kind) + rounded_epsilon.square())
    log_p = -0.5 * _squared_error(wide_z, _widen_optional("prior_mean", prior_mean, mean))
    wide_prior = _widen_optional(f"prior_{kind}", prior_scale, mean)
    if wide_prior is not None:
        log_p = log_p / _var(wide_prior, kind) - 0.5 * _log_var(wide_prior, kind)
    return z, _sum_event(log_p - log_q, event_ndim)


def bernoulli_log_prob(logits: Tensor, x: Tensor, *, event_ndim: int | None = None) -> Tensor:
    """log p(x) in nats, `[*S, B]`: the sum over the event of x * logits - log(1 + exp(logits)).

    x is of any dtype; outside [0, 1] the expression simply continues.
    """
    event_ndim = resolve_event_ndim(event_ndim, logits=logits, x=x)
    wide_logits = _widen(logits)
    wide_logits, wide_x = torch.broadcast_tensors(wide_logits, x.to(wide_logits.dtype))
    return -_sum_event(F.binary_cross_entropy_with_logits(wide_logits, wide_x, reduction="none"), event_ndim)


def normal_log_prob(
    mean: Tensor,
    log_var: Scale | None = None,
    x: Tensor | None = None,
    *,
    log_std: Scale | None = None,
    std: Scale | None = None,
    var: Scale | None = None,
    event_ndim: int | None = None,
) -> Tensor:
    """log p(x) in nats, `[*S, B]`: the sum over the event of -(log(2 pi var) + (x - mean)^2 / var) / 2."""
    scale, kind = resolve_scale(log_var=log_var, log_std=log_std, std=std, var=var)
    event_ndim = resolve_event_ndim(event_ndim, mean=mean, x=x)
    assert x is not None  # or resolve_event_ndim would have raised
    wide_mean, wide_scale = _widen(mean), _widen(as_parameter(kind, scale, mean))
    squared_error = (x.to(wide_mean.dtype) - wide_mean).square()
    log_prob = -0.5 * (LOG_2_PI + _log_var(wide_scale, kind) + squared_error / _var(wide_scale, kind))
    return _sum_event(log_prob, event_ndim)


def _rsample(mean: Tensor, scale: Tensor, kind: ScaleKind, epsilon: Tensor) -> Tensor:
    wide_mean = _widen(mean)
    return (wide_mean + standard_deviation(_widen(scale), kind) * epsilon.to(wide_mean.dtype)).to(mean.dtype)


def _kl(
    mean: Tensor,
    scale: Tensor,
    kind: ScaleKind,
    prior_mean: Tensor | None,
    prior_scale: Tensor | None,
    event_ndim: int,
) -> Tensor:
    log_ratio = _log_var(scale, kind)
    squared_error = _squared_error(mean, prior_mean)
    if prior_scale is not None:
        log_ratio = log_ratio - _log_var(prior_scale, kind)
        squared_error = squared_error / _var(prior_scale, kind)
    # exp(v) - 1 - v would be nothing but rounding error where the posterior is close to the prior.
    return _sum_event(0.5 * (torch.expm1(log_ratio) - log_ratio + squared_error), event_ndim)


def _noise(
    mean: Tensor,
    scale: Tensor,
    num_samples: int | None,
    epsilon: Tensor | None,
    generator: Generator | None,
    rng_state: Tensor | None,
    first_row: int,
    stream: int,
    draw: Callable[..., Tensor] = torch.randn,
) -> Tensor:
    if num_samples is not None and num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; expected 1 or more, or None")
    # Benchmarks measure this function, and broadcast_shapes takes as long as all the rest does at small sizes.
    shape = mean.shape if mean.shape == scale.shape else torch.broadcast_shapes(mean.shape, scale.shape)
    if num_samples is not None:
        shape = torch.Size((num_samples, *shape))
    if epsilon is None:
        if rng_state is not None or first_row != 0 or stream != 0:
            raise ValueError(
                "rng_state, first_row and stream choose the noise of the fused operators, which the reference"
                " cannot draw: it needs explicit epsilon"
            )
        return draw(shape, dtype=wide_dtype(mean), device=mean.device, generator=generator)
    if generator is not None:
        raise ValueError("generator and epsilon are both given; expected one or neither")
    if epsilon.shape != shape:
        raise ValueError(f"epsilon has shape {tuple(epsilon.shape)}; expected that of z, {tuple(shape)}")
    return epsilon


def _log_var(scale: Tensor, kind: ScaleKind) -> Tensor:
    if kind == "log_var":
        return scale
    if kind == "log_std":
        return 2 * scale
    return 2 * scale.log() if kind == "std" else scale.log()


def standard_deviation(scale: Tensor, kind: ScaleKind) -> Tensor:
    """The standard deviation that a scale of that kind stands for."""
    if kind == "log_var":
        return (0.5 * scale).exp()
    if kind == "log_std":
        return scale.exp()
    return scale if kind == "std" else scale.sqrt()


def _var(scale: Tensor, kind: ScaleKind) -> Tensor:
    if kind == "log_var":
        return scale.exp()
    if kind == "log_std":
        return (2 * scale).exp()
    return scale.square() if kind == "std" else scale


def _squared_error(value: Tensor, mean: Tensor | None) -> Tensor:
    return value.square() if mean is None else (value - mean).square()


def _sum_event(terms: Tensor, event_ndim: int) -> Tensor:
    return terms.sum(tuple(range(-event_ndim, 0))) if event_ndim else terms


def _widen(tensor: Tensor) -> Tensor:
    wide = wide_dtype(tensor)
    return tensor if tensor.dtype == wide else tensor.to(wide)


def _widen_optional(name: str, prior: Scale | None, like: Tensor) -> Tensor | None:
    return None if prior is None else _widen(as_parameter(name, prior, like))

"""The fused operators: sampling, KL and log-likelihoods of variational autoencoders.

Shapes are written `[B, *E]`: `B` datapoints, `E` the dims of one datapoint's event, `L` samples of each datapoint, `S`
any dims before the batch. Per-datapoint results are sums over the event, in nats, one for each datapoint, float32
(float64 for float64 parameters); how they are averaged is the caller's business.

What all operators have in common:

* `event_ndim` says how many trailing dims are the event. Left out, it is one less than the fewest dims among `mean`,
  `logits` and `x`. The dims before the event broadcast as torch broadcasts them, without being expanded in memory; the
  dims of the event do not broadcast.
* A Gaussian's scale is given as exactly one of `log_var`, `log_std`, `std` and `var`: a tensor like `mean`, one of the
  event's shape `[*E]`, a 0-d tensor or a float. A prior's scale is given in the same parameterisation.
* Parameters are float32, float64, bfloat16 or float16, all of one dtype. Half precision is computed and summed in
  float32. Under autocast nothing is cast.
* Strides before the event are free. An argument whose event is not dense in memory is copied once. Results are
  contiguous.
* Every operator is differentiable with respect to each floating argument, any number of times, and gradients of
  broadcast arguments are summed in a fixed order: results are bitwise the same for any number of threads and any batch
  that a datapoint stands in, and, but for float64, for any instruction set.
* A wrong shape raises ValueError, a wrong dtype or kind of argument TypeError, a mix of devices RuntimeError.

The noise of the samplers is a function of `rng_state` and of where an element stands, and never stored (docs/design.md,
Noise). Without `rng_state` the state is drawn from torch's generator, so `torch.manual_seed` governs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Generator, Tensor
from torch.autograd import forward_ad

from vae_ext import _native, reference
from vae_ext.arguments import (
    MAX_INT64,
    PARAMETER_DTYPES,
    Scale,
    ScaleKind,
    Standard,
    as_parameter,
    broadcast_batch,
    check_gaussian,
    check_prior_batch,
    check_together,
    resolve_event_ndim,
    resolve_integer,
    resolve_location_scale,
    resolve_prior,
    resolve_scale,
    resolve_standard,
    wide_dtype,
)

_native.load()

from vae_ext import fake as _fake  # noqa: E402, F401  (the shapes of what was just loaded)

__all__ = [
    "bernoulli_log_prob",
    "location_scale_rsample",
    "make_rng_state",
    "normal_kl",
    "normal_log_prob",
    "normal_rsample",
    "normal_rsample_kl",
    "normal_rsample_log_ratio",
]

# The overloads themselves: looking one up, and having torch choose it, would cost as much as the checks do.
_normal_rsample = torch.ops.vae_ext.normal_rsample.default
_location_scale_rsample = torch.ops.vae_ext.location_scale_rsample.default
_normal_kl = torch.ops.vae_ext.normal_kl.default
_normal_rsample_kl = torch.ops.vae_ext.normal_rsample_kl.default
_normal_rsample_log_ratio = torch.ops.vae_ext.normal_rsample_log_ratio.default
_bernoulli_log_prob = torch.ops.vae_ext.bernoulli_log_prob.default
_normal_log_prob = torch.ops.vae_ext.normal_log_prob.default

# Where the noise of a call comes from, as it was given: generator, rng_state, first_row and stream.
_Draw: TypeAlias = tuple[Generator | None, Tensor | None, int, int]


def make_rng_state(generator: Generator | None = None, device: torch.device | str | None = None) -> Tensor:
    """Draws the state of one use of noise, an int64 tensor `[seed, offset]`, from torch's generator.

    Args:
        generator: where to draw from; the default generator of `device` when left out.
        device: where the state lives, which must be where the sampler's arguments are; the generator's when left out.

    The same state gives the same noise, whatever the device, the number of threads or how a batch is split. Pass it to
    a sampler as `rng_state` to draw again what was drawn, or inside `torch.compile`, which cannot trace a generator.
    """
    if generator is None:
        return torch.randint(MAX_INT64, (2,), device=device)
    if not isinstance(generator, Generator):
        raise TypeError(f"generator is of type {type(generator).__name__}; expected a torch.Generator or None")
    state = torch.randint(MAX_INT64, (2,), device=generator.device, generator=generator)
    return state if device is None else state.to(device)


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
) -> Tensor:
    r"""Reparameterised samples of a diagonal Gaussian (Kingma & Welling 2013, section 2.4).

    .. math:: z = \mu + \sigma \odot \epsilon, \qquad \epsilon \sim \mathcal{N}(0, I)

    Args:
        mean: `[B, *E]`.
        log_var, log_std, std, var: the scale, exactly one of them.
        num_samples: `L`, samples of each datapoint. Sample l is the same whatever L is.
        generator: where to draw the state of the noise from; not together with `rng_state`.
        rng_state: the state of the noise, from :func:`make_rng_state`.
        first_row: the number of the first datapoint among all that share the state: two halves of a batch draw what the
            whole would.
        stream: set apart from other uses of the same state; 0 or more.
        event_ndim: how many trailing dims are the event.

    Returns:
        z, `[B, *E]`, or `[L, B, *E]` with `num_samples`, of the dtype of `mean`. epsilon is a float32 number for every
        dtype. Backward draws it again rather than keep it.

    Raises:
        ValueError: also where a counter would overflow: `first_row + B` and `L * ceil(elements / 4)` must not exceed
            2**32.

    Example::

        z = normal_rsample(mean, log_var)
        many = normal_rsample(mean, std=0.1, num_samples=50)
    """
    scale, kind = resolve_scale(log_var=log_var, log_std=log_std, std=std, var=var)
    ndim = resolve_event_ndim(event_ndim, mean=mean)
    num_samples, first_row, stream = _resolve_counts(num_samples, first_row, stream)
    scale = as_parameter(kind, scale, mean)
    state = _rng_state(generator, rng_state, ndim, kind, mean, scale)
    if _transformed():
        keywords = _keywords(ndim, kind, mean, scale)
        keywords["epsilon"] = _epsilon(mean, scale, state, num_samples, first_row, stream, ndim)
        return reference.normal_rsample(num_samples=num_samples, **keywords)
    return _normal_rsample(mean, scale, state, num_samples, first_row, stream, kind, ndim)


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
) -> Tensor:
    r"""Reparameterised samples of a location-scale family (Kingma & Welling 2013, section 2.4).

    .. math:: z = \mathrm{loc} + \mathrm{scale} \odot \epsilon

    with independent :math:`\epsilon` of one of the standard distributions

    ============= ========================================= ==================
    `normal`      :math:`e^{-x^2/2} / \sqrt{2 \pi}`         as `normal_rsample`
    `laplace`     :math:`e^{-|x|} / 2`
    `logistic`    :math:`e^{-x} / (1 + e^{-x})^2`
    `uniform`     1                                         on (0, 1)
    `triangular`  :math:`1 - |x|`                           on [-1, 1]
    `gumbel`      :math:`e^{-(x + e^{-x})}`
    `cauchy`      :math:`1 / (\pi (1 + x^2))`
    `exponential` :math:`e^{-x}`                            on (0, ∞)
    ============= ========================================= ==================

    Args:
        loc: `[B, *E]`.
        standard: the distribution of epsilon.
        num_samples: `L`, samples of each datapoint. Sample l is the same whatever L is.
        log_scale, scale: a tensor like `loc`, one of the event's shape, a 0-d tensor or a float; exactly one of them.
        generator, rng_state, first_row, stream, event_ndim: as those of :func:`normal_rsample`.

    Returns:
        z, `[B, *E]`, or `[L, B, *E]` with `num_samples`, of the dtype of `loc`. epsilon is a float32 number for every
        dtype, and but for the normal one the quantile of one 32-bit word: it rises with it and is never infinite.

    Example::

        z = location_scale_rsample(loc, "laplace", log_scale=log_scale)
        u = location_scale_rsample(torch.zeros(8, 3), "uniform", scale=1.0)
    """
    given, kind = resolve_location_scale(scale, log_scale)
    standard = resolve_standard(standard)
    ndim = resolve_event_ndim(event_ndim, loc=loc)
    num_samples, first_row, stream = _resolve_counts(num_samples, first_row, stream)
    width = as_parameter(kind, given, loc)
    if rng_state is None and not _plain(ndim, loc, width):
        check_together(ndim, loc=loc, **{kind: width})
    state = resolve_rng_state(generator, rng_state, loc.device)
    if _transformed():
        check_together(ndim, loc=loc, **{kind: width})
        zeros = _zeros(loc, width, ndim)
        epsilon = _location_scale_rsample(
            zeros, zeros.new_ones(()), state, num_samples, first_row, stream, standard, "scale", ndim
        )
        keywords: dict[str, Any] = {kind: width, "event_ndim": ndim, "epsilon": epsilon}
        return reference.location_scale_rsample(loc, standard, num_samples, **keywords)
    return _location_scale_rsample(loc, width, state, num_samples, first_row, stream, standard, kind, ndim)


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
    r"""KL divergence of diagonal Gaussians, per datapoint (Kingma & Welling 2013, appendix B).

    .. math:: D_{KL} = \tfrac12 \sum_j \left[ \frac{\sigma_j^2}{s_j^2} - 1 - \log \frac{\sigma_j^2}{s_j^2}
              + \frac{(\mu_j - m_j)^2}{s_j^2} \right]

    for the posterior :math:`\mathcal{N}(\mu, \sigma^2)` and the prior :math:`\mathcal{N}(m, s^2)`. Exact near the
    prior, where the first three terms cancel.

    Args:
        mean: `[B, *E]`.
        log_var, log_std, std, var: the posterior's scale, exactly one of them.
        prior_mean: a tensor like a scale, or a float; 0 when left out.
        prior_log_var, prior_log_std, prior_std, prior_var: the prior's scale, in the posterior's parameterisation; 1
            when left out.
        event_ndim: how many trailing dims are the event.

    Returns:
        The KL in nats, `[B]`.

    Example::

        loss = (normal_kl(mean, log_var) - log_likelihood).mean()
    """
    scale, kind = resolve_scale(log_var=log_var, log_std=log_std, std=std, var=var)
    prior_scale = resolve_prior(
        kind,
        prior_log_var=prior_log_var,
        prior_log_std=prior_log_std,
        prior_std=prior_std,
        prior_var=prior_var,
    )
    ndim = resolve_event_ndim(event_ndim, mean=mean)
    scale = as_parameter(kind, scale, mean)
    if prior_mean is not None:
        prior_mean = as_parameter("prior_mean", prior_mean, mean)
    if prior_scale is not None:
        prior_scale = as_parameter(f"prior_{kind}", prior_scale, mean)
    if _transformed():
        return reference.normal_kl(**_keywords(ndim, kind, mean, scale, prior_mean, prior_scale))
    return _normal_kl(mean, scale, prior_mean, prior_scale, kind, ndim)


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
) -> tuple[Tensor, Tensor]:
    """Samples and their KL in one pass over the parameters: what SGVB estimator B (eq. 7) needs of a posterior.

    Returns:
        `(z, kl)`: z as :func:`normal_rsample` of the same arguments gives it, to the bit, and kl, `[B]`, as
        :func:`normal_kl` does. The prior may not add batch dims to those of `mean` and the scale.

    Arguments and errors are those of the two.

    Example::

        z, kl = normal_rsample_kl(*encoder(x).chunk(2, dim=-1))
        bound = bernoulli_log_prob(decoder(z), x) - kl
    """
    scale, kind = resolve_scale(log_var=log_var, log_std=log_std, std=std, var=var)
    prior_scale = resolve_prior(
        kind,
        prior_log_var=prior_log_var,
        prior_log_std=prior_log_std,
        prior_std=prior_std,
        prior_var=prior_var,
    )
    return _sample_and(
        _normal_rsample_kl,
        reference.normal_rsample_kl,
        mean,
        scale,
        kind,
        num_samples,
        prior_mean,
        prior_scale,
        (generator, rng_state, first_row, stream),
        event_ndim,
    )


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
) -> tuple[Tensor, Tensor]:
    r"""Samples and the log ratio of prior to posterior at them: SGVB estimator A (Kingma & Welling 2013, eq. 6).

    .. math:: r = \log p(z) - \log q(z \mid x), \qquad \mathbb{E}[r] = -D_{KL}

    Returns:
        `(z, r)`: z as :func:`normal_rsample` gives it, and r, `[B]` or `[L, B]`, of that z as it was rounded to its
        dtype. Gradients of r are those through z with epsilon held fixed. The prior may not add batch dims to those of
        `mean` and the scale.

    Arguments and errors are those of :func:`normal_rsample` and :func:`normal_kl`.

    Example::

        z, r = normal_rsample_log_ratio(mean, log_var, num_samples=50)
        log_weights = bernoulli_log_prob(decoder(z), x) + r
        iwae_bound = log_weights.logsumexp(0) - math.log(50)
    """
    scale, kind = resolve_scale(log_var=log_var, log_std=log_std, std=std, var=var)
    prior_scale = resolve_prior(
        kind,
        prior_log_var=prior_log_var,
        prior_log_std=prior_log_std,
        prior_std=prior_std,
        prior_var=prior_var,
    )
    return _sample_and(
        _normal_rsample_log_ratio,
        reference.normal_rsample_log_ratio,
        mean,
        scale,
        kind,
        num_samples,
        prior_mean,
        prior_scale,
        (generator, rng_state, first_row, stream),
        event_ndim,
    )


def bernoulli_log_prob(logits: Tensor, x: Tensor, *, event_ndim: int | None = None) -> Tensor:
    r"""Bernoulli log-likelihood from logits, per datapoint (Kingma & Welling 2013, appendix C.1).

    .. math:: \log p(x \mid z) = \sum_j \left[ x_j l_j - \max(l_j, 0) - \log(1 + e^{-|l_j|}) \right]

    Args:
        logits: `[*S, B, *E]`, float32, float64, bfloat16 or float16.
        x: `[B, *E]` (any of the two may carry S), of any floating dtype, bool or uint8 {0, 1}. Values in [0, 1] give
            the likelihood the paper uses for grey images; outside, the formula extends linearly, unchecked.
        event_ndim: how many trailing dims are the event.

    Returns:
        The log-likelihood in nats, `[*S, B]`. Exact when saturated, in low precision too.

    Example::

        # instead of -F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(-1)
        log_likelihood = bernoulli_log_prob(logits, x)
    """
    ndim = resolve_event_ndim(event_ndim, logits=logits, x=x)
    if _transformed():
        check_together(ndim, logits=logits, x=x)
        return reference.bernoulli_log_prob(logits, x, event_ndim=ndim)
    return _bernoulli_log_prob(logits, x, ndim)


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
    r"""Gaussian log-likelihood, per datapoint (Kingma & Welling 2013, appendix C.2).

    .. math:: \log p(x \mid z) = -\tfrac12 \sum_j \left[ \log 2 \pi + \log \sigma_j^2
              + \frac{(x_j - \mu_j)^2}{\sigma_j^2} \right]

    Args:
        mean: `[*S, B, *E]`.
        log_var, log_std, std, var: the scale, exactly one of them.
        x: `[B, *E]` (any of the two may carry S), of any floating dtype, bool or uint8.
        event_ndim: how many trailing dims are the event.

    Returns:
        The log-likelihood in nats, `[*S, B]`.

    Example::

        log_likelihood = normal_log_prob(mean, x=x, std=0.1)
    """
    scale, kind = resolve_scale(log_var=log_var, log_std=log_std, std=std, var=var)
    if x is None:
        raise TypeError("x was left out; expected a tensor")
    ndim = resolve_event_ndim(event_ndim, mean=mean, x=x)
    scale = as_parameter(kind, scale, mean)
    if _transformed():
        return reference.normal_log_prob(x=x, **_keywords(ndim, kind, mean, scale, x=x))
    return _normal_log_prob(mean, scale, x, kind, ndim)


def _sample_and(
    fused: Callable[..., tuple[Tensor, Tensor]],
    eager: Callable[..., tuple[Tensor, Tensor]],
    mean: Tensor,
    scale: Scale,
    kind: ScaleKind,
    num_samples: int | None,
    prior_mean: Scale | None,
    prior_scale: Scale | None,
    draw: _Draw,
    event_ndim: int | None,
) -> tuple[Tensor, Tensor]:
    """What the operators that sample and sum have in common."""
    ndim = resolve_event_ndim(event_ndim, mean=mean)
    generator, rng_state, first_row, stream = draw
    num_samples, first_row, stream = _resolve_counts(num_samples, first_row, stream)
    scale = as_parameter(kind, scale, mean)
    if prior_mean is not None:
        prior_mean = as_parameter("prior_mean", prior_mean, mean)
    if prior_scale is not None:
        prior_scale = as_parameter(f"prior_{kind}", prior_scale, mean)
    state = _rng_state(generator, rng_state, ndim, kind, mean, scale, prior_mean, prior_scale)
    if _transformed():
        keywords = _keywords(ndim, kind, mean, scale, prior_mean, prior_scale)
        check_prior_batch(ndim, mean, scale, prior_mean, prior_scale)
        keywords["epsilon"] = _epsilon(mean, scale, state, num_samples, first_row, stream, ndim)
        return eager(num_samples=num_samples, **keywords)
    return fused(mean, scale, prior_mean, prior_scale, state, num_samples, first_row, stream, kind, ndim)


def _transformed() -> bool:
    """Is a torch.func transform or forward-mode AD under way?

    A C++ autograd function takes part in neither; the eager reference does, on the same noise.
    """
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def _keywords(
    event_ndim: int,
    kind: ScaleKind,
    mean: Tensor,
    scale: Tensor,
    prior_mean: Tensor | None = None,
    prior_scale: Tensor | None = None,
    x: Tensor | None = None,
) -> dict[str, Any]:
    """The checked arguments that a Gaussian operator's eager reference takes them by."""
    check_gaussian(event_ndim, kind, mean, scale, prior_mean, prior_scale, x)
    keywords = {"event_ndim": event_ndim, "mean": mean, kind: scale}
    priors = {"prior_mean": prior_mean, f"prior_{kind}": prior_scale}
    return keywords | {name: prior for name, prior in priors.items() if prior is not None}


def _resolve_counts(num_samples: int | None, first_row: int, stream: int) -> tuple[int | None, int, int]:
    if num_samples is not None:
        num_samples = resolve_integer("num_samples", num_samples, 1)
    return num_samples, resolve_integer("first_row", first_row, 0), resolve_integer("stream", stream, 0)


def _rng_state(
    generator: Generator | None,
    rng_state: Tensor | None,
    event_ndim: int,
    kind: ScaleKind,
    mean: Tensor,
    scale: Tensor,
    prior_mean: Tensor | None = None,
    prior_scale: Tensor | None = None,
) -> Tensor:
    """The state as given, or a new one; a call refused for a shape, dtype or device must not move the generator."""
    if rng_state is None:
        plain = (
            _plain(event_ndim, mean, scale)
            and (prior_mean is None or _plain(event_ndim, mean, prior_mean))
            and (prior_scale is None or _plain(event_ndim, mean, prior_scale))
        )
        if not plain:
            check_gaussian(event_ndim, kind, mean, scale, prior_mean, prior_scale)
            check_prior_batch(event_ndim, mean, scale, prior_mean, prior_scale)
    return resolve_rng_state(generator, rng_state, mean.device)


def resolve_rng_state(generator: Generator | None, rng_state: Tensor | None, device: torch.device) -> Tensor:
    """The state that was given, or a new one. Raises ValueError where a generator was given too, or TypeError."""
    if rng_state is None:
        return make_rng_state(generator, device)
    if generator is not None:
        raise ValueError("generator and rng_state were both given; expected at most one of them")
    if not isinstance(rng_state, Tensor):
        raise TypeError(f"rng_state is of type {type(rng_state).__name__}; expected a tensor from make_rng_state")
    if rng_state.layout is not torch.strided:
        raise TypeError(f"rng_state has layout {rng_state.layout}; expected a tensor from make_rng_state")
    return rng_state


def _plain(event_ndim: int, mean: Tensor, parameter: Tensor) -> bool:
    """Do the two go together at a glance? The checks that can say why not take longer than a small draw.

    While a call is traced nothing is drawn, and the operators' fakes check it.
    """
    if torch.compiler.is_compiling():
        return True
    dims = parameter.dim()
    if parameter.device != mean.device or mean.dtype not in PARAMETER_DTYPES:
        return False
    if parameter.dtype is not mean.dtype:
        return dims == 0 and parameter.dtype is wide_dtype(mean)
    # Symbolic sizes are compared only where there are as many: a comparison is a guard.
    if dims == mean.dim():
        return parameter.shape == mean.shape
    return dims == 0 or (dims == event_ndim and parameter.shape == mean.shape[mean.dim() - dims :])


def _epsilon(
    mean: Tensor,
    scale: Tensor,
    state: Tensor,
    num_samples: int | None,
    first_row: int,
    stream: int,
    event_ndim: int,
) -> Tensor:
    """The noise itself, as a constant: what the sampler would draw for a standard normal of this shape."""
    zeros = _zeros(mean, scale, event_ndim)
    epsilon: Tensor = _normal_rsample(
        zeros, zeros.new_ones(()), state, num_samples, first_row, stream, "std", event_ndim
    )
    return epsilon


def _zeros(mean: Tensor, scale: Tensor, event_ndim: int) -> Tensor:
    """float32 zeros in the shape of one sample."""
    batch = broadcast_batch(event_ndim, mean, scale)
    return torch.zeros((*batch, *mean.shape[mean.dim() - event_ndim :]), dtype=torch.float32, device=mean.device)


def _register_vmap(name: str, sampler: Callable[..., Tensor]) -> None:
    """One draw after the other; `vmap` comes here where it maps over states, or over arguments of this very op."""

    @torch.library.register_vmap(name)
    def _(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Tensor, int]:
        draws = []
        for index in range(info.batch_size):
            own = [a if dim is None else a.select(dim, index) for a, dim in zip(arguments, in_dims, strict=True)]
            draws.append(sampler(*own))
        return torch.stack(draws), 0


_register_vmap("vae_ext::normal_rsample", _normal_rsample)
_register_vmap("vae_ext::location_scale_rsample", _location_scale_rsample)

"""Stochastic gradient variational Bayes estimators of the lower bound (section 2.3 of the paper), and a baseline.

    L(x_i) = E_q[log p(x_i given z) + log p(z) - log q(z given x_i)]    (eq. 2)

`sgvb_a`, `sgvb_b` and `score_function` estimate it for each datapoint from L draws of z. They agree in expectation, and
so do their gradients; they differ in variance. What they have in common:

* `model` is any `vae_ext.aevb.interface.Model`, and x, `[B, *D]`, whatever it takes.
* `num_samples` is L.
* `generator`, `rng_state` and `first_row` say where the noise comes from, as for `vae_ext.normal_rsample`. Under one
  state the three draw the same z.
* They return `[B]` in nats, whose gradient is the estimate of the bound's gradient in all parameters of the model.
* The posterior is Gaussian and the prior N(0, I), or with `sgvb_a` both are of any family of `vae_ext.aevb.families`.
* Errors are the operators': ValueError for shapes, TypeError for dtypes and for what an encoder returns; and ValueError
  for a prior of the model's own under a Gaussian posterior.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Generator, Tensor

from vae_ext import ops
from vae_ext.aevb.families import Family, Normal
from vae_ext.aevb.interface import GaussianLike, Model, as_gaussian, log_prior, own_prior, require_standard_prior


class Estimator(Protocol):
    """The signature of an estimator of the bound of each datapoint."""

    def __call__(
        self,
        model: Model,
        x: Tensor,
        num_samples: int = 1,
        *,
        generator: Generator | None = None,
        rng_state: Tensor | None = None,
        first_row: int = 0,
    ) -> Tensor: ...


def sgvb_a(
    model: Model,
    x: Tensor,
    num_samples: int = 1,
    *,
    generator: Generator | None = None,
    rng_state: Tensor | None = None,
    first_row: int = 0,
) -> Tensor:
    """The lower bound of each datapoint by estimator A (eq. 6), which needs no KL in closed form:

        L_A(x_i) = 1/L sum_l [log p(x_i, z_il) - log q(z_il given x_i)],   z_il = mean_i + std_i * epsilon_il

    Gradients go through z, epsilon held fixed. A posterior of another family than the Gaussian takes its own log q, and
    the model's `prior`, a `Family` as well, in the place of N(0, I) where the model has one.

    Raises:
        ValueError: the posterior goes beyond the support of the prior, so that the bound is -inf. Ends of supports that
            are tensors on another device than the CPU are not compared, which would wait for it.
    """
    return _bound_a(
        model, x, model.encode(x), num_samples, generator=generator, rng_state=rng_state, first_row=first_row
    )


def sgvb_b(
    model: Model,
    x: Tensor,
    num_samples: int = 1,
    *,
    generator: Generator | None = None,
    rng_state: Tensor | None = None,
    first_row: int = 0,
) -> Tensor:
    """The lower bound of each datapoint by estimator B (eq. 7), its KL term in closed form:

        L_B(x_i) = -KL(q(z given x_i) || p(z)) + 1/L sum_l log p(x_i given z_il),   z_il = mean_i + std_i * epsilon_il

    Gradients go through z, epsilon held fixed. Typically of less variance than estimator A.
    """
    return _bound_b(
        model, x, model.encode(x), num_samples, generator=generator, rng_state=rng_state, first_row=first_row
    )


def sgvb_b_or_a(
    model: Model,
    x: Tensor,
    num_samples: int = 1,
    *,
    generator: Generator | None = None,
    rng_state: Tensor | None = None,
    first_row: int = 0,
) -> Tensor:
    """The estimator of less variance that the posterior has: B of a Gaussian, A of other families."""
    posterior = model.encode(x)
    bound = _bound_a if isinstance(posterior, Family) else _bound_b
    return bound(model, x, posterior, num_samples, generator=generator, rng_state=rng_state, first_row=first_row)


def _bound_a(model: Model, x: Tensor, posterior: GaussianLike | Family, num_samples: int, **noise: Any) -> Tensor:
    z, log_ratio = rsample_log_ratio(model, posterior, num_samples, **noise)
    return (model.log_likelihood(z, x) + log_ratio).mean(0)


def _bound_b(model: Model, x: Tensor, posterior: GaussianLike | Family, num_samples: int, **noise: Any) -> Tensor:
    gaussian = as_gaussian(posterior, "encoder")
    require_standard_prior(model)
    z, kl = ops.normal_rsample_kl(gaussian.mean, num_samples=num_samples, **gaussian.scale_keyword, **noise)
    return model.log_likelihood(z, x).mean(0) - kl


def score_function(
    model: Model,
    x: Tensor,
    num_samples: int = 1,
    *,
    generator: Generator | None = None,
    rng_state: Tensor | None = None,
    first_row: int = 0,
) -> Tensor:
    """The lower bound of each datapoint with the gradient of section 2.2's naive Monte Carlo estimator (REINFORCE):

        grad_phi E_q[f(z)] = E_q[f(z) grad_phi log q(z)],   f(z) = log p(x_i, z) - log q(z given x_i)

    with L draws for the expectation, no baseline subtracted. The value is that of `sgvb_a`. z is a draw without a
    gradient, so f need not be differentiable in z, at the price of a variance that grows with the square of f. The
    gradient of -log q inside f is left out, as its expectation is zero; parameters of p(x given z) have theirs as ever.
    """
    posterior = as_gaussian(model.encode(x), "encoder")
    require_standard_prior(model)
    with torch.no_grad():
        z, log_ratio = ops.normal_rsample_log_ratio(
            posterior.mean,
            num_samples=num_samples,
            **posterior.scale_keyword,
            generator=generator,
            rng_state=rng_state,
            first_row=first_row,
        )
    f = model.log_likelihood(z, x) + log_ratio
    log_q = ops.normal_log_prob(posterior.mean, x=z, **posterior.scale_keyword)
    # Zero in value, f grad log q in gradient.
    score = f.detach() * (log_q - log_q.detach())
    return (f + score).mean(0)


def rsample_log_ratio(
    model: Model,
    posterior: GaussianLike | Family,
    num_samples: int,
    *,
    generator: Generator | None = None,
    rng_state: Tensor | None = None,
    first_row: int = 0,
    stream: int = 0,
) -> tuple[Tensor, Tensor]:
    """Draws z of the posterior that the model's encoder gave, `[L, B, *J]`, and log p(z) - log q(z), `[L, B]`."""
    if isinstance(posterior, Family):
        z = posterior.rsample(num_samples, generator=generator, rng_state=rng_state, first_row=first_row, stream=stream)
        _require_cover(own_prior(model), posterior)
        return z, log_prior(model, z, posterior.event_ndim) - posterior.log_prob(z)
    gaussian = as_gaussian(posterior, "encoder")
    require_standard_prior(model)
    return ops.normal_rsample_log_ratio(
        gaussian.mean,
        num_samples=num_samples,
        **gaussian.scale_keyword,
        generator=generator,
        rng_state=rng_state,
        first_row=first_row,
        stream=stream,
    )


def _require_cover(own: Family | None, posterior: Family) -> None:
    """Raises ValueError where the prior, N(0, I) or the model's own, is not positive wherever the posterior is."""
    prior = Normal(0.0, 1.0, validate=False) if own is None else own
    if not prior.covers(posterior):
        name = "N(0, I), as the model has none of its own," if own is None else type(own).__name__
        raise ValueError(
            f"the posterior {type(posterior).__name__} is on {posterior.support} and the prior {name} on"
            f" {prior.support}: give the model an attribute prior, a family that is positive wherever the posterior is"
        )


ESTIMATORS: dict[str, Estimator] = {"sgvb_a": sgvb_a, "sgvb_b": sgvb_b, "score_function": score_function}


def minibatch_bound(bound: Tensor, dataset_size: int) -> Tensor:
    """The bound of the whole dataset from a minibatch of M of its N datapoints (eq. 8): N/M sum_i L(x_i).

    Args:
        bound: `[M]`, in nats, as an estimator returns it.
        dataset_size: N.
    """
    return bound.sum() * (dataset_size / bound.shape[0])

"""What people do with a trained model: sample, encode, reconstruct, interpolate, and walk its latent space.

Every function returns a named tuple of tensors, on the model's device and without gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

import torch
from torch import Generator, Tensor

from vae_ext import ops
from vae_ext.aevb.families import Family
from vae_ext.aevb.interface import own_prior, require_standard_prior
from vae_ext.aevb.models import AutoEncoder, evaluating
from vae_ext.datasets import Dataset

BATCH = 1000

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Samples(NamedTuple):
    """Draws from p(z) p(x given z).

    Attributes:
        z: `[N, J]`.
        mean: the mean of p(x given z), `[N, D]`.
        x: a draw from it, `[N, D]`.
    """

    z: Tensor
    mean: Tensor
    x: Tensor


class Codes(NamedTuple):
    """q(z given x) of datapoints.

    Attributes:
        mean, std: `[N, J]`.
        kl: the divergence from the prior that each latent variable contributes, `[N, J]`, in nats.
    """

    mean: Tensor
    std: Tensor
    kl: Tensor


class Reconstructions(NamedTuple):
    """Datapoints and what the model makes of them.

    Attributes:
        x: `[N, D]`.
        mean: the mean of p(x given z) at the mean of q(z given x), `[N, D]`.
    """

    x: Tensor
    mean: Tensor


class Interpolations(NamedTuple):
    """Straight lines in latent space between the codes of two datapoints.

    Attributes:
        first, second: the datapoints, `[N, D]`.
        z: from the code of the first to that of the second, `[N, steps, J]`.
        mean: the mean of p(x given z), `[N, steps, D]`.
    """

    first: Tensor
    second: Tensor
    z: Tensor
    mean: Tensor


class Manifold(NamedTuple):
    """The decoder over a plane of latent space, as in figure 4 of the paper.

    Attributes:
        coordinates: of the columns from left to right, and of the rows from bottom to top, `[side]`.
        z: `[side, side, J]`, from the top row down.
        mean: the mean of p(x given z), `[side, side, D]`.
    """

    coordinates: Tensor
    z: Tensor
    mean: Tensor


def _looking_on(
    function: Callable[Concatenate[AutoEncoder, Arguments], Result],
) -> Callable[Concatenate[AutoEncoder, Arguments], Result]:
    """Without gradients, and with the model as in evaluation."""

    @wraps(function)
    def look(model: AutoEncoder, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with torch.no_grad(), evaluating(model):
            return function(model, *args, **kwargs)

    return look


@_looking_on
def sample(model: AutoEncoder, count: int, generator: Generator | None = None) -> Samples:
    """Draws z from the prior, N(0, I) or the model's own, and x from p(x given z), with a generator of the CPU."""
    z = _prior_draws(model, count, generator).to(_device(model))
    outputs = (model.decoder(part) for part in z.split(BATCH))
    parts = [(model.likelihood.mean(output), model.likelihood.sample(output, generator)) for output in outputs]
    means, draws = zip(*parts, strict=True)
    return Samples(z, torch.cat(means), torch.cat(draws))


@_looking_on
def encode(model: AutoEncoder, dataset: Dataset, rows: Tensor) -> Codes:
    """q(z given x) of every datapoint of `rows` (`dataset.train` or `dataset.test`).

    Raises:
        ValueError: the model has another prior than N(0, I).
        NotImplementedError: q is of a family without an entropy in closed form.
    """
    require_standard_prior(model)
    parts = [_codes(model, x) for x in _batches(dataset, rows)]
    return Codes(*(torch.cat(column) for column in zip(*parts, strict=True)))


@_looking_on
def reconstruct(model: AutoEncoder, x: Tensor) -> Reconstructions:
    """Datapoints `[N, D]` through the mean of q(z given x) and back."""
    return Reconstructions(x, _decode(model, _means(model, x)))


@_looking_on
def interpolate(model: AutoEncoder, first: Tensor, second: Tensor, steps: int) -> Interpolations:
    """From the codes of the first datapoints `[N, D]` to those of the second, both ends included."""
    start, end = _means(model, first), _means(model, second)
    weight = torch.linspace(0, 1, steps, dtype=start.dtype, device=start.device)
    z = torch.lerp(start.unsqueeze(1), end.unsqueeze(1), weight.unsqueeze(1))
    return Interpolations(first, second, z, _decode(model, z))


@_looking_on
def manifold(model: AutoEncoder, side: int, latents: Sequence[int] = (0, 1)) -> Manifold:
    """The plane of two latent variables, zero in all others, by `side` quantiles of the prior in each.

    The grid is even in probability: the unit square through the inverse Gaussian distribution function. The first of
    `latents` runs from left to right, the second from bottom to top.

    Raises:
        ValueError: the model has another prior than N(0, I).
    """
    require_standard_prior(model)
    across, up = latents
    coordinates = torch.special.ndtri((torch.arange(side) + 0.5) / side)
    z = torch.zeros(side, side, model.latent_dim)
    z[:, :, across] = coordinates
    z[:, :, up] = coordinates.flip(0).unsqueeze(1)
    z = z.to(_device(model))
    return Manifold(coordinates, z, _decode(model, z))


def most_informative(codes: Codes, count: int) -> list[int]:
    """The latent variables whose posteriors are farthest from the prior, in order of their number."""
    return sorted(codes.kl.mean(0).topk(count).indices.tolist())


def _prior_draws(model: AutoEncoder, count: int, generator: Generator | None) -> Tensor:
    """`[N, J]`."""
    prior = own_prior(model)
    if prior is None:
        return torch.randn(count, model.latent_dim, generator=generator, device="cpu")
    # Where one distribution is that of all latent variables, each draws for itself.
    each = model.latent_dim // prior.shape.numel()
    state = ops.make_rng_state(generator, "cpu").to(prior.device)
    return prior.rsample(count * each, rng_state=state).reshape(count, model.latent_dim)


def _means(model: AutoEncoder, x: Tensor) -> Tensor:
    """Of q(z given x), `[N, D]` to `[N, J]`."""
    return torch.cat([model.encode(part).mean for part in x.split(BATCH)])


def _decode(model: AutoEncoder, z: Tensor) -> Tensor:
    """The mean of p(x given z), `[*S, J]` to `[*S, D]`."""
    parts = [model.decode(part) for part in z.flatten(0, -2).split(BATCH)]
    means: Tensor = torch.cat(parts).unflatten(0, z.shape[:-1])
    return means


def _codes(model: AutoEncoder, x: Tensor) -> Codes:
    posterior = model.encode(x)
    if isinstance(posterior, Family):
        return Codes(posterior.mean, posterior.variance.sqrt(), posterior.kl_from_standard_normal())
    kl = ops.normal_kl(posterior.mean, **posterior.scale_keyword, event_ndim=0)
    return Codes(posterior.mean, posterior.std, kl)


def _batches(dataset: Dataset, rows: Tensor) -> Iterator[Tensor]:
    for start in range(0, len(rows), BATCH):
        yield dataset.decode(rows[start : start + BATCH])


def _device(model: AutoEncoder) -> torch.device:
    return next(model.parameters()).device

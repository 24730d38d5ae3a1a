"""The experiment: how noisy is each estimator's gradient, for L draws of z and minibatches of M datapoints?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from vae_ext.aevb.estimators import ESTIMATORS
from vae_ext.aevb.models import AutoEncoder
from vae_ext.datasets import Dataset
from vae_ext.errors import UserError


@dataclass(frozen=True)
class Setting:
    """One point of the experiment: an estimator by name, L and M."""

    estimator: str
    draws: int
    batch_size: int


@dataclass(frozen=True)
class Variance:
    """Of a gradient: the trace of its covariance over the parameters of one network.

    Attributes:
        total: over draws of the minibatch and of the noise.
        standard_error: of `total`, as estimated here.
        noise: over draws of the noise alone, the minibatch staying as it is.
        squared_norm: the squared length of the expected gradient.
    """

    total: float
    standard_error: float
    noise: float
    squared_norm: float


@dataclass(frozen=True)
class Measurement(Setting):
    """The variance of the gradient of a minibatch's mean bound, in nats per datapoint.

    Attributes:
        repeats: how many pairs of gradients it was estimated from.
        encoder, decoder: of the parameters of either.
    """

    repeats: int
    encoder: Variance
    decoder: Variance


@dataclass(frozen=True)
class Plan:
    """What to measure: each estimator over all L at the middle M, and over all M at the least L."""

    draws: tuple[int, ...] = (1, 2, 5, 10)
    batch_sizes: tuple[int, ...] = (10, 30, 100, 300)

    @property
    def fixed_draws(self) -> int:
        return min(self.draws)

    @property
    def fixed_batch_size(self) -> int:
        return sorted(self.batch_sizes)[len(self.batch_sizes) // 2]

    def settings(self) -> list[Setting]:
        points = [(draws, self.fixed_batch_size) for draws in self.draws]
        points += [(self.fixed_draws, batch_size) for batch_size in self.batch_sizes]
        return [Setting(estimator, *point) for estimator in ESTIMATORS for point in dict.fromkeys(points)]


def measure(
    model: AutoEncoder,
    dataset: Dataset,
    settings: Sequence[Setting],
    repeats: int,
    seed: int = 0,
    *,
    binarise: bool = False,
) -> Iterator[Measurement]:
    """Measures one setting after the other on minibatches of `dataset.train`; the model is left as it is.

    Half the squared distance of two independent gradients is an unbiased estimate of their variance, and their inner
    product one of the squared length of their mean. Each repeat draws a minibatch and two gradients of other noise in
    it, then one of another minibatch. Every setting starts from the same seed. With `binarise` every value is drawn as
    0 or 1 with its own mean, as `TrainConfig.binarise` has it.

    Raises:
        UserError: a gradient is not finite.
    """
    for setting in settings:
        generator = Generator(dataset.train.device).manual_seed(seed)
        repeated = [_repeat(model, dataset, setting, generator, binarise) for _ in range(repeats)]
        of_encoder, of_decoder = (torch.stack(part) for part in zip(*repeated, strict=True))
        if not (of_encoder.isfinite().all() and of_decoder.isfinite().all()):
            raise UserError(
                f"the variance of the gradient by {setting.estimator} with L = {setting.draws} and"
                f" M = {setting.batch_size} is not finite: the weights are unusable"
            )
        encoder, decoder = _summarise(of_encoder), _summarise(of_decoder)
        yield Measurement(setting.estimator, setting.draws, setting.batch_size, repeats, encoder, decoder)


def _repeat(
    model: AutoEncoder, dataset: Dataset, setting: Setting, generator: Generator, binarise: bool
) -> list[Tensor]:
    """Of the encoder and of the decoder: estimates `[3]` of the variance, that of the noise, and the squared norm."""
    x, other_x = (_minibatch(dataset, setting.batch_size, generator, binarise) for _ in range(2))
    estimator = ESTIMATORS[setting.estimator]
    first, same_x, other = (
        _gradients(model, estimator(model, batch, setting.draws, generator=generator)) for batch in (x, x, other_x)
    )
    return [
        torch.stack([(a - c).square().sum() / 2, (a - b).square().sum() / 2, a @ c])
        for a, b, c in zip(first, same_x, other, strict=True)
    ]


def _minibatch(dataset: Dataset, size: int, generator: Generator, binarise: bool) -> Tensor:
    rows = torch.randint(len(dataset.train), (size,), generator=generator, device=generator.device)
    x = dataset.decode(dataset.train[rows])
    return torch.bernoulli(x, generator=generator) if binarise else x


def _gradients(model: AutoEncoder, bound: Tensor) -> tuple[Tensor, Tensor]:
    """The gradient of the mean bound in the encoder's and in the decoder's parameters, each flat."""
    encoder, decoder = list(model.encoder.parameters()), list(model.decoder.parameters())
    gradients = [gradient.flatten() for gradient in torch.autograd.grad(bound.mean(), encoder + decoder)]
    return torch.cat(gradients[: len(encoder)]), torch.cat(gradients[len(encoder) :])


def _summarise(repeated: Tensor) -> Variance:
    """From `[repeats, 3]`."""
    repeated = repeated.double()
    total, noise, squared_norm = repeated.mean(0).tolist()
    return Variance(total, (repeated[:, 0].std() / len(repeated) ** 0.5).item(), noise, squared_norm)

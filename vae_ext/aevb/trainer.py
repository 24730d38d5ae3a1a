"""Algorithm 1 of the paper: minibatch AEVB, with the data, the draws and the metrics on the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vae_ext import ops
from vae_ext.aevb.compatibility import model_config_for
from vae_ext.aevb.estimators import ESTIMATORS, minibatch_bound, sgvb_b
from vae_ext.aevb.interface import Model
from vae_ext.aevb.models import VAE, AutoEncoder
from vae_ext.datasets import Dataset
from vae_ext.errors import UserError
from vae_ext.train_config import TrainConfig

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adagrad": torch.optim.Adagrad,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
}
EVALUATION_BATCH = 1000


class Trainer:
    """Maximises the MAP objective of a dataset of N points, one minibatch of M at a time:

        N/M sum_i L(x_i) + log p(theta),   p(theta) = N(0, I), so log p(theta) = -|theta|^2 / 2 + constant

    The optimizer minimises this negated and divided by N, so that step sizes do not depend on N (Adagrad's
    and Adam's never do, but for their epsilon). The prior's share of that gradient is theta / N, hence
    ``weight_decay=1/N``; all three optimizers add it to the gradient before anything else.

    `step` never waits for the device: the bound is summed there, in float64, and read by `mean_bound`.

    Args:
        model: one of one's own modules; when left out, the one that `config` asks for.
    """

    def __init__(
        self, dataset: Dataset, config: TrainConfig, device: torch.device, model: AutoEncoder | None = None
    ) -> None:
        self.dataset_size = len(dataset.train)
        if self.dataset_size < config.batch_size:
            raise UserError(
                f"{dataset.name} has {self.dataset_size} training datapoints, fewer than a minibatch of "
                f"{config.batch_size}: give a smaller --batch-size"
            )
        self.config = config
        self.device = device
        self.dataset = dataset.to(device)
        host_generator = torch.Generator().manual_seed(config.seed)
        self.model = (model or VAE(model_config_for(dataset, config), host_generator)).to(device)
        self.optimizer = make_optimizer(self.model, config, self.dataset_size)
        device_seed = int(torch.randint(2**63 - 1, (), generator=host_generator))
        self.generator = torch.Generator(device).manual_seed(device_seed)
        self.samples = 0
        self.bound_sum = torch.zeros((), dtype=torch.float64, device=device)

    def step(self) -> None:
        """One iteration: a minibatch drawn with replacement, its bound, the gradient, the update."""
        rows = torch.randint(self.dataset_size, (self.config.batch_size,), generator=self.generator, device=self.device)
        x = self.dataset.decode(self.dataset.train[rows])
        bound = ESTIMATORS[self.config.estimator](self.model, x, self.config.draws, generator=self.generator)
        self.optimizer.zero_grad()
        (-minibatch_bound(bound, self.dataset_size) / self.dataset_size).backward()
        self.optimizer.step()
        self.bound_sum += bound.detach().sum()
        self.samples += self.config.batch_size

    def read_tally(self) -> Tally:
        """Waits for the device and reads what it summed."""
        return Tally(self.samples, self.bound_sum.item())

    def held_out_bound(self) -> float:
        """The mean bound of the held-out datapoints, in nats, with the same noise at every call."""
        dataset = self.dataset
        return datapoint_bounds(self.model, dataset, dataset.test, self.config.draws, seed=0).mean().item()


@dataclass(frozen=True)
class Tally:
    """The training samples seen so far and the sum of their bounds, in nats."""

    samples: int = 0
    bound_sum: float = 0.0

    def mean_bound_since(self, earlier: Tally) -> float:
        return (self.bound_sum - earlier.bound_sum) / (self.samples - earlier.samples)


def make_optimizer(model: AutoEncoder, config: TrainConfig, dataset_size: int) -> torch.optim.Optimizer:
    """The optimizer of `config` for a dataset of N points; `Trainer` explains the weight decay."""
    return OPTIMIZERS[config.optimizer](
        model.parameters(),
        lr=config.lr,
        weight_decay=1 / dataset_size,  # type: ignore[call-arg]
    )


@torch.no_grad()
def datapoint_bounds(model: Model, dataset: Dataset, rows: Tensor, draws: int, seed: int) -> Tensor:
    """The bound of every datapoint of `rows` (`dataset.train` or `dataset.test`), `[N]`, in nats.

    The noise depends on the seed and the datapoint's index alone, so equal seeds make bounds comparable.
    """
    rng_state = ops.make_rng_state(torch.Generator(rows.device).manual_seed(seed), rows.device)
    bounds = []
    for start in range(0, len(rows), EVALUATION_BATCH):
        x = dataset.decode(rows[start : start + EVALUATION_BATCH])
        bounds.append(sgvb_b(model, x, draws, rng_state=rng_state, first_row=start))
    return torch.cat(bounds)

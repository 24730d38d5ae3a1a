"""Algorithm 1 of the paper: minibatch AEVB, with the data, the draws and the metrics on the device."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from vae_ext import ops
from vae_ext.aevb.compatibility import check_support, model_config_for
from vae_ext.aevb.distributed import Team
from vae_ext.aevb.estimators import ESTIMATORS, Estimator, minibatch_bound, sgvb_b_or_a
from vae_ext.aevb.graphed import GraphedStep
from vae_ext.aevb.interface import Model
from vae_ext.aevb.memory import require_memory
from vae_ext.aevb.minibatches import Minibatch, Minibatches, binarised
from vae_ext.aevb.models import VAE, AutoEncoder, evaluating
from vae_ext.aevb.precision import autocast, matrix_products
from vae_ext.datasets import Dataset
from vae_ext.errors import UserError
from vae_ext.train_config import ConfigError, TrainConfig

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adagrad": torch.optim.Adagrad,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
}
EVALUATION_BATCH = 1000


class Trainer:
    """Maximises the MAP objective of a dataset of N points, one minibatch of M at a time:

        N/M sum_i L(x_i) + log p(theta),   p(theta) = N(0, I), so log p(theta) = -|theta|^2 / 2 + constant

    where theta are all parameters of the model: the encoder's, which the paper calls phi, and learned log-variances
    have the same prior as the decoder's.

    The optimizer minimises this negated and divided by N, so that step sizes do not depend on N (Adagrad's
    and Adam's never do, but for their epsilon). The prior's share of that gradient is theta / N, hence
    ``weight_decay=1/N``; all three optimizers add it to the gradient before anything else.

    `step` never waits for the device: the bound is summed there, in float64, and read by `read_tally`.

    Args:
        dataset: moved to `device` as it is stored, bytes where they hold it.
        config: the hyperparameters.
        device: where everything happens.
        model: one of one's own modules; when left out, the one that `config` asks for.
        team: the processes that share each minibatch. All must do the same with their trainers.
        cuda_graph: whether a single process on CUDA records its step in a CUDA graph. Modules of one's own that decide
            by values on the device (`.item()`, a mask as an index) cannot be recorded.

    Raises:
        UserError: the data are none that the model is of, the dataset is smaller than a minibatch, processes would have
            unequal shares of it, or there is certainly not enough memory.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: TrainConfig,
        device: torch.device | str,
        model: AutoEncoder | None = None,
        *,
        team: Team | None = None,
        cuda_graph: bool = True,
    ) -> None:
        team, device = team or Team(), torch.device(device)
        self.dataset_size = len(dataset.train)
        _check_minibatch(dataset, config, team)
        if model is not None:
            check_support(model, dataset)
        require_memory(model or sketch(dataset, config), dataset, config, device, team.size)
        self.config = config
        self.device = device
        self.team = team
        self.cuda_graph = cuda_graph
        self.dataset = dataset.to(device)
        self.held_out = binarised(self.dataset, self.dataset.test) if config.binarise else self.dataset.test
        host_generator = torch.Generator().manual_seed(config.seed)
        self.model = (model or VAE(model_config_for(dataset, config), host_generator)).to(device)
        self.bound = team.replicate(_Bound(self.model, ESTIMATORS[config.estimator], config.draws))
        self.optimizer = make_optimizer(self.model, config, self.dataset_size)
        device_seed = int(torch.randint(2**63 - 1, (), generator=host_generator))
        self.generator = torch.Generator(device).manual_seed(device_seed)
        self.minibatches = Minibatches(
            self.dataset, config.batch_size, self.generator, binarise=config.binarise, team=team
        )
        _part_default_generators(team)
        self.samples = 0
        self.bound_sum = torch.zeros((), dtype=torch.float64, device=device)
        self._graphed_iteration = self._make_graphed_iteration()

    @cached_property
    def fingerprint(self) -> str:
        """Of the training data, by which a checkpoint knows them again."""
        return self.dataset.fingerprint()

    @property
    def samples_per_step(self) -> int:
        """How many training samples a step counts."""
        return self.config.batch_size

    def step(self) -> None:
        """One iteration of Algorithm 1."""
        if self._graphed_iteration is None:
            self._iteration()
        else:
            self._graphed_iteration()
        self.samples += self.samples_per_step

    def _iteration(self) -> None:
        """A minibatch drawn with replacement, its noise, its bound, the gradient, the update."""
        minibatch = self.minibatches.draw()
        with matrix_products(self.config.precision):
            bound = self.bound_of(minibatch)
            self.optimizer.zero_grad()
            (-minibatch_bound(bound, self.dataset_size) / self.dataset_size).backward()
        self.optimizer.step()
        self.bound_sum += bound.detach().sum(dtype=torch.float64)

    def bound_of(self, minibatch: Minibatch) -> Tensor:
        """L(x_i) of every datapoint of the minibatch, in nats."""
        with matrix_products(self.config.precision), autocast(self.config.precision, self.device):
            bound: Tensor = self.bound(minibatch.x, minibatch.rng_state, minibatch.first_row)
        return bound

    def _make_graphed_iteration(self) -> GraphedStep | None:
        # Recording what DistributedDataParallel sends has conditions of its own, which nobody has tried here.
        graphed = self.cuda_graph and self.device.type == "cuda" and self.team.size == 1
        return GraphedStep(self._iteration, self.generator) if graphed else None

    def read_tally(self) -> Tally:
        """Waits for the device and reads what it summed, in all processes together."""
        return Tally(self.samples, self.team.sum(self.bound_sum).item())

    def held_out_bound(self) -> float:
        """The mean bound of the held-out datapoints, in nats, with the same noise at every call, all in float32."""
        share = self.team.share(len(self.held_out))
        rows = self.held_out[share]
        bounds = datapoint_bounds(self.model, self.dataset, rows, self.config.draws, seed=0, first_row=share.start)
        return self.team.sum(bounds.sum(dtype=torch.float64)).item() / len(self.held_out)

    def state_dict(self) -> dict[str, Any]:
        """All that decides how training goes on: tensors and plain values."""
        return {
            "samples": self.samples,
            "bound_sum": self.read_tally().bound_sum,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "default_generators": self.team.gather(self._default_generators()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where the trainer stood whose `state_dict` this is, to the same bits; in a team, but for the tally's.

        Of its sum of bounds each process goes on with an equal share.
        """
        self.samples = state["samples"]
        self.bound_sum.fill_(state["bound_sum"] / self.team.size)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(_as_here(self.optimizer, state["optimizer"]))
        self.generator.set_state(state["generator"].cpu())
        self._set_default_generators(state["default_generators"])
        # What was recorded would go on with the optimizer state that was replaced.
        self._graphed_iteration = self._make_graphed_iteration()

    def _default_generators(self) -> dict[str, Tensor]:
        """The states of those that one's own modules may draw from: dropout knows no other."""
        states = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        return states

    def _set_default_generators(self, of_ranks: list[dict[str, Tensor]]) -> None:
        """Those of this process, where as many processes go on as were saved; else it goes on with its own."""
        if len(of_ranks) != self.team.size:
            return
        states = of_ranks[self.team.rank]
        torch.set_rng_state(states["cpu"])
        if self.device.type == "cuda" and "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"].cpu(), self.device)


class _Bound(nn.Module):
    """An estimator as a module's forward, which is what DistributedDataParallel can take hold of."""

    def __init__(self, model: AutoEncoder, estimator: Estimator, draws: int) -> None:
        super().__init__()
        self.model = model
        self.estimator = estimator
        self.draws = draws

    def forward(self, x: Tensor, rng_state: Tensor, first_row: int) -> Tensor:
        return self.estimator(self.model, x, self.draws, rng_state=rng_state, first_row=first_row)


@dataclass(frozen=True)
class Tally:
    """The training samples seen so far and the sum of their bounds, in nats."""

    samples: int = 0
    bound_sum: float = 0.0

    def mean_bound_since(self, earlier: Tally) -> float:
        return (self.bound_sum - earlier.bound_sum) / (self.samples - earlier.samples)


def sketch(dataset: Dataset, config: TrainConfig) -> VAE:
    """The model that `config` asks for, of parameters without memory."""
    model_config = model_config_for(dataset, config)
    with torch.device("meta"):
        return VAE(model_config)


def make_optimizer(model: nn.Module, config: TrainConfig, dataset_size: int) -> torch.optim.Optimizer:
    """The optimizer of `config` for a dataset of N points; `Trainer` explains the weight decay.

    Fused where it can be: one kernel for all parameters, several times faster than one for each operation.
    """
    device = next(model.parameters()).device
    optimizer = OPTIMIZERS[config.optimizer]
    options: dict[str, Any] = {"fused": True} if has_fused(optimizer, device) else {"foreach": True}
    # In a CUDA graph Adam has to count its steps on the device. The others make nothing of their number, so that it may
    # stand still on the CPU while a graph is replayed, as that of Adagrad does where it is not fused.
    if config.optimizer == "adam":
        options["capturable"] = device.type == "cuda"
    return optimizer(
        model.parameters(),
        lr=config.lr,  # type: ignore[call-arg]
        weight_decay=1 / dataset_size,
        **options,
    )


def has_fused(optimizer: type[torch.optim.Optimizer], device: torch.device) -> bool:
    """Whether this torch has the optimizer as one kernel on the device: Adagrad's of CUDA came after torch 2.11.

    It says so in the first step only.
    """
    probe = torch.zeros(1, device=device, requires_grad=True)
    probe.grad = torch.zeros_like(probe)
    try:
        optimizer([probe], fused=True).step()  # type: ignore[call-arg]
    except RuntimeError:
        return False
    return True


def _as_here(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """The state of an optimizer that may have been of another device, to be computed with as the one here is."""
    ways = ("fused", "foreach", "capturable")
    groups = [
        {**saved, **{way: own[way] for way in ways if way in own}}
        for saved, own in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    return {**state, "param_groups": groups}


@torch.no_grad()
@matrix_products("float32")
def datapoint_bounds(model: Model, dataset: Dataset, rows: Tensor, draws: int, seed: int, first_row: int = 0) -> Tensor:
    """The bound of every datapoint of `rows`, stored as `dataset` stores them, `[N]`, in nats.

    By estimator B where the posterior is Gaussian, by A for other families. The noise depends on the seed and the
    datapoint's index alone, so equal seeds make bounds comparable. `first_row` is the index of the first. The model is
    as in evaluation (`nn.Module.eval`), and as it was afterwards.
    """
    rng_state = ops.make_rng_state(torch.Generator(rows.device).manual_seed(seed), rows.device)
    batch = max(1, EVALUATION_BATCH // draws)
    bounds = []
    with evaluating(model):
        for start in range(0, max(1, len(rows)), batch):
            x = dataset.decode(rows[start : start + batch])
            bounds.append(sgvb_b_or_a(model, x, draws, rng_state=rng_state, first_row=first_row + start))
    return torch.cat(bounds)


def _part_default_generators(team: Team) -> None:
    """Processes begin with the same seed, but what dropout leaves out of their rows should not be the same."""
    if team.rank > 0:
        torch.manual_seed(torch.initial_seed() + team.rank)


def _check_minibatch(dataset: Dataset, config: TrainConfig, team: Team) -> None:
    size = len(dataset.train)
    if size < config.batch_size:
        raise UserError(
            f"{dataset.name} has {size} training datapoints, fewer than a minibatch of "
            f"{config.batch_size}: take smaller minibatches"
        )
    if config.batch_size % team.size:
        raise ConfigError("batch_size", f"is {config.batch_size}: expected a multiple of the {team.size} processes")
    low, high = dataset.range
    if config.binarise and (low < 0 or high > 1):
        raise ConfigError(
            "binarise", f"is of values in [0, 1], but {dataset.name} holds values from {low:g} to {high:g}"
        )

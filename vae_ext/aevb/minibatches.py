"""The minibatches of Algorithm 1, drawn and made on the device that holds the data."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from vae_ext import ops
from vae_ext.aevb.distributed import Team
from vae_ext.datasets import Dataset


class Minibatch(NamedTuple):
    """This process's share of a minibatch of M datapoints, all of it where there is one process.

    Attributes:
        rows: which rows of `dataset.train` they are.
        x: `[M / processes, D]`, float32.
        rng_state: the noise of the minibatch.
        first_row: where the share begins in the minibatch.
    """

    rows: Tensor
    x: Tensor
    rng_state: Tensor
    first_row: int


class Minibatches:
    """Draws minibatches of M datapoints with replacement, as the authors' own code does.

    The state of the generator is the position: what is drawn next depends on nothing else. Every process of a team
    draws the same from a generator of the same state and keeps its share, so that all together have the datapoints and
    the noise that one process would have.

    Gathered and decoded into the same memory at every draw: fresh memory costs more than what is written to it, and a
    CUDA graph wants tensors to stay where they are. So a minibatch is good until the next is drawn.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        generator: Generator,
        *,
        binarise: bool = False,
        team: Team | None = None,
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.generator = generator
        self.share = (team or Team()).share(batch_size)
        size = self.share.stop - self.share.start
        self._stored = dataset.train.new_empty(size, dataset.data_dim)
        self._x = torch.empty(size, dataset.data_dim, device=dataset.train.device)
        self._uniform = torch.empty(batch_size, dataset.data_dim, device=dataset.train.device) if binarise else None

    def draw(self) -> Minibatch:
        train = self.dataset.train
        rows = torch.randint(len(train), (self.batch_size,), generator=self.generator, device=train.device)[self.share]
        torch.index_select(train, 0, rows, out=self._stored)
        x = self.dataset.decode(self._stored, out=self._x)
        if self._uniform is not None:
            uniform = torch.rand(self._uniform.shape, generator=self.generator, out=self._uniform)
            torch.lt(uniform[self.share], x, out=x)
        return Minibatch(rows, x, ops.make_rng_state(self.generator), self.share.start)


def binarised(dataset: Dataset, rows: Tensor, seed: int = 0) -> Tensor:
    """Rows of the dataset with every value drawn as 0 or 1 with its own mean, once and for all, stored as they were."""
    generator = torch.Generator().manual_seed(seed)
    x = dataset.decode(rows)
    ones = torch.rand(x.shape, generator=generator).to(x.device) < x
    return ones.to(rows.dtype) * dataset.scale

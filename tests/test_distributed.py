"""Two processes with half of a minibatch each, under DistributedDataParallel, are one with all of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

import vae_ext

pytestmark = pytest.mark.cpu_only("processes talk over gloo")

BATCH, PIXELS, LATENT = 12, 20, 3


class _Vae(nn.Module):
    """The bound of a linear model, with the noise of the datapoints' places in the whole minibatch."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(PIXELS, 2 * LATENT)
        self.decoder = nn.Linear(LATENT, PIXELS)

    def forward(self, x: Tensor, rng_state: Tensor, first_row: int) -> Tensor:
        mean, log_var = self.encoder(x).chunk(2, dim=-1)
        z, kl = vae_ext.normal_rsample_kl(mean, log_var, rng_state=rng_state, first_row=first_row)
        bound: Tensor = vae_ext.bernoulli_log_prob(self.decoder(z), x) - kl
        return bound.mean()


def _model_and_data() -> tuple[_Vae, Tensor, Tensor]:
    torch.manual_seed(0)
    return _Vae(), torch.rand(BATCH, PIXELS).round(), vae_ext.make_rng_state()


def _gradients_of_rank(rank: int, world: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    model, x, rng_state = _model_and_data()
    share = BATCH // world
    rows = slice(rank * share, (rank + 1) * share)
    replicated = DistributedDataParallel(model)  # Its hooks live as long as it does.
    replicated(x[rows], rng_state, rank * share).backward()
    torch.save([parameter.grad for parameter in model.parameters()], Path(folder, f"{rank}.pt"))
    dist.destroy_process_group()


def test_two_halves_have_the_gradients_of_the_whole(tmp_path: Path) -> None:
    multiprocessing.spawn(_gradients_of_rank, args=(2, str(tmp_path)), nprocs=2)  # type: ignore[attr-defined,no-untyped-call]
    model, x, rng_state = _model_and_data()
    model(x, rng_state, 0).backward()
    expected = [parameter.grad for parameter in model.parameters()]
    for rank in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt", weights_only=True), expected)

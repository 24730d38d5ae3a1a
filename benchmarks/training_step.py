"""A whole training step, of the trainer and of plain eager PyTorch, interleaved in one process.

`python -m benchmarks.training_step` prints a table. The data are random bytes of MNIST's shape: values do not matter
here.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.timing import Effort, Timing, interleave
from vae_ext import reference
from vae_ext.aevb import VAE, TrainConfig, Trainer
from vae_ext.datasets import Dataset

DATAPOINTS, SIDE = 60_000, 28
BATCH_SIZES = (100, 8192)
LATENT = 20
WIDTH = 120


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--optimizer", default="adagrad")
    parser.add_argument("--seconds", type=float, default=10.0, help="of measuring, for each size of a minibatch")
    options = parser.parse_args()
    device = torch.device(options.device)
    table = Table("M", "trainer p20 / median / p80, µs", "eager p20 / median / p80, µs", "eager / trainer")
    for batch_size in BATCH_SIZES:
        config = TrainConfig(batch_size=batch_size, latent=LATENT, optimizer=options.optimizer)
        trainer = Trainer(_random_bytes(), config, device)
        calls = {"trainer": trainer.step, "eager": eager_step(trainer)}
        timings, _ = interleave(calls, Effort(options.seconds, rounds=5))
        ratio = timings["eager"].median / timings["trainer"].median
        table.add_row(str(batch_size), _row(timings["trainer"]), _row(timings["eager"]), f"{ratio:.2f}")
    Console(width=WIDTH).print(table)


def eager_step(trainer: Trainer) -> Callable[[], None]:
    """The same step as one writes it without this package: floats on the device, indexed, and torch's own defaults."""
    config, size = trainer.config, trainer.dataset_size
    model = VAE(trainer.model.config).to(trainer.device) if trainer.model.config else trainer.model
    optimizer = type(trainer.optimizer)(model.parameters(), lr=config.lr, weight_decay=1 / size)  # type: ignore[call-arg]
    data = trainer.dataset.decode(trainer.dataset.train)
    bound_sum = torch.zeros((), dtype=torch.float64, device=trainer.device)

    def step() -> None:
        x = data[torch.randint(size, (config.batch_size,), device=trainer.device)]
        mean, log_var = model.encode(x)[:2]
        z, kl = reference.normal_rsample_kl(mean, log_var)
        bound = reference.bernoulli_log_prob(model.decoder(z), x) - kl
        optimizer.zero_grad()
        (-bound.mean()).backward()
        optimizer.step()
        bound_sum.add_(bound.detach().sum())

    return step


def _random_bytes() -> Dataset:
    rows = torch.randint(256, (DATAPOINTS, SIDE * SIDE), dtype=torch.uint8)
    return Dataset("random", rows, rows[:100], 255, (SIDE, SIDE))


def _row(timing: Timing) -> str:
    return f"{timing.p20:,.0f} / {timing.median:,.0f} / {timing.p80:,.0f}"


if __name__ == "__main__":
    main()

"""Runs one curve of figure 3, in a folder of its own, from where it stopped, and estimates log p(x) along the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from torch import Generator, Tensor

from benchmarks.paper.marginal_curves import LearnedMarginal, MarginalCurve, Measured, read
from benchmarks.paper.monte_carlo_em import MonteCarloEMTrainer
from benchmarks.paper.runs import begun_or_resumed, read_step_sizes, setting_of
from benchmarks.paper.wake_sleep import WakeSleepTrainer
from vae_ext.aevb import Trainer
from vae_ext.aevb.marginal import MarginalEstimate, marginal_of_chains, posterior_chains
from vae_ext.aevb.mixing import unmixed
from vae_ext.aevb.run import record_points, train
from vae_ext.aevb.run_directory import Record
from vae_ext.datasets import Dataset
from vae_ext.progress import make_display
from vae_ext.train_config import TrainConfig

TRAINERS: dict[str, type[Trainer]] = {
    "aevb": Trainer,
    "wake-sleep": WakeSleepTrainer,
    "monte-carlo-em": MonteCarloEMTrainer,
}
# Every so manieth record, the last one included, has its log p(x) estimated.
RECORDS_BETWEEN = 4
# "The first 1000 datapoints from the train and test sets, 50 values from the posterior, 4 leapfrog steps", appendix E.
ESTIMATED, DRAWS, LEAPFROG_STEPS = 1000, 50, 4
BURN_IN = 100
# Of where a chain begins. Monte Carlo EM's encoder is as it was initialised, N(0, I) about, and the posterior may have
# several modes.
CANDIDATES = {"aevb": 1, "wake-sleep": 1, "monte-carlo-em": 1000}


def run(
    curve: MarginalCurve, config: TrainConfig, mnist: Dataset, folder: Path, out: Path, console: Console
) -> LearnedMarginal:
    """Begins the curve, or goes on with it; what was estimated so far is in `out` after each estimate.

    Raises:
        UserError: the folder holds a run of another config, or another process is at it.
    """
    data = curve.part_of(mnist)
    with begun_or_resumed(TRAINERS[curve.algorithm], config, data, folder) as (trainer, directory):
        due = set(record_points(config.samples, trainer.samples_per_step)[::-1][::RECORDS_BETWEEN])
        path = folder / f"{curve.name}.json"
        so_far = read(path) if path.exists() else _nothing_yet(curve, trainer, folder, data)

        def estimate(record: Record) -> None:
            nonlocal so_far
            if record.samples in due:
                # One that is made again after a kill is as it was.
                earlier = [one for one in so_far.measured if one.samples < record.samples]
                measured = [*earlier, measure(trainer, record.samples, CANDIDATES[curve.algorithm])]
                so_far = replace(so_far, measured=measured, seconds=record.seconds)
                so_far.write(folder)
                so_far.write(out)

        with make_display(console, config.samples, trainer.read_tally()) as display:
            train(trainer, directory, display, estimate)
    so_far.write(out)
    return so_far


def measure(trainer: Trainer, samples: int, candidates: int) -> Measured:
    """Estimates log p(x) of the first training and test datapoints, as appendix E has it."""
    generator = Generator().manual_seed(trainer.config.seed)
    parts = [
        _estimate(trainer, rows[:ESTIMATED], candidates, generator)
        for rows in (trainer.dataset.train, trainer.dataset.test)
    ]
    means = [_mean(estimate) for estimate, _ in parts]
    (train_mean, train_error, train_out), (test_mean, test_error, test_out) = means
    bad = torch.cat([bad for _, bad in parts]).double().mean().item()
    return Measured(samples, train_mean, test_mean, train_error, test_error, train_out + test_out, round(bad, 4))


def _estimate(trainer: Trainer, rows: Tensor, candidates: int, generator: Generator) -> tuple[MarginalEstimate, Tensor]:
    x = trainer.dataset.decode(rows)
    chains = posterior_chains(
        trainer.model,
        x,
        DRAWS,
        burn_in=BURN_IN,
        leapfrog_steps=LEAPFROG_STEPS,
        candidates=candidates,
        generator=generator,
    )
    return marginal_of_chains(trainer.model, x, chains), unmixed(chains)


def _mean(estimate: MarginalEstimate) -> tuple[float, float, int]:
    """The mean where there is an estimate, its standard error, and of how many there is none."""
    known = estimate.log_marginal.isfinite()
    log_p, errors = estimate.log_marginal[known], estimate.standard_error[known]
    error = errors.square().sum().sqrt().item() / max(1, len(errors))
    return round(log_p.mean().item(), 3), round(error, 3), int((~known).sum())


def _nothing_yet(curve: MarginalCurve, trainer: Trainer, folder: Path, data: Dataset) -> LearnedMarginal:
    return LearnedMarginal(curve, trainer.config, read_step_sizes(folder), [], 0.0, setting_of(data))

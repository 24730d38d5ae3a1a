"""What `vae-ext train` does: begins a run or goes on with one, shows it, and leaves its folder behind."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from vae_ext import __version__, interrupts
from vae_ext.aevb.checkpoint import RunOptions, load_checkpoint
from vae_ext.aevb.checkpoint import resume as resume_trainer
from vae_ext.aevb.distributed import Team
from vae_ext.aevb.run import summarise
from vae_ext.aevb.run import train as run_to_the_end
from vae_ext.aevb.run_directory import CHECKPOINT, TENSORBOARD, RunDirectory, sole_writer
from vae_ext.aevb.step_size import best_step_size, try_step_sizes
from vae_ext.aevb.tensorboard import TensorBoardLog, require_tensorboard
from vae_ext.aevb.trainer import Trainer
from vae_ext.datasets import load_dataset
from vae_ext.errors import UserError
from vae_ext.options import find_checkpoint, resolve_device
from vae_ext.pictures import PICTURE_SHAPES, draw_run, drawable
from vae_ext.progress import make_display
from vae_ext.train_config import TrainConfig


def begin(
    config: TrainConfig, options: RunOptions, data_dir: Path | None, folder: Path, team: Team, *, try_lr: bool
) -> None:
    """Trains anew, with the best step size of short trials where `try_lr` is set."""
    _require_tensorboard(options, team)
    data = load_dataset(options.dataset, data_dir)
    # The name of an array has its absolute path, so that the run can be resumed from any folder.
    options = replace(options, dataset=data.name)
    device = resolve_device(options.device)
    console = _console(team)
    # Before the folder is made: data that the model cannot have are to leave none behind.
    trainer = Trainer(data, config, device, team=team)
    directory = RunDirectory(folder, options)
    with sole_writer(folder, team):
        if try_lr:
            # Trials take as much memory as it does.
            del trainer
            bounds = try_step_sizes(data, config, device, team)
            config = replace(config, lr=best_step_size(bounds))
            tried = ", ".join(f"{lr:g}: {bound:.2f}" for lr, bound in bounds.items())
            console.print(f"Step size {config.lr:g}, by the training bound of short trials ({tried} nats)")
            trainer = Trainer(data, config, device, team=team)
        _run(trainer, directory, console)


def resume(run: Path, given: Mapping[str, Any], team: Team) -> None:
    """Goes on with the run in the folder `run`, or of the checkpoint `run`.

    `given` are the other options of the command line: they may say where the data are now, and how many samples to see
    if these are to be more, and else have no say.
    """
    path = find_checkpoint(run)
    if path.name != CHECKPOINT:
        raise UserError(f"--resume {run}: expected the folder of a run, or the {CHECKPOINT} in it")
    with sole_writer(path.parent, team):
        _go_on(path, given, team)


def _go_on(path: Path, given: Mapping[str, Any], team: Team) -> None:
    folder = path.parent
    saved = load_checkpoint(path)
    options = _moved(saved.options, given)
    config = _extended(folder, saved.config, given)
    _expect_no_other_options(folder, {**asdict(options), **asdict(config)}, given)
    _require_tensorboard(options, team)
    data = load_dataset(options.dataset, None if options.data_dir is None else Path(options.data_dir))
    trainer = Trainer(data, config, resolve_device(options.device), team=team)
    resume_trainer(trainer, saved, path)
    options = replace(options, dataset=data.name)
    _run(trainer, RunDirectory(folder, options, saved), _console(team))


def _require_tensorboard(options: RunOptions, team: Team) -> None:
    """Before the data are loaded; the first of a team alone logs."""
    with team.all_or_none():
        if options.tensorboard and team.is_first:
            require_tensorboard()


def _extended(folder: Path, config: TrainConfig, given: Mapping[str, Any]) -> TrainConfig:
    """Of the longer run, where more samples are given."""
    samples = given.get("samples", config.samples)
    if samples < config.samples:
        raise UserError(
            f"--samples is {samples}, but the run in {folder} was begun with {config.samples}: give more, or leave it"
            " out"
        )
    return replace(config, samples=samples)


def _moved(options: RunOptions, given: Mapping[str, Any]) -> RunOptions:
    """With the data where they are now; the checkpoint knows whether they are the same."""
    dataset = given.get("dataset", "")
    if options.dataset.startswith("npy:") and dataset.startswith("npy:"):
        options = replace(options, dataset=dataset)
    return replace(options, data_dir=given.get("data_dir", options.data_dir))


def _expect_no_other_options(folder: Path, begun_with: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if value != begun_with.get(name):
            option = f"--{name.replace('_', '-')}"
            was = f"was begun with {begun_with[name]}" if name in begun_with else "goes on where it is"
            raise UserError(
                f"{option} is {value}, but the run in {folder} {was}: leave it out, or train without --resume"
            )


def _run(trainer: Trainer, directory: RunDirectory, console: Console) -> None:
    _introduce(console, trainer, directory)
    is_first = trainer.team.is_first
    log = None
    with trainer.team.all_or_none():
        if is_first and directory.options is not None and directory.options.tensorboard:
            log = TensorBoardLog(directory.path / TENSORBOARD, directory.saved_samples)
    try:
        with (
            make_display(console, trainer.config.samples, trainer.read_tally()) as display,
            interrupts.deferred() as interrupted,
        ):
            records = run_to_the_end(trainer, directory, display, log, interrupted)
        if not is_first:
            return
        summary = {"vae_ext": __version__, **summarise(trainer, records)}
        directory.write_summary(summary)
        draw_run(trainer, records, directory.path)
    except KeyboardInterrupt:
        interrupts.end_the_process()
        _report_interruption(directory, trainer.samples)
        raise typer.Exit(interrupts.STATUS) from None
    finally:
        if directory.earlier is not None:
            console.print(f"The earlier run in {directory.path} is now in {directory.earlier}")
    console.print(
        f"Held-out bound {summary['test_bound']:.2f} nats after {summary['samples']:,} samples in"
        f" {summary['seconds']:.0f} s. Written to {directory.path}",
    )


def _console(team: Team) -> Console:
    return Console(highlight=False, soft_wrap=True, quiet=not team.is_first)


def _introduce(console: Console, trainer: Trainer, directory: RunDirectory) -> None:
    data, config = trainer.dataset, trainer.config
    if directory.saved_samples is not None:
        console.print(f"Going on with the run in {directory.path} after {directory.saved_samples:,} samples")
    console.print(
        f"{data.name}: {len(data.train):,} training and {len(data.test):,} held-out datapoints"
        f" of {data.data_dim} values. {config.network} of {config.hidden} hidden units, {config.latent} latents"
        f" ({config.posterior}), {config.likelihood} likelihood, {config.estimator} with L = {config.draws},"
        f" {config.optimizer} at {config.lr:g}, minibatches of {config.batch_size}, on {trainer.device}"
    )
    if config.samples % config.batch_size:
        whole = math.ceil(config.samples / config.batch_size) * config.batch_size
        console.print(
            f"{config.samples:,} samples are not whole minibatches of {config.batch_size:,}: {whole:,} will be seen"
        )
    if not drawable(data.event_shape):
        console.print(
            f"The learning curve will be the only picture: a datapoint has shape {list(data.event_shape)},"
            f" expected {PICTURE_SHAPES} for others"
        )


def _report_interruption(directory: RunDirectory, samples: int) -> None:
    kept = (
        "nothing had been saved yet"
        if directory.saved_samples is None
        else f"{directory.path} keeps the checkpoint of {directory.saved_samples:,} samples and its metrics:"
        f" `vae-ext train --resume {shlex.quote(str(directory.path))}` goes on"
    )
    typer.echo(f"vae-ext: stopped after {samples:,} samples; {kept}", err=True)

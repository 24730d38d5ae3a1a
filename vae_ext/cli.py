"""The command line: `vae-ext train | evaluate | doctor`.

What needs torch is imported inside the commands: `--help` stays quick, and `doctor` works without it.
"""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from vae_ext import __version__, interrupts
from vae_ext.doctor import INSTALL_TRAINING, examine
from vae_ext.errors import UserError
from vae_ext.train_config import OPTIMIZERS, PRECISIONS, ConfigError, TrainConfig

try:
    import typer
    from rich.console import Console
    from typer.core import TyperGroup
except ModuleNotFoundError as error:
    raise SystemExit(f"vae-ext: {error}: the command line needs {INSTALL_TRAINING}") from None

if TYPE_CHECKING:
    import torch

    from vae_ext.aevb import Checkpoint, Trainer
    from vae_ext.aevb.checkpoint import RunOptions
    from vae_ext.aevb.distributed import Team
    from vae_ext.aevb.run import RunDirectory
    from vae_ext.datasets import Dataset


class _Commands(TyperGroup):
    """Turns expected failures into one sentence on stderr and a non-zero exit."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            message = f"--{error.field.replace('_', '-')} {error.fault}"
        except UserError as error:
            message = str(error)
        except ImportError as error:
            message = f"{error} (`vae-ext doctor` says what is missing and how to mend it)"
        except OSError as error:
            message = f"cannot use {error.filename or 'the output'}: {error.strerror}"
        except (MemoryError, RuntimeError) as error:
            if "memory" not in str(error):
                raise
            message = "there is not enough memory: give a smaller --hidden, --batch-size or --draws"
        except KeyboardInterrupt:
            typer.echo("vae-ext: interrupted", err=True)
            raise typer.Exit(interrupts.STATUS) from None
        typer.echo(f"vae-ext: {message}", err=True)
        raise typer.Exit(1)


def _path(text: str) -> Path:
    if not text:
        raise typer.BadParameter("the path is empty")
    return Path(text)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Auto-Encoding Variational Bayes on fused operators.",
)

DatasetOption = Annotated[str, typer.Option(help="digits, mnist, or npy:PATH, an array [N, ...] in [0, 1].")]
DataDirOption = Annotated[
    Path | None,
    typer.Option(
        help="The folder of MNIST's four IDX files; downloaded to your cache when not given.",
        parser=_path,
    ),
]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vae-ext {__version__}")
        raise typer.Exit


@app.callback()
def root(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    pass


@app.command()
def train(
    context: typer.Context,
    dataset: DatasetOption = "digits",
    out: Annotated[
        Path | None,
        typer.Option(
            help="The folder to write to; runs/<dataset> when not given.",
            parser=_path,
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="The folder of a run to go on with, as if it had never stopped. Needs no other option.",
            parser=_path,
            show_default=False,
        ),
    ] = None,
    samples: Annotated[int, typer.Option(help="Training samples to see.")] = TrainConfig.samples,
    batch_size: Annotated[int, typer.Option(help="Datapoints in a minibatch (M).")] = TrainConfig.batch_size,
    latent: Annotated[int, typer.Option(help="Dimension of z; 2 also draws the manifold.")] = TrainConfig.latent,
    hidden: Annotated[int, typer.Option(help="Units in each hidden layer.")] = TrainConfig.hidden,
    draws: Annotated[int, typer.Option(help="Draws of z for each datapoint (L).")] = TrainConfig.draws,
    optimizer: Annotated[str, typer.Option(help=f"One of {', '.join(OPTIMIZERS)}.")] = TrainConfig.optimizer,
    lr: Annotated[
        str, typer.Option(metavar="FLOAT|auto", help="Step size; auto: the best of short trials on training data.")
    ] = str(TrainConfig.lr),
    seed: Annotated[int, typer.Option(help="The same seed gives the same run.")] = TrainConfig.seed,
    precision: Annotated[
        str, typer.Option(help=f"Of matrix products: {', '.join(PRECISIONS)}.")
    ] = TrainConfig.precision,
    binarise: Annotated[
        bool, typer.Option("--binarise", help="Draw every value as 0 or 1, anew at each use.")
    ] = TrainConfig.binarise,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Log to TensorBoard, too.")] = False,
    device: DeviceOption = "cpu",
    data_dir: DataDirOption = None,
) -> None:
    """Train a VAE; leave a checkpoint, metrics.jsonl, summary.json and pictures in --out.

    The checkpoint is renewed after the first step beyond every 30 seconds. An earlier run in --out is moved into a
    folder earlier-1, earlier-2, ... there: nothing is overwritten. Processes started by torchrun share each minibatch.
    """
    step_size = _step_size(lr)
    config = TrainConfig(
        samples,
        batch_size,
        latent,
        hidden,
        draws,
        optimizer,
        TrainConfig.lr if step_size is None else step_size,
        seed,
        precision=precision,
        binarise=binarise,
    )
    from vae_ext.aevb.checkpoint import RunOptions
    from vae_ext.aevb.distributed import join_team, leave_team
    from vae_ext.datasets import load_dataset, short_name

    interrupts.raise_keyboard_interrupt()
    # Absolute, so that the run can be resumed from any folder.
    options = RunOptions(dataset, None if data_dir is None else str(data_dir.absolute()), device, tensorboard)
    team = join_team()
    try:
        if resume is not None:
            _resume(context, resume, data_dir, team)
            return
        folder = out if out is not None else Path("runs") / short_name(dataset)
        data = load_dataset(dataset, data_dir)
        _train_anew(data, config, options, folder, team, choose_step_size=step_size is None)
    finally:
        leave_team()


def _step_size(text: str) -> float | None:
    """None for auto."""
    try:
        return None if text == "auto" else float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a valid step size: a number, or auto", param_hint="--lr") from None


def _train_anew(
    data: Dataset, config: TrainConfig, options: RunOptions, folder: Path, team: Team, *, choose_step_size: bool
) -> None:
    from vae_ext.aevb.run import RunDirectory
    from vae_ext.aevb.step_size import best_step_size, try_step_sizes
    from vae_ext.aevb.trainer import Trainer

    device = _resolve_device(options.device)
    console = _console(team)
    directory = RunDirectory(folder, options)
    if choose_step_size:
        bounds = try_step_sizes(data, config, device, team)
        config = replace(config, lr=best_step_size(bounds))
        tried = ", ".join(f"{lr:g}: {bound:.2f}" for lr, bound in bounds.items())
        console.print(f"Step size {config.lr:g}, by the training bound of short trials ({tried} nats)")
    _run(Trainer(data, config, device, team), directory, console)


def _resume(context: typer.Context, folder: Path, data_dir: Path | None, team: Team) -> None:
    from vae_ext.aevb.checkpoint import load_checkpoint, resume
    from vae_ext.aevb.run import CHECKPOINT, RunDirectory
    from vae_ext.aevb.trainer import Trainer
    from vae_ext.datasets import load_dataset

    path = folder / CHECKPOINT
    saved = load_checkpoint(path)
    _expect_the_same_options(context, folder, saved)
    options = saved.options
    if data_dir is not None:
        options = replace(options, data_dir=str(data_dir.absolute()))
    data = load_dataset(options.dataset, None if options.data_dir is None else Path(options.data_dir))
    trainer = Trainer(data, saved.config, _resolve_device(options.device), team)
    resume(trainer, path)
    _run(trainer, RunDirectory(folder, options, saved), _console(team))


def _expect_the_same_options(context: typer.Context, folder: Path, saved: Checkpoint) -> None:
    """Whatever is given beside --resume must be what the run was begun with, but for where its data are."""
    begun = {**asdict(saved.options), **asdict(saved.config)}
    for name, value in context.params.items():
        source = context.get_parameter_source(name)
        given = source is not None and source.name == "COMMANDLINE" and name not in ("resume", "data_dir")
        if given and str(value) != str(begun.get(name)):
            option = f"--{name.replace('_', '-')}"
            was = f"was begun with {begun[name]}" if name in begun else "goes on where it is"
            raise UserError(
                f"{option} is {value}, but the run in {folder} {was}: leave it out, or train without --resume"
            )


def _run(trainer: Trainer, directory: RunDirectory, console: Console) -> None:
    """Trains to the end, shows it, and writes what a finished run leaves behind."""
    from vae_ext.aevb.run import summarise
    from vae_ext.aevb.run import train as run
    from vae_ext.aevb.tensorboard import TensorBoardLog
    from vae_ext.plots import draw_run
    from vae_ext.progress import make_display

    _introduce(console, trainer, directory)
    is_first = trainer.team.is_first
    log = None
    if is_first and directory.options is not None and directory.options.tensorboard:
        log = TensorBoardLog(directory.path / "tensorboard", directory.saved_samples)
    try:
        with make_display(console, trainer.config.samples, trainer.read_tally()) as display:
            records = run(trainer, directory, display, log)
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


@app.command()
def evaluate(
    checkpoint: Annotated[
        Path,
        typer.Argument(help="A checkpoint of `vae-ext train`.", parser=_path, show_default=False),
    ],
    dataset: Annotated[
        str | None, typer.Option(help="The dataset it was trained on when not given.", show_default=False)
    ] = None,
    draws: Annotated[int, typer.Option(help="Draws of z for each datapoint (L).")] = 1,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    device: DeviceOption = "cpu",
    data_dir: DataDirOption = None,
    pictures: Annotated[
        Path | None,
        typer.Option(
            help="A folder to draw the run's pictures in again, over any there, but for the learning curve.",
            parser=_path,
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print the lower bound of the held-out datapoints, with its standard error over them."""
    TrainConfig(draws=draws, seed=seed)
    from vae_ext.aevb.checkpoint import load_checkpoint
    from vae_ext.aevb.minibatches import binarised
    from vae_ext.aevb.trainer import datapoint_bounds
    from vae_ext.plots import PICTURE_SHAPES, draw_model, drawable

    interrupts.raise_keyboard_interrupt()
    loaded = load_checkpoint(checkpoint)
    target = _resolve_device(device)
    data = _load_dataset_for(checkpoint, loaded, dataset, data_dir).to(target)
    if pictures is not None and not drawable(data):
        raise UserError(
            f"--pictures: a datapoint of {data.name} has shape {list(data.event_shape)}, expected {PICTURE_SHAPES}"
        )
    rows = binarised(data, data.test) if loaded.config.binarise else data.test
    bounds = datapoint_bounds(loaded.model.to(target), data, rows, draws, seed).double()
    if not bounds.isfinite().all():
        raise UserError(f"{checkpoint} gives a bound that is not finite: its weights are unusable")
    result = {
        "checkpoint": str(checkpoint),
        "dataset": data.name,
        "trained_on_samples": loaded.samples,
        "datapoints": len(bounds),
        "draws": draws,
        "seed": seed,
        "bound": bounds.mean().item(),
        "standard_error": bounds.std(correction=1).item() / math.sqrt(len(bounds)) if len(bounds) > 1 else None,
    }
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        draw_model(loaded.model, data, pictures)
    typer.echo(json.dumps(result) if as_json else _sentence(result))


@app.command()
def doctor() -> None:
    """Say what is installed, what works, what is wrong and how to mend it; exit 1 if something is wrong."""
    findings = examine()
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        typer.echo(f"{'WRONG' if finding.wrong else 'ok':<6}{finding.name:<{width}}  {finding.value}")
        if finding.wrong:
            typer.echo(f"{'':<{width + 8}}mend it: {finding.remedy}")
    if any(finding.wrong for finding in findings):
        raise typer.Exit(1)


def _resolve_device(name: str) -> torch.device:
    import torch

    from vae_ext import _native
    from vae_ext.aevb.distributed import local_rank

    try:
        device = torch.device(f"cuda:{local_rank()}" if name == "cuda" else name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"unknown device {name!r}: expected cpu, cuda or cuda:N")
    if device.type == "cuda" and _native.load().build_info()["cuda"] is None:
        raise UserError(f"--device {name}: vae_ext was built without CUDA: use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {name}: torch sees {torch.cuda.device_count()} GPUs: use --device cpu")
    return device


def _load_dataset_for(checkpoint: Path, loaded: Checkpoint, name: str | None, data_dir: Path | None) -> Dataset:
    """The dataset of that name, or else that of the checkpoint, whose model must fit it."""
    from vae_ext.datasets import load_dataset

    try:
        data = load_dataset(name if name is not None else loaded.dataset, data_dir)
    except UserError as error:
        moved = loaded.dataset.startswith("npy:") and not Path(loaded.dataset.removeprefix("npy:")).exists()
        if name is not None or not moved:
            raise
        raise UserError(f"{error}: {checkpoint} was trained on it, say where it is now with --dataset") from error
    if data.data_dim != loaded.model.config.data_dim:
        raise UserError(
            f"{checkpoint} is a model of {loaded.model.config.data_dim} values a datapoint, but {data.name} has"
            f" {data.data_dim}: give --dataset what it was trained on, which was {loaded.dataset}"
        )
    return data


def _console(team: Team) -> Console:
    return Console(highlight=False, soft_wrap=True, quiet=not team.is_first)


def _introduce(console: Console, trainer: Trainer, directory: RunDirectory) -> None:
    from vae_ext.plots import PICTURE_SHAPES, drawable

    data, config = trainer.dataset, trainer.config
    if directory.saved_samples is not None:
        console.print(f"Going on with the run in {directory.path} after {directory.saved_samples:,} samples")
    console.print(
        f"{data.name}: {len(data.train):,} training and {len(data.test):,} held-out datapoints"
        f" of {data.data_dim} values. {config.latent} latents, {config.hidden} hidden units,"
        f" {config.optimizer} at {config.lr:g}, minibatches of {config.batch_size}, on {trainer.device}"
    )
    minibatches = math.ceil(config.samples / config.batch_size)
    if config.samples % config.batch_size:
        console.print(
            f"{config.samples:,} samples are not whole minibatches of {config.batch_size:,}:"
            f" {minibatches * config.batch_size:,} will be seen"
        )
    if not drawable(data):
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


def _sentence(result: dict[str, Any]) -> str:
    error = result["standard_error"]
    return (
        f"{result['dataset']}: bound {result['bound']:.2f} nats"
        + (f" (standard error {error:.2f})" if error is not None else "")
        + f" over {result['datapoints']:,} held-out datapoints, {result['draws']} draw(s) each"
    )

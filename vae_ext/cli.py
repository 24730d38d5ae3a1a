"""The command line: `vae-ext train | evaluate | doctor`, and the commands on a trained model.

What needs torch is imported inside the commands: `--help` stays quick, and `doctor` works without it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from vae_ext import __version__, interrupts
from vae_ext.doctor import INSTALL_TRAINING, examine
from vae_ext.errors import UserError
from vae_ext.train_config import ESTIMATORS, INITIALISATIONS, OPTIMIZERS, ConfigError, TrainConfig

try:
    import typer
    from rich.console import Console
    from typer.core import TyperGroup
except ModuleNotFoundError as error:
    raise SystemExit(f"vae-ext: {error}: the command line needs {INSTALL_TRAINING}") from None

from vae_ext.model_commands import app as model_commands
from vae_ext.options import (
    DataDirOption,
    DatasetOption,
    DeviceOption,
    RunArgument,
    TrainedOnOption,
    find_checkpoint,
    load_dataset_for,
    parse_log_var,
    parse_path,
    resolve_device,
)

if TYPE_CHECKING:
    from vae_ext.aevb import Trainer
    from vae_ext.aevb.run import RunDirectory


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


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Auto-Encoding Variational Bayes on fused operators.",
)

app.add_typer(model_commands)


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
    dataset: DatasetOption = "digits",
    out: Annotated[
        Path | None,
        typer.Option(
            help="The folder to write to; runs/<dataset> when not given.",
            parser=parse_path,
            show_default=False,
        ),
    ] = None,
    samples: Annotated[int, typer.Option(help="Training samples to see.")] = TrainConfig.samples,
    batch_size: Annotated[int, typer.Option(help="Datapoints in a minibatch (M).")] = TrainConfig.batch_size,
    latent: Annotated[int, typer.Option(help="Dimension of z; 2 also draws the manifold.")] = TrainConfig.latent,
    hidden: Annotated[int, typer.Option(help="Units in each hidden layer.")] = TrainConfig.hidden,
    draws: Annotated[int, typer.Option(help="Draws of z for each datapoint (L).")] = TrainConfig.draws,
    optimizer: Annotated[str, typer.Option(help=f"One of {', '.join(OPTIMIZERS)}.")] = TrainConfig.optimizer,
    lr: Annotated[float, typer.Option(help="Step size.")] = TrainConfig.lr,
    seed: Annotated[int, typer.Option(help="The same seed gives the same run.")] = TrainConfig.seed,
    network: Annotated[str, typer.Option(help="mlp, or conv for pictures.")] = TrainConfig.network,
    likelihood: Annotated[
        str, typer.Option(help="p(x given z): bernoulli, of values in [0, 1], or gaussian.")
    ] = TrainConfig.likelihood,
    decoder_mean: Annotated[
        str, typer.Option(help="Of a Gaussian decoder: sigmoid, or linear for values beyond [0, 1].")
    ] = TrainConfig.decoder_mean,
    decoder_log_var: Annotated[
        str,
        typer.Option(
            help="Of a Gaussian decoder: from the network, learned for each of the elements, or one that is shared,"
            " or a number.",
            metavar="KIND|NUMBER",
        ),
    ] = str(TrainConfig.decoder_log_var),
    init: Annotated[
        str,
        typer.Option(help=f"Initial parameters: {', '.join(INITIALISATIONS)}; the paper's N(0, 0.01) is one of two."),
    ] = TrainConfig.init,
    estimator: Annotated[str, typer.Option(help=f"Of the bound: {', '.join(ESTIMATORS)}.")] = TrainConfig.estimator,
    device: DeviceOption = "cpu",
    data_dir: DataDirOption = None,
) -> None:
    """Train a VAE; leave a checkpoint, metrics.jsonl, summary.json and pictures in --out.

    The checkpoint is renewed after the first step beyond every 30 seconds. An earlier run in --out is moved into a
    folder earlier-1, earlier-2, ... there: nothing is overwritten.
    """
    config = TrainConfig(
        samples,
        batch_size,
        latent,
        hidden,
        draws,
        optimizer,
        lr,
        seed,
        network=network,
        likelihood=likelihood,
        decoder_mean=decoder_mean,
        decoder_log_var=parse_log_var(decoder_log_var),
        init=init,
        estimator=estimator,
    )
    from vae_ext.aevb.run import RunDirectory, summarise
    from vae_ext.aevb.run import train as run
    from vae_ext.aevb.trainer import Trainer
    from vae_ext.datasets import load_dataset, short_name
    from vae_ext.pictures import draw_run
    from vae_ext.progress import make_display

    interrupts.raise_keyboard_interrupt()
    trainer = Trainer(load_dataset(dataset, data_dir), config, resolve_device(device))
    directory = RunDirectory(out if out is not None else Path("runs") / short_name(dataset))
    console = Console(highlight=False, soft_wrap=True)
    _introduce(console, trainer)
    try:
        with make_display(console, samples) as display:
            records = run(trainer, directory, display)
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
    run: RunArgument,
    dataset: TrainedOnOption = None,
    draws: Annotated[int, typer.Option(help="Draws of z for each datapoint (L).")] = 1,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    device: DeviceOption = "cpu",
    data_dir: DataDirOption = None,
    pictures: Annotated[
        Path | None,
        typer.Option(
            help="A folder to draw the run's pictures in again, over any there, but for the learning curve.",
            parser=parse_path,
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print the lower bound of the held-out datapoints, with its standard error over them."""
    TrainConfig(draws=draws, seed=seed)
    import math

    from vae_ext.aevb.checkpoint import load_checkpoint
    from vae_ext.aevb.trainer import datapoint_bounds
    from vae_ext.pictures import PICTURE_SHAPES, draw_model, drawable

    interrupts.raise_keyboard_interrupt()
    checkpoint = find_checkpoint(run)
    loaded = load_checkpoint(checkpoint)
    target = resolve_device(device)
    data = load_dataset_for(checkpoint, loaded, dataset, data_dir).to(target)
    if pictures is not None and not drawable(data.event_shape):
        raise UserError(
            f"--pictures: a datapoint of {data.name} has shape {list(data.event_shape)}, expected {PICTURE_SHAPES}"
        )
    bounds = datapoint_bounds(loaded.model.to(target), data, data.test, draws, seed).double()
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


def _introduce(console: Console, trainer: Trainer) -> None:
    from vae_ext.pictures import PICTURE_SHAPES, drawable

    data, config = trainer.dataset, trainer.config
    console.print(
        f"{data.name}: {len(data.train):,} training and {len(data.test):,} held-out datapoints"
        f" of {data.data_dim} values. {config.latent} latents, {config.hidden} hidden units,"
        f" {config.optimizer} at {config.lr:g}, minibatches of {config.batch_size}, on {trainer.device}"
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
        else f"{directory.path} keeps the checkpoint of {directory.saved_samples:,} samples and its metrics"
    )
    typer.echo(f"vae-ext: stopped after {samples:,} samples; {kept}", err=True)


def _sentence(result: dict[str, Any]) -> str:
    error = result["standard_error"]
    return (
        f"{result['dataset']}: bound {result['bound']:.2f} nats"
        + (f" (standard error {error:.2f})" if error is not None else "")
        + f" over {result['datapoints']:,} held-out datapoints, {result['draws']} draw(s) each"
    )

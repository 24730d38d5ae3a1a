"""The command line: `vae-ext train | evaluate | benchmark | doctor`, the commands on a trained model, and full-vb.

What needs torch is imported inside the commands: `--help` stays quick, and `doctor` works without it.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

from vae_ext import __version__, interrupts
from vae_ext.doctor import INSTALL_TRAINING, examine
from vae_ext.errors import UserError, is_out_of_memory
from vae_ext.train_config import (
    ESTIMATORS,
    INITIALISATIONS,
    OPTIMIZERS,
    POSTERIORS,
    PRECISIONS,
    ConfigError,
    TrainConfig,
)

try:
    import typer
    from typer.core import TyperGroup
except ModuleNotFoundError as error:
    raise SystemExit(f"vae-ext: {error}: the command line needs {INSTALL_TRAINING}") from None

from vae_ext.full_vb_command import app as full_vb_command
from vae_ext.marginal_command import app as marginal_command
from vae_ext.model_commands import app as model_commands
from vae_ext.observed_commands import app as observed_commands
from vae_ext.options import (
    DataDirOption,
    DatasetOption,
    DeviceOption,
    RunArgument,
    TrainedOnOption,
    parse_log_var,
    parse_path,
    parse_step_size,
)
from vae_ext.trained_model import TrainedModel

# Options that decide how much memory a command takes.
SIZES = ("--hidden", "--batch-size", "--batch-sizes", "--draws", "--count", "--steps", "--side")


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
            if not is_out_of_memory(error):
                raise
            message = f"there is not enough memory: {_remedy(self.get_command(ctx, ctx.invoked_subcommand))}"
        except KeyboardInterrupt:
            typer.echo("vae-ext: interrupted", err=True)
            raise typer.Exit(interrupts.STATUS) from None
        typer.echo(f"vae-ext: {message}", err=True)
        raise typer.Exit(1)


def _remedy(command: Any) -> str:
    """What of the options of a command to make smaller; the sizes of a trained model are what they are."""
    options = [option for param in command.params for option in param.opts]
    has_run = any(param.name == "run" for param in command.params)
    sizes = [option for option in SIZES if option in options and not (has_run and option == "--hidden")]
    if not sizes:
        return "end other programs that take it, or use a machine that has more"
    return f"give a smaller {' or '.join(filter(None, (', '.join(sizes[:-1]), sizes[-1])))}"


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Auto-Encoding Variational Bayes on fused operators.",
)

app.add_typer(model_commands)
app.add_typer(observed_commands)
app.add_typer(full_vb_command)
app.add_typer(marginal_command)


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
            parser=parse_path,
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="A run to go on with, as if it had never stopped. Needs no other option; more --samples extend it.",
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
    lr: Annotated[
        str, typer.Option(metavar="NUMBER|auto", help="Step size; auto: the best of short trials on training data.")
    ] = str(TrainConfig.lr),
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
    posterior: Annotated[
        str, typer.Option(help=f"q(z given x): {', '.join(POSTERIORS)}; all but the first take --estimator sgvb_a.")
    ] = TrainConfig.posterior,
    estimator: Annotated[str, typer.Option(help=f"Of the bound: {', '.join(ESTIMATORS)}.")] = TrainConfig.estimator,
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

    The checkpoint is renewed after the first step beyond every 30 seconds, and by Ctrl-C, a second of which leaves at
    once. An earlier run in --out is moved into a folder earlier-1, earlier-2, ... there: nothing is overwritten.
    Processes started by torchrun share each minibatch, and look at the clock every 20 steps.
    """
    step_size = parse_step_size(lr)
    config = TrainConfig(
        samples,
        batch_size,
        latent,
        hidden,
        draws,
        optimizer,
        TrainConfig.lr if step_size is None else step_size,
        seed,
        network=network,
        likelihood=likelihood,
        decoder_mean=decoder_mean,
        decoder_log_var=parse_log_var(decoder_log_var),
        init=init,
        posterior=posterior,
        estimator=estimator,
        precision=precision,
        binarise=binarise,
    )
    from vae_ext import train_command
    from vae_ext.aevb.checkpoint import RunOptions
    from vae_ext.aevb.distributed import join_team, leave_team
    from vae_ext.datasets import short_name

    interrupts.raise_keyboard_interrupt()
    # Absolute, so that the run can be resumed from any folder.
    absolute_data_dir = None if data_dir is None else str(data_dir.absolute())
    team = join_team()
    if resume is not None:
        options = {**asdict(config), "lr": lr if step_size is None else step_size, "data_dir": absolute_data_dir}
        given = {name: options.get(name, context.params[name]) for name in _given(context) - {"resume"}}
        train_command.resume(resume, given, team)
    else:
        _expect_no_gaussian_decoder(config, _given(context))
        run_options = RunOptions(dataset, absolute_data_dir, device, tensorboard)
        folder = out if out is not None else Path("runs") / short_name(dataset)
        train_command.begin(config, run_options, data_dir, folder, team, try_lr=step_size is None)
    # Not after an error: the others may wait for something else, and torchrun ends them when this process has ended.
    leave_team()


def _given(context: typer.Context) -> set[str]:
    """The options that stand on the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def _expect_no_gaussian_decoder(config: TrainConfig, given: set[str]) -> None:
    for name in ("decoder_mean", "decoder_log_var"):
        if config.likelihood == "bernoulli" and name in given:
            value = getattr(config, name)
            raise ConfigError(
                name, f"is {value}, but --likelihood is bernoulli: leave it out, or take --likelihood gaussian"
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
    from vae_ext.aevb.trainer import datapoint_bounds
    from vae_ext.pictures import PICTURE_SHAPES, draw_model, drawable

    trained = TrainedModel(run, None, device)
    # For the sake of its checks: a model of many latent variables cannot be drawn from as often as one of few.
    replace(trained.train_config, draws=draws)
    data = trained.load_dataset(dataset, data_dir)
    if pictures is not None and not drawable(data.event_shape):
        raise UserError(
            f"--pictures: a datapoint of {data.name} has shape {list(data.event_shape)}, expected {PICTURE_SHAPES}"
        )
    rows = trained.rows(data, "test")
    bounds = datapoint_bounds(trained.model, data, rows, draws, seed).double()
    if not bounds.isfinite().all():
        raise UserError(f"{trained.checkpoint} gives a bound that is not finite: its weights are unusable")
    result = {
        "checkpoint": str(trained.checkpoint),
        "dataset": data.name,
        "trained_on_samples": trained.samples,
        "datapoints": len(bounds),
        "draws": draws,
        "seed": seed,
        "bound": bounds.mean().item(),
        "standard_error": bounds.std(correction=1).item() / math.sqrt(len(bounds)) if len(bounds) > 1 else None,
    }
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        draw_model(trained.model, data, rows, pictures)
    typer.echo(json.dumps(result) if as_json else _sentence(result))


@app.command()
def benchmark(
    parts: Annotated[
        str, typer.Option(help="Some of operators,training,accuracy,scaling.")
    ] = "operators,training,accuracy,scaling",
    quick: Annotated[bool, typer.Option("--quick", help="A look at each in two minutes; not to be quoted.")] = False,
    only: Annotated[
        str,
        typer.Option(
            help="The rows of any part in whose names this regular expression is found, as in 'kl fwd .*float32' of"
            " operators, 'mlp M=100 ' of training, 'normal_kl bfloat16' of accuracy, 'batch: .*x784' of scaling."
        ),
    ] = "",
    dtypes: Annotated[str, typer.Option(help="One or both of float32,bfloat16.")] = "float32,bfloat16",
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda; CUDA where there is one when not given.", show_default=False)
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="As many as torch uses when not given.", show_default=False)
    ] = None,
    input_sets: Annotated[int, typer.Option(min=1, help="Sets of inputs that take turns; 1 flatters the caches.")] = 4,
    minutes: Annotated[
        float | None, typer.Option(help="Begin nothing after so long; say what was left out.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Measure on a busy machine too.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="A folder to write results.json and plots to.", parser=parse_path, show_default=False),
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Measure nothing: say what changed between two results.json.", show_default=False),
    ] = None,
) -> None:
    """Measure the operators and training against eager PyTorch and torch.compile; needs a clone of the repository.

    Nothing is measured before the operators are right. benchmarks/README.md says what the numbers mean.
    """
    _expect_clone()
    from benchmarks import report, run

    interrupts.raise_keyboard_interrupt()
    if compare is not None:
        report.compare_files(*compare)
        return
    run.run(
        run.Options(parts.split(","), only, quick, device, dtypes.split(","), threads, input_sets, minutes, force, out)
    )


def _expect_clone() -> None:
    """Raises UserError where there is no clone, whose benchmarks and tests can then be imported."""
    root = Path(__file__).resolve().parent.parent
    if not all((root / folder / "__init__.py").is_file() for folder in ("benchmarks", "tests")):
        raise UserError(
            "benchmark needs a clone of the repository, whose tests decide whether there is anything to measure;"
            f" {root} is an installation"
        )
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))


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


def _sentence(result: dict[str, Any]) -> str:
    error = result["standard_error"]
    return (
        f"{result['dataset']}: bound {result['bound']:.2f} nats"
        + (f" (standard error {error:.2f})" if error is not None else "")
        + f" over {result['datapoints']:,} held-out datapoints, {result['draws']} draw(s) each"
    )

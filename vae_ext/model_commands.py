"""The commands on a trained model: sample, encode, reconstruct, interpolate, manifold, gradient-variance.

Each writes its numbers and a picture of them under one name, over any there.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vae_ext import __version__, interrupts, results
from vae_ext.errors import UserError
from vae_ext.options import (
    DataDirOption,
    DeviceOption,
    OutOption,
    PartOption,
    RunArgument,
    SeedOption,
    TrainedOnOption,
    find_checkpoint,
    parse_numbers,
    parse_path,
    resolve_device,
)
from vae_ext.train_config import ConfigError, TrainConfig
from vae_ext.trained_model import TrainedModel

if TYPE_CHECKING:
    from vae_ext.aevb.gradient_variance import Measurement, Plan

app = typer.Typer()


@app.command()
def sample(
    run: RunArgument,
    out: OutOption = None,
    count: Annotated[int, typer.Option(min=1, max=10**7, help="How many; the picture has room for 144.")] = 144,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
) -> None:
    """Draw z from the prior and x from p(x given z): samples.npz (z, mean, x) and samples.png, of the means."""
    import torch

    from vae_ext import pictures
    from vae_ext.aevb import explore

    trained = TrainedModel(run, out, device)
    samples = explore.sample(trained.model, count, torch.Generator().manual_seed(seed))
    written = trained.save(
        results.SAMPLES,
        {"z": samples.z, "mean": trained.shaped(samples.mean), "x": trained.shaped(samples.x)},
        lambda path: pictures.samples(samples, trained.config.event_shape, trained.name, path),
    )
    typer.echo(f"{count:,} samples. {written}")


@app.command()
def encode(
    run: RunArgument,
    out: OutOption = None,
    part: PartOption = "test",
    dataset: TrainedOnOption = None,
    data_dir: DataDirOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Write q(z given x) of every datapoint: codes.npz (mean, std, kl, label if there are any) and codes.png.

    kl is the divergence from the prior that each latent variable contributes, in nats.
    """
    from vae_ext import plots
    from vae_ext.aevb import explore

    trained = TrainedModel(run, out, device)
    data = trained.load_dataset(dataset, data_dir)
    labels = getattr(data, f"{part}_labels")
    codes = explore.encode(trained.model, data, trained.rows(data, part))
    written = trained.save(
        results.CODES,
        {**codes._asdict(), **({} if labels is None else {"label": labels})},
        lambda path: plots.codes(codes, labels, data.name, path),
        always=True,
    )
    typer.echo(f"{len(codes.mean):,} datapoints, {codes.kl.sum(-1).mean():.2f} nats from the prior each. {written}")


@app.command()
def reconstruct(
    run: RunArgument,
    out: OutOption = None,
    count: Annotated[
        int, typer.Option(min=1, max=10**7, help="How many datapoints; the picture has room for 48.")
    ] = 48,
    part: PartOption = "test",
    dataset: TrainedOnOption = None,
    data_dir: DataDirOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Send the first datapoints through the model: reconstructions.npz (x, mean) and reconstructions.png."""
    from vae_ext import pictures
    from vae_ext.aevb import explore

    trained = TrainedModel(run, out, device)
    data = trained.load_dataset(dataset, data_dir)
    result = explore.reconstruct(trained.model, data.decode(trained.rows(data, part)[:count]))
    error = (result.mean - result.x).square().mean().sqrt()
    written = trained.save(
        results.RECONSTRUCTIONS,
        {"x": trained.shaped(result.x), "mean": trained.shaped(result.mean)},
        lambda path: pictures.reconstructions(result, trained.config.event_shape, data.name, path),
    )
    typer.echo(f"{len(result.x):,} datapoints, off by {error:.3g} (root mean square). {written}")


@app.command()
def interpolate(
    run: RunArgument,
    out: OutOption = None,
    count: Annotated[int, typer.Option(min=1, max=10**4, help="How many pairs; the picture has room for 10.")] = 8,
    steps: Annotated[int, typer.Option(min=2, max=1000, help="From the first code to the second, both included.")] = 12,
    seed: SeedOption = 0,
    part: PartOption = "test",
    dataset: TrainedOnOption = None,
    data_dir: DataDirOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Walk from datapoint to datapoint: interpolations.npz (first, second, z, mean) and interpolations.png."""
    import torch

    from vae_ext import pictures
    from vae_ext.aevb import explore

    trained = TrainedModel(run, out, device)
    data = trained.load_dataset(dataset, data_dir)
    rows = trained.rows(data, part)
    chosen = torch.randint(len(rows), (2, count), generator=torch.Generator().manual_seed(seed))
    first, second = (data.decode(rows[one.to(rows.device)]) for one in chosen)
    result = explore.interpolate(trained.model, first, second, steps)
    written = trained.save(
        results.INTERPOLATIONS,
        {name: value if name == "z" else trained.shaped(value) for name, value in result._asdict().items()},
        lambda path: pictures.interpolations(result, trained.config.event_shape, data.name, path),
    )
    typer.echo(f"{count:,} pairs, {steps} steps each. {written}")


@app.command()
def manifold(
    run: RunArgument,
    out: OutOption = None,
    side: Annotated[int, typer.Option(min=2, max=200, help="Pictures along each side of the plane.")] = 20,
    latents: Annotated[
        str | None,
        typer.Option(
            metavar="I,J",
            help="Which two, counted from 1, the others being 0; of more than two, by default those that tell most"
            " about held-out datapoints.",
            show_default=False,
        ),
    ] = None,
    dataset: TrainedOnOption = None,
    data_dir: DataDirOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Decode a plane of the latent space, by quantiles of the prior: manifold.npz (coordinates, z, mean) and .png."""
    from vae_ext import pictures
    from vae_ext.aevb import explore

    trained = TrainedModel(run, out, device)
    dims = trained.model.latent_dim
    if dims < 2:
        raise UserError(f"{run} is a model of one latent variable: a manifold is drawn over two")
    if latents is not None:
        plane = _parse_latents(latents, dims)
    elif dims == 2:
        plane = [0, 1]
    else:
        data = trained.load_dataset(dataset, data_dir)
        plane = explore.most_informative(explore.encode(trained.model, data, trained.rows(data, "test")), 2)
    result = explore.manifold(trained.model, side, plane)
    written = trained.save(
        results.MANIFOLD,
        {"coordinates": result.coordinates, "z": result.z, "mean": trained.shaped(result.mean)},
        lambda path: pictures.manifold(result, plane, trained.config.event_shape, trained.name, path),
    )
    of = "" if dims == 2 else f" of {dims}, the others at 0"
    typer.echo(f"The plane of latent variables {plane[0] + 1} and {plane[1] + 1}{of}. {written}")


def _parse_latents(text: str, dims: int) -> list[int]:
    """Counted from 0. Raises ConfigError for anything but two different ones of `dims`."""
    numbers = parse_numbers("latents", text)
    if len(numbers) != 2 or numbers[0] == numbers[1] or not all(1 <= number <= dims for number in numbers):
        raise ConfigError("latents", f"is {text}: expected two different numbers from 1 to {dims}, such as 1,2")
    return [number - 1 for number in numbers]


@app.command("gradient-variance")
def gradient_variance(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN]",
            help="The folder of a run of `vae-ext train`, or a checkpoint; an untrained model when not given.",
            parser=parse_path,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The folder to write to; the checkpoint's own, or runs/<dataset>, when not given.", parser=parse_path
        ),
    ] = None,
    draws: Annotated[str, typer.Option(metavar="L,L,...", help="Draws of z for each datapoint (L).")] = "1,2,5,10",
    batch_sizes: Annotated[
        str, typer.Option(metavar="M,M,...", help="Datapoints in a minibatch (M).")
    ] = "10,30,100,300",
    repeats: Annotated[int, typer.Option(min=2, max=10**6, help="Independent pairs of gradients to measure by.")] = 10,
    dataset: Annotated[
        str | None,
        typer.Option(help="What it was trained on, or digits, when not given.", show_default=False),
    ] = None,
    data_dir: DataDirOption = None,
    latent: Annotated[
        int | None,
        typer.Option(
            help=f"Dimension of z of an untrained model; {TrainConfig.latent} when not given.", show_default=False
        ),
    ] = None,
    hidden: Annotated[
        int | None,
        typer.Option(help=f"Units in each hidden layer; {TrainConfig.hidden} when not given.", show_default=False),
    ] = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
) -> None:
    """Measure the variance of the gradient by each estimator: gradient_variance.json and gradient_variance.png.

    SGVB A and B and the score function, against L at the middle M and against M at the least L.
    """
    sizes: dict[str, Any] = {name: one for name, one in (("latent", latent), ("hidden", hidden)) if one is not None}
    config = TrainConfig(**sizes, seed=seed)
    numbers = parse_numbers("draws", draws), parse_numbers("batch_sizes", batch_sizes)
    import torch
    from rich.console import Console
    from rich.progress import track

    from vae_ext.aevb.compatibility import model_config_for
    from vae_ext.aevb.gradient_variance import Plan, measure
    from vae_ext.aevb.models import VAE, AutoEncoder
    from vae_ext.datasets import load_dataset, short_name

    model: AutoEncoder
    if run is not None:
        for name, size in sizes.items():
            raise ConfigError(name, f"is {size}, but the model of {run} has sizes of its own: leave it out")
        trained = TrainedModel(run, out, device)
        if trained.config.posterior != "gaussian":
            raise UserError(
                f"{run} is a model of {trained.config.posterior} posterior, which only SGVB A can estimate: give one of"
                " gaussian posterior, for which the three can be compared"
            )
        data, model, config = trained.load_dataset(dataset, data_dir), trained.model, trained.train_config
        folder = out or find_checkpoint(run).parent
    else:
        interrupts.raise_keyboard_interrupt()
        target = resolve_device(device)
        data = load_dataset(dataset or "digits", data_dir).to(target)
        model = VAE(model_config_for(data, config), torch.Generator().manual_seed(seed)).to(target)
        folder = out or Path("runs") / short_name(data.name)
    plan = Plan(*numbers)
    for count in plan.draws:
        # For the sake of its checks: z of many latent variables cannot be drawn as often as that of few.
        replace(config, draws=count)
    settings = plan.settings()
    console = Console(stderr=True)
    measured = measure(model, data, settings, repeats, seed, binarise=config.binarise)
    measurements = list(
        track(measured, "measuring", len(settings), console=console, transient=True, disable=not console.is_terminal)
    )
    typer.echo(_write_variances(measurements, plan, data.name, folder))


def _write_variances(measurements: list[Measurement], plan: Plan, name: str, folder: Path) -> str:
    """Writes gradient_variance.json and .png; says by what factors the estimators differ."""
    from vae_ext import plots
    from vae_ext.files import write_atomically

    target = folder / f"{results.GRADIENT_VARIANCE}.json"
    content = {"vae_ext": __version__, "dataset": name, "measurements": [asdict(one) for one in measurements]}
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(target, lambda file: file.write(text.encode()))
    plots.gradient_variance(measurements, plan, name, target.with_suffix(".png"))
    at = plan.fixed_draws, plan.fixed_batch_size
    total = {one.estimator: one.encoder.total for one in measurements if (one.draws, one.batch_size) == at}
    return (
        f"With L = {at[0]} and M = {at[1]}, the variance of the encoder's gradient is {total['sgvb_b']:.3g} by SGVB B,"
        f" {total['sgvb_a'] / total['sgvb_b']:.3g} times as much by SGVB A, and"
        f" {total['score_function'] / total['sgvb_b']:.3g} times as much by the score function."
        f" Written to {target} and {target.stem}.png"
    )

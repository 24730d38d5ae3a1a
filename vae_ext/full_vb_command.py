"""`vae-ext full-vb`: weights with a posterior against weights as points, on few datapoints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vae_ext import __version__, interrupts
from vae_ext.options import (
    DataDirOption,
    DatasetOption,
    DeviceOption,
    SeedOption,
    parse_numbers,
    parse_path,
    resolve_device,
)
from vae_ext.results import FULL_VB, FULL_VB_UNCERTAINTY
from vae_ext.train_config import ConfigError, TrainConfig

if TYPE_CHECKING:
    from torch import Tensor

    from vae_ext.aevb import AutoEncoder, Prediction
    from vae_ext.aevb.small_data import Learned
    from vae_ext.datasets import Dataset

app = typer.Typer()

SHOWN = 16


@app.command("full-vb")
def full_vb(
    dataset: DatasetOption = "digits",
    out: Annotated[
        Path | None,
        typer.Option(
            help="The folder to write to; runs/<dataset> when not given.", parser=parse_path, show_default=False
        ),
    ] = None,
    sizes: Annotated[
        str, typer.Option(metavar="N,N,...", help="How many datapoints to learn from, the first ones.")
    ] = "100,300,1000",
    samples: Annotated[int, typer.Option(help="Training samples that each model sees.")] = 500_000,
    batch_size: Annotated[int, typer.Option(help="Datapoints in a minibatch (M).")] = 50,
    latent: Annotated[int, typer.Option(help="Dimension of z.")] = 5,
    hidden: Annotated[int, typer.Option(help="Units in each hidden layer.")] = 50,
    lr: Annotated[float, typer.Option(help="Adam's step size.")] = 0.01,
    likelihood: Annotated[str, typer.Option(help="gaussian, of one learned variance, or bernoulli.")] = "gaussian",
    data_dir: DataDirOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
) -> None:
    """Train on few datapoints by full variational Bayes and by MAP: full_vb.json, .npz, .png, full_vb_uncertainty.png.

    With a posterior over the decoder's weights, as in the paper, and over the encoder's too. The .npz holds held-out
    datapoints, their reconstructions, and how much the weights leave open of these. No checkpoint is saved.
    """
    config = TrainConfig(
        samples=samples,
        batch_size=batch_size,
        latent=latent,
        hidden=hidden,
        lr=lr,
        optimizer="adam",
        likelihood=likelihood,
        decoder_log_var="shared",
        seed=seed,
    )
    numbers = parse_numbers("sizes", sizes)
    from rich.console import Console
    from rich.progress import track

    from vae_ext.aevb.small_data import METHODS, compare
    from vae_ext.datasets import load_dataset, short_name

    interrupts.raise_keyboard_interrupt()
    target = resolve_device(device)
    data = load_dataset(dataset, data_dir).to(target)
    _check_sizes(numbers, data, batch_size)
    folder = out or Path("runs") / short_name(data.name)
    console = Console(stderr=True)
    runs = compare(data, config, numbers, target)
    total = len(numbers) * len(METHODS)
    learned = list(track(runs, "training", total, console=console, transient=True, disable=not console.is_terminal))
    typer.echo(_write(learned, config, data, folder))


def _check_sizes(sizes: Sequence[int], data: Dataset, batch_size: int) -> None:
    if not all(batch_size <= size <= len(data.train) for size in sizes):
        raise ConfigError(
            "sizes",
            f"is {','.join(map(str, sizes))}: expected numbers from the {batch_size} of a minibatch to the"
            f" {len(data.train):,} training datapoints of {data.name}",
        )


def _write(learned: Sequence[Learned], config: TrainConfig, data: Dataset, folder: Path) -> str:
    """Writes the files; says what each method came to."""
    import numpy as np
    import torch

    from vae_ext import pictures, plots
    from vae_ext.files import write_atomically

    folder.mkdir(parents=True, exist_ok=True)
    curves = [
        {"method": one.method, "size": one.size, "records": [asdict(record) for record in one.records]}
        for one in learned
    ]
    content = {"vae_ext": __version__, "dataset": data.name, "config": asdict(config), "curves": curves}
    target = folder / f"{FULL_VB}.json"
    write_atomically(target, lambda file: file.write((json.dumps(content, allow_nan=False) + "\n").encode()))
    plots.full_vb(learned, data.name, target.with_suffix(".png"))

    x = data.decode(data.test[:SHOWN])
    shown = [one for one in learned if one.method == "full_vb_decoder"]
    predictions = [_predict(one.model, x, config.seed) for one in shown]
    rows = {
        "x": x,
        "mean": torch.stack([each.mean for each in predictions]),
        "std": torch.stack([each.std for each in predictions]),
    }
    arrays: dict[str, Any] = {
        "size": np.array([one.size for one in shown]),
        **{name: one.unflatten(-1, data.event_shape).cpu().numpy() for name, one in rows.items()},
    }
    write_atomically(target.with_suffix(".npz"), lambda file: np.savez(file, **arrays))
    names = f"{FULL_VB}.npz, {FULL_VB}.png"
    if pictures.drawable(data.event_shape):
        by_size = {one.size: prediction for one, prediction in zip(shown, predictions, strict=True)}
        pictures.weight_uncertainty(by_size, x, data.event_shape, data.name, folder / f"{FULL_VB_UNCERTAINTY}.png")
        names = f"{FULL_VB}.npz, {FULL_VB}.png and {FULL_VB_UNCERTAINTY}.png"
    return "\n".join([*map(_sentence, learned), f"Written to {target}, {names}"])


def _predict(model: AutoEncoder, x: Tensor, seed: int) -> Prediction:
    """Reconstructions over draws of the weights."""
    import torch

    from vae_ext.aevb.bayesian import predict

    generator = torch.Generator(x.device).manual_seed(seed)
    return predict(model, lambda: model.decode(model.encode(x).mean), generator=generator)


def _sentence(one: Learned) -> str:
    from vae_ext import plots

    best = max(one.records, key=lambda record: record.test_bound)
    return (
        f"{one.size:,} datapoints, {plots.METHODS[one.method][0]}: held-out bound {one.records[-1].test_bound:.2f} nats"
        f" at the end, {best.test_bound:.2f} at its best after {best.samples:,} samples"
    )

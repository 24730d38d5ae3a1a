"""The pictures a run leaves behind. Every function writes one PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch import Tensor

from vae_ext.aevb.models import VAE
from vae_ext.datasets import Dataset, short_name

if TYPE_CHECKING:
    from vae_ext.aevb.run import Record
    from vae_ext.aevb.trainer import Trainer

DPI = 150
TRAIN_COLOUR, TEST_COLOUR = "#c44e52", "#1f4e79"
MANIFOLD_SIDE = 20
PICTURE_SHAPES = "[H, W], [H, W, 1] or [H, W, 3]"


def draw_run(trainer: Trainer, records: Sequence[Record], folder: Path) -> None:
    """The learning curve and, where datapoints are pictures, those of the model."""
    learning_curve(records, trainer.dataset, folder / "learning_curve.png")
    if drawable(trainer.dataset):
        draw_model(trainer.model, trainer.dataset, folder)


def draw_model(model: VAE, dataset: Dataset, folder: Path) -> None:
    """Samples, reconstructions and a 2-d manifold, of a `drawable` dataset."""
    samples(model, dataset, folder / "samples.png")
    reconstructions(model, dataset, folder / "reconstructions.png")
    if model.config.latent_dim == 2:
        manifold(model, dataset, folder / "manifold.png")


def learning_curve(records: Sequence[Record], dataset: Dataset, path: Path) -> None:
    """The training and held-out bound against training samples seen, as in figure 2 of the paper."""
    figure = _figure(6.4, 4.2)
    axes = figure.subplots()
    samples = [record.samples for record in records]
    train = [record.train_bound for record in records]
    test = [record.test_bound for record in records]
    curves = (("training", train, TRAIN_COLOUR, "--"), ("held-out", test, TEST_COLOUR, "-"))
    for name, curve, colour, line in curves:
        label = f"{name}  ({_typeset(curve[-1], 2)} at the end)"
        # A line of one point is not seen.
        marker = "o" if len(curve) == 1 else None
        axes.plot(samples, curve, color=colour, linestyle=line, marker=marker, label=label)
    axes.set_xscale("log")
    axes.set_ylim(*_without_the_first_plunge(train, test))
    axes.set_xlabel("training samples seen")
    axes.set_ylabel("lower bound, nats per datapoint")
    axes.set_title(f"Learning curve, {_title(dataset)}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=DPI)


def _title(dataset: Dataset) -> str:
    return short_name(dataset.name).replace("$", r"\$")


def _typeset(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def _without_the_first_plunge(*curves: Sequence[float]) -> tuple[float, float]:
    """Limits for the last nine tenths of the curves: the first steps can lie orders of magnitude below."""
    shown = np.concatenate([curve[len(curve) // 10 :] for curve in curves])
    margin = 0.06 * float(np.ptp(shown)) or 1.0
    return float(shown.min()) - margin, float(shown.max()) + margin


@torch.no_grad()
def samples(model: VAE, dataset: Dataset, path: Path, seed: int = 0, side: int = 12) -> None:
    """Means of p(x given z) for z from the prior."""
    device = next(model.parameters()).device
    z = torch.randn(side * side, model.config.latent_dim, generator=torch.Generator().manual_seed(seed))
    images = _images(torch.sigmoid(model.decoder(z.to(device))), dataset)
    figure = _figure(6, 6.35)
    _show_grid(figure.subplots(), images, columns=side)
    figure.suptitle(f"Samples, {_title(dataset)}: $z$ from the prior, mean of $p(x\\,|\\,z)$", fontsize=12)
    figure.savefig(path, dpi=DPI)


@torch.no_grad()
def reconstructions(model: VAE, dataset: Dataset, path: Path, columns: int = 16, pairs: int = 3) -> None:
    """Held-out datapoints over the mean of p(x given z) at the mean z of q(z given x)."""
    x = dataset.decode(dataset.test[: columns * pairs])
    mean, _ = model.encoder(x)
    x_mean = torch.sigmoid(model.decoder(mean))
    columns = min(columns, len(x))
    pairs = len(x) // columns
    figure = _figure(9, 1.2 * pairs + 0.5)
    panels = figure.subplots(pairs, 1, squeeze=False)[:, 0]
    for index, axes in enumerate(panels):
        shown = slice(index * columns, (index + 1) * columns)
        _show_grid(axes, _images(torch.cat([x[shown], x_mean[shown]]), dataset), len(x[shown]))
        axes.set_yticks([0.25, 0.75], ["original", "model"], fontsize=8)
    figure.suptitle(f"Reconstructions of held-out datapoints, {_title(dataset)}", fontsize=12)
    figure.savefig(path, dpi=DPI)


@torch.no_grad()
def manifold(model: VAE, dataset: Dataset, path: Path) -> None:
    """The mean of p(x given z) over a 2-d latent space, as in figure 4 of the paper.

    The grid is even in probability: the unit square through the inverse Gaussian distribution function.
    """
    device = next(model.parameters()).device
    quantiles = (torch.arange(MANIFOLD_SIDE) + 0.5) / MANIFOLD_SIDE
    coordinates = torch.special.ndtri(quantiles)
    z = torch.cartesian_prod(coordinates.flip(0), coordinates).flip(1)
    images = _images(torch.sigmoid(model.decoder(z.to(device))), dataset)
    figure = _figure(7, 7.2)
    axes = figure.subplots()
    _show_grid(axes, images, columns=MANIFOLD_SIDE, gap=0.0)
    ticks = [0.05, 0.25, 0.5, 0.75, 0.95]
    labels = [_typeset(value, 2) for value in torch.special.ndtri(torch.tensor(ticks)).tolist()]
    axes.set_xticks(ticks, labels)
    axes.set_yticks([1 - tick for tick in ticks], labels)
    axes.set_xlabel("$z_1$")
    axes.set_ylabel("$z_2$")
    axes.set_title(f"The learned manifold, {_title(dataset)}: mean of $p(x\\,|\\,z)$", fontsize=12)
    figure.savefig(path, dpi=DPI)


def _figure(width: float, height: float) -> Figure:
    """A figure whose title is clear of the edge."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.06))


def drawable(dataset: Dataset) -> bool:
    """Whether a datapoint is a picture: of `PICTURE_SHAPES`."""
    shape = dataset.event_shape
    return len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))


def _images(rows: Tensor, dataset: Dataset) -> np.ndarray:
    """`[N, D]` in [0, 1] to `[N, H, W, C]`."""
    height, width, *channels = dataset.event_shape
    return rows.reshape(len(rows), height, width, *(channels or [1])).cpu().numpy()


def _show_grid(axes: Axes, images: np.ndarray, columns: int, gap: float = 1.0) -> None:
    """Draws images row by row into a unit square, a pixel of brightness `gap` around each."""
    _, height, width, channels = images.shape
    rows = len(images) // columns
    canvas = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, channels), gap)
    for index, image in enumerate(images):
        top = 1 + index // columns * (height + 1)
        left = 1 + index % columns * (width + 1)
        canvas[top : top + height, left : left + width] = image
    picture = canvas[..., 0] if channels == 1 else canvas
    aspect = canvas.shape[0] / canvas.shape[1]
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest", extent=(0, 1, 1, 0), aspect=aspect)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)

"""Pictures of what a model has learned, of datapoints that are pictures themselves. Each function writes one PNG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from torch import Tensor

from vae_ext import results
from vae_ext.aevb import explore
from vae_ext.aevb.models import AutoEncoder
from vae_ext.datasets import Dataset
from vae_ext.plots import DPI, learning_curve, new_figure, title_of, typeset

if TYPE_CHECKING:
    from vae_ext.aevb.bayesian import Prediction
    from vae_ext.aevb.observed import Inferred
    from vae_ext.aevb.run_directory import Record
    from vae_ext.aevb.trainer import Trainer

SAMPLES, RECONSTRUCTIONS, INTERPOLATIONS, UNCERTAIN, MANIFOLD_SIDE = 144, 48, 10, 16, 20
SAMPLE_COLUMNS, RECONSTRUCTION_COLUMNS = 12, 16
UNSEEN = "#8fa8c8"
PICTURE_SHAPES = "[H, W], [H, W, 1] or [H, W, 3]"


def draw_run(trainer: Trainer, records: Sequence[Record], folder: Path) -> None:
    """The learning curve and, where datapoints are pictures, those of the model."""
    learning_curve(records, trainer.dataset, folder / f"{results.LEARNING_CURVE}.png")
    if drawable(trainer.dataset.event_shape):
        draw_model(trainer.model, trainer.dataset, trainer.held_out, folder)


def draw_model(model: AutoEncoder, dataset: Dataset, rows: Tensor, folder: Path) -> None:
    """Samples, reconstructions of the first of `rows`, stored as the dataset stores them, and a 2-d manifold."""
    about = dataset.event_shape, dataset.name
    drawn = explore.sample(model, SAMPLES, torch.Generator().manual_seed(0))
    samples(drawn, *about, folder / f"{results.SAMPLES}.png")
    x = dataset.decode(rows[:RECONSTRUCTIONS])
    reconstructions(explore.reconstruct(model, x), *about, folder / f"{results.RECONSTRUCTIONS}.png")
    if model.latent_dim == 2:
        manifold(explore.manifold(model, MANIFOLD_SIDE), (0, 1), *about, folder / f"{results.MANIFOLD}.png")


def drawable(event_shape: Sequence[int]) -> bool:
    """Whether a datapoint is a picture: of `PICTURE_SHAPES`."""
    return len(event_shape) == 2 or (len(event_shape) == 3 and event_shape[2] in (1, 3))


def samples(drawn: explore.Samples, event_shape: Sequence[int], name: str, path: Path) -> None:
    """The means of p(x given z) for z from the prior, as many as fit."""
    shown = drawn.mean[:SAMPLES]
    columns = min(SAMPLE_COLUMNS, math.ceil(math.sqrt(len(shown))))
    images = _images(shown, event_shape)
    width = max(4.5, columns / 2)
    figure = new_figure(width, width * _aspect(images, columns) + 0.5)
    _show_grid(figure.subplots(), images, columns)
    figure.suptitle(f"Samples, {title_of(name)}: $z$ from the prior, mean of $p(x\\,|\\,z)$", fontsize=2 * width)
    figure.savefig(path, dpi=DPI)


def reconstructions(reconstructed: explore.Reconstructions, event_shape: Sequence[int], name: str, path: Path) -> None:
    """Datapoints over the mean of p(x given z) at the mean z of q(z given x), as many as fit."""
    x, mean = (rows[:RECONSTRUCTIONS] for rows in reconstructed)
    columns = min(RECONSTRUCTION_COLUMNS, len(x))
    images = _images(torch.stack([x, mean]), event_shape)
    rows = math.ceil(len(x) / columns)
    figure = new_figure(
        9, rows * (9 * _aspect(images[:, :columns].reshape(-1, *images.shape[2:]), columns) + 0.1) + 0.5
    )
    panels = figure.subplots(rows, 1, squeeze=False)[:, 0]
    for index, axes in enumerate(panels):
        both = images[:, index * columns : (index + 1) * columns]
        _show_grid(axes, both.reshape(-1, *images.shape[2:]), both.shape[1])
        axes.set_yticks([0.25, 0.75], ["original", "model"], fontsize=8)
    figure.suptitle(f"Reconstructions, {title_of(name)}", fontsize=12)
    figure.savefig(path, dpi=DPI)


def interpolations(lines: explore.Interpolations, event_shape: Sequence[int], name: str, path: Path) -> None:
    """Each row from one datapoint to another: the two themselves, and between them the decoder along the line."""
    first, second, _, mean = (rows[:INTERPOLATIONS] for rows in lines)
    steps = mean.shape[1]
    images = _images(torch.cat([first.unsqueeze(1), mean, second.unsqueeze(1)], dim=1), event_shape)
    blank = np.ones_like(images[:, :1])
    columns = [images[:, :1], blank, images[:, 1:-1], blank, images[:, -1:]]
    cells = np.concatenate(columns, axis=1).reshape(-1, *images.shape[2:])
    figure = new_figure(9, 9 * _aspect(cells, steps + 4) + 0.6)
    axes = figure.subplots()
    _show_grid(axes, cells, steps + 4)
    centre = 0.5 / (steps + 4)
    axes.set_xticks([centre, 0.5, 1 - centre], ["first", "mean of $p(x\\,|\\,z)$, $z$ from code to code", "second"])
    figure.suptitle(f"Interpolations between datapoints, {title_of(name)}", fontsize=12)
    figure.savefig(path, dpi=DPI)


def inferred(
    found: Inferred, x: Tensor, seen: Tensor, event_shape: Sequence[int], title: str, method: str, path: Path
) -> None:
    """Datapoints, what was seen of them (NaN: nothing), encoder and decoder alone, what was inferred, and its std."""
    means = {"original": x, "observed": seen, "encoder and\ndecoder alone": found.baseline, "inferred": found.mean}
    meaning = f"inferred by {method}: mean of $p(x\\,|\\,z)$ over $z$ given what is observed"
    _with_uncertainty(means, {"what $z$\nleaves open": found.std}, event_shape, f"{title}\n{meaning}", path)


def weight_uncertainty(
    by_size: Mapping[int, Prediction], x: Tensor, event_shape: Sequence[int], name: str, path: Path
) -> None:
    """Datapoints, their reconstructions by models of so many datapoints, and what the weights leave open of these."""
    means = {f"from {size:,}": prediction.mean for size, prediction in by_size.items()}
    stds = {f"std, from {size:,}": prediction.std for size, prediction in by_size.items()}
    title = (
        f"Full VB, {title_of(name)}: held-out datapoints and their reconstructions\nby models of so many datapoints,"
        " mean and std over the weights"
    )
    _with_uncertainty({"original": x, **means}, stds, event_shape, title, path)


def _with_uncertainty(
    means: Mapping[str, Tensor],
    stds: Mapping[str, Tensor],
    event_shape: Sequence[int],
    title: str,
    path: Path,
) -> None:
    """A row of pictures for each name: on the scale of the first, and standard deviations on one of their own."""
    x = next(iter(means.values()))[:UNCERTAIN]
    low, high = min(0.0, x.min().item()), max(1.0, x.max().item())
    largest = max(torch.finfo(torch.float32).tiny, *(std[:UNCERTAIN].max().item() for std in stds.values()))
    rows = [_coloured(values[:UNCERTAIN], event_shape, low, high) for values in means.values()]
    rows += [_coloured(values[:UNCERTAIN], event_shape, 0.0, largest, "inferno") for values in stds.values()]
    columns, cells = len(x), np.concatenate(rows)
    width = min(1.1 * columns, max(4.5, 0.6 * columns))
    figure = new_figure(max(6.5, width + 2.2), width * _aspect(cells, columns) + 0.8)
    axes = figure.subplots()
    _show_grid(axes, cells, columns)
    axes.set_yticks([(row + 0.5) / len(rows) for row in range(len(rows))], [*means, *stds], fontsize=9)
    # Colours have a scale for each of red, green and blue.
    scale = ScalarMappable(Normalize(0.0, largest), "gray" if event_shape[2:] == (3,) else "inferno")
    bar = figure.colorbar(scale, ax=axes, pad=0.02, fraction=0.04, aspect=25, panchor=(0.5, 0.5))
    bar.set_label("standard deviation, in units of $x$", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    figure.suptitle(title, fontsize=12)
    figure.savefig(path, dpi=DPI)


def manifold(
    plane: explore.Manifold, latents: Sequence[int], event_shape: Sequence[int], name: str, path: Path
) -> None:
    """The mean of p(x given z) over the plane of two latent variables, as in figure 4 of the paper."""
    side, others = len(plane.coordinates), plane.z.shape[-1] - 2
    images = _images(plane.mean.flatten(0, 1), event_shape)
    aspect = _aspect(images, side)
    figure = new_figure(7 / max(1, aspect**0.5), 7 * max(1, aspect**0.5) + 0.2)
    axes = figure.subplots()
    _show_grid(axes, images, columns=side, gap=0.0)
    ticks = [0.05, 0.25, 0.5, 0.75, 0.95]
    labels = [typeset(value, 2) for value in torch.special.ndtri(torch.tensor(ticks)).tolist()]
    axes.set_xticks(ticks, labels)
    axes.set_yticks([1 - tick for tick in ticks], labels)
    across, up = (f"$z_{{{latent + 1}}}$" for latent in latents)
    axes.set_xlabel(f"{across}, by quantiles of $N(0, 1)$")
    axes.set_ylabel(f"{up}, by quantiles of $N(0, 1)$")
    rest = f", the other {others} of $z$ at 0" if others else ""
    axes.set_title(f"Manifold, {title_of(name)}: mean of $p(x\\,|\\,z)$ over {across} and {up}{rest}", fontsize=12)
    figure.savefig(path, dpi=DPI)


def _images(rows: Tensor, event_shape: Sequence[int]) -> np.ndarray:
    """`[*S, D]` to `[*S, H, W, C]` in [0, 1]: values beyond are scaled to fit, all alike."""
    height, width, *channels = event_shape
    values = rows.unflatten(-1, (height, width, *(channels or [1]))).float().cpu()
    low, high = min(0.0, values.min().item()), max(1.0, values.max().item())
    return np.asarray((values - low) / (high - low))


def _coloured(rows: Tensor, event_shape: Sequence[int], low: float, high: float, cmap: str = "gray") -> np.ndarray:
    """`[N, D]` to `[N, H, W, 3]`: `low` and less to the darkest, `high` and more to the brightest, NaN to `UNSEEN`."""
    height, width, *channels = event_shape
    values = rows.unflatten(-1, (height, width, *(channels or [1]))).float().cpu().numpy()
    scaled = np.clip((values - low) / (high - low), 0, 1)
    if scaled.shape[-1] == 1:
        return np.asarray(colormaps[cmap].with_extremes(bad=UNSEEN)(np.ma.masked_invalid(scaled[..., 0]))[..., :3])
    return np.where(np.isnan(scaled), to_rgb(UNSEEN), scaled)


def _aspect(images: np.ndarray, columns: int) -> float:
    """Height over width of the images in a grid."""
    count, height, width, _ = images.shape
    rows = math.ceil(count / columns)
    return float(rows * (height + 1) / (columns * (width + 1)))


def _show_grid(axes: Axes, images: np.ndarray, columns: int, gap: float = 1.0) -> None:
    """Draws images row by row into a unit square, a pixel of brightness `gap` around each."""
    _, height, width, channels = images.shape
    rows = math.ceil(len(images) / columns)
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

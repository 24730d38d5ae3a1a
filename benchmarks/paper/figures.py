"""The pictures: figure 2 from the curves, figures 4 and 5 from trained models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from benchmarks.paper import published
from benchmarks.paper.curves import FIGURE_2, FIGURE_5, Curve, LearnedCurve
from vae_ext import pictures
from vae_ext.aevb import Trainer, explore
from vae_ext.plots import lighten, new_figure

DPI = 110
TITLES = {"mnist": "MNIST", "frey": "Frey faces"}
COLOURS = {"aevb": "#1f4e79", "wake-sleep": "#2e8b57"}
NAMES = {"aevb": "AEVB", "wake-sleep": "wake-sleep"}
TEST_LINE: Final = "-"
TRAIN_LINE: Final = "--"
TEST_MARKER, TRAIN_MARKER = "o", "+"
# The samples of the figure in the paper, and bounds enough for shorter runs.
SAMPLES = (1e5, 1e8)
BOUNDS = {"mnist": (-190, -95), "frey": (0, 1600)}
SAMPLES_SHOWN, MANIFOLD_SIDE = 100, 20


def figure_2(learned: Sequence[LearnedCurve], folder: Path) -> None:
    """The curves of each dataset, with the paper's points, in figure_2-DATASET.png: where there are any."""
    for dataset, latents in FIGURE_2.items():
        chosen = [one for one in learned if one.curve.dataset == dataset and not one.curve.variant]
        known = {one.curve.latent for one in chosen}
        known |= {point.latent for point in published.POINTS if point.dataset == dataset}
        shown = [latent for latent in latents if latent in known]
        if chosen:
            _dataset(dataset, shown, chosen, folder / f"figure_2-{dataset}.png")


def _dataset(dataset: str, latents: Sequence[int], learned: Sequence[LearnedCurve], path: Path) -> None:
    figure = new_figure(2.6 * len(latents), 4.2)
    panels = figure.subplots(1, len(latents), sharey=True)
    for axes, latent in zip(panels, latents, strict=True):
        for one in learned:
            if one.curve.latent == latent:
                _curve(axes, one)
        for algorithm in COLOURS:
            _published(axes, dataset, algorithm, latent)
        axes.set_xscale("log")
        axes.set_xlim(*SAMPLES)
        axes.set_ylim(*BOUNDS[dataset])
        axes.set_title(f"{latent} latents", fontsize=10)
        axes.set_xlabel("training samples seen")
        lighten(axes)
    panels[0].set_ylabel("lower bound, nats per datapoint")
    figure.suptitle(f"{TITLES[dataset]}: our curves, and points read off the paper's figure 2", fontsize=12)
    figure.legend(handles=_keys(dataset), frameon=False, fontsize=9, loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=DPI)


def _curve(axes: Axes, one: LearnedCurve) -> None:
    colour = COLOURS[one.curve.algorithm]
    for line, bounds in ((TEST_LINE, one.test_bound), (TRAIN_LINE, one.train_bound)):
        axes.plot(one.samples, bounds, line, color=colour, linewidth=1.4)


def _published(axes: Axes, dataset: str, algorithm: str, latent: int) -> None:
    points, colour = published.points_of(dataset, algorithm, latent), COLOURS[algorithm]
    test = [(point.samples, point.test) for point in points]
    train = [(point.samples, point.train) for point in points if point.train is not None]
    for dots, marker in ((test, TEST_MARKER), (train, TRAIN_MARKER)):
        if dots:
            # A point on the edge of the axes is still to be seen whole.
            axes.plot(*zip(*dots, strict=True), marker, color=colour, markerfacecolor="white", clip_on=False, zorder=3)
    if (dataset, algorithm) in published.PLATEAUS:
        axes.axhline(published.PLATEAUS[dataset, algorithm], color=colour, linestyle=":", linewidth=1)


def _keys(dataset: str) -> list[Line2D]:
    keys = []
    for algorithm, colour in COLOURS.items():
        keys.append(Line2D([], [], color=colour, label=f"{NAMES[algorithm]}, test"))
        keys.append(Line2D([], [], color=colour, linestyle="--", label=f"{NAMES[algorithm]}, train"))
    for marker, part in ((TEST_MARKER, "test"), (TRAIN_MARKER, "train")):
        dots = Line2D([], [], color="0.3", linestyle="", marker=marker, markerfacecolor="white", label=f"paper, {part}")
        keys.append(dots)
    if (dataset, "wake-sleep") in published.PLATEAUS:
        keys.append(Line2D([], [], color=COLOURS["wake-sleep"], linestyle=":", label="paper's wake-sleep in the end"))
    return keys


def of_model(curve: Curve, trainer: Trainer, folder: Path) -> None:
    """Those of figures 4 (two latents) and 5 (MNIST) that are of this curve's model."""
    if curve.algorithm != "aevb" or curve.variant:
        return
    folder.mkdir(parents=True, exist_ok=True)
    about = trainer.dataset.event_shape, trainer.dataset.name
    if curve.latent == 2:
        manifold = explore.manifold(trainer.model, MANIFOLD_SIDE)
        pictures.manifold(manifold, (0, 1), *about, folder / f"figure_4-{curve.dataset}.png")
    if curve.dataset == "mnist" and curve.latent in FIGURE_5:
        samples = explore.sample(trainer.model, SAMPLES_SHOWN, torch.Generator().manual_seed(0))
        pictures.samples(samples, *about, folder / f"figure_5-{curve.latent}-latents.png")

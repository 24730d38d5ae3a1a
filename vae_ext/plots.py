"""Plots of numbers: the learning curve, the codes of datapoints, the variance of gradients. Each writes one PNG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from torch import Tensor

from vae_ext.datasets import Dataset, short_name

if TYPE_CHECKING:
    from vae_ext.aevb.explore import Codes
    from vae_ext.aevb.gradient_variance import Measurement, Plan
    from vae_ext.aevb.run_directory import Record
    from vae_ext.aevb.small_data import Learned

DPI = 150
TRAIN_COLOUR, TEST_COLOUR = "#c44e52", "#1f4e79"
ESTIMATORS = {
    "score_function": ("score function", "#c44e52", "s"),
    "sgvb_a": ("SGVB A (eq. 6)", "#dd9933", "^"),
    "sgvb_b": ("SGVB B (eq. 7)", "#1f4e79", "o"),
}
METHODS = {
    "map": ("MAP", "#c44e52"),
    "full_vb_decoder": ("full VB, decoder", "#dd9933"),
    "full_vb_both": ("full VB, both networks", "#1f4e79"),
}
MOST_NAMED_LABELS = 10


def learning_curve(records: Sequence[Record], dataset: Dataset, path: Path) -> None:
    """The training and held-out bound against training samples seen, as in figure 2 of the paper."""
    figure = new_figure(6.4, 4.2)
    axes = figure.subplots()
    samples = [record.samples for record in records]
    train = [record.train_bound for record in records]
    test = [record.test_bound for record in records]
    curves = (("training", train, TRAIN_COLOUR, "--"), ("held-out", test, TEST_COLOUR, "-"))
    for name, curve, colour, line in curves:
        label = f"{name}  ({typeset(curve[-1], 2)} at the end)"
        # A line of one point is not seen.
        marker = "o" if len(curve) == 1 else None
        axes.plot(samples, curve, color=colour, linestyle=line, marker=marker, label=label)
    axes.set_xscale("log")
    axes.set_ylim(*_without_the_first_plunge(train, test))
    axes.set_xlabel("training samples seen")
    axes.set_ylabel("lower bound, nats per datapoint")
    axes.set_title(f"Learning curve, {title_of(dataset.name)}")
    lighten(axes)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=DPI)


def codes(codes: Codes, labels: Tensor | None, name: str, path: Path) -> None:
    """The means of q(z given x): as they are with one or two latents, else along their two principal components.

    Coloured by label, or, where there are none, by the divergence of q(z given x) from the prior.
    """
    figure = new_figure(6.4, 5.6)
    axes = figure.subplots()
    points = _plane(codes, axes)
    size = min(12.0, 4e4 / len(points))
    if labels is not None and len(labels.unique()) <= MOST_NAMED_LABELS:
        for index, label in enumerate(labels.unique().tolist()):
            x, y = points[labels == label].T
            axes.scatter(x, y, s=size, color=f"C{index}", label=str(label), linewidths=0)
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5), markerscale=math.sqrt(30 / size))
    else:
        value, meaning = (codes.kl.sum(-1), "KL from the prior, nats") if labels is None else (labels, "label")
        drawn = axes.scatter(points[:, 0], points[:, 1], s=size, c=value.cpu().numpy(), cmap="viridis", linewidths=0)
        figure.colorbar(drawn, ax=axes, label=meaning, pad=0.02)
    axes.set_title(f"Codes of {len(points):,} datapoints, {title_of(name)}: mean of $q(z\\,|\\,x)$", fontsize=12)
    lighten(axes)
    figure.savefig(path, dpi=DPI)


def _plane(codes: Codes, axes: Axes) -> np.ndarray:
    """The codes in two dimensions, `[N, 2]`, and the names of those on the axes."""
    mean = codes.mean.double().cpu()
    if mean.shape[1] == 1:
        axes.set_xlabel("mean of $z$")
        axes.set_ylabel("standard deviation of $z$")
        return np.hstack([mean.numpy(), codes.std.cpu().numpy()])
    axes.set_aspect("equal", adjustable="datalim")
    if mean.shape[1] == 2:
        axes.set_xlabel("$z_1$")
        axes.set_ylabel("$z_2$")
        return mean.numpy()
    centred = mean - mean.mean(0)
    variances, directions = torch.linalg.eigh(centred.T @ centred)
    # In ascending order. One datapoint has no variance to share.
    total = variances.sum().clamp_min(torch.finfo(variances.dtype).tiny)
    second, first = (variances[-2:].clamp_min(0) / total).tolist()
    axes.set_xlabel(f"first principal component, {first:.0%} of the variance of {mean.shape[1]} latents")
    axes.set_ylabel(f"second, {second:.0%}")
    return np.asarray(centred @ directions[:, -2:].flip(1))


def gradient_variance(measurements: Sequence[Measurement], plan: Plan, name: str, path: Path) -> None:
    """The variance of each estimator's gradient against L, and against M, beside the squared length of its mean."""
    figure = new_figure(10, 4.2)
    panels = figure.subplots(1, 2, sharey=True)
    at_batch_size = [one for one in measurements if one.batch_size == plan.fixed_batch_size]
    at_draws = [one for one in measurements if one.draws == plan.fixed_draws]
    _variance_panel(panels[0], at_batch_size, "draws", f"$L$, draws of $z$ ($M$ = {plan.fixed_batch_size})")
    _variance_panel(panels[1], at_draws, "batch_size", f"$M$, datapoints in a minibatch ($L$ = {plan.fixed_draws})")
    quietest = min(measurements, key=lambda one: one.encoder.total)
    for axes in panels:
        axes.axhline(quietest.encoder.squared_norm, color="grey", linestyle="--", linewidth=1)
    panels[0].set_ylabel("variance, squared nats")
    figure.suptitle(f"Variance of the gradient of the bound in the encoder's parameters, {title_of(name)}", fontsize=12)
    keys = [Line2D([], [], color=colour, marker=marker, label=label) for label, colour, marker in ESTIMATORS.values()]
    keys.append(
        Line2D(
            [], [], color="grey", linestyle=":", label="of the noise alone,\nthe minibatch fixed\n(at most the total)"
        )
    )
    keys.append(Line2D([], [], color="grey", linestyle="--", linewidth=1, label="squared length of\nthe mean gradient"))
    figure.legend(handles=keys, frameon=False, fontsize=9, loc="outside right center", labelspacing=1.2)
    figure.savefig(path, dpi=DPI)


def _variance_panel(axes: Axes, measurements: Sequence[Measurement], field: str, label: str) -> None:
    for estimator, (_, colour, marker) in ESTIMATORS.items():
        chosen = sorted(
            (one for one in measurements if one.estimator == estimator), key=lambda one: getattr(one, field)
        )
        at = [getattr(one, field) for one in chosen]
        errors = [one.encoder.standard_error for one in chosen]
        axes.errorbar(at, [one.encoder.total for one in chosen], errors, color=colour, marker=marker, markersize=5)
        # It is a part of the total; the estimates of the two, each unbiased, may say otherwise by chance.
        noise = [min(one.encoder.noise, one.encoder.total) for one in chosen]
        axes.plot(at, noise, color=colour, linestyle=":")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(at, [f"{value:,}" for value in at])
    axes.minorticks_off()
    axes.set_xlabel(label)
    lighten(axes)


def full_vb(learned: Sequence[Learned], name: str, path: Path) -> None:
    """The held-out and the training bound of each method against training samples, a panel for each number of them.

    The panels show the held-out bound of full VB in whole. A triangle stands where another curve leaves them, and the
    legend says where those end.
    """
    sizes = list(dict.fromkeys(one.size for one in learned))
    figure = new_figure(max(6.4, 1 + 3.6 * len(sizes)), 5.2)
    panels = figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
    limits = _limits(learned)
    for axes, size in zip(panels, sizes, strict=True):
        for one in learned:
            if one.size == size:
                _bound_curves(axes, one, limits)
        axes.set_xscale("log")
        axes.set_xlabel("training samples seen")
        axes.set_title(f"{size:,} datapoints", fontsize=11)
        axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.18))
        lighten(axes)
    panels[0].set_ylim(*limits)
    panels[0].set_ylabel("lower bound, nats per datapoint")
    figure.suptitle(
        f"Few datapoints, {title_of(name)}: bound on held-out (solid) and training data (dotted)", fontsize=12
    )
    figure.savefig(path, dpi=DPI)


def _limits(learned: Sequence[Learned]) -> tuple[float, float]:
    """From the least held-out bound of full VB to the highest of all, with room for a training bound above."""
    least = min(_test_bounds(one).min() for one in learned if one.method != "map")
    highest = max(_test_bounds(one).max() for one in learned)
    margin = 0.08 * (highest - least) or 1.0
    return least - margin, highest + 3 * margin


def _bound_curves(axes: Axes, one: Learned, limits: tuple[float, float]) -> None:
    name, colour = METHODS[one.method]
    samples, test = np.array([record.samples for record in one.records]), _test_bounds(one)
    train = np.array([record.train_bound for record in one.records])
    end, best, end_of_training = (typeset(bound, 1) for bound in (test[-1], test.max(), train[-1]))
    label = f"{name}: {end} at the end,\n{best} at best; training {end_of_training}"
    axes.plot(samples, test, color=colour, label=label)
    axes.plot(samples, train, color=colour, linestyle=":", linewidth=1)
    for curve in (test, train):
        _mark_exits(axes, samples, curve, limits, colour)


def _mark_exits(axes: Axes, samples: np.ndarray, curve: np.ndarray, limits: tuple[float, float], colour: str) -> None:
    """A triangle at the edge wherever the curve crosses it, and where it begins beyond it."""
    for limit, marker in zip(limits, ("v", "^"), strict=True):
        before = np.flatnonzero(np.diff(curve < limit))
        share = (limit - curve[before]) / (curve[before + 1] - curve[before])
        at = np.exp(np.log(samples[before]) * (1 - share) + np.log(samples[before + 1]) * share)
        if curve[0] < limit if marker == "v" else curve[0] > limit:
            at = np.append(at, samples[0])
        (marks,) = axes.plot(at, np.full_like(at, limit), marker, color=colour, markersize=6, clip_on=False, zorder=3)
        # Half of each is outside the panel, which is to stay as large as it is.
        marks.set_in_layout(False)


def _test_bounds(one: Learned) -> np.ndarray:
    return np.array([record.test_bound for record in one.records])


def new_figure(width: float, height: float) -> Figure:
    """A figure whose title is clear of the edge."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.06))


def title_of(name: str) -> str:
    """The name of a dataset, for a title."""
    return short_name(name).replace("$", r"\$")


def typeset(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def lighten(axes: Axes) -> None:
    """Nothing beside the data but two axes and a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)


def _without_the_first_plunge(*curves: Sequence[float]) -> tuple[float, float]:
    """Limits for the last nine tenths of the curves: the first steps can lie orders of magnitude below."""
    shown = np.concatenate([curve[len(curve) // 10 :] for curve in curves])
    margin = 0.06 * float(np.ptp(shown)) or 1.0
    return float(shown.min()) - margin, float(shown.max()) + margin

"""The report of the curves of figure 3 there are: figure_3.png, README.md and differences.json."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from benchmarks.paper import figures
from benchmarks.paper.figures import DPI, TEST_LINE, TEST_MARKER, TRAIN_LINE, TRAIN_MARKER
from benchmarks.paper.marginal_curves import (
    ALGORITHMS,
    DATAPOINTS,
    PARTS,
    PUBLISHED,
    SOURCE,
    UNCERTAINTY,
    LearnedMarginal,
    MarginalCurve,
    Measured,
)
from benchmarks.paper.marginal_runs import RECORDS_BETWEEN
from benchmarks.paper.page import NUMBERS, PAGE, dump, short, signed, table
from vae_ext.aevb.run import RECORDED_DECADES, RECORDS
from vae_ext.plots import lighten, new_figure, typeset

PICTURE = "figure_3.png"
COLOURS = {**figures.COLOURS, "monte-carlo-em": "#c44e52"}
NAMES = {**figures.NAMES, "monte-carlo-em": "Monte Carlo EM"}
LINES: dict[str, Literal["-", "--"]] = {"train": TRAIN_LINE, "test": TEST_LINE}
MARKERS = {"train": TRAIN_MARKER, "test": TEST_MARKER}
SAMPLES = (1e4, 1e8)
# That of the figure in the paper, and room for shorter runs.
LOG_MARGINALS = (-210, -100)
# After how many training samples curves are compared.
POINTS = (10**5, 5 * 10**5, 10**6, 5 * 10**6, 10**7, 6 * 10**7)
# Samples of one estimate are so many times those of the one before; where they are far more, one is missing.
STRIDE = 10 ** (RECORDED_DECADES * RECORDS_BETWEEN / (RECORDS - 1))
WIDEST_STRIDE = 1.25 * STRIDE
HEADINGS = ("curve", "samples", "train", "paper", "difference", "test", "paper", "difference")
FINAL_HEADINGS = (
    *("curve", "samples", "train", "± s.e.", "test", "± s.e."),
    *("no estimate", "chains unmixed", "step size"),
)
_WIDTH = 120
_INTRODUCTION = (
    "Written by `python -m benchmarks.paper --figure 3`; [the page above](../../README.md) says how. Estimated log p(x)"
    " is in mean nats per datapoint, of one run each; between two estimates it is linear in the logarithm of the"
    " samples, and not told where one is missing. Standard errors are those of drawing z. Chains that do not mix are in"
    " the means here, where `vae-ext marginal` leaves them out."
)


@dataclass(frozen=True)
class Difference:
    """A curve of ours after so many samples; the paper's are None where they were not read. In nats."""

    curve: str
    algorithm: str
    datapoints: int
    samples: int
    train: float
    test: float
    paper_train: float | None
    paper_test: float | None


def differences(learned: Sequence[LearnedMarginal]) -> list[Difference]:
    """Of every curve at every one of `POINTS` that lies on one of its `unbroken` stretches."""
    return [
        _difference(one.curve, stretch, samples)
        for one in learned
        for samples in POINTS
        for stretch in unbroken(one.measured)
        if stretch[0].samples <= samples <= stretch[-1].samples
    ]


def unbroken(measured: Sequence[Measured]) -> list[list[Measured]]:
    """The stretches of a curve along which no estimate is missing."""
    stretches: list[list[Measured]] = []
    for one in measured:
        if stretches and one.samples <= WIDEST_STRIDE * stretches[-1][-1].samples:
            stretches[-1].append(one)
        else:
            stretches.append([one])
    return stretches


def _difference(curve: MarginalCurve, stretch: Sequence[Measured], samples: int) -> Difference:
    wanted = (curve.datapoints, curve.algorithm, samples)
    point = next((p for p in PUBLISHED if (p.datapoints, p.algorithm, p.samples) == wanted), None)
    at = [measured.samples for measured in stretch]
    train, test = (
        float(np.interp(np.log(samples), np.log(at), [getattr(measured, part) for measured in stretch]))
        for part in PARTS
    )
    paper = (None, None) if point is None else (point.train, point.test)
    about = curve.name, curve.algorithm, curve.datapoints
    return Difference(*about, samples, round(train, 3), round(test, 3), *paper)


def order(rows: Sequence[Difference]) -> Iterator[str]:
    """A sentence for each place where curves of the usual initialisation can be compared, the highest first."""
    usual = [row for row in rows if MarginalCurve(row.algorithm, row.datapoints).name == row.curve]
    for datapoints, samples in sorted({(row.datapoints, row.samples) for row in usual}):
        there = [row for row in usual if (row.datapoints, row.samples) == (datapoints, samples)]
        if len(there) < 2:
            continue
        parts = []
        for part in PARTS:
            ranked = sorted(there, key=lambda row: -getattr(row, part))
            parts.append(f"{part}: {', '.join(f'{NAMES[row.algorithm]} {_at(row, part)}' for row in ranked)}")
        yield f"N = {datapoints:,} after {short(samples)} samples, {'; '.join(parts)}."


def _at(row: Difference, part: str) -> str:
    return typeset(getattr(row, part), 1)


def write(learned: Sequence[LearnedMarginal], folder: Path) -> None:
    """Writes all three files."""
    _draw(learned, folder / PICTURE)
    rows = differences(learned)
    document = {
        "source": SOURCE,
        "uncertainty_nats": UNCERTAINTY,
        "differences": [asdict(row) for row in rows],
    }
    (folder / NUMBERS).write_text(dump(document))
    (folder / PAGE).write_text("\n".join(_page(learned, rows)) + "\n")


def _page(learned: Sequence[LearnedMarginal], rows: Sequence[Difference]) -> Iterator[str]:
    yield from ("# Figure 3, reproduced", "", *textwrap.wrap(_INTRODUCTION, _WIDTH), "")
    for sentence in order(rows):
        yield from textwrap.wrap(sentence, _WIDTH, initial_indent="- ", subsequent_indent="  ")
    yield ""
    yield f"![Estimated log p(x) against training samples, with the points read off the paper's figure 3]({PICTURE})"
    yield from ("", "## Against the paper", "", *textwrap.wrap(SOURCE, _WIDTH), "")
    yield from table(HEADINGS, 1, map(_against_the_paper, rows))
    yield from ("", "## The last estimates", "")
    yield from table(FINAL_HEADINGS, 1, map(_last, learned))
    yield from ("", *textwrap.wrap(_settings(learned), _WIDTH))


def _against_the_paper(row: Difference) -> Iterator[str]:
    yield from (row.curve, short(row.samples))
    for ours, theirs in ((row.train, row.paper_train), (row.test, row.paper_test)):
        yield typeset(ours, 1)
        yield from ("", "") if theirs is None else (typeset(theirs, 1), signed(ours - theirs))


def _last(one: LearnedMarginal) -> Iterator[str]:
    last = one.measured[-1]
    yield from (one.curve.name, f"{last.samples:,}")
    yield from (typeset(last.train, 1), f"{last.train_error:.2f}", typeset(last.test, 1), f"{last.test_error:.2f}")
    yield from (f"{last.left_out:,}", f"{last.unmixed:.1%}", f"{one.config.lr:g}")


def _settings(learned: Sequence[LearnedMarginal]) -> str:
    config, setting = learned[0].config, learned[0].setting
    return (
        f"{config.hidden} hidden units, {config.latent} latent variables, M = {config.batch_size} (N in Monte Carlo"
        f" EM), {config.optimizer}, initialisation {config.init} (or as a curve's name says), on {setting['threads']}"
        f" thread(s), torch {setting['torch']}."
    )


def _draw(learned: Sequence[LearnedMarginal], path: Path) -> None:
    figure = new_figure(9, 4.6)
    panels = figure.subplots(1, len(DATAPOINTS), sharey=True)
    for axes, datapoints in zip(panels, DATAPOINTS, strict=True):
        for one in learned:
            if one.curve.datapoints == datapoints:
                _curve(axes, one)
        _published(axes, datapoints)
        axes.set_xscale("log")
        axes.set_xlim(*SAMPLES)
        axes.set_ylim(*LOG_MARGINALS)
        axes.set_title(f"$N$ = {datapoints:,}", fontsize=10)
        axes.set_xlabel("training samples seen")
        lighten(axes)
    panels[0].set_ylabel(r"estimated $\log p(x)$, nats per datapoint")
    figure.suptitle("MNIST: our curves, and points read off the paper's figure 3", fontsize=12)
    figure.legend(handles=_keys(), frameon=False, fontsize=9, loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=DPI)


def _curve(axes: Axes, one: LearnedMarginal) -> None:
    for stretch in unbroken(one.measured):
        samples = [measured.samples for measured in stretch]
        for part in PARTS:
            values = [getattr(measured, part) for measured in stretch]
            axes.plot(samples, values, LINES[part], color=COLOURS[one.curve.algorithm], linewidth=1.4)


def _published(axes: Axes, datapoints: int) -> None:
    """Those within the axes: Monte Carlo EM begins far below."""
    for point in PUBLISHED:
        for part in PARTS:
            value = getattr(point, part)
            if point.datapoints == datapoints and value >= LOG_MARGINALS[0]:
                colour = COLOURS[point.algorithm]
                axes.plot(point.samples, value, MARKERS[part], color=colour, markerfacecolor="white", zorder=3)


def _keys() -> list[Line2D]:
    keys = []
    for algorithm in ALGORITHMS:
        for part in ("test", "train"):
            label = f"{NAMES[algorithm]}, {part}"
            keys.append(Line2D([], [], color=COLOURS[algorithm], linestyle=LINES[part], label=label))
    for part in ("test", "train"):
        label = f"paper, {part}"
        keys.append(
            Line2D([], [], color="0.3", linestyle="", marker=MARKERS[part], markerfacecolor="white", label=label)
        )
    return keys

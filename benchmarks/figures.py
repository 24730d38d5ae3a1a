"""The pictures of a results.json. Each carries the digest of the file that it was drawn from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from benchmarks.results import OURS, PEERS, STEPS, Document, Row, samples, times_as_fast
from benchmarks.tables import samples_per_second

# Each picture, and the part that it is of.
PARTS = {
    "speed.png": "operators",
    "training.png": "training",
    "scaling.png": "scaling",
    "accuracy.png": "accuracy",
}
# What the digest is called among a picture's metadata.
SOURCE = "Source"
_DPI = 120
# No error, and one without bounds, have no place on a logarithmic axis but its edges.
_SMALLEST_ERROR, _NOT_FINITE = 1e-12, 10.0
# Whose errors, one beneath the other, and the greatest relative error of rounding one number.
_MARKERS = {"eager": "o", "compile": "s", "ours": "D"}
_ROUNDING = {"float32": 2.0**-24, "bfloat16": 2.0**-8}
_SPREAD = "dots: ratios of 20th percentiles, lines: 20th to 80th percentile of the rounds' ratios"
_COLOURS = {
    "ours": "#c44e52",
    "ours+compile": "#8c2d31",
    "eager": "#1f4e79",
    "compile": "#6fa8dc",
    "reduce-overhead": "#7a9a4e",
    "jax": "#9467bd",
}
_LABELS = {"compile": "torch.compile", "ours+compile": "ours, the rest compiled"}
_AXES = {"batch": "datapoints", "event": "elements of a datapoint", "samples": "samples of a datapoint, L"}


def draw(document: Document, folder: Path, digest: str) -> list[Path]:
    """Draws what there are rows for; returns the files."""
    pictures = {"operators": speed, "training": training, "scaling": scaling, "accuracy": accuracy}
    drawn = []
    for name, part in PARTS.items():
        (folder / name).unlink(missing_ok=True)
        if document[part]:
            pictures[part](document).savefig(folder / name, dpi=_DPI, metadata={SOURCE: digest})
            drawn.append(folder / name)
    return drawn


def speed(document: Document) -> Figure:
    """How many times as fast as its peers ours is: float32, one sample; a dot for each peer."""
    every = list(document["operators"])
    rows = [row for row in every if row["dtype"] == "float32" and row["samples"] == 1]
    held = "float32, one sample (L = 1), allocator pinned"
    if not rows:
        rows, held = every, "allocator pinned"
    places = _places(rows)
    figure = _figure(9.5, 2.1 + 0.24 * (max(places.values()) + 1))
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, direction in zip(panels, ("fwd", "fwd+bwd"), strict=True):
        chosen = [row for row in rows if row["pass"] == direction]
        for peer in _present(chosen, "timings", PEERS):
            found = [row for row in chosen if peer in row["timings"]]
            _dots(axes, [(_Speed.of(row["timings"], peer), places[_place(row)]) for row in found], peer)
        axes.set_title({"fwd": "forward", "fwd+bwd": "forward + backward"}[direction], fontsize=10)
        axes.set_xscale("log")
        _ticks(axes.xaxis, {tick: f"{tick:g}×" for tick in (0.5, 1, 2, 5, 10, 20, 50, 100)})
        axes.set_xlabel("time of the peer over time of ours", fontsize=9)
        _shade_losses(axes)
        _lines_of_dots(axes)
    _name_places(panels[0], places)
    _describe(figure, "How many times as fast ours is", f"{held}; {_SPREAD}", _where(document))
    return figure


def training(document: Document) -> Figure:
    """Samples per second over eager's, and peak memory, of each way to make a step."""
    together = list(dict.fromkeys((row["model"], row["dtype"]) for row in document["training"]))
    rows = sorted(document["training"], key=lambda row: together.index((row["model"], row["dtype"])))
    places = _spaced([_step_place(row) for row in rows])
    figure = _figure(10.5, 2.2 + 0.3 * (max(places.values()) + 1))
    speeds, peaks = figure.subplots(1, 2, sharey=True)
    for index, name in enumerate(_present(rows, "timings", STEPS[1:])):
        found = [row for row in rows if name in row["timings"] and "eager" in row["timings"]]
        heights = [places[_step_place(row)] + 0.24 * (index - 1) for row in found]
        _dots(
            speeds, list(zip([_Speed.of(row["timings"], "eager", name) for row in found], heights, strict=True)), name
        )
        shares = [row["peak_bytes"][name] / row["peak_bytes"]["eager"] for row in found]
        peaks.scatter(shares, heights, s=34, color=_COLOURS[name], zorder=3)
    speeds.set_xlabel("samples per second over eager's: right is better", fontsize=9)
    peaks.set_xlabel("peak memory of a step over eager's: left is better", fontsize=9)
    for axes in (speeds, peaks):
        axes.axvline(1, color=_COLOURS["eager"], linewidth=1.5, label="eager")
        axes.xaxis.set_major_formatter("{x:g}×")
        _lines_of_dots(axes)
    _name_places(speeds, places)
    held = "same model, data, weights and optimizer (Adagrad), allocator pinned; in brackets: eager's own"
    _describe(figure, "Whole training steps that differ in their operators alone", held, _SPREAD, _where(document))
    return figure


def accuracy(document: Document) -> Figure:
    """The worst error of each contestant, of outputs and of gradients, for each dtype."""
    rows = document["accuracy"]
    panels = [(dtype, part) for dtype in dict.fromkeys(row["dtype"] for row in rows) for part in ("output", "gradient")]
    places = _spaced(list(dict.fromkeys((row["operator"], row["values"]) for row in rows)))
    figure = _figure(3.0 + 2.4 * len(panels), 2.3 + 0.3 * len(places))
    grid = figure.subplots(1, len(panels), sharex=True, sharey=True)
    for axes, (dtype, part) in zip(grid, panels, strict=True):
        chosen = [row for row in rows if row["dtype"] == dtype]
        for index, (name, marker) in enumerate(_MARKERS.items()):
            found = [row for row in chosen if name in row[part]]
            errors = [math.inf if row[part][name] is None else row[part][name] for row in found]
            dots = [min(max(error, _SMALLEST_ERROR), _NOT_FINITE) for error in errors]
            heights = [places[row["operator"], row["values"]] + 0.27 * (index - 1) for row in found]
            if found:
                label = _LABELS.get(name, name)
                axes.scatter(dots, heights, s=22, marker=marker, color=_COLOURS[name], label=label, zorder=3)
        axes.axvline(_ROUNDING[dtype], color="0.5", linestyle="--", linewidth=1, label="rounding of one number")
        axes.set_title(f"{dtype}, {part}s", fontsize=10)
        axes.set_xscale("log")
        axes.set_xlim(_SMALLEST_ERROR / 5, _NOT_FINITE * 5)
        powers = {10.0**power: f"$10^{{{power}}}$" for power in (-9, -6, -3)}
        _ticks(axes.xaxis, {_SMALLEST_ERROR: "0"} | powers | {_NOT_FINITE: "NaN"})
        _lines_of_dots(axes)
    _name_places(grid[0], places)
    _describe(
        figure,
        "The largest error, over the sum of the |terms| that the element is made of: left is better",
        "against float64 of the same inputs and noise; NaN: not a number, or infinite, where there should be a number",
        "ordinary inputs, extreme (logits to 1e4, log-variances from -80 to 80), saturated (logits of ±1e4), collapsed"
        " (close to the prior)",
    )
    return figure


def scaling(document: Document) -> Figure:
    """Time along each axis, with the line of what is in proportion; and what threads gain."""
    rows = document["scaling"]
    operators = list(dict.fromkeys(row["operator"] for row in rows))
    axes_of_rows = list(dict.fromkeys(row["axis"] for row in rows))
    figure = _figure(max(7.5, 3.5 * len(axes_of_rows)), 3.3 * len(operators) + 1.1)
    grid = figure.subplots(len(operators), len(axes_of_rows), squeeze=False)
    for line, operator in zip(grid, operators, strict=True):
        for axes, axis in zip(line, axes_of_rows, strict=True):
            chosen = [row for row in rows if (row["operator"], row["axis"]) == (operator, axis)]
            if not chosen:
                axes.set_axis_off()
                continue
            axes.set_title(f"{operator}\n{_held(chosen, axis)}", fontsize=9)
            if axis == "threads":
                _threads(axes, chosen)
            else:
                _growth(axes, chosen, _AXES[axis])
    _describe(
        figure,
        "How the time of a call grows, and what threads gain",
        "forward + backward, float32, allocator pinned; 20th percentiles, shaded: to the 80th (of threads: what the two"
        " percentiles of both allow)",
        _where(document),
    )
    return figure


@dataclass(frozen=True)
class _Speed:
    """How many times as fast: of 20th percentiles, and the 20th to 80th percentile of single rounds."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, timings: Mapping[str, Any], peer: str, ours: str = OURS) -> _Speed:
        rounds = np.divide(samples(timings[peer]), samples(timings[ours]))
        low, high = np.quantile(rounds, (0.2, 0.8))
        return cls(times_as_fast(timings, peer, ours), float(low), float(high))


def _dots(axes: Axes, speeds: Sequence[tuple[_Speed, float]], name: str) -> None:
    """A dot for each, at its height, on a line from low to high."""
    colour, heights = _COLOURS[name], [height for _, height in speeds]
    low, high = [speed.low for speed, _ in speeds], [speed.high for speed, _ in speeds]
    axes.hlines(heights, low, high, color=colour, alpha=0.6)
    values = [speed.value for speed, _ in speeds]
    axes.scatter(values, heights, s=34, color=colour, label=_LABELS.get(name, name), zorder=3)


def _shade_losses(axes: Axes) -> None:
    """Where a peer is faster than ours."""
    left = min(0.5, axes.get_xlim()[0])
    axes.set_xlim(left=left)
    axes.axvspan(left, 1, color="0.95", zorder=0)
    axes.axvline(1, color="black", linewidth=1)
    text = {"ha": "center", "va": "top", "fontsize": 7}
    axes.text(math.sqrt(left), 1, "peer faster", text, transform=axes.get_xaxis_transform())


def _growth(axes: Axes, rows: Sequence[Row], label: str) -> None:
    values = [row["value"] for row in rows]
    for name in ("eager", "ours"):
        timings = [row["timings"][name] for row in rows]
        low, high = ([timing[percentile] for timing in timings] for percentile in ("p20", "p80"))
        axes.fill_between(values, low, high, color=_COLOURS[name], alpha=0.25, linewidth=0)
        axes.plot(values, low, color=_COLOURS[name], marker="o", markersize=4, label=name)
    last = rows[-1]["timings"]["ours"]["p20"]
    ideal = [last * value / values[-1] for value in values]
    axes.plot(values, ideal, color="0.5", linestyle="--", linewidth=1, label="in proportion, from the last point")
    axes.set_yscale("log")
    axes.set_ylim(bottom=min(row["timings"]["ours"]["p20"] for row in rows) / 3)
    _ticks(axes.yaxis, {10.0**power: f"{10**power:,}" for power in range(7)})
    axes.set_ylabel("µs a call", fontsize=9)
    _along(axes, values, label)


def _threads(axes: Axes, rows: Sequence[Row]) -> None:
    """How many times as fast so many threads are as one, along the batch."""
    counts = sorted({row["threads"] for row in rows})
    values = sorted({row["value"] for row in rows})
    for name in ("eager", "ours"):
        times = {(row["threads"], row["value"]): row["timings"][name] for row in rows}
        for count in counts[1:]:
            found = [value for value in values if {(counts[0], value), (count, value)} <= times.keys()]
            pairs = [(times[counts[0], value], times[count, value]) for value in found]
            axes.fill_between(
                found,
                [one["p20"] / many["p80"] for one, many in pairs],
                [one["p80"] / many["p20"] for one, many in pairs],
                color=_COLOURS[name],
                alpha=0.25,
                linewidth=0,
            )
            gains = [one["p20"] / many["p20"] for one, many in pairs]
            axes.plot(found, gains, color=_COLOURS[name], marker="o", markersize=4)
    for count in counts[1:]:
        axes.axhline(count, color="0.5", linestyle="--", linewidth=1)
        where, text = (values[-1], count), f"{count} threads in proportion"
        axes.annotate(text, where, (0, 3), textcoords="offset points", fontsize=8, ha="right")
    axes.set_ylim(0, counts[-1] * 1.25)
    axes.set_ylabel("times as fast as one thread", fontsize=9)
    _along(axes, values, _AXES["batch"])


def _along(axes: Axes, values: Sequence[int], label: str) -> None:
    axes.set_xscale("log")
    places = values if values[-1] < 100 else [10**power for power in range(6) if 10**power <= values[-1]]
    _ticks(axes.xaxis, {float(place): f"{place:,}" for place in places})
    axes.set_xlabel(label, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _held(rows: Sequence[Row], axis: str) -> str:
    """What does not change along an axis."""
    (batch, event), count = rows[0]["shape"], rows[0]["samples"]
    if axis == "event":
        return f"{batch:,} datapoints, L = {count}"
    if axis == "samples":
        return f"{batch:,} datapoints of {event:,} elements"
    return f"datapoints of {event:,} elements, L = {count}"


def _step_place(row: Row) -> tuple[str, str]:
    products = {"float32": "float32", "bfloat16": "bfloat16 products"}[row["dtype"]]
    eager = f"{_thousands(samples_per_second(row, 'eager'))}/s, {_bytes(row['peak_bytes']['eager'])}"
    return f"{row['model']}, {products}", f"M = {row['batch']:,} ({eager})"


def _place(row: Row) -> tuple[str, str]:
    return row["operator"], " × ".join(f"{size:,}" for size in row["shape"])


def _places(rows: Sequence[Row]) -> dict[tuple[str, str], float]:
    """A height for each operator and shape, those of an operator together."""
    operators = list(dict.fromkeys(row["operator"] for row in rows))
    labels = dict.fromkeys(_place(row) for operator in operators for row in rows if row["operator"] == operator)
    return _spaced(list(labels))


def _spaced(labels: Sequence[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """A height for each label, with a gap between those of different operators."""
    places: dict[tuple[str, str], float] = {}
    at = 0.0
    for index, label in enumerate(labels):
        at += 0.0 if index == 0 else 1.0 if labels[index - 1][0] == label[0] else 1.7
        places[label] = at
    return places


def _name_places(axes: Axes, places: Mapping[tuple[str, str], float]) -> None:
    """Names each height, and the operator once, at its first."""
    seen: set[str] = set()
    labels = []
    for operator, detail in places:
        labels.append(detail if operator in seen else f"{operator}   {detail}")
        seen.add(operator)
    axes.set_yticks(list(places.values()), labels, fontsize=8)
    axes.set_ylim(max(places.values()) + 0.8, -0.8)


def _present(rows: Sequence[Row], part: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if any(name in row[part] for row in rows)]


def _describe(figure: Figure, what: str, *details: str) -> None:
    """What is shown, and by which colours; at the foot what was held, how it was measured, and where."""
    # Whatever any panel has, once.
    handles = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        list(handles.values()),
        list(handles),
        title=what,
        title_fontproperties={"weight": "bold", "size": 12},
        frameon=False,
        loc="outside upper center",
        ncols=len(handles),
        fontsize=9,
    )
    figure.supxlabel("\n".join(details), fontsize=8.5, color="0.3")


def _ticks(axis: Axis, labels: Mapping[float, str]) -> None:
    """At these places and no others."""
    axis.set_major_locator(FixedLocator(list(labels)))
    axis.set_major_formatter(FixedFormatter(list(labels.values())))
    axis.set_minor_locator(NullLocator())


def _lines_of_dots(axes: Axes) -> None:
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def _where(document: Document) -> str:
    machine: Mapping[str, Any] = document["machine"]
    virtual = " of a virtual machine" if machine.get("virtual") else ""
    cores = f"{machine['cores']} cores of {machine['cpu']}, {machine['isa']}{virtual}"
    return f"one run on {machine.get('gpu', cores)}, torch {machine['torch']}"


def _thousands(number: float) -> str:
    return f"{number / 1000:.1f}k" if number < 100_000 else f"{number / 1000:.0f}k"


def _bytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"

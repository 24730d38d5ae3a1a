"""The pictures of a results.json. Each carries the digest of the file that it was drawn from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from benchmarks.results import PEERS, STEPS, Document, Row, times_as_fast
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
# Whose errors, and how large a dot: what is equal shows as rings.
_DOTS = {"compile": 90, "eager": 45, "ours": 14}
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
    rows = [row for row in document["operators"] if row["dtype"] == "float32" and row["samples"] == 1]
    rows = rows or list(document["operators"])
    places = _places(rows)
    figure = _figure(9.5, 1.6 + 0.24 * (max(places.values()) + 1))
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, direction in zip(panels, ("fwd", "fwd+bwd"), strict=True):
        chosen = [row for row in rows if row["pass"] == direction]
        for peer in _present(chosen, "timings", PEERS):
            found = [row for row in chosen if peer in row["timings"]]
            dots = [(times_as_fast(row["timings"], peer), places[_place(row)]) for row in found]
            axes.scatter(*zip(*dots, strict=True), s=34, color=_COLOURS[peer], label=_LABELS.get(peer, peer), zorder=3)
        axes.axvline(1, color="black", linewidth=1)
        axes.set_title({"fwd": "forward", "fwd+bwd": "forward + backward"}[direction], fontsize=10)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator((0.5, 1, 2, 5, 10, 20, 50, 100)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter("{x:g}×")
        axes.grid(axis="x", color="0.9")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    _name_places(panels[0], places)
    _legend(figure)
    figure.suptitle(f"How many times as fast ours is. {_where(document)}", fontsize=10)
    return figure


def training(document: Document) -> Figure:
    """Samples per second over eager's, and peak memory, of each way to make a step."""
    rows = document["training"]
    panels = list(dict.fromkeys((row["model"], row["dtype"]) for row in rows))
    figure = _figure(max(8.5, 3.3 * len(panels)), 6.0)
    grid = figure.subplots(2, len(panels), sharey="row", squeeze=False)
    for column, (model, dtype) in enumerate(panels):
        chosen = [row for row in rows if (row["model"], row["dtype"]) == (model, dtype)]
        names = _present(chosen, "timings", STEPS[1:])
        products = {"float32": "float32", "bfloat16": "bfloat16 products"}[dtype]
        top, bottom = grid[0][column], grid[1][column]
        _bars(top, chosen, names, lambda row, name: times_as_fast(row["timings"], "eager", name))
        _bars(bottom, chosen, names, lambda row, name: row["peak_bytes"][name] / row["peak_bytes"]["eager"])
        top.set_title(f"{model}, {products}", fontsize=10)
        top.set_xticklabels([f"{row['batch']:,}\n{_thousands(samples_per_second(row, 'eager'))}/s" for row in chosen])
        bottom.set_xticklabels([f"{row['batch']:,}\n{_bytes(row['peak_bytes']['eager'])}" for row in chosen])
    grid[0][0].set_ylabel("samples per second\nover eager's")
    grid[1][0].set_ylabel("peak memory of a step\nover eager's")
    _legend(figure)
    figure.suptitle(
        "Whole training steps that differ in their operators alone; under each minibatch size, what eager reaches\n"
        + _where(document),
        fontsize=10,
    )
    return figure


def accuracy(document: Document) -> Figure:
    """The worst error of each contestant, of outputs and of gradients, for each dtype."""
    rows = document["accuracy"]
    panels = [(dtype, part) for dtype in dict.fromkeys(row["dtype"] for row in rows) for part in ("output", "gradient")]
    places = _spaced(list(dict.fromkeys((row["operator"], row["values"]) for row in rows)))
    figure = _figure(3.0 + 2.4 * len(panels), 2.0 + 0.24 * len(places))
    grid = figure.subplots(1, len(panels), sharex=True, sharey=True)
    for axes, (dtype, part) in zip(grid, panels, strict=True):
        chosen = [row for row in rows if row["dtype"] == dtype]
        for name, size in _DOTS.items():
            found = [row for row in chosen if name in row[part]]
            errors = [math.inf if row[part][name] is None else row[part][name] for row in found]
            dots = [min(max(error, _SMALLEST_ERROR), _NOT_FINITE) for error in errors]
            heights = [places[row["operator"], row["values"]] for row in found]
            if found:
                axes.scatter(dots, heights, s=size, color=_COLOURS[name], label=_LABELS.get(name, name), zorder=3)
        axes.set_title(f"{dtype}, {part}s", fontsize=10)
        axes.set_xscale("log")
        axes.set_xlim(_SMALLEST_ERROR / 3, _NOT_FINITE * 3)
        axes.xaxis.set_major_locator(FixedLocator([1e-10, 1e-7, 1e-4, 1e-1]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(axis="x", color="0.9")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    _name_places(grid[0], places)
    _legend(figure)
    figure.suptitle(
        "The largest error against float64, over the sum of |terms|\n"
        "(no error: at the left edge; NaN or infinity where there should be a number: at the right)",
        fontsize=10,
    )
    return figure


def scaling(document: Document) -> Figure:
    """Time along each axis, with the line of what is in proportion; and what threads gain."""
    rows = document["scaling"]
    operators = list(dict.fromkeys(row["operator"] for row in rows))
    axes_of_rows = list(dict.fromkeys(row["axis"] for row in rows))
    figure = _figure(3.4 * len(axes_of_rows), 3.2 * len(operators) + 0.6)
    grid = figure.subplots(len(operators), len(axes_of_rows), squeeze=False)
    for line, operator in zip(grid, operators, strict=True):
        for axes, axis in zip(line, axes_of_rows, strict=True):
            chosen = [row for row in rows if (row["operator"], row["axis"]) == (operator, axis)]
            if not chosen:
                axes.set_axis_off()
            elif axis == "threads":
                _threads(axes, chosen)
            else:
                _growth(axes, chosen, _AXES[axis])
        line[0].set_ylabel(f"{operator}\nµs a call")
    _legend(figure)
    figure.suptitle(f"Forward + backward, float32. {_where(document)}", fontsize=10)
    return figure


def _growth(axes: Axes, rows: Sequence[Row], label: str) -> None:
    values = [row["value"] for row in rows]
    for name in ("eager", "ours"):
        times = [row["timings"][name]["p20"] for row in rows]
        axes.plot(values, times, color=_COLOURS[name], marker="o", markersize=4, label=name)
    last = rows[-1]["timings"]["ours"]["p20"]
    ideal = [last * value / values[-1] for value in values]
    axes.plot(values, ideal, color="0.5", linestyle="--", linewidth=1, label="linear, from the last point")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(bottom=min(row["timings"]["ours"]["p20"] for row in rows) / 3)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(label)
    _plain(axes)


def _threads(axes: Axes, rows: Sequence[Row]) -> None:
    """How many times as fast so many threads are as one, along the batch."""
    counts = sorted({row["threads"] for row in rows})
    times = {(row["threads"], row["value"]): row["timings"]["ours"]["p20"] for row in rows}
    values = sorted({row["value"] for row in rows})
    for count in counts[1:]:
        found = [value for value in values if {(counts[0], value), (count, value)} <= times.keys()]
        gains = [times[counts[0], value] / times[count, value] for value in found]
        axes.plot(found, gains, color=_COLOURS["ours"], marker="o", markersize=4)
        axes.axhline(count, color="0.5", linestyle="--", linewidth=1)
        axes.annotate(f"{count} threads", (values[0], count), (0, 3), textcoords="offset points", fontsize=8)
    axes.set_xscale("log")
    axes.set_ylim(0, counts[-1] * 1.25)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(_AXES["batch"])
    axes.set_ylabel("times as fast as one thread", fontsize=8)
    _plain(axes)


def _bars(axes: Axes, rows: Sequence[Row], names: Sequence[str], height: Callable[[Row, str], float]) -> None:
    """A group of bars for each row, and a line where eager is."""
    width = 0.8 / len(names)
    for offset, name in enumerate(names):
        bars = [(index, height(row, name)) for index, row in enumerate(rows) if name in row["timings"]]
        places = [index + (offset - (len(names) - 1) / 2) * width for index, _ in bars]
        heights = [value for _, value in bars]
        axes.bar(places, heights, width, color=_COLOURS[name], label=_LABELS.get(name, name))
        ink = "black" if name == "compile" else "white"
        for place, value in zip(places, heights, strict=True):
            axes.text(place, 0.05, f"{value:.2f}", ha="center", va="bottom", fontsize=8, rotation=90, color=ink)
    axes.axhline(1, color=_COLOURS["eager"], linewidth=1.5, label="eager", zorder=0)
    axes.set_xticks(range(len(rows)))
    axes.tick_params(axis="x", length=0, labelsize=8)
    axes.margins(y=0.08)
    _plain(axes)


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


def _legend(figure: Figure) -> None:
    """Whatever any panel has, once."""
    handles = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        list(handles.values()), list(handles), frameon=False, loc="outside lower center", ncols=len(handles), fontsize=9
    )


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def _where(document: Document) -> str:
    machine: Mapping[str, Any] = document["machine"]
    cores = f"{machine['cores']} cores of {machine['cpu']}, {machine['isa']}"
    return f"{machine.get('gpu', cores)}, torch {machine['torch']}"


def _thousands(number: float) -> str:
    return f"{number / 1000:.1f}k" if number < 100_000 else f"{number / 1000:.0f}k"


def _bytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"

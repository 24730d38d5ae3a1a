"""The pictures of a run: how many times as fast as its peers each operator is, and its share of the bandwidth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

_COLOURS = {"eager": "#1f4e79", "compile": "#c44e52", "bandwidth": "#1f4e79"}


def draw(document: Mapping[str, Any], folder: Path) -> None:
    """Writes speed.png, and bandwidth.png where there is a share to show, of what results.json holds."""
    measurements = document["measurements"]
    machine = document["machine"]
    title = f"{machine.get('gpu', machine['cpu'])}, {document['dtype']}, torch {machine['torch']}"
    _bars(measurements, ("eager", "compile"), "times as fast as eager and torch.compile", title, folder / "speed.png")
    shared = [measurement for measurement in measurements if "bandwidth" in measurement["compared"]]
    if shared:
        label = "share of the bandwidth of memory or the shared cache"
        _bars(shared, ("bandwidth",), label, title, folder / "bandwidth.png")


def _bars(measurements: Sequence[Mapping[str, Any]], names: Sequence[str], label: str, title: str, path: Path) -> None:
    """One group of bars for each measurement, from the top down, with a tick where the target is."""
    figure = Figure(figsize=(9, 1.2 + 0.3 * len(measurements)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(names)
    for offset, name in enumerate(names):
        positions = [row + offset * height for row in range(len(measurements))]
        compared = [measurement["compared"][name] for measurement in measurements]
        axes.barh(positions, [c["reached"] for c in compared], height, color=_COLOURS[name], label=name)
        axes.plot([c["wanted"] for c in compared], positions, "k|", markersize=9)
    labels = [f"{m['operator']} {m['pass']} {'×'.join(map(str, m['shape']))}" for m in measurements]
    axes.set_yticks([row + 0.4 - height / 2 for row in range(len(measurements))], labels, fontsize=8)
    axes.margins(y=0.01)
    axes.invert_yaxis()
    if len(names) > 1:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
        axes.tick_params(axis="x", which="both", labelsize=8)
        figure.legend(frameon=False, loc="outside upper right", ncols=len(names))
    axes.set_xlabel(f"{label} (tick: wanted)")
    axes.set_title(title, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)

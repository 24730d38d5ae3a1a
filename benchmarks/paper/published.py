"""Points of the paper's figure 2, from figure_2.json, which says where they come from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

_CONTENT = json.loads((Path(__file__).parent / "figure_2.json").read_text())

SOURCE: str = _CONTENT["source"]
# Of reading the figure, in nats.
UNCERTAINTY: dict[str, float] = _CONTENT["uncertainty"]
# Where a curve comes to rest whose points were not read, in nats, by dataset and algorithm.
PLATEAUS: dict[tuple[str, str], float] = {
    (one["dataset"], one["algorithm"]): one["about"] for one in _CONTENT["plateaus"]
}


@dataclass(frozen=True)
class Point:
    """The bounds of a curve after so many training samples, in nats; `train` is None where it was not read."""

    dataset: str
    algorithm: str
    latent: int
    samples: int
    test: float
    train: float | None


POINTS = tuple(Point(**point) for point in _CONTENT["points"])


def points_of(dataset: str, algorithm: str, latent: int) -> list[Point]:
    wanted = (dataset, algorithm, latent)
    return [point for point in POINTS if (point.dataset, point.algorithm, point.latent) == wanted]

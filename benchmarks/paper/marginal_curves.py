"""The curves of figure 3, of estimated log p(x): which there are, the paper's points, and what one becomes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.paper.curves import INIT
from vae_ext.datasets import Dataset
from vae_ext.errors import UserError
from vae_ext.files import write_atomically
from vae_ext.train_config import TrainConfig

ALGORITHMS = ("aevb", "wake-sleep", "monte-carlo-em")
# N, of either panel.
DATAPOINTS = (1000, 50_000)
# "100 hidden units and 3 latent variables", section 5.
HIDDEN, LATENT = 100, 3
PARTS = ("train", "test")

_CONTENT = json.loads((Path(__file__).parent / "figure_3.json").read_text())
SOURCE: str = _CONTENT["source"]
# Of reading the figure, in nats.
UNCERTAINTY: float = _CONTENT["uncertainty"]


@dataclass(frozen=True)
class MarginalCurve:
    """One curve of figure 3, to be run for any number of training samples.

    Attributes:
        datapoints: N; training is on the first N of MNIST.
        init: of the parameters, as `TrainConfig` has it.
        seed: of the parameters, the minibatches and the noise.
    """

    algorithm: str
    datapoints: int
    init: str = INIT
    seed: int = 0

    @property
    def name(self) -> str:
        init = "" if self.init == INIT else f"-{self.init}"
        seed = f"-seed-{self.seed}" if self.seed else ""
        return f"{self.algorithm}-{self.datapoints}{init}{seed}"

    def config(self, samples: int) -> TrainConfig:
        """As the paper has it, but for the step size, which is to be chosen."""
        return TrainConfig(
            samples=samples,
            seed=self.seed,
            latent=LATENT,
            hidden=HIDDEN,
            init=self.init,
            batch_size=100,
            optimizer="adagrad",
        )

    def part_of(self, mnist: Dataset) -> Dataset:
        return replace(mnist, train=mnist.train[: self.datapoints], train_labels=None)


def marginal_curves(init: str = INIT, seed: int = 0) -> Iterator[MarginalCurve]:
    for datapoints in DATAPOINTS:
        for algorithm in ALGORITHMS:
            yield MarginalCurve(algorithm, datapoints, init, seed)


@dataclass(frozen=True)
class PublishedMarginal:
    """The paper's estimates of a curve after so many training samples, in nats."""

    datapoints: int
    algorithm: str
    samples: int
    train: float
    test: float


PUBLISHED = tuple(PublishedMarginal(**point) for point in _CONTENT["points"])


@dataclass(frozen=True)
class Measured:
    """The estimated log p(x) of the model after so many training samples, mean nats per datapoint.

    Attributes:
        train, test: of the first datapoints of either part.
        train_error, test_error: the standard errors of these means, over draws of z.
        left_out: datapoints of both whose chain never moved, so that there is no estimate.
        unmixed: the share of chains that `vae_ext.aevb.mixing` says do not mix.
    """

    samples: int
    train: float
    test: float
    train_error: float
    test_error: float
    left_out: int
    unmixed: float


@dataclass(frozen=True)
class LearnedMarginal:
    """What a curve became, as far as it was run.

    Attributes:
        curve: which it is.
        config: what it was trained with, the step size chosen.
        step_sizes: the training bound of the short trial of each step size.
        measured: along the way.
        seconds: of training, and estimating, up to the last of these.
        setting: where it ran, and on what.
    """

    curve: MarginalCurve
    config: TrainConfig
    step_sizes: dict[str, float]
    measured: list[Measured]
    seconds: float
    setting: dict[str, Any]

    def write(self, folder: Path) -> None:
        """Into a file of the curve's name, a line for each field, and for each measurement."""
        fields = {**asdict(self), "measured": [json.dumps(asdict(one)) for one in self.measured]}
        measured = ",\n".join(fields.pop("measured"))
        lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in fields.items()]
        text = "{\n" + ",\n".join([*lines, f'"measured": [\n{measured}\n]']) + "\n}\n"
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / f"{self.curve.name}.json", lambda file: file.write(text.encode()))


def read(path: Path) -> LearnedMarginal:
    """Raises UserError where it is no file that `LearnedMarginal.write` wrote."""
    try:
        fields = json.loads(path.read_text())
        fields["curve"], fields["config"] = MarginalCurve(**fields["curve"]), TrainConfig(**fields["config"])
        fields["measured"] = [Measured(**one) for one in fields["measured"]]
        return LearnedMarginal(**fields)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is not a curve of `python -m benchmarks.paper --figure 3`: {error}") from error


def samples_kept(curve: MarginalCurve, folder: Path) -> int:
    """How far the curve in the folder goes."""
    path = folder / f"{curve.name}.json"
    measured = read(path).measured if path.exists() else []
    return measured[-1].samples if measured else 0


def read_all(folder: Path) -> Sequence[LearnedMarginal]:
    """Those in the folder, in the order of `marginal_curves`, and then other initialisations and seeds."""
    found = [read(path) for path in sorted(folder.glob("*.json"))]
    order = list(marginal_curves())

    def place(one: LearnedMarginal) -> tuple[bool, int, int]:
        plain = replace(one.curve, init=INIT, seed=0)
        return one.curve.init != INIT, one.curve.seed, order.index(plain)

    return sorted(found, key=place)

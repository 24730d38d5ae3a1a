"""The learning curves of the paper's figures: which there are, and what one is once it was run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vae_ext.errors import UserError
from vae_ext.files import write_atomically
from vae_ext.train_config import TrainConfig

ALGORITHMS = ("aevb", "wake-sleep")
FIGURE_2 = {"mnist": (3, 5, 10, 20, 200), "frey": (2, 5, 10, 20)}
# Figures 4 and 5 also show models of MNIST with two latents.
FIGURE_5 = (2, 5, 10, 20)
# "N(0, 0.01)", read as a standard deviation; README.md has trials of the others.
INIT = "std-0.01"
# Section 5; where the paper leaves a choice, the default of the trainer, which the results state.
SETTINGS: dict[str, dict[str, Any]] = {
    "mnist": {"hidden": 500, "likelihood": "bernoulli"},
    "frey": {"hidden": 200, "likelihood": "gaussian", "decoder_mean": "sigmoid", "decoder_log_var": "network"},
}


@dataclass(frozen=True)
class Curve:
    """One learning curve, to be run for any number of training samples.

    Attributes:
        init: of the parameters, as `TrainConfig` has it.
        accumulate: whether the first steps only do that; `accumulating.py` explains it.
        step_size: of Adagrad; None where short trials choose it, as the paper does.
        seed: of the parameters, the minibatches and the noise.
    """

    dataset: str
    algorithm: str
    latent: int
    init: str = INIT
    accumulate: bool = False
    step_size: float | None = None
    seed: int = 0

    @property
    def name(self) -> str:
        return f"{self.dataset}-{self.algorithm}-{self.latent}{self.variant}"

    @property
    def variant(self) -> str:
        """What tells it from the curve of figure 2."""
        init = "" if self.init == INIT else f"-{self.init}"
        accumulate = "-accumulate" if self.accumulate else ""
        step_size = "" if self.step_size is None else f"-lr-{self.step_size:g}"
        seed = f"-seed-{self.seed}" if self.seed else ""
        return init + accumulate + step_size + seed

    @property
    def plain(self) -> Curve:
        """The curve of figure 2 that it is a variant of."""
        return Curve(self.dataset, self.algorithm, self.latent)

    def config(self, samples: int) -> TrainConfig:
        """As the paper has it; a step size that trials choose is still to be put in."""
        config = TrainConfig(
            samples=samples,
            seed=self.seed,
            latent=self.latent,
            init=self.init,
            batch_size=100,
            draws=1,
            optimizer="adagrad",
            **SETTINGS[self.dataset],
        )
        return config if self.step_size is None else replace(config, lr=self.step_size)


def curves(
    init: str = INIT, accumulate: bool = False, step_size: float | None = None, seed: int = 0
) -> Iterator[Curve]:
    """AEVB first, in the order of the figures."""
    variant = (init, accumulate, step_size, seed)
    yield Curve("mnist", "aevb", 2, *variant)
    for algorithm in ALGORITHMS:
        for dataset, latents in FIGURE_2.items():
            for latent in latents:
                yield Curve(dataset, algorithm, latent, *variant)


@dataclass(frozen=True)
class LearnedCurve:
    """What a curve became; bounds are mean nats per datapoint.

    Attributes:
        curve: which it is.
        config: what it was trained with, the step size chosen.
        step_sizes: the training bound of the short trial of each step size.
        samples: training samples seen, at each record.
        train_bound, test_bound: as `vae_ext.aevb.run.Record` has them.
        seconds: of training.
        setting: where it ran, and on how many datapoints.
    """

    curve: Curve
    config: TrainConfig
    step_sizes: dict[str, float]
    samples: list[int]
    train_bound: list[float]
    test_bound: list[float]
    seconds: float
    setting: dict[str, Any]

    def reaches(self, samples: int) -> bool:
        """Whether there are records to read a bound off."""
        return self.samples[0] <= samples <= self.samples[-1]

    def bound_at(self, part: str, samples: int) -> float:
        """The train or test bound after so many samples, linear in their logarithm between two records."""
        bounds = {"train": self.train_bound, "test": self.test_bound}[part]
        return round(float(np.interp(np.log(samples), np.log(self.samples), bounds)), 3)

    def write(self, folder: Path) -> None:
        """Into a file of the curve's name, a line for each field."""
        lines = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in asdict(self).items())
        text = "{\n" + ",\n".join(lines) + "\n}\n"
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / f"{self.curve.name}.json", lambda file: file.write(text.encode()))


def read(path: Path) -> LearnedCurve:
    """Raises UserError where it is no file that `LearnedCurve.write` wrote."""
    try:
        fields = json.loads(path.read_text())
        return LearnedCurve(**{**fields, "curve": Curve(**fields["curve"]), "config": TrainConfig(**fields["config"])})
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is not a curve of `python -m benchmarks.paper`: {error}") from error


def read_all(folder: Path) -> list[LearnedCurve]:
    """Those in the folder: in the order of `curves`, and then the variants."""
    order = list(curves())
    found = [read(path) for path in sorted(folder.glob("*.json"))]
    return sorted(found, key=lambda one: (one.curve.variant, order.index(one.curve.plain)))

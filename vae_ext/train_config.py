"""What to train and how: no torch here, so that the command line can say its defaults without loading it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vae_ext.errors import UserError

OPTIMIZERS = ("adagrad", "adam", "sgd")
PRECISIONS = ("float32", "medium", "bf16")


class ConfigError(UserError):
    """One field of a `TrainConfig` is unusable.

    Attributes:
        field: its name.
        fault: what it is and what was expected.
    """

    def __init__(self, field: str, fault: str) -> None:
        super().__init__(f"{field} {fault}")
        self.field = field
        self.fault = fault


@dataclass(frozen=True)
class TrainConfig:
    """The hyperparameters of `vae_ext.aevb.Trainer`.

    Attributes:
        samples: training samples to see, rounded up to whole minibatches.
        batch_size: M, datapoints in a minibatch.
        latent: J, the dimension of z.
        hidden: tanh units in the hidden layer of the encoder, and in that of the decoder.
        draws: L, samples of z for each datapoint.
        optimizer: one of `OPTIMIZERS`.
        lr: the step size.
        seed: decides the initial parameters, the minibatches and the noise.
        precision: of matrix products, one of `PRECISIONS`; `vae_ext.aevb.precision` explains them.
        binarise: draw every value as 0 or 1 with its own mean, at each use in training, once for held-out datapoints.

    Raises:
        ConfigError: a number is out of range or a name unknown.
    """

    samples: int = 2_000_000
    batch_size: int = 100
    latent: int = 2
    hidden: int = 500
    draws: int = 1
    optimizer: str = "adagrad"
    lr: float = 0.02
    seed: int = 0
    precision: str = "float32"
    binarise: bool = False

    def __post_init__(self) -> None:
        for field in ("samples", "batch_size", "latent", "hidden", "draws"):
            if not 1 <= getattr(self, field) < 2**31:
                raise ConfigError(field, f"is {getattr(self, field)}: expected an integer from 1 to 2^31 - 1")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ConfigError("lr", f"is {self.lr}: expected a positive, finite step size")
        if not 0 <= self.seed < 2**63:
            raise ConfigError("seed", f"is {self.seed}: expected an integer from 0 to 2^63 - 1")
        if self.optimizer not in OPTIMIZERS:
            raise ConfigError("optimizer", f"is {self.optimizer!r}: expected one of {', '.join(OPTIMIZERS)}")
        if self.precision not in PRECISIONS:
            raise ConfigError("precision", f"is {self.precision!r}: expected one of {', '.join(PRECISIONS)}")

"""What to train and how: no torch here, so that the command line can say its defaults without loading it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vae_ext.errors import UserError

OPTIMIZERS = ("adagrad", "adam", "sgd")
NETWORKS = ("mlp", "conv")
LIKELIHOODS = ("bernoulli", "gaussian")
DECODER_MEANS = ("sigmoid", "linear")
DECODER_LOG_VARS = ("network", "elements", "shared")
INITIALISATIONS = ("fan-in", "variance-0.01", "std-0.01")
# Its exponential, and that of its negative, are still ordinary numbers in float32.
LARGEST_LOG_VAR = 80.0
# Of the whole line, as the prior N(0, I) is, and of finite variance, or the bound would not be.
POSTERIORS = ("gaussian", "laplace", "logistic", "gumbel", "student-t")
ESTIMATORS = ("sgvb_b", "sgvb_a", "score_function")
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


@dataclass(frozen=True, kw_only=True)
class ModelChoices:
    """What kind of model to train; `vae_ext.aevb.VAE` builds it.

    Attributes:
        network: ``mlp``, the networks of appendix C, or ``conv``, for pictures.
        likelihood: p(x given z), ``bernoulli`` or ``gaussian``.
        decoder_mean: of a Gaussian decoder: through a ``sigmoid``, or ``linear``.
        decoder_log_var: of a Gaussian decoder: from the ``network`` as in the paper, learned for each of the
            ``elements`` or as one ``shared`` number, or a number from -80 to 80 to fix it at.
        posterior: q(z given x), one of `POSTERIORS`; any but ``gaussian`` takes estimator A.
        init: initial parameters from N(0, 0.01), which the paper does not say is ``variance-0.01`` or ``std-0.01``, or
            by ``fan-in`` as in later code of the authors.
    """

    network: str = "mlp"
    likelihood: str = "bernoulli"
    decoder_mean: str = "sigmoid"
    decoder_log_var: str | float = "network"
    init: str = "fan-in"
    posterior: str = "gaussian"

    def __post_init__(self) -> None:
        _check_choice("network", self.network, NETWORKS)
        _check_choice("likelihood", self.likelihood, LIKELIHOODS)
        _check_choice("decoder_mean", self.decoder_mean, DECODER_MEANS)
        _check_choice("init", self.init, INITIALISATIONS)
        _check_choice("posterior", self.posterior, POSTERIORS)
        log_var = self.decoder_log_var
        if log_var not in DECODER_LOG_VARS and (isinstance(log_var, str) or not abs(log_var) <= LARGEST_LOG_VAR):
            known = ", ".join(DECODER_LOG_VARS)
            within = f"from -{LARGEST_LOG_VAR:g} to {LARGEST_LOG_VAR:g}"
            raise ConfigError("decoder_log_var", f"is {log_var!r}: expected a number {within} or one of {known}")

    @property
    def unit_interval(self) -> bool:
        """Whether the model is one of values in [0, 1]."""
        return self.likelihood == "bernoulli" or self.decoder_mean == "sigmoid"


def _check_choice(field: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(field, f"is {value!r}: expected one of {', '.join(known)}")


@dataclass(frozen=True)
class TrainConfig(ModelChoices):
    """The hyperparameters of `vae_ext.aevb.Trainer`.

    Attributes:
        samples: training samples to see, rounded up to whole minibatches.
        batch_size: M, datapoints in a minibatch.
        latent: J, the dimension of z.
        hidden: units in the hidden layer of the encoder, and in that of the decoder: tanh, or ReLU of ``conv``.
        draws: L, samples of z for each datapoint.
        optimizer: one of `OPTIMIZERS`.
        lr: the step size.
        seed: decides the initial parameters, the minibatches and the noise.
        estimator: of the bound, one of `ESTIMATORS`.
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
    estimator: str = "sgvb_b"
    precision: str = "float32"
    binarise: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("samples", "batch_size", "latent", "hidden", "draws"):
            value = getattr(self, field)
            if not (isinstance(value, int) and 1 <= value < 2**31):
                raise ConfigError(field, f"is {value}: expected an integer from 1 to 2^31 - 1")
        # Samples of a datapoint are told apart by a counter of 32 bits, one for each four elements of z.
        most_draws = 2**32 // math.ceil(self.latent / 4)
        if self.draws > most_draws:
            raise ConfigError(
                "draws", f"is {self.draws}: expected {most_draws} at most of {self.latent} latent variables"
            )
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ConfigError("lr", f"is {self.lr}: expected a positive, finite step size")
        if not (isinstance(self.seed, int) and 0 <= self.seed < 2**63):
            raise ConfigError("seed", f"is {self.seed}: expected an integer from 0 to 2^63 - 1")
        _check_choice("optimizer", self.optimizer, OPTIMIZERS)
        _check_choice("estimator", self.estimator, ESTIMATORS)
        _check_choice("precision", self.precision, PRECISIONS)
        if self.posterior != "gaussian" and self.estimator != "sgvb_a":
            raise ConfigError(
                "estimator", f"is {self.estimator}: expected sgvb_a, as the posterior is {self.posterior}, not gaussian"
            )

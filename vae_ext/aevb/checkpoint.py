"""Checkpoints: plain tensors and numbers, written atomically, read without running any code they hold."""

from __future__ import annotations

import math
import pickle
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vae_ext.aevb.models import VAE, AutoEncoder, VAEConfig
from vae_ext.aevb.trainer import Tally, Trainer
from vae_ext.errors import UserError
from vae_ext.files import write_atomically
from vae_ext.train_config import ConfigError, TrainConfig

FORMAT = "vae_ext.aevb/3"

# What a checkpoint says beside the state of its trainer.
DESCRIPTION = (
    *("format", "dataset", "datapoints", "fingerprint"),
    *("train_config", "model_config", "options", "progress"),
)
# What `Trainer.state_dict` gives; a trainer derived from it may have more.
TRAINER_STATE = ("samples", "bound_sum", "model", "optimizer", "generator", "default_generators")


@dataclass(frozen=True)
class RunOptions:
    """What a run was started with beside its hyperparameters, so that it can go on without being told again.

    Attributes:
        dataset: what `load_dataset` finds the data by.
        data_dir: the folder it was found in, where one was named.
        device: where it ran.
        tensorboard: whether it also logs to TensorBoard.

    Raises:
        TypeError: a field, as a damaged checkpoint may have it, is of another type.
    """

    dataset: str
    data_dir: str | None = None
    device: str = "cpu"
    tensorboard: bool = False

    def __post_init__(self) -> None:
        _expect("dataset", self.dataset, str)
        _expect("data_dir", self.data_dir, str, type(None))
        _expect("device", self.device, str)
        _expect("tensorboard", self.tensorboard, bool)


@dataclass(frozen=True)
class Progress:
    """What a run had recorded when its checkpoint was saved.

    Attributes:
        records: how many records.
        recorded: the tally at the last of them.
        seconds: of training, up to the checkpoint.

    Raises:
        TypeError, ValueError: a field, as a damaged checkpoint may have it, is unusable.
    """

    records: int = 0
    recorded: Tally = field(default_factory=Tally)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        _count("records", self.records)
        _expect("seconds", self.seconds, float, int)
        if not (math.isfinite(self.seconds) and self.seconds >= 0):
            raise ValueError(f"seconds is {self.seconds}: expected 0 or more")


def _expect(name: str, value: object, *types: type) -> None:
    if not isinstance(value, types):
        names = " or ".join(expected.__name__ for expected in types)
        raise TypeError(f"{name} is {value!r}: expected {names}")


def _count(name: str, value: Any) -> int:
    _expect(name, value, int)
    if value < 0:
        raise ValueError(f"{name} is {value}: expected 0 or more")
    return int(value)


@dataclass(frozen=True)
class Checkpoint:
    """A trained model and where it comes from.

    Attributes:
        model: the one it was loaded into, or else one that was built, on the CPU.
        config: what it was trained with.
        dataset: the name its dataset was loaded by.
        samples: training samples seen.
        options: what its run was started with.
        progress: what its run had recorded.
        datapoints: how many its dataset has for training.
        fingerprint: of these.
        state: of its `Trainer`.
    """

    model: AutoEncoder
    config: TrainConfig
    dataset: str
    samples: int
    options: RunOptions
    progress: Progress
    datapoints: int
    fingerprint: str
    state: dict[str, Any]


def save_checkpoint(
    path: str | Path, trainer: Trainer, options: RunOptions | None = None, progress: Progress | None = None
) -> None:
    """Writes all that training goes on from; only a whole file replaces `path`. The first of a team writes."""
    options = options or RunOptions(trainer.dataset.name, device=str(trainer.device))
    state = {
        "format": FORMAT,
        "dataset": trainer.dataset.name,
        "datapoints": trainer.dataset_size,
        "fingerprint": trainer.fingerprint,
        "train_config": asdict(trainer.config),
        "model_config": trainer.model.config and asdict(trainer.model.config),
        "options": asdict(options),
        "progress": asdict(progress or Progress()),
        **trainer.state_dict(),
    }
    if trainer.team.is_first:
        write_atomically(Path(path), lambda file: torch.save(state, file))


def load_checkpoint(path: str | Path, model: AutoEncoder | None = None) -> Checkpoint:
    """Reads what `save_checkpoint` wrote, into `model` where it is given: a checkpoint holds weights, no modules.

    Raises:
        UserError: the file is missing, damaged, incomplete, holds pickled code, or is of another model.
    """
    path = Path(path)
    state = _read_state(path)
    try:
        loaded = _build(path, state["model_config"]) if model is None else model
        _check_weights(path, state["model"], loaded, "its recorded sizes")
        # A copy, because torch would note in the original that whoever loads it next shall assign, too. A model that
        # was given keeps its parameters, which an optimizer may hold.
        loaded.load_state_dict(dict(state["model"]), assign=model is None)
        return Checkpoint(
            loaded.float() if model is None else loaded,
            TrainConfig(**state["train_config"]),
            str(state["dataset"]),
            _count("samples", state["samples"]),
            RunOptions(**state["options"]),
            _progress(**state["progress"]),
            _count("datapoints", state["datapoints"]),
            str(state["fingerprint"]),
            _trainer_state(path, state),
        )
    except KeyError as error:
        raise _incomplete(path, error) from error
    except (TypeError, ValueError, AttributeError, RuntimeError, ConfigError) as error:
        raise _strange(path, error) from error


def load_trainer_state(path: Path) -> dict[str, Any]:
    """What `Trainer.load_state_dict` takes, whatever model it is of; errors are those of `load_checkpoint`."""
    return _trainer_state(path, _read_state(path))


def _trainer_state(path: Path, state: dict[str, Any]) -> dict[str, Any]:
    for name in TRAINER_STATE:
        if name not in state:
            raise _incomplete(path, KeyError(name))
    return {name: value for name, value in state.items() if name not in DESCRIPTION}


def _incomplete(path: Path, error: KeyError) -> UserError:
    return UserError(f"{path} is incomplete: it has no {error}")


def _build(path: Path, config: Any) -> VAE:
    if config is None:
        raise UserError(f"{path} is of modules of one's own: give load_checkpoint a model of them, to load it into")
    # On the meta device nothing is allocated until the weights are known to fit the sizes.
    with torch.device("meta"):
        return VAE(VAEConfig(**config))


def resume(trainer: Trainer, checkpoint: Checkpoint, path: str | Path) -> None:
    """Has the trainer go on from what was loaded from `path`, to the bits of the trainer that saved it.

    Its config may have more `samples`, which have no say in how a step goes: then the run becomes a longer one.

    Raises:
        UserError: the checkpoint is of another model, config or dataset than the trainer, or does not hold its state.
    """
    path = Path(path)
    _check_weights(path, checkpoint.state["model"], trainer.model, f"the model of {trainer.dataset.name} to resume")
    _check_config(path, checkpoint.config, trainer.config)
    if checkpoint.datapoints != trainer.dataset_size:
        raise UserError(
            f"{path} was trained on {checkpoint.datapoints:,} datapoints, but {trainer.dataset.name} has"
            f" {trainer.dataset_size:,}: resume with the data it was trained on"
        )
    if checkpoint.fingerprint != trainer.fingerprint:
        raise UserError(
            f"{path} was trained on other values than {trainer.dataset.name} holds now: resume with the data it was"
            " trained on"
        )
    try:
        trainer.load_state_dict(checkpoint.state)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise _strange(path, error) from error


def _check_config(path: Path, saved: TrainConfig, wanted: TrainConfig) -> None:
    for name, value in asdict(wanted).items():
        was = getattr(saved, name)
        if value != was and not (name == "samples" and value > was):
            raise UserError(f"{path} was trained with {name} = {was}, but the trainer to resume has {value}")


def _progress(records: int, recorded: dict[str, Any], seconds: float) -> Progress:
    return Progress(records, Tally(**recorded), seconds)


def _strange(path: Path, error: Exception) -> UserError:
    reason = str(error).splitlines()[0]
    return UserError(f"{path} does not hold what this version of vae-ext train writes: {reason}")


def _check_weights(path: Path, weights: Any, model: nn.Module, source: str) -> None:
    if not isinstance(weights, dict):
        raise UserError(f"{path} is incomplete: it has no weights")
    expected = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: list(tensor.shape) for name, tensor in weights.items()}
    for name in expected | found:
        if found.get(name) != expected.get(name):
            raise UserError(
                f"{path} is of another model: its {name} is {found.get(name, 'missing')},"
                f" expected {expected.get(name, 'none')} by {source}"
            )


def _read_state(path: Path) -> dict[str, Any]:
    state = _read_plain_values(path)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(f"{path} is not a checkpoint of this version of vae-ext train: it does not say {FORMAT!r}")
    return state


def _read_plain_values(path: Path) -> Any:
    damaged = f"{path} is damaged or not a checkpoint: restore it from a copy or train again"
    try:
        # torch itself does not verify the archive's checksums.
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise UserError(damaged)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds pickled code, not only tensors and numbers: refused without running it"
        ) from error
    except (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError, ValueError, KeyError) as error:
        raise UserError(damaged) from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder: expected a checkpoint, such as checkpoint.pt in it") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error

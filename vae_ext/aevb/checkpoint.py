"""Checkpoints: plain tensors and numbers, written atomically, read without running any code they hold."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from vae_ext.aevb.models import VAE, AutoEncoder, VAEConfig
from vae_ext.aevb.trainer import Trainer
from vae_ext.errors import UserError
from vae_ext.train_config import ConfigError, TrainConfig

FORMAT = "vae_ext.aevb/1"


@dataclass(frozen=True)
class Checkpoint:
    """A trained model and where it comes from.

    Attributes:
        model: on the CPU.
        config: what it was trained with.
        dataset: the name its dataset was loaded by.
        samples: training samples seen.
    """

    model: AutoEncoder
    config: TrainConfig
    dataset: str
    samples: int


def save_checkpoint(path: Path, trainer: Trainer) -> None:
    """Writes weights, optimizer, generator, sizes and counters; only a whole file replaces `path`."""
    state = {
        "format": FORMAT,
        "dataset": trainer.dataset.name,
        "samples": trainer.samples,
        "train_config": asdict(trainer.config),
        "model_config": trainer.model.config and asdict(trainer.model.config),
        "model": trainer.model.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "generator": trainer.generator.get_state(),
    }
    write_atomically(path, lambda file: torch.save(state, file))


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Calls `write` on a temporary file that takes the place of `path` once it is complete and on the disk.

    Raises:
        UserError: it cannot be written; what `path` held before is untouched.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        # torch.save reports a full disk as a RuntimeError.
        raise UserError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: Path, model: AutoEncoder | None = None) -> Checkpoint:
    """Reads what `save_checkpoint` wrote, into `model` where it is given: a checkpoint holds weights, no modules.

    Raises:
        UserError: the file is missing, damaged, incomplete, holds pickled code, or is of another model.
    """
    state = _read_state(path)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise UserError(f"{path} is not a checkpoint of this version of vae-ext train: it does not say {FORMAT!r}")
    try:
        model = model or _build(path, state["model_config"])
        _check_weights(path, model, state["model"])
        model.load_state_dict(state["model"], assign=True)
        config = TrainConfig(**state["train_config"])
        return Checkpoint(model.float(), config, str(state["dataset"]), int(state["samples"]))
    except KeyError as error:
        raise UserError(f"{path} is incomplete: it has no {error}") from error
    except (TypeError, ValueError, AttributeError, RuntimeError, ConfigError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} does not hold what this version of vae-ext train writes: {reason}") from error


def _build(path: Path, config: Any) -> VAE:
    if config is None:
        raise UserError(f"{path} is of modules of one's own: give load_checkpoint a model of them, to load it into")
    # On the meta device nothing is allocated until the weights are known to fit the sizes.
    with torch.device("meta"):
        return VAE(VAEConfig(**config))


def _check_weights(path: Path, model: AutoEncoder, weights: Any) -> None:
    if not isinstance(weights, dict):
        raise UserError(f"{path} is incomplete: it has no weights")
    expected = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: list(tensor.shape) for name, tensor in weights.items()}
    for name in expected | found:
        if found.get(name) != expected.get(name):
            raise UserError(
                f"{path} is of another model: its {name} is {found.get(name, 'missing')},"
                f" expected {expected.get(name, 'none')} by its recorded sizes"
            )


def _read_state(path: Path) -> Any:
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
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error

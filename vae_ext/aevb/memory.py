"""Whether a run fits into memory, asked before it starts: Linux would rather kill it later than refuse."""

from __future__ import annotations

import gc
from pathlib import Path

import torch

from vae_ext.aevb.models import AutoEncoder
from vae_ext.datasets import Dataset
from vae_ext.errors import UserError
from vae_ext.train_config import TrainConfig

# Tensors of the size of a parameter that is trained: itself, its gradient, and what the optimizer keeps.
COPIES_OF_PARAMETERS = {"adagrad": 3, "adam": 4, "sgd": 2}
FLOAT = 4


def require_memory(
    model: AutoEncoder, dataset: Dataset, config: TrainConfig, device: torch.device, team_size: int
) -> None:
    """Checks that what training certainly allocates is there; `model` may be on the meta device.

    Raises:
        UserError: it is not.
    """
    needed = training_bytes(model, dataset, config, device, team_size)
    available = available_bytes(device)
    if available is not None and needed > available:
        # A trainer and the graph of its steps hold each other: one that nobody has any more may still be there.
        gc.collect()
        available = available_bytes(device)
    if available is not None and needed > available:
        raise UserError(
            f"training would take at least {_gigabytes(needed)} of memory, but {device} has {_gigabytes(available)}"
            " left: take a smaller hidden layer, smaller minibatches or fewer draws"
        )


def training_bytes(
    model: AutoEncoder, dataset: Dataset, config: TrainConfig, device: torch.device, team_size: int
) -> int:
    """A lower bound: the parameters, x, what the networks keep of it for backward, and the data where they move.

    Kept are the hidden units of the encoder and, for each draw, of the decoder, where their number is known, and what
    the decoder makes of z, with its gradient.
    """
    copies = COPIES_OF_PARAMETERS[config.optimizer]
    parameters = sum(one.numel() * (copies if one.requires_grad else 1) for one in model.parameters())
    moved = 0 if device == dataset.train.device else dataset.train.nbytes + dataset.test.nbytes
    rows = config.batch_size // team_size
    hidden = 0 if model.config is None else (1 + config.draws) * model.config.hidden_dim
    decoded = 2 * config.draws * dataset.data_dim
    activations = rows * (hidden + decoded) * (FLOAT // 2 if config.precision == "bf16" else FLOAT)
    x = rows * dataset.data_dim * FLOAT
    return parameters * FLOAT + moved + x + activations


def available_bytes(device: torch.device) -> int | None:
    """What can still be allocated, or None where nobody says."""
    if device.type == "cuda":
        # What torch keeps for its next allocations is not free to the device.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    limits = [limit for limit in (_meminfo_available(), _container_limit()) if limit is not None]
    return min(limits, default=None)


def _meminfo_available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _container_limit() -> int | None:
    """All that a container may use. What it uses now includes caches that would give way."""
    try:
        return int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):  # There is no such file, or it says "max".
        return None


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"

"""Which term of the bound ceased to be finite, and in which datapoints.

Training does not look: it reads the sum of the bounds when it shows them, and a sum says neither. But a run repeats
itself to the bit, so the steps since the last good checkpoint are taken again, each looked at before it is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from vae_ext import ops
from vae_ext.aevb.families import Family
from vae_ext.aevb.models import evaluating
from vae_ext.aevb.trainer import Trainer, datapoint_bounds

NAMED_ROWS = 8


def explain(trainer: Trainer, good_state: dict[str, Any]) -> str:
    """Says what was not finite first between `good_state` and where the trainer stands, and leaves it there."""
    failed_at = trainer.samples
    trainer.load_state_dict(good_state)
    while trainer.samples < failed_at:
        fault = _fault_of_parameters(trainer) or _fault_of_next_minibatch(trainer)
        if fault is not None:
            return fault
        trainer.step()
    fault = _fault_of_parameters(trainer) or _fault_of_held_out_rows(trainer)
    return fault or "which did not happen again from the checkpoint: something outside of training changed it"


def _fault_of_parameters(trainer: Trainer) -> str | None:
    for name, parameter in trainer.model.named_parameters():
        if not parameter.isfinite().all():
            return f"the update before left {name} so, while the bounds it came from were finite"
    return None


@torch.no_grad()
def _fault_of_next_minibatch(trainer: Trainer) -> str | None:
    with _undone(trainer):
        minibatch = trainer.minibatches.draw()
        bad = ~trainer.bound_of(minibatch).isfinite()
        # All of it, as BatchNorm sees it in training.
        faults = _faults(trainer, minibatch.x, minibatch.rows, bad)
    return _sentence(faults, f"training rows, at {trainer.samples:,} samples")


@contextmanager
def _undone(trainer: Trainer) -> Iterator[None]:
    """What is drawn inside is drawn again afterwards, and one's own modules forget what they saw."""
    position = trainer.generator.get_state()
    buffers = [(buffer, buffer.clone()) for buffer in trainer.model.buffers()]
    with torch.random.fork_rng([trainer.device] if trainer.device.type == "cuda" else []):
        yield
    trainer.generator.set_state(position)
    for buffer, before in buffers:
        buffer.copy_(before)


@torch.no_grad()
def _fault_of_held_out_rows(trainer: Trainer) -> str | None:
    bounds = datapoint_bounds(trainer.model, trainer.dataset, trainer.held_out, trainer.config.draws, seed=0)
    rows = (~bounds.isfinite()).nonzero().flatten()
    with evaluating(trainer.model):
        x = trainer.dataset.decode(trainer.held_out[rows])
        faults = _faults(trainer, x, rows, torch.ones_like(rows, dtype=torch.bool))
    return _sentence(faults, "held-out rows")


def _faults(trainer: Trainer, x: Tensor, rows: Tensor, bad: Tensor) -> dict[str, list[int]]:
    """The rows of each term, of datapoints whose bound is `bad`, not finite: where the KL is, it is the likelihood."""
    posterior = trainer.model.encode(x)
    if isinstance(posterior, Family):
        bad_kl = ~(posterior.mean + posterior.variance).isfinite().flatten(1).all(1)
    else:
        bad_kl = ~ops.normal_kl(posterior.mean, **posterior.scale_keyword).isfinite()
    shares = trainer.team.gather((rows[bad & bad_kl].tolist(), rows[bad & ~bad_kl].tolist()))
    return {
        "the KL divergence": sorted({row for kl, _ in shares for row in kl}),
        "the likelihood": sorted({row for _, likelihood in shares for row in likelihood}),
    }


def _sentence(faults: dict[str, list[int]], of: str) -> str | None:
    parts = [f"{term} of {_listed(rows)}" for term, rows in faults.items() if rows]
    return f"{' and '.join(parts)} ({of})" if parts else None


def _listed(rows: list[int]) -> str:
    named = ", ".join(map(str, rows[:NAMED_ROWS]))
    return named if len(rows) <= NAMED_ROWS else f"{named} and {len(rows) - NAMED_ROWS} more"

"""A run's records for TensorBoard, which need not be installed otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vae_ext.errors import UserError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from vae_ext.aevb.run_directory import Record


def require_tensorboard() -> type[SummaryWriter]:
    """What writes its files. Raises UserError where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError("logging to TensorBoard needs its package: pip install tensorboard") from error
    return SummaryWriter


class TensorBoardLog:
    """Writes each record it is called with to event files in `folder`.

    Args:
        folder: made with the first record, after an earlier run was moved aside.
        resumed_samples: where a resumed run goes on: TensorBoard then drops what an earlier part of it wrote later.

    Errors are those of `require_tensorboard`.
    """

    def __init__(self, folder: Path, resumed_samples: int | None = None) -> None:
        self._make_writer = require_tensorboard()
        self._writer: SummaryWriter | None = None
        self._folder = folder
        self._purge_step = None if resumed_samples is None else resumed_samples + 1

    def __call__(self, record: Record) -> None:
        if self._writer is None:
            self._writer = self._make_writer(str(self._folder), purge_step=self._purge_step)
        bounds = {"bound/train": record.train_bound, "bound/held-out": record.test_bound}
        for name, bound in bounds.items():
            self._writer.add_scalar(name, bound, record.samples)
        self._writer.flush()

"""The model that a command works with, and where its results go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vae_ext import interrupts
from vae_ext.errors import UserError
from vae_ext.options import Part, config_of, find_checkpoint, load_dataset_for, resolve_device

if TYPE_CHECKING:
    from torch import Tensor

    from vae_ext.datasets import Dataset


class TrainedModel:
    """The model that a command works with, and where its results go.

    Attributes:
        model: on the device asked for.
        config: of the model.
        train_config: what it was trained with.
        checkpoint: the file that it was loaded from.
        device: where it is.
        name: of the dataset that it was trained on.
        samples: how many it was trained on.
    """

    def __init__(self, run: Path, out: Path | None, device: str) -> None:
        from vae_ext.aevb.checkpoint import load_checkpoint

        interrupts.raise_keyboard_interrupt()
        self.checkpoint = find_checkpoint(run)
        self.device = resolve_device(device)
        self._loaded = load_checkpoint(self.checkpoint)
        self._out = out if out is not None else self.checkpoint.parent
        self.model = self._loaded.model.to(self.device)
        self.config = config_of(self._loaded)
        self.train_config = self._loaded.config
        self.name = self._loaded.dataset
        self.samples = self._loaded.samples

    def load_dataset(self, name: str | None, data_dir: Path | None) -> Dataset:
        """The dataset of that name, or the one it was trained on."""
        return load_dataset_for(self.checkpoint, self._loaded, name, data_dir).to(self.device)

    def rows(self, data: Dataset, part: Part) -> Tensor:
        """The datapoints of that part as they are stored, binarised where the model was trained on such."""
        from vae_ext.aevb.minibatches import binarised

        rows: Tensor = getattr(data, part)
        return binarised(data, rows) if self.train_config.binarise else rows

    def shaped(self, rows: Tensor) -> Tensor:
        """`[*S, D]` to `[*S, *event_shape]`."""
        return rows.reshape(*rows.shape[:-1], *self.config.event_shape)

    def save(self, stem: str, arrays: dict[str, Tensor], draw: Callable[[Path], None], *, always: bool = False) -> str:
        """Writes `stem`.npz, and `stem`.png where datapoints are pictures, or `always`; says what it wrote."""
        from vae_ext.pictures import PICTURE_SHAPES, drawable

        target = self.save_arrays(stem, arrays)
        if not (always or drawable(self.config.event_shape)):
            shape = list(self.config.event_shape)
            return f"Written to {target}, without a picture: a datapoint has shape {shape}, expected {PICTURE_SHAPES}"
        draw(target.with_suffix(".png"))
        return f"Written to {target} and {stem}.png"

    def save_arrays(self, stem: str, arrays: dict[str, Tensor], *, gaps: Tensor | None = None) -> Path:
        """Writes `stem`.npz. Raises UserError where a value is not finite, but for those of the rows `gaps`, a mask."""
        import numpy as np

        from vae_ext.files import write_atomically

        for name, array in arrays.items():
            known = array if gaps is None else array[~gaps]
            if not known.isfinite().all():
                raise UserError(f"{self.checkpoint} gives a {name} that is not finite: its weights are unusable")
        self._out.mkdir(parents=True, exist_ok=True)
        target = self._out / f"{stem}.npz"
        on_host: dict[str, Any] = {name: array.cpu().numpy() for name, array in arrays.items()}
        write_atomically(target, lambda file: np.savez(file, **on_host))
        return target

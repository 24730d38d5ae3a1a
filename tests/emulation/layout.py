"""How `csrc/ops` lays out the arguments of one operator for the kernels: rows, broadcasting, noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tests.emulation.device import Noise
from vae_ext.arguments import Standard, wide_dtype


@dataclass(frozen=True)
class Draw:
    """What a sampler is told about its noise."""

    rng_state: Tensor
    first_row: int
    stream: int
    standard: Standard = "normal"


@dataclass(frozen=True)
class Layout:
    """The rows `[samples, *batch]` of an operator, and its event."""

    dtype: torch.dtype
    batch: tuple[int, ...]
    event_shape: tuple[int, ...]
    num_samples: int | None = None

    @staticmethod
    def of(event_ndim: int, first: Tensor, *others: Tensor | None, num_samples: int | None = None) -> Layout:
        """The layout of arguments that broadcast to each other; the first has the event and the dtype."""
        tensors = [first, *(other for other in others if other is not None)]
        batches = [t.shape[: t.dim() - event_ndim] for t in tensors if t.dim() >= event_ndim]
        event_shape = tuple(first.shape[first.dim() - event_ndim :])
        return Layout(first.dtype, tuple(torch.broadcast_shapes(*batches)), event_shape, num_samples)

    @property
    def rows(self) -> tuple[int, ...]:
        return self.batch if self.num_samples is None else (self.num_samples, *self.batch)

    @property
    def event(self) -> int:
        return math.prod(self.event_shape)

    @property
    def compute_dtype(self) -> torch.dtype:
        return wide_dtype(torch.empty((), dtype=self.dtype))

    def without_samples(self) -> Layout:
        return Layout(self.dtype, self.batch, self.event_shape)

    def view(self, tensor: Tensor) -> Tensor:
        """An argument as `[*rows, event]`, copied only where its event is not dense."""
        if tensor.dtype == torch.bool:
            tensor = tensor.view(torch.uint8)
        if self.stands_for_event(tensor):
            return tensor.expand((*self.rows, self.event))
        batch = tensor.shape[: tensor.dim() - len(self.event_shape)]
        flat = tensor.reshape((*batch, self.event))
        dense = flat if flat.stride(-1) in (0, 1) else flat.contiguous()
        return dense.expand((*self.rows, self.event))

    def stands_for_event(self, tensor: Tensor) -> bool:
        """Is it a number for the whole event of every row?"""
        return tensor.dim() == 0 and len(self.event_shape) > 0

    def broadcast_dims(self, tensor: Tensor) -> tuple[int, ...]:
        """The dims of the rows over which an argument is broadcast."""
        rows = self.rows
        own = () if self.stands_for_event(tensor) else tensor.shape[: tensor.dim() - len(self.event_shape)]
        padded = (1,) * (len(rows) - len(own)) + tuple(own)
        return tuple(d for d, size in enumerate(rows) if size != 1 and padded[d] == 1)

    def noise(self, draw: Draw, order: Sequence[int]) -> Noise:
        """The noise of rows whose dims stand in this order."""
        row_stride = [math.prod(self.batch[d + 1 :]) for d in range(len(self.batch))]
        sample_stride = [0] * len(row_stride)
        if self.num_samples is not None:
            row_stride, sample_stride = [0, *row_stride], [1, *sample_stride]
        return Noise(
            draw.rng_state,
            draw.first_row,
            draw.stream,
            draw.standard,
            [row_stride[d] for d in order],
            [sample_stride[d] for d in order],
        )

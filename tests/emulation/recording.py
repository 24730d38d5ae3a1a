"""Launches as a file that `replay.cpp` reads: each kernel's `Problem`, and the memory that its pointers lead to."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from torch import Tensor

from tests.emulation.device import Launch, Operand, Problem, observed


@contextmanager
def recording(path: Path) -> Iterator[None]:
    """Within it, every launch is written to the file."""
    with path.open("wb") as file, observed(lambda launch: _write_launch(file, launch)):
        yield


def _write_launch(file: BinaryIO, launch: Launch) -> None:
    """The kernel's name, the bytes of its `Problem`, and its buffers.

    A buffer is the place of its pointer in `Problem`, its address modulo 16, whether the kernel writes it, and the
    bytes that it reads or is to write.
    """
    _write_bytes(file, launch.kernel.encode())
    _write_bytes(file, bytes(launch.problem()))
    buffers = list(_buffers(launch))
    _write_numbers(file, len(buffers))
    for pointer, is_output, tensor in buffers:
        _write_numbers(file, pointer, tensor.data_ptr() % 16, is_output)
        _write_bytes(file, ctypes.string_at(tensor.data_ptr(), _extent(tensor)))


def _buffers(launch: Launch) -> Iterator[tuple[int, bool, Tensor]]:
    inputs: int = Problem.inputs.offset
    outputs: int = Problem.outputs.offset
    for i, view in enumerate(launch.inputs):
        if view is not None:
            yield inputs + i * ctypes.sizeof(Operand), False, view
    if launch.row_value is not None:
        yield Problem.row_value.offset, False, launch.row_value
    if launch.noise is not None:
        yield Problem.noise.offset, False, launch.noise.state
    for o, output in enumerate(launch.outputs):
        if output is not None:
            yield outputs + o * ctypes.sizeof(Operand), True, output.memory


def _extent(tensor: Tensor) -> int:
    """Bytes from a tensor's first element to the end of its last."""
    if tensor.numel() == 0:
        return 0
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.dtype.itemsize


def _write_bytes(file: BinaryIO, data: bytes) -> None:
    _write_numbers(file, len(data))
    file.write(data)


def _write_numbers(file: BinaryIO, *numbers: int) -> None:
    file.write(struct.pack(f"<{len(numbers)}q", *numbers))

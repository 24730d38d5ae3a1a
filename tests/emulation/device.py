"""Launches the CUDA kernels on the emulated device, with tensors as their memory.

A `Launch` says what `csrc/ops` would put into a `Problem` (`csrc/rows.h`); `run` does it and checks that every
element of every output was written.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from tests.emulation.build import build
from vae_ext.arguments import STANDARDS, ScaleKind, Standard

_MAX_DIMS, _MAX_INPUTS, _MAX_OUTPUTS = 8, 5, 4
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.uint8)
_KINDS: tuple[ScaleKind, ...] = ("log_var", "log_std", "std", "var")
# kUnwrittenOutput of poison.h.
_UNWRITTEN = 0x7FFF

_Strides = ctypes.c_int64 * _MAX_DIMS


class Operand(ctypes.Structure):
    """`Operand` of `csrc/rows.h`; its pointer comes first."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("dtype", ctypes.c_int8),
        ("scalar", ctypes.c_bool),
        ("wanted", ctypes.c_bool),
        ("stride", _Strides),
    ]


class _Rows(ctypes.Structure):
    _fields_ = [
        ("dims", ctypes.c_int),
        ("reduced_dims", ctypes.c_int),
        ("size", _Strides),
        ("event", ctypes.c_int64),
    ]


class NoiseOperand(ctypes.Structure):
    """`Noise` of `csrc/rows.h`; its pointer comes first."""

    _fields_ = [
        ("state", ctypes.c_void_p),
        ("state_stride", ctypes.c_int64),
        ("stream", ctypes.c_uint64),
        ("first_row", ctypes.c_uint32),
        ("standard", ctypes.c_int),
        ("row_stride", _Strides),
        ("sample_stride", _Strides),
    ]


class Problem(ctypes.Structure):
    """`Problem` of `csrc/rows.h`, field by field."""

    _fields_ = [
        ("rows", _Rows),
        ("inputs", Operand * _MAX_INPUTS),
        ("row_value", Operand),
        ("outputs", Operand * _MAX_OUTPUTS),
        ("noise", NoiseOperand),
        ("kind", ctypes.c_int),
        ("prior_scale", ctypes.c_bool),
        ("past_cache", ctypes.c_bool),
        ("wide", ctypes.c_bool),
        ("factor", ctypes.c_double),
        ("constant", ctypes.c_double),
    ]


@dataclass(frozen=True)
class Output:
    """Where a kernel writes: `view`, by its strides, is what it takes for the output, `memory` all that it fills.

    Into a workspace the kernel writes `spans` numbers for each that the view has.
    """

    view: Tensor
    memory: Tensor
    spans: int = 1


@dataclass(frozen=True)
class Noise:
    """The rng_state, and what one step along each dim of the rows adds to the row and to the sample."""

    state: Tensor
    first_row: int
    stream: int
    standard: Standard
    row_stride: Sequence[int]
    sample_stride: Sequence[int]


@dataclass(frozen=True)
class Launch:
    """One launch of one kernel. Views are `[*rows, event]`, those of sums and row values `[*rows]`.

    Strides are zero where something is broadcast: over the event where one value stands for all of it.
    """

    kernel: str
    rows: Sequence[int]
    event: int
    inputs: Sequence[Tensor | None]
    outputs: Sequence[Output | None]
    reduced_dims: int = 0
    row_value: Tensor | None = None
    noise: Noise | None = None
    kind: ScaleKind = "log_var"
    prior_scale: bool = False
    wide: bool = False
    factor: float = 1.0
    constant: float = 0.0

    def problem(self) -> Problem:
        """What the kernel is given."""
        problem = Problem(
            kind=_KINDS.index(self.kind),
            prior_scale=self.prior_scale,
            wide=self.wide,
            factor=self.factor,
            constant=self.constant,
        )
        problem.rows = _Rows(len(self.rows), self.reduced_dims, _Strides(*self.rows), self.event)
        for i, view in enumerate(self.inputs):
            problem.inputs[i] = self._operand(view)
        if self.row_value is not None:
            problem.row_value = self._operand(self.row_value)
        for o, output in enumerate(self.outputs):
            if output is not None:
                operand = self._operand(output.view)
                operand.stride[:] = [stride // output.spans for stride in operand.stride]
                operand.wanted = True
                problem.outputs[o] = operand
        if self.noise is not None:
            problem.noise = NoiseOperand(
                self.noise.state.data_ptr(),
                self.noise.state.stride(0),
                self.noise.stream,
                self.noise.first_row,
                STANDARDS.index(self.noise.standard),
                _Strides(*self.noise.row_stride),
                _Strides(*self.noise.sample_stride),
            )
        return problem

    def _operand(self, view: Tensor | None) -> Operand:
        if view is None:
            return Operand(scalar=True)
        assert tuple(view.shape) in ((*self.rows, self.event), tuple(self.rows)), f"{tuple(view.shape)} in {self}"
        has_event = view.dim() > len(self.rows)
        assert not has_event or view.stride(-1) in (0, 1) or self.event <= 1, f"strides {view.stride()}"
        scalar = has_event and view.stride(-1) == 0 and self.event > 1
        strides = view.stride()[: len(self.rows)]
        return Operand(view.data_ptr(), _DTYPES.index(view.dtype), scalar, False, _Strides(*strides))


# As many as they ask for, to begin with.
_max_blocks = [2**32 - 1]
_observers: list[Callable[[Launch], None]] = []


@contextmanager
def observed(observer: Callable[[Launch], None]) -> Iterator[None]:
    """Within it the observer sees every launch, after it is done."""
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.remove(observer)


@contextmanager
def at_most_blocks(count: int) -> Iterator[None]:
    """Within it kernels that go round their work do so with this many blocks."""
    _max_blocks.append(count)
    try:
        yield
    finally:
        _max_blocks.pop()


def run(launch: Launch) -> None:
    """Runs the kernel; AssertionError where it does something undefined or leaves an output unwritten."""
    message = _library().launch(launch.kernel.encode(), ctypes.byref(launch.problem()), _max_blocks[-1])
    assert message is None, message.decode()
    for observer in _observers:
        observer(launch)
    for o, output in enumerate(launch.outputs):
        if output is None:
            continue
        unwritten = _bits(output.memory) == _bits(poisoned((), output.memory.dtype))
        assert not unwritten.any(), f"{launch.kernel} left {int(unwritten.sum())} elements of output {o} unwritten"


def poisoned(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Memory for an output, with the same NaN in every element."""
    words = torch.full((math.prod(shape) * dtype.itemsize // 2,), _UNWRITTEN, dtype=torch.int16)
    return words.view(dtype).view(tuple(shape))


def span() -> int:
    """Elements of a row that one block sums."""
    return int(_library().span())


def replica_chunk() -> int:
    """Replicas that one thread sums."""
    return int(_library().replica_chunk())


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.dtype.itemsize])


@functools.cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(build() / "libvae_ext_emulation.so"))
    library.launch.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_uint]
    library.launch.restype = ctypes.c_char_p
    for constant in (library.span, library.replica_chunk, library.problem_layout):
        constant.restype = ctypes.c_int64
    numbers = ctypes.POINTER(ctypes.c_int64)()
    count = library.problem_layout(ctypes.byref(numbers))
    assert numbers[:count] == _problem_layout(), "Problem is not that of csrc/rows.h"
    return library


def _problem_layout() -> list[int]:
    """Of each struct its size and where its fields are, as `library.cpp` has it."""
    layout = []
    for struct in (Operand, _Rows, NoiseOperand, Problem):
        layout.append(ctypes.sizeof(struct))
        layout += [getattr(struct, name).offset for name, *_ in struct._fields_]
    return layout

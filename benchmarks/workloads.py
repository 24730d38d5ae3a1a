"""What the operators are measured on: operator, pass, shape, samples and dtype, and the grid of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from benchmarks.results import operator_name
from tests.cases import LOCATION_SCALE, NOISY, Case, Result, Shape, as_tuple, case_of, roles_of
from vae_ext import reference

Pass: TypeAlias = Literal["fwd", "fwd+bwd"]
Operator: TypeAlias = Callable[..., Result]

PASSES: tuple[Pass, ...] = ("fwd", "fwd+bwd")
DTYPES = ("float32", "bfloat16")
LIKELIHOODS = ("bernoulli_log_prob", "normal_log_prob")
LATENTS = ("normal_kl", *NOISY)
OPERATORS = (*LIKELIHOODS, *LATENTS)

# From a minibatch of the paper's to what is far beyond any cache.
_PIXELS = ((100, 784), (1024, 784), (8192, 784), (4096, 12288))
_LATENTS = ((100, 20), (1024, 32), (8192, 64), (65536, 128))
# A CUDA device has caches of tens of megabytes, and memory that takes as much to be busy.
_CUDA_LARGE = (131072, 784)
_SAMPLES = (1, 8, 50)

# What a training step minimises, by the shape of its data: the operators it is made of, and the dimension of z.
LOSS = "loss"
MADE_OF_LOSS = ("normal_rsample_kl", "bernoulli_log_prob")
_LATENT_DIM = 20

# What the greediest contestant keeps and computes beside its inputs, in float32, and half as much again: eager's peak
# is eight tensors.
_TENSORS_ALIVE = 12
_BYTES_OF_A_TEMPORARY = 4
# A pass reads its inputs twice and writes their gradients, and as often what has samples.
_TIMES_MOVED = 3

# No cache holds one set of inputs from here on, so that others would only cost memory.
_BEYOND_ANY_CACHE = 256 * 2**20

# Elements that are drawn for an argument. A larger one repeats its rows: to draw all would take longer than to measure.
_ELEMENTS_DRAWN = 2**22

# Up to so many a single thread does all of an operator (csrc/ops/launch.cpp).
_ELEMENTS_OF_ONE_CORE = 8192

# A gradient that is the same for every value of an argument does not read it.
_UNREAD_IN_BACKWARD = {"normal_rsample": ("mean",), LOCATION_SCALE: ("loc",)}


def operator_of(module: ModuleType, name: str) -> Operator:
    """The operator of `vae_ext`, or of its reference. The loss comes with z, where the decoder's gradient comes in."""
    if name != LOSS:
        operator: Operator = getattr(module, name)
        return operator

    def loss(mean: Tensor, log_var: Tensor, logits: Tensor, x: Tensor) -> Result:
        z, kl = module.normal_rsample_kl(mean, log_var)
        return z, kl - module.bernoulli_log_prob(logits, x)

    return loss


@dataclass(frozen=True)
class Workload:
    """One operator on B datapoints of E elements, L samples of each, forward alone or forward and backward."""

    operator: str
    shape: tuple[int, int]
    direction: Pass
    dtype: str = "float32"
    samples: int = 1

    @property
    def name(self) -> str:
        return operator_name(self.row)

    @property
    def row(self) -> dict[str, Any]:
        """What a row of results.json says of it."""
        return {
            "operator": self.operator,
            "pass": self.direction,
            "shape": list(self.shape),
            "samples": self.samples,
            "dtype": self.dtype,
        }

    @property
    def elements(self) -> int:
        """How many elements there are of what has samples."""
        return self.samples * math.prod(self.shape)

    @property
    def made_of(self) -> tuple[str, ...]:
        """The operators that have to be right for it."""
        return MADE_OF_LOSS if self.operator == LOSS else (self.operator,)

    def case(self) -> Case:
        """How the registry of the tests would say it. The data of a likelihood are the same for every sample."""
        if self.operator == LOSS:
            latent = (self.shape[0], min(_LATENT_DIM, self.shape[1]))
            return Case(LOSS, {"mean": latent, "scale": latent, "logits": self.shape, "x": self.shape})
        if self.operator in NOISY:
            return case_of(self.operator, self.shape, num_samples=self.samples if self.samples > 1 else None)
        sampled: Shape = (self.samples, *self.shape) if self.samples > 1 else self.shape
        return Case(self.operator, {role: self.shape if role == "x" else sampled for role in roles_of(self.operator)})

    def call_alone(self) -> Workload:
        """The same call with next to nothing to compute."""
        return replace(self, shape=(1, 1))

    def on_one_core(self) -> Workload:
        """As many of the rows as one thread does alone, within its core's own caches."""
        event = self.shape[1]
        return replace(self, shape=(min(self.shape[0], max(1, _ELEMENTS_OF_ONE_CORE // event)), event))

    def memory_needed(self, sets: int) -> int:
        """About how much memory it takes to measure this on so many sets of inputs, in bytes.

        The sets, what a contestant allocates, and what memory itself is timed on: as many blocks, and one to write to.
        """
        dtype: torch.dtype = getattr(torch, self.dtype)
        inputs = dtype.itemsize * sum(math.prod(shape) for shape in self.case().shapes.values() if shape is not None)
        sets = min(sets, 1 + _BEYOND_ANY_CACHE // inputs)
        moved = _TIMES_MOVED * (inputs + dtype.itemsize * self.elements)
        temporaries = _TENSORS_ALIVE * _BYTES_OF_A_TEMPORARY * self.elements
        return sets * inputs + temporaries + (sets + 1) * moved // 2


@dataclass(frozen=True)
class Sizes:
    """The least that a pass can do, in bytes."""

    moved: int  # read (fwd on the CPU, whose outputs may stay in a cache), or read and written
    new: int  # outputs, and gradients that are not simply those of an output


class Inputs:
    """What the contestants of one workload are called with: sets of inputs, one after the other."""

    def __init__(self, workload: Workload, device: str, sets: int) -> None:
        self.workload = workload
        self._device = device
        case = workload.case()
        drawn = replace(workload, shape=(_rows_drawn(workload), workload.shape[1])).case()
        dtype: torch.dtype = getattr(torch, workload.dtype)
        # The rest of what a case makes is the state of the noise: here each contestant draws its own.
        names = [case.argument(role) for role in case.shapes]
        self.options: dict[str, Any] = {} if case.num_samples is None else {"num_samples": case.num_samples}
        if workload.operator == LOCATION_SCALE:
            self.options["standard"] = case.standard
        self.sets: list[dict[str, Tensor]] = []
        while not self.sets or (len(self.sets) < sets and _nbytes(self.sets[0].values()) < _BEYOND_ANY_CACHE):
            made = drawn.make(dtype=dtype, device=device, seed=len(self.sets))
            self.sets.append({name: _with_rows(made[name], workload.shape[0]) for name in names})
        self.grads: tuple[Tensor, ...] = ()
        if workload.direction == "fwd+bwd":
            outputs = as_tuple(operator_of(reference, workload.operator)(**self.sets[0], **self.options))
            self.grads = tuple(torch.randn_like(output) for output in outputs)
            for argument in self.differentiable(self.sets[0]):
                for arguments in self.sets:
                    arguments[argument].requires_grad_()

    def differentiable(self, arguments: dict[str, Tensor]) -> list[str]:
        """The names of all but the data."""
        return [name for name in arguments if name != "x"]

    def call(self, operator: Operator) -> Callable[[], tuple[Tensor, ...]]:
        """A call of `operator`, on the next set each time: its outputs, or the gradients of all but the data x."""
        sets, options, grads = itertools.cycle(self.sets), self.options, self.grads
        if not grads:
            return lambda: as_tuple(operator(**next(sets), **options))
        wanted = self.differentiable(self.sets[0])

        def forward_and_backward() -> tuple[Tensor, ...]:
            arguments = next(sets)
            outputs = as_tuple(operator(**arguments, **options))
            return torch.autograd.grad(outputs, [arguments[name] for name in wanted], grads)

        return forward_and_backward

    def sizes(self, operator: Operator) -> Sizes:
        """What `operator` has to move through memory, and to allocate."""
        arguments = self.sets[0]
        read = _nbytes(arguments.values())
        outputs = as_tuple(operator(**arguments, **self.options))
        written = _nbytes(outputs)
        if not self.grads:
            return Sizes(moved=read if self._device == "cpu" else read + written, new=written)
        given = {grad.data_ptr() for grad in self.grads}
        wanted = [arguments[name] for name in self.differentiable(arguments)]
        gradients = torch.autograd.grad(outputs, wanted, self.grads)
        new_gradients = _nbytes(gradient for gradient in gradients if gradient.data_ptr() not in given)
        unread = _nbytes(arguments[name] for name in _UNREAD_IN_BACKWARD.get(self.workload.operator, ()))
        forward, backward = read + written, read - unread + _nbytes(self.grads) + new_gradients
        return Sizes(moved=forward + backward, new=written + new_gradients)


def suite(device: str, quick: bool, dtypes: Sequence[str]) -> list[Workload]:
    """The grid, in the order of the report."""
    grid = _quick_grid(device) if quick else _grid(device)
    return [workload for workload in grid if workload.dtype in dtypes]


def by_importance(workloads: Iterable[Workload]) -> list[Workload]:
    """What to do first where time may run out: one sample, float32; of several samples, the small workloads."""

    def importance(workload: Workload) -> tuple[bool, bool, int]:
        several = workload.samples > 1
        return several, workload.dtype != "float32", workload.elements if several else 0

    return sorted(workloads, key=importance)


def shapes_of(operator: str, device: str) -> tuple[tuple[int, int], ...]:
    """The shapes of an operator in the grid, small ones first."""
    shapes = _LATENTS if operator in LATENTS else _PIXELS
    return (*shapes, _CUDA_LARGE) if device == "cuda" else shapes


def _grid(device: str) -> Iterator[Workload]:
    """Every operator in every way; a KL knows of no samples."""
    for operator, direction, dtype, samples in itertools.product(OPERATORS, PASSES, DTYPES, _SAMPLES):
        if operator == "normal_kl" and samples > 1:
            continue
        for shape in shapes_of(operator, device):
            yield Workload(operator, shape, direction, dtype, samples)
    for shape, dtype in itertools.product(_PIXELS[:3], DTYPES):
        yield Workload(LOSS, shape, "fwd+bwd", dtype)


def _quick_grid(device: str) -> Iterator[Workload]:
    """A middling shape of each operator, and a little of everything else; on a CUDA device the extremes of each."""
    if device == "cuda":
        for operator, direction in itertools.product(OPERATORS, PASSES):
            yield Workload(operator, _CUDA_LARGE, direction)
        for operator in ("bernoulli_log_prob", "normal_rsample_kl"):
            yield Workload(operator, _CUDA_LARGE, "fwd+bwd", "bfloat16")
        for operator in (*OPERATORS, LOSS):
            yield Workload(operator, shapes_of(operator, device)[0], "fwd+bwd")
        return
    for operator in OPERATORS:
        yield Workload(operator, shapes_of(operator, device)[1], "fwd+bwd")
    for operator in ("bernoulli_log_prob", "normal_rsample_kl"):
        yield Workload(operator, shapes_of(operator, device)[2], "fwd+bwd")
        yield Workload(operator, shapes_of(operator, device)[1], "fwd", "bfloat16")
    yield Workload("normal_rsample_kl", (100, 20), "fwd+bwd", samples=8)
    yield Workload(LOSS, (100, 784), "fwd+bwd")


def _rows_drawn(workload: Workload) -> int:
    rows, event = workload.shape
    return min(rows, max(1, _ELEMENTS_DRAWN // (event * workload.samples)))


def _with_rows(tensor: Tensor, rows: int) -> Tensor:
    """`[..., drawn, E]` with its rows again and again, so many."""
    drawn = tensor.shape[-2]
    return tensor if drawn == rows else tensor.index_select(-2, torch.arange(rows, device=tensor.device) % drawn)


def _nbytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)

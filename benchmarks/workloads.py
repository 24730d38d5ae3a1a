"""What is measured: the operators, shapes and passes of the suite, and how fast ours has to be there."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from tests.cases import SAMPLERS, Case, Result, as_tuple, cotangents
from vae_ext import reference

Pass: TypeAlias = Literal["fwd", "fwd+bwd"]
Operator: TypeAlias = Callable[..., Result]

# Enough for the inputs, and for what the greediest contestant keeps and computes, at the largest shape.
_TENSORS_ALIVE = 20

# Up to so many a single thread does all of an operator (csrc/ops/launch.cpp).
_ELEMENTS_OF_ONE_CORE = 8192

# A gradient that is the same for every value of an argument does not read it.
_UNREAD_IN_BACKWARD = {"normal_rsample": ("mean",)}


# What a training step minimises, and the operators that it is made of; its shape is that of the data.
_PARTS = {"loss": ("normal_rsample_kl", "bernoulli_log_prob")}
_LATENT_DIM = 20


def operator_of(module: ModuleType, name: str) -> Operator:
    """The operator of `vae_ext` or of its reference; the loss comes with z, through which the decoder's gradient is."""
    if name not in _PARTS:
        operator: Operator = getattr(module, name)
        return operator

    def loss(mean: Tensor, log_var: Tensor, logits: Tensor, x: Tensor) -> Result:
        z, kl = module.normal_rsample_kl(mean, log_var)
        return z, kl - module.bernoulli_log_prob(logits, x)

    return loss


def parts_of(name: str) -> tuple[str, ...]:
    """The operators that have to be right for it."""
    return _PARTS.get(name, (name,))


@dataclass(frozen=True)
class Workload:
    """One operator at one shape, forward alone or forward and backward."""

    operator: str
    shape: tuple[int, int]
    direction: Pass

    @property
    def name(self) -> str:
        return f"{self.operator} {self.direction} {self.shape}"

    def case(self) -> Case:
        """How the registry of the tests would say it."""
        roles = {"bernoulli_log_prob": ("logits", "x"), "normal_log_prob": ("mean", "scale", "x")}
        if self.operator == "loss":
            latent = (self.shape[0], min(_LATENT_DIM, self.shape[1]))
            return Case("loss", {"mean": latent, "scale": latent, "logits": self.shape, "x": self.shape})
        return Case(self.operator, dict.fromkeys(roles.get(self.operator, ("mean", "scale")), self.shape))

    @property
    def elements(self) -> int:
        """How many elements of each argument there are."""
        return self.shape[0] * self.shape[1]

    def call_alone(self) -> Workload:
        """The same call with next to nothing to compute."""
        return replace(self, shape=(1, 1))

    def on_one_core(self) -> Workload:
        """As many of the rows as one thread does alone, within its core's own caches."""
        event = self.shape[1]
        return replace(self, shape=(min(self.shape[0], max(1, _ELEMENTS_OF_ONE_CORE // event)), event))

    def memory_needed(self, dtype: torch.dtype) -> int:
        """About how much memory it takes to measure this, in bytes."""
        return _TENSORS_ALIVE * self.elements * dtype.itemsize


@dataclass(frozen=True)
class Sizes:
    """The least that a pass can do, in bytes."""

    moved: int  # read (fwd), or read and written (fwd+bwd)
    new: int  # outputs, and gradients that are not simply those of an output


class Inputs:
    """What the contestants of one workload are called with."""

    def __init__(self, workload: Workload, dtype: torch.dtype, device: str) -> None:
        case = workload.case()
        made = case.make(dtype=dtype, device=device)
        # The rest of what a case makes is the state of the noise: here each contestant draws its own.
        self.arguments: dict[str, Tensor] = {name: made[name] for name in map(case.argument, case.shapes)}
        self.unread_in_backward = _UNREAD_IN_BACKWARD.get(workload.operator, ())
        self.wanted: list[Tensor] = []
        self.grads: tuple[Tensor, ...] = ()
        if workload.direction == "fwd+bwd":
            self.grads = cotangents(as_tuple(operator_of(reference, workload.operator)(**self.arguments)))
            self.wanted = [self.arguments[name].requires_grad_() for name in self.arguments if name != "x"]

    def call(self, operator: Operator) -> Callable[[], tuple[Tensor, ...]]:
        """A call of `operator` that returns its outputs, or the gradients of all but the data x."""
        if not self.wanted:
            return lambda: as_tuple(operator(**self.arguments))
        return lambda: torch.autograd.grad(as_tuple(operator(**self.arguments)), self.wanted, self.grads)

    def sizes(self, operator: Operator) -> Sizes:
        """What `operator` has to move through memory, and to allocate."""
        read = _nbytes(self.arguments.values())
        outputs = as_tuple(operator(**self.arguments))
        written = _nbytes(outputs)
        if not self.wanted:
            return Sizes(moved=read, new=written)
        given = {grad.data_ptr() for grad in self.grads}
        gradients = torch.autograd.grad(outputs, self.wanted, self.grads)
        new_gradients = _nbytes(gradient for gradient in gradients if gradient.data_ptr() not in given)
        unread = _nbytes(self.arguments[name] for name in self.unread_in_backward)
        forward, backward = read + written, read - unread + _nbytes(self.grads) + new_gradients
        return Sizes(moved=forward + backward, new=written + new_gradients)


@dataclass(frozen=True)
class Target:
    """How many times faster than a peer ours has to be, and which share of the bandwidth it has to reach."""

    eager: float = 1.0
    compile: float = 1.0
    bandwidth: float = 0.0


# On a CUDA device, in float32, where memory is what bounds a call.
_CUDA_TARGETS = {"normal_rsample": Target(3, bandwidth=0.75), "loss": Target(5)}
_CUDA_TARGET = Target(3, bandwidth=0.85)

# On two AVX-512 cores, in float32, with the allocator pinned. Elsewhere: not slower than either peer.
_TARGETS = {
    Workload("bernoulli_log_prob", (1024, 784), "fwd"): Target(9, 8),
    Workload("bernoulli_log_prob", (8192, 784), "fwd"): Target(11, 5),
    Workload("bernoulli_log_prob", (4096, 12288), "fwd"): Target(8, 4, bandwidth=0.85),
    Workload("bernoulli_log_prob", (1024, 784), "fwd+bwd"): Target(7.5, 6),
    Workload("bernoulli_log_prob", (8192, 784), "fwd+bwd"): Target(7, 4.5),
    Workload("normal_log_prob", (1024, 784), "fwd+bwd"): Target(8, 4),
    Workload("normal_log_prob", (8192, 784), "fwd+bwd"): Target(4, 1.2),
    Workload("normal_rsample", (1024, 32), "fwd"): Target(11, 45),
    Workload("normal_rsample", (8192, 64), "fwd"): Target(10, 40),
    Workload("normal_rsample_kl", (100, 20), "fwd+bwd"): Target(4, 5.5),
    Workload("normal_rsample_kl", (8192, 64), "fwd+bwd"): Target(6.5, 16),
    Workload("normal_kl", (8192, 64), "fwd+bwd"): Target(4, 1.6),
}


def target(workload: Workload, dtype: torch.dtype, device: str) -> Target:
    """What ours has to reach."""
    if device == "cuda":
        return _CUDA_TARGETS.get(workload.operator, _CUDA_TARGET) if dtype == torch.float32 else Target()
    return _TARGETS.get(workload, Target()) if dtype == torch.float32 else Target()


def _suite() -> Iterator[Workload]:
    likelihoods = ("bernoulli_log_prob", "normal_log_prob")
    latents = ("normal_kl", "normal_rsample", "normal_rsample_kl", "normal_rsample_log_ratio")
    directions: tuple[Pass, ...] = ("fwd", "fwd+bwd")
    for operator, direction in itertools.product(likelihoods, directions):
        for shape in ((100, 784), (1024, 784), (8192, 784), (4096, 12288)):
            yield Workload(operator, shape, direction)
    for operator, direction in itertools.product(latents, directions):
        for shape in ((100, 20), (1024, 32), (8192, 64)):
            yield Workload(operator, shape, direction)


def _cuda_suite() -> Iterator[Workload]:
    """A small minibatch, which is all launches, and hundreds of megabytes."""
    operators = ("bernoulli_log_prob", "normal_log_prob", "normal_kl", *SAMPLERS)
    directions: tuple[Pass, ...] = ("fwd", "fwd+bwd")
    for operator, direction in itertools.product(operators, directions):
        small = 784 if operator.endswith("log_prob") else 20
        for shape in ((100, small), (131072, 784)):
            yield Workload(operator, shape, direction)
    for shape in ((1024, 784), (8192, 12288)):
        yield Workload("bernoulli_log_prob", shape, "fwd+bwd")
    for shape in ((100, 784), (8192, 784)):
        yield Workload("loss", shape, "fwd+bwd")


SUITES = {"cpu": tuple(_suite()), "cuda": tuple(_cuda_suite())}


def _nbytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)

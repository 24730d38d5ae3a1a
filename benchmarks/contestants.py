"""Who is measured: ours, and the peers that the same inputs are given to."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial

import torch

import vae_ext
from benchmarks import jax_peer
from benchmarks.results import OURS, PEERS
from benchmarks.timing import Call
from benchmarks.workloads import Inputs, Operator, operator_of
from vae_ext import reference

# At their first call.
COMPILED = PEERS[1:]


def contestants(inputs: Inputs, device: str) -> dict[str, Call]:
    """A call of each, not yet warmed up."""
    name = inputs.workload.operator
    eager = operator_of(reference, name)
    calls: dict[str, Call] = {
        OURS: inputs.call(operator_of(vae_ext, name)),
        "eager": inputs.call(eager),
        "compile": inputs.call(compiled(eager)),
    }
    if device == "cuda":
        calls["reduce-overhead"] = partial(_next_step, inputs.call(compiled(eager, mode="reduce-overhead")))
    if jax_peer.installed() and name in jax_peer.FORMULAS:
        calls["jax"] = _made_when_called(partial(jax_peer.call, inputs))
    return calls


def compiled(operator: Operator, mode: str | None = None) -> Operator:
    """torch.compile of it with its own settings, for the shapes that it is called with and no others."""
    function: Operator = torch.compile(operator, dynamic=False, fullgraph=True, mode=mode)
    return function


@contextmanager
def fresh_cache() -> Iterator[Mapping[str, str]]:
    """The environment of torch.compile without what earlier runs left behind, and without processes of its own.

    Nor does the profiler say on stderr that it began, or that a step frees what an earlier one has allocated; nor does
    JAX take three quarters of a CUDA device's memory before it needs any.
    """
    quiet = {"KINETO_LOG_LEVEL": "6", "TORCH_CPP_LOG_LEVEL": "ERROR", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    with tempfile.TemporaryDirectory(prefix="vae_ext-benchmarks-", ignore_cleanup_errors=True) as folder:
        yield {"TORCHINDUCTOR_CACHE_DIR": folder, "TORCHINDUCTOR_COMPILE_THREADS": "1"} | quiet


@cache
def wake_compiler(device: str) -> None:
    """Pays what only the first compilation of a process costs, once."""
    torch.compile(torch.neg)(torch.ones(1000, device=device))


def _made_when_called(make: Callable[[], Call]) -> Call:
    """What cannot even be made fails at its first call, as what cannot be compiled does."""
    made = cache(make)
    return lambda: made()()


def _next_step(call: Call) -> object:
    """CUDA graphs reuse the memory of outputs: what an earlier call returned is given up."""
    torch.compiler.cudagraph_mark_step_begin()
    return call()

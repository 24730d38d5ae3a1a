"""Whole training steps of AEVB, in which only the operators differ: same models, data, optimizer and first weights."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

import vae_ext
from benchmarks import machine
from benchmarks.contestants import wake_compiler
from benchmarks.models import MODELS, Vae
from benchmarks.results import step_name
from benchmarks.session import Plan, Session
from benchmarks.timing import Call, interleave, rounded_off
from benchmarks.workloads import MADE_OF_LOSS
from tests.memory import peak_bytes
from vae_ext import reference
from vae_ext.errors import UserError

# Which operators each takes, and whether torch.compile has the model and the loss.
CONTESTANTS: dict[str, tuple[ModuleType, bool]] = {
    "eager": (reference, False),
    "compile": (reference, True),
    "ours": (vae_ext, False),
    "ours+compile": (vae_ext, True),
}
_BATCHES = (100, 1024, 8192, 16384)
_ROWS_CHECKED = 64
_QUICK_BATCHES = {"mlp": (1024,), "convolutional": (64,)}
# One step of all contestants may take so long, or else a cell takes minutes.
_SECONDS_OF_A_ROUND = 10.0
# Minibatches that take turns, but for large ones.
_MINIBATCHES, _BYTES_OF_MINIBATCHES = 4, 2**30
# Noise differs between contestants, and with it the first loss; that operators are wired rightly shows in gradients
# with the same noise, in float32.
_RELATIVE_DIFFERENCE_OF_LOSSES = 0.05
_RELATIVE_DIFFERENCE_OF_GRADIENTS = 1e-3


@dataclass(frozen=True)
class Step:
    """One model, the size of the minibatch, and the precision of matrix products and convolutions."""

    model: str
    batch: int
    dtype: str

    @property
    def name(self) -> str:
        return step_name(asdict(self))

    @property
    def made_of(self) -> tuple[str, ...]:
        """The operators that have to be right for it."""
        return MADE_OF_LOSS


def steps(quick: bool, dtypes: Sequence[str]) -> list[Step]:
    """Minibatches of growing size for each model and precision."""
    if quick:
        return [Step(model, batch, dtypes[0]) for model, batches in _QUICK_BATCHES.items() for batch in batches]
    return [Step(*each) for each in itertools.product(MODELS, _BATCHES, dtypes)]


def train(session: Session, cells: Sequence[Step]) -> Iterator[list[dict[str, Any]]]:
    """The rows so far, after each; without those that, going by a smaller minibatch, take too much memory or time."""
    rows: dict[Step, dict[str, Any]] = {}
    for step in session.each("training", {step.name: step for step in cells}):
        smaller = [row for earlier, row in rows.items() if (earlier.model, earlier.dtype) == (step.model, step.dtype)]
        available = session.pinned.run(machine.available_memory, session.plan.device)
        obstacle = too_much(step, smaller[-1], available) if smaller else None
        if obstacle is not None:
            session.leave_out(step.name, obstacle)
            continue
        row = session.measured(step.name, session.pinned, measure, step, session.plan)
        if row is None:
            continue
        rows[step] = row
        if session.as_it_comes is not None and not session.plan.quick:
            name = f"{step.name} with the default allocator"
            default = session.measured(name, session.as_it_comes, time_alone, step, session.plan)
            row |= {} if default is None else {"default_allocator": default}
        yield list(rows.values())


def too_much(step: Step, smaller: dict[str, Any], available: int) -> str | None:
    """Why `step` would take more memory or time than there is, going by the row of a smaller minibatch."""
    growth = step.batch / smaller["batch"]
    # Models and optimizers come on top, which do not grow.
    needed = 1.5 * growth * max(smaller["peak_bytes"].values())
    if needed > available:
        return f"about {needed / 2**30:.1f} GiB of memory would be needed, {available / 2**30:.1f} are free"
    seconds = growth * sum(timing["median"] for timing in smaller["timings"].values()) / 1e6
    if seconds > _SECONDS_OF_A_ROUND:
        return f"a step of all contestants would take about {seconds:.0f} s, at most {_SECONDS_OF_A_ROUND:.0f} is tried"
    return None


def measure(step: Step, plan: Plan) -> dict[str, Any]:
    """Times in µs a step, sizes in bytes."""
    calls, seconds, failed = _prepare(step, plan.device, CONTESTANTS)
    timings, page_faults = interleave(calls, plan.effort_of_a_step)
    return asdict(step) | {
        "timings": {name: asdict(timing) for name, timing in timings.items()},
        "compile_seconds": seconds,
        "peak_bytes": {name: peak_bytes(call, plan.device)[0] for name, call in calls.items()},
        "page_faults_per_round": rounded_off(page_faults),
        "failed": failed,
    }


def time_alone(step: Step, plan: Plan) -> dict[str, Any]:
    """The times of the contestants that need no compiler."""
    calls, _, _ = _prepare(step, plan.device, [name for name, (_, compiles) in CONTESTANTS.items() if not compiles])
    timings, page_faults = interleave(calls, plan.effort_of_a_step)
    return {
        "timings": {name: asdict(timing) for name, timing in timings.items()},
        "page_faults_per_round": rounded_off(page_faults),
    }


def _prepare(step: Step, device: str, names: Iterable[str]) -> tuple[dict[str, Call], dict[str, float], dict[str, str]]:
    """Steps that have been made once, the seconds of those that compile, and what went wrong with a peer."""
    torch.compiler.reset()
    minibatches = _minibatches(step, device)
    torch.manual_seed(0)
    expect_same_gradients(step.name, MODELS[step.model].make().to(device), minibatches[0][:_ROWS_CHECKED])
    calls: dict[str, Call] = {}
    seconds: dict[str, float] = {}
    failed: dict[str, str] = {}
    losses: dict[str, float] = {}
    for name in names:
        operators, compiles = CONTESTANTS[name]
        call = _step(step, device, minibatches, operators, compiles)
        try:
            if compiles:
                wake_compiler(device)
            start = perf_counter()
            losses[name] = call().item()
        except Exception as error:
            if not compiles:
                raise
            failed[name] = f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        if compiles:
            seconds[name] = rounded_off(perf_counter() - start)
        calls[name] = call
    expect_alike(step.name, losses)
    return calls, seconds, failed


def expect_alike(name: str, losses: dict[str, float]) -> None:
    """Raises UserError unless every contestant's loss is about eager's."""
    for contestant, loss in losses.items():
        if not math.isclose(loss, losses["eager"], rel_tol=_RELATIVE_DIFFERENCE_OF_LOSSES):
            raise UserError(
                f"{name}: the loss of {contestant} is {loss:.6g} nats, expected about {losses['eager']:.6g}"
            )


def negative_bound(model: Vae, operators: ModuleType, x: Tensor, **noise: Any) -> Tensor:
    """What a step minimises, with `noise` for the sampler."""
    mean, log_var = model.encode(x)
    z, kl = operators.normal_rsample_kl(mean, log_var, **noise)
    loss: Tensor = (kl - operators.bernoulli_log_prob(model.decode(z), x)).mean()
    return loss


def expect_same_gradients(name: str, model: Vae, x: Tensor) -> None:
    """Raises UserError unless ours gives eager's gradients with eager's noise."""
    rng_state = vae_ext.make_rng_state(device=x.device)
    with torch.no_grad():
        epsilon = vae_ext.normal_rsample(torch.zeros_like(model.encode(x)[0]), std=1.0, rng_state=rng_state)
    parameters = list(model.parameters())
    eager = negative_bound(model, reference, x, rng_state=rng_state, epsilon=epsilon)
    ours = negative_bound(model, vae_ext, x, rng_state=rng_state)
    for a, b in zip(torch.autograd.grad(ours, parameters), torch.autograd.grad(eager, parameters), strict=True):
        if not torch.allclose(a, b, rtol=_RELATIVE_DIFFERENCE_OF_GRADIENTS, atol=1e-3 * float(b.abs().max())):
            raise UserError(f"{name}: the gradients of ours are not those of eager with the same noise")


def _step(
    step: Step, device: str, minibatches: Sequence[Tensor], operators: ModuleType, compiles: bool
) -> Callable[[], Tensor]:
    """A step on the next minibatch each time, with a model of its own that starts from the same weights."""
    torch.manual_seed(0)
    model = MODELS[step.model].make().to(device)
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.02)
    turns = itertools.cycle(minibatches)

    def objective(x: Tensor) -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=step.dtype == "bfloat16"):
            return negative_bound(model, operators, x)

    if compiles:
        objective = torch.compile(objective, dynamic=False, fullgraph=True)

    def advance() -> Tensor:
        loss = objective(next(turns))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return advance


def _minibatches(step: Step, device: str) -> list[Tensor]:
    """Greyscale noise: what a step costs does not depend on what it sees."""
    event_shape = MODELS[step.model].event_shape
    generator = torch.Generator().manual_seed(1)
    count = min(_MINIBATCHES, max(1, _BYTES_OF_MINIBATCHES // (4 * step.batch * math.prod(event_shape))))
    return [torch.rand(step.batch, *event_shape, generator=generator).to(device) for _ in range(count)]

"""Accuracy beside speed: how far each contestant is from float64, at ordinary inputs and at the extremes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from benchmarks.contestants import compiled
from benchmarks.results import OURS
from benchmarks.session import Plan, Session
from benchmarks.timing import rounded_off
from benchmarks.workloads import LATENTS, OPERATORS, Workload, operator_of
from tests.accuracy import worst_errors
from tests.cases import Case, Result, Values
from vae_ext import reference

_PIXELS, _LATENTS = (64, 784), (64, 301)
# What the noise of the fused samplers is told by; the peers are given the noise itself.
_NOISE = ("rng_state", "first_row", "stream")


@dataclass(frozen=True)
class Question:
    """One operator in one dtype, at inputs of each kind that it has."""

    operator: str
    dtype: str

    @property
    def name(self) -> str:
        return f"{self.operator} {self.dtype}"

    @property
    def made_of(self) -> tuple[str, ...]:
        """The operators that have to be right for it."""
        return (self.operator,)

    def cases(self) -> list[Case]:
        """As the registry of the tests would say it."""
        shape = _LATENTS if self.operator in LATENTS else _PIXELS
        case = Workload(self.operator, shape, "fwd+bwd").case()
        return [replace(case, values=values) for values in kinds_of_values(self.operator)]


def kinds_of_values(operator: str) -> tuple[Values, ...]:
    """ordinary; extreme: logits to 1e4, log-variances from -80 to 80; collapsed: close to the prior."""
    if operator == "bernoulli_log_prob":
        return ("ordinary", "extreme", "saturated")
    return ("ordinary", "extreme") if operator == "normal_log_prob" else ("ordinary", "extreme", "collapsed")


def questions(dtypes: Sequence[str], operators: Sequence[str] = OPERATORS) -> list[Question]:
    return [Question(*each) for each in itertools.product(operators, dtypes)]


def compare(session: Session, cells: Sequence[Question]) -> Iterator[list[dict[str, Any]]]:
    """The rows so far, one for each operator, dtype and kind of values, after each question."""
    rows: list[dict[str, Any]] = []
    for question in session.each("accuracy", {question.name: question for question in cells}):
        rows += session.measured(question.name, session.pinned, measure, question, session.plan) or []
        yield rows


def measure(question: Question, plan: Plan) -> list[dict[str, Any]]:
    """The worst errors of each contestant, over the sums of the |terms| that an element is made of."""
    torch.compiler.reset()
    peers = {"eager": operator_of(reference, question.operator)}
    if not plan.quick:
        peers["compile"] = compiled(peers["eager"])
    return [_row(question, case, peers, plan.device) for case in question.cases()]


def _row(question: Question, case: Case, peers: Mapping[str, Callable[..., Result]], device: str) -> dict[str, Any]:
    kwargs = case.make(dtype=getattr(torch, question.dtype), device=device, requires_grad=True)
    noise = {"epsilon": case.epsilon(**kwargs)} if case.is_sampler else {}
    given = {name: value for name, value in kwargs.items() if name not in _NOISE} | noise
    functions: dict[str, Callable[[], Result]] = {OURS: partial(case.ours, **kwargs)}
    for name, peer in peers.items():
        functions[name] = partial(peer, **given)
    errors = worst_errors(case, kwargs, functions)
    return {
        "operator": question.operator,
        "dtype": question.dtype,
        "values": case.values,
        "output": {name: _for_json(output) for name, (output, _) in errors.items()},
        "gradient": {name: _for_json(gradient) for name, (_, gradient) in errors.items()},
    }


def _for_json(error: float) -> float | None:
    """None stands for a NaN or an infinity where there should be a number, which JSON has not."""
    return rounded_off(error) if math.isfinite(error) else None

"""Sums, samples and gradients of whole arguments, each by as many launches as `csrc/ops` needs for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tests.emulation.device import Launch, Output, poisoned, replica_chunk, run, span
from tests.emulation.layout import Draw, Layout
from vae_ext.arguments import ScaleKind


@dataclass(frozen=True)
class Formula:
    """What the kernels of one operator have in common beside its arguments."""

    kind: ScaleKind = "log_var"
    prior_scale: bool = False
    factor: float = 1.0
    constant: float = 0.0


def sum_rows(kernel: str, layout: Layout, formula: Formula, inputs: Sequence[Tensor | None]) -> Tensor:
    """A sum for each row."""
    sums = _Sums(layout, formula)
    _launch(kernel, layout, formula, inputs, [sums.output(layout.rows)])
    return sums.finish()


def sample_rows(layout: Layout, formula: Formula, draw: Draw, inputs: Sequence[Tensor | None]) -> Tensor:
    """Samples alone."""
    z = poisoned((*layout.rows, *layout.event_shape), layout.dtype)
    _launch("normal_rsample", layout, formula, inputs, [Output(layout.view(z), z)], draw)
    return z


def sample_and_sum_rows(
    kernel: str, layout: Layout, sums_layout: Layout, formula: Formula, draw: Draw, inputs: Sequence[Tensor | None]
) -> tuple[Tensor, Tensor]:
    """Samples, and a sum for each row of `sums_layout`, in one pass."""
    z = poisoned((*layout.rows, *layout.event_shape), layout.dtype)
    sums = _Sums(sums_layout, formula)
    outputs = [Output(layout.view(z), z), sums.output(layout.rows)]
    _launch(kernel, layout, formula, inputs, outputs, draw)
    return z, sums.finish()


def gradients(
    kernel: str,
    layout: Layout,
    formula: Formula,
    inputs: Sequence[Tensor | None],
    like: Mapping[int, Tensor],
    row_value: Tensor | None = None,
    draw: Draw | None = None,
) -> dict[int, Tensor]:
    """The gradient in each slot of the kernel's outputs, shaped and typed like the argument in `like`.

    One launch serves all that are summed over the same rows.
    """
    groups: dict[tuple[int, ...], dict[int, Tensor]] = {}
    for slot, argument in like.items():
        groups.setdefault(layout.broadcast_dims(argument), {})[slot] = argument
    results: dict[int, Tensor] = {}
    for reduced, arguments in groups.items():
        order = (*(d for d in range(len(layout.rows)) if d not in reduced), *reduced)
        if 0 in layout.rows:
            results |= {slot: torch.zeros_like(argument) for slot, argument in arguments.items()}
            continue
        targets = {slot: _Target(layout, argument, reduced) for slot, argument in arguments.items()}
        outputs = [targets[slot].output(order) if slot in targets else None for slot in range(max(targets) + 1)]
        _launch(kernel, layout, formula, inputs, outputs, draw, row_value, order, len(reduced))
        results |= {slot: target.finish() for slot, target in targets.items()}
    return results


def _launch(
    kernel: str,
    layout: Layout,
    formula: Formula,
    inputs: Sequence[Tensor | None],
    outputs: Sequence[Output | None],
    draw: Draw | None = None,
    row_value: Tensor | None = None,
    order: Sequence[int] | None = None,
    reduced_dims: int = 0,
) -> None:
    """One launch over all rows, whose dims are to stand in this order; outputs already do."""
    order = range(len(layout.rows)) if order is None else order
    views = [None if argument is None else _permuted(layout.view(argument), order) for argument in inputs]
    run(
        Launch(
            kernel,
            [layout.rows[d] for d in order],
            layout.event,
            views,
            outputs,
            reduced_dims,
            None if row_value is None else row_value.expand(layout.rows).permute(tuple(order)),
            None if draw is None else layout.noise(draw, order),
            formula.kind,
            formula.prior_scale,
            layout.compute_dtype == torch.float64,
            formula.factor,
            formula.constant,
        )
    )


def _permuted(view: Tensor, order: Sequence[int]) -> Tensor:
    return view.permute((*order, view.dim() - 1))


class _Sums:
    """A sum for each row, on its way: of several spans in doubles first."""

    def __init__(self, layout: Layout, formula: Formula) -> None:
        self._formula = formula
        self._spans = max(1, -(-layout.event // span()))
        self._sums = poisoned(layout.rows, layout.compute_dtype)
        self._partial = poisoned((*layout.rows, self._spans), torch.float64)

    def output(self, rows: Sequence[int]) -> Output:
        """What the kernel writes over these rows."""
        if self._spans == 1:
            return Output(self._sums.expand(rows), self._sums)
        return Output(self._partial[..., 0].expand(rows), self._partial, self._spans)

    def finish(self) -> Tensor:
        if self._spans > 1:
            add_spans(self._partial.view(-1, self._spans), self._sums, self._formula)
        return self._sums


def add_spans(partial: Tensor, sums: Tensor, formula: Formula) -> None:
    """Adds the spans `[sums, spans]` of each sum."""
    output = Output(sums.view(-1), sums)
    run(
        Launch(
            "sum_spans",
            partial.shape[:1],
            partial.shape[1],
            [partial],
            [output],
            factor=formula.factor,
            constant=formula.constant,
        )
    )


def add_replicas(workspace: Tensor, result: Tensor) -> None:
    """Adds up what each chunk of replicas left in a workspace `[chunks, elements]`, in as many rounds as it takes."""
    chunks, elements = workspace.shape
    rounds = -(-chunks // replica_chunk())
    sums = result if rounds == 1 else poisoned((rounds, elements), workspace.dtype)
    view = (result.view(1, -1) if rounds == 1 else sums[:1]).expand(chunks, elements)
    wide = workspace.dtype == torch.float64
    run(Launch("sum_replicas", [chunks], elements, [workspace], [Output(view, sums)], 1, wide=wide))
    if rounds > 1:
        add_replicas(sums, result)


def add_event(values: Tensor, result: Tensor) -> None:
    """Adds up a whole vector into one number."""
    spans = -(-values.numel() // span())
    partial = poisoned((1, spans), torch.float64)
    output = Output(result, result) if spans == 1 else Output(partial[0, 0], partial, spans)
    run(Launch("sum_event", [], values.numel(), [values], [output]))
    if spans > 1:
        add_spans(partial, result, Formula())


class _Target:
    """One gradient on its way: summed over chunks of replicas, or over the event, after the kernel if need be."""

    def __init__(self, layout: Layout, argument: Tensor, reduced: tuple[int, ...]) -> None:
        rows = layout.rows
        self._layout, self._reduced = layout, reduced
        self._chunks = -(-math.prod(rows[d] for d in reduced) // replica_chunk())
        self._is_number = layout.stands_for_event(argument)
        self._result = poisoned(argument.shape, argument.dtype)
        self._kept = [size for d, size in enumerate(rows) if d not in reduced]
        self._written = self._result
        if self._chunks > 1 or self._is_number:
            self._written = poisoned((self._chunks, math.prod(self._kept) * layout.event), layout.compute_dtype)

    def output(self, order: Sequence[int]) -> Output:
        """What the kernel writes over rows in this order: the result, or the first chunk of a workspace."""
        if self._written is self._result:
            return Output(_permuted(self._layout.view(self._result), order), self._result)
        reduced = [self._layout.rows[d] for d in self._reduced]
        event = self._layout.event
        view = self._written[0].view((*self._kept, *(1 for _ in reduced), event))
        return Output(view.expand((*self._kept, *reduced, event)), self._written)

    def finish(self) -> Tensor:
        if self._written is self._result:
            return self._result
        sums = poisoned((self._written.shape[1],), self._written.dtype) if self._is_number else self._result
        if self._chunks > 1:
            add_replicas(self._written, sums)
        else:
            sums = self._written[0]
        if self._is_number:
            add_event(sums, self._result)
        return self._result

"""The public operators on the emulated device: cases of the registry whose `ours` launches the CUDA kernels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from tests.cases import LOCATION_SCALE, Z_ALONE, Case, Result
from tests.emulation.kernels import Formula, gradients, sample_and_sum_rows, sample_rows, sum_rows
from tests.emulation.layout import Draw, Layout
from vae_ext.arguments import ScaleKind, as_parameter

Arguments: TypeAlias = tuple[Tensor | None, ...]
Outputs: TypeAlias = tuple[Tensor, ...]
# By the places of arguments.
Slots: TypeAlias = dict[int, Tensor]


class EmulatedCase(Case):
    """A case whose fused operator is that of the emulated device."""

    @staticmethod
    def of(case: Case) -> EmulatedCase:
        return EmulatedCase(**{field.name: getattr(case, field.name) for field in dataclasses.fields(case)})

    def ours(self, **kwargs: Any) -> Result:
        arguments = _arguments(self, kwargs)
        outputs: Outputs = _apply(_call(self, kwargs, arguments), *arguments)
        return outputs[0] if len(outputs) == 1 else (outputs[0], outputs[1])


@dataclass(frozen=True)
class Call:
    """One call of an operator."""

    operator: str
    arguments: Arguments
    layout: Layout
    formula: Formula
    draw: Draw | None = None

    @property
    def noise(self) -> Draw:
        assert self.draw is not None
        return self.draw


class _Emulated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: Call, *_: Tensor | None) -> Outputs:
        ctx.call, ctx.outputs = call, _FORWARD[call.operator](call)
        return tuple(output.detach() for output in ctx.outputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Arguments:
        call: Call = ctx.call
        wanted = {
            slot: argument
            for slot, argument in enumerate(call.arguments)
            if argument is not None and ctx.needs_input_grad[slot + 1]
        }
        results = _BACKWARD[call.operator](call, ctx.outputs, grads, wanted)
        return (None, *(results.get(slot) for slot in range(len(call.arguments))))


# Untyped in torch.
_apply: Callable[..., Outputs] = _Emulated.apply


def _arguments(case: Case, kwargs: dict[str, Any]) -> Arguments:
    """The operator's tensors in the order of its formulas; numbers as 0-d ones."""
    if case.operator == "bernoulli_log_prob":
        return kwargs["logits"], kwargs["x"]
    mean, scale_name = kwargs[case.argument("mean")], case.argument("scale")
    scale = as_parameter(scale_name, kwargs[scale_name], mean)
    if case.operator == "normal_log_prob":
        return mean, scale, kwargs["x"]
    if case.operator in Z_ALONE:
        return mean, scale
    priors = (kwargs.get(name) for name in ("prior_mean", case.argument("prior_scale")))
    return mean, scale, *(None if prior is None else as_parameter("prior", prior, mean) for prior in priors)


def _call(case: Case, kwargs: dict[str, Any], arguments: Arguments) -> Call:
    first, *others = (None if argument is None else argument.detach() for argument in arguments)
    assert first is not None
    layout = Layout.of(case.resolved_event_ndim, first, *others, num_samples=kwargs.get("num_samples"))
    prior_scale = len(arguments) == 4 and arguments[3] is not None
    factor, constant = {
        "normal_log_prob": (-0.5, -0.5 * layout.event * math.log(2 * math.pi)),
        "bernoulli_log_prob": (1.0, 0.0),
    }.get(case.operator, (0.5, 0.0))
    kind: ScaleKind = case.scale_kind
    if case.operator == LOCATION_SCALE:
        kind = "log_std" if case.argument("scale") == "log_scale" else "std"
    formula = Formula(kind, prior_scale, factor, constant)
    standard = case.standard if case.operator == LOCATION_SCALE else "normal"
    draw = Draw(kwargs["rng_state"], case.first_row, case.stream, standard) if case.is_sampler else None
    return Call(case.operator, (first, *others), layout, formula, draw)


def _sum_forward(call: Call) -> Outputs:
    return (sum_rows(call.operator, call.layout, call.formula, call.arguments),)


def _sum_backward(call: Call, _: Outputs, grads: Outputs, wanted: Slots) -> Slots:
    return gradients(f"{call.operator}_backward", call.layout, call.formula, call.arguments, wanted, grads[0])


def _rsample_forward(call: Call) -> Outputs:
    return (sample_rows(call.layout, call.formula, call.noise, call.arguments),)


def _rsample_backward(call: Call, _: Outputs, grads: Outputs, wanted: Slots) -> Slots:
    inputs = [call.arguments[1], grads[0]]
    return gradients("normal_rsample_backward", call.layout, call.formula, inputs, wanted, draw=call.noise)


def _rsample_kl_forward(call: Call) -> Outputs:
    return sample_and_sum_rows(
        "normal_rsample_kl", call.layout, call.layout.without_samples(), call.formula, call.noise, call.arguments
    )


def _rsample_kl_backward(call: Call, _: Outputs, grads: Outputs, wanted: Slots) -> Slots:
    grad_z, grad_kl = grads
    posterior = {slot: argument for slot, argument in wanted.items() if slot < 2}
    prior = {slot: argument for slot, argument in wanted.items() if slot >= 2}
    return gradients(
        "normal_rsample_kl_backward",
        call.layout,
        call.formula,
        [*call.arguments, grad_z],
        posterior,
        grad_kl,
        call.noise,
    ) | gradients("normal_kl_backward", call.layout.without_samples(), call.formula, call.arguments, prior, grad_kl)


def _log_ratio_forward(call: Call) -> Outputs:
    return sample_and_sum_rows(
        "normal_rsample_log_ratio", call.layout, call.layout, call.formula, call.noise, call.arguments
    )


def _log_ratio_backward(call: Call, outputs: Outputs, grads: Outputs, wanted: Slots) -> Slots:
    inputs = [*call.arguments[1:], outputs[0], grads[0]]
    return gradients("normal_log_ratio_backward", call.layout, call.formula, inputs, wanted, grads[1], call.noise)


_FORWARD: dict[str, Callable[[Call], Outputs]] = {
    "bernoulli_log_prob": _sum_forward,
    "normal_log_prob": _sum_forward,
    "normal_kl": _sum_forward,
    "normal_rsample": _rsample_forward,
    LOCATION_SCALE: _rsample_forward,
    "normal_rsample_kl": _rsample_kl_forward,
    "normal_rsample_log_ratio": _log_ratio_forward,
}
_BACKWARD: dict[str, Callable[[Call, Outputs, Outputs, Slots], Slots]] = {
    "bernoulli_log_prob": _sum_backward,
    "normal_log_prob": _sum_backward,
    "normal_kl": _sum_backward,
    "normal_rsample": _rsample_backward,
    LOCATION_SCALE: _rsample_backward,
    "normal_rsample_kl": _rsample_kl_backward,
    "normal_rsample_log_ratio": _log_ratio_backward,
}

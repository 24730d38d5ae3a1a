"""How the operators read their arguments: one place for what `ops.py` and `reference.py` must agree on.

Everything here runs on every call, however small its tensors, and is traced by
`torch.compile(fullgraph=True)`: what an error needs is put together when the error is certain.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

Scale: TypeAlias = Tensor | float
ScaleKind: TypeAlias = Literal["log_var", "log_std", "std", "var"]


def resolve_scale(
    *,
    log_var: Scale | None = None,
    log_std: Scale | None = None,
    std: Scale | None = None,
    var: Scale | None = None,
) -> tuple[Scale, ScaleKind]:
    """The one scale that was given, and which of the four parameterisations it is in.

    Raises ValueError when none or several are given, TypeError when it is neither a tensor nor a number.
    """
    count = (log_var is not None) + (log_std is not None) + (std is not None) + (var is not None)
    if count == 1:
        if log_var is not None:
            return _checked_scale("log_var", log_var), "log_var"
        if log_std is not None:
            return _checked_scale("log_std", log_std), "log_std"
        if std is not None:
            return _checked_scale("std", std), "std"
        if var is not None:
            return _checked_scale("var", var), "var"
    given = _names_given(log_var=log_var, log_std=log_std, std=std, var=var)
    raise ValueError(f"the scale is given as {given}; expected exactly one of log_var, log_std, std, var")


def resolve_prior(
    kind: ScaleKind,
    *,
    prior_log_var: Scale | None = None,
    prior_log_std: Scale | None = None,
    prior_std: Scale | None = None,
    prior_var: Scale | None = None,
) -> Scale | None:
    """The prior's scale, in the parameterisation `kind` of the posterior's, or None for a scale of one.

    Raises ValueError when it is given in another one, TypeError when it is neither a tensor nor a number.
    """
    if prior_log_var is None and prior_log_std is None and prior_std is None and prior_var is None:
        return None
    priors = {"log_var": prior_log_var, "log_std": prior_log_std, "std": prior_std, "var": prior_var}
    prior = priors.pop(kind)
    if any(other is not None for other in priors.values()):
        given = _names_given(
            prior_log_var=prior_log_var, prior_log_std=prior_log_std, prior_std=prior_std, prior_var=prior_var
        )
        raise ValueError(f"the prior's scale is given as {given}; expected prior_{kind}, as {kind} is given")
    return None if prior is None else _checked_scale(f"prior_{kind}", prior)


def resolve_event_ndim(event_ndim: int | None, **tensors: Tensor | None) -> int:
    """The number of event dimensions: `event_ndim`, or one less than the fewest dimensions among `tensors`.

    `tensors` are, by argument name, those that carry the batch. Raises ValueError when one has too few
    dimensions, TypeError when one is no tensor or `event_ndim` no int.
    """
    if event_ndim is not None:
        if isinstance(event_ndim, bool) or not isinstance(event_ndim, int):
            raise TypeError(f"event_ndim is of type {type(event_ndim).__name__}; expected an int or None")
        if event_ndim < 0:
            raise ValueError(f"event_ndim is {event_ndim}; expected 0 or more")
        for name, tensor in tensors.items():
            ndim = _checked_tensor(name, tensor).dim()
            if ndim < event_ndim:
                raise ValueError(f"{name} has {ndim} dims; expected at least event_ndim = {event_ndim}")
        return event_ndim
    fewest = -1
    for name, tensor in tensors.items():
        ndim = _checked_tensor(name, tensor).dim()
        if ndim == 0:
            raise ValueError(f"{name} has no dims; expected at least one, the batch")
        if fewest < 0 or ndim < fewest:
            fewest = ndim
    return fewest - 1


def check_together(event_ndim: int, **tensors: Tensor | None) -> None:
    """Check, without looking at values, that tensors share a device and end in the event of the first.

    The operators check real arguments themselves; this is for what does not reach them, symbolic sizes and the
    arguments of transformed functions. A 0-d tensor may stand for a whole event. Raises ValueError for a shape,
    RuntimeError for a device.
    """
    check_devices(**tensors)
    (first_name, first), *others = ((name, tensor) for name, tensor in tensors.items() if tensor is not None)
    for name, tensor in others:
        if tensor.dim() == 0:
            continue
        same = tensor.dim() >= event_ndim
        for d in range(-event_ndim, 0) if same else ():
            same = same and tensor.shape[d] == first.shape[d]
        if not same:
            event = tuple(first.shape[first.dim() - event_ndim :])
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}; expected it to end in the event {event} of {first_name}"
            )


def check_devices(**tensors: Tensor | None) -> None:
    """Check that tensors are where the first is. Raises RuntimeError."""
    (first_name, first), *others = ((name, tensor) for name, tensor in tensors.items() if tensor is not None)
    for name, tensor in others:
        if tensor.device != first.device:
            raise RuntimeError(
                f"{name} is on {tensor.device} but {first_name} is on {first.device}; move both to one device"
            )


def as_parameter(name: str, value: Scale, mean: Tensor) -> Tensor:
    """`value` as a tensor beside `mean`: a number becomes a 0-d one, never of less than float32's precision."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, (int, float)):
        wide = torch.float64 if mean.dtype == torch.float64 else torch.float32
        return mean.new_full((), float(value), dtype=wide)
    raise TypeError(f"{name} is of type {type(value).__name__}; expected a tensor or a number")


def _checked_tensor(name: str, value: object) -> Tensor:
    if isinstance(value, Tensor):
        if value.layout is not torch.strided:
            raise TypeError(f"{name} has layout {value.layout}; expected a dense tensor")
        return value
    raise TypeError(f"{name} is of type {type(value).__name__}; expected a tensor")


def _checked_scale(name: str, value: Scale) -> Scale:
    if isinstance(value, (Tensor, float, int)):
        return value
    raise TypeError(f"{name} is of type {type(value).__name__}; expected a tensor or a number")


def _names_given(**arguments: object) -> str:
    return " and ".join(name for name, value in arguments.items() if value is not None) or "nothing"

"""How the operators read their arguments: one place for what `ops.py` and `reference.py` must agree on.

Everything here runs on every call, however small its tensors, and is traced by
`torch.compile(fullgraph=True)`: what an error needs is put together when the error is certain.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

Scale: TypeAlias = Tensor | float
MAX_INT64 = 2**63 - 1
PARAMETER_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

ScaleKind: TypeAlias = Literal["log_var", "log_std", "std", "var"]
LocationScaleKind: TypeAlias = Literal["scale", "log_scale"]
Standard: TypeAlias = Literal[
    "normal", "laplace", "logistic", "uniform", "triangular", "gumbel", "cauchy", "exponential"
]
STANDARDS: tuple[Standard, ...] = get_args(Standard)


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


def resolve_location_scale(scale: Scale | None, log_scale: Scale | None) -> tuple[Scale, LocationScaleKind]:
    """The one scale of a location-scale family that was given, and whether it is the logarithm.

    Raises ValueError when none or both are given, TypeError when it is neither a tensor nor a number.
    """
    if scale is not None and log_scale is None:
        return _checked_scale("scale", scale), "scale"
    if log_scale is not None and scale is None:
        return _checked_scale("log_scale", log_scale), "log_scale"
    given = _names_given(scale=scale, log_scale=log_scale)
    raise ValueError(f"the scale is given as {given}; expected exactly one of scale, log_scale")


def resolve_standard(standard: object) -> Standard:
    """The standard distribution, if it is one. Raises ValueError or TypeError."""
    if not isinstance(standard, str):
        raise TypeError(f"standard is of type {type(standard).__name__}; expected a string")
    for known in STANDARDS:
        if known == standard:
            return known
    raise ValueError(f"standard is {standard!r}; expected one of {', '.join(STANDARDS)}")


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
    dimensions, TypeError when one is no tensor or `event_ndim` no integer.
    """
    if event_ndim is not None:
        event_ndim = resolve_integer("event_ndim", event_ndim, 0)
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


def resolve_integer(name: str, value: object, least: int) -> int:
    """`value` as an int of at least `least`: whatever Python takes for an index, a NumPy integer too, but no bool.

    Raises TypeError or ValueError.
    """
    if type(value) is not int:
        if isinstance(value, torch.SymInt):
            return value  # type: ignore[return-value]  # torch.compile's stand-in for an int
        value = _as_index(name, value)
    if least <= value <= MAX_INT64:
        return value
    raise ValueError(f"{name} is {value}; expected {least} or more, and less than 2**63")


def _as_index(name: str, value: object) -> int:
    is_bool = isinstance(value, bool) or (isinstance(value, Tensor) and value.dtype == torch.bool)
    try:
        if not is_bool:
            return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        pass
    raise TypeError(f"{name} is of type {type(value).__name__}; expected an integer")


def check_gaussian(
    event_ndim: int,
    kind: ScaleKind,
    mean: Tensor,
    scale: Tensor,
    prior_mean: Tensor | None = None,
    prior_scale: Tensor | None = None,
    x: Tensor | None = None,
) -> None:
    """`check_together` of the arguments of a Gaussian operator, by the names they are given under."""
    named = {"mean": mean, kind: scale, "prior_mean": prior_mean, f"prior_{kind}": prior_scale}
    check_together(event_ndim, **named, x=x)


def check_together(event_ndim: int, *, x: Tensor | None = None, **parameters: Tensor | None) -> None:
    """Check, without looking at values, that arguments go together: dtypes, devices, one event, and the batches.

    The operators check real arguments themselves; this is for what does not reach them, symbolic sizes and the
    arguments of transformed functions, and for what must be known before noise is drawn. `x` is data, of any dtype;
    parameters are of the first one's, or 0-d. Raises TypeError for a dtype, ValueError for a shape, RuntimeError for a
    device.
    """
    check_devices(**parameters, x=x)
    (first_name, first), *others = ((name, tensor) for name, tensor in parameters.items() if tensor is not None)
    for name, tensor in [(first_name, first), *others]:
        if tensor.dtype not in PARAMETER_DTYPES:
            raise TypeError(f"{name} is {tensor.dtype}; expected float32, float64, bfloat16 or float16")
        if tensor.dtype != first.dtype and (tensor.dim() > 0 or tensor.dtype != wide_dtype(first)):
            raise TypeError(f"{name} is {tensor.dtype} but {first_name} is {first.dtype}; both must have one dtype")
    if x is not None and x.dtype not in (*PARAMETER_DTYPES, torch.bool, torch.uint8):
        raise TypeError(f"x is {x.dtype}; expected a floating type, bool or uint8")
    for name, tensor in others:
        if tensor.dim() > 0:
            _check_event(event_ndim, name, tensor, first_name, first)
    if x is not None:
        _check_event(event_ndim, "x", x, first_name, first)
    _check_batches(event_ndim, **parameters, x=x)


def check_prior_batch(event_ndim: int, mean: Tensor, scale: Tensor, *priors: Tensor | None) -> None:
    """Check that priors add no batch dims to those of mean and scale. Raises ValueError."""
    batch = broadcast_batch(event_ndim, mean, scale)
    if tuple(broadcast_batch(event_ndim, mean, scale, *priors)) != tuple(batch):
        raise ValueError(
            f"the prior has batch dims that {tuple(batch)}, those of mean and its scale, do not have; "
            "expected a prior that broadcasts to them"
        )


def broadcast_batch(event_ndim: int, *tensors: Tensor | None) -> Sequence[int]:
    """What the batch dims of the tensors broadcast to; a 0-d tensor may stand for a whole event."""
    shapes = [t.shape[: t.dim() - event_ndim] for t in tensors if t is not None and t.dim() >= event_ndim]
    batch: torch.Size = torch.broadcast_shapes(*shapes)
    return batch


def wide_dtype(tensor: Tensor) -> torch.dtype:
    """What the operators compute in: float64 for float64, else float32."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _check_event(event_ndim: int, name: str, tensor: Tensor, first_name: str, first: Tensor) -> None:
    same = tensor.dim() >= event_ndim
    for d in range(-event_ndim, 0) if same else ():
        same = same and tensor.shape[d] == first.shape[d]
    if not same:
        event = tuple(first.shape[first.dim() - event_ndim :])
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)}; expected it to end in the event {event} of {first_name}"
        )


def _check_batches(event_ndim: int, **tensors: Tensor | None) -> None:
    try:
        broadcast_batch(event_ndim, *tensors.values())
    except RuntimeError as error:
        if type(error) is not RuntimeError:  # of torch.export, which does not know a size
            raise
        shapes = [f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items() if tensor is not None]
        raise ValueError(f"the dims before the event do not broadcast: {', '.join(shapes)}") from error


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
        return _checked_tensor(name, value)
    number = float(_checked_scale(name, value))
    if number < 0 and name in ("std", "var", "scale", "prior_std", "prior_var"):
        raise ValueError(f"{name} is {number}; expected 0 or more")
    return mean.new_full((), number, dtype=wide_dtype(mean))


def _checked_tensor(name: str, value: object) -> Tensor:
    if isinstance(value, Tensor):
        if value.layout is not torch.strided:
            raise TypeError(f"{name} has layout {value.layout}; expected a dense tensor")
        return value
    raise TypeError(f"{name} is of type {type(value).__name__}; expected a tensor")


def _checked_scale(name: str, value: Scale) -> Scale:
    if isinstance(value, (Tensor, float, int)) and not isinstance(value, bool):
        return value
    raise TypeError(f"{name} is of type {type(value).__name__}; expected a tensor or a number")


def _names_given(**arguments: object) -> str:
    return " and ".join(name for name, value in arguments.items() if value is not None) or "nothing"

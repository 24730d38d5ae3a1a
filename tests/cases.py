"""The registry of operator cases: what the tests and the benchmarks call the operators with.

A case names an operator, the shapes of its arguments and how they are laid out and filled; `case.make()`
builds the keyword arguments, `case.ours(**kwargs)` and `case.reference(**kwargs)` call the fused operator and
the eager one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from vae_ext import reference
from vae_ext.arguments import STANDARDS, ScaleKind, Standard

Shape: TypeAlias = tuple[int, ...]
Layout: TypeAlias = Literal["contiguous", "strided_rows", "sparse_event", "permuted_event", "expanded"]
Values: TypeAlias = Literal["ordinary", "extreme", "saturated", "collapsed"]
Result: TypeAlias = Tensor | tuple[Tensor, Tensor]

_NOISE_ARGUMENTS = ("num_samples", "rng_state", "first_row", "stream", "event_ndim")

SCALE_KINDS: tuple[ScaleKind, ...] = ("log_var", "log_std", "std", "var")
SAMPLERS = ("normal_rsample", "normal_rsample_kl", "normal_rsample_log_ratio")
LOCATION_SCALE = "location_scale_rsample"
NOISY = (*SAMPLERS, LOCATION_SCALE)
# Those whose one result is z.
Z_ALONE = ("normal_rsample", LOCATION_SCALE)
# What arguments an operator has, by the roles that they play; a prior may be left out.
ROLES: dict[str, tuple[str, ...]] = {
    "normal_rsample": ("mean", "scale"),
    "normal_rsample_kl": ("mean", "scale", "prior_mean", "prior_scale"),
    "normal_rsample_log_ratio": ("mean", "scale", "prior_mean", "prior_scale"),
    LOCATION_SCALE: ("mean", "scale"),
    "normal_kl": ("mean", "scale", "prior_mean", "prior_scale"),
    "bernoulli_log_prob": ("logits", "x"),
    "normal_log_prob": ("mean", "scale", "x"),
}
OPERATORS = tuple(ROLES)


@dataclass(frozen=True)
class Case:
    """One way to call one operator.

    `shapes` gives an argument's shape, or None for a Python float. The roles `scale` and `prior_scale` become
    the arguments that `scale_kind` names. A location-scale family's `mean` is its `loc`, and its scale `log_scale`
    where the kind is a logarithm, `scale` elsewhere.
    """

    operator: str
    shapes: Mapping[str, Shape | None] = field(hash=False)
    scale_kind: ScaleKind = "log_var"
    num_samples: int | None = None
    event_ndim: int | None = None
    first_row: int = 0
    stream: int = 0
    layout: Layout = "contiguous"
    values: Values = "ordinary"
    x_dtype: torch.dtype | None = None
    gradcheck: bool = False
    standard: Standard = "laplace"

    @property
    def id(self) -> str:
        """A name that is unique in the registry."""
        shapes = ",".join(
            f"{role}={'float' if shape is None else 'x'.join(map(str, shape)) or 'scalar'}"
            for role, shape in self.shapes.items()
        )
        parts = [self.operator, shapes]
        if "scale" in self.shapes and self.scale_kind != "log_var":
            parts.append(self.scale_kind)
        if self.operator == LOCATION_SCALE:
            parts.append(self.standard)
        if self.num_samples is not None:
            parts.append(f"L={self.num_samples}")
        if self.event_ndim is not None:
            parts.append(f"event_ndim={self.event_ndim}")
        if self.first_row or self.stream:
            parts.append(f"row={self.first_row},stream={self.stream}")
        parts += [name for name in (self.layout, self.values) if name not in ("contiguous", "ordinary")]
        if self.x_dtype is not None:
            parts.append(f"x:{str(self.x_dtype).removeprefix('torch.')}")
        return "-".join(parts)

    @property
    def is_sampler(self) -> bool:
        return self.operator in NOISY

    def fits(self, dtype: torch.dtype) -> bool:
        """Can `dtype` hold the values? Not float16 those of an extreme std or var, from e^-80 to e^80."""
        return dtype != torch.float16 or self.values != "extreme" or self.scale_kind.startswith("log")

    @property
    def differentiable(self) -> tuple[str, ...]:
        """The arguments that are floating tensors."""
        return tuple(
            self.argument(role)
            for role, shape in self.shapes.items()
            if shape is not None and not (role == "x" and self.x_dtype in (torch.bool, torch.uint8))
        )

    def argument(self, role: str) -> str:
        """The name of the argument that plays `role`."""
        if self.operator == LOCATION_SCALE:
            scale = "log_scale" if self.scale_kind.startswith("log") else "scale"
            return {"mean": "loc", "scale": scale}.get(role, role)
        return role.replace("scale", self.scale_kind)

    def make(
        self,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
        seed: int = 0,
        requires_grad: bool = False,
    ) -> dict[str, Any]:
        """The keyword arguments: tensors of `dtype` on `device` (torch's default one), the same for the same `seed`.

        The numbers are drawn on the CPU, so that they are the same on every device.
        """
        device = torch.get_default_device() if device is None else device
        generator = torch.Generator().manual_seed(seed)
        kwargs: dict[str, Any] = {}
        for role, value in self._values(generator).items():
            name = self.argument(role)
            if self.shapes[role] is None:
                kwargs[name] = float(value)
                continue
            tensor = value.to(self.x_dtype if role == "x" and self.x_dtype is not None else dtype)
            kwargs[name] = self._lay_out(tensor.to(device)).requires_grad_(
                requires_grad and name in self.differentiable
            )
        if self.event_ndim is not None:
            kwargs["event_ndim"] = self.event_ndim
        if self.is_sampler:
            rng_state = torch.randint(0, 2**63 - 1, (2,), dtype=torch.int64, generator=generator, device="cpu")
            kwargs |= {
                "num_samples": self.num_samples,
                "rng_state": rng_state.to(device),
                "first_row": self.first_row,
                "stream": self.stream,
            }
        if self.operator == LOCATION_SCALE:
            kwargs["standard"] = self.standard
        return kwargs

    def as_function(self, dtype: torch.dtype = torch.float64) -> tuple[Callable[..., Result], tuple[Tensor, ...]]:
        """The fused operator as a function of its differentiable arguments, and those arguments."""
        kwargs = self.make(dtype=dtype)
        names = self.differentiable

        def function(*inputs: Tensor) -> Result:
            return self.ours(**kwargs | dict(zip(names, inputs, strict=True)))

        return function, tuple(kwargs[name] for name in names)

    def ours(self, **kwargs: Any) -> Result:
        """The fused operator."""
        import vae_ext

        operator: Callable[..., Result] = getattr(vae_ext, self.operator)
        return operator(**kwargs)

    def reference(self, **kwargs: Any) -> Result:
        """The eager operator; a sampler uses the noise that the fused one draws for the same arguments."""
        operator: Callable[..., Result] = getattr(reference, self.operator)
        if self.is_sampler and kwargs.get("epsilon") is None and kwargs.get("rng_state") is not None:
            kwargs["epsilon"] = self.epsilon(**kwargs)
        return operator(**kwargs)

    def epsilon(self, **kwargs: Any) -> Tensor:
        """The fused sampler's noise for these arguments: float32, in the shape of z."""
        import vae_ext

        mean, scale = kwargs[self.argument("mean")], kwargs[self.argument("scale")]
        batch = torch.broadcast_shapes(mean.shape, getattr(scale, "shape", ()))
        zeros = torch.zeros(batch, dtype=torch.float32, device=mean.device)
        draw = {name: kwargs[name] for name in _NOISE_ARGUMENTS if name in kwargs}
        if self.operator == LOCATION_SCALE:
            return vae_ext.location_scale_rsample(zeros, self.standard, scale=1.0, **draw)
        return vae_ext.normal_rsample(zeros, std=1.0, **draw)

    def _values(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Every role's values in float64, contiguous."""

        def normal(role: str) -> Tensor:
            return torch.randn(self.shapes[role] or (), dtype=torch.float64, generator=generator, device="cpu")

        def uniform(role: str) -> Tensor:
            return torch.rand(self.shapes[role] or (), dtype=torch.float64, generator=generator, device="cpu")

        values: dict[str, Tensor] = {}
        for role in self.shapes:
            if role in ("scale", "prior_scale"):
                log_var = 0.5 * normal(role) - 0.2
                if self.values == "extreme":
                    log_var = 160 * uniform(role) - 80
                if self.values == "collapsed":
                    log_var = 1e-4 * normal(role)
                values[role] = from_log_var(log_var, self.scale_kind)
            elif role == "logits":
                values[role] = 3 * normal(role)
                if self.values == "extreme":
                    values[role] = 1e4 * (2 * uniform(role) - 1)
                if self.values == "saturated":
                    values[role] = 1e4 * normal(role).sign()
            elif role == "x" and self.operator == "bernoulli_log_prob":
                values[role] = uniform(role)
                if self.x_dtype in (torch.bool, torch.uint8) or self.values == "saturated":
                    values[role] = values[role].round()
            else:
                values[role] = (1e-4 if self.values == "collapsed" else 1.0) * normal(role)
        return values

    def _lay_out(self, tensor: Tensor) -> Tensor:
        """The same values in memory as `layout` says; a tensor without a batch stays as it is."""
        event_ndim = self.resolved_event_ndim
        batch_ndim = tensor.dim() - event_ndim
        if batch_ndim < 1 or self.layout == "contiguous":
            return tensor
        if self.layout == "strided_rows":
            return torch.stack([tensor, torch.full_like(tensor, 1)], batch_ndim).select(batch_ndim, 0)
        if self.layout == "sparse_event":
            return torch.stack([tensor, torch.full_like(tensor, 1)], -1).select(-1, 0)
        if self.layout == "permuted_event":
            return tensor.transpose(batch_ndim, -1).contiguous().transpose(batch_ndim, -1)
        return tensor[:1].expand(tensor.shape)

    @property
    def resolved_event_ndim(self) -> int:
        """The number of event dimensions, given or left out."""
        if self.event_ndim is not None:
            return self.event_ndim
        batched = (self.shapes.get(role) for role in ("mean", "logits", "x"))
        return min(len(shape) for shape in batched if shape is not None) - 1


def case_of(operator: str, shape: Shape, *, prior: bool = False, **fields: Any) -> Case:
    """The case whose arguments all have one shape, those of a prior only if asked for."""
    return Case(operator, dict.fromkeys(roles_of(operator, prior=prior), shape), **fields)


def roles_of(operator: str, *, prior: bool = False) -> tuple[str, ...]:
    """The roles of the operator's arguments, those of a prior only if asked for."""
    return tuple(role for role in ROLES[operator] if prior or not role.startswith("prior"))


def widen(kwargs: dict[str, Any], dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """The same arguments with every floating tensor in `dtype`, and no longer part of a graph."""
    return {
        name: value.detach().to(dtype).requires_grad_(value.requires_grad)
        if isinstance(value, Tensor) and value.is_floating_point()
        else value
        for name, value in kwargs.items()
    }


def as_tuple(result: Result) -> tuple[Tensor, ...]:
    """The operator's outputs, one or two."""
    return result if isinstance(result, tuple) else (result,)


def cotangents(outputs: tuple[Tensor, ...], seed: int = 1) -> tuple[Tensor, ...]:
    """One random gradient per output, in its dtype."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(output.shape, dtype=torch.float64, generator=generator, device="cpu")
        .to(output.dtype)
        .to(output.device)
        for output in outputs
    )


def select(*operators: str, **fields: Any) -> list[Case]:
    """The registered cases of these operators (all, if none is named) whose fields have these values."""
    return [
        case
        for case in CASES
        if (not operators or case.operator in operators)
        and all(getattr(case, name) == value for name, value in fields.items())
    ]


def from_log_var(log_var: Tensor, kind: ScaleKind) -> Tensor:
    """The scale of this log-variance in the parameterisation `kind`."""
    if kind == "log_var":
        return log_var
    if kind == "log_std":
        return 0.5 * log_var
    return (0.5 * log_var).exp() if kind == "std" else log_var.exp()


_SCALE_SHAPES: tuple[Shape, ...] = ((2, 3), (3,), ())
_PRIORS: tuple[dict[str, Shape], ...] = (
    {},
    {"prior_mean": (2, 3), "prior_scale": (2, 3)},
    {"prior_mean": (2, 3)},
    {"prior_scale": (2, 3)},
    {"prior_mean": (3,), "prior_scale": (3,)},
)


_HEAVY_TAILED: tuple[Standard, ...] = ("cauchy", "laplace")


def _gradcheck_cases() -> Iterator[Case]:
    """Few elements, every parameterisation, prior and number of samples."""
    small: dict[str, Shape | None] = {"mean": (2, 3), "scale": (2, 3)}
    shapes: Mapping[str, Shape | None]
    for kind in SCALE_KINDS:
        for num_samples in (None, 2):
            yield Case("normal_rsample", small, kind, num_samples, gradcheck=True)
        for prior in _PRIORS:
            yield Case("normal_kl", small | prior, kind, gradcheck=True)
        for operator, prior, num_samples in itertools.product(SAMPLERS[1:], _PRIORS[:2], (None, 2)):
            yield Case(operator, small | prior, kind, num_samples, gradcheck=True)
        for scale in _SCALE_SHAPES:
            shapes = {"mean": (2, 3), "scale": scale, "x": (2, 3)}
            yield Case("normal_log_prob", shapes, kind, gradcheck=True)
    for operator, scale, num_samples in itertools.product(SAMPLERS, _SCALE_SHAPES[1:], (None, 2)):
        yield Case(operator, {"mean": (2, 3), "scale": scale}, num_samples=num_samples, gradcheck=True)
    for scale in _SCALE_SHAPES[1:]:
        yield Case("normal_kl", {"mean": (2, 3), "scale": scale, "prior_scale": ()}, gradcheck=True)
    for operator in SAMPLERS[1:]:
        for prior in _PRIORS[2:]:
            yield Case(operator, small | prior, num_samples=2, gradcheck=True)
    for shapes in (
        {"mean": (2, 3), "scale": (2, 3), "x": (2, 2, 3)},
        {"mean": (2, 2, 3), "scale": (3,), "x": (2, 3)},
    ):
        yield Case("normal_log_prob", shapes, gradcheck=True)
    for shapes in (
        {"logits": (2, 3), "x": (2, 3)},
        {"logits": (2, 2, 3), "x": (2, 3)},
        {"logits": (2, 3), "x": (2, 2, 3)},
        {"logits": (2, 1, 3), "x": (1, 2, 3)},
    ):
        yield Case("bernoulli_log_prob", shapes, event_ndim=1, gradcheck=True)


def _shape_cases() -> Iterator[Case]:
    """Sizes around the vector's and the chunks', events of several dims or none, empty ones, broadcasting."""
    sizes = (
        (5, 1),
        (5, 3),
        (3, 16),
        (3, 17),
        (7, 20),
        (33, 64),
        (2, 65),
        (4, 784),
        (3, 1025),
        (3, 2, 3, 5),
        (6,),
    )
    for shape in (*sizes, (0, 7), (5, 0), (0, 0), (2, 0, 3)):
        yield Case("bernoulli_log_prob", {"logits": shape, "x": shape})
        yield Case("normal_log_prob", {"mean": shape, "scale": shape, "x": shape})
        yield Case("normal_kl", {"mean": shape, "scale": shape})
        for operator in SAMPLERS:
            yield Case(operator, {"mean": shape, "scale": shape})
            yield Case(operator, {"mean": shape, "scale": shape}, num_samples=3, first_row=11, stream=2)
    for operator in SAMPLERS[1:]:
        yield Case(
            operator,
            {"mean": (4, 35), "scale": (4, 35), "prior_mean": (35,), "prior_scale": ()},
            num_samples=1,
        )
        yield Case(operator, {"mean": (4, 35), "scale": (4, 35), "prior_mean": (4, 35), "prior_scale": None})
    for operator in ("normal_kl", *SAMPLERS):
        yield Case(operator, {"mean": (4, 35), "scale": ()})
        yield Case(operator, {"mean": (4, 35), "scale": None})
        yield Case(operator, {"mean": (4, 5, 7), "scale": (5, 7)})
        yield Case(operator, {"mean": (3, 1, 35), "scale": (4, 35)}, event_ndim=1)
        yield Case(operator, {"mean": (4, 35), "scale": (4, 35)}, event_ndim=2)
        yield Case(operator, {"mean": (4, 35), "scale": (4, 35)}, event_ndim=0)
    for event, scale in (
        ((37,), (4, 37)),
        ((37,), (37,)),
        ((37,), ()),
        ((37,), None),
        ((3, 5, 2), (3, 5, 2)),
    ):
        yield Case("normal_log_prob", {"mean": (3, 4, *event), "scale": scale, "x": (4, *event)})
        yield Case("normal_log_prob", {"mean": (4, *event), "scale": scale, "x": (3, 4, *event)})
    for event in ((37,), (3, 5, 2)):
        yield Case("bernoulli_log_prob", {"logits": (3, 4, *event), "x": (4, *event)})
        yield Case("bernoulli_log_prob", {"logits": (4, *event), "x": (3, 4, *event)})
        yield Case("bernoulli_log_prob", {"logits": (3, 1, *event), "x": (1, 4, *event)}, event_ndim=len(event))
        yield Case("bernoulli_log_prob", {"logits": (2, 3, 4, *event), "x": (4, *event)})
    for dtype in (torch.bool, torch.uint8, torch.float64, torch.float32, torch.bfloat16, torch.float16):
        yield Case("bernoulli_log_prob", {"logits": (4, 99), "x": (4, 99)}, x_dtype=dtype)
        yield Case("bernoulli_log_prob", {"logits": (3, 4, 99), "x": (4, 99)}, x_dtype=dtype)
    for dtype in (torch.float64, torch.bfloat16, torch.uint8):
        yield Case("normal_log_prob", {"mean": (4, 99), "scale": (4, 99), "x": (4, 99)}, x_dtype=dtype)


def _layout_cases() -> Iterator[Case]:
    """Inputs that are not contiguous."""
    layouts: tuple[Layout, ...] = ("strided_rows", "sparse_event", "permuted_event", "expanded")
    for layout, event in itertools.product(layouts, ((21,), (3, 4, 5))):
        if layout == "permuted_event" and len(event) == 1:
            continue
        shape = (6, *event)
        yield Case("bernoulli_log_prob", {"logits": shape, "x": shape}, layout=layout)
        yield Case("bernoulli_log_prob", {"logits": (3, *shape), "x": shape}, layout=layout)
        yield Case("normal_log_prob", {"mean": shape, "scale": shape, "x": (3, *shape)}, layout=layout)
        yield Case("normal_kl", {"mean": shape, "scale": shape, "prior_mean": shape}, layout=layout)
        for operator in SAMPLERS:
            yield Case(operator, {"mean": shape, "scale": shape}, num_samples=2, layout=layout)


def _value_cases() -> Iterator[Case]:
    """The extremes, and long rows."""
    extremes: tuple[Values, ...] = ("extreme", "saturated")
    for values, x_dtype, shape in itertools.product(extremes, (None, torch.bool), ((8, 784), (3, 70001))):
        yield Case("bernoulli_log_prob", {"logits": shape, "x": shape}, values=values, x_dtype=x_dtype)
    for kind in SCALE_KINDS:
        shapes: dict[str, Shape | None] = {"mean": (8, 301), "scale": (8, 301)}
        prior = shapes | {"prior_mean": (8, 301), "prior_scale": (8, 301)}
        yield Case("normal_log_prob", shapes | {"x": (8, 301)}, kind, values="extreme")
        for operator in ("normal_kl", *SAMPLERS):
            yield Case(operator, shapes, kind)
            yield Case(operator, shapes, kind, values="extreme")
            yield Case(operator, shapes, kind, values="collapsed")
        for operator in ("normal_kl", *SAMPLERS[1:]):
            yield Case(operator, prior, kind)
            yield Case(operator, prior, kind, values="collapsed")
    long = (1, 1_000_003)
    yield Case("bernoulli_log_prob", {"logits": long, "x": long})
    yield Case("normal_log_prob", {"mean": long, "scale": (), "x": long})
    yield Case("normal_kl", {"mean": long, "scale": long})
    yield Case("normal_rsample_log_ratio", {"mean": long, "scale": long})


def _location_scale_cases() -> Iterator[Case]:
    """The loops are those of `normal_rsample`: what is new is epsilon, and the names."""
    kinds: tuple[ScaleKind, ...] = ("std", "log_std")
    for standard, kind in zip(STANDARDS, itertools.cycle(kinds), strict=False):
        yield Case(LOCATION_SCALE, {"mean": (2, 3), "scale": (2, 3)}, kind, standard=standard, gradcheck=True)
        yield Case(LOCATION_SCALE, {"mean": (8, 301), "scale": (8, 301)}, kind, standard=standard)
        yield Case(LOCATION_SCALE, {"mean": (5, 20), "scale": (20,)}, kind, standard=standard, num_samples=3, stream=2)
    for kind, scale in itertools.product(kinds, _SCALE_SHAPES):
        yield Case(LOCATION_SCALE, {"mean": (2, 3), "scale": scale}, kind, num_samples=2, gradcheck=True)
    for kind, extreme in zip(kinds, _HEAVY_TAILED, strict=True):
        yield Case(LOCATION_SCALE, {"mean": (8, 301), "scale": (8, 301)}, kind, standard=extreme, values="extreme")
    for shape in ((5, 3), (4, 784), (3, 1025), (6,), (5, 0), (0, 7)):
        yield Case(LOCATION_SCALE, {"mean": shape, "scale": shape})
        yield Case(LOCATION_SCALE, {"mean": shape, "scale": shape}, num_samples=3, first_row=11)
    yield Case(LOCATION_SCALE, {"mean": (4, 35), "scale": None})
    yield Case(LOCATION_SCALE, {"mean": (3, 1, 35), "scale": (4, 35)}, event_ndim=1)
    yield Case(LOCATION_SCALE, {"mean": (6, 3, 4, 5), "scale": (6, 3, 4, 5)}, num_samples=2, layout="strided_rows")


def _unique(cases: Iterator[Case]) -> tuple[Case, ...]:
    return tuple({case.id: case for case in cases}.values())


CASES = _unique(
    itertools.chain(_gradcheck_cases(), _shape_cases(), _layout_cases(), _value_cases(), _location_scale_cases())
)

"""The families beside what SciPy has of them: the registry of their tests."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from vae_ext.aevb import families
from vae_ext.aevb.families import Family


@dataclass(frozen=True)
class FamilyCase:
    """One family at some parameters.

    `parameters` are the keyword arguments that are differentiable, `fixed` those that are not; `scipy` makes the same
    distribution of both. `exact` says whether a draw is F^-1(u) for fixed u, so that its gradient is the implicit one.
    """

    name: str
    make: Callable[..., Family]
    parameters: dict[str, float]
    scipy: Callable[..., Any]
    fixed: dict[str, Any]
    exact: bool = True

    @property
    def id(self) -> str:
        values = ",".join(f"{name}={value:g}" for name, value in self.parameters.items())
        return f"{self.name}-{values}"

    def tensors(self, *shape: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
        """The differentiable parameters."""
        return {name: torch.full(shape, value, dtype=dtype) for name, value in self.parameters.items()}

    def family(self, *shape: int, dtype: torch.dtype = torch.float64) -> Family:
        return self.make(**self.tensors(*shape, dtype=dtype), **self.fixed)

    def distribution(self, **changes: float) -> Any:
        return self.scipy(**self.parameters | self.fixed | changes)


def _case(make: Callable[..., Family], scipy: Callable[..., Any], exact: bool = True, **parameters: Any) -> FamilyCase:
    fixed = {name: value for name, value in parameters.items() if not isinstance(value, float)}
    differentiable = {name: value for name, value in parameters.items() if isinstance(value, float)}
    return FamilyCase(make.__name__, make, differentiable, scipy, fixed, exact)


def _located(distribution: Any) -> Callable[..., Any]:
    return lambda loc, scale: distribution(loc, scale)


LOCATION_SCALE = [
    _case(make, _located(distribution), loc=-0.7, scale=1.3)
    for make, distribution in (
        (families.Normal, stats.norm),
        (families.Laplace, stats.laplace),
        (families.Logistic, stats.logistic),
        (families.Gumbel, stats.gumbel_r),
        (families.Cauchy, stats.cauchy),
    )
]
INTERVALS = [
    _case(families.Uniform, lambda low, high: stats.uniform(low, high - low), low=-1.5, high=0.8),
    _case(families.Triangular, lambda low, high: stats.triang(0.5, low, high - low), low=-1.5, high=0.8),
]
STUDENT_T = [_case(families.StudentT, stats.t, exact=False, df=df, loc=0.4, scale=0.6) for df in (2.5, 7.0, 60.0)]
INVERSE_CDF = [
    _case(families.Exponential, lambda rate: stats.expon(scale=1 / rate), rate=0.6),
    _case(families.Rayleigh, lambda scale: stats.rayleigh(scale=scale), scale=1.7),
    _case(families.Pareto, lambda alpha, scale: stats.pareto(alpha, scale=scale), alpha=3.5, scale=0.9),
    *(
        _case(
            families.Weibull,
            lambda concentration, scale: stats.weibull_min(concentration, scale=scale),
            concentration=concentration,
            scale=2.0,
        )
        for concentration in (0.8, 3.0)
    ),
    _case(families.Reciprocal, lambda low, high: stats.reciprocal(low, high), low=0.2, high=5.0),
    *(
        _case(families.Gompertz, lambda shape, rate: stats.gompertz(shape, scale=1 / rate), shape=shape, rate=1.8)
        for shape in (0.02, 1.5)
    ),
    _case(families.Erlang, lambda shape, rate: stats.erlang(shape, scale=1 / rate), exact=False, shape=4, rate=2.5),
]
COMPOSITION = [
    _case(
        families.LogNormal,
        lambda loc, scale: stats.lognorm(scale, scale=math.exp(loc)),
        loc=0.3,
        scale=0.5,
    ),
    *(
        _case(
            families.Gamma,
            lambda concentration, rate: stats.gamma(concentration, scale=1 / rate),
            exact=concentration >= 1,
            concentration=concentration,
            rate=1.6,
        )
        for concentration in (0.3, 1.0, 2.7, 40.0)
    ),
    _case(families.ChiSquared, stats.chi2, df=5.0),
    _case(families.ChiSquared, stats.chi2, exact=False, df=0.8),
    _case(families.Beta, stats.beta, exact=False, a=0.6, b=2.2),
    _case(families.Beta, stats.beta, exact=False, a=4.0, b=3.0),
    _case(families.F, lambda df1, df2: stats.f(df1, df2), exact=False, df1=3.0, df2=11.0),
]
CASES = [*LOCATION_SCALE, *INTERVALS, *STUDENT_T, *INVERSE_CDF, *COMPOSITION]


def draws(case: FamilyCase, dtype: torch.dtype, rows: int, size: int) -> Tensor:
    """Rows of independent draws."""
    return case.family(rows, size, dtype=dtype).rsample(rng_state=torch.tensor([20131220, 6114])).detach()

"""Distributions whose samples are differentiable functions of their parameters (Kingma & Welling 2013, section 2.4).

Each class has `rsample`, `log_prob`, `mean` and `variance`; any can be a model's posterior through estimator A.
"""

from vae_ext.aevb.families.composition import Beta, ChiSquared, Dirichlet, F, Gamma, LogNormal
from vae_ext.aevb.families.family import Family
from vae_ext.aevb.families.inverse_cdf import (
    Cauchy,
    Erlang,
    Exponential,
    Gompertz,
    Gumbel,
    Pareto,
    Rayleigh,
    Reciprocal,
    Weibull,
)
from vae_ext.aevb.families.location_scale import (
    Elliptical,
    Laplace,
    LocationScale,
    Logistic,
    Normal,
    StudentT,
    Triangular,
    Uniform,
)

__all__ = [
    "Beta",
    "Cauchy",
    "ChiSquared",
    "Dirichlet",
    "Elliptical",
    "Erlang",
    "Exponential",
    "F",
    "Family",
    "Gamma",
    "Gompertz",
    "Gumbel",
    "Laplace",
    "LocationScale",
    "LogNormal",
    "Logistic",
    "Normal",
    "Pareto",
    "Rayleigh",
    "Reciprocal",
    "StudentT",
    "Triangular",
    "Uniform",
    "Weibull",
]

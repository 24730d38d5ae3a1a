"""A linear-Gaussian model, whose bound, gradients and gradient variances are known exactly.

    p(z) = N(0, I),   p(x given z) = N(W z + b, exp(t) I),   q(z given x) = N(m, diag(exp(v)))

Every row has parameters of its own, so that one call of an estimator gives as many independent gradients as rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from vae_ext import ops
from vae_ext.aevb import Gaussian

LOG_2_PI = math.log(2 * math.pi)


@dataclass
class LinearGaussian:
    """A `vae_ext.aevb.Model` that knows the answers.

    Attributes:
        m, v: `[B, J]`, mean and log_var of q.
        weight: `[B, D, J]`.
        bias: `[B, D]`.
        t: `[B, 1]`, log_var of x.
    """

    m: Tensor
    v: Tensor
    weight: Tensor
    bias: Tensor
    t: Tensor

    def encode(self, x: Tensor) -> Gaussian:
        return Gaussian(self.m, self.v)

    def log_likelihood(self, z: Tensor, x: Tensor) -> Tensor:
        mean = torch.einsum("bdj,lbj->lbd", self.weight, z) + self.bias
        return ops.normal_log_prob(mean, self.t.expand_as(self.bias), x)

    def parameters(self) -> dict[str, Tensor]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def rows(self, count: int) -> LinearGaussian:
        """The same model in every one of `count` rows, from the first, to be differentiated."""
        repeated = (value[:1].detach().expand(count, *value.shape[1:]) for value in self.parameters().values())
        return LinearGaussian(*(value.clone().requires_grad_() for value in repeated))

    def bound(self, x: Tensor) -> Tensor:
        """L(x), `[B]`: the expected squared error is that at the mean and the variance that W spreads."""
        reach = self.weight.square().sum(1)
        squares = self._residual(x).square().sum(-1) + (self.v.exp() * reach).sum(-1)
        log_likelihood = -0.5 * (x.shape[-1] * (LOG_2_PI + self.t[:, 0]) + squares / self.t[:, 0].exp())
        return log_likelihood + 0.5 * (1 + self.v - self.m.square() - self.v.exp()).sum(-1)

    def log_marginal(self, x: Tensor) -> Tensor:
        """log p(x) = log N(x; b, W W^T + exp(t) I), `[B]`."""
        noise = self.t.exp().unsqueeze(2) * torch.eye(x.shape[-1], dtype=x.dtype)
        log_p: Tensor = MultivariateNormal(self.bias, self.weight @ self.weight.mT + noise).log_prob(x)
        return log_p

    def gradients(self, x: Tensor) -> dict[str, Tensor]:
        """The gradient of the bound in every parameter."""
        residual, precision = self._residual(x), (-self.t).exp()
        reach = self.weight.square().sum(1)
        spread = self.weight * self.v.exp().unsqueeze(1)
        squares = residual.square().sum(-1, keepdim=True) + (self.v.exp() * reach).sum(-1, keepdim=True)
        outer = residual.unsqueeze(2) * self.m.unsqueeze(1)
        return {
            "m": torch.einsum("bdj,bd->bj", self.weight, residual) * precision - self.m,
            "v": 0.5 * (1 - self.v.exp() - self.v.exp() * reach * precision),
            "weight": (outer - spread) * precision.unsqueeze(2),
            "bias": residual * precision,
            "t": 0.5 * (squares * precision - x.shape[-1]),
        }

    def _residual(self, x: Tensor) -> Tensor:
        return x - torch.einsum("bdj,bj->bd", self.weight, self.m) - self.bias


def example() -> tuple[LinearGaussian, Tensor]:
    """One row: D = 3, J = 2, all in float64."""
    generator = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> Tensor:
        return torch.randn(1, *shape, generator=generator, dtype=torch.float64)

    model = LinearGaussian(m=normal(2), v=normal(2) - 1, weight=normal(3, 2), bias=normal(3), t=normal(1) * 0.3)
    return model, normal(3)


def recognised_example(rows: int, data_dim: int, latent_dim: int) -> tuple[LinearGaussian, Tensor]:
    """Rows of different models and their x, with q near p(z given x) = N(S W^T (x - b) / exp(t), S), a little wider.

    S^-1 = I + W^T W / exp(t).
    """
    generator = torch.Generator().manual_seed(6)

    def normal(*shape: int) -> Tensor:
        return torch.randn(rows, *shape, generator=generator, dtype=torch.float64)

    weight, bias, t, z = normal(data_dim, latent_dim), normal(data_dim), 0.3 * normal(1), normal(latent_dim)
    x = (weight @ z.unsqueeze(2)).squeeze(2) + bias + (0.5 * t).exp() * normal(data_dim)
    precision = torch.eye(latent_dim, dtype=torch.float64) + weight.mT @ weight / t.exp().unsqueeze(2)
    covariance = precision.inverse()
    mean = (covariance @ weight.mT @ (x - bias).unsqueeze(2)).squeeze(2) / t.exp()
    v = covariance.diagonal(dim1=1, dim2=2).log() + 0.3
    return LinearGaussian(m=mean + 0.05 * normal(latent_dim), v=v, weight=weight, bias=bias, t=t), x


def scalar_example() -> tuple[LinearGaussian, Tensor]:
    """One row with D = J = 1, for `gradient_variances`."""
    values = {"m": 0.7, "v": -0.5, "bias": 0.2, "t": -1.0}
    tensors = {name: torch.tensor([[value]], dtype=torch.float64) for name, value in values.items()}
    weight = torch.tensor([[[1.3]]], dtype=torch.float64)
    return LinearGaussian(weight=weight, **tensors), torch.tensor([[1.6]], dtype=torch.float64)


def gradient_variances(model: LinearGaussian, x: Tensor) -> dict[str, float]:
    """The variance of each estimator's gradient in m with L = 1, for D = J = 1 and z = m + s epsilon.

    That of SGVB is linear in epsilon: w (x - w z - b) / exp(t) - m, or - z for estimator A. The score function's is
    f(z) epsilon / s, where f is the quadratic c0 + c1 epsilon + c2 epsilon^2; the moments of epsilon are 1, 3 and 15.
    """
    m, w, b, s, var = (
        value.item() for value in (model.m, model.weight, model.bias, (0.5 * model.v).exp(), model.t.exp())
    )
    residual = x.item() - w * m - b
    c0 = -0.5 * (math.log(var) + residual**2 / var + m**2) + math.log(s) - 0.5 * LOG_2_PI
    c1 = w * s * residual / var - m * s
    c2 = -0.5 * (w**2 * s**2 / var + s**2 - 1)
    return {
        "sgvb_a": s**2 * (w**2 / var + 1) ** 2,
        "sgvb_b": s**2 * (w**2 / var) ** 2,
        "score_function": (c0**2 + 3 * c1**2 + 15 * c2**2 + 6 * c0 * c2 - c1**2) / s**2,
    }

"""Kernel density estimates of many sets of a few draws at once, one set for each datapoint."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vae_ext.reference import LOG_2_PI

# Ten, as in the authors' own code. From 1 up kernels would be as wide as what they are to describe.
BANDWIDTHS = tuple(0.1 ** (1 - index / 9) for index in range(10))


class KernelDensity:
    """q_b(z) = 1/n sum_i N(z; z_bi, h_b^2 S_b) of draws `[n, B, J]`, S_b their covariance, for each of B sets.

    The bandwidth h_b is the one of `BANDWIDTHS` under which each draw is likeliest given the other n - 1. Of draws that
    lie in a plane, or all in one place, the density is NaN.

    Attributes:
        bandwidth: `[B]`.
    """

    def __init__(self, draws: Tensor) -> None:
        draws = draws.double().movedim(0, 1)
        _, self._count, self._dim = draws.shape
        self._mean = draws.mean(1, keepdim=True)
        centred = draws - self._mean
        covariance = centred.mT @ centred / (self._count - 1)
        self._factor, singular = torch.linalg.cholesky_ex(covariance)
        self._factor[singular != 0] = torch.nan
        self._draws = self._whitened(draws)
        self.bandwidth = self._best_bandwidth()

    def log_prob(self, z: Tensor) -> Tensor:
        """log q_b(z_b) in nats, `[M, B, J]` to `[M, B]`."""
        squares = _squared_distances(self._whitened(z.double().movedim(0, 1)), self._draws)
        return self._log_mean(squares, self.bandwidth.view(-1, 1), self._count).mT

    def _whitened(self, z: Tensor) -> Tensor:
        """So that the covariance of the draws is I: `[B, M, J]`."""
        solved: Tensor = torch.linalg.solve_triangular(self._factor, (z - self._mean).mT, upper=False)
        return solved.mT

    def _best_bandwidth(self) -> Tensor:
        squares = _squared_distances(self._draws, self._draws)
        # No draw speaks for itself.
        squares.diagonal(dim1=1, dim2=2).fill_(torch.inf)
        bandwidths = squares.new_tensor(BANDWIDTHS)
        left_out = [self._log_mean(squares, bandwidth, self._count - 1).sum(1) for bandwidth in bandwidths]
        return bandwidths.take(torch.stack(left_out).argmax(0))

    def _log_mean(self, squares: Tensor, bandwidth: Tensor, count: int) -> Tensor:
        """The logarithm of the mean of the kernels at squared distances `[B, M, n]` from them: `[B, M]`."""
        log_sum = (-0.5 * squares / bandwidth.unsqueeze(-1).square()).logsumexp(-1)
        log_volume = self._factor.diagonal(dim1=1, dim2=2).log().sum(1, keepdim=True)
        log_mean: Tensor = log_sum - math.log(count) - self._dim * (0.5 * LOG_2_PI + bandwidth.log()) - log_volume
        return log_mean


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Between all rows: `[B, M, J]` and `[B, n, J]` to `[B, M, n]`."""
    return (a.unsqueeze(2) - b.unsqueeze(1)).square().sum(-1)

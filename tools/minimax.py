"""The polynomial coefficients of csrc/math/elementary.h: ``python tools/minimax.py`` prints them.

Each is a weighted least-squares fit on Chebyshev nodes (within a few per cent of the minimax polynomial), rounded to
float32. The error printed is that of the rounded polynomial, evaluated exactly.
"""

from collections.abc import Callable
from dataclasses import dataclass

import mpmath as mp
import numpy as np
from numpy.typing import NDArray

mp.mp.dps = 40
Real = Callable[[mp.mpf], mp.mpf]


def exp_tail(r: mp.mpf) -> mp.mpf:
    """(e^r - 1 - r) / r^2."""
    return mp.hyp1f1(1, 3, r) / 2


def log_tail(f: mp.mpf) -> mp.mpf:
    """(f - log(1 + f)) / f^2."""
    return (f - mp.log1p(f)) / f**2


def sin_tail(s: mp.mpf) -> mp.mpf:
    """(sin(pi r) / r - pi) / r^2, s = r^2."""
    r = mp.sqrt(s)
    return (mp.sinpi(r) / r - mp.pi) / s


def cos_tail(s: mp.mpf) -> mp.mpf:
    """(cos(pi r) - 1) / r^2, s = r^2."""
    return (mp.cospi(mp.sqrt(s)) - 1) / s


@dataclass(frozen=True)
class Target:
    """A polynomial for ``f`` on [low, high] that keeps ``|p - f| * weight`` small."""

    f: Real
    weight: Real
    low: float
    high: float
    degree: int

    def nodes(self, count: int) -> list[mp.mpf]:
        centre, radius = (self.low + self.high) / 2, (self.high - self.low) / 2
        return [centre + radius * mp.cos(mp.pi * (k + mp.mpf("0.5")) / count) for k in range(count)]

    def fit(self) -> NDArray[np.float32]:
        """Float32 coefficients, lowest degree first."""
        nodes = self.nodes(400)
        weights = np.array([float(self.weight(x)) for x in nodes])
        values = np.array([float(self.f(x)) for x in nodes])
        powers = np.vander(np.array([float(x) for x in nodes]), self.degree + 1, increasing=True)
        solution, *_ = np.linalg.lstsq(powers * weights[:, None], values * weights, rcond=None)
        coefficients: NDArray[np.float32] = solution.astype(np.float32)
        return coefficients

    def error(self, coefficients: NDArray[np.float32]) -> float:
        exact = [mp.mpf(float(c)) for c in coefficients[::-1]]
        return float(max(abs((mp.polyval(exact, x) - self.f(x)) * self.weight(x)) for x in self.nodes(3001)))


def exp2_slope(f: mp.mpf) -> mp.mpf:
    """(2^f - 1) / f."""
    return mp.expm1(f * mp.log(2)) / f


HALF_LN2 = 0.3467
TARGETS = (
    Target(exp_tail, lambda r: 1 / exp_tail(r), -HALF_LN2, HALF_LN2, 5),
    Target(exp2_slope, lambda f: abs(f) / mp.power(2, f), -0.5, 0.5, 5),
    Target(log_tail, lambda f: 1 / log_tail(f), 0.7071 - 1, 1.4143 - 1, 8),
    Target(sin_tail, lambda s: s, 1e-9, 1 / 16, 3),
    Target(cos_tail, lambda s: s, 1e-9, 1 / 16, 3),
)

if __name__ == "__main__":
    for target in TARGETS:
        coefficients = target.fit()
        print(f"{target.f.__name__}: error {target.error(coefficients):.2e}")
        print("  " + ", ".join(f"{float(c)!r}f" for c in coefficients))

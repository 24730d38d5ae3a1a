"""The elementary functions of csrc/math/elementary.h and the conversions of half precision, over all of float32.

Errors are in ulp of the exact result: the spacing of float32 numbers in its binade, that of the denormals
below the normal range. `python -m tests.test_elementary` prints digests of everything, to compare instruction
sets by.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import mpmath
import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import special
from torch import Tensor

import vae_ext
from tests.capabilities import CAPABILITIES, digests_under
from vae_ext.arguments import ScaleKind

pytestmark = pytest.mark.cpu_only("calls csrc/math on the CPU")

Floats: TypeAlias = npt.NDArray[np.float32]
Doubles: TypeAlias = npt.NDArray[np.float64]

HALF_TYPES = (torch.bfloat16, torch.float16)

# Every so many of the 2^32 bit patterns; primes, so that all exponents and all low bits are met.
SWEEP_STRIDE, DIGEST_STRIDE = 257, 8209
CHUNK = 1 << 20


def expm1_minus_x(x: Doubles) -> Doubles:
    """e^x - 1 - x; where it cancels, its series."""
    near = np.where(np.abs(x) < 1, x, 0.0)
    series = np.zeros_like(near)
    for k in range(22, 2, -1):
        series = near / k * (1 + series)
    far = np.where(x == np.inf, x, np.expm1(x) - x)
    return np.where(np.abs(x) < 1, near * near / 2 * (1 + series), far)


def minus_log(ratio: Doubles) -> Doubles:
    """ratio - 1 - ln ratio; where it cancels, its series."""
    t = np.where(np.abs(ratio - 1) < 0.3, ratio - 1, 0.0)
    series = np.zeros_like(t)
    for k in range(40, 1, -1):
        series = 1 / k - t * series
    return np.where(t != 0, t * t * series, ratio - 1 - np.log(ratio))


def sincospi(x: Doubles) -> tuple[Doubles, Doubles]:
    """sin(pi x) and cos(pi x), reduced exactly to |r| <= 1/4."""
    turn = np.fmod(x, 2.0)
    quarters = np.rint(2 * turn)
    angle = np.pi * (turn - quarters / 2)
    sin, cos = np.sin(angle), np.cos(angle)
    quadrant = np.nan_to_num(quarters).astype(np.int64) & 3
    return np.choose(quadrant, [sin, cos, -sin, -cos]), np.choose(quadrant, [cos, -sin, -cos, sin])


# The bounds are those that csrc/math/elementary.h states.
FUNCTIONS: dict[str, tuple[Callable[[Doubles], Doubles], float]] = {
    "exp": (np.exp, 1.0),
    "expm1": (np.expm1, 1.5),
    "expm1_minus_x": (expm1_minus_x, 10.0),
    "log": (np.log, 1.0),
    "log1p": (np.log1p, 1.6),
    "sigmoid": (special.expit, 2.5),
    "sinpi": (lambda x: sincospi(x)[0], 1.0),
    "cospi": (lambda x: sincospi(x)[1], 1.0),
}
# Its square underflows before the result does.
SMALLEST_RESULT = {"expm1_minus_x": 2.0**-124}
# Where the largest errors over all 2^32 arguments were found.
WORST_ARGUMENTS = [0.446398646, 0.352380395, 0.697116375, 0.251429439, -4.1572938, 1.06980848, 0.697454774]
EXACT: dict[str, Callable[[mpmath.mpf], mpmath.mpf]] = {
    "exp": mpmath.exp,
    "expm1": mpmath.expm1,
    "expm1_minus_x": lambda x: mpmath.expm1(x) - x,
    "log": mpmath.log,
    "log1p": mpmath.log1p,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "sinpi": mpmath.sinpi,
    "cospi": mpmath.cospi,
}


def floats_of(bits: npt.NDArray[np.integer]) -> Floats:
    return bits.astype(np.uint32).view(np.float32)


def sweep(stride: int) -> Iterator[Floats]:
    """Every `stride`-th bit pattern, in chunks: both signs, denormals, infinities and NaNs among them."""
    for start in range(0, 2**32, stride * CHUNK):
        yield floats_of(np.arange(start, min(start + stride * CHUNK, 2**32), stride, dtype=np.int64))


def neighbourhoods() -> Floats:
    """Every float32 within 256 of the places where the code, or the shape of a function, changes."""
    reductions = (np.arange(-152, 131) + 0.5) * math.log(2)
    binades = np.outer(2.0 ** np.arange(-149, 128), [1.0, math.sqrt(0.5), 1.5]).ravel()
    quarter_turns = np.arange(0, 33) / 8
    clamps = [20, 89, 104, 88.72284, 87.33655, 103.97208, 16.6355, 17.32868, 0.28, 2.98023224e-8]
    near_one = [1.0, math.sqrt(0.5) - 1, math.sqrt(2) - 1, 3.4028235e38, np.inf]
    places = np.concatenate([reductions, binades, quarter_turns, clamps, near_one, WORST_ARGUMENTS]).astype(np.float32)
    around = places.view(np.int32).astype(np.int64)[:, None] + np.arange(-256, 257)
    return floats_of(np.unique(np.concatenate([around, around ^ (1 << 31)]) & 0xFFFFFFFF))


def evaluate(name: str, x: Floats, *, scalar: bool = False) -> Floats:
    """The function under test: 16 lanes at a time, or the scalar code, which is that of a CUDA thread."""
    result: Tensor = torch.ops.vae_ext._elementary(torch.from_numpy(x), name, scalar)
    return result.numpy()


def ulp_error(actual: Floats, expected: Doubles, smallest: float = 2.0**-126) -> Doubles:
    """|actual - expected| in ulp of `expected`, or of `smallest` below it.

    An infinity is right wherever float32 has overflowed.
    """
    binade = np.abs(expected).view(np.int64) & 0x7FF0000000000000
    ulp = (np.maximum(binade, np.float64(smallest).view(np.int64)) - (23 << 52)).view(np.float64)
    overflowed = np.isinf(actual) & (np.abs(expected) >= 2.0**128 - 2.0**103) & (actual * expected > 0)
    same_nan = np.isnan(actual) & np.isnan(expected)
    error: Doubles = np.where(overflowed | same_nan, 0.0, np.abs(actual - expected) / ulp)
    return np.where(np.isnan(error), np.inf, error)


def canonical(x: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """A copy in which every NaN has the same bits."""
    return np.where(np.isnan(x), np.array(np.nan, dtype=x.dtype), x)


def assert_same_bits(actual: Tensor, expected: Tensor) -> None:
    integers = {2: torch.int16, 4: torch.int32}[actual.element_size()]
    assert actual.dtype == expected.dtype
    assert torch.equal(actual.isnan(), expected.isnan())
    assert torch.equal(
        torch.where(actual.isnan(), 0.0, actual).view(integers),
        torch.where(expected.isnan(), 0.0, expected).view(integers),
    )


@np.errstate(all="ignore")
def worst_error(name: str, x: Floats) -> tuple[float, float]:
    """The largest error among `x`, in ulp, and where it is."""
    reference, _ = FUNCTIONS[name]
    smallest = SMALLEST_RESULT.get(name, 2.0**-126)
    error = ulp_error(evaluate(name, x), reference(x.astype(np.float64)), smallest)
    worst = int(error.argmax())
    return float(error[worst]), float(x[worst])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_error_is_below_the_bound_stated(name: str) -> None:
    _, bound = FUNCTIONS[name]
    error, at = max(worst_error(name, x) for x in (neighbourhoods(), *sweep(SWEEP_STRIDE)))
    assert error < bound, f"{error:.3f} ulp at {at!r}"


@pytest.mark.parametrize(("kind", "bound"), [("var", 7.5), ("std", 4.1)])
def test_the_kl_of_a_variance_ratio_near_and_far_from_one(kind: ScaleKind, bound: float) -> None:
    """minus_log_quotient, through the KL of a datapoint of one element."""
    for x in (neighbourhoods(), *sweep(SWEEP_STRIDE * 16)):
        scale = x[(x > 0) & (x < 1e19)]  # a std's square overflows beyond
        wide = scale.astype(np.float64)
        arguments: dict[str, Any] = {"mean": torch.zeros(len(scale), 1), kind: torch.from_numpy(scale)[:, None]}
        kl = vae_ext.normal_kl(**arguments)
        expected = minus_log(wide) / 2 if kind == "var" else minus_log(wide) + (wide - 1) ** 2 / 2
        error = ulp_error(kl.numpy(), expected)
        worst = int(error.argmax())
        assert error[worst] < bound, f"{error[worst]:.3f} ulp at {scale[worst]!r}"


@pytest.mark.parametrize("name", FUNCTIONS)
@np.errstate(all="ignore")
def test_the_float64_reference_is_right(name: str) -> None:
    """Far better than the errors measured by it, at arguments of every size."""
    reference, _ = FUNCTIONS[name]
    x = np.concatenate([neighbourhoods()[::499], np.concatenate(list(sweep(3_000_017)))])
    x = x[np.isfinite(x) & (x > {"log": 0, "log1p": -1}.get(name, -np.inf))]
    with mpmath.workdps(120):
        for argument, value in zip(x.tolist(), reference(x.astype(np.float64)).tolist(), strict=True):
            exact = EXACT[name](mpmath.mpf(argument))
            if 2.0**-1000 < abs(exact) < 2.0**1000:
                assert abs(value - exact) <= abs(exact) * 1e-14, argument


@pytest.mark.parametrize("name", FUNCTIONS)
def test_scalar_and_vector_agree(name: str) -> None:
    for x in (neighbourhoods(), *sweep(DIGEST_STRIDE)):
        scalar, vector = (torch.from_numpy(evaluate(name, x, scalar=scalar)) for scalar in (True, False))
        assert_same_bits(scalar, vector)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 31])
def test_a_part_of_a_vector_is_as_the_whole(name: str, count: int) -> None:
    x = np.linspace(0.1, 3.0, 48, dtype=np.float32)
    assert np.array_equal(evaluate(name, x[:count]), evaluate(name, x)[:count])


INF, NAN, SMALLEST, LARGEST = math.inf, math.nan, 2.0**-149, 3.4028234663852886e38


@pytest.mark.parametrize(
    ("name", "x", "expected"),
    [
        *(("exp", x, y) for x, y in [(0, 1), (-0.0, 1), (INF, INF), (-INF, 0), (SMALLEST, 1), (-LARGEST, 0)]),
        *(("exp", x, y) for x, y in [(LARGEST, INF), (-103.98, 0), (-103.9, SMALLEST), (88.73, INF)]),
        *(("expm1", x, y) for x, y in [(0, 0), (-0.0, 0), (INF, INF), (-INF, -1), (SMALLEST, SMALLEST)]),
        *(("expm1", x, y) for x, y in [(-SMALLEST, -SMALLEST), (LARGEST, INF), (-LARGEST, -1)]),
        *(("expm1_minus_x", x, y) for x, y in [(0, 0), (-0.0, 0), (-INF, INF), (INF, INF), (-LARGEST, LARGEST)]),
        *(("expm1_minus_x", x, y) for x, y in [(LARGEST, INF), (SMALLEST, 0), (2.0**-70, 2.0**-141)]),
        *(("log", x, y) for x, y in [(1, 0), (0, -INF), (-0.0, -INF), (INF, INF), (-INF, NAN), (-1, NAN)]),
        *(("log", x, y) for x, y in [(-SMALLEST, NAN), (SMALLEST, np.float32(-149 * math.log(2)))]),
        *(("log1p", x, y) for x, y in [(0, 0), (-0.0, 0), (-1, -INF), (INF, INF), (-INF, NAN), (-1.5, NAN)]),
        *(("log1p", x, y) for x, y in [(SMALLEST, SMALLEST), (-SMALLEST, -SMALLEST)]),
        *(("sigmoid", x, y) for x, y in [(0, 0.5), (-0.0, 0.5), (INF, 1), (-INF, 0), (LARGEST, 1)]),
        *(("sinpi", x, y) for x, y in [(0, 0), (-0.0, 0), (0.5, 1), (-0.5, -1), (1, 0), (INF, NAN)]),
        *(("sinpi", x, y) for x, y in [(1.5, -1), (1e6 + 0.5, 1), (LARGEST, 0), (-INF, NAN)]),
        *(("cospi", x, y) for x, y in [(0, 1), (0.5, 0), (1, -1), (2.0**24 - 1, -1), (2.0**24, 1)]),
        *(("cospi", x, y) for x, y in [(LARGEST, 1), (SMALLEST, 1), (INF, NAN), (-INF, NAN)]),
        *((name, NAN, NAN) for name in FUNCTIONS),
    ],
)
def test_exact_values(name: str, x: float, expected: float) -> None:
    for scalar in (True, False):
        value = evaluate(name, np.array([x], dtype=np.float32), scalar=scalar)
        assert np.array_equal(value, np.array([expected], dtype=np.float32), equal_nan=True), value


@pytest.mark.parametrize("name", ["expm1", "log1p", "sinpi"])
def test_zero_keeps_its_sign(name: str) -> None:
    zeros = np.array([0.0, -0.0], dtype=np.float32)
    for scalar in (True, False):
        assert np.signbit(evaluate(name, zeros, scalar=scalar)).tolist() == [False, True]


def through_gradient(x: Tensor, to: torch.dtype) -> Tensor:
    """x in another dtype, converted by the native code alone.

    The gradient that normal_log_prob gives a mean of zero, at a std and an incoming gradient of one, is x.
    """
    mean = torch.zeros(1, x.numel(), dtype=to, requires_grad=True)
    log_prob = vae_ext.normal_log_prob(mean, x=x[None], std=torch.ones((), dtype=to))
    (gradient,) = torch.autograd.grad(log_prob, mean, torch.ones_like(log_prob))
    return gradient[0]


def all_halves(dtype: torch.dtype) -> Tensor:
    return torch.arange(-(2**15), 2**15, dtype=torch.int16).view(dtype)


def roundable(dtype: torch.dtype) -> Tensor:
    """Float32 numbers at and just beside every half and every tie between two, and a sweep of all."""
    halves = all_halves(dtype).float()
    halves = halves[halves.isfinite()].sort().values
    ties = (halves[1:].double() + halves[:-1].double()).div(2).float()
    edges = torch.tensor([-3.4028235e38, -65520.0, 65520.0, 3.4028235e38, math.inf, -math.inf, math.nan])
    points = torch.cat([halves, ties, edges])
    beside = [torch.nextafter(points, torch.full_like(points, limit)) for limit in (-math.inf, math.inf)]
    return torch.cat([points, *beside, *map(torch.from_numpy, sweep(DIGEST_STRIDE))])


@pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
def test_every_half_is_read_exactly(dtype: torch.dtype) -> None:
    halves = all_halves(dtype)
    assert_same_bits(through_gradient(halves, torch.float32), halves.float())
    assert_same_bits(through_gradient(halves, dtype), halves)


@pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
def test_halves_are_rounded_to_nearest_even(dtype: torch.dtype) -> None:
    x = roundable(dtype)
    assert_same_bits(through_gradient(x, dtype), x.to(dtype))


@pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
def test_a_sample_without_spread_is_its_mean(dtype: torch.dtype) -> None:
    mean = all_halves(dtype)
    mean = mean[mean != 0]  # mean + 0 * epsilon has no sign of zero to keep
    assert_same_bits(vae_ext.normal_rsample(mean[None], std=0.0)[0], mean)


def digests() -> dict[str, str]:
    """One digest for each function, on vectors and as a scalar, and for each conversion."""
    inputs = [neighbourhoods(), *sweep(DIGEST_STRIDE)]
    results: dict[str, Iterator[npt.NDArray[np.floating]]] = {
        f"{name}, {'scalar' if scalar else 'vector'}": (evaluate(name, x, scalar=scalar) for x in inputs)
        for name in FUNCTIONS
        for scalar in (True, False)
    }
    for dtype in HALF_TYPES:
        results[f"from {dtype}"] = iter([through_gradient(all_halves(dtype), torch.float32).numpy()])
        results[f"to {dtype}"] = iter([through_gradient(roundable(dtype), dtype).float().numpy()])
    return {what: digest(arrays) for what, arrays in results.items()}


def digest(arrays: Iterator[npt.NDArray[np.floating]]) -> str:
    sha256 = hashlib.sha256()
    for array in arrays:
        sha256.update(canonical(array).tobytes())
    return sha256.hexdigest()


@pytest.fixture(scope="module")
def expected_digests() -> dict[str, str]:
    """What this process computes, with the instruction set torch chose."""
    return digests()


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_instruction_sets_agree(capability: str, expected_digests: dict[str, str]) -> None:
    assert digests_under(capability, "tests.test_elementary") == expected_digests


if __name__ == "__main__":
    print(json.dumps({"capability": torch.backends.cpu.get_cpu_capability(), "digests": digests()}))

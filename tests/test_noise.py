"""The noise: Philox's published vectors, the formula in NumPy, statistics, and what it must not depend on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import stats
from torch import Tensor

import vae_ext
from tests import philox
from tests.cases import NOISY, as_tuple, case_of
from vae_ext.arguments import STANDARDS, Standard

# A p-value below this fails; the states are fixed, so that a test either always passes or never does.
SIGNIFICANCE = 1e-4

# Published with Random123 (kat_vectors): counter, key, output.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
# Those that are not normal, as SciPy has them.
STANDARD_DISTRIBUTIONS: dict[Standard, Any] = {
    "laplace": stats.laplace(),
    "logistic": stats.logistic(),
    "uniform": stats.uniform(),
    "triangular": stats.triang(0.5, loc=-1, scale=2),
    "gumbel": stats.gumbel_r(),
    "cauchy": stats.cauchy(),
    "exponential": stats.expon(),
}
STATES = [(0, 0), (1, 2), (2**63 - 1, 2**63 - 1), (-1, -(2**63)), (0x0123456789ABCDEF, 0x7EDCBA9876543210)]


def _epsilon(rng_state: tuple[int, int], num_samples: int | None, rows: int, size: int, **kwargs: Any) -> Tensor:
    """vae_ext's noise: what a zero mean and a unit std are sampled to."""
    state = torch.tensor(rng_state, dtype=torch.int64)
    zeros = torch.zeros(rows, size)
    return vae_ext.normal_rsample(zeros, num_samples=num_samples, std=1.0, rng_state=state, **kwargs)


def _standard(
    standard: Standard, rng_state: tuple[int, int], num_samples: int | None, rows: int, size: int, **kwargs: Any
) -> Tensor:
    """epsilon of any standard distribution, likewise."""
    state = torch.tensor(rng_state, dtype=torch.int64)
    zeros = torch.zeros(rows, size)
    return vae_ext.location_scale_rsample(zeros, standard, num_samples, scale=1.0, rng_state=state, **kwargs)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_numpy_philox_gives_the_published_vectors(
    counter: tuple[int, ...], key: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    words = philox.philox4x32(np.array(counter, np.uint64), np.array(key, np.uint64))
    assert tuple(int(word) for word in words) == expected


def test_stream_constants_are_distinct_and_not_zero() -> None:
    constants = {philox.stream_constant(stream) for stream in range(1000)}
    assert len(constants) == 1000
    assert 0 not in constants


@pytest.mark.parametrize("rng_state", STATES)
@pytest.mark.parametrize("size", [1, 3, 4, 21, 64, 1030])
@pytest.mark.parametrize(("first_row", "stream"), [(0, 0), (5, 1), (2**32 - 7, 3), (2**31 - 2, 2**31)])
def test_noise_is_the_formula(rng_state: tuple[int, int], size: int, first_row: int, stream: int) -> None:
    actual = _epsilon(rng_state, 3, 7, size, first_row=first_row, stream=stream).double().cpu().numpy()
    rows = np.arange(first_row, first_row + 7)
    expected, radius = philox.epsilon(rng_state, range(3), rows, size, stream)
    assert np.all(np.abs(actual - expected) <= 4 * 2.0**-23 * radius)


def test_noise_is_the_formula_for_the_last_row_and_far_samples() -> None:
    actual = _epsilon((3, 4), 70_000, 1, 5, first_row=2**32 - 1).double().cpu().numpy()
    expected, radius = philox.epsilon((3, 4), range(70_000), [2**32 - 1], 5)
    assert np.all(np.abs(actual - expected) <= 4 * 2.0**-23 * radius)


@pytest.mark.parametrize("size", [1, 3, 21, 1030])
@pytest.mark.parametrize("standard", STANDARD_DISTRIBUTIONS)
def test_other_standards_are_quantiles_of_the_words(standard: Standard, size: int) -> None:
    state, rows = (0x0123456789ABCDEF, 0x7EDCBA9876543210), np.arange(2**32 - 7, 2**32)
    actual = _standard(standard, state, 3, 7, size, first_row=2**32 - 7, stream=3).double().cpu().numpy()
    words = philox.noise_words(state, range(3), rows, size, stream=3)
    expected = philox.quantiles(words, STANDARD_DISTRIBUTIONS[standard]).reshape(3, 7, -1)[..., :size]
    assert np.all(np.abs(actual - expected) <= 8 * 2.0**-24 * np.abs(expected).clip(1))


def test_every_standard_is_tested() -> None:
    assert {"normal", *STANDARD_DISTRIBUTIONS} == set(STANDARDS)


@pytest.mark.parametrize("standard", STANDARD_DISTRIBUTIONS)
def test_other_standards_have_their_distributions(standard: Standard) -> None:
    draws = _standard(standard, (20131220, 6114), 4, 64, 256).double().cpu().numpy()
    distribution = STANDARD_DISTRIBUTIONS[standard]
    assert stats.kstest(draws.ravel(), distribution.cdf).pvalue > SIGNIFICANCE
    for lane in range(4):
        assert stats.kstest(draws[..., lane::4].ravel(), distribution.cdf).pvalue > SIGNIFICANCE, lane
    # What their ranks would be as normals: of finite moments, whatever the family.
    ranks = stats.norm.ppf(distribution.cdf(draws).clip(1e-12, 1 - 1e-12))
    for axis in range(3):
        _assert_uncorrelated(*_lagged(ranks, axis, 1))


def test_the_normal_standard_is_the_gaussians_noise() -> None:
    assert torch.equal(_standard("normal", (1, 2), 3, 5, 37), _epsilon((1, 2), 3, 5, 37))


@pytest.mark.parametrize("standard", STANDARDS)
def test_every_standard_is_the_same_for_any_samples_split_and_dtype(standard: Standard) -> None:
    whole = _standard(standard, (1, 2), 3, 7, 21)
    assert torch.equal(_standard(standard, (1, 2), None, 7, 21), whole[0])
    parts = [_standard(standard, (1, 2), 3, stop - start, 21, first_row=start) for start, stop in ((0, 3), (3, 7))]
    assert torch.equal(torch.cat(parts, 1), whole)
    zeros, state = torch.zeros(7, 21, dtype=torch.float64), torch.tensor([1, 2])
    wide = vae_ext.location_scale_rsample(zeros, standard, 3, scale=1.0, rng_state=state)
    assert torch.equal(wide, whole.double())


def test_samples_without_a_num_samples_are_the_first() -> None:
    assert torch.equal(_epsilon((1, 2), None, 5, 9), _epsilon((1, 2), 3, 5, 9)[0])


@pytest.mark.parametrize("size", [4, 37])
def test_noise_of_an_event_is_row_major(size: int) -> None:
    state = torch.tensor([1, 2])
    image = vae_ext.normal_rsample(torch.zeros(3, size, 5), std=1.0, rng_state=state)
    flat = vae_ext.normal_rsample(torch.zeros(3, size * 5), std=1.0, rng_state=state)
    assert torch.equal(image.flatten(1), flat)


def test_rows_are_counted_over_the_broadcast_batch() -> None:
    state = torch.tensor([1, 2])
    z = vae_ext.normal_rsample(torch.zeros(3, 1, 9), std=torch.ones(4, 9), rng_state=state, event_ndim=1)
    assert torch.equal(z.flatten(0, 1), _epsilon((1, 2), None, 12, 9))
    transposed = vae_ext.normal_rsample(torch.zeros(4, 3, 9).transpose(0, 1), std=1.0, rng_state=state, event_ndim=1)
    assert torch.equal(transposed.flatten(0, 1), _epsilon((1, 2), None, 12, 9))


@pytest.mark.parametrize("operator", NOISY)
def test_every_sampler_draws_the_same(operator: str) -> None:
    def z(name: str) -> Tensor:
        case = case_of(name, (6, 21), scale_kind="log_std", num_samples=2, first_row=3, stream=4, standard="normal")
        return as_tuple(case.ours(**case.make()))[0]

    assert torch.equal(z(operator), z("normal_rsample"))


@pytest.mark.parametrize("size", [3, 20, 64, 1001])
class TestInvariance:
    @pytest.mark.cpu_only("about threads of the CPU")
    @pytest.mark.usefixtures("restored_threads")
    def test_to_the_number_of_threads(self, size: int) -> None:
        expected = _epsilon((1, 2), 4, 333, size)
        for num_threads in (1, 3):
            torch.set_num_threads(num_threads)
            assert torch.equal(_epsilon((1, 2), 4, 333, size), expected)

    def test_to_the_number_of_samples(self, size: int) -> None:
        many = _epsilon((1, 2), 7, 5, size)
        for num_samples in (1, 2, 6):
            assert torch.equal(_epsilon((1, 2), num_samples, 5, size), many[:num_samples])

    def test_to_a_split_of_the_rows(self, size: int) -> None:
        whole = _epsilon((1, 2), 2, 11, size)
        parts = [_epsilon((1, 2), 2, stop - start, size, first_row=start) for start, stop in ((0, 3), (3, 4), (4, 11))]
        assert torch.equal(torch.cat(parts, 1), whole)

    def test_to_the_dtype(self, size: int) -> None:
        epsilon = _epsilon((1, 2), 2, 5, size)
        for dtype in (torch.float64, torch.bfloat16, torch.float16):
            zeros, state = torch.zeros(5, size, dtype=dtype), torch.tensor([1, 2])
            z = vae_ext.normal_rsample(zeros, num_samples=2, std=1.0, rng_state=state)
            assert z.dtype == dtype
            assert torch.equal(z, epsilon.to(dtype))


def test_states_are_drawn_from_torchs_generator() -> None:
    torch.manual_seed(3)
    first = vae_ext.make_rng_state()
    second = vae_ext.make_rng_state()
    assert first.dtype == torch.int64
    assert first.shape == (2,)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(vae_ext.make_rng_state(), first)
    generator = torch.Generator(torch.get_default_device()).manual_seed(3)
    assert torch.equal(vae_ext.make_rng_state(generator), first)


@pytest.mark.parametrize("operator", NOISY)
def test_left_out_state_is_one_draw_from_torchs_generator(operator: str) -> None:
    case = case_of(operator, (6, 21))
    kwargs = case.make()
    del kwargs["rng_state"]

    def draw(**source: Any) -> Tensor:
        return as_tuple(case.ours(**kwargs, **source))[0]

    torch.manual_seed(3)
    first, second = draw(), draw()
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(first, draw(rng_state=vae_ext.make_rng_state()))
    assert torch.equal(first, draw(generator=torch.Generator(torch.get_default_device()).manual_seed(3)))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        assert torch.equal(first, draw())


@pytest.mark.parametrize("operator", NOISY)
def test_checkpointing_replays_the_noise(operator: str) -> None:
    case = case_of(operator, (6, 21))
    kwargs = case.make(requires_grad=True)
    del kwargs["rng_state"]
    inputs = [kwargs[name] for name in case.differentiable]

    def block(*inputs: Tensor) -> Tensor:
        given = dict(zip(case.differentiable, inputs, strict=True))
        return as_tuple(case.ours(**kwargs | given))[0].square().sum()

    torch.manual_seed(3)
    expected = torch.autograd.grad(block(*inputs), inputs)
    torch.manual_seed(3)
    total = torch.utils.checkpoint.checkpoint(block, *inputs, use_reentrant=False)
    assert all(map(torch.equal, torch.autograd.grad(total, inputs), expected))


@pytest.fixture(scope="module")
def draws() -> npt.NDArray[np.float64]:
    """A million numbers: 8 samples of 512 rows of 256 elements."""
    return _epsilon((20131220, 6114), 8, 512, 256).double().cpu().numpy()


class TestStatistics:
    def test_moments(self, draws: npt.NDArray[np.float64]) -> None:
        """The mean of x^k has variance (E x^2k - (E x^k)^2) / n, and E x^k is 1 * 3 * ... * (k - 1) or 0."""
        expected = {1: (0, 1), 2: (1, 3), 3: (0, 15), 4: (3, 105), 5: (0, 945), 6: (15, 10395)}
        for power, (moment, square) in expected.items():
            deviation = (draws**power).mean() - moment
            assert abs(deviation) < 4 * np.sqrt((square - moment**2) / draws.size), power

    def test_distribution(self, draws: npt.NDArray[np.float64]) -> None:
        assert stats.kstest(draws.ravel(), "norm").pvalue > SIGNIFICANCE
        for axis in range(3):
            for index in range(0, draws.shape[axis], max(1, draws.shape[axis] // 8)):
                assert stats.kstest(draws.take(index, axis).ravel(), "norm").pvalue > SIGNIFICANCE, (
                    axis,
                    index,
                )
        for lane in range(4):
            assert stats.kstest(draws[..., lane::4].ravel(), "norm").pvalue > SIGNIFICANCE, lane

    def test_tails(self, draws: npt.NDArray[np.float64]) -> None:
        for threshold in (2.0, 3.0, 4.0):
            for side in (draws > threshold, draws < -threshold):
                count = int(side.sum())
                assert stats.binomtest(count, draws.size, stats.norm.sf(threshold)).pvalue > SIGNIFICANCE, threshold

    def test_neighbours_do_not_correlate(self, draws: npt.NDArray[np.float64]) -> None:
        for axis in range(3):
            for lag in (1, 2, 3, 4, 5):
                first, second = _lagged(draws, axis, lag)
                _assert_uncorrelated(first, second)

    def test_lanes_do_not_correlate(self, draws: npt.NDArray[np.float64]) -> None:
        lanes = draws.reshape(-1, 4)
        for first in range(4):
            for second in range(first):
                _assert_uncorrelated(lanes[:, first], lanes[:, second])

    def test_nothing_is_used_twice(self, draws: npt.NDArray[np.float64]) -> None:
        """Two equal groups of four numbers would be one counter used twice."""
        groups = np.ascontiguousarray(draws.reshape(-1, 4).astype(np.float32))
        assert len(np.unique(groups.view("V16"))) == len(groups)

    def test_nothing_is_used_twice_where_groups_are_not_full(self) -> None:
        """Five elements leave three lanes of their second group unused; the next sample starts a new one."""
        epsilon = _epsilon((1, 2), 64, 512, 5).cpu().numpy()
        pairs = np.ascontiguousarray(epsilon[..., :2].reshape(-1, 2))
        assert len(np.unique(pairs.view("V8"))) == len(pairs)
        assert len(np.unique(epsilon[..., 4])) > 0.998 * epsilon[..., 4].size


def test_different_seeds_offsets_rows_samples_and_streams_are_independent() -> None:
    """Blocks that differ in one bit of one index neither correlate nor share a group of four."""
    seed, offset = 12345, 67890
    bits = (0, 1, 31, 32, 33, 62)
    indices = [((seed, offset), 0, 0), ((offset, seed), 0, 0)]
    indices += [((seed ^ 1 << bit, offset), 0, 0) for bit in bits]
    indices += [((seed, offset ^ 1 << bit), 0, 0) for bit in bits]
    indices += [((seed, offset), 1 << bit, 0) for bit in (10, 20, 31)]
    indices += [((seed, offset), 0, stream) for stream in (1, 2, 3, 2**31)]
    blocks = [
        _epsilon(state, 2, 64, 128, first_row=first_row, stream=stream).cpu().numpy()
        for state, first_row, stream in indices
    ]
    groups = np.concatenate([block.reshape(-1, 4) for block in blocks])
    assert len(np.unique(np.ascontiguousarray(groups).view("V16"))) == len(groups)
    for index, block in enumerate(blocks):
        for other in blocks[:index]:
            _assert_uncorrelated(block.ravel().astype(np.float64), other.ravel().astype(np.float64))


def test_seeds_in_a_row_are_independent() -> None:
    first_numbers = torch.stack([_epsilon((seed, 0), None, 1, 4)[0] for seed in range(4096)]).double().cpu().numpy()
    assert stats.kstest(first_numbers.ravel(), "norm").pvalue > SIGNIFICANCE
    for lane in range(4):
        _assert_uncorrelated(first_numbers[1:, lane], first_numbers[:-1, lane])


def _lagged(draws: npt.NDArray[Any], axis: int, lag: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    indices = np.arange(draws.shape[axis])
    return draws.take(indices[lag:], axis).ravel(), draws.take(indices[:-lag], axis).ravel()


def _assert_uncorrelated(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> None:
    """Neither the values nor their squares: the z-scores of their products, of variance 1 and 4."""
    assert abs((first * second).mean()) * np.sqrt(first.size) < 4.5
    assert abs(((first**2 - 1) * (second**2 - 1)).mean()) * np.sqrt(first.size) / 2 < 4.5

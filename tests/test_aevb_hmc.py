"""Hamiltonian Monte Carlo against Gaussians, whose moments and trajectories are known, and the diagnosis of chains."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from vae_ext.aevb.hmc import Chains, DualAveraging, LogDensity, State, evaluate, hmc, leapfrog
from vae_ext.aevb.mixing import diagnose, require_most, split_r_hat, unmixed
from vae_ext.errors import UserError

pytestmark = pytest.mark.cpu_only("generators are made on the CPU")

SCALES = torch.logspace(-2, 2, 400, dtype=torch.float64)


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def gaussian(covariance: Tensor, scales: Tensor) -> LogDensity:
    """Chain b's is N(0, scales[b]^2 covariance)."""
    precision = covariance.inverse()

    def log_density(z: Tensor) -> Tensor:
        scaled = z / scales.to(z).unsqueeze(1)
        return -0.5 * torch.einsum("bi,ij,bj->b", scaled, precision.to(z), scaled)

    return log_density


def correlated(dim: int) -> Tensor:
    factor = torch.randn(dim, dim, generator=seeded(1), dtype=torch.float64)
    return factor @ factor.T + 0.3 * torch.eye(dim, dtype=torch.float64)


def assert_zero(estimates: Tensor) -> None:
    """In expectation, by estimates `[B, ...]` that are independent of each other."""
    standard_error = estimates.std(0) / math.sqrt(len(estimates))
    assert (estimates.mean(0).abs() < 4 * standard_error).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("dim", "target"), [(1, 0.9), (3, 0.9), (3, 0.6)])
def test_the_moments_are_those_of_the_density(dim: int, target: float, dtype: torch.dtype) -> None:
    covariance = correlated(dim)
    factor = torch.linalg.cholesky(covariance)
    chains = hmc(
        gaussian(covariance, SCALES),
        torch.zeros(len(SCALES), dim, dtype=dtype),
        num_samples=200,
        burn_in=100,
        leapfrog_steps=4,
        target_acceptance=target,
        generator=seeded(),
    )
    assert chains.samples.shape == (200, len(SCALES), dim)
    assert chains.samples.dtype == dtype
    scaled = chains.samples.double() / SCALES.unsqueeze(1)
    standard = torch.linalg.solve_triangular(factor, scaled.unsqueeze(-1), upper=False).squeeze(-1)
    second = torch.einsum("nbi,nbj->nbij", standard, standard)
    assert_zero(standard.mean(0))
    assert_zero((second - torch.eye(dim)).mean(0))
    # Of a standard normal; a fourth moment is what a Gaussian of the right covariance may still miss.
    assert_zero((standard**4 - 3).mean(0))
    # Of so many some look bad by chance.
    assert unmixed(chains).double().mean() < 0.05


@pytest.mark.parametrize("target", [0.8, 0.9])
def test_each_step_size_is_adapted_to_its_chain(target: float) -> None:
    """The acceptance with the mean of the logarithms is not the mean acceptance, but above it."""
    chains = hmc(
        gaussian(correlated(3), SCALES),
        torch.zeros(len(SCALES), 3, dtype=torch.float64),
        num_samples=100,
        burn_in=300,
        leapfrog_steps=4,
        target_acceptance=target,
        generator=seeded(),
    )
    assert chains.acceptance.mean().item() == pytest.approx(target, abs=0.07)
    assert ((chains.acceptance - target).abs() < 0.2).all()
    relative = chains.step_size / SCALES
    assert relative.max() < 3 * relative.min()


def test_dual_averaging_finds_the_step_size_of_the_target() -> None:
    """Where the acceptance of a chain is exp(-s / length), that is -length log target."""
    lengths = torch.tensor([0.01, 1.0, 50.0], dtype=torch.float64)
    adaptation = DualAveraging(torch.full((3,), 0.1, dtype=torch.float64), 0.7)
    for _ in range(3000):
        adaptation.update((-adaptation.step_size / lengths).exp())
    for found in (adaptation.step_size, adaptation.averaged_step_size):
        torch.testing.assert_close(found, -math.log(0.7) * lengths, rtol=0.03, atol=0)


def test_without_a_burn_in_step_sizes_stay_as_given() -> None:
    sizes = torch.tensor([0.1, 0.2, 0.3])
    chains = hmc(
        gaussian(torch.eye(2), torch.ones(3)),
        torch.zeros(3, 2),
        num_samples=2,
        burn_in=0,
        leapfrog_steps=1,
        step_size=sizes,
    )
    assert torch.equal(chains.step_size, sizes)


def unit_gaussian(z: Tensor) -> Tensor:
    return -0.5 * z.square().sum(1)


def start(chains: int = 5, dim: int = 2) -> tuple[State, Tensor]:
    z, momentum = torch.randn(2, chains, dim, generator=seeded(), dtype=torch.float64)
    return evaluate(unit_gaussian, z), momentum


def test_leapfrog_conserves_what_it_is_to_conserve() -> None:
    """Of a unit Gaussian, exactly r^2/2 + (1 - s^2/4) z^2/2, which is not the energy."""
    step_size = torch.tensor([[0.1], [0.5], [1.0], [1.5], [1.9]], dtype=torch.float64)
    state, momentum = start()
    end, end_momentum = leapfrog(unit_gaussian, state, momentum, step_size, 7)

    def conserved(at: State, r: Tensor) -> Tensor:
        return 0.5 * (r.square() + (1 - step_size.square() / 4) * at.z.square())

    torch.testing.assert_close(conserved(end, end_momentum), conserved(state, momentum), rtol=1e-12, atol=0)
    assert not torch.allclose(end.z, state.z)


def test_leapfrog_turns_by_its_angle() -> None:
    """A step of a unit Gaussian is a turn by theta, cos theta = 1 - s^2/2, so six of s = 1 lead back."""
    state, momentum = start()
    end, end_momentum = leapfrog(unit_gaussian, state, momentum, torch.ones(5, 1, dtype=torch.float64), 6)
    torch.testing.assert_close((end.z, end_momentum), (state.z, momentum), rtol=1e-12, atol=1e-12)


def test_leapfrog_is_reversible() -> None:
    def log_density(z: Tensor) -> Tensor:
        return -(z**4).sum(1) + torch.sin(3 * z[:, 0]) * z[:, 1]

    z, momentum = torch.randn(2, 6, 2, generator=seeded(), dtype=torch.float64)
    state = evaluate(log_density, z)
    step_size = torch.full((6, 1), 0.1, dtype=torch.float64)
    end, end_momentum = leapfrog(log_density, state, momentum, step_size, 10)
    back, back_momentum = leapfrog(log_density, end, -end_momentum, step_size, 10)
    torch.testing.assert_close((back.z, -back_momentum), (z, momentum), rtol=1e-10, atol=1e-10)
    assert not torch.allclose(end.z, z, atol=0.1)


def run(chains: int, seed: int) -> Chains:
    z = torch.randn(8, 3, generator=seeded(9))[:chains]
    return hmc(unit_gaussian, z, num_samples=20, burn_in=10, leapfrog_steps=3, generator=seeded(seed))


def test_the_generator_decides_and_a_chain_does_not_see_the_others() -> None:
    whole = run(8, seed=4)
    assert all(map(torch.equal, run(8, seed=4), whole))
    assert torch.equal(run(3, seed=4).samples, whole.samples[:, :3])
    assert not torch.equal(run(8, seed=5).samples, whole.samples)


@pytest.mark.parametrize("outside", [-math.inf, math.nan, math.inf])
def test_where_the_density_is_not_finite_proposals_are_rejected(outside: float) -> None:
    """An exponential distribution."""

    def log_density(z: Tensor) -> Tensor:
        return torch.where(z > 0, -z, outside).sum(1)

    chains = hmc(
        log_density,
        torch.ones(300, 1, dtype=torch.float64),
        num_samples=300,
        burn_in=50,
        leapfrog_steps=3,
        target_acceptance=0.7,
        generator=seeded(),
    )
    assert (chains.samples > 0).all()
    assert_zero((chains.samples - 1).mean(0))
    assert_zero((chains.samples.square() - 2).mean(0))


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"num_samples": 0}, ValueError, "num_samples is 0; expected 1 or more"),
        ({"burn_in": -1}, ValueError, "burn_in is -1; expected 0 or more"),
        ({"leapfrog_steps": 0}, ValueError, "leapfrog_steps is 0; expected 1 or more"),
        ({"target_acceptance": 1.0}, ValueError, "target_acceptance is 1.0; expected a probability between 0 and 1"),
        ({"step_size": -0.1}, ValueError, "step_size is -0.1; expected positive, finite numbers"),
        ({"step_size": torch.ones(3)}, ValueError, "step_size has shape [3]; expected a number, or [4]"),
        ({"initial": torch.zeros(4)}, ValueError, "initial has shape [4]; expected [B, J], a row for each chain"),
        ({"initial": torch.zeros(4, 2).half()}, TypeError, "initial is of torch.float16; expected a tensor of float32"),
        ({"initial": [0.0]}, TypeError, "initial is of list; expected a tensor of float32"),
        ({"log_density": lambda z: z.sum()}, ValueError, "log_density returned shape []; expected [4], one for each"),
        (
            {"log_density": lambda z: z.sum(1).log()},
            UserError,
            "the log density or its gradient is not finite at the initial z of 4 of 4 chains (such as 0, 1, 2, 3)",
        ),
    ],
)
def test_errors(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    right: dict[str, Any] = {
        "log_density": unit_gaussian,
        "initial": torch.zeros(4, 2),
        "num_samples": 2,
        "burn_in": 1,
        "leapfrog_steps": 1,
    }
    with pytest.raises(error, match=re.escape(message)):
        hmc(**{**right, **wrong})


def test_split_r_hat_is_its_formula() -> None:
    samples = torch.randn(21, 3, 2, generator=seeded()).cumsum(0)
    expected = []
    for chain in samples.double().numpy().transpose(1, 2, 0):
        of_dims = []
        for values in chain:
            halves = values[:10], values[10:20]
            within = np.mean([half.var(ddof=1) for half in halves])
            between = 10 * np.var([half.mean() for half in halves], ddof=1)
            of_dims.append(math.sqrt(0.9 + between / (10 * within)))
        expected.append(max(of_dims))
    assert split_r_hat(samples).tolist() == pytest.approx(expected)


def test_chains_that_do_not_mix_are_told_and_named() -> None:
    mixed = torch.randn(50, 40, 2, generator=seeded())
    good = Chains(mixed, torch.full((40,), 0.9), torch.ones(40))
    assert not unmixed(good).any()
    assert unmixed(good._replace(acceptance=torch.tensor([0.0, *[0.9] * 39]))).nonzero().tolist() == [[0]]

    still = mixed.clone()
    still[:, 7:11] = 0.1
    found = diagnose(good._replace(samples=still))
    assert found.unmixed.nonzero().flatten().tolist() == [7, 8, 9, 10]
    assert re.fullmatch(
        r"4 of 40 chains of HMC do not mix \(such as 7, 8, 9, 10\): their acceptance is 0\.90 to 0\.90, their split"
        r" R-hat up to inf; expected 0\.2 or more and at most 1\.5: take a longer burn-in, or more leapfrog steps",
        found.complaint(),
    )
    require_most(found)
    acceptance = torch.full((40,), 0.9)
    acceptance[:20] = 0.1
    half = diagnose(good._replace(acceptance=acceptance))
    require_most(half)
    # Of 39 in all there could be no half left.
    with pytest.raises(UserError, match="20 of 40 chains of HMC do not mix"):
        require_most(half, of=39)

    drifting = mixed + torch.linspace(0, 20, 50).view(50, 1, 1)
    with pytest.raises(UserError, match="40 of 40 chains of HMC do not mix"):
        require_most(diagnose(good._replace(samples=drifting)))
    with pytest.raises(UserError, match=r"37 of 40 .* acceptance is 0\.01 to 0\.01"):
        require_most(diagnose(good._replace(acceptance=torch.tensor([*[0.01] * 37, *[0.9] * 3]))))


@pytest.mark.parametrize("distinct", [1, 2, 3])
def test_a_chain_without_a_density_does_not_mix(distinct: int) -> None:
    """In two dimensions two places are one too few."""
    samples = torch.randn(51, 40, 2, generator=seeded())
    samples[:25, 7] = samples[:3, 7].repeat_interleave(torch.tensor([5, 10, 10]), dim=0)
    if distinct < 3:
        samples[:10, 7] = samples[0, 7]
        samples[10:25, 7] = samples[0 if distinct == 1 else 10, 7]
    bad = unmixed(Chains(samples, torch.full((40,), 0.9), torch.ones(40)))
    assert bad.nonzero().flatten().tolist() == ([7] if distinct < 3 else [])

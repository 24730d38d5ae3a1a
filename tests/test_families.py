"""The families of section 2.4: their distributions by SciPy, their gradients by what these must be."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tests.families import CASES, COMPOSITION, LOCATION_SCALE, STUDENT_T, FamilyCase, draws
from vae_ext import ops
from vae_ext.aevb import families
from vae_ext.aevb.families import Family

# A p-value below this fails; the states are fixed, so that a test either always passes or never does.
SIGNIFICANCE = 1e-4
STATE = torch.tensor([7, 11])

pytestmark = pytest.mark.cpu_only("SciPy's distributions, and noise whose bits are the CPU's, are on the CPU")


def case_id(case: FamilyCase) -> str:
    return case.id


by_case = pytest.mark.parametrize("case", CASES, ids=case_id)


@by_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_samples_have_the_distribution(case: FamilyCase, dtype: torch.dtype) -> None:
    z = draws(case, dtype, 500, 40)
    assert z.dtype == dtype
    assert z.isfinite().all()
    cdf = case.distribution().cdf(z.double().numpy().ravel())
    assert stats.kstest(cdf, "uniform").pvalue > SIGNIFICANCE
    # And are independent: from row to row, and from element to element.
    ranks = stats.norm.ppf(cdf.clip(1e-9, 1 - 1e-9)).reshape(z.shape)
    for first, second in ((ranks[1:], ranks[:-1]), (ranks[:, 1:], ranks[:, :-1])):
        assert abs((first * second).mean()) * math.sqrt(first.size) < 4.5


@by_case
def test_log_density_mean_and_variance(case: FamilyCase) -> None:
    family, distribution = case.family(1), case.distribution()
    z = distribution.ppf(np.linspace(0.001, 0.999, 41))
    log_density = family.log_prob(torch.from_numpy(z).unsqueeze(-1).unsqueeze(-1)).squeeze().numpy()
    np.testing.assert_allclose(log_density, distribution.logpdf(z), rtol=1e-10, atol=1e-10)
    if case.name == "Cauchy":
        assert family.mean.isnan().all()
        assert family.variance.isnan().all()
        return
    np.testing.assert_allclose(family.mean, distribution.mean(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(family.variance, distribution.var(), rtol=1e-7)


@by_case
def test_float32_is_as_float64(case: FamilyCase) -> None:
    """Of log-densities, and of moments; the noise is the same, so samples are as well, but where rejection is near."""
    narrow, wide = case.family(1, dtype=torch.float32), case.family(1)
    z = torch.from_numpy(case.distribution().ppf([0.01, 0.3, 0.9])).reshape(3, 1)
    torch.testing.assert_close(narrow.log_prob(z.float()).double(), wide.log_prob(z), rtol=2e-5, atol=2e-5)
    torch.testing.assert_close(narrow.mean.double(), wide.mean, rtol=2e-5, atol=2e-5, equal_nan=True)
    torch.testing.assert_close(narrow.variance.double(), wide.variance, rtol=2e-4, atol=2e-5, equal_nan=True)
    first, second = draws(case, torch.float32, 20, 30).double(), draws(case, torch.float64, 20, 30)
    close = (first - second).abs() <= 2e-4 * (1 + second.abs())
    assert close.double().mean() >= (0.99 if case in COMPOSITION else 1.0)


@pytest.mark.parametrize("case", [case for case in CASES if case.exact], ids=lambda case: case.id)
def test_gradients_are_implicit_ones(case: FamilyCase) -> None:
    """dz/dtheta = -(dF/dtheta) / p at a draw F^-1(u), F and p by SciPy."""
    z = case.family(1, 1).rsample(200, rng_state=STATE)
    # Torch's own approximation of the gamma's, elsewhere exact.
    tolerance = 1e-3 if case.name in ("Gamma", "ChiSquared") and case.parameters else 1e-5

    def sample(*values: Tensor) -> Tensor:
        named = dict(zip(case.parameters, values, strict=True))
        return case.make(**named, **case.fixed).rsample(200, rng_state=STATE).flatten()

    jacobian = torch.autograd.functional.jacobian(sample, tuple(case.tensors(1, 1).values()))
    points = z.detach().numpy().ravel()
    density = case.distribution().pdf(points)
    for (name, value), gradient in zip(case.parameters.items(), jacobian, strict=True):
        step = 1e-5 * max(1.0, abs(value))
        higher, lower = (case.distribution(**{name: value + sign * step}).cdf(points) for sign in (1, -1))
        expected = -(higher - lower) / (2 * step) / density
        central = (points > case.distribution().ppf(0.02)) & (points < case.distribution().ppf(0.98))
        np.testing.assert_allclose(
            gradient.numpy().ravel()[central], expected[central], rtol=tolerance, atol=tolerance, err_msg=name
        )


@by_case
def test_gradients_of_expectations(case: FamilyCase) -> None:
    """The mean over draws of d f(z)/dtheta is dE[f]/dtheta, within what so many draws allow; f is bounded."""
    count = 40_000
    parameters = {name: tensor.requires_grad_() for name, tensor in case.tensors(count, 1).items()}
    z = case.make(**parameters, **case.fixed).rsample(rng_state=STATE)
    gradients = torch.autograd.grad(torch.sin(z).sum(), list(parameters.values()))
    quantiles = (np.arange(20_000) + 0.5) / 20_000
    for (name, value), gradient in zip(case.parameters.items(), gradients, strict=True):
        step = 1e-3 * max(1.0, abs(value))
        higher, lower = (
            np.sin(case.distribution(**{name: value + sign * step}).ppf(quantiles)).mean() for sign in (1, -1)
        )
        expected = (higher - lower) / (2 * step)
        standard_error = gradient.std().item() / math.sqrt(count)
        # Torch's implicit gradient of the gamma is an approximation.
        assert abs(gradient.mean().item() - expected) < 4.5 * standard_error + 2e-3 * (0.1 + abs(expected)), name


def test_gammas_of_small_shape_do_not_underflow_on_the_simplex() -> None:
    concentration = torch.full((2000, 5), 0.01, requires_grad=True)
    z = families.Dirichlet(concentration).rsample(rng_state=STATE)
    torch.testing.assert_close(z.sum(-1), torch.ones(2000))
    (gradient,) = torch.autograd.grad(z[:, 0].square().sum(), concentration)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("make", "parameters", "greatest"),
    [
        (families.Beta, (0.1, 0.1), 1),
        (families.Beta, (0.9, 0.9), 1),
        (families.Gamma, (0.1, 2.0), math.inf),
        (families.ChiSquared, (0.05,), math.inf),
        (families.F, (0.2, 0.2), math.inf),
        (families.LogNormal, (0.0, 60.0), math.inf),
        (families.Weibull, (0.01, 3.0), math.inf),
        (families.Pareto, (0.1, 3.0), math.inf),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_draws_are_not_rounded_to_an_end_of_the_support(
    make: Callable[..., Family], parameters: tuple[float, ...], greatest: float, dtype: torch.dtype
) -> None:
    leaves = [torch.full((20_000, 1), value, dtype=dtype, requires_grad=True) for value in parameters]
    z = make(*leaves).rsample(rng_state=STATE)
    assert ((z > 0) & (z < greatest)).all()
    log_prob = make(*leaves).log_prob(z)
    assert log_prob.isfinite().all()
    for gradient in (*torch.autograd.grad(z.sum(), leaves, retain_graph=True), *torch.autograd.grad(log_prob.sum(), z)):
        assert not gradient.isnan().any()


class TestDirichlet:
    concentration = torch.tensor([0.7, 2.0, 4.5], dtype=torch.float64)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_draws_are_inside(self, dtype: torch.dtype) -> None:
        concentration = torch.full((20_000, 3), 0.1, dtype=dtype, requires_grad=True)
        family = families.Dirichlet(concentration)
        z = family.rsample(rng_state=STATE)
        assert (z > 0).all()
        log_prob = family.log_prob(z)
        assert log_prob.isfinite().all()
        for gradient in torch.autograd.grad(log_prob.sum(), (z, concentration)):
            assert gradient.isfinite().all()

    def test_the_density_is_zero_outside_the_simplex(self) -> None:
        concentration = torch.ones(1, 3, requires_grad=True)
        family = families.Dirichlet(concentration)
        outside = torch.tensor([[[5.0, -3.0, -1.0]], [[0.5, 0.3, 0.1]], [[0.5, 0.5, 0.5]], [[math.inf, 0.0, 0.0]]])
        log_prob = family.log_prob(outside)
        assert (log_prob == -math.inf).all()
        inside = torch.tensor([[[0.5, 0.25, 0.25]], [[1.0, 0.0, 0.0]]])
        torch.testing.assert_close(family.log_prob(inside), torch.full((2, 1), math.log(2)))
        assert family.log_prob(torch.tensor([[math.nan, 0.5, 0.5]])).isnan()
        (gradient,) = torch.autograd.grad(family.log_prob(torch.cat([outside, inside]))[-2:].sum(), concentration)
        assert gradient.isfinite().all()

    def test_marginals(self) -> None:
        z = families.Dirichlet(self.concentration.expand(10_000, 3)).rsample(rng_state=STATE)
        torch.testing.assert_close(z.sum(-1), torch.ones(10_000, dtype=torch.float64))
        total = self.concentration.sum().item()
        for k, a in enumerate(self.concentration.tolist()):
            assert stats.kstest(z[:, k].numpy(), stats.beta(a, total - a).cdf).pvalue > SIGNIFICANCE

    def test_log_density_mean_and_variance(self) -> None:
        family, distribution = families.Dirichlet(self.concentration[None]), stats.dirichlet(self.concentration.numpy())
        z = family.rsample(7, rng_state=STATE)
        expected = [distribution.logpdf(point / point.sum()) for point in z[:, 0].numpy()]
        np.testing.assert_allclose(family.log_prob(z)[:, 0], expected, rtol=1e-9)
        np.testing.assert_allclose(family.mean[0], distribution.mean())
        np.testing.assert_allclose(family.variance[0], distribution.var())

    def test_gradient_of_expectations(self) -> None:
        concentration = self.concentration.expand(40_000, 3).clone().requires_grad_()
        z = families.Dirichlet(concentration).rsample(rng_state=STATE)
        (gradient,) = torch.autograd.grad(z[:, 0].square().sum(), concentration)
        own = self.concentration.clone().requires_grad_()
        total = own.sum()
        (expected,) = torch.autograd.grad(own[0] * (own[0] + 1) / (total * (total + 1)), own)
        standard_error = gradient.std(0) / math.sqrt(len(gradient))
        assert ((gradient.mean(0) - expected).abs() < 4.5 * standard_error + 1e-3).all()


class TestElliptical:
    loc = torch.tensor([0.5, -1.0], dtype=torch.float64)
    scale_tril = torch.tensor([[1.2, 0.0], [-0.7, 0.4]], dtype=torch.float64)

    @pytest.mark.parametrize("df", [None, 3.5])
    def test_distribution(self, df: float | None) -> None:
        family = families.Elliptical(self.loc.expand(20_000, 2), self.scale_tril, df)
        z = family.rsample(rng_state=STATE).numpy()
        shape = (self.scale_tril @ self.scale_tril.T).numpy()
        for direction in ([1.0, 0.0], [0.0, 1.0], [1.0, 2.0], [-3.0, 1.0]):
            along = np.array(direction)
            scale = math.sqrt(along @ shape @ along)
            distribution = stats.norm if df is None else stats.t(df)
            assert stats.kstest((z - self.loc.numpy()) @ along / scale, distribution.cdf).pvalue > SIGNIFICANCE
        # The squared distance is F, or chi-squared.
        x = np.linalg.solve(self.scale_tril.numpy(), (z - self.loc.numpy()).T)
        squared = (x**2).sum(0)
        radial = stats.chi2(2).cdf(squared) if df is None else stats.f(2, df).cdf(squared / 2)
        assert stats.kstest(radial, "uniform").pvalue > SIGNIFICANCE

    @pytest.mark.parametrize("df", [None, 3.5])
    def test_log_density_mean_and_variance(self, df: float | None) -> None:
        family = families.Elliptical(self.loc[None], self.scale_tril, df)
        shape = (self.scale_tril @ self.scale_tril.T).numpy()
        z = family.rsample(5, rng_state=STATE)
        distribution: Any = stats.multivariate_normal(self.loc.numpy(), shape)
        if df is not None:
            distribution = stats.multivariate_t(self.loc.numpy(), shape, df)
        np.testing.assert_allclose(family.log_prob(z)[:, 0], distribution.logpdf(z[:, 0].numpy()), rtol=1e-10)
        np.testing.assert_allclose(family.mean[0], self.loc)
        factor = 1.0 if df is None else df / (df - 2)
        np.testing.assert_allclose(family.variance[0], np.diag(shape) * factor)

    @pytest.mark.parametrize(
        ("loc", "scale_tril", "df"),
        [((2,), (5, 2, 2), ()), ((5, 2), (2, 2), ()), ((2,), (2, 2), (5,)), ((3, 2), (5, 1, 2, 2), ())],
    )
    def test_each_vector_is_a_draw_of_its_own(
        self, loc: tuple[int, ...], scale_tril: tuple[int, ...], df: tuple[int, ...]
    ) -> None:
        family = families.Elliptical(
            self.loc.expand(loc), self.scale_tril.expand(scale_tril), torch.full(df, 3.0).double()
        )
        z = family.rsample(4, rng_state=STATE)
        assert family.mean.shape == family.variance.shape == z.shape[1:]
        assert z.shape[1] == 5
        assert family.log_prob(z, 1).shape == z.shape[:-1]
        assert len(z[..., 0].unique()) == z[..., 0].numel()

    def test_gradients_of_expectations(self) -> None:
        """Of E[x' x] = loc' loc + trace(covariance) df / (df - 2)."""
        count, df = 40_000, 9.0
        loc = self.loc.expand(count, 2).clone().requires_grad_()
        scale_tril = self.scale_tril.expand(count, 2, 2).clone().requires_grad_()
        dfs = torch.full((count,), df, dtype=torch.float64, requires_grad=True)
        z = families.Elliptical(loc, scale_tril, dfs).rsample(rng_state=STATE)
        gradients = torch.autograd.grad(z.square().sum(), (loc, scale_tril, dfs))
        trace = self.scale_tril.square().sum()
        expected = (2 * self.loc, 2 * self.scale_tril * df / (df - 2), -2 * trace / (df - 2) ** 2)
        for gradient, wanted in zip(gradients, expected, strict=True):
            standard_error = gradient.std(0) / math.sqrt(count)
            lower = gradient.mean(0).tril() if gradient.dim() == 3 else gradient.mean(0)
            assert ((lower - wanted).abs() < 4.5 * standard_error + 2e-3).all()


@by_case
def test_samples_depend_on_their_own_row_and_sample_alone(case: FamilyCase) -> None:
    whole = case.family(7, 3).rsample(4, rng_state=STATE, stream=5)
    part = case.family(2, 3).rsample(3, rng_state=STATE, first_row=4, stream=5)
    # But for what ATen's own functions make of where an element stands in memory.
    torch.testing.assert_close(part, whole[:3, 4:6], rtol=1e-13, atol=0.0)
    assert not torch.equal(case.family(7, 3).rsample(4, rng_state=STATE), whole)


def test_generators_govern_the_noise() -> None:
    family = families.Gamma(torch.full((3, 2), 0.5))
    first, second = (family.rsample(generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(family.rsample(), first)
    with pytest.raises(ValueError, match="generator and rng_state"):
        family.rsample(generator=torch.Generator(), rng_state=STATE)
    with pytest.raises(ValueError, match="stream is"):
        family.rsample(stream=2**48)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.family(1).support != "the whole line"], ids=lambda case: case.id
)
def test_the_density_is_zero_outside_the_support(case: FamilyCase) -> None:
    least, greatest = case.distribution().support()
    parameters = {name: tensor.requires_grad_() for name, tensor in case.tensors(1).items()}
    family = case.make(**parameters, **case.fixed)
    outside = torch.tensor([least - 0.5] + ([greatest + 0.5] if math.isfinite(greatest) else []), dtype=torch.float64)
    log_prob = family.log_prob(outside)
    assert (log_prob == -math.inf).all()
    z = torch.stack([outside[:1], torch.tensor([case.distribution().median()])])
    gradients = torch.autograd.grad(family.log_prob(z)[1].sum(), list(parameters.values()))
    assert all(gradient.isfinite().all() for gradient in gradients)


@by_case
def test_the_density_of_nan_is_nan(case: FamilyCase) -> None:
    assert case.family(1).log_prob(torch.tensor([math.nan], dtype=torch.float64)).isnan()


def test_the_density_at_the_ends_of_the_support() -> None:
    """Where a factor is 0 to the power of 0, or the density falls to 0, or rounding goes beyond an end."""
    zero, rate = torch.zeros(1), torch.full((1,), 3.0)
    assert families.Weibull(1.0, rate).log_prob(zero).item() == pytest.approx(-math.log(3))
    assert families.Erlang(1, rate).log_prob(zero).item() == pytest.approx(math.log(3))
    assert families.LogNormal(zero, 0.5).log_prob(zero).item() == -math.inf
    low = torch.linspace(-3, 3, 1001).unsqueeze(-1)
    for end in (low, low + 0.7):
        # The density is 0 there, but for what rounding makes of where the end is.
        assert (families.Triangular(low, low + 0.7).log_prob(end) < math.log(1e-5)).all()


@pytest.mark.parametrize("case", [case for case in CASES if case.distribution().support()[1] == math.inf], ids=case_id)
def test_the_density_at_infinity_is_zero(case: FamilyCase) -> None:
    assert case.family(1).log_prob(torch.tensor([math.inf], dtype=torch.float64)).item() == -math.inf


class HostNumbers(TorchFunctionMode):
    """Refuses tensors made of the host's numbers, which a CUDA device would have to be sent, and wait for."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in (torch.tensor, torch.as_tensor, torch.asarray), f"{func} of {args}"
        return func(*args, **(kwargs or {}))


def test_numbers_are_not_copied_from_the_host() -> None:
    loc, state = torch.zeros(3, 2), STATE.clone()
    with HostNumbers():
        for family in (
            families.Laplace(loc, 1.0),
            families.StudentT(5.0, loc, log_scale=0.0),
            families.Gamma(loc + 1, 2.0),
            families.Uniform(loc, 1.0),
            families.Elliptical(loc, torch.eye(2), 5.0),
        ):
            family.log_prob(family.rsample(2, rng_state=state))


@pytest.mark.parametrize(
    ("name", "case"),
    [(name, case) for case in CASES for name in case.parameters if name not in ("loc", "low", "high")],
    ids=lambda value: value if isinstance(value, str) else value.id,
)
@pytest.mark.parametrize("value", [0.0, -2.5, math.nan, math.inf])
def test_parameters_outside_their_domain(case: FamilyCase, name: str, value: float) -> None:
    tensors = case.tensors(1) | {name: torch.tensor([[1.0, value, 1.0]], dtype=torch.float64)}
    with pytest.raises(ValueError, match=rf"^{name} has the value .*; expected a finite number greater than 0$"):
        case.make(**tensors, **case.fixed)


def in_float32(value: float) -> Tensor:
    return torch.tensor([value])


def exact(value: Tensor) -> Any:
    return mpmath.mpf(value.item())


def log_beta_function(a: Any, b: Any) -> Any:
    return mpmath.loggamma(a) + mpmath.loggamma(b) - mpmath.loggamma(a + b)


def log_t(df: Any, x: Any) -> Any:
    return -(df + 1) / 2 * mpmath.log1p(x * x / df) - mpmath.log(df) / 2 - log_beta_function(df / 2, mpmath.mpf(0.5))


def log_f(df: Any, z: Any) -> Any:
    """Of df degrees in both."""
    return (df / 2 - 1) * mpmath.log(z) - df * mpmath.log1p(z) - log_beta_function(df / 2, df / 2)


LARGE_SHAPES: dict[str, tuple[Callable[[Tensor], Family], float, float, Callable[[Any, Any], Any]]] = {
    "gamma": (families.Gamma, 1e6, 1.0005e6, lambda a, z: (a - 1) * mpmath.log(z) - z - mpmath.loggamma(a)),
    "erlang": (
        lambda a: families.Erlang(int(a), torch.ones(1)),
        1e6,
        1.0005e6,
        lambda a, z: (a - 1) * mpmath.log(z) - z - mpmath.loggamma(a),
    ),
    "beta": (
        lambda a: families.Beta(a, a),
        1e5,
        0.501,
        lambda a, z: (a - 1) * (mpmath.log(z) + mpmath.log1p(-z)) - log_beta_function(a, a),
    ),
    "f": (lambda df: families.F(df, df), 1e5, 1.003, log_f),
    "student-t": (lambda df: families.StudentT(df, 0.0, 1.0), 1e7, 0.7, log_t),
    "elliptical": (lambda df: families.Elliptical(torch.zeros(1, 1), torch.eye(1), df), 1e7, 0.7, log_t),
}


@pytest.mark.parametrize("name", LARGE_SHAPES)
def test_densities_of_large_shapes_in_float32(name: str) -> None:
    make, shape, z, log_density = LARGE_SHAPES[name]
    with mpmath.workdps(40):
        expected = float(log_density(exact(in_float32(shape)), exact(in_float32(z))))
    assert make(in_float32(shape)).log_prob(in_float32(z).unsqueeze(-1)).item() == pytest.approx(expected, rel=2e-6)


def test_dirichlet_of_large_shapes_in_float32() -> None:
    """Of two shares it is a beta."""
    share = torch.tensor([0.501, 1 - 0.501])
    beta = families.Beta(in_float32(1e5), 1e5).log_prob(share[:1])
    dirichlet = families.Dirichlet(torch.full((1, 2), 1e5)).log_prob(share)
    # The shares do not add up to 1 exactly.
    torch.testing.assert_close(dirichlet, beta, rtol=0.0, atol=0.02)


def test_the_entropy_of_many_degrees_of_freedom_in_float32() -> None:
    """It falls to that of the Gaussian as 1 / df."""
    for df in (1e5, 1e6, 1e7):
        entropy = families.StudentT(in_float32(df), 0.0, 1.0).entropy.item()
        assert entropy == pytest.approx(families.Normal.standard_entropy + 1 / df, abs=2e-7)


@pytest.mark.parametrize("concentration", [0.5, 30.0, 999.0, 1001.0, 1e4, 1e6])
def test_the_variance_of_weibull_in_float32(concentration: float) -> None:
    with mpmath.workdps(60):
        x = 1 / mpmath.mpf(concentration)
        expected = float(9 * (mpmath.gamma(1 + 2 * x) - mpmath.gamma(1 + x) ** 2))
    variance = families.Weibull(in_float32(concentration), 3.0).variance
    assert variance.item() == pytest.approx(expected, rel=1e-6, abs=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-11)], ids=str)
@pytest.mark.parametrize(
    ("low", "high"),
    [(1.0, 1.0000002), (1.0, 1.001), (1e20, 1.000001e20), (1e20, 1.3e20), (2.0, 3.7), (1e-25, 1e12), (1e-30, 1e19)],
)
def test_moments_of_reciprocal(low: float, high: float, dtype: torch.dtype, tolerance: float) -> None:
    ends = torch.tensor([low], dtype=dtype), torch.tensor([high], dtype=dtype)
    z = 0.5 * (ends[0] + ends[1])
    family = families.Reciprocal(*ends)
    with mpmath.workdps(60):
        a, b = map(exact, ends)
        log_ratio = mpmath.log(b / a)
        mean = (b - a) / log_ratio
        variance = (b**2 - a**2) / (2 * log_ratio) - mean**2
        log_density = -mpmath.log(exact(z)) - mpmath.log(log_ratio)
    assert family.mean.item() == pytest.approx(float(mean), rel=tolerance, abs=0)
    assert family.variance.item() == pytest.approx(float(variance), rel=tolerance, abs=0)
    assert family.log_prob(z).item() == pytest.approx(float(log_density), rel=tolerance, abs=tolerance)


def test_student_t_of_few_degrees_does_not_overflow_early() -> None:
    """Of the size of exp(E / df), of which the square would be infinite: at df = 0.3 for one draw in a million."""
    z = families.StudentT(torch.full((400_000, 1), 0.2), 0.0, 1.0).rsample(rng_state=STATE)
    assert z.isfinite().all()
    assert z.abs().max() > 1e22


def test_rejection_uses_parts_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of one gamma, however many of its attempts are refused, are not those of the next; NaN is tried once."""
    streams: list[int] = []

    def watch(*args: Any, stream: int, **keywords: Any) -> Tensor:
        streams.append(stream)
        # Where every variate is 0 every attempt is refused: it asks for 0 < 0.
        return location_scale_rsample(*args, stream=stream, **keywords) * 0

    location_scale_rsample = ops.location_scale_rsample
    monkeypatch.setattr(ops, "location_scale_rsample", watch)
    families.Beta(torch.ones(1, 1), torch.ones(1, 1)).rsample(rng_state=STATE)
    assert len(streams) > 2 * 250
    assert len(set(streams)) == len(streams)
    streams.clear()
    families.Gamma(torch.full((2, 1), math.nan), validate=False).rsample(rng_state=STATE)
    assert len(streams) == 3


def test_other_mistakes_are_said_in_a_sentence() -> None:
    ones = torch.ones(2, 3)
    not_an_integer: Any = 2.5
    not_a_number: Any = "1"
    mistakes: dict[str, Callable[[], Any]] = {
        "low has the value 1; expected a number less than high": lambda: families.Uniform(ones, ones),
        "low has the value 2; expected a number less than high": lambda: families.Reciprocal(2.0, ones),
        "shape is of type float; expected an integer, .* Gamma": lambda: families.Erlang(not_an_integer, ones),
        "shape is 0; expected 1 or more": lambda: families.Erlang(0, ones),
        "the scale is given as nothing": lambda: families.Laplace(ones),
        "the scale is given as scale and log_scale": lambda: families.Laplace(ones, 1.0, log_scale=0.0),
        "the parameters of Gamma do not broadcast: concentration": lambda: families.Gamma(ones, torch.ones(4)),
        "rate is torch.float64; expected": lambda: families.Gamma(ones, torch.ones(2, 3, dtype=torch.float64)),
        "rate is of type str; expected a tensor or a number": lambda: families.Exponential(not_a_number),
        "event_ndim 4; expected an event": lambda: families.Exponential(ones, event_ndim=4),
        "scale_tril has shape .*; expected it to end in": lambda: families.Elliptical(ones, ones),
        "scale_tril is torch.float64; expected": lambda: families.Elliptical(ones, torch.eye(3).double()),
        "the parameters of Elliptical do not broadcast: loc .2., scale_tril .4., df": lambda: families.Elliptical(
            ones, torch.eye(3).expand(4, 3, 3), 3.0
        ),
        "scale_tril has the value 1; expected 0 above": lambda: families.Elliptical(ones, torch.ones(3, 3)),
    }
    for match, make in mistakes.items():
        with pytest.raises((TypeError, ValueError), match=match):
            make()


def test_checks_can_be_left_out() -> None:
    assert families.Exponential(torch.tensor([-1.0]), validate=False).mean.item() == -1


def test_numbers_are_parameters() -> None:
    family = families.Gamma(2.0, 3.0)
    assert family.rsample(5, rng_state=STATE).shape == (5,)
    assert family.mean.item() == pytest.approx(2 / 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    loc, scale = torch.randn(5, 3).to(dtype), torch.rand(5, 3).to(dtype) + 1
    for make in (families.Logistic, families.LogNormal):
        z = make(loc, scale).rsample(rng_state=STATE)
        wide = make(loc.float(), scale.float())
        assert torch.equal(z, wide.rsample(rng_state=STATE).to(dtype))
        torch.testing.assert_close(make(loc, scale).log_prob(z), wide.log_prob(z.float()))


def test_numbers_are_not_rounded_to_half_precision() -> None:
    """The operators keep them too."""
    loc = torch.zeros(1, 3, dtype=torch.bfloat16)
    normal = families.Normal(loc, 0.1)
    assert normal.scale.unique().tolist() == [torch.tensor(0.1).item()]
    gamma = families.Gamma(2.1, rate=loc + 1)
    assert gamma.mean.unique().tolist() == [torch.tensor(2.1).item()]
    t = families.Elliptical(loc, torch.eye(3, dtype=torch.bfloat16), 2.7)
    assert t.df is not None
    assert t.df.item() == torch.tensor(2.7).item()
    assert {family.rsample().dtype for family in (normal, gamma, t)} == {torch.bfloat16}


@pytest.mark.parametrize(("name", "value"), [("alpha", 1.0), ("alpha", 2.0), ("df2", 2.0), ("df2", 4.0)])
def test_an_infinite_variance_has_no_gradient(name: str, value: float) -> None:
    """0 rather than NaN, which would ruin those of the other elements' parameters."""
    parameter = torch.tensor([value, 7.0], requires_grad=True)
    family = families.Pareto(parameter, 1.0) if name == "alpha" else families.F(3.0, parameter)
    assert family.variance[0] == torch.inf
    (gradient,) = torch.autograd.grad(family.variance.sum(), parameter)
    assert gradient[0] == 0
    assert gradient[1] < 0


WHOLE_LINE = [*LOCATION_SCALE[:4], *STUDENT_T]


@pytest.mark.parametrize("case", WHOLE_LINE, ids=lambda case: case.id)
def test_entropy_and_divergence_from_the_prior(case: FamilyCase) -> None:
    """KL = -H - E[log p(z)], and log p(z) = -(log 2 pi + z^2) / 2."""
    family, distribution = case.family(1), case.distribution()
    assert family.entropy.item() == pytest.approx(float(distribution.entropy()), abs=1e-6)
    expected_log_p = distribution.expect(lambda z: stats.norm.logpdf(z), epsabs=1e-9, limit=500)
    expected = -float(distribution.entropy()) - expected_log_p
    assert family.kl_from_standard_normal().item() == pytest.approx(expected, rel=1e-5, abs=1e-6)

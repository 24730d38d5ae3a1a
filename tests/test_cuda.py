"""What is CUDA's own: bits beside the CPU's, streams, graphs, hidden waiting, indices beyond 2^31."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

import vae_ext
from tests import accuracy
from tests.cases import CASES, LOCATION_SCALE, NOISY, OPERATORS, Case, as_tuple, case_of, cotangents
from tests.cuda_cases import BROADCAST_CASES, LARGE_CASES, ROW_CASES, SIZE_CASES, X_CASES, shifted
from vae_ext import _native

BUILT_WITH_CUDA = _native.load().build_info()["cuda"] is not None

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
    pytest.mark.skipif(not BUILT_WITH_CUDA, reason="this library is built without CUDA"),
]

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
ORDINARY = [case for case in CASES if not case.gradcheck]
SMALL = [case_of(operator, (33, 100)) for operator in OPERATORS]
# Rows of many spans, many replicas of a row, and one number for everything.
SPLIT = [
    case_of("bernoulli_log_prob", (3, 70_001)),
    Case("bernoulli_log_prob", {"logits": (3000, 5, 20), "x": (5, 20)}),
    Case("normal_log_prob", {"mean": (700, 33), "scale": (), "x": (700, 33)}),
    Case("normal_log_prob", {"mean": (5, 40_000), "scale": (), "x": (5, 40_000)}),
    Case(LOCATION_SCALE, {"mean": (3, 40_000), "scale": (40_000,)}, num_samples=2),
    Case("normal_rsample_kl", {"mean": (3, 40_000), "scale": (40_000,)}, num_samples=2),
    case_of("normal_rsample_log_ratio", (3, 40_000), num_samples=2),
]


def _everything(case: Case, kwargs: dict[str, Any]) -> tuple[Tensor, ...]:
    """Outputs and gradients."""
    outputs = as_tuple(case.ours(**kwargs))
    inputs = [kwargs[name] for name in case.differentiable]
    return (*outputs, *torch.autograd.grad(outputs, inputs, cotangents(outputs)))


@contextmanager
def _no_waiting() -> Iterator[None]:
    """Whatever makes the CPU wait for the device raises."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _equal(a: Tensor, b: Tensor) -> bool:
    """Bit for bit, but for the bits of a NaN."""
    a, b = a.cpu(), b.cpu()
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(nan=0.0), b.nan_to_num(nan=0.0))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "case",
    [*SIZE_CASES, *ROW_CASES, *BROADCAST_CASES, *X_CASES, *LARGE_CASES, *SPLIT],
    ids=lambda case: case.id,
)
def test_values_and_gradients(case: Case, dtype: torch.dtype) -> None:
    """For every number of lanes to a row, of spans and of replicas; what all devices share is in other files."""
    accuracy.check(case, case.make(dtype=dtype, device="cuda", requires_grad=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", SIZE_CASES, ids=lambda case: case.id)
def test_addresses_do_not_matter(case: Case, dtype: torch.dtype) -> None:
    kwargs = case.make(dtype=dtype, device="cuda", requires_grad=True)
    expected = _everything(case, kwargs)
    for elements in (1, 4):
        moved = {name: shifted(kwargs[name], elements) for name in case.differentiable}
        actual = _everything(case, kwargs | moved)
        assert all(_equal(a, b) for a, b in zip(actual, expected, strict=True))


class TestBits:
    """float64 is exempt but for the noise: its exponentials are those of each device's library."""

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("case", [case for case in ORDINARY if case.is_sampler], ids=lambda case: case.id)
    def test_samples_are_the_cpus(self, case: Case, dtype: torch.dtype) -> None:
        here, there = case.make(dtype=dtype, device="cuda"), case.make(dtype=dtype, device="cpu")
        assert _equal(case.epsilon(**here), case.epsilon(**there))
        if dtype != torch.float64:
            assert _equal(as_tuple(case.ours(**here))[0], as_tuple(case.ours(**there))[0])

    @pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
    @pytest.mark.parametrize("case", [case for case in ORDINARY if not case.num_samples], ids=lambda case: case.id)
    def test_elementwise_gradients_are_the_cpus(self, case: Case, dtype: torch.dtype) -> None:
        """Those of arguments that are broadcast over nothing, so that nothing is summed."""
        gradients = []
        for device in ("cuda", "cpu"):
            kwargs = case.make(dtype=dtype, device=device, requires_grad=True)
            outputs = as_tuple(case.ours(**kwargs))
            shapes = [kwargs[name].shape for name in case.differentiable]
            full = torch.broadcast_shapes(*shapes, (kwargs["x"].shape if "x" in kwargs else ()))
            inputs = [kwargs[name] for name in case.differentiable if kwargs[name].shape == full]
            gradients.append(torch.autograd.grad(outputs, inputs, cotangents(outputs)) if inputs else ())
        assert all(_equal(a, b) for a, b in zip(*gradients, strict=True))

    @pytest.mark.parametrize("case", [*SMALL, *SPLIT], ids=lambda case: case.id)
    def test_runs_are_the_same(self, case: Case) -> None:
        kwargs = case.make(device="cuda", requires_grad=True)
        first = _everything(case, kwargs)
        for _ in range(3):
            assert all(_equal(a, b) for a, b in zip(first, _everything(case, kwargs), strict=True))


class TestStreams:
    @pytest.mark.parametrize("case", [*SMALL, *SPLIT], ids=lambda case: case.id)
    def test_work_goes_to_the_current_stream(self, case: Case) -> None:
        """Behind a long wait and the inputs' values, on a stream that no other waits for."""
        expected = as_tuple(case.ours(**case.make(device="cuda")))
        values, kwargs = case.make(device="cuda"), case.make(device="cuda", seed=1)
        stream = torch.cuda.Stream()
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            torch.cuda._sleep(100_000_000)
            for name, value in values.items():
                if isinstance(value, Tensor):
                    kwargs[name].copy_(value)
            actual = as_tuple(case.ours(**kwargs))
        stream.synchronize()
        assert all(_equal(a, b) for a, b in zip(actual, expected, strict=True))

    @pytest.mark.parametrize("case", [*SMALL, *SPLIT], ids=lambda case: case.id)
    def test_nothing_waits_for_the_device(self, case: Case) -> None:
        kwargs = case.make(device="cuda", requires_grad=True)
        grads = cotangents(as_tuple(case.ours(**kwargs)))
        inputs = [kwargs[name] for name in case.differentiable]
        with _no_waiting():
            torch.autograd.grad(as_tuple(case.ours(**kwargs)), inputs, grads)

    @pytest.mark.parametrize("operator", NOISY)
    def test_drawing_the_state_waits_for_nothing(self, operator: str) -> None:
        case = case_of(operator, (33, 100), scale_kind="std")
        kwargs = case.make(device="cuda")
        del kwargs["rng_state"]
        with _no_waiting():
            case.ours(**kwargs)
            case.ours(**kwargs | {case.argument("scale"): 0.5})

    @pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one CUDA device")
    @pytest.mark.parametrize("case", SMALL, ids=lambda case: case.id)
    def test_another_device_than_the_current_one(self, case: Case) -> None:
        expected = _everything(case, case.make(device="cuda:0", requires_grad=True))
        actual = _everything(case, case.make(device="cuda:1", requires_grad=True))
        assert all(tensor.device == torch.device("cuda:1") for tensor in actual)
        assert all(_equal(a, b) for a, b in zip(actual, expected, strict=True))
        assert torch.cuda.current_device() == 0


def _captured(function: Callable[[], Any]) -> tuple[torch.cuda.CUDAGraph, Any]:
    """The function's work as a graph, and what it returned, which every replay overwrites."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function()
    return graph, result


class TestGraphs:
    @pytest.mark.parametrize("case", [*SMALL, *SPLIT], ids=lambda case: case.id)
    def test_a_graph_replays_what_was_captured(self, case: Case) -> None:
        kwargs = case.make(device="cuda", requires_grad=True)
        expected = _everything(case, kwargs)
        inputs, grads = [kwargs[name] for name in case.differentiable], cotangents(as_tuple(case.ours(**kwargs)))

        def everything() -> tuple[Tensor, ...]:
            outputs = as_tuple(case.ours(**kwargs))
            return (*outputs, *torch.autograd.grad(outputs, inputs, grads))

        graph, actual = _captured(everything)
        inputs_of_the_graph = {grad.data_ptr() for grad in grads}
        for tensor in actual:
            # mean's gradient may be z's own.
            if tensor.data_ptr() not in inputs_of_the_graph:
                tensor.detach().zero_()
        graph.replay()
        assert all(_equal(a, b) for a, b in zip(actual, expected, strict=True))

    @pytest.mark.parametrize("num_samples", [None, 3])
    @pytest.mark.parametrize("operator", NOISY)
    def test_a_state_drawn_in_the_graph_is_fresh_at_each_replay(self, operator: str, num_samples: int | None) -> None:
        """And backward replays its forward's noise: d z / d log scale is what z has beyond its mean."""
        case = case_of(operator, (33, 100), scale_kind="log_std", num_samples=num_samples)
        kwargs = case.make(device="cuda", requires_grad=True)
        del kwargs["rng_state"]
        mean, log_scale = (kwargs[name] for name in case.differentiable)
        with torch.no_grad():
            mean.zero_()

        def sample_and_gradient() -> tuple[Tensor, Tensor]:
            z = as_tuple(case.ours(**kwargs))[0]
            (gradient,) = torch.autograd.grad(z.sum(), log_scale)
            return z.detach(), gradient

        graph, (z, gradient) = _captured(sample_and_gradient)
        draws = []
        for _ in range(3):
            graph.replay()
            draws.append(z.clone())
            total = draws[-1] if num_samples is None else draws[-1].sum(0)
            torch.testing.assert_close(gradient, total, rtol=1e-5, atol=1e-5)
        assert not torch.equal(draws[0], draws[1])
        assert not torch.equal(draws[1], draws[2])


def _room_for(gibibytes: float) -> None:
    """Skips where there is less free memory."""
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info()[0] / 2**30
    if free < gibibytes:
        pytest.skip(f"{free:.0f} GiB of the device are free, and this takes {gibibytes:.0f}")


@pytest.mark.large
class TestBeyond32Bits:
    """More than 2^31 elements in one tensor: the last rows are what they are alone."""

    LAST = slice(-3, None)

    def test_many_rows(self) -> None:
        _room_for(24)
        logits = torch.empty(2**15 + 3, 2**16, dtype=torch.bfloat16, device="cuda").normal_()
        x = torch.empty(logits.shape, dtype=torch.uint8, device="cuda").random_(2)
        logits.requires_grad_()
        log_prob = vae_ext.bernoulli_log_prob(logits, x)
        (gradient,) = torch.autograd.grad(log_prob.sum(), logits)
        alone = logits.detach()[self.LAST].clone().requires_grad_()
        expected = vae_ext.bernoulli_log_prob(alone, x[self.LAST].clone())
        assert torch.equal(log_prob[self.LAST], expected)
        assert torch.equal(gradient[self.LAST], *torch.autograd.grad(expected.sum(), alone))

    def test_many_short_rows_of_samples(self) -> None:
        _room_for(40)
        mean, log_var = torch.empty(2, 2**27 + 3, 16, dtype=torch.bfloat16, device="cuda").normal_().unbind()
        state = vae_ext.make_rng_state(device="cuda")
        z, kl = vae_ext.normal_rsample_kl(mean, log_var, rng_state=state)
        first_row = mean.shape[0] - 3
        expected, expected_kl = vae_ext.normal_rsample_kl(
            mean[self.LAST].clone(), log_var[self.LAST].clone(), rng_state=state, first_row=first_row
        )
        assert torch.equal(z[self.LAST], expected)
        assert torch.equal(kl[self.LAST], expected_kl)

    def test_many_samples(self) -> None:
        _room_for(16)
        mean, log_var = torch.empty(2, 64, 16, device="cuda", dtype=torch.bfloat16).normal_().unbind()
        state = vae_ext.make_rng_state(device="cuda")
        z = vae_ext.normal_rsample(mean, log_var, 2**21 + 3, rng_state=state)
        few = vae_ext.normal_rsample(mean, log_var, 5, rng_state=state)
        assert torch.equal(z[:5], few)
        assert z[self.LAST].float().std() > 0.1

    def test_one_row(self) -> None:
        """Its sum is that of its parts."""
        _room_for(24)
        size = 2**31 + 4 * 16384 + 5
        logits = torch.empty(1, size, dtype=torch.bfloat16, device="cuda").normal_()
        x = torch.empty(1, size, dtype=torch.uint8, device="cuda").random_(2)
        parts = [
            vae_ext.bernoulli_log_prob(a, b).double()
            for a, b in zip(logits.split(2**28, 1), x.split(2**28, 1), strict=True)
        ]
        torch.testing.assert_close(vae_ext.bernoulli_log_prob(logits, x).double(), sum(parts), rtol=1e-6, atol=0.0)

    def test_one_gradient_of_all_rows(self) -> None:
        """A scale [*E] gets the sum over all rows, which is that of the parts."""
        _room_for(40)
        mean = torch.empty(2**27 + 3, 16, dtype=torch.bfloat16, device="cuda").normal_()
        log_var = torch.zeros(16, dtype=torch.bfloat16, device="cuda", requires_grad=True)
        x = torch.zeros(1, 16, dtype=torch.bfloat16, device="cuda")

        def gradient(rows: Tensor) -> Tensor:
            return torch.autograd.grad(vae_ext.normal_log_prob(rows, log_var, x).sum(), log_var)[0].double()

        parts = torch.stack([gradient(rows) for rows in mean.split(2**24)]).sum(0)
        # Each part is rounded to bfloat16.
        torch.testing.assert_close(gradient(mean), parts, rtol=2**-7, atol=2**-7 * float(mean.shape[0]) ** 0.5)


def test_a_mix_of_devices_names_both_arguments() -> None:
    mean = torch.zeros(4, 5, device="cuda")
    with pytest.raises(RuntimeError, match="log_var is on cpu but mean is on cuda:0"):
        vae_ext.normal_kl(mean, torch.zeros(4, 5, device="cpu"))
    with pytest.raises(RuntimeError, match="x is on cpu but logits is on cuda:0"):
        vae_ext.bernoulli_log_prob(mean, torch.zeros(4, 5, device="cpu"))
    with pytest.raises(RuntimeError, match="rng_state is on cpu but mean is on cuda:0"):
        vae_ext.normal_rsample(mean, 0.0, rng_state=torch.zeros(2, dtype=torch.int64, device="cpu"))

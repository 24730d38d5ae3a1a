"""Bad arguments: one sentence that names the argument, before any work."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import vae_ext
from tests.cases import LOCATION_SCALE, NOISY, OPERATORS, SAMPLERS, Case, case_of
from tests.messages import names
from vae_ext import _native

NORMAL_OPERATORS = (*SAMPLERS, "normal_kl", "normal_log_prob")
WITH_PRIOR = ("normal_kl", "normal_rsample_kl", "normal_rsample_log_ratio")
ERRORS = (ValueError, TypeError, RuntimeError)
DEVICE = torch.get_default_device().type
BUILD = _native.load().build_info()
# In place of an argument's value: leave it out.
MISSING = object()


def _case(operator: str) -> Case:
    return case_of(operator, (4, 5))


def _generator_state() -> torch.Tensor:
    """Of the generator that a state would be drawn from."""
    device = torch.get_default_device()
    return torch.get_rng_state() if device.type == "cpu" else torch.cuda.get_rng_state(device)


def _assert_rejected(operator: str, *words: str, **changes: Any) -> None:
    """The operator, its arguments changed so, raises a sentence with all of `words`."""
    kwargs = {name: value for name, value in (_case(operator).make() | changes).items() if value is not MISSING}
    with pytest.raises(ERRORS) as caught:
        getattr(vae_ext, operator)(**kwargs)
    message = str(caught.value)
    for word in words:
        assert names(message, word), f"{word!r} is not named in: {message}"
    assert "INTERNAL ASSERT" not in message
    assert "\n" not in message.strip(), message


@pytest.mark.parametrize("operator", NORMAL_OPERATORS)
class TestParameterisation:
    def test_none(self, operator: str) -> None:
        _assert_rejected(operator, "log_var", "log_std", "std", "var", log_var=MISSING)

    def test_two(self, operator: str) -> None:
        _assert_rejected(operator, "log_var", "std", std=torch.ones(4, 5))

    def test_two_keywords(self, operator: str) -> None:
        _assert_rejected(operator, "log_std", "var", log_var=MISSING, log_std=0.0, var=1.0)


@pytest.mark.parametrize("operator", WITH_PRIOR)
class TestPrior:
    def test_in_another_parameterisation(self, operator: str) -> None:
        _assert_rejected(operator, "prior_log_var", "prior_std", prior_std=torch.ones(4, 5))

    def test_in_two_parameterisations(self, operator: str) -> None:
        _assert_rejected(operator, "prior_log_var", "prior_var", prior_log_var=torch.ones(4, 5), prior_var=1.0)

    @pytest.mark.parametrize("name", ["prior_mean", "prior_log_var"])
    def test_shape(self, operator: str, name: str) -> None:
        _assert_rejected(operator, name, "6", "5", **{name: torch.zeros(4, 6)})

    @pytest.mark.parametrize("name", ["prior_mean", "prior_log_var"])
    def test_batch(self, operator: str, name: str) -> None:
        _assert_rejected(operator, name, "3", "4", **{name: torch.zeros(3, 5)})

    @pytest.mark.parametrize("name", ["prior_mean", "prior_log_var"])
    def test_dtype(self, operator: str, name: str) -> None:
        _assert_rejected(operator, name, **{name: torch.zeros(4, 5, dtype=torch.float64)})
        _assert_rejected(operator, name, **{name: torch.zeros(4, 5, dtype=torch.int64)})

    @pytest.mark.parametrize("name", ["prior_mean", "prior_log_var"])
    def test_device(self, operator: str, name: str) -> None:
        _assert_rejected(operator, name, "meta", DEVICE, **{name: torch.zeros(4, 5, device="meta")})


@pytest.mark.parametrize("operator", OPERATORS)
class TestTensors:
    @pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
    def test_parameters_are_floating(self, operator: str, dtype: torch.dtype) -> None:
        for name in _case(operator).differentiable:
            if name != "x":
                _assert_rejected(operator, name, **{name: torch.ones(4, 5, dtype=dtype)})

    def test_x_is_real(self, operator: str) -> None:
        if "x" in _case(operator).shapes:
            _assert_rejected(operator, "x", x=torch.ones(4, 5, dtype=torch.complex64))

    @pytest.mark.parametrize("value", [[[0.0] * 5] * 4, "zero"])
    def test_first_is_a_tensor(self, operator: str, value: Any) -> None:
        name = _case(operator).differentiable[0]
        _assert_rejected(operator, name, **{name: value})

    def test_x_is_a_tensor(self, operator: str) -> None:
        if "x" in _case(operator).shapes:
            _assert_rejected(operator, "x", x=[[0.0] * 5] * 4)
            _assert_rejected(operator, "x", x=None)

    def test_events_are_equal(self, operator: str) -> None:
        for name in _case(operator).differentiable[1:]:
            _assert_rejected(operator, name, "6", "5", **{name: torch.ones(4, 6)})
            _assert_rejected(operator, name, "1", "5", **{name: torch.ones(4, 1)})

    def test_batches_broadcast(self, operator: str) -> None:
        for name in _case(operator).differentiable[1:]:
            _assert_rejected(operator, name, "3", "4", **{name: torch.ones(3, 5)})

    def test_dtypes_are_equal(self, operator: str) -> None:
        for name in _case(operator).differentiable[1:]:
            if name != "x":
                _assert_rejected(operator, name, **{name: torch.ones(4, 5, dtype=torch.float64)})
                _assert_rejected(operator, name, **{name: torch.ones(4, 5, dtype=torch.bfloat16)})

    def test_devices_are_equal(self, operator: str) -> None:
        for name in _case(operator).differentiable[1:]:
            _assert_rejected(operator, name, "meta", DEVICE, **{name: torch.ones(4, 5, device="meta")})

    def test_layout_is_dense(self, operator: str) -> None:
        name = _case(operator).differentiable[0]
        _assert_rejected(operator, name, **{name: torch.ones(4, 5).to_sparse()})

    def test_there_is_a_batch(self, operator: str) -> None:
        name = _case(operator).differentiable[0]
        _assert_rejected(operator, name, **{name: torch.tensor(1.0)})

    @pytest.mark.parametrize("event_ndim", [-1, 3, 1.5, "1", True, np.bool_(True)])
    def test_event_ndim(self, operator: str, event_ndim: Any) -> None:
        _assert_rejected(operator, "event_ndim", event_ndim=event_ndim)


@pytest.mark.parametrize("operator", NOISY)
class TestNoise:
    @pytest.mark.parametrize("num_samples", [0, np.int64(0), -1, 1.5, "2", True, torch.tensor(True), 2**63])
    def test_num_samples(self, operator: str, num_samples: Any) -> None:
        _assert_rejected(operator, "num_samples", num_samples=num_samples)

    @pytest.mark.parametrize(
        "rng_state",
        [
            torch.zeros(3, dtype=torch.int64),
            torch.zeros((), dtype=torch.int64),
            torch.zeros(1, 2, dtype=torch.int64),
            torch.zeros(2, dtype=torch.int32),
            torch.zeros(2),
            torch.zeros(2, dtype=torch.int64, device="meta"),
            (1, 2),
        ],
        ids=str,
    )
    def test_rng_state(self, operator: str, rng_state: Any) -> None:
        _assert_rejected(operator, "rng_state", rng_state=rng_state)

    def test_a_sparse_rng_state(self, operator: str) -> None:
        _assert_rejected(operator, "rng_state", rng_state=torch.zeros(2, dtype=torch.int64).to_sparse())

    def test_two_sources(self, operator: str) -> None:
        _assert_rejected(operator, "generator", "rng_state", generator=torch.Generator())

    @pytest.mark.parametrize("generator", [0, "cpu"])
    def test_generator(self, operator: str, generator: Any) -> None:
        _assert_rejected(operator, "generator", rng_state=MISSING, generator=generator)

    @pytest.mark.parametrize("first_row", [-1, 2**32, 2**32 - 3, 2**62, 0.5])
    def test_first_row(self, operator: str, first_row: Any) -> None:
        """The last of the four rows must fit 32 bits."""
        _assert_rejected(operator, "first_row", first_row=first_row)

    def test_last_row(self, operator: str) -> None:
        kwargs = _case(operator).make()
        getattr(vae_ext, operator)(**kwargs | {"first_row": 2**32 - 4})

    def test_too_many_samples(self, operator: str) -> None:
        """Five elements take two counters: 2^31 samples take all there are, and one more is too many."""
        _assert_rejected(operator, "num_samples", num_samples=2**31 + 1)

    @pytest.mark.parametrize("stream", [0.5, "0", False])
    def test_stream(self, operator: str, stream: Any) -> None:
        _assert_rejected(operator, "stream", stream=stream)

    @pytest.mark.parametrize(
        "changes",
        [
            {"num_samples": 0},
            {"first_row": -1},
            {"stream": "0"},
            {"event_ndim": 3},
            {"scale": torch.zeros(4, 6)},
            {"scale": torch.zeros(3, 5)},
            {"scale": torch.zeros(4, 5, dtype=torch.float64)},
            {"scale": torch.zeros(4, 5, device="meta")},
            {"mean": torch.zeros(4, 5, dtype=torch.int64), "scale": torch.zeros(4, 5, dtype=torch.int64)},
            {"mean": torch.zeros(4, 5, dtype=torch.int64), "scale": 0.0},
        ],
        ids=lambda changes: ",".join(changes),
    )
    def test_a_refused_call_draws_nothing(self, operator: str, changes: dict[str, Any]) -> None:
        before = _generator_state()
        named = {_case(operator).argument(role): value for role, value in changes.items()}
        _assert_rejected(operator, **named, rng_state=MISSING)
        assert torch.equal(_generator_state(), before)


def test_scales_and_priors_are_tensors_or_numbers() -> None:
    for operator in NORMAL_OPERATORS:
        _assert_rejected(operator, "log_var", log_var="1")
    for operator in WITH_PRIOR:
        _assert_rejected(operator, "prior_mean", prior_mean="1")
        _assert_rejected(operator, "prior_log_var", prior_log_var="1")


@pytest.mark.parametrize("operator", SAMPLERS[1:])
@pytest.mark.parametrize(
    "prior_mean",
    [torch.zeros(4, 6), torch.zeros(3, 5), torch.zeros(2, 4, 5), torch.zeros(5).half()],
    ids=["event", "batch", "more batch", "dtype"],
)
def test_a_refused_prior_draws_nothing(operator: str, prior_mean: torch.Tensor) -> None:
    before = _generator_state()
    _assert_rejected(operator, prior_mean=prior_mean, rng_state=MISSING)
    assert torch.equal(_generator_state(), before)


@pytest.mark.parametrize("integer", [np.int64, np.uint8, torch.tensor])
def test_whatever_is_an_integer_is_one(integer: Any) -> None:
    kwargs = _case("normal_rsample").make()
    counts = {"num_samples": 3, "first_row": 2, "stream": 1, "event_ndim": 1}
    ours = vae_ext.normal_rsample(**kwargs | {name: integer(count) for name, count in counts.items()})
    assert torch.equal(ours, vae_ext.normal_rsample(**kwargs | counts))


@pytest.mark.parametrize("scale", [torch.ones(4, 6), torch.ones(3, 5)], ids=["event", "batch"])
@pytest.mark.parametrize("operator", NOISY)
def test_the_same_mistakes_are_found_under_transforms(operator: str, scale: torch.Tensor) -> None:
    name = _case(operator).argument("scale")
    kwargs = _case(operator).make() | {name: scale}
    mean = kwargs.pop(_case(operator).argument("mean"))
    with pytest.raises(ValueError, match=name):
        torch.func.grad(lambda mean: getattr(vae_ext, operator)(mean, **kwargs)[0].sum())(mean)


class TestLocationScale:
    def test_no_scale(self) -> None:
        _assert_rejected(LOCATION_SCALE, "scale", "log_scale", "nothing", log_scale=MISSING)

    def test_two_scales(self) -> None:
        _assert_rejected(LOCATION_SCALE, "scale and log_scale", scale=1.0)

    @pytest.mark.parametrize("scale", ["1", True, [1.0]])
    def test_the_scale_is_a_tensor_or_a_number(self, scale: Any) -> None:
        _assert_rejected(LOCATION_SCALE, "log_scale", log_scale=scale)

    def test_a_negative_scale(self) -> None:
        _assert_rejected(LOCATION_SCALE, "scale is -1.0", "0 or more", log_scale=MISSING, scale=-1.0)

    @pytest.mark.parametrize("standard", ["gaussian", "", None, 3])
    def test_standard(self, standard: Any) -> None:
        _assert_rejected(LOCATION_SCALE, "standard", standard=standard)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_float_scales_are_not_checked_for_their_value(value: float) -> None:
    """A NaN that went in comes out; it is no bad argument."""
    kl = vae_ext.normal_kl(torch.zeros(3, 4), value)
    assert not kl.isfinite().any()


class TestTransforms:
    """What runs eagerly under a transform takes no more than what runs fused."""

    def test_dtypes(self) -> None:
        integers, floats = torch.zeros(4, 3, dtype=torch.int64), torch.zeros(4, 3)
        with pytest.raises(TypeError, match=r"mean is torch\.int64"):
            torch.func.vmap(lambda mean, log_var: vae_ext.normal_kl(mean, log_var, event_ndim=1))(integers, floats)
        with pytest.raises(TypeError, match=r"log_var is torch.float32 but mean is torch.bfloat16"):
            torch.func.vmap(lambda mean, log_var: vae_ext.normal_kl(mean, log_var, event_ndim=1))(
                floats.bfloat16(), floats
            )

    @pytest.mark.parametrize("operator", SAMPLERS[1:])
    def test_a_prior_adds_no_batch_dims(self, operator: str) -> None:
        mean, prior = torch.zeros(4, 3), torch.zeros(2, 4, 3)
        state = vae_ext.make_rng_state()

        def sampled(mean: torch.Tensor) -> Any:
            return getattr(vae_ext, operator)(mean, std=1.0, prior_mean=prior, rng_state=state, event_ndim=1)

        with pytest.raises(ValueError, match="prior"):
            sampled(mean)
        with pytest.raises(ValueError, match="prior"):
            torch.func.jacfwd(sampled)(mean)


@pytest.mark.parametrize("name", ["std", "var"])
def test_a_negative_scale_is_refused(name: str) -> None:
    scale: dict[str, Any] = {name: -1.0}
    with pytest.raises(ValueError, match=rf"{name} is -1\.0; expected 0 or more"):
        vae_ext.normal_rsample(torch.zeros(4, 3), **scale)


def test_each_operator_takes_the_kinds_of_its_own() -> None:
    loc, scale, state = torch.zeros(4, 3), torch.ones(4, 3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="kind is 'scale'; expected log_var, log_std, std or var"):
        torch.ops.vae_ext.normal_rsample(loc, scale, state, None, 0, 0, "scale", 1)
    with pytest.raises(ValueError, match="kind is 'std'; expected scale or log_scale"):
        torch.ops.vae_ext.location_scale_rsample(loc, scale, state, None, 0, 0, "laplace", "std", 1)


CUDA_KERNELS = (*OPERATORS, *(f"{name}_backward" for name in OPERATORS))


@pytest.mark.parametrize("name", CUDA_KERNELS)
def test_every_operator_has_a_kernel_for_cuda_tensors(name: str) -> None:
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"vae_ext::{name}", "CUDA")


@pytest.mark.skipif(BUILD["cuda"] is not None, reason="this library is built with CUDA")
def test_a_build_without_cuda_says_how_to_get_another() -> None:
    """CPU tensors stand for those that there may be no device for."""
    mean, log_var = torch.zeros(2, 4, 5).unbind()
    cuda = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
    with pytest.raises(
        RuntimeError, match=r"vae_ext::normal_kl was given a CUDA tensor, but .* BUILD_CUDA=1"
    ) as caught:
        torch.ops.vae_ext.normal_kl.default.redispatch(cuda, mean, log_var, None, None, "log_var", 1)
    assert "\n" not in str(caught.value).strip()

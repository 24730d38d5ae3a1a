"""Peak memory: a forward allocates its output; forward and backward, that and the gradients asked for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import vae_ext
from tests.cases import NOISY, Case, as_tuple, case_of, cotangents
from tests.memory import peak_bytes

# For counters, partial sums and the like, whatever the size of the tensors. On CUDA a chunk of replicas is smaller, so
# that there are more sums of chunks, and every allocation is rounded up.
SLACK = (64 if torch.get_default_device().type == "cpu" else 256) * 1024

CASES = [
    case_of("bernoulli_log_prob", (512, 784), x_dtype=torch.uint8),
    Case("bernoulli_log_prob", {"logits": (4, 128, 784), "x": (128, 784)}, x_dtype=torch.uint8),
    case_of("bernoulli_log_prob", (2, 300_000), x_dtype=torch.bool),
    case_of("normal_log_prob", (512, 784), x_dtype=torch.uint8),
    case_of("normal_kl", (4096, 64)),
    Case(
        "normal_kl",
        {"mean": (4096, 64), "scale": (4096, 64), "prior_mean": (64,), "prior_scale": (64,)},
        "std",
    ),
    *(case_of(operator, (4096, 64), num_samples=num_samples) for operator in NOISY for num_samples in (None, 4)),
]


def _nbytes(tensors: tuple[Tensor, ...]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def test_the_measure_sees_a_temporary() -> None:
    tensor = torch.zeros(100_000)
    peak, _ = peak_bytes(lambda: (tensor + 1).square().sum())
    assert peak >= 2 * tensor.nbytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_forward_allocates_its_output(case: Case, dtype: torch.dtype) -> None:
    kwargs = case.make(dtype=dtype, requires_grad=True)
    peak, result = peak_bytes(lambda: case.ours(**kwargs))
    assert peak <= _nbytes(as_tuple(result)) + SLACK


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_forward_and_backward_allocate_output_and_gradients(case: Case, dtype: torch.dtype) -> None:
    kwargs = case.make(dtype=dtype, requires_grad=True)
    inputs = [kwargs[name] for name in case.differentiable]
    grads = cotangents(as_tuple(case.ours(**kwargs)))

    def forward_and_backward() -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        outputs = as_tuple(case.ours(**kwargs))
        return outputs, torch.autograd.grad(outputs, inputs, grads)

    peak, (outputs, gradients) = peak_bytes(forward_and_backward)
    new = tuple(gradient for gradient in gradients if all(gradient.data_ptr() != grad.data_ptr() for grad in grads))
    assert peak <= _nbytes(outputs) + _nbytes(new) + SLACK


def test_a_gradient_that_is_not_wanted_is_not_allocated() -> None:
    case = case_of("normal_log_prob", (512, 784))
    kwargs = case.make()
    kwargs["mean"].requires_grad_()
    outputs = as_tuple(case.ours(**kwargs))
    grads = cotangents(outputs)
    peak, _ = peak_bytes(lambda: torch.autograd.grad(outputs, kwargs["mean"], grads))
    assert peak <= kwargs["mean"].nbytes + SLACK


def test_the_gradient_of_a_sum_is_not_written_out() -> None:
    """It is one number, expanded to the shape of z."""
    case = case_of("normal_rsample", (4096, 64))
    kwargs = case.make(requires_grad=True)
    (z,) = as_tuple(case.ours(**kwargs))
    peak, (gradient,) = peak_bytes(lambda: torch.autograd.grad(z, kwargs["log_var"], torch.ones(()).expand_as(z)))
    assert peak <= gradient.nbytes + SLACK


def test_an_event_that_is_not_dense_is_copied_once_for_all_samples() -> None:
    logits, x = torch.randn(4, 128, 784), torch.rand(128, 2 * 784)[:, ::2]
    peak, result = peak_bytes(lambda: vae_ext.bernoulli_log_prob(logits, x.expand(4, -1, -1)))
    assert peak <= result.nbytes + x.numel() * x.itemsize + SLACK


def test_a_gradient_in_another_memory_format_is_copied_once_for_all_samples() -> None:
    mean, log_var = (torch.randn(64, 16, 8, 8, requires_grad=True) for _ in range(2))
    z = vae_ext.normal_rsample(mean, log_var, 4)
    grad = torch.randn(64, 16, 8, 8).contiguous(memory_format=torch.channels_last)
    peak, (gradient,) = peak_bytes(lambda: torch.autograd.grad(z, log_var, grad.expand_as(z)))
    assert peak <= gradient.nbytes + grad.nbytes + SLACK

"""JAX as one more contestant, where it is installed: the formulas of `vae_ext.reference` under `jax.jit`.

XLA computes with as many threads as it likes, so that it is compared fairly only where torch has all cores too. Its
noise is of JAX's default generator, under a key that differs from call to call. JAX returns before it has computed
and has memory of its own: each call is waited for, and its peak memory is not known.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Callable
from typing import Any

from benchmarks.workloads import Inputs

_LOG_2_PI = math.log(2 * math.pi)


def installed() -> bool:
    return importlib.util.find_spec("jax") is not None


def call(inputs: Inputs) -> Callable[[], object]:
    """A call of the workload's operator, on the next set of inputs each time: outputs, or gradients of all but x."""
    import jax

    operator = inputs.workload.operator
    samples = inputs.options.get("num_samples")
    # The arrays share their memory with the tensors, which nobody writes to.
    arrays = [
        {name: jax.dlpack.from_dlpack(tensor.detach()) for name, tensor in arguments.items()}
        for arguments in inputs.sets
    ]
    grads = tuple(jax.dlpack.from_dlpack(grad) for grad in inputs.grads)
    key = jax.random.key(0)

    def forward(parameters: dict[str, Any], data: dict[str, Any], count: Any) -> tuple[Any, ...]:
        return FORMULAS[operator](parameters | data, jax.random.fold_in(key, count), samples)

    def backward(parameters: dict[str, Any], data: dict[str, Any], count: Any, grads: tuple[Any, ...]) -> Any:
        _, pull_back = jax.vjp(lambda parameters: forward(parameters, data, count), parameters)
        return pull_back(grads)

    compiled = jax.jit(backward if grads else forward)
    # As an argument, or else XLA may compute with them beforehand.
    given = (grads,) if grads else ()
    split = [
        (
            {name: array for name, array in arguments.items() if name != "x"},
            {name: array for name, array in arguments.items() if name == "x"},
        )
        for arguments in arrays
    ]
    turns, counts = itertools.cycle(split), itertools.count()
    return lambda: jax.block_until_ready(compiled(*next(turns), next(counts), *given))


def _normal_rsample(arguments: dict[str, Any], key: Any, samples: int | None) -> tuple[Any, ...]:
    import jax
    import jax.numpy as jnp

    mean, log_var = _wide(arguments["mean"]), _wide(arguments["log_var"])
    shape = mean.shape if samples is None else (samples, *mean.shape)
    epsilon = jax.random.normal(key, shape, mean.dtype)
    return ((mean + jnp.exp(0.5 * log_var) * epsilon).astype(arguments["mean"].dtype),)


def _laplace_rsample(arguments: dict[str, Any], key: Any, samples: int | None) -> tuple[Any, ...]:
    import jax
    import jax.numpy as jnp

    loc, log_scale = _wide(arguments["loc"]), _wide(arguments["log_scale"])
    shape = loc.shape if samples is None else (samples, *loc.shape)
    epsilon = jax.random.laplace(key, shape, loc.dtype)
    return ((loc + jnp.exp(log_scale) * epsilon).astype(arguments["loc"].dtype),)


def _normal_kl(arguments: dict[str, Any], _key: Any, _samples: int | None) -> tuple[Any, ...]:
    import jax.numpy as jnp

    mean, log_var = _wide(arguments["mean"]), _wide(arguments["log_var"])
    return (0.5 * (jnp.expm1(log_var) - log_var + jnp.square(mean)).sum(-1),)


def _normal_rsample_kl(arguments: dict[str, Any], key: Any, samples: int | None) -> tuple[Any, ...]:
    return (*_normal_rsample(arguments, key, samples), *_normal_kl(arguments, key, samples))


def _normal_rsample_log_ratio(arguments: dict[str, Any], key: Any, samples: int | None) -> tuple[Any, ...]:
    import jax
    import jax.numpy as jnp

    (z,) = _normal_rsample(arguments, key, samples)
    mean, log_var, wide_z = _wide(arguments["mean"]), _wide(arguments["log_var"]), _wide(z)
    epsilon = jax.lax.stop_gradient((wide_z - mean) / jnp.exp(0.5 * log_var))
    return z, 0.5 * (log_var + jnp.square(epsilon) - jnp.square(wide_z)).sum(-1)


def _bernoulli_log_prob(arguments: dict[str, Any], _key: Any, _samples: int | None) -> tuple[Any, ...]:
    import jax

    logits, x = _wide(arguments["logits"]), _wide(arguments["x"])
    return ((x * logits - jax.nn.softplus(logits)).sum(-1),)


def _normal_log_prob(arguments: dict[str, Any], _key: Any, _samples: int | None) -> tuple[Any, ...]:
    import jax.numpy as jnp

    mean, log_var, x = (_wide(arguments[name]) for name in ("mean", "log_var", "x"))
    return (-0.5 * (_LOG_2_PI + log_var + jnp.square(x - mean) / jnp.exp(log_var)).sum(-1),)


def _wide(array: Any) -> Any:
    import jax.numpy as jnp

    return array.astype(jnp.float32)


FORMULAS: dict[str, Callable[[dict[str, Any], Any, int | None], tuple[Any, ...]]] = {
    "normal_rsample": _normal_rsample,
    # A workload's standard distribution is Laplace's.
    "location_scale_rsample": _laplace_rsample,
    "normal_kl": _normal_kl,
    "normal_rsample_kl": _normal_rsample_kl,
    "normal_rsample_log_ratio": _normal_rsample_log_ratio,
    "bernoulli_log_prob": _bernoulli_log_prob,
    "normal_log_prob": _normal_log_prob,
}

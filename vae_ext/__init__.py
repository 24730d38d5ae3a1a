"""Fused operators for variational autoencoders, as autograd functions of PyTorch; see `vae_ext.ops`."""

try:
    from vae_ext.ops import (
        bernoulli_log_prob,
        make_rng_state,
        normal_kl,
        normal_log_prob,
        normal_rsample,
        normal_rsample_kl,
        normal_rsample_log_ratio,
    )
except ImportError as error:
    # Kept until an operator is asked for: `vae-ext doctor` has to run where the native library does not load.
    _import_error = error

    def __getattr__(name: str) -> object:
        if name in __all__:
            raise _import_error
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__version__ = "0.1.0"

__all__ = [
    "bernoulli_log_prob",
    "make_rng_state",
    "normal_kl",
    "normal_log_prob",
    "normal_rsample",
    "normal_rsample_kl",
    "normal_rsample_log_ratio",
]

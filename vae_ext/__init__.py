"""Fused operators for variational autoencoders, as autograd functions of PyTorch; see `vae_ext.ops`."""

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

# The command line loads torch when a command needs it: `--help` is quick, and an interruption no traceback. A wrong
# guess does little harm, as `__getattr__` imports what is asked for.
_program = sys.argv[0] if sys.argv else ""
_is_command_line = Path(_program).name == "vae-ext" or (_program == "-m" and "vae_ext" in sys.orig_argv)

if TYPE_CHECKING or not _is_command_line:
    # An error is raised again when an operator is asked for: the rest has to work where the native library does not.
    with contextlib.suppress(ImportError):
        from vae_ext.ops import (
            bernoulli_log_prob,
            location_scale_rsample,
            make_rng_state,
            normal_kl,
            normal_log_prob,
            normal_rsample,
            normal_rsample_kl,
            normal_rsample_log_ratio,
        )


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vae_ext import ops

    return getattr(ops, name)


__version__ = "0.1.0"

__all__ = [
    "bernoulli_log_prob",
    "location_scale_rsample",
    "make_rng_state",
    "normal_kl",
    "normal_log_prob",
    "normal_rsample",
    "normal_rsample_kl",
    "normal_rsample_log_ratio",
]

"""What finds each fault of `faults.h`: a pattern of the message, for each build that finds it."""

from __future__ import annotations

import re

from tests.emulation.build import Kind, build, run_sanitized

_WRONG = r"values of \d+ are wrong"
_RACE = "ThreadSanitizer: data race"

FAULTS: dict[str, dict[Kind, str]] = {
    "read_after_write": {"plain": _WRONG, "thread": _RACE},
    "write_after_read": {"thread": _RACE},
    "shuffle_as_fence": {"thread": _RACE},
    "wrong_part_of_warp": {"thread": _RACE},
    "global_out_of_range": {"address": "heap-buffer-overflow"},
    "shared_out_of_range": {"address": "use-after-poison"},
    "misaligned": {"address": "misaligned address .* requires 16 byte alignment"},
    "unwritten_output": {"plain": "1 " + _WRONG},
    "uninitialised_shared": {"plain": _WRONG},
    "return_before_barrier": {"plain": "returns while others wait for it at __syncthreads"},
    "return_before_shuffle": {"plain": "returns while lane 0 waits for it at __shfl_down_sync"},
    "lane_outside_mask": {"plain": "asks __shfl_xor_sync for lane 16, which its mask leaves out"},
    "different_masks": {"plain": "waits at __shfl_xor_sync with another mask"},
    "barrier_on_one_side": {"plain": "no thread can go on: 32 wait at __syncthreads"},
    "two_blocks_write_one_address": {"thread": _RACE},
    "block_reads_of_another": {"thread": _RACE},
    "too_much_shared": {"plain": "more shared memory than a block has"},
}


def found_by(kind: Kind) -> list[str]:
    """The faults that a build has to find."""
    return [name for name, patterns in FAULTS.items() if kind in patterns]


def check_found(name: str, kind: Kind) -> None:
    """Assert that a build finds a fault, and says which."""
    done = run_sanitized(build(kind) / "self_test", name)
    assert done.returncode != 0, f"{name} was not found"
    assert re.search(FAULTS[name][kind], done.stderr), done.stderr


def check_silent(name: str, kind: Kind) -> None:
    """Assert that a build has nothing against the same kernel without its fault."""
    done = run_sanitized(build(kind) / "self_test", name, "without")
    assert done.returncode == 0, done.stderr

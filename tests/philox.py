"""The operators' noise, written a second time, in NumPy: Philox4x32-10 and Box-Muller."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_MASK_64 = 2**64 - 1

Words = npt.NDArray[np.uint64]


def philox4x32(counter: Words, key: Words) -> Words:
    """Ten rounds of Philox on counters `[..., 4]` and keys `[..., 2]` of 32-bit words."""
    c0, c1, c2, c3 = np.moveaxis(counter, -1, 0)
    k0, k1 = np.moveaxis(key, -1, 0)
    for _ in range(10):
        product0, product1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (product1 >> _32) ^ c1 ^ k0,
            product1 & _LOW,
            (product0 >> _32) ^ c3 ^ k1,
            product0 & _LOW,
        )
        k0, k1 = (k0 + _KEY_STEPS[0]) & _LOW, (k1 + _KEY_STEPS[1]) & _LOW
    return np.stack(np.broadcast_arrays(c0, c1, c2, c3), -1)


def stream_constant(stream: int) -> int:
    """The 64 bits that a stream's keys are xored with."""
    z = (stream + 1) * 0x9E3779B97F4A7C15 & _MASK_64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK_64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK_64
    return z ^ (z >> 31)


def noise_words(rng_state: tuple[int, int], samples: Any, rows: Any, size: int, stream: int = 0) -> Words:
    """The random words `[samples, rows, ceil(size / 4), 4]` for these sample and row indices."""
    seed, offset = (value & _MASK_64 for value in rng_state)
    key = seed ^ stream_constant(stream)
    groups = -(-size // 4)
    sample, row, group = np.ix_(np.asarray(samples, np.uint64), np.asarray(rows, np.uint64), np.arange(groups))
    first = sample * np.uint64(groups) + group.astype(np.uint64)
    counter = np.stack(
        np.broadcast_arrays(first, row, np.uint64(offset & 0xFFFFFFFF), np.uint64(offset >> 32)), -1
    ).astype(np.uint64)
    return philox4x32(counter, np.array([key & 0xFFFFFFFF, key >> 32], np.uint64))


def box_muller(words: Words) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The four lanes of each group of words in float64, and the radius of each."""
    pairs = words.reshape(*words.shape[:-1], 2, 2)
    radius_word, angle_word = pairs[..., 0], pairs[..., 1]
    # Both terms are multiples of 2^-33 below 2, so that float64 holds the sum exactly, as an fma would.
    uniform = (radius_word.astype(np.float32).astype(np.float64) * 2.0**-32 + 2.0**-33).astype(np.float32)
    half_turns = angle_word.astype(np.float64) * 2.0**-31
    radius = np.sqrt(-2 * np.log(uniform.astype(np.float64)))
    lanes = np.stack([radius * np.cos(np.pi * half_turns), radius * np.sin(np.pi * half_turns)], -1)
    return lanes.reshape(*words.shape), np.repeat(radius, 2, -1)


def quantiles(words: Words, distribution: Any) -> npt.NDArray[np.float64]:
    """What each word is to the distribution of SciPy's, in float64: its quantile at (word + 1/2) / 2^32."""
    lower = (words.astype(np.float64) + 0.5) * 2.0**-32
    upper = (2.0**32 - 1 - words.astype(np.float64) + 0.5) * 2.0**-32
    result: npt.NDArray[np.float64] = np.where(lower < 0.5, distribution.ppf(lower), distribution.isf(upper))
    return result


def epsilon(
    rng_state: tuple[int, int], samples: Any, rows: Any, size: int, stream: int = 0
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The noise `[samples, rows, size]` in float64, and the radius that scales each element's error."""
    lanes, radius = box_muller(noise_words(rng_state, samples, rows, size, stream))
    shape = (*lanes.shape[:2], -1)
    return lanes.reshape(shape)[..., :size], radius.reshape(shape)[..., :size]

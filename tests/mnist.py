"""Files in MNIST's format."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_mnist(folder: Path, train: int = 30, test: int = 12, side: int = 6, compress: bool = True) -> None:
    """Four IDX files shaped like MNIST's, of random bytes."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for prefix, count in (("train", train), ("t10k", test)):
        for name, shape in (("images-idx3", (count, side, side)), ("labels-idx1", (count,))):
            content = idx_bytes(rng.integers(0, 10 if len(shape) == 1 else 256, shape))
            path = folder / f"{prefix}-{name}-ubyte"
            if compress:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
            else:
                path.write_bytes(content)

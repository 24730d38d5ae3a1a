"""Datasets, kept in the narrowest type that holds them exactly.

``load_dataset("digits" | "mnist" | "frey" | "npy:PATH")`` is the entry point.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import zipfile
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vae_ext.errors import UserError

MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_SHA256 = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
IDX_UINT8 = 0x08
FREY_FILE = "frey_rawface.mat"
FREY_SHA256 = "265a83a23adb081755cd3de375509828e690324d1d60f076b8ecebc840d59c64"


@dataclass(frozen=True)
class Dataset:
    """Training and held-out rows of one dataset.

    Attributes:
        name: what `load_dataset` finds it by from any folder: the path behind ``npy:`` is absolute.
        train: `[N, D]`, uint8 or float32.
        test: `[N', D]`, the same dtype.
        scale: the stored value that stands for 1 (255 for bytes, 16 for `digits`, 1 for floats).
        event_shape: the shape of one datapoint before it was flattened to D.
        train_labels, test_labels: `[N]` and `[N']`, int64, where there are any; of use to colour pictures by.
    """

    name: str
    train: Tensor
    test: Tensor
    scale: int
    event_shape: tuple[int, ...]
    train_labels: Tensor | None = None
    test_labels: Tensor | None = None

    @property
    def data_dim(self) -> int:
        return self.train.shape[1]

    @cached_property
    def range(self) -> tuple[float, float]:
        """The least and the greatest value, decoded."""
        limits = [limit for rows in (self.train, self.test) for limit in rows.aminmax()]
        decoded = self.decode(torch.stack(limits))
        return decoded.min().item(), decoded.max().item()

    def fingerprint(self) -> str:
        """Of the training rows as they are stored: the SHA-256 of their bytes."""
        return hashlib.sha256(self.train.cpu().contiguous().numpy().data).hexdigest()

    def to(self, device: torch.device) -> Dataset:
        return replace(self, train=self.train.to(device), test=self.test.to(device))

    def decode(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        """Stored rows as float32, in `out` where it is given."""
        x = rows.to(torch.float32, copy=True) if out is None else out.copy_(rows)
        return x.div_(self.scale)


def load_dataset(name: str, data_dir: Path | None = None) -> Dataset:
    """Loads a dataset by name.

    Args:
        name: ``digits`` (scikit-learn's 8 x 8 digits), ``mnist``, ``frey`` (1965 faces, 28 x 20), or ``npy:PATH``.
        data_dir: the folder with MNIST's four IDX files, downloaded to the user's cache where None; or the one with
            frey_rawface.mat, which is not downloaded. Not for the others.

    Raises:
        UserError: the name is unknown or takes no folder, or a file is missing, damaged, or holds unusable values.
    """
    if data_dir is not None and (name == "digits" or name.startswith("npy:")):
        source = "come with scikit-learn" if name == "digits" else "says itself where its file is"
        raise UserError(f"--data-dir is {data_dir}, but {name} {source}: leave it out")
    if name == "digits":
        return _load_digits()
    if name == "mnist":
        return _load_mnist(data_dir)
    if name == "frey":
        return _load_frey(data_dir)
    if name.startswith("npy:"):
        return _load_npy(name)
    raise UserError(f"unknown dataset {name!r}: expected digits, mnist, frey or npy:PATH")


def short_name(name: str) -> str:
    """`digits`, `mnist`, `frey`, or the stem of the file behind `npy:`."""
    return Path(name.removeprefix("npy:")).stem


def _load_digits() -> Dataset:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return _split("digits", digits.images.astype(np.uint8), scale=16, num_test=297, labels=digits.target)


def _split(name: str, rows: np.ndarray, scale: int, num_test: int, labels: np.ndarray | None = None) -> Dataset:
    # RandomState's stream is frozen for good: the held-out rows are the same everywhere, for every --seed.
    order = np.random.RandomState(0).permutation(len(rows))
    flat = torch.from_numpy(rows.reshape(len(rows), -1)[order])
    data = Dataset(name, flat[num_test:], flat[:num_test], scale, rows.shape[1:])
    if labels is None:
        return data
    shuffled = torch.from_numpy(labels[order].astype(np.int64))
    return replace(data, train_labels=shuffled[num_test:], test_labels=shuffled[:num_test])


def _load_frey(data_dir: Path | None) -> Dataset:
    if data_dir is None:
        raise UserError(f"frey is not downloaded: name the folder of {FREY_FILE} with --data-dir")
    faces = _read_frey(data_dir / FREY_FILE)
    return _split("frey", faces, scale=255, num_test=len(faces) // 10)


def _read_frey(path: Path) -> np.ndarray:
    """The faces `[N, 28, 20]` of a MATLAB file whose ``ff`` has one in each column."""
    from scipy.io import loadmat

    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    # Not only for the user's sake: damaged files have been seen to crash SciPy's reader, and the process with it.
    if hashlib.sha256(content).hexdigest() != FREY_SHA256:
        raise UserError(f"{path} is damaged, or not the Frey faces: its SHA-256 is another")
    faces: np.ndarray = loadmat(io.BytesIO(content))["ff"]
    return np.ascontiguousarray(faces.T).reshape(-1, 28, 20)


def _load_npy(name: str) -> Dataset:
    if name == "npy:":
        raise UserError("npy: names no file: expected npy:PATH, an array saved with numpy.save")
    path = Path(name.removeprefix("npy:")).absolute()
    array = read_npy(path)
    if array.ndim < 2 or array.shape[0] < 2 or array.size == 0:
        raise UserError(
            f"{path} has shape {list(array.shape)}: expected [N, ...], two or more rows of one or more values"
        )
    rows, scale = _narrowest(array, path)
    return _split(f"npy:{path}", rows, scale, num_test=max(1, len(rows) // 10))


def read_npy(path: Path) -> np.ndarray:
    """The array of an .npy file, which is never unpickled. Raises UserError where it is none."""
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        # NumPy's own words advise to unpickle what is not an array, which this program never does.
        raise UserError(f"{path} is not a whole .npy file of plain numbers: save it with numpy.save") from error
    if not isinstance(array, np.ndarray):
        raise UserError(f"{path} is an .npz archive: expected one array saved with numpy.save")
    return array


def _narrowest(array: np.ndarray, path: Path) -> tuple[np.ndarray, int]:
    """The array as uint8 or float32, and the stored value that stands for 1."""
    if array.dtype == np.bool_:
        return array.view(np.uint8), 1
    if array.dtype == np.uint8:
        return array, 1 if array.max() <= 1 else 255
    if array.dtype.kind != "f":
        raise UserError(f"{path} holds {array.dtype}: expected floats, uint8 or bool")
    if not np.isfinite(array).all():
        raise UserError(f"{path} holds NaN or infinite values: expected finite floats")
    with np.errstate(over="ignore"):
        narrow = array.astype(np.float32)
    if not np.isfinite(narrow).all():
        raise UserError(f"{path} holds values beyond float32, up to {np.abs(array).max():g}: rescale them")
    return narrow, 1


def _load_mnist(data_dir: Path | None) -> Dataset:
    train_images, train_labels, test_images, test_labels = (_find_mnist_file(name, data_dir) for name in MNIST_SHA256)
    train, train_digits = _read_images(train_images, train_labels)
    test, test_digits = _read_images(test_images, test_labels)
    if train.shape[1:] != test.shape[1:]:
        raise UserError(
            f"{test_images} has images of {_by(test)} pixels, but {train_images} of {_by(train)}: "
            "they are not of one dataset"
        )
    return Dataset("mnist", _flat_rows(train), _flat_rows(test), 255, train.shape[1:], train_digits, test_digits)


def _find_mnist_file(name: str, data_dir: Path | None) -> Path:
    if data_dir is None:
        return _download_mnist_file(name)
    if not data_dir.is_dir():
        raise UserError(f"{data_dir} is not a folder: expected the one that holds MNIST's four IDX files")
    for candidate in (data_dir / name, data_dir / name.removesuffix(".gz")):
        if candidate.is_file():
            return candidate
    raise UserError(f"{data_dir} has no {name.removesuffix('.gz')}, gzipped or not: expected MNIST's four IDX files")


def _download_mnist_file(name: str) -> Path:
    import pooch

    try:
        pooch.get_logger().setLevel("WARNING")
        return Path(pooch.retrieve(MNIST_URL + name, MNIST_SHA256[name], name, pooch.os_cache("vae_ext") / "mnist"))
    except (OSError, ValueError) as error:
        # requests' exceptions are OSErrors; a wrong checksum is a ValueError.
        reason = "the checksum is wrong" if isinstance(error, ValueError) else type(error).__name__
        raise UserError(
            f"cannot download {MNIST_URL}{name} ({reason}): "
            "fetch MNIST's four IDX files yourself and name their folder with --data-dir"
        ) from error


def _read_images(images_path: Path, labels_path: Path) -> tuple[np.ndarray, Tensor]:
    images, labels = read_idx(images_path), read_idx(labels_path)
    for path, array, ndim in ((images_path, images, 3), (labels_path, labels, 1)):
        if array.ndim != ndim or array.size == 0:
            raise UserError(f"{path} has dimensions {list(array.shape)}: expected {ndim} of them, none 0")
    if len(images) != len(labels):
        raise UserError(
            f"{images_path} has {len(images)} images but {labels_path} {len(labels)} labels: "
            "they are not of one dataset"
        )
    return images, torch.from_numpy(labels.astype(np.int64))


def read_idx(path: Path) -> np.ndarray:
    """Reads one IDX file of unsigned bytes, gzipped or not (told by its first two bytes).

    The format: two zero bytes, the type (0x08), the number of dimensions, each dimension as a big-endian
    32-bit number, then the values in row-major order. Every byte must be accounted for.

    Raises:
        UserError: the file is missing, truncated, corrupt, of another format, or has bytes left over.
    """
    content = _read_maybe_gzipped(path)
    if len(content) < 4 or content[:2] != b"\0\0":
        begins = f"begins with 0x{content[:4].hex()}" if content else "is empty"
        raise UserError(f"{path} is not an IDX file: it {begins}, expected 0x0000")
    if content[2] != IDX_UINT8:
        raise UserError(f"{path} holds IDX type 0x{content[2]:02x}: expected 0x08, unsigned bytes")
    header = 4 + 4 * content[3]
    if len(content) < header:
        raise UserError(f"{path} is truncated: {len(content)} bytes, but its header alone has {header}")
    shape = tuple(int(size) for size in np.frombuffer(content[4:header], dtype=">u4"))
    expected = header + math.prod(shape)
    if len(content) != expected or content[3] == 0:
        raise UserError(f"{path} is truncated or corrupt: {len(content)} bytes, but its header promises {expected}")
    return np.frombuffer(content, dtype=np.uint8, offset=header).reshape(shape)


def _read_maybe_gzipped(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is truncated or corrupt: {error}") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def _flat_rows(images: np.ndarray) -> Tensor:
    # A copy, because torch wants memory it may write to and a file's bytes are not.
    return torch.from_numpy(images.reshape(len(images), -1).copy())


def _by(images: np.ndarray) -> str:
    return " x ".join(str(size) for size in images.shape[1:])

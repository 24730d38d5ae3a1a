"""Datasets: what they hold, and what they say of files that are not what they should be."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat
from sklearn.datasets import load_digits

from tests.mnist import idx_bytes, write_mnist
from vae_ext import datasets
from vae_ext.datasets import load_dataset, read_idx
from vae_ext.errors import UserError

pytestmark = pytest.mark.cpu_only("about files")

RNG = np.random.default_rng(0)


def test_digits_are_sklearns_split_once_for_all() -> None:
    data = load_dataset("digits")
    assert data.train.shape == (1500, 64)
    assert data.test.shape == (297, 64)
    assert data.train.dtype == torch.uint8
    assert data.event_shape == (8, 8)
    rows = torch.cat([data.decode(data.train), data.decode(data.test)]).double().numpy()
    expected = load_digits().data / 16
    assert np.array_equal(rows[np.lexsort(rows.T)], expected[np.lexsort(expected.T)])
    assert torch.equal(data.test, load_dataset("digits").test)
    # The labels went the way of their rows.
    assert data.train_labels is not None
    row = (load_digits().data == data.train[7].numpy()).all(1).argmax()
    assert data.train_labels[7] == load_digits().target[row]


@pytest.mark.parametrize("compress", [True, False])
def test_mnist_files_gzipped_or_not(tmp_path: Path, compress: bool) -> None:
    write_mnist(tmp_path, compress=compress)
    data = load_dataset("mnist", tmp_path)
    suffix = ".gz" if compress else ""
    expected = read_idx(tmp_path / f"t10k-images-idx3-ubyte{suffix}").reshape(12, 36)
    assert data.test.dtype == torch.uint8
    assert np.array_equal(data.test.numpy(), expected)
    torch.testing.assert_close(data.decode(data.test).double(), torch.from_numpy(expected / 255))
    assert data.train.shape == (30, 36)
    assert data.event_shape == (6, 6)
    assert data.test_labels is not None
    assert data.test_labels.tolist() == read_idx(tmp_path / f"t10k-labels-idx1-ubyte{suffix}").tolist()


GOOD = idx_bytes(RNG.integers(0, 256, (5, 4, 3)))
# Of no time: it is in the names of tests, which have to be the same in all processes that collect them.
GZIPPED = gzip.compress(GOOD, mtime=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an IDX file"),
        (GOOD[:3], "not an IDX file"),
        (b"\x89PNG" + GOOD, "not an IDX file"),
        (GOOD[:2] + b"\x0d" + GOOD[3:], "IDX type 0x0d"),
        (GOOD[:10], "10 bytes, but its header alone has 16"),
        (GOOD[:-1], "75 bytes, but its header promises 76"),
        (GOOD + b"\0", "77 bytes, but its header promises 76"),
        (b"\0\0\x08\0" + b"\0", "truncated or corrupt"),
        (b"\0\0\x08\x03" + b"\xff" * 12 + GOOD, "truncated or corrupt"),
        (GZIPPED[:-9], "truncated or corrupt"),
        (GZIPPED[:30] + b"\xff\xff" + GZIPPED[32:], "truncated or corrupt"),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_idx_round_trip(tmp_path: Path) -> None:
    array = RNG.integers(0, 256, (2, 3, 4, 5)).astype(np.uint8)
    (tmp_path / "a").write_bytes(idx_bytes(array))
    assert np.array_equal(read_idx(tmp_path / "a"), array)


FACES = RNG.integers(0, 256, (31, 28, 20)).astype(np.uint8)


def save_frey(folder: Path) -> Path:
    path = folder / "frey_rawface.mat"
    savemat(path, {"ff": FACES.reshape(31, 560).T})
    return path


def test_frey_has_a_face_in_each_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = save_frey(tmp_path).read_bytes()
    monkeypatch.setattr(datasets, "FREY_SHA256", hashlib.sha256(content).hexdigest())
    data = load_dataset("frey", tmp_path)
    assert (data.event_shape, data.train.dtype, len(data.train), len(data.test)) == ((28, 20), torch.uint8, 28, 3)
    rows = torch.cat([data.train, data.test]).numpy()
    faces = FACES.reshape(31, 560)
    assert np.array_equal(rows[np.lexsort(rows.T)], faces[np.lexsort(faces.T)])
    torch.testing.assert_close(data.decode(data.test), data.test / 255)


def test_frey_must_be_named() -> None:
    with pytest.raises(
        UserError, match=r"frey is not downloaded: name the folder of frey_rawface\.mat with --data-dir"
    ):
        load_dataset("frey")


def test_frey_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*frey_rawface\.mat: No such file"):
        load_dataset("frey", tmp_path)


def test_frey_is_damaged(tmp_path: Path) -> None:
    save_frey(tmp_path)
    with pytest.raises(UserError, match=r"frey_rawface\.mat is damaged, or not the Frey faces"):
        load_dataset("frey", tmp_path)


def test_the_range_of_values(tmp_path: Path) -> None:
    assert load_dataset("digits").range == (0, 1)
    array = np.array([[-2.5, 0.0], [0.25, 1.5], [0.0, 0.0]])
    assert load_dataset(save_npy(tmp_path, array)).range == (-2.5, 1.5)


def remove_labels(folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()


def lose_a_label(folder: Path) -> None:
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(np.zeros(29))))


def enlarge_test_images(folder: Path) -> None:
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(np.zeros((12, 7, 7)))))


def swap_images_and_labels(folder: Path) -> None:
    labels = (folder / "train-labels-idx1-ubyte.gz").read_bytes()
    (folder / "train-images-idx3-ubyte.gz").write_bytes(labels)


def empty_test_set(folder: Path) -> None:
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(np.zeros((0, 6, 6)))))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (remove_labels, "has no t10k-labels-idx1-ubyte, gzipped or not"),
        (lose_a_label, "30 images but .* 29 labels"),
        (enlarge_test_images, "7 x 7 pixels, but .* 6 x 6"),
        (swap_images_and_labels, r"dimensions \[30\]: expected 3 of them"),
        (empty_test_set, "none 0"),
    ],
)
def test_mnist_files_that_do_not_belong_together(tmp_path: Path, harm: Callable[[Path], None], message: str) -> None:
    write_mnist(tmp_path)
    harm(tmp_path)
    with pytest.raises(UserError, match=message):
        load_dataset("mnist", tmp_path)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A local server of small MNIST-like files that stands in for the real one, and an empty cache."""
    folder = tmp_path / "served"
    write_mnist(folder)
    handler = partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(datasets, "MNIST_URL", f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield folder
        server.shutdown()


def test_mnist_is_downloaded_checked_and_kept(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in mirror.iterdir()}
    monkeypatch.setattr(datasets, "MNIST_SHA256", {name: sums[name] for name in datasets.MNIST_SHA256})
    downloaded = load_dataset("mnist")
    assert torch.equal(downloaded.train, load_dataset("mnist", mirror).train)
    for path in mirror.iterdir():
        path.unlink()
    assert torch.equal(load_dataset("mnist").train, downloaded.train)


def test_a_download_with_a_wrong_checksum_is_refused(mirror: Path) -> None:
    with pytest.raises(UserError, match=r"the checksum is wrong.*--data-dir"):
        load_dataset("mnist")


def test_a_download_that_fails_names_the_way_out(mirror: Path) -> None:
    (mirror / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(UserError, match=r"cannot download http.*--data-dir"):
        load_dataset("mnist")


def save_npy(folder: Path, array: np.ndarray) -> str:
    np.save(folder / "data.npy", array)
    return f"npy:{folder / 'data.npy'}"


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (RNG.random((20, 3, 4)), torch.float32),
        (RNG.random((20, 12)).astype(np.float16), torch.float32),
        (np.asfortranarray(RNG.random((20, 12)).astype(">f4")), torch.float32),
        (RNG.integers(0, 256, (20, 3, 4)).astype(np.uint8), torch.uint8),
        (RNG.integers(0, 2, (20, 12)).astype(np.uint8), torch.uint8),
        (RNG.integers(0, 2, (20, 12)).astype(bool), torch.uint8),
    ],
    ids=["float64", "float16", "big-endian Fortran", "bytes", "binary", "bool"],
)
def test_npy_keeps_every_row(tmp_path: Path, array: np.ndarray, dtype: torch.dtype) -> None:
    data = load_dataset(save_npy(tmp_path, array))
    assert data.train.dtype == dtype
    assert len(data.train) == 18
    assert data.event_shape == array.shape[1:]
    rows = torch.cat([data.decode(data.train), data.decode(data.test)])
    expected = array.reshape(20, 12).astype(np.float64) / (255 if array.max() > 1 else 1)
    np.testing.assert_allclose(sorted(rows.tolist()), sorted(expected.tolist()), rtol=1e-6)


def test_npy_is_remembered_by_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = save_npy(tmp_path, RNG.random((20, 4)))
    monkeypatch.chdir(tmp_path)
    assert load_dataset("npy:data.npy").name == name


def with_value(value: float) -> np.ndarray:
    array = RNG.random((10, 4))
    array[3, 2] = value
    return array


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (with_value(np.nan), "NaN or infinite"),
        (with_value(np.inf), "NaN or infinite"),
        (with_value(1e39), r"beyond float32, up to 1e\+39: rescale"),
        (np.zeros((10, 4), dtype=np.int64), "holds int64"),
        (np.zeros((10, 4), dtype=np.complex64), "holds complex64"),
        (np.zeros(10), r"shape \[10\]"),
        (np.zeros((0, 4)), r"shape \[0, 4\]"),
        (np.zeros((1, 4)), r"shape \[1, 4\]"),
        (np.zeros((4, 0)), r"shape \[4, 0\]"),
    ],
)
def test_npy_with_unusable_values(tmp_path: Path, array: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_dataset(save_npy(tmp_path, array))


def test_npy_files_that_are_no_plain_array(tmp_path: Path) -> None:
    objects = save_npy(tmp_path, np.zeros((10, 4)))
    path = tmp_path / "data.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"not a whole \.npy file"):
        load_dataset(objects)
    np.save(path, np.array([[{}], [{}]], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"not a whole \.npy file"):
        load_dataset(objects)
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(3))
    with pytest.raises(UserError, match="npz archive"):
        load_dataset(objects)
    path.write_bytes(b"PK\x03\x04 but no archive")
    with pytest.raises(UserError, match=r"not a whole \.npy file"):
        load_dataset(objects)
    path.unlink()
    with pytest.raises(UserError, match=r"cannot read .*: No such file"):
        load_dataset(objects)


@pytest.mark.parametrize("name", ["cifar", "", "npy", "Digits"])
def test_an_unknown_dataset_lists_the_known(name: str) -> None:
    with pytest.raises(UserError, match=r"unknown dataset .*: expected digits, mnist, frey or npy:PATH"):
        load_dataset(name)

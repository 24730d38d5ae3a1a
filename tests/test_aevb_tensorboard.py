"""Records for TensorBoard, with a recorder in its place: it need not be installed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.commands import SMALL, assert_one_sentence, invoke, read_metrics
from tests.training import CPU
from vae_ext.aevb import RunDirectory, TrainConfig, Trainer, load_checkpoint, save_checkpoint, train
from vae_ext.aevb.checkpoint import RunOptions
from vae_ext.datasets import load_dataset

pytestmark = pytest.mark.cpu_only("stands in for TensorBoard")


class FakeWriter:
    writers: list[FakeWriter] = []  # noqa: RUF012

    def __init__(self, folder: str, purge_step: int | None = None) -> None:
        Path(folder).mkdir(exist_ok=True)
        self.folder, self.purge_step = folder, purge_step
        self.scalars: dict[str, list[tuple[int, float]]] = {}
        self.flushed = 0
        FakeWriter.writers.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.setdefault(name, []).append((step, value))

    def flush(self) -> None:
        self.flushed += 1


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[FakeWriter]:
    module: Any = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = FakeWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    FakeWriter.writers.clear()
    return FakeWriter.writers


def test_every_record_is_logged(tmp_path: Path, writers: list[FakeWriter]) -> None:
    assert invoke("train", *SMALL, "--tensorboard", "--out", tmp_path).exit_code == 0
    (writer,) = writers
    assert (writer.folder, writer.purge_step) == (str(tmp_path / "tensorboard"), None)
    metrics = read_metrics(tmp_path)
    assert writer.scalars == {
        "bound/train": [(line["samples"], line["train_bound"]) for line in metrics],
        "bound/held-out": [(line["samples"], line["test_bound"]) for line in metrics],
    }
    assert writer.flushed == len(metrics)


def test_an_earlier_log_is_moved_aside_with_its_run(tmp_path: Path, writers: list[FakeWriter]) -> None:
    for _ in range(2):
        assert invoke("train", *SMALL, "--tensorboard", "--out", tmp_path).exit_code == 0
    assert (tmp_path / "earlier-1" / "tensorboard").is_dir()
    assert len(writers) == 2


def test_a_resumed_run_goes_on_logging(tmp_path: Path, writers: list[FakeWriter]) -> None:
    """Without being told to, and what an earlier part of it logged beyond the checkpoint is dropped."""
    assert invoke("train", *SMALL, "--tensorboard", "--out", tmp_path).exit_code == 0
    checkpoint = load_checkpoint(tmp_path / "checkpoint.pt")
    (tmp_path / "checkpoint.pt").unlink()
    trainer = Trainer(load_dataset("digits"), checkpoint.config, CPU)
    trainer.step()
    save_checkpoint(tmp_path / "checkpoint.pt", trainer, checkpoint.options)
    assert invoke("train", "--resume", tmp_path).exit_code == 0
    assert [writer.purge_step for writer in writers] == [None, 101]
    # The first record, at 100 samples, was not counted by the checkpoint.
    assert writers[1].scalars == writers[0].scalars


def test_a_record_is_logged_before_it_is_counted(tmp_path: Path) -> None:
    """So that a run killed between the two logs it again when it goes on, rather than never."""
    trainer = Trainer(load_dataset("digits"), TrainConfig(samples=500, hidden=8), CPU)
    directory = RunDirectory(tmp_path)
    counted: list[int] = []
    records = train(trainer, directory, log=lambda _: counted.append(directory.progress.records))
    assert counted == list(range(len(records)))


def test_without_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    missing = "logging to TensorBoard needs its package: pip install tensorboard"
    # Before the data are looked for.
    for dataset in ("digits", "npy:absent.npy"):
        assert_one_sentence(
            invoke("train", *SMALL, "--dataset", dataset, "--tensorboard", "--out", tmp_path / "run"), missing
        )
    assert not list(tmp_path.iterdir())

    np.save(tmp_path / "data.npy", np.zeros((20, 4), dtype=np.uint8))
    path = tmp_path / "checkpoint.pt"
    trainer = Trainer(load_dataset(f"npy:{tmp_path}/data.npy"), TrainConfig(hidden=8, batch_size=5), CPU)
    save_checkpoint(path, trainer, RunOptions(trainer.dataset.name, tensorboard=True))
    (tmp_path / "data.npy").unlink()
    assert_one_sentence(invoke("train", "--resume", tmp_path), missing)

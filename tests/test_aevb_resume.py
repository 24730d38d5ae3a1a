"""A run that is stopped, at whatever moment, and resumed is the run that never stopped."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch

from tests.commands import REPOSITORY, SMALL, assert_one_sentence, invoke, read_metrics, without_seconds
from tests.training import CPU, Crash, NoDisplay, StopError, make_trainer
from vae_ext.aevb import Trainer, load_checkpoint, save_checkpoint
from vae_ext.aevb.checkpoint import RunOptions, resume
from vae_ext.aevb.distributed import Team
from vae_ext.aevb.run import record_points, train
from vae_ext.aevb.run_directory import Record, RunDirectory, sole_writer
from vae_ext.datasets import Dataset
from vae_ext.errors import UserError
from vae_ext.files import write_atomically

pytestmark = pytest.mark.cpu_only("models and their generators are made on the CPU")


def assert_same_parameters(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b), name


def resume_from(trainer: Trainer, path: Path) -> None:
    resume(trainer, load_checkpoint(path), path)


def test_killed_ten_times_at_random_moments(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tests.killed", str(tmp_path), "0"],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    saved = json.loads(result.stdout)
    assert len(saved) == 10
    # Some died before they had saved anything new, but not all.
    assert len(set(saved)) > 3
    assert saved == sorted(saved)
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    ours, theirs = load_checkpoint(killed / "checkpoint.pt"), load_checkpoint(alone / "checkpoint.pt")
    assert_same_parameters(ours.model, theirs.model)
    assert torch.equal(ours.state["generator"], theirs.state["generator"])
    assert without_seconds(killed) == without_seconds(alone)
    seconds = [line["seconds"] for line in read_metrics(killed)]
    assert seconds == sorted(seconds)
    assert {path.name for path in killed.iterdir()} == {path.name for path in alone.iterdir()}


@pytest.mark.parametrize("optimizer", ["adagrad", "adam", "sgd"])
def test_a_resumed_trainer_takes_the_same_steps(digits: Dataset, tmp_path: Path, optimizer: str) -> None:
    trainer = make_trainer(digits, optimizer=optimizer, lr=1e-3, binarise=True)
    for _ in range(3):
        trainer.step()
    save_checkpoint(tmp_path / "checkpoint.pt", trainer)
    resumed = make_trainer(digits, optimizer=optimizer, lr=1e-3, binarise=True)
    resumed.step()
    resume_from(resumed, tmp_path / "checkpoint.pt")
    before = [parameter.detach().clone() for parameter in resumed.model.parameters()]
    for _ in range(3):
        trainer.step()
        resumed.step()
    assert_same_parameters(resumed.model, trainer.model)
    assert resumed.read_tally() == trainer.read_tally()
    assert not any(torch.equal(a, b) for a, b in zip(before, resumed.model.parameters(), strict=True))


def go_on(folder: Path, digits: Dataset, display: NoDisplay) -> Trainer:
    saved = load_checkpoint(folder / "checkpoint.pt")
    trainer = Trainer(digits, saved.config, CPU)
    resume(trainer, saved, folder / "checkpoint.pt")
    train(trainer, RunDirectory(folder, saved.options, saved), display)
    return trainer


@pytest.mark.parametrize("written", [0, 20, None], ids=["nothing", "a part", "all"])
def test_a_record_whose_checkpoint_was_not_saved_is_made_again(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int | None
) -> None:
    """Whatever of the line was on the disk."""
    alone = make_trainer(digits)
    train(alone, RunDirectory(tmp_path / "alone"), NoDisplay())

    folder = tmp_path / "crashed"
    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "append_record", crash_while_writing(5, written))
        with pytest.raises(StopError):
            train(make_trainer(digits), RunDirectory(folder), NoDisplay())
    saved = load_checkpoint(folder / "checkpoint.pt")
    assert saved.progress.records == 4
    resumed = go_on(folder, digits, NoDisplay())
    assert_same_parameters(resumed.model, alone.model)
    assert without_seconds(folder) == without_seconds(tmp_path / "alone")


def crash_while_writing(number: int, written: int | None) -> Any:
    append_record = RunDirectory.append_record

    def append(directory: RunDirectory, record: Record) -> None:
        path = directory.path / "metrics.jsonl"
        before = path.stat().st_size if path.exists() else 0
        append_record(directory, record)
        if directory.progress.records == number - 1:
            if written is not None:
                os.truncate(path, before + written)
            raise StopError

    return append


def test_a_run_that_is_stopped_saves_the_step_it_stops_at(digits: Dataset, tmp_path: Path) -> None:
    alone = make_trainer(digits)
    train(alone, RunDirectory(tmp_path / "alone"))
    trainer = make_trainer(digits)
    with pytest.raises(KeyboardInterrupt):
        train(trainer, RunDirectory(tmp_path / "stopped"), stop=lambda: trainer.samples >= 1500)
    assert load_checkpoint(tmp_path / "stopped" / "checkpoint.pt").samples == trainer.samples == 1500
    assert_same_parameters(go_on(tmp_path / "stopped", digits, NoDisplay()).model, alone.model)
    assert without_seconds(tmp_path / "stopped") == without_seconds(tmp_path / "alone")


def test_records_are_continued_not_rewritten(digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(StopError):
        train(make_trainer(digits), RunDirectory(tmp_path), Crash(6))
    before = (tmp_path / "metrics.jsonl").read_bytes()
    inode = (tmp_path / "metrics.jsonl").stat().st_ino
    go_on(tmp_path, digits, NoDisplay())
    after = (tmp_path / "metrics.jsonl").read_bytes()
    assert after.startswith(before)
    assert len(after) > len(before)
    assert (tmp_path / "metrics.jsonl").stat().st_ino == inode
    seconds = [line["seconds"] for line in read_metrics(tmp_path)]
    assert seconds == sorted(seconds)


def test_a_directory_that_is_not_told_of_the_resumed_run(digits: Dataset, tmp_path: Path) -> None:
    """Nothing is moved aside then."""
    with pytest.raises(StopError):
        train(make_trainer(digits), RunDirectory(tmp_path), Crash(6))
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    trainer = make_trainer(digits)
    resume_from(trainer, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match=r"has seen 600 samples, but its RunDirectory .* goes on after 0: give"):
        train(trainer, RunDirectory(tmp_path), NoDisplay())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_missing_records_are_noticed(digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(StopError):
        train(make_trainer(digits), RunDirectory(tmp_path), Crash(3))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_text("".join(lines[:2]))
    with pytest.raises(UserError, match=r"metrics\.jsonl does not hold the 3 records .* it has 2 records"):
        go_on(tmp_path, digits, NoDisplay())


def test_the_name_of_a_file_is_on_the_disk_before_a_write_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is synced under its temporary name, then renamed, then its folder is synced."""
    events: list[tuple[str, bool]] = []
    fsync, replace = os.fsync, os.replace

    def watch_sync(descriptor: int) -> None:
        events.append(("sync", Path(f"/proc/self/fd/{descriptor}").resolve() == tmp_path.resolve()))
        fsync(descriptor)

    def watch_replace(source: Path, target: Path) -> None:
        events.append(("rename", target == tmp_path / "file"))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watch_sync)
    monkeypatch.setattr(os, "replace", watch_replace)
    write_atomically(tmp_path / "file", lambda file: file.write(b"content"))
    assert events == [("sync", False), ("rename", True), ("sync", True)]


def test_of_two_writers_at_once_one_waits_for_the_other(tmp_path: Path) -> None:
    begun, faults = threading.Event(), []

    def slowly(file: BinaryIO) -> None:
        file.write(b"the first")
        file.flush()
        begun.set()
        time.sleep(0.5)
        file.write(b", to its end")

    def write(action: Callable[[BinaryIO], object]) -> None:
        try:
            write_atomically(tmp_path / "file", action)
        except UserError as error:
            faults.append(error)

    first = threading.Thread(target=write, args=(slowly,))
    first.start()
    begun.wait()
    write(lambda file: file.write(b"the second"))
    first.join()
    assert not faults
    assert (tmp_path / "file").read_bytes() == b"the second"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_may_not_survive_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def fail_for_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(5, "Input/output error")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail_for_folders)
    with pytest.raises(UserError, match=r"file is written, but its folder cannot be synced \(Input/output error\)"):
        write_atomically(tmp_path / "file", lambda file: file.write(b"content"))
    assert (tmp_path / "file").read_bytes() == b"content"


def test_a_resume_into_another_model(digits: Dataset, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "checkpoint.pt", make_trainer(digits))
    other = make_trainer(digits, hidden=33)
    with pytest.raises(
        UserError,
        match=r"is of another model: its encoder\.hidden\.weight is \[32, 64\], expected \[33, 64\] by .*digits",
    ):
        resume_from(other, tmp_path / "checkpoint.pt")


def test_a_resume_with_other_data(digits: Dataset, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "checkpoint.pt", make_trainer(digits))
    fewer = Dataset("digits", digits.train[:1400], digits.test, digits.scale, digits.event_shape)
    with pytest.raises(UserError, match=r"was trained on 1,500 datapoints, but digits has 1,400"):
        resume_from(make_trainer(fewer), tmp_path / "checkpoint.pt")
    others = Dataset("digits", digits.train.flip(0), digits.test, digits.scale, digits.event_shape)
    with pytest.raises(UserError, match=r"was trained on other values than digits holds now"):
        resume_from(make_trainer(others), tmp_path / "checkpoint.pt")


def test_an_array_that_has_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run on it is resumed from any folder, and where it is now can be said; another in its place is noticed."""
    monkeypatch.chdir(tmp_path)
    rows = np.random.default_rng(0).random((60, 7))
    np.save("data.npy", rows)
    assert invoke("train", *SMALL, "--batch-size", 10, "--dataset", "npy:data.npy", "--out", "run").exit_code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert invoke("train", "--resume", "../run").exit_code == 0

    (tmp_path / "data.npy").rename("moved.npy")
    assert_one_sentence(invoke("train", "--resume", "../run"), r"cannot read .*data\.npy")
    result = invoke("train", "--resume", "../run", "--dataset", "npy:moved.npy")
    assert result.exit_code == 0, result.output
    np.save("moved.npy", rows[::-1])
    result = invoke("train", "--resume", "../run", "--dataset", "npy:moved.npy")
    assert_one_sentence(result, r"was trained on other values than npy:.*moved\.npy holds now")


def test_a_finished_run_is_finished_again(digits: Dataset, tmp_path: Path) -> None:
    """As after a crash while its pictures were drawn."""
    assert invoke("train", *SMALL, "--out", tmp_path).exit_code == 0
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for name in ("summary.json", "samples.png"):
        (tmp_path / name).unlink()
    result = invoke("train", "--resume", tmp_path)
    assert result.exit_code == 0, result.output
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


@pytest.mark.parametrize("finished", [True, False])
def test_an_extended_run_is_one_that_was_as_long_from_the_start(
    digits: Dataset, tmp_path: Path, finished: bool
) -> None:
    """Its records are the shorter run's as far as these went, and from there on the longer one's."""
    longer = make_trainer(digits, samples=5000)
    train(longer, RunDirectory(tmp_path / "longer"))
    folder = tmp_path / "run"
    if finished:
        train(make_trainer(digits), RunDirectory(folder))
    else:
        with pytest.raises(StopError):
            train(make_trainer(digits), RunDirectory(folder), Crash(7))
    before = (folder / "metrics.jsonl").read_text()
    result = invoke("train", "--resume", folder, "--samples", 5000)
    assert result.exit_code == 0, result.output
    assert (folder / "metrics.jsonl").read_text().startswith(before)
    extended = load_checkpoint(folder / "checkpoint.pt")
    assert (extended.samples, extended.config) == (5000, longer.config)
    assert_same_parameters(extended.model, longer.model)
    seen = read_metrics(folder)[len(before.splitlines()) - 1]["samples"]
    assert [line["samples"] for line in read_metrics(folder)] == [
        *(line["samples"] for line in map(json.loads, before.splitlines())),
        *(line["samples"] for line in read_metrics(tmp_path / "longer") if line["samples"] > seen),
    ]
    assert read_metrics(folder)[-1]["test_bound"] == read_metrics(tmp_path / "longer")[-1]["test_bound"]
    assert json.loads((folder / "summary.json").read_text())["samples"] == 5000


def test_an_extension_that_was_killed_goes_on_to_its_own_end(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its first step on, without being told again."""
    train(make_trainer(digits), RunDirectory(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", crash)
        (tmp_path / "summary.json").write_text("{}")
        assert isinstance(invoke("train", "--resume", tmp_path, "--samples", 5000).exception, StopError)
    assert not (tmp_path / "summary.json").exists(), "of the shorter run"
    assert invoke("train", "--resume", tmp_path).exit_code == 0
    assert load_checkpoint(tmp_path / "checkpoint.pt").samples == 5000


def test_an_extension_that_is_refused_leaves_the_run_as_it_was(digits: Dataset, tmp_path: Path) -> None:
    train(make_trainer(digits), RunDirectory(tmp_path))
    checkpoint = (tmp_path / "checkpoint.pt").read_bytes()
    (tmp_path / "metrics.jsonl").write_text("")
    result = invoke("train", "--resume", tmp_path, "--samples", 5000)
    assert_one_sentence(result, r"metrics\.jsonl does not hold the \d+ records that checkpoint\.pt counts")
    assert (tmp_path / "checkpoint.pt").read_bytes() == checkpoint


def test_a_run_resumed_from_python_keeps_how_it_was_started(digits: Dataset, tmp_path: Path) -> None:
    options = RunOptions("digits", data_dir="elsewhere")
    train(make_trainer(digits), RunDirectory(tmp_path, options))
    path = tmp_path / "checkpoint.pt"
    longer, saved = make_trainer(digits, samples=4000), load_checkpoint(path)
    resume(longer, saved, path)
    train(longer, RunDirectory(tmp_path, resumed=saved))
    assert load_checkpoint(path).options == options


def crash(_: object) -> None:
    raise StopError


def test_a_run_saved_between_two_records_of_the_longer_one(digits: Dataset, tmp_path: Path) -> None:
    """What would have been recorded before it was extended is not."""
    trainer, path = make_trainer(digits, samples=2000), tmp_path / "checkpoint.pt"
    for _ in range(15):
        trainer.step()
    save_checkpoint(path, trainer)
    longer = make_trainer(digits, samples=4000)
    saved = load_checkpoint(path)
    resume(longer, saved, path)
    records = train(longer, RunDirectory(tmp_path, resumed=saved))
    assert [record.samples for record in records] == [n for n in record_points(4000, 100) if n >= 1500]


def test_a_run_is_not_shortened(digits: Dataset, tmp_path: Path) -> None:
    assert invoke("train", *SMALL, "--out", tmp_path).exit_code == 0
    result = invoke("train", "--resume", tmp_path, "--samples", 2000)
    assert_one_sentence(result, r"--samples is 2000, but the run in .* was begun with 3000: give more, or leave it out")
    with pytest.raises(UserError, match=r"was trained with samples = 3000, but the trainer to resume has 2000"):
        resume_from(make_trainer(digits, hidden=16), tmp_path / "checkpoint.pt")


def test_resuming_needs_no_option_and_takes_no_other(tmp_path: Path) -> None:
    assert invoke("train", *SMALL, "--seed", 5, "--out", tmp_path).exit_code == 0
    for option, value, message in (
        ("--hidden", 32, r"--hidden is 32, but the run in .* was begun with 16: leave it out"),
        ("--dataset", "mnist", r"--dataset is mnist, but the run in .* was begun with digits"),
        ("--out", tmp_path / "else", r"--out is .*else, but the run in .* goes on where it is"),
    ):
        assert_one_sentence(invoke("train", "--resume", tmp_path, option, value), message)
    assert invoke("train", "--resume", tmp_path, "--hidden", 16, "--seed", 5, "--lr", "2e-2").exit_code == 0
    assert invoke("train", "--resume", tmp_path / "checkpoint.pt").exit_code == 0
    assert_one_sentence(invoke("train", "--resume", tmp_path / "samples.png"), r"expected the folder of a run, or the")
    assert load_checkpoint(tmp_path / "checkpoint.pt").config.seed == 5


def test_a_run_that_is_still_going_on(tmp_path: Path) -> None:
    assert invoke("train", *SMALL, "--out", tmp_path).exit_code == 0
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with sole_writer(tmp_path, Team()):
        for arguments in (("--resume", tmp_path), (*SMALL, "--out", tmp_path)):
            assert_one_sentence(invoke("train", *arguments), "another process is training in .*: wait for its end")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_nothing_to_resume(tmp_path: Path) -> None:
    assert_one_sentence(invoke("train", "--resume", tmp_path), r"checkpoint\.pt cannot be read: No such file")


def test_paths_may_be_strings(digits: Dataset, tmp_path: Path) -> None:
    trainer = make_trainer(digits, samples=200)
    train(trainer, RunDirectory(str(tmp_path / "run")))
    save_checkpoint(str(tmp_path / "checkpoint.pt"), trainer)
    for path in (tmp_path / "run", tmp_path):
        assert load_checkpoint(str(path / "checkpoint.pt")).samples == 200
        with pytest.raises(UserError, match=r"is a folder: expected a checkpoint, such as checkpoint\.pt in it"):
            load_checkpoint(path)

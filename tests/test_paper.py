"""The reproduction of the paper's figures: what it compares, that it goes on where it stopped, what it leaves."""

from __future__ import annotations

import copy
import io
import itertools
import json
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from benchmarks.paper import figures, page, published, runs
from benchmarks.paper.__main__ import main
from benchmarks.paper.accumulating import AccumulatingTrainer
from benchmarks.paper.curves import Curve, LearnedCurve, curves, read, read_all
from benchmarks.paper.differences import AIMS, contests, differences, spreads
from tests.mnist import write_mnist
from vae_ext.aevb import Trainer
from vae_ext.aevb.run_directory import Record
from vae_ext.datasets import Dataset, load_dataset
from vae_ext.errors import UserError
from vae_ext.train_config import INITIALISATIONS, TrainConfig

pytestmark = pytest.mark.cpu_only("models and their generators are made on the CPU")

RESULTS = Path(page.__file__).parent / "results"
# Records of the stopped run; it is so short that each step has one.
STOPPED_AT = 4
AT = [10**5, 10**6, 10**7]


def learned(curve: Curve, test: list[float], samples: list[int] = AT) -> LearnedCurve:
    setting = {"train_datapoints": 50, "test_datapoints": 10, "torch": "2", "machine": "x", "threads": 1}
    config = curve.config(samples[-1])
    return LearnedCurve(curve, config, {"0.01": -1.0}, samples, [bound - 1 for bound in test], test, 1.0, setting)


def test_the_curves_are_the_paper_s() -> None:
    found = {(curve.dataset, curve.algorithm, curve.latent) for curve in curves()}
    for algorithm in ("aevb", "wake-sleep"):
        assert {("mnist", algorithm, latent) for latent in (3, 5, 10, 20, 200)} <= found
        assert {("frey", algorithm, latent) for latent in (2, 5, 10, 20)} <= found
    assert ("mnist", "aevb", 2) in found, "figures 4 and 5"
    variants = itertools.product(INITIALISATIONS, (False, True), (None, 0.01, 0.1), (0, 1))
    names = [curve.name for variant in variants for curve in curves(*variant)]
    assert len(set(names)) == len(names) == 36 * 19


def test_every_published_point_is_of_a_curve_and_in_order() -> None:
    found = {(curve.dataset, curve.algorithm, curve.latent) for curve in curves()}
    for key in {(point.dataset, point.algorithm, point.latent) for point in published.POINTS}:
        assert key in found
        points = published.points_of(*key)
        assert [point.samples for point in points] == sorted(point.samples for point in points)
        # No curve of the figure falls before its end.
        assert [point.test for point in points] == sorted(point.test for point in points)


def test_between_records_a_bound_is_linear_in_the_logarithm() -> None:
    one = learned(Curve("mnist", "aevb", 3), [-200.0, -150.0], [10**4, 10**6])
    assert one.bound_at("test", 10**4) == -200
    assert one.bound_at("test", 10**5) == pytest.approx(-175)
    assert one.bound_at("train", 10**6) == -151
    assert not one.reaches(10**6 + 100)
    assert not one.reaches(10**3)


def test_differences_are_ours_less_the_paper_s() -> None:
    """The paper has -153.0 / -155.3 at 1e6 and -138.0 / -138.3 at 1e7, and none at 1e5."""
    early, first, second = differences([learned(Curve("mnist", "aevb", 3), [-170.0, -152.0, -141.0])])
    assert (early.test_minus_paper, early.met) == (None, None)
    assert (first.test_minus_paper, first.train_minus_paper, first.met) == (1.0, 2.3, True)
    assert (second.test_minus_paper, second.train_minus_paper, second.met) == (-3.0, -3.7, False)
    assert AIMS["frey"] == (25.0, (10**6,))


def test_seeds_of_a_curve_are_set_beside_each_other() -> None:
    of_seeds = [
        learned(Curve("mnist", "aevb", 3, seed=seed), bounds, AT[: len(bounds)])
        for seed, bounds in ((0, [-170.0, -156.0]), (1, [-171.0, -153.5]), (2, [-169.0]))
    ]
    of_seeds = [
        replace(one, config=replace(one.config, lr=lr)) for one, lr in zip(of_seeds, (0.01, 0.02, 0.01), strict=True)
    ]
    alone = learned(Curve("mnist", "aevb", 3, "fan-in"), [-160.0, -150.0], AT[:2])
    curves_there = [*of_seeds, alone]
    early, late = spreads(differences(curves_there), curves_there)
    assert (early.curve, early.samples, early.bounds, early.paper) == ("mnist-aevb-3", 10**5, [-171, -170, -169], None)
    assert (late.samples, late.bounds, late.mean, late.paper) == (10**6, [-156, -153.5], -154.75, -153.0)
    # The lowest is of the second, whose trials chose another.
    assert early.step_sizes == [0.02, 0.01, 0.01]
    (counts, _) = page._summary(differences(curves_there), [])
    assert counts == (
        "Test bounds as near to the paper's as was aimed at: 0 of 1 of the figure's curves, 1 of 1 of other seeds,"
        " 0 of 1 of other settings."
    )


def test_aevb_and_wake_sleep_meet_where_both_reach() -> None:
    ours = learned(Curve("mnist", "aevb", 5), [-170.0, -150.0, -140.0])
    other = learned(Curve("mnist", "wake-sleep", 5), [-165.0, -152.0], AT[:2])
    alone = learned(Curve("mnist", "aevb", 5, "fan-in"), [-170.0], AT[:1])
    pairs = contests([ours, other, alone])
    assert [(pair.samples, pair.lead) for pair in pairs] == [(10**5, -5.0), (10**6, 2.0)]


def test_a_curve_comes_back_from_its_file(tmp_path: Path) -> None:
    one, other = learned(Curve("frey", "wake-sleep", 5), [1.0, 2.0, 3.0]), learned(Curve("mnist", "aevb", 3), [0.0] * 3)
    for curve in (one, other):
        curve.write(tmp_path)
    assert read(tmp_path / "frey-wake-sleep-5.json") == one
    assert read_all(tmp_path) == [other, one]
    (tmp_path / "other.json").write_text('{"curve": {"dataset": "mnist"}}')
    with pytest.raises(UserError, match=r"other\.json is not a curve of `python -m benchmarks.paper`"):
        read_all(tmp_path)


class StoppedHere(Exception):
    pass


class StoppingDisplay:
    """Ends the run at a record."""

    interval = math.inf

    def __init__(self, *_: object) -> None:
        self.records = 0

    def __enter__(self) -> StoppingDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def shown(self, tally: object) -> None:
        pass

    def recorded(self, record: Record) -> None:
        self.records += 1
        if self.records == STOPPED_AT:
            raise StoppedHere


def count_steps(kind: type[Trainer], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each step of such a trainer."""
    steps: list[int] = []
    step = kind.step

    def counted(trainer: Trainer) -> None:
        steps.append(trainer.samples)
        step(trainer)

    monkeypatch.setattr(kind, "step", counted)
    return steps


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


@pytest.mark.parametrize("algorithm", ["aevb", "wake-sleep"])
def test_a_stopped_curve_goes_on_and_a_finished_one_is_not_run_again(
    digits: Dataset, algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    curve, config, console = Curve("mnist", algorithm, 3), TrainConfig(samples=1500, hidden=8), Console(quiet=True)
    whole, trainer = runs.run(curve, config, digits, tmp_path / "whole", console)
    assert whole.config == replace(config, lr=trainer.config.lr)
    assert whole.samples[-1] == 1500
    assert min(whole.step_sizes, key=lambda lr: -whole.step_sizes[lr]) == f"{trainer.config.lr:g}"

    with monkeypatch.context() as patch:
        patch.setattr(runs, "make_display", StoppingDisplay)
        with pytest.raises(StoppedHere):
            runs.run(curve, config, digits, tmp_path / "stopped", console)
    monkeypatch.setattr(runs, "try_step_sizes", None)
    steps = count_steps(runs.TRAINERS[algorithm, False], monkeypatch)
    resumed, _ = runs.run(curve, config, digits, tmp_path / "stopped", console)
    assert replace(resumed, seconds=0) == replace(whole, seconds=0)
    assert len(steps) == 15 - STOPPED_AT, "it goes on, and does not start again"
    assert runs.run(curve, config, digits, tmp_path / "stopped", console)[0] == resumed
    assert len(steps) == 15 - STOPPED_AT


def test_a_step_size_that_is_given_is_not_tried(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "try_step_sizes", None)
    curve, console = Curve("mnist", "aevb", 3, step_size=0.05), Console(quiet=True)
    assert curve.name == "mnist-aevb-3-lr-0.05"
    config = replace(curve.config(1500), hidden=8)
    for _ in ("run", "read again"):
        found, trainer = runs.run(curve, config, digits, tmp_path, console)
        assert (trainer.config.lr, found.config.lr, found.step_sizes) == (0.05, 0.05, {})
    with pytest.raises(UserError, match="holds a run of other settings than these: give another --runs"):
        runs.run(curve, replace(config, lr=0.1), digits, tmp_path, console)


def test_a_longer_run_tries_step_sizes_as_a_shorter_one(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def try_step_sizes(_: Dataset, config: TrainConfig, *__: object, **___: object) -> dict[float, float]:
        tried.append(config.samples)
        return {0.01: -1.0}

    monkeypatch.setattr(runs, "try_step_sizes", try_step_sizes)
    monkeypatch.setattr(runs, "TRIED_AS_FOR", 300)
    for samples in (200, 300, 500):
        config = TrainConfig(samples=samples, hidden=8)
        runs.run(Curve("mnist", "aevb", 3), config, digits, tmp_path / str(samples), Console(quiet=True))
    assert tried == [200, 300, 300]


def test_the_first_hundred_steps_only_accumulate(digits: Dataset) -> None:
    config, cpu = TrainConfig(samples=20_000, hidden=8), torch.device("cpu")
    whole, resumed = (AccumulatingTrainer(digits, config, cpu) for _ in range(2))
    before = [parameter.detach().clone() for parameter in whole.model.parameters()]
    for _ in range(100):
        whole.step()
    assert all(map(torch.equal, before, whole.model.parameters()))
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    for trainer in (whole, resumed):
        trainer.step()
    for old, new, again in zip(before, whole.model.parameters(), resumed.model.parameters(), strict=True):
        # Adagrad's step is lr g / |(g_1, ..., g_101)|: lr in the very first, and at most about a tenth of it now if
        # the gradients are alike.
        assert 0 < (new - old).abs().max() < config.lr
        assert (new - old).abs().median() < config.lr / 5
        assert torch.equal(new, again)


def test_a_folder_of_another_run_is_refused(digits: Dataset, tmp_path: Path) -> None:
    curve, config, console = Curve("mnist", "aevb", 3), TrainConfig(samples=100, hidden=8), Console(quiet=True)
    runs.run(curve, config, digits, tmp_path, console)
    with pytest.raises(UserError, match="holds a run of other settings than these: give another --runs"):
        runs.run(curve, replace(config, hidden=9), digits, tmp_path, console)


def command(folder: Path, *arguments: str) -> None:
    main(["--mnist-dir", str(folder), "--runs", str(folder / "runs"), "--out", str(folder / "out"), *arguments])


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    write_mnist(tmp_path, train=120)
    return tmp_path


def test_the_command_leaves_curves_pictures_and_tables(
    mnist: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--samples", "3e2", "--only", "mnist-(aevb|wake-sleep)-(2|3)$")
    command(mnist, *arguments)
    out = mnist / "out"
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    names = ("mnist-aevb-2", "mnist-aevb-3", "mnist-wake-sleep-3")
    pictures = ("figure_2-mnist.png", "figure_4-mnist.png", "figure_5-2-latents.png")
    assert found == {"README.md", "differences.json", *pictures, *(f"curves/{name}.json" for name in names)}
    document = json.loads((out / "differences.json").read_text())
    assert [(one["curve"], one["samples"]) for one in document["ran"]] == [(name, 300) for name in names]
    text = (out / "README.md").read_text()
    assert all(f"]({picture})" in text for picture in pictures)
    assert "3 of 3: mnist-wake-sleep-3, 300 samples" in capsys.readouterr().out

    monkeypatch.setattr("benchmarks.paper.__main__.run", None)
    command(mnist, *arguments)
    command(mnist, "--report")
    assert (out / "README.md").read_text() == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only", "nothing"), "benchmarks.paper: --only nothing is found in none of mnist-aevb-2, mnist-aevb-3, "),
        (("--only", "frey"), "benchmarks.paper: the Frey faces are not downloaded: name their folder with --frey-dir"),
        (("--report",), "benchmarks.paper: .*curves has no curves: run some first"),
        (("--samples", "0", "--only", "mnist-aevb-2$"), "benchmarks.paper: samples is 0: expected an integer from 1"),
    ],
)
def test_wrong_use_is_a_sentence(tmp_path: Path, arguments: Iterable[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        command(tmp_path, *arguments)


def test_the_committed_page_is_of_the_committed_curves(tmp_path: Path) -> None:
    for picture in RESULTS.glob("*.png"):
        (tmp_path / picture.name).touch()
    page.write(read_all(RESULTS / "curves"), tmp_path)
    for name in (page.PAGE, page.NUMBERS):
        assert (tmp_path / name).read_text() == (RESULTS / name).read_text(), (
            f"{name} is of other curves: write it with python -m benchmarks.paper --report --out {RESULTS}"
        )


def test_figure_2_has_a_panel_for_every_curve_and_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[Any] = []

    def collect(figure: Any, *_: object, **__: object) -> None:
        for axes in figure.axes:
            titles.append((axes.get_title(), len(axes.lines)))

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", collect)
    figures.figure_2([learned(Curve("mnist", "aevb", 3), [-170.0, -152.0, -141.0])], tmp_path)
    # Our test and train, the paper's AEVB test and train, and its wake-sleep test.
    assert titles == [
        ("3 latents", 5),
        ("10 latents", 3),
        ("20 latents", 3),
    ]


def test_the_display_is_on_the_console_of_the_command(digits: Dataset, tmp_path: Path) -> None:
    console = Console(file=io.StringIO())
    runs.run(Curve("mnist", "aevb", 3), TrainConfig(samples=100, hidden=8), digits, tmp_path, console)
    assert isinstance(console.file, io.StringIO)
    assert "100 samples   bound" in console.file.getvalue()

"""The baseline of the paper's figure 3 without a recognition model, and the figure's runs."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from benchmarks.paper import marginal_page, marginal_runs, monte_carlo_em
from benchmarks.paper.__main__ import main
from benchmarks.paper.marginal_curves import (
    PUBLISHED,
    LearnedMarginal,
    MarginalCurve,
    Measured,
    marginal_curves,
    read,
    read_all,
    samples_kept,
)
from benchmarks.paper.monte_carlo_em import MonteCarloEMTrainer
from tests.mnist import write_mnist
from vae_ext.aevb import Trainer
from vae_ext.aevb.hmc import Chains, LogDensity, hmc
from vae_ext.aevb.marginal import log_joint, marginal_of_chains, posterior_chains
from vae_ext.aevb.run import record_points
from vae_ext.datasets import Dataset, load_dataset
from vae_ext.errors import UserError
from vae_ext.train_config import TrainConfig

pytestmark = pytest.mark.cpu_only("models and their generators are made on the CPU")

CPU = torch.device("cpu")
RESULTS = Path(marginal_page.__file__).parent / "results" / "figure_3"


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """Few, for every step is on all of them."""
    whole = load_dataset("digits")
    return replace(whole, train=whole.train[:250], train_labels=None)


def mean_log_marginal(trainer: Trainer) -> float:
    x = trainer.dataset.decode(trainer.dataset.test[:50])
    chains = posterior_chains(
        trainer.model, x, 50, burn_in=50, leapfrog_steps=4, candidates=200, generator=torch.Generator().manual_seed(0)
    )
    return marginal_of_chains(trainer.model, x, chains).log_marginal.mean().item()


def test_it_learns_without_its_encoder(digits: Dataset) -> None:
    trainer = MonteCarloEMTrainer(digits, TrainConfig(hidden=32, lr=0.02), CPU)
    before, encoder = mean_log_marginal(trainer), copy.deepcopy(trainer.model.encoder.state_dict())
    for _ in range(30):
        trainer.step()
    assert mean_log_marginal(trainer) > before + 5
    # 10 leapfrog steps and 5 updates, on every datapoint.
    assert trainer.samples == 30 * 15 * len(digits.train)
    mean = trainer.read_tally().bound_sum / trainer.samples
    assert before - 10 < mean < mean_log_marginal(trainer)
    for name, weight in trainer.model.encoder.state_dict().items():
        assert torch.equal(weight, encoder[name])


def test_the_step_size_is_tuned_to_the_acceptance(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    accepted: list[float] = []
    adapt = MonteCarloEMTrainer._adapt

    def noted(trainer: MonteCarloEMTrainer, acceptance: float) -> None:
        accepted.append(acceptance)
        adapt(trainer, acceptance)

    monkeypatch.setattr(MonteCarloEMTrainer, "_adapt", noted)
    # The posterior is to stay about as wide as it is.
    trainer = MonteCarloEMTrainer(digits, TrainConfig(hidden=16, lr=1e-4), CPU)
    trainer.step_size.fill_(5.0)
    for _ in range(300):
        trainer.step()
    assert accepted[0] < 0.5
    assert np.mean(accepted[-100:]) == pytest.approx(0.9, abs=0.03)


def test_every_chain_moves_in_every_step(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the density of its own datapoint, in chunks as in one piece, and in each chunk."""
    monkeypatch.setattr(monte_carlo_em, "CHUNK", 100)
    trainer = MonteCarloEMTrainer(digits, TrainConfig(hidden=16), CPU)
    before = trainer.z.clone()
    with torch.no_grad():
        expected = log_joint(trainer.model, digits.decode(digits.train))(before)
    densities: list[Tensor] = []
    samples: list[Tensor] = []

    def noted(log_p: LogDensity, z: Tensor, **settings: Any) -> Chains:
        with torch.no_grad():
            densities.append(log_p(z))
        chains = hmc(log_p, z, **settings)
        samples.append(chains.samples[0])
        return chains

    monkeypatch.setattr(monte_carlo_em, "hmc", noted)
    trainer.step()
    assert [len(chunk) for chunk in densities] == [100, 100, 50]
    torch.testing.assert_close(torch.cat(densities), expected)
    assert torch.equal(trainer.z, torch.cat(samples))
    for moved in (trainer.z != before).any(1).split(100):
        # A proposal may be rejected.
        assert moved.double().mean() > 0.5


def test_an_update_is_of_the_whole_data(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of Adagrad moves each parameter by the sign of the gradient of the mean over all N, and its decay."""
    monkeypatch.setattr(monte_carlo_em, "CHUNK", 100)
    monkeypatch.setattr(monte_carlo_em, "UPDATES", 1)
    trainer, other = (MonteCarloEMTrainer(digits, TrainConfig(hidden=16, lr=0.01), CPU) for _ in range(2))
    trainer.step()
    x = digits.decode(digits.train)
    (-other.model.log_likelihood(trainer.z, x).mean()).backward()
    for (name, moved), begun in zip(
        trainer.model.decoder.named_parameters(), other.model.decoder.parameters(), strict=True
    ):
        assert begun.grad is not None
        gradient = begun.grad + begun.detach() / len(x)
        clear = gradient.abs() > 1e-6
        assert torch.equal((begun - moved)[clear].sign(), gradient[clear].sign()), name


def test_it_resumes_to_the_bit(digits: Dataset) -> None:
    whole, stopped, resumed = (MonteCarloEMTrainer(digits, TrainConfig(hidden=16), CPU) for _ in range(3))
    for _ in range(6):
        whole.step()
    for _ in range(3):
        stopped.step()
    resumed.load_state_dict(copy.deepcopy(stopped.state_dict()))
    for _ in range(3):
        resumed.step()
    assert resumed.read_tally() == whole.read_tally()
    assert torch.equal(resumed.z, whole.z)
    assert torch.equal(resumed.step_size, whole.step_size)
    for expected, parameter in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(parameter, expected)


# Samples of a step on 200 datapoints.
STEP = 15 * 200


class StoppedHere(Exception):
    pass


def test_a_stopped_curve_goes_on(digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped while log p(x) is estimated, it ends with what it would have had, and each estimate once."""
    monkeypatch.setattr(marginal_runs, "ESTIMATED", 20)
    curve, config, console = (
        MarginalCurve("monte-carlo-em", 200),
        TrainConfig(samples=10 * STEP, hidden=8),
        Console(quiet=True),
    )

    def run(name: str) -> LearnedMarginal:
        return marginal_runs.run(curve, config, digits, tmp_path / name, tmp_path / f"{name}-out", console)

    whole = run("whole")
    assert [one.samples for one in whole.measured] == [STEP, 5 * STEP, 10 * STEP]
    assert whole.setting["train_datapoints"] == 200
    assert read(tmp_path / "whole-out" / f"{curve.name}.json") == whole

    measure = marginal_runs.measure

    def stop(trainer: Trainer, samples: int, candidates: int) -> Measured:
        if samples == 5 * STEP:
            raise StoppedHere
        return measure(trainer, samples, candidates)

    with monkeypatch.context() as patch:
        patch.setattr(marginal_runs, "measure", stop)
        with pytest.raises(StoppedHere):
            run("stopped")
    assert samples_kept(curve, tmp_path / "stopped-out") == STEP
    assert replace(run("stopped"), seconds=0) == replace(whole, seconds=0)


def test_every_published_point_is_of_a_curve() -> None:
    found = {(curve.datapoints, curve.algorithm) for curve in marginal_curves()}
    assert {(point.datapoints, point.algorithm) for point in PUBLISHED} == found
    assert len(PUBLISHED) == 2 * len(found)


def learned(curve: MarginalCurve, train: list[float], samples: list[int]) -> LearnedMarginal:
    measured = [Measured(at, value, value - 10, 0.01, 0.01, 0, 0.0) for at, value in zip(samples, train, strict=True)]
    return LearnedMarginal(
        curve, curve.config(samples[-1]), {"0.01": -1.0}, measured, 1.0, {"threads": 1, "torch": "2"}
    )


def test_differences_are_at_the_paper_s_samples() -> None:
    """The paper's AEVB has -114.4 / -142.9 at 1e7 with N = 1000; in between ours is linear in the logarithm."""
    one = learned(MarginalCurve("aevb", 1000), [-140.0, -120.0], [10**7 * 3 // 4, 10**7 * 4 // 3])
    (late,) = marginal_page.differences([one])
    assert (late.samples, late.paper_train, late.paper_test) == (10**7, -114.4, -142.9)
    assert [late.train, late.test] == pytest.approx([-130, -140])


def test_nothing_is_told_where_an_estimate_is_missing() -> None:
    """As `record_points` has them, every fourth; the one before a million is gone."""
    due = [at for at in record_points(10**7, 100)[::-1][::4][::-1] if at > 30_000]
    whole = learned(MarginalCurve("aevb", 1000), [-120.0] * len(due), due)
    assert [row.samples for row in marginal_page.differences([whole])] == list(marginal_page.POINTS[:5])
    missing = max(at for at in due if at < 10**6)
    gapped = replace(whole, measured=[one for one in whole.measured if one.samples != missing])
    told = [row.samples for row in marginal_page.differences([gapped])]
    assert told == [10**5, 5 * 10**5, 5 * 10**6, 10**7]
    assert [stretch[-1].samples < missing for stretch in marginal_page.unbroken(gapped.measured)] == [True, False]


def test_the_order_is_told_where_curves_can_be_compared() -> None:
    aevb = learned(MarginalCurve("aevb", 1000), [-140.0, -120.0], [10**5, 10**6])
    wake_sleep = learned(MarginalCurve("wake-sleep", 1000), [-130.0], [10**5])
    other = learned(MarginalCurve("wake-sleep", 1000, "fan-in"), [-100.0], [10**5])
    rows = marginal_page.differences([aevb, wake_sleep, other])
    assert list(marginal_page.order(rows)) == [
        "N = 1,000 after 1e5 samples, train: wake-sleep −130.0, AEVB −140.0; test: wake-sleep −140.0, AEVB −150.0."
    ]


def test_a_curve_comes_back_from_its_file(tmp_path: Path) -> None:
    one, other = (
        learned(MarginalCurve(*about), [-1.0], [100]) for about in (("monte-carlo-em", 1000), ("aevb", 50_000))
    )
    for curve in (other, one):
        curve.write(tmp_path)
    assert read_all(tmp_path) == [one, other]
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(UserError, match=r"other\.json is not a curve of `python -m benchmarks.paper --figure 3`"):
        read_all(tmp_path)


def command(folder: Path, *arguments: str) -> None:
    places = ("--mnist-dir", str(folder), "--runs", str(folder / "runs"), "--out", str(folder / "out"))
    main(["--figure", "3", *places, *arguments])


def test_the_command_leaves_curves_a_picture_and_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path, train=120)
    monkeypatch.setattr(marginal_runs, "ESTIMATED", 10)
    arguments = ("--samples", "3e2", "--only", "1000$")
    command(tmp_path, *arguments)
    out = tmp_path / "out" / "figure_3"
    names = ("aevb-1000", "wake-sleep-1000", "monte-carlo-em-1000")
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert found == {"README.md", "differences.json", "figure_3.png", *(f"curves/{name}.json" for name in names)}
    text = (out / "README.md").read_text()
    assert all(f"| {name} | {samples} |" in text for name, samples in zip(names, ("300", "300", "1,800"), strict=True))
    assert "](figure_3.png)" in text
    assert json.loads((out / "differences.json").read_text())["differences"] == []

    monkeypatch.setattr(marginal_runs, "run", None)
    command(tmp_path, *arguments)
    command(tmp_path, "--report")
    assert (out / "README.md").read_text() == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only", "nothing"), "--only nothing is found in none of aevb-1000, wake-sleep-1000, monte-carlo-em-1000, "),
        (("--report",), "curves has no curves: run some first"),
        (("--accumulate",), "--accumulate and --step-size are for the curves of figure 2: leave them out"),
        (("--step-size", "0.1"), "--accumulate and --step-size are for the curves of figure 2: leave them out"),
    ],
)
def test_wrong_use_is_a_sentence(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        command(tmp_path, *arguments)


def test_the_committed_page_is_of_the_committed_curves(tmp_path: Path) -> None:
    marginal_page.write(read_all(RESULTS / "curves"), tmp_path)
    for name in ("README.md", "differences.json"):
        assert (tmp_path / name).read_text() == (RESULTS / name).read_text()

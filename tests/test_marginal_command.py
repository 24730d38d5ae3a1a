"""`vae-ext marginal`: what it writes and says, and one sentence for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.commands import REPOSITORY, arrays_of, assert_one_sentence, invoke
from vae_ext import marginal_command
from vae_ext.aevb import load_checkpoint, marginal
from vae_ext.aevb.hmc import Chains
from vae_ext.aevb.marginal import hmc_log_marginal, importance_log_marginal
from vae_ext.aevb.minibatches import binarised
from vae_ext.aevb.mixing import Mixing
from vae_ext.datasets import load_dataset
from vae_ext.ops import make_rng_state

pytestmark = pytest.mark.cpu_only("starts commands, which choose a device themselves")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small finished run on the digits."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    result = invoke("train", "--samples", "5000", "--hidden", "16", "--out", out)
    assert result.exit_code == 0, result.output
    return out


@pytest.mark.parametrize(("method", "draws"), [("importance", 60), ("hmc", 200)])
def test_it_writes_what_the_functions_estimate(run: Path, tmp_path: Path, method: str, draws: int) -> None:
    """Also of more datapoints than are estimated at once."""
    options = ("--method", method, "--draws", draws, "--count", 130, "--seed", 5, "--json", "--out", tmp_path)
    chains = {"burn_in": 60, "leapfrog_steps": 6} if method == "hmc" else {}
    of_chains = [part for name, value in chains.items() for part in (f"--{name.replace('_', '-')}", value)]
    result = invoke("marginal", run, *options, *of_chains)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["datapoints"], report["draws"], report["method"]) == (130, draws, method)
    assert chains.items() <= report.items()

    written = {name: torch.from_numpy(array) for name, array in arrays_of(tmp_path / f"marginal_{method}.npz").items()}
    model, data = load_checkpoint(run / "checkpoint.pt").model, load_dataset("digits")
    x, generator = data.decode(data.test[:130]), torch.Generator().manual_seed(5)
    expected = (
        importance_log_marginal(model, x, draws, rng_state=make_rng_state(generator))
        if method == "importance"
        else hmc_log_marginal(model, x, draws, **chains, generator=generator)
    )
    torch.testing.assert_close(written, expected._asdict(), rtol=1e-4, atol=1e-3)

    log_p = written["log_marginal"].numpy()
    assert report["log_marginal"] == pytest.approx(log_p.mean())
    assert report["standard_error"] == pytest.approx(log_p.std(ddof=1) / 130**0.5)
    errors = written["standard_error"].numpy()
    assert report["standard_error_of_draws"] == pytest.approx(np.sqrt((errors**2).sum()) / 130)
    effective = written["effective_sample_size"].numpy()
    assert report["least_effective_sample_size"] == pytest.approx(effective.min())


def test_it_says_so_in_a_sentence(run: Path, tmp_path: Path) -> None:
    result = invoke("marginal", run, "--draws", 20, "--count", 10, "--part", "train", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "of 10 training datapoints by importance sampling, 20 each; effective sample size" in result.stdout
    assert f"Written to {tmp_path / 'marginal_importance.npz'}" in result.stdout
    effective = arrays_of(tmp_path / "marginal_importance.npz")["effective_sample_size"]
    few = int((effective < 10).sum())
    assert (f"Fewer than 10 draws decide the estimates of {few}" in result.stdout) == (few > 0)
    one = invoke("marginal", run, "--draws", 20, "--count", 1, "--out", tmp_path)
    assert "nan" not in one.stdout
    assert "over datapoints" not in one.stdout


def test_each_method_has_a_file_of_its_own(run: Path, tmp_path: Path) -> None:
    for method in ("importance", "hmc"):
        options = ("--method", method, "--draws", 20, "--count", 10, "--out", tmp_path)
        assert invoke("marginal", run, *options).exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"marginal_importance.npz", "marginal_hmc.npz"}


def test_binarised_data_are_as_the_run_had_them(tmp_path: Path) -> None:
    assert invoke("train", "--samples", 5000, "--hidden", 16, "--binarise", "--out", tmp_path).exit_code == 0
    options = ("--draws", 20, "--count", 50, "--json")
    assert invoke("marginal", tmp_path, *options).exit_code == 0
    found = arrays_of(tmp_path / "marginal_importance.npz")["log_marginal"]
    model, data = load_checkpoint(tmp_path / "checkpoint.pt").model, load_dataset("digits")
    x = data.decode(binarised(data, data.test)[:50])
    state = make_rng_state(torch.Generator().manual_seed(0))
    expected = importance_log_marginal(model, x, 20, rng_state=state).log_marginal
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4)


def test_what_chains_miss_is_told(run: Path, tmp_path: Path) -> None:
    chains = invoke("marginal", run, "--method", "hmc", "--draws", 20, "--count", 2, "--out", tmp_path)
    assert chains.exit_code == 0, chains.output
    assert "Chains see one mode of a posterior" in chains.stdout


def test_chains_that_do_not_mix_are_counted(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all batches, in one of which hardly any may mix."""
    monkeypatch.setitem(marginal_command.BATCH, "hmc", 3)
    unmixed = iter([[True, False, False], [True, True, True], [False, False, False], [True]])

    def harmed(chains: Chains) -> Mixing:
        bad = torch.tensor(next(unmixed))
        return Mixing(torch.where(bad, 0.0, 0.9), torch.ones(len(bad)))

    monkeypatch.setattr(marginal, "diagnose", harmed)
    options = ("--method", "hmc", "--count", 10, "--out", tmp_path)
    result = invoke("marginal", run, *options, "--draws", 20)
    assert result.exit_code == 0, result.output
    assert "of 5 held-out datapoints by" in result.stdout
    assert "5 of 10 chains of HMC do not mix (such as 0, 3, 4, 5, 9)" in result.stdout
    assert (
        "more leapfrog steps; their estimates are NaN, and the mean is of the others alone. Chains see one"
        in result.stdout
    )
    written = arrays_of(tmp_path / "marginal_hmc.npz")
    for array in written.values():
        assert np.flatnonzero(np.isnan(array)).tolist() == [0, 3, 4, 5, 9]

    unmixed = iter([[True] * 3] * 3 + [[True]])
    # As soon as no half of the ten can be left, and no later.
    assert_one_sentence(invoke("marginal", run, *options), "6 of 6 chains of HMC do not mix")
    assert [len(left) for left in unmixed] == [3, 1]

    unmixed = iter([[False, True, False], [True, True, True], [False, False, False], [True]])
    report = json.loads(invoke("marginal", run, *options, "--json").stdout)
    known = arrays_of(tmp_path / "marginal_hmc.npz")["log_marginal"]
    assert (report["datapoints"], report["datapoints_without_estimate"]) == (10, 5)
    assert report["log_marginal"] == pytest.approx(np.nanmean(known))


def test_the_committed_table_is_of_the_committed_estimates() -> None:
    folder = REPOSITORY / "benchmarks" / "inference"
    text = (folder / "README.md").read_text()
    for one in json.loads((folder / "marginal-digits.json").read_text()):
        row = f"| {one['draws']} | −{-one['log_marginal']:.3f} | {one['standard_error_of_draws']:.3f} |"
        assert f"{row} {one['median_effective_sample_size']:.0f} |" in text


def test_a_few_effective_draws_are_told(run: Path, tmp_path: Path) -> None:
    few = invoke("marginal", run, "--draws", 5, "--count", 10, "--out", tmp_path)
    assert "Fewer than 10 draws decide the estimates of 10, which are too low" in few.stdout
    assert "take --method hmc (of up to 5 latents) or many more --draws. Written" in few.stdout


def test_wrong_use_is_one_sentence(run: Path, tmp_path: Path) -> None:
    few = invoke("marginal", run, "--method", "hmc", "--draws", 5, "--out", tmp_path)
    assert_one_sentence(few, "--draws is 5: expected 20 or more of HMC")
    for option in ("--burn-in", "--leapfrog-steps"):
        of_hmc = invoke("marginal", run, option, 7)
        assert_one_sentence(of_hmc, f"{option} is 7, but --method is importance: leave it out, or take --method hmc")
    assert invoke("train", "--samples", 200, "--hidden", 8, "--latent", 6, "--out", tmp_path / "run").exit_code == 0
    many = invoke("marginal", tmp_path / "run", "--method", "hmc")
    assert_one_sentence(many, "is a model of 6 latent variables, and --method hmc is for 5 at most: take --method imp")

    state = torch.load(run / "checkpoint.pt", weights_only=True)
    state["model"] = {name: tensor * torch.nan for name, tensor in state["model"].items()}
    (tmp_path / "broken").mkdir()
    torch.save(state, tmp_path / "broken" / "checkpoint.pt")
    broken = invoke("marginal", tmp_path / "broken", "--draws", 20, "--count", 5)
    assert_one_sentence(broken, "gives a log_marginal that is not finite: its weights are unusable")
    assert_one_sentence(invoke("marginal", tmp_path / "broken", "--method", "hmc"), "is not finite at the initial z")
    assert not list((tmp_path / "broken").glob("marginal_*"))

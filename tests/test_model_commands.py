"""The commands on a trained model: what they write, and one sentence for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from torch import Tensor

from tests.commands import arrays_of, assert_one_sentence, invoke, train_on_vectors
from vae_ext import pictures
from vae_ext.aevb import explore, load_checkpoint, sgvb_a, sgvb_b
from vae_ext.aevb.estimators import ESTIMATORS
from vae_ext.datasets import load_dataset

pytestmark = pytest.mark.cpu_only("starts commands, which choose a device themselves")

SMALL = ("--samples", "1000", "--hidden", "16")
COMMANDS = {
    "sample": "samples",
    "encode": "codes",
    "reconstruct": "reconstructions",
    "interpolate": "interpolations",
    "manifold": "manifold",
}


@pytest.fixture(scope="module", params=["2 latents", "gaussian, 3 latents"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small finished run on the digits."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    kind = () if request.param == "2 latents" else ("--latent", 3, "--likelihood", "gaussian")
    result = invoke("train", *SMALL, *kind, "--out", out)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on datapoints that are no pictures, and reach beyond [0, 1]."""
    return train_on_vectors(tmp_path_factory.mktemp("vectors"))


@pytest.fixture(scope="module")
def written(run: Path) -> Path:
    """A folder with what every command writes by default."""
    out = run.parent / "written"
    for command, stem in COMMANDS.items():
        result = invoke(command, run / "checkpoint.pt", "--out", out)
        assert result.exit_code == 0, result.output
        assert f"Written to {out / stem}.npz and {stem}.png" in result.stdout
    return out


def test_every_command_writes_arrays_and_a_picture(written: Path) -> None:
    assert {path.name for path in written.iterdir()} == {
        f"{stem}{kind}" for stem in COMMANDS.values() for kind in (".npz", ".png")
    }
    for stem in COMMANDS.values():
        picture = imread(written / f"{stem}.png")[..., :3]
        assert min(picture.shape[:2]) > 400
        assert picture.std() > 0.05


def test_what_the_arrays_are(run: Path, written: Path) -> None:
    """Shapes are those of datapoints, and values those of the model."""
    model, data = load_checkpoint(run / "checkpoint.pt").model, load_dataset("digits")
    dims = model.latent_dim

    samples = arrays_of(written / "samples.npz")
    assert samples["z"].shape == (144, dims)
    assert samples["x"].shape == samples["mean"].shape == (144, 8, 8)
    decoded = model.decode(torch.from_numpy(samples["z"])).detach().reshape(144, 8, 8)
    np.testing.assert_allclose(samples["mean"], decoded, rtol=1e-5, atol=1e-6)

    codes = arrays_of(written / "codes.npz")
    assert {name: array.shape for name, array in codes.items()} == {
        "mean": (297, dims),
        "std": (297, dims),
        "kl": (297, dims),
        "label": (297,),
    }
    assert data.test_labels is not None
    assert np.array_equal(codes["label"], data.test_labels.numpy())

    reconstructions = arrays_of(written / "reconstructions.npz")
    assert np.array_equal(reconstructions["x"], data.decode(data.test[:48]).reshape(48, 8, 8))
    assert reconstructions["mean"].shape == (48, 8, 8)

    interpolations = arrays_of(written / "interpolations.npz")
    assert interpolations["z"].shape == (8, 12, dims)
    assert interpolations["mean"].shape == (8, 12, 8, 8)
    assert interpolations["first"].shape == interpolations["second"].shape == (8, 8, 8)

    manifold = arrays_of(written / "manifold.npz")
    assert manifold["coordinates"].shape == (20,)
    assert manifold["z"].shape == (20, 20, dims)
    assert manifold["mean"].shape == (20, 20, 8, 8)
    if dims == 3:
        plane = np.sort(codes["kl"].mean(0).argsort()[-2:])
        assert np.flatnonzero(manifold["z"].any(axis=(0, 1))).tolist() == plane.tolist()


def test_a_model_of_binarised_data_is_given_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    pictured: list[np.ndarray] = []
    monkeypatch.setattr(pictures, "reconstructions", lambda shown, *_: pictured.append(shown.x.unique().tolist()))
    assert invoke("train", *SMALL, "--binarise", "--out", run).exit_code == 0
    assert invoke("evaluate", run, "--pictures", tmp_path).exit_code == 0
    assert pictured == [[0, 1], [0, 1]]
    monkeypatch.undo()
    estimated: list[set[float]] = []

    def watched(*arguments: Any, **keywords: Any) -> Tensor:
        estimated.append(set(arguments[1].unique().tolist()))
        return sgvb_b(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setitem(ESTIMATORS, "sgvb_b", watched)
        few = ("--draws", 1, "--batch-sizes", 5, "--repeats", 2, "--out", tmp_path)
        assert invoke("gradient-variance", run, *few).exit_code == 0
    assert estimated == [{0, 1}] * 6
    for command in ("encode", "reconstruct", "interpolate"):
        assert invoke(command, run, "--out", tmp_path).exit_code == 0
    x = arrays_of(tmp_path / "reconstructions.npz")["x"]
    assert set(np.unique(x)) == {0, 1}
    assert set(np.unique(arrays_of(tmp_path / "interpolations.npz")["first"])) == {0, 1}
    model = load_checkpoint(run / "checkpoint.pt").model
    mean = model.encode(torch.from_numpy(x).reshape(48, 64)).mean.detach()
    np.testing.assert_allclose(arrays_of(tmp_path / "codes.npz")["mean"][:48], mean, rtol=1e-4, atol=1e-5)


def test_options_say_how_much(run: Path, tmp_path: Path) -> None:
    options: dict[str, tuple[object, ...]] = {
        "sample": ("--count", 5, "--seed", 3),
        "encode": ("--part", "train"),
        "reconstruct": ("--count", 1),
        "interpolate": ("--count", 2, "--steps", 3),
        "manifold": ("--side", 3, "--latents", "2,1"),
    }
    shapes = {"sample": (5, 8, 8), "encode": (1500,), "reconstruct": (1, 8, 8), "interpolate": (2, 3, 8, 8)}
    for command, chosen in options.items():
        result = invoke(command, run, "--out", tmp_path, *chosen)
        assert result.exit_code == 0, result.output
        mean = arrays_of(tmp_path / f"{COMMANDS[command]}.npz")["mean"]
        expected = shapes.get(command, (3, 3, 8, 8))
        assert mean.shape[: len(expected)] == expected
    z = arrays_of(tmp_path / "manifold.npz")["z"]
    assert (np.diff(z[0, :, 1]) > 0).all()
    assert (np.diff(z[:, 0, 0]) < 0).all()
    # The same seed draws the same samples.
    first = arrays_of(tmp_path / "samples.npz")["x"]
    assert invoke("sample", run, "--out", tmp_path, "--count", 5, "--seed", 3).exit_code == 0
    assert np.array_equal(arrays_of(tmp_path / "samples.npz")["x"], first)
    assert invoke("sample", run, "--out", tmp_path, "--count", 5, "--seed", 4).exit_code == 0
    assert not np.array_equal(arrays_of(tmp_path / "samples.npz")["x"], first)


def test_results_go_beside_the_checkpoint(vectors: Path) -> None:
    assert invoke("sample", vectors).exit_code == 0
    assert (vectors / "samples.npz").exists()


def test_datapoints_that_are_no_pictures(vectors: Path, tmp_path: Path) -> None:
    for command in ("sample", "reconstruct", "interpolate"):
        result = invoke(command, vectors, "--out", tmp_path)
        assert result.exit_code == 0, result.output
        assert "without a picture: a datapoint has shape [7], expected [H, W]" in result.stdout
    assert not list(tmp_path.glob("*.png"))
    # Codes are drawn whatever the datapoints are, and those of one latent variable too.
    assert invoke("encode", vectors, "--out", tmp_path).exit_code == 0
    assert [path.name for path in tmp_path.glob("*.png")] == ["codes.png"]
    assert "label" not in arrays_of(tmp_path / "codes.npz")


def test_colour_pictures_beyond_the_unit_interval(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", np.random.default_rng(0).normal(size=(60, 6, 5, 3)))
    kind = ("--likelihood", "gaussian", "--decoder-mean", "linear", "--network", "conv", "--batch-size", 10)
    result = invoke("train", *SMALL, *kind, "--dataset", f"npy:{tmp_path}/data.npy", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    for command, stem in COMMANDS.items():
        assert invoke(command, tmp_path).exit_code == 0
        assert (tmp_path / f"{stem}.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sample", "absent"), "absent cannot be read: No such file"),
        (("sample", "."), r"checkpoint\.pt cannot be read: No such file"),
        (("manifold", "RUN", "--latents", "1"), "--latents is 1: expected two different numbers from 1 to"),
        (("manifold", "RUN", "--latents", "1,1"), "--latents is 1,1: expected two different"),
        (("manifold", "RUN", "--latents", "1,9"), "--latents is 1,9: expected two different"),
        (("manifold", "RUN", "--latents", "a,b"), "--latents is 'a,b': expected positive integers"),
        (("encode", "RUN", "--dataset", "frey"), "frey is not downloaded: name the folder"),
        (("sample", "RUN", "--device", "tpu"), "unknown device 'tpu'"),
        (("gradient-variance", "--draws", "0,1"), "--draws is '0,1': expected positive integers"),
        (("gradient-variance", "--batch-sizes", "few"), "--batch-sizes is 'few': expected positive integers"),
        (("gradient-variance", "--dataset", "cifar"), "unknown dataset 'cifar'"),
        (("train", "--likelihood", "poisson"), "--likelihood is 'poisson': expected one of bernoulli, gaussian"),
        (("train", "--decoder-log-var", "free"), "--decoder-log-var is 'free': expected a number from -80 to 80 or"),
        (("train", "--likelihood", "gaussian", "--decoder-log-var", "1e39"), r"is 1e\+39: expected a number from -80"),
        (("train", "--init", "0.01"), "--init is '0.01': expected one of fan-in, variance-0.01, std-0.01"),
        (("train", "--dataset", "frey"), "frey is not downloaded"),
        (
            ("train", "--decoder-mean", "linear"),
            "--decoder-mean is linear, but --likelihood is bernoulli: leave it",
        ),
        (("train", "--decoder-log-var", "-1"), r"--decoder-log-var is -1\.0, but --likelihood is bernoulli: leave it"),
        (("train", "--data-dir", "."), r"--data-dir is \., but digits come with scikit-learn: leave it out"),
        (("encode", "RUN", "--data-dir", "."), r"--data-dir is \., but digits come with scikit-learn: leave it out"),
        (
            ("train", "--dataset", "npy:a.npy", "--data-dir", "b"),
            r"but npy:a\.npy says itself where its file is",
        ),
        (
            ("gradient-variance", "RUN", "--hidden", "3"),
            "--hidden is 3, but the model of .* has sizes of its own",
        ),
        (
            ("gradient-variance", "RUN", "--latent", "2"),
            "--latent is 2, but the model of .* has sizes of its own",
        ),
    ],
)
def test_wrong_use_is_one_sentence(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(*(run if argument == "RUN" else argument for argument in arguments))
    assert_one_sentence(result, message)
    assert not list(tmp_path.iterdir())


def test_a_manifold_of_one_latent_variable(vectors: Path) -> None:
    assert_one_sentence(invoke("manifold", vectors), "is a model of one latent variable: a manifold is drawn over two")


def test_a_likelihood_on_data_outside_its_range(vectors: Path, tmp_path: Path) -> None:
    data = json.loads((vectors / "summary.json").read_text())["dataset"]
    for likelihood, message in (("bernoulli", "but a Bernoulli likelihood"), ("gaussian", "decoder is a sigmoid")):
        result = invoke("train", "--dataset", data, "--likelihood", likelihood, "--out", tmp_path / "out")
        assert_one_sentence(
            result, rf"data\.npy holds values from -.* to .*, {'.*' if 'sig' in message else ''}{message}"
        )
    assert not (tmp_path / "out").exists()


def test_other_data_outside_the_models_range(run: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", np.random.default_rng(0).normal(size=(30, 8, 8)))
    for command in ("encode", "reconstruct", "interpolate", "evaluate", "gradient-variance"):
        result = invoke(command, run, "--dataset", f"npy:{tmp_path}/data.npy")
        assert_one_sentence(result, "holds values from -")
        # None of these commands has options for another likelihood.
        assert "--" not in result.stderr


def test_weights_that_are_not_finite(run: Path, tmp_path: Path) -> None:
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    state["model"] = {name: tensor * torch.nan for name, tensor in state["model"].items()}
    torch.save(state, tmp_path / "checkpoint.pt")
    assert_one_sentence(invoke("sample", tmp_path), "gives a mean that is not finite: its weights are unusable")
    few = ("--draws", 1, "--batch-sizes", 5, "--repeats", 2)
    assert_one_sentence(
        invoke("gradient-variance", tmp_path, *few), "with L = 1 and M = 5 is not finite: the weights are unusable"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize("count", [10**18, 10**30])
@pytest.mark.parametrize("command", ["sample", "reconstruct", "interpolate"])
def test_more_than_anyone_asks_for(run: Path, command: str, count: int) -> None:
    result = invoke(command, run, "--count", count)
    assert result.exit_code == 2
    assert "--count" in result.stderr


@pytest.mark.parametrize(
    ("command", "function", "remedy"),
    [
        ("sample", "sample", "give a smaller --count"),
        ("interpolate", "interpolate", "give a smaller --count or --steps"),
        ("manifold", "manifold", "give a smaller --side"),
        ("encode", "encode", "end other programs that take it, or use a machine that has more"),
    ],
)
def test_what_to_do_where_memory_is_short(
    run: Path, monkeypatch: pytest.MonkeyPatch, command: str, function: str, remedy: str
) -> None:
    """Only what the command has options for."""

    def greedy(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(explore, function, greedy)
    assert_one_sentence(invoke(command, run), f"there is not enough memory: {remedy}")


def test_more_draws_than_there_is_noise_for(tmp_path: Path) -> None:
    many = "--draws is 1000000000: expected 858993459 at most of 20 latent variables"
    few = (*SMALL, "--latent", 20, "--batch-size", 20)
    assert_one_sentence(invoke("train", *few, "--draws", 10**9, "--out", tmp_path / "out"), many)
    assert_one_sentence(invoke("gradient-variance", "--latent", 20, "--draws", f"1,{10**9}"), many)
    assert invoke("train", *few, "--out", tmp_path).exit_code == 0
    assert_one_sentence(invoke("evaluate", tmp_path, "--draws", 10**9), many)
    assert_one_sentence(invoke("gradient-variance", tmp_path, "--draws", f"1,{10**9}"), many)


def test_codes_of_one_datapoint(tmp_path: Path) -> None:
    """Of as many latents as need principal components, of which one point has none."""
    np.save(tmp_path / "data.npy", np.random.default_rng(0).random((8, 7)))
    options = ("--dataset", f"npy:{tmp_path}/data.npy", "--batch-size", 2, "--latent", 3)
    assert invoke("train", *SMALL, *options, "--out", tmp_path).exit_code == 0
    result = invoke("encode", tmp_path)
    assert result.exit_code == 0, result.output
    assert arrays_of(tmp_path / "codes.npz")["mean"].shape == (1, 3)
    assert "nan" not in result.output


def test_training_by_another_estimator(tmp_path: Path) -> None:
    """The first record of a run by estimator A is that of one step from the same start."""
    for estimator in ("sgvb_a", "score_function"):
        out = tmp_path / estimator
        assert invoke("train", *SMALL, "--estimator", estimator, "--lr", 1e-12, "--out", out).exit_code == 0
    records = [
        json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0])
        for name in ("sgvb_a", "score_function")
    ]
    # Their values agree, not their gradients.
    assert records[0]["train_bound"] == pytest.approx(records[1]["train_bound"], rel=1e-6)
    model, data = load_checkpoint(tmp_path / "sgvb_a" / "checkpoint.pt").model, load_dataset("digits")
    assert sgvb_a(model, data.decode(data.test)).shape == (297,)


@pytest.mark.parametrize("trained", [True, False])
def test_gradient_variance(run: Path, tmp_path: Path, trained: bool) -> None:
    source = (run,) if trained else ("--hidden", 16, "--latent", 3)
    few = ("--draws", "1,4", "--batch-sizes", "5,20,80", "--repeats", 4)
    result = invoke("gradient-variance", *source, *few, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "gradient_variance.json").read_text())
    assert report["dataset"] == "digits"
    by_setting = {(one["estimator"], one["draws"], one["batch_size"]): one for one in report["measurements"]}
    assert len(by_setting) == 3 * 4
    baseline, ours = by_setting["score_function", 1, 20]["encoder"], by_setting["sgvb_b", 1, 20]["encoder"]
    assert baseline["total"] > 3 * ours["total"] > 0
    assert (
        f"times as much by SGVB A, and {baseline['total'] / ours['total']:.3g} times as much by the score function"
        in result.stdout
    )
    assert imread(tmp_path / "gradient_variance.png")[..., :3].std() > 0.05


def test_a_new_run_takes_what_was_made_of_the_old_one_with_it(run: Path, written: Path, tmp_path: Path) -> None:
    for path in (run / "checkpoint.pt", *written.iterdir()):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    names = {path.name for path in tmp_path.iterdir()}
    assert invoke("train", *SMALL, "--out", tmp_path).exit_code == 0
    assert {path.name for path in (tmp_path / "earlier-1").iterdir()} == names
    assert not (tmp_path / "codes.npz").exists()

"""denoise, inpaint and upscale: what they write, what they say, and one sentence for what is wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from benchmarks import observed
from tests.commands import REPOSITORY, arrays_of, assert_one_sentence, invoke, train_on_vectors
from vae_ext.aevb.minibatches import binarised
from vae_ext.datasets import load_dataset

pytestmark = pytest.mark.cpu_only("starts commands, which choose a device themselves")

STEMS = {"denoise": "denoised", "inpaint": "inpainted", "upscale": "upscaled"}
FEW = ("--count", 5, "--draws", 20)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run on the digits."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    options = ("--samples", 40_000, "--hidden", 48, "--latent", 5, "--optimizer", "adam", "--lr", 0.003)
    result = invoke("train", *options, "--out", out)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on datapoints that are no pictures, of a Gaussian decoder."""
    return train_on_vectors(tmp_path_factory.mktemp("vectors"), "--decoder-log-var", "shared")


@pytest.mark.parametrize("command", STEMS)
def test_arrays_a_picture_and_a_sentence(run: Path, tmp_path: Path, command: str) -> None:
    result = invoke(command, run, "--out", tmp_path, "--count", 40, "--draws", 30)
    assert result.exit_code == 0, result.output
    stem = STEMS[command]
    assert f"Written to {tmp_path / stem}.npz and {stem}.png" in result.stdout
    arrays = arrays_of(tmp_path / f"{stem}.npz")
    hidden = arrays.pop("hidden", None)
    observed_shape = (40, 4, 4) if command == "upscale" else (40, 8, 8)
    shapes = dict.fromkeys(("x", "baseline", "mean", "std"), (40, 8, 8))
    assert {name: array.shape for name, array in arrays.items()} == shapes | {
        "observed": observed_shape,
        "z": (30, 40, 5),
    }
    data = load_dataset("digits")
    assert np.array_equal(arrays["x"], data.decode(data.test[:40]).reshape(40, 8, 8))
    where = np.ones((8, 8), dtype=bool) if hidden is None else hidden
    assert (hidden is not None) == (command == "inpaint")
    ours, baseline = (np.square(arrays[name] - arrays["x"])[:, where].mean() for name in ("mean", "baseline"))
    said = re.search(r"([\d.]+), (\d+)% of that of encoder and decoder alone \(([\d.]+)\)", result.stdout)
    assert said is not None
    assert [float(number) for number in said.groups()] == pytest.approx(
        [ours, 100 * ours / baseline, baseline], abs=0.6
    )
    assert float(said[1]) == pytest.approx(ours, abs=1e-4)
    assert ours < baseline
    picture = imread(tmp_path / f"{stem}.png")[..., :3]
    assert min(picture.shape[:2]) > 400
    assert picture.std() > 0.05


def test_the_errors_of_the_benchmark_are_what_the_commands_say(run: Path) -> None:
    """To the four digits that are said; where a part is hidden, of that."""
    tasks: list[tuple[str, dict[str, str]]] = [("inpaint", {"hide": "top"}), ("upscale", {})]
    for (command, options), row in zip(tasks, observed.measure(run, tasks, 5), strict=True):
        for method in ("gradient", "hmc"):
            arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
            result = invoke(command, run, "--count", 5, "--method", method, *arguments)
            said = re.search(r"([\d.]+), \d+% of that of encoder and decoder alone \(([\d.]+)\)", result.stdout)
            assert said is not None
            expected = [row[method], row["baseline"]]
            assert [float(number) for number in said.groups()] == pytest.approx(expected, abs=6e-5)


def test_the_benchmark_says_in_a_sentence_what_is_wrong(vectors: Path, tmp_path: Path) -> None:
    for folder, message in (
        (vectors, rf"{vectors} is of dataset npy:\S+: the tables are of digits and mnist"),
        (tmp_path, rf"{tmp_path}/\S+ .+"),
    ):
        with pytest.raises(SystemExit) as stopped:
            observed.main([str(folder)])
        assert re.fullmatch(f"benchmarks.observed: {message}", str(stopped.value.code))


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_the_committed_tables_are_of_the_committed_errors(name: str) -> None:
    folder = REPOSITORY / "benchmarks" / "inference"
    errors = json.loads((folder / f"observed-{name}.json").read_text())["errors"]
    assert "\n".join(observed.table(errors)) in (folder / "README.md").read_text()


def test_binarised_data_are_as_the_run_had_them(tmp_path: Path) -> None:
    assert invoke("train", "--samples", 1000, "--hidden", 16, "--binarise", "--out", tmp_path).exit_code == 0
    data = load_dataset("digits")
    expected = data.decode(binarised(data, data.test)[:5]).reshape(5, 8, 8)
    for command, stem in STEMS.items():
        result = invoke(command, tmp_path, *FEW)
        assert result.exit_code == 0, result.output
        assert np.array_equal(arrays_of(tmp_path / f"{stem}.npz")["x"], expected)


def test_hmc(run: Path, tmp_path: Path) -> None:
    """Another way to the same posterior: the same means, nearly."""
    for method in ("gradient", "hmc"):
        options = ("--count", 20, "--draws", 100, "--method", method, "--out", tmp_path / method)
        assert invoke("inpaint", run, *options).exit_code == 0
    first, second = (arrays_of(tmp_path / method / "inpainted.npz") for method in ("gradient", "hmc"))
    assert not np.array_equal(first["z"], second["z"])
    apart = np.abs(first["mean"] - second["mean"]).mean()
    assert apart < 0.5 * np.abs(first["mean"] - first["baseline"]).mean()


def test_the_seed_decides(run: Path, tmp_path: Path) -> None:
    drawn = []
    for seed in (1, 1, 2):
        assert invoke("denoise", run, *FEW, "--seed", seed, "--out", tmp_path).exit_code == 0
        drawn.append(arrays_of(tmp_path / "denoised.npz"))
    assert all(np.array_equal(drawn[0][name], drawn[1][name]) for name in drawn[0])
    assert not np.array_equal(drawn[0]["observed"], drawn[2]["observed"])


@pytest.mark.parametrize(
    ("noise", "level", "expected"),
    [("flips", 0.3, 0.3), ("flips", None, 0.1), ("salt-and-pepper", 0.6, 0.3), ("salt-and-pepper", None, 0.2)],
)
def test_other_noise(run: Path, tmp_path: Path, noise: str, level: float | None, expected: float) -> None:
    """Of values that are 0 as half of the digits' are: salt and pepper turn over half of what they hit."""
    options = () if level is None else ("--level", level)
    result = invoke("denoise", run, "--count", 60, "--draws", 5, "--noise", noise, *options, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    arrays = arrays_of(tmp_path / "denoised.npz")
    turned = (arrays["observed"] != arrays["x"])[arrays["x"] == 0]
    assert turned.mean() == pytest.approx(expected, abs=5 * (0.25 / turned.size) ** 0.5)


def test_the_level_of_gaussian_noise(run: Path, tmp_path: Path) -> None:
    assert invoke("denoise", run, "--count", 60, "--draws", 5, "--out", tmp_path).exit_code == 0
    arrays = arrays_of(tmp_path / "denoised.npz")
    assert (arrays["observed"] - arrays["x"]).std() == pytest.approx(0.4, rel=0.05)


@pytest.mark.parametrize(
    ("hide", "rows", "columns"),
    [
        ("bottom", slice(6, 8), slice(8)),
        ("top", slice(2), slice(8)),
        ("left", slice(8), slice(2)),
        ("right", slice(8), slice(6, 8)),
        ("centre", slice(2, 6), slice(2, 6)),
    ],
)
def test_what_is_hidden(run: Path, tmp_path: Path, hide: str, rows: slice, columns: slice) -> None:
    options = ("--hide", hide, "--share", 0.25, "--out", tmp_path)
    assert invoke("inpaint", run, *FEW, *options).exit_code == 0
    expected = np.zeros((8, 8), dtype=bool)
    expected[rows, columns] = True
    arrays = arrays_of(tmp_path / "inpainted.npz")
    assert np.array_equal(arrays["hidden"], expected)
    assert not arrays["observed"][:, expected].any()
    assert np.array_equal(arrays["mean"][:, ~expected], arrays["x"][:, ~expected])


def test_a_mask_of_ones_own(run: Path, tmp_path: Path) -> None:
    mask = np.random.default_rng(0).random((8, 8)) < 0.5
    np.save(tmp_path / "mask.npy", mask)
    result = invoke("inpaint", run, *FEW, "--mask", tmp_path / "mask.npy", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert np.array_equal(arrays_of(tmp_path / "inpainted.npz")["hidden"], ~mask)

    for option, value in (("--hide", "top"), ("--share", 0.5)):
        both = invoke("inpaint", run, "--mask", tmp_path / "mask.npy", option, value)
        assert_one_sentence(both, f"{option} is {value}, but --mask says what is hidden: leave one of them out")

    np.save(tmp_path / "mask.npy", mask[:4])
    assert_one_sentence(
        invoke("inpaint", run, "--mask", tmp_path / "mask.npy"), r"of shape \[4, 8\]: expected bool of \[8, 8\]"
    )
    np.save(tmp_path / "mask.npy", np.zeros((8, 8), dtype=bool))
    assert_one_sentence(invoke("inpaint", run, "--mask", tmp_path / "mask.npy"), "mask is False everywhere")


def test_datapoints_that_are_no_pictures(vectors: Path, tmp_path: Path) -> None:
    for command in (("denoise",), ("inpaint", "--hide", "scattered")):
        result = invoke(*command, vectors, *FEW, "--out", tmp_path)
        assert result.exit_code == 0, result.output
        assert "without a picture: a datapoint has shape [7]" in result.stdout
    assert arrays_of(tmp_path / "inpainted.npz")["hidden"].shape == (7,)
    assert_one_sentence(invoke("inpaint", vectors), r"--hide is bottom, but .* shape \[7\]: expected scattered")
    assert_one_sentence(invoke("upscale", vectors), r"shape \[7\]; expected a picture")
    assert_one_sentence(invoke("denoise", vectors, "--noise", "flips", "--level", 0.1), "take GaussianNoise")


def test_colour_pictures_beyond_the_unit_interval(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", np.random.default_rng(0).normal(size=(60, 6, 4, 3)))
    kind = ("--likelihood", "gaussian", "--decoder-mean", "linear", "--network", "conv", "--batch-size", 10)
    options = ("--samples", 500, "--hidden", 16, "--dataset", f"npy:{tmp_path}/data.npy", "--out", tmp_path)
    assert invoke("train", *kind, *options).exit_code == 0
    for command, stem in STEMS.items():
        result = invoke(command, tmp_path, *FEW)
        assert result.exit_code == 0, result.output
        assert imread(tmp_path / f"{stem}.png").std() > 0.05
    assert arrays_of(tmp_path / "upscaled.npz")["observed"].shape == (5, 3, 2, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("denoise", "RUN", "--level", "0"), r"--level of gaussian noise: std is 0\.0; expected a positive"),
        (("denoise", "RUN", "--noise", "flips", "--level", "0.5"), r"--level of flips noise: probability is 0\.5"),
        (("inpaint", "RUN", "--share", "1"), r"--share is 1\.0: expected a number between 0 and 1"),
        (("inpaint", "RUN", "--share", "0.999"), "mask is False everywhere"),
        (("inpaint", "RUN", "--share", "0.01"), "nothing would be hidden: give a larger --share"),
        (("upscale", "RUN", "--factor", "3"), "factor is 3; expected 2 or more, a divisor of both sides of 8 x 8"),
        (("upscale", "RUN", "--error", "0"), r"std is 0\.0; expected a positive"),
        (("inpaint", "nowhere"), "nowhere"),
    ],
)
def test_wrong_use_is_one_sentence(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_one_sentence(invoke(*(run if argument == "RUN" else argument for argument in arguments)), message)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", ["gradient", "hmc"])
def test_weights_that_are_not_finite(run: Path, tmp_path: Path, method: str) -> None:
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    state["model"] = {name: tensor * torch.nan for name, tensor in state["model"].items()}
    torch.save(state, tmp_path / "checkpoint.pt")
    assert_one_sentence(invoke("denoise", tmp_path, *FEW, "--method", method), "not finite")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]

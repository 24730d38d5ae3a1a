"""The command line: what a run leaves behind, and one sentence for whatever can be expected to fail."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from rich.console import Console

from tests.commands import (
    COMMAND,
    REPOSITORY,
    SMALL,
    assert_one_sentence,
    invoke,
    read_metrics,
    subprocess_run,
)
from tests.mnist import write_mnist
from vae_ext import __version__, interrupts
from vae_ext.aevb import TrainConfig, Trainer
from vae_ext.aevb.run import train
from vae_ext.aevb.run_directory import RunDirectory
from vae_ext.datasets import load_dataset
from vae_ext.progress import PlainLines, make_display

pytestmark = pytest.mark.cpu_only("starts commands, which choose a device themselves")

PICTURES = ("learning_curve.png", "samples.png", "reconstructions.png", "manifold.png")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small finished run."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    result = invoke("train", *SMALL, "--out", out)
    assert result.exit_code == 0, result.output
    assert str(out) in result.output
    return out


def test_a_run_leaves_a_summary_that_agrees_with_its_metrics(finished: Path) -> None:
    metrics = read_metrics(finished)
    summary = json.loads((finished / "summary.json").read_text())
    assert [line["samples"] for line in metrics] == sorted({line["samples"] for line in metrics})
    assert summary["samples"] == metrics[-1]["samples"] == 3000
    for key in ("train_bound", "test_bound", "seconds"):
        assert summary[key] == metrics[-1][key]
    assert summary["train_config"]["hidden"] == 16
    assert summary["model_config"].items() >= {"data_dim": 64, "hidden_dim": 16, "event_shape": [8, 8]}.items()
    assert summary["parameters"] == 64 * 16 + 16 + 16 * 4 + 4 + 2 * 16 + 16 + 16 * 64 + 64
    assert metrics[-1]["test_bound"] > metrics[0]["test_bound"]


@pytest.mark.parametrize("name", PICTURES)
def test_a_run_leaves_pictures(finished: Path, name: str) -> None:
    picture = imread(finished / name)[..., :3]
    assert min(picture.shape[:2]) > 400
    assert picture.std() > 0.05
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50


def test_evaluate_repeats_the_held_out_bound(finished: Path) -> None:
    result = invoke("evaluate", finished / "checkpoint.pt", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    summary = json.loads((finished / "summary.json").read_text())
    assert report["bound"] == pytest.approx(summary["test_bound"], rel=1e-6)
    assert (report["dataset"], report["datapoints"], report["trained_on_samples"]) == ("digits", 297, 3000)
    assert 0.05 < report["standard_error"] < 1

    sentence = invoke("evaluate", finished / "checkpoint.pt").stdout
    assert f"bound {report['bound']:.2f} nats (standard error {report['standard_error']:.2f})" in sentence

    other = json.loads(invoke("evaluate", finished / "checkpoint.pt", "--json", "--seed", 1).stdout)
    assert 0 < abs(other["bound"] - report["bound"]) < 1


def test_evaluate_draws_the_pictures_again(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "pictures"
    assert invoke("evaluate", finished / "checkpoint.pt", "--pictures", folder).exit_code == 0
    assert {path.name for path in folder.iterdir()} == set(PICTURES) - {"learning_curve.png"}
    for path in folder.iterdir():
        assert np.array_equal(imread(path), imread(finished / path.name))


def test_the_same_seed_gives_the_same_metrics(finished: Path, tmp_path: Path) -> None:
    assert invoke("train", *SMALL, "--out", tmp_path).exit_code == 0
    for ours, theirs in zip(read_metrics(tmp_path), read_metrics(finished), strict=True):
        assert ours | {"seconds": 0} == theirs | {"seconds": 0}


def test_a_run_says_what_it_trains(tmp_path: Path) -> None:
    kind = ("--network", "conv", "--likelihood", "gaussian", "--posterior", "laplace", "--estimator", "sgvb_a")
    result = invoke("train", "--samples", 200, "--hidden", 16, *kind, "--draws", 3, "--out", tmp_path)
    assert (
        "digits: 1,500 training and 297 held-out datapoints of 64 values. conv of 16 hidden units, 2 latents (laplace),"
        " gaussian likelihood, sgvb_a with L = 3, adagrad at 0.02, minibatches of 100, on cpu\n"
    ) in result.output


def test_samples_that_are_not_whole_minibatches(tmp_path: Path) -> None:
    result = invoke("train", "--samples", 950, "--hidden", 16, "--out", tmp_path)
    assert "950 samples are not whole minibatches of 100: 1,000 will be seen" in result.output
    assert read_metrics(tmp_path)[-1]["samples"] == 1000


def test_a_second_run_moves_the_first_aside(tmp_path: Path) -> None:
    assert invoke("train", *SMALL, "--out", tmp_path).exit_code == 0
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    second = invoke("train", *SMALL, "--seed", 1, "--out", tmp_path)
    assert second.exit_code == 0
    assert f"is now in {tmp_path / 'earlier-1'}" in second.output
    assert {path.name: path.read_bytes() for path in (tmp_path / "earlier-1").iterdir()} == files
    assert (tmp_path / "checkpoint.pt").read_bytes() != files["checkpoint.pt"]


def test_a_rejected_run_leaves_the_earlier_one_in_place(finished: Path) -> None:
    files = {path.name: path.read_bytes() for path in finished.iterdir()}
    assert invoke("train", "--out", finished, "--batch-size", 5000).exit_code == 1
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == files


def test_a_run_that_explodes_says_where(tmp_path: Path) -> None:
    result = invoke("train", *SMALL, "--out", tmp_path, "--lr", "1e30", "--optimizer", "sgd")
    assert_one_sentence(result, r"no longer finite .*checkpoint of 0 samples is kept: take a smaller step size")
    assert invoke("evaluate", tmp_path / "checkpoint.pt").exit_code == 0


def test_mnist_from_a_folder(tmp_path: Path) -> None:
    write_mnist(tmp_path / "data", train=200, test=40, side=10)
    out = tmp_path / "out"
    data = ("--dataset", "mnist", "--data-dir", tmp_path / "data")
    result = invoke("train", *SMALL, "--latent", 3, "--out", out, *data)
    assert result.exit_code == 0, result.output
    # The manifold is that of two latents only.
    assert {path.name for path in out.glob("*.png")} == set(PICTURES) - {"manifold.png"}
    report = json.loads(invoke("evaluate", out / "checkpoint.pt", "--json", *data).stdout)
    assert report["datapoints"] == 40


def test_an_array_that_is_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("price_$.npy", np.random.default_rng(0).random((150, 7)))
    result = invoke("train", *SMALL, "--dataset", "npy:price_$.npy")
    assert result.exit_code == 0, result.output
    assert [path.name for path in Path("runs/price_$").glob("*.png")] == ["learning_curve.png"]
    assert len(re.findall(r"(?m)^The learning curve will be the only picture: .* shape \[7\].*$", result.output)) == 1
    checkpoint = tmp_path / "runs/price_$/checkpoint.pt"
    drawn = invoke("evaluate", checkpoint, "--pictures", "pictures")
    assert_one_sentence(drawn, r"--pictures: .* has shape \[7\], expected \[H, W\]")

    # The data is found from any folder, and missed where it is not.
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert invoke("evaluate", checkpoint).exit_code == 0
    (tmp_path / "price_$.npy").rename(tmp_path / "moved.npy")
    assert_one_sentence(
        invoke("evaluate", checkpoint), r"cannot read .*price_\$\.npy: .* where it is now with --dataset"
    )
    assert invoke("evaluate", checkpoint, "--dataset", "npy:../moved.npy").exit_code == 0


@pytest.mark.parametrize("shape", [(30, 6, 5, 3), (30, 6, 5, 1), (5, 3, 3)], ids=["colour", "grey", "few"])
def test_pictures_of_other_shapes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "data.npy", np.random.default_rng(0).random(shape))
    result = invoke(
        "train", *SMALL, "--batch-size", 4, "--dataset", f"npy:{tmp_path}/data.npy", "--out", tmp_path / "out"
    )
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == set(PICTURES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dataset", "cifar"), r"unknown dataset 'cifar': expected digits, mnist, frey or npy:PATH"),
        (("--dataset", "npy:absent.npy"), r"cannot read .*absent.npy: No such file"),
        (("--dataset", "mnist", "--data-dir", "absent"), r"absent is not a folder: .* MNIST's four IDX files"),
        (("--dataset", "mnist", "--data-dir", "."), r"\. has no train-images-idx3-ubyte"),
        (("--batch-size", 1501), r"digits has 1500 training datapoints, fewer than a minibatch of 1501"),
        (("--optimizer", "lbfgs"), r"--optimizer is 'lbfgs'"),
        (("--samples", 0), r"--samples is 0"),
        (("--batch-size", 0), r"--batch-size is 0"),
        (("--latent", -2), r"--latent is -2"),
        (("--hidden", 2**31), r"--hidden is 2147483648"),
        (("--lr", "nan"), r"--lr is nan"),
        (("--lr", "-0.1"), r"--lr is -0.1"),
        (("--seed", -1), r"--seed is -1"),
        (("--device", "tpu"), r"unknown device 'tpu': expected cpu, cuda or cuda:N"),
    ],
)
def test_bad_training_options(tmp_path: Path, arguments: tuple[object, ...], message: str) -> None:
    assert_one_sentence(invoke("train", *SMALL, "--out", tmp_path, *arguments), message)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dataset", ["cifar", "npy:", "npy:absent.npy"])
def test_a_bad_dataset_leaves_no_folder_behind(tmp_path: Path, dataset: str) -> None:
    assert invoke("train", "--dataset", dataset, "--out", tmp_path / "out").exit_code == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [("--lr", "fast", "valid"), ("--out", "", "the path is empty"), ("--data-dir", "", "the path is empty")],
)
def test_usage_errors_name_the_option(option: str, value: str, message: str) -> None:
    result = invoke("train", option, value)
    assert result.exit_code == 2
    assert option in result.stderr
    assert message in result.stderr


def test_nan_in_the_data(tmp_path: Path) -> None:
    array = np.full((20, 4), 0.5)
    array[1, 2] = np.nan
    np.save(tmp_path / "data.npy", array)
    result = subprocess_run("train", "--dataset", f"npy:{tmp_path}/data.npy", "--out", tmp_path / "out")
    assert_one_sentence(result, r"data.npy holds NaN or infinite values: expected finite floats")


def test_a_truncated_idx_file(tmp_path: Path) -> None:
    write_mnist(tmp_path, compress=False)
    images = tmp_path / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:-5])
    result = invoke("train", "--dataset", "mnist", "--data-dir", tmp_path, "--out", tmp_path / "out")
    assert_one_sentence(result, r"train-images-idx3-ubyte is truncated or corrupt")


def test_an_output_folder_that_cannot_be_written_is_found_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        # So many samples that only a check before training answers in time.
        result = invoke("train", "--samples", 2**31 - 1, "--out", out)
        assert_one_sentence(result, "cannot write to the output folder .*file")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_bit_of_the_weights(path: Path) -> None:
    content = bytearray(path.read_bytes())
    weights = torch.load(path, weights_only=True)["model"]["encoder.hidden.weight"].numpy().tobytes()
    content[content.find(weights) + 1000] ^= 1
    path.write_bytes(content)


def remove(path: Path) -> None:
    path.unlink()


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_state_dict(path: Path) -> None:
    torch.save(torch.nn.Linear(3, 4).state_dict(), path)


def replace_by_list(path: Path) -> None:
    torch.save([1, 2, 3], path)


def change(path: Path, **entries: object) -> None:
    torch.save(torch.load(path, weights_only=True) | entries, path)


def claim_other_sizes(path: Path) -> None:
    change(path, model_config={"data_dim": 64, "hidden_dim": 10**9, "latent_dim": 2})


def forget_the_weights(path: Path) -> None:
    change(path, model=None)


def lose_a_weight(path: Path) -> None:
    weights = torch.load(path, weights_only=True)["model"]
    del weights["decoder.output.bias"]
    change(path, model=weights)


def add_a_weight(path: Path) -> None:
    change(path, model=torch.load(path, weights_only=True)["model"] | {"extra": torch.zeros(3)})


def lose_the_sizes(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    del state["model_config"]
    torch.save(state, path)


def claim_unknown_sizes(path: Path) -> None:
    change(path, model_config={"data_dim": 64, "depth": 3})


def claim_no_minibatch(path: Path) -> None:
    change(path, train_config={"batch_size": 0})


def claim_a_dataset_without_a_name(path: Path) -> None:
    change(path, options={"dataset": 5})


def claim_a_folder_without_a_name(path: Path) -> None:
    change(path, options={"dataset": "digits", "data_dir": 5})


def claim_less_than_no_record(path: Path) -> None:
    change(path, progress={"records": -1, "recorded": {}, "seconds": 0.0})


def claim_less_than_no_sample(path: Path) -> None:
    change(path, samples=-100)


def claim_half_a_datapoint(path: Path) -> None:
    change(path, train_config={"batch_size": 100.5})


def poison_the_weights(path: Path) -> None:
    weights = torch.load(path, weights_only=True)["model"]
    change(path, model={name: tensor * torch.nan for name, tensor in weights.items()})


class Code:
    """Creates a file named PWNED when unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, ("PWNED", "w")


def hide_code_inside(path: Path) -> None:
    torch.save(torch.load(path, weights_only=True) | {"dataset": Code()}, path)


def replace_by_plain_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Code()))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (truncate, "is damaged or not a checkpoint"),
        (empty, "is damaged or not a checkpoint"),
        (flip_a_bit_of_the_weights, "is damaged or not a checkpoint"),
        (replace_by_plain_pickle, "is damaged or not a checkpoint"),
        (hide_code_inside, "holds pickled code"),
        (remove, "cannot be read: No such file"),
        (replace_by_folder, "cannot be read: No such file"),
        (replace_by_state_dict, "is not a checkpoint of this version of vae-ext train"),
        (replace_by_list, "is not a checkpoint of this version of vae-ext train"),
        (
            claim_other_sizes,
            r"is of another model: its encoder\.hidden\.weight is \[16, 64\], expected \[1000000000, 64\] by its",
        ),
        (forget_the_weights, "is incomplete: it has no weights"),
        (lose_a_weight, r"is of another model: its decoder\.output\.bias is missing, expected \[64\]"),
        (add_a_weight, r"is of another model: its extra is \[3\], expected none"),
        (lose_the_sizes, "is incomplete: it has no 'model_config'"),
        (claim_unknown_sizes, "does not hold what this version of vae-ext train writes: .*depth"),
        (claim_no_minibatch, "does not hold what this version of vae-ext train writes: batch_size is 0"),
        (claim_a_dataset_without_a_name, "does not hold what .* writes: dataset is 5: expected str"),
        (claim_a_folder_without_a_name, "does not hold what .* writes: data_dir is 5: expected str or NoneType"),
        (claim_less_than_no_record, "does not hold what .* writes: records is -1"),
        (claim_less_than_no_sample, "does not hold what this version of vae-ext train writes: samples is -100"),
        (claim_half_a_datapoint, r"does not hold what .* writes: batch_size is 100\.5"),
        (poison_the_weights, "gives a bound that is not finite"),
    ],
)
def test_unusable_checkpoints(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    harm: Callable[[Path], None],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes((finished / "checkpoint.pt").read_bytes())
    harm(checkpoint)
    assert_one_sentence(invoke("evaluate", checkpoint), rf"checkpoint\.pt {message}")
    assert not Path("PWNED").exists()


def test_a_dataset_of_another_size_than_the_model(finished: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", np.random.default_rng(0).random((10, 5)))
    result = invoke("evaluate", finished / "checkpoint.pt", "--dataset", f"npy:{tmp_path}/data.npy")
    assert_one_sentence(result, r"is a model of 64 values a datapoint, but npy:.*data.npy has 5: .* was digits")


def test_evaluate_rejects_numbers_out_of_range(finished: Path) -> None:
    assert_one_sentence(invoke("evaluate", finished / "checkpoint.pt", "--draws", 0), "--draws is 0")


# What pip writes for the entry point, but for the shebang.
SCRIPT = "from vae_ext.__main__ import main\nmain()\n"


@pytest.mark.parametrize("command", [("-m", "vae_ext"), ("-u", "-m", "vae_ext"), ("vae-ext",)], ids=" ".join)
def test_interrupting_while_torch_is_imported(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "torch.py").write_text("import pathlib, time\npathlib.Path('importing').touch()\ntime.sleep(60)\n")
    (tmp_path / "vae-ext").write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, *command, "train"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY)])},
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_for(tmp_path / "importing", process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, "vae-ext: interrupted\n")


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Minutes, if the machine is busy."""
    deadline = time.monotonic() + 300
    while not path.exists():
        assert process.poll() is None, "the process ended before it wrote the file"
        assert time.monotonic() < deadline, f"{path.name} was not written within 5 minutes"
        time.sleep(0.05)


def test_interrupting_saves_the_step_it_stops_at(tmp_path: Path) -> None:
    command = [*COMMAND, "train", "--samples", "5000000", "--batch-size", "1", "--hidden", "8"]
    # What starts the tests in the background may have them, and so this process, ignore interrupts.
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_for(tmp_path / "metrics.jsonl", process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    found = re.fullmatch(
        r"vae-ext: stopped after (.*) samples; .* keeps the checkpoint of (.*) samples and its metrics: .*\n", stderr
    )
    assert found is not None, stderr
    assert found[1] == found[2]
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.pt", "metrics.jsonl"}
    assert invoke("evaluate", tmp_path / "checkpoint.pt").exit_code == 0


@pytest.mark.parametrize(("times", "reached"), [(0, ["False", "after"]), (1, ["True"]), (2, [])])
def test_a_second_interrupt_waits_for_nothing(times: int, reached: list[str]) -> None:
    """The first is an exception once what must not be torn apart is over."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    found = []
    try:
        with pytest.raises(KeyboardInterrupt) if times else nullcontext():
            with interrupts.deferred() as interrupted:
                for _ in range(times):
                    signal.raise_signal(signal.SIGINT)
                found.append(str(interrupted()))
            found.append("after")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert found == reached


def test_a_terminal_gets_a_live_bar(tmp_path: Path) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    trainer = Trainer(load_dataset("digits"), TrainConfig(samples=3000, hidden=16), torch.device("cpu"))
    with make_display(console, samples=3000) as display:
        records = train(trainer, RunDirectory(tmp_path), display)
    shown = screen.getvalue()
    assert "100%" in shown
    assert f"bound {records[-1].train_bound:.2f} nats, held-out {records[-1].test_bound:.2f}" in shown
    assert re.search(r"[\d,]+ samples/s .*left", shown)


def test_elsewhere_there_is_a_line_whenever_its_time_has_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PlainLines, "interval", 0.0)
    screen = io.StringIO()
    trainer = Trainer(load_dataset("digits"), TrainConfig(samples=9950, hidden=16), torch.device("cpu"))
    with make_display(Console(file=screen, width=120), samples=9950) as display:
        records = train(trainer, RunDirectory(tmp_path), display)
    lines = screen.getvalue().splitlines()
    # After every step, so also between records, and at the end.
    assert len(lines) == 100 + 1 > len(records) + 1
    assert f"bound {records[-1].train_bound:.2f} nats, held-out {records[-1].test_bound:.2f}" in lines[-1]
    assert "nan" not in screen.getvalue()


def test_help_does_not_import_torch(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    result = subprocess_run("train", "--help", PYTHONPATH=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert "--resume" in result.stdout


def test_the_operators_are_there_under_the_command_line_too() -> None:
    """Where `vae_ext` leaves torch to the commands, what is asked for is imported then."""
    script = """
        import sys
        sys.argv = ["vae-ext"]
        import vae_ext
        assert "torch" not in sys.modules
        print(vae_ext.normal_kl.__name__)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "normal_kl\n"


def test_version_and_help() -> None:
    result = subprocess_run("--version")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"vae-ext {__version__}\n"
    for command in ("train", "evaluate", "doctor"):
        assert invoke(command, "--help").exit_code == 0


def test_doctor_finds_this_installation_healthy() -> None:
    result = subprocess_run("doctor")
    assert result.returncode == 0, result.stdout
    for text in (f"{torch.__version__}", "cpu capability", "built: compiler", "bernoulli_log_prob agrees"):
        assert text in result.stdout
    assert "WRONG" not in result.stdout


def test_doctor_explains_a_native_library_that_does_not_load(tmp_path: Path) -> None:
    result = subprocess_run("doctor", VAE_EXT_LIBRARY=str(tmp_path / "absent.so"))
    assert result.returncode == 1, result.stderr
    assert re.search(r"WRONG native library +.*VAE_EXT_LIBRARY.*absent\.so", result.stdout)
    assert "mend it: " in result.stdout
    assert result.stderr == ""


def test_doctor_explains_a_native_library_that_is_empty(tmp_path: Path) -> None:
    """As an interrupted build leaves it."""
    (tmp_path / "_C.so").touch()
    result = subprocess_run("doctor", VAE_EXT_LIBRARY=str(tmp_path / "_C.so"))
    assert result.returncode == 1, result.stderr
    assert re.search(r"WRONG native library +.*_C\.so is not a native library of vae_ext: rebuild it", result.stdout)


def test_training_without_a_native_library_is_one_sentence(tmp_path: Path) -> None:
    result = subprocess_run("train", *SMALL, "--out", tmp_path, VAE_EXT_LIBRARY=str(tmp_path / "absent.so"))
    assert_one_sentence(result, r"absent\.so.*`vae-ext doctor` says")


def test_doctor_notices_a_wrong_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    from vae_ext import ops

    right = ops.bernoulli_log_prob
    monkeypatch.setattr(ops, "bernoulli_log_prob", lambda logits, x: 1.001 * right(logits, x))
    result = invoke("doctor")
    assert result.exit_code == 1
    assert re.search(r"WRONG +self-check +bernoulli_log_prob is off by", result.stdout)

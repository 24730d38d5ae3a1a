"""Starts commands, and reads what they leave behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner, Result

from vae_ext.cli import app

COMMAND = (sys.executable, "-m", "vae_ext")
REPOSITORY = Path(__file__).parents[1]
# A run of seconds.
SMALL = ("--samples", "3000", "--hidden", "16")


def invoke(*arguments: object) -> Result:
    """`vae-ext` with these arguments, in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def subprocess_run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own."""
    command = [*COMMAND, *(str(argument) for argument in arguments)]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=120)


def assert_one_sentence(result: Result | subprocess.CompletedProcess[str], message: str) -> None:
    """One line on stderr that matches the message, a non-zero exit and no traceback."""
    code = result.exit_code if isinstance(result, Result) else result.returncode
    assert code == 1, result.stderr
    assert re.fullmatch(rf"vae-ext: .*{message}.*\n", result.stderr), result.stderr


def train_on_vectors(folder: Path, *options: object) -> Path:
    """The folder of a run on datapoints that are no pictures, and reach beyond [0, 1]."""
    np.save(folder / "data.npy", np.random.default_rng(0).normal(size=(300, 7)))
    kind = ("--likelihood", "gaussian", "--decoder-mean", "linear", "--latent", 1, *options)
    small = ("--samples", 1000, "--hidden", 16)
    result = invoke("train", *small, *kind, "--dataset", f"npy:{folder}/data.npy", "--out", folder / "run")
    assert result.exit_code == 0, result.output
    return folder / "run"


def read_metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def without_seconds(out: Path) -> list[dict[str, Any]]:
    """The metrics but for how long they took."""
    return [{**line, "seconds": None} for line in read_metrics(out)]


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)

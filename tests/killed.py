"""Kills a run again and again, resumes it, and leaves it finished beside one that was left alone.

`python -m tests.killed FOLDER SEED` makes FOLDER/alone and FOLDER/killed, and prints how many samples were saved at
each kill, -1 where nothing was. Each start of `vae-ext train` is a fork of this process, which has imported what it
needs: a start takes milliseconds, and the moments of death fall into training and saving instead of imports.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import sklearn.datasets  # noqa: F401
import torch
import torch._dynamo  # which an optimizer imports when it is made

from vae_ext import plots, progress  # noqa: F401
from vae_ext.aevb import load_checkpoint, run
from vae_ext.aevb.run_directory import CHECKPOINT
from vae_ext.cli import app

KILLS = 10
# As a part of the whole run, which must not be over before the tenth kill; lives last half as long on average.
LONGEST_LIFE = 0.08
# Small steps and a checkpoint after each: much of the time goes into saving.
RUN = ("--samples", "8000", "--batch-size", "20", "--hidden", "8")


def start(*arguments: str) -> int:
    """Runs `vae-ext train` in a process of its own and returns its id."""
    process = os.fork()
    if process == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        app(["train", *arguments], prog_name="vae-ext")
    return process


def finish(process: int) -> None:
    _, status = os.waitpid(process, 0)
    assert status == 0, f"vae-ext train ended with {status}"


def start_or_resume(out: Path) -> int:
    """What a user does after a crash: resumes if anything was saved."""
    if (out / CHECKPOINT).exists():
        return start("--resume", str(out))
    return start(*RUN, "--out", str(out))


def await_save(process: int, out: Path) -> None:
    """Until the process has saved for the first time, which takes longer the busier the machine is."""
    before = identity(out / CHECKPOINT)
    while identity(out / CHECKPOINT) == before:
        assert os.waitpid(process, os.WNOHANG) == (0, 0), "the run ended before it had saved"
        time.sleep(0.001)


def identity(path: Path) -> tuple[int, int] | None:
    """Which file stands there: each save puts a new one in its place."""
    if not path.exists():
        return None
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def kill_after(process: int, seconds: float) -> None:
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    assert os.WIFSIGNALED(status), "the run was over before it was killed"


def saved_samples(out: Path) -> int:
    path = out / CHECKPOINT
    return load_checkpoint(path).samples if path.exists() else -1


def main(folder: Path, seed: int) -> None:
    run.CHECKPOINT_INTERVAL = 0.0
    # Threads do not survive a fork.
    torch.set_num_threads(1)
    began = time.monotonic()
    finish(start(*RUN, "--out", str(folder / "alone")))
    duration = time.monotonic() - began
    chance = random.Random(seed)
    saved = []
    for number in range(KILLS):
        process = start_or_resume(folder / "killed")
        # Half of the lives count from the first save on, so that a busy machine does not end them all before it.
        if number % 2:
            await_save(process, folder / "killed")
        kill_after(process, chance.uniform(0, LONGEST_LIFE * duration))
        saved.append(saved_samples(folder / "killed"))
    finish(start_or_resume(folder / "killed"))
    print(json.dumps(saved))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

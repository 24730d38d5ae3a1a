"""tools/gpu.py: it goes on after a failure, reports every part, and its exit status is honest."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import build_config
import gpu
import pytest
import torch
from gpu import Outcome, Part, find_sanitizer, groups, run, run_all, table

from vae_ext import _native

pytestmark = pytest.mark.cpu_only("about the tool that starts these tests")

ROOT = Path(__file__).resolve().parent.parent


def _python(name: str, code: str, *, seconds: int = 60, obstacle: str | None = None) -> Part:
    return Part(name, [sys.executable, "-c", code], "all.log", seconds, obstacle=obstacle)


def test_every_part_is_reported_whatever_fails(tmp_path: Path) -> None:
    planned = [
        [_python("build", "print('fine')")],
        [_python("tests", "raise SystemExit('1 failed')"), _python("hangs", "import time; time.sleep(99)", seconds=5)],
        [_python("memcheck", "", obstacle="no sanitizer")],
        [_python("benchmark", "print('first'); print('== last ==')")],
    ]
    outcomes = list(run_all(planned, tmp_path))
    assert [(outcome.part, outcome.passed, outcome.words) for outcome in outcomes] == [
        ("build", True, "fine"),
        ("tests", False, "exit status 1: 1 failed"),
        ("hangs", False, "stopped after 5 seconds: no output"),
        ("memcheck", False, "not run: no sanitizer"),
        ("benchmark", True, "last"),
    ]
    log = (tmp_path / "all.log").read_text()
    assert log.index("fine") < log.index("1 failed") < log.index("first")


def test_without_a_build_nothing_is_tested(tmp_path: Path) -> None:
    planned = [[_python("build", "raise SystemExit(2)")], [_python("tests", "print('fine')")]]
    assert [outcome.words for outcome in run_all(planned, tmp_path)][1] == "not run: the build failed"


def test_a_part_gets_no_more_than_what_is_left(tmp_path: Path) -> None:
    assert run(_python("late", "print('fine')"), tmp_path, 4.0).words == "not run: no time is left"


def test_the_table_names_what_failed() -> None:
    failed, not_run = (
        Outcome("tests", False, 3.0, "exit status 1: why"),
        Outcome("memcheck", False, 0.0, "not run: why"),
    )
    lines = [line.split() for line in table([Outcome("build", True, 12.4, "fine"), failed, not_run])]
    assert lines[1] == ["build", "ok", "12", "fine"]
    assert lines[2][:3] == ["tests", "FAILED", "3"]
    assert lines[3][:4] == ["memcheck", "NOT", "RUN", "0"]


def test_results_fit_a_few_files(tmp_path: Path) -> None:
    """Four logs, a summary, the benchmark's results and its pictures."""
    parts = [part for group in groups("9.0", tmp_path) for part in group]
    assert len({part.log for part in parts}) == 4
    assert [part.name for part in parts if part.name in gpu.SANITIZERS] == list(gpu.SANITIZERS)
    assert parts[0].env["TORCH_CUDA_ARCH_LIST"] == "9.0"


def test_what_a_build_needs_and_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu.missing_builder() is None
    monkeypatch.setattr(build_config, "find_program", lambda _: None)
    assert gpu.missing_builder() == "cmake was not found"
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "68.1.2")
    assert gpu.missing_builder() == "setuptools is 68.1.2, expected 77 or later"

    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert gpu.missing_builder() == f"{sys.executable} has no setuptools, expected 77 or later"


def test_parts_load_what_was_built_and_not_what_is_in_the_tree(tmp_path: Path) -> None:
    code = "import os; print(os.environ['VAE_EXT_LIBRARY'])"
    library = Path(run(_python("tests", code), tmp_path, 60.0).words)
    build = groups("9.0", tmp_path)[0][0]
    assert f"--build-lib={library.parent.parent}" in build.command
    assert ROOT / "build" in library.parents
    assert library.name == Path(str(_native.load().__file__)).name


def test_the_tests_of_a_device_need_no_command_line() -> None:
    """They can be collected, here for the device that computes nothing, without what only `vae-ext` needs."""
    code = (
        "import sys, pytest; sys.modules |= dict.fromkeys(['typer', 'rich', 'pooch']); "
        # Sparse tensors are what meta does not have.
        "sys.exit(pytest.main(['--device', 'meta', '--collect-only', '-q', '--ignore', 'tests/test_fuzz.py']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert "test_cuda.py" in done.stdout
    assert "left out: test_aevb" in done.stdout


def test_the_sanitizer_is_found_in_the_toolkit(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "compute-sanitizer"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert find_sanitizer({"PATH": "", "CUDA_HOME": str(tmp_path)}) == str(program)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_no_part_runs_and_the_status_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "gpu.py"), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert not summary["passed"]
    assert summary["device"].startswith("torch")
    assert summary["device"] in done.stdout
    assert len(summary["parts"]) == 7
    for part in summary["parts"]:
        assert not part["passed"]
        assert part["words"] == f"not run: {summary['device']}"
        assert part["part"] in done.stdout


def test_it_asks_for_a_folder() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "gpu.py"), ""], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "make gpu OUT=dir" in done.stderr

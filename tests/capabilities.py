"""Runs a module of the tests under another instruction set, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What ATEN_CPU_CAPABILITY is set to, and the instruction set that asks for.
CAPABILITIES = {"default": "DEFAULT", "avx2": "AVX2", "avx512": "AVX512"}


def digests_under(capability: str, module: str) -> dict[str, str]:
    """What `python -m module` prints as its digests; skips where the processor lacks the instruction set."""
    environment = os.environ | {
        "ATEN_CPU_CAPABILITY": capability,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }
    completed = subprocess.run(
        [sys.executable, "-m", module],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    report = json.loads(completed.stdout)
    if report["capability"] != CAPABILITIES[capability]:
        pytest.skip(f"this processor has no {capability}")
    digests: dict[str, str] = report["digests"]
    return digests

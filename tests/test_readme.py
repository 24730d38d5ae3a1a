"""The README's training on tensors of one's own runs as it stands there, but for fewer samples."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.commands import REPOSITORY
from vae_ext.aevb import load_checkpoint

pytestmark = pytest.mark.cpu_only("names the CPU")


def test_training_on_tensors_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    (example,) = (block for block in blocks if "Dataset(" in block)
    assert "samples=50_000" in example
    names: dict[str, Any] = {"x": torch.rand(400, 64, generator=torch.Generator().manual_seed(0))}
    exec(example.replace("samples=50_000", "samples=1_000"), names)
    assert load_checkpoint("runs/mine/checkpoint.pt").samples == 1000
    assert names["codes"].mean.shape == (100, 5)

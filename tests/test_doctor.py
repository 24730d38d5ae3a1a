"""What the doctor says of CUDA, on machines that this one is not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vae_ext import doctor

pytestmark = pytest.mark.cpu_only("about devices that are not there")


def _built_with(monkeypatch: pytest.MonkeyPatch, **info: Any) -> None:
    monkeypatch.setattr(doctor, "_load_native", lambda: SimpleNamespace(build_info=lambda: info))


def test_a_build_for_the_cpu_alone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    _built_with(monkeypatch, cuda=None, cuda_architectures=[])
    finding = doctor._cuda_kernels("9.0")
    assert "built for the CPU alone" in finding.value
    assert "BUILD_CUDA=1" in finding.value


def test_an_architecture_that_is_not_covered_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(device: str) -> float:
        assert device == "cuda"
        raise RuntimeError("this build of vae_ext has no CUDA kernels for the architecture of this device")

    _built_with(monkeypatch, cuda="13.0", cuda_architectures=["80-real", "90-real"])
    monkeypatch.setattr(doctor, "_operator_error", fail)
    finding = doctor._cuda_kernels("7.5")
    assert finding.wrong
    assert "no CUDA kernels" in finding.value
    assert finding.remedy == "rebuild with TORCH_CUDA_ARCH_LIST=7.5 (built for 80-real, 90-real)"


def test_kernels_that_are_right_are_well(monkeypatch: pytest.MonkeyPatch) -> None:
    _built_with(monkeypatch, cuda="13.0", cuda_architectures=["90-real"])
    monkeypatch.setattr(doctor, "_operator_error", lambda device: 1e-7)
    assert not doctor._cuda_kernels("9.0").wrong

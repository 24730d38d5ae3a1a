"""The emulated device finds what is wrong with a kernel, and nothing wrong with a right one."""

from __future__ import annotations

import pytest

from tests.emulation.faults import FAULTS, check_found, check_silent, found_by

pytestmark = pytest.mark.cpu_only("the CUDA kernels run on the CPU here")


@pytest.mark.parametrize("name", found_by("plain"))
def test_fault_is_found(name: str) -> None:
    check_found(name, "plain")


@pytest.mark.parametrize("name", FAULTS)
def test_nothing_is_found_without_the_fault(name: str) -> None:
    check_silent(name, "plain")

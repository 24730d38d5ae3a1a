"""The emulated device under AddressSanitizer with UBSan, and under ThreadSanitizer: `make emulate-sanitize`."""

from __future__ import annotations

import pytest

from tests.emulation.build import Kind
from tests.emulation.faults import FAULTS, check_found, check_silent, found_by

KINDS: tuple[Kind, ...] = ("address", "thread")


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in found_by(kind)])
def test_fault_is_found(kind: Kind, name: str) -> None:
    check_found(name, kind)


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_found_without_the_fault(kind: Kind, name: str) -> None:
    check_silent(name, kind)

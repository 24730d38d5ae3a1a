"""Fixtures and settings for every test."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch

from vae_ext.datasets import Dataset, load_dataset

CPU_ONLY_FILES = [
    path.name
    for path in sorted(Path(__file__).parent.glob("test_*.py"))
    if re.search(r"^pytestmark = pytest\.mark\.cpu_only\(", path.read_text(), re.MULTILINE)
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="where tests run: cpu, or cuda, less what is about the CPU")


def pytest_configure(config: pytest.Config) -> None:
    """Tensors are made on the device asked for, those in the arguments of a test too."""
    config.addinivalue_line("markers", "cpu_only(reason): not for --device cuda, and why")
    config.addinivalue_line("markers", "large: takes many gigabytes, so not beside others")
    device = config.getoption("--device")
    if device == "cpu":
        return
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise pytest.UsageError(f"--device is {device}, but torch {torch.__version__} sees no CUDA device")
    torch.set_default_device(device)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """On a device, files that are about the CPU alone are not even imported: that may take what is not there."""
    return True if config.getoption("--device") != "cpu" and collection_path.name in CPU_ONLY_FILES else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.getoption("--device") != "cpu":
        terminalreporter.write_line(f"about the CPU alone, and left out: {', '.join(CPU_ONLY_FILES)}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--device") == "cpu":
        return
    for item in items:
        marker = item.get_closest_marker("cpu_only")
        if marker is not None:
            item.add_marker(pytest.mark.skip(reason=f"not for --device cuda: {marker.args[0]}"))


hypothesis.settings.register_profile("vae_ext", derandomize=True, deadline=None, max_examples=60, database=None)
hypothesis.settings.load_profile("vae_ext")


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """What torch allocates without initialising holds NaN, so that an element never written is seen."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(1).isnan()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """The handwritten digits, on the CPU. All tests read the same: none writes to them."""
    with torch.device("cpu"):
        return load_dataset("digits")


@pytest.fixture
def restored_threads() -> Iterator[None]:
    """The number of threads is what it was after the test."""
    num_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(num_threads)

"""Fixtures and settings for every test."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("vae_ext", derandomize=True, deadline=None, max_examples=60, database=None)
hypothesis.settings.load_profile("vae_ext")


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """What torch allocates without initialising holds NaN, so that an element never written is seen."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(1).isnan()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def restored_threads() -> Iterator[None]:
    """The number of threads is what it was after the test."""
    num_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(num_threads)

"""The command line names choices without importing torch; what they stand for is elsewhere, under the same names."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from vae_ext import plots, train_config
from vae_ext.aevb import estimators, likelihoods, memory, step_size, trainer

pytestmark = pytest.mark.cpu_only("computes nothing")


def test_estimators() -> None:
    assert set(train_config.ESTIMATORS) == set(estimators.ESTIMATORS) == set(plots.ESTIMATORS)


def test_optimizers() -> None:
    tables: tuple[Mapping[str, object], ...] = (trainer.OPTIMIZERS, memory.COPIES_OF_PARAMETERS, step_size.STEP_SIZES)
    assert all(set(table) == set(train_config.OPTIMIZERS) for table in tables)


def test_likelihoods() -> None:
    assert set(train_config.LIKELIHOODS) == set(likelihoods.LIKELIHOODS)

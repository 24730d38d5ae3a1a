"""Minibatches: which rows, of what values, the same in one process and in several."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from vae_ext.aevb.distributed import Team
from vae_ext.aevb.minibatches import Minibatches, binarised
from vae_ext.datasets import Dataset

pytestmark = pytest.mark.cpu_only("generators are made on the CPU")


def make(dataset: Dataset, *, binarise: bool = False, team: Team | None = None, seed: int = 0) -> Minibatches:
    return Minibatches(dataset, 60, torch.Generator().manual_seed(seed), binarise=binarise, team=team)


@pytest.mark.parametrize("stored", [torch.uint8, torch.float32])
def test_x_is_the_rows_decoded(digits: Dataset, stored: torch.dtype) -> None:
    data = replace(digits, train=digits.train.to(stored))
    minibatches = make(data)
    before = data.train.clone()
    for _ in range(3):
        minibatch = minibatches.draw()
        expected = digits.train[minibatch.rows].double() / 16
        torch.testing.assert_close(minibatch.x.double(), expected, rtol=1e-7, atol=0)
        assert minibatch.x.dtype == torch.float32
    assert torch.equal(data.train, before)


def test_rows_are_uniform_with_replacement(digits: Dataset) -> None:
    minibatches = make(digits)
    rows = np.concatenate([minibatches.draw().rows.numpy() for _ in range(1000)])
    assert rows.min() == 0
    assert rows.max() == 1499
    counts = np.bincount(rows, minlength=1500)
    assert stats.chisquare(counts).pvalue > 1e-4
    assert any(len(set(minibatches.draw().rows.tolist())) < 60 for _ in range(100))


@pytest.mark.parametrize("binarise", [False, True])
def test_shares_of_a_team_are_the_minibatch(digits: Dataset, binarise: bool) -> None:
    whole = make(digits, binarise=binarise)
    shares = [make(digits, binarise=binarise, team=Team(rank, 3)) for rank in range(3)]
    for _ in range(2):
        expected = whole.draw()
        drawn = [share.draw() for share in shares]
        assert torch.equal(torch.cat([share.rows for share in drawn]), expected.rows)
        assert torch.equal(torch.cat([share.x for share in drawn]), expected.x)
        assert [share.first_row for share in drawn] == [0, 20, 40]
        assert all(torch.equal(share.rng_state, expected.rng_state) for share in drawn)


def test_binarised_values_have_the_means_they_are_drawn_with() -> None:
    means = torch.linspace(0, 1, 9)
    data = Dataset("ramp", means.expand(100, 9).contiguous(), means.expand(5000, 9).contiguous(), 1, (9,))
    minibatches = make(data, binarise=True)
    draws = torch.cat([minibatches.draw().x.clone() for _ in range(100)])
    for drawn in (draws, data.decode(binarised(data, data.test))):
        assert set(drawn.unique().tolist()) == {0.0, 1.0}
        # Five standard deviations of a mean of Bernoulli draws, none for the sure ones.
        tolerance = 5 * (means * (1 - means) / len(drawn)).sqrt()
        assert ((drawn.mean(0) - means).abs() <= tolerance).all()


def test_held_out_rows_are_binarised_once(digits: Dataset) -> None:
    rows = binarised(digits, digits.test)
    assert rows.dtype == torch.uint8
    assert set(rows.unique().tolist()) == {0, 16}
    assert torch.equal(rows, binarised(digits, digits.test))
    assert not torch.equal(rows, binarised(digits, digits.test, seed=1))

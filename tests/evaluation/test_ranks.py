"""Spearman's rank correlation beside scipy's: ties, gaps and what is constant."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from audioxai_utils.evaluation.ranks import rank_correlation, spearman


def test_with_ties_it_is_scipys():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(0, 6, (2, 5, 4)), rng.integers(0, 9, (2, 5, 4))
        expected = spearmanr(a.ravel(), b.ravel()).statistic
        assert spearman(a, b) == pytest.approx(expected, abs=1e-12)
        rows = rank_correlation(torch.from_numpy(a).flatten(1), torch.from_numpy(b).flatten(1))
        assert rows == pytest.approx([spearman(*pair) for pair in zip(a, b)])


def test_what_is_missing_on_a_side_is_left_out_of_its_row():
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, 3, 8))
    first[0, 2] = second[0, 5] = second[2, 0] = np.nan
    first[1] = np.nan
    found = rank_correlation(first, second)
    assert found[0] == pytest.approx(spearmanr(first[0], second[0], nan_policy="omit").statistic)
    assert np.isnan(found[1]) and found[2] == pytest.approx(spearmanr(first[2, 1:], second[2, 1:]).statistic)


def test_a_constant_map_has_no_correlation_even_when_rounded():
    rounded = np.float32(0.1) + np.arange(8) * np.float64(1e-9)
    for second in (np.full(8, 3.0), rounded, np.zeros(8)):
        assert np.isnan(spearman(np.arange(8), second)) and np.isnan(spearman(second, np.arange(8)))

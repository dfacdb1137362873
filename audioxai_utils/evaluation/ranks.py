"""Spearman's rank correlation, of two arrays or row by row."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

CONSTANT = 1e-6  # of the largest value; what varies less than float32 rounds has no ranks


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Rank correlation of two arrays of one size; see `rank_correlation`."""
    return float(rank_correlation(*(np.reshape(values, (1, -1)) for values in (first, second)))[0])


def constant(values: ArrayLike) -> bool:
    """Whether an array is the same all along, but for what float32 rounds."""
    return bool(np.ptp(values) <= CONSTANT * np.abs(values).max())


def rank_correlation(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """Spearman's rho (rows,) of each row of ``first`` (rows, columns) with that of ``second``.

    Equal values share their mean rank. A column in which either is NaN is left out of its row. NaN where
    either of what is left is constant, but for what float32 rounds.
    """
    sides = [np.asarray(values, dtype=np.float64) for values in (first, second)]
    missing, products = np.isnan(sides).any(axis=0), []
    middle = ((~missing).sum(axis=1, keepdims=True) + 1) / 2
    for values in sides:
        known = np.ma.masked_array(values, missing)
        alike = np.ptp(known, axis=1) <= CONSTANT * abs(known).max(axis=1)
        ranks = rankdata(np.where(missing, np.nan, values), axis=1, nan_policy="omit")
        products.append(np.where(np.ma.filled(alike, True)[:, None], 0.0, np.nan_to_num(ranks - middle)))
    size = np.sqrt(np.prod([np.square(each).sum(axis=1) for each in products], axis=0))
    undefined = np.full(len(size), np.nan)
    return np.divide(np.prod(products, axis=0).sum(axis=1), size, out=undefined, where=size > 0)

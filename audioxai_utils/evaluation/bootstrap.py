"""Uncertainty of means over clips: one paired bootstrap for everything that is compared.

Each resample draws as many clips as there are, with replacement, and takes *all* columns (methods,
masks, metrics) of a drawn clip together: pairs stay pairs, and the means of all columns are one
product of a count matrix (resamples, clips) with a value matrix (clips, columns).

Intervals are percentile intervals, slightly widened (`interval`); on simulated scores of 20 to 400
clips they cover at least as well as BCa, which was left aside on purpose: it is not defined for a
column that is the same on every clip. Such a column gets an interval of no width. Where a score is only
ever yes or no (AI, FidIn, accuracy) that would be read as certainty, though with 0 of n clips a share may
still be as high as 3/n: those means have Wilson's interval (`share_interval`). Of fewer than `FEW` clips
no resample goes beyond the clips themselves (of two, half of such intervals missed the mean): those
intervals are Student's.

Clips count as independent draws. Clips cut from the same recording are alike, which intervals over
clips do not know: they are a little too narrow where a test fold holds several of one recording.

NaN marks a score that is not defined on a clip (the conciseness of an all-zero mask). A mean is over
the clips where its column is defined, in the sample and in each resample, whose number of such clips
varies as it would in another set of clips. A difference is over the clips where both are defined.

References
----------
.. [1] B. Efron, R. J. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
.. [2] T. C. Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician
   69(4), 2015: percentile intervals are too narrow for few clips; the expanded percentile.
.. [3] E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", Journal of
   the American Statistical Association 22(158), 1927.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from scipy import special

from ..constants import RANGES, YES_OR_NO

N_RESAMPLES = 10_000
CONFIDENCE = 0.95
CHUNK = 1000  # resamples at a time; bounds the memory and changes no number
FEW = 6  # clips from which a percentile interval is wide enough, and one sign of all of them says anything
EQUAL = 1e-12  # relative and absolute; means this close are a tie


def as_matrix(values, argument: str = "values") -> np.ndarray:
    """``values`` as a float64 (clips, columns) array; a vector is one column."""
    matrix = np.asarray(values, dtype=np.float64)
    matrix = matrix[:, None] if matrix.ndim == 1 else matrix
    if matrix.ndim != 2 or not matrix.size:
        raise ValueError(f"{argument} must be (clips, columns), not empty; got shape {matrix.shape}")
    if np.isinf(matrix).any():
        raise ValueError(f"{argument} must be finite or NaN; got an infinite value")
    return matrix


def resample_counts(n_clips: int, n_resamples: int = N_RESAMPLES, seed: int = 0) -> Iterator[np.ndarray]:
    """How often each clip is drawn: chunks (up to 1000 resamples, clips) whose rows sum to ``n_clips``."""
    if n_resamples < 1:
        raise ValueError(f"n_resamples must be at least 1; got {n_resamples}")
    generator = np.random.default_rng(seed)
    for start in range(0, n_resamples, CHUNK):
        rows = min(CHUNK, n_resamples - start)
        drawn = generator.integers(n_clips, size=(rows, n_clips))
        conditions = drawn + n_clips * np.arange(rows)[:, None]
        yield np.bincount(conditions.ravel(), minlength=rows * n_clips).reshape(rows, n_clips)


def column_means(values: np.ndarray) -> np.ndarray:
    """Mean of each column over its defined clips, exact for a constant column; NaN without any."""
    return _weighted_means(as_matrix(values), np.ones((1, len(values))))[0]


def _weighted_means(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(resamples, columns) means of ``values`` (clips, columns) under ``counts`` (resamples, clips)."""
    defined = ~np.isnan(values)
    first = values[defined.argmax(axis=0), np.arange(values.shape[1])]  # a constant column leaves exactly 0
    deviations = np.where(defined, values - first, 0.0)
    if defined.all():
        return first + counts @ deviations / counts.sum(axis=1, keepdims=True)
    weights = counts @ defined.astype(np.float64)
    sums = counts @ deviations
    return first + np.divide(sums, weights, out=np.full_like(sums, np.nan), where=weights > 0)


def resampled_means(values, n_resamples: int = N_RESAMPLES, seed: int = 0) -> np.ndarray:
    """Means of all columns in every resample.

    Parameters
    ----------
    values : (clips, columns) array
        NaN where a score is not defined.
    n_resamples, seed : int
        Two calls with the same seed and number of clips draw the same resamples.

    Returns
    -------
    (n_resamples, columns) array
        NaN where a resample holds no defined clip of a column.
    """
    values = as_matrix(values)
    chunks = resample_counts(len(values), n_resamples, seed)
    return np.concatenate([_weighted_means(values, counts.astype(np.float64)) for counts in chunks])


def interval(means: np.ndarray, n_clips, confidence: float = CONFIDENCE) -> tuple[np.ndarray, np.ndarray]:
    r"""Expanded percentile interval of each column of resampled means.

    The plain percentile interval is too narrow by the factor :math:`\sqrt{(n-1)/n}` and by normal
    instead of Student quantiles, which matters for 20 clips. The level is therefore moved to
    :math:`\alpha'/2 = \Phi(-\sqrt{n/(n-1)}\, t_{\alpha/2, n-1})` [2]_. Of fewer than `FEW` clips it is
    Student's, mean ± :math:`t_{\alpha/2, n-1} s / \sqrt{n}`, with both taken from the resampled means.

    Parameters
    ----------
    means : (resamples, columns) array, from `resampled_means`
    n_clips : int or (columns,) array
        Clips on which the column is defined. With fewer than two there is no interval (NaN).
    confidence : float in (0, 1)

    Returns
    -------
    low, high : (columns,) arrays
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1; got {confidence}")
    n_clips = np.broadcast_to(n_clips, means.shape[1])
    low, high = np.full((2, means.shape[1]), np.nan)
    for n in np.unique(n_clips[n_clips > 1]):
        columns = n_clips == n
        student = special.stdtrit(n - 1, (1 - confidence) / 2)
        if n < FEW:
            low[columns], high[columns] = _student(means[:, columns], n, student)
            continue
        tail = special.ndtr(np.sqrt(n / (n - 1)) * student)
        holes = np.isnan(means).any(axis=0)
        for chosen, quantile in ((columns & ~holes, np.quantile), (columns & holes, np.nanquantile)):
            if chosen.any():
                low[chosen], high[chosen] = quantile(means[:, chosen], [tail, 1 - tail], axis=0)
    return low, high


def _student(means: np.ndarray, n: int, quantile: float) -> tuple[np.ndarray, np.ndarray]:
    """Student's interval of columns of resampled means of ``n`` clips; ``quantile`` is the lower one."""
    half = (
        -quantile * np.sqrt(n / (n - 1)) * np.nanstd(means, axis=0)
    )  # resamples spread by s sqrt(n - 1) / n
    return np.nanmean(means, axis=0) - half, np.nanmean(means, axis=0) + half


def share_interval(shares, n_clips, confidence: float = CONFIDENCE) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's score interval of shares of clips, for scores that are only ever yes or no [3]_.

    The bootstrap has no interval where every clip says the same, which is what twenty clips often do
    when one in ten says yes: it covers such a share 88 times in a hundred instead of 95.

    Parameters
    ----------
    shares : array in [0, 1]
    n_clips : int or array
        With none there is no interval (NaN).

    Returns
    -------
    low, high : arrays of the shape of ``shares``
    """
    shares, n_clips = np.broadcast_arrays(
        np.asarray(shares, dtype=np.float64), np.asarray(n_clips, dtype=np.float64)
    )
    n = np.where(n_clips > 0, n_clips, np.nan)
    z = special.ndtri((1 + confidence) / 2)
    centre = (shares + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(shares * (1 - shares) / n + z**2 / (4 * n**2))
    return np.maximum(centre - half, 0.0), np.minimum(centre + half, 1.0)


def means_with_intervals(
    values: pd.DataFrame,
    metrics: Sequence[str],
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> pd.DataFrame:
    """`n`, `mean`, `low` and `high` of columns of scores: the bootstrap's, of yes or no Wilson's; no bound
    lies where the metric has no values.

    Parameters
    ----------
    values : DataFrame (clips, columns)
        NaN where a score is not defined.
    metrics : sequence of str
        That of each column, heard or not.
    """
    n_clips, mean = values.notna().sum().to_numpy(), column_means(values)
    low, high = interval(resampled_means(values, n_resamples, seed), n_clips, confidence)
    names = pd.Series(metrics).str.removesuffix("_heard")
    for metric, yes in {"accuracy": 100.0, **YES_OR_NO}.items():
        own = names.eq(metric).to_numpy() & (values.isin([0, yes]) | values.isna()).all().to_numpy()
        low[own], high[own] = (
            yes * bound for bound in share_interval(mean[own] / yes, n_clips[own], confidence)
        )
    least, most = np.array([RANGES.get(name, (-np.inf, np.inf)) for name in names]).T
    least, most = np.fmin(least, np.fmin.reduce(values)), np.fmax(most, np.fmax.reduce(values))
    return pd.DataFrame(
        {"n": n_clips, "mean": mean, "low": np.clip(low, least, most), "high": np.clip(high, least, most)}
    )


def paired_difference(
    first, second, n_resamples: int = N_RESAMPLES, seed: int = 0, confidence: float = CONFIDENCE
) -> pd.DataFrame:
    """Mean of ``first - second`` per column over the clips where both are defined, with its interval.

    Parameters
    ----------
    first, second : (clips, columns) arrays of the same clips in the same order

    Returns
    -------
    DataFrame
        One row per column: `n`, `difference`, `low`, `high`. No interval (NaN) where fewer than `FEW` clips
        all differ by the same: chance gives five differences one sign in one case of sixteen.
    """
    first, second = as_matrix(first, "first"), as_matrix(second, "second")
    if first.shape != second.shape:
        raise ValueError(f"first and second must have the same shape; got {first.shape} and {second.shape}")
    differences = first - second
    n_clips = (~np.isnan(differences)).sum(axis=0)
    difference = column_means(differences)
    low, high = interval(resampled_means(differences, n_resamples, seed), n_clips, confidence)
    same = np.nanmax(differences, axis=0, initial=-np.inf) == np.nanmin(differences, axis=0, initial=np.inf)
    unsure = (n_clips < FEW) & same & (difference != 0)
    low[unsure] = high[unsure] = np.nan
    return pd.DataFrame({"n": n_clips, "difference": difference, "low": low, "high": high})


def rank_shares(means: np.ndarray, lower_is_better: bool = False) -> np.ndarray:
    """Share of resamples in which each column has each rank; rank 1 (column 0) is the best.

    Ties share their ranks evenly, so that rows and columns sum to 1. A column that is NaN in a
    resample is ranked last there.

    Parameters
    ----------
    means : (resamples, k) array

    Returns
    -------
    (k, k) array
        Row: column of ``means``; column: rank - 1.
    """
    means = as_matrix(means, "means")
    badness = np.where(np.isnan(means), np.inf, means if lower_is_better else -means)
    k = badness.shape[1]
    shares = np.zeros((k, k))
    for column in range(k):
        own = badness[:, [column]]
        tied = np.isclose(badness, own, rtol=EQUAL, atol=EQUAL)
        first = ((badness < own) & ~tied).sum(axis=1)  # ranks first ... first + n_tied - 1 are shared
        n_tied = tied.sum(axis=1)
        begins = np.bincount(first, 1 / n_tied, minlength=k + 1)
        ends = np.bincount(first + n_tied, 1 / n_tied, minlength=k + 1)
        shares[column] = np.cumsum(begins - ends)[:k] / len(means)
    return shares


def pareto_front(points, maximise: bool | Sequence[bool] = True) -> np.ndarray:
    """Points that no other point beats: at least as good in every respect and better in one.

    Parameters
    ----------
    points : (n, k) array
        A point with NaN is never on the front.
    maximise : bool or (k,) sequence of bool
        Which coordinates are better when higher.

    Returns
    -------
    (n,) bool array
        Equal points on the front are all marked.
    """
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2:
        raise ValueError(f"points must be (n, k); got shape {points.shape}")
    signs = np.where(np.broadcast_to(maximise, points.shape[1]), 1.0, -1.0)
    gains = points * signs
    at_least = (gains[:, None] >= gains[None]).all(axis=2)  # [i, j]: i is nowhere worse than j
    better = (gains[:, None] > gains[None]).any(axis=2)
    return ~(at_least & better).any(axis=0) & ~np.isnan(points).any(axis=1)

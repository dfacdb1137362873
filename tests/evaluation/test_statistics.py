"""The paired bootstrap against slow loops, scipy and simulated data whose mean is known."""

from __future__ import annotations

import itertools
import math
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from audioxai_utils.evaluation import bootstrap


def values_with_holes(n_clips: int = 12, n_columns: int = 5, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(n_clips, n_columns))
    values[generator.random(values.shape) < 0.2] = np.nan
    values[:, -1] = np.nan
    values[3, -1] = 7.0  # defined on one clip alone
    return values


def slow_means(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Means of the drawn clips, drawn one by one."""
    rows = []
    for drawn in counts:
        clips = [clip for clip, times in enumerate(drawn) for _ in range(times)]
        row = []
        for column in range(values.shape[1]):
            defined = [float(values[clip, column]) for clip in clips if not math.isnan(values[clip, column])]
            row.append(math.fsum(defined) / len(defined) if defined else math.nan)
        rows.append(row)
    return np.array(rows)


# Resamples


def test_resamples_draw_as_many_clips_as_there_are_and_each_as_often():
    counts = np.concatenate(list(bootstrap.resample_counts(9, 4000, seed=1)))
    assert counts.shape == (4000, 9) and (counts.sum(axis=1) == 9).all()
    # Poisson-like: each count has mean 1 and variance 1 - 1/9, two counts have covariance -1/9.
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.07)
    covariance = np.cov(counts.T)
    np.testing.assert_allclose(covariance, np.eye(9) - 1 / 9, atol=0.09)


def test_resamples_do_not_hang_on_chunks_and_follow_the_seed():
    few = np.concatenate(list(bootstrap.resample_counts(7, 30, seed=5)))
    many = np.concatenate(list(bootstrap.resample_counts(7, 2300, seed=5)))
    np.testing.assert_array_equal(few, many[:30])
    other = np.concatenate(list(bootstrap.resample_counts(7, 30, seed=6)))
    assert (few != other).any()


@pytest.mark.parametrize("holes", [False, True])
def test_resampled_means_against_drawing_clips_one_by_one(holes):
    values = values_with_holes() if holes else np.random.default_rng(2).normal(size=(12, 5))
    means = bootstrap.resampled_means(values, 1100, seed=4)
    counts = np.concatenate(list(bootstrap.resample_counts(12, 1100, seed=4)))
    np.testing.assert_allclose(means, slow_means(values, counts), rtol=1e-12, atol=1e-14)
    assert np.isnan(means[:, -1]).any() == holes


def test_columns_are_drawn_together():
    values = np.random.default_rng(3).normal(size=(30, 2))
    both = np.column_stack([values, values[:, 0] + values[:, 1]])
    means = bootstrap.resampled_means(both, 500)
    np.testing.assert_allclose(means[:, 2], means[:, 0] + means[:, 1], atol=1e-14)


def test_a_constant_is_exact():
    holed = np.where(np.arange(37) % 3, 0.7, np.nan)
    values = np.column_stack([np.full(37, 0.1), np.full(37, 1e9 / 3), holed])
    means = bootstrap.resampled_means(values, 2000)
    expected = [0.1, 1e9 / 3, 0.7]
    for column in range(3):
        assert (means[:, column] == expected[column]).all()
    low, high = bootstrap.interval(means, (~np.isnan(values)).sum(axis=0))
    assert list(low) == expected and list(high) == expected
    assert list(bootstrap.column_means(values)) == expected


# Intervals


@pytest.mark.parametrize("n_clips", [10, 60])
def test_interval_against_scipy_at_the_expanded_level(n_clips):
    values = np.random.default_rng(n_clips).gamma(2.0, size=n_clips)
    low, high = bootstrap.interval(bootstrap.resampled_means(values, 10_000), n_clips, 0.95)
    tail = stats.norm.sf(math.sqrt(n_clips / (n_clips - 1)) * stats.t.isf(0.025, n_clips - 1))
    assert tail < 0.025
    options = dict(n_resamples=10_000, method="percentile", rng=1, batch=1000)
    oracle = stats.bootstrap((values,), np.mean, confidence_level=1 - 2 * tail, **options).confidence_interval
    width = oracle.high - oracle.low
    assert abs(low[0] - oracle.low) < 0.05 * width and abs(high[0] - oracle.high) < 0.05 * width


DRAWS = {
    "normal": (lambda generator, size: generator.normal(size=size), 0.0),
    "u-shaped share": (lambda generator, size: generator.beta(0.3, 0.6, size), 1 / 3),
    "yes or no": (lambda generator, size: (generator.random(size) < 0.3).astype(float), 0.3),
    "skewed": (lambda generator, size: generator.exponential(size=size), 1.0),
}


@pytest.mark.parametrize("n_clips", [20, 80])
@pytest.mark.parametrize("name", DRAWS)
def test_coverage_of_a_nominal_95_per_cent(name, n_clips):
    draw, truth = DRAWS[name]
    values = draw(np.random.default_rng(11), (n_clips, 1500))
    low, high = bootstrap.interval(bootstrap.resampled_means(values, 1000, seed=1), n_clips)
    coverage = ((low <= truth) & (truth <= high)).mean()
    assert 0.90 <= coverage <= 0.99, coverage


@pytest.mark.parametrize("n_yes, n_clips", [(0, 20), (3, 20), (20, 20), (1, 2), (57, 80)])
def test_interval_of_a_share_against_scipy(n_yes, n_clips):
    oracle = stats.binomtest(n_yes, n_clips).proportion_ci(0.95, method="wilson")
    assert bootstrap.share_interval(n_yes / n_clips, n_clips) == pytest.approx(
        (oracle.low, oracle.high), abs=1e-12
    )


@pytest.mark.parametrize("truth", [0.05, 0.1, 0.3, 0.5])
def test_coverage_of_a_share_of_twenty_clips(truth):
    shares = np.random.default_rng(14).binomial(20, truth, 20_000) / 20
    low, high = bootstrap.share_interval(shares, 20)
    assert 0.90 <= ((low <= truth) & (truth <= high)).mean() <= 0.99


def test_no_interval_of_a_share_of_no_clips():
    assert np.isnan(bootstrap.share_interval(np.array([np.nan]), [0])).all()


def test_coverage_with_undefined_clips():
    generator = np.random.default_rng(12)
    values = generator.normal(loc=2.0, size=(40, 1000))
    values[generator.random(values.shape) < 0.3] = np.nan
    n_clips = (~np.isnan(values)).sum(axis=0)
    low, high = bootstrap.interval(bootstrap.resampled_means(values, 1000), n_clips)
    assert 0.92 <= ((low <= 2) & (high >= 2)).mean() <= 0.98


def test_coverage_of_paired_differences_and_what_pairing_gains():
    generator = np.random.default_rng(13)
    clip = generator.normal(scale=5.0, size=(40, 800))  # what both methods share
    first = clip + 0.3 + generator.normal(scale=0.5, size=clip.shape)
    second = clip + generator.normal(scale=0.5, size=clip.shape)
    paired = bootstrap.paired_difference(first, second, n_resamples=1000)
    assert 0.92 <= paired["low"].le(0.3).mul(paired["high"].ge(0.3)).mean() <= 0.98
    np.testing.assert_allclose(paired["difference"], (first - second).mean(axis=0), rtol=1e-9)
    shuffled = bootstrap.paired_difference(first, generator.permutation(second, axis=0), n_resamples=1000)
    widths = [(frame["high"] - frame["low"]).mean() for frame in (paired, shuffled)]
    assert widths[0] < widths[1] / 5


def test_differences_are_over_the_clips_where_both_are_defined():
    first = np.array([1.0, 2.0, np.nan, 4.0, 5.0])
    second = np.array([0.0, np.nan, 0.0, 2.0, 2.0])
    result = bootstrap.paired_difference(first, second, n_resamples=500).iloc[0]
    assert result["n"] == 3 and result["difference"] == 2.0
    half = 4.3027 / math.sqrt(3)  # Student's of 1, 2, 3; a resample of the four clips holds now two, now four
    assert [result["low"], result["high"]] == pytest.approx([2 - half, 2 + half], abs=0.3)


@pytest.mark.parametrize("n", [2, 3, 5, 6, 20])
def test_few_clips_of_noise_decide_nothing_in_95_of_100_cases(n):
    noise = np.random.default_rng(n).standard_normal((n, 4000))
    found = bootstrap.paired_difference(noise, np.zeros_like(noise), n_resamples=1000)
    decided = ((found["low"] > 0) | (found["high"] < 0)).mean()
    assert 0.02 < decided < (0.06 if n != 6 else 0.08)


def test_no_bound_of_few_lies_where_there_are_no_values():
    values = pd.DataFrame({"area": [0.0, 0.1, 0.9], "seconds": [0.1, 0.2, 9.0], "COMP_rel": [0.2, 0.9, 1.0]})
    found = bootstrap.means_with_intervals(values, list(values)).set_axis(list(values))
    assert found["low"].ge(0).all() and found.loc[["area", "COMP_rel"], "high"].le(1).all()
    assert found.loc["seconds", "high"] > 9


def test_few_equal_differences_have_no_interval_and_many_have_one_of_no_width():
    few = bootstrap.paired_difference(np.ones((5, 2)), np.array([[0, 1]] * 5), n_resamples=100)
    assert few["difference"].tolist() == [1, 0] and few["low"].isna().tolist() == [True, False]
    assert few.loc[1, ["low", "high"]].tolist() == [0, 0]
    many = bootstrap.paired_difference(np.ones(6), np.zeros(6), n_resamples=100)
    assert many[["low", "high"]].to_numpy().tolist() == [[1, 1]]


def test_no_interval_from_fewer_than_two_clips():
    means = bootstrap.resampled_means(values_with_holes(), 200)
    low, high = bootstrap.interval(means, [9, 9, 9, 9, 1])
    assert np.isfinite(low[:4]).all() and np.isnan(low[4]) and np.isnan(high[4])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: bootstrap.resampled_means(np.zeros((0, 3))), "not empty"),
        (lambda: bootstrap.resampled_means(np.zeros((2, 3, 4))), "must be \\(clips, columns\\)"),
        (lambda: bootstrap.resampled_means([1.0, np.inf]), "finite or NaN"),
        (lambda: bootstrap.resampled_means([1.0, 2.0], n_resamples=0), "at least 1; got 0"),
        (lambda: bootstrap.interval(np.zeros((5, 1)), 4, confidence=95), "between 0 and 1; got 95"),
        (lambda: bootstrap.paired_difference([1.0, 2.0], [1.0]), "same shape"),
        (lambda: bootstrap.pareto_front([1.0, 2.0]), "must be \\(n, k\\)"),
    ],
)
def test_wrong_arguments_end_in_one_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Ranks and fronts


def slow_rank_shares(means: np.ndarray, lower_is_better: bool) -> np.ndarray:
    """Average over all orders of each resample that agree with its values."""
    k = means.shape[1]
    shares = np.zeros((k, k))
    for row in means:
        badness = [math.inf if math.isnan(v) else (v if lower_is_better else -v) for v in row]
        pairs = {order: itertools.pairwise(order) for order in permutations(range(k))}
        orders = [order for order in pairs if all(badness[a] <= badness[b] for a, b in pairs[order])]
        for order in orders:
            for rank, column in enumerate(order):
                shares[column, rank] += 1 / len(orders) / len(means)
    return shares


@pytest.mark.parametrize("lower_is_better", [False, True])
def test_rank_shares_against_all_orders(lower_is_better):
    means = np.random.default_rng(0).integers(0, 4, size=(80, 4)).astype(float)  # many ties
    means[::7, 2] = np.nan
    means[::14, 1] = np.nan
    shares = bootstrap.rank_shares(means, lower_is_better)
    np.testing.assert_allclose(shares, slow_rank_shares(means, lower_is_better), atol=1e-12)
    np.testing.assert_allclose(shares.sum(axis=0), 1)
    np.testing.assert_allclose(shares.sum(axis=1), 1)


def test_ranks_of_means_that_differ_by_rounding_are_tied():
    means = np.array([[0.1 + 0.2, 0.3], [0.3, 0.1 + 0.2]])
    np.testing.assert_allclose(bootstrap.rank_shares(means), 0.5)


def test_pareto_front_against_loops():
    generator = np.random.default_rng(1)
    points = generator.integers(0, 6, size=(60, 3)).astype(float)  # with equal points
    points[5, 1] = np.nan
    maximise = (True, False, True)
    expected = []
    for i, p in enumerate(points):
        beaten = False
        for q in points:
            gains = [(b - a) if up else (a - b) for a, b, up in zip(p, q, maximise)]
            beaten |= all(gain >= 0 for gain in gains) and any(gain > 0 for gain in gains)
        expected.append(not beaten and i != 5)
    np.testing.assert_array_equal(bootstrap.pareto_front(points, maximise), expected)
    assert 0 < sum(expected) < 60


def test_pareto_front_of_one_coordinate_is_the_best_and_its_equals():
    np.testing.assert_array_equal(bootstrap.pareto_front([[1], [3], [3], [2]]), [False, True, True, False])
    lowest = bootstrap.pareto_front([[1], [3], [3]], maximise=False)
    np.testing.assert_array_equal(lowest, [True, False, False])

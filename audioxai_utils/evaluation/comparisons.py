"""What may be called better: intervals, winners, ranks and controls over tidy scores of clips.

Every function takes scores with one row per (protocol, condition,) clip, method and mask, works through
their protocols and conditions one by one, and gives a tidy frame. The bootstrap, its treatment of NaN and
its limits are described in ``bootstrap``. Columns that end in ``_heard`` are metrics too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from ..constants import LOWER_IS_BETTER, STUDY_METRICS
from ..words import condition_label
from .bootstrap import (
    CONFIDENCE,
    N_RESAMPLES,
    column_means,
    means_with_intervals,
    paired_difference,
    rank_shares,
    resampled_means,
)
from .frames import (
    CONDITION,
    check_columns,
    check_keys,
    clip_matrix,
    in_study_order,
    methods_only,
    of_protocol,
)

MATCHED_CONTROLS = ("random", "energy")  # those that keep the area of the mask they stand beside


def lower_is_better(metric: str) -> bool:
    """AD and COMP, heard or not."""
    return metric.removesuffix("_heard") in LOWER_IS_BETTER


def _keys(scores: pd.DataFrame) -> list[str]:
    return [*(["protocol"] if "protocol" in scores else []), *CONDITION]


def _conditions(
    scores: pd.DataFrame, metrics: Sequence[str], best: pd.DataFrame | None
) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    """(names of protocol and condition, clip matrix) of the methods, at the masks of ``best`` if given."""
    check_columns(scores, [*CONDITION, "clip", "method", "mask", *metrics], "scores")
    rows, keys = methods_only(scores), _keys(scores)
    check_keys(rows, [*keys, "clip", "method", "mask"], "scores")
    if best is not None:
        check_columns(best, [*keys, "method", "mask"], "best")
        chosen = best[[*keys, "method", "mask"]].drop_duplicates()
        if chosen.dropna().duplicated([*keys, "method"]).any():
            raise ValueError("best must name one mask a condition and method; is it of two protocols?")
        rows = rows.merge(chosen, on=[*keys, "method", "mask"])
    if rows.empty:
        raise ValueError("scores hold no row of a method at the masks of best; are both of one run?")
    for names, part in rows.groupby(keys, sort=False):
        yield dict(zip(keys, names)), clip_matrix(part, metrics)


def mean_intervals(
    scores: pd.DataFrame,
    metrics: Sequence[str] = STUDY_METRICS,
    best: pd.DataFrame | None = None,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> pd.DataFrame:
    """Mean and interval of every metric, method and mask, in every protocol and condition of ``scores``.

    Parameters
    ----------
    scores : DataFrame
        Tidy scores.
    best : DataFrame, optional
        From ``tables.best_masks``: only those masks.

    Returns
    -------
    DataFrame
        (protocol,) condition, method, mask, metric, `n` (clips on which the metric is defined), `mean`,
        `low`, `high`: the bootstrap's, for scores that are yes or no (AI, FidIn) Wilson's. The interval
        is that of a mask fixed beforehand: where the mask was chosen on the same clips, the uncertainty
        of that choice is not in it.
    """
    parts = []
    for names, matrix in _conditions(scores, metrics, best):
        part = matrix.columns.to_frame(index=False)
        found = means_with_intervals(matrix, part["metric"], n_resamples, seed, confidence)
        parts.append(part.join(found).assign(**names))
    columns = [*_keys(scores), "method", "mask", "metric", "n", "mean", "low", "high"]
    return in_study_order(pd.concat(parts)[columns])


def with_intervals(intervals: pd.DataFrame) -> pd.DataFrame:
    """One row per condition, method and mask with columns ``<metric>``, ``<metric>_low``, ``<metric>_high``.

    Takes the result of `mean_intervals`; figures draw the bounds as bars.
    """
    keys = [*_keys(intervals), "method", "mask"]
    wide = intervals.pivot(index=keys, columns="metric", values=["mean", "low", "high"])
    wide.columns = [metric if kind == "mean" else f"{metric}_{kind}" for kind, metric in wide.columns]
    return in_study_order(wide.reset_index())


def best_versus_second(
    scores: pd.DataFrame,
    metrics: Sequence[str] = STUDY_METRICS,
    best: pd.DataFrame | None = None,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> pd.DataFrame:
    """Is the winner of a table better than the runner-up, and how often would another one win?

    Takes the arguments of `mean_intervals`; without ``best`` all methods and masks compete.

    Returns
    -------
    DataFrame
        Per (protocol,) condition and metric: `best`, `second` (``method + mask``), `best_mean`,
        `second_mean`, `n`, `difference` (positive where the winner is better, over the clips where
        both are defined) with `low` and `high`, `clear` (the interval lies above 0), and
        `p_winner_changes`, the share of resamples that another candidate wins (ties share the win).
        Winner and runner-up were picked on the same clips, which favours the winner: an interval that
        barely clears 0 is weak evidence.
    """
    rows = []
    for names, matrix in _conditions(scores, metrics, best):
        means = pd.DataFrame(resampled_means(matrix, n_resamples, seed), columns=matrix.columns)
        for metric in metrics:
            first, second, duel = _duel(matrix[metric], metric)
            gap = paired_difference(first, second, n_resamples, seed, confidence).iloc[0].to_dict()
            shares = rank_shares(means[metric], lower_is_better(metric))
            changes = 1 - shares[duel.pop("winner"), 0]
            clear = gap["low"] > 0
            verdict = {"clear": clear, "p_winner_changes": changes}
            rows.append({**names, "metric": metric, **duel, **gap, **verdict})
    return in_study_order(pd.DataFrame(rows).astype({"n": int}))


def _duel(values: pd.DataFrame, metric: str) -> tuple[np.ndarray, np.ndarray, dict]:
    """Scores of winner and runner-up (higher is better in both), and their names and means."""
    if values.shape[1] < 2:
        raise ValueError("best versus second needs at least two methods or masks; scores hold one")
    sign = -1 if lower_is_better(metric) else 1
    means = column_means(values)
    winner, second = np.argsort(np.where(np.isnan(means), np.inf, -sign * means), kind="stable")[:2]
    names = [" + ".join(name) for name in values.columns]
    duel = {"winner": winner, "best": names[winner], "second": names[second]}
    duel |= {"best_mean": means[winner], "second_mean": means[second]}
    return sign * values.to_numpy()[:, winner], sign * values.to_numpy()[:, second], duel


def rank_stability(
    scores: pd.DataFrame,
    metrics: Sequence[str] = STUDY_METRICS,
    best: pd.DataFrame | None = None,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Share of resamples in which each method (at its mask) has each rank, per condition and metric.

    Takes the arguments of `mean_intervals`.

    Returns
    -------
    DataFrame
        (protocol,) condition, metric, method, mask, `rank` (1 is best), `share`; see
        ``bootstrap.rank_shares``.
    """
    parts = []
    for names, matrix in _conditions(scores, metrics, best):
        means = pd.DataFrame(resampled_means(matrix, n_resamples, seed), columns=matrix.columns)
        for metric in metrics:
            shares = rank_shares(means[metric], lower_is_better(metric))
            ranks = pd.DataFrame(shares, index=matrix[metric].columns, columns=range(1, len(shares) + 1))
            tidy = ranks.rename_axis(columns="rank").stack().rename("share").reset_index()
            parts.append(tidy.assign(metric=metric, **names))
    return in_study_order(pd.concat(parts)[[*_keys(scores), "metric", "method", "mask", "rank", "share"]])


def beats_control(
    scores: pd.DataFrame,
    controls: pd.DataFrame | None = None,
    metrics: Sequence[str] = STUDY_METRICS,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> pd.DataFrame:
    """Compare every method and mask of ``scores`` with its controls, clip by clip.

    Parameters
    ----------
    controls : DataFrame with the same columns and `control`, optional
        `method` and `mask` name the mask whose area it keeps (random,
        energy), and are "" or NaN for all_ones and oracle. By default those rows of ``scores``.

    Returns
    -------
    DataFrame
        (protocol,) condition, control, method, mask, metric, `n` pairs, `difference` (above 0: the method is
        better), `low`, `high`, `verdict` (better, worse, or undecided: 0 is in the interval).
    """
    controls, parts = scores if controls is None else controls, []
    check_columns(controls, [*_keys(scores), "control", "clip", "method", "mask", *metrics], "controls")
    controls = controls[controls["control"].fillna("") != ""]
    for names, matrix in _conditions(scores, metrics, None):
        here = (controls[list(names)] == pd.Series(names)).all(axis=1)
        for control, rows in controls[here].groupby("control", sort=False):
            pairs = _control_matrix(rows, matrix, metrics)
            signs = [-1 if lower_is_better(metric) else 1 for metric, *_ in pairs.columns]
            ours = signs * matrix[pairs.columns]
            part = paired_difference(ours, signs * pairs, n_resamples, seed, confidence)
            parts.append(pairs.columns.to_frame(index=False).join(part).assign(control=control, **names))
    if not parts:
        raise ValueError("controls hold no control of a condition of scores; are both of one run?")
    result = pd.concat(parts)
    result["verdict"] = np.select([result["low"] > 0, result["high"] < 0], ["better", "worse"], "undecided")
    keys = [*_keys(scores), "control", "method", "mask", "metric"]
    return in_study_order(result[[*keys, "n", "difference", "low", "high", "verdict"]])


def _control_matrix(rows: pd.DataFrame, matrix: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """Scores of one control in the shape of ``matrix``, as far as the control has them."""
    if not rows["clip"].isin(matrix.index).any():
        raise ValueError("controls name no clip of scores; are both of one run, and clips of one type?")
    common = rows["method"].isna() | (rows["method"] == "")
    if not common.any():
        pairs = clip_matrix(rows, metrics)
        columns = matrix.columns.intersection(pairs.columns, sort=False)
        if columns.empty:
            raise ValueError("controls name no method and mask of scores; are both of one run?")
        return pairs.reindex(index=matrix.index, columns=columns)
    if not common.all():
        raise ValueError("a control must name a method and mask in all of its rows or in none")
    if rows["clip"].duplicated().any():
        raise ValueError("a control without method and mask must have one row per clip; some occur twice")
    values = rows.set_index("clip")[list(metrics)].reindex(matrix.index)
    pairs = values[matrix.columns.get_level_values("metric")]
    return pairs.set_axis(matrix.columns, axis="columns")


def control_marks(
    comparison: pd.DataFrame,
    metrics: Sequence[str] = ("FF", "AD"),
    controls: Sequence[str] = MATCHED_CONTROLS,
) -> pd.DataFrame:
    """Name the controls that a method and mask does not beat, for the tables.

    Parameters
    ----------
    comparison : DataFrame
        From `beats_control`.
    metrics : sequence of str
        A control is beaten where the verdict is "better" in each of these. By default what happens
        when the mask is removed (FF) and when it alone is kept (AD): AG is the other side of AD, AI and
        FidIn are the same events counted with a threshold.
    controls : sequence of str
        By default those of equal area.

    Returns
    -------
    DataFrame
        (protocol,) condition, method, mask and `not_better_than`: "", or ``random (AD), energy (FF, AD)``.

    Raises
    ------
    ValueError
        A mask that was not compared with one of the controls in one of the metrics.
    """
    keys = [*_keys(comparison), "method", "mask"]
    check_columns(comparison, [*keys, "control", "metric", "verdict"], "comparison")
    check_keys(comparison, keys, "comparison")
    rows = comparison[comparison["metric"].isin(metrics) & comparison["control"].isin(controls)]
    check_columns(rows, keys, "comparison of these metrics and controls")
    marks = []
    for names, part in rows.groupby(keys, sort=False):
        compared = set(zip(part["control"], part["metric"]))
        for pair in itertools.product(controls, metrics):
            if pair not in compared:
                raise ValueError(f"comparison has no {pair[1]} against {pair[0]} of {' + '.join(names[-2:])}")
        lost = part[part["verdict"] != "better"].groupby("control", sort=False)["metric"]
        failed = {control: [m for m in metrics if m in set(values)] for control, values in lost}
        texts = [f"{control} ({', '.join(failed[control])})" for control in controls if control in failed]
        marks.append({**dict(zip(keys, names)), "not_better_than": ", ".join(texts)})
    return in_study_order(pd.DataFrame(marks))


def count_beaten(marks: pd.DataFrame) -> pd.DataFrame:
    """How many masks of a method beat both controls.

    Parameters
    ----------
    marks : DataFrame
        From `control_marks`, of one protocol.

    Returns
    -------
    DataFrame
        method, and a column a condition in words: the number of masks that no control equals.
    """
    marks = of_protocol(marks, None, "marks")
    words = [condition_label(*pair) for pair in marks[CONDITION].itertuples(index=False)]
    beaten = marks.assign(condition=words, beaten=marks["not_better_than"].eq("").astype(int))
    counts = beaten.pivot_table(
        index="method", columns="condition", values="beaten", aggfunc="sum", sort=False
    )
    return counts.rename_axis(columns=None).reset_index()


def beats_rival(
    scores: pd.DataFrame,
    rival: tuple[str, str] = ("lime", "bin"),
    metrics: Sequence[str] = STUDY_METRICS,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> pd.DataFrame:
    """Paired difference of every method and mask to one other, on the same clips.

    Parameters
    ----------
    scores : DataFrame
        Tidy scores that hold the rival's rows.
    rival : (method, mask)

    Returns
    -------
    DataFrame
        (protocol,) condition, method, mask, metric, `n`, `difference` (above 0: better than the rival),
        `low`, `high`, `verdict` as in `beats_control`.
    """
    parts = []
    for names, matrix in _conditions(scores, metrics, None):
        if any((metric, *rival) not in matrix for metric in metrics):
            raise ValueError(
                f"scores must hold the rival {' + '.join(rival)} in every condition; {names} has none"
            )
        signs = [-1 if lower_is_better(metric) else 1 for metric, *_ in matrix.columns]
        theirs = np.stack([matrix[(metric, *rival)] for metric, *_ in matrix.columns], axis=1)
        part = paired_difference(signs * matrix, signs * theirs, n_resamples, seed, confidence)
        parts.append(matrix.columns.to_frame(index=False).join(part).assign(**names))
    result = pd.concat(parts)
    result = result[(result["method"] != rival[0]) | (result["mask"] != rival[1])]
    result["verdict"] = np.select([result["low"] > 0, result["high"] < 0], ["better", "worse"], "undecided")
    return in_study_order(
        result[[*_keys(scores), "method", "mask", "metric", "n", "difference", "low", "high", "verdict"]]
    )


def tally(against: pd.DataFrame) -> pd.DataFrame:
    """On how many metrics each method and mask is better than the rival, undecided, or worse.

    Parameters
    ----------
    against : DataFrame
        From `beats_rival`.

    Returns
    -------
    DataFrame
        (protocol,) condition, method, mask, `better`, `undecided`, `worse`, and the same with ``_heard`` for
        the heard metrics where there are any; in each condition the ones that are never worse first, then
        by `better`.
    """
    keys = [*_keys(against), "method", "mask"]
    kind = against["verdict"] + np.where(against["metric"].str.endswith("_heard"), "_heard", "")
    counts = pd.crosstab([against[key] for key in keys], kind)
    columns = [
        f"{verdict}{suffix}" for suffix in ("", "_heard") for verdict in ("better", "undecided", "worse")
    ]
    if not against["metric"].str.endswith("_heard").any():
        columns = columns[:3]
    table = in_study_order(
        counts.reindex(columns=columns, fill_value=0).reset_index().rename_axis(columns=None)
    )
    table["sum_better"] = table.filter(like="better").sum(axis=1)
    table["sum_worse"] = table.filter(like="worse").sum(axis=1)
    conditions = [
        table.groupby(_keys(against), sort=False).ngroup(),
        table["sum_worse"],
        -table["sum_better"],
    ]
    order = np.lexsort([key.to_numpy() for key in reversed(conditions)])
    return table.iloc[order].drop(columns=["sum_better", "sum_worse"]).reset_index(drop=True)

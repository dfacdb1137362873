"""Means of scores, the rule that picks a method's best mask, and Tables II-VI.

Frames may carry a `protocol` column (paper, audited); the protocols are then never mixed. They may
carry a `control` column; rows that name a control there are baselines, not methods, and take no part
in the choice of masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from .. import published
from ..constants import (
    DURATION,
    FAITHFULNESS_METRICS,
    LOWER_IS_BETTER,
    SPECTROGRAMS,
    STUDY_METRICS,
    TABLE_NUMBERS,
)
from .frames import (
    CONDITION,
    check_columns,
    check_keys,
    in_study_order,
    methods_only,
    of_condition,
    of_protocol,
)

REQUIRED = (*CONDITION, "method", "mask")
TINY = 1e-9  # a scaled metric is never smaller, so that one zero does not wipe out a geometric mean
TIE = 1e-12  # relative; scores this close are the same up to the last digits of the arithmetic


def selection_scores(values: np.ndarray) -> np.ndarray:
    """Score every row of means by the study's rule.

    Each metric is scaled to [0, 1] by its minimum and maximum over all rows, AD and COMP are turned
    round, the result is clipped to at least 1e-9, and the seven are joined by their geometric mean.

    Parameters
    ----------
    values : (..., rows, 7) array
        Means in the order of ``constants.STUDY_METRICS``. NaN takes no part in minima and maxima.

    Returns
    -------
    (..., rows) array
        Between 1e-9 and 1; NaN where any of a row's metrics is NaN. A metric that is the same in
        every row says nothing about masks and counts as 1.
    """
    low = np.fmin.reduce(values, axis=-2, keepdims=True)  # fmin and fmax pass over NaN
    span = np.fmax.reduce(values, axis=-2, keepdims=True) - low
    scaled = (values - low) / np.where(span > 0, span, 1)
    inverted = np.isin(STUDY_METRICS, LOWER_IS_BETTER) | (span == 0)  # a metric without a span: 1 - 0
    scaled = np.where(inverted, 1 - scaled, scaled)
    return np.exp(np.log(np.maximum(scaled, TINY)).mean(axis=-1))


def _candidates(results: pd.DataFrame, methods: Sequence[str] | None) -> pd.DataFrame:
    """The rows of ``results`` that compete, checked."""
    check_columns(results, [*CONDITION, "method", "mask", *STUDY_METRICS], "results")
    rows = results
    if "subset" in rows:
        rows = rows[rows["subset"] == "all"]
    rows = methods_only(rows)
    if methods is not None:
        rows = rows[rows["method"].isin(list(methods))]
    if rows.empty:
        raise ValueError('results has no row to choose from; give rows of methods with subset "all"')
    keys = [*(["protocol"] if "protocol" in rows else []), *CONDITION, "method", "mask"]
    check_keys(rows, keys, "results")
    if rows.duplicated(keys).any():
        repeated = rows.loc[rows.duplicated(keys), keys].iloc[0]
        raise ValueError(f"results must have one row per {', '.join(keys)}; got two of {', '.join(repeated)}")
    for metric in STUDY_METRICS:
        if not pd.api.types.is_numeric_dtype(rows[metric]):
            raise ValueError(f"results column {metric} must hold numbers; got {rows[metric].dtype}")
        if np.isinf(rows[metric].to_numpy(dtype=float)).any():
            raise ValueError(f"results column {metric} must be finite or NaN; got an infinite value")
    return rows


def _winner(rows: pd.DataFrame) -> pd.Series:
    """The best row of one method in one condition, its rows being in the order of the masks."""
    if rows["score"].isna().all():
        return rows.iloc[0].copy().mask(rows.columns.isin(["mask", *STUDY_METRICS]), np.nan)
    tied = rows[rows["score"] >= rows["score"].max() * (1 - TIE)]
    winner = tied.iloc[0].copy()
    winner["tied_with"] = ", ".join(tied["mask"].iloc[1:])
    return winner


def best_masks(results: pd.DataFrame, methods: Sequence[str] | None = None) -> pd.DataFrame:
    """Choose the best mask of every method in every condition by the study's rule.

    Over all results given (of both spectrogram types and all scenarios), each metric is scaled to
    [0, 1] by its global minimum and maximum, AD and COMP are inverted, values are clipped to at
    least 1e-9, and the mask with the highest geometric mean wins its condition and method. On the
    published results this gives the 20 rows of Tables II-VI.

    Parameters
    ----------
    results : DataFrame
        Means, one row per condition, method and mask: `spectrogram_type`, `noise_scenario`, `method`,
        `mask` and the seven metrics. With a `subset` column only its "all" rows count, with a
        `control` column only the rows without a control; each `protocol` is scaled by itself.
    methods : sequence of str, optional
        Methods that take part, in the scaling too. By default all of them.

    Returns
    -------
    DataFrame
        One row per (protocol,) condition and method in the order of Tables II-VI: the means of the winner,
        its `score`, and `tied_with`: the masks with the same score (relative 1e-12), which lost only
        because they come later in ``constants.MASK_NAMES``. A mask with a NaN metric cannot win (its
        conciseness is not defined on any clip) and takes no part in that metric's scaling; where no
        mask of a method can win, its `mask`, metrics and `score` are NaN.

    Raises
    ------
    TypeError, ValueError
        Not a frame; a column is missing, not numeric or infinite; a row occurs twice; nothing is left.
    """
    rows = _candidates(results, methods)
    by = ["protocol"] if "protocol" in rows else []
    parts = [part for _, part in rows.groupby(by)] if by else [rows]
    scored = [
        part.assign(score=selection_scores(part[[*STUDY_METRICS]].to_numpy(dtype=float))) for part in parts
    ]
    scored = in_study_order(pd.concat(scored).assign(tied_with=""))
    keys = [*by, *CONDITION, "method"]
    winners = pd.DataFrame([_winner(group) for _, group in scored.groupby(keys, sort=False)])
    return (
        winners[[*keys, "mask", *STUDY_METRICS, "score", "tied_with"]].infer_objects().reset_index(drop=True)
    )


def n_bins_of(scores: pd.DataFrame, d: int | Mapping[str, int] | None = None) -> np.ndarray:
    """Bins of each row's spectrogram, d = frequencies x frames.

    Taken from ``d`` (a number, or one per spectrogram type), else from the columns `n_bins` and
    `n_frames`, else from the study's five-second spectrograms of ``constants.SPECTROGRAMS``.
    """
    if d is None and {"n_bins", "n_frames"} <= set(scores.columns):
        return scores["n_bins"].to_numpy(dtype=float) * scores["n_frames"].to_numpy(dtype=float)
    if d is None:
        d = {name: p.n_bins * p.n_frames(round(DURATION * p.sample_rate)) for name, p in SPECTROGRAMS.items()}
    if isinstance(d, Mapping):
        unknown = sorted(set(scores["spectrogram_type"]) - set(d))
        if unknown:
            raise ValueError(f"d must give the bins of every spectrogram type; it lacks {unknown[0]!r}")
        return scores["spectrogram_type"].map(d).to_numpy(dtype=float)
    return np.full(len(scores), float(d))


def summarise(
    scores: pd.DataFrame, d: int | Mapping[str, int] | None = None, extra: Sequence[str] = ()
) -> pd.DataFrame:
    """Average the scores of clips: one row per (protocol,) condition, (control,) subset, method and mask.

    Parameters
    ----------
    scores : DataFrame
        One row per clip, method and mask: the key columns, `clip`, `correct`, the seven metrics,
        `area` (kept share of bins) and `degenerate` (constant mask). Columns that end in ``_heard``
        are averaged too.
    d : int or mapping from spectrogram type to int, optional
        Number of bins, see `n_bins_of`.
    extra : sequence of str
        More columns to average (dB, seconds ...).

    Returns
    -------
    DataFrame
        Subsets all, correct and incorrect (rightly and wrongly classified clips; with no such clip
        `n` is 0 and the means are NaN), `n` clips, `n_defined` clips whose conciseness is defined,
        the means, `degenerate` as a share, and `COMP_rel` = COMP / ln d, which compares spectrograms
        of different sizes. SPS and COMP are NaN for an all-zero mask under the audited protocol:
        their means are over the other clips. The five faithfulness metrics are over all clips, heard or
        not, and NaN where one of these has none.
    """
    keys = ["protocol", *CONDITION, "control", "method", "mask"]
    keys = [name for name in keys if name in scores or name in REQUIRED]
    check_columns(scores, [*keys, "clip", "correct", *STUDY_METRICS, "area", "degenerate", *extra], "scores")
    if scores.duplicated([*keys, "clip"]).any():
        raise ValueError(f"scores must have one row per {', '.join(keys)} and clip; some clip occurs twice")
    heard = [column for column in scores if str(column).endswith("_heard")]
    values = list(dict.fromkeys([*STUDY_METRICS, "area", "degenerate", "COMP_rel", *heard, *extra]))
    scores = scores.assign(COMP_rel=scores["COMP"] / np.log(n_bins_of(scores, d)))
    scores["degenerate"] = scores["degenerate"].astype(float)
    summary = in_study_order(pd.concat(_subset_means(scores, keys, values)))
    return summary[[*keys[:-2], "subset", *keys[-2:], "n", "n_defined", *values]]


def _subset_means(scores: pd.DataFrame, keys: list[str], values: list[str]) -> Iterator[pd.DataFrame]:
    """Means over all, rightly and wrongly classified clips, each with the same rows."""
    correct = scores["correct"].astype("boolean")  # NA where a clip's class is not known: of neither subset
    right, wrong = correct.fillna(False).astype(bool), (~correct).fillna(False).astype(bool)
    index = scores.groupby(keys, dropna=False).size().index
    for subset, rows in (("all", scores), ("correct", scores[right]), ("incorrect", scores[wrong])):
        groups = rows.groupby(keys, dropna=False)
        counts = pd.DataFrame({"n": groups.size(), "n_defined": groups["COMP"].count()})
        means = groups[values].mean()
        whole = [name for name in values if name.removesuffix("_heard") in FAITHFULNESS_METRICS]
        means[whole] = means[whole].where(groups[whole].count().eq(groups.size(), axis=0))
        means = means.reindex(index)
        yield counts.reindex(index, fill_value=0).join(means).assign(subset=subset).reset_index()


def study_table(
    summary: pd.DataFrame,
    condition: tuple[str, str],
    best: pd.DataFrame | None = None,
    protocol: str | None = None,
    subset: str = "all",
    intervals: pd.DataFrame | None = None,
    marks: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """One of Tables II-VI: a row per method at its best mask.

    Parameters
    ----------
    summary : DataFrame, from `summarise`
    condition : (spectrogram type, noise scenario)
    best : DataFrame, from `best_masks`; by default the rule is applied to ``summary``
    protocol : str, needed where ``summary`` holds two
    subset : {"all", "correct", "incorrect"}, with the masks of "all" in each case
    intervals : DataFrame from ``comparisons.mean_intervals``: adds ``<metric>_low`` and ``_high``
    marks : DataFrame from ``comparisons.control_marks``: adds `not_better_than`

    Returns a frame of method, mask, the seven metrics and, where ``summary`` has them, area,
    degenerate and COMP_rel.
    """
    summary = of_protocol(summary, protocol, "summary")
    best = best_masks(summary) if best is None else of_protocol(best, protocol, "best")
    rows = methods_only(of_condition(summary, condition))
    rows = rows[rows["subset"] == subset] if "subset" in rows else rows
    if rows.empty:
        raise ValueError(
            f"summary has no rows of condition {' '.join(condition)}, subset {subset}; was it computed?"
        )
    table = of_condition(best, condition)[[*REQUIRED]].merge(rows, on=[*REQUIRED], how="left")
    if intervals is not None:
        table = _add_intervals(table, of_protocol(intervals, protocol, "intervals"))
    if marks is not None:
        marked = of_protocol(marks, protocol, "marks")[[*REQUIRED, "not_better_than"]]
        table = table.merge(marked, on=[*REQUIRED], how="left")
    bounds = [f"{metric}_{side}" for metric in STUDY_METRICS for side in ("low", "high")]
    columns = ["method", "mask", *STUDY_METRICS, "area", "degenerate", "COMP_rel", *bounds, "not_better_than"]
    return table[[column for column in columns if column in table]]


def table_name(condition: tuple[str, str]) -> str:
    """The number of a condition's table, II to VI; the condition's own name where there is no such table."""
    return TABLE_NUMBERS.get(tuple(condition), "_".join(condition))


def without_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """A table without the bounds of its metrics, narrow enough to be read on a page."""
    bounds = [
        column
        for column in table
        if column.endswith(("_low", "_high")) and column.rpartition("_")[0] in table
    ]
    return table.drop(columns=bounds)


def _add_intervals(table: pd.DataFrame, intervals: pd.DataFrame) -> pd.DataFrame:
    wide = intervals.pivot(index=[*REQUIRED], columns="metric", values=["low", "high"])
    wide.columns = [f"{metric}_{side}" for side, metric in wide.columns]
    return table.merge(wide.reset_index(), on=[*REQUIRED], how="left")


def beside_published(table: pd.DataFrame, condition: tuple[str, str]) -> pd.DataFrame:
    """Put the published figures under ours, method by method.

    Parameters
    ----------
    table : DataFrame
        From `study_table` under the paper's protocol.
    condition : (spectrogram type, noise scenario)

    Returns
    -------
    DataFrame
        method, source, mask and the seven metrics. Sources: ``this run``; ``published`` with the mask
        that won there; ``published, our mask`` where that is another one. Only ours for a method or
        a condition that was not published.
    """
    columns = ["method", "source", "mask", *STUDY_METRICS]
    printed = of_condition(published.published_tables(), condition).assign(source="published")
    results = of_condition(published.published_results(), condition)
    same = results[results["subset"] == "all"].merge(table[["method", "mask"]], on=["method", "mask"])
    printed_mask = same["method"].map(dict(zip(printed["method"], printed["mask"])))
    same = same[same["mask"] != printed_mask].assign(source="published, our mask")
    printed = printed[printed["method"].isin(table["method"])]
    rows = pd.concat([table.assign(source="this run")[columns], printed[columns], same[columns]])
    order = {method: place for place, method in enumerate(table["method"])}
    rows = rows.sort_values("method", key=lambda names: names.map(order), kind="stable")
    return rows.reset_index(drop=True)

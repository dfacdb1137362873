"""Which metric tells the truth: does it rank methods as planted causes do, and what does choosing by it cost?

Truth is a measure of `measures.localised`, its mean over a case's clips. Everything is computed case by case
over the methods. Cases of one plant, at several levels and in both roles, are no independent draws: for
intervals plants are resampled, each with all of its cases.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ...constants import STUDY_METRICS
from ...evaluation.bootstrap import (
    column_means,
    interval,
    resample_counts,
    resampled_means,
    share_interval,
)
from ...evaluation.comparisons import lower_is_better
from ...evaluation.ranks import rank_correlation
from .fills import HEARD

CONTROL_MAPS = ("random", "level", "energy", "unusual", "oracle")  # maps that never ask the classifier
CURVES = ("insertion", "deletion")
STUDY_FILL, STUDY_MASKS = "floor", ("topK_5", "topK_30", "topK_50", "bin", "minmax")
TRUTH = "average_precision"
ALL_OR_NOTHING = ("warns", "false_alarm")
WITHIN = {  # what can be
    **dict.fromkeys(ALL_OR_NOTHING, (0, 1)),
    **dict.fromkeys(("auc", "average_precision", "precision", "pointing", "mass", "auc_decoy"), (0, 1)),
    **dict.fromkeys(("auc_time", "auc_frequency", "truth_share", "decoy_share"), (0, 1)),
    **dict.fromkeys(
        (f"control_{name}" for name in ("auc", "average_precision", "mass", "auc_decoy")), (0, 1)
    ),
    "regret": (0, np.inf),
    "spearman": (-1, 1),
}
CASE = ("classifier", "plant", "case", "method")
RULE = ["metric", "mask", "fill"]
STUDY_WAY = "geometric mean of seven"
WAYS = (  # to choose a method without having looked at the plant
    "rule that ranks best elsewhere",
    "rule of least regret elsewhere",
    STUDY_WAY,
    "best method elsewhere",
    "by lot",
)
LEAST = 1e-9  # of a scaled metric, as in the study's geometric mean
N_RESAMPLES = 2000


def case_means(points: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Means over the clips of each case: case, plant, classifier, method, metric, mask, fill, value.

    Values are signed so that higher is better. ``similarity`` is the rank correlation of the model's map with
    its control's, of which less is better: the test of randomised weights, with a network that was trained
    for something else in the place of random ones.
    """
    keys, metrics = list(CASE), [*STUDY_METRICS, *CURVES]
    long = (
        metric_means(scores).melt([*keys, "mask", "fill"], metrics, "metric", "value").dropna(subset="value")
    )
    long["value"] *= np.where(long["metric"].map(_lower), -1.0, 1.0)
    alike = points.groupby(keys, observed=True)["similarity"].mean().reset_index(name="value").dropna()
    alike = alike.assign(metric="similarity", mask="", fill="", value=-alike["value"])
    return pd.concat([long, alike], ignore_index=True)


def metric_means(scores: pd.DataFrame) -> pd.DataFrame:
    """Means of every metric over the clips of each case, by method, mask and fill."""
    keys = [*CASE, "mask", "fill"]
    return scores.groupby(keys, observed=True)[[*STUDY_METRICS, *CURVES]].mean().reset_index()


def _lower(metric: str) -> bool:
    return metric == "deletion" or (metric in STUDY_METRICS and lower_is_better(metric))


def truths(points: pd.DataFrame, truth: str = TRUTH) -> pd.DataFrame:
    """(cases, methods) table of a measure's means over the clips; methods judged in all cases alone."""
    kept = points[~points["method"].isin(CONTROL_MAPS)]
    table = kept.pivot_table(index="case", columns="method", values=truth, aggfunc="mean", observed=True)
    everywhere = judged_everywhere(points)
    return table[[name for name in table if everywhere[name]]].dropna(axis=1, how="all")


def judged_everywhere(points: pd.DataFrame) -> pd.Series:
    """Whether each method was judged in every case in which any was."""
    n_cases = points.groupby("method", observed=True)["case"].nunique()
    return n_cases == points["case"].nunique()


def in_some_cases(points: pd.DataFrame) -> pd.DataFrame:
    """Rows of those clips alone on which all methods were judged; none where that is so in every case."""
    everywhere = judged_everywhere(points)
    n_methods = points.groupby(["case", "clip"], observed=True)["method"].transform("nunique")
    return points.head(0) if everywhere.all() else points[n_methods == len(everywhere)]


# Rules: a metric, on a mask, under a fill


def rule_tables(means: pd.DataFrame, known: pd.DataFrame) -> dict[tuple[str, str, str], pd.DataFrame]:
    """Values of each rule (metric, mask, fill) as a (cases, methods) table like that of the truth."""
    kept = means[means["method"].isin(known.columns) & means["case"].isin(known.index)]
    return {
        rule: part.pivot(index="case", columns="method", values="value").reindex_like(known)
        for rule, part in kept.groupby(RULE, sort=False)
    }


def regrets(values: pd.DataFrame, known: pd.DataFrame) -> np.ndarray:
    """Truth of the best method less that of the method that a rule chooses, in each case (cases,).

    Methods that a rule cannot tell apart are chosen by lot; NaN where it gives nothing.
    """
    found = []
    for first, second in zip(values.to_numpy(float), known.to_numpy(float)):
        defined = ~(np.isnan(first) | np.isnan(second))
        if not defined.any():
            found.append(np.nan)
            continue
        chosen = second[defined][first[defined] == first[defined].max()].mean()
        found.append(np.nanmax(second) - chosen)
    return np.array(found)


def agreement(points: pd.DataFrame, means: pd.DataFrame, truth: str = TRUTH) -> pd.DataFrame:
    """How well each rule ranks methods as planted causes do.

    Returns
    -------
    DataFrame
        metric, mask, fill, n_cases, spearman and regret with ``_low`` and ``_high`` (95 %, over plants), the
        highest correlation first. Cases that a rule cannot rank are left out of its correlation; ``n_cases``
        are those that it ranks.
    """
    known, rows = truths(points, truth), []
    plants = plants_of(points).loc[known.index.astype(str)].to_numpy()
    for rule, values in rule_tables(means, known).items():
        ranked = rank_correlation(values, known)
        row = dict(zip(RULE, rule)) | {"n_cases": int((~np.isnan(ranked)).sum())}
        for name, of_cases in (("spearman", ranked), ("regret", regrets(values, known))):
            found = mean_with_interval(of_cases, plants, WITHIN[name])
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), found))
        rows.append(row)
    return pd.DataFrame(rows).sort_values("spearman", ascending=False, ignore_index=True)


def by_ear(points: pd.DataFrame, means: pd.DataFrame, truth: str = TRUTH) -> pd.DataFrame:
    """`agreement` in the cases and of the methods alone that were scored by ear too, so that nothing
    else tells fills and ear apart; without rows where there are none.
    """
    heard = means.loc[means["fill"] == HEARD, ["case", "method"]].astype(str)
    if heard.empty:
        return agreement(points, means, truth).head(0)
    points, means = (
        frame[np.logical_and.reduce([frame[name].astype(str).isin(heard[name]) for name in heard])]
        for frame in (points, means)
    )
    return agreement(points, means, truth)


def plants_of(frame: pd.DataFrame) -> pd.Series:
    """Plant of each case of rows that have both."""
    return frame.astype({"case": str, "plant": str}).drop_duplicates("case").set_index("case")["plant"]


def mean_with_interval(
    values: np.ndarray,
    groups: Sequence | None = None,
    within: tuple[float, float] = (-np.inf, np.inf),
    share: bool = False,
) -> tuple[float, float, float]:
    """Mean of what is defined and its 95 % interval ``within`` what can be; NaN where nothing is defined.

    With ``groups``, one a value, these are resampled, each with all of its values. A ``share`` is the mean of
    yes (1) or no (0).
    """
    values, defined = np.asarray(values, float), ~np.isnan(values)
    values = values[defined]
    if not len(values):
        return float("nan"), float("nan"), float("nan")
    if groups is None:
        means, n = resampled_means(values, N_RESAMPLES), len(values)
    else:
        codes, names = pd.factorize(np.asarray(groups)[defined])
        n = len(names)
        drawn = np.concatenate(list(resample_counts(n, N_RESAMPLES)))[:, codes]  # (resamples, values)
        means = (drawn @ values / drawn.sum(axis=1))[:, None]
    low, high = np.clip(interval(means, n), *within)
    if share and np.ptp(values) == 0:  # all or none of a few is not certain
        low, high = share_interval(values[:1], n)
    return float(column_means(values)[0]), float(low[0]), float(high[0])


# The study's rule, and choosing on cases that were not looked at


def geometric_mean(means: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """The study's rule as a (cases, methods) table: each method's best mask by the geometric mean of seven.

    Every metric is scaled to [0, 1] by its extremes over all cases, methods and masks, at the study's fill.
    """
    kept = means[(means["fill"] == STUDY_FILL) & means["mask"].isin(STUDY_MASKS)]
    kept = kept[kept["method"].isin(known.columns) & kept["metric"].isin(STUDY_METRICS)]
    wide = kept.pivot_table(index=["case", "method", "mask"], columns="metric", values="value", observed=True)
    extent = (wide.max() - wide.min()).replace(0, np.nan)
    scaled = ((wide - wide.min()) / extent).clip(lower=LEAST)
    best = np.exp(np.log(scaled).mean(axis=1)).groupby(["case", "method"]).max()
    return best.unstack("method").reindex_like(known)


def held_out(points: pd.DataFrame, means: pd.DataFrame, truth: str = TRUTH) -> pd.DataFrame:
    """Regret of several ways to choose a method, each decided on the plants that a case is not of.

    Returns
    -------
    DataFrame
        case, plant, way, choice and regret, for each of `WAYS`.
    """
    known = truths(points, truth)
    tables = rule_tables(means, known)
    lost, close = (
        pd.DataFrame({rule: of(values, known) for rule, values in tables.items()}, index=known.index)
        for of in (regrets, rank_correlation)
    )
    study = pd.Series(regrets(geometric_mean(means, known), known), known.index)
    plants = points.drop_duplicates("case").set_index("case")["plant"].astype(str).loc[known.index]
    fixed = known.sub(known.max(axis=1), axis=0).mul(-1)  # regret of always taking one method
    rows = []
    for case, plant in plants.items():
        others = plants.index[plants != plant]
        if not len(others):
            continue
        # rules that can rank, or choose, in all of these; whether they can in the case itself is not asked
        closest = close.loc[others].dropna(axis=1).mean().idxmax()
        least = lost.loc[others].dropna(axis=1).mean().idxmin()
        method, by_lot = fixed.loc[others].mean().idxmin(), fixed.loc[case].mean()
        of_rules = lost.loc[case].fillna(by_lot)
        found = (
            (" ".join(filter(None, closest)), of_rules[closest]),
            (" ".join(filter(None, least)), of_rules[least]),
            ("", study[case]),
            (method, fixed.loc[case, method]),
            ("", by_lot),
        )
        rows += [
            {"case": case, "plant": plant, "way": way, "choice": choice, "regret": regret}
            for way, (choice, regret) in zip(WAYS, found, strict=True)
        ]
    return pd.DataFrame(rows)


def against_the_study(chosen: pd.DataFrame, way: str = WAYS[0]) -> tuple[float, float, float]:
    """How much less a way regrets than the study's geometric mean, paired over cases, with its interval."""
    wide = chosen.pivot(index="case", columns="way", values="regret")
    plants = plants_of(chosen).loc[wide.index.astype(str)]
    return mean_with_interval((wide[STUDY_WAY] - wide[way]).to_numpy(float), plants)


def with_intervals(frame: pd.DataFrame, by: Sequence[str], values: Sequence[str]) -> pd.DataFrame:
    """Means of columns over the cases of each group with ``_low`` and ``_high``, 95 % over their plants and
    within what can be (`WITHIN`).
    """
    rows = []
    for key, part in frame.groupby(list(by), sort=False, observed=True):
        row = dict(zip(by, key))
        for name in values:
            within = WITHIN.get(name, (-np.inf, np.inf))
            plants = part["plant"].astype(str)
            found = mean_with_interval(part[name].to_numpy(float), plants, within, name in ALL_OR_NOTHING)
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), found))
        rows.append(row)
    return pd.DataFrame(rows)

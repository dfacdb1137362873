"""Do rankings carry over to other sounds? Methods ranked on several sets of clips, and how well ranks agree.

A ranking is that of means over a set's clips. Kendall's tau of two sets is the share of pairs of methods
that both order alike, less the share that they order differently. Two halves of one set disagree as well, by
chance alone: what other sounds cost is seen beside that.

References
----------
.. [1] M. G. Kendall, The Treatment of Ties in Ranking Problems, Biometrika 33(3), 1945: tau b.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from ..constants import check_choice
from ..evaluation import bootstrap
from ..evaluation.comparisons import MATCHED_CONTROLS, lower_is_better
from ..study.study import open_study
from ..words import column_label, method_label

RANKED_BY = ("FF", "FidIn", "AD", "SPS", "FF_heard", "FidIn_heard", "AD_heard")
EQUAL_AREA = "topK_30_pos"  # the mask at which methods are compared: as many bins of each map
COLUMNS = ("dataset", "clip", "category", "correct", "method", "mask", "control", *RANKED_BY, "area")
N_RESAMPLES = 2000
N_HALVES = 200
COMPARED = {"methods": "mask", "masks": "method"}  # what is ranked -> within what


def gathered(runs: Mapping[str, str | Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Audited scores of several finished runs, each of one kind of sound, and a line on each.

    Parameters
    ----------
    runs : mapping of str to path
        What a set is called -> its results folder. The main condition of each is taken.

    Returns
    -------
    scores : DataFrame
        `COLUMNS`, a row for each clip, method and mask, and those of the controls of the mask of equal area.
    sets : DataFrame
        dataset, seconds (of a clip), n_classes, n_clips (explained), n_test, test_acc (per cent).
    """
    frames, rows = [], []
    for name, folder in runs.items():
        study = open_study(folder)
        condition = study.main_condition
        scores = condition.scores().query("protocol == 'audited'").assign(dataset=name)
        matched = scores["control"].isin(MATCHED_CONTROLS) & (scores["mask"] == EQUAL_AREA)
        frames.append(scores.loc[(scores["control"] == "") | matched].reindex(columns=list(COLUMNS)))
        accuracy = study.table(f"accuracy_{condition.spectrogram_type}").iloc[0]
        sizes = {"seconds": study.dataset.seconds, "n_classes": len(study.dataset.classes)}
        sizes |= {"n_clips": scores["clip"].nunique(), "n_test": int(accuracy["n"])}
        rows.append({"dataset": name} | sizes | {"test_acc": accuracy["test_acc"]})
    return pd.concat(frames, ignore_index=True), pd.DataFrame(rows)


def matrices(scores: pd.DataFrame, metric: str) -> dict[str, pd.DataFrame]:
    """Set -> (clips, (method, mask)) table of a metric, higher is better.

    Parameters
    ----------
    scores : DataFrame
        `dataset`, `clip`, `method`, `mask`, `control` and metrics, a row each, as `published.other_sounds`.

    Raises
    ------
    ValueError
        A set that lacks one of the others' methods or masks.
    """
    rows, keys = scores[scores["control"] == ""], ["method", "mask"]
    sign = -1.0 if lower_is_better(metric) else 1.0
    found = {
        name: sign * part.pivot(index="clip", columns=keys, values=metric).astype(float)
        for name, part in rows.groupby("dataset", sort=False, observed=True)
    }
    columns = rows[keys].drop_duplicates().apply(tuple, axis=1).tolist()  # in their order
    for name, table in found.items():
        if set(table.columns) != set(columns):
            raise ValueError(f"scores must have the same methods and masks in every dataset; {name} differs")
    return {name: table[columns] for name, table in found.items()}


def rankings(
    scores: pd.DataFrame, metrics: Sequence[str] = RANKED_BY, mask: str = EQUAL_AREA
) -> pd.DataFrame:
    """Mean of every metric with its 95 % interval and its rank (1 is best) among the methods of a set.

    Returns
    -------
    DataFrame
        dataset, metric, method, n, mean, low, high, rank; ranks of a tie are their mean. Below the methods
        the controls of the same area, without a rank: random bins and the loudest, mean over the methods'
        masks.
    """
    rows = [_controls(scores, metrics, mask)]
    for metric in metrics:
        sign = -1.0 if lower_is_better(metric) else 1.0
        for name, table in matrices(scores[scores["mask"] == mask], metric).items():
            values = sign * table.to_numpy()
            found = bootstrap.means_with_intervals(
                pd.DataFrame(values), [metric] * values.shape[1], N_RESAMPLES
            )
            found.insert(0, "method", table.columns.get_level_values("method"))
            found["rank"] = rankdata(-sign * np.round(found["mean"], 12), nan_policy="omit")
            rows.append(found.assign(dataset=name, metric=metric))
    columns = ["dataset", "metric", "method", "n", "mean", "low", "high", "rank"]
    return pd.concat([*rows[1:], rows[0]], ignore_index=True)[columns]


def _controls(scores: pd.DataFrame, metrics: Sequence[str], mask: str) -> pd.DataFrame:
    """Means of the controls, as rows of `rankings`."""
    here = scores[(scores["control"] != "") & (scores["mask"] == mask)]
    by_clip = here.groupby(["dataset", "control", "clip"], sort=False, observed=True)[list(metrics)].mean()
    rows = []
    for (name, control), part in by_clip.groupby(["dataset", "control"], sort=False, observed=True):
        values = part.dropna(axis=1)
        found = bootstrap.means_with_intervals(values, values.columns, N_RESAMPLES)
        rows.append(found.assign(metric=values.columns, dataset=name, method=control, rank=np.nan))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def agreement(
    scores: pd.DataFrame, metrics: Sequence[str] = RANKED_BY, compared: str = "methods", seed: int = 0
) -> pd.DataFrame:
    """How well two sets of clips rank alike, for every two sets and every metric.

    Parameters
    ----------
    compared : {"methods", "masks"}
        Methods are ranked within each mask, or masks within each method; correlations are over all pairs
        within.
    seed : int
        Of resamples and halves.

    Returns
    -------
    DataFrame
        first, second, metric, n_pairs; `kendall` (tau b [1]_) and `spearman` with ``_low`` and ``_high``
        (95 %, the clips of both sets drawn anew); `across`, mean Kendall between a half of one set and a half
        of the other, and `within`, the most that this can be for sets that rank alike: the geometric mean of
        what the two halves of each set agree at (Spearman 1904). NaN where a side ranks nothing (a metric
        that is the same for all).
    """
    check_choice("compared", compared, COMPARED)
    rows = []
    for metric in metrics:
        tables = matrices(scores, metric)
        columns = next(iter(tables.values())).columns
        within = columns.get_level_values(COMPARED[compared])
        groups = [np.flatnonzero(within == name) for name in within.unique()]
        known = {
            name: _Ranked(table.to_numpy(), groups, seed + place)
            for place, (name, table) in enumerate(tables.items())
        }
        for first, second in combinations(tables, 2):
            names = {"first": first, "second": second, "metric": metric}
            rows.append(names | known[first].beside(known[second]))
    return pd.DataFrame(rows)


class _Ranked:
    """A set's orders and ranks, as they are, under resamples and in halves."""

    def __init__(self, values: np.ndarray, groups: list[np.ndarray], seed: int) -> None:
        drawn = bootstrap.resampled_means(values, N_RESAMPLES, seed)
        mean = bootstrap.column_means(values)[None]
        self.rules = {
            name: (rule(mean, groups), rule(drawn, groups)) for name, rule in RULES.items()
        }  # (1, k) and (resamples, k)
        self.halves = [orders(half, groups) for half in half_means(values, seed)]

    def beside(self, other: _Ranked) -> dict[str, float]:
        row: dict[str, float] = {"n_pairs": self.rules["kendall"][0].shape[1]}
        for name in RULES:
            (mean, drawn), (mean_too, drawn_too) = self.rules[name], other.rules[name]
            row[name] = float(correlation(mean, mean_too)[0])
            row[f"{name}_low"], row[f"{name}_high"] = _middle(correlation(drawn, drawn_too))
        across = [correlation(one, two) for one in self.halves for two in other.halves]
        own = [max(_mean([correlation(*each.halves)]), 0.0) for each in (self, other)]
        return row | {"across": _mean(across), "within": float(np.sqrt(own[0] * own[1]))}


def half_means(values: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Means over the two halves of the clips (clips, columns), for `N_HALVES` ways to halve: twice (ways,
    columns).
    """
    rng, n = np.random.default_rng(seed), len(values) // 2
    orders = [rng.permutation(len(values)) for _ in range(N_HALVES)]
    return tuple(
        np.array([bootstrap.column_means(values[order[part]]) for order in orders])
        for part in (slice(n), slice(n, 2 * n))
    )


def orders(means: np.ndarray, groups: Sequence[np.ndarray]) -> np.ndarray:
    """Which of each two columns of a group is higher: -1, 0 or 1, (rows, pairs) of means (rows, columns)."""
    pairs = np.array([pair for group in groups for pair in combinations(group, 2)])
    difference = means[:, pairs[:, 0]] - means[:, pairs[:, 1]]
    return np.where(np.abs(difference) > bootstrap.EQUAL, np.sign(difference), 0.0)


def ranks(means: np.ndarray, groups: Sequence[np.ndarray]) -> np.ndarray:
    """Ranks within each group less their mean, (rows, columns)."""
    found = np.zeros_like(means)
    for group in groups:
        found[:, group] = rankdata(np.round(means[:, group], 12), axis=1) - (len(group) + 1) / 2
    return found


RULES = {"kendall": orders, "spearman": ranks}


def correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of each row of two (rows, k) arrays of `orders` Kendall's tau b, of `ranks` Spearman's rho, (rows,).

    NaN where a side ties everywhere.
    """
    size = np.sqrt(np.square(first).sum(1) * np.square(second).sum(1))
    return np.divide((first * second).sum(1), size, out=np.full(len(size), np.nan), where=size > 0)


def _middle(values: np.ndarray) -> tuple[float, float]:
    """Bounds of the middle 95 % of what is known; NaN where nothing is."""
    known = values[~np.isnan(values)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
    return float(low), float(high)


def _mean(values: Sequence[np.ndarray]) -> float:
    known = np.concatenate(list(values))
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else float("nan")


# In words


def summary(ranked: pd.DataFrame, methods: pd.DataFrame, masks: pd.DataFrame) -> str:
    """What was found, in Markdown, every number read from the tables.

    Parameters
    ----------
    ranked : DataFrame
        From `rankings`.
    methods, masks : DataFrame
        From `agreement`, of methods and of masks.
    """
    return "\n".join([_headline(methods, masks), *_of_metrics(methods), *_of_winners(ranked)])


def _headline(methods: pd.DataFrame, masks: pd.DataFrame) -> str:
    """How far both carry over, beside how far they could."""
    said = []
    for words, found in (("methods", methods), ("masks", masks)):
        known = found.dropna(subset="kendall")
        across, within = known["across"].mean(), known["within"].mean()
        word = "mostly" if across > 0.75 * within else "in part" if across > 0.4 * within else "hardly"
        sure = int((known["kendall_low"] > 0).sum())
        said.append(
            f"rankings of {words} carry over **{word}**: halves of two kinds agree at τ = {across:.2f}, "
            f"where kinds that rank alike would at {within:.2f}, and {sure} of {len(known)} pairs of kinds "
            "and metrics agree beyond chance"
        )
    return f"- To other sounds {said[0]} (95 %); {said[1]}."


def _of_metrics(agreed: pd.DataFrame) -> list[str]:
    """Mean and range of each metric's correlation over the pairs of sets."""
    known = agreed.dropna(subset="kendall")
    parts = []
    for metric, here in known.groupby("metric", sort=False):
        low, high = here.loc[here["kendall"].idxmin()], here.loc[here["kendall"].idxmax()]
        ends = " to ".join(f"{row['kendall']:.2f} ({row['first']}, {row['second']})" for row in (low, high))
        parts.append(f"  - {column_label(metric)}: {here['kendall'].mean():.2f}, from {ends}.")
    return ["- Kendall's τ of the methods, mean over the pairs of kinds:", *parts]


def _of_winners(ranked: pd.DataFrame) -> list[str]:
    """Which method leads in which set, by scored and heard fidelity, and what the loudest bins keep."""
    lines = []
    for metric in ("FidIn", "FidIn_heard"):
        here = ranked[(ranked["metric"] == metric) & ranked["rank"].notna()]
        groups = here.groupby("dataset", sort=False, observed=True)
        best = here[here["rank"] == groups["rank"].transform("min")]  # those that tie
        said = ", ".join(
            f"{name} {' and '.join(map(method_label, tied['method']))} ({tied['mean'].iloc[0]:.2f})"
            for name, tied in best.groupby("dataset", sort=False, observed=True)
        )
        lines.append(f"- Best by {column_label(metric)}, at 30 % of the bins: {said}.")
    loudest = ranked[(ranked["metric"] == "FidIn") & (ranked["method"] == "energy")]
    if len(loudest):
        said = ", ".join(f"{row.dataset} {row.mean:.2f}" for row in loudest.itertuples())
        lines.append(f"- The loudest bins of that area, which ask no classifier, have a FidIn of: {said}.")
    return lines

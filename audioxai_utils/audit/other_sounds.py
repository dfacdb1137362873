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

from ..evaluation import bootstrap
from ..evaluation.comparisons import MATCHED_CONTROLS, lower_is_better
from ..study.study import open_study
from ..words import column_label, method_label

METRICS = ("FF", "FidIn", "AD", "SPS", "FF_heard", "FidIn_heard", "AD_heard")
EQUAL_AREA = "topK_30_pos"  # the mask at which methods are compared: as many bins of each map
COLUMNS = ("dataset", "clip", "category", "correct", "method", "mask", "control", *METRICS, "area")
N_RESAMPLES = 2000
N_HALVES = 200
RULES = ("kendall", "spearman")


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


def matrices(scores: pd.DataFrame, metric: str, mask: str | None = EQUAL_AREA) -> dict[str, pd.DataFrame]:
    """Set -> (clips, methods) table of a metric, higher is better.

    Parameters
    ----------
    scores : DataFrame
        `dataset`, `clip`, `method`, `mask` and metrics, a row each, as `published.other_sounds`.
    mask : str, optional
        None is every mask: the columns are then methods with masks.

    Raises
    ------
    ValueError
        No such mask, or a set that lacks one of the others' methods.
    """
    rows = scores if mask is None else scores[scores["mask"] == mask]
    rows = rows[rows["control"] == ""]
    if rows.empty:
        raise ValueError(f"mask must be one of {', '.join(map(str, scores['mask'].unique()))}; got {mask!r}")
    keys = ["method"] if mask else ["method", "mask"]
    sign = -1.0 if lower_is_better(metric) else 1.0
    found = {
        name: sign * part.pivot(index="clip", columns=keys, values=metric).astype(float)
        for name, part in rows.groupby("dataset", sort=False, observed=True)
    }
    columns = rows[keys].drop_duplicates().apply(tuple, axis=1).tolist()  # in their order
    columns = [name for (name,) in columns] if mask else columns
    for name, table in found.items():
        if set(table.columns) != set(columns):
            raise ValueError(f"scores must have the same methods and masks in every dataset; {name} differs")
    return {name: table[columns] for name, table in found.items()}


def rankings(scores: pd.DataFrame, metrics: Sequence[str] = METRICS, mask: str = EQUAL_AREA) -> pd.DataFrame:
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
        for name, table in matrices(scores, metric, mask).items():
            values = sign * table.to_numpy()
            mean, n = bootstrap.column_means(values), (~np.isnan(values)).sum(0)
            low, high = bootstrap.interval(bootstrap.resampled_means(values, N_RESAMPLES), n)
            ranks = rankdata(-sign * np.round(mean, 12))
            found = {"method": table.columns, "n": n, "mean": mean, "low": low, "high": high, "rank": ranks}
            rows.append(pd.DataFrame(found).assign(dataset=name, metric=metric))
    columns = ["dataset", "metric", *found]
    return pd.concat([*rows[1:], rows[0]], ignore_index=True)[columns]


def _controls(scores: pd.DataFrame, metrics: Sequence[str], mask: str) -> pd.DataFrame:
    """Means of the controls, as rows of `rankings`."""
    here = scores[(scores["control"] != "") & (scores["mask"] == mask)]
    by_clip = here.groupby(["dataset", "control", "clip"], sort=False, observed=True)[list(metrics)].mean()
    rows = []
    for (name, control), part in by_clip.groupby(["dataset", "control"], sort=False, observed=True):
        values = part.dropna(axis=1)
        low, high = bootstrap.interval(bootstrap.resampled_means(values.to_numpy(), N_RESAMPLES), len(values))
        found = {"metric": values.columns, "mean": values.mean().to_numpy(), "low": low, "high": high}
        rows.append(pd.DataFrame(found).assign(dataset=name, method=control, n=len(values), rank=np.nan))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def agreement(
    scores: pd.DataFrame, metrics: Sequence[str] = METRICS, mask: str | None = EQUAL_AREA, seed: int = 0
) -> pd.DataFrame:
    """How well two sets of clips rank the methods alike, for every two sets and every metric.

    Parameters
    ----------
    mask : str, optional
        None ranks every method and mask together.
    seed : int
        Of resamples and halves.

    Returns
    -------
    DataFrame
        first, second, metric, n_ranked; `kendall` (tau b [1]_) and `spearman` with ``_low`` and ``_high``
        (95 %, the clips of both sets drawn anew); `across`, mean Kendall between a half of one set and a half
        of the other, and `within`, between the two halves of one set, the mean of both sets. NaN where a side
        ranks nothing (a metric that is the same for all).
    """
    rows = []
    for metric in metrics:
        tables = matrices(scores, metric, mask)
        drawn = {
            name: bootstrap.resampled_means(table.to_numpy(), N_RESAMPLES, seed + place)
            for place, (name, table) in enumerate(tables.items())
        }
        means = {name: bootstrap.column_means(table.to_numpy())[None] for name, table in tables.items()}
        halves = {
            name: half_means(table.to_numpy(), seed + k) for k, (name, table) in enumerate(tables.items())
        }
        for first, second in combinations(tables, 2):
            row = {"first": first, "second": second, "metric": metric, "n_ranked": means[first].shape[1]}
            for name, rule in zip(RULES, (kendall, spearman)):
                row[name] = float(rule(means[first], means[second])[0])
                low, high = _middle(rule(drawn[first], drawn[second]))
                row |= {f"{name}_low": low, f"{name}_high": high}
            across = [kendall(halves[first][i], halves[second][j]) for i in (0, 1) for j in (0, 1)]
            within = [kendall(*halves[name]) for name in (first, second)]
            row |= {"across": _mean(across), "within": _mean(within)}
            rows.append(row)
    return pd.DataFrame(rows)


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


def kendall(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Kendall's tau b of each row of two (rows, k) arrays, (rows,); NaN where a side ties everywhere."""
    one, other = (_order(values) for values in (first, second))
    size = np.sqrt(np.square(one).sum(1) * np.square(other).sum(1))
    return np.divide((one * other).sum(1), size, out=np.full(len(one), np.nan), where=size > 0)


def _order(values: np.ndarray) -> np.ndarray:
    """Which of each two columns is higher: -1, 0 or 1, (rows, k (k - 1) / 2); NaN orders nothing."""
    left, right = np.triu_indices(values.shape[1], 1)
    difference = values[:, left] - values[:, right]
    return np.where(np.abs(difference) > bootstrap.EQUAL, np.sign(difference), 0.0)


def spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's rho of each row of two (rows, k) arrays, (rows,); NaN where a side ties everywhere."""
    one, other = (
        rankdata(np.round(values, 12), axis=1) - (values.shape[1] + 1) / 2 for values in (first, second)
    )
    size = np.sqrt(np.square(one).sum(1) * np.square(other).sum(1))
    return np.divide((one * other).sum(1), size, out=np.full(len(one), np.nan), where=size > 0)


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


def summary(ranked: pd.DataFrame, agreed: pd.DataFrame, all_masks: pd.DataFrame) -> str:
    """What was found, in Markdown, every number read from the tables.

    Parameters
    ----------
    ranked : DataFrame
        From `rankings`.
    agreed, all_masks : DataFrame
        From `agreement`: at the mask of equal area, and over every method and mask.
    """
    return "\n".join([_headline(agreed), *_of_metrics(agreed), *_of_winners(ranked), *_of_masks(all_masks)])


def _headline(agreed: pd.DataFrame) -> str:
    known = agreed.dropna(subset="kendall")
    across, within = known["across"].mean(), known["within"].mean()
    sure = int((known["kendall_low"] > 0).sum())
    word = "mostly" if across > 0.75 * within else "in part" if across > 0.4 * within else "hardly"
    return (
        f"- Rankings of methods carry over to other sounds **{word}**: halves of two kinds of sound agree at "
        f"τ = {across:.2f}, two halves of the same kind at {within:.2f}. Of {len(known)} pairs of sets and "
        f"metrics {sure} agree beyond chance (95 %)."
    )


def _of_metrics(agreed: pd.DataFrame) -> list[str]:
    """Mean and range of each metric's correlation over the pairs of sets."""
    known = agreed.dropna(subset="kendall")
    parts = []
    for metric, here in known.groupby("metric", sort=False):
        low, high = here.loc[here["kendall"].idxmin()], here.loc[here["kendall"].idxmax()]
        ends = " to ".join(f"{row['kendall']:.2f} ({row['first']}, {row['second']})" for row in (low, high))
        parts.append(
            f"  - {column_label(metric)}: {here['kendall'].mean():.2f}, from {ends}; halves "
            f"{here['across'].mean():.2f}, of the same kind {here['within'].mean():.2f}."
        )
    return ["- Kendall's τ over the methods, mean over the pairs of sets:", *parts]


def _of_winners(ranked: pd.DataFrame) -> list[str]:
    """Which method leads in which set, by heard and scored fidelity."""
    lines = []
    for metric in ("FidIn", "FidIn_heard"):
        here = ranked[ranked["metric"] == metric]
        best = here.loc[here.groupby("dataset", sort=False)["rank"].idxmin()]
        said = ", ".join(
            f"{row.dataset} {method_label(row.method)} {row.mean:.2f}" for row in best.itertuples()
        )
        lines.append(f"- Best by {column_label(metric)}: {said}.")
    return lines


def _of_masks(all_masks: pd.DataFrame) -> list[str]:
    """The same over every method and mask."""
    known = all_masks.dropna(subset="kendall").groupby("metric", sort=False)["kendall"].mean()
    said = ", ".join(f"{column_label(metric)} {value:.2f}" for metric, value in known.items())
    n = int(all_masks["n_ranked"].iloc[0])
    return [f"- Over all {n} methods with their masks: {said}."]

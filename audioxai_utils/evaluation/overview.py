"""All methods in one table: each at its best mask, scored and heard, with bounds."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..constants import STUDY_METRICS
from .comparisons import MATCHED_CONTROLS, mean_intervals, with_intervals
from .frames import CONDITION, of_condition

EQUAL = "topK_30"  # a mask of 30 % of the bins under the audited protocol, whatever the method


def every_method(scores: pd.DataFrame, best: pd.DataFrame) -> pd.DataFrame:
    """Each method at its best mask: mean and bounds of all metrics, heard ones too, area and seconds.

    Parameters
    ----------
    scores : DataFrame
        Tidy scores; `seconds` is what a clip's attribution took.
    best : DataFrame
        From ``tables.best_masks``.

    Returns
    -------
    DataFrame
        A row per (protocol,) condition and method. What a protocol does not have (heard metrics) is NaN.
    """
    heard = [f"{metric}_heard" for metric in STUDY_METRICS if f"{metric}_heard" in scores]
    further = [name for name in ("area", "seconds") if name in scores]
    return with_intervals(mean_intervals(scores, [*STUDY_METRICS, *heard, *further], best=best))


def equal_area(everything: pd.DataFrame, condition: tuple[str, str], mask: str = EQUAL) -> pd.DataFrame:
    """One mask of all methods in a condition, audited: means and bounds, scored and heard.

    Parameters
    ----------
    everything : DataFrame
        Tidy scores with those of controls.
    condition : (str, str)
    mask : str
        One that keeps as many bins by every method.

    Returns
    -------
    DataFrame
        A row a method, and one for ``random`` and ``energy``, whose bins are the same for every method of
        equal area: FF, FidIn, AD and their heard versions (of controls where these were heard) with ``_low``
        and ``_high``, area and, of methods, seconds. By heard FidIn, the highest first.
    """
    rows = of_condition(everything[everything["protocol"] == "audited"], condition)
    rows = rows[rows["mask"] == mask]
    metrics = [f"{metric}{suffix}" for metric in ("FF", "FidIn", "AD") for suffix in ("", "_heard")]
    further = [name for name in ("area", "seconds") if name in rows]
    methods = with_intervals(mean_intervals(rows[rows["control"] == ""], [*metrics, *further]))
    controls = rows[rows["control"].isin(MATCHED_CONTROLS)]
    known = [metric for metric in metrics if metric in controls and controls[metric].notna().any()]
    by_clip = controls.groupby(["control", "clip", *CONDITION], observed=True, sort=False)[known].mean()
    means = (
        by_clip.reset_index()
        .rename(columns={"control": "method"})
        .assign(mask=mask, area=rows["area"].mean())
    )
    means = with_intervals(mean_intervals(means, [*known, "area"]))
    return pd.concat([methods, means]).sort_values("FidIn_heard", ascending=False, ignore_index=True)


def scored_and_heard(every: pd.DataFrame, condition: tuple[str, str], protocol: str) -> pd.DataFrame:
    """The rows of `every_method` of one condition and protocol: what is scored beside what is heard.

    FF, FidIn and AD with their heard versions and bounds, SPS, COMP, area and seconds, as far as they are
    there.
    """
    rows = of_condition(every[every["protocol"] == protocol], condition).dropna(axis="columns", how="all")
    metrics = [f"{metric}{suffix}" for metric in ("FF", "FidIn", "AD") for suffix in ("", "_heard")]
    bounds = [f"{metric}_{side}" for metric in metrics for side in ("low", "high")]
    wanted = ["method", "mask", *metrics, "SPS", "COMP", "area", "seconds", *bounds]
    return rows[[column for column in wanted if column in rows]].reset_index(drop=True)


def printed(table: pd.DataFrame) -> pd.DataFrame:
    """`every_method` as it is read: "mean (low to high)" in one column a metric."""
    words = table[
        [column for column in table if f"{column}_low" not in table and not _is_bound(column, table)]
    ].copy()
    for metric in [column.removesuffix("_low") for column in table if column.endswith("_low")]:
        digits = 1 if metric.removesuffix("_heard") in ("AI", "AG", "AD") else 2
        bounds = table[[metric, f"{metric}_low", f"{metric}_high"]].to_numpy(float)
        words[metric] = [
            ""
            if np.isnan(mean)
            else f"{mean:.{digits}f}"
            if np.isnan(low)
            else f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
            for mean, low, high in bounds
        ]
    return words


def _is_bound(column: str, table: pd.DataFrame) -> bool:
    return column.endswith(("_low", "_high")) and column.rpartition("_")[0] in table

"""Means of the methods on known stems beside the field's own figures, and what they say."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ...words import percent
from ..planted.agreement import mean_with_interval
from ..planted.sentences import label
from .measures import SHARES

CONTROL_MAPS = ("random", "level", "energy", "oracle")  # maps that never ask the tagger
SHOWN = {
    "iou": "IoU",
    "frame_f1": "frame F1",
    "pointing_time": "pointing",
    "auc_time": "AUC per 100 ms",
    "average_precision": "average precision",
    "mass": "relevance on its own event",
    "auc_decoy": "AUC, own against others",
}
GOAL = {"iou": 0.45, "pointing_time": 0.979}  # what a network that was trained with event labels reaches
# Dumpis & Virtanen (2026), arXiv:2605.23293, on synthetic scenes like DESED's
FIELD = pd.DataFrame(
    [
        ("Integrated gradients", 0.39, 0.52, 0.826),
        ("Frame-wise CNN, weakly supervised", 0.42, 0.55, 0.973),
        ("Frame-wise CNN, strongly supervised", 0.45, 0.58, 0.979),
    ],
    columns=["method", "iou", "frame_f1", "pointing_time"],
)


def with_iou(points: pd.DataFrame) -> pd.DataFrame:
    """Rows of `judge` with ``iou`` and ``frame_f1`` at a level that was chosen on other scenes.

    Where a profile says "here" has to be decided. For each method it is the share of the maximum with the
    highest mean IoU in the other half of the scenes, every second one.
    """
    columns = [f"iou_{share * 100:g}" for share in SHARES]
    scenes = np.sort(points["scene"].astype(str).unique())
    half = points["scene"].astype(str).map({scene: i % 2 for i, scene in enumerate(scenes)})
    iou = pd.Series(np.nan, points.index)
    for method in points["method"].unique():
        for own in (0, 1):
            rows = (points["method"] == method) & (half == own)
            elsewhere = points.loc[(points["method"] == method) & (half != own), columns].mean()
            if rows.any():
                iou[rows] = points.loc[rows, elsewhere.idxmax() if elsewhere.notna().any() else columns[0]]
    return points.assign(iou=iou, frame_f1=2 * iou / (1 + iou))


def table(points: pd.DataFrame) -> pd.DataFrame:
    """A row for each method: means of `SHOWN` over labels with ``_low`` and ``_high`` (95 %, over scenes).

    The best IoU is first, controls are last.
    """
    found = with_iou(points)
    rows = []
    for method, part in found.groupby("method", sort=False, observed=True):
        row = {"method": method, "n": len(part)}
        for name in SHOWN:
            keys = (name, f"{name}_low", f"{name}_high")
            row |= dict(zip(keys, mean_with_interval(part[name].to_numpy(float), part["scene"].astype(str))))
        rows.append(row)
    means = pd.DataFrame(rows)
    means = means.assign(control=means["method"].isin(CONTROL_MAPS))
    means = means.sort_values(["control", "iou"], ascending=[True, False], ignore_index=True)
    return means.astype({"method": str})


def reach_the_goal(means: pd.DataFrame) -> list[str]:
    """Methods above both figures of `GOAL` in a `table`."""
    above = np.logical_and.reduce([means[name] > least for name, least in GOAL.items()])
    return means.loc[above & ~means["control"], "method"].tolist()


def beside_the_field(means: pd.DataFrame) -> pd.DataFrame:
    """A `table` for reading: printed names, mean (low to high), and the field's own figures below."""
    ours = pd.DataFrame({"method": means["method"].map(label)})
    for name in SHOWN:
        values = means[[name, f"{name}_low", f"{name}_high"]].to_numpy(float)
        ours[name] = [f"{mean:.2f} ({low:.2f} to {high:.2f})" for mean, low, high in values]
    field = FIELD.assign(method=FIELD["method"] + " (theirs)")
    field = field.assign(**{name: field[name].map("{:.2f}".format) for name in field.columns[1:]})
    return pd.concat([ours, field], ignore_index=True).fillna("").rename(columns=SHOWN)


def summary(points: pd.DataFrame) -> str:
    """What explanations do on known stems, in Markdown."""
    means = table(points)
    judged = means[~means["control"]].set_index("method")
    best, pointer = judged["iou"].idxmax(), judged["pointing_time"].idxmax()
    timed = judged["auc_time"].idxmax()
    reached = [label(name) for name in reach_the_goal(means)]
    level = means.set_index("method").loc["level"]
    scenes, peaks = points["scene"].nunique(), percent(judged.loc[pointer, "pointing_time"])
    goal = f"IoU {GOAL['iou']:.2f} and {GOAL['pointing_time']:.1%} pointing"
    verdict = f"{', '.join(reached)} reach both" if reached else "no method reaches both"
    above = int((judged["iou"] > GOAL["iou"]).sum())
    return "\n".join(
        [
            f"- In {scenes} scenes the tagger hears {int(judged['n'].max())} labels because of one event. "
            f"{label(best)} covers it best: IoU {judged.loc[best, 'iou']:.2f} "
            f"({judged.loc[best, 'iou_low']:.2f} to {judged.loc[best, 'iou_high']:.2f}); the loudest bins "
            f"{level['iou']:.2f}.",
            f"- {label(pointer)} has its peak within the event most often, {peaks} of the time; the loudest "
            f"bins {percent(level['pointing_time'])}.",
            f"- Along time alone {label(timed)} ranks the tenths of a second best, AUC "
            f"{judged.loc[timed, 'auc_time']:.2f}{_forest(judged)}.",
            f"- A network trained with the events' own onsets and offsets has {goal} on other scenes "
            f"(Dumpis & Virtanen 2026); here {verdict}. {above} of {len(judged)} methods are above its IoU.",
        ]
    )


def _forest(judged: pd.DataFrame) -> str:
    """What the explainer has that was best for Bolaños et al. (2025), on keywords; nothing without it."""
    if "segments_forest" not in judged.index:
        return ""
    auc = judged.loc["segments_forest", "auc_time"]
    return f"; segments with a forest, best on keywords elsewhere, have {auc:.2f}"

"""Figure of known stems: how well methods point at the event, beside the field's own figures."""

from __future__ import annotations

import numpy as np

from ..audit.planted.sentences import label
from ..audit.stems.tables import GOAL
from .drawing import new_figure, styled
from .style import method_colour

PANELS = {
    "iou": "IoU in time",
    "pointing_time": "peak within the event",
    "auc_time": "AUC per 100 ms",
    "mass": "relevance on its own event",
    "auc_decoy": "AUC, own against others",
}


@styled
def beside_the_field(means):
    """Means with 95 % intervals of each method, controls below; dashed lines are what a network trained with
    the events' onsets and offsets reaches on other scenes.

    Parameters
    ----------
    means : pandas.DataFrame
        From `audit.stems.tables.table`.
    """
    shown = means.iloc[::-1]
    figure, grid = new_figure(1, len(PANELS), (2.7 * len(PANELS) + 1.6, 0.24 * len(shown) + 1), sharey=True)
    heights, colour = np.arange(len(shown)), np.where(shown["control"], "#999999", "#222222")
    for ax, (name, words) in zip(grid[0], PANELS.items()):
        if name in GOAL:
            ax.axvline(GOAL[name], color="#777777", lw=0.9, ls="--", zorder=0)
        ax.hlines(heights, shown[f"{name}_low"], shown[f"{name}_high"], colors=colour, lw=0.9)
        ax.scatter(shown[name], heights, c=colour, s=16)
        ax.axhline(int(shown["control"].sum()) - 0.5, color="#bbbbbb", lw=0.8)
        ax.set(xlabel=words, xlim=(0, 1.04))
        ax.grid(axis="x", color="#e4e4e4", linewidth=0.6)
    grid[0, 0].set_yticks(heights, [label(name) for name in shown["method"]])
    for tick, name, control in zip(grid[0, 0].get_yticklabels(), shown["method"], shown["control"]):
        tick.set_color("#777777" if control else method_colour(name))
    return figure

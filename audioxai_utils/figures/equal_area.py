"""Methods at one area, as they are scored and as they are heard."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .drawing import new_figure, styled
from .style import method_colour, method_label

CONTROL_LINES = {"random": ("random bins, scored", ":"), "energy": ("loudest bins, scored", "--")}
SIDES = (("", 0.16, "as scored"), ("_heard", -0.16, "as heard"))  # suffix, shift of the row, words


@styled
def equal_area(table, metrics: Sequence[str] = ("FidIn", "FF")):
    """Means as scored (hollow) and as heard (filled) with 95 % intervals, a row a method or control; what the
    controls score is drawn through all rows.

    Parameters
    ----------
    table : pandas.DataFrame
        From ``overview.equal_area``.
    """
    from matplotlib.lines import Line2D

    controls, methods = table[table["method"].isin(CONTROL_LINES)].set_index("method"), table.iloc[::-1]
    size = (3.6 * len(metrics) + 1.4, 0.25 * len(methods) + 1.5)
    figure, grid = new_figure(1, len(metrics), size, sharey=True)
    for ax, metric in zip(grid[0], metrics):
        for name in controls.index:
            ax.axvline(
                controls.loc[name, metric], linestyle=CONTROL_LINES[name][1], color="#777777", zorder=0
            )
        for suffix, shift, _ in SIDES:
            _points(ax, methods, metric + suffix, shift, hollow=not suffix)
        ax.set(xlabel=metric, ylim=(-0.7, len(methods) - 0.3))
        ax.grid(axis="y", color="#e8e8e8", linewidth=0.6)
    grid[0, 0].set_yticks(range(len(methods)), [method_label(method) for method in methods["method"]])
    dots = [
        Line2D([], [], linestyle="", marker="o", color="#333333", markerfacecolor=face)
        for face in ("white", "#333333")
    ]
    lines = [Line2D([], [], linestyle=CONTROL_LINES[name][1], color="#777777") for name in controls.index]
    words = [word for *_, word in SIDES] + [CONTROL_LINES[name][0] for name in controls.index]
    figure.legend([*dots, *lines], words, loc="outside upper center", ncols=4)
    return figure


def _points(ax, methods, column: str, shift: float, hollow: bool) -> None:
    """A column's means with their intervals, beside the rows of their methods."""
    mean, low, high = (methods[f"{column}{end}"].to_numpy(float) for end in ("", "_low", "_high"))
    rows = np.arange(len(methods)) + shift
    colours = [method_colour(method) for method in methods["method"]]
    bars = np.maximum(0, [mean - low, high - mean])
    ax.errorbar(mean, rows, xerr=bars, fmt="none", ecolor=colours, linewidth=1, zorder=1)
    ax.scatter(mean, rows, s=24, facecolors="white" if hollow else colours, edgecolors=colours, zorder=2)

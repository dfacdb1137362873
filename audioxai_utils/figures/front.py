"""Faithful or concise: methods and masks as points with their intervals, and the front that none beats."""

from __future__ import annotations

import numpy as np

from ..constants import LOWER_IS_BETTER, STUDY_METHODS
from ..evaluation.bootstrap import pareto_front
from .drawing import new_figure, styled
from .style import METHOD_MARKERS, METRIC_LABELS, PANELS, method_colour, method_label, present

SAME_PLACE = 0.02  # of the axes; points nearer than this share a name


@styled
def faithfulness_against_conciseness(
    results, faithfulness: str = "FF", conciseness: str = "SPS", published=None, title: str | None = None
):
    """One point per method and mask; those that no other point beats in both directions are named.

    Saved as SVG, every point says in a browser what it is when the pointer rests on it. With more methods
    than ``style.PANELS`` only the front is drawn in full: all other points are faint and without intervals.

    Parameters
    ----------
    results : pandas.DataFrame
        Columns method, mask and both metrics (means over clips). Columns ``<metric>_low`` and
        ``<metric>_high``, where present, are drawn as interval bars.
    published : pandas.DataFrame, optional
        The same columns; drawn hollow.
    """
    results = results.groupby(["method", "mask"], as_index=False).mean(numeric_only=True)
    figure, grid = new_figure(1, 1, (6.8, 4.6))
    ax = grid[0, 0]
    metrics = [conciseness, faithfulness]
    front = pareto_front(results[metrics], maximise=[metric not in LOWER_IS_BETTER for metric in metrics])
    methods = present(results, "method", STUDY_METHODS)
    crowded = len(methods) > PANELS
    for method in methods:
        own = results["method"] == method
        full = own & front if crowded else own
        _draw(ax, method, metrics, results[full], results[own & ~full], published)
    _hover_points(ax, results, *metrics)
    edge = results[front].sort_values(metrics)
    ax.plot(
        edge[conciseness], edge[faithfulness], color="#999999", linewidth=0.8, zorder=0, label="Pareto front"
    )
    named = results[front]
    if crowded:
        named = named.assign(mask=named["method"].map(method_label) + " + " + named["mask"])
    _name_points(ax, named, *metrics)
    if published is not None:
        ax.plot([], [], "o", color="#555555", fillstyle="none", label="published")
    worse = " (lower is better)"
    ax.set_xlabel(METRIC_LABELS[conciseness] + (worse if conciseness in LOWER_IS_BETTER else ""))
    ax.set_ylabel(METRIC_LABELS[faithfulness] + (worse if faithfulness in LOWER_IS_BETTER else ""))
    ax.grid(color="#e4e4e4", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.set_title(title or "")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside right upper")
    return figure


def _draw(ax, method: str, metrics: list[str], full, faint, published) -> None:
    """A method's points: ``full`` with their intervals, ``faint`` without, and the published ones hollow."""
    x, y = metrics
    look = {"color": method_colour(method), "marker": METHOD_MARKERS.get(method, "o"), "linestyle": "none"}
    look["markersize"] = 5.5
    bars = {"xerr": _interval(full, x), "yerr": _interval(full, y)}
    ax.errorbar(full[x], full[y], **bars, **look, elinewidth=0.7, alpha=0.9, label=method_label(method))
    ax.plot(faint[x], faint[y], **look, alpha=0.35)
    if published is not None:
        other = published[published["method"] == method]
        ax.plot(other[x], other[y], **look, fillstyle="none", alpha=0.55)


def _hover_points(ax, points, x: str, y: str) -> None:
    """An invisible marker over each point; its label is what `study.save` lets a browser show."""
    for i, point in enumerate(points.to_dict("records")):
        values = (
            f"{metric} {point[metric]:.2f}"
            + (
                f" [{point[f'{metric}_low']:.2f}, {point[f'{metric}_high']:.2f}]"
                if f"{metric}_low" in point
                else ""
            )
            for metric in (y, x)
        )
        words = f"{method_label(point['method'])} + {point['mask']}: {', '.join(values)}"
        ax.plot(point[x], point[y], "o", markersize=9, alpha=0, gid=f"hover-{i}", label=f"_{words}")


def _interval(part, metric: str):
    """Lengths of interval bars (2, n), or None where no interval is given."""
    if f"{metric}_low" not in part or f"{metric}_high" not in part:
        return None
    return np.maximum(0, [part[metric] - part[f"{metric}_low"], part[f"{metric}_high"] - part[metric]])


def _name_points(ax, points, x: str, y: str) -> None:
    """Write mask names beside points, from the top down, each below the one before it; one name a place."""
    ax.margins(0.09)
    (low, high), (left, right) = ax.get_ylim(), ax.get_xlim()
    last, taken = np.inf, []
    for _, point in points.sort_values(y, ascending=False).iterrows():
        place = np.array([(point[x] - left) / (right - left), (point[y] - low) / (high - low)])
        if any(np.abs(place - other).max() < SAME_PLACE for other in taken):
            continue
        taken.append(place)
        side = -1 if point[x] > left + 0.75 * (right - left) else 1
        last = min(point[y] + 0.02 * (high - low), last - 0.045 * (high - low))
        ax.annotate(
            point["mask"],
            xy=(point[x], point[y]),
            xytext=(point[x] + side * 0.035 * (right - left), last),
            ha="left" if side > 0 else "right",
            va="center",
            fontsize=7.5,
            zorder=5,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1},
            arrowprops={"arrowstyle": "-", "color": "#555555", "linewidth": 0.6, "shrinkB": 3},
        )

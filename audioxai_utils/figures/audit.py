"""Figures of the audit: what is heard, what silence is, how sure a mean is."""

from __future__ import annotations

from collections.abc import Sequence

from ..constants import STUDY_METHODS
from .drawing import new_figure, styled
from ..evaluation.frames import CONDITION
from .style import METHOD_MARKERS, method_colour, method_label


def _methods(frame) -> list[str]:
    found = list(dict.fromkeys(frame["method"]))
    return [m for m in STUDY_METHODS if m in found] + [m for m in found if m not in STUDY_METHODS]


@styled
def scored_against_heard(gap, metrics: Sequence[str] = ("FidIn", "FF")):
    """One point per condition, method and mask: the mean score of the spectrogram against that of the sound.

    Parameters
    ----------
    gap : pandas.DataFrame
        Columns method and for each metric ``<metric>`` and ``<metric>_heard``.
    """
    figure, grid = new_figure(1, len(metrics), (3.6 * len(metrics) + 1.2, 3.5))
    for ax, metric in zip(grid[0], metrics):
        ax.axline((0, 0), slope=1, color="#999999", linewidth=0.8, zorder=0)
        for method in _methods(gap):
            part = gap[gap["method"] == method]
            ax.scatter(part[metric], part[f"{metric}_heard"], s=18, color=method_colour(method), alpha=0.8,
                       marker=METHOD_MARKERS.get(method, "o"), label=method_label(method))
        ax.set(xlabel=f"{metric} of the masked spectrogram", ylabel=f"{metric} of the masked sound")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside right upper")
    return figure


@styled
def fill_sensitivity(fills, metrics: Sequence[str] = ("FF", "FidIn", "AD")):
    """How each method's score moves with what takes the place of the masked bins; a row of panels per condition.

    Parameters
    ----------
    fills : pandas.DataFrame
        From ``audit.fill_sensitivity``, conditions below each other, of one protocol.
    """
    names, conditions = list(dict.fromkeys(fills["fill"])), list(fills.groupby(CONDITION, sort=False))
    size = (2.7 * len(metrics) + 1.4, 1.9 * len(conditions) + 0.9)
    figure, grid = new_figure(len(conditions), len(metrics), size, sharex=True, sharey="col")
    for row, (condition, here) in zip(grid, conditions):
        for ax, metric in zip(row, metrics):
            for method in _methods(here):
                values = here[here["method"] == method].set_index("fill")[metric].reindex(names)
                ax.plot(range(len(names)), values, color=method_colour(method), marker=METHOD_MARKERS.get(method, "o"),
                        label=method_label(method))
            ax.set_xticks(range(len(names)), [name.replace(" ", "\n", 1) for name in names])
            ax.set(xlim=(-0.3, len(names) - 0.7))
            ax.grid(axis="y", color="#dddddd", linewidth=0.6)
        row[0].set_ylabel(", ".join(condition))
    for ax, metric in zip(grid[0], metrics):
        ax.set_title(metric + (" (%)" if metric == "AD" else ""))
    for ax in grid[-1]:
        ax.set_xlabel("fill")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside right upper")
    return figure


@styled
def intervals(table, metrics: Sequence[str]):
    """Mean and 95 % interval of every method at its best mask, a panel per metric, protocols side by side.

    Parameters
    ----------
    table : pandas.DataFrame
        From ``comparisons.mean_intervals`` of one condition: protocol, method, mask, metric, mean, low, high.
    """
    methods, protocols = _methods(table), list(dict.fromkeys(table["protocol"]))
    figure, grid = new_figure(1, len(metrics), (2.6 * len(metrics) + 0.8, 0.42 * len(methods) + 1.5), sharey=True)
    for ax, metric in zip(grid[0], metrics):
        for number, protocol in enumerate(protocols):
            rows = table[(table["metric"] == metric) & (table["protocol"] == protocol)].set_index("method")
            for place, method in enumerate(methods):
                row = rows.loc[method]
                y = place + 0.3 * (number - (len(protocols) - 1) / 2)
                ax.plot([row["low"], row["high"]], [y, y], color=method_colour(method), linewidth=1.6)
                ax.plot(row["mean"], y, marker="o" if protocol == "paper" else "s", color=method_colour(method),
                        markerfacecolor="white" if protocol == "paper" else method_colour(method))
        ax.set_yticks(range(len(methods)), [method_label(m) for m in methods])
        ax.set(xlabel=metric + (" (%)" if metric in ("AD", "AG", "AI") else ""))
        ax.grid(axis="x", color="#dddddd", linewidth=0.6)
    grid[0, 0].invert_yaxis()
    figure.suptitle("hollow: paper, filled: audited; bars are 95 % intervals over clips", fontsize=8, fontweight="normal")
    return figure

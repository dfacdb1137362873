"""Figures of rankings on several kinds of sound: scores of each method in each, and how well ranks agree."""

from __future__ import annotations

import numpy as np

from ..evaluation.comparisons import MATCHED_CONTROLS, lower_is_better
from ..words import column_label, method_label
from .drawing import as_text, new_figure, styled
from .style import METHOD_MARKERS, method_colour

SHOWN = ("FF", "FidIn", "AD", "FF_heard", "FidIn_heard", "AD_heard")
SPREAD = 0.36  # of a set's width, over which its methods are spread so that bars do not hide each other


@styled
def scores_by_sound(ranked, metrics=SHOWN):
    """Means with 95 % intervals of each method in each set of clips; lines that cross are ranks that change.

    Axes are turned so that up is better. Controls of the same area are dotted; they are scored, not heard.

    Parameters
    ----------
    ranked : pandas.DataFrame
        From `audit.other_sounds.rankings`.
    """
    sets, methods = (list(dict.fromkeys(ranked[name])) for name in ("dataset", "method"))
    n_columns = min(3, len(metrics))
    n_rows = -(-len(metrics) // n_columns)
    figure, grid = new_figure(n_rows, n_columns, (3.3 * n_columns + 1.6, 2.7 * n_rows), sharex=True)
    for ax, metric in zip(grid.flat, metrics):
        here = ranked[ranked["metric"] == metric]
        for place, method in enumerate(methods):
            row = here[here["method"] == method].set_index("dataset").reindex(sets)
            x = np.arange(len(sets)) + SPREAD * ((place + 0.5) / len(methods) - 0.5)
            bars = np.maximum(0, [row["mean"] - row["low"], row["high"] - row["mean"]])
            ax.errorbar(
                x,
                row["mean"],
                yerr=bars,
                color=method_colour(method),
                marker=METHOD_MARKERS.get(method, "o"),
                markersize=4,
                linestyle=":" if method in MATCHED_CONTROLS else "-",
                linewidth=0.8,
                elinewidth=0.7,
                label=method_label(method),
            )
        if lower_is_better(metric):
            ax.invert_yaxis()
        ax.set(title=column_label(metric) + (" (%)" if metric.startswith("AD") else ""))
        ax.set_xticks(range(len(sets)), [as_text(name) for name in sets])
        ax.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    for ax in grid.flat[len(metrics) :]:
        ax.set_axis_off()
    for ax in grid.flat[len(metrics) - n_columns : len(metrics)]:  # the lowest of each column
        ax.tick_params(labelbottom=True)
    for ax in grid[:, 0]:
        ax.set_ylabel("better →")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside right upper")
    return figure


@styled
def agreement_of_sounds(agreed):
    """Kendall's tau of every two sets with its 95 % interval, a panel a metric.

    The cross is the agreement of a half of each, the tick what halves of sets that rank alike would reach.

    Parameters
    ----------
    agreed : pandas.DataFrame
        From `audit.other_sounds.agreement`; metrics that rank nothing are left out.
    """
    known = agreed.dropna(subset="kendall")
    metrics = list(dict.fromkeys(known["metric"]))
    pairs = list(dict.fromkeys(zip(known["first"], known["second"])))
    n_columns = min(4, len(metrics))
    n_rows = -(-len(metrics) // n_columns)
    size = (2.1 * n_columns + 1.9, (0.24 * len(pairs) + 1.0) * n_rows + 0.4)
    figure, grid = new_figure(n_rows, n_columns, size, sharex=True, sharey=True)
    y = np.arange(len(pairs))[::-1]
    for ax, metric in zip(grid.flat, metrics):
        here = known[known["metric"] == metric].set_index(["first", "second"]).reindex(pairs)
        bars = np.maximum(0, [here["kendall"] - here["kendall_low"], here["kendall_high"] - here["kendall"]])
        ax.errorbar(here["kendall"], y, xerr=bars, fmt="o", color="#222222", markersize=4, elinewidth=0.9)
        ax.plot(here["within"], y, "|", color="#009E73", markersize=11, markeredgewidth=1.8)
        ax.plot(here["across"], y, "x", color="#D55E00", markersize=4.5)
        ax.axvline(0, color="#777777", linewidth=0.8, zorder=0)
        ax.set(title=column_label(metric), xlim=(-1.05, 1.05), ylim=(-0.6, len(pairs) - 0.4))
        ax.grid(axis="x", color="#e4e4e4", linewidth=0.6)
    for ax in grid.flat[len(metrics) :]:
        ax.set_axis_off()
    for ax in grid.flat[len(metrics) - n_columns : len(metrics)]:  # the lowest of each column
        ax.tick_params(labelbottom=True)
        ax.set_xlabel("Kendall's τ")
    grid[0, 0].set_yticks(y, [f"{as_text(one)}, {as_text(other)}" for one, other in pairs])
    marks = (("o", "#222222", "all clips of both"), ("x", "#D55E00", "halves of both"))
    for sign, colour, words in (*marks, ("|", "#009E73", "halves, if both rank alike")):
        grid[0, 0].plot([], [], sign, color=colour, label=words, markeredgewidth=1.5)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure

"""Figures of localisation: relevance on the source, its agreement with faithfulness, masks elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..audit.robustness import WHOLE_CLIP
from ..evaluation.frames import CONDITION
from ..words import condition_label, method_label
from .audit import methods_of
from .drawing import new_figure, styled
from .style import METHOD_MARKERS, method_colour

MEASURES = {
    "mass": ("relevance inside the ideal mask", "area"),
    "pointing": ("energy pointed to that is the source's", "source_share"),
    "si_sdr_gain": ("SI-SDR gain of the best mask (dB)", None),
}
ACCURACIES = {"mass": "area", "rank": "area", "pointing": "source_share"}  # measure -> what chance gives


@styled
def localisation(table):
    """Relevance mass, rank accuracy and energy pointed to, clip by clip; bars are means, rows are conditions.

    Parameters
    ----------
    table : pandas.DataFrame
        From ``localisation.localisation``, conditions below each other. Dashed lines are chance.
    """
    import seaborn

    methods, conditions = methods_of(table), table.groupby(CONDITION, sort=False)
    size = (9.2, len(conditions) * (0.27 * len(methods) + 0.35) + 0.8)
    figure, grid = new_figure(len(conditions), len(ACCURACIES), size, sharex=True, sharey=True)
    palette = {method: method_colour(method) for method in methods}
    for row, (condition, here) in zip(grid, conditions):
        for ax, (measure, chance) in zip(row, ACCURACIES.items()):
            look = {"order": methods, "hue": "method", "palette": palette, "legend": False, "ax": ax}
            seaborn.stripplot(here, x=measure, y="method", size=3.5, alpha=0.55, **look)
            seaborn.pointplot(
                here,
                x=measure,
                y="method",
                order=methods,
                color="#222222",
                errorbar=None,
                ax=ax,
                linestyle="none",
                marker="|",
                markersize=11,
                markeredgewidth=1.6,
            )
            ax.axvline(here[chance].mean(), color="#777777", linewidth=0.9, linestyle="--", zorder=0)
            ax.set(xlabel="", ylabel="", xlim=(-0.03, 1.03))
            ax.set_yticks(range(len(methods)), [method_label(method) for method in methods])
        row[0].set_ylabel(condition_label(*condition))
    for ax, measure in zip(grid[0], ACCURACIES):
        ax.set_title(measure)
    return figure


@styled
def against_faithfulness(
    table, correlations, metrics: Sequence[str] = ("FidIn_heard", "FF_heard"), title: str | None = None
):
    """Localisation of every method against the faithfulness of its best mask, with their rank correlation.

    Parameters
    ----------
    table : pandas.DataFrame
        From ``localisation.means`` of one condition: a row per method. Bars are 95 % intervals over clips; a
        dashed line is chance.
    correlations : pandas.DataFrame
        From ``localisation.agreement`` of the same condition.
    """
    figure, grid = new_figure(
        len(metrics),
        len(MEASURES),
        (3.0 * len(MEASURES) + 1.7, 2.6 * len(metrics) + 0.5),
        sharex="col",
        sharey="row",
    )
    known = correlations.set_index(["measure", "metric"])
    for number, (row, metric) in enumerate(zip(grid, metrics), 1):
        for ax, (measure, (words, chance)) in zip(row, MEASURES.items()):
            for method in methods_of(table):
                part = table[table["method"] == method]
                ax.errorbar(
                    part[measure],
                    part[metric],
                    xerr=_bars(part, measure),
                    yerr=_bars(part, metric),
                    color=method_colour(method),
                    marker=METHOD_MARKERS.get(method, "o"),
                    linestyle="none",
                    markersize=5.5,
                    elinewidth=0.7,
                    label=method_label(method),
                )
            ax.axvline(
                table[chance].mean() if chance else 0,
                color="#777777",
                linewidth=0.9,
                linestyle="--",
                zorder=0,
            )
            rho = known.loc[(measure, metric)]
            ax.set_title(
                f"ρ = {rho['spearman']:.2f} ({rho['low']:.2f} to {rho['high']:.2f})", fontweight="normal"
            )
            ax.grid(color="#e4e4e4", linewidth=0.6)
            ax.set_xlabel(words if number == len(grid) else "")
        row[0].set_ylabel(metric.replace("_heard", " of the sound"))
    figure.suptitle(title)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside right upper")
    return figure


def _bars(part, name: str):
    """Lengths of interval bars (2, n)."""
    return np.maximum(0, [part[name] - part[f"{name}_low"], part[f"{name}_high"] - part[name]])


@styled
def robustness(summary, metric: str = "FidIn"):
    """A metric of every mask under every test, as a table in colour.

    Parameters
    ----------
    summary : pandas.DataFrame
        From ``robustness.summarised``; a grey cell means that the test could not be asked.
    """
    import seaborn

    values = summary.pivot(index="mask", columns="test", values=metric)
    values = values.reindex(index=summary["mask"].unique(), columns=summary["test"].unique())
    figure, grid = new_figure(1, 1, (8.8, 0.36 * len(values) + 1.5))
    ax = grid[0, 0]
    ax.set_facecolor("#dddddd")
    seaborn.heatmap(
        values, ax=ax, vmin=0, vmax=1, cmap="mako_r", annot=True, fmt=".2f", linewidths=0.6, cbar=False
    )
    ax.set(xlabel="", ylabel="", title=f"{metric} under tests that should not matter")
    ax.set_yticklabels([_mask_label(name) for name in values.index], rotation=0)
    ax.set_xticklabels(values.columns, rotation=30, ha="right", rotation_mode="anchor")
    ax.tick_params(length=0)
    return figure


def _mask_label(name: str) -> str:
    """``lime + bin`` in the words of the figures."""
    method, plus, mask = name.partition(" + ")
    return name if name == WHOLE_CLIP else method_label(method) + plus + mask

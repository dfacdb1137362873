"""Figures of the sanity checks: a randomised model, a changed sound, ranks under resampling."""

from __future__ import annotations

from collections.abc import Sequence

from ..words import method_label
from .audit import methods_of
from .drawing import new_figure, styled
from .style import METHOD_MARKERS, method_colour

MEASURES = {"spearman": "Spearman correlation", "ssim": "SSIM"}


@styled
def randomisation(table):
    """Likeness of an attribution to the original one as layers are drawn anew from the top.

    Parameters
    ----------
    table : pandas.DataFrame
        From ``randomisation.model_randomisation``, methods below each other. Points are means over the clips
        on which the measure is defined, bars run from the smallest to the largest; a gap means none is.
    """
    import seaborn

    stages, kinds, methods = (
        list(dict.fromkeys(table["stage"])),
        list(dict.fromkeys(table["kind"])),
        methods_of(table),
    )
    figure, grid = new_figure(len(kinds), 2, (8.6, 2.5 * len(kinds) + 0.7), sharex=True, sharey="row")
    look = {
        "palette": {method: method_colour(method) for method in methods},
        "errorbar": ("pi", 100),
        "dodge": 0.35 if len(methods) > 1 else False,
        "markers": [METHOD_MARKERS.get(method, "o") for method in methods],
        "markersize": 4,
        "linewidth": 1.2,
    }
    for row, kind in zip(grid, kinds):
        for ax, (measure, label) in zip(row, MEASURES.items()):
            ax.axhline(0, color="#999999", linewidth=0.8, zorder=0)
            seaborn.pointplot(
                table[table["kind"] == kind],
                x="stage",
                y=measure,
                hue="method",
                order=stages,
                hue_order=methods,
                ax=ax,
                err_kws={"linewidth": 0.7},
                legend="full",
                **look,
            )
            handles = ax.get_legend_handles_labels()[0]
            ax.get_legend().remove()
            names = [stage.replace("conv_block", "conv ") for stage in stages]
            ax.set_xticks(range(len(stages)), names, rotation=45, ha="right")
            ax.set(
                title=f"{label}, {kind}" + (" values" if kind == "absolute" else ""),
                ylim=(None, 1.05),
                ylabel="",
            )
            ax.set_xlabel("")
        row[0].set_ylabel("likeness to the original")
    for ax in grid[-1]:
        ax.set_xlabel("layers drawn anew down to")
    figure.legend(handles, [method_label(method) for method in methods], loc="outside right upper")
    return figure


@styled
def fragility(table):
    """Likeness of maps before and after a change of the sound, with 95 % intervals; a panel per level.

    Parameters
    ----------
    table : pandas.DataFrame
        From ``audit.fragility.table``.
    """
    levels, changes, methods = (
        sorted(set(table["level_db"])),
        list(dict.fromkeys(table["change"])),
        methods_of(table),
    )
    size = (2.9 * len(levels) + 1.4, 0.3 * len(methods) + 1.3)
    figure, grid = new_figure(1, len(levels), size, sharey=True, sharex=True)
    for ax, level in zip(grid[0], levels):
        for number, change in enumerate(changes):
            rows = table[(table["level_db"] == level) & (table["change"] == change)].set_index("method")
            rows = rows.reindex(methods)
            heights = [len(methods) - 1 - i - 0.22 * number for i in range(len(methods))]
            colours = [method_colour(method) for method in methods]
            ax.hlines(heights, rows["similar_low"], rows["similar_high"], colors=colours, lw=1)
            face = colours if number == 0 else "white"
            ax.scatter(rows["similar"], heights, s=22, edgecolors=colours, c=face, zorder=3)
        ax.axvline(1, color="#999999", lw=0.8, zorder=0)
        ax.axvline(0, color="#999999", lw=0.8, zorder=0)
        ax.set(title=f"{-level:.0f} dB below the clip", xlabel="rank correlation with the first map")
        ax.grid(axis="x", color="#e4e4e4", linewidth=0.6)
    grid[0, 0].set_yticks(range(len(methods)), [method_label(method) for method in methods[::-1]])
    grid[0, 0].set_ylim(-0.6, len(methods) - 0.6)
    handles = [
        figure.axes[0].scatter([], [], s=22, edgecolors="#444444", c=colour, label=change)
        for change, colour in zip(changes, ("#444444", "white"))
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=2)
    return figure


@styled
def rank_stability(table, metrics: Sequence[str] = ("FF", "FidIn", "AD", "SPS")):
    """Share of resamples in which each method has each rank; a row per protocol, a panel per metric.

    Parameters
    ----------
    table : pandas.DataFrame
        From ``comparisons.rank_stability`` of one condition.
    """
    import seaborn

    methods, protocols = methods_of(table), list(dict.fromkeys(table["protocol"]))
    size = (2.1 * len(metrics) + 1.2, (0.32 * len(methods) + 0.6) * len(protocols) + 0.5)
    figure, grid = new_figure(len(protocols), len(metrics), size, sharex=True, sharey=True)
    for row, protocol in zip(grid, protocols):
        for ax, metric in zip(row, metrics):
            part = table[(table["protocol"] == protocol) & (table["metric"] == metric)]
            shares = part.pivot(index="method", columns="rank", values="share").reindex(methods)
            crowded = len(methods) > 6
            seaborn.heatmap(
                shares,
                ax=ax,
                vmin=0,
                vmax=1,
                cmap="mako_r",
                annot=not crowded,
                fmt=".0%",
                cbar=False,
                linewidths=0.6,
                annot_kws={"fontsize": 7},
            )
            ax.set(title=f"{metric}, {protocol}", ylabel="", xlabel="")
            ax.set_yticklabels([method_label(method) for method in methods], rotation=0)
            ax.tick_params(length=0)
    for ax in grid[-1]:
        ax.set_xlabel("rank")
    return figure

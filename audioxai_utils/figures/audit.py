"""Figures of the audit: constant masks, additivity, what is heard, what is silence, controls, intervals."""

from __future__ import annotations

from collections.abc import Sequence

from ..constants import MASK_NAMES, STUDY_METHODS
from ..evaluation.comparisons import MATCHED_CONTROLS
from ..evaluation.frames import CONDITION
from ..words import condition_label, method_label
from .drawing import new_figure, styled
from .style import METHOD_MARKERS, method_colour, present

LEAST_ERROR = 1e-16  # what is drawn on a logarithmic axis for an error of nothing


def methods_of(frame) -> list[str]:
    """Methods of a frame, the study's own first."""
    return present(frame, "method", STUDY_METHODS)


@styled
def constant_masks(shares):
    """Share of clips on which a mask has a single value.

    Parameters
    ----------
    shares : pandas.DataFrame
        From ``findings.degenerate_shares``: a row a method, a column a mask.
    """
    import seaborn

    figure, grid = new_figure(1, 1, (8.8, 0.34 * len(shares) + 1.3))
    seaborn.heatmap(
        shares,
        ax=grid[0, 0],
        vmin=0,
        vmax=1,
        cmap="rocket_r",
        annot=True,
        fmt=".0%",
        linewidths=0.6,
        annot_kws={"fontsize": 7.5},
        cbar=False,
    )
    _name_cells(grid[0, 0], shares.index, shares.columns)
    grid[0, 0].set_title("clips with a constant mask")
    return figure


@styled
def additivity(table):
    """Relative additivity error of every clip, on a logarithmic axis; a row a method.

    Parameters
    ----------
    table : pandas.DataFrame
        From ``sanity_checks.additivity``.
    """
    import seaborn

    methods = methods_of(table)
    figure, grid = new_figure(1, 1, (6.4, 0.5 * len(methods) + 0.9))
    ax = grid[0, 0]
    drawn = table.assign(error=table["additivity_error"].clip(lower=LEAST_ERROR))
    seaborn.stripplot(
        drawn,
        x="error",
        y="method",
        hue="method",
        order=methods,
        palette=_palette(methods),
        ax=ax,
        log_scale=True,
        legend=False,
        size=4.5,
        alpha=0.7,
    )
    ax.axvline(1, color="#999999", linewidth=0.8, linestyle="--", zorder=0)
    ax.set_yticks(range(len(methods)), [method_label(method) for method in methods])
    ax.set(xlabel="additivity error, relative to the logits' difference (dashed: as large as it)", ylabel="")
    return figure


@styled
def scored_against_heard(gap, metrics: Sequence[str] = ("FidIn", "FF")):
    """One point per condition, method and mask: the mean score of the spectrogram against that of the sound.

    Parameters
    ----------
    gap : pandas.DataFrame
        Columns method and for each metric ``<metric>`` and ``<metric>_heard``.
    """
    import seaborn

    figure, grid = new_figure(1, len(metrics), (3.6 * len(metrics) + 1.2, 3.5))
    for ax, metric in zip(grid[0], metrics):
        ax.axline((0, 0), slope=1, color="#999999", linewidth=0.8, zorder=0)
        for method in methods_of(gap):
            seaborn.scatterplot(
                gap[gap["method"] == method],
                x=metric,
                y=f"{metric}_heard",
                ax=ax,
                s=26,
                alpha=0.8,
                color=method_colour(method),
                marker=METHOD_MARKERS.get(method, "o"),
                label=method_label(method),
                legend=False,
            )
        ax.set(xlabel=f"{metric} of the masked spectrogram", ylabel=f"{metric} of the masked sound")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside right upper")
    return figure


@styled
def fill_sensitivity(fills, metrics: Sequence[str] = ("FF", "FidIn", "AD")):
    """How each method's score moves with what takes the place of the masked bins; a row per condition.

    Parameters
    ----------
    fills : pandas.DataFrame
        From ``fills.fill_sensitivity``, conditions below each other, of one protocol.
    """
    import seaborn

    names, conditions, methods = (
        list(dict.fromkeys(fills["fill"])),
        fills.groupby(CONDITION, sort=False),
        methods_of(fills),
    )
    size = (2.7 * len(metrics) + 1.4, 1.9 * len(conditions) + 0.9)
    figure, grid = new_figure(len(conditions), len(metrics), size, sharex=True, sharey="col")
    markers = [METHOD_MARKERS.get(method, "o") for method in methods]
    for row, (condition, here) in zip(grid, conditions):
        for ax, metric in zip(row, metrics):
            seaborn.pointplot(
                here,
                x="fill",
                y=metric,
                hue="method",
                order=names,
                hue_order=methods,
                ax=ax,
                errorbar=None,
                palette=_palette(methods),
                markers=markers,
                markersize=5,
                linewidth=1.3,
                legend="full",
            )
            handles = ax.get_legend_handles_labels()
            ax.get_legend().remove()
            ax.set(xlabel="", ylabel="")
            ax.set_xticks(range(len(names)), [name.replace(" ", "\n", 1) for name in names])
            ax.grid(axis="y", color="#dddddd", linewidth=0.6)
        row[0].set_ylabel(condition_label(*condition))
    for top, bottom, metric in zip(grid[0], grid[-1], metrics):
        top.set_title(metric + (" (%)" if metric == "AD" else ""))
        bottom.set_xlabel("fill")
    figure.legend(handles[0], [method_label(method) for method in handles[1]], loc="outside right upper")
    return figure


@styled
def controls_beaten(marks, controls: Sequence[str] = MATCHED_CONTROLS):
    """In how many conditions each method and mask beats a control of its own area; a panel per control.

    Parameters
    ----------
    marks : pandas.DataFrame
        From ``comparisons.control_marks``.
    """
    import seaborn

    methods, masks = methods_of(marks), present(marks, "mask", MASK_NAMES)
    n_conditions = len(marks[CONDITION].drop_duplicates())
    size = (8.8, len(controls) * (0.3 * len(methods) + 0.4) + 0.9)
    figure, grid = new_figure(len(controls), 1, size, sharex=True)
    for ax, control in zip(grid[:, 0], controls):
        beaten = marks.assign(beaten=~marks["not_better_than"].fillna("").str.contains(control))
        counts = beaten.pivot_table(index="method", columns="mask", values="beaten", aggfunc="sum").astype(
            int
        )
        seaborn.heatmap(
            counts.reindex(index=methods, columns=masks),
            ax=ax,
            vmin=0,
            vmax=n_conditions,
            cmap="mako_r",
            annot=True,
            fmt="g",
            linewidths=0.6,
            cbar=False,
        )
        _name_cells(ax, methods, masks)
        ax.set_title(f"conditions of {n_conditions} in which {control} is beaten")
    return figure


@styled
def intervals(table, metrics: Sequence[str]):
    """Mean and 95 % interval of every method at its best mask, a panel per metric, protocols side by side.

    Parameters
    ----------
    table : pandas.DataFrame
        From ``comparisons.mean_intervals`` of one condition: protocol, method, mask, metric, mean, low, high.
    """
    methods, protocols = methods_of(table), list(dict.fromkeys(table["protocol"]))
    figure, grid = new_figure(
        1, len(metrics), (2.6 * len(metrics) + 0.8, 0.42 * len(methods) + 1.5), sharey=True
    )
    for ax, metric in zip(grid[0], metrics):
        for number, protocol in enumerate(protocols):
            rows = table[(table["metric"] == metric) & (table["protocol"] == protocol)].set_index("method")
            for place, method in enumerate(methods):
                row, colour = rows.loc[method], method_colour(method)
                y = place + 0.3 * (number - (len(protocols) - 1) / 2)
                ax.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=1.6)
                filled = "white" if protocol == "paper" else colour
                ax.plot(
                    row["mean"], y, "o" if protocol == "paper" else "s", color=colour, markerfacecolor=filled
                )
        ax.set_yticks(range(len(methods)), [method_label(method) for method in methods])
        ax.set(xlabel=metric + (" (%)" if metric in ("AD", "AG", "AI") else ""))
        ax.grid(axis="x", color="#dddddd", linewidth=0.6)
    grid[0, 0].invert_yaxis()
    figure.suptitle(
        "hollow: paper, filled: audited; bars are 95 % intervals over clips", fontsize=8, fontweight="normal"
    )
    return figure


def _name_cells(ax, methods: Sequence[str], masks: Sequence[str]) -> None:
    """Name the rows and columns of a heat map of methods and masks."""
    ax.set(xlabel="", ylabel="")
    ax.set_yticklabels([method_label(method) for method in methods], rotation=0)
    ax.set_xticklabels(masks, rotation=30, ha="right", rotation_mode="anchor")
    ax.tick_params(length=0)


def _palette(methods: Sequence[str]) -> dict[str, str]:
    return {method: method_colour(method) for method in methods}

"""Figures of the trust checks: a randomised model, a louder noise, ranks under resampling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..constants import STUDY_METHODS, STUDY_SNR_DB
from .drawing import new_figure, styled
from .style import METHOD_MARKERS, SCENARIO_LABELS, method_colour, method_label

SCENARIO_COLOURS = {"white": "#000000", "room": "#0072B2", "horse": "#D55E00"}
SPARE_COLOURS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MEASURES = {"spearman": "Spearman correlation", "ssim": "SSIM"}


def _methods(frame) -> list[str]:
    found = [name for name in dict.fromkeys(frame["method"]) if name]
    return [m for m in STUDY_METHODS if m in found] + [m for m in found if m not in STUDY_METHODS]


@styled
def randomisation(table):
    """Likeness of an attribution to the original one as layers are drawn anew from the top.

    Parameters
    ----------
    table : pandas.DataFrame
        From ``trust.model_randomisation``, methods below each other. Lines are means over the clips on
        which the measure is defined, bands run from the smallest to the largest; a gap means none is.
    """
    stages, kinds = list(dict.fromkeys(table["stage"])), list(dict.fromkeys(table["kind"]))
    figure, grid = new_figure(len(kinds), 2, (8.6, 2.5 * len(kinds) + 0.7), sharex=True, sharey="row")
    for row, kind in zip(grid, kinds):
        for ax, (measure, label) in zip(row, MEASURES.items()):
            ax.axhline(0, color="#999999", linewidth=0.8, zorder=0)
            for method in _methods(table):
                part = table[(table["kind"] == kind) & (table["method"] == method)]
                spread = part.groupby("stage")[measure].agg(["mean", "min", "max"]).reindex(stages)
                _line(ax, range(len(stages)), spread["mean"], spread["min"], spread["max"], method)
            names = [stage.replace("conv_block", "conv ") for stage in stages]
            ax.set_xticks(range(len(stages)), names, rotation=45, ha="right")
            ax.set(title=f"{label}, {kind}" + (" values" if kind == "absolute" else ""), ylim=(None, 1.05))
    for ax in grid[-1]:
        ax.set_xlabel("layers drawn anew down to")
    for row in grid:
        row[0].set_ylabel("likeness to the original")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside right upper")
    return figure


def _line(ax, x, middle, low, high, method: str) -> None:
    colour = method_colour(method)
    ax.fill_between(list(x), low.astype(float), high.astype(float), color=colour, alpha=0.12, linewidth=0)
    marker = METHOD_MARKERS.get(method, "o")
    ax.plot(list(x), middle, color=colour, marker=marker, markersize=4, label=method_label(method))


@styled
def snr_sweep(table, metric: str = "FidIn"):
    """Accuracy of every scenario, and a metric of the best masks, against the clip-to-noise ratio.

    Parameters
    ----------
    table : pandas.DataFrame
        From ``sweep.snr_sweep`` of one spectrogram type. Bands and bars are 95 % intervals over clips;
        the dotted level is the clean clips; the vertical line is the study's 0.6/0.4 mixture.
    metric : str
        Left out where the table holds accuracy alone.
    """
    noisy = table[np.isfinite(table["snr_db"])]
    scenarios = list(dict.fromkeys(noisy["noise_scenario"]))
    panels = scenarios if (table["metric"] == metric).any() else []
    figure, grid = new_figure(1, 1 + len(panels), (2.5 * (1 + len(panels)) + 1.6, 3.1), sharex=True)
    _accuracy(grid[0, 0], table, scenarios)
    for ax, scenario in zip(grid[0, 1:], panels):
        rows = noisy[(noisy["noise_scenario"] == scenario) & (noisy["metric"] == metric)]
        methods = _methods(rows)
        for number, method in enumerate(methods):  # a little apart, so that equal values both show
            part = rows[rows["method"] == method].sort_values("snr_db")
            shift = min(0.4, 2 / len(methods)) * (number - (len(methods) - 1) / 2)
            bars = np.maximum(0, [part["mean"] - part["low"], part["high"] - part["mean"]])
            ax.errorbar(part["snr_db"] + shift, part["mean"], yerr=bars, color=method_colour(method), markersize=4,
                        marker=METHOD_MARKERS.get(method, "o"), elinewidth=0.7, label=method_label(method))
        limits = (-0.04, 1.04) if metric == "FidIn" else None
        ax.set(title=f"{metric}, {SCENARIO_LABELS.get(scenario, scenario)}", ylim=limits)
    for ax in grid[0]:
        ax.axvline(STUDY_SNR_DB, color="#555555", linewidth=0.9, linestyle="--", zorder=0)
        ax.set(xlabel="clip to noise (dB)", xticks=sorted(set(noisy["snr_db"])))
    grid[0, 0].annotate(f"study:\n+{STUDY_SNR_DB:.2f} dB", (STUDY_SNR_DB, 1), (3, -2), va="top", fontsize=7,
                        xycoords=("data", "axes fraction"), textcoords="offset points")
    grid[0, 0].legend(loc="lower right", fontsize=7)
    if panels:
        figure.legend(*grid[0, 1].get_legend_handles_labels(), loc="outside right upper")
    return figure


def _accuracy(ax, table, scenarios: Sequence[str]) -> None:
    rows = table[table["metric"] == "accuracy"]
    clean = rows[rows["noise_scenario"] == "clean"]["mean"]
    if len(clean):
        ax.axhline(float(clean.iloc[0]), color="#555555", linewidth=0.9, linestyle=":", label="clean")
    for number, scenario in enumerate(scenarios):
        part = rows[rows["noise_scenario"] == scenario].sort_values("snr_db")
        colour = SCENARIO_COLOURS.get(scenario, SPARE_COLOURS[number % len(SPARE_COLOURS)])
        ax.fill_between(part["snr_db"], part["low"], part["high"], color=colour, alpha=0.1, linewidth=0)
        label = SCENARIO_LABELS.get(scenario, scenario)
        ax.plot(part["snr_db"], part["mean"], color=colour, marker="o", markersize=4, label=label)
    ax.set(title="test accuracy (%)", ylim=(0, 104))


@styled
def rank_stability(table, metrics: Sequence[str] = ("FF", "FidIn", "AD", "SPS")):
    """Share of resamples in which each method has each rank; a row per protocol, a panel per metric.

    Parameters
    ----------
    table : pandas.DataFrame
        From ``comparisons.rank_stability`` of one condition.
    """
    from matplotlib import colormaps

    methods, protocols = _methods(table), list(dict.fromkeys(table["protocol"]))
    size = (2.2 * len(metrics) + 1.6, (0.32 * len(methods) + 0.75) * len(protocols) + 0.5)
    figure, grid = new_figure(len(protocols), len(metrics), size, sharex=True, sharey=True)
    ranks = sorted(table["rank"].unique())
    colours = colormaps["viridis"](np.linspace(0.1, 0.95, len(ranks)))
    for number, (row, protocol) in enumerate(zip(grid, protocols)):
        row[0].set_ylabel(protocol)
        for ax, metric in zip(row, metrics):
            part = table[(table["protocol"] == protocol) & (table["metric"] == metric)]
            shares = 100 * part.pivot(index="method", columns="rank", values="share").reindex(methods)
            left = np.zeros(len(methods))
            for rank, colour in zip(ranks, colours):
                ax.barh(range(len(methods)), shares[rank], left=left, color=colour, edgecolor="white",
                        linewidth=0.4, label=f"rank {rank}")
                left += shares[rank].to_numpy()
            ax.set(title="" if number else metric, xlim=(0, 100))
            ax.set_yticks(range(len(methods)), [method_label(m) for m in methods])
    for ax in grid[-1]:
        ax.set_xlabel("resamples (%)")
    grid[0, 0].invert_yaxis()
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside right upper")
    return figure


TRUTHS = {
    "mass": ("relevance inside the ideal mask", "area"),
    "pointing": ("energy pointed to that is the clip's", "source_share"),
    "si_sdr_gain": ("SI-SDR gain of the best mask (dB)", None),
}


@styled
def truth_against_faithfulness(table, correlations, metrics: Sequence[str] = ("FidIn_heard", "FF_heard")):
    """Every method's truth against the faithfulness of its best mask; the rank correlation is the panel's title.

    Parameters
    ----------
    table : pandas.DataFrame
        From ``truth.means``: a row per method. Bars are 95 % intervals over clips; a dashed line is chance.
    correlations : pandas.DataFrame
        From ``truth.agreement``.
    """
    figure, grid = new_figure(len(metrics), len(TRUTHS), (3.0 * len(TRUTHS) + 1.7, 2.6 * len(metrics) + 0.5),
                              sharex="col", sharey="row")
    known = correlations.set_index(["measure", "metric"])
    for row, metric in zip(grid, metrics):
        for ax, (measure, (words, chance)) in zip(row, TRUTHS.items()):
            for method in _methods(table):
                part = table[table["method"] == method]
                ax.errorbar(part[measure], part[metric], xerr=_bars(part, measure), yerr=_bars(part, metric),
                            color=method_colour(method), marker=METHOD_MARKERS.get(method, "o"), linestyle="none",
                            markersize=5.5, elinewidth=0.7, label=method_label(method))
            ax.axvline(table[chance].mean() if chance else 0, color="#777777", linewidth=0.9, linestyle="--", zorder=0)
            rho = known.loc[(measure, metric)]
            ax.set_title(f"ρ = {rho['spearman']:.2f} ({rho['low']:.2f} to {rho['high']:.2f})", fontweight="normal")
            ax.grid(color="#e4e4e4", linewidth=0.6)
            if metric == metrics[-1]:
                ax.set_xlabel(words)
        row[0].set_ylabel(metric.replace("_heard", " of the sound"))
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside right upper")
    return figure


def _bars(part, name: str):
    """Lengths of interval bars (2, n)."""
    return np.maximum(0, [part[name] - part[f"{name}_low"], part[f"{name}_high"] - part[name]])

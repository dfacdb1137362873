"""The figure of louder and softer noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..constants import STUDY_SNR_DB
from ..words import SCENARIO_LABELS, method_label
from .audit import methods_of
from .drawing import new_figure, styled
from .style import METHOD_MARKERS, method_colour

SCENARIO_COLOURS = {"white": "#000000", "room": "#0072B2", "horse": "#D55E00"}
SPARE_COLOURS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9")


@styled
def snr_sweep(table, metric: str = "FidIn"):
    """Accuracy of every scenario, and a metric of the best masks, against the clip-to-noise ratio.

    Parameters
    ----------
    table : pandas.DataFrame
        From ``noise_sweep.snr_sweep`` of one spectrogram type. Bands and bars are 95 % intervals over clips;
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
        methods = methods_of(rows)
        for number, method in enumerate(methods):  # a little apart, so that equal values both show
            part = rows[rows["method"] == method].sort_values("snr_db")
            shift = min(0.4, 2 / len(methods)) * (number - (len(methods) - 1) / 2)
            bars = np.maximum(0, [part["mean"] - part["low"], part["high"] - part["mean"]])
            ax.errorbar(
                part["snr_db"] + shift,
                part["mean"],
                yerr=bars,
                color=method_colour(method),
                markersize=4,
                marker=METHOD_MARKERS.get(method, "o"),
                elinewidth=0.7,
                label=method_label(method),
            )
        limits = (-0.04, 1.04) if metric == "FidIn" else None
        ax.set(title=f"{metric}, {SCENARIO_LABELS.get(scenario, scenario)}", ylim=limits)
    for ax in grid[0]:
        ax.axvline(STUDY_SNR_DB, color="#555555", linewidth=0.9, linestyle="--", zorder=0)
        ax.set(xlabel="clip to noise (dB)", xticks=sorted(set(noisy["snr_db"])))
    grid[0, 0].annotate(
        f"study:\n+{STUDY_SNR_DB:.2f} dB",
        (STUDY_SNR_DB, 1),
        (3, -2),
        va="top",
        fontsize=7,
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
    )
    grid[0, 0].legend(fontsize=7)  # where the curves leave room
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

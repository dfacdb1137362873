"""The figure of faithfulness against the quality of the kept sound."""

from __future__ import annotations

import numpy as np

from ..audit.sound_quality import SMOOTHED, measure_of
from ..evaluation.quality import BETTER
from .audit import methods_of
from .drawing import new_figure, styled
from .style import METHOD_MARKERS, method_colour, method_label

AXES = {
    "si_sdr": "SI-SDR against the clean sound (dB)",
    "sdr": "SDR against the clean sound (dB)",
    "lsd": "log-spectral distance (dB)",
    "convergence": "spectral convergence",
    "musical_noise": "musical noise (log-kurtosis ratio, nats)",
    "loudness": "loudness above the clip (LU)",
    "stoi": "STOI",
    "pesq": "PESQ",
}
CUT = 30.0  # dB below the whole clip's; what is worse lies on the edge


@styled
def faithfulness_against_quality(table, faithfulness: str = "FidIn_heard", measures=None):
    """A point per method and mask: heard faithfulness against quality; smoothed masks are hollow.

    A thin line joins a binary mask and the same one smoothed. The star is the whole clip. Axes are turned so
    that right is better.

    Parameters
    ----------
    table : pandas.DataFrame
        From ``sound_quality.means``, of one condition.
    measures : sequence of str, optional
        Default the first of ``sound_quality.measure_of``, and musical noise.
    """
    measures = list(dict.fromkeys(measures or (measure_of(table), "musical_noise")))
    figure, grid = new_figure(1, len(measures), (4.2 * len(measures) + 1.6, 3.9), sharey=True)
    masks, whole = table[table["method"] != "all"], table[table["method"] == "all"]
    for ax, measure in zip(grid[0], measures):
        shown = masks.assign(x=_within(masks[measure], whole[measure]))
        for method in methods_of(shown):
            _points(ax, shown[shown["method"] == method], method, faithfulness)
        ax.plot(
            whole[measure],
            whole[faithfulness],
            "*",
            color="#222222",
            markersize=10,
            label="whole clip",
            zorder=4,
        )
        better = "right" if BETTER[measure] == "higher" else "left"
        if better == "left":
            ax.invert_xaxis()
        edge = "or less at the edge; " if (shown["x"] > masks[measure]).any() else ""
        ax.set(xlabel=f"{AXES[measure]}\n{edge}better →")
        ax.grid(color="#e4e4e4", linewidth=0.6)
        ax.set_axisbelow(True)
    grid[0, 0].set_ylabel(
        {"FidIn_heard": "share of clips whose class is kept, heard"}.get(faithfulness, faithfulness)
    )
    grid[0, 0].plot([], [], "o", color="#555555", fillstyle="none", label="smoothed")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside right upper")
    return figure


def _within(values, whole):
    """Values, those far below the whole clip's on the edge."""
    if values.name not in ("si_sdr", "sdr") or not np.isfinite(whole).all():
        return values
    return values.clip(lower=float(whole.min()) - CUT)


def _points(ax, rows, method: str, faithfulness: str) -> None:
    look = {"color": method_colour(method), "marker": METHOD_MARKERS.get(method, "o"), "linestyle": "none"}
    soft = rows["mask"].str.endswith(SMOOTHED)
    ax.plot(
        rows[~soft]["x"],
        rows[~soft][faithfulness],
        **look,
        markersize=5,
        alpha=0.85,
        label=method_label(method),
    )
    ax.plot(rows[soft]["x"], rows[soft][faithfulness], **look, markersize=5, fillstyle="none", alpha=0.85)
    plain = rows[~soft].set_index("mask")
    for row in rows[soft].to_dict("records"):
        name = row["mask"].removesuffix(SMOOTHED)
        if name in plain.index:
            start = plain.loc[name]
            ax.plot(
                [start["x"], row["x"]],
                [start[faithfulness], row[faithfulness]],
                color=look["color"],
                linewidth=0.5,
                alpha=0.5,
                zorder=0,
            )

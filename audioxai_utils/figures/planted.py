"""Figures of planted causes: where maps point, which metric agrees, at which area and fill."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..audit.planted.agreement import CONTROL_MAPS, judged_everywhere, with_intervals
from ..audit.planted.fills import FILLS
from ..audit.planted.sentences import FILL_LABELS, label
from .drawing import label_axes, new_figure, show_db, show_map, styled
from .style import axes_of, method_colour

MEASURES = {
    "auc": ("rank AUC", 0.5),
    "average_precision": ("average precision", None),
    "auc_decoy": ("AUC of cause against decoy", 0.5),
}
FILL_COLOURS = dict(zip(FILLS, ("#D55E00", "#E69F00", "#0072B2", "#56B4E9", "#009E73", "#CC79A7")))


@styled
def planted_clip(known, spectrogram, clip: int = 0):
    """A clip with its plant, and the bins that the cause (red) and the decoy (blue) changed.

    Parameters
    ----------
    known : audit.planted.cases.Truth
    """
    axes = axes_of(spectrogram, known.db.shape[3])
    figure, grid = new_figure(1, 2, (9.2, 2.8), sharey=True)
    show_db(grid[0, 0], known.db[clip, 0].numpy(), axes)
    shown = np.where(known.cause[clip, 0], 1.0, np.where(known.decoy[clip, 0], -1.0, np.nan))
    show_map(grid[0, 1], shown, axes, cmap="RdBu_r", vmin=-1.3, vmax=1.3)
    for ax, title in zip(
        grid[0], ("clip with cause and decoy", "changed by the cause (red), the decoy (blue)")
    ):
        ax.set_title(title)
        label_axes(ax, axes, frequency=ax is grid[0, 0])
    return figure


@styled
def pointing(points, measures: Sequence[str] = tuple(MEASURES)):
    """Means of each method over cases with 95 % intervals over plants; a marker a classifier, controls below.

    Methods that were not judged in all cases are left out.

    Parameters
    ----------
    points : pandas.DataFrame
        `published.planted` or what `audit.planted.judge.joined` returns. Dashed lines are chance.
    """
    keys = ["classifier", "plant", "case", "method"]
    cases = points.groupby(keys, observed=True)[[*measures, "truth_share"]].mean()
    means = with_intervals(cases.reset_index(), ["classifier", "method"], measures)
    order = means.groupby("method")[measures[0]].mean().sort_values()
    methods = [name for name in order.index if name in CONTROL_MAPS]
    everywhere = judged_everywhere(points)
    methods += [name for name in order.index if name not in CONTROL_MAPS and everywhere[name]]
    figure, grid = new_figure(
        1, len(measures), (3.1 * len(measures) + 1.4, 0.24 * len(methods) + 1), sharey=True
    )
    for ax, measure in zip(grid[0], measures):
        words, chance = MEASURES[measure]
        ax.axvline(
            cases["truth_share"].mean() if chance is None else chance,
            color="#777777",
            lw=0.9,
            ls="--",
            zorder=0,
        )
        for offset, (classifier, part) in zip((0.13, -0.13), means.groupby("classifier", observed=True)):
            part = part.set_index("method").reindex(methods)
            bars = np.maximum(
                0, [part[measure] - part[f"{measure}_low"], part[f"{measure}_high"] - part[measure]]
            )
            ax.errorbar(
                part[measure],
                np.arange(len(methods)) + offset,
                xerr=bars,
                fmt="o" if offset > 0 else "s",
                color="#222222" if offset > 0 else "#999999",
                markersize=4,
                elinewidth=0.8,
                label=classifier,
            )
        ax.axhline(sum(name in CONTROL_MAPS for name in methods) - 0.5, color="#bbbbbb", lw=0.8)
        ax.set(xlabel=words)
        ax.grid(axis="x", color="#e4e4e4", linewidth=0.6)
    labels = [label(name) for name in methods]
    grid[0, 0].set_yticks(range(len(methods)), labels)
    for tick, name in zip(grid[0, 0].get_yticklabels(), methods):
        tick.set_color("#777777" if name in CONTROL_MAPS else method_colour(name))
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


@styled
def agreement_by_area(agreed, metrics: Sequence[str] = ("FF", "FidIn", "AD", "AG")):
    """Rank correlation of a metric with the truth against the masks' area, a line a fill.

    Right of the line are the study's own masks, whose area is whatever the map makes of it.

    Parameters
    ----------
    agreed : pandas.DataFrame
        From `audit.planted.agreement.agreement`; bands are 95 % intervals over plants.
    """
    figure, grid = new_figure(1, len(metrics), (2.5 * len(metrics) + 0.6, 3.1), sharey=True)
    for ax, metric in zip(grid[0], metrics):
        here = agreed[agreed["metric"] == metric]
        equal = here[here["mask"].str.startswith("topK_")]
        equal = equal.assign(area=equal["mask"].str.removeprefix("topK_").astype(float)).sort_values("area")
        for shift, fill in enumerate(FILLS):
            line, look = equal[equal["fill"] == fill], {"color": FILL_COLOURS[fill]}
            ax.fill_between(
                line["area"], line["spearman_low"], line["spearman_high"], alpha=0.13, lw=0, **look
            )
            ax.plot(line["area"], line["spearman"], marker="o", ms=3, label=FILL_LABELS[fill], **look)
            for place, mask in ((95, "bin"), (170, "minmax")):
                row = here[(here["mask"] == mask) & (here["fill"] == fill)]
                bars = [row["spearman"] - row["spearman_low"], row["spearman_high"] - row["spearman"]]
                x = place * (1 + 0.07 * (shift - 2))
                ax.errorbar([x] * len(row), row["spearman"], yerr=bars, fmt="D", ms=3, elinewidth=0.7, **look)
        ax.axhline(0, color="#777777", lw=0.8)
        ax.axvline(68, color="#bbbbbb", lw=0.8)
        ax.set(xscale="log", title=metric, xlabel="kept bins (%)", ylim=(-1, 1))
        ax.set_xticks([1, 2, 5, 10, 20, 50, 95, 170], ["1", "2", "5", "10", "20", "50", "bin", "min-\nmax"])
        ax.minorticks_off()
        ax.grid(color="#e8e8e8", linewidth=0.6)
    grid[0, 0].set_ylabel("rank correlation with the truth")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(FILLS))
    return figure


FRONT_ROWS = {  # (method, mask) -> label, colour, line style
    ("extremal_robust", "minmax"): ("optimised for any fill, soft", "#CC79A7", "-"),
    ("extremal_robust", "bin"): ("optimised for any fill, cut", "#CC79A7", "--"),
    ("lime", "topK"): ("LIME", method_colour("lime"), "-"),
    ("gradcam", "topK"): ("Grad-CAM", method_colour("gradcam"), "-"),
    ("level", "topK"): ("loudest bins", "#777777", "-"),
    ("random", "topK"): ("random bins", "#bbbbbb", "-"),
}


@styled
def area_front(front):
    """Share of clips that keep their class against the kept area: scored under the worst of three fills, and
    heard, in the network that was explained and in another one.

    Parameters
    ----------
    front : pandas.DataFrame
        `published.mask_front`. Stars are the study's ``bin`` masks of LIME and Grad-CAM; bars are 95 %
        intervals over the clips, of the lowest of three means that one's own. Another architecture is asked
        about the clips on which it agrees; the area is the mean over all.
    """
    shown = front[front["grid"].isin(["", "32x64"]) & ~(front["noise"] > 1)]  # the method's own settings
    figure, grid = new_figure(1, 4, (11, 3.0), sharey=True)
    names = {"explained": "explained network", "other": "another architecture"}
    panels = [(network, heard) for network in names for heard in (False, True)]
    for ax, (network, heard) in zip(grid[0], panels):
        here = shown[(shown["network"] == network) & ((shown["fill"] == "heard") == heard)]
        here = here.loc[here.groupby(["method", "mask", "area"])["FidIn"].idxmin()]
        for (method, mask), (words, colour, style) in FRONT_ROWS.items():
            line = here[(here["method"] == method) & (here["mask"] == mask)].sort_values("area")
            bars = [line["FidIn"] - line["FidIn_low"], line["FidIn_high"] - line["FidIn"]]
            look = {"color": colour, "linestyle": style, "elinewidth": 0.7, "marker": "o", "ms": 3}
            ax.errorbar(100 * line["area"], line["FidIn"], yerr=bars, label=words, **look)
        for method in ("lime", "gradcam"):
            star = here[(here["method"] == method) & (here["mask"] == "bin")]
            bars = [star["FidIn"] - star["FidIn_low"], star["FidIn_high"] - star["FidIn"]]
            look = {"color": method_colour(method), "fmt": "*", "ms": 9, "elinewidth": 0.7}
            look["label"] = f"{label(method)} + bin"
            ax.errorbar(100 * star["area"], star["FidIn"], yerr=bars, **look)
        clips = "/".join(map(str, sorted(here["n_clips"].unique())))
        asked = "heard" if heard else "the lowest of three fills"
        ax.set_title(f"{names[network]} ({clips} clips),\n{asked}")
        ax.set(xlabel="mean of the mask (%)", xlim=(0, 100), ylim=(0, 1.03))
        ax.grid(color="#e8e8e8", linewidth=0.6)
    grid[0, 0].set_ylabel("FidIn")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure

"""Statistical figures: training, confusion, kept areas, scores with their intervals; drawn with seaborn.

All functions return a closed matplotlib Figure; save it with ``study.save``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..constants import CONCISENESS_METRICS, LOWER_IS_BETTER, MASK_NAMES, STUDY_METHODS, STUDY_METRICS
from ..evaluation.frames import CONDITION
from .drawing import as_text, new_figure, plain, styled
from .front import faithfulness_against_conciseness
from .style import PANELS, condition_label, method_colour, method_label, present

__all__ = [
    "confusion_matrix",
    "faithfulness_against_conciseness",
    "intervals",
    "kept_area",
    "metric_heatmap",
    "training_curves",
]
LARGEST_NUMBERED = 24  # classes; counts of a larger confusion matrix cannot be read


@styled
def training_curves(history, title: str | None = None):
    """Loss and accuracy over epochs, with the kept epoch (best validation accuracy) marked.

    Parameters
    ----------
    history : pandas.DataFrame
        Columns epoch (of a probe also ``C``, which takes its place), train_loss, validation_loss,
        train_accuracy, validation_accuracy (shares or per cent).
    """
    import seaborn

    best = history.loc[history["validation_accuracy"].idxmax()]
    step = "C" if "C" in history else "epoch"
    figure, grid = new_figure(1, 2, (8.4, 3.0), sharex=True)
    factor = 100.0 if history[["train_accuracy", "validation_accuracy"]].max().max() <= 1 else 1.0
    panels = (("loss", "cross-entropy (nats)", 1.0), ("accuracy", "accuracy (%)", factor))
    for ax, (what, label, unit) in zip(grid[0], panels):
        curves = history.set_index(step)[[f"train_{what}", f"validation_{what}"]] * unit
        curves.columns = ["train", "validation"]
        seaborn.lineplot(
            curves, ax=ax, palette=["#5c6b77", "#0072B2"], dashes=[(4, 2), ""], legend=ax is grid[0, 0]
        )
        ax.axvline(best[step], color="#D55E00", linewidth=1, linestyle=":")
        ax.plot(best[step], best[f"validation_{what}"] * unit, "o", color="#D55E00", label=f"kept {step}")
        ax.set(xlabel=step, ylabel=label)
        if step == "C":
            ax.set_xscale("log")
        else:
            ax.xaxis.get_major_locator().set_params(integer=True)
    accuracy = best["validation_accuracy"] * factor
    grid[0, 1].set_title(f"kept: {step} {best[step]:g}, {accuracy:.1f} % validation", fontweight="normal")
    grid[0, 0].legend()
    figure.suptitle(plain(title))
    return figure


@styled
def confusion_matrix(matrix, classes, title: str | None = None):
    """Clips per true (row) and predicted (column) class; the colour is the share of the row.

    Parameters
    ----------
    matrix : array (K, K)
        Counts.
    """
    import seaborn

    matrix = np.asarray(matrix)
    if matrix.shape != (len(classes), len(classes)):
        raise ValueError(f"matrix must be {len(classes)} x {len(classes)} like classes; got {matrix.shape}")
    share = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    side = 1.8 + 0.42 * min(len(classes), LARGEST_NUMBERED)
    figure, grid = new_figure(1, 1, (side + 0.9, side))
    names = [as_text(name) for name in classes]
    counts = np.where(matrix > 0, matrix.astype(str), "") if len(classes) <= LARGEST_NUMBERED else False
    ax = seaborn.heatmap(
        share,
        vmin=0,
        vmax=1,
        cmap="Blues",
        square=True,
        linewidths=0.4,
        linecolor="#e4e4e4",
        annot=counts,
        fmt="",
        annot_kws={"fontsize": 8},
        xticklabels=names,
        yticklabels=names,
        ax=grid[0, 0],
        cbar_kws={"label": "share of the true class", "shrink": 0.8},
    )
    ax.tick_params(length=0)
    ax.set_xticklabels(ax.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
    ax.set(xlabel="predicted class", ylabel="true class")
    accuracy = 100 * np.trace(matrix) / max(1, matrix.sum())
    ax.set_title(f"{title + ': ' if title else ''}{accuracy:.1f} % of {matrix.sum():g} clips right")
    return figure


@styled
def kept_area(scores, title: str | None = None):
    """How much each mask keeps: the distribution over clips, one panel per method.

    Parameters
    ----------
    scores : pandas.DataFrame
        Columns method, mask, area (share of bins, 0 to 1), one row per clip.
    """
    import seaborn

    methods, masks = present(scores, "method", STUDY_METHODS), present(scores, "mask", MASK_NAMES)
    n_columns = min(PANELS, len(methods))
    n_rows = -(-len(methods) // n_columns)
    size = (2.2 * n_columns + 1.2, (0.27 * len(masks) + 0.9) * n_rows + 0.2)
    figure, grid = new_figure(n_rows, n_columns, size, sharey=True)
    for ax in grid.flat[len(methods) :]:
        ax.set_axis_off()
    per_cent = scores.assign(area=100 * scores["area"])
    for ax, method in zip(grid.flat, methods):
        seaborn.boxplot(
            per_cent[per_cent["method"] == method],
            x="area",
            y="mask",
            order=masks,
            color=method_colour(method),
            whis=(5, 95),
            width=0.62,
            linewidth=0.8,
            fliersize=2.5,
            ax=ax,
        )
        ax.set(xlim=(-3, 103), xlabel="kept area (%)", ylabel="", title=method_label(method))
        ax.grid(axis="x", color="#dddddd", linewidth=0.6)
        ax.set_axisbelow(True)
    figure.suptitle(plain(title))
    return figure


@styled
def metric_heatmap(results, metrics: Sequence[str] = STUDY_METRICS, title: str | None = None):
    """Means of each metric: masks down, methods across; a frame marks the best value of a panel.

    Parameters
    ----------
    results : pandas.DataFrame
        Columns method, mask and the metrics. NaN is drawn grey.
    """
    methods, masks = present(results, "method", STUDY_METHODS), present(results, "mask", MASK_NAMES)
    n_columns = min(4 if len(methods) <= PANELS else 2, len(metrics))
    n_rows = -(-len(metrics) // n_columns)
    size = ((0.6 * len(methods) + 0.3) * n_columns + 1.3, (0.25 * len(masks) + 1.2) * n_rows + 0.4)
    figure, grid = new_figure(n_rows, n_columns, size, sharey=True)
    for ax in grid.flat[len(metrics) :]:
        ax.set_axis_off()
    for ax, metric in zip(grid.flat, metrics):
        values = results.pivot_table(index="mask", columns="method", values=metric, dropna=False)
        _heat(ax, values.reindex(index=masks, columns=methods).astype(float), metric)
        ax.tick_params(labelbottom=True)
    figure.suptitle(plain(title))
    return figure


def _heat(ax, values, metric: str) -> None:
    """One metric's heat map, deeper where it is better; a frame around the best value."""
    import seaborn
    from matplotlib.patches import Rectangle

    lower = metric in LOWER_IS_BETTER
    colours = ("YlGnBu" if metric in CONCISENESS_METRICS else "YlGn") + ("_r" if lower else "")
    finite = values.to_numpy()[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 1.0)
    digits = 1 if max(-low, high) >= 20 else 2
    ax.set_facecolor("#cfcfcf")
    seaborn.heatmap(
        values,
        vmin=low,
        vmax=high,
        cmap=colours,
        annot=True,
        fmt=f".{digits}f",
        annot_kws={"fontsize": 6.8},
        cbar=False,
        xticklabels=[method_label(method) for method in values.columns],
        yticklabels=values.index,
        ax=ax,
    )
    for text in ax.texts:
        text.set_in_layout(False)  # it lies inside its axes: measuring hundreds of them costs a second
    ax.set_xticklabels(ax.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
    ax.tick_params(length=0)
    ax.set(xlabel="", ylabel="", title=f"{metric} {'↓' if lower else '↑'}")
    good = -values.to_numpy() if lower else values.to_numpy()
    if len(finite):
        row, column = np.unravel_index(np.nanargmax(good), good.shape)
        ax.add_patch(Rectangle((column, row), 1, 1, fill=False, edgecolor="#D55E00", linewidth=1.8))


@styled
def intervals(table, metrics: Sequence[str] = STUDY_METRICS, title: str | None = None):
    """Means with their intervals: a row of panels a condition, a panel a metric, a line a method.

    Parameters
    ----------
    table : pandas.DataFrame
        From ``comparisons.mean_intervals`` at each method's best mask: a row per condition, method and
        metric with mean, low and high.
    """
    methods = present(table, "method", STUDY_METHODS)
    conditions = list(table[CONDITION].drop_duplicates().itertuples(index=False, name=None))
    size = (1.45 * len(metrics) + 1.7, (0.26 * len(methods) + 0.6) * len(conditions) + 0.6)
    figure, grid = new_figure(len(conditions), len(metrics), size, sharex="col", sharey=True)
    for row, condition in zip(grid, conditions):
        here = table[(table[CONDITION] == list(condition)).all(axis=1)]
        for ax, metric in zip(row, metrics):
            _points(ax, here[here["metric"] == metric].set_index("method").reindex(methods).reset_index())
            ax.set_xlabel(f"{metric} {'↓' if metric in LOWER_IS_BETTER else '↑'}" if ax in grid[-1] else "")
        row[0].set_title(condition_label(*condition), loc="left")
    figure.suptitle(plain(title))
    return figure


def _points(ax, part) -> None:
    """Means as points in the methods' colours and marks, with their intervals as bars."""
    import seaborn

    names = part["method"].map(method_label)
    bars = np.maximum(0, [part["mean"] - part["low"], part["high"] - part["mean"]])
    ax.errorbar(part["mean"], names, xerr=bars, fmt="none", ecolor=[method_colour(m) for m in part["method"]])
    seaborn.pointplot(
        x=part["mean"],
        y=names,
        hue=names,
        palette=[method_colour(method) for method in part["method"]],
        errorbar=None,
        linestyle="none",
        markersize=4,
        legend=False,
        ax=ax,
    )
    ax.set_ylabel("")
    ax.grid(axis="x", color="#e4e4e4", linewidth=0.6)
    ax.margins(y=0.2)

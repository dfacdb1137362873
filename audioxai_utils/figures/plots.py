"""Every figure of the study, in one style.

All functions return a closed matplotlib Figure (nothing is shown and none piles up); save it with
`results.save_figure`. Maps are (frequency, time); leading axes of size one are dropped. Time is in s,
frequency in Hz on its true scale (linear for the STFT, mel for mel bands), levels in dB.
"""

from __future__ import annotations

import numpy as np

from ..constants import CONCISENESS_METRICS, LOWER_IS_BETTER, MASK_NAMES, STUDY_METHODS, STUDY_METRICS
from .drawing import attribution_bar, label_axes, new_figure, show_attribution, show_db, show_map, styled
from .front import faithfulness_against_conciseness
from .scheme import transform_scheme
from .style import PANELS, axes_of, method_colour, method_label, present, two_dimensional

__all__ = [
    "attribution_over", "confusion_matrix", "faithfulness_against_conciseness", "kept_area", "mask_grid",
    "method_grid", "metric_heatmap", "spectrogram", "spectrogram_grid", "training_curves",
    "transform_scheme", "waveforms",
]


@styled
def spectrogram(db, spectrogram, title: str | None = None):
    """One spectrogram in dB with a colour bar.

    Parameters
    ----------
    db : array (F, T)
        Levels in dB.
    spectrogram : str, SpectrogramParameters or Spectrogram
        Gives the axes.
    """
    db = two_dimensional(db, "db")
    axes = axes_of(spectrogram, db.shape[1])
    figure, grid = new_figure(1, 1, (6.4, 3.0))
    picture = show_db(grid[0, 0], db, axes)
    label_axes(grid[0, 0], axes)
    grid[0, 0].set_title(title or "")
    figure.colorbar(picture, ax=grid[0, 0], label="level (dB)", extend="min")
    return figure


@styled
def attribution_over(db, attribution, spectrogram, title: str | None = None):
    """A signed attribution over its spectrogram: red supports the class, blue speaks against it."""
    db, attribution = two_dimensional(db, "db"), two_dimensional(attribution, "attribution")
    axes = axes_of(spectrogram, db.shape[1])
    figure, grid = new_figure(1, 1, (6.4, 3.0))
    picture = show_attribution(grid[0, 0], db, attribution, axes)
    label_axes(grid[0, 0], axes)
    grid[0, 0].set_title(title or "")
    attribution_bar(figure, picture, ax=grid[0, 0], extend="both")
    return figure


@styled
def mask_grid(masks: dict, spectrogram, title: str | None = None):
    """The masks of one method on one clip; the title gives the kept area, its mean in per cent.

    Parameters
    ----------
    masks : dict of str to array (F, T)
        Masks in [0, 1] by name, as `masks.build_masks` gives them.
    """
    maps = {name: two_dimensional(mask, f"masks[{name!r}]") for name, mask in masks.items()}
    n_columns = 7 if len(maps) % 7 == 0 else min(4, len(maps))
    n_rows = -(-len(maps) // n_columns)
    size = (1.95 * n_columns + 0.8, 1.75 * n_rows + 0.8)
    figure, grid = new_figure(n_rows, n_columns, size, sharex=True, sharey=True)
    for position, (ax, (name, mask)) in enumerate(zip(grid.flat, maps.items())):
        axes = axes_of(spectrogram, mask.shape[1])
        picture = show_map(ax, mask, axes, cmap="gray", vmin=0, vmax=1)
        if position == 0:  # the others share its ticks
            label_axes(ax, axes)
        ax.set(xlabel="time (s)", ylabel=f"Hz{' (mel)' if axes.mel else ''}")
        ax.label_outer(remove_inner_ticks=True)
        area = 100 * mask.mean()
        kept = "constant" if np.ptp(mask) == 0 else f"{area:.1f} %" if area >= 1 else f"{area:.2g} %"
        ax.set_title(f"{name}: {kept}", fontweight="normal", fontsize=8.5)
    for ax in grid.flat[len(maps):]:
        ax.set_axis_off()
    figure.colorbar(picture, ax=grid, label="mask (1 = kept)", shrink=0.8, aspect=25)
    figure.suptitle(title or "")
    return figure


@styled
def method_grid(rows, kind: str = "attribution", title: str | None = None):
    """Clips by methods, as Fig. 2 of the study: each row a spectrogram, then every method's map.

    Parameters
    ----------
    rows : sequence of dict
        ``label`` (words), ``spectrogram`` (gives the axes), ``db`` (F, T), ``maps`` (method to (F, T)).
    kind : {"attribution", "kept"}
        Whether the maps are signed attributions or kept spectrograms in dB.
    """
    if kind not in ("attribution", "kept"):
        raise ValueError(f"kind must be attribution or kept; got {kind!r}")
    methods = list(rows[0]["maps"])
    width = 2.35 if len(methods) <= PANELS else 1.7
    figure, grid = new_figure(len(rows), 1 + len(methods), (width * (1 + len(methods)), 1.65 * len(rows) + 0.7))
    for number, row in enumerate(rows):
        db = two_dimensional(row["db"], "db")
        axes = axes_of(row["spectrogram"], db.shape[1])
        level = show_db(grid[number, 0], db, axes)
        for ax, method in zip(grid[number, 1:], methods):
            values = two_dimensional(row["maps"][method], f"maps[{method!r}]")
            signed = show_attribution(ax, db, values, axes) if kind == "attribution" else show_db(ax, values, axes)
        for column, ax in enumerate(grid[number]):
            label_axes(ax, axes, time=number == len(rows) - 1, frequency=column == 0)
            if number == 0:
                ax.set_title("Clip" if column == 0 else method_label(methods[column - 1]))
        grid[number, 0].set_ylabel(f"{row['label']}\nHz{' (mel)' if axes.mel else ''}")
    figure.colorbar(level, ax=grid[:, 0] if kind == "attribution" else grid, label="level (dB)", extend="min",
                    location="bottom" if kind == "attribution" else "right", shrink=0.9, aspect=18)
    if kind == "attribution":
        wide = len(methods) > 2
        attribution_bar(figure, signed, wide, ax=grid[:, 1:], location="bottom", extend="both",
                        shrink=0.5 if wide else 0.9, aspect=30 if wide else 18)
    figure.suptitle(title or "")
    return figure


@styled
def waveforms(waveforms: dict, sample_rate: int, title: str | None = None):
    """Waveforms under each other on one scale, each with its level (RMS in dB below full scale).

    Parameters
    ----------
    waveforms : dict of str to array (samples,)
        Sounds by name.
    sample_rate : int
        Samples per second.
    """
    sounds = {name: np.asarray(sound, dtype=float).reshape(-1) for name, sound in waveforms.items()}
    figure, grid = new_figure(len(sounds), 1, (7.0, 1.15 * len(sounds) + 0.8), sharex=True, sharey=True)
    peak = max(float(np.abs(sound).max(initial=0)) for sound in sounds.values()) or 1.0
    for ax, (name, sound) in zip(grid[:, 0], sounds.items()):
        ax.plot(np.arange(len(sound)) / sample_rate, sound, color="#30506b", linewidth=0.4, rasterized=True)
        rms = np.sqrt(np.mean(sound**2)) if len(sound) else 0.0
        level = f"{20 * np.log10(rms):.1f} dB RMS" if rms > 0 else "silent"
        ax.set_title(f"{name} ({level})", loc="left", fontweight="normal")
        ax.set_ylim(-1.05 * peak, 1.05 * peak)
        ax.set_xlim(0, max(1, len(sound)) / sample_rate)
    grid[-1, 0].set_xlabel("time (s)")
    figure.supylabel("amplitude (full scale = 1)", fontsize=9)
    figure.suptitle(title or "")
    return figure


@styled
def training_curves(history, title: str | None = None):
    """Loss and accuracy over epochs, with the kept epoch (best validation accuracy) marked.

    Parameters
    ----------
    history : pandas.DataFrame
        Columns epoch, train_loss, validation_loss, train_accuracy, validation_accuracy (shares or per cent).
    """
    best = history.loc[history["validation_accuracy"].idxmax()]
    figure, grid = new_figure(1, 2, (8.4, 3.0), sharex=True)
    factor = 100.0 if history[["train_accuracy", "validation_accuracy"]].max().max() <= 1 else 1.0
    panels = (("loss", "cross-entropy (nats)", 1.0), ("accuracy", "accuracy (%)", factor))
    for ax, (what, label, unit) in zip(grid[0], panels):
        for part, colour, style in (("train", "#5c6b77", "--"), ("validation", "#0072B2", "-")):
            curve = history[f"{part}_{what}"] * unit
            ax.plot(history["epoch"], curve, style, color=colour, linewidth=1.4, label=part)
        ax.axvline(best["epoch"], color="#D55E00", linewidth=1, linestyle=":")
        ax.plot(best["epoch"], best[f"validation_{what}"] * unit, "o", color="#D55E00", label="kept epoch")
        ax.set(xlabel="epoch", ylabel=label)
        ax.xaxis.get_major_locator().set_params(integer=True)
    accuracy = best["validation_accuracy"] * factor
    grid[0, 1].set_title(f"kept: epoch {int(best['epoch'])}, {accuracy:.1f} % validation", fontweight="normal")
    grid[0, 0].legend()
    figure.suptitle(title or "")
    return figure


@styled
def confusion_matrix(matrix, classes, title: str | None = None):
    """Clips per true (row) and predicted (column) class; the colour is the share of the row.

    Parameters
    ----------
    matrix : array (K, K)
        Counts.
    """
    matrix = np.asarray(matrix)
    if matrix.shape != (len(classes), len(classes)):
        raise ValueError(f"matrix must be {len(classes)} x {len(classes)} like classes; got {matrix.shape}")
    share = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    side = 1.8 + 0.42 * min(len(classes), 24)
    figure, grid = new_figure(1, 1, (side + 0.9, side))
    ax = grid[0, 0]
    picture = ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    names = [str(name).replace("_", " ") for name in classes]
    ax.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(len(names)), names)
    for (row, column), count in np.ndenumerate(matrix if len(classes) <= 24 else np.zeros((0, 0))):
        if count:
            colour = "white" if share[row, column] > 0.55 else "#222222"
            ax.text(column, row, f"{count:g}", ha="center", va="center", color=colour, fontsize=8)
    ax.set(xlabel="predicted class", ylabel="true class")
    accuracy = 100 * np.trace(matrix) / max(1, matrix.sum())
    ax.set_title(f"{title + ': ' if title else ''}{accuracy:.1f} % of {matrix.sum():g} clips right")
    figure.colorbar(picture, ax=ax, label="share of the true class", shrink=0.8)
    return figure


@styled
def kept_area(scores, title: str | None = None):
    """How much each mask keeps: the distribution over clips, one panel per method.

    Parameters
    ----------
    scores : pandas.DataFrame
        Columns method, mask, area (share of bins, 0 to 1), one row per clip.
    """
    methods, masks = present(scores, "method", STUDY_METHODS), present(scores, "mask", MASK_NAMES)
    n_columns = min(PANELS, len(methods))
    n_rows = -(-len(methods) // n_columns)
    size = (2.2 * n_columns + 1.2, (0.27 * len(masks) + 0.9) * n_rows + 0.2)
    figure, grid = new_figure(n_rows, n_columns, size, sharey=True)
    for ax in grid.flat[len(methods):]:
        ax.set_axis_off()
    for ax, method in zip(grid.flat, methods):
        part = scores[scores["method"] == method]
        areas = [100 * part.loc[part["mask"] == mask, "area"].to_numpy() for mask in masks]
        box = ax.boxplot(areas, orientation="horizontal", widths=0.62, patch_artist=True, whis=(5, 95),
                         flierprops={"marker": ".", "markersize": 3, "markeredgecolor": "#777777"},
                         medianprops={"color": "black"})
        for patch in box["boxes"]:
            patch.set(facecolor=method_colour(method), alpha=0.75)
        ax.set_yticks(range(1, len(masks) + 1), masks)
        ax.set(xlim=(-3, 103), xlabel="kept area (%)", title=method_label(method))
        ax.grid(axis="x", color="#dddddd", linewidth=0.6)
        ax.set_axisbelow(True)
    grid[0, 0].invert_yaxis()
    figure.suptitle(title or "")
    return figure


@styled
def metric_heatmap(results, metrics=STUDY_METRICS, title: str | None = None):
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
    for ax in grid.flat[len(metrics):]:
        ax.set_axis_off()
    for ax, metric in zip(grid.flat, metrics):
        values = results.pivot_table(index="mask", columns="method", values=metric, dropna=False)
        values = values.reindex(index=masks, columns=methods).to_numpy(float)
        colours = "YlGnBu" if metric in CONCISENESS_METRICS else "YlGn"
        good = -values if metric in LOWER_IS_BETTER else values
        ax.set_facecolor("#cfcfcf")
        ax.imshow(good, cmap=colours, aspect="auto")
        _write_values(ax, values, good)
        ax.set_xticks(range(len(methods)), [method_label(m) for m in methods], rotation=45, ha="right",
                      rotation_mode="anchor")
        ax.set_yticks(range(len(masks)), masks)
        ax.set_title(f"{metric} {'↓' if metric in LOWER_IS_BETTER else '↑'}")
        ax.spines[:].set_visible(False)
    figure.suptitle(title or "")
    return figure


def _write_values(ax, values, good) -> None:
    """Numbers in the cells of a heat map, dark on light and light on dark; a frame around the best."""
    from matplotlib.patches import Rectangle

    if not np.isfinite(good).any():
        return
    low, high = np.nanmin(good), np.nanmax(good)
    digits = 1 if np.nanmax(np.abs(values)) >= 20 else 2
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            dark = good[row, column] > low + 0.62 * (high - low) and high > low
            text = ax.text(column, row, f"{value:.{digits}f}", ha="center", va="center", fontsize=6.8,
                           color="white" if dark else "#222222")
            text.set_in_layout(False)  # it lies inside its axes: measuring hundreds of them costs a second
    row, column = np.unravel_index(np.nanargmax(good), good.shape)
    ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="#D55E00", linewidth=1.8))


@styled
def spectrogram_grid(spectrograms: dict, spectrogram, n_columns: int = 5, title: str | None = None):
    """Several spectrograms in dB on one scale and one pair of axes.

    Parameters
    ----------
    spectrograms : dict of str to array (F, T)
        Levels in dB by title.
    spectrogram : str, SpectrogramParameters or Spectrogram
        Gives the axes.
    """
    n_columns = min(n_columns, len(spectrograms))
    n_rows = -(-len(spectrograms) // n_columns)
    figure, grid = new_figure(n_rows, n_columns, (2.5 * n_columns + 1, 1.9 * n_rows + 0.5))
    for ax in grid.flat[len(spectrograms):]:
        ax.set_axis_off()
    for number, (name, db) in enumerate(spectrograms.items()):
        db = two_dimensional(db, f"spectrograms[{name!r}]")
        axes, ax = axes_of(spectrogram, db.shape[1]), grid.flat[number]
        level = show_db(ax, db, axes)
        last_row = number + n_columns >= len(spectrograms)
        label_axes(ax, axes, time=last_row, frequency=number % n_columns == 0)
        ax.set_title(name)
    figure.colorbar(level, ax=grid, label="level (dB)", extend="min")
    figure.suptitle(title or "")
    return figure

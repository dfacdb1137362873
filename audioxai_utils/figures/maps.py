"""Pictures of maps (spectrograms, attributions, masks) and of waveforms, in one style.

All functions return a closed matplotlib Figure (nothing is shown and none piles up); save it with
``study.save``. Maps are (frequency, time); leading axes of size one are dropped. Time is in s, frequency in
Hz on its true scale (linear for the STFT, mel for mel bands), levels in dB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..constants import PROTOCOLS, check_choice
from ..words import mask_formula
from .drawing import (
    as_text,
    attribution_bar,
    label_axes,
    new_figure,
    plain,
    show_attribution,
    show_db,
    show_map,
    styled,
)
from .style import ATTRIBUTION_COLOURS, PANELS, axes_of, method_label, two_dimensional

if TYPE_CHECKING:
    import torch

    from ..study.condition import Condition


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
    grid[0, 0].set_title(plain(title))
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
    grid[0, 0].set_title(plain(title))
    attribution_bar(figure, picture, wide=False, ax=grid[0, 0], extend="both")
    return figure


@styled
def mask_grid(masks: dict, spectrogram, protocol: str = "paper", title: str | None = None):
    """The masks of one attribution, each under its formula and with the kept area, its mean in per cent.

    Parameters
    ----------
    masks : dict of str to array (F, T)
        Masks in [0, 1] by name, as `masks.build_masks` gives them.
    protocol : {"paper", "audited"}
        The one that they were built by, whose formulas are shown.
    """
    check_choice("protocol", protocol, PROTOCOLS)
    maps = {name: two_dimensional(mask, f"masks[{name!r}]") for name, mask in masks.items()}
    n_columns = 7 if len(maps) % 7 == 0 else min(4, len(maps))
    n_rows = -(-len(maps) // n_columns)
    size = (1.95 * n_columns + 0.8, 2.0 * n_rows + 0.8)
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
        said = [mask_formula(name, protocol), f"{name}: {kept}"]
        ax.set_title("\n".join(filter(None, said)), fontweight="normal", fontsize=8.5)
    for ax in grid.flat[len(maps) :]:
        ax.set_axis_off()
    figure.colorbar(picture, ax=grid, label="mask (1 = kept)", shrink=0.8, aspect=25)
    figure.suptitle(plain(title))
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
    figure, grid = new_figure(
        len(rows), 1 + len(methods), (width * (1 + len(methods)), 1.65 * len(rows) + 0.7)
    )
    for number, row in enumerate(rows):
        db = two_dimensional(row["db"], "db")
        axes = axes_of(row["spectrogram"], db.shape[1])
        level = show_db(grid[number, 0], db, axes)
        for ax, method in zip(grid[number, 1:], methods):
            values = two_dimensional(row["maps"][method], f"maps[{method!r}]")
            signed = (
                show_attribution(ax, db, values, axes) if kind == "attribution" else show_db(ax, values, axes)
            )
        for column, ax in enumerate(grid[number]):
            label_axes(ax, axes, time=number == len(rows) - 1, frequency=column == 0)
            if number == 0:
                ax.set_title("Clip" if column == 0 else method_label(methods[column - 1]))
        grid[number, 0].set_ylabel(f"{as_text(row['label'])}\nHz{' (mel)' if axes.mel else ''}")
    figure.colorbar(
        level,
        ax=grid[:, 0] if kind == "attribution" else grid,
        label="level (dB)",
        extend="min",
        location="bottom" if kind == "attribution" else "right",
        shrink=0.9,
        aspect=18,
    )
    if kind == "attribution":
        wide = len(methods) > 2
        attribution_bar(
            figure,
            signed,
            wide,
            ax=grid[:, 1:],
            location="bottom",
            extend="both",
            shrink=0.5 if wide else 0.9,
            aspect=30 if wide else 18,
        )
    figure.suptitle(plain(title))
    return figure


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
    for ax in grid.flat[len(spectrograms) :]:
        ax.set_axis_off()
    for number, (name, db) in enumerate(spectrograms.items()):
        db = two_dimensional(db, f"spectrograms[{name!r}]")
        axes, ax = axes_of(spectrogram, db.shape[1]), grid.flat[number]
        level = show_db(ax, db, axes)
        last_row = number + n_columns >= len(spectrograms)
        label_axes(ax, axes, time=last_row, frequency=number % n_columns == 0)
        ax.set_title(as_text(name))
    figure.colorbar(level, ax=grid, label="level (dB)", extend="min", fraction=0.1 / n_columns)
    figure.suptitle(plain(title))
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
        ax.set_title(plain(f"{name} ({level})"), loc="left", fontweight="normal")
        ax.set_ylim(-1.05 * peak, 1.05 * peak)
        ax.set_xlim(0, max(1, len(sound)) / sample_rate)
    grid[-1, 0].set_xlabel("time (s)")
    figure.supylabel("amplitude (full scale = 1)", fontsize=9)
    figure.suptitle(plain(title))
    return figure


@styled
def show_maps(condition: Condition, maps: torch.Tensor, n_clips: int = 3, title: str | None = None):
    """Some clips of a condition, spread over the classes: the spectrogram, and under it the map.

    Red speaks for the class that is explained, blue against it.

    Parameters
    ----------
    condition : Condition
    maps : Tensor (n, 1, F, T)
        Attributions of the condition's clips, signed, in their order.
    n_clips : int
        At most so many are shown, those of ``condition.first(n_clips)``.
    """
    clips, classes = condition.clips.frame, condition.classifier.classes
    rows = np.flatnonzero(clips["clip"].isin(condition.clips.first(n_clips).frame["clip"]))
    figure, grid = new_figure(2, len(rows), (3.3 * len(rows) + 1.1, 4.2), sharex=True, sharey=True)
    for column, i in enumerate(rows):
        db, values = (two_dimensional(each[i], "maps") for each in (condition.spectrograms, maps))
        axes, target = axes_of(condition.spectrogram, db.shape[1]), int(condition.targets[i])
        level = show_db(grid[0, column], db, axes)
        signed = show_attribution(grid[1, column], db, values, axes)
        names = [as_text(name) for name in (clips["category"].iloc[i], classes[target])]
        grid[0, column].set_title(f"clip: {names[0]}", fontweight="normal")
        p = float(condition.probabilities[i, target])
        grid[1, column].set_title(f"for {names[1]} (p = {p:.2f})", fontweight="normal")
        for row in range(2):
            label_axes(grid[row, column], axes, time=row == 1, frequency=column == 0)
            grid[row, column].set_ylabel(f"Hz{' (mel)' if axes.mel else ''}" if column == 0 else "")
    figure.colorbar(level, ax=grid[0], label="level (dB)", extend="min")
    attribution_bar(figure, signed, wide=False, ax=grid[1], extend="both")
    figure.suptitle(plain(title))
    return figure


@styled
def grid_of_its_own(coarse: torch.Tensor, smooth: torch.Tensor, spectrogram, title: str | None = None):
    """A map as a layer gives it, cell by cell, beside the same one spread over the spectrogram's bins.

    Parameters
    ----------
    coarse : Tensor (f, t)
    smooth : Tensor (F, T)
    spectrogram : str, SpectrogramParameters or Spectrogram
        Gives the axes of both.
    """
    coarse, smooth = two_dimensional(coarse, "coarse"), two_dimensional(smooth, "smooth")
    axes = axes_of(spectrogram, smooth.shape[1])
    figure, grid = new_figure(1, 2, (8.4, 2.6), sharex=True, sharey=True)
    for ax, values, words in ((grid[0, 0], coarse, "as computed"), (grid[0, 1], smooth, "interpolated")):
        scale = np.abs(values).max() or 1.0
        picture = show_map(ax, values / scale, axes, cmap=ATTRIBUTION_COLOURS, vmin=-1, vmax=1)
        ax.set_title(f"{words}: {values.shape[0]} x {values.shape[1]}", fontweight="normal")
        label_axes(ax, axes, frequency=ax is grid[0, 0])
    figure.colorbar(picture, ax=grid, label="attribution (1 = largest)")
    figure.suptitle(plain(title))
    return figure

"""The house style of matplotlib figures and the drawing of maps on true time and frequency axes."""

from __future__ import annotations

import functools

import numpy as np

from .style import (
    ATTRIBUTION_COLOURS,
    DISPLAY_DB,
    SPECTROGRAM_COLOURS,
    attribution_scale,
    frequency_label,
)

RC = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titleweight": "bold",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.constrained_layout.w_pad": 0.06,  # inches; figures are saved to their edges
    "figure.constrained_layout.h_pad": 0.06,
    "svg.hashsalt": "audioxai",
    "image.resample": False,
}


def styled(function):
    """Draw in the house style without touching the caller's matplotlib settings."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        import matplotlib

        with matplotlib.rc_context(RC):
            return function(*args, **kwargs)

    return wrapper


def as_text(name) -> str:
    """A user's name as it is read: words, and no formula begins at a dollar sign."""
    return plain(str(name).replace("_", " "))


def plain(text: str | None) -> str:
    """A title with what the user wrote in it: no formula begins at a dollar sign; None is empty."""
    return (text or "").replace("$", r"\$")


def new_figure(n_rows: int, n_columns: int, size: tuple[float, float], **options):
    """A closed figure with a grid of axes (n_rows, n_columns)."""
    import matplotlib.pyplot as plt

    figure, grid = plt.subplots(
        n_rows, n_columns, figsize=size, layout="constrained", squeeze=False, **options
    )
    plt.close(figure)  # pyplot forgets it; it can still be drawn, saved and displayed
    return figure, grid


def label_axes(ax, axes, time: bool = True, frequency: bool = True) -> None:
    """Seconds and Hz; on a mel axis the ticks are mel-spaced and labelled in Hz."""
    ticks = axes.frequency_ticks()
    ax.set_yticks(axes.scale(ticks), [frequency_label(f) for f in ticks])
    ax.set_xticks(axes.time_ticks())
    ax.tick_params(labelbottom=time, labelleft=frequency)
    ax.set_xlabel("time (s)" if time else "")
    ax.set_ylabel(("frequency (Hz, mel scale)" if axes.mel else "frequency (Hz)") if frequency else "")


def show_map(ax, values, axes, **options):
    """A map as a picture with true edges; the lowest frequency is at the bottom."""
    edges = (axes.start, axes.end, axes.low, axes.high)
    return ax.imshow(values, origin="lower", aspect="auto", interpolation="nearest", extent=edges, **options)


def show_db(ax, db, axes):
    """A spectrogram in dB on the scale that all of them share."""
    return show_map(ax, db, axes, cmap=SPECTROGRAM_COLOURS, vmin=DISPLAY_DB[0], vmax=DISPLAY_DB[1])


def show_attribution(ax, db, attribution, axes):
    """Grey spectrogram with the signed attribution over it, more opaque where it is larger."""
    scale = attribution_scale(attribution)
    show_map(ax, db, axes, cmap="gray_r", vmin=DISPLAY_DB[0], vmax=DISPLAY_DB[1] + 30)
    opacity = np.clip(np.abs(attribution) / scale, 0, 1) ** 0.6
    return show_map(ax, attribution / scale, axes, cmap=ATTRIBUTION_COLOURS, vmin=-1, vmax=1, alpha=opacity)


def attribution_bar(figure, picture, wide: bool = True, **options):
    """Colour bar of an attribution; its label takes two lines where it is not ``wide``."""
    from matplotlib.cm import ScalarMappable

    bar = ScalarMappable(norm=picture.norm, cmap=picture.cmap)  # without the map's own transparency
    label = "attribution (1 = 99th percentile of its size)"
    return figure.colorbar(bar, label=label if wide else "attribution (1 = its\n99th percentile)", **options)

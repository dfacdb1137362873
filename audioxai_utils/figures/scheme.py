"""Fig. 1: how a sound becomes an explanation that can be seen, heard and scored."""

from __future__ import annotations

import numpy as np

from .drawing import new_figure, styled
from .style import ATTRIBUTION_COLOURS, METHOD_LABELS, SPECTROGRAM_COLOURS


def _chirps(n_bins: int = 48, n_frames: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """A drawn spectrogram (two calls with harmonics over noise) and where its calls lie; not a result."""
    rng = np.random.default_rng(7)
    frame, bin_ = np.meshgrid(np.arange(n_frames), np.arange(n_bins))
    calls = np.zeros((n_bins, n_frames))
    for onset in (18, 58):
        inside = np.clip((frame - onset) / 24, 0, 1)
        pitch = 9 + 4 * np.sin(np.pi * inside)
        for harmonic in (1, 2, 3):
            ridge = np.exp(-(((bin_ - harmonic * pitch) / 1.3) ** 2)) / harmonic**0.5
            calls = np.maximum(calls, ridge * np.sin(np.pi * inside) * (inside > 0) * (inside < 1))
    return 0.18 + 0.1 * rng.standard_normal(calls.shape) + 0.85 * calls, calls


def _sound(share: float, seed: int) -> np.ndarray:
    """A drawn waveform: two calls of the given share over noise; not a result."""
    rng, time = np.random.default_rng(seed), np.linspace(0, 1, 700)
    calls = sum(np.exp(-(((time - middle) / 0.08) ** 2)) for middle in (0.31, 0.73))
    return share * calls * np.sin(2 * np.pi * 60 * time) + (0.22 if share else 0.3) * rng.standard_normal(
        700
    ) * (1 - 0.8 * (share > 0.9))


def _panel(figure, left: float, bottom: float, title: str):
    """Small framed axes without ticks, titled above."""
    ax = figure.add_axes((left, bottom, 0.115, 0.2))
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set(visible=True, color="#7d8790")
    ax.set_title(title, fontsize=8.5, pad=4)
    return ax


def _arrow(figure, start, end, words: str = "", above: float = 0.025) -> None:
    """An arrow in shares of the figure, with words at its middle."""
    from matplotlib.patches import FancyArrowPatch

    figure.add_artist(
        FancyArrowPatch(
            start,
            end,
            transform=figure.transFigure,
            arrowstyle="-|>",
            mutation_scale=11,
            color="#3d4a55",
            linewidth=1.1,
            shrinkA=0,
            shrinkB=0,
        )
    )
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + above)
    figure.text(*middle, words, ha="center", va="bottom", fontsize=7.5, color="#3d4a55")


def _box(figure, left: float, bottom: float, words: str, colour: str, width: float = 0.115) -> None:
    """A rounded box with words."""
    from matplotlib.patches import FancyBboxPatch

    figure.add_artist(
        FancyBboxPatch(
            (left, bottom),
            width,
            0.2,
            transform=figure.transFigure,
            facecolor=colour,
            edgecolor="#7d8790",
            boxstyle="round,pad=0,rounding_size=0.015",
        )
    )
    figure.text(left + width / 2, bottom + 0.1, words, ha="center", va="center", fontsize=8, linespacing=1.5)


@styled
def transform_scheme():
    """Draw the chain from waveform to kept and removed sound, and where the scores come from.

    The small pictures are drawn, not computed by a model.
    """
    figure, grid = new_figure(1, 1, (11.5, 5.0))
    figure.set_layout_engine("none")
    grid[0, 0].remove()
    columns, top, middle, low = (0.02, 0.225, 0.43, 0.635, 0.84), 0.7, 0.385, 0.07
    db, calls = _chirps()
    mask = (calls > 0.35).astype(float)
    signed = calls - 0.25 * np.roll(calls, 13, axis=0)
    for left, bottom, sound, title in (
        (columns[0], top, _sound(0.9, 1) * 0.8, "waveform"),
        (columns[0], middle, _sound(1.0, 2), "kept sound"),
        (columns[0], low, _sound(0.0, 3), "removed sound"),
    ):
        ax = _panel(figure, left, bottom, title)
        ax.plot(sound, color="#30506b", linewidth=0.5)
        ax.set_ylim(-1.5, 1.5)
    maps = (
        (columns[1], top, db, "spectrogram X (dB)"),
        (columns[2], middle, db * mask, "kept part"),
        (columns[2], low, db * (1 - mask), "removed part"),
    )
    for left, bottom, values, title in maps:
        ax = _panel(figure, left, bottom, title)
        ax.imshow(values, origin="lower", aspect="auto", cmap=SPECTROGRAM_COLOURS, vmin=0, vmax=1)
    ax = _panel(figure, columns[3], top, "attribution L")
    ax.imshow(signed, origin="lower", aspect="auto", cmap=ATTRIBUTION_COLOURS, vmin=-1, vmax=1)
    ax = _panel(figure, columns[4], top, "mask M (14 rules)")
    ax.imshow(mask, origin="lower", aspect="auto", cmap="gray", vmin=0, vmax=1)
    _box(figure, columns[2], top, "model g\nclass c = argmax g(X)", "#eef3f7")
    _box(
        figure,
        columns[3] + 0.06,
        low - 0.02,
        "scores\nFF  AI  AG  FidIn  AD\nSPS  COMP",
        "#eef6ee",
        width=0.2,
    )
    _connect(figure, columns, top, middle, low)
    return figure


def _connect(figure, columns, top: float, middle: float, low: float) -> None:
    """The arrows between the panels of `transform_scheme`."""
    width, half = 0.115, 0.1
    methods = "\n".join(METHOD_LABELS[name] for name in ("saliency", "gradcam", "lime", "shap"))
    for number, words in enumerate(("STFT\nor mel", "", methods, "threshold\nor scale")):
        start = (columns[number] + width + 0.006, top + half)
        _arrow(figure, start, (columns[number + 1] - 0.006, top + half), words)
    down = columns[4] + width / 2
    figure.add_artist(_line(figure, (down, down), (top - 0.01, middle + half)))
    _arrow(
        figure,
        (down, middle + half),
        (columns[2] + width + 0.006, middle + half),
        "apply the mask to X",
        0.012,
    )
    turn = columns[2] + width + 0.045
    figure.add_artist(_line(figure, (turn, turn), (middle + half, low + half)))
    _arrow(figure, (turn, low + half), (columns[2] + width + 0.006, low + half))
    for bottom in (middle, low):
        _arrow(
            figure,
            (columns[2] - 0.006, bottom + half),
            (columns[0] + width + 0.006, bottom + half),
            "invert with the original phase, listen",
            0.012,
        )
    _arrow(
        figure,
        (columns[2] + width + 0.006, low + 0.03),
        (columns[3] + 0.054, low + 0.03),
        "classify all three again",
    )
    figure.text(
        columns[3] + 0.16,
        middle + 0.045,
        "scored: M and 1 \u2212 M on dB above \u2212100 dB\nheard: M and 1 \u2212 M on power",
        fontsize=7.5,
        color="#3d4a55",
        ha="center",
        va="top",
        linespacing=1.5,
    )


def _line(figure, x, y):
    from matplotlib.lines import Line2D

    return Line2D(x, y, transform=figure.transFigure, color="#3d4a55", linewidth=1.1)

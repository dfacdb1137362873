"""The strip of a long recording: where each class speaks, and why."""

from __future__ import annotations

import numpy as np

from .drawing import new_figure, plain, show_attribution, styled
from .style import Axes, frequency_label

STRIP = "viridis"
MOST_CLASSES = 8  # rows of the strip: those that are most probable somewhere
N_TICKS = 5  # of a frequency axis, about
MOST_REASONS = 6  # pictures under it


@styled
def recording_strip(recording, n_classes: int = MOST_CLASSES, n_reasons: int = MOST_REASONS):
    """Probability of the classes over time, and under it the explained windows in the order of time.

    Frames in the strip are the explained windows; a bar under each picture is what of it is its short sound.
    Their numbers are those of all reasons, also where not all are drawn.

    Parameters
    ----------
    recording : recordings.Recording
    n_classes, n_reasons : int
        At most so many rows and pictures.
    """
    from matplotlib.gridspec import GridSpec

    p = recording.probabilities
    names = list(p.max().sort_values(ascending=False, kind="stable").index[:n_classes])
    numbered = list(enumerate(recording.reasons, 1))
    reasons = sorted(sorted(numbered, key=lambda each: -each[1].p)[:n_reasons], key=lambda each: each[0])
    heights = (0.26 * len(names) + 0.9, 2.3 * bool(reasons))
    figure, grid = new_figure(1, 1, (9.4, sum(heights) + 0.3))
    grid[0, 0].remove()
    layout = GridSpec(
        2 if reasons else 1, max(1, len(reasons)), figure, height_ratios=heights[: 1 + bool(reasons)]
    )
    strip = figure.add_subplot(layout[0, :])
    drawn = _strip(strip, recording, p[names], reasons)
    figure.colorbar(drawn, ax=strip, label="probability", pad=0.01, aspect=10)
    for place, (number, reason) in enumerate(reasons):
        _reason(figure.add_subplot(layout[1, place]), recording, reason, number, labelled=place == 0)
    return figure


def _strip(ax, recording, p, reasons):
    """Classes over time, a cell a hop, in minutes where the recording is long."""
    unit, word = (60, "min") if recording.seconds > 180 else (1, "s")
    centres = p.index.to_numpy() + recording.window / 2
    edges = np.append(centres - recording.hop / 2, centres[-1] + recording.hop / 2) / unit
    drawn = ax.pcolormesh(edges, np.arange(p.shape[1] + 1), p.to_numpy().T, cmap=STRIP, vmin=0, vmax=1)
    ax.set_yticks(np.arange(p.shape[1]) + 0.5, [plain(name) for name in p.columns])
    ax.invert_yaxis()
    for number, reason in reasons:
        if reason.class_name in p.columns:
            row, left = list(p.columns).index(reason.class_name), reason.start / unit
            frame = {"fill": False, "edgecolor": "white", "linewidth": 1.4}
            ax.add_patch(_rectangle((left, row + 0.04), recording.window / unit, 0.92, **frame))
            middle = (reason.start + recording.window / 2) / unit
            ax.annotate(str(number), (middle, -0.08), ha="center", va="bottom", annotation_clip=False)
    ax.set(xlim=(0, max(recording.seconds, edges[-1] * unit) / unit), xlabel=f"time ({word})")
    ax.set_title(plain(recording.name), pad=16 if reasons else 6)
    return drawn


def _rectangle(corner, width: float, height: float, **look):
    from matplotlib.patches import Rectangle

    return Rectangle(corner, width, height, **look)


def _reason(ax, recording, reason, number: int, labelled: bool) -> None:
    found = reason.explanation
    db = found.batch.db[0, 0].cpu().numpy()
    attribution = found.attribution[0, 0].cpu().numpy()
    transform, (n_bins, n_frames) = found.spectrogram, db.shape
    axes = Axes(transform.sample_rate, transform.hop_length, n_frames, n_bins, False, -0.5, n_bins - 0.5)
    show_attribution(ax, db, attribution, axes)
    ax.set_xticks(axes.time_ticks())
    ax.set_xlabel("time (s)")
    _label_bins(ax, np.asarray(transform.frequencies.cpu(), dtype=float), labelled)
    start = reason.sound_start - reason.start
    ax.plot(
        [start, start + len(reason.sound) / recording.sample_rate],
        [0.015, 0.015],
        transform=ax.get_xaxis_transform(),
        color="#222222",
        linewidth=3,
        solid_capstyle="butt",
    )
    title = f"{number} · {plain(reason.class_name)}\n{_clock(reason.start)}, p {reason.p:.2f}"
    ax.set_title(title, fontsize=8)


def _label_bins(ax, centres: np.ndarray, labelled: bool) -> None:
    """Round frequencies at the bins that are centred there, whatever the spacing of the bins."""
    evenly = np.linspace(0, len(centres) - 1, N_TICKS + 2)[1:-1]
    at = np.interp(evenly, np.arange(len(centres)), centres)
    ticks = sorted({float(f"{frequency:.1g}") for frequency in at})
    inside = [tick for tick in ticks if centres[0] <= tick <= centres[-1]]
    positions = np.interp(inside, centres, np.arange(len(centres)))
    ax.set_yticks(positions, [frequency_label(tick) for tick in inside])
    ax.tick_params(labelleft=labelled)
    ax.set_ylabel("frequency (Hz)" if labelled else "")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{int(minutes)}:{rest:04.1f}"

"""Bare pictures of maps for pages, and the HTML axes around them.

A picture holds nothing but its bins, so that a page can put a playhead on the right time exactly.
"""

from __future__ import annotations

import io

import numpy as np

from ..constants import DB_FLOOR
from .style import (
    ATTRIBUTION_COLOURS,
    DISPLAY_DB,
    SPECTROGRAM_COLOURS,
    Axes,
    attribution_scale,
    frequency_label,
)


def _coloured(values: np.ndarray, colours: str) -> np.ndarray:
    """RGB (F, T, 3) bytes of values in 0 to 1 with a matplotlib colour map."""
    from matplotlib import colormaps

    return colormaps[colours](np.clip(values, 0, 1), bytes=True)[..., :3]


def level_picture(db: np.ndarray) -> np.ndarray:
    """Spectrogram in dB (F, T) as RGB bytes, the lowest frequency in the first row."""
    low, high = DISPLAY_DB
    return _coloured((db - low) / (high - low), SPECTROGRAM_COLOURS)


def attribution_picture(db: np.ndarray, attribution: np.ndarray) -> np.ndarray:
    """Signed attribution over the grey spectrogram as RGB bytes: red for, blue against the class."""
    low, high = DISPLAY_DB
    grey = _coloured((db - low) / (high + 30 - low), "gray_r").astype(float)
    share = attribution / attribution_scale(attribution)
    colour = _coloured((share + 1) / 2, ATTRIBUTION_COLOURS).astype(float)
    opacity = np.clip(np.abs(share), 0, 1)[..., None] ** 0.6
    return np.round(opacity * colour + (1 - opacity) * grey).astype(np.uint8)


def mask_picture(mask: np.ndarray) -> np.ndarray:
    """Mask in [0, 1] as grey RGB bytes: white is kept."""
    return _coloured(mask, "gray")


def masked_db(
    db: np.ndarray, mask: np.ndarray, floor: float | None = None, by_sound: bool = False
) -> np.ndarray:
    """The kept part as it is scored: the mask on the decibels above the floor (None: the study's), or on the
    power, as a model of waveforms has it (``by_sound``).
    """
    floor = DB_FLOOR if floor is None else floor
    if by_sound:
        with np.errstate(divide="ignore"):  # a mask of 0 leaves the floor
            return np.maximum(floor, db + 10 * np.log10(mask))
    return (db - floor) * mask + floor


def encode(picture: np.ndarray, quality: int | None = 60) -> bytes:
    """WebP file of RGB bytes (F, T, 3), the first row at the bottom; ``quality`` None is lossless."""
    from PIL import Image

    buffer = io.BytesIO()
    options = (
        {"lossless": True, "quality": 50, "method": 3}
        if quality is None
        else {"quality": quality, "method": 4}
    )
    Image.fromarray(np.ascontiguousarray(picture[::-1])).save(buffer, format="WEBP", **options)
    return buffer.getvalue()


def palette_png(drawing) -> bytes:
    """PNG file of a ``PIL.Image.Image`` in 256 colours of its own: a third of the size, letters sharp.

    The colours are spread over all that occur, so that a rare one, as at the end of a colour bar, does not
    become the nearest of the frequent ones. What is transparent becomes white.
    """
    from PIL import Image

    over = drawing.convert("RGBA")
    opaque = Image.new("RGB", drawing.size, "white")
    opaque.paste(over, mask=over)
    buffer = io.BytesIO()
    opaque.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(buffer, "PNG")
    return buffer.getvalue()


def time_share(axes: Axes, seconds: float) -> float:
    """Share of the picture's width at a time in s."""
    return (seconds - axes.start) / (axes.end - axes.start)


def frequency_axis(axes: Axes) -> str:
    """HTML ticks of the frequency axis, placed in per cent of the picture's height."""
    ticks = "".join(
        f'<span style="bottom:{100 * float(axes.height_of(f)):.2f}%">{frequency_label(f)}</span>'
        for f in axes.frequency_ticks()
    )
    return f'<div class="f-ticks" aria-hidden="true">{ticks}</div>'


def time_axis(axes: Axes) -> str:
    """HTML ticks of the time axis, placed in per cent of the picture's width."""
    ticks = "".join(
        f'<span style="left:{100 * time_share(axes, t):.2f}%">{t:g}</span>' for t in axes.time_ticks()
    )
    return f'<div class="t-ticks" aria-hidden="true">{ticks}</div>'


def axes_words(axes: Axes) -> str:
    """Names and units of both axes."""
    return f"time (s) across, frequency (Hz{', mel scale' if axes.mel else ''}) up"

"""Pictures for pages: what 256 colours leave of a drawing."""

from __future__ import annotations

import io

import numpy as np
from matplotlib import colormaps
from PIL import Image

from audioxai_utils.figures.pictures import palette_png


def test_a_rare_colour_stays_what_it_is_in_256():
    """A map that fills the middle of two colour scales, whose ends are a few pixels of their colour bars."""
    generator = np.random.default_rng(0)
    middle = generator.normal(0.5, 0.08, (300, 800)).clip(0, 1)
    maps = [colormaps[name](middle, bytes=True)[..., :3] for name in ("magma", "gray", "RdBu_r")]
    bars = [colormaps[name](np.linspace(0, 1, 300), bytes=True)[:, None, :3] for name in ("magma", "RdBu_r")]
    drawing = np.concatenate([*maps, *(np.repeat(bar, 6, axis=1) for bar in bars)], axis=1)
    data = palette_png(Image.fromarray(drawing))
    picture = Image.open(io.BytesIO(data))
    assert picture.mode == "P" and picture.size == drawing.shape[1::-1]
    error = np.abs(np.asarray(picture.convert("RGB")).astype(int) - drawing)
    assert error.max() <= 12 and error.mean() < 2  # of 255; by median cuts one end of a bar is off by 74
    whole = io.BytesIO()
    Image.fromarray(drawing).save(whole, "PNG")
    assert len(data) < len(whole.getvalue()) / 2


def test_what_is_transparent_is_white():
    see_through = Image.new("RGBA", (4, 3), (200, 0, 0, 0))
    see_through.putpixel((1, 1), (200, 0, 0, 255))
    picture = Image.open(io.BytesIO(palette_png(see_through))).convert("RGB")
    assert picture.getpixel((0, 0)) == (255, 255, 255) and picture.getpixel((1, 1)) == (200, 0, 0)

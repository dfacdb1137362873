"""Figures as files: PNG and SVG, drawn once each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..files import atomic_path

if TYPE_CHECKING:
    from IPython.display import SVG, Image

SVG_NAMES = {"": "http://www.w3.org/2000/svg", "xlink": "http://www.w3.org/1999/xlink"}


def save_figure(figure, stem: str | Path, dpi: int = 150, hover: bool = False) -> Image | SVG:
    """Write a matplotlib figure as ``stem``.png and ``stem``.svg.

    With ``hover``, artists whose gid begins with ``hover-`` carry their label in the SVG: a browser
    shows it when the pointer rests on them.

    Returns
    -------
    IPython.display.Image or IPython.display.SVG
        The PNG, shown at half its pixels, or for ``hover`` the SVG; as a cell's last value it is
        not drawn again.
    """
    from IPython.display import SVG, Image

    stem = Path(stem)
    with atomic_path(stem.with_name(stem.name + ".png")) as png, atomic_path(stem.with_name(stem.name + ".svg")) as svg:
        _write_figure(figure, dpi, png, svg)
        if hover:
            _add_hover_words(svg, figure)
    return SVG(filename=f"{stem}.svg") if hover else Image(filename=f"{stem}.png", retina=True)


def _write_figure(figure, dpi: int, png: Path, svg: Path) -> None:
    """Both files, each drawn once; ``savefig`` draws twice, and lays out anew each time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    if figure.get_layout_engine() is None:
        figure.savefig(png, dpi=dpi, bbox_inches="tight")
        figure.savefig(svg, dpi=dpi, bbox_inches="tight", metadata={"Date": None})
        return
    canvas, own_dpi = figure.canvas, figure.dpi
    if figure.axes:
        figure.get_layout_engine().execute(figure)
    figure.set_layout_engine("none")
    try:
        figure.dpi = dpi
        FigureCanvasAgg(figure).print_png(png)
        FigureCanvasSVG(figure).print_svg(svg, metadata={"Date": None})
    finally:
        figure.set_canvas(canvas)
        figure.dpi = own_dpi


def _add_hover_words(path: Path, figure) -> None:
    """``<title>`` in the groups of an SVG file whose artists have something to say; their ids go."""
    from xml.etree import ElementTree

    artists = figure.findobj(lambda artist: (artist.get_gid() or "").startswith("hover-"))
    words = {artist.get_gid(): artist.get_label().lstrip("_") for artist in artists}
    if not words:
        return
    for prefix, address in SVG_NAMES.items():
        ElementTree.register_namespace(prefix, address)
    tree = ElementTree.parse(path)
    for group in tree.iter(f"{{{SVG_NAMES['']}}}g"):
        if group.get("id") in words:
            title = ElementTree.Element(f"{{{SVG_NAMES['']}}}title")
            title.text = words[group.attrib.pop("id")]  # ids of two figures on one page would clash
            group.insert(0, title)
    tree.write(path, encoding="utf-8", xml_declaration=True)

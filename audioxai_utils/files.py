"""Files of a study: they appear whole or not at all, and always under the same names."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import SVG, Image

# What file systems answer that cannot lock: without a lock service, without locks, or (NFS) for want of
# writing.
CANNOT_LOCK = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EBADF)
SVG_NAMES = {"": "http://www.w3.org/2000/svg", "xlink": "http://www.w3.org/1999/xlink"}


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it over ``path`` when the block ends well.

    Raises
    ------
    OSError
        Of the system's kind (PermissionError ...), in one line, where nothing can be written beside ``path``.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    except OSError as error:
        reason = f"{error.strerror or error}; choose another results folder"
        raise type(error)(f"{path}: cannot be written ({reason})") from error
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_table(
    frame: pd.DataFrame, stem: str | Path, index: bool = False, digits: int = 4, latex: str | None = None
) -> None:
    """Write ``stem``.csv (full precision) and ``stem``.tex (``digits`` decimals, or the given ``latex``)."""
    stem = Path(stem)
    with atomic_path(stem.with_name(stem.name + ".csv")) as path:
        frame.to_csv(path, index=index)
    with atomic_path(stem.with_name(stem.name + ".tex")) as path:
        if latex is None:
            latex = frame.to_latex(index=index, float_format=f"%.{digits}f", escape=True)
        path.write_text(latex, encoding="utf-8")


def save_parquet(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a tidy frame as Parquet."""
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary, index=False)


def write_json(path: str | Path, record: dict) -> None:
    """Write JSON, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Hold ``folder`` alone (it is made if missing); wait while another process or thread does.

    The system lets go when the holder ends, however it ends. Some network file systems cannot lock: then
    nobody waits, and work may be done twice, but what appears is still whole, because files are renamed.
    """
    from filelock import FileLock

    Path(folder).mkdir(parents=True, exist_ok=True)
    lock = FileLock(Path(folder) / ".lock")
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in CANNOT_LOCK:
            raise
    try:
        yield
    finally:
        lock.release()


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
    with (
        atomic_path(stem.with_name(stem.name + ".png")) as png,
        atomic_path(stem.with_name(stem.name + ".svg")) as svg,
    ):
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

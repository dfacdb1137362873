"""Files of a study: they appear whole or not at all, and always under the same names."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
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
# Columns of names that come from a user's files
NAMES = ("noise_scenario", "noise", "clip", "category", "predicted", "true")
PARTIAL = ".audioxai-partial-"  # begins the names of files and folders that are not whole yet
SVG_NAMES = {"": "http://www.w3.org/2000/svg", "xlink": "http://www.w3.org/1999/xlink"}
ELEMENT, LINK = f"{{{SVG_NAMES['']}}}", f"{{{SVG_NAMES['xlink']}}}href"
DECIMALS = re.compile(r"-?\d+\.\d{3,}")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it over ``path`` when the block ends well.

    Its content is on the disk before its name is: after a crash of the machine too there is all or nothing.

    Raises
    ------
    OSError
        Of the system's kind (PermissionError ...), in one line, where nothing can be written beside ``path``.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=PARTIAL, suffix=path.suffix)
    except OSError as error:
        reason = f"{error.strerror or error}; choose another results folder"
        raise type(error)(f"{path}: cannot be written ({reason})") from error
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        to_disk(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def to_disk(path: str | Path) -> None:
    """Wait until a file, or every file below a folder, is on the disk and no longer in memory alone."""
    path = Path(path)
    for each in path.rglob("*") if path.is_dir() else (path,):
        if each.is_file():
            with open(each, "rb") as file:
                os.fsync(file.fileno())


def sweep(folder: str | Path, below: bool = True) -> None:
    """Delete what killed processes have left half made in a folder, and ``below``; nobody may be at work."""
    for path in list(Path(folder).glob(f"**/{PARTIAL}*" if below else f"{PARTIAL}*")):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


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


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a table of `save_table`; what a user has named stays text: a noise ``001``, a class ``NA``."""
    import pandas as pd

    frame, text = pd.read_csv(path), pd.read_csv(path, dtype=str, keep_default_na=False)
    return frame.assign(**{name: text[name] for name in NAMES if name in text})


def save_parquet(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a tidy frame as Parquet, with a digest of its content: Parquet itself would not miss a bit."""
    frame = frame.copy(deep=False)
    frame.attrs = {"digest": _frame_digest(frame)}
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary, index=False, write_page_checksum=True)


def read_parquet(path: str | Path) -> pd.DataFrame:
    """Read a frame that `save_parquet` wrote.

    Raises
    ------
    FileNotFoundError
        No file at ``path``.
    ValueError
        It is damaged, or another kind of file.
    """
    import pandas as pd

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        frame = pd.read_parquet(path, page_checksum_verification=True)
        whole = frame.attrs.pop("digest", None) == _frame_digest(frame)
    except Exception as error:  # pyarrow raises OSError, ValueError, KeyError, TypeError, ...
        raise ValueError(f"{path}: damaged, or no Parquet file; delete it and run again") from error
    if not whole:
        raise ValueError(f"{path}: damaged, its content is not what was written; delete it and run again")
    return frame


def _frame_digest(frame: pd.DataFrame) -> str:
    import pandas as pd

    found = hashlib.sha256(repr(list(frame.columns)).encode())
    for _, column in frame.items():
        found.update(pd.util.hash_array(column.to_numpy()).tobytes())
    return found.hexdigest()[:16]


def write_json(path: str | Path, record: dict) -> None:
    """Write JSON, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def locked(folder: str | Path, wait: bool = True) -> Iterator[bool]:
    """Hold ``folder`` alone (it is made if missing), among processes and threads; whether that is so.

    The system lets go when the holder ends, however it ends, and holds across the machines of a file system
    that does so, as NFS 4. Some cannot lock: then nobody waits, and work may be done twice, but what appears
    is still whole, because files are renamed.

    Raises
    ------
    BlockingIOError
        Another one holds it, and this one shall not ``wait``; the message names the other's process.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    with open(Path(folder) / ".lock", "a+", encoding="utf-8", errors="replace") as file:
        held = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise BlockingIOError(
                f"another run (process {holder}) works on {folder}; wait for it, or choose another folder "
                "with --results"
            ) from None
        except OSError as error:
            if error.errno not in CANNOT_LOCK:
                raise
            held = False
        try:
            file.truncate(0)
            print(os.getpid(), "on", socket.gethostname(), file=file, flush=True)
            yield held
        finally:
            if held:
                fcntl.flock(file, fcntl.LOCK_UN)  # a child that has inherited the file holds nothing


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
    from matplotlib import rc_context

    stem = Path(stem)
    with (
        atomic_path(stem.with_name(stem.name + ".png")) as png,
        atomic_path(stem.with_name(stem.name + ".svg")) as svg,
    ):
        with rc_context({"svg.fonttype": "none"} if hover else {}):  # its words can be searched for
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
    for group in tree.iter(f"{ELEMENT}g"):
        if group.get("id") in words:
            title = ElementTree.Element(f"{ELEMENT}title")
            title.text = words[group.attrib.pop("id")]  # ids of two figures on one page would clash
            group.insert(0, title)
    _slim(tree.getroot())
    tree.write(path, encoding="utf-8", xml_declaration=True)


def _slim(root) -> None:
    """Half the bytes of matplotlib's SVG, drawn the same to a hundredth of a point.

    No metadata and no blanks between elements; coordinates of two decimals; a style that all of a group share
    stands at the group, and a marker that is defined again refers to its first definition.
    """
    for metadata in root.findall(f"{ELEMENT}metadata"):
        root.remove(metadata)
    first, same = {}, {}
    for definitions in root.iter(f"{ELEMENT}defs"):
        for path in definitions.findall(f"{ELEMENT}path"):
            content = tuple(sorted((name, value) for name, value in path.items() if name != "id"))
            if first.setdefault(content, path.get("id")) != path.get("id"):
                same[f"#{path.get('id')}"] = f"#{first[content]}"
                definitions.remove(path)
    for element in root.iter():
        element.text = (element.text or "").strip() or None
        element.tail = None
        if LINK in element.attrib:
            element.set(LINK, same.get(element.get(LINK), element.get(LINK)))
        for name in ("d", "x", "y"):
            if name in element.attrib:
                element.set(name, " ".join(DECIMALS.sub(_rounded, element.get(name)).split()))
        _share_style(element)


def _share_style(group) -> None:
    """Write a style at the group that all its drawn elements have, where nothing else is in it."""
    drawn = [each for each in group if each.tag not in (f"{ELEMENT}title", f"{ELEMENT}defs")]
    styles = {each.get("style") for each in drawn}
    if group.tag != f"{ELEMENT}g" or "style" in group.attrib or len(drawn) < 2 or len(styles) > 1:
        return
    if None not in styles and all(each.tag in (f"{ELEMENT}use", f"{ELEMENT}path") for each in drawn):
        group.set("style", styles.pop())
        for each in drawn:
            del each.attrib["style"]


def _rounded(number: re.Match) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")

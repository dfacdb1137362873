"""Files of a study: whole or not there, and what is read back is what was written."""

import errno
import os
import re
import tempfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from audioxai_utils import files


def names(folder):
    """Everything in a folder, hidden temporary files too."""
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_only_when_its_block_has_ended(tmp_path):
    path = tmp_path / "new" / "deep" / "a.txt"
    with files.atomic_path(path) as temporary:
        temporary.write_text("whole")
        assert temporary.parent == path.parent and temporary.suffix == ".txt" and not path.exists()
    assert path.read_text() == "whole" and names(path.parent) == ["a.txt"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    "error", [ValueError("no"), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")]
)
def test_a_block_that_raises_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.csv"
    with pytest.raises(type(error)), files.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert names(tmp_path) == []
    path.write_text("old")
    with pytest.raises(type(error)), files.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old" and names(tmp_path) == ["a.csv"]


def test_a_file_that_cannot_be_put_in_its_place_leaves_nothing(tmp_path):
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(OSError), files.atomic_path(tmp_path / "a.csv") as temporary:
        temporary.write_text("whole")
    assert names(tmp_path) == ["a.csv"] and names(tmp_path / "a.csv") == []


def one_line(raised, path):
    told = str(raised.value)
    assert told.startswith(f"{path}: cannot be written (") and "\n" not in told
    assert told.endswith("choose another results folder)")


def test_a_folder_below_a_file_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("x")
    path = tmp_path / "file" / "tables" / "a.csv"
    with pytest.raises(OSError) as raised, files.atomic_path(path):
        raise AssertionError("the block must not run")
    one_line(raised, path)
    assert names(tmp_path) == ["file"]


def test_a_refusing_system_is_a_clear_error(tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / ".a-xyz.csv"))

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    for write in (
        lambda: files.save_table(pd.DataFrame({"a": [1]}), tmp_path / "a"),
        lambda: files.save_parquet(pd.DataFrame({"a": [1]}), tmp_path / "a.csv"),
    ):
        with pytest.raises(PermissionError, match="Permission denied") as raised:
            write()
        one_line(raised, tmp_path / "a.csv")
    assert names(tmp_path) == []


def test_a_read_only_folder_is_a_clear_error(tmp_path):
    """The superuser may write everywhere but in the system's own file systems."""
    folder = Path("/sys/kernel") if os.geteuid() == 0 else tmp_path / "closed"
    if os.geteuid() == 0 and not folder.is_dir():
        pytest.skip("the superuser may write everywhere here")
    folder.mkdir(exist_ok=True)
    if folder.parent == tmp_path:
        folder.chmod(0o555)
    before = names(folder)
    for path in (folder / "a", folder / "tables" / "a"):
        with pytest.raises(OSError) as raised:
            files.save_table(pd.DataFrame({"a": [1]}), path)
        one_line(raised, f"{path}.csv")
    assert names(folder) == before


FRAME = pd.DataFrame({"mask": ["topK_5", "a & b", "100 %"], "FF": [1 / 3, -2e-7, np.nan], "n": [1, 20, 300]})


def test_a_table_is_read_back_from_csv_bit_for_bit(tmp_path):
    files.save_table(FRAME, tmp_path / "t.v1")
    assert names(tmp_path) == ["t.v1.csv", "t.v1.tex"]
    again = pd.read_csv(tmp_path / "t.v1.csv")
    pd.testing.assert_frame_equal(again, FRAME, check_exact=True)


def test_a_table_is_read_back_from_latex(tmp_path):
    """Conditions between & and \\\\, with LaTeX's own characters escaped and four decimals."""
    files.save_table(FRAME, tmp_path / "t")
    text = (tmp_path / "t.tex").read_text()
    body = re.search(r"\\midrule\n(.*?)\\bottomrule", text, re.S)[1]
    conditions = [
        [condition.strip() for condition in re.split(r"(?<!\\)&", line.rstrip("\\ "))]
        for line in body.strip().splitlines()
    ]
    assert [row[0] for row in conditions] == [r"topK\_5", r"a \& b", r"100 \%"]
    assert [row[1] for row in conditions] == ["0.3333", "-0.0000", "NaN"]
    assert [row[2] for row in conditions] == ["1", "20", "300"]
    assert re.search(r"\\toprule\n(.*?) \\\\", text)[1].split(" & ") == ["mask", "FF", "n"]
    files.save_table(FRAME, tmp_path / "t", digits=1)
    assert " 0.3 " in (tmp_path / "t.tex").read_text()


def test_a_table_may_bring_its_own_latex(tmp_path):
    files.save_table(pd.DataFrame({"a": [1]}), tmp_path / "t", latex=r"\own{}")
    assert (tmp_path / "t.tex").read_text() == r"\own{}" and pd.read_csv(tmp_path / "t.csv")["a"][0] == 1


def test_a_figure_is_written_as_png_and_svg(tmp_path):
    """A PNG of the figure's size in pixels with its colours, and a well-formed SVG without a date."""
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(2, 1), facecolor=(0.2, 0.4, 0.6))
    figure.text(0.5, 0.5, "x")
    files.save_figure(figure, tmp_path / "f.a", dpi=100)
    assert names(tmp_path) == ["f.a.png", "f.a.svg"]
    with Image.open(tmp_path / "f.a.png") as image:
        assert (
            image.format == "PNG"
            and max(image.size) <= 210
            and image.convert("RGB").getpixel((1, 1)) == (51, 102, 153)
        )
    root = ElementTree.parse(tmp_path / "f.a.svg").getroot()
    assert root.tag.endswith("}svg") and not [node for node in root.iter() if node.tag.endswith("}date")]


def test_what_is_shown_is_the_file_that_was_written(tmp_path):
    from matplotlib.figure import Figure

    shown = files.save_figure(Figure(figsize=(2, 1), layout="constrained"), tmp_path / "f", dpi=100)
    assert shown.data == (tmp_path / "f.png").read_bytes() and (shown.width, shown.height) == (100, 50)


def test_hover_words_stand_in_the_svg_alone_and_without_ids(tmp_path):
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots()
    for i, words in enumerate(("LIME + bin: a < b", "SHAP & bin")):
        axes.plot([i], [i], "o", gid=f"hover-{i}", label=f"_{words}")
    axes.plot([2], [2], "o", gid="another", label="silent")
    shown = files.save_figure(figure, tmp_path / "f", hover=True)
    root = ElementTree.parse(tmp_path / "f.svg").getroot()
    titles = [
        node.text
        for group in root.iter()
        if group.tag.endswith("}g")
        for node in group
        if node.tag.endswith("}title")
    ]
    assert titles == ["LIME + bin: a < b", "SHAP & bin"] and "<title>SHAP &amp; bin</title>" in shown.data
    ids = [node.get("id") for node in root.iter() if node.get("id")]
    assert "another" in ids and not [name for name in ids if name.startswith("hover")]


def drawn(node, style: str = "", definitions: dict | None = None) -> list[tuple]:
    """(style, numbers of place and shape, words) of all that an SVG draws, whoever in it says so."""
    if definitions is None:
        definitions = {each.get("id"): each for each in node.iter() if each.get("id")}
    kind, style = node.tag.rpartition("}")[2], node.get("style", style)
    if kind in ("defs", "metadata", "style", "title"):
        return []
    shape = node if kind != "use" else definitions[node.get(files.LINK)[1:]]
    places = f"{node.get('x', '')} {node.get('y', '')} {shape.get('d', '')}"
    own = (
        style,
        shape.get("style") if kind == "use" else "",
        [float(n) for n in re.findall(r"-?\d+\.?\d*", places)],
        node.text,
    )
    inner = [each for child in node for each in drawn(child, style, definitions)]
    return ([own] if kind in ("use", "path", "text") else []) + inner


def test_a_slim_picture_draws_what_the_whole_one_does(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.subplots()
    axes.vlines([0.1, 0.2, 0.7], [0, 0.1, 0.3], 1)
    axes.set_title("a  b < c")
    for i in range(9):
        axes.plot([i / 9], [i / 7], "o", gid=f"hover-{i}", label=f"_point {i}")
    files.save_figure(figure, tmp_path / "slim", hover=True)
    monkeypatch.setattr(files, "_slim", lambda root: None)
    files.save_figure(figure, tmp_path / "whole", hover=True)
    slim, whole = (drawn(ElementTree.parse(tmp_path / f"{name}.svg").getroot()) for name in ("slim", "whole"))
    assert [(*each[:2], each[3] or "") for each in slim] == [
        (*each[:2], (each[3] or "").strip()) for each in whole
    ]
    assert len(whole) > 25 and "a  b < c" in {each[3] for each in slim}
    for ours, theirs in zip(slim, whole, strict=True):
        np.testing.assert_allclose(ours[2], theirs[2], rtol=0, atol=0.00501)
    assert (tmp_path / "slim.svg").stat().st_size < 0.8 * (tmp_path / "whole.svg").stat().st_size


@pytest.mark.parametrize("layout", [None, "constrained"])
def test_a_figure_that_cannot_be_drawn_leaves_nothing(tmp_path, monkeypatch, layout):
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    def broken(self, path, **_):
        (path.write_bytes if isinstance(path, Path) else path.write)(b"half")
        raise RuntimeError("cannot draw")

    monkeypatch.setattr(FigureCanvasSVG, "print_svg", broken)  # the second file, after a good first one
    with pytest.raises(RuntimeError, match="cannot draw"):
        files.save_figure(Figure(figsize=(2, 1), layout=layout), tmp_path / "f")
    assert names(tmp_path) == []


def test_a_saved_figure_is_what_savefig_draws_and_stays_as_it_was(tmp_path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3, 2), layout="constrained")
    figure.subplots(1, 2)[1].set_title("a title")
    canvas, dpi = figure.canvas, figure.dpi
    files.save_figure(figure, tmp_path / "f", dpi=90)
    assert figure.canvas is canvas and figure.dpi == dpi
    figure.savefig(tmp_path / "savefig.png", dpi=90)
    assert (tmp_path / "f.png").read_bytes() == (tmp_path / "savefig.png").read_bytes()


def test_a_parquet_file_is_read_back(tmp_path):
    files.save_parquet(FRAME, tmp_path / "s.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "s.parquet"), FRAME)


@pytest.mark.parametrize(
    "name", ["001", "1e5", "nan", "NA", "null", "None", "inf", "True", "1_000", " x ", "2026-01-02"]
)
def test_what_a_user_has_named_is_read_back_as_it_was_written(tmp_path, name):
    """A noise ``001.wav`` is the scenario 001 in every table, and a class may be called NA."""
    columns = ("noise_scenario", "noise", "clip", "category", "predicted")
    frame = pd.DataFrame({each: [name, name] for each in columns} | {"FF": [0.5, np.nan], "n": [1, 2]})
    files.save_table(frame, tmp_path / "t")
    pd.testing.assert_frame_equal(files.read_table(tmp_path / "t.csv"), frame)

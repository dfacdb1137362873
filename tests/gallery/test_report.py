"""The report: its index, pages and files, and what it says when something is missing."""

from __future__ import annotations

import base64
import json
import re

import nbformat
import nbformat.v4 as v4
import numpy as np
import pandas as pd
import pytest
from browser import WIDTHS, Visit, chromium, needs_browser
from gallery_entries import entries
from report_run import PIXEL, TABLE, display, notebook, save_figures, save_tables

from audioxai_utils import files
from audioxai_utils.audit.sentences import SENTENCES
from audioxai_utils.gallery import report_parts
from audioxai_utils.gallery.listening_gallery import write_gallery
from audioxai_utils.gallery.report import INDEX, build
from audioxai_utils.study.settings import Settings
from audioxai_utils.study.study import Study


def every_kind_of_cell():
    """Cells of a notebook: formulas and links, then each kind of output that a page must show."""
    words = "# 01 · Data\n\nSee [attributions](03_attributions.ipynb) and [nothing](99_gone.ipynb#x). "
    words += "Mean $\\frac{a}{b} < 3$ costs 5 $ or $$x_1^2$$"
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "VBox"}
    table = {"text/html": "<table><tr><td>cell 7</td></tr></table>", "text/plain": "x"}
    error = {
        "ename": "ZeroDivisionError",
        "evalue": "division by zero",
        "traceback": ["ZeroDivisionError: division by zero"],
    }
    return [
        ("markdown", words, []),
        ("code", "print('<b>')", [v4.new_output("stream", name="stdout", text="<b> & \x1b[31mred\x1b[0m\n")]),
        ("code", "figure", [display({"image/png": PIXEL, "text/plain": "<Figure>"})]),
        ("code", "widget", [display(widget)]),
        ("code", "frame", [display(table)]),
        ("code", "1/0", [v4.new_output("error", **error)]),
    ]


def index_cells(study):
    """What the report's notebook leaves behind."""
    shown = [
        report_parts.answer(study),
        report_parts.accuracies(study),
        report_parts.study_tables(study, "paper"),
        report_parts.study_tables(study, "audited"),
        report_parts.every_method(study),
    ]
    words = "# What does it hear?\n\nSee [data](01_data_and_noise.ipynb) and [audit](07_audit.ipynb); "
    return [("markdown", words + "[listen](gallery/index.html).", [])] + [
        ("code", "part(study)", [display({"text/html": part.data, "text/plain": "x"})]) for part in shown
    ]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """Results of a run that has the paper's tables of two conditions, a gallery, figures and two
    notebooks.
    """
    folder = tmp_path_factory.mktemp("results")
    save_tables(folder / "tables")
    save_figures(folder / "figures")
    manifest = {
        "seed": 42,
        "settings": {"profile": "quick", "dataset": "esc10"},
        "seconds": 123.0,
        "steps": {"01_data_and_noise": {"seconds": 3.0}},
        "versions": {"torch": "2.11.0"},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    notebook(folder / "notebooks" / "01_data_and_noise.ipynb", every_kind_of_cell())
    notebook(
        folder / "notebooks" / "03_attributions-mel_db-clean.ipynb",
        [("markdown", "# 03 · Attributions", [])],
    )
    Settings("smoke", results_dir=str(folder), methods=("saliency", "gradcam", "lime", "shap")).write()
    notebook(folder / "notebooks" / f"{INDEX}.ipynb", index_cells(Study(Settings.read(folder))))
    write_gallery(entries(1, methods=("lime",)), folder / "report" / "gallery")
    build(folder)
    return folder


def test_report_is_complete_and_needs_nothing_from_outside(run_folder):
    report = run_folder / "report"
    for path in report.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        for address in re.findall(r'(?:src|href)="([^"]*)"', text):
            assert not re.match(r"(?:https?:)?//", address), (path.name, address)
            target = address.partition("#")[0]
            if target and not target.startswith("data:"):
                assert (path.parent / target).exists(), (path.name, address)
        assert "<script" not in text or path.parent.name == "gallery"
        assert path.stat().st_size < 3e5


def test_numbers_of_the_answer_are_the_tables(run_folder):
    text = (run_folder / "report" / "index.html").read_text(encoding="utf-8")
    assert "86.2 % from mel spectrograms" in text and "<td>92.2</td>" in text  # ours and the published one
    assert (
        "LIME with bin comes first" in text and "90 % of the clips" in text and "by 0.90 on average" in text
    )
    assert f"on {100 * TABLE['FidIn'].mean():.0f} % of the clean clips" in text
    assert f"{100 * TABLE['FidIn'].mean() / 2:.0f} % with white noise" in text
    assert "between 30.0 % (Saliency) and 60.0 % (Grad-CAM)" in text and "Grad-CAM is constant" in text
    assert "on 45 % of the clips" in text


def test_what_was_not_computed_is_said(run_folder, tmp_path):
    text = (run_folder / "report" / "index.html").read_text(encoding="utf-8")
    assert 'Does it hold under the audited protocol?</strong> <span class="missing">not computed' in text
    assert "II (STFT, clean)" in text and "VI (mel, horse)" in text
    study = Study(Settings("smoke", results_dir=str(tmp_path)))
    answer = report_parts.answer(study).data
    assert answer.count("not computed in this run") == len(SENTENCES) and not re.search(
        r"\d+(\.\d+)? %", answer
    )
    parts = [
        report_parts.findings(study),
        report_parts.accuracies(study),
        report_parts.study_tables(study, "paper"),
        report_parts.figure(study, "intervals"),
    ]
    assert all("Not computed in this run" in part.data for part in parts)
    assert "Not computed" in report_parts.gallery_words(study).data
    text = build(tmp_path).read_text(encoding="utf-8")  # an empty folder
    assert "00_report, was not run" in text and text.count("Not computed in this run") == 2
    with pytest.raises(FileNotFoundError, match="results_dir"):
        build(tmp_path / "none")


def test_the_index_is_the_report_s_notebook(run_folder):
    """Its links lead into notebooks/ and gallery/; a notebook that was not run is no link; its code is left
    out.
    """
    text = (run_folder / "report" / "index.html").read_text(encoding="utf-8")
    assert "<h1" in text and "What does it hear?" in text and "part(study)" not in text.replace(" ", "")
    assert 'href="notebooks/01_data_and_noise.html"' in text and 'title="07_audit.ipynb"' in text
    assert 'href="gallery/index.html"' in text
    assert not (run_folder / "report" / "notebooks" / f"{INDEX}.html").exists()


def test_best_and_worst_are_coloured(run_folder):
    text = (run_folder / "report" / "index.html").read_text(encoding="utf-8")
    table = text[text.index("Table III: mel") : text.index("Table IV: mel")]
    style = {
        name: rule
        for names, rule in re.findall(r"((?:#T_\w+(?:, )?)+) \{\s*(.*?)\}", table, re.S)
        for name in names.replace("#", "").split(", ")
    }
    cells = dict(re.findall(r'<td class="[^"]*" id="(T_\w+)">([^<]*)</td>', table))
    found = {text: style.get(name, "") for name, text in cells.items()}
    assert "#b7e1b0" in found["0.900"]  # the best FF (and FidIn)
    assert "#fbc99b" in found["95.00"]  # the worst AD
    assert "#aed4f5" in found["4.900"] and "#f6e58d" in found["9.700"]  # COMP


def test_notebook_page(run_folder):
    folder = run_folder / "report" / "notebooks"
    text = (folder / "01_data_and_noise.html").read_text(encoding="utf-8")
    assert 'href="03_attributions-mel_db-clean.html"' in text and ".ipynb#" not in text
    assert "&lt;b&gt; &amp;" in text and "cell 7" in text and "ZeroDivisionError" in text
    assert "running kernel" in text and "VBox" not in text
    assert text.count("<math") == 2 and "costs 5 $ or" in text
    picture = re.search(r'src="(01_data_and_noise_files/[^"]+\.png)"', text)[1]
    assert (folder / picture).read_bytes() == base64.b64decode(PIXEL)
    assert 'rel="stylesheet" href="../assets/style.css"' in text


def test_a_figure_on_file_lies_once_in_the_report(tmp_path):
    """Shown by two pages and offered as a file; another picture keeps a file of its own."""
    save_figures(tmp_path / "figures")
    saved = base64.b64encode((tmp_path / "figures" / "transform_scheme.png").read_bytes()).decode()
    for stem in ("01_data_and_noise", "00_report"):
        shown = [display({"image/png": each, "text/plain": "x"}) for each in (saved, PIXEL)]
        cells = [v4.new_markdown_cell("# Data"), v4.new_code_cell("figure", outputs=shown)]
        path = tmp_path / "notebooks" / f"{stem}.ipynb"
        path.parent.mkdir(exist_ok=True)
        nbformat.write(v4.new_notebook(cells=cells), path)
    index = build(tmp_path)
    pages = (index, index.parent / "notebooks" / "01_data_and_noise.html")
    for page, address in zip(pages, ("figures/", "../figures/")):
        addresses = re.findall(r'<img[^>]*src="([^"]+[.]png)"', page.read_text(encoding="utf-8"))
        assert addresses[0] == f"{address}transform_scheme.png" and len(addresses) == 2
        assert all((page.parent / each).is_file() for each in addresses)
    assert len(list(index.parent.rglob("*.png"))) == 2 + 2  # two figures, and the pixel of each page
    assert not list(index.parent.rglob("figures/*.svg"))  # as large as all pictures; they stay with the run


def test_a_damaged_figure_does_not_stop_the_report(tmp_path):
    save_figures(tmp_path / "figures")
    damaged = tmp_path / "figures" / "training_mel_db.png"
    damaged.write_bytes(damaged.read_bytes()[:100])
    (tmp_path / "figures" / "empty.png").touch()
    figures = build(tmp_path).parent / "figures"
    assert (figures / damaged.name).read_bytes() == damaged.read_bytes() and (figures / "empty.png").is_file()
    assert (figures / "transform_scheme.png").stat().st_size > 1000


def test_building_again_keeps_the_gallery_and_drops_old_pages(run_folder):
    gallery = sorted(path.name for path in (run_folder / "report" / "gallery" / "assets").iterdir())
    (run_folder / "report" / "notebooks" / "old.html").write_text("old")
    build(run_folder)
    assert not (run_folder / "report" / "notebooks" / "old.html").exists()
    assert sorted(path.name for path in (run_folder / "report" / "gallery" / "assets").iterdir()) == gallery
    assert not [path for path in run_folder.iterdir() if path.name.startswith(".")]


@needs_browser
def test_pages_in_a_browser_without_network(run_folder, tmp_path):
    """Every page paints within a second, complains of nothing and fits 360 to 1920 px."""
    pages = sorted((run_folder / "report").rglob("*.html"))
    assert len(pages) == 4
    with chromium() as browser:
        for number, path in enumerate(pages):
            for width in WIDTHS if path.name == "index.html" else WIDTHS[:1]:
                visit = Visit(browser, width, color_scheme=("light", "dark")[number % 2], bypass_csp=False)
                page = visit.open(path)
                assert visit.first_paint() < 1000
                assert visit.overflow() == 0, (path.name, width)
                assert width != WIDTHS[0] or visit.serious_faults() == []
                assert visit.faults == [] and visit.outside == []
                page.screenshot(path=tmp_path / f"{path.parent.name}-{path.stem}-{width}.png", full_page=True)
                visit.close()


@needs_browser
def test_no_table_is_cut_off_at_1200_px_and_all_scroll_in_their_frame_at_400(tmp_path):
    """The widest table of a study: seven metrics with intervals, controls, area; as a cell and as
    Markdown.
    """
    study, bounds = Study(Settings("smoke", results_dir=str(tmp_path))), {}
    for metric in ("FF", "AI", "AG", "FidIn", "SPS", "AD", "COMP"):
        bounds |= {f"{metric}_low": -abs(TABLE[metric]) - 10.111, f"{metric}_high": TABLE[metric] + 10.111}
    wide = TABLE.assign(
        **bounds, not_better_than="energy: FF, AD, FidIn; random: FF, AD, FidIn", mask="pos_thresh_75"
    )
    files.save_table(wide, tmp_path / "tables" / "audited" / "table_III")
    columns = " | ".join(f"a wide column {i}" for i in range(9))
    text = f"# T\n\n| {columns} |\n|{'---|' * 9}\n| {columns} |\n"
    part = display({"text/html": report_parts.study_tables(study, "audited").data})
    notebook(tmp_path / "notebooks" / f"{INDEX}.ipynb", [("markdown", text, []), ("code", "x", [part])])
    build(tmp_path)
    with chromium() as browser:
        for width in (1200, 400):
            visit = Visit(browser, width, bypass_csp=False)
            page = visit.open(tmp_path / "report" / "index.html")
            sizes = page.evaluate("""() => [...document.querySelectorAll("table")].map(table =>
              [table.getBoundingClientRect().width, table.closest(".scroll").clientWidth])""")
            assert len(sizes) == 2 and visit.overflow() == 0
            assert width == 400 or all(table <= frame for table, frame in sizes), sizes
            visit.close()


def test_scalars_in_tables_survive(run_folder):
    """What is copied is what was computed."""
    copied = pd.read_csv(run_folder / "report" / "tables" / "paper" / "table_III.csv")
    np.testing.assert_array_equal(copied["FF"], TABLE["FF"])


def test_what_another_run_left_in_the_folder_stays_out(tmp_path):
    (tmp_path / "cafe.wav").write_bytes(b"")
    Settings(
        "smoke", results_dir=str(tmp_path), scenarios=("clean", str(tmp_path / "cafe.wav")), methods=("lime",)
    ).write()
    ours = ["01_data_and_noise", "03_attributions-mel_db-cafe"]
    others = ["03_attributions-mel_db-horse", "02_fine_tuning-stft_db"]
    for stem in (*ours, *others):
        notebook(tmp_path / "notebooks" / f"{stem}.ipynb", [("code", "1", [])])
    kept = {
        "summary",
        "accuracy_mel_db",
        "area_mel_db_cafe",
        "paper/table_III",
        "attributions/mel_db_cafe_lime",
    }
    left = {
        "accuracy_stft_db",
        "area_mel_db_horse",
        "area_mel_db_forest",
        "paper/table_VI",
        "beside_II",
        "attributions/mel_db_cafe_shap",
    }
    for name in kept | left:
        files.save_table(TABLE, tmp_path / "tables" / name)
    build(tmp_path)
    folder = tmp_path / "report" / "tables"
    assert pages_of(tmp_path) == set(ours)
    assert {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.csv")} == kept
    build(tmp_path, notebooks=["01_data_and_noise"])  # the run says which are its own
    assert pages_of(tmp_path) == {"01_data_and_noise"}
    (tmp_path / "settings.json").unlink()  # without settings, whatever is there
    build(tmp_path)
    assert pages_of(tmp_path) == {*ours, *others}


def pages_of(results):
    return {path.stem for path in (results / "report" / "notebooks").glob("*.html")}

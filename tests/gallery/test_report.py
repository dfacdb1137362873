"""The report: pages of executed notebooks, the index, and what it says when something is missing."""

from __future__ import annotations

import base64
import dataclasses
import functools
import json
import re
from types import SimpleNamespace
from urllib.parse import quote

import nbformat
import nbformat.v4 as v4
import numpy as np
import pandas as pd
import pytest
from browser import WIDTHS, Visit, chromium, needs_browser
from gallery_entries import entries

from audioxai_utils import files
from audioxai_utils.audit.sentences import SENTENCES
from audioxai_utils.audit.trust import CHECKS
from audioxai_utils.figures import scores as score_figures
from audioxai_utils.figures.scheme import transform_scheme
from audioxai_utils.gallery import report_parts
from audioxai_utils.gallery.listening_gallery import write_gallery
from audioxai_utils.gallery.listening_page import write_listening_test
from audioxai_utils.gallery.notebook_pages import mathml, notebook_body, part_words, relink, sounds_to_files
from audioxai_utils.gallery.report import INDEX, build
from audioxai_utils.study.settings import Settings
from audioxai_utils.study.study import Study

PIXEL = base64.b64encode(
    base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    )
).decode()
TABLE = pd.DataFrame(
    {
        "method": ["saliency", "gradcam", "lime", "shap"],
        "mask": ["topK_30", "bin", "bin", "topK_50_pos"],
        "FF": [0.8, 0.7, 0.9, 0.75],
        "AI": [1.0, 20.0, 30.0, 0.0],
        "AG": [0.1, 2.0, 12.0, 0.0],
        "FidIn": [0.1, 0.6, 0.9, 0.2],
        "SPS": [0.7, 0.2, 0.3, 0.5],
        "AD": [95.0, 24.0, 8.0, 90.0],
        "COMP": [9.2, 4.9, 9.5, 9.7],
        "area": [0.3, 0.6, 0.55, 0.5],
        "degenerate": [0.0, 0.45, 0.0, 0.1],
    }
)


def notebook(path, cells):
    """Write an executed notebook of (kind, source, outputs[, tags])."""
    made = [
        v4.new_markdown_cell(source, metadata={"tags": list(tags)})
        if kind == "markdown"
        else v4.new_code_cell(source, outputs=outputs, metadata={"tags": list(tags)})
        for kind, source, outputs, *tags in cells
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(v4.new_notebook(cells=made)), encoding="utf-8")


def display(data, kind="display_data"):
    return v4.new_output(kind, data=data)


def save_tables(tables):
    """Table I of mel, and III and IV with their best masks."""
    accuracy = {
        "spectrogram_type": ["mel_db"],
        "train_acc": [99.0],
        "val_acc": [88.0],
        "test_acc": [86.25],
        "epoch": [31],
    }
    best = {
        "protocol": "paper",
        "spectrogram_type": "mel_db",
        "noise_scenario": "clean",
        "score": [0.2, 0.3, 0.6, 0.1],
    }
    files.save_table(pd.DataFrame(accuracy), tables / "table_I")
    files.save_table(TABLE, tables / "paper" / "table_III")
    files.save_table(TABLE.assign(FidIn=TABLE["FidIn"] / 2), tables / "paper" / "table_IV")
    files.save_table(TABLE.assign(**best), tables / "best_masks")


def save_figures(figures):
    """The scheme, and two epochs of training."""
    history = {
        "epoch": [1, 2],
        "train_loss": [2, 1],
        "validation_loss": [2, 1.5],
        "train_accuracy": [0.2, 0.5],
        "validation_accuracy": [0.3, 0.4],
    }
    files.save_figure(transform_scheme(), figures / "transform_scheme")
    files.save_figure(score_figures.training_curves(pd.DataFrame(history)), figures / "training_mel_db")


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


def test_progress_is_folded_and_a_warning_is_not(tmp_path):
    """Lines of Study.progress and of tqdm are folded away in one place; a warning stays one."""
    texts = [
        ("stdout", "start\n"),
        ("stderr", "lime on mel, clean: 1/20\nlime on mel, clean: 20/"),
        ("stderr", "20\n"),
        ("stderr", "epochs:  40%|####      | 4/10 [00:01<00:02]\n"),
        ("stderr", "x.py:3: UserWarning: 2/3 of the clips are silent\n  warnings.warn(text)\n"),
        ("stdout", "end\n"),
        ("stderr", "shap on mel, clean: 20/20\n"),
    ]
    outputs = [v4.new_output("stream", name=name, text=text) for name, text in texts]
    notebook(tmp_path / "a.ipynb", [("code", "run()", outputs)])
    text = notebook_body(tmp_path / "a.ipynb", tmp_path, {})
    folded = re.findall(
        r'<details class="progress"><summary>(.*?)</summary><pre[^>]*>(.*?)</pre>', text, re.S
    )
    assert [(words, lines.split("\n")[:-1]) for words, lines in folded] == [
        (
            "Progress (4 lines)",
            [
                "lime on mel, clean: 1/20",
                "lime on mel, clean: 20/20",
                "epochs:  40%|####      | 4/10 [00:01&lt;00:02]",
                "shap on mel, clean: 20/20",
            ],
        )
    ]
    found = re.findall(r'<div class="output( warning)?"><pre[^>]*>(.*?)</pre>', text, re.S)
    assert [(bool(mark), lines.strip().split("\n")) for mark, lines in found] == [
        (False, ["start"]),
        (True, ["x.py:3: UserWarning: 2/3 of the clips are silent", "  warnings.warn(text)"]),
        (False, ["end"]),
    ]


def test_setup_is_folded_and_the_science_is_not(tmp_path):
    cells = [
        ("markdown", "# T", []),
        ("code", "import torch\nfrom a import (\n    b,\n)", []),
        ("code", 'results_dir = ""', [], "parameters"),
        ("code", 'results_dir = "r"', [], "injected-parameters"),
        ("code", "maps = condition.attribute(method)", []),
    ]
    notebook(tmp_path / "a.ipynb", cells)
    text = notebook_body(tmp_path / "a.ipynb", tmp_path, {})
    assert re.findall(r'<details class="input"><summary>(\w+)</summary>', text) == [
        "Imports",
        "Parameters",  # what was given, without the defaults
    ]
    shown = re.sub(r"<[^>]+>", "", text[text.rindex('<div class="input">') :])
    assert "maps = condition.attribute(method)" in shown


@pytest.mark.parametrize("marked", [True, False])
def test_what_was_found_comes_first(tmp_path, marked):
    """The cell ``found``; without one, what the cell ``summary`` displayed."""
    said = [display({"text/markdown": "LIME wins on **7** clips.", "text/plain": "x"})]
    cells = [("markdown", "# Title", []), ("markdown", "## First", []), ("code", "say()", said, "summary")]
    if marked:
        cells.append(("markdown", "The run **says** so.", [], "found"))
    notebook(tmp_path / "a.ipynb", cells)
    text = notebook_body(tmp_path / "a.ipynb", tmp_path, {})
    found = "The run <strong>says</strong> so." if marked else "LIME wins on <strong>7</strong> clips."
    assert (
        text.index("Title") < text.index('class="cell text found"') < text.index(found) < text.index("First")
    )
    assert text.count('class="cell text found"') == 1


def test_parts_of_a_condition_are_named_in_words():
    assert part_words("04_mask_study-mel_db-white") == "mel, white noise"
    assert part_words("02_fine_tuning-stft_db") == "STFT" and part_words("01_data_and_noise") == ""
    assert part_words("03_attributions-mel_db-my-cafe") == "mel, my-cafe"
    assert part_words("03_attributions-stft_db-clean-lime") == "STFT, clean, LIME"


def test_formulas_leave_code_and_prices_alone():
    assert mathml("<code>$a$</code> and <pre>x $b$ y</pre>") == "<code>$a$</code> and <pre>x $b$ y</pre>"
    assert mathml("from $5 to $6") == "from $5 to $6"
    assert "<math" in mathml("$a &lt; b$") and "<mo>&#x0003C;</mo>" in mathml("$a &lt; b$")
    assert 'display="block"' in mathml("$$\\sum_i x_i$$")


def test_links_and_embedded_sounds(tmp_path):
    assert relink('<a href="x/02_b.ipynb#c">', {"02_b": "B"}) == '<a href="02_b.html#c">'
    assert relink('<a href="https://a.org/n.ipynb">', {"n": "N"}) == '<a href="https://a.org/n.ipynb">'
    data = bytes(range(64))
    text = sounds_to_files(
        f'<source src="data:audio/wav;base64,{base64.b64encode(data).decode()}">', tmp_path / "f", "f"
    )
    name = re.search(r'src="f/(\w+\.wav)"', text)[1]
    assert (tmp_path / "f" / name).read_bytes() == data


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


def test_methods_that_are_not_the_studys_bring_a_table_of_all_scored_and_heard(tmp_path):
    study = Study(Settings("smoke", results_dir=str(tmp_path), methods=("extremal", "lime")))
    condition = {"protocol": "audited", "spectrogram_type": "mel_db", "noise_scenario": "white"}
    every = TABLE[["method", "mask", "FF", "SPS", "area"]].assign(
        **condition, FF_low=0.1, FF_high=0.95, FF_heard=0.4
    )
    files.save_table(every.assign(seconds=0.25), tmp_path / "tables" / "methods")
    assert "no other methods than the study" in report_parts.every_method(study).data
    new = every.tail(1).assign(method="extremal", FF=0.99, seconds=1.5)
    files.save_table(pd.concat([every, new]), tmp_path / "tables" / "methods")
    part = report_parts.every_method(study).data
    assert "FF, heard" in part and "0.990 [0.100," in part
    assert "Extremal perturbation" in part and "1.50<" in part


# Names from a user's files

HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(2)">'
RUNS = re.compile(r"<script>alert|<img src=x")


def hostile_run(folder):
    """A run whose category, clip, noise, answers and messages are scripts, on every page that it has."""
    Settings("smoke", results_dir=str(folder), scenarios=("clean",)).write()
    study = Study(Settings.read(folder))
    table = TABLE.assign(mask=HOSTILE)
    files.save_table(table.assign(number=1, finding=HOSTILE), folder / "tables" / "findings")
    files.save_table(table, folder / "tables" / "paper" / "table_III")
    some = [
        dataclasses.replace(
            entry,
            clip=HOSTILE,
            category=HOSTILE,
            noise_scenario=HOSTILE,
            method="lime",
            tags=[HOSTILE],
            probabilities=dict.fromkeys(entry.probabilities, (HOSTILE, 0.5)),
        )
        for entry in entries(1, methods=("lime",))
    ]
    links = [("../index.html", HOSTILE)]
    write_gallery(some, folder / "report" / "gallery", title=HOSTILE, links=links)
    write_listening_test(folder / "report" / "gallery", [HOSTILE], title=HOSTILE, links=links)
    shown = [
        report_parts.findings(study),
        report_parts.study_tables(study, "paper"),
        report_parts.figure(study, "none"),
        report_parts.every_method(study),
    ]
    html = [("code", "x", [display({"text/html": part.data, "text/plain": HOSTILE})]) for part in shown]
    streams = [
        ("code", f"print({HOSTILE!r})", [v4.new_output("stream", name=name, text=HOSTILE + "\n")])
        for name in ("stdout", "stderr")
    ]
    error = ("code", "x", [v4.new_output("error", ename="ValueError", evalue=HOSTILE, traceback=[HOSTILE])])
    plain = ("code", "x", [display({"text/plain": HOSTILE})])
    alt = ("code", "x", [v4.new_output("display_data", data={"image/png": PIXEL}, metadata={"alt": HOSTILE})])
    notebook(folder / "notebooks" / f"{INDEX}.ipynb", [("markdown", "# Title", []), *html])
    notebook(
        folder / "notebooks" / "03_attributions-mel_db-clean.ipynb", [*html, *streams, error, plain, alt]
    )
    manifest = {"seed": HOSTILE, "settings": {"dataset": HOSTILE}, "steps": {HOSTILE: {"seconds": 1.0}}}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    build(folder)


def dismissed(messages, dialog):
    messages.append(dialog.message)
    dialog.dismiss()


def test_hostile_names_are_text_in_every_page(tmp_path):
    hostile_run(tmp_path)
    pages = sorted((tmp_path / "report").rglob("*.html"))
    assert len(pages) == 4
    for path in pages:
        text = path.read_text(encoding="utf-8")
        assert not RUNS.search(text), (path.name, RUNS.search(text))
        assert "&lt;script&gt;alert(1)" in text, path.name


@needs_browser
def test_no_page_of_a_run_with_hostile_names_runs_them(tmp_path):
    """Every page is opened, the gallery's views and the listening test's parts too; nothing is run, and
    nothing is blocked.
    """
    hostile_run(tmp_path)
    with chromium() as browser:
        for path in sorted((tmp_path / "report").rglob("*.html")):
            visit, dialogs = Visit(browser, bypass_csp=False), []
            visit.page.on("dialog", functools.partial(dismissed, dialogs))
            page = visit.open(path)
            for view in ("#view=methods", "#view=masks", "#tag=" + quote(HOSTILE), "#view=cards"):
                page.evaluate(f"location.hash = {view!r}")
                page.wait_for_timeout(50)
            if path.name == "listening.html":
                page.fill("#participant", "p1")
                page.click("#start button[type=submit]")
            page.wait_for_timeout(200)
            assert "<script>alert(1)</script>" in page.inner_text("body"), path.name
            assert page.locator("img[src=x]").count() == 0
            assert dialogs == [] and visit.faults == [], path.name
            visit.close()


@needs_browser
def test_a_script_that_a_notebook_displays_unescaped_is_not_run(tmp_path):
    cells = [
        ("markdown", "# T", []),
        ("code", "x", [v4.new_output("display_data", data={"text/html": HOSTILE})]),
        (
            "code",
            "x",
            [display({"text/markdown": f"**{HOSTILE}** [a](javascript:alert(3))", "text/plain": "x"})],
        ),
        (
            "code",
            "x",
            [display({"image/svg+xml": f"<svg onload='alert(4)'>{HOSTILE}</svg>", "text/plain": "x"})],
        ),
        ("code", "x", [display({"text/latex": HOSTILE, "text/plain": "x"})]),
        ("code", "x", [display({"application/javascript": "alert(5)", "text/plain": "x"})]),
    ]
    notebook(tmp_path / "notebooks" / "01_data_and_noise.ipynb", cells)
    build(tmp_path)
    with chromium() as browser:
        visit, dialogs = Visit(browser, bypass_csp=False), []
        visit.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        visit.open(tmp_path / "report" / "notebooks" / "01_data_and_noise.html").wait_for_timeout(300)
        assert dialogs == [] and any("Content Security Policy" in fault for fault in visit.faults)
        visit.close()


# A model of the reader's own


def own_study(folder, test_accuracy: float):
    """Results of a foreign model in one clean condition, with Table I."""
    accuracy = {"spectrogram_type": ["own"], "train_acc": [np.nan], "val_acc": [np.nan]}
    accuracy |= {"test_acc": [test_accuracy], "epoch": [0]}
    files.save_table(pd.DataFrame(accuracy), folder / "tables" / "table_I")
    settings = SimpleNamespace(model="my_model.py:load", explained_by=("saliency",))
    settings.protocol, settings.protocols = "audited", ("audited",)
    conditions = [SimpleNamespace(pair=("own", "clean"), noise_scenario="clean")]
    study = SimpleNamespace(results=folder, settings=settings, conditions=conditions)
    study.path = lambda *names: folder.joinpath("figures", *filter(None, names[1:]))
    return study


def test_a_folder_without_labels_is_not_said_to_lack_a_computation(tmp_path):
    """Nobody can compute how often a classifier is right that knows none of the classes, or what noise that
    is not there does.
    """
    study = own_study(tmp_path, np.nan)
    answer = report_parts.answer(study).data
    assert "How good is the classifier?</strong> <span" in answer
    assert "not known: no clip has a class that the classifier knows." in answer
    assert "this run has no noise." in answer and answer.count("not computed in this run") == 3
    parts = [
        report_parts.accuracies(study),
        report_parts.training(study, "own"),
        report_parts.confusion(study, "own"),
    ]
    assert not any("ot computed" in part.data for part in parts)
    assert (
        "nothing was trained" in parts[1].data
        and "not known" in parts[0].data
        and "not known" in parts[2].data
    )


def test_a_foreign_model_s_accuracy_stands_alone(tmp_path):
    """The published networks, with epochs and 50 classes, are no neighbours of it."""
    study = own_study(tmp_path, 62.5)
    table = report_parts.accuracies(study).data
    assert "62.5" in table and "published" not in table and "epoch" not in table
    assert "62.5 %" in report_parts.answer(study).data
    assert (
        "Not computed in this run" in report_parts.confusion(study, "own").data
    )  # known, and not drawn here


def test_the_verdict_comes_first_and_says_why(tmp_path, monkeypatch):
    rows = [
        ("saliency", 1e-8, "", ""),
        ("lime", np.nan, "changes with the seed", ""),
        ("gradcam", np.nan, "", "it shows no layers"),
        ("rise", np.nan, "", ""),
    ]
    table = pd.DataFrame(rows, columns=["method", "gradient", "doubts", "refused"])
    table = table.assign(**{check: np.nan for check in CHECKS if check != "gradient"})
    monkeypatch.setattr(report_parts.trust, "trust", lambda study: table)
    shown = report_parts.trusted(SimpleNamespace(save=lambda name, table: None)).data
    assert re.findall("<th>(.*?)</th>", shown)[:3] == ["method", "verdict", "error of the gradient"]
    assert re.findall(r"<td>(Saliency|LIME|Grad-CAM|RISE)</td>\s*<td>(.*?)</td>", shown) == [
        ("Saliency", "passed every check that was made"),
        ("LIME", "in doubt: changes with the seed"),
        ("Grad-CAM", "cannot be used: it shows no layers"),
        ("RISE", "not checked"),
    ]


def test_a_run_by_one_protocol_answers_by_it_and_says_so(tmp_path):
    """Which explanation comes first, and how much it keeps, were "not computed"."""
    study = own_study(tmp_path, 62.5)
    study.main_condition = study.conditions[0]
    best = {"protocol": "audited", "spectrogram_type": "own", "noise_scenario": "clean"}
    files.save_table(TABLE.assign(**best, score=[0.2, 0.3, 0.6, 0.1]), tmp_path / "tables" / "best_masks")
    files.save_table(TABLE, tmp_path / "tables" / "audited" / "table_own_clean")
    answer = report_parts.answer(study).data
    assert "LIME with bin comes first (own, clean)" in answer and "between 30.0 % (Saliency)" in answer
    assert "It names 62.5 % of the clips whose class it knows correctly." in answer
    assert "not computed" not in answer
    alone = "This run has the audited protocol alone."
    for part in (
        report_parts.front(study, "paper"),
        report_parts.of_the_audit(study, "fill_sensitivity"),
        report_parts.findings(study),
        report_parts.study_tables(study, "paper"),
    ):
        assert alone in part.data
    for name in ("front_audited_own_clean", "intervals_audited"):
        files.save_figure(transform_scheme(), tmp_path / "figures" / name)
    for part in (report_parts.front(study, "audited"), report_parts.intervals(study)):
        assert not hasattr(part, "data") or b"PNG" in part.data[:8]

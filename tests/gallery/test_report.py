"""The report: pages of executed notebooks, the index, and what it says when something is missing."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pandas as pd
import pytest
from browser import WIDTHS, Visit, chromium, needs_browser
from gallery_entries import entries

from audioxai_utils import files
from audioxai_utils.figures import plots
from audioxai_utils.audit.sentences import SENTENCES
from audioxai_utils.gallery.listening_gallery import write_gallery
from audioxai_utils.gallery.notebook_pages import mathml, notebook_body, relink, sounds_to_files
from audioxai_utils.gallery.report import build

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


def notebook(path, conditions):
    """Write an executed notebook of (kind, source, outputs)."""
    import nbformat.v4 as v4

    made = [
        v4.new_markdown_condition(source) if kind == "markdown" else v4.new_code_condition(source, outputs=outputs)
        for kind, source, outputs in conditions
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(v4.new_notebook(conditions=made)), encoding="utf-8")


def display(data, kind="display_data"):
    import nbformat.v4 as v4

    return v4.new_output(kind, data=data)


def save_tables(tables):
    """Table I of mel, and III and IV with their best masks."""
    accuracy = {"spectrogram_type": ["mel_db"], "train_acc": [99.0], "val_acc": [88.0], "test_acc": [86.25], "epoch": [31]}
    best = {"protocol": "paper", "spectrogram_type": "mel_db", "noise_scenario": "clean", "score": [0.2, 0.3, 0.6, 0.1]}
    files.save_table(pd.DataFrame(accuracy), tables / "table_I")
    files.save_table(TABLE, tables / "paper" / "table_III")
    files.save_table(TABLE.assign(FidIn=TABLE["FidIn"] / 2), tables / "paper" / "table_IV")
    files.save_table(TABLE.assign(**best), tables / "best_masks")


def save_figures(figures):
    """The scheme, and two epochs of training."""
    history = {"epoch": [1, 2], "train_loss": [2, 1], "validation_loss": [2, 1.5], "train_accuracy": [0.2, 0.5],
               "validation_accuracy": [0.3, 0.4]}
    files.save_figure(plots.transform_scheme(), figures / "transform_scheme")
    files.save_figure(plots.training_curves(pd.DataFrame(history)), figures / "training_mel_db")


def every_kind_of_condition():
    """Conditions of a notebook: formulas and links, then each kind of output that a page must show."""
    from nbformat.v4 import new_output

    words = "# 01 · Data\n\nSee [attributions](03_attributions.ipynb) and [nothing](99_gone.ipynb#x). "
    words += "Mean $\\frac{a}{b} < 3$ costs 5 $ or $$x_1^2$$"
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "VBox"}
    table = {"text/html": "<table><tr><td>condition 7</td></tr></table>", "text/plain": "x"}
    error = {"ename": "ZeroDivisionError", "evalue": "division by zero", "traceback": ["ZeroDivisionError: division by zero"]}
    return [
        ("markdown", words, []),
        ("code", "print('<b>')", [new_output("stream", name="stdout", text="<b> & \x1b[31mred\x1b[0m\n")]),
        ("code", "figure", [display({"image/png": PIXEL, "text/plain": "<Figure>"})]),
        ("code", "widget", [display(widget)]),
        ("code", "frame", [display(table)]),
        ("code", "1/0", [new_output("error", **error)]),
    ]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """Results of a run that has the paper's tables of two conditions, a gallery, figures and two notebooks."""
    folder = tmp_path_factory.mktemp("results")
    save_tables(folder / "tables")
    save_figures(folder / "figures")
    manifest = {"seed": 42, "settings": {"profile": "quick", "dataset": "esc10"}, "seconds": 123.0,
                "steps": {"01_data_and_noise": {"seconds": 3.0}}, "versions": {"torch": "2.11.0"}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    notebook(folder / "notebooks" / "01_data_and_noise.ipynb", every_kind_of_condition())
    lime = folder / "notebooks" / "03_attributions-mel_db-clean-lime.ipynb"
    notebook(lime, [("markdown", "# 03 · Attributions", [])])
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
    index = build(tmp_path)  # an empty folder
    text = index.read_text(encoding="utf-8")
    assert text.count("not computed in this run") == len(SENTENCES)
    assert not re.search(r"\d+(\.\d+)? %", text)
    with pytest.raises(FileNotFoundError, match="results_dir"):
        build(tmp_path / "none")


def test_best_and_worst_are_coloured(run_folder):
    text = (run_folder / "report" / "index.html").read_text(encoding="utf-8")
    table = text[text.index("Table III:") : text.index("Table IV:")]
    style = {
        name: rule
        for names, rule in re.findall(r"((?:#T_\w+(?:, )?)+) \{\s*(.*?)\}", table, re.S)
        for name in names.replace("#", "").split(", ")
    }
    conditions = dict(re.findall(r'<td id="(T_\w+)" class="[^"]*"\s*>([^<]*)</td>', table))
    found = {text: style.get(name, "") for name, text in conditions.items()}
    assert "#b7e1b0" in found["0.900"]  # the best FF (and FidIn)
    assert "#fbc99b" in found["95.00"]  # the worst AD
    assert "#aed4f5" in found["4.900"] and "#f6e58d" in found["9.700"]  # COMP


def test_notebook_page(run_folder):
    folder = run_folder / "report" / "notebooks"
    text = (folder / "01_data_and_noise.html").read_text(encoding="utf-8")
    assert 'href="03_attributions-mel_db-clean-lime.html"' in text and ".ipynb#" not in text
    assert "&lt;b&gt; &amp;" in text and "condition 7" in text and "ZeroDivisionError" in text
    assert "running kernel" in text and "VBox" not in text
    assert text.count("<math") == 2 and "costs 5 $ or" in text
    picture = re.search(r'src="(01_data_and_noise_files/[^"]+\.png)"', text)[1]
    assert (folder / picture).read_bytes() == base64.b64decode(PIXEL)
    assert 'rel="stylesheet" href="../assets/style.css"' in text


def test_progress_is_not_shown_as_a_warning(tmp_path):
    """Lines of report_progress and of tqdm are plain output, in their place; a warning stays one."""
    import nbformat.v4 as v4

    texts = [
        ("stdout", "start\n"), ("stderr", "mel_db, clean, lime: 1/20\nmel_db, clean, lime: 20/"), ("stderr", "20\n"),
        ("stderr", "epochs:  40%|####      | 4/10 [00:01<00:02]\n"),
        ("stderr", "x.py:3: UserWarning: 2/3 of the clips are silent\n  warnings.warn(text)\n"), ("stdout", "end\n"),
    ]
    outputs = [v4.new_output("stream", name=name, text=text) for name, text in texts]
    notebook(tmp_path / "a.ipynb", [("code", "run()", outputs)])
    text = notebook_body(tmp_path / "a.ipynb", tmp_path, {})
    found = re.findall(r'<div class="output( warning)?"><pre[^>]*>(.*?)</pre>', text, re.S)
    assert [(bool(mark), [line for line in lines.split("\n") if line]) for mark, lines in found] == [
        (False, ["start", "mel_db, clean, lime: 1/20", "mel_db, clean, lime: 20/20",
                 "epochs:  40%|####      | 4/10 [00:01&lt;00:02]"]),
        (True, ["x.py:3: UserWarning: 2/3 of the clips are silent", "  warnings.warn(text)"]),
        (False, ["end"]),
    ]


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
                visit = Visit(browser, width, color_scheme=("light", "dark")[number % 2])
                page = visit.open(path)
                assert visit.first_paint() < 1000
                assert visit.overflow() == 0, (path.name, width)
                assert width != WIDTHS[0] or visit.serious_faults() == []
                assert visit.faults == [] and visit.outside == []
                page.screenshot(path=tmp_path / f"{path.parent.name}-{path.stem}-{width}.png", full_page=True)
                visit.close()


def test_scalars_in_tables_survive(run_folder):
    """What is copied is what was computed."""
    copied = pd.read_csv(run_folder / "report" / "tables" / "paper" / "table_III.csv")
    np.testing.assert_array_equal(copied["FF"], TABLE["FF"])


def test_what_another_run_left_in_the_folder_stays_out(tmp_path):
    settings = {"conditions": [["mel_db", "clean"], ["mel_db", "cafe"]], "methods": ["lime"], "protocol": "both"}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    condition = [("code", "1", [])]
    ours = ["01_data_and_noise", "03_attributions-mel_db-cafe-lime"]
    others = ["03_attributions-mel_db-cafe-shap", "03_attributions-mel_db-horse-lime", "02_fine_tuning-stft_db"]
    for stem in (*ours, *others):
        notebook(tmp_path / "notebooks" / f"{stem}.ipynb", condition)
    kept = {"summary", "accuracy_mel_db", "area_mel_db_cafe", "paper/table_III", "attributions/mel_db_cafe_lime"}
    left = {"accuracy_stft_db", "area_mel_db_horse", "area_mel_db_forest", "paper/table_VI", "beside_II",
            "attributions/mel_db_cafe_shap"}
    for name in kept | left:
        files.save_table(TABLE, tmp_path / "tables" / name)
    build(tmp_path)
    pages = {path.stem for path in (tmp_path / "report" / "notebooks").glob("*.html")}
    folder = tmp_path / "report" / "tables"
    assert pages == set(ours)
    assert {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.csv")} == kept
    text = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "Table III" in text and "Table VI:" not in text
    (tmp_path / "config.json").unlink()  # without a configuration, whatever is there
    build(tmp_path)
    assert len(list((tmp_path / "report" / "notebooks").glob("*.html"))) == 5


def test_methods_that_are_not_the_studys_bring_a_table_of_all_scored_and_heard(tmp_path):
    condition = {"protocol": "audited", "spectrogram_type": "mel_db", "noise_scenario": "white"}
    every = TABLE[["method", "mask", "FF", "SPS", "area"]].assign(**condition, FF_low=0.1, FF_high=0.95, FF_heard=0.4)
    files.save_table(every.assign(seconds=0.25), tmp_path / "tables" / "methods")
    assert "All methods of this run" not in build(tmp_path).read_text()
    new = every.tail(1).assign(method="optimised", FF=0.99, seconds=1.5)
    files.save_table(pd.concat([every, new]), tmp_path / "tables" / "methods")
    text = build(tmp_path).read_text()
    part = text[text.index("All methods of this run") :]
    assert "FF_heard" in part and "0.990 [0.100," in part and "optimised" in part and "1.500" in part

"""Names and outputs that are scripts are text in every page of a report."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from urllib.parse import quote

import nbformat.v4 as v4
from browser import Visit, chromium, needs_browser
from gallery_entries import entries
from report_run import PIXEL, TABLE, display, notebook

from audioxai_utils import files
from audioxai_utils.gallery import report_parts
from audioxai_utils.gallery.listening_gallery import write_gallery
from audioxai_utils.gallery.listening_page import write_listening_test
from audioxai_utils.gallery.report import INDEX, build
from audioxai_utils.study.settings import Settings
from audioxai_utils.study.study import Study

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

"""The listening test: its sounds, its page in a browser, and the file that it saves."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import pytest
import soundfile
from browser import WIDTHS, Visit, chromium, needs_browser
from gallery_entries import CLASSES, entries
from listening_order import trial_order
from scipy import stats

from audioxai_utils.audio import encoding
from audioxai_utils.gallery.listening import (
    ORIGINAL,
    agreement,
    opinion_scores,
    read_answers,
)
from audioxai_utils.gallery.listening_gallery import read_gallery, write_gallery
from audioxai_utils.gallery.listening_page import PAGE, trials_of, write_listening_test

N_CLIPS = 3
N_SOUNDS = N_CLIPS * (4 + 1)  # four methods at their best mask, and the whole sound
LINKS = (("../index.html", "Report"), ("index.html", "Gallery"), (PAGE, "Listening test"))


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    folder = tmp_path_factory.mktemp("listening") / "gallery"
    write_gallery(entries(N_CLIPS, mask_names=("topK_30_pos", "topK_5")), folder)
    before = {path.name for path in (folder / "assets").glob("*.mp3")}
    written = write_listening_test(folder, CLASSES, links=LINKS)
    assert written == {"sounds": N_SOUNDS, "choices": len(CLASSES) + 1, "silent": {}}
    assert {
        path.name for path in (folder / "assets").glob("*.mp3")
    } == before  # the gallery's own files are played
    return folder


def data_of(folder) -> dict:
    text = (folder / "assets" / "listening-data.js").read_text(encoding="utf-8")
    return json.loads(text.removeprefix("window.AUDIOXAI_LISTENING=").rstrip("\n;"))


# Sounds and their order


def test_each_method_s_best_kept_sound_and_each_whole_sound_can_be_played(gallery):
    records, trials = read_gallery(gallery)["entries"], data_of(gallery)["trials"]
    by_sound = {(t["clip"], t["method"]): t for t in trials}
    assert len(by_sound) == len(trials) == N_SOUNDS
    for entry in records:
        if entry["mask"] != "topK_30_pos":  # the fixture marks this one as best
            continue
        kept, whole = by_sound[entry["clip"], entry["method"]], by_sound[entry["clip"], ORIGINAL]
        assert (kept["file"], whole["file"]) == (entry["sounds"][1]["file"], entry["sounds"][0]["file"])
        assert (kept["category"], kept["mask"], whole["mask"]) == (entry["category"], "topK_30_pos", "")
        assert (kept["predicted"], kept["predicted_part"]) == (
            entry["sounds"][0]["class"],
            entry["sounds"][1]["class"],
        )
    assert len(trials_of(records, every_mask=True)) == N_CLIPS * (4 * 2 + 1)


def test_all_sounds_are_played_equally_loud(gallery):
    levels = []
    for trial in data_of(gallery)["trials"]:
        decoded, rate = soundfile.read(gallery / "assets" / trial["file"])
        levels.append(encoding.loudness(decoded * trial["volume"], rate))
    assert max(levels) - min(levels) < 0.6


def test_a_silent_sound_is_not_played(tmp_path):
    import dataclasses

    some = list(entries(1, methods=("lime", "shap")))
    some[0] = dataclasses.replace(some[0], kept=0 * some[0].kept)
    write_gallery(some, tmp_path / "gallery")
    trials = trials_of(read_gallery(tmp_path / "gallery")["entries"])
    assert [trial["method"] for trial in trials] == ["shap", ORIGINAL]
    silent = [dataclasses.replace(entry, kept=0 * entry.kept, original=0 * entry.original) for entry in some]
    write_gallery(silent, tmp_path / "silent")
    with pytest.raises(ValueError, match="a sound that can be heard"):
        write_listening_test(tmp_path / "silent")


def test_a_folder_without_a_gallery_and_a_reserved_class_are_refused(gallery, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no gallery"):
        write_listening_test(tmp_path)
    with pytest.raises(ValueError, match="something else"):
        write_listening_test(gallery, ["something else"])


def pool(n_methods: int, n_clips: int) -> list[dict]:
    return [{"method": f"m{m}", "clip": f"c{c}"} for m in range(n_methods) for c in range(n_clips)]


def test_an_order_is_fair_to_methods_and_clips_and_its_seed_s_own():
    trials, orders = pool(5, 10), set()
    for seed in range(200):
        order = trial_order(trials, 20, seed)
        assert len(set(order)) == 20
        chosen = pd.DataFrame([trials[place] for place in order])
        methods, clips = chosen["method"].value_counts(), chosen["clip"].value_counts()
        assert len(methods) == 5 and (methods == 4).all()
        assert len(clips) == 10 and clips.max() <= 3 and (clips == 2).sum() >= 6
        orders.add(tuple(order))
        assert order == trial_order(trials, 20, seed)
    assert len(orders) == 200
    assert sorted(trial_order(trials, 500, 7)) == list(range(50))
    assert trial_order([], 3, 1) == []


def test_every_sound_comes_first_about_equally_often():
    """Chi-squared of the first place and of who is chosen, over 3000 seeds."""
    trials = pool(3, 4)
    orders = [trial_order(trials, 6, seed) for seed in range(3000)]
    first = np.bincount([order[0] for order in orders], minlength=12)
    chosen = np.bincount(np.concatenate(orders), minlength=12)
    assert stats.chisquare(first).pvalue > 1e-3
    assert (np.abs(chosen - 1500) < 150).all()


# The page


def options_checked(page, heard: str, clear: int) -> None:
    page.check(f"#heard input[value='{heard}']")
    page.check(f"#clear input[value='{clear}']")


def begin(page, participant="p01", seed=7, n=12):
    page.fill("#participant", participant)
    page.fill("#seed", str(seed))
    page.select_option("#length", str(n))
    page.click("#start button[type=submit]")
    page.wait_for_selector("#trial", state="visible")


def save(page, folder):
    with page.expect_download() as waiting:
        page.click("#save")
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


SECRETS = """() => [document.title, document.body.innerText,
  ...[...document.querySelectorAll('#trial, #trial *')]
    .flatMap(node => [...node.attributes].map(a => a.value))].join(' ')"""


@needs_browser
def test_answers_given_in_a_browser_are_what_the_analysis_reads(gallery, tmp_path):
    """Answers of which every figure is known: right on the first half, "something else" on the rest."""
    data = data_of(gallery)
    order = trial_order(data["trials"], 12, 7)
    with chromium() as browser:
        visit = Visit(browser, accept_downloads=True)
        page = visit.open(gallery / PAGE)
        assert visit.first_paint() < 1000
        begin(page)
        for number, place in enumerate(order):
            trial = data["trials"][place]
            assert page.inner_text("#trial-title") == f"Sound {number + 1} of 12"
            check_blind(page, trial)
            page.keyboard.press("p")  # the keys alone: play, choose, rate, go on
            page.wait_for_function("document.querySelector('#play').textContent === 'Pause'")
            page.wait_for_function("parseFloat(document.querySelector('#clock').textContent) > 0")
            page.focus(f"#heard input[value='{trial['category'] if number < 6 else 'something else'}']")
            page.keyboard.press("Space")
            page.keyboard.press(str(1 + number % 5))
            page.keyboard.press("Enter")
        page.wait_for_selector("#end", state="visible")
        path = save(page, tmp_path)
        assert path.name == "listening-p01-7.csv"
        assert visit.faults == [] and visit.outside == []
        visit.close()
    answers = read_answers(path)
    assert answers["sound"].tolist() == [data["trials"][place]["sound"] for place in order]
    assert answers["clear"].tolist() == [1 + number % 5 for number in range(12)]
    assert (
        (answers["plays"] == 1).all()
        and (answers["seed"] == 7).all()
        and set(answers["test"]) == {data["test"]}
    )
    for column in ("clip", "category", "method", "mask", "predicted_part", "noise_scenario"):
        assert answers[column].tolist() == [data["trials"][place][column] for place in order]
    check_figures(answers)


def check_blind(page, trial):
    """Neither words nor attributes tell method, mask, clip or file; classes are the choices alone."""
    told = page.evaluate(SECRETS)
    secrets = [trial[name] for name in ("method", "mask", "clip", "file", "sound") if trial[name]]
    for secret in (*secrets, "topK", "Grad-CAM"):
        assert secret not in told, secret
    assert page.evaluate("document.querySelectorAll('audio').length") == 0
    choices = page.eval_on_selector_all("#heard input", "nodes => nodes.map(node => node.value)")
    assert choices == [*sorted(CLASSES), "something else"]
    assert page.evaluate("document.querySelectorAll('#trial input:checked').length") == 0


def check_figures(answers):
    table = agreement(answers, by=["method"]).set_index("method")
    scores = opinion_scores(answers, by=["method"]).set_index("method")
    for method in (ORIGINAL, "saliency", "gradcam", "lime", "shap"):
        own = answers[answers["method"] == method]
        right = sum(own["heard"] == own["category"])
        assert table.loc[method, "true_class"] == pytest.approx(right / len(own))
        assert scores.loc[method, "clear"] == pytest.approx(sum(own["clear"]) / len(own))
        assert table.loc[method, "chance"] == pytest.approx(1 / (len(CLASSES) + 1))
    assert sum(table["answers"]) == 12 and table.index[0] == ORIGINAL
    assert agreement(answers.assign(all=1), by=["all"])["true_class"][0] == pytest.approx(0.5)


@needs_browser
def test_the_order_in_the_browser_is_python_s(gallery):
    data = data_of(gallery)
    with chromium() as browser:
        visit = Visit(browser)
        page = visit.open(gallery / PAGE)
        for n, seed in itertools.product((1, 5, 12, 99), (0, 1, 2, 12345, 999999999)):
            found = page.evaluate(f"window.AUDIOXAI_LISTENING.order({n}, {seed})")
            assert found == trial_order(data["trials"], n, seed), (n, seed)
        visit.close()


@needs_browser
def test_what_is_missing_is_asked_for_and_a_closed_window_loses_nothing(gallery, tmp_path):
    with chromium() as browser:
        visit = Visit(browser, accept_downloads=True)
        page = visit.open(gallery / PAGE)
        for participant, seed in (("", "1"), ("Jane Doe", "1"), ("jd", "x")):
            page.fill("#participant", participant)
            page.fill("#seed", seed)
            page.click("#start button[type=submit]")
            assert page.inner_text("#start-fault") and page.is_hidden("#trial")
        begin(page, "j_d-2", seed=5)
        steps = {
            "play": lambda: page.click("#play"),
            "what you hear": lambda: page.check("#heard input >> nth=1"),
            "how clear": lambda: page.check("#clear input[value='4']"),
        }
        for words, step in steps.items():
            page.click("#trial button[type=submit]")
            assert words in page.inner_text("#trial-fault")
            step()
            page.wait_for_timeout(100)
        page.click("#trial button[type=submit]")
        assert page.inner_text("#trial-title") == "Sound 2 of 12"
        page.on("dialog", lambda dialog: dialog.accept())
        page.reload()
        page.click("#resume")
        assert page.inner_text("#trial-title") == "Sound 2 of 12"
        page.click("#stop")
        with page.expect_download() as waiting:
            page.click("#again")  # what is not saved yet is saved first
        waiting.value.save_as(tmp_path / "again.csv")
        assert page.inner_text("#resume").startswith("Continue as j_d-2 (1 of 12")
        page.click("#resume")
        page.click("#stop")
        answers = read_answers(save(page, tmp_path))
        assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "listening-j_d-2-5.csv").read_bytes()
        assert len(answers) == 1 and answers.loc[0, ["participant", "clear", "trial"]].tolist() == [
            "j_d-2",
            4,
            1,
        ]
        assert answers["heard"][0] == sorted(CLASSES)[1]
        visit.close()


@needs_browser
def test_the_page_fits_and_is_accessible(gallery, tmp_path):
    with chromium() as browser:
        for width, scheme in itertools.product(WIDTHS, ("light", "dark")):
            visit = Visit(browser, width, color_scheme=scheme)
            page = visit.open(gallery / PAGE)
            for part in ("start", "trial", "end"):
                if part == "trial":
                    page.click("#start button[type=submit]")  # shows what is missing
                    assert width > WIDTHS[1] or visit.serious_faults() == []
                    begin(page)
                    options_checked(page, "dog", 3)
                elif part == "end":
                    page.click("#stop")
                assert visit.overflow() == 0, (part, width)
                assert width > WIDTHS[1] or visit.serious_faults() == [], (part, width, scheme)
                page.screenshot(path=tmp_path / f"listening-{part}-{width}-{scheme}.png", full_page=True)
            assert visit.faults == []
            visit.close()
        visit = Visit(browser, java_script_enabled=False)
        assert "needs JavaScript" in visit.open(gallery / PAGE).inner_text("main")
        visit.close()


def test_the_report_s_index_leads_to_the_test(gallery, tmp_path):
    import shutil

    from audioxai_utils.gallery.report import build

    shutil.copytree(gallery, tmp_path / "report" / "gallery")
    text = build(tmp_path).read_text(encoding="utf-8")
    assert text.count('href="gallery/listening.html"') == 1  # in the navigation
    (tmp_path / "report" / "gallery" / PAGE).unlink()
    assert "listening.html" not in build(tmp_path).read_text(encoding="utf-8")

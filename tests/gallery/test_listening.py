"""The listening test: its sounds, its page in a browser, the file that it saves, and what is made of such
files.
"""

from __future__ import annotations

import itertools
import json
import math
import random

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
    COLUMNS,
    ORIGINAL,
    agreement,
    in_words,
    krippendorff_alpha,
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
    assert written == {"sounds": N_SOUNDS, "choices": len(CLASSES) + 1}
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


# Answers


def made_up(n_listeners: int = 5, n_sounds: int = 12, seed: int = 0) -> pd.DataFrame:
    """Answers of listeners who are right more often for some methods, and miss some sounds."""
    rng, rows = random.Random(seed), []
    for listener, sound in itertools.product(range(n_listeners), range(n_sounds)):
        if rng.random() < 0.2:
            continue
        method, category = ("lime", "shap", ORIGINAL)[sound % 3], CLASSES[sound % 4]
        right = rng.random() < (0.4, 0.6, 0.9)[sound % 3]
        rows.append(
            {
                "test": "t",
                "participant": f"p{listener}",
                "seed": listener,
                "n_trials": n_sounds,
                "trial": sound + 1,
                "n_choices": 5,
                "sound": f"s{sound}",
                "clip": f"c{sound}",
                "category": category,
                "predicted": CLASSES[(sound + sound % 2) % 4],
                "predicted_part": CLASSES[(sound + 1) % 4],
                "spectrogram_type": "mel_db",
                "noise_scenario": "clean",
                "method": method,
                "mask": "" if method == ORIGINAL else "bin",
                "protocol": "paper",
                "heard": category if right else rng.choice(("something else", *CLASSES)),
                "clear": rng.randint(1, 5),
                "plays": 1,
                "seconds": 3.5,
                "answered": "2026-01-01T00:00:00.000Z",
            }
        )
    return pd.DataFrame(rows)[list(COLUMNS)]


def slow_alpha(units: list[list]) -> float:
    """Krippendorff's alpha by its definition over pairs; ``units`` holds lists of answers."""
    units = [unit for unit in units if len(unit) > 1]
    everything = [answer for unit in units for answer in unit]
    n = len(everything)
    observed = (
        sum(sum(a != b for a, b in itertools.permutations(unit, 2)) / (len(unit) - 1) for unit in units) / n
    )
    expected = sum(a != b for a, b in itertools.permutations(everything, 2)) / (n * (n - 1))
    return 1 - observed / expected


def test_alpha_of_the_textbook_s_example():
    """Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", example C: nominal data, 0.743."""
    gap = math.nan
    raters = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, gap, gap, gap],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, gap, 3],
        [gap, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, gap],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, gap],
    ]
    assert krippendorff_alpha(np.array(raters).T) == pytest.approx(0.743, abs=5e-4)


@pytest.mark.parametrize("seed", range(5))
def test_alpha_equals_the_definition_over_pairs(seed):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 4, (9, 5)).astype(float)
    codes[rng.random(codes.shape) < 0.3] = np.nan
    units = [[value for value in row if not math.isnan(value)] for row in codes]
    assert krippendorff_alpha(codes) == pytest.approx(slow_alpha(units), abs=1e-12)


def test_alpha_at_its_ends():
    assert krippendorff_alpha([[1, 1], [2, 2], [1, 1]]) == 1
    assert krippendorff_alpha([[1, 2], [2, 1]]) < 0
    assert math.isnan(krippendorff_alpha([[1, math.nan], [math.nan, 2]]))  # nobody heard the same sound
    assert math.isnan(krippendorff_alpha([[1, 1], [1, 1]]))  # one category: nothing to disagree on
    with pytest.raises(ValueError, match="units, raters"):
        krippendorff_alpha([1, 2])


@pytest.mark.parametrize("by", [["method"], ["method", "mask"], ["noise_scenario", "method"]])
def test_shares_and_scores_are_means_over_listeners(by):
    answers = made_up()
    table, scores = agreement(answers, by), opinion_scores(answers, by)
    assert len(table) == len(scores) == 3 and table["method"].tolist() == [ORIGINAL, "lime", "shap"]
    for (_, row), (_, score) in zip(table.iterrows(), scores.iterrows()):
        rows = [r for r in answers.to_dict("records") if r["method"] == row["method"]]
        people = {r["participant"] for r in rows}
        truths = {"true_class": "category", "predicted": "predicted", "predicted_part": "predicted_part"}
        for column, truth in truths.items():
            own = [[r["heard"] == r[truth] for r in rows if r["participant"] == person] for person in people]
            assert row[column] == pytest.approx(sum(sum(o) / len(o) for o in own) / len(own))
            assert row[f"{column}_low"] <= row[column] <= row[f"{column}_high"]
        own = [[r["clear"] for r in rows if r["participant"] == person] for person in people]
        assert score["clear"] == pytest.approx(sum(sum(o) / len(o) for o in own) / len(own))
        heard = sorted({r["sound"] for r in rows})
        assert (row["listeners"], row["sounds"], row["answers"]) == (len(people), len(heard), len(rows))
        units = [[r["heard"] for r in rows if r["sound"] == sound] for sound in heard]
        assert row["alpha"] == pytest.approx(slow_alpha(units), abs=1e-12)


def test_intervals_are_those_of_resampled_listeners():
    """Against a loop that draws listeners itself: Student-widened percentiles, equal within the noise of
    resampling.
    """
    answers = made_up(12, 9, seed=3)
    scores = opinion_scores(answers, by=["method"]).set_index("method")
    rng, own = random.Random(1), {}
    for r in answers[answers["method"] == "lime"].to_dict("records"):
        own.setdefault(r["participant"], []).append(r["clear"])
    means = [sum(values) / len(values) for values in own.values()]
    n = len(means)
    drawn = sorted(sum(rng.choice(means) for _ in means) / n for _ in range(20000))
    tail = stats.norm.cdf(math.sqrt(n / (n - 1)) * stats.t.ppf(0.025, n - 1))
    assert scores.loc["lime", "clear_low"] == pytest.approx(drawn[round(tail * 20000)], abs=0.05)
    assert scores.loc["lime", "clear_high"] == pytest.approx(drawn[round((1 - tail) * 20000)], abs=0.05)


def test_one_listener_has_a_mean_and_no_interval():
    row = opinion_scores(made_up(1), by=["method"]).iloc[0]
    assert row["listeners"] == 1 and 1 <= row["clear"] <= 5 and math.isnan(row["clear_low"])
    assert agreement(made_up(1), by=["method"])["alpha"].isna().all()


def test_words_tell_the_figures_or_how_to_come_by_them():
    answers = made_up()
    kept = answers[answers["method"] != ORIGINAL]
    row = agreement(kept.assign(all=1), ["all"]).iloc[0]
    text = in_words(answers)
    assert f"({len(kept)} answers of 5 listeners to 8 sounds)" in text
    assert f"the true class is heard in {row['true_class']:.0%}" in text
    assert f"alpha of {row['alpha']:.2f}" in text and "The whole sounds" in text
    assert "alpha" not in in_words(made_up(1)) and "nan" not in in_words(made_up(1))
    assert "listening.html" in in_words(None) and "folder `listening`" in in_words(None)


def test_files_are_read_together_and_a_row_saved_twice_counts_once(tmp_path):
    answers = made_up()
    for person, part in answers.groupby("participant"):
        part.to_csv(tmp_path / f"{person}.csv", index=False)
    early = answers[answers["participant"] == "p0"].iloc[:3]
    early.to_csv(tmp_path / "p0-early.csv", index=False, encoding="utf-8-sig")
    found = read_answers(tmp_path)
    order = ["participant", "trial"]
    pd.testing.assert_frame_equal(
        found.sort_values(order, ignore_index=True),
        answers.sort_values(order, ignore_index=True),
        check_dtype=False,
    )
    assert len(read_answers(tmp_path / "p1.csv")) == (answers["participant"] == "p1").sum()
    two = read_answers([tmp_path / "p1.csv", tmp_path / "p2.csv"])
    assert len(two) == answers["participant"].isin(["p1", "p2"]).sum()


def changed(**values) -> str:
    frame = made_up(2).astype(object)
    for name, value in values.items():
        frame.loc[1, name] = value
    return frame.to_csv(index=False)


@pytest.mark.parametrize(
    "content, words",
    [
        ("", "not a readable CSV"),
        ("\xff\xfe\x00bad".encode("latin1"), "not a readable CSV"),
        ("a;b\n1;2\n", "lacks the column test, participant"),
        (",".join(COLUMNS) + "\n", "holds no answers"),
        (made_up(1).drop(columns="clear").to_csv(index=False), "lacks the column clear"),
        (changed(clear=6), "line 3: clear must be a whole number from 1 to 5; got '6'"),
        (changed(clear="4.5"), "line 3: clear must be"),
        (changed(heard=""), "line 3: heard must be text; got ''"),
        (changed(participant=""), "line 3: participant must be text"),
        (changed(seed="x"), "line 3: seed must be a whole number"),
        (changed(seconds="soon"), "line 3: seconds must be a number"),
    ],
)
def test_bad_files_end_in_one_line_that_names_the_file(tmp_path, content, words):
    path = tmp_path / "answers.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=words) as error:
        read_answers(path)
    assert "answers.csv" in str(error.value) and "\n" not in str(error.value)


def test_missing_files_and_contradictions_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no CSV files"):
        read_answers(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_answers(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="at least one file"):
        read_answers([])
    made_up(1).to_csv(tmp_path / "a.csv", index=False)
    made_up(1).assign(heard="something else").to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(ValueError, match="'p0' has two different answers to trial"):
        read_answers(tmp_path)
    with pytest.raises(ValueError, match="by must be a list of columns"):
        agreement(made_up(), by=["instrument"])
    with pytest.raises(ValueError, match="by must be a list of columns"):
        opinion_scores(made_up(), by="method")


def test_the_report_s_index_leads_to_the_test(gallery, tmp_path):
    import shutil

    from audioxai_utils.gallery.report import build

    shutil.copytree(gallery, tmp_path / "report" / "gallery")
    text = build(tmp_path).read_text(encoding="utf-8")
    assert text.count('href="gallery/listening.html"') == 1  # in the navigation
    (tmp_path / "report" / "gallery" / PAGE).unlink()
    assert "listening.html" not in build(tmp_path).read_text(encoding="utf-8")

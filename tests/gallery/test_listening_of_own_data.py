"""The listening test on one's own sounds: folders that are called otherwise than the classes, sounds without
a label, and silent ones.
"""

from __future__ import annotations

import dataclasses
import json
import textwrap

import numpy as np
import pandas as pd
import pytest
import soundfile
from browser import Visit, chromium, needs_browser
from gallery_entries import entries
from own_study import own_settings

from audioxai_utils.gallery import showcase
from audioxai_utils.gallery.listening import ORIGINAL, agreement, in_words, read_answers
from audioxai_utils.gallery.listening_gallery import read_gallery, write_gallery
from audioxai_utils.gallery.listening_page import PAGE, trials_of, write_listening_test
from audioxai_utils.study.study import Study

RATE = 8000
MODEL = """
    import torch
    from torch import nn
    import audioxai_utils as ax

    class Waves(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.Conv1d(1, 4, 64, 32), nn.Linear(4, 2)

        def forward(self, waveform):
            return self.head(self.layer(waveform).relu().mean(2))

    def waves():
        torch.manual_seed(0)
        return ax.AudioClassifier(Waves(), ["dog", "car horn"], 8000, input="waveform", head="softmax")
"""
CATEGORIES = {"Dog": "dog", "car_horn": "car horn", "cow": "cow", "": ""}  # of folders -> of the page


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The gallery's entries of a model of waveforms, and of folders that call its classes otherwise."""
    place = tmp_path_factory.mktemp("own")
    (place / "own_waves.py").write_text(textwrap.dedent(MODEL))
    rng, times = np.random.default_rng(0), np.arange(RATE // 2) / RATE
    for number, category in enumerate(CATEGORIES):
        (place / "clips" / category).mkdir(parents=True, exist_ok=True)
        sound = np.sin(2 * np.pi * (300 + 500 * number) * times) + 0.05 * rng.standard_normal(len(times))
        soundfile.write(place / "clips" / category / f"{number}.wav", 0.3 * sound, RATE)
    settings = own_settings(place, "own_waves.py:waves", methods=("saliency",), scenarios=("clean",))
    settings.write(states={})
    study = Study(settings)
    study.save_own({"gradient_error": 0.0, "training_mean": [0.0]})
    study.refusals()
    condition = study.main_condition
    condition.attribute("saliency")
    condition.score_all()
    row = {"protocol": "audited", "spectrogram_type": "own", "noise_scenario": "clean"}
    study.save("best_masks", pd.DataFrame([row | {"method": "saliency", "mask": "minmax"}]))
    return list(showcase.entries(study, n_clips=4))


@pytest.fixture(scope="module")
def page(own, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page") / "gallery"
    write_gallery(own, folder)
    write_listening_test(folder, ["dog", "car horn"])
    return folder


def data_of(folder) -> dict:
    text = (folder / "assets" / "listening-data.js").read_text(encoding="utf-8")
    return json.loads(text.removeprefix("window.AUDIOXAI_LISTENING=").rstrip("\n;"))


def answered(trials: list[dict], hears) -> pd.DataFrame:
    """Two listeners' answers to all trials, ``hears(trial)`` each."""
    rows = [
        trial
        | {"test": "t", "participant": person, "seed": 1, "n_trials": len(trials), "trial": number}
        | {"n_choices": 4, "heard": hears(trial), "clear": 3, "plays": 1, "seconds": 2.5, "answered": "now"}
        for person in ("p1", "p2")
        for number, trial in enumerate(trials, 1)
    ]
    return pd.DataFrame(rows).drop(columns=["file", "volume"])


# Classes by the model's names


def test_a_folder_s_class_is_called_as_the_model_calls_it(own, page):
    assert len(own) == 4 and all(entry.by_sound for entry in own)
    assert {entry.category for entry in own} == set(CATEGORIES.values())
    data = data_of(page)
    assert data["choices"] == ["car horn", "cow", "dog"]
    dogs = [trial for trial in data["trials"] if trial["category"] == "dog"]
    table = agreement(answered(dogs, lambda trial: "dog"), ["method"])
    assert (table["true_class"] == 1).all()


def test_answers_to_unlabelled_sounds_are_read_and_are_not_counted_as_wrong(page, tmp_path):
    trials = data_of(page)["trials"]
    assert "" in {trial["category"] for trial in trials}
    answers = answered(trials, lambda trial: trial["category"] or "dog")
    answers.to_csv(tmp_path / "answers.csv", index=False)
    found = read_answers(tmp_path / "answers.csv")
    assert set(found["category"]) == set(CATEGORIES.values())
    table = agreement(found, ["method", "category"]).set_index("category")
    assert table.loc[[""], "true_class"].isna().all()
    assert (table.loc[["dog", "car horn", "cow"], "true_class"] == 1).all()
    assert (agreement(found, ["method"])["true_class"] == 1).all()  # over what is known
    assert "true class in 100% of the sounds whose class is known" in in_words(found)
    unknown = in_words(found[found["category"] == ""])
    assert "true class" not in unknown and "nan" not in unknown
    for column in ("predicted", "heard"):  # which the page cannot have left empty
        answers.assign(**{column: ""}).to_csv(tmp_path / "bad.csv", index=False)
        with pytest.raises(ValueError, match=f"{column} must be text"):
            read_answers(tmp_path / "bad.csv")


@needs_browser
def test_the_page_offers_no_empty_answer_and_saves_an_empty_class(page, tmp_path):
    data = data_of(page)
    with chromium() as browser:
        visit = Visit(browser, accept_downloads=True)
        opened = visit.open(page / PAGE)
        choices = opened.eval_on_selector_all("#heard input", "nodes => nodes.map(node => node.value)")
        assert choices == ["car horn", "cow", "dog", "something else"]
        opened.fill("#participant", "p1")
        opened.select_option("#length", str(len(data["trials"])))
        opened.click("#start button[type=submit]")
        for _ in data["trials"]:
            opened.keyboard.press("p")
            opened.wait_for_function("document.querySelector('#play').textContent !== 'Play'")
            opened.check("#heard input[value='dog']")
            opened.keyboard.press("3")
            opened.click("#trial button[type=submit]")
        with opened.expect_download() as waiting:
            opened.click("#save")
        waiting.value.save_as(tmp_path / "answers.csv")
        assert visit.faults == []
        visit.close()
    found = read_answers(tmp_path / "answers.csv")
    assert len(found) == len(data["trials"]) and (found["category"] == "").sum() == 2


# Silent sounds


def test_silent_kept_sounds_are_counted_for_their_method(tmp_path):
    """LIME leaves nothing on two clips of three, SHAP on all: it cannot be judged, and that is said."""
    some = [
        dataclasses.replace(entry, kept=0 * entry.kept)
        if entry.method == "shap" or (entry.method == "lime" and entry.clip != "5-1000-A-0")
        else entry
        for entry in entries(3, methods=("lime", "shap", "saliency"))
    ]
    write_gallery(some, tmp_path / "gallery")
    written = write_listening_test(tmp_path / "gallery")
    data = data_of(tmp_path / "gallery")
    assert written["silent"] == data["silent"] == {"lime": 2, "shap": 3}
    assert {trial["silent"] for trial in data["trials"]} == {"LIME 2, SHAP 3"}
    answers = answered(data["trials"], lambda trial: trial["category"])
    answers.to_csv(tmp_path / "answers.csv", index=False)
    found = read_answers(tmp_path / "answers.csv")
    assert "Silent, not played and so not judged: LIME 2, SHAP 3" in in_words(found)
    assert "shap" not in set(found["method"])
    answers.drop(columns="silent").to_csv(tmp_path / "older.csv", index=False)  # of a page of before
    assert "Silent" not in in_words(read_answers(tmp_path / "older.csv"))


def test_where_every_sound_is_heard_nothing_is_said_of_silence(page):
    assert data_of(page)["silent"] == {}
    trials = trials_of(read_gallery(page)["entries"])
    assert {trial["silent"] for trial in trials} == {""} and ORIGINAL in {trial["method"] for trial in trials}
    assert "Silent" not in in_words(answered(trials, lambda trial: "dog"))

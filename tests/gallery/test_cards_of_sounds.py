"""What a card says beside its players is of the very sounds; its pictures, tags and colours are of what was
scored.
"""

from __future__ import annotations

import dataclasses
import io
import math
import warnings
from datetime import UTC, datetime

import any_models
import numpy as np
import pandas as pd
import pytest
import tiny_study
import torch
from any_models import CLASSES, MEL, RATE, clip
from browser import Visit, chromium, needs_browser
from gallery_entries import entries
from torch import nn

from audioxai_utils import AudioClassifier, LogMel, explain
from audioxai_utils.figures import pictures
from audioxai_utils.files import save_parquet
from audioxai_utils.gallery import explorer, showcase
from audioxai_utils.gallery.entries import BEST_MASK, PARTS
from audioxai_utils.gallery.listening_gallery import VERDICTS, read_gallery, write_gallery
from audioxai_utils.gallery.listening_page import trials_of
from audioxai_utils.study.condition import Condition
from audioxai_utils.study.settings import Settings
from audioxai_utils.study.study import Study


def live(classifier: AudioClassifier, mask: float | torch.Tensor = 0.5):
    """An entry of the clip by a mask of one value, and its explanation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a network that hears nothing has a map of zeros
        found = explain(classifier, clip(), RATE, method="saliency", masks=["bin"], check_gradient=False)
    mask = torch.full_like(found.attribution, mask) if isinstance(mask, float) else mask
    return explorer.live_entry(classifier, found, mask, "own", "clip"), found


class Levels(nn.Module):
    """Logits of a picture by its mean level (dB), one row of weights and offsets a class."""

    def __init__(self, weights, offsets) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights, dtype=torch.float64))
        self.offsets = nn.Parameter(torch.tensor(offsets, dtype=torch.float64))

    def forward(self, db):
        return db.mean((1, 2, 3))[:, None] * self.weights + self.offsets


def sigmoid(weights, offsets, classes=CLASSES, **options) -> AudioClassifier:
    options = {"head": "sigmoid"} | options
    return AudioClassifier(Levels(weights, offsets), classes, input=LogMel(**MEL), **options)


def mean_level() -> float:
    """Of the clip's picture, dB."""
    return float(sigmoid([0.0] * 3, [0.0] * 3).pictures(clip()[None]).mean())


# What is said beside the players


def test_what_is_said_beside_a_player_is_of_the_sound_that_is_played(tmp_path):
    """A soft mask on the picture takes half of the decibels away, on the sound 3 dB."""
    turn = mean_level() - 10  # dB, of the mean: dog above, rain below
    own = sigmoid([0.2, -0.2, 0.0], [-0.2 * turn, 0.2 * turn, -9.0], head="softmax")
    entry, found = live(own)
    with torch.no_grad():
        for part in PARTS:
            sound = torch.as_tensor(getattr(entry, part)).reshape(1, -1)
            p = own.net(found.spectrogram(sound).db).softmax(1)[0]
            said, value = entry.probabilities[part]
            assert (said, value) == (CLASSES[int(p.argmax())], pytest.approx(float(p.max()), abs=1e-6))
            assert entry.explained[part] == pytest.approx(float(p[found.target]), abs=1e-6)
        masked = own.net(pictures.masked_db(found.batch.db, 0.5, entry.floor))
    assert (entry.probabilities["kept"][0], CLASSES[int(masked.argmax())]) == ("dog", "rain")
    write_gallery([entry], tmp_path / "gallery")
    trial = trials_of(read_gallery(tmp_path / "gallery")["entries"])[0]
    assert trial["predicted_part"] == "dog"


def test_pictures_of_a_model_of_waveforms_show_the_power_that_its_masks_leave(tmp_path):
    """Half of the power is 3 dB less, not half of the decibels above the floor."""
    from PIL import Image

    entry, _ = live(any_models.make("waveform (B, N)"))
    write_gallery([entry], tmp_path / "gallery")
    names = read_gallery(tmp_path / "gallery")["entries"][0]["layers"]
    db = entry.db[0, 0].numpy()
    for name in ("kept", "removed"):
        shown = np.asarray(Image.open(tmp_path / "gallery" / "assets" / names[name]).convert("RGB"))
        data = pictures.encode(pictures.level_picture(np.maximum(db - 3.0103, entry.floor)))
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        assert np.abs(shown.astype(int) - expected).mean() < 1
    level = pictures.masked_db(np.array([[-20.0, -99.0, 0.0]]), np.array([[0.5, 0.5, 0.0]]), -100.0, True)
    np.testing.assert_allclose(level, [[-20 + 10 * math.log10(0.5), -100.0, -100.0]])


# Where the explained class is heard


def test_under_a_threshold_the_most_probable_label_need_not_be_heard():
    """dog 3 % is the first of three labels and heard nowhere, as FidIn says."""
    entry, _ = live(sigmoid([0.0] * 3, [-3.476, -5.0, -6.0]))
    assert entry.probabilities["kept"] == ("dog", pytest.approx(0.03, abs=1e-3))
    assert entry.scores["FidIn"] == 0 and not any(entry.heard.values())


def test_under_a_threshold_a_label_is_heard_beside_a_more_probable_one():
    """30 dB softer dog falls behind rain (96 %), and stays above its threshold."""
    whole = mean_level()
    own = sigmoid([0.08, 0.0, 0.0], [3.8 - 0.08 * whole, 3.3, -4.0])
    found = live(own)[1]
    entry, _ = live(own, torch.full_like(found.attribution, 1e-3))
    assert found.target == 0 and entry.probabilities["original"][0] == entry.explained_class == "dog"
    assert entry.probabilities["kept"][0] == "rain" and 0.5 < entry.explained["kept"] < 0.95
    assert entry.heard == dict.fromkeys(PARTS, True)


def test_a_single_label_is_called_by_its_own_threshold(tmp_path):
    own = sigmoid([0.0], [math.log(0.4 / 0.6)], ["siren"], head="binary", threshold=0.3)
    entry, _ = live(own)
    assert entry.probabilities["original"] == ("siren", pytest.approx(0.4)) and entry.heard["kept"]
    write_gallery([entry], tmp_path / "gallery")
    record = read_gallery(tmp_path / "gallery")["entries"][0]
    assert record["explained"] == "siren" and all(sound["heard"] for sound in record["sounds"])
    assert trials_of([record])[0]["predicted"] == "siren"


def test_what_is_no_number_is_neither_heard_nor_lost():
    class Broken(Levels):
        def forward(self, db):
            return super().forward(db).masked_fill(db.mean((1, 2, 3))[:, None] < -75, math.nan)

    own = AudioClassifier(Broken([0.0] * 3, [2.0, 1.0, 0.0]), CLASSES, input=LogMel(**MEL), head="softmax")
    found = live(own)[1]
    entry, _ = live(own, torch.zeros_like(found.attribution))
    assert entry.heard == {"original": True, "kept": None, "removed": True}


@needs_browser
def test_a_card_s_colour_is_of_the_explained_class(tmp_path):
    made = [
        dataclasses.replace(
            entry,
            probabilities={
                "original": ("dog", 0.95),
                "kept": (name, p),
                "removed": ("dog", math.nan),
            },
            explained={"original": 0.95, "kept": own, "removed": math.nan},
            explained_class="dog",
            heard={"original": True, "kept": heard, "removed": None},
        )
        for entry, (name, p, own, heard) in zip(
            entries(1, methods=("lime", "shap", "gradcam")),
            [("dog", 0.03, 0.03, False), ("rain", 0.9, 0.8, True), ("rain", 0.9, 0.1, False)],
        )
    ]
    write_gallery(made, tmp_path / "gallery")
    beliefs = "card => [...card.querySelectorAll('.belief')].map(b => [b.innerText, b.innerHTML])"
    with chromium() as browser:
        visit = Visit(browser)
        page = visit.open(tmp_path / "gallery" / "index.html")
        page.wait_for_selector("article")
        cards = page.eval_on_selector_all("article", f"cards => cards.map({beliefs})")
        assert visit.faults == []
        visit.close()
    kept = [card[1] for card in cards]
    assert [words for words, _ in kept] == ["dog 3.0 %", "rain 90.0 %, dog 80.0 %", "rain 90.0 %, dog 10.0 %"]
    assert '<b class="other">dog</b>' in kept[0][1]
    assert "<b>rain</b>" in kept[1][1] and '<b class="same">dog</b>' in kept[1][1]
    assert '<b class="other">rain</b>' in kept[2][1] and "same" not in kept[2][1]
    assert all('<b class="same">dog</b>' in card[0][1] and "<b>dog</b>" in card[2][1] for card in cards)


# Tags and order


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A tiny study of two conditions, by both protocols, with best masks that differ."""
    study = tiny_study.make(tmp_path_factory.mktemp("study"))
    settings = Settings(**{**vars(study.settings), "methods": ("saliency",), "n_clips": 3})
    settings.write()
    study, best = Study(settings), []
    for condition in study.conditions:
        condition.attribute("saliency")
        save_parquet(pd.concat(condition.score_blocks(), ignore_index=True), condition.scores_path)
        pair = dict(zip(("spectrogram_type", "noise_scenario"), condition.pair))
        best += [pair | {"protocol": "paper", "method": "saliency", "mask": "bin"}]
        best += [pair | {"protocol": "audited", "method": "saliency", "mask": "minmax_pos"}]
    study.save("best_masks", pd.DataFrame(best))
    return study


@pytest.fixture
def changed(finished, monkeypatch):
    """Changes the scores of every condition by a function."""
    stored = Condition.scores

    def change(function):
        monkeypatch.setattr(Condition, "scores", lambda condition: function(stored(condition)))

    return change


def test_the_most_faithful_clip_is_marked_where_it_was_ranked_alone(finished):
    """Not at other masks, by the other protocol or in noise; twice: the most and the least faithful clip."""
    shown = list(showcase.entries(finished))
    marked = [entry for entry in shown if any("faithful" in tag for tag in entry.tags)]
    assert len(marked) == 2 < sum(entry.clip == marked[0].clip for entry in shown)
    where = {(e.noise_scenario, e.protocol, e.mask_name, BEST_MASK in e.tags) for e in marked}
    assert where == {("clean", "audited", "minmax_pos", True)}


def test_a_clip_without_ff_is_neither_most_nor_least_faithful():
    rows = {"clip": ["a", "b", "c"], "FF": [0.3, math.nan, 0.1], "category": ["x", "x", "x"]}
    scores = pd.DataFrame(rows).assign(method="lime", mask="bin")
    scores = scores.assign(spectrogram_type="mel_db", noise_scenario="clean")
    best = scores.iloc[:1][["spectrogram_type", "noise_scenario", "method", "mask"]]
    tags = showcase.gallery_clips(scores, best, ("mel_db", "clean"))
    assert tags == {"a": ["most faithful (LIME)"], "c": ["least faithful (LIME)"]}
    none = showcase.gallery_clips(scores.assign(FF=math.nan), best, ("mel_db", "clean"))
    assert none == {"a": []}


def test_a_clip_of_which_no_number_is_known_is_not_called_lost_and_comes_last(finished, changed):
    """Nor is what was scored of its picture taken for what is heard."""
    first = finished.main_condition.clips.frame["clip"].iloc[0]

    def unknown(scores):
        own = (scores["clip"] == first) & (scores["protocol"] == "audited")
        return scores.assign(
            FidIn_heard=scores["FidIn_heard"].where(scores["FidIn_heard"].isna(), 1.0).mask(own),
            FidIn=scores["FidIn"].where(~own, 1.0).where(own, 0.0),
        )

    changed(unknown)
    shown = [e for e in showcase.entries(finished, ["audited"]) if BEST_MASK in e.tags]
    shown = [e for e in shown if e.noise_scenario == "clean"]
    assert shown[-1].clip == first and not set(shown[-1].tags) & set(VERDICTS)
    assert all("class kept by ear" in entry.tags for entry in shown[:-1])
    assert showcase.heard_shares(finished)["saliency"] == 1
    assert showcase.order_words(finished) == "best by ear"
    assert "the sound that each method keeps" in showcase.shares_in_words(finished)


def test_where_no_sound_was_scored_nothing_is_said_to_be_by_ear(finished, changed):
    changed(lambda scores: scores[scores["protocol"] == "paper"])
    shown = list(showcase.entries(finished))
    assert not any("by ear" in tag for entry in shown for tag in entry.tags)
    verdicts = {tag for entry in shown for tag in entry.tags if tag.startswith("class ")}
    assert verdicts and verdicts <= set(VERDICTS) and all(tag.endswith("as scored") for tag in verdicts)
    assert showcase.order_words(finished) == "best as scored"
    words = showcase.shares_in_words(finished)
    assert "sound that each method keeps" not in words and "no sound was scored" in words


# The explorer's warnings


def test_the_explorer_says_what_explain_warns_of(monkeypatch):
    """Also when another mask of the same explanation is shown."""
    import soundfile

    data = io.BytesIO()
    soundfile.write(data, clip().numpy(), RATE, format="WAV")
    file = {"name": "mine.wav", "content": memoryview(data.getvalue()), "type": "", "size": 1}
    controls = explorer.explorer(classifier=sigmoid([0.0] * 3, [2.0, 1.0, 0.0], head="softmax"))
    controls.method.value = "saliency"
    controls._state(controls.kind.value).checked = True  # a constant has no gradient to prove
    controls.upload.value = (file | {"last_modified": datetime(2025, 1, 1, tzinfo=UTC)},)
    assert "saliency is zero everywhere" in controls.status.value, controls.status.value
    controls.area.value = 30
    assert controls.status.value.count("saliency is zero everywhere") == 1

"""What the gallery shows of a study: which clips, which masks, and that each entry is what was scored."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import tiny_study
import torch

from audioxai_utils.study import pipeline, showcase, study
from audioxai_utils.constants import MASK_NAMES, STUDY_METRICS
from audioxai_utils.gallery.listening_gallery import BEST_MASK
from audioxai_utils.evaluation.masks import apply_mask, build_masks
from audioxai_utils.audio.spectrograms import kept_audio

CONDITIONS = [("mel_db", "clean"), ("mel_db", "white")]
METHODS = ["saliency", "gradcam"]
BEST = {("saliency", "paper"): "bin", ("saliency", "audited"): "minmax_pos", ("gradcam", "paper"): "topK_5"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(settings, scores, best) of a tiny study: three tones, two conditions, two methods, an untrained model."""
    settings = tiny_study.make(tmp_path_factory.mktemp("study"))
    classifier, scores = study.load_classifier(settings, "mel_db"), []
    for condition in CONDITIONS:
        clips = study.explained_clips(settings, 32000, condition[1])
        for method in METHODS:
            list(pipeline.attribute(settings, classifier, clips, condition, method))
        for protocol in ("audited", "paper") if condition[1] == "clean" else ("paper",):
            scored = METHODS if protocol == "paper" else ["saliency"]  # its controls take most of this file's time
            scores += pipeline.score(settings, classifier, clips, condition, scored, [protocol])
    scores = pd.concat(scores, ignore_index=True)
    best = [dict(protocol=protocol, spectrogram_type=condition[0], noise_scenario=condition[1], method=method, mask=mask)
            for condition in CONDITIONS for (method, protocol), mask in BEST.items()]
    return settings, scores[scores["control"] == ""], pd.DataFrame(best)


@pytest.fixture(scope="module")
def entries(finished):
    return list(showcase.entries(*finished, ["audited", "paper"]))


def test_every_condition_and_method_shows_its_best_mask_of_every_clip(entries, finished):
    """Both protocols in the showcase condition, the last one elsewhere; each flagged once per clip."""
    flagged = pd.DataFrame([
        (e.spectrogram_type, e.noise_scenario, e.protocol, e.method, e.mask_name, e.clip)
        for e in entries if BEST_MASK in e.tags
    ], columns=["kind", "scene", "protocol", "method", "mask", "clip"])
    assert not flagged.duplicated().any()
    counts = flagged.groupby(["scene", "protocol", "method"]).size().to_dict()
    assert counts == {
        ("clean", "paper", "gradcam"): 3, ("clean", "paper", "saliency"): 3,
        ("clean", "audited", "saliency"): 3,
        ("white", "paper", "gradcam"): 3, ("white", "paper", "saliency"): 3,
    }
    assert all(row.mask == BEST[row.method, row.protocol] for row in flagged.itertuples())


def test_all_masks_of_the_first_clips_of_the_showcase_condition_alone(entries):
    shown = {}
    for entry in entries:
        shown.setdefault((entry.noise_scenario, entry.protocol, entry.method, entry.clip), []).append(entry.mask_name)
    full = {key for key, names in shown.items() if len(names) > 1}
    assert all(tuple(shown[key]) == MASK_NAMES for key in full)
    clips = sorted({entry.clip for entry in entries})
    assert full == {("clean", "paper", method, clip) for method in METHODS for clip in clips[:1]}
    assert len({entry.name for entry in entries}) == len(entries)


def test_entries_hold_what_was_scored(entries, finished):
    """Scores are those of the table; probabilities and sound come from the stored attribution's mask."""
    settings, scores, _ = finished
    keys = ["protocol", "noise_scenario", "method", "mask", "clip"]
    rows = scores.set_index(keys)
    classifier = study.load_classifier(settings, "mel_db")
    for entry in entries[::7]:
        row = rows.loc[(entry.protocol, entry.noise_scenario, entry.method, entry.mask_name, entry.clip)]
        for metric in STUDY_METRICS:
            assert entry.scores[metric] == pytest.approx(row[metric], nan_ok=True)
        assert entry.area == row["area"] and entry.correct == row["correct"] and entry.degenerate == row["degenerate"]
        for part in ("clip", "kept", "removed"):
            assert entry.explained["original" if part == "clip" else part] == pytest.approx(row[f"p_{part}"], abs=1e-6)
        batch = classifier.spectrogram(torch.from_numpy(entry.original)[None].to(classifier.dtype))
        attribution = torch.from_numpy(entry.attribution)[None, None].to(classifier.dtype)
        mask = build_masks(attribution, entry.protocol)[entry.mask_name]
        np.testing.assert_allclose(entry.mask, mask[0, 0], atol=1e-6)
        np.testing.assert_allclose(entry.kept, kept_audio(batch, mask, classifier.spectrogram)[0], atol=1e-5)
        with torch.no_grad():
            p = classifier.model(apply_mask(batch.db, mask)[0]).softmax(1)[0]
        name, value = entry.probabilities["kept"]
        assert value == pytest.approx(float(p.max()), abs=1e-6) and name == classifier.classes[int(p.argmax())]


def test_a_method_without_a_best_mask_shows_its_first_clips_only(finished):
    settings, scores, best = finished
    best = best.assign(mask=best["mask"].where(best["method"] != "gradcam", np.nan))
    found = [e for e in showcase.entries(settings, scores, best, ["paper"]) if e.method == "gradcam"]
    assert {e.noise_scenario for e in found} == {"clean"} and len(found) == 14
    assert not any(BEST_MASK in e.tags for e in found)


def made_up(clips):
    """Scores of one method and mask; ``clips`` is clip -> (category, FF, correct)."""
    rows = [{"clip": clip, "category": category, "FF": value, "correct": correct, "method": "lime", "mask": "bin",
             "spectrogram_type": "mel_db", "noise_scenario": "clean"} for clip, (category, value, correct) in clips.items()]
    return pd.DataFrame(rows)


def test_gallery_clips_are_one_a_class_and_the_extremes_with_their_tags():
    scores = made_up({"1-b": ("rain", 0.1, True), "1-a": ("rain", 0.4, True), "1-c": ("rain", 0.9, True),
                      "1-d": ("dog", 0.3, True), "1-e": ("dog", -0.2, True), "1-f": ("dog", 0.2, True)})
    best = scores.iloc[:1][["spectrogram_type", "noise_scenario", "method", "mask"]]
    tags = showcase.gallery_clips(scores, best, ("mel_db", "clean"))
    assert tags == {"1-d": [], "1-a": [], "1-c": ["most faithful (lime)"], "1-e": ["least faithful (lime)"]}
    other = showcase.gallery_clips(scores, best.assign(mask="topK_5"), ("mel_db", "clean"))
    assert other == {"1-d": [], "1-a": []}


def test_the_figure_shows_a_cat_else_a_dog_else_any_clip_that_is_mostly_right():
    dog, cat = ("dog", 0.0, True), ("cat", 0.0, False)
    assert showcase.figure_clip(made_up({"1-a": ("rain", 0, True), "2-a": dog, "3-a": cat})) == "3-a"
    assert showcase.figure_clip(made_up({"1-a": ("rain", 0, True), "2-a": dog})) == "2-a"
    assert showcase.figure_clip(made_up({"1-a": ("rain", 0, False), "2-a": ("sea", 0, True)})) == "2-a"
    noisy = pd.concat([made_up({"1-a": dog, "2-a": dog}), made_up({"1-a": ("dog", 0, False), "2-a": dog})])
    assert showcase.figure_clip(noisy) == "2-a"


def test_the_showcase_condition_is_clean_mel_where_there_is_one():
    assert showcase.showcase_condition([("stft_db", "clean"), ("mel_db", "clean")]) == ("mel_db", "clean")
    assert showcase.showcase_condition([("stft_db", "clean"), ("mel_db", "white")]) == ("mel_db", "white")
    assert showcase.showcase_condition([("stft_db", "white"), ("stft_db", "room")]) == ("stft_db", "white")


def test_grid_rows_hold_every_method_of_every_condition(finished):
    settings, scores, _ = finished
    clip = showcase.figure_clip(scores)
    rows = showcase.method_grid_rows(settings, scores, clip)
    assert [row["label"] for row in rows] == ["mel_db, clean", "mel_db, white"]
    for condition, row in zip(CONDITIONS, rows):
        assert list(row["maps"]) == METHODS and row["db"].shape == row["maps"]["saliency"].shape
        path = pipeline.attribution_folder(settings, *condition, "gradcam") / f"{clip}.npz"
        with np.load(path) as stored:
            np.testing.assert_array_equal(row["maps"]["gradcam"], stored["attribution"])
    assert not np.allclose(rows[0]["db"], rows[1]["db"])
    missing = dataclasses.replace(settings, results_dir=str(settings.results / "nothing"))
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        showcase.method_grid_rows(missing, scores, clip)

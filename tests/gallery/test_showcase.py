"""What the gallery shows of a study: which clips and masks, in which order, and that each entry is what was
scored.
"""

import numpy as np
import pandas as pd
import pytest
import tiny_study
import torch

from audioxai_utils.audio.spectrograms import kept_audio
from audioxai_utils.constants import MASK_NAMES, STUDY_METRICS
from audioxai_utils.evaluation.masks import build_masks
from audioxai_utils.files import save_parquet
from audioxai_utils.gallery import showcase
from audioxai_utils.gallery.entries import BEST_MASK
from audioxai_utils.gallery.listening_gallery import VERDICTS
from audioxai_utils.study.settings import Settings
from audioxai_utils.study.study import Study

METHODS = ("saliency", "gradcam")
BEST = {
    ("saliency", "paper"): "bin",
    ("saliency", "audited"): "minmax_pos",
    ("gradcam", "paper"): "topK_5",
    ("gradcam", "audited"): "topK_30",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A tiny study: three tones, two conditions, two methods, an untrained model; scored, with best masks."""
    study = tiny_study.make(tmp_path_factory.mktemp("study"))
    settings = Settings(**{**vars(study.settings), "methods": METHODS, "n_clips": 3})
    settings.write()
    study, best = Study(settings), []
    for condition in study.conditions:
        for method in METHODS:
            condition.attribute(method)
        save_parquet(pd.concat(condition.score_blocks(), ignore_index=True), condition.scores_path)
        best += [
            {
                "protocol": protocol,
                "spectrogram_type": condition.spectrogram_type,
                "method": method,
                "mask": mask,
                "noise_scenario": condition.noise_scenario,
            }
            for (method, protocol), mask in BEST.items()
        ]
    study.save("best_masks", pd.DataFrame(best))
    return study


@pytest.fixture(scope="module")
def entries(finished):
    return list(showcase.entries(finished))


def scores_of(study) -> pd.DataFrame:
    scores = study.scores()
    return scores[scores["control"] == ""].set_index(["protocol", "noise_scenario", "method", "mask", "clip"])


def test_every_condition_and_method_shows_its_best_mask_of_every_clip(entries):
    """Both protocols in the main condition, the last one elsewhere; each flagged once per clip."""
    flagged = pd.DataFrame(
        [
            (e.noise_scenario, e.protocol, e.method, e.mask_name, e.clip)
            for e in entries
            if BEST_MASK in e.tags
        ],
        columns=["scene", "protocol", "method", "mask", "clip"],
    )
    assert not flagged.duplicated().any()
    counts = flagged.groupby(["scene", "protocol", "method"]).size().to_dict()
    shown = [("clean", "audited"), ("clean", "paper"), ("white", "audited")]
    assert counts == {(*where, method): 3 for where in shown for method in METHODS}
    assert all(row.mask == BEST[row.method, row.protocol] for row in flagged.itertuples())


def test_all_masks_of_the_first_clips_of_the_main_condition_alone(entries):
    shown = {}
    for entry in entries:
        shown.setdefault((entry.noise_scenario, entry.protocol, entry.method, entry.clip), []).append(
            entry.mask_name
        )
    full = {key for key, names in shown.items() if len(names) > 1}
    assert all(sorted(shown[key]) == sorted(MASK_NAMES) for key in full)
    assert {key[:3] for key in full} == {("clean", "audited", method) for method in METHODS}
    assert len({key[3] for key in full}) == 1
    assert len({entry.name for entry in entries}) == len(entries)


def test_the_most_faithful_by_ear_comes_first_and_failures_last(entries, finished):
    """Per clip FidIn of the sound, then FF of the sound; clips by their best; whatever has one mask before
    the rest.
    """
    rows, first = scores_of(finished), entries[: 3 * len(METHODS)]
    assert all(BEST_MASK in e.tags and e.noise_scenario == "clean" and e.protocol == "audited" for e in first)
    heard = [
        tuple(rows.loc[("audited", "clean", e.method, e.mask_name, e.clip)][["FidIn_heard", "FF_heard"]])
        for e in first
    ]
    for start in range(0, len(first), len(METHODS)):
        assert len({e.clip for e in first[start : start + len(METHODS)]}) == 1
        assert heard[start] >= heard[start + 1]
    leaders = heard[:: len(METHODS)]
    assert leaders == sorted(leaders, reverse=True)
    for entry, (kept, _) in zip(first, heard):
        assert ("class kept by ear" in entry.tags) == (kept == 1) != ("class lost by ear" in entry.tags)


def test_where_no_sound_was_scored_the_masked_spectrogram_decides():
    row = pd.Series({"FidIn": 1.0, "FF": 0.2, "FidIn_heard": 0.0, "FF_heard": -0.1})
    assert showcase.faithful(row, False) == (1.0, 0.2) and showcase.faithful(row, True) == (0.0, -0.1)
    tags = [*showcase.verdict(row, False), *showcase.verdict(row, True)]
    assert tags == ["class kept as scored", "class lost by ear"] and set(tags) <= set(VERDICTS)


def test_entries_hold_what_was_scored(entries, finished):
    """Scores are those of the table; probabilities and sound come from the stored attribution's mask."""
    rows, classifier = scores_of(finished), finished.classifier("mel_db")
    for entry in entries[::7]:
        row = rows.loc[(entry.protocol, entry.noise_scenario, entry.method, entry.mask_name, entry.clip)]
        for metric in STUDY_METRICS:
            assert entry.scores[metric] == pytest.approx(row[metric], nan_ok=True)
        assert (
            entry.area == row["area"]
            and entry.correct == row["correct"]
            and entry.degenerate == row["degenerate"]
        )
        assert entry.explained["original"] == pytest.approx(row["p_clip"], abs=1e-6)
        batch = classifier.spectrogram(torch.from_numpy(entry.original)[None].to(classifier.dtype))
        attribution = torch.from_numpy(entry.attribution)[None, None].to(classifier.dtype)
        mask = build_masks(attribution, entry.protocol)[entry.mask_name]
        np.testing.assert_allclose(entry.mask, mask[0, 0], atol=1e-6)
        np.testing.assert_allclose(entry.kept, kept_audio(batch, mask, classifier.spectrogram)[0], atol=1e-5)
        with torch.no_grad():
            heard = kept_audio(batch, mask, classifier.spectrogram)
            p = classifier.model(classifier.spectrogram(heard).db).softmax(1)[0]
        name, value = entry.probabilities["kept"]
        assert (
            value == pytest.approx(float(p.max()), abs=1e-6) and name == classifier.classes[int(p.argmax())]
        )


def test_a_few_clips_with_their_best_masks_alone(finished):
    few = list(showcase.entries(finished, n_clips=2))
    assert len({entry.clip for entry in few}) == 2 and len(few) == 2 * len(METHODS) * 2
    assert all(BEST_MASK in entry.tags and entry.protocol == "audited" for entry in few)


def test_a_method_without_a_best_mask_shows_its_first_clips_only(finished, monkeypatch):
    best = finished.table("best_masks")
    best = best.assign(mask=best["mask"].where(best["method"] != "gradcam", np.nan))
    monkeypatch.setattr(finished, "table", lambda name: best)
    found = [entry for entry in showcase.entries(finished, ["paper"]) if entry.method == "gradcam"]
    assert {entry.noise_scenario for entry in found} == {"clean"} and len(found) == 14
    assert not any(BEST_MASK in entry.tags for entry in found)


def test_shares_of_what_is_still_heard(finished):
    shares, rows = showcase.heard_shares(finished), scores_of(finished)
    for method in METHODS:
        own = rows.loc[("audited", "clean", method, BEST[method, "audited"])]
        assert shares[method] == pytest.approx(own["FidIn_heard"].mean())
    assert shares.is_monotonic_decreasing


def made_up(clips):
    """Scores of one method and mask; ``clips`` is clip -> (category, FF, correct)."""
    rows = [
        {
            "clip": clip,
            "category": category,
            "FF": value,
            "correct": correct,
            "method": "lime",
            "mask": "bin",
            "spectrogram_type": "mel_db",
            "noise_scenario": "clean",
        }
        for clip, (category, value, correct) in clips.items()
    ]
    return pd.DataFrame(rows)


def test_gallery_clips_are_one_a_class_and_the_extremes_with_their_tags():
    scores = made_up(
        {
            "1-b": ("rain", 0.1, True),
            "1-a": ("rain", 0.4, True),
            "1-c": ("rain", 0.9, True),
            "1-d": ("dog", 0.3, True),
            "1-e": ("dog", -0.2, True),
            "1-f": ("dog", 0.2, True),
        }
    )
    best = scores.iloc[:1][["spectrogram_type", "noise_scenario", "method", "mask"]]
    tags = showcase.gallery_clips(scores, best, ("mel_db", "clean"))
    assert tags == {"1-d": [], "1-a": [], "1-c": ["most faithful (LIME)"], "1-e": ["least faithful (LIME)"]}
    other = showcase.gallery_clips(scores, best.assign(mask="topK_5"), ("mel_db", "clean"))
    assert other == {"1-d": [], "1-a": []}


def test_the_figure_shows_a_cat_else_a_dog_else_any_clip_that_is_mostly_right():
    dog, cat = ("dog", 0.0, True), ("cat", 0.0, False)
    assert showcase.figure_clip(made_up({"1-a": ("rain", 0, True), "2-a": dog, "3-a": cat})) == "3-a"
    assert showcase.figure_clip(made_up({"1-a": ("rain", 0, True), "2-a": dog})) == "2-a"
    assert showcase.figure_clip(made_up({"1-a": ("rain", 0, False), "2-a": ("sea", 0, True)})) == "2-a"
    noisy = pd.concat([made_up({"1-a": dog, "2-a": dog}), made_up({"1-a": ("dog", 0, False), "2-a": dog})])
    assert showcase.figure_clip(noisy) == "2-a"


def test_grid_rows_hold_every_method_of_every_condition(finished):
    clip = showcase.figure_clip(finished.main_condition.scores())
    rows = showcase.method_grid_rows(finished, clip)
    assert [row["label"] for row in rows] == ["mel, clean", "mel, white noise"]
    for condition, row in zip(finished.conditions, rows):
        assert list(row["maps"]) == list(METHODS) and row["db"].shape == row["maps"]["saliency"].shape
        with np.load(condition.attribution_folder("gradcam") / f"{clip}.npz") as stored:
            np.testing.assert_array_equal(row["maps"]["gradcam"], stored["attribution"])
    assert not np.allclose(rows[0]["db"], rows[1]["db"])


def test_of_many_classes_fifteen_are_shown_from_the_first_to_the_last():
    clips = [f"clip{i:02d}" for i in range(50)]
    scores = pd.DataFrame({"clip": clips, "category": [f"class{i:02d}" for i in range(50)], "method": "lime"})
    scores = scores.assign(mask="bin", spectrogram_type="mel_db", noise_scenario="clean", FF=0.5)
    nothing = pd.DataFrame(columns=["method", "mask", "spectrogram_type", "noise_scenario"])
    shown = list(showcase.gallery_clips(scores, nothing, ("mel_db", "clean")))
    assert len(shown) == showcase.MOST_CLASSES == len(set(shown))
    assert shown[0] == "clip00" and shown[-1] == "clip46"
    few = showcase.gallery_clips(scores[:7], nothing, ("mel_db", "clean"))
    assert list(few) == clips[:7]

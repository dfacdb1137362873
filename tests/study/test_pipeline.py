"""A condition of a tiny study on files: settings, resuming, scores with controls, and clear refusals."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from audioxai_utils.study import pipeline, study
from audioxai_utils.attributions import METHODS, register
from audioxai_utils.constants import MASK_NAMES, known_methods
from audioxai_utils.evaluation.controls import kept_bins
from audioxai_utils.audio.datasets import background_clips
from audioxai_utils.evaluation.masks import build_masks

CONDITION = ("mel_db", "white")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Three classes of tones, two clips in each fold, and an untrained classifier."""
    root, rows = tmp_path_factory.mktemp("tones"), []
    (root / "meta").mkdir(), (root / "audio").mkdir()
    rng, time = np.random.default_rng(0), np.arange(8000) / 16000
    for fold in range(1, 6):
        for target, category in enumerate(("low", "middle", "high")):
            for take in "AB":
                name = f"{fold}-{target}-{take}-{target}.wav"
                wave = np.sin(2 * np.pi * 300 * 3**target * time) + 0.05 * rng.standard_normal(8000)
                soundfile.write(root / "audio" / name, 0.5 * wave, 16000)
                rows.append({"filename": name, "fold": fold, "target": target, "category": category})
    pd.DataFrame(rows).to_csv(root / "meta" / "esc50.csv", index=False)
    results = tmp_path_factory.mktemp("results")
    made = study.Settings("smoke", "esc50", str(root), "", str(results), 0, "cpu")
    model = study.new_model(made, study.get_spectrogram("mel_db"))
    study.save_classifier(made, model, "mel_db", {"best_epoch": 1, "gradient_error": 1e-9})
    return made


@pytest.fixture(scope="module")
def condition(settings):
    classifier = study.load_classifier(settings, "mel_db")
    clips = study.explained_clips(settings, 32000, CONDITION[1])
    for method in ("saliency", "gradcam"):
        list(pipeline.attribute(settings, classifier, clips, CONDITION, method))
    return classifier, clips


@pytest.fixture(scope="module")
def scores(settings, condition):
    return pd.concat(pipeline.score(settings, *condition, CONDITION, ["saliency", "gradcam"], ["paper", "audited"]))


def test_clips_are_spread_over_classes_and_their_stems_add_up(condition):
    _, clips = condition
    assert clips.frame["category"].value_counts().to_dict() == {"low": 1, "middle": 1, "high": 1}
    torch.testing.assert_close(sum(clips.stems), clips.waveforms)


def test_a_finished_clip_is_not_computed_again_and_a_lost_one_is(settings, condition):
    classifier, clips = condition
    again = list(pipeline.attribute(settings, classifier, clips, CONDITION, "saliency"))
    assert not any(row["computed"] for row in again)
    lost = pipeline.attribution_folder(settings, *CONDITION, "saliency") / f"{clips.frame['clip'][1]}.npz"
    before = pipeline.load_attributions(settings, clips, CONDITION, "saliency")[0]
    lost.unlink()
    with pytest.raises(FileNotFoundError, match="1 of 3 attributions are missing"):
        pipeline.load_attributions(settings, clips, CONDITION, "saliency")
    assert [r["computed"] for r in pipeline.attribute(settings, classifier, clips, CONDITION, "saliency")] == [False, True, False]
    assert torch.equal(pipeline.load_attributions(settings, clips, CONDITION, "saliency")[0], before)


def test_a_classifier_without_a_proved_gradient_is_not_explained(settings, condition):
    classifier, clips = condition
    unproved = dataclasses.replace(classifier, info={"best_epoch": 1})
    with pytest.raises(ValueError, match="no gradient check"):
        next(pipeline.attribute(settings, unproved, clips, CONDITION, "saliency"))


def test_another_sound_or_option_is_computed_anew(settings, condition):
    classifier, clips = condition
    key = pipeline._key(classifier, clips.waveforms[0], "lime", {"n_samples": 10})
    assert key == pipeline._key(classifier, clips.waveforms[0], "lime", {"n_samples": 10})
    assert key != pipeline._key(classifier, clips.waveforms[1], "lime", {"n_samples": 10})
    assert key != pipeline._key(classifier, clips.waveforms[0], "lime", {"n_samples": 11})


@pytest.fixture
def own_method():
    """Register a method for the test, and forget it after."""
    names = []

    def enter(name, function, **traits):
        names.append(name)
        register(name, **traits)(function)

    yield enter
    for name in names:
        METHODS._functions.pop(name), METHODS._traits.pop(name)


def test_options_follow_from_what_a_method_says_of_itself(settings, condition, own_method):
    def mine(model, db, target, *, n_tries=3, background=None):
        return db

    own_method("mine", mine, budget="n_tries", background=True)
    options = pipeline.method_options(settings, condition[0], "mine")
    assert options["n_tries"] == settings.sizes.lime_samples == 30 and set(options) == {"n_tries", "background"}
    assert options["background"].shape == (settings.sizes.background_clips, 1, 64, 501)
    assert all(Path(p).name[0] in "123" for p in background_clips(settings.data, 4)["path"])  # of the training folds
    for method, budget in (("lime", "n_samples"), ("slime", "n_samples"), ("rise", "n_masks")):
        assert pipeline.method_options(settings, condition[0], method) == {budget: 30}
    assert pipeline.method_options(settings, condition[0], "smoothgrad") == {}
    with pytest.raises(TypeError, match="mine has no option 'n_samples'"):
        register("mine", budget="n_samples")(mine)


def test_every_method_of_the_package_can_be_called_with_the_options_it_is_given(settings, condition):
    for method in known_methods():
        options = pipeline.method_options(settings, condition[0], method)
        assert set(METHODS.required(method)) <= set(options) <= set(METHODS.options(method)), method


def test_a_method_that_wants_the_sound_is_given_the_clip_s(condition, own_method):
    own_method("again", lambda model, db, target, *, waveform, spectrogram: 2 * spectrogram(waveform).db - db)
    classifier, clips = condition
    found = pipeline._attributed(classifier, clips.waveforms[:1], "again", {})[0]["attribution"]
    alone = classifier.spectrogram(clips.waveforms[:1].to(classifier.dtype)).db[0, 0]  # in a batch the last bit may differ
    np.testing.assert_array_equal(found, alone.numpy())


def test_a_method_of_its_own_goes_through_the_study(settings, condition, own_method):
    own_method("tilt", lambda model, db, target: db - db.mean(dim=(1, 2, 3), keepdim=True))
    classifier, clips = condition
    list(pipeline.attribute(settings, classifier, clips, CONDITION, "tilt"))
    try:
        assert pipeline.methods_of(settings, CONDITION) == ["saliency", "gradcam", "tilt"]
        scores = pd.concat(pipeline.score(settings, classifier, clips, CONDITION, ["tilt"], ["audited"]))
    finally:
        shutil.rmtree(pipeline.attribution_folder(settings, *CONDITION, "tilt"))
    own = scores.query("control == ''")
    assert len(own) == 14 * 3 and set(own["method"]) == {"tilt"} and own["FidIn_heard"].notna().all()


def test_the_digest_sees_the_modules_a_method_imports(monkeypatch):
    """Guided Grad-CAM takes its layer from gradcam; saliency knows nothing of it."""
    def digests():
        pipeline.source_digest.cache_clear()
        return {name: pipeline.source_digest(name) for name in ("guided_gradcam", "gradcam", "saliency", "slime")}

    before, read = digests(), Path.read_bytes

    def changed(name):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", lambda path: read(path) + b"#" * (path.name == name))
            after = digests()
        return {method for method, digest in after.items() if digest != before[method]}

    try:
        assert changed("gradcam.py") == {"guided_gradcam", "gradcam"}
        assert changed("lime.py") == {"slime"}
        assert changed("saliency.py") == {"saliency"}
        assert changed("_registry.py") == changed("inference.py") == set(before)
        assert changed("plots.py") == set()
    finally:
        pipeline.source_digest.cache_clear()


def test_one_row_per_clip_method_mask_and_control(scores):
    keys = ["protocol", "method", "mask", "control", "clip"]
    assert not scores.duplicated(keys).any()
    counts = scores.groupby(["protocol", "control"]).size()
    assert counts["paper", ""] == counts["audited", ""] == 2 * 14 * 3
    assert counts["audited", "random"] == counts["audited", "energy"] == 2 * 14 * 3
    assert counts["audited", "oracle"] == counts["audited", "all_ones"] == 3
    assert set(scores.query("control == ''")["mask"]) == set(MASK_NAMES)


def test_controls_keep_exactly_the_area_of_their_mask(settings, condition, scores):
    classifier, clips = condition
    attribution = pipeline.load_attributions(settings, clips, CONDITION, "saliency")[0]
    n_bins = {name: kept_bins(mask).tolist() for name, mask in build_masks(attribution, "audited").items()}
    rows = scores.query("method == 'saliency' and control in ['random', 'energy']")
    for row in rows.itertuples():
        i = clips.frame["clip"].tolist().index(row.clip)
        assert round(row.area * 64 * 501) == n_bins[row.mask][i]


def test_all_ones_keeps_everything_and_the_oracle_improves_the_ratio(scores):
    ones = scores.query("control == 'all_ones' and protocol == 'audited'")
    assert (ones["area"] == 1).all() and (ones["FidIn"] == 1).all() and (ones["AI"] == 0).all()
    np.testing.assert_allclose(ones["snr_gain"], 0, atol=1e-9)
    oracle = scores.query("control == 'oracle' and protocol == 'audited'")
    assert (oracle["snr_gain"] > 3).all()
    assert (oracle["si_sdr"] > ones["si_sdr"].to_numpy()).all()


def test_scores_come_back_from_their_file(settings, scores):
    pipeline.save_scores(settings, CONDITION, scores)
    again = pipeline.load_scores(settings, "mel_db/white")
    pd.testing.assert_frame_equal(again, scores.reset_index(drop=True), check_dtype=False)
    with pytest.raises(FileNotFoundError, match="run 04_mask_study"):
        pipeline.load_scores(settings, "mel_db/room")


def test_methods_are_those_with_attributions(settings):
    assert pipeline.methods_of(settings, CONDITION) == ["saliency", "gradcam"]
    assert pipeline.methods_of(settings, CONDITION, "gradcam lime") == ["gradcam"]
    with pytest.raises(FileNotFoundError, match="run 03_attributions"):
        pipeline.methods_of(settings, ("stft_db", "clean"))


@pytest.mark.parametrize("changes, words", [
    ({"profile": "fast"}, "profile must be one of smoke, quick, paper"), ({"dataset": "urbansound"}, "dataset must be"),
    ({"n_clips": -1}, "n_clips must be a number of clips, or 0 for the profile's; got -1"),
])
def test_settings_refuse_what_they_do_not_know(changes, words):
    with pytest.raises(ValueError, match=words):
        study.Settings(**changes)


def test_a_number_of_clips_goes_before_the_profiles_and_keeps_its_clips(settings):
    few, more = (study.explained_clips(dataclasses.replace(settings, n_clips=n), 32000, "clean") for n in (1, 2))
    assert (len(few), len(more)) == (1, 2) and set(few.frame["clip"]) < set(more.frame["clip"])
    assert dataclasses.replace(settings, n_clips=5).sizes.n_clips == 5 and settings.sizes.n_clips == 3


def test_cuda_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="finds no CUDA"):
        study.Settings(device="cuda")


def test_a_checkpoint_of_other_classes_or_without_content_is_refused(settings, tmp_path):
    other = study.Settings("smoke", "esc50", settings.data_root, "", str(tmp_path), 0, "cpu")
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        study.load_classifier(other, "mel_db")
    path = study.checkpoint_path(other, "mel_db")
    path.parent.mkdir()
    content = torch.load(study.checkpoint_path(settings, "mel_db"), weights_only=True)
    torch.save(content | {"classes": ["a", "b", "c"]}, path)
    with pytest.raises(ValueError, match="trained on other classes"):
        study.load_classifier(other, "mel_db")
    torch.save({"model": content["model"]}, path)
    with pytest.raises(ValueError, match="run notebook 02"):
        study.load_classifier(other, "mel_db")


def test_broken_clips_are_left_out_with_a_line_each(settings):
    frame = settings.data.split("test").copy()
    frame.loc[0, "path"] = "/nowhere/missing.wav"
    clips = study.load_clips(settings, frame, 32000)
    assert len(clips) == len(frame) - 1 and len(clips.problems) == 1 and "missing.wav" in clips.problems[0]
    with pytest.raises(ValueError, match="none of the 1 clips can be used"):
        study.load_clips(settings, frame.iloc[:1], 32000)

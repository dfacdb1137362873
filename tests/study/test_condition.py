"""A condition of a tiny study: what is on file is not made again, scores have controls, refusals say why."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_study
import torch

from audioxai_utils.attributions import METHODS, register
from audioxai_utils.audio.datasets import background_clips
from audioxai_utils.audio.spectrograms import kept_audio
from audioxai_utils.constants import MASK_NAMES, known_methods
from audioxai_utils.evaluation.controls import clip_seed, control_masks, kept_bins
from audioxai_utils.evaluation.masks import build_masks
from audioxai_utils.evaluation.overview import EQUAL
from audioxai_utils.evaluation.scoring import probabilities
from audioxai_utils.study import attribute, clips, decoders
from audioxai_utils.study.study import Study

METHOD_PAIR = ("saliency", "gradcam")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Three classes of tones, two clips in each fold, and an untrained classifier; two of the methods."""
    made = tiny_study.make(tmp_path_factory.mktemp("tones"), takes="AB")
    return Study(dataclasses.replace(made.settings, methods=METHOD_PAIR))


@pytest.fixture(scope="module")
def condition(study):
    """Clips in white noise, explained by both methods."""
    made = study.condition("mel_db", "white")
    for method in METHOD_PAIR:
        made.attribute(method)
    return made


@pytest.fixture(scope="module")
def scores(condition):
    return condition.score_all()


def test_clips_are_spread_over_classes_and_their_stems_add_up(condition):
    assert condition.clips.frame["category"].value_counts().to_dict() == {"low": 1, "middle": 1, "high": 1}
    torch.testing.assert_close(sum(condition.clips.stems), condition.clips.waveforms)


def test_a_condition_says_what_it_is(condition):
    assert condition.pair == ("mel_db", "white") and condition.name == "mel_db_white"
    assert condition.title == "mel, white noise" and repr(condition) == "Condition(mel_db, white)"
    assert condition.spectrograms.shape == (3, 1, 64, 101) and condition.labels.tolist() == [0, 1, 2]
    assert torch.equal(condition.targets, condition.probabilities.argmax(1))
    power = condition.spectrogram(condition.clips.waveforms).power
    torch.testing.assert_close(condition.power(condition.clips.waveforms), power)


def test_a_finished_clip_is_not_computed_again_and_a_lost_one_is(study, condition, capsys):
    before = condition.attributions("saliency")
    capsys.readouterr()
    assert torch.equal(condition.attribute("saliency"), before) and capsys.readouterr().err == ""
    lost = condition.attribution_folder("saliency") / f"{condition.clips.frame['clip'][1]}.npz"
    others = {path: path.stat().st_mtime_ns for path in lost.parent.glob("*.npz") if path != lost}
    lost.unlink()
    with pytest.raises(FileNotFoundError, match="1 of 3 attributions are missing"):
        condition.attributions("saliency")
    assert torch.equal(condition.attribute("saliency"), before)
    assert {path: path.stat().st_mtime_ns for path in others} == others and len(others) == 2
    assert capsys.readouterr().err == "saliency on mel, white noise: 2/3\n"


@pytest.mark.parametrize("damage", [b"", b"no archive"])
def test_a_damaged_file_is_made_again(condition, damage):
    path = condition.attribution_folder("saliency") / f"{condition.clips.frame['clip'][0]}.npz"
    before = condition.attributions("saliency")
    path.write_bytes(damage)
    with pytest.raises(FileNotFoundError, match="1 of 3"):
        condition.attributions("saliency")
    assert torch.equal(condition.attribute("saliency"), before)


def test_a_classifier_without_a_proved_gradient_is_not_explained(condition, tmp_path):
    unproved = dataclasses.replace(condition.classifier, info={"best_epoch": 1})
    with pytest.raises(ValueError, match="no gradient check"):
        next(attribute.attribute(unproved, condition.clips, "saliency", {}, tmp_path))


def test_another_sound_option_or_classifier_is_computed_anew(condition):
    classifier, sounds = condition.classifier, condition.clips.waveforms

    def keys(classifier, sounds, **options):
        return attribute.attribution_keys(classifier, sounds, "lime", options)

    first = keys(classifier, sounds, n_samples=10)
    assert first == keys(classifier, sounds, n_samples=10) and len(set(first)) == 3
    assert keys(classifier, sounds[:1], n_samples=10) == first[:1]
    assert not set(first) & set(keys(classifier, sounds, n_samples=11))
    assert not set(first) & set(keys(dataclasses.replace(classifier, digest="another"), sounds, n_samples=10))
    tensors = [keys(classifier, sounds[:1], background=torch.full((2,), value)) for value in (0.0, 1.0)]
    assert tensors[0] != tensors[1]


def test_what_is_explained_is_told_clip_by_clip(condition):
    frame = condition.explained("saliency")
    assert list(frame) == ["clip", "category", "predicted", "seconds", "target", "p"]
    assert frame["clip"].tolist() == condition.clips.frame["clip"].tolist()
    assert frame["target"].tolist() == condition.targets.tolist()
    assert frame["predicted"].tolist() == [
        condition.classifier.classes[k] for k in condition.targets.tolist()
    ]
    np.testing.assert_allclose(frame["p"], condition.probabilities.amax(1), rtol=1e-9)


@pytest.mark.parametrize("method", [name for name in known_methods() if METHODS.traits(name).one_by_one])
def test_clips_that_share_a_call_are_explained_as_they_are_alone(condition, method):
    """To the last bit: which clips a call holds depends on where a run was cut off."""
    assert attribute.n_at_once(condition.classifier, method) == attribute.ONE_BY_ONE
    options, sounds = condition.method_options(method), condition.clips.waveforms
    together = attribute.attributed(condition.classifier, sounds, method, options)
    for i, found in enumerate(together):
        (alone,) = attribute.attributed(condition.classifier, sounds[i : i + 1], method, options)
        assert np.array_equal(found["attribution"], alone["attribution"]) and found["attribution"].any()


def test_options_follow_from_what_a_method_says_of_itself(study, condition, own_method):
    def mine(model, db, target, *, n_tries=3, background=None):
        return db

    own_method("mine", mine, budget="n_tries", background=True)
    options, sizes = condition.method_options("mine"), study.settings.sizes
    assert options["n_tries"] == sizes.lime_samples == 30 and set(options) == {"n_tries", "background"}
    assert options["background"].shape == (sizes.background_clips, 1, 64, 101)
    assert all(
        Path(p).name[0] in "123" for p in background_clips(study.dataset, 4)["path"]
    )  # of the training folds
    for method, budget in (("lime", "n_samples"), ("slime", "n_samples"), ("rise", "n_masks")):
        assert condition.method_options(method) == {budget: 30}
    assert condition.method_options("smoothgrad") == {}
    with pytest.raises(TypeError, match="mine has no option 'n_samples'"):
        register("mine", budget="n_samples")(mine)


def test_every_method_of_the_package_can_be_called_with_the_options_it_is_given(condition, monkeypatch):
    """Decoders are not trained for that, see test_study_decoders.py."""
    monkeypatch.setattr(decoders, "fitted_decoder", lambda study, classifier, method: Path("decoder.pt"))
    for method in known_methods():
        options = condition.method_options(method)
        assert set(METHODS.required(method)) <= set(options) <= set(METHODS.options(method)), method


def test_a_method_that_wants_the_sound_is_given_the_clip_s(condition, own_method, tmp_path):
    own_method("again", lambda model, db, target, *, waveform, spectrogram: 2 * spectrogram(waveform).db - db)
    one = condition.first(1)
    list(attribute.attribute(one.classifier, one.clips, "again", {}, tmp_path))
    found, _ = attribute.load_attributions(one.classifier, one.clips, "again", {}, tmp_path)
    alone = one.spectrogram(
        one.clips.waveforms.to(one.classifier.dtype)
    ).db  # in a batch the last bit may differ
    assert torch.equal(found, alone)


def test_a_method_of_its_own_goes_through_the_study(study, own_method):
    own_method("tilt", lambda model, db, target: db - db.mean(dim=(1, 2, 3), keepdim=True))
    wider = dataclasses.replace(study.settings)
    object.__setattr__(wider, "methods", (*METHOD_PAIR, "tilt"))  # the command line takes known names alone
    condition = Study(wider).condition("mel_db", "white")
    for method in (*METHOD_PAIR, "tilt"):
        condition.attribute(method)
    try:
        assert condition.methods == ["saliency", "gradcam", "tilt"]
        scores = pd.concat(condition.score_blocks(["tilt"]))
    finally:
        shutil.rmtree(condition.attribution_folder("tilt"))
    own = scores.query("control == '' and protocol == 'audited'")
    assert len(own) == 14 * 3 and set(own["method"]) == {"tilt"} and own["FidIn_heard"].notna().all()


def test_one_row_per_clip_method_mask_and_control(scores):
    keys = ["protocol", "method", "mask", "control", "clip"]
    assert not scores.duplicated(keys).any()
    counts = scores.groupby(["protocol", "control"]).size()
    assert counts["paper", ""] == counts["audited", ""] == 2 * 14 * 3
    assert counts["audited", "random"] == counts["audited", "energy"] == 2 * 14 * 3
    assert counts["audited", "oracle"] == counts["audited", "all_ones"] == 3
    assert set(scores.query("control == ''")["mask"]) == set(MASK_NAMES)


def test_controls_keep_exactly_the_area_of_their_mask(condition, scores):
    attribution = condition.attributions("saliency")
    n_bins = {name: kept_bins(mask).tolist() for name, mask in build_masks(attribution, "audited").items()}
    rows, names = (
        scores.query("method == 'saliency' and control in ['random', 'energy']"),
        list(condition.clips.frame["clip"]),
    )
    assert len(rows) == 2 * 14 * 3
    for row in rows.itertuples():
        assert round(row.area * 64 * 101) == n_bins[row.mask][names.index(row.clip)]


def test_controls_are_heard_at_the_area_that_all_methods_share(condition, scores):
    controls = scores.query("control in ['random', 'energy']")
    assert (controls["FF_heard"].notna() == (controls["mask"] == EQUAL)).all()
    classifier, waveforms = condition.classifier, condition.clips.waveforms
    batch = classifier.spectrogram(classifier.sound(waveforms))
    seeds = [clip_seed(name) for name in condition.clips.frame["clip"]]
    mask = build_masks(condition.attributions("saliency"), "audited", [EQUAL])[EQUAL]
    whole = classifier.probabilities(waveforms)
    for kind, matched in control_masks(mask, batch.power, seeds).items():
        left = kept_audio(batch, 1 - matched, classifier.spectrogram)
        after = probabilities(classifier.model, classifier.spectrogram.decibels(left))
        target = whole.argmax(1, keepdim=True)
        wanted = (whole.gather(1, target) - after.gather(1, target))[:, 0]
        found = controls[(controls["control"] == kind) & (controls["mask"] == EQUAL)]
        found = found[found["method"] == "saliency"]
        np.testing.assert_allclose(found["FF_heard"].to_numpy(float), wanted.numpy(), atol=1e-5)


def test_all_ones_keeps_everything_and_the_oracle_improves_the_ratio(scores):
    ones = scores.query("control == 'all_ones' and protocol == 'audited'")
    assert (ones["area"] == 1).all() and (ones["FidIn"] == 1).all() and (ones["AI"] == 0).all()
    np.testing.assert_allclose(ones["snr_gain"], 0, atol=1e-9)
    oracle = scores.query("control == 'oracle' and protocol == 'audited'")
    assert (oracle["snr_gain"] > 3).all()
    assert (oracle["si_sdr"] > ones["si_sdr"].to_numpy()).all()


def test_scores_come_back_from_their_file(study, condition, scores):
    pd.testing.assert_frame_equal(condition.scores(), scores.reset_index(drop=True), check_dtype=False)
    with pytest.raises(FileNotFoundError, match="run 04_mask_study"):
        study.condition("mel_db", "room").scores()
    with pytest.raises(FileNotFoundError, match="run 04_mask_study"):
        study.scores()  # of the run's two conditions one is missing


def test_a_scored_block_is_read_and_one_of_another_attribution_is_scored_again(condition, scores):
    folder = condition.study.results / "scores" / "blocks" / "mel_db" / "white"
    (path,) = folder.glob("*.parquet")
    before = path.stat().st_mtime_ns
    pd.testing.assert_frame_equal(condition.score_all(), scores, check_exact=True)
    assert path.stat().st_mtime_ns == before
    stored = condition.attribution_folder("saliency") / f"{condition.clips.frame['clip'][0]}.npz"
    content, whole = (
        dict(np.load(stored)),
        {each: each.read_bytes() for each in (path, condition.scores_path)},
    )
    try:
        np.savez(stored, **content | {"attribution": -content["attribution"]})
        assert not condition.score_all().equals(scores)
        (other,) = folder.glob("*.parquet")  # the old one is gone
        assert other.name != path.name
    finally:
        np.savez(stored, **content)
        for each in folder.glob("*.parquet"):
            each.unlink()
        for each, written in whole.items():
            each.write_bytes(written)


def test_shards_make_the_scores_of_the_whole(condition, scores):
    blocks = [condition.shard((number, 2)).clips for number in range(2)]
    assert sorted(clip for part in blocks for clip in part.frame["clip"]) == sorted(
        condition.clips.frame["clip"]
    )
    assert [len(part) for part in blocks] == [2, 1]


def test_masks_of_one_s_own_are_scored(condition):
    ones = torch.ones_like(condition.spectrograms)
    table = condition.score({"everything": ones, "nothing": 0 * ones})
    assert table.groupby("mask")["area"].mean().to_dict() == {"everything": 1.0, "nothing": 0.0}
    assert (table.query("mask == 'everything'")["FidIn"] == 1).all() and table["degenerate"].all()


def test_methods_are_those_of_the_run_with_attributions(study, condition):
    assert condition.methods == ["saliency", "gradcam"]
    assert Study(dataclasses.replace(study.settings, methods=("gradcam", "lime"))).condition(
        "mel_db", "white"
    ).methods == ["gradcam"]
    with pytest.raises(FileNotFoundError, match="run 03_attributions"):
        print(study.condition("mel_db", "room").methods)


def test_accuracy_is_counted_on_the_whole_test_fold(condition):
    accuracy, frame = condition.accuracy()
    assert len(frame) == 6 and list(frame) == ["clip", "category", "label", "predicted", "p"]
    assert accuracy == pytest.approx(100 * (frame["label"] == frame["predicted"]).mean())


def test_a_number_of_clips_goes_before_the_profiles_and_keeps_its_clips(study):
    few, more = (
        Study(dataclasses.replace(study.settings, n_clips=n)).condition("mel_db").clips for n in (1, 2)
    )
    assert (len(few), len(more)) == (1, 2) and set(few.frame["clip"]) < set(more.frame["clip"])


def test_chosen_clips_are_spread_evenly_and_keep_their_order():
    frame = pd.DataFrame({"clip": list("abcdefgh"), "label": [0, 0, 0, 0, 1, 1, 2, 2]})
    assert clips.choose(frame, 5)["clip"].tolist() == ["a", "b", "e", "f", "g"]
    assert clips.choose(frame, None).equals(frame) and clips.choose(frame, 99).equals(frame)
    assert clips.choose(frame, 6)["label"].value_counts().to_dict() == {0: 2, 1: 2, 2: 2}


def test_broken_clips_are_left_out_with_a_line_each(study):
    frame = study.dataset.split("test").copy()
    frame.loc[0, "path"] = "/nowhere/missing.wav"
    found = clips.load_clips(study, frame, 32000)
    assert len(found) == len(frame) - 1 and len(found.problems) == 1 and "missing.wav" in found.problems[0]
    assert found.rows.tolist() == list(range(1, len(frame)))
    with pytest.raises(ValueError, match="none of the 1 clips can be used"):
        clips.load_clips(study, frame.iloc[:1], 32000)

"""What is stored is of these sounds, this code and this device: others are computed anew, or left out."""

import dataclasses
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import soundfile
import tiny_study
import torch
from own_study import own_settings

from audioxai_utils.attributions import METHODS
from audioxai_utils.evaluation.masks import MASKS, register_mask
from audioxai_utils.evaluation.metrics import METRICS, register_metric
from audioxai_utils.study import attribute, callables, profiles
from audioxai_utils.study.decoders import decoder_path
from audioxai_utils.study.study import Study

MODEL = """
    import torch
    import audioxai_utils as ax

    def load():
        def loudness(waveform):
            return torch.stack([waveform.square().mean(1), waveform.abs().mean(1)], 1)
        return ax.AudioClassifier(loudness, ["low", "high"], 8000, head="softmax")
"""
METHOD = """
    SHARE, CALLS, N = 0.5, [], 0

    def helper(db):
        return db * SHARE

    def tilt(model, db, target, *, share=1):
        global N
        N += 1
        CALLS.append(1)
        return sum(helper(each) for each in [db]) * share
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return tiny_study.make(tmp_path_factory.mktemp("states"))


@pytest.fixture
def condition(study):
    return study.condition("mel_db", "clean")


# The user's sounds


def own_study(folder, sounds: list[np.ndarray]) -> Study:
    (folder / "my_model.py").write_text(textwrap.dedent(MODEL))
    (folder / "clips").mkdir()
    for i, sound in enumerate(sounds):
        soundfile.write(folder / "clips" / f"{i}.wav", sound, 8000, subtype="FLOAT")
    return Study(own_settings(folder, "my_model.py:load"))


def test_a_bad_first_clip_does_not_end_a_run(tmp_path):
    """NaN after five seconds is found when the whole clip is read."""
    sounds = [0.1 * np.random.default_rng(i).standard_normal(48000) for i in range(4)]
    sounds[0][44000] = np.nan
    study = own_study(tmp_path, sounds)
    assert study.own_model.classes == ("low", "high")
    study.save_own({"gradient_error": 0.0})
    clips = study.condition("own").clips
    assert list(clips.frame["clip"]) == ["1", "2", "3"] and len(clips.problems) == 1


def test_without_any_clip_that_can_be_used_it_says_so(tmp_path):
    sounds = [0.1 * np.random.default_rng(i).standard_normal(48000) for i in range(2)]
    for sound in sounds:
        sound[44000] = np.nan
    with pytest.raises(ValueError, match="none of the 2 clips can be used; the first problem: .*NaN"):
        print(own_study(tmp_path, sounds).own_model)


# Sounds that train


def test_a_decoder_is_of_the_clips_that_trained_it(study, tmp_path):
    tiny_study.write_dataset(tmp_path / "tones")

    def path(**changes):
        settings = dataclasses.replace(study.settings, data_root=str(tmp_path / "tones"), **changes)
        return decoder_path(Study(settings), study.classifier("mel_db"), "lmac_ft")

    before = path()
    assert before == decoder_path(study, study.classifier("mel_db"), "lmac_ft")  # a copy of the same sounds
    noise = 0.1 * np.random.default_rng(7).standard_normal(8000)
    for fold, same in ((5, True), (4, True), (2, False)):
        soundfile.write(tmp_path / "tones" / "audio" / f"{fold}-0-A-0.wav", noise, 16000)
        assert (path() == before) == same, fold


def test_a_decoder_of_fewer_clips_a_class_is_another_one(tmp_path, monkeypatch):
    settings = tiny_study.make(tmp_path, takes="AB").settings
    found = []
    for n in (1, 2, 2):
        sizes = dataclasses.replace(profiles.PROFILES["smoke"], clips_per_class=n)
        monkeypatch.setitem(profiles.PROFILES, "smoke", sizes)
        study = Study(settings)
        found.append(decoder_path(study, study.classifier("mel_db"), "lmac"))
    assert found[0] != found[1] == found[2]


# Code of one's own


def made(code: str, name: str = "tilt", module: str = "__main__"):
    """A function as a notebook makes it: no file holds its source."""
    scope = {"__name__": module}
    exec(textwrap.dedent(code), scope)
    return scope[name]


CHANGES = [
    ("SHARE, CALLS, N = 0.5", "SHARE, CALLS, N = 0.6"),
    ("db * SHARE", "db / SHARE"),
    ("share=1", "share=2"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_an_edited_method_of_the_same_name_gets_new_maps(condition, own_method, tmp_path, change):
    def rows(code):
        own_method("tilt", made(code))
        try:
            again = condition.first(1)
            found = list(attribute.attribute(again.classifier, again.clips, "tilt", {}, tmp_path))
            return [row["computed"] for row in found]
        finally:
            METHODS.remove("tilt")

    assert rows(METHOD) == [True] and rows(METHOD) == [False]  # what a call counts is no code
    assert rows(METHOD.replace(*change)) == [True]


def test_a_method_in_a_user_s_module_is_known_by_its_file(own_method, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "states_tilt.py"
    file.write_text(textwrap.dedent(METHOD))
    import states_tilt

    own_method("tilt", states_tilt.tilt)
    before = attribute.method_digest("tilt")
    assert attribute.method_digest("tilt") == before
    file.write_text(textwrap.dedent(METHOD).replace("db * SHARE", "db / SHARE"))
    assert attribute.method_digest("tilt") != before


def test_what_a_function_is_bound_to_counts():
    def scaled(by):
        return lambda values, protocol: values * by

    class Rule:
        def __init__(self, by):
            self.by = by

        def __call__(self, values, protocol):
            return values * self.by

    for make in (scaled, Rule):
        for one, other in ((1, 2), (torch.ones(2), torch.zeros(2)), (np.ones(2), np.zeros(2))):
            same, different = (callables.code_digest(make(each)) for each in (one, other))
            assert same == callables.code_digest(make(one)) != different


def test_digests_are_the_same_in_every_process():
    run = """
        from audioxai_utils.evaluation.masks import MASKS
        from audioxai_utils.study.callables import code_digest
        WORDS = frozenset("abcdef")
        class Rule:
            def __init__(self):
                self.by, self.cache = 1, object()
            def __call__(self, x):
                return x in {"one", "two", "three"} or x in WORDS
        def plain(x, to=print):
            return [y for y in WORDS if y in {"one", "two", "three"}]
        print([code_digest(each) for each in (plain, Rule(), *MASKS.values())])
    """
    said = {
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(run)],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "12"
    }
    assert len(said) == 1 and said.pop().strip()


def test_another_mask_or_metric_is_scored_where_scores_are_on_file(study):
    settings = dataclasses.replace(study.settings, methods=("saliency",))
    condition = Study(settings).condition("mel_db", "clean")
    condition.attribute("saliency")
    before = condition.score_all()

    def scored(limit):
        register_mask("states_above", lambda values, protocol: (values > limit).to(values))
        register_metric("states_area", lambda split: split.p.amax(1) * limit, better="higher")
        try:
            return condition.score_all()
        finally:
            del MASKS["states_above"], METRICS["states_area"]

    found = scored(1.0)
    assert "states_above" in set(found["mask"]) and "states_area" in found
    other = scored(2.0).query("protocol == 'audited' and control == ''")["states_area"].to_numpy(float)
    first = found.query("protocol == 'audited' and control == ''")["states_area"].to_numpy(float)
    np.testing.assert_allclose(other, 2 * first)
    assert condition.score_all().equals(before)


# The device


def test_seconds_are_of_this_device_or_not_known(condition):
    one = condition.first(1)
    folder = one.attribution_folder("gradcam")
    (before,) = one._explain("gradcam")
    (path,) = folder.glob("*.npz")
    record = dict(np.load(path))
    assert str(record["device"]) == "cpu" and before["seconds"] > 0
    np.savez(path, **record | {"device": np.array("cuda")})
    (after,) = one._explain("gradcam")
    assert not after["computed"] and np.isnan(after["seconds"]) and after["p"] == before["p"]
    assert np.isnan(one._stored("gradcam")[1][0])
    assert torch.equal(one.attributions("gradcam")[0, 0], torch.from_numpy(record["attribution"]))

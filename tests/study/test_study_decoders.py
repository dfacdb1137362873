"""Decoders of the study: trained on the training folds alone, once for a classifier, and kept by what they
follow from.
"""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import soundfile
import tiny_study
import torch

from audioxai_utils.attributions import METHODS, decoder_training
from audioxai_utils.attributions.sound_decoder import SoundRecipe
from audioxai_utils.study.attribute import attribute, attribution_keys
from audioxai_utils.study.clips import split_clips
from audioxai_utils.study.decoders import decoder_path, fitted_decoder, training_seconds
from audioxai_utils.study.study import Study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return tiny_study.make(tmp_path_factory.mktemp("tiny"))


def weights_of(study, method) -> dict:
    return torch.load(fitted_decoder(study, study.classifier("mel_db"), method), weights_only=True)


def rows_of(condition, method) -> list[dict]:
    options, folder = condition.method_options(method), condition.attribution_folder(method)
    return list(attribute(condition.classifier, condition.clips, method, options, folder))


@pytest.mark.parametrize("method", ["lmac", "lmac_ft", "l2i"])
def test_the_decoder_never_hears_validation_or_test_folds(method, study, tmp_path):
    """Other sounds in folds 4 and 5 leave every weight as it is; another sound in fold 1 does not."""
    root, results = tmp_path / "tones", tmp_path / "results"
    shutil.copytree(study.settings.data_root, root)
    shutil.copytree(study.results / "models", results / "models")
    noise = np.random.default_rng(7).standard_normal(8000) * 0.1

    def again(fold: int) -> dict:
        for path in (root / "audio").glob(f"{fold}-*.wav"):
            soundfile.write(path, noise, 16000)
        shutil.rmtree(results / "decoders", ignore_errors=True)
        settings = dataclasses.replace(study.settings, data_root=str(root), results_dir=str(results))
        return weights_of(Study(settings), method)

    before = weights_of(study, method)
    assert before["info"]["n_clips"] == 9 and before["info"]["seconds"] > 0
    for fold in (4, 5):
        after = again(fold)
        assert all(torch.equal(value, after["decoder"][name]) for name, value in before["decoder"].items())
    changed = again(1)
    assert not all(torch.equal(value, changed["decoder"][name]) for name, value in before["decoder"].items())


def test_a_decoder_of_sounds_is_given_the_training_folds_as_they_sound(study, monkeypatch):
    """What trains it is heard: waveforms of folds 1 to 3 and a model of waveforms with the classifier's scores."""

    class Caught(Exception):
        pass

    def catch(model, clips, recipe, seed, start):
        assert start is None and isinstance(recipe, SoundRecipe)
        train = split_clips(study, classifier.sample_rate, "train")
        assert set(train.frame["fold"]) == {1, 2, 3} and torch.equal(clips, train.waveforms.to(clips))
        scores = classifier.model(classifier.spectrogram(clips[:2]).db)
        torch.testing.assert_close(model(clips[:2]), scores)
        raise Caught

    classifier = study.classifier("mel_db")
    monkeypatch.setattr(decoder_training, "train_decoder", catch)
    with pytest.raises(Caught):
        fitted_decoder(study, classifier, "lmac_td")


def test_it_is_trained_once_for_a_classifier_and_goes_through_the_study(study, monkeypatch):
    condition = study.condition("mel_db", "clean")
    classifier = condition.classifier
    path = fitted_decoder(study, classifier, "lmac")
    monkeypatch.setattr(decoder_training, "train_decoder", lambda *a, **k: pytest.fail("trained again"))
    assert fitted_decoder(study, classifier, "lmac") == path
    assert training_seconds(study, classifier, "lmac") == decoder_training.decoder_info(path)["seconds"] > 0
    assert training_seconds(study, classifier, "extremal") == 0
    assert all(row["computed"] for row in rows_of(condition, "lmac"))
    assert not any(row["computed"] for row in rows_of(condition, "lmac"))
    waveforms = condition.clips.waveforms[:1]
    key = attribution_keys(classifier, waveforms, "lmac", {"decoder": path})
    content = path.read_bytes()
    path.write_bytes(content + b"x")
    try:
        assert attribution_keys(classifier, waveforms, "lmac", {"decoder": path}) != key
    finally:
        path.write_bytes(content)


def test_the_second_stage_starts_from_the_first_s_decoder_and_costs_both(study, monkeypatch):
    condition, trained = study.condition("mel_db", "clean"), []
    classifier = condition.classifier
    shutil.rmtree(study.results / "decoders", ignore_errors=True)
    train = decoder_training.train_decoder

    def noted(*args, start=None):
        trained.append(start)
        return train(*args, start=start)

    monkeypatch.setattr(decoder_training, "train_decoder", noted)
    path = fitted_decoder(study, classifier, "lmac_ft")
    first = fitted_decoder(study, classifier, "lmac")
    assert trained == [None, first] and path != first
    seconds = [training_seconds(study, classifier, method) for method in ("lmac", "lmac_ft")]
    assert 0 < seconds[0] < seconds[1]
    first.unlink()
    assert fitted_decoder(study, classifier, "lmac_ft") == path and len(trained) == 2
    assert rows_of(condition, "lmac_ft") and len(trained) == 2
    other = dataclasses.replace(METHODS.traits("lmac"), recipe=decoder_training.Recipe(noise=0.0))
    monkeypatch.setattr(
        METHODS, "traits", lambda name, traits=METHODS.traits: other if name == "lmac" else traits(name)
    )
    assert decoder_path(study, classifier, "lmac_ft") != path

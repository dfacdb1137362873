"""The pretrained tagger as the study's classifier, with weights that are drawn here: its pictures and its probe."""

import dataclasses

import pandas as pd
import pytest
import tiny_study
import torch

from audioxai_utils import numerics
from audioxai_utils.attributions.gradient_check import gradient_check
from audioxai_utils.models.efficientat import EfficientAT
from audioxai_utils.models.frontends import LogMel
from audioxai_utils.models.training import TrainingRun
from audioxai_utils.study.pretrained import features_of
from audioxai_utils.study.study import Study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Three tones in five folds, and a tagger whose features are random but real."""
    folder = tmp_path_factory.mktemp("tagger")
    torch.manual_seed(0)
    torch.save(EfficientAT(5).state_dict(), folder / "mn04.pt")
    made = tiny_study.make(folder, takes="AB", profile="quick")
    settings = dataclasses.replace(made.settings, pretrained=("mn04", str(folder / "mn04.pt")))
    settings.write(states={})
    return Study(settings)


@pytest.fixture(scope="module", params=["mel_db", "stft_db"])
def probed(study, request):
    """(spectrogram type, what training gave) with the classifier on file."""
    kind = request.param
    train, validation = (study.split(kind, split)[:2] for split in ("train", "validation"))
    run = study.train(study.new_model(kind), kind, train, validation)
    info = {"best_epoch": run.best_epoch, "gradient_error": 0.0, "training_mean": [0.0]}
    study.save_classifier(run.model, kind, info)
    return kind, run


def test_a_probe_learns_what_the_features_tell_apart(study, probed):
    kind, run = probed
    best = run.history.set_index("epoch").loc[run.best_epoch]
    assert best["validation_accuracy"] == run.history["validation_accuracy"].max() == 1
    assert list(run.history["C"]) == sorted(run.history["C"])
    accuracy, _ = study.condition(kind).accuracy()
    assert accuracy == 100


def test_the_file_is_the_model_and_its_gradient_is_right(study, probed):
    kind, run = probed
    db, _, _ = study.split(kind, "test")
    stored = study.classifier(kind)
    with torch.no_grad():
        torch.testing.assert_close(stored.model(db), run.model(db))
        torch.testing.assert_close(stored.fused(db), run.model(db), rtol=1e-3, atol=1e-3)
    assert gradient_check(stored.model, db[:1]).relative_error < 1e-5


def test_mel_is_the_taggers_own_and_silence_is_where_it_is_for_it(study, probed):
    kind, _run = probed
    classifier = study.classifier(kind)
    own = LogMel.efficientat()
    expected = (own.n_mels, own.floor) if kind == "mel_db" else (257, -100.0)
    assert (classifier.spectrogram.n_bins, classifier.reading.floor) == expected
    assert classifier.spectrogram.name == kind
    silence = classifier.spectrogram.decibels(torch.zeros(1, classifier.sample_rate))
    assert float(silence.max()) == pytest.approx(classifier.reading.floor, abs=1e-3)


def test_features_do_not_depend_on_the_chunk(study, monkeypatch):
    db, _, _ = study.split("stft_db", "train")
    network = study.new_model("stft_db").net.network
    whole = features_of(network, "stft_db", db, "cpu")
    monkeypatch.setitem(numerics.BATCH_SIZE, "cpu", 2)
    torch.testing.assert_close(features_of(network, "stft_db", db, "cpu"), whole, rtol=1e-4, atol=1e-5)


def test_it_is_explained_and_scored(study, probed):
    kind, _ = probed
    condition = study.condition(kind, "white").first(2)
    for method in ("saliency", "gradcam"):
        values = condition.attribute(method)
        assert values.shape == condition.spectrograms.shape and values.isfinite().all() and values.any()
    one = condition.first(1)
    assert one.attribute("shap").isfinite().all() and (one.additivity_error("shap") < 1e-3).all()


@pytest.fixture(scope="module")
def few(study):
    """The study with the whole tagger trained, and six clips each to train and to validate it on."""
    again = Study(dataclasses.replace(study.settings, fitting="whole"))
    parts = [again.split("stft_db", split)[:2] for split in ("train", "validation")]
    return again, *((db[:6], labels[:6]) for db, labels in parts)


def test_fine_tuning_goes_on_from_the_probe(study, few):
    again, train, validation = few
    run = again.train(again.new_model("stft_db"), "stft_db", train, validation)
    assert list(run.history["epoch"]) == [0, 1, 2, 3, 4, 5] and "C" not in run.history
    assert run.best_epoch == run.history["epoch"][run.history["validation_accuracy"].argmax()]
    probe = study.train(study.new_model("stft_db"), "stft_db", train, validation).history
    assert set(probe["validation_loss"]) >= {run.history["validation_loss"][0]}
    assert (again.training.epochs, again.training.masked, again.training.frozen_norms) == (5, False, True)


def test_the_probe_is_kept_where_no_epoch_is_better(study, few, monkeypatch):
    again, train, validation = few

    def worse(model, *_):
        """Training that spoils the head."""
        torch.nn.init.zeros_(model.net.network.classifier.weight)
        rows = [{"epoch": 1, "validation_accuracy": 0.0, "validation_loss": 9.0}]
        return TrainingRun(model, pd.DataFrame(rows), 1, 0.0)

    monkeypatch.setattr("audioxai_utils.study.pretrained.train_classifier", worse)
    run = again.train(again.new_model("stft_db"), "stft_db", train, validation)
    probe = study.train(study.new_model("stft_db"), "stft_db", train, validation)
    assert run.best_epoch == 0 and probe.history["validation_accuracy"].max() > 0
    with torch.no_grad():
        torch.testing.assert_close(run.model(validation[0]), probe.model(validation[0]))

"""Each finding on small cases where the truth is known."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from audioxai_utils.audit import audit
from audioxai_utils.models.cnn14 import Cnn14


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = Cnn14(64, 4, 1 / 32).eval()
    model.bn0.running_mean.uniform_(-60, -20)
    model.bn0.running_var.uniform_(50, 400)
    return model


def test_the_usual_layout_has_the_right_outputs_and_a_wrong_gradient(model):
    """Finding 6, on the CPU of this PyTorch; when it is mended there, this test says so."""
    db, target = 20 * torch.randn(2, 1, 64, 101) - 40, torch.tensor([1, 2])
    torch.testing.assert_close(audit.UsualCnn14(model)(db), model(db))
    assert abs(audit.usual_gradient_cosine(model, db, target)) < 0.5


def test_the_usual_layout_is_refused_by_the_gradient_check(model):
    from audioxai_utils.attributions.gradient_check import GradientCheckError, gradient_check

    db = 20 * torch.randn(2, 1, 64, 101) - 40
    assert gradient_check(model, db).relative_error < 1e-4
    with pytest.raises(GradientCheckError):
        gradient_check(audit.UsualCnn14(model), db)


def test_published_shares_of_all_ones_masks():
    """Finding 1: 0.1738 = 0.3475 * 0.5, so 65 % of the published clean mel masks kept everything."""
    assert audit.published_degenerate_share(("mel_db", "clean")) == pytest.approx(0.65, abs=0.005)
    assert math.isnan(audit.published_value(("stft_db", "white"), "lime", "bin", "FF"))


def scores():
    rows = [
        {"protocol": "audited", "control": control, "spectrogram_type": "mel_db", "noise_scenario": "clean",
         "method": "lime" if not control else "", "mask": "bin" if not control else "", "clip": str(i),
         **{m: i for m in ("FF", "AI", "AG", "FidIn", "AD")}, **{f"{m}_heard": 2 * i for m in ("FF", "AI", "AG", "FidIn", "AD")}}
        for control in ("", "all_ones") for i in range(3)
    ]
    return pd.DataFrame(rows)


def test_gap_and_round_trip_average_the_right_rows():
    gap = audit.heard_gap(scores())
    assert len(gap) == 1 and gap["FF"][0] == 1 and gap["FF_heard"][0] == 2
    trip = audit.round_trip(scores())
    assert trip["FidIn_heard"].tolist() == [2] and "si_sdr" not in trip
    assert audit.mean_of(scores(), "FF", control="all_ones", protocol="audited") == 1
    assert math.isnan(audit.mean_of(scores(), "FF", control="nobody"))


def test_the_table_wants_all_twelve():
    rows = [{"number": n} for n in range(12, 0, -1)]
    assert audit.findings_table(rows)["number"].tolist() == list(range(1, 13))
    with pytest.raises(ValueError, match="1 to 12"):
        audit.findings_table(rows[1:])


def test_stored_sounds_have_the_right_rate_and_duration():
    """Finding 12: a 32 kHz sound in a file that says 16 kHz plays for twice its time."""
    sound = torch.from_numpy(np.sin(2 * np.pi * 440 * np.arange(160000) / 32000))
    stored = audit.stored_sound(sound, 32000)
    assert stored["sample_rate"] == 32000 and stored["seconds"] == pytest.approx(5, abs=0.1)


def test_ranking_follows_the_score():
    best = pd.DataFrame({"spectrogram_type": "mel_db", "noise_scenario": "clean", "protocol": "paper",
                         "method": ["a", "b", "c"], "score": [0.2, 0.9, 0.5]})
    assert audit.ranking(best, "paper", ("mel_db", "clean")) == ["b", "c", "a"]


def test_the_training_mean_and_the_floor_fill_what_is_masked(condition, monkeypatch):
    """Finding 8: by hand for one mask, and the -100 dB fill is what the study scores."""
    from audioxai_utils.study import pipeline, study

    settings, classifier = condition
    clips = study.explained_clips(settings, 32000, "clean")
    db = study.spectrograms_of(classifier, clips)
    attribution = torch.rand(db.shape, generator=torch.Generator().manual_seed(3))
    mean = torch.linspace(-80, -20, 64)
    classifier.info["training_mean"] = mean.tolist()
    monkeypatch.setattr(study, "load_classifier", lambda *_: classifier)
    monkeypatch.setattr(pipeline, "load_attributions", lambda *_: (attribution, [0.0] * len(clips)))
    row = {"protocol": "audited", "spectrogram_type": "mel_db", "noise_scenario": "clean", "method": "lime", "mask": "topK_30"}
    best = pd.DataFrame([row, row | {"method": "shap", "mask": "bin"}, row | {"noise_scenario": "white"}])
    found = audit.fill_sensitivity(settings, ("mel_db", "clean"), best)
    assert list(zip(found["method"], found["fill"])) == [(m, f) for m in ("lime", "shap") for f in audit.FILLS]
    kept = attribution >= attribution.flatten(1).quantile(0.7, dim=1)[:, None, None, None]
    with torch.no_grad():
        p = classifier.model(db).softmax(1)
        for fill, value in (("-100 dB", torch.tensor(-100.0)), ("training mean", mean[None, None, :, None])):
            removed = classifier.model(torch.where(kept, value.to(db), db)).softmax(1)
            drop = (p - removed).gather(1, p.argmax(1, keepdim=True)).mean()
            values = found[(found["fill"] == fill) & (found["method"] == "lime")]["FF"]
            assert values.item() == pytest.approx(float(drop), abs=1e-5)


def test_a_checkpoint_without_the_training_mean_says_what_to_run(condition):
    condition[1].info.pop("training_mean", None)
    with pytest.raises(ValueError, match="no training mean; run notebook 02_fine_tuning again"):
        _ = condition[1].training_mean


def test_rankings_by_fill():
    rows = [{"spectrogram_type": "mel_db", "noise_scenario": "clean", "fill": fill, "method": method, "FF": value}
            for fill, values in zip(audit.FILLS, ((1, 2), (1, 2), (2, 1))) for method, value in zip(("a", "b"), values)]
    assert audit.fill_rankings(pd.DataFrame(rows)).loc[("mel_db", "clean")].tolist() == ["b > a", "b > a", "a > b"]


def test_stored_attributions_are_measured_and_the_others_computed(condition, monkeypatch):
    """Finding 5: a stored Deep SHAP that is shifted no longer adds up; the functional one never did."""
    from audioxai_utils.study import pipeline, study

    settings, classifier = condition
    clips = study.explained_clips(settings, 32000, "clean")
    computed = audit.shap_additivity(settings, classifier, clips, ("mel_db", "clean")).groupby("method")["additivity_error"]
    assert computed.median()["shap"] < 1e-4 and list(computed.size()) == [len(clips)] * 2
    monkeypatch.setattr(pipeline, "load_attributions", lambda *_: (torch.ones(len(clips), 1, 64, 501), None))
    stored = audit.shap_additivity(settings, classifier, clips, ("mel_db", "clean"), {"shap"})
    assert stored.groupby("method")["additivity_error"].median()["shap"] > 1

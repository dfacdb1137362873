"""Each finding on small cases where the truth is known."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import tiny_study
import torch

from audioxai_utils.audit import fills, findings, sanity_checks
from audioxai_utils.constants import MASK_NAMES, STUDY_METRICS
from audioxai_utils.evaluation import comparisons, tables
from audioxai_utils.evaluation.frames import methods_only
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
    torch.testing.assert_close(sanity_checks.UsualCnn14(model)(db), model(db))
    assert abs(sanity_checks.usual_gradient_cosine(model, db, target)) < 0.5


def test_the_usual_layout_is_refused_by_the_gradient_check(model):
    from audioxai_utils.attributions.gradient_check import GradientCheckError, gradient_check

    db = 20 * torch.randn(2, 1, 64, 101) - 40
    assert gradient_check(model, db).relative_error < 1e-4
    with pytest.raises(GradientCheckError):
        gradient_check(sanity_checks.UsualCnn14(model), db)


def test_published_shares_of_all_ones_masks():
    """Finding 1: 0.1738 = 0.3475 * 0.5, so 65 % of the published clean mel masks kept everything."""
    assert findings.published_degenerate_share(("mel_db", "clean")) == pytest.approx(0.65, abs=0.005)
    assert math.isnan(findings.published_value(("stft_db", "white"), "lime", "bin", "FF"))


def scores():
    rows = [
        {
            "protocol": "audited",
            "control": control,
            "spectrogram_type": "mel_db",
            "noise_scenario": "clean",
            "method": "lime" if not control else "",
            "mask": "bin" if not control else "",
            "clip": str(i),
            **dict.fromkeys(("FF", "AI", "AG", "FidIn", "AD"), i),
            **{f"{m}_heard": 2 * i for m in ("FF", "AI", "AG", "FidIn", "AD")},
        }
        for control in ("", "all_ones")
        for i in range(3)
    ]
    return pd.DataFrame(rows)


def test_gap_and_round_trip_average_the_right_rows():
    gap = findings.heard_gap(scores())
    assert len(gap) == 1 and gap["FF"][0] == 1 and gap["FF_heard"][0] == 2
    trip = findings.round_trip(scores())
    assert trip["FidIn_heard"].tolist() == [2] and "si_sdr" not in trip
    assert findings.mean_of(scores(), "FF", control="all_ones", protocol="audited") == 1
    assert math.isnan(findings.mean_of(scores(), "FF", control="nobody"))


def test_stored_sounds_have_the_right_rate_and_duration():
    """Finding 12: a 32 kHz sound in a file that says 16 kHz plays for twice its time."""
    sound = torch.from_numpy(np.sin(2 * np.pi * 440 * np.arange(160000) / 32000))
    stored = findings.stored_sound(sound, 32000)
    assert stored["sample_rate"] == 32000 and stored["seconds"] == pytest.approx(5, abs=0.1)


def test_ranking_follows_the_score():
    best = pd.DataFrame(
        {
            "spectrogram_type": "mel_db",
            "noise_scenario": "clean",
            "protocol": "paper",
            "method": ["a", "b", "c"],
            "score": [0.2, 0.9, 0.5],
        }
    )
    assert findings.ranking(best, "paper", ("mel_db", "clean")) == ["b", "c", "a"]


def test_the_training_mean_and_the_floor_fill_what_is_masked(condition, monkeypatch):
    """Finding 8: by hand for one mask, and the -100 dB fill is what the study scores."""
    db, classifier = condition.spectrograms, condition.classifier
    attribution = torch.rand(db.shape, generator=torch.Generator().manual_seed(3))
    mean = torch.linspace(-80, -20, 64)
    monkeypatch.setitem(classifier.info, "training_mean", mean.tolist())
    monkeypatch.setattr(condition, "attributions", lambda method: attribution)
    row = {
        "protocol": "audited",
        "spectrogram_type": "mel_db",
        "noise_scenario": "clean",
        "method": "lime",
        "mask": "topK_30",
    }
    others = [
        row | {"method": "shap", "mask": "bin"},
        row | {"noise_scenario": "white"},
        row | {"protocol": "paper"},
    ]
    found = fills.fill_sensitivity(condition, pd.DataFrame([row, *others]))
    assert list(zip(found["method"], found["fill"])) == [
        (m, f) for m in ("lime", "shap") for f in fills.FILLS
    ]
    kept = attribution >= attribution.flatten(1).quantile(0.7, dim=1)[:, None, None, None]
    with torch.no_grad():
        p = classifier.model(db).softmax(1)
        for fill, value in (("silence", torch.tensor(-100.0)), ("training mean", mean[None, None, :, None])):
            removed = classifier.model(torch.where(kept, value.to(db), db)).softmax(1)
            drop = (p - removed).gather(1, p.argmax(1, keepdim=True)).mean()
            values = found[(found["fill"] == fill) & (found["method"] == "lime")]["FF"]
            assert values.item() == pytest.approx(float(drop), abs=1e-5)


def test_a_checkpoint_without_the_training_mean_says_what_to_run(condition):
    condition.classifier.info.pop("training_mean", None)
    with pytest.raises(ValueError, match="no training mean; run notebook 02_fine_tuning again"):
        _ = condition.classifier.training_mean


def test_rankings_by_fill():
    rows = [
        {
            "spectrogram_type": "mel_db",
            "noise_scenario": scenario,
            "fill": fill,
            "method": method,
            "FF": value,
        }
        for scenario in ("clean", "white")
        for fill, values in zip(fills.FILLS, ((1, 2), (1, 2), (2, 1)))
        for method, value in zip(("lime", "b"), values)
    ]
    ranks = fills.fill_rankings(pd.DataFrame(rows))
    assert ranks.loc[("mel_db", "clean")].tolist() == ["b > LIME", "b > LIME", "LIME > b"]
    assert list(ranks.index) == [("mel_db", "clean"), ("mel_db", "white")] and list(ranks.columns) == list(
        fills.FILLS
    )


def test_shares_of_constant_masks_are_counted_by_hand():
    rows = pd.DataFrame(
        [
            {
                "protocol": protocol,
                "control": control,
                "method": method,
                "mask": "bin",
                "degenerate": degenerate,
            }
            for protocol, control, method, degenerate in (
                ("paper", "", "b", True),
                ("paper", "", "b", False),
                ("paper", "", "lime", False),
                ("audited", "", "lime", True),
                ("paper", "random", "lime", True),
            )
        ]
    )
    shares = findings.degenerate_shares(rows, "paper")
    assert shares["bin"].to_dict() == {"lime": 0.0, "b": 0.5} and list(shares.index) == ["lime", "b"]


# The twelve of a study


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A tiny study with all that the findings are read from, and their table."""
    study = tiny_study.make(tmp_path_factory.mktemp("measured"), seconds=5)
    study.settings = dataclasses.replace(
        study.settings, scenarios=("clean",), methods=("saliency", "lime", "shap")
    )
    condition = study.main_condition
    info = {"best_epoch": 2, "gradient_error": 1e-9, "training_mean": [-50.0] * 64}
    study.save_classifier(study.new_model("mel_db"), "mel_db", info)
    for method in study.settings.explained_by:
        condition.attribute(method)
    scores = condition.score_all()
    own = methods_only(scores)
    best = study.save("best_masks", tables.best_masks(tables.summarise(own)))
    study.save("best_versus_second", comparisons.best_versus_second(own, best=best, n_resamples=200))
    controls = scores[scores["control"].isin(comparisons.MATCHED_CONTROLS)]
    audited = own[own["protocol"] == "audited"]
    against = comparisons.beats_control(audited, controls, ["FF", "AD"], n_resamples=200)
    study.save("control_marks", comparisons.control_marks(against))
    study.save("history_mel_db", pd.DataFrame({"epoch": [1, 2, 3], "validation_accuracy": [0.5, 0.75, 0.25]}))
    return study, study.save("findings", findings.measure_findings(study))


def test_all_twelve_are_there_in_order_and_in_words(measured):
    study, table = measured
    assert table["number"].tolist() == list(range(1, 13)) and table.columns.tolist() == findings.COLUMNS
    assert table.map(str).ne("").all(axis=None) and not table.map(lambda value: "nan" in str(value)).any(
        axis=None
    )
    for name in ("shap_additivity", "gradients", "heard_gap", "round_trip", "fill_sensitivity"):
        assert len(study.table(name)), name


def test_the_rows_say_what_the_tables_hold(measured):
    study, table = measured
    rows, scores = table.set_index("number"), study.main_condition.scores()
    paper = scores[(scores["protocol"] == "paper") & (scores["control"] == "")]
    chosen = paper[(paper["method"] == "saliency") & (paper["mask"] == "topK_50_pos")]
    assert rows.loc[1, "paper"] == f"{100 * chosen['degenerate'].mean():.0f} %" and rows.loc[
        1, "published"
    ].startswith("65 %")
    assert rows.loc[2, ["paper", "audited"]].tolist() == ["0.00", f"{math.log(64 * 501):.2f}"]
    assert rows.loc[3, "audited"] == "0.0"
    sigmoid = paper[(paper["mask"] == "sigmoid")]["SPS"].mean()
    assert rows.loc[4, "paper"] == f"{sigmoid:.4f}"
    errors = study.table("shap_additivity").groupby("method")["additivity_error"].median()
    assert (
        rows.loc[5, "paper"] == f"{100 * errors['shap_functional']:.0f} % (functional)"
        and errors["shap"] < 1e-4
    )
    assert rows.loc[6, "audited"] == "1.000000 (affine bn0)"
    assert rows.loc[11, ["paper", "audited"]].tolist() == ["25.0 (last epoch)", "75.0 (epoch 2)"]
    assert rows.loc[12, "audited"] == "32000, 5.0"


def test_the_summary_ranks_the_methods_by_name_under_both_protocols(measured):
    study, _ = measured
    text = findings.summary(study)
    for protocol in ("paper", "audited"):
        ranks = findings.ranking(study.table("best_masks"), protocol, ("mel_db", "clean"))
        assert sorted(ranks) == ["lime", "saliency", "shap"]
        assert (
            " > ".join({"lime": "LIME", "saliency": "Saliency", "shap": "SHAP"}[name] for name in ranks)
            in text
        )
    assert "its SHAP misses additivity by " in text


def test_the_summary_of_another_network_speaks_of_no_cnn14(measured, monkeypatch):
    """Its SHAP was said to miss additivity "by about the study's own Cnn14"."""
    study, _ = measured
    table = study.table("findings")
    table.loc[table["number"] == 5, "paper"] = findings.OF_CNN14
    tables = {"findings": table, **{name: study.table(name) for name in ("best_masks", "heard_gap")}}
    monkeypatch.setattr(type(study), "table", lambda self, name: tables[name])
    text = findings.summary(study)
    assert "Cnn14" not in text and "of the clips, and of all masks " in text


def test_the_figures_draw_the_tables(measured):
    from audioxai_utils.figures import audit as figures

    study, _ = measured
    shares = findings.degenerate_shares(study.main_condition.scores(), "paper")
    ax = figures.constant_masks(shares).axes[0]
    assert [text.get_text() for text in ax.texts] == [f"{value:.0%}" for value in shares.to_numpy().ravel()]
    marks = study.table("control_marks")
    beaten = ~marks["not_better_than"].fillna("").str.contains("random")
    ax = figures.controls_beaten(marks).axes[0]
    assert sum(int(text.get_text()) for text in ax.texts) == beaten.sum() and len(ax.texts) == 3 * len(
        MASK_NAMES
    )
    points = figures.additivity(study.table("shap_additivity")).axes[0].collections[0].get_offsets()
    errors = study.table("shap_additivity").query("method == 'shap'")["additivity_error"].clip(lower=1e-16)
    np.testing.assert_allclose(np.sort(points[:, 0]), np.sort(errors))
    fill = study.table("fill_sensitivity")
    figure = figures.fill_sensitivity(fill)
    drawn = [line.get_ydata() for line in figure.axes[0].get_lines() if len(line.get_ydata()) == 3]
    np.testing.assert_allclose(drawn[0], fill[fill["method"] == "saliency"]["FF"])
    assert set(STUDY_METRICS) >= {ax.get_title().removesuffix(" (%)") for ax in figure.axes}

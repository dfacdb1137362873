"""Sanity checks against slow computations by hand and against what must hold."""

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch

from audioxai_utils.attributions import METHODS, neighbourhoods
from audioxai_utils.audit import sanity_checks

DB = 20 * torch.randn(1, 1, 12, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) - 40


# LIME


def test_neighbours_of_a_seed_are_limes_own():
    first, second = (neighbourhoods.prepare(DB[0], 20, seed) for seed in (5, 6))
    np.testing.assert_array_equal(sanity_checks.redrawn(first, 5).visible, first.visible)
    if second.segments.max() == first.segments.max():
        np.testing.assert_array_equal(sanity_checks.redrawn(first, 6).visible, second.visible)
    assert (sanity_checks.redrawn(first, 6).visible != first.visible).any()


def slow_ridge(visible, probability):
    """Weights, intercept and a function for the weighted R^2, by normal equations in float64."""
    visible, n = visible.astype(np.float64), len(visible)
    ones = np.ones(visible.shape[1])
    weight = np.empty(n)
    for i in range(n):
        length = np.sqrt((visible[i] @ visible[i]) * (ones @ ones))
        cosine = visible[i] @ ones / length if length else 0.0  # everything hidden
        weight[i] = np.sqrt(np.exp(-((1 - cosine) ** 2) / 0.25**2))
    design = np.column_stack([visible, np.ones(n)])
    penalty = np.diag([1.0] * visible.shape[1] + [0.0])  # the intercept is free
    normal = design.T @ (weight[:, None] * design) + penalty
    return np.linalg.solve(normal, design.T @ (weight * probability)), weight


def slow_r2(solution, visible, probability, weight):
    predicted = np.column_stack([visible, np.ones(len(visible))]) @ solution
    mean = np.sum(weight * probability) / np.sum(weight)
    return 1 - np.sum(weight * (probability - predicted) ** 2) / np.sum(weight * (probability - mean) ** 2)


def test_fit_and_agreement_equal_normal_equations_and_scipy():
    rng = np.random.default_rng(2)
    visible = [rng.integers(0, 2, (25, 6)).astype(bool) for _ in range(3)]
    for rows in visible:
        rows[0] = True
    truth = np.array([0.3, -0.1, 0.0, 0.2, 0.05, 0.1])
    probability = [rows @ truth + 0.1 * rng.standard_normal(25) for rows in visible]
    fits = [slow_ridge(*each) for each in zip(visible, probability)]
    found = sanity_checks._agreement(visible, probability)
    own = [slow_r2(s, v, p, w) for (s, w), v, p in zip(fits, visible, probability)]
    fresh = [slow_r2(fits[i][0], visible[j], probability[j], fits[j][1]) for i, j in ((0, 1), (1, 2), (2, 0))]
    weights = [solution[:-1] for solution, _ in fits]
    pairs = [scipy.stats.spearmanr(weights[i], weights[j]).statistic for i, j in ((0, 1), (0, 2), (1, 2))]
    assert found["r2"] == pytest.approx(np.mean(own), abs=1e-10)
    assert found["r2_fresh"] == pytest.approx(np.mean(fresh), abs=1e-10) and found["r2_fresh"] < found["r2"]
    assert found["spearman"] == pytest.approx(np.mean(pairs), abs=1e-10)
    assert found["spearman_low"] == pytest.approx(min(pairs), abs=1e-10)


def test_the_fitted_weights_are_the_engines():
    clip = neighbourhoods.prepare(DB[0], 30, 7)
    probability = np.random.default_rng(0).random(30)
    expected = slow_ridge(clip.visible, probability)[0][:-1]
    np.testing.assert_allclose(neighbourhoods.regress(clip, probability), expected, atol=1e-10)


def test_a_probability_that_does_not_move_has_no_fit():
    visible = [np.random.default_rng(i).integers(0, 2, (9, 4)).astype(bool) for i in range(2)]
    found = sanity_checks._agreement(visible, [np.full(9, 0.5)] * 2)
    assert all(np.isnan(value) for value in found.values())


def test_lime_stability_of_a_condition(condition):
    few, model = condition.first(1), condition.classifier.model
    found, db = sanity_checks.lime_stability(few, n_seeds=2), few.spectrograms
    clip = neighbourhoods.prepare(db[0], condition.study.settings.sizes.lime_samples, 12345)
    target = torch.tensor(found["target"].tolist())
    again = METHODS["lime"](model, db, target, n_samples=30, seed=12345)
    assert found["n_superpixels"][0] == clip.segments.max() + 1 and found["n_seeds"][0] == 2
    assert found["target"][0] == int(model(db).argmax())
    drawn = [sanity_checks.redrawn(clip, seed) for seed in (12345, 12346)]
    p = [neighbourhoods.classify(model, each, int(found["target"][0]), db, 8) for each in drawn]
    fits = [slow_ridge(each.visible, values) for each, values in zip(drawn, p)]
    np.testing.assert_allclose(again[0, 0].numpy(), fits[0][0][:-1][clip.segments], atol=1e-8)
    own = [slow_r2(s, each.visible, values, w) for (s, w), each, values in zip(fits, drawn, p)]
    assert found["r2"][0] == pytest.approx(np.mean(own), abs=1e-5)
    with pytest.raises(ValueError, match="n_seeds must be 2 or more.*got 1"):
        sanity_checks.lime_stability(few, n_seeds=1)


# Gradient and additivity


def test_the_gradient_of_a_condition_is_right_and_the_usual_layout_s_is_not(condition):
    found = sanity_checks.gradient(condition).set_index("layout")
    assert (
        found.loc["affine bn0", "cosine"] == pytest.approx(1)
        and found.loc["affine bn0", "relative_error"] < 1e-4
    )
    assert abs(found.loc["usual bn0", "cosine"]) < 0.5 and np.isnan(found.loc["usual bn0", "relative_error"])
    assert (found["n_clips"] == 2).all()


def test_stored_attributions_are_measured(condition, monkeypatch):
    """A stored Deep SHAP that is shifted no longer adds up; the functional one never did."""
    n = len(condition.clips)
    computed = sanity_checks.additivity(condition).groupby("method")["additivity_error"]
    assert computed.median()["shap"] < 1e-4 and list(computed.size()) == [n] * 2
    model, db, label = condition.classifier.model, condition.spectrograms, condition.targets
    with torch.no_grad():
        rise = (model(db) - model(condition.background()).mean(0)).gather(1, label[:, None])[:, 0]
    values = condition.attributions("shap_functional").sum(dim=(1, 2, 3))
    expected = ((values - rise) / rise).abs().numpy()
    assert computed.median()["shap_functional"] == pytest.approx(np.median(expected), rel=1e-6)
    monkeypatch.setattr(type(condition), "attributions", lambda *_: torch.ones(n, 1, 64, 501))
    stored = sanity_checks.additivity(condition, ("shap",))
    assert stored["additivity_error"].median() > 1


def test_the_summary_reads_the_tables_and_the_sentence_the_summary(condition):
    study = condition.study
    study.save("gradient_check", sanity_checks.gradient(condition))
    errors = {"method": ["shap", "shap_functional"], "clip": "c", "additivity_error": [1e-7, 0.5]}
    study.save("additivity", pd.DataFrame(errors))
    study.save("lime_stability", pd.DataFrame({"r2": [0.75], "r2_fresh": [0.25], "spearman": [0.5]}))
    stages = [
        {"method": method, "stage": stage, "kind": "absolute", "spearman": value}
        for method, value in (("lime", 0.25), ("shap", np.nan))
        for stage in ("none", "bn0")
    ]
    study.save("randomisation", pd.DataFrame(stages))
    ranks = {
        "protocol": "paper",
        "spectrogram_type": "mel_db",
        "noise_scenario": "clean",
        "metric": "FF",
        "rank": 1,
    }
    study.save("rank_stability", pd.DataFrame([{**ranks, "share": 0.875}, {**ranks, "share": 0.125}]))
    table = sanity_checks.summary(study)
    values = table.set_index("check")["value"]
    assert values["SHAP adds up"] == 1e-7 and values["LIME's fit on fresh neighbours"] == 0.25
    assert values["LIME on a model drawn anew"] == 0.25 and np.isnan(values["SHAP on a model drawn anew"])
    assert values["the same winner with other clips"] == 0.875
    text = sanity_checks.sentence(table)
    assert (
        "75 % of the model's answer" in text
        and "drawn anew LIME stays nearest" in text
        and "wins 88 %" in text
    )


def test_the_sentence_leaves_out_what_was_not_checked():
    lime = [(name, "", 0.5, 2) for name in sanity_checks.LIME_CHECKS]
    for gradient, begin in (
        (1e-8, "The input gradient differs"),
        (float("nan"), "The model shows no gradient."),
    ):
        rows = [("gradient", "", gradient, 1), *lime, (sanity_checks.SAME_WINNER, "", 1.0, 2)]
        text = sanity_checks.sentence(pd.DataFrame(rows, columns=["check", "measure", "value", "n"]))
        assert text.startswith(begin) and "Deep SHAP" not in text and "nan" not in text

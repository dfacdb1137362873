"""Trust checks against slow computations by hand and against what must hold."""

import copy

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from torch import nn

from audioxai_utils.audit import sanity_checks
from audioxai_utils.figures import sanity_checks
from audioxai_utils.study import study
from audioxai_utils.attributions import lime_fast
from audioxai_utils.attributions import METHODS, register
from audioxai_utils.models.cnn14 import Cnn14
from picture_sound import sound_of

DB = 20 * torch.randn(2, 1, 12, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) - 40
TARGET = torch.tensor([1, 0])


@register("blind_to_the_model_test")
def blind(model, db, target):
    """Looks at the clip alone, as an edge detector does."""
    model(db)
    return db - db.mean()


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12 * 16, 30), nn.Linear(30, 3)).double().eval()


# --- rank correlation ------------------------------------------------------------------------


def test_spearman_with_ties_is_scipys():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(0, 6, (2, 5, 4)), rng.integers(0, 9, (2, 5, 4))
        expected = scipy.stats.spearmanr(a.ravel(), b.ravel()).statistic
        assert sanity_checks.spearman(a, b) == pytest.approx(expected, abs=1e-12)


def test_a_constant_map_has_no_correlation_even_when_rounded():
    rounded = np.float32(0.1) + np.arange(8) * np.float64(1e-9)
    assert np.isnan(sanity_checks.spearman(np.arange(8), np.full(8, 3.0)))
    assert np.isnan(sanity_checks.spearman(np.arange(8), rounded))
    assert np.isnan(sanity_checks.spearman(np.zeros(8), np.arange(8)))


# --- LIME ------------------------------------------------------------------------------------


def test_neighbours_of_a_seed_are_limes_own():
    first, second = (lime_fast.prepare(DB[0], 20, seed) for seed in (5, 6))
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
    clip = lime_fast.prepare(DB[0], 30, 7)
    probability = np.random.default_rng(0).random(30)
    expected = slow_ridge(clip.visible, probability)[0][:-1]
    np.testing.assert_allclose(lime_fast.regress(clip, probability), expected, atol=1e-10)


def test_a_probability_that_does_not_move_has_no_fit():
    visible = [np.random.default_rng(i).integers(0, 2, (9, 4)).astype(bool) for i in range(2)]
    found = sanity_checks._agreement(visible, [np.full(9, 0.5)] * 2)
    assert all(np.isnan(value) for value in found.values())


def test_lime_stability_of_a_condition(condition):
    settings, classifier = condition
    clips = study.first_clips(study.explained_clips(settings, 32000, "clean"), 1)
    found = sanity_checks.lime_stability(settings, classifier, clips, n_seeds=2)
    db = study.spectrograms_of(classifier, clips)
    clip = lime_fast.prepare(db[0], settings.sizes.lime_samples, 12345)
    target = torch.tensor(found["target"].tolist())
    again = METHODS["lime"](classifier.model, db, target, n_samples=30, seed=12345)
    assert found["n_superpixels"][0] == clip.segments.max() + 1 and found["n_seeds"][0] == 2
    assert found["target"][0] == int(classifier.model(db).argmax())
    drawn = [sanity_checks.redrawn(clip, seed) for seed in (12345, 12346)]
    p = [lime_fast.classify(classifier.model, each, int(found["target"][0]), db, 8) for each in drawn]
    fits = [slow_ridge(each.visible, values) for each, values in zip(drawn, p)]
    np.testing.assert_allclose(again[0, 0].numpy(), fits[0][0][:-1][clip.segments], atol=1e-8)
    own = [slow_r2(s, each.visible, values, w) for (s, w), each, values in zip(fits, drawn, p)]
    assert found["r2"][0] == pytest.approx(np.mean(own), abs=1e-5)
    with pytest.raises(ValueError, match="n_seeds must be 2 or more.*got 1"):
        sanity_checks.lime_stability(settings, classifier, clips, n_seeds=1)


# --- model randomisation -----------------------------------------------------------------------


def test_the_model_as_it_is_gives_one_and_stays_as_it_is():
    model = linear()
    before, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    found = sanity_checks.model_randomisation(model, DB, TARGET, "saliency")
    same = found[found["stage"] == "none"]
    assert len(same) == 4 and np.allclose(same[["spearman", "ssim"]], 1, atol=1e-12)
    assert list(dict.fromkeys(found["stage"])) == ["none", "2", "1"]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_method_that_ignores_the_model_stays_at_one():
    found = sanity_checks.model_randomisation(linear(), DB, TARGET, "blind_to_the_model_test")
    assert np.allclose(found[["spearman", "ssim"]], 1, atol=1e-12)


@pytest.mark.parametrize("method", [name for name in METHODS if "waveform" in METHODS.options(name)])
def test_a_method_that_wants_the_sound_is_given_each_clips(method):
    options = {"n_steps": 4, **sound_of(DB)}
    found = sanity_checks.model_randomisation(linear(), DB, TARGET, method, options).query("stage == 'none'")
    assert len(found) == 4 and np.allclose(found[["spearman", "ssim"]].dropna(), 1, atol=1e-9)


def test_saliency_of_a_randomised_linear_model_is_unrelated():
    found = sanity_checks.model_randomisation(linear(), DB, TARGET, "saliency").query("stage == '1'")
    assert (found["spearman"].abs() < 0.35).all() and (found["ssim"] < 0.5).all()  # 4.8 sigma


def test_stages_add_up_from_the_top_and_repeat():
    model = linear()
    after = {stage: copy.deepcopy(each.state_dict()) for stage, each in
             zip(("none", "2", "1"), sanity_checks._randomised(model, ["none", "2", "1"], 3))}
    own = model.state_dict()
    assert torch.equal(after["none"]["2.weight"], own["2.weight"])
    assert torch.equal(after["2"]["1.weight"], own["1.weight"])
    assert not torch.equal(after["2"]["2.weight"], own["2.weight"])
    assert torch.equal(after["1"]["2.weight"], after["2"]["2.weight"])
    assert not torch.equal(after["1"]["1.weight"], own["1.weight"])
    first, second = (sanity_checks.model_randomisation(model, DB, TARGET, "saliency", seed=3) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)


def test_values_are_scipys_and_skimages_of_the_scaled_maps():
    from skimage.metrics import structural_similarity

    model = linear()
    changed = list(sanity_checks._randomised(model, ["none", "2"], 0))[1]
    found = sanity_checks.model_randomisation(model, DB, TARGET, "saliency").set_index(["stage", "clip", "kind"])
    for clip in range(2):
        maps = [METHODS["saliency"](each, DB, TARGET)[clip, 0].numpy() for each in (model, changed)]
        for kind, of, extent in (("signed", np.array, 2), ("absolute", np.abs, 1)):
            a, b = (of(values) / np.abs(values).max() for values in maps)
            row = found.loc[("2", clip, kind)]
            expected = scipy.stats.spearmanr(a.ravel(), b.ravel()).statistic
            assert row["spearman"] == pytest.approx(expected, abs=1e-12)
            assert row["ssim"] == pytest.approx(structural_similarity(a, b, data_range=extent), abs=1e-12)


def test_all_layers_of_cnn14_from_head_to_bn0():
    model = Cnn14(64, 3, 1 / 32).eval()
    assert sanity_checks._stages(model) == ["head", "fc1", *(f"conv_block{i}" for i in range(6, 0, -1)), "bn0"]
    model.bn0.running_mean.fill_(-50)
    last = list(sanity_checks._randomised(model, ["none", *sanity_checks._stages(model)], 0))[-1]
    weights = {name: p for name, p in last.named_parameters() if p.ndim > 1}
    equal = [name for name, p in weights.items() if torch.equal(p, model.get_parameter(name))]
    assert equal == [] and not last.bn0.running_mean.any()


def test_prepared_lime_is_lime():
    model = linear()
    explain = sanity_checks._explainer(DB, TARGET, "lime", {"n_samples": 25, "seed": 4})
    expected = METHODS["lime"](model, DB, TARGET, n_samples=25, seed=4)[:, 0]
    np.testing.assert_allclose(explain(model), expected.numpy(), atol=1e-12)


def test_a_constant_attribution_is_nan_and_bad_models_are_named():
    model = linear()
    with torch.no_grad():
        model[1].weight.zero_()  # no gradient anywhere
    found = sanity_checks.model_randomisation(model, DB, TARGET, "saliency")
    assert found[["spearman", "ssim"]].isna().all(axis=None)
    with pytest.raises(ValueError, match="child modules"):
        sanity_checks.model_randomisation(nn.Linear(2, 2), DB, TARGET, "saliency")
    bare = nn.Sequential(nn.Flatten(), nn.Linear(12 * 16, 3)).double()
    bare.add_module("scale", nn.Module())
    bare.scale.register_parameter("factor", nn.Parameter(torch.ones(1)))
    with pytest.raises(ValueError, match=r"scale \(Module\) has no reset_parameters"):
        sanity_checks.model_randomisation(bare, DB, TARGET, "saliency")
    with pytest.raises(ValueError, match="at least 7 bins"):
        sanity_checks.model_randomisation(model, DB[:, :, :4], TARGET, "saliency")


# --- figures: the data behind them ---------------------------------------------------------------


def test_figures_draw_what_the_tables_hold():
    table = sanity_checks.model_randomisation(linear(), DB, TARGET, "saliency")
    ax = sanity_checks.randomisation(table).axes[0]
    means = table.query("kind == 'absolute'").groupby("stage", sort=False)["spearman"].mean()
    np.testing.assert_allclose(ax.get_lines()[1].get_ydata(), means)
    shares = [{"protocol": "audited", "metric": "FF", "method": m, "rank": r, "share": s}
              for m, r, s in (("saliency", 1, 0.7), ("saliency", 2, 0.3), ("lime", 1, 0.3), ("lime", 2, 0.7))]
    bars = sanity_checks.rank_stability(pd.DataFrame(shares), ("FF",)).axes[0].patches
    assert [round(bar.get_width()) for bar in bars] == [70, 30, 30, 70]
    assert bars[2].get_x() == pytest.approx(70)

"""Layers drawn anew, on small models of which it is known what must change and what must stay."""

import copy

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from picture_sound import sound_of
from torch import nn

from audioxai_utils.attributions import METHODS
from audioxai_utils.audit import randomisation
from audioxai_utils.figures import sanity_checks as figures
from audioxai_utils.models.cnn14 import Cnn14

DB = 20 * torch.randn(2, 1, 12, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) - 40
TARGET = torch.tensor([1, 0])


def blind(model, db, target):
    """Looks at the clip alone, as an edge detector does."""
    model(db)
    return db - db.mean()


def refuses(model, db, target, *, known):
    """Refuses the first clip where the layer is another one, as Deep SHAP refuses what does not add up."""
    if not torch.equal(model[1].weight, known) and torch.equal(db, DB[:1]):
        raise ValueError("not additive on this model")
    return METHODS["saliency"](model, db, target)


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12 * 16, 30), nn.Linear(30, 3)).double().eval()


def test_the_model_as_it_is_gives_one_and_stays_as_it_is():
    model = linear()
    before, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    found = randomisation.model_randomisation(model, DB, TARGET, "saliency")
    same = found[found["stage"] == "none"]
    assert len(same) == 4 and np.allclose(same[["spearman", "ssim"]], 1, atol=1e-12)
    assert list(dict.fromkeys(found["stage"])) == ["none", "2", "1"]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_method_that_ignores_the_model_stays_at_one(own_method):
    own_method("blind", blind)
    found = randomisation.model_randomisation(linear(), DB, TARGET, "blind")
    assert np.allclose(found[["spearman", "ssim"]], 1, atol=1e-12)


WITH_SOUND = [  # those that are trained are tried elsewhere
    name for name in METHODS if "waveform" in METHODS.options(name) and not METHODS.required(name)
]


@pytest.mark.parametrize("method", WITH_SOUND)
def test_a_method_that_wants_the_sound_is_given_each_clips(method):
    few = {"n_steps": 4, "n_samples": 20}
    options = {name: few[name] for name in few if name in METHODS.options(method)} | sound_of(DB)
    found = randomisation.model_randomisation(linear(), DB, TARGET, method, options).query("stage == 'none'")
    assert len(found) == 4 and np.allclose(found[["spearman", "ssim"]].dropna(), 1, atol=1e-9)


def test_saliency_of_a_randomised_linear_model_is_unrelated():
    found = randomisation.model_randomisation(linear(), DB, TARGET, "saliency").query("stage == '1'")
    assert (found["spearman"].abs() < 0.35).all() and (found["ssim"] < 0.5).all()  # 4.8 sigma


def test_stages_add_up_from_the_top_and_repeat():
    model = linear()
    after = {
        stage: copy.deepcopy(each.state_dict())
        for stage, each in zip(("none", "2", "1"), randomisation._randomised(model, ["none", "2", "1"], 3))
    }
    own = model.state_dict()
    assert torch.equal(after["none"]["2.weight"], own["2.weight"])
    assert torch.equal(after["2"]["1.weight"], own["1.weight"])
    assert not torch.equal(after["2"]["2.weight"], own["2.weight"])
    assert torch.equal(after["1"]["2.weight"], after["2"]["2.weight"])
    assert not torch.equal(after["1"]["1.weight"], own["1.weight"])
    first, second = (
        randomisation.model_randomisation(model, DB, TARGET, "saliency", seed=3) for _ in range(2)
    )
    pd.testing.assert_frame_equal(first, second)


def test_values_are_scipys_and_skimages_of_the_scaled_maps():
    from skimage.metrics import structural_similarity

    model = linear()
    changed = list(randomisation._randomised(model, ["none", "2"], 0))[1]
    found = randomisation.model_randomisation(model, DB, TARGET, "saliency").set_index(
        ["stage", "clip", "kind"]
    )
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
    assert randomisation._stages(model) == [
        "head",
        "fc1",
        *(f"conv_block{i}" for i in range(6, 0, -1)),
        "bn0",
    ]
    model.bn0.running_mean.fill_(-50)
    last = list(randomisation._randomised(model, ["none", *randomisation._stages(model)], 0))[-1]
    weights = {name: p for name, p in last.named_parameters() if p.ndim > 1}
    equal = [name for name, p in weights.items() if torch.equal(p, model.get_parameter(name))]
    assert equal == [] and not last.bn0.running_mean.any()


def test_prepared_lime_is_lime():
    model = linear()
    explain = randomisation._explainer(DB, TARGET, "lime", {"n_samples": 25, "seed": 4})
    expected = METHODS["lime"](model, DB, TARGET, n_samples=25, seed=4)[:, 0]
    np.testing.assert_allclose([explain(model, clip) for clip in range(2)], expected.numpy(), atol=1e-12)


def test_a_constant_attribution_is_nan_and_bad_models_are_named():
    model = linear()
    with torch.no_grad():
        model[1].weight.zero_()  # no gradient anywhere
    found = randomisation.model_randomisation(model, DB, TARGET, "saliency")
    assert found[["spearman", "ssim"]].isna().all(axis=None) and set(found["reason"]) == {
        "an attribution is constant"
    }
    with pytest.raises(ValueError, match="child modules"):
        randomisation.model_randomisation(nn.Linear(2, 2), DB, TARGET, "saliency")
    bare = nn.Sequential(nn.Flatten(), nn.Linear(12 * 16, 3)).double()
    bare.add_module("scale", nn.Module())
    bare.scale.register_parameter("factor", nn.Parameter(torch.ones(1)))
    with pytest.raises(ValueError, match=r"scale \(Module\) has no reset_parameters"):
        randomisation.model_randomisation(bare, DB, TARGET, "saliency")
    with pytest.raises(ValueError, match="at least 7 bins"):
        randomisation.model_randomisation(model, DB[:, :, :4], TARGET, "saliency")


def test_a_layer_that_a_method_cannot_explain_is_a_row_with_its_reason(own_method):
    """Deep SHAP on a model drawn anew may refuse it: that clip and stage are NaN, the others stand."""
    own_method("refuses", refuses)
    model = linear()
    found = randomisation.model_randomisation(model, DB, TARGET, "refuses", {"known": model[1].weight})
    refused = found["stage"].eq("1") & found["clip"].eq(0)
    assert refused.sum() == 2 and (found.loc[refused, "reason"] == "not additive on this model").all()
    assert found.loc[refused, ["spearman", "ssim"]].isna().all(axis=None)
    assert (
        found.loc[~refused, ["spearman", "ssim"]].notna().all(axis=None)
        and (found.loc[~refused, "reason"] == "").all()
    )
    other = {"known": model[1].weight + 1}  # refused on the model as it is: nothing to compare with
    with pytest.raises(ValueError, match="not additive on this model"):
        randomisation.model_randomisation(model, DB, TARGET, "refuses", other)


def test_a_condition_is_randomised_by_its_methods_with_the_study_s_options(condition):
    few = condition.first(1)
    found = randomisation.randomisation(few, ["saliency", "lime"])
    assert list(dict.fromkeys(found["method"])) == ["saliency", "lime"]
    options = few.method_options("lime")
    alone = randomisation.model_randomisation(
        few.classifier.model, few.spectrograms, few.targets, "lime", options
    )
    pd.testing.assert_frame_equal(found[found["method"] == "lime"].reset_index(drop=True), alone)


# Figures: the data behind them


def test_figures_draw_what_the_tables_hold():
    table = randomisation.model_randomisation(linear(), DB, TARGET, "saliency")
    ax = figures.randomisation(table).axes[0]
    means = table.query("kind == 'absolute'").groupby("stage", sort=False)["spearman"].mean()
    drawn = [line.get_ydata() for line in ax.get_lines() if len(line.get_ydata()) == len(means)]
    np.testing.assert_allclose(drawn[0], means)
    shares = [
        {"protocol": "audited", "metric": "FF", "method": m, "rank": r, "share": s}
        for m, r, s in (("saliency", 1, 0.7), ("saliency", 2, 0.3), ("lime", 1, 0.3), ("lime", 2, 0.7))
    ]
    ax = figures.rank_stability(pd.DataFrame(shares), ("FF",)).axes[0]
    assert [text.get_text() for text in ax.texts] == ["70%", "30%", "30%", "70%"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["Saliency", "LIME"]


def test_the_layers_of_a_wrapped_model_are_drawn_one_after_another():
    """A wrapper with one child is no stage of its own: drawing it anew would draw everything at once."""
    inner = linear()
    wrapped = nn.ModuleDict({"net": nn.ModuleDict({"network": inner})})
    expected = [f"net.network.{name}" for name in randomisation._stages(inner)]
    assert randomisation._stages(wrapped) == expected and len(expected) > 1

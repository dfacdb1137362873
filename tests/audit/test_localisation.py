"""Truth of attributions against loops, planted cases and SciPy; agreement with faithfulness on numbers."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

import tiny_study
from audioxai_utils.audit import localisation
from audioxai_utils.evaluation import tables
from audioxai_utils.figures import sanity_checks
from audioxai_utils.study import pipeline, study

CONDITION = ("mel_db", "white")


def maps(seed: int):
    generator = torch.Generator().manual_seed(seed)
    attribution = torch.randn(3, 1, 4, 6, generator=generator, dtype=torch.float64)
    powers = [torch.rand(3, 1, 4, 6, generator=generator, dtype=torch.float64) for _ in range(2)]
    return attribution, *powers


def test_measures_against_loops():
    attribution, target, other = maps(0)
    found = localisation.relevance_truth(attribution, target, other)
    for clip in range(3):
        a, s, n = (values[clip, 0].flatten().tolist() for values in (attribution, target, other))
        inside = [x > y for x, y in zip(s, n)]
        positive = [max(x, 0) for x in a]
        top = sorted(range(len(a)), key=lambda i: -a[i])[: sum(inside)]
        assert float(found["mass"][clip]) == pytest.approx(sum(p for p, i in zip(positive, inside) if i) / sum(positive))
        assert float(found["rank"][clip]) == pytest.approx(sum(inside[i] for i in top) / sum(inside))
        to, off = (sum(p * e for p, e in zip(positive, energy)) for energy in (s, n))
        assert float(found["pointing"][clip]) == pytest.approx(to / (to + off))
        assert float(found["area"][clip]) == pytest.approx(sum(inside) / len(inside))
        assert float(found["source_share"][clip]) == pytest.approx(sum(s) / (sum(s) + sum(n)))


def test_identities():
    _, target, other = maps(1)
    ideal = (target > other).double()
    perfect = localisation.relevance_truth(ideal, target, other)
    assert perfect["mass"].tolist() == perfect["rank"].tolist() == [1.0] * 3
    wrong = localisation.relevance_truth(1 - ideal, target, other)
    assert wrong["mass"].tolist() == [0.0] * 3
    everything = localisation.relevance_truth(torch.ones_like(target), target, other)
    torch.testing.assert_close(everything["mass"], everything["area"])
    torch.testing.assert_close(everything["pointing"], everything["source_share"])
    nothing = localisation.relevance_truth(-torch.ones_like(target), target, other)
    assert all(math.isnan(float(value)) for name in ("mass", "rank", "pointing") for value in nothing[name])
    scaled = localisation.relevance_truth(7.0 * maps(1)[0], target, other)
    torch.testing.assert_close(scaled["mass"], localisation.relevance_truth(maps(1)[0], target, other)["mass"])


# --- agreement ----------------------------------------------------------------------------


def both_of(mass: np.ndarray, faithful: np.ndarray, names="abcd") -> pd.DataFrame:
    """Rows of clips x methods with given values; the other measures follow them."""
    rows = []
    for clip in range(len(mass)):
        for i, name in enumerate(names):
            rows.append({
                "spectrogram_type": "mel_db", "noise_scenario": "white", "method": name, "mask": "bin", "clip": f"c{clip}",
                "mass": mass[clip, i], "rank": mass[clip, i], "pointing": -mass[clip, i], "si_sdr_gain": mass[clip, i] ** 2,
                "area": 0.3, "source_share": 0.6, "FidIn_heard": faithful[clip, i], "FF_heard": faithful[clip, i] / 2,
                "AD_heard": -faithful[clip, i],
            })
    return pd.DataFrame(rows)


def test_correlation_is_scipys_of_the_means_and_its_interval_holds_it():
    rng = np.random.default_rng(0)
    mass, faithful = rng.random((12, 4)) + np.arange(4) * 0.3, rng.random((12, 4)) + [0, 2, 1, 3]
    found = localisation.agreement(both_of(mass, faithful)).set_index(["measure", "metric"])
    expected = spearmanr(mass.mean(0), faithful.mean(0)).statistic
    assert found.loc[("mass", "FidIn_heard"), "spearman"] == pytest.approx(expected)
    assert found.loc[("mass", "AD_heard"), "spearman"] == pytest.approx(expected)  # lower is better
    assert found.loc[("pointing", "FF_heard"), "spearman"] == pytest.approx(-expected)
    assert (found["low"] <= found["spearman"] + 1e-12).all() and (found["high"] >= found["spearman"] - 1e-12).all()
    assert found["n_methods"].eq(4).all() and found["n_clips"].eq(12).all()


def test_perfect_agreement_is_one_with_no_width_and_missing_clips_are_left_out():
    order = np.tile(np.arange(4.0), (6, 1))
    both = both_of(order, order)
    row = localisation.agreement(both).set_index(["measure", "metric"]).loc[("mass", "FidIn_heard")]
    assert row[["spearman", "low", "high"]].tolist() == [1.0, 1.0, 1.0]
    both.loc[(both["clip"] == "c0") & (both["method"] == "b"), "mass"] = np.nan
    found = localisation.agreement(both).set_index(["measure", "metric"])["n_clips"]
    assert found[("mass", "FF_heard")] == 5 and found[("si_sdr_gain", "FF_heard")] == 6


def test_two_methods_cannot_be_ranked_and_neither_can_equal_ones():
    assert localisation.agreement(both_of(np.ones((3, 4)), np.ones((3, 4))))["spearman"].isna().all()
    both = both_of(np.ones((3, 2)), np.ones((3, 2)), "ab")
    assert localisation.agreement(both)["spearman"].isna().all()


# --- on files -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def condition(tmp_path_factory):
    settings = tiny_study.make(tmp_path_factory.mktemp("tiny"))
    classifier = study.load_classifier(settings, "mel_db")
    clips = study.explained_clips(settings, 32000, CONDITION[1])
    methods = ["saliency", "gradcam", "guided_gradcam"]
    for method in methods:
        list(pipeline.attribute(settings, classifier, clips, CONDITION, method))
    scores = pd.concat(pipeline.score(settings, classifier, clips, CONDITION, methods, ["audited"]), ignore_index=True)
    return settings, classifier, clips, methods, scores


def test_a_condition_s_truth_is_that_of_its_stored_attributions_and_stems(condition):
    settings, classifier, clips, methods, _ = condition
    found = localisation.condition_truth(settings, classifier, clips, CONDITION, methods)
    assert found.groupby("method").size().to_dict() == dict.fromkeys([*methods, "energy"], len(clips))
    powers = [classifier.spectrogram(stem).power for stem in clips.stems]
    expected = localisation.relevance_truth(pipeline.load_attributions(settings, clips, CONDITION, "gradcam")[0], *powers)
    for name, values in expected.items():
        np.testing.assert_allclose(found.loc[found["method"] == "gradcam", name], values.numpy(), rtol=1e-9)
    with pytest.raises(ValueError, match="must be mixtures of known parts; take a noisy condition"):
        localisation.condition_truth(settings, classifier, dataclasses.replace(clips, stems=None), CONDITION, methods)


def test_sound_is_gained_on_what_is_not_masked(condition):
    scores = condition[-1]
    gains = localisation.si_sdr_gains(scores)
    row = gains.iloc[20]
    whole = scores[(scores["control"] == "all_ones") & (scores["clip"] == row["clip"]) & (scores["protocol"] == "audited")]
    expected = max(row["si_sdr"], -30) - max(float(whole["si_sdr"].iloc[0]), -30)
    assert row["si_sdr_gain"] == pytest.approx(expected) and len(gains) == 3 * 14 * len(condition[2])
    assert localisation.si_sdr_gains(scores.drop(columns="si_sdr")).empty


def test_the_figure_draws_the_means_and_says_the_correlation(condition):
    settings, classifier, clips, methods, scores = condition
    found = localisation.condition_truth(settings, classifier, clips, CONDITION, methods)
    best = tables.best_masks(tables.summarise(scores))
    both = localisation.beside_faithfulness(found, scores, best, CONDITION)
    assert len(both) == 3 * len(clips) and set(both["method"]) == set(methods)
    for method, mask in best[["method", "mask"]].drop_duplicates().itertuples(index=False):
        assert set(both.loc[both["method"] == method, "mask"]) <= {mask}
    means, correlations = localisation.means(both), localisation.agreement(both)
    figure = sanity_checks.truth_against_faithfulness(means, correlations)
    assert len(figure.axes) == 6
    first = figure.axes[0].containers[0].lines[0]
    row = means[means["method"] == methods[0]]
    assert first.get_xdata()[0] == pytest.approx(row["mass"].item()) and first.get_ydata()[0] == pytest.approx(row["FidIn_heard"].item())
    rho = correlations.set_index(["measure", "metric"]).loc[("mass", "FidIn_heard"), "spearman"]
    assert figure.axes[0].get_title().startswith(f"ρ = {rho:.2f}")
    with pytest.raises(ValueError, match="they share none"):
        localisation.beside_faithfulness(found.assign(method="x"), scores, best, CONDITION)

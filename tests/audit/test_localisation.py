"""Localisation against loops, planted cases and SciPy; agreement with faithfulness on numbers."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pandas as pd
import pytest
import tiny_study
import torch
from scipy.stats import spearmanr

from audioxai_utils.audit import localisation
from audioxai_utils.evaluation import tables
from audioxai_utils.evaluation.frames import CONDITION
from audioxai_utils.figures import localisation as figures
from audioxai_utils.words import rho_words


def maps(seed: int):
    generator = torch.Generator().manual_seed(seed)
    attribution = torch.randn(3, 1, 4, 6, generator=generator, dtype=torch.float64)
    powers = [torch.rand(3, 1, 4, 6, generator=generator, dtype=torch.float64) for _ in range(2)]
    return attribution, *powers


def test_measures_against_loops():
    attribution, target, other = maps(0)
    found = localisation.relevance_localisation(attribution, target, other)
    for clip in range(3):
        a, s, n = (values[clip, 0].flatten().tolist() for values in (attribution, target, other))
        inside = [x > y for x, y in zip(s, n)]
        positive = [max(x, 0) for x in a]
        top = sorted(range(len(a)), key=lambda i: -a[i])[: sum(inside)]
        assert float(found["mass"][clip]) == pytest.approx(
            sum(p for p, i in zip(positive, inside) if i) / sum(positive)
        )
        assert float(found["rank"][clip]) == pytest.approx(sum(inside[i] for i in top) / sum(inside))
        to, off = (sum(p * e for p, e in zip(positive, energy)) for energy in (s, n))
        assert float(found["pointing"][clip]) == pytest.approx(to / (to + off))
        assert float(found["area"][clip]) == pytest.approx(sum(inside) / len(inside))
        assert float(found["source_share"][clip]) == pytest.approx(sum(s) / (sum(s) + sum(n)))


def test_bins_that_share_the_last_rank_count_in_the_mean_over_their_orders():
    ideal = torch.tensor([True, False, True, False, True, False])
    values = torch.tensor([3.0, 3.0, 3.0, 9.0, 1.0, 0.5])  # the third of K = 3 places is one of three bins'
    power = torch.where(ideal, 1.0, 0.0).double()[None, None, None]
    found = localisation.relevance_localisation(values.double()[None, None, None], power, 0.5 + 0 * power)
    means = []
    for order in itertools.permutations(range(6)):
        top = sorted(order, key=lambda i: -values[i])[:3]  # a stable sort: equal ones stay in this order
        means.append(ideal[top].double().mean())
    assert float(found["rank"]) == pytest.approx(float(torch.stack(means).mean()))
    assert float(found["rank"]) == pytest.approx(2 * 2 / 3 / 3)
    with pytest.raises(ValueError, match="finite"):
        localisation.relevance_localisation(torch.full_like(power, float("nan")), power, power)


def test_identities():
    _, target, other = maps(1)
    ideal = (target > other).double()
    perfect = localisation.relevance_localisation(ideal, target, other)
    assert perfect["mass"].tolist() == perfect["rank"].tolist() == [1.0] * 3
    wrong = localisation.relevance_localisation(1 - ideal, target, other)
    assert wrong["mass"].tolist() == [0.0] * 3
    everything = localisation.relevance_localisation(torch.ones_like(target), target, other)
    torch.testing.assert_close(everything["mass"], everything["area"])
    torch.testing.assert_close(everything["pointing"], everything["source_share"])
    torch.testing.assert_close(everything["rank"], everything["area"])  # among equal bins none comes first
    nothing = localisation.relevance_localisation(-torch.ones_like(target), target, other)
    assert all(math.isnan(float(value)) for name in ("mass", "rank", "pointing") for value in nothing[name])
    scaled = localisation.relevance_localisation(7.0 * maps(1)[0], target, other)
    torch.testing.assert_close(
        scaled["mass"], localisation.relevance_localisation(maps(1)[0], target, other)["mass"]
    )


# Agreement


def both_of(mass: np.ndarray, faithful: np.ndarray, names="abcd") -> pd.DataFrame:
    """Rows of clips x methods with given values; the other measures follow them."""
    rows = []
    for clip in range(len(mass)):
        for i, name in enumerate(names):
            rows.append(
                {
                    "spectrogram_type": "mel_db",
                    "noise_scenario": "white",
                    "method": name,
                    "mask": "bin",
                    "clip": f"c{clip}",
                    "mass": mass[clip, i],
                    "rank": mass[clip, i],
                    "pointing": -mass[clip, i],
                    "si_sdr_gain": mass[clip, i] ** 2,
                    "area": 0.3,
                    "source_share": 0.6,
                    "FidIn_heard": faithful[clip, i],
                    "FF_heard": faithful[clip, i] / 2,
                    "AD_heard": -faithful[clip, i],
                }
            )
    return pd.DataFrame(rows)


def test_correlation_is_scipys_of_the_means_and_its_interval_holds_it():
    rng = np.random.default_rng(0)
    mass, faithful = rng.random((12, 4)) + np.arange(4) * 0.3, rng.random((12, 4)) + [0, 2, 1, 3]
    found = localisation.agreement(both_of(mass, faithful)).set_index(["measure", "metric"])
    expected = spearmanr(mass.mean(0), faithful.mean(0)).statistic
    assert found.loc[("mass", "FidIn_heard"), "spearman"] == pytest.approx(expected)
    assert found.loc[("mass", "AD_heard"), "spearman"] == pytest.approx(expected)  # lower is better
    assert found.loc[("pointing", "FF_heard"), "spearman"] == pytest.approx(-expected)
    assert (found["low"] <= found["spearman"] + 1e-12).all() and (
        found["high"] >= found["spearman"] - 1e-12
    ).all()
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


# On files


METHODS = ["saliency", "gradcam", "guided_gradcam"]


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """(the white mel condition, its scores, its localisation)"""
    study = tiny_study.make(tmp_path_factory.mktemp("tiny"))
    study.settings = dataclasses.replace(
        study.settings, methods=tuple(METHODS), protocol="audited", scenarios=("white",)
    )
    condition = study.condition("mel_db", "white")
    for method in METHODS:
        condition.attribute(method)
    return condition, condition.score_all(), localisation.localisation(condition)


def test_a_condition_is_localised_by_its_stored_attributions_and_stems(scored):
    condition, _, found = scored
    clips = condition.clips
    assert found.groupby("method").size().to_dict() == dict.fromkeys([*METHODS, "energy"], len(clips))
    assert found.columns.tolist() == localisation.COLUMNS
    powers = [condition.spectrogram(stem).power for stem in clips.stems]
    expected = localisation.relevance_localisation(condition.attributions("gradcam"), *powers)
    for name, values in expected.items():
        np.testing.assert_allclose(found.loc[found["method"] == "gradcam", name], values.numpy(), rtol=1e-9)
    energy = localisation.relevance_localisation(10 ** (condition.spectrograms / 10), *powers)
    np.testing.assert_allclose(
        found.loc[found["method"] == "energy", "mass"], energy["mass"].numpy(), rtol=1e-9
    )
    with pytest.raises(
        ValueError, match="clips of mel, white noise must be mixtures of known parts; take a noisy"
    ):
        localisation.localisation(condition.of(dataclasses.replace(clips, stems=None)))


def test_only_conditions_of_known_parts_are_localised(scored):
    study = scored[0].study
    pd.testing.assert_frame_equal(localisation.localisations(study), scored[2])
    clean = type(study)(dataclasses.replace(study.settings, scenarios=("clean",)))
    empty = localisation.localisations(clean)  # recordings: nobody knows their parts
    assert empty.empty and localisation.conditions_of_known_parts(clean) == []
    best = tables.best_masks(tables.summarise(scored[1]))
    agreed = localisation.agreement(localisation.beside_faithfulness(empty, scored[1], best))
    assert agreed.empty and localisation.summary(empty, agreed).startswith("No clip")


def test_sound_is_gained_on_what_is_not_masked(scored):
    condition, scores, _ = scored
    gains = localisation.si_sdr_gains(scores)
    row = gains.iloc[20]
    whole = scores[
        (scores["control"] == "all_ones")
        & (scores["clip"] == row["clip"])
        & (scores["protocol"] == "audited")
    ]
    expected = max(row["si_sdr"], -30) - max(float(whole["si_sdr"].iloc[0]), -30)
    assert row["si_sdr_gain"] == pytest.approx(expected) and len(gains) == 3 * 14 * len(condition.clips)
    assert localisation.si_sdr_gains(scores.drop(columns="si_sdr")).empty


def test_the_figures_draw_the_means_and_say_the_correlation(scored):
    condition, scores, found = scored
    best = tables.best_masks(tables.summarise(scores))
    both = localisation.beside_faithfulness(found, scores, best)
    assert len(both) == 3 * len(condition.clips) and set(both["method"]) == set(METHODS)
    for method, mask in best[["method", "mask"]].drop_duplicates().itertuples(index=False):
        assert set(both.loc[both["method"] == method, "mask"]) <= {mask}
    means, correlations = localisation.means(both), localisation.agreement(both)
    assert set(map(tuple, correlations[CONDITION].to_numpy())) == {condition.pair}
    figure = figures.against_faithfulness(means, correlations)
    assert len(figure.axes) == 6
    first = figure.axes[0].containers[0].lines[0]
    row = means[means["method"] == METHODS[0]]
    assert first.get_xdata()[0] == pytest.approx(row["mass"].item())
    assert first.get_ydata()[0] == pytest.approx(row["FidIn_heard"].item())
    rho = correlations.set_index(["measure", "metric"]).loc[("mass", "FidIn_heard"), "spearman"]
    assert figure.axes[0].get_title().startswith(f"ρ = {rho:.2f}")
    with pytest.raises(ValueError, match="they share none"):
        localisation.beside_faithfulness(found.assign(method="x"), scores, best)


def test_the_points_and_the_summary_are_of_the_localisation(scored):
    _, scores, found = scored
    axes = figures.localisation(found).axes
    assert [ax.get_title() for ax in axes] == ["mass", "rank", "pointing"] and axes[
        0
    ].get_ylabel() == "mel, white noise"
    assert [text.get_text() for text in axes[0].get_yticklabels()][-1] == "Energy"
    chance = [line for line in axes[2].get_lines() if line.get_linestyle() == "--"]
    assert chance[0].get_xdata()[0] == pytest.approx(found["source_share"].mean())
    best = tables.best_masks(tables.summarise(scores))
    text = localisation.summary(
        found, localisation.agreement(localisation.beside_faithfulness(found, scores, best))
    )
    means = found[found["method"] != "energy"].groupby("method")["mass"].mean()
    names = {"saliency": "Saliency", "gradcam": "Grad-CAM", "guided_gradcam": "Guided Grad-CAM"}
    assert (
        text.startswith(f"- mel, white noise: {names[means.idxmax()]} has the largest share")
        and f"({100 * means.max():.0f} %; " in text
    )


def test_a_correlation_with_what_is_constant_is_none():
    """As on few clips whose class every sound keeps; it was a ρ of nan."""
    assert rho_words(0.801) == "ρ = 0.80" and rho_words(-1.0) == "ρ = -1.00"
    assert rho_words(float("nan")) == "no ρ (one of the two is constant)"


def test_a_silent_kept_sound_gains_the_least():
    rows = [
        {"protocol": "audited", "spectrogram_type": "mel_db", "noise_scenario": "white", "clip": f"c{i}"}
        | {"method": method, "mask": "", "control": control, "si_sdr": value}
        for method, control, values in (("", "all_ones", [0.0, 1.0]), ("lime", "", [7.0, np.nan]))
        for i, value in enumerate(values)
    ]
    gains = localisation.si_sdr_gains(pd.DataFrame(rows))
    assert gains["si_sdr_gain"].tolist() == [7, localisation.LEAST_SI_SDR - 1]

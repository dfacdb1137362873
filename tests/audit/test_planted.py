"""Planted causes against loops, scikit-learn and what is true by construction; no file is needed."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import planted_bench
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score

from audioxai_utils.audio.spectrograms import get_spectrogram
from audioxai_utils.audit.planted import (
    agreement,
    command,
    measures,
    networks,
    prepare,
    sentences,
    warning,
)
from audioxai_utils.audit.planted.bench import Bench, Sounds
from audioxai_utils.audit.planted.cases import Case, loudness, truth
from audioxai_utils.audit.planted.judge import Effort, joined, judge
from audioxai_utils.audit.planted.plants import PLANTS
from audioxai_utils.evaluation.ranks import rank_correlation
from audioxai_utils.figures import planted as figures
from audioxai_utils.models.frontends import LogMel

FRONT_ENDS = {"mn04": LogMel.efficientat().spectrogram(), "cnn14": get_spectrogram("mel_db")}


@pytest.fixture(scope="module")
def sounds() -> Sounds:
    return planted_bench.sounds()


def case_of(plant: str, kind: str, swapped: bool = False, level: float | None = None) -> Case:
    return Case(plant, kind, plant, swapped, PLANTS[plant].levels[-2] if level is None else level)


# Plants


@pytest.mark.parametrize("plant", PLANTS)
def test_every_stem_adds_up_and_the_decoy_is_as_loud_at_the_input(plant, sounds):
    for kind, spectrogram in FRONT_ENDS.items():
        case = case_of(plant, kind)
        mixed = sounds.mixtures(case, spectrogram)
        torch.testing.assert_close(mixed.whole, mixed.host + mixed.cause + mixed.decoy)
        torch.testing.assert_close(mixed.whole - mixed.cause, mixed.without_cause, atol=1e-6, rtol=0)
        if PLANTS[plant].absent:  # what is left of the band, as deep for both
            inside = torch.fft.rfft(mixed.whole)[:, 32000:35000].abs()
            before = torch.fft.rfft(mixed.host)[:, 32000:35000].abs()  # 6.4 to 7 kHz
            torch.testing.assert_close(inside, before * 10 ** (case.level_db / 20), atol=1e-3, rtol=1e-3)
            continue
        host = loudness(mixed.host, spectrogram)
        for stem in (mixed.cause, mixed.decoy):
            # what the front end adds to silence is not taken for sound, up to rounding
            assert (loudness(stem, spectrogram) - host - case.level_db).abs().max() < 0.1


@pytest.mark.parametrize("plant", PLANTS)
def test_roles_can_be_swapped_and_a_clip_does_not_hang_on_its_batch(plant, sounds):
    spectrogram = FRONT_ENDS["mn04"]
    plain, swapped = (sounds.mixtures(case_of(plant, "mn04", flag), spectrogram) for flag in (False, True))
    torch.testing.assert_close(plain.cause, swapped.decoy, atol=0, rtol=0)
    torch.testing.assert_close(plain.whole, swapped.whole, atol=1e-6, rtol=0)
    alone = sounds.mixtures(case_of(plant, "mn04"), spectrogram, [1])
    torch.testing.assert_close(alone.cause, plain.cause[1:2], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("plant", PLANTS)
def test_the_truth_is_what_the_plant_changed(plant, sounds):
    case, spectrogram = case_of(plant, "mn04"), FRONT_ENDS["mn04"]
    mixed, sign = sounds.mixtures(case, spectrogram), -1 if PLANTS[plant].absent else 1
    known = truth(mixed, spectrogram, PLANTS[plant].absent)
    change = sign * (spectrogram(mixed.whole).db - spectrogram(mixed.host + mixed.decoy).db)
    assert torch.equal(known.cause, change > 3)
    assert not (known.cause & known.decoy).any() and known.cause.any() and known.decoy.any()
    nothing = truth(type(mixed)(mixed.host, 0 * mixed.cause, mixed.decoy), spectrogram)
    assert not nothing.cause.any()


# Proof


def test_a_plant_is_proved_for_a_model_that_hears_it_and_for_no_other(sounds):
    spectrogram = FRONT_ENDS["cnn14"]
    case = case_of("tone", "cnn14", level=0.0)
    mixed = sounds.mixtures(case, spectrogram)
    known = truth(mixed, spectrogram)
    row = int(known.change.mean((0, 1, 3)).argmax())
    means = [db[:, 0, row].mean(1) for db in (known.db, known.without_cause)]
    level = float((means[0].min() + means[1].max()) / 2)
    assert means[1].max() < level < means[0].min()
    hears, deaf = (
        networks.understood(planted_bench.Listens(slice(row, row + 1), at), "cnn14", ("no", "yes"))
        for at in (level, None)
    )
    proved = prepare.prove(case, hears, mixed)
    assert (proved.turned, proved.false_alarms, proved.undone, proved.kept) == (1, 0, 1, 1)
    assert proved.counts and proved.clips == (0, 1, 2)
    assert not proved.proved(kept=0.4).counts  # what the decoy is needed for is no proof of the plant
    found = prepare.prove(case, deaf, mixed)
    assert found.turned == 0 and not found.clips and not found.counts


# Measures


def a_map(seed: int, ties: bool):
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((6, 8))
    scores = np.round(scores) if ties else scores
    return torch.from_numpy(scores), torch.from_numpy(rng.random((6, 8)) < 0.3)


@pytest.mark.parametrize("ties", [False, True])
def test_order_against_scikit_learn_and_lots(ties):
    scores, hits = a_map(1, ties)
    order = measures.Order(scores.flatten(), hits.flatten())
    y, s = hits.flatten().numpy(), scores.flatten().numpy()
    assert order.auc() == pytest.approx(roc_auc_score(y, s))
    assert order.average_precision() == pytest.approx(average_precision_score(y, s))
    rng, precisions, pointed = np.random.default_rng(0), [], []
    for _ in range(4000):  # equal scores in an order by lot
        ranked = y[np.lexsort((rng.random(len(s)), -s))]
        precisions.append(ranked[: y.sum()].mean())
        pointed.append(ranked[0])
    assert order.precision() == pytest.approx(np.mean(precisions), abs=0.01)
    assert order.pointing() == pytest.approx(np.mean(pointed), abs=0.03)


def localised(attribution, cause, decoy) -> dict[str, float]:
    """Measures of one map, and that none of them hangs on the maps beside it."""
    found = measures.localised(attribution[None], cause, decoy)
    beside = measures.localised(torch.stack([attribution.flip(0), attribution]), cause, decoy)
    for name, values in found.items():
        assert float(beside[name][1]) == pytest.approx(float(values), nan_ok=True), name
    return {name: float(values) for name, values in found.items()}


def test_an_oracle_scores_one_a_random_map_chance_an_inverted_one_below():
    generator = torch.Generator().manual_seed(0)
    cause = torch.zeros(64, 100, dtype=torch.bool)
    decoy = cause.clone()
    cause[10:14, 20:60], decoy[40:44, 20:60] = True, True
    oracle = localised(cause.double(), cause, decoy)
    for name in ("auc", "average_precision", "precision", "pointing", "mass", "auc_decoy"):
        assert oracle[name] == 1, name
    assert oracle["auc_time"] == oracle["auc_frequency"] == 1
    assert oracle["decoy_ratio"] == pytest.approx(1 / (1e-3 * float(cause.double().mean())))
    share = float(cause.double().mean())
    many = pd.DataFrame(
        measures.localised(torch.rand(200, 64, 100, generator=generator), cause, decoy)
    ).mean()
    for name, chance in (("auc", 0.5), ("auc_decoy", 0.5), ("precision", share), ("mass", share)):
        assert many[name] == pytest.approx(chance, abs=0.02), name
    assert many["decoy_ratio"] == pytest.approx(1, abs=0.05)
    inverted = localised(-cause.double(), cause, decoy)
    assert inverted["auc"] == inverted["precision"] == inverted["auc_decoy"] == 0
    assert math.isnan(inverted["mass"]) and math.isnan(inverted["decoy_ratio"])


def test_marginals():
    cause = torch.zeros(8, 10, dtype=torch.bool)
    cause[2] = True  # a tone: all along time, so that only frequency can be judged
    found = localised(cause.double(), cause, ~cause)
    assert math.isnan(found["auc_time"]) and found["auc_frequency"] == 1


# Which metric tells the truth


def a_benchmark(sign: float, n_cases: int = 6) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Points of four methods and scores whose FF is their truth times ``sign``; AD is noise."""
    rng, points, scores = np.random.default_rng(0), [], []
    for case in range(n_cases):
        about = {"classifier": "c", "plant": f"p{case % 3}", "case": f"case{case}", "level_db": 0.0}
        for method in ("a", "b", "c", "d", "random"):
            true = rng.random()
            points.append(
                {**about, "method": method, "clip": 0, "average_precision": true, "similarity": 0.5}
            )
            scores += [
                {
                    **about,
                    "method": method,
                    "mask": mask,
                    "fill": "floor",
                    "FF": sign * true,
                    "AD": rng.random(),
                }
                for mask in ("topK_5", "bin")
            ]
    scores = pd.DataFrame(scores).assign(AI=0.0, AG=0.0, FidIn=1.0, SPS=0.5, COMP=3.0)
    return pd.DataFrame(points), scores.assign(insertion=np.nan, deletion=np.nan)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_metric_that_is_the_truth_has_correlation_one_and_no_regret(sign):
    points, scores = a_benchmark(sign)
    found = agreement.agreement(points, agreement.case_means(points, scores))
    row = found[(found["metric"] == "FF") & (found["mask"] == "topK_5")].iloc[0]
    assert row[["spearman", "spearman_low", "spearman_high"]].tolist() == pytest.approx([sign] * 3)
    known = agreement.truths(points)
    assert "random" not in known.columns and known.shape == (6, 4)
    lost = 0.0 if sign > 0 else (known.max(axis=1) - known.min(axis=1)).mean()
    assert row["regret"] == pytest.approx(lost)
    constant = found[(found["metric"] == "SPS") & (found["mask"] == "bin")].iloc[0]
    assert math.isnan(constant["spearman"]) and constant["n_cases"] == 0  # it ranks none
    by_lot = (known.max(axis=1) - known.mean(axis=1)).mean()
    assert constant["regret"] == pytest.approx(by_lot)


def test_correlations_and_their_sign():
    points, scores = a_benchmark(1.0)
    means, known = agreement.case_means(points, scores), agreement.truths(points)
    tables = agreement.rule_tables(means, known)
    found = rank_correlation(tables["AD", "bin", "floor"], known)
    own = scores[(scores["mask"] == "bin") & (scores["method"] != "random")]
    for case, rho in zip(known.index, found):
        ad = own[own["case"] == case].set_index("method")["AD"].reindex(known.columns)
        assert rho == pytest.approx(spearmanr(-ad, known.loc[case]).statistic)  # AD: lower is better


def test_choosing_is_decided_on_other_plants():
    points, scores = a_benchmark(1.0)
    found = agreement.held_out(points, agreement.case_means(points, scores))
    regret = found.groupby("way")["regret"].mean()
    assert tuple(found["way"].unique()) == agreement.WAYS
    assert (regret[list(agreement.WAYS[:2])] == 0).all() and regret["by lot"] > 0
    less, low, high = agreement.against_the_study(found)
    assert less == pytest.approx(regret[agreement.STUDY_WAY]) and low <= less <= high
    assert regret["by lot"] > 0 and found["case"].nunique() == 6


def test_ear_and_fills_are_compared_in_the_cases_that_were_heard():
    points, scores = a_benchmark(1.0)
    few = scores[scores["case"].isin(["case0", "case1", "case4"])]
    ear = few.assign(fill="heard", FF=few["FF"].where(few["mask"] == "topK_5", -few["FF"]))
    means = agreement.case_means(points, pd.concat([scores, ear]))
    found = agreement.by_ear(points, means)
    rho = found.set_index(["metric", "mask", "fill"])["spearman"]
    assert (found.loc[found["metric"].isin(["FF", "AD"]), "n_cases"] == 3).all()
    assert rho["FF", "topK_5", "heard"] == rho["FF", "topK_5", "floor"] == rho["FF", "bin", "floor"] == 1
    assert rho["FF", "bin", "heard"] == -1
    (text,) = sentences.heard(found)
    assert text.startswith("- By ear, in 3 cases, FF at 5 % of the bins ranks methods most nearly")
    assert (
        "(of the picture: silence 1.00 (1.00 to 1.00)); FF of the study's `bin` mask by ear has -1.00" in text
    )
    none = agreement.by_ear(points, agreement.case_means(points, scores))
    assert none.empty and sentences.heard(none) == []
    deaf = agreement.case_means(points, pd.concat([scores, ear.assign(FF=0.5, AD=50.0)]))
    assert sentences.heard(agreement.by_ear(points, deaf)) == []  # heard, and nothing told apart
    ear.loc[ear["case"] == "case4", ["FF", "AD"]] = np.nan  # by ear they rank in fewer cases than by picture
    (text,) = sentences.heard(
        agreement.by_ear(points, agreement.case_means(points, pd.concat([scores, ear])))
    )
    assert text.startswith("- By ear, in 2 cases, FF at 5 %")


def test_what_was_judged_in_some_cases_stands_beside_the_others_in_the_same():
    points, _ = a_benchmark(1.0)
    slow = points[(points["method"] == "a") & points["case"].isin(["case1", "case2"])].assign(method="slow")
    both = pd.concat([points, points.assign(clip=1), slow])
    assert "slow" not in agreement.truths(both) and agreement.truths(both).equals(agreement.truths(points))
    some = agreement.in_some_cases(both)
    assert set(some["case"]) == {"case1", "case2"} and set(some["method"]) == {*points["method"], "slow"}
    assert (some["clip"] == 0).all() and len(some) == 12
    table = sentences.means_table(some, ["average_precision"])
    assert table.loc["slow", "average_precision"] == table.loc["a", "average_precision"]
    mean = slow["average_precision"].mean()
    assert table.loc["slow", "average_precision"].startswith(f"{mean:.2f} (")
    assert agreement.in_some_cases(points).empty


def test_a_rule_is_chosen_without_a_look_at_the_case_that_is_held_out():
    """FF is the truth in all cases but those of one plant, where it is not defined: there it chooses by lot."""
    points, scores = a_benchmark(1.0)
    scores.loc[scores["case"].isin(["case2", "case5"]), "FF"] = np.nan
    found = agreement.held_out(points, agreement.case_means(points, scores))
    wide = found.pivot(index="case", columns="way", values="regret")
    held = wide.loc[["case2", "case5"]]
    assert held[agreement.WAYS[0]].tolist() == pytest.approx(held["by lot"].tolist())
    assert (held["by lot"] > 0).all()


def test_figures_and_sentences_show_the_numbers():
    points, scores = a_benchmark(1.0, 8)
    points = points.assign(auc=points["average_precision"], auc_decoy=0.5, truth_share=0.1, control_auc=0.4)
    level = points[points["method"] == "random"].assign(method="level")
    points = pd.concat([points, level, points.assign(clip=1, auc=0.5 + 0.1 * points["auc"])])
    means = agreement.case_means(points, scores)
    agreed, chosen = agreement.agreement(points, means), agreement.held_out(points, means)
    drawn = figures.agreement_by_area(agreed, ["FF", "AD"])
    (line,) = (line for line in drawn.axes[0].lines if line.get_label() == "silence")
    assert line.get_xdata().tolist() == [5] and line.get_ydata().tolist() == pytest.approx([1])
    labels = [text.get_text() for text in figures.pointing(points).axes[0].get_yticklabels()]
    assert labels[0] in ("Random", "Level") and {"a", "b", "c", "d"} == set(labels[2:])
    text = sentences.summary(points, agreed, agreed.head(0), chosen, warning.warnings_of(points))
    assert "ρ = 1.00 (1.00 to 1.00) over 8 cases" in text and "rule that ranks best elsewhere 0.00" in text
    assert sentences.place_of(points, "a")[1] == 4 and sentences.against_lime(points) == []
    named = points.assign(method=points["method"].replace({"a": "shap", "b": "lime"}), decoy_ratio=2.0)
    cases = named.pivot_table("average_precision", "case", "method", "mean")
    difference = f"a difference of {(cases['shap'] - cases['lime']).mean():.2f} ("
    assert difference in sentences.against_lime(named)[0]
    assert text.startswith("- c, 8 cases, 16 clips of 2 recordings: ") and len(text.splitlines()) == 4
    assert sentences.conclusions(points, agreed) == []
    own = agreed.iloc[[0]].assign(mask="bin", metric="FF", fill=agreement.STUDY_FILL)
    (line,) = sentences.conclusions(named, own)
    more = (cases["lime"] - cases["shap"]).mean()
    assert (
        f"average precision {more:+.2f} (" in line
        and "tells which explanation is right **is confirmed**" in line
    )
    assert f"number {sentences.place_of(named, 'shap')[0]} and LIME number" in line and "of 4 methods" in line


@pytest.mark.parametrize(
    "low, high, said", [(0.1, 0.2, "confirmed"), (-0.2, -0.1, "reversed"), (-0.1, 0.1, "not confirmed")]
)
def test_a_conclusion_is_confirmed_where_its_interval_is_above_zero(low, high, said):
    assert sentences.verdict(low, high) == f"**is {said}**"


def test_plants_are_resampled_with_all_of_their_cases():
    values, plants = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 2.0]), ["a", "a", "a", "b", "b", "c"]
    mean, low, high = agreement.mean_with_interval(values, plants)
    drawn = np.random.default_rng(1).integers(3, size=(20000, 3))
    means = np.array([3.0, 0.0, 2.0])[drawn].sum(1) / np.array([3, 2, 1])[drawn].sum(1)
    half = 4.3027 * math.sqrt(3 / 2) * means.std()  # Student's, of three plants
    assert mean == pytest.approx(5 / 6)
    assert [low, high] == pytest.approx([means.mean() - half, means.mean() + half], abs=0.1)
    alone = agreement.mean_with_interval(values)
    assert high - low > alone[2] - alone[1]  # three plants know less than six cases
    each = agreement.mean_with_interval(values, range(6))
    assert each == pytest.approx(alone, abs=0.03)


def test_intervals_of_few_plants_lie_within_what_can_be_and_only_shares_are_unsure_of_all():
    frame = pd.DataFrame(
        {"plant": ["a", "b", "c"], "auc": [1.0, 0.1, 0.9], "decoy_ratio": [-2.0, 3, 0]}
        | dict.fromkeys(("average_precision", "warns"), 1.0)
        | {"of": "x"}
    )
    measures = ["auc", "average_precision", "warns", "decoy_ratio"]
    (row,) = agreement.with_intervals(frame, ["of"], measures).to_dict("records")
    assert (row["auc_low"], row["auc_high"]) == (0, 1) and row["decoy_ratio_low"] < -3
    assert row["average_precision_low"] == 1
    assert 0.4 < row["warns_low"] < 0.5 and row["warns_high"] == pytest.approx(1)


# A whole case


def test_a_case_is_judged_stored_read_and_gone_on_with(sounds, tmp_path):
    bench = planted_bench.bench(sounds)
    (case,) = bench.cases
    bench.write(tmp_path / "bench")
    again = Bench.read(tmp_path / "bench")
    assert again.cases == [case] and again.counted() == [case]
    few = ("saliency", "lime", "integrated_gradients")
    points, _, record = judge(again, case, Effort(8, 2, methods=few))
    assert not record["failed"] and set(points["method"]) == {*few, *agreement.CONTROL_MAPS}
    assert points["clip"].unique().tolist() == ["a", "c"]
    oracle = points[points["method"] == "oracle"]
    assert (oracle[["auc", "average_precision", "precision"]] == 1).all(axis=None)
    assert (oracle["si_sdr"] > points[points["method"] == "random"]["si_sdr"].to_numpy()).all()
    same = points[points["method"] == "saliency"]  # model and control are one network here
    np.testing.assert_allclose(same["auc"], same["control_auc"])
    np.testing.assert_allclose(same["similarity"], 1)
    folder = tmp_path / "parts"
    given = [str(tmp_path / "bench"), str(folder), "--samples", "8", "--clips", "1", "--methods", "saliency"]
    assert command.main([*given, "--join", str(tmp_path / "out")]) == 0
    assert command.main(given) == 0 and len(list(folder.glob("*.json"))) == 1
    stored = pd.read_parquet(tmp_path / "out" / "planted.parquet")
    wanted = {"classifier", "plant", "level_db", "case", "clip", "method", "auc", "average_precision"}
    assert wanted | {"precision", "mass", "decoy_ratio"} <= set(stored.columns)
    pd.testing.assert_frame_equal(stored, joined(folder, "points"))

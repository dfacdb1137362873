"""Rankings on several kinds of sound: rank correlations against SciPy, and what is known of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tiny_study
from scipy import stats

from audioxai_utils import constants, open_study, published
from audioxai_utils.audit import other_sounds
from audioxai_utils.figures.other_sounds import agreement_of_sounds, scores_by_sound

METHODS = ("saliency", "gradcam", "lime", "shap", "occlusion", "smoothgrad")


def drawn(effects: dict[str, np.ndarray], n: int = 30, noise: float = 0.05, seed: int = 0) -> pd.DataFrame:
    """Scores whose means are a set's effects, of every method; AD is 100 times what is missing to FidIn."""
    rng, rows = np.random.default_rng(seed), []
    for name, effect in effects.items():
        for clip in range(n):
            for method, mean in zip(METHODS, effect):
                for mask, shift in (("topK_30_pos", 0.0), ("bin", 0.01)):
                    value = mean + shift + noise * rng.standard_normal()
                    scores = {"FidIn": value, "AD": 100 * (1 - value), "SPS": 0.7}
                    names = {"dataset": name, "clip": f"{name}{clip}", "method": method, "mask": mask}
                    rows.append(names | {"control": ""} | scores)
    return pd.DataFrame(rows)


RISING = np.arange(6) / 6


def test_rank_correlations_are_scipys():
    """Of one group; of two, each pair within its own group counts once."""
    rng = np.random.default_rng(1)
    first, second = rng.integers(0, 5, (2, 40, 8)).astype(float)  # with ties
    whole = [np.arange(8)]
    for rule, theirs in (
        (other_sounds.orders, stats.kendalltau),
        (other_sounds.ranks, stats.spearmanr),
    ):
        expected = [theirs(a, b).statistic for a, b in zip(first, second)]
        mine = other_sounds.correlation(rule(first, whole), rule(second, whole))
        np.testing.assert_allclose(mine, expected, atol=1e-12)
        flat = rule(np.ones((1, 8)), whole)
        assert np.isnan(other_sounds.correlation(flat, rule(first[:1], whole))).all()
    parts = [np.array([0, 2, 4]), np.array([1, 3, 5, 6, 7])]
    one, two = (np.argsort(rng.random((1, 8)), axis=1).astype(float) for _ in range(2))
    taus = [stats.kendalltau(one[0, part], two[0, part]).statistic for part in parts]
    found = other_sounds.correlation(other_sounds.orders(one, parts), other_sounds.orders(two, parts))
    assert found[0] == pytest.approx((3 * taus[0] + 10 * taus[1]) / 13)


def test_the_same_order_agrees_and_the_reverse_does_not():
    scores = drawn({"one": RISING, "same": RISING + 0.5, "reverse": -RISING})
    found = other_sounds.agreement(scores, ["FidIn", "AD"]).set_index(["first", "second", "metric"])
    for metric in ("FidIn", "AD"):
        assert found.loc[("one", "same", metric), "kendall"] == 1
        assert found.loc[("one", "reverse", metric), "kendall"] == -1
    row = found.loc[("one", "same", "AD")]
    assert row["kendall_low"] > 0.8 and row["within"] > 0.9 and row["across"] > 0.9
    assert found.loc[("one", "reverse", "FidIn"), "across"] < -0.9


def test_without_any_difference_intervals_hold_zero_and_halves_agree_no_better_than_sets():
    flat = drawn({"one": np.zeros(6), "other": np.zeros(6)}, n=40, noise=1.0, seed=3)
    row = other_sounds.agreement(flat, ["FidIn"]).iloc[0]
    assert row["kendall_low"] < 0 < row["kendall_high"]
    assert abs(row["across"]) < 0.4 and abs(row["within"]) < 0.4


def test_an_interval_is_that_of_clips_drawn_anew_from_both_sets():
    """By a loop over a few hundred resamples with SciPy."""
    scores = drawn({"one": RISING, "other": RISING}, n=12, noise=0.4)
    scores = scores[scores["mask"] == "bin"]
    row = other_sounds.agreement(scores, ["FidIn"]).iloc[0]
    tables = [table.to_numpy() for table in other_sounds.matrices(scores, "FidIn").values()]
    rng, found = np.random.default_rng(5), []
    for _ in range(1500):
        means = [table[rng.integers(12, size=12)].mean(0) for table in tables]
        found.append(stats.kendalltau(*means).statistic)
    low, high = np.quantile(found, [0.025, 0.975])
    assert row["kendall_low"] == pytest.approx(low, abs=0.14) and row["kendall_high"] == pytest.approx(
        high, abs=0.14
    )


def test_ranks_and_means_are_those_of_the_sets():
    scores = drawn({"one": RISING, "reverse": -RISING})
    found = other_sounds.rankings(scores, ["FidIn", "AD", "SPS"])
    here = {key: part.set_index("method") for key, part in found.groupby(["dataset", "metric"])}
    assert here["one", "FidIn"]["rank"].tolist() == [6, 5, 4, 3, 2, 1]
    assert here["reverse", "AD"]["rank"].tolist() == [1, 2, 3, 4, 5, 6]
    assert (here["one", "SPS"]["rank"] == 3.5).all()
    own = scores[(scores["dataset"] == "one") & (scores["mask"] == "topK_30_pos")]
    expected = own.groupby("method", sort=False)["AD"].mean()
    row = here["one", "AD"]
    np.testing.assert_allclose(row["mean"], expected[row.index])
    assert ((row["low"] < row["mean"]) & (row["mean"] < row["high"])).all()


def test_controls_stand_below_without_a_rank():
    scores = drawn({"one": RISING})
    shifted = scores[scores["mask"] == "topK_30_pos"].assign(control="random", FidIn=0.25, SPS=np.nan)
    found = other_sounds.rankings(pd.concat([scores, shifted]), ["FidIn", "SPS"])
    row = found[found["method"] == "random"]
    assert row["metric"].tolist() == ["FidIn"] and row["mean"].tolist() == [0.25] and row["rank"].isna().all()
    methods = found[found["method"] != "random"].reset_index(drop=True)
    pd.testing.assert_frame_equal(methods, other_sounds.rankings(scores, ["FidIn", "SPS"]))


def test_a_metric_that_is_the_same_for_all_ranks_nothing():
    scores = drawn({"one": RISING, "same": RISING})
    agreed = other_sounds.agreement(scores, ["SPS", "FidIn"])
    row = agreed.set_index("metric").loc["SPS"]
    assert row[["kendall", "kendall_low", "spearman", "across", "within"]].isna().all()
    loudest = scores[scores["mask"] == "topK_30_pos"].assign(control="energy", FidIn=0.25)
    ranked = other_sounds.rankings(pd.concat([scores, loudest]), ["FidIn"])
    text = other_sounds.summary(ranked, agreed, other_sounds.agreement(scores, ["FidIn"], "masks"))
    assert text.endswith("have a FidIn of: one 0.25, same 0.25.")
    assert "rankings of methods carry over **mostly**" in text and "SPS" not in text and "nan" not in text


def test_masks_are_ranked_within_each_method():
    """``bin`` is .01 above the other mask of every method, in both sets, though the methods go against each other."""
    scores = drawn({"one": RISING, "reverse": -RISING}, noise=0.001)
    found = other_sounds.agreement(scores, ["FidIn"], "masks").iloc[0]
    assert found["kendall"] == found["spearman"] == 1 and found["n_pairs"] == len(METHODS)
    assert other_sounds.agreement(scores, ["FidIn"]).iloc[0]["kendall"] == -1
    with pytest.raises(ValueError, match="compared must be one of methods, masks; got 'clips'"):
        other_sounds.agreement(scores, ["FidIn"], "clips")


def test_figures_show_every_set_and_metric():
    scores = drawn({"one": RISING, "same_one": RISING, "reverse": -RISING})
    figure = scores_by_sound(other_sounds.rankings(scores, ["FidIn", "AD"]), ["FidIn", "AD"])
    axes = figure.axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["one", "same one", "reverse"]
    assert len(axes.containers) == len(METHODS) and figure.axes[1].yaxis_inverted()
    agreed = other_sounds.agreement(scores, ["FidIn", "AD", "SPS"])
    figure = agreement_of_sounds(agreed)
    assert [ax.get_title() for ax in figure.axes] == ["FidIn", "AD"]
    points = figure.axes[0].containers[0][0].get_xdata()
    np.testing.assert_allclose(np.array(points, dtype=float), agreed[agreed["metric"] == "FidIn"]["kendall"])


def test_sets_that_cannot_be_compared_are_refused_in_one_line():
    scores = drawn({"one": RISING, "same": RISING})
    lacking = scores[~((scores["dataset"] == "same") & (scores["method"] == "lime"))]
    with pytest.raises(ValueError, match="same methods and masks in every dataset; same differs"):
        other_sounds.agreement(lacking, ["FidIn"])


def test_finished_runs_are_gathered(tmp_path):
    """Two runs on sounds of their own: audited rows of their masks, controls of the mask of equal area alone."""
    runs, n = {}, 0
    for name, seconds in (("short", 0.5), ("longer", 1.25)):
        study = tiny_study.make(tmp_path / name, seconds=seconds)
        condition = study.main_condition
        condition.attribute("saliency")
        condition.attribute("gradcam")
        condition.score_all()
        accuracy = {"spectrogram_type": "mel_db", "test_acc": 50.0, "n": 3}
        study.save("accuracy_mel_db", pd.DataFrame([accuracy]))
        runs[name], n = study.results, len(condition.clips)
    scores, sets = other_sounds.gathered(runs)
    assert scores.columns.tolist() == list(other_sounds.COLUMNS)
    assert sets["seconds"].tolist() == [1.0, 1.3] and sets["n_clips"].tolist() == [n, n]
    assert sets["n_classes"].tolist() == [3, 3] and sets["test_acc"].tolist() == [50.0, 50.0]
    own = scores[scores["control"] == ""]
    assert len(own) == 2 * n * 2 * 14 and own["FidIn_heard"].notna().all()
    assert set(scores[scores["control"] != ""]["mask"]) == {"topK_30_pos"}
    stored = open_study(runs["short"]).main_condition.scores()
    row = stored.query("protocol == 'audited' and control == '' and method == 'gradcam' and mask == 'bin'")
    mine = own.query("dataset == 'short' and method == 'gradcam' and mask == 'bin'")
    np.testing.assert_array_equal(mine["FF_heard"], row["FF_heard"])
    assert len(other_sounds.agreement(scores, ["FidIn"])) == 1


def test_what_was_published_is_the_whole_grid():
    scores, sets = published.other_sounds(), published.other_sounds_sets()
    own = scores[scores["control"] == ""]
    n = own.groupby(["dataset", "method", "mask"], observed=True)["clip"].nunique()
    assert len(n) == len(sets) * own["method"].nunique() * 14
    by_set = sets.set_index("dataset")["n_clips"]
    assert all(count == by_set[name] for (name, *_), count in n.items())
    assert own[[name for name in other_sounds.RANKED_BY if name != "SPS"]].notna().all().all()
    assert set(constants.STUDY_METHODS) <= set(own["method"])
    controls = scores[scores["control"] != ""]
    assert set(controls["control"]) == {"random", "energy"} and set(controls["mask"]) == {"topK_30_pos"}


def test_methods_that_tie_win_together_and_one_without_a_score_costs_no_ranks():
    scores = pd.DataFrame(
        [
            {
                "dataset": "x",
                "clip": f"c{i}",
                "method": method,
                "mask": other_sounds.EQUAL_AREA,
                "control": "",
                "FidIn": value,
            }
            for method, value in (("gradcam", 1.0), ("lime", 1.0), ("shap", 0.0), ("saliency", np.nan))
            for i in range(4)
        ]
    )
    ranked = other_sounds.rankings(scores, ["FidIn"]).set_index("method")
    assert ranked["rank"].dropna().to_dict() == {"gradcam": 1.5, "lime": 1.5, "shap": 3}
    assert ranked.loc["shap", "high"] > 0.4 and ranked.loc["lime", "low"] < 0.6  # Wilson's, of four clips
    both = pd.concat([ranked.assign(metric=metric).reset_index() for metric in ("FidIn", "FidIn_heard")])
    assert "x Grad-CAM and LIME (1.00)" in other_sounds._of_winners(both)[0]

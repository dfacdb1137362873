"""Intervals, winners, ranks and control marks of score frames, against plain loops over clips."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from audioxai_utils import constants
from audioxai_utils.evaluation import bootstrap, comparisons, overview, tables

METRICS = list(constants.STUDY_METRICS)
CONDITIONS = (("stft_db", "clean"), ("mel_db", "white"))


def scores_of(means: dict[tuple[str, str], float], n_clips: int = 40, seed: int = 0) -> pd.DataFrame:
    """Scores around given means per (method, mask): what clips share, and a little of their own."""
    generator = np.random.default_rng(seed)
    rows = []
    for protocol in constants.PROTOCOLS:
        for kind, scenario in CONDITIONS:
            shared = generator.normal(size=n_clips)
            for (method, mask), mean in means.items():
                for clip in range(n_clips):
                    values = mean + shared[clip] + 0.1 * generator.normal(size=7)
                    rows.append(
                        {
                            "protocol": protocol,
                            "spectrogram_type": kind,
                            "noise_scenario": scenario,
                            "method": method,
                            "mask": mask,
                            "clip": f"c{clip:02}",
                            "correct": True,
                            "area": 0.1,
                            "degenerate": False,
                            **dict(zip(METRICS, values)),
                        }
                    )
    return pd.DataFrame(rows)


FOUR = {("saliency", "bin"): 1.0, ("gradcam", "bin"): 2.0, ("lime", "minmax"): 2.01, ("shap", "topK_5"): 0.5}


def clips_of(scores: pd.DataFrame, row: pd.Series, *names: str) -> pd.DataFrame:
    keys = ["protocol", "spectrogram_type", "noise_scenario", *names]
    return scores[(scores[keys] == row[keys]).all(axis=1)].sort_values("clip")


def test_yes_or_no_scores_have_an_interval_though_every_clip_says_no():
    """Audit 12 on twenty clips: a bootstrap of zeros would promise that the share is zero."""
    rows = [
        {
            "spectrogram_type": "mel_db",
            "noise_scenario": "clean",
            "clip": str(i),
            "method": "lime",
            "mask": "bin",
            "AI": 0.0,
            "FidIn": float(i < 10),
            "FF": 0.0,
        }
        for i in range(20)
    ]
    found = comparisons.mean_intervals(pd.DataFrame(rows), ("AI", "FidIn", "FF"), n_resamples=100).set_index(
        "metric"
    )
    assert found.loc["AI", "low"] == 0 and found.loc["AI", "high"] == pytest.approx(16.11, abs=0.01)
    assert found.loc["FidIn", ["low", "high"]].sum() == pytest.approx(1)
    assert found.loc["FF", ["low", "high"]].tolist() == [0, 0]


def test_mean_intervals_of_a_column_by_itself():
    scores = scores_of(FOUR)
    scores.loc[(scores["clip"] < "c10") & (scores["method"] == "lime"), "COMP"] = np.nan
    found = comparisons.mean_intervals(scores, n_resamples=600, seed=3)
    assert len(found) == 2 * 2 * 4 * 7
    for _, row in found.sample(25, random_state=0).iterrows():
        values = clips_of(scores, row, "method", "mask")[row["metric"]].to_numpy()
        n_clips = int(np.isfinite(values).sum())
        low, high = bootstrap.interval(bootstrap.resampled_means(values, 600, seed=3), n_clips)
        expected = [n_clips, np.nanmean(values), low[0], high[0]]
        np.testing.assert_allclose(row[["n", "mean", "low", "high"]].astype(float), expected, rtol=1e-9)
    assert set(found.query("method == 'lime' and metric == 'COMP'")["n"]) == {30}


def test_means_are_those_of_the_summary_and_fit_the_study_table():
    scores = scores_of(FOUR)
    summary = tables.summarise(scores)
    best = tables.best_masks(summary)
    intervals = comparisons.mean_intervals(scores, best=best, n_resamples=200)
    table = tables.study_table(summary, CONDITIONS[1], best, protocol="paper", intervals=intervals)
    assert len(table) == 4
    for metric in METRICS:
        assert (table[f"{metric}_low"] < table[metric]).all()
        assert (table[f"{metric}_high"] > table[metric]).all()


def test_order_of_rows_changes_nothing():
    scores = scores_of(FOUR)
    first = comparisons.mean_intervals(scores, n_resamples=100)
    second = comparisons.mean_intervals(scores.sample(frac=1, random_state=1), n_resamples=100)
    pd.testing.assert_frame_equal(first, second)


def test_winner_and_runner_up_and_their_paired_difference():
    scores = scores_of(FOUR)
    found = comparisons.best_versus_second(scores, n_resamples=2000)
    assert len(found) == 2 * 2 * 7
    higher = found[~found["metric"].isin(constants.LOWER_IS_BETTER)]
    assert set(higher["best"]) | set(higher["second"]) == {"gradcam + bin", "lime + minmax"}
    lower = found[found["metric"].isin(constants.LOWER_IS_BETTER)]
    assert set(lower["best"]) == {"shap + topK_5"} and set(lower["second"]) == {"saliency + bin"}
    assert lower["clear"].all() and (lower["p_winner_changes"] == 0).all()
    assert (found["difference"] >= 0).all()
    for _, row in found.sample(8, random_state=0).iterrows():
        clips = clips_of(scores, row).pivot(index="clip", columns="method", values=row["metric"])
        gap = clips[row["best"].split(" + ")[0]] - clips[row["second"].split(" + ")[0]]
        gap = -gap if row["metric"] in constants.LOWER_IS_BETTER else gap
        assert row["difference"] == pytest.approx(gap.mean(), rel=1e-9)
        assert row["clear"] == (row["low"] > 0)
        assert row["high"] - row["low"] == pytest.approx(2 * 2.02 * gap.std() / 40**0.5, rel=0.15)


def test_an_even_race_is_not_called():
    even = {("saliency", "bin"): 1.0, ("gradcam", "bin"): 1.0}
    found = comparisons.best_versus_second(scores_of(even, n_clips=60), n_resamples=2000)
    assert found["p_winner_changes"].between(0.0005, 0.5).all()
    assert found["clear"].mean() < 0.3
    same = scores_of(even).assign(AI=100.0)
    tie = comparisons.best_versus_second(same, metrics=["AI"], n_resamples=100)
    assert (tie["p_winner_changes"] == 0.5).all() and not tie["clear"].any() and (tie["high"] == 0).all()


def test_rank_stability_agrees_with_the_winner():
    scores = scores_of(FOUR)
    ranks = comparisons.rank_stability(scores, n_resamples=500)
    sums = ranks.groupby(["protocol", *tables.CONDITION, "metric", "rank"])["share"].sum()
    np.testing.assert_allclose(sums, 1)
    duel = comparisons.best_versus_second(scores, n_resamples=500)
    first = ranks[ranks["rank"] == 1].assign(best=lambda r: r["method"] + " + " + r["mask"])
    joined = duel.merge(first, on=["protocol", *tables.CONDITION, "metric", "best"])
    np.testing.assert_allclose(joined["share"], 1 - joined["p_winner_changes"])
    assert len(joined) == len(duel)
    last = ranks.query("rank == 4 and metric == 'FF' and method == 'shap'")
    assert (last["share"] == 1).all()


def control_rows(scores: pd.DataFrame, name: str, shift: float) -> pd.DataFrame:
    generator = np.random.default_rng(len(name))
    noise = 0.1 * generator.normal(size=(len(scores), 7))
    return scores.assign(control=name, **{m: scores[m] + shift + noise[:, i] for i, m in enumerate(METRICS)})


@pytest.mark.parametrize("one_frame", [False, True])
def test_better_worse_and_undecided_against_controls(one_frame):
    scores = scores_of(FOUR)
    controls = pd.concat([control_rows(scores, "random", -1.0), control_rows(scores, "energy", 0.0)])
    if one_frame:
        found = comparisons.beats_control(pd.concat([scores.assign(control=""), controls]), n_resamples=500)
    else:
        found = comparisons.beats_control(scores, controls, n_resamples=500)
    assert len(found) == 2 * 2 * 2 * 4 * 7
    random = found[found["control"] == "random"].set_index("metric")["verdict"]
    assert (random[["FF", "AI", "AG", "FidIn", "SPS"]] == "better").all()
    assert (random[["AD", "COMP"]] == "worse").all()  # lower scores of the control are better there
    energy = found[found["control"] == "energy"]
    assert (energy["verdict"] == "undecided").mean() > 0.85
    for _, row in found.sample(10, random_state=0).iterrows():
        ours = clips_of(scores, row, "method", "mask")[row["metric"]].to_numpy()
        theirs = clips_of(controls[controls["control"] == row["control"]], row, "method", "mask")
        gap = ours - theirs[row["metric"]].to_numpy()
        gap = -gap if row["metric"] in constants.LOWER_IS_BETTER else gap
        assert row["difference"] == pytest.approx(gap.mean(), rel=1e-9) and row["n"] == 40
        assert row["low"] < row["difference"] < row["high"]


def test_a_control_for_all_masks_is_compared_with_each():
    scores = scores_of(FOUR)
    oracle = scores[scores["method"] == "lime"].assign(control="oracle", method="", mask="")
    found = comparisons.beats_control(scores, oracle, metrics=["FF"], n_resamples=300)
    assert len(found) == 2 * 2 * 4
    verdicts = found.set_index("method")["verdict"]
    assert set(verdicts["shap"]) == {"worse"} and set(verdicts["lime"]) == {"undecided"}
    assert (found.set_index("method").loc["lime", "difference"] == 0).all()


def test_clips_without_their_control_are_left_out():
    scores = scores_of(FOUR)
    controls = control_rows(scores, "random", -1.0).query("clip >= 'c05'")
    found = comparisons.beats_control(scores, controls, metrics=["FF"], n_resamples=200)
    assert (found["n"] == 35).all()


def test_marks_name_the_controls_and_the_metrics_that_fail():
    base = {"spectrogram_type": "mel_db", "noise_scenario": "clean", "mask": "bin"}
    verdicts = {
        "saliency": {
            ("random", "FF"): "better",
            ("random", "AD"): "better",
            ("energy", "FF"): "better",
            ("energy", "AD"): "better",
        },
        "lime": {
            ("random", "FF"): "better",
            ("random", "AD"): "undecided",
            ("energy", "FF"): "worse",
            ("energy", "AD"): "undecided",
        },
    }
    comparison = pd.DataFrame(
        [
            {**base, "method": method, "control": control, "metric": metric, "verdict": verdict}
            for method, pairs in verdicts.items()
            for (control, metric), verdict in pairs.items()
        ]
    )
    marks = comparisons.control_marks(comparison).set_index("method")["not_better_than"]
    assert marks["saliency"] == "" and marks["lime"] == "random (AD), energy (FF, AD)"
    only_ff = comparisons.control_marks(comparison, metrics=["FF"], controls=["random"])
    assert (only_ff["not_better_than"] == "").all()
    with pytest.raises(ValueError, match=r"comparison has no AD against energy of lime \+ bin"):
        comparisons.control_marks(comparison[:-1])  # it counted as beaten


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda s: comparisons.mean_intervals(s.drop(columns="clip")), "lacks the column clip"),
        (lambda s: comparisons.mean_intervals(pd.concat([s, s.head(1)])), "some occur twice"),
        (lambda s: comparisons.mean_intervals(s, best=s.head(1).assign(mask="sigmoid")), "masks of best"),
        (lambda s: comparisons.best_versus_second(s[s["method"] == "lime"]), "at least two"),
        (lambda s: comparisons.beats_control(s), "lacks the column control"),
        (lambda s: comparisons.beats_control(s, s.assign(control="")), "hold no control"),
        (lambda s: comparisons.beats_control(s, s.assign(control="random", mask="none")), "name no method"),
        (
            lambda s: comparisons.beats_control(s, s.assign(control="random", clip=1)),
            "name no clip of scores",
        ),
        (
            lambda s: comparisons.mean_intervals(s.assign(noise_scenario=np.nan)),
            "rows without noise_scenario",
        ),
        (
            lambda s: comparisons.mean_intervals(s, best=pd.concat([s, s.assign(mask="minmax")])),
            "one mask a condition and method",
        ),
    ],
)
def test_wrong_frames_end_in_one_line(call, message):
    with pytest.raises(ValueError, match=message):
        call(scores_of(FOUR, n_clips=3))


def test_with_intervals_widens_without_changing_a_number():
    long = pd.DataFrame(
        [
            ("paper", "mel_db", "clean", "lime", "bin", metric, 5, mean, mean - 1, mean + 1)
            for metric, mean in (("FF", 0.5), ("SPS", 0.2))
        ],
        columns=[
            "protocol",
            "spectrogram_type",
            "noise_scenario",
            "method",
            "mask",
            "metric",
            "n",
            "mean",
            "low",
            "high",
        ],
    )
    wide = comparisons.with_intervals(long)
    assert len(wide) == 1
    assert wide.iloc[0][["FF", "FF_low", "FF_high", "SPS", "SPS_low"]].tolist() == [0.5, -0.5, 1.5, 0.2, -0.8]


def test_a_rival_is_beaten_where_the_paired_interval_says_so():
    scores = scores_of(
        {("lime", "bin"): 1.0, ("rise", "bin"): 2.0, ("rise", "minmax"): 1.0, ("shap", "bin"): 0.5}
    )
    found = comparisons.beats_rival(scores, n_resamples=500)
    assert ("lime", "bin") not in set(zip(found["method"], found["mask"])) and len(found) == 2 * 2 * 3 * 7
    for row in found.itertuples():
        sign = -1 if row.metric in constants.LOWER_IS_BETTER else 1
        ours, theirs = (
            clips_of(
                scores, pd.Series(row._asdict() | dict(zip(("method", "mask"), pair))), "method", "mask"
            )[row.metric]
            for pair in ((row.method, row.mask), ("lime", "bin"))
        )
        assert row.difference == pytest.approx(sign * (ours.mean() - theirs.mean()))
        clear = {("rise", "bin"): "better", ("shap", "bin"): "worse"}.get((row.method, row.mask))
        if clear:
            assert row.verdict == (clear if sign > 0 else {"better": "worse", "worse": "better"}[clear])
    with pytest.raises(ValueError, match=r"must hold the rival lime \+ minmax in every condition"):
        comparisons.beats_rival(scores, ("lime", "minmax"))


def test_the_tally_counts_verdicts_and_puts_who_is_never_worse_first():
    rows = [
        {
            "protocol": "audited",
            "spectrogram_type": "mel_db",
            "noise_scenario": "clean",
            "method": method,
            "mask": "bin",
            "metric": metric,
            "verdict": verdict,
        }
        for method, verdicts in (
            ("saliency", "better better worse"),
            ("gradcam", "better undecided undecided"),
        )
        for metric, verdict in zip(("FF", "AD", "FidIn_heard"), verdicts.split())
    ]
    table = comparisons.tally(pd.DataFrame(rows)).set_index("method")
    assert list(table.index) == ["gradcam", "saliency"]
    counts = ["better", "undecided", "worse", "better_heard", "undecided_heard", "worse_heard"]
    assert table.loc["gradcam", counts].tolist() == [1, 1, 0, 0, 1, 0]
    assert table.loc["saliency", counts].tolist() == [2, 0, 0, 0, 0, 1]
    scored = comparisons.tally(pd.DataFrame([row for row in rows if row["metric"] != "FidIn_heard"]))
    assert list(scored.columns[-3:]) == ["better", "undecided", "worse"] and scored["method"].tolist() == [
        "saliency",
        "gradcam",
    ]


def test_one_table_holds_every_method_with_its_bounds_and_seconds():
    scores = scores_of(FOUR)
    scores["seconds"] = scores["method"].map({"saliency": 0.1, "gradcam": 0.2, "lime": 9.0, "shap": 3.0})
    scores["FF_heard"] = scores["FF"].where(scores["protocol"] == "audited") / 2
    best = pd.DataFrame(
        [
            {**dict(zip(("protocol", *comparisons.CONDITION), (p, *c))), "method": m, "mask": k}
            for p in constants.PROTOCOLS
            for c in CONDITIONS
            for m, k in FOUR
        ]
    )
    table = overview.every_method(scores, best)
    assert len(table) == 2 * 2 * 4
    row = table.query("protocol == 'audited' and method == 'lime' and noise_scenario == 'white'").iloc[0]
    rows = clips_of(scores, row, "method")
    assert row["FF"] == pytest.approx(rows["FF"].mean()) and row["FF_heard"] == pytest.approx(
        rows["FF"].mean() / 2
    )
    assert (
        row["FF_low"] < row["FF"] < row["FF_high"]
        and row["seconds"] == 9.0
        and row["area"] == pytest.approx(0.1)
    )
    read = overview.scored_and_heard(table, tuple(table.loc[0, comparisons.CONDITION]), "audited")
    assert list(read.columns[:4]) == ["method", "mask", "FF", "FF_heard"] and "COMP_low" not in read
    words = overview.printed(table)
    assert list(words.columns[:5]) == ["protocol", *comparisons.CONDITION, "method", "mask"] and len(
        words
    ) == len(table)
    assert not any(column.endswith(("_low", "_high")) for column in words)
    line = words.loc[row.name]
    assert line["FF"] == f"{row['FF']:.2f} ({row['FF_low']:.2f} to {row['FF_high']:.2f})"
    assert (
        line["AD"].count(".") == 3
        and line["AD"] == f"{row['AD']:.1f} ({row['AD_low']:.1f} to {row['AD_high']:.1f})"
    )
    assert set(words.loc[words["protocol"] == "paper", "FF_heard"]) == {""}


def test_masks_that_beat_both_controls_are_counted():
    marks = pd.DataFrame(
        {
            "spectrogram_type": "mel_db",
            "noise_scenario": ["clean", "clean", "white", "clean"],
            "method": ["lime", "lime", "lime", "shap"],
            "mask": ["bin", "topK_5", "bin", "bin"],
            "not_better_than": ["", "", "energy (AD)", "random (FF)"],
        }
    )
    counted = comparisons.count_beaten(marks).set_index("method")
    assert counted.loc["lime"].to_dict() == {"mel, clean": 2, "mel, white noise": 0}
    assert counted.loc["shap", "mel, clean"] == 0
    both = pd.concat([marks.assign(protocol=protocol) for protocol in ("paper", "audited")])
    with pytest.raises(ValueError, match="holds the protocols paper, audited"):
        comparisons.count_beaten(both)

"""Tables: the selection rule against a slow one and the published choices, means, table and colours."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from audioxai_utils import constants, published
from audioxai_utils.evaluation import table_styles, tables

METRICS = list(constants.STUDY_METRICS)
KEYS = ["spectrogram_type", "noise_scenario", "method", "mask"]


def published_all() -> pd.DataFrame:
    return published.published_results().query("subset == 'all'").drop(columns="subset")


def slow_best(results: pd.DataFrame) -> dict:
    """The rule in plain Python floats: {(type, scenario, method): mask}."""
    rows = results.to_dict("records")
    bounds = {m: (min(r[m] for r in rows), max(r[m] for r in rows)) for m in METRICS}
    best: dict = {}
    for row in rows:
        product = 1.0
        for metric in METRICS:
            low, high = bounds[metric]
            scaled = (row[metric] - low) / (high - low)
            if metric in ("AD", "COMP"):
                scaled = 1.0 - scaled
            product *= max(scaled, 1e-9) ** (1 / 7)
        key = (row["spectrogram_type"], row["noise_scenario"], row["method"])
        if key not in best or product > best[key][0]:
            best[key] = (product, row["mask"])
    return {key: mask for key, (_, mask) in best.items()}


def chosen(best: pd.DataFrame) -> dict:
    return {tuple(row[:3]): row[3] for row in best[KEYS].itertuples(index=False)}


def clip_scores(n_clips: int = 6, seed: int = 0) -> pd.DataFrame:
    """Tidy scores of two protocols, two conditions, two methods and two masks."""
    generator = np.random.default_rng(seed)
    rows = []
    for protocol in constants.PROTOCOLS:
        for kind, scenario in (("stft_db", "clean"), ("mel_db", "clean")):
            for method in ("gradcam", "saliency"):
                for mask in ("bin", "minmax"):
                    for clip in range(n_clips):
                        rows.append(
                            {
                                "protocol": protocol,
                                "spectrogram_type": kind,
                                "noise_scenario": scenario,
                                "method": method,
                                "mask": mask,
                                "clip": f"clip{clip}",
                                "correct": clip % 3 > 0,
                                **dict(zip(METRICS, generator.random(7))),
                                "FF_heard": generator.random(),
                                "area": generator.random(),
                                "degenerate": clip == 0,
                            }
                        )
    return pd.DataFrame(rows)


# Best_masks


def test_rule_gives_the_twenty_published_choices():
    best = tables.best_masks(published.published_results())
    pd.testing.assert_frame_equal(best[KEYS], published.published_tables()[KEYS], check_dtype=False)


@pytest.mark.skipif(not os.environ.get("AUDIOXAI_REFERENCE"), reason="AUDIOXAI_REFERENCE is not set")
def test_rule_gives_the_twenty_published_choices_on_the_reference_files():
    root = Path(os.environ["AUDIOXAI_REFERENCE"])
    best = tables.best_masks(pd.read_csv(root / "published_results.csv"))
    printed = pd.read_csv(root / "published_tables.csv")
    assert chosen(best) == chosen(printed)
    np.testing.assert_allclose(best[METRICS], printed[METRICS], atol=1.5e-4)


@pytest.mark.parametrize("seed", range(5))
def test_rule_against_a_slow_one_on_random_results(seed):
    generator = np.random.default_rng(seed)
    results = published_all().assign(**{metric: generator.random(280) for metric in METRICS})
    assert chosen(tables.best_masks(results)) == slow_best(results)


def test_choice_does_not_hang_on_row_order_units_or_subsets():
    results = published.published_results()
    expected = tables.best_masks(results)
    pd.testing.assert_frame_equal(tables.best_masks(results.sample(frac=1, random_state=3)), expected)
    in_per_mille = tables.best_masks(results.assign(AI=results["AI"] * 10, COMP=results["COMP"] / np.log(2)))
    assert chosen(in_per_mille) == chosen(expected)
    spoilt = results.copy()
    spoilt.loc[spoilt["subset"] != "all", METRICS] = 1e6
    pd.testing.assert_frame_equal(tables.best_masks(spoilt), expected)


def test_inverting_ad_and_comp_matters():
    results = published_all()
    turned = results.assign(AD=-results["AD"], COMP=-results["COMP"])
    assert chosen(tables.best_masks(turned)) != chosen(tables.best_masks(results))


def test_ties_go_to_the_first_mask_and_are_named():
    results = published_all()
    lime = results["method"].eq("lime") & results["mask"].isin(["bin", "topK_30_pos", "minmax_pos"])
    first = results[results["method"].eq("lime") & results["mask"].eq("bin")].set_index(KEYS[:2])[METRICS]
    conditions = pd.MultiIndex.from_frame(results.loc[lime, KEYS[:2]])
    results.loc[lime, METRICS] = first.loc[conditions].to_numpy()
    best = tables.best_masks(results.iloc[::-1]).query("method == 'lime'")
    assert (best["mask"] == "bin").all()
    assert (best["tied_with"] == "minmax_pos, topK_30_pos").all()


def test_a_mask_without_a_defined_metric_cannot_win_and_does_not_scale():
    results = published_all()
    winner = results["method"].eq("lime") & results["mask"].eq("bin")
    gone = tables.best_masks(results[~winner])
    results.loc[winner, METRICS] = np.nan
    assert chosen(tables.best_masks(results)) == chosen(gone)
    results.loc[results["method"].eq("shap"), "COMP"] = np.nan
    best = tables.best_masks(results).query("method == 'shap'")
    assert len(best) == 5 and best[["mask", "score", *METRICS]].isna().all(axis=None)


def test_a_metric_equal_everywhere_decides_nothing():
    results = published_all()
    best = tables.best_masks(results.assign(AI=3.0))
    assert best["score"].between(1e-9, 1).all()
    without = tables.selection_scores(results.assign(AI=3.0)[METRICS].to_numpy())
    others = results[METRICS].drop(columns="AI").to_numpy()
    scaled = (others - others.min(axis=0)) / np.ptp(others, axis=0)
    scaled[:, [4, 5]] = 1 - scaled[:, [4, 5]]
    np.testing.assert_allclose(without, np.prod(np.maximum(scaled, 1e-9), axis=1) ** (1 / 7), rtol=1e-9)


def test_protocols_are_scaled_apart_and_controls_take_no_part():
    results = published_all()
    audited = results.assign(**{metric: results[metric] * 7 + 3 for metric in METRICS})
    both = pd.concat([results.assign(protocol="paper"), audited.assign(protocol="audited")])
    best = tables.best_masks(both)
    assert len(best) == 40
    for protocol in constants.PROTOCOLS:
        assert chosen(best[best["protocol"] == protocol]) == chosen(published.published_tables())
    control = results.assign(control="random", FF=100.0, AI=1e4)
    with_control = tables.best_masks(pd.concat([results.assign(control=""), control]))
    assert chosen(with_control) == chosen(published.published_tables())


def test_only_the_methods_asked_for():
    best = tables.best_masks(published.published_results(), methods=("gradcam", "lime"))
    assert set(best["method"]) == {"gradcam", "lime"}
    assert chosen(best) == slow_best(published_all().query("method in ('gradcam', 'lime')"))


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda frame: frame.drop(columns=["AD", "mask"]), "columns mask, AD"),
        (lambda frame: frame[frame["subset"] == "correct"], 'subset "all"'),
        (lambda frame: pd.concat([frame, frame.head(1)]), "two of"),
        (lambda frame: frame.assign(FF=frame["FF"].astype(str)), "FF must hold numbers"),
        (lambda frame: frame.assign(AG=np.inf), "AG must be finite"),
        (lambda frame: frame.head(0), "empty"),
    ],
)
def test_wrong_results_end_in_one_line(spoil, message):
    with pytest.raises(ValueError, match=message) as error:
        tables.best_masks(spoil(published.published_results()))
    assert "\n" not in str(error.value)


def test_results_that_are_no_frame():
    with pytest.raises(TypeError, match="results must be a pandas DataFrame; got list"):
        tables.best_masks([1, 2])


# Summarise


def test_summary_against_plain_sums():
    scores = clip_scores()
    summary = tables.summarise(scores)
    assert len(summary) == 2 * 2 * 3 * 2 * 2
    d = {"stft_db": 257 * 313, "mel_db": 64 * 501}
    for row in summary.to_dict("records"):
        clips = [
            score
            for score in scores.to_dict("records")
            if all(score[key] == row[key] for key in ("protocol", *KEYS))
            and row["subset"] in ("all", "correct" if score["correct"] else "incorrect")
        ]
        assert row["n"] == len(clips) == {"all": 6, "correct": 4, "incorrect": 2}[row["subset"]]
        for name in [*METRICS, "area", "degenerate", "FF_heard"]:
            assert row[name] == pytest.approx(math.fsum(clip[name] for clip in clips) / len(clips), rel=1e-12)
        assert row["COMP_rel"] == pytest.approx(row["COMP"] / math.log(d[row["spectrogram_type"]]), rel=1e-12)


def test_summary_is_in_the_order_of_the_study():
    summary = tables.summarise(clip_scores().sample(frac=1, random_state=0))
    assert list(summary["spectrogram_type"].unique()) == ["stft_db", "mel_db"]
    assert list(summary["method"].unique()) == ["saliency", "gradcam"]
    assert list(summary["mask"].unique()) == ["minmax", "bin"]
    assert list(summary["subset"].unique()) == ["all", "correct", "incorrect"]


def test_undefined_conciseness_is_left_out_of_its_mean_alone():
    scores = clip_scores()
    scores.loc[scores["clip"] == "clip1", ["SPS", "COMP"]] = np.nan
    summary = tables.summarise(scores).query("subset == 'all'")
    assert (summary["n"] == 6).all() and (summary["n_defined"] == 5).all()
    row = summary.iloc[0]
    clips = scores[(scores[["protocol", *KEYS]] == row[["protocol", *KEYS]]).all(axis=1)]
    assert row["COMP"] == pytest.approx(clips.loc[clips["clip"] != "clip1", "COMP"].mean(), rel=1e-12)
    assert row["FF"] == pytest.approx(clips["FF"].mean(), rel=1e-12)


def test_a_faithfulness_that_a_clip_has_not_got_is_no_mean_and_cannot_win():
    """A network that answers NaN to silence: the mask that keeps nothing is scored on the easy clips alone."""
    scores = clip_scores()
    perfect = (scores["method"] == "saliency") & (scores["mask"] == "bin")
    scores.loc[perfect, METRICS] = [1.0, 100.0, 100.0, 1.0, 0.0, 1.0, 0.0]
    scores.loc[perfect & (scores["clip"] != "clip1"), ["FF", "FF_heard"]] = np.nan
    summary = tables.summarise(scores).query("subset == 'all'")
    of_mask = summary.query("method == 'saliency' and mask == 'bin'")
    assert of_mask[["FF", "FF_heard"]].isna().all(axis=None) and of_mask["AD"].notna().all()
    assert (tables.best_masks(summary).query("method == 'saliency'")["mask"] == "minmax").all()


@pytest.mark.parametrize("key", ["protocol", "noise_scenario", "mask"])
def test_a_row_without_a_name_is_refused_and_not_left_out(key):
    summary = tables.summarise(clip_scores())
    summary.loc[summary.index[0], key] = np.nan
    with pytest.raises(ValueError, match=f"rows without {key}"):
        tables.best_masks(summary)


def test_subset_without_a_clip_keeps_its_rows():
    summary = tables.summarise(clip_scores().assign(correct=True))
    empty = summary[summary["subset"] == "incorrect"]
    assert len(empty) == 16 and (empty["n"] == 0).all() and empty[METRICS].isna().all(axis=None)


def test_number_of_bins_from_columns_argument_or_study():
    scores = clip_scores().assign(n_bins=10, n_frames=20)
    for frame, d in ((scores, None), (clip_scores(), 200), (clip_scores(), {"stft_db": 200, "mel_db": 200})):
        summary = tables.summarise(frame, d=d)
        np.testing.assert_allclose(summary["COMP_rel"], summary["COMP"] / math.log(200))
    with pytest.raises(ValueError, match="lacks 'mel_db'"):
        tables.summarise(clip_scores(), d={"stft_db": 200})


def test_a_clip_that_occurs_twice_is_refused():
    scores = clip_scores()
    with pytest.raises(ValueError, match="one row per protocol"):
        tables.summarise(pd.concat([scores, scores.head(1)]))


# Study_table, beside_published, colours


@pytest.mark.parametrize("condition", constants.STUDY_CONDITIONS)
def test_study_table_of_the_published_results_is_the_printed_table(condition):
    table = tables.study_table(published.published_results(), condition)
    printed = published.published_tables()
    printed = printed[printed["table"] == constants.TABLE_NUMBERS[condition]].reset_index(drop=True)
    pd.testing.assert_frame_equal(table, printed[table.columns], atol=1.5e-4, rtol=0)


def test_study_table_joins_areas_intervals_and_marks():
    summary = tables.summarise(clip_scores())
    best = tables.best_masks(summary)
    keys = ["protocol", *KEYS]
    bounds = pd.concat([best[keys].assign(metric=m, low=best[m] - 1, high=best[m] + 2) for m in METRICS])
    marks = best[keys].assign(not_better_than=["random", "energy"] * (len(best) // 2))
    table = tables.study_table(
        summary, ("mel_db", "clean"), best, protocol="audited", intervals=bounds, marks=marks
    )
    assert list(table["not_better_than"]) == ["random", "energy"]
    for metric in METRICS:
        np.testing.assert_allclose(table[f"{metric}_high"] - table[f"{metric}_low"], 3)
        np.testing.assert_allclose(table[f"{metric}_low"], table[metric] - 1)
    expected = summary.query("protocol == 'audited' and spectrogram_type == 'mel_db' and subset == 'all'")
    joined = table.merge(expected, on=["method", "mask", *METRICS, "area", "degenerate", "COMP_rel"])
    assert len(joined) == len(table) == 2


def test_study_table_wants_one_protocol_and_a_condition_that_exists():
    summary = tables.summarise(clip_scores())
    with pytest.raises(ValueError, match="say which with protocol="):
        tables.study_table(summary, ("mel_db", "clean"))
    with pytest.raises(ValueError, match="no rows of condition mel_db horse"):
        tables.study_table(summary, ("mel_db", "horse"), protocol="paper")


def test_beside_published_shows_ours_theirs_and_theirs_at_our_mask():
    ours = tables.study_table(published.published_results(), ("mel_db", "clean"))
    ours.loc[0, ["mask", "FF"]] = ["bin", 0.123]
    both = tables.beside_published(ours, ("mel_db", "clean"))
    saliency = both[both["method"] == "saliency"].set_index("source")
    assert list(saliency.index) == ["this run", "published", "published, our mask"]
    assert list(saliency["mask"]) == ["bin", "topK_50_pos", "bin"]
    assert saliency.loc["this run", "FF"] == 0.123
    assert saliency.loc["published", "FF"] == 0.9235
    theirs = published_all().query("spectrogram_type == 'mel_db' and noise_scenario == 'clean'")
    theirs = theirs.query("method == 'saliency' and mask == 'bin'").iloc[0]
    assert saliency.loc["published, our mask", "AD"] == theirs["AD"]
    assert len(both) == 9
    assert set(tables.beside_published(ours, ("stft_db", "horse"))["source"]) == {"this run"}


def colours(html: str) -> dict[tuple[int, int], str]:
    """{(row, column): background} of a styled table."""
    found = {}
    for selectors, body in re.findall(r"([^{}]*)\{([^}]*)\}", html.split("</style>")[0]):
        ground = re.search(r"background-color: (#\w+)", body)
        if not re.search(r"row\d", selectors):
            continue  # the layout of the whole table
        assert re.search(r"[^-]color: #111111", body), "coloured conditions set their text colour"
        for row, column in re.findall(r"row(\d+)_col(\d+)", selectors):
            found[int(row), int(column)] = ground.group(1)
    return found


def test_colours_are_the_study_s():
    from audioxai_utils.evaluation.table_styles import BLUE, GREEN, ORANGE, YELLOW

    table = tables.study_table(published.published_results(), ("mel_db", "clean"))
    found = colours(table_styles.style_table(table).to_html())
    expected = {}
    for column, metric in enumerate(METRICS, start=2):
        values = list(table[metric])
        good, bad = (BLUE, YELLOW) if metric in ("SPS", "COMP") else (GREEN, ORANGE)
        best, worst = (min, max) if metric in ("AD", "COMP") else (max, min)
        expected[values.index(best(values)), column] = good
        expected[values.index(worst(values)), column] = bad
    assert found == expected


def test_rows_beside_the_published_ones_are_coloured_source_by_source():
    table = tables.study_table(published.published_results(), ("mel_db", "clean"))
    alone = colours(table_styles.style_table(table).to_html())
    both = tables.beside_published(table.assign(mask="minmax"), ("mel_db", "clean"))
    found = colours(table_styles.style_table(both).to_html())
    for source in ("this run", "published"):
        rows = list(both.index[both["source"] == source])
        ours = {(rows.index(row), column - 1): c for (row, column), c in found.items() if row in rows}
        assert ours == alone
    third = set(both.index[both["source"] == "published, our mask"])
    assert third and not third & {row for row, _ in found}


def test_ties_share_a_colour_nan_has_none_and_equal_columns_stay_plain():
    from audioxai_utils.evaluation.table_styles import GREEN, ORANGE

    table = tables.study_table(published.published_results(), ("mel_db", "clean"))
    table["FF"] = [0.5, 0.5, np.nan, 0.1]
    table["AI"] = 1.0
    html = table_styles.style_table(table).to_html()
    found = colours(html)
    assert [found.get((row, 2)) for row in range(4)] == [GREEN, GREEN, None, ORANGE]
    assert not any(column == 3 for _, column in found)
    assert ">n/a<" in html


def test_html_is_stable_escaped_and_shows_intervals_in_their_condition():
    table = tables.study_table(published.published_results(), ("mel_db", "clean"))
    table["method"] = ["<b>", *table["method"][1:]]
    table["FF_low"], table["FF_high"] = 0.25, 0.75
    html = table_styles.style_table(table, caption="Table III").to_html()
    assert html == table_styles.style_table(table, caption="Table III").to_html()
    assert "<b>" not in html and "&lt;b&gt;" in html
    assert "0.924 [0.250,\N{NO-BREAK SPACE}0.750]" in html and "FF_low" not in html
    assert "FF ↑" in html and "AD ↓" in html and "Table III" in html


def test_only_rows_of_one_group_are_compared():
    table = pd.DataFrame({"condition": list("aabb"), "mask": "bin", "FF": [0.1, 0.2, 0.3, 0.4]})
    found = colours(table_styles.style_table(table, compared=["condition"]).to_html())
    assert {row: found[row, 2] for row in range(4)} == {
        0: table_styles.ORANGE,
        1: table_styles.GREEN,
        2: table_styles.ORANGE,
        3: table_styles.GREEN,
    }


def test_names_are_printed_in_words_and_errors_with_their_size():
    table = pd.DataFrame(
        {
            "spectrogram_type": ["stft_db"],
            "noise_scenario": ["white"],
            "best": ["gradcam + bin"],
            "relative_error": [3.2e-9],
            "test_acc": [45.0],
            "test_acc_low": [25.84],
            "test_acc_high": [65.79],
        }
    )
    html = table_styles.style_table(table).to_html()
    for words in (
        ">STFT<",
        ">white noise<",
        ">Grad-CAM + bin<",
        ">3.2e-09<",
        "45.0 [25.8,\N{NO-BREAK SPACE}65.8]",
    ):
        assert words in html
    assert ">noise<" in html and "noise_scenario" not in html


def test_a_table_without_bounds_has_its_means():
    table = pd.DataFrame({"mask": ["bin"], "FF": [0.5], "FF_low": [0.1], "FF_high": [0.9], "very_low": [1]})
    assert list(tables.without_intervals(table)) == ["mask", "FF", "very_low"]


def test_tables_have_the_study_s_numbers_and_others_their_names():
    assert (
        tables.table_name(("mel_db", "horse")) == "VI"
        and tables.table_name(("stft_db", "horse")) == "stft_db_horse"
    )


def test_latex_is_coloured_and_escaped():
    table = tables.study_table(published.published_results(), ("mel_db", "clean"))
    latex = table_styles.latex_table(table.assign(COMP_rel=0.5), caption="Clean mel", label="tab:iii")
    assert r"topK\_50\_pos" in latex and "COMP / ln d" in latex and "Saliency" in latex
    assert not re.search(r"(?<!\\)_", latex.replace("cellcolor", ""))
    assert latex.count(r"\cellcolor[HTML]{B7E1B0}") == 5 and latex.count(r"\cellcolor[HTML]{F6E58D}") == 2
    assert r"$\downarrow$" in latex and r"\caption{Clean mel}" in latex and r"\label{tab:iii}" in latex


def test_clips_without_a_known_class_are_neither_right_nor_wrong():
    scores = clip_scores()
    known = scores["correct"].astype("boolean")
    known[scores["clip"] == scores["clip"].iloc[0]] = pd.NA
    n = tables.summarise(scores.assign(correct=known)).groupby("subset")["n"].first()
    whole = tables.summarise(scores).groupby("subset")["n"].first()
    assert n["all"] == whole["all"] and n["correct"] + n["incorrect"] == whole["all"] - 1
    none = tables.summarise(scores.assign(correct=pd.array([pd.NA] * len(scores), dtype="boolean")))
    assert (none.loc[none["subset"] != "all", "n"] == 0).all()

"""What listeners answered: read from files, counted per listener, and put into words."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pandas as pd
import pytest
from gallery_entries import CLASSES
from scipy import stats

from audioxai_utils.gallery.listening import (
    COLUMNS,
    ORIGINAL,
    agreement,
    in_words,
    krippendorff_alpha,
    opinion_scores,
    read_answers,
)


def made_up(n_listeners: int = 5, n_sounds: int = 12, seed: int = 0) -> pd.DataFrame:
    """Answers of listeners who are right more often for some methods, and miss some sounds."""
    rng, rows = random.Random(seed), []
    for listener, sound in itertools.product(range(n_listeners), range(n_sounds)):
        if rng.random() < 0.2:
            continue
        method, category = ("lime", "shap", ORIGINAL)[sound % 3], CLASSES[sound % 4]
        right = rng.random() < (0.4, 0.6, 0.9)[sound % 3]
        rows.append(
            {
                "test": "t",
                "participant": f"p{listener}",
                "seed": listener,
                "n_trials": n_sounds,
                "trial": sound + 1,
                "n_choices": 5,
                "sound": f"s{sound}",
                "clip": f"c{sound}",
                "category": category,
                "predicted": CLASSES[(sound + sound % 2) % 4],
                "predicted_part": CLASSES[(sound + 1) % 4],
                "spectrogram_type": "mel_db",
                "noise_scenario": "clean",
                "method": method,
                "mask": "" if method == ORIGINAL else "bin",
                "protocol": "paper",
                "heard": category if right else rng.choice(("something else", *CLASSES)),
                "clear": rng.randint(1, 5),
                "plays": 1,
                "seconds": 3.5,
                "answered": "2026-01-01T00:00:00.000Z",
                "silent": "",
            }
        )
    return pd.DataFrame(rows)[list(COLUMNS)]


def slow_alpha(units: list[list]) -> float:
    """Krippendorff's alpha by its definition over pairs; ``units`` holds lists of answers."""
    units = [unit for unit in units if len(unit) > 1]
    everything = [answer for unit in units for answer in unit]
    n = len(everything)
    observed = (
        sum(sum(a != b for a, b in itertools.permutations(unit, 2)) / (len(unit) - 1) for unit in units) / n
    )
    expected = sum(a != b for a, b in itertools.permutations(everything, 2)) / (n * (n - 1))
    return 1 - observed / expected


def test_alpha_of_the_textbook_s_example():
    """Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", example C: nominal data, 0.743."""
    gap = math.nan
    raters = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, gap, gap, gap],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, gap, 3],
        [gap, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, gap],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, gap],
    ]
    assert krippendorff_alpha(np.array(raters).T) == pytest.approx(0.743, abs=5e-4)


@pytest.mark.parametrize("seed", range(5))
def test_alpha_equals_the_definition_over_pairs(seed):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 4, (9, 5)).astype(float)
    codes[rng.random(codes.shape) < 0.3] = np.nan
    units = [[value for value in row if not math.isnan(value)] for row in codes]
    assert krippendorff_alpha(codes) == pytest.approx(slow_alpha(units), abs=1e-12)


def test_alpha_at_its_ends():
    assert krippendorff_alpha([[1, 1], [2, 2], [1, 1]]) == 1
    assert krippendorff_alpha([[1, 2], [2, 1]]) < 0
    assert math.isnan(krippendorff_alpha([[1, math.nan], [math.nan, 2]]))  # nobody heard the same sound
    assert math.isnan(krippendorff_alpha([[1, 1], [1, 1]]))  # one category: nothing to disagree on
    with pytest.raises(ValueError, match="units, raters"):
        krippendorff_alpha([1, 2])


@pytest.mark.parametrize("by", [["method"], ["method", "mask"], ["noise_scenario", "method"]])
def test_shares_and_scores_are_means_over_listeners(by):
    answers = made_up()
    table, scores = agreement(answers, by), opinion_scores(answers, by)
    assert len(table) == len(scores) == 3 and table["method"].tolist() == [ORIGINAL, "lime", "shap"]
    for (_, row), (_, score) in zip(table.iterrows(), scores.iterrows()):
        rows = [r for r in answers.to_dict("records") if r["method"] == row["method"]]
        people = {r["participant"] for r in rows}
        truths = {"true_class": "category", "predicted": "predicted", "predicted_part": "predicted_part"}
        for column, truth in truths.items():
            own = [[r["heard"] == r[truth] for r in rows if r["participant"] == person] for person in people]
            assert row[column] == pytest.approx(sum(sum(o) / len(o) for o in own) / len(own))
            shares, low, high = {sum(o) / len(o) for o in own}, row[f"{column}_low"], row[f"{column}_high"]
            few_agree = len(people) < 6 and len(shares) == 1
            assert (
                (math.isnan(low) and math.isnan(high)) if few_agree else 0 <= low <= row[column] <= high <= 1
            )
        own = [[r["clear"] for r in rows if r["participant"] == person] for person in people]
        assert score["clear"] == pytest.approx(sum(sum(o) / len(o) for o in own) / len(own))
        heard = sorted({r["sound"] for r in rows})
        assert (row["listeners"], row["sounds"], row["answers"]) == (len(people), len(heard), len(rows))
        units = [[r["heard"] for r in rows if r["sound"] == sound] for sound in heard]
        assert row["alpha"] == pytest.approx(slow_alpha(units), abs=1e-12)


def test_intervals_are_those_of_resampled_listeners():
    """Against a loop that draws listeners itself: Student-widened percentiles, equal within the noise of
    resampling.
    """
    answers = made_up(12, 9, seed=3)
    scores = opinion_scores(answers, by=["method"]).set_index("method")
    rng, own = random.Random(1), {}
    for r in answers[answers["method"] == "lime"].to_dict("records"):
        own.setdefault(r["participant"], []).append(r["clear"])
    means = [sum(values) / len(values) for values in own.values()]
    n = len(means)
    drawn = sorted(sum(rng.choice(means) for _ in means) / n for _ in range(20000))
    tail = stats.norm.cdf(math.sqrt(n / (n - 1)) * stats.t.ppf(0.025, n - 1))
    assert scores.loc["lime", "clear_low"] == pytest.approx(drawn[round(tail * 20000)], abs=0.05)
    assert scores.loc["lime", "clear_high"] == pytest.approx(drawn[round((1 - tail) * 20000)], abs=0.05)


def test_one_listener_has_a_mean_and_no_interval():
    row = opinion_scores(made_up(1), by=["method"]).iloc[0]
    assert row["listeners"] == 1 and 1 <= row["clear"] <= 5 and math.isnan(row["clear_low"])
    assert agreement(made_up(1), by=["method"])["alpha"].isna().all()


def test_words_tell_the_figures_or_how_to_come_by_them():
    answers = made_up()
    kept = answers[answers["method"] != ORIGINAL]
    row = agreement(kept.assign(all=1), ["all"]).iloc[0]
    text = in_words(answers)
    assert f"({len(kept)} answers of 5 listeners to 8 sounds)" in text
    assert f"a listener hears the true class in {row['true_class']:.0%}" in text
    assert f"alpha of {row['alpha']:.2f}" in text and "The whole sounds" in text
    assert "alpha" not in in_words(made_up(1)) and "nan" not in in_words(made_up(1))
    assert "listening.html" in in_words(None) and "folder `listening`" in in_words(None)


def test_files_are_read_together_and_a_row_saved_twice_counts_once(tmp_path):
    answers = made_up()
    for person, part in answers.groupby("participant"):
        part.to_csv(tmp_path / f"{person}.csv", index=False)
    early = answers[answers["participant"] == "p0"].iloc[:3]
    early.to_csv(tmp_path / "p0-early.csv", index=False, encoding="utf-8-sig")
    found = read_answers(tmp_path)
    order = ["participant", "trial"]
    pd.testing.assert_frame_equal(
        found.sort_values(order, ignore_index=True),
        answers.sort_values(order, ignore_index=True),
        check_dtype=False,
    )
    assert len(read_answers(tmp_path / "p1.csv")) == (answers["participant"] == "p1").sum()
    two = read_answers([tmp_path / "p1.csv", tmp_path / "p2.csv"])
    assert len(two) == answers["participant"].isin(["p1", "p2"]).sum()


def changed(**values) -> str:
    frame = made_up(2).astype(object)
    for name, value in values.items():
        frame.loc[1, name] = value
    return frame.to_csv(index=False)


@pytest.mark.parametrize(
    "content, words",
    [
        ("", "not a readable CSV"),
        ("\xff\xfe\x00bad".encode("latin1"), "not a readable CSV"),
        ("a;b\n1;2\n", "lacks the column test, participant"),
        (",".join(COLUMNS) + "\n", "holds no answers"),
        (made_up(1).drop(columns="clear").to_csv(index=False), "lacks the column clear"),
        (changed(clear=6), "line 3: clear must be a whole number from 1 to 5; got '6'"),
        (changed(clear="4.5"), "line 3: clear must be"),
        (changed(heard=""), "line 3: heard must be text; got ''"),
        (changed(participant=""), "line 3: participant must be text"),
        (changed(seed="x"), "line 3: seed must be a whole number"),
        (changed(seconds="soon"), "line 3: seconds must be a number"),
    ],
)
def test_bad_files_end_in_one_line_that_names_the_file(tmp_path, content, words):
    path = tmp_path / "answers.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=words) as error:
        read_answers(path)
    assert "answers.csv" in str(error.value) and "\n" not in str(error.value)


def test_missing_files_and_contradictions_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no CSV files"):
        read_answers(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_answers(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="at least one file"):
        read_answers([])
    made_up(1).to_csv(tmp_path / "a.csv", index=False)
    made_up(1).assign(heard="something else").to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(ValueError, match="'p0' has two different answers to trial"):
        read_answers(tmp_path)
    with pytest.raises(ValueError, match="by must be a list of columns"):
        agreement(made_up(), by=["instrument"])
    with pytest.raises(ValueError, match="by must be a list of columns"):
        opinion_scores(made_up(), by="method")

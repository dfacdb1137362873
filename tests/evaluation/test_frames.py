"""Frames of scores: columns, order, one protocol at a time, one row per clip and mask."""

import itertools
import random

import numpy as np
import pandas as pd
import pytest

from audioxai_utils.constants import MASK_NAMES, STUDY_CONDITIONS, STUDY_METHODS
from audioxai_utils.evaluation import frames
from audioxai_utils.words import percent


def test_rows_are_sorted_as_the_paper_prints_them_and_unknown_names_come_last():
    conditions, methods, masks = (
        [*STUDY_CONDITIONS, ("cqt", "rain")],
        [*STUDY_METHODS, "zeta"],
        ["minmax", "bin", "topK_50_pos"],
    )
    expected = [
        (*condition, method, mask)
        for condition, method, mask in itertools.product(conditions, methods, masks)
    ]
    shuffled = random.Random(0).sample(expected, len(expected))
    assert shuffled != expected
    frame = pd.DataFrame(shuffled, columns=[*frames.CONDITION, "method", "mask"])
    assert list(frames.in_study_order(frame).itertuples(index=False, name=None)) == expected
    # the order that was asked for is the study's
    assert [mask for mask in MASK_NAMES if mask in masks] == masks


def test_rows_of_a_control_come_after_the_method_s_own():
    frame = pd.DataFrame(
        {
            "spectrogram_type": "mel_db",
            "noise_scenario": "clean",
            "method": "lime",
            "control": ["oracle", np.nan, "random", ""],
            "value": [4, 1, 3, 2],
        }
    )
    ordered = frames.in_study_order(frame)
    assert ordered["value"].tolist()[-2:] == [3, 4]
    assert sorted(frames.methods_only(frame)["value"]) == [1, 2]
    assert frames.methods_only(frame.drop(columns="control")).equals(frame.drop(columns="control"))


def test_one_protocol_at_a_time():
    frame = pd.DataFrame({"protocol": ["paper", "audited", "paper"], "value": [1, 2, 3]})
    assert frames.of_protocol(frame, "paper", "scores")["value"].tolist() == [1, 3]
    assert frames.of_protocol(frame[["value"]], "paper", "scores")["value"].tolist() == [1, 2, 3]
    assert frames.of_protocol(frame.iloc[[0, 2]], None, "scores")["value"].tolist() == [1, 3]
    with pytest.raises(ValueError, match="scores holds the protocols paper, audited; say which"):
        frames.of_protocol(frame, None, "scores")
    with pytest.raises(ValueError, match="scores must hold protocol 'audited'; got paper"):
        frames.of_protocol(frame.iloc[[0]], "audited", "scores")


def test_a_frame_that_does_not_fit_is_one_line():
    with pytest.raises(TypeError, match="scores must be a pandas DataFrame; got list"):
        frames.check_columns([1], ["a"], "scores")
    with pytest.raises(ValueError, match="scores lacks the columns b, c; it must have a, b, c"):
        frames.check_columns(pd.DataFrame({"a": [1]}), ["a", "b", "c"], "scores")
    with pytest.raises(ValueError, match="scores is empty"):
        frames.check_columns(pd.DataFrame({"a": []}), ["a"], "scores")
    frames.check_columns(pd.DataFrame({"a": [1]}), ["a"], "scores")


def test_a_condition_is_its_type_and_its_scenario():
    frame = pd.DataFrame(
        {
            "spectrogram_type": ["mel_db", "mel_db", "stft_db"],
            "noise_scenario": ["clean", "white", "clean"],
            "value": [1, 2, 3],
        }
    )
    assert frames.of_condition(frame, ("mel_db", "clean"))["value"].tolist() == [1]
    assert frames.of_condition(frame, ("stft_db", "white")).empty


def test_a_matrix_has_each_score_in_its_place_and_nan_where_a_clip_has_none():
    rows = [
        (clip, method, mask, 100 * c + 10 * m + k)
        for (c, clip), (m, method), (k, mask) in itertools.product(
            enumerate("xyz"), enumerate(("lime", "shap")), enumerate(("bin", "minmax"))
        )
    ]
    missing = rows.pop(5)
    frame = pd.DataFrame(rows, columns=["clip", "method", "mask", "FF"]).sample(frac=1, random_state=0)
    matrix = frames.clip_matrix(frame, ["FF"])
    for clip, method, mask, value in rows:
        assert matrix.loc[clip, ("FF", method, mask)] == value
    assert (
        np.isnan(matrix.loc[missing[0], ("FF", missing[1], missing[2])])
        and matrix.isna().to_numpy().sum() == 1
    )
    with pytest.raises(ValueError, match="some occur twice"):
        frames.clip_matrix(pd.concat([frame, frame.iloc[:1]]), ["FF"])


def test_a_frame_in_words_names_its_condition_and_methods_and_keeps_the_rest():
    frame = pd.DataFrame(
        {
            "method": ["gradcam", "mine"],
            "spectrogram_type": ["mel_db", "stft_db"],
            "noise_scenario": ["white", "hum"],
            "FF": [0.1, 0.2],
        }
    )
    found = frames.in_words(frame)
    assert found.columns.tolist() == ["condition", "method", "FF"] and found["FF"].tolist() == [0.1, 0.2]
    assert found["condition"].tolist() == ["mel, white noise", "STFT, hum"]
    assert found["method"].tolist() == ["Grad-CAM", "mine"] and "spectrogram_type" in frame
    assert frames.in_words(frame.drop(columns="method")).columns.tolist() == ["condition", "FF"]


def test_shares_are_said_in_per_cent():
    assert [percent(0.454), percent(1, 1), percent(float("nan"))] == ["45 %", "100.0 %", "n/a"]

"""Shared handling of frames of scores: required columns, the study's order, one protocol at a time.

A `condition` is a pair (spectrogram type, noise scenario). A `control` column names the control (random,
energy ...) that a row belongs to; rows of the methods themselves have "" or NaN there.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ..constants import (
    CONDITION,
    MASK_NAMES,
    NOISE_SCENARIOS,
    PROTOCOLS,
    STUDY_CONDITIONS,
    STUDY_METHODS,
    STUDY_METRICS,
)
from ..words import column_label, condition_label, method_label

SUBSETS = ("all", "correct", "incorrect")
CONTROLS = ("random", "energy", "all_ones", "oracle")
ORDERS = {
    "protocol": PROTOCOLS,
    "condition": STUDY_CONDITIONS,
    "noise_scenario": NOISE_SCENARIOS,
    "control": ("", *CONTROLS),
    "subset": SUBSETS,
    "metric": STUDY_METRICS,
    "method": STUDY_METHODS,
    "mask": MASK_NAMES,
}


def check_columns(frame: pd.DataFrame, columns: Sequence[str], argument: str) -> None:
    """Raise a TypeError or ValueError unless ``frame`` is a filled frame with ``columns``."""
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(f"{argument} must be a pandas DataFrame; got {type(frame).__name__}")
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise ValueError(
            f"{argument} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; "
            f"it must have {', '.join(columns)}"
        )
    if frame.empty:
        raise ValueError(f"{argument} is empty; give at least one row")


def check_keys(frame: pd.DataFrame, keys: Sequence[str], argument: str) -> None:
    """Raise a ValueError where a key has no value: grouping would leave the row out without a word."""
    empty = [key for key in keys if frame[key].isna().any()]
    if empty:
        raise ValueError(
            f"{argument} has rows without {', '.join(empty)}; name it, or leave these rows out "
            "(was it concatenated from frames of different columns, or read with a name like NA?)"
        )


def in_study_order(frame: pd.DataFrame) -> pd.DataFrame:
    """Sort rows as the paper prints them; names it does not know come after, in alphabetical order."""
    frame = frame.reset_index(drop=True)
    names = frame.assign(condition=list(zip(*(frame[name] for name in CONDITION))))
    if "control" in names:
        # the methods' own
        names["control"] = names["control"].astype(object).where(names["control"].notna(), "")
    keys = pd.DataFrame(index=frame.index)
    for column, order in ORDERS.items():
        if column in names:
            ranks = {name: rank for rank, name in enumerate(order)}
            keys[column] = [ranks.get(name, len(ranks)) for name in names[column]]
            keys[f"{column}_name"] = ["" if pd.isna(name) is True else str(name) for name in names[column]]
    return frame.loc[keys.sort_values(list(keys.columns), kind="stable").index].reset_index(drop=True)


def methods_only(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the methods, without those of controls."""
    if "control" not in frame:
        return frame
    return frame[frame["control"].isna() | (frame["control"] == "")]


def of_protocol(frame: pd.DataFrame, protocol: str | None, argument: str) -> pd.DataFrame:
    """Rows of one protocol; a frame without the column is returned as it is."""
    if "protocol" not in frame:
        return frame
    names = list(frame["protocol"].unique())
    if protocol is None and len(names) > 1:
        raise ValueError(f"{argument} holds the protocols {', '.join(names)}; say which with protocol=")
    if protocol is not None and protocol not in names:
        raise ValueError(f"{argument} must hold protocol {protocol!r}; got {', '.join(names)}")
    return frame[frame["protocol"] == (protocol or names[0])]


def of_condition(frame: pd.DataFrame, condition: tuple[str, str]) -> pd.DataFrame:
    """Rows of one (spectrogram type, noise scenario)."""
    return frame[(frame[CONDITION[0]] == condition[0]) & (frame[CONDITION[1]] == condition[1])]


def in_words(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame as it is read: a first column ``condition`` in the place of the two; methods, measures and
    metrics by their names.
    """
    names = [condition_label(*pair) for pair in frame[CONDITION].itertuples(index=False)]
    found = frame.drop(columns=CONDITION)
    found.insert(0, "condition", names)
    words = {"method": method_label, "measure": column_label, "metric": column_label}
    return found.assign(**{name: found[name].map(said) for name, said in words.items() if name in found})


def clip_matrix(scores: pd.DataFrame, metrics: Sequence[str] = STUDY_METRICS) -> pd.DataFrame:
    """Scores of one protocol and condition as (clips, (metric, method, mask)); NaN for no row."""
    check_columns(scores, ["clip", "method", "mask", *metrics], "scores")
    if scores.duplicated(["clip", "method", "mask"]).any():
        raise ValueError(
            "scores must have one row per clip, method and mask of a condition; some occur twice"
        )
    matrix = scores.pivot(index="clip", columns=["method", "mask"], values=list(metrics)).astype(float)
    return matrix.rename_axis(columns=["metric", "method", "mask"])

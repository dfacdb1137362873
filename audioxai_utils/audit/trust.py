"""Which explanation method can be trusted for this classifier: what the run's checks say, a row a method.

Everything is read from the run's tables; a check that was not made is NaN. What is asked, and what counts:

gradient    the classifier's input gradient agrees with central differences (methods that follow it)
adds up     the values sum to the difference that they promise to explain (median relative error at most 1e-3)
learnt      the map changes when every layer is drawn anew (mean Spearman of absolute values below 0.5)
repeats     LIME's weights agree between two seeds (mean Spearman at least 0.5)
controls    the share of its masks that beat random bins, and the loudest bins, of the same area (FF and AD)
heard       the share of clips on which the sound that its best mask keeps still has the class
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd

from ..attributions import METHODS
from ..evaluation.frames import of_condition
from ..words import method_label
from .sentences import read_table

if TYPE_CHECKING:
    from ..study.study import Study

GRADIENT_ERROR, ADDITIVITY_ERROR = 1e-3, 1e-3  # relative
UNCHANGED, REPEATED = 0.5, 0.5  # Spearman
MOST = 0.5  # of the masks that beat a control
CHECKS = ("gradient", "adds_up", "learnt", "repeats", "beats_random", "beats_loudest", "heard")


def trust(study: Study) -> pd.DataFrame:
    """The checks of every method of the run in its main condition, and what follows.

    Returns
    -------
    DataFrame
        method; gradient (relative error), adds_up (relative error, median), learnt (Spearman with the map of
        a model without what it learnt), repeats (Spearman between seeds), beats_random, beats_loudest (shares
        of masks), heard (share of clips); ``doubts``, in words, "" where every check that was made is passed;
        ``refused``, why a method cannot explain this classifier.
    """
    condition = study.main_condition
    refused = condition.classifier.info.get("refused", {})
    rows = []
    for method in study.settings.explained_by:
        if method in refused:
            rows.append({"method": method, "doubts": "", "refused": refused[method]})
            continue
        measured = {
            "gradient": _gradient(study, method),
            "adds_up": _median(study, "additivity", method, "additivity_error"),
            "learnt": _learnt(study, method),
            "repeats": _mean(read_table(study.results, "lime_stability"), "spearman")
            if method == "lime"
            else math.nan,
            **_controls(study, condition.pair, method),
            "heard": _heard(study, condition.pair, method),
        }
        rows.append({"method": method, **measured, "doubts": "; ".join(_doubts(measured)), "refused": ""})
    return pd.DataFrame(rows, columns=["method", *CHECKS, "doubts", "refused"])


def sentence(table: pd.DataFrame) -> str:
    """What `trust` says, in one or two sentences of Markdown."""
    good = [method_label(row.method) for row in table.itertuples() if not row.doubts and not row.refused]
    doubted = [f"{method_label(row.method)} ({row.doubts})" for row in table.itertuples() if row.doubts]
    refused = [method_label(row.method) for row in table.itertuples() if row.refused]
    parts = [
        f"**{', '.join(good)}** passed every check that was made."
        if good
        else "No method passed every check."
    ]
    parts += [f"In doubt: {'; '.join(doubted)}."] if doubted else []
    parts += [f"This classifier cannot be explained by {', '.join(refused)}."] if refused else []
    return " ".join(parts)


def _doubts(measured: dict[str, float]) -> list[str]:
    """Why a method is in doubt; checks that were not made (NaN) raise none."""
    said = []
    if measured["gradient"] > GRADIENT_ERROR:
        said.append("wrong gradient")
    if measured["adds_up"] > ADDITIVITY_ERROR:
        said.append("does not add up")
    if measured["learnt"] >= UNCHANGED:
        said.append("hardly changes without what was learnt")
    if measured["repeats"] < REPEATED:
        said.append("changes with the seed")
    if measured["beats_random"] < MOST:
        said.append("most masks not surely better than random bins")
    if measured["beats_loudest"] < MOST:
        said.append("most masks not surely better than the loudest bins")
    return said


def _gradient(study: Study, method: str) -> float:
    table = read_table(study.results, "gradient_check")
    if table is None or not METHODS.traits(method).gradients:
        return math.nan
    return float(table["relative_error"].iloc[0])


def _median(study: Study, name: str, method: str, column: str) -> float:
    table = read_table(study.results, name)
    return math.nan if table is None else float(table.loc[table["method"] == method, column].median())


def _mean(table: pd.DataFrame | None, column: str) -> float:
    return math.nan if table is None else float(table[column].mean())


def _learnt(study: Study, method: str) -> float:
    """Spearman, absolute, once every layer is drawn anew."""
    table = read_table(study.results, "randomisation")
    if table is None:
        return math.nan
    rows = table[(table["method"] == method) & (table["kind"] == "absolute")]
    return _mean(rows[rows["stage"] == table["stage"].iloc[-1]], "spearman")


def _controls(study: Study, pair: tuple[str, str], method: str) -> dict[str, float]:
    table = read_table(study.results, "control_marks")
    if table is None:
        return {"beats_random": math.nan, "beats_loudest": math.nan}
    rows = of_condition(table[(table["protocol"] == "audited") & (table["method"] == method)], pair)
    said = rows["not_better_than"].astype(object).fillna("")
    return {
        "beats_random": float((~said.str.contains("random")).mean()),
        "beats_loudest": float((~said.str.contains("energy")).mean()),
    }


def _heard(study: Study, pair: tuple[str, str], method: str) -> float:
    table = read_table(study.results, "methods")
    if table is None or "FidIn_heard" not in table:
        return math.nan
    rows = of_condition(table[(table["protocol"] == "audited") & (table["method"] == method)], pair)
    return _mean(rows, "FidIn_heard")

"""The page of many methods on one tagger: its table is the stored one, and names those that it lacks."""

from __future__ import annotations

import re

from audioxai_utils.attributions import METHODS
from audioxai_utils.constants import REPOSITORY
from audioxai_utils.evaluation.masks import MASKS
from audioxai_utils.published import tagger_methods

PAGE = (REPOSITORY / "docs" / "every-method.md").read_text(encoding="utf-8")
DIGITS = {"FF": 2, "FidIn": 1, "AD": 0, "area": 2, "FF_heard": 2, "FidIn_heard": 1, "AD_heard": 0}


def shown(value: float, digits: int) -> str:
    """A number as the page has it: no zero before the point."""
    return re.sub(r"^(-?)0\.", r"\1.", f"{value:.{digits}f}")


def test_the_page_s_table_is_the_stored_one():
    rows = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if re.match(r"\| `\w+` \|", line)]
    assert rows == [
        [f"`{row['method']}`", shown(row["seconds"], 1), f"`{row['mask']}`"]
        + [shown(row[name], digits) for name, digits in DIGITS.items()]
        for _, row in tagger_methods().iterrows()
    ]


def test_every_registered_method_is_in_it():
    table = tagger_methods()
    assert sorted(table["method"]) == sorted(METHODS) and set(table["mask"]) <= set(MASKS)


def test_what_the_page_says_is_what_the_table_says():
    table = tagger_methods().set_index("method")
    scores = table[["FidIn", "FidIn_heard", "area"]]
    assert scores.ge(0).all(axis=None) and scores.le(1).all(axis=None) and (table["seconds"] > 0).all()
    best = table.loc[["extremal", "extremal_20", "extremal_robust"]]
    assert (best[["FidIn", "FidIn_heard"]] == 1).all(axis=None) and best["area"].between(0.19, 0.36).all()
    assert table["FF"].max() - best["FF"].min() < 0.005
    assert table.loc["extremal_heard", "FidIn_heard"] < 0.5
    for method in ("saliency", "smoothgrad", "shap", "gradient_shap", "integrated_gradients"):
        assert table.loc[method, "FidIn"] <= 0.2 and table.loc[method, "FidIn_heard"] >= 0.5
    assert table.loc["audiolime", "FidIn"] == 0.7 and table.loc["audiolime", "area"] > 0.8
    for method in ("gradcam", "lime"):
        assert table.loc[method, ["FidIn", "FidIn_heard"]].min() >= 0.7 and table.loc[method, "area"] > 0.6
    assert table.loc[["lmac", "lmac_ft", "lmac_td"], "area"].min() > 0.9

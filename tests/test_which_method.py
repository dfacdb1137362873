"""The page that says which method to use claims what the stored notebooks say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = " ".join((REPOSITORY / "docs" / "which-method.md").read_text(encoding="utf-8").split())
# What the page says, the notebook, what its sentences say; groups are the same numbers in the same order.
CLAIMS = {
    "LIME's R2": (
        r"catches (\d+) % of the classifier's answer",
        "08_sanity_checks",
        r"regression catches (\d+) % of",
    ),
    "two seeds": (r"a rank correlation of (\.\d+) ", "08_sanity_checks", r"a rank correlation of 0(\.\d+)"),
    "drawn anew": (r"trained model, ρ = (\.\d+) ", "08_sanity_checks", r"trained model \(ρ = 0(\.\d+) of"),
    "additivity": (r"misses its sum by (\d+) %", "07_audit", r"SHAP misses additivity by (\d+) %"),
    "heard": (
        r"class on (\d+) % of the clips as scored in decibels and on (\d+) % as heard",
        "07_audit",
        r"keeps the class on (\d+) % of the clips as scored and on (\d+) % as heard",
    ),
    "best as heard": (
        r"kept by LIME on (\d+) % of the clips, by Grad-CAM on (\d+) %, by saliency and SHAP on (\d+) %",
        "06_listening_gallery",
        r"LIME (\d+)%, Grad-CAM (\d+)%, Saliency (\d+)%, SHAP \3%",
    ),
    "controls": (r"none of (\d+) masks beat random", "05_metrics_and_tables", r"\*\*0 of (\d+)\*\* masks"),
    "source": (
        r"lies on it most: (\d+) %, by chance (\d+) % in clean mel; the clip's own power has (\d+) %",
        "10_localisation",
        r"mel, clean: SHAP has .*? \((\d+) %; by chance (\d+) %, the clips' own power (\d+) %\)",
    ),
    "another model": (
        r"In another model best masks keep the class on (\d+) %",
        "10_localisation",
        r"best masks: .*? and (\d+) % in the second model",
    ),
}


def sentences(notebook: str) -> str:
    """What a stored notebook's outputs say in words."""
    content = json.loads((REPOSITORY / "notebooks" / f"{notebook}.ipynb").read_text(encoding="utf-8"))
    outputs = [each for cell in content["cells"] for each in cell.get("outputs", [])]
    return " ".join("".join(each.get("data", {}).get("text/markdown", "")) for each in outputs)


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_is_what_its_notebook_says(claim):
    said, notebook, source = CLAIMS[claim]
    ours, theirs = re.search(said, PAGE), re.search(source, sentences(notebook))
    assert ours and theirs, (ours, theirs)
    assert ours.groups() == theirs.groups()


def test_the_conditions_in_which_faithful_and_on_the_source_disagree_are_counted():
    found = re.findall(r"goes with that share at ρ = (-?[\d.]+)", sentences("10_localisation"))
    words = {0: "none", 1: "one", 2: "two", 3: "three", 4: "four", 5: "all"}
    against = words[sum(float(each) < 0 for each in found)]
    assert len(found) == 5 and f"go against each other in {against} of five conditions" in PAGE


def test_noise_levels_are_those_of_the_table():
    text = sentences("11_noise_levels")
    right = sorted(int(each) for each in re.findall(r": (\d+) % at -6 dB", text))
    kept = sorted(int(each) for each in re.findall(r"keep the class on (\d+) % and", text))
    assert f"right on {right[0]} to {right[-1]} % of the clips" in PAGE
    assert f"keep even its own answer on {kept[0]} to {kept[-1]} %" in PAGE


def test_seconds_are_those_of_the_plan():
    plan = (REPOSITORY / "benchmarks" / "AUDIOSET.md").read_text(encoding="utf-8")
    for ours, theirs, digits in (
        (r"`gradcam` \| ([\d.]+)", "attributions, gradcam", 3),
        (r"`saliency` \| ([\d.]+)", "attributions, saliency", 3),
        (r"`shap`, 20 reference clips \| ([\d.]+)", "attributions, shap", 2),
        (r"`lime`, 200 neighbours \| ([\d.]+)", "attributions, lime", 2),
        (r"all masks and scores \| ([\d.]+)", "masks and scores", 1),
    ):
        measured = re.search(rf"\| {theirs} \| ([\d.]+)", plan).group(1)
        assert float(re.search(ours, PAGE).group(1)) == round(float(measured), digits)

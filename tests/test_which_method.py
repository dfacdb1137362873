"""The page that says which method to use claims what the stored notebooks say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from audioxai_utils import published
from audioxai_utils.audit.planted import agreement, holding, warning
from audioxai_utils.audit.planted import sentences as planted
from audioxai_utils.audit.stems import tables

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
    "fragile": (
        r"leaves Grad-CAM's most alike, ρ = (\.\d+), and saliency's least, ρ = (\.\d+); "
        r"an attack .*? from (\.\d+) to -(\.\d+), saliency's to (\.\d+) ",
        "08_sanity_checks",
        r"leaves Grad-CAM most alike \(ρ = 0(\.\d+)\) and Saliency least \(ρ = 0(\.\d+)\); "
        r".* an attack .*? from 0(\.\d+) to -0(\.\d+) and .*? to 0(\.\d+)\.",
    ),
    "heard": (
        r"class on (\d+) % of the clips as scored in decibels and on (\d+) % as heard",
        "07_audit",
        r"keeps the class on (\d+) % of the clips as scored and on (\d+) % as heard",
    ),
    "best as heard": (
        r"by SHAP on (\d+) % of the clips, by saliency on (\d+) %, by LIME on (\d+) %, by Grad-CAM on (\d+) %",
        "06_listening_gallery",
        r"SHAP (\d+)%, Saliency (\d+)%, LIME (\d+)%, Grad-CAM (\d+)%",
    ),
    "controls": (
        r"(\d+) of (\d+) masks beat random",
        "05_metrics_and_tables",
        r"\*\*(\d+) of (\d+)\*\* masks",
    ),
    "source": (
        r"lies on it most: (\d+) %, by chance (\d+) % in white noise; the clip's own power has (\d+) %",
        "10_localisation",
        r"mel, white noise: SHAP has .*? \((\d+) %; by chance (\d+) %, the clips' own power (\d+) %\)",
    ),
    "another model": (
        r"In another model best masks keep the class on (\d+) % of the clips, and on (\d+) % as heard",
        "10_localisation",
        r"best masks: .*? and (\d+) % in the second model \((\d+) % heard",
    ),
}


def short(value: float) -> str:
    """A share as the page prints it, ``.34``."""
    return f"{value:.2f}".removeprefix("0")


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
    assert len(found) == 3 and f"go against each other in {against} of three noises" in PAGE


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


def test_planted_causes_are_those_of_the_published_tables():
    points = published.planted_points()
    cases = points.pivot_table("average_precision", "case", "method", "mean", observed=True)
    found, n_clips = cases.mean(), points.groupby("case", observed=True)["clip"].nunique()
    assert planted.place_of(points, "extremal_robust") == (2, 22) and (n_clips == 10).all()
    named = [short(found[name]) for name in ("rise", "extremal_robust", "shap", "lime", "level", "random")]
    assert found[agreement.judged_everywhere(points)].drop("oracle").idxmax() == "rise"
    sentence = (
        "come first, not surely (average precision {} and {}), exact Deep SHAP has {}, LIME {}, loudness alone {}, "
        "chance {} "
    )
    assert sentence.format(*named) in PAGE and f": {len(cases)} cases of ten clips" in PAGE
    row = "[{} cases](notebooks/12_planted_causes.ipynb): RISE {}, masks for any fill {}, Deep SHAP {}, LIME {}, "
    readme = " ".join((REPOSITORY / "README.md").read_text(encoding="utf-8").split())
    assert row.format(len(cases), *named[:4]) + f"loudness {named[4]}:" in readme


def test_the_metric_to_trust_is_that_of_the_published_tables():
    points = published.planted_points()
    means = agreement.case_means(points, published.planted_scores())
    agreed = agreement.agreement(points, means).set_index(["metric", "mask", "fill"])
    best = agreed[agreed["n_cases"] == agreed["n_cases"].max()]["spearman"].idxmax()
    assert best == ("AD", "topK_2", "mean")
    fifth = ("AD", "topK_5", "mean")
    assert short(agreed.loc[best, "spearman"]) == short(agreed.loc[fifth, "spearman"])
    for rule in (best, ("FF", "bin", "floor")):
        rho = [
            short(agreed.loc[rule, name]).replace("-0", "-")
            for name in ("spearman", "spearman_low", "spearman_high")
        ]
        assert "ρ = {} ({} to {})".format(*rho) in PAGE
    chosen = agreement.held_out(points, means)
    lost = [short(chosen.loc[chosen["way"] == agreement.WAYS[i], "regret"].mean()) for i in (0, 2, 3, 4)]
    assert (
        "loses {} of average precision, the study's mean of seven {}, the method that is best on other "
        "plants {}, a method by lot {};".format(*lost)
        in PAGE
    )
    less, low, high = (short(value).replace("-0", "-") for value in agreement.against_the_study(chosen))
    assert f"is not shown ({less}, {low} to {high}; same place)" in PAGE and low.startswith("-")


def test_what_is_told_by_ear_is_that_of_the_published_tables():
    page = " ".join((REPOSITORY / "docs" / "esc50.md").read_text(encoding="utf-8").split())
    points = published.planted_points()
    table = agreement.by_ear(points, agreement.case_means(points, published.planted_scores()))
    rho = table.set_index(["metric", "mask", "fill"])
    small = {
        fill: [rho.loc[("AD", f"topK_{area}", fill), "spearman"] for area in (2, 5, 10)]
        for fill in ("heard", "floor", "mean")
    }
    low, high = (short(edge(small["heard"])) for edge in (min, max))
    others = [short(edge(small[fill])) for fill in ("floor", "mean") for edge in (min, max)]
    told = "AD at 2 to 10 % of the bins has ρ = {} to {} (.02 to .65) as heard, {} to {} with silence, {} to {} with"
    assert told.format(low, high, *others) in page
    bounds = rho.loc[
        [("AD", f"topK_{area}", "heard") for area in (2, 5, 10)], ["spearman_low", "spearman_high"]
    ]
    assert [short(bounds.min().iloc[0]), short(bounds.max().iloc[1])] == [".02", ".65"]
    heard = rho.loc[("FF", "bin", "heard")]
    assert heard["n_cases"] == 13 and "**By ear**, in 13 of the cases" in page
    own = [short(heard[name]).replace("-0", "-") for name in ("spearman", "spearman_low", "spearman_high")]
    assert (
        "heard ({}, {} to {}) or not ({})".format(*own, short(rho.loc[("FF", "bin", "floor"), "spearman"]))
        in page
    )


def test_what_trained_methods_find_is_that_of_the_published_tables():
    page = " ".join((REPOSITORY / "docs" / "esc50.md").read_text(encoding="utf-8").split())
    points = published.planted_points()
    few = points[points["case"].isin(points.loc[points["method"] == "lmac", "case"].unique())]
    cases = few.pivot_table("average_precision", "plant", "method", "mean", observed=True)
    long, brief = ["tone", "hum", "noise"], ["chirp", "clicks", "event"]
    told = "has {}, {} and {} for a tone, a hum and a noise, where SHAP has {}, {} and {}; for a chirp, clicks and an event"
    assert told.format(*map(short, [*cases.loc[long, "l2i"], *cases.loc[long, "shap"]])) in page
    assert "which are short, {}, {} and {}. ".format(*map(short, cases.loc[brief, "l2i"])) in page
    lmac, (more, low, high) = cases["lmac"], planted.difference(few, "lmac", "level")
    told = "L-MAC has {} to {} in all six, on average {}, loudness {}: {} more ({} to {})"
    values = [lmac.min(), lmac.max(), lmac.mean(), cases["level"].mean(), more]
    assert told.format(*map(short, values), short(low).replace("-0", "-"), short(high)) in page
    tuned, (more, low, high) = cases["lmac_ft"].mean(), planted.difference(few, "lmac_ft", "level")
    assert low > 0 and planted.difference(few, "l2i", "level")[1] < 0 and short(tuned) == ".37"
    assert f"have {short(tuned)} ({short(more)} more than loudness, {short(low)} to {short(high)}, " in page
    by_ear = [cases["lmac_td"].mean(), *planted.difference(few, "lmac_td", "level")]
    told = "above it) and {} ({}, {} to {})".format(*(short(each).replace("-0", "-") for each in by_ear))
    assert told in page
    means = (
        agreement.in_some_cases(points).groupby(["case", "method"], observed=True)["average_precision"].mean()
    )
    slow = [short(means.unstack()[name].mean()) for name in ("extremal_heard", "lime")]
    assert "(four clips a case) has {}, LIME {}.".format(*slow) in page


def test_the_mask_for_any_fill_is_that_of_the_published_table():
    table = holding.held_under_fills(published.planted_scores(), ["extremal_robust"])
    said = holding.sentence(table).replace("%", " %")
    assert f"`extremal_robust` {said.split(';')[0]}, of clips with a planted cause" in PAGE
    assert "worse under no fill" in said
    front = published.mask_front().query("method == 'extremal_robust' and mask == 'minmax' and area == 0.1")
    own = front.query("network == 'explained' and grid == '32x64'")
    assert (
        (own["FidIn"] == 1).all()
        and set(own["fill"]) > {"heard", "silence"}
        and (own["n_clips"] == 100).all()
    )
    assert "(`minmax`, `area=0.1`) keeps the class of 100 in 100 under three fills and by ear" in PAGE
    assert (front.query("network == 'other'")["FidIn"] < 0.7).all()


def test_what_warns_and_what_points_at_an_event_is_that_of_the_published_tables():
    table = warning.summarised(warning.warnings_of(published.planted_points())).set_index("method")
    share = {name: f"{100 * table.loc[name, 'warns']:.0f} %" for name in table.index}
    needed = table.loc[["gradient_shap", "shap", "extremal"], "needed"]
    assert table.index[0] == "gradient_shap" and (needed == 4).all() and share["shap"] == share["extremal"]
    assert (
        f"`gradient_shap` tells the two apart in {share['gradient_shap']} of the cases with a planted cause, "
        f"`shap` and `extremal` in {share['shap']}, from 4 clips on (median); LIME in {share['lime']}."
        in PAGE
    )
    alarms = [
        f"{100 * table.loc[name, 'false_alarm']:.0f} %" for name in ("extremal", "gradient_shap", "shap")
    ]
    told = (
        "`extremal` points at it all the same in {} of the cases, `gradient_shap` in none and `shap` in {}:"
    )
    assert alarms[1] == "0 %" and told.format(alarms[0], alarms[2]) in PAGE
    levels = warning.by_level(warning.warnings_of(published.planted_points()))
    faint = levels[levels["level_db"] == -12].set_index("method")
    told = {name: f"{100 * faint.loc[name, 'warns']:.0f} %" for name in ("shap", "lime")}
    n_cases = faint.loc["shap", "n_cases"]
    assert f"`shap` did in {told['shap']} of {n_cases} cases and LIME in {told['lime']} " in PAGE
    means = tables.table(published.known_stems()).set_index("method")
    judged = means[~means["control"]]
    assert (
        judged["iou"].idxmax() == "guided_gradcam" and judged["pointing_time"].idxmax() == "segments_forest"
    )
    level = means.loc["level"]
    best = short(means.loc["guided_gradcam", "iou"])
    assert (
        f"covers the event best, IoU {best}, not surely better than the loudest bins ({short(level['iou'])})"
        in PAGE
    )
    peaks = [means.loc[name, "pointing_time"] for name in ("segments_forest", "level")]
    told = "within it on {:.0%} of the labels, where the loudest bins do on {:.0%}.".format(*peaks)
    assert told.replace("%", " %") in PAGE
    assert judged["auc_decoy"].idxmax() == "gradcam"
    assert f"AUC {short(means.loc['gradcam', 'auc_decoy'])} against" in PAGE
    assert judged["mass"].idxmax() == "guided_gradcam"
    shares = [means.loc[name, "mass"] for name in ("guided_gradcam", "random")]
    assert "on its own event, {:.0%}, by chance {:.0%} ".format(*shares).replace("%", " %") in PAGE
    assert (
        means.loc["saliency", "auc_decoy"].round(2)
        == means.loc["integrated_gradients", "auc_decoy"].round(2)
        == 0.5
    )

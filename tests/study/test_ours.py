"""Our own run on real ESC-50, as the package holds it: rebuilt without data and weights."""

import re

import numpy as np
import pandas as pd
import papermill
import pytest

from audioxai_utils.audit import findings
from audioxai_utils.audit.planted.agreement import mean_with_interval
from audioxai_utils.constants import MASK_NAMES, REPOSITORY, STUDY_CONDITIONS, STUDY_METHODS, STUDY_METRICS
from audioxai_utils.evaluation.frames import CONDITION
from audioxai_utils.evaluation.overview import equal_area
from audioxai_utils.published import our_accuracies, our_cnn14, our_controls, our_methods, our_scores
from audioxai_utils.study.ours import restore

OF_SCORES = (
    findings.all_ones_masks,
    findings.constant_masks,
    findings.rounding_counts,
    findings.sigmoid_masks,
    findings.scored_is_not_heard,
    findings.controls,
    findings.uncertainty,
)


def test_it_is_the_whole_grid_and_its_numbers_agree_with_each_other():
    scores = our_scores()
    own = scores[scores["control"] == ""]
    n = own.groupby([*CONDITION, "protocol", "method", "mask"], observed=True)["clip"].nunique()
    assert (n == 400).all() and len(n) == 5 * 2 * len(STUDY_METHODS) * len(MASK_NAMES)
    assert own[list(STUDY_METRICS[:4])].notna().all().all()
    np.testing.assert_allclose(own["FF"], own["p_clip"] - own["p_removed"], atol=2e-5)
    whole = scores[(scores["control"] == "all_ones") & (scores["protocol"] == "audited")]
    np.testing.assert_allclose(whole["COMP"], np.log(whole["n_bins"] * whole["n_frames"]), atol=1e-4)
    clean = whole[whole["noise_scenario"] == "clean"]
    accuracy = our_accuracies().query("seed != seed").set_index("spectrogram_type")["test_acc"]  # the probes
    for kind, rows in clean.groupby("spectrogram_type", observed=True):
        assert 100 * rows["correct"].mean() == pytest.approx(accuracy[kind])
    controls = our_controls()
    areas = controls.groupby([*CONDITION, "control", "method", "mask"], observed=True)["clip"].nunique()
    assert (areas == 400).all() and set(controls["control"]) == {"random", "energy"}


def test_every_table_and_figure_of_scores_is_made_again_from_it(tmp_path):
    study = restore(tmp_path / "ours")
    with pytest.raises(FileExistsError, match="holds something"):
        restore(tmp_path / "ours")
    notebook = REPOSITORY / "notebooks" / "05_metrics_and_tables.ipynb"
    papermill.execute_notebook(
        notebook,
        tmp_path / "05.ipynb",
        parameters={"results_dir": str(study.results)},
        progress_bar=False,
        cwd=str(tmp_path),
    )
    table = study.table("audited/table_III")
    assert set(table["method"]) == set(STUDY_METHODS) and len(study.table("intervals"))
    for name in ("equal_area", "intervals_audited", "front_paper_III", "front_audited_VI"):
        assert (study.results / "figures" / f"{name}.png").stat().st_size > 5000
    best = study.table("best_masks").query("protocol == 'audited' and noise_scenario == 'clean'")
    row = best.loc[best["score"].idxmax()]
    scores = our_scores().query("protocol == 'audited' and noise_scenario == 'clean' and control == ''")
    scores = scores[scores["spectrogram_type"] == "mel_db"]
    own = scores[(scores["method"] == row["method"]) & (scores["mask"] == row["mask"])]
    assert row["FF"] == pytest.approx(own["FF"].mean(), abs=1e-4)
    page = (REPOSITORY / "docs" / "esc50.md").read_text(encoding="utf-8")
    for of in OF_SCORES:  # what the page says of the audit's findings at this number of clips
        found = of(study)
        told = ", ".join(
            found[name].removeprefix("than random: ").removeprefix("than energy: ").split(" ")[0]
            + (" %" if found[name].endswith("%") else "")
            for name in (("paper",) if of is findings.all_ones_masks else ("paper", "audited"))
        )
        assert f" | {told} | " in page, (of.__name__, told)


def test_all_methods_stand_beside_the_controls_at_one_area(tmp_path):
    """What docs/esc50.md says of the 23 methods."""
    study = restore(tmp_path / "every", every_method=True)
    n = our_methods().groupby(["protocol", "method", "mask"], observed=True)["clip"].nunique()
    assert (n == 400).all() and len(n) == 2 * 19 * len(MASK_NAMES)
    table = equal_area(study.scores(), ("mel_db", "clean"))
    assert len(table) == 25 and table.loc[0, "method"] == "extremal_20"
    rows = table.set_index("method")
    assert rows["area"].between(0.2999, 0.3001).all()
    methods = rows.drop(index=["random", "energy"])
    assert methods["FidIn"].corr(methods["FidIn_heard"], "kendall") == pytest.approx(0.19, abs=0.005)
    assert methods["FF"].corr(methods["FF_heard"], "kendall") == pytest.approx(0.68, abs=0.005)
    keeps = methods["AD_high"] < rows.loc["energy", "AD_low"]
    removes = methods["FF"] > rows.loc[["random", "energy"], "FF"].max() + 0.02
    assert set(methods.index[keeps & removes]) == {"extremal", "extremal_20", "extremal_robust"}
    assert (rows["FidIn_low"] <= rows["FidIn"]).all() and (rows["FidIn"] <= rows["FidIn_high"]).all()


def test_what_is_said_of_controls_by_ear_is_that_of_the_published_scores():
    page = " ".join((REPOSITORY / "docs" / "esc50.md").read_text(encoding="utf-8").split())
    equal = "protocol == 'audited' and mask == 'topK_30'"
    scores, controls = our_scores().query(f"{equal} and control == ''"), our_controls().query(equal)
    controls = controls[controls["method"] == "lime"].assign(
        method=controls["control"]
    )  # any method's are the same
    both = pd.concat([scores, controls]).astype({"method": str, "clip": str})
    keys = [[kind, noise] for kind, noise in STUDY_CONDITIONS]
    clips = both.pivot_table(
        "FidIn_heard", ["spectrogram_type", "noise_scenario", "clip"], "method", observed=True
    )
    means = clips.groupby(level=[0, 1], observed=True).mean()
    for words, name in (
        ("Deep SHAP", "shap"),
        ("LIME", "lime"),
        ("loudest bins", "energy"),
        ("random bins", "random"),
    ):
        row = " | ".join(f"{means.loc[tuple(key), name]:.2f}".removeprefix("0") for key in keys)
        assert f"| {words} | {row} |" in page
    for words, name in (("Deep SHAP", "shap"), ("LIME", "lime")):
        row = page[page.index(f"| {words} minus the loudest |") :].split("|")[2:7]
        for cell, (kind, noise) in zip(row, keys):
            more = clips.loc[kind, noise]
            found = mean_with_interval((more[name] - more["energy"]).to_numpy(float))
            told = [float(each) for each in re.findall(r"-?\.\d\d", cell)]
            assert told == pytest.approx(found, abs=0.0051)
    heard = both.groupby(["method", "spectrogram_type", "noise_scenario"], observed=True)["FF_heard"].mean()
    random = heard["random"]
    assert round(random.min(), 2) == -0.01 and round(random.max(), 2) == 0.07
    assert heard[list(STUDY_METHODS)].min() >= 0.32


def test_the_studys_own_network_has_all_of_its_clips_masks_and_controls():
    scores = our_cnn14()
    own = scores[scores["control"] == ""]
    n = own.groupby(["protocol", "method", "mask"], observed=True)["clip"].nunique()
    assert (n == 400).all() and len(n) == 2 * len(STUDY_METHODS) * len(MASK_NAMES)
    assert set(own["clip"]) == set(our_scores().query("spectrogram_type == 'mel_db'")["clip"])
    np.testing.assert_allclose(own["FF"], own["p_clip"] - own["p_removed"], atol=2e-4)
    accuracy = our_accuracies().set_index("classifier").loc["Cnn14 of a quarter of the width, from scratch"]
    assert 100 * own["correct"].mean() == pytest.approx(accuracy["test_acc"])
    assert {"random", "energy", "all_ones"} < set(scores["control"])

"""What the report answers of another run than the study's own: other methods, a model of one's own, one protocol."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
from report_run import TABLE

from audioxai_utils import files
from audioxai_utils.audit.trust import CHECKS
from audioxai_utils.figures.scheme import transform_scheme
from audioxai_utils.gallery import report_parts
from audioxai_utils.study.settings import Settings
from audioxai_utils.study.study import Study


def test_methods_that_are_not_the_studys_bring_a_table_of_all_scored_and_heard(tmp_path):
    study = Study(Settings("smoke", results_dir=str(tmp_path), methods=("extremal", "lime")))
    condition = {"protocol": "audited", "spectrogram_type": "mel_db", "noise_scenario": "white"}
    every = TABLE[["method", "mask", "FF", "SPS", "area"]].assign(
        **condition, FF_low=0.1, FF_high=0.95, FF_heard=0.4
    )
    files.save_table(every.assign(seconds=0.25), tmp_path / "tables" / "methods")
    assert "no other methods than the study" in report_parts.every_method(study).data
    new = every.tail(1).assign(method="extremal", FF=0.99, seconds=1.5)
    files.save_table(pd.concat([every, new]), tmp_path / "tables" / "methods")
    part = report_parts.every_method(study).data
    assert "FF, heard" in part and "0.990 [0.100," in part
    assert "Extremal perturbation" in part and "1.50<" in part


def own_study(folder, test_accuracy: float):
    """Results of a foreign model in one clean condition, with Table I."""
    accuracy = {"spectrogram_type": ["own"], "train_acc": [np.nan], "val_acc": [np.nan]}
    accuracy |= {"test_acc": [test_accuracy], "epoch": [0]}
    files.save_table(pd.DataFrame(accuracy), folder / "tables" / "table_I")
    settings = SimpleNamespace(model="my_model.py:load", explained_by=("saliency",))
    settings.protocol, settings.protocols = "audited", ("audited",)
    conditions = [SimpleNamespace(pair=("own", "clean"), noise_scenario="clean")]
    study = SimpleNamespace(results=folder, settings=settings, conditions=conditions)
    study.path = lambda *names: folder.joinpath("figures", *filter(None, names[1:]))
    return study


def test_a_folder_without_labels_is_not_said_to_lack_a_computation(tmp_path):
    """Nobody can compute how often a classifier is right that knows none of the classes, or what noise that
    is not there does.
    """
    study = own_study(tmp_path, np.nan)
    answer = report_parts.answer(study).data
    assert "How good is the classifier?</strong> <span" in answer
    assert "not known: no clip has a class that the classifier knows." in answer
    assert "this run has no noise." in answer and answer.count("not computed in this run") == 3
    parts = [
        report_parts.accuracies(study),
        report_parts.training(study, "own"),
        report_parts.confusion(study, "own"),
    ]
    assert not any("ot computed" in part.data for part in parts)
    assert (
        "nothing was trained" in parts[1].data
        and "not known" in parts[0].data
        and "not known" in parts[2].data
    )


def test_a_foreign_model_s_accuracy_stands_alone(tmp_path):
    """The published networks, with epochs and 50 classes, are no neighbours of it."""
    study = own_study(tmp_path, 62.5)
    table = report_parts.accuracies(study).data
    assert "62.5" in table and "published" not in table and "epoch" not in table
    assert "62.5 %" in report_parts.answer(study).data
    assert (
        "Not computed in this run" in report_parts.confusion(study, "own").data
    )  # known, and not drawn here


def test_the_verdict_comes_first_and_says_why(tmp_path, monkeypatch):
    rows = [
        ("saliency", 1e-8, "", ""),
        ("lime", np.nan, "changes with the seed", ""),
        ("gradcam", np.nan, "", "it shows no layers"),
        ("rise", np.nan, "", ""),
    ]
    table = pd.DataFrame(rows, columns=["method", "gradient", "doubts", "refused"])
    table = table.assign(**{check: np.nan for check in CHECKS if check != "gradient"})
    monkeypatch.setattr(report_parts.trust, "trust", lambda study: table)
    shown = report_parts.trusted(SimpleNamespace(save=lambda name, table: None)).data
    assert re.findall("<th>(.*?)</th>", shown)[:3] == ["method", "verdict", "error of the gradient"]
    assert re.findall(r"<td>(Saliency|LIME|Grad-CAM|RISE)</td>\s*<td>(.*?)</td>", shown) == [
        ("Saliency", "passed every check that was made"),
        ("LIME", "in doubt: changes with the seed"),
        ("Grad-CAM", "cannot be used: it shows no layers"),
        ("RISE", "not checked"),
    ]


def test_a_run_by_one_protocol_answers_by_it_and_says_so(tmp_path):
    """Which explanation comes first, and how much it keeps, were "not computed"."""
    study = own_study(tmp_path, 62.5)
    study.main_condition = study.conditions[0]
    best = {"protocol": "audited", "spectrogram_type": "own", "noise_scenario": "clean"}
    files.save_table(TABLE.assign(**best, score=[0.2, 0.3, 0.6, 0.1]), tmp_path / "tables" / "best_masks")
    files.save_table(TABLE, tmp_path / "tables" / "audited" / "table_own_clean")
    answer = report_parts.answer(study).data
    assert "LIME with bin comes first (own, clean)" in answer and "between 30.0 % (Saliency)" in answer
    assert "It names 62.5 % of the clips whose class it knows correctly." in answer
    assert "not computed" not in answer
    alone = "This run has the audited protocol alone."
    for part in (
        report_parts.front(study, "paper"),
        report_parts.of_the_audit(study, "fill_sensitivity"),
        report_parts.findings(study),
        report_parts.study_tables(study, "paper"),
    ):
        assert alone in part.data
    for name in ("front_audited_own_clean", "intervals_audited"):
        files.save_figure(transform_scheme(), tmp_path / "figures" / name)
    for part in (report_parts.front(study, "audited"), report_parts.intervals(study)):
        assert not hasattr(part, "data") or b"PNG" in part.data[:8]

"""Which method can be trusted: what the run's tables say is what the table says, and nothing is made of nothing."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from audioxai_utils.audit import trust
from audioxai_utils.files import save_table
from audioxai_utils.run import graph
from audioxai_utils.study.settings import Settings

PAIR = {"spectrogram_type": "own", "noise_scenario": "clean"}


def study_of(folder, methods=("saliency", "lime", "shap"), refused=None, **changes):
    """A finished run's tables, good ones unless ``changes`` say otherwise."""
    n = {"gradient": 1e-8, "sum": 1e-6, "anew": 0.1, "seeds": 0.9, "beaten": "", "heard": 0.75} | changes
    tables = {
        "gradient_check": pd.DataFrame([{"layout": "affine bn0", "relative_error": n["gradient"]}]),
        "additivity": pd.DataFrame({"method": "shap", "additivity_error": [n["sum"], n["sum"], 1.0]}),
        "lime_stability": pd.DataFrame({"spearman": [n["seeds"], n["seeds"]]}),
        "randomisation": pd.DataFrame(
            [
                {"method": method, "stage": stage, "kind": kind, "spearman": value}
                for method in methods
                for stage, value in (("none", 1.0), ("head", n["anew"]))
                for kind in ("absolute", "signed")
            ]
        ),
        "control_marks": pd.DataFrame(
            [
                {"protocol": "audited", **PAIR, "method": method, "mask": mask, "not_better_than": beaten}
                for method in methods
                for mask, beaten in (("bin", n["beaten"]), ("topK_5", ""))
            ]
        ),
        "methods": pd.DataFrame(
            [
                {"protocol": protocol, **PAIR, "method": method, "FidIn_heard": heard}
                for method in methods
                for protocol, heard in (("paper", np.nan), ("audited", n["heard"]))
            ]
        ),
    }
    for name, table in tables.items():
        save_table(table, folder / "tables" / name)
    classifier = SimpleNamespace(info={"refused": refused or {}})
    main = SimpleNamespace(classifier=classifier, pair=tuple(PAIR.values()))
    settings = SimpleNamespace(explained_by=(*methods, *(refused or {})))
    return SimpleNamespace(results=folder, main_condition=main, settings=settings)


def test_a_method_that_passes_every_check_raises_no_doubt(tmp_path):
    table = trust.trust(study_of(tmp_path)).set_index("method")
    assert (table["doubts"] == "").all() and (table["refused"] == "").all()
    assert table.loc["saliency", "gradient"] == 1e-8 and np.isnan(table.loc["lime", "gradient"])
    assert table.loc["shap", "adds_up"] == 1e-6 and np.isnan(table.loc["saliency", "adds_up"])
    assert table.loc["lime", "repeats"] == 0.9 and np.isnan(table.loc["shap", "repeats"])
    assert (table["learnt"] == 0.1).all() and (table["heard"] == 0.75).all()
    assert "**Saliency, LIME, SHAP** passed every check" in trust.sentence(table.reset_index())


@pytest.mark.parametrize(
    ("changes", "method", "doubt"),
    [
        ({"gradient": 0.1}, "saliency", "wrong gradient"),
        ({"sum": 0.5}, "shap", "does not add up"),
        ({"anew": 0.8}, "lime", "hardly changes without what was learnt"),
        ({"seeds": 0.2}, "lime", "changes with the seed"),
    ],
)
def test_each_check_that_fails_is_a_doubt_about_the_methods_that_it_concerns(
    tmp_path, changes, method, doubt
):
    table = trust.trust(study_of(tmp_path, **changes)).set_index("method")
    assert doubt in table.loc[method, "doubts"]
    assert changes.keys() & {"anew"} or (table["doubts"].str.contains(doubt).sum() <= 2)


def test_shares_of_masks_that_beat_a_control(tmp_path):
    table = trust.trust(study_of(tmp_path, beaten="energy (FF, AD)"))
    assert (table["beats_random"] == 1).all() and (table["beats_loudest"] == 0.5).all()
    assert (table["doubts"] == "").all()  # a half is enough


def test_a_refused_method_is_said_and_what_was_not_checked_is_no_doubt(tmp_path):
    table = trust.trust(study_of(tmp_path, methods=("lime",), refused={"gradcam": "no layers"}))
    assert table.set_index("method")["refused"].to_dict() == {"lime": "", "gradcam": "no layers"}
    assert "cannot be explained by Grad-CAM" in trust.sentence(table)
    empty = study_of(tmp_path / "empty")
    for path in (tmp_path / "empty" / "tables").iterdir():
        path.unlink()
    unchecked = trust.trust(empty)
    assert unchecked[list(trust.CHECKS)].isna().all().all() and (unchecked["doubts"] == "").all()


@pytest.mark.parametrize("protocol", ["paper", "audited", "both"])
def test_the_checks_are_made_whatever_the_protocol(protocol):
    """A run by one protocol, as it is advised for a model of one's own, had a table of trust without them."""

    def steps(**options):
        record = dataclasses.asdict(Settings("smoke", protocol=protocol, **options)) | {"states": {}}
        return graph.Graph(record).steps()

    assert "08_sanity_checks" in steps() and ("07_audit" in steps()) == (protocol == "both")
    assert "08_sanity_checks" not in steps(methods=("lime",))  # there is nothing to compare

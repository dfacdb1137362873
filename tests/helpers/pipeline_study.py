"""A toy repository with the real graph, package and computations, on six short clips and an untrained model.

Not a test itself; used by test_resume.py and test_slurm.py. A file ``slow`` in the results folder makes
the notebooks wait after each clip, so that a test can interrupt them in the middle.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import tiny_study
import toy_study

WORDS = (
    "--profile",
    "smoke",
    "--dataset",
    "esc50",
    "--spectrogram",
    "mel_db",
    "--scenario",
    "white",
    "--method",
    "saliency,gradcam",
    "--protocol",
    "paper",
    "--device",
    "cpu",
)
CONDITION = "mel_db/white"
OPEN = """
import time
from pathlib import Path
import pandas as pd
from audioxai_utils import open_study
study = open_study(results_dir)
def wait():
    time.sleep(0.7 if Path(results_dir, "slow").exists() else 0)
"""
TRAIN = """
model = study.new_model(spectrogram_type).to(study.device)
study.save_classifier(model, spectrogram_type, {"best_epoch": 1, "gradient_error": 1e-9})
"""
ATTRIBUTE = """
from audioxai_utils.study import attribute
condition = study.condition(spectrogram_type, noise_scenario)
for method in study.settings.explained_by:
    folder, options = condition.attribution_folder(method), condition.method_options(method)
    for row in attribute.attribute(condition.classifier, condition.clips, method, options, folder):
        with open(Path(results_dir, "computed"), "a") as file:
            file.write(f"{method} {row['clip']}\\n" if row["computed"] else "")
        wait()
"""
SCORE = """
condition, blocks = study.condition(spectrogram_type, noise_scenario), []
for block in condition.score_blocks():
    blocks.append(block)
    wait()
condition.score_all()
"""


def make(folder: Path) -> tuple[Path, tuple[str, ...]]:
    """(repository, options of a run): six test clips, scored two at a time."""
    repository = toy_study.make(folder / "repository", fast=False)
    package, notebooks = repository / "audioxai_utils", repository / "notebooks"
    change(package / "study" / "profiles.py", r'("smoke",.*?n_clips=)\d+', r"\g<1>6")
    change(package / "study" / "score.py", r"(\nBLOCK = )\d+", r"\g<1>2")
    write, common, condition = toy_study.write_notebook, toy_study.COMMON, toy_study.CONDITION
    write(notebooks / "02_fine_tuning.ipynb", (*common, condition[0]), OPEN, TRAIN)
    write(notebooks / "03_attributions.ipynb", (*common, *condition), OPEN, ATTRIBUTE)
    write(notebooks / "04_mask_study.ipynb", (*common, *condition), OPEN, SCORE)
    tiny_study.write_dataset(folder / "tones", takes="AB")
    return repository, (*WORDS, "--data-root", str(folder / "tones"))


def change(path: Path, pattern: str, replacement: str) -> None:
    """Replace what must occur exactly once."""
    text, n = re.subn(pattern, replacement, path.read_text(), count=1, flags=re.S)
    assert n == 1, (path, pattern)
    path.write_text(text)


def numbers(results: Path) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """What a run has computed, without the seconds it took: scores, and every clip's attribution."""
    scores = pd.read_parquet(results / "scores" / f"{CONDITION}.parquet").drop(columns="seconds")
    paths = sorted((results / "attributions").rglob("*.npz"))
    return scores, {str(path.relative_to(results)): np.load(path)["attribution"] for path in paths}


def assert_same_numbers(results: Path, other: Path) -> None:
    """To the last bit."""
    (scores, attributions), (theirs, maps) = numbers(results), numbers(other)
    assert len(attributions) == 12 and len(scores) == 6 * 2 * 14 and scores.columns.equals(theirs.columns)
    pd.testing.assert_frame_equal(scores, theirs, check_exact=True)
    assert attributions.keys() == maps.keys()
    for name, attribution in attributions.items():
        np.testing.assert_array_equal(attribution, maps[name], err_msg=name)

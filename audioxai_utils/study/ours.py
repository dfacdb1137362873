"""The study's own large run, rebuilt from what the package holds: 400 clips of ESC-50, without its data.

``published/ours`` keeps every score of that run. `restore` lays out a results folder from it, in which
notebook 05 and the report make every table and figure of scores in about a minute.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ..constants import PROTOCOLS, STUDY_METHODS
from ..evaluation.bootstrap import share_interval
from ..files import save_parquet, save_table
from ..published import our_accuracies, our_controls, our_methods, our_methods_controls, our_scores
from .settings import Settings
from .study import Study

NAMES = ("protocol", "spectrogram_type", "noise_scenario", "method", "mask", "control", "clip", "category")

STATES = ("weights", "model", "answers", "benchmarks")  # what a run reads besides its options; here nothing


def restore(results_dir: str | Path, every_method: bool = False) -> Study:
    """A results folder with the scores, accuracies and settings of the published run of our own.

    Parameters
    ----------
    results_dir : path
        A folder that does not exist yet, or is empty.
    every_method : bool
        All 23 methods on clean mel alone, instead of the study's four in its five conditions.

    Raises
    ------
    FileExistsError
        There is something in the folder.
    """
    folder = Path(results_dir).resolve()
    if folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"results_dir {folder}: holds something; give a new folder")
    parts = [our_scores(), our_controls()]
    if every_method:
        parts = [each[each["spectrogram_type"] == "mel_db"] for each in parts]
        parts = [each[each["noise_scenario"] == "clean"] for each in parts]
        parts += [our_methods(), our_methods_controls()]
    scores = pd.concat([each.astype(dict.fromkeys(NAMES, object)) for each in parts], ignore_index=True)
    conditions = scores[["spectrogram_type", "noise_scenario"]].drop_duplicates()
    settings = Settings(
        profile="paper",
        dataset="esc50",
        pretrained=("mn04", "download"),
        spectrograms=tuple(dict.fromkeys(conditions["spectrogram_type"])),
        scenarios=tuple(dict.fromkeys(conditions["noise_scenario"])),
        methods=(*STUDY_METHODS, *sorted(our_methods()["method"].unique())) if every_method else None,
        results_dir=str(folder),
    )
    settings.write(states={"data": "audioxai_utils.published", "noises": {}} | dict.fromkeys(STATES, ""))
    study = Study(settings)
    for condition in study.conditions:
        own = scores.loc[
            (scores["spectrogram_type"] == condition.spectrogram_type)
            & (scores["noise_scenario"] == condition.noise_scenario)
        ]
        ordered = own.assign(protocol=pd.Categorical(own["protocol"], PROTOCOLS)).sort_values(
            "protocol", kind="stable"
        )
        save_parquet(ordered.astype({"protocol": object}).reset_index(drop=True), condition.scores_path)
    for kind in study.spectrogram_types:
        _save_accuracies(study, kind)
    return study


def _save_accuracies(study: Study, kind: str) -> None:
    """Tables of accuracy as notebook 02 saves them."""
    table = our_accuracies().query("spectrogram_type == @kind")
    row = table.iloc[[0]][["spectrogram_type", "train_acc", "val_acc", "test_acc"]]
    # the penalty of a probe, which stands there for an epoch, is not among what is published
    save_table(row.assign(epoch=None), study.path("tables", f"table_I_{kind}"))
    low, high = share_interval(row["test_acc"].to_numpy() / 100, table["n_test"].iloc[0])
    accuracy = row[["spectrogram_type", "test_acc"]].assign(
        noise_scenario="clean", test_acc_low=100 * low, test_acc_high=100 * high, n=table["n_test"].iloc[0]
    )
    save_table(accuracy, study.path("tables", f"accuracy_{kind}"))

"""A tiny study on files for tests: short tones in five folds, and an untrained classifier.

Not a test itself; used by the tests of study, audit and gallery.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from audioxai_utils.study.settings import Settings
from audioxai_utils.study.study import Study

CATEGORIES = ("low", "middle", "high")


def write_dataset(
    root: Path,
    takes: str = "A",
    seconds: float = 0.5,
    categories: Sequence[str] = CATEGORIES,
    frequency: Callable[[int], float] = lambda target: 300 * 3**target,
) -> None:
    """A tone in soft noise per fold, class and take, in ESC-50's layout."""
    rng, time, rows = np.random.default_rng(0), np.arange(round(16000 * seconds)) / 16000, []
    for folder in ("meta", "audio"):
        (root / folder).mkdir(parents=True)
    for fold in range(1, 6):
        for take, (target, category) in itertools.product(takes, enumerate(categories)):
            name = f"{fold}-{target}-{take}-{target}.wav"
            wave = np.sin(2 * np.pi * frequency(target) * time) + 0.05 * rng.standard_normal(len(time))
            soundfile.write(root / "audio" / name, 0.5 * wave, 16000)
            rows.append({"filename": name, "fold": fold, "target": target, "category": category})
    pd.DataFrame(rows).to_csv(root / "meta" / "esc50.csv", index=False)


def make(folder: Path, takes: str = "A", profile: str = "smoke", seconds: float = 0.5, **dataset) -> Study:
    """A study below ``folder`` with a mel classifier whose weights are drawn; its settings are on file."""
    write_dataset(folder / "tones", takes, seconds, **dataset)
    settings = Settings(
        profile,
        "esc50",
        data_root=str(folder / "tones"),
        device="cpu",
        seed=0,
        results_dir=str(folder / "results"),
    )
    settings.write()
    study = Study(settings)
    study.save_classifier(study.new_model("mel_db"), "mel_db", {"best_epoch": 1, "gradient_error": 1e-9})
    return study

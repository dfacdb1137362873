"""A tiny study on files for tests: short tones in five folds, and an untrained classifier.

Not a test itself; used by test_study.py, test_showcase.py, test_widgets.py and others.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from audioxai_utils.study import study

CATEGORIES = ("low", "middle", "high")


def write_dataset(root: Path, takes: str = "A", seconds: float = 0.5) -> None:
    """A tone in soft noise per fold, class and take, in ESC-50's layout."""
    rng, time, rows = np.random.default_rng(0), np.arange(round(16000 * seconds)) / 16000, []
    for folder in ("meta", "audio"):
        (root / folder).mkdir(parents=True)
    for fold in range(1, 6):
        for take, (target, category) in itertools.product(takes, enumerate(CATEGORIES)):
            name = f"{fold}-{target}-{take}-{target}.wav"
            wave = np.sin(2 * np.pi * 300 * 3**target * time) + 0.05 * rng.standard_normal(len(time))
            soundfile.write(root / "audio" / name, 0.5 * wave, 16000)
            rows.append({"filename": name, "fold": fold, "target": target, "category": category})
    pd.DataFrame(rows).to_csv(root / "meta" / "esc50.csv", index=False)


def make(folder: Path, takes: str = "A", profile: str = "smoke", seconds: float = 0.5) -> study.Settings:
    """Settings of a study below ``folder`` with a mel classifier whose weights are drawn."""
    write_dataset(folder / "tones", takes, seconds)
    settings = study.Settings(profile, "esc50", str(folder / "tones"), "", str(folder / "results"), 0, "cpu")
    model = study.new_model(settings, study.get_spectrogram("mel_db"))
    study.save_classifier(settings, model, "mel_db", {"best_epoch": 1, "gradient_error": 1e-9})
    return settings

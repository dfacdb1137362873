"""A small dataset of tones in ESC-50's layout, for tests."""

from __future__ import annotations

import numpy as np
import pandas as pd
import soundfile

CLASSES = {"dog": (0, True), "cat": (5, False), "chainsaw": (41, True)}


def tone(frequency: float, rate: int, duration: float = 5.0) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(round(duration * rate)) / rate)


def make_folder(root, suffix=".wav", takes=2):
    """ESC-50's layout with five folds and three classes of short tones."""
    (root / "meta").mkdir(parents=True)
    (root / "audio").mkdir()
    rows = []
    for fold in range(1, 6):
        for category, (target, esc10) in CLASSES.items():
            for take in "ABC"[:takes]:
                name = f"{fold}-{100 + target}-{take}-{target}{suffix}"
                sound = 0.5 * tone(300 + 10 * target + fold, 8000, 0.2)
                soundfile.write(root / "audio" / name, sound, 8000)
                rows.append((name, fold, target, category, esc10, 100 + target, take))
    columns = ["filename", "fold", "target", "category", "esc10", "src_file", "take"]
    pd.DataFrame(rows, columns=columns).to_csv(root / "meta" / "esc50.csv", index=False)
    return root

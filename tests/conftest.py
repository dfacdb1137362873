"""The tests' own little studies have three classes: their smoke profile explains a clip of each."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import soundfile

from audioxai_utils import constants
from audioxai_utils.study import study


@pytest.fixture(autouse=True, scope="session")
def a_clip_of_each_class():
    constants.PROFILES["smoke"] = dataclasses.replace(constants.PROFILES["smoke"], n_clips=3)


@pytest.fixture(scope="module")
def condition(tmp_path_factory, a_clip_of_each_class):
    """(settings, classifier) over two classes of tones, with a mel classifier drawn at random."""
    root, rows = tmp_path_factory.mktemp("two"), []
    for folder in ("meta", "audio"):
        (root / folder).mkdir()
    for fold in range(1, 6):
        for target, category in enumerate(("low", "high")):
            name, t = f"{fold}-{target}-A-{target}.wav", np.arange(5 * 16000) / 16000
            sound = np.sin(2 * np.pi * (300 + 2000 * target + 40 * fold) * t) * np.exp(-t) / 2
            soundfile.write(root / "audio" / name, sound, 16000)
            rows.append({"filename": name, "fold": fold, "target": target, "category": category})
    pd.DataFrame(rows).to_csv(root / "meta" / "esc50.csv", index=False)
    results = tmp_path_factory.mktemp("results")
    settings = study.Settings("smoke", "esc50", str(root), "", str(results), 3, "cpu")
    study.save_classifier(settings, study.new_model(settings, study.get_spectrogram("mel_db")), "mel_db", {})
    return settings, study.load_classifier(settings, "mel_db")

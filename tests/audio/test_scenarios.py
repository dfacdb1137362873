"""A noise scenario given as an audio file: its name in files and tables leads back to the file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from audioxai_utils.audio import datasets, noise
from audioxai_utils.study import pipeline, study

RATE = 16000


@pytest.fixture
def run(tmp_path):
    """Settings of a run with a recording as scenario, its file, and a frame of one clip."""
    time = np.arange(5 * RATE) / RATE
    (tmp_path / "noises").mkdir()
    recording = tmp_path / "noises" / "Café, noon.wav"
    soundfile.write(recording, 0.3 * np.sin(2 * np.pi * 330 * time), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "clip.wav", 0.3 * np.sin(2 * np.pi * 550 * time), RATE, subtype="FLOAT")
    frame = pd.DataFrame({"clip": ["clip"], "path": [str(tmp_path / "clip.wav")], "label": [0]})
    results = tmp_path / "results"
    results.mkdir()
    (results / "config.json").write_text(json.dumps({"noise_files": {"cafe_noon": str(recording)}}))
    return study.Settings("smoke", results_dir=str(results), device="cpu"), recording, frame


@pytest.mark.parametrize(("argument", "name"), [
    ("clean", "clean"), ("horse", "horse"), ("/a/White noise.wav", "white_noise"), ("Café, noon.WAV", "cafe_noon"),
    ("cafe_noon", "cafe_noon"), ("x-2.tar.ogg", "x_2_tar"),
])
def test_names_are_plain_and_of_names_they_are_themselves(argument, name):
    assert study.scenario_name(argument) == name == study.scenario_name(name)


def test_the_name_leads_back_to_the_file(run, tmp_path):
    settings, recording, _ = run
    assert study.scenario_argument(settings, "cafe_noon") == str(recording)
    assert study.scenario_argument(settings, str(recording)) == str(recording)
    assert study.scenario_argument(settings, "white") == "white"
    elsewhere = study.Settings("smoke", results_dir=str(tmp_path / "none"), noise_root=str(recording.parent), device="cpu")
    assert study.scenario_argument(elsewhere, "cafe_noon") == str(recording)
    with pytest.raises(ValueError, match="or an audio file; got 'forest'"):
        datasets.load_noise(study.scenario_argument(settings, "forest"), RATE)


def test_clips_are_mixed_alike_by_name_and_by_path(run):
    settings, recording, frame = run
    clips = {given: study.load_clips(settings, frame, RATE, given) for given in ("cafe_noon", str(recording))}
    clip, interferer = (datasets.load_waveform(path, RATE).double() for path in (frame["path"][0], recording))
    expected = noise.mix(clip, interferer)
    for mixed in clips.values():
        torch.testing.assert_close(mixed.waveforms[0], expected)


def test_files_of_a_condition_go_by_the_name(run):
    settings, recording, _ = run
    for given in ("cafe_noon", str(recording)):
        assert pipeline.scores_path(settings, ("mel_db", given)) == Path(
            settings.results_dir, "scores", "mel_db", "cafe_noon.parquet"
        )
        assert pipeline.attribution_folder(settings, "mel_db", given, "lime").parts[-2:] == ("cafe_noon", "lime")

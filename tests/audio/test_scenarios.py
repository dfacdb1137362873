"""A noise scenario given as an audio file: its name in files and tables leads back to the file."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from audioxai_utils.audio import datasets, noise
from audioxai_utils.audio.inputs import scenario_name
from audioxai_utils.study.clips import load_clips
from audioxai_utils.study.settings import Settings
from audioxai_utils.study.study import Study

RATE = 16000


@pytest.fixture
def run(tmp_path):
    """A study with a recording as scenario, its file, and a frame of one clip."""
    time = np.arange(5 * RATE) / RATE
    (tmp_path / "noises").mkdir()
    recording = tmp_path / "noises" / "Café, noon.wav"
    soundfile.write(recording, 0.3 * np.sin(2 * np.pi * 330 * time), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "clip.wav", 0.3 * np.sin(2 * np.pi * 550 * time), RATE, subtype="FLOAT")
    frame = pd.DataFrame({"clip": ["clip"], "path": [str(tmp_path / "clip.wav")], "label": [0]})
    settings = Settings(
        "smoke", scenarios=[str(recording)], results_dir=str(tmp_path / "results"), device="cpu"
    )
    return Study(settings), recording, frame


@pytest.mark.parametrize(
    ("argument", "name"),
    [
        ("clean", "clean"),
        ("horse", "horse"),
        ("/a/White noise.wav", "white_noise"),
        ("Café, noon.WAV", "cafe_noon"),
        ("cafe_noon", "cafe_noon"),
        ("x-2.tar.ogg", "x_2_tar"),
    ],
)
def test_names_are_plain_and_of_names_they_are_themselves(argument, name):
    assert scenario_name(argument) == name == scenario_name(name)


def test_the_name_leads_back_to_the_file(run, tmp_path):
    study, recording, _ = run
    assert study.noise_source("cafe_noon") == str(recording)
    assert study.noise_source(str(recording)) == str(recording)
    assert study.noise_source("white") == "white"
    (recording.parent / "._Café, noon.wav").write_bytes(b"what macOS leaves beside a file")
    elsewhere = Study(Settings("smoke", results_dir=str(tmp_path / "none"), noise_root=str(recording.parent)))
    assert elsewhere.noise_source("cafe_noon") == str(recording)
    with pytest.raises(ValueError, match="or an audio file; got 'forest'"):
        datasets.load_noise(study.noise_source("forest"), RATE)


def test_clips_are_mixed_alike_by_name_and_by_path(run):
    study, recording, frame = run
    clips = {
        given: load_clips(study, frame, RATE, study.noise_source(given))
        for given in ("cafe_noon", str(recording))
    }
    clip, interferer = (datasets.load_waveform(path, RATE).double() for path in (frame["path"][0], recording))
    expected = noise.mix(clip, interferer)
    for mixed in clips.values():
        torch.testing.assert_close(mixed.waveforms[0], expected)


def test_files_of_a_condition_go_by_the_name(run):
    study, recording, _ = run
    for given in ("cafe_noon", str(recording)):
        condition = study.condition("mel_db", given)
        assert condition.pair == ("mel_db", "cafe_noon") and condition.name == "mel_db_cafe_noon"
        assert condition.source == str(recording)

"""Scenes are what their csv says, to the last bit, and no recording is heard in two folds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from tiny_study import write_dataset

from audioxai_utils.audio.datasets import load_dataset, load_waveform
from audioxai_utils.audio.encoding import loudness
from audioxai_utils.audio.scenes import BACKGROUND_DB, SPREAD_DB, main, make_scenes

SCENES = {"deep": ("low", "middle"), "bright": ("middle", "high")}
RATE = 16000
TONES = {"low": 300, "middle": 900, "high": 2700}  # Hz


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    root = tmp_path_factory.mktemp("tones") / "tones"
    write_dataset(root, takes="AB", categories=("low", "middle", "high", "other"))
    return root


@pytest.fixture(scope="module")
def scenes(tones, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes") / "scenes"
    return make_scenes(tones, folder, SCENES, ["other"], per_fold=2, sample_rate=RATE)


def power_at(sound: np.ndarray, frequency: float) -> float:
    spectrum = np.abs(np.fft.rfft(sound)) ** 2
    place = round(frequency * len(sound) / RATE)
    return spectrum[place - 3 : place + 4].sum() / spectrum.sum()


def test_a_scene_has_its_own_sounds_in_the_event_and_the_other_in_the_background(scenes):
    table = pd.read_csv(scenes / "meta" / "esc50.csv")
    assert len(table) == 2 * 2 * 5 and set(table["category"]) == set(SCENES)
    for row in table.itertuples():
        names, own = row.sounds.split("+"), SCENES[row.category]
        assert names == [*own, "other"]
        event, background, whole = (
            soundfile.read(scenes / part / row.filename, dtype="int16")[0].astype(int)
            for part in ("stems/event", "stems/background", "audio")
        )
        assert np.array_equal(event + background, whole) and 20000 < np.abs(whole).max() < 32767
        shares = {name: power_at(event, tone) for name, tone in TONES.items()}
        assert all((shares[name] > 0.05) == (name in own) for name in TONES), shares
        assert all(power_at(background, tone) < 0.05 for tone in TONES.values())


def test_no_recording_is_heard_in_two_folds(scenes):
    table = pd.read_csv(scenes / "meta" / "esc50.csv")
    heard = table.assign(source=table["sources"].str.split("+")).explode("source")
    assert (heard.groupby("source")["fold"].nunique() == 1).all()
    assert (heard["source"].str[0].astype(int) == heard["fold"]).all()


def test_the_study_reads_scenes_with_their_stems(scenes):
    dataset = load_dataset("esc50", scenes)
    assert dataset.has_stems and dataset.classes == ("deep", "bright") and dataset.seconds == 1.0
    row = dataset.clips.iloc[3]
    event, background = dataset.stems(row["clip"], RATE)
    whole = load_waveform(row["path"], RATE, seconds=dataset.seconds)
    assert event.shape == (RATE,)
    torch.testing.assert_close(event + background, whole, rtol=0, atol=2e-6)


def test_sounds_are_as_loud_as_said(scenes):
    """The background against one of two sounds: -6 dB and twice the spread at most; two are up to 6 dB louder."""
    for path in sorted((scenes / "stems" / "event").iterdir()):
        background = soundfile.read(scenes / "stems" / "background" / path.name)[0]
        gap = loudness(background, RATE) - loudness(soundfile.read(path)[0], RATE)
        assert BACKGROUND_DB - 2 * SPREAD_DB - 6 < gap < BACKGROUND_DB + 2 * SPREAD_DB


def test_the_same_seed_makes_the_same_scenes(tones, scenes, tmp_path):
    again = make_scenes(tones, tmp_path / "again", SCENES, ["other"], per_fold=2, sample_rate=RATE)
    other = make_scenes(tones, tmp_path / "seed", SCENES, ["other"], per_fold=2, sample_rate=RATE, seed=1)
    for path in sorted((scenes / "audio").iterdir()):
        assert path.read_bytes() == (again / "audio" / path.name).read_bytes()
    first = sorted((scenes / "audio").iterdir())[0].name
    assert (scenes / "audio" / first).read_bytes() != (other / "audio" / first).read_bytes()


def test_what_cannot_be_made_is_one_line(tones, scenes, tmp_path):
    with pytest.raises(FileExistsError, match="holds something; give a new one"):
        make_scenes(tones, scenes, SCENES, ["other"])
    with pytest.raises(ValueError, match=r"every fold of .* has; fold 1 has no 'rooster'"):
        make_scenes(tones, tmp_path / "a")
    with pytest.raises(ValueError, match="per_fold must be at least 1; got 0"):
        make_scenes(tones, tmp_path / "a", SCENES, ["other"], per_fold=0)
    assert not (tmp_path / "a").exists()


def test_the_command_says_in_one_line_what_cannot_be_made(scenes, tmp_path, capsys):
    for words, line in (
        ([tmp_path / "missing", tmp_path / "out"], "missing"),
        ([tmp_path, scenes], "holds something; give a new one"),
    ):
        assert main([str(word) for word in words]) == 2
        said = capsys.readouterr()
        assert line in said.err and said.err.count("\n") == 1 and said.out == ""

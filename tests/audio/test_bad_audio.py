"""Bad input: one clear line each, other clips go on, odd but sound formats work."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from esc_folder import make_folder, tone

from audioxai_utils.audio.datasets import load_dataset, load_noise, load_waveform, load_waveforms, usable


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "sounds")


def _edit_csv(folder, change) -> None:
    path = folder / "meta" / "esc50.csv"
    change(pd.read_csv(path)).to_csv(path, index=False)


def _error(error: type, name: str, root) -> str:
    with pytest.raises(error) as caught:
        load_dataset(name, root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What concerns a whole dataset is an error


def test_missing_and_empty_folders(tmp_path):
    assert "no such folder" in _error(FileNotFoundError, "esc50", tmp_path / "gone")
    assert "it has no meta/esc50.csv" in _error(FileNotFoundError, "esc50", tmp_path)


def test_missing_or_empty_audio_folder(folder):
    for file in (folder / "audio").iterdir():
        file.unlink()
    assert "audio folder is missing or empty" in _error(FileNotFoundError, "esc50", folder)
    (folder / "audio").rmdir()
    assert "audio folder is missing or empty" in _error(FileNotFoundError, "esc50", folder)


def test_none_of_the_listed_files(folder):
    for file in (folder / "audio").iterdir():
        file.rename(file.with_name("x" + file.name))
    assert "none of its 30 listed clips can be used" in _error(FileNotFoundError, "esc50", folder)


@pytest.mark.parametrize("column", ["filename", "fold", "target", "category"])
def test_csv_without_a_column(folder, column):
    _edit_csv(folder, lambda table: table.drop(columns=column))
    assert f"lacks the column {column}; it needs filename, fold" in _error(ValueError, "esc50", folder)


def test_csv_without_esc10_column_takes_every_row(folder):
    _edit_csv(folder, lambda table: table.drop(columns="esc10"))
    assert load_dataset("esc10", folder).classes == ("dog", "cat", "chainsaw")


@pytest.mark.parametrize("content", ["", '"', "a,b\n1,2,3\n4,5,6,7\n"])
def test_broken_csv(folder, content):
    (folder / "meta" / "esc50.csv").write_text(content)
    assert "esc50.csv: " in _error(ValueError, "esc50", folder)


def test_csv_without_a_clip_of_the_set(folder):
    _edit_csv(folder, lambda table: table.assign(esc10=False))
    assert "meta/esc50.csv lists no clip of this dataset" in _error(FileNotFoundError, "esc10", folder)


def test_csv_that_is_no_text(folder):
    (folder / "meta" / "esc50.csv").write_bytes(bytes(range(128, 256)))
    assert "not a readable csv" in _error(ValueError, "esc50", folder)


def test_fold_that_is_no_number(folder):
    _edit_csv(folder, lambda table: table.assign(fold=["one", *table["fold"][1:]]))
    assert "column fold must hold whole numbers" in _error(ValueError, "esc50", folder)


def test_clip_listed_twice(folder):
    _edit_csv(folder, lambda table: pd.concat([table, table[:1]]))
    assert "lists 1-100-A-0.wav more than once" in _error(ValueError, "esc50", folder)


def test_target_with_two_names(folder):
    _edit_csv(folder, lambda table: table.assign(category=["wolf", *table["category"][1:]]))
    assert "target 0 has more than one category: dog, wolf" in _error(ValueError, "esc50", folder)


def test_class_without_a_training_clip(folder):
    _edit_csv(folder, lambda table: table[(table["category"] != "cat") | (table["fold"] > 3)])
    assert "no training clip (folds 1-3) of class cat" in _error(ValueError, "esc50", folder)


def test_unknown_dataset():
    assert "dataset must be one of generated, esc10, esc50; got 'urban'" in _error(ValueError, "urban", None)


# A clip that cannot be used is a line, and the others go on


def _break_missing(path):
    path.unlink()


def _break_text(path):
    path.write_text("these are only words, not sound\n" * 40)


def _break_empty_file(path):
    path.write_bytes(b"")


def _break_zero_length(path):
    soundfile.write(path, np.zeros(0), 16000)


def _break_nan(path):
    soundfile.write(path, np.where(np.arange(1000) == 500, np.nan, 0.1), 16000, subtype="FLOAT")


def _break_infinite(path):
    soundfile.write(path, np.where(np.arange(1000) == 500, np.inf, 0.1), 16000, subtype="DOUBLE")


def _break_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_break_missing, "no such file"),
        (_break_text, "not a readable audio file"),
        (_break_empty_file, "not a readable audio file"),
        (_break_zero_length, "holds no samples"),
        (_break_nan, "holds NaN or infinite samples"),
        (_break_infinite, "holds NaN or infinite samples"),
        (_break_folder, "no such file"),
    ],
)
def test_bad_clip_is_one_line_and_the_others_go_on(folder, damage, words):
    whole = load_dataset("esc50", folder)
    damage(folder / "audio" / "5-105-B-5.wav")
    dataset = load_dataset("esc50", folder)
    assert len(dataset.clips) == 29 and "5-105-B-5" not in set(dataset.clips["clip"])
    (problem,) = dataset.problems
    assert "5-105-B-5.wav" in problem and words in problem and "\n" not in problem

    test = whole.split("test")  # listed before the file went bad
    waveforms, problems = load_waveforms(test, 16000)
    good = usable(waveforms)
    assert good.sum() == 5 and not good[test["clip"] == "5-105-B-5"].any()
    assert problems == [problem]
    assert (waveforms[good].abs().amax(dim=1) == 1).all()


def test_clip_outside_the_folder_is_refused(folder):
    soundfile.write(folder / "secret.wav", tone(100, 8000, 0.1), 8000)
    _edit_csv(folder, lambda table: table.assign(filename=["../secret.wav", *table["filename"][1:]]))
    dataset = load_dataset("esc50", folder)
    assert len(dataset.clips) == 29
    assert len(dataset.problems) == 1 and "lies outside" in dataset.problems[0]


def test_unusable_sample_rate_is_one_line(tmp_path):
    soundfile.write(tmp_path / "odd.wav", tone(100, 44101, 0.1), 44101)
    with pytest.raises(ValueError, match="cannot resample its 44101 Hz to 32000 Hz; convert it"):
        load_waveform(tmp_path / "odd.wav", 32000)


# Odd but sound


def test_silence_stays_silence(tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    waveform = load_waveform(tmp_path / "silent.wav", 32000)
    assert waveform.shape == (160000,) and not waveform.any()


@pytest.mark.parametrize(
    ("rate", "duration", "subtype", "channels"),
    [
        (16000, 5.0, "PCM_U8", 1),
        (16000, 5.0, "PCM_24", 1),
        (16000, 5.0, "PCM_32", 6),
        (44100, 5.0, "PCM_16", 2),
        (8000, 5.0, "PCM_16", 1),
        (96000, 5.0, "PCM_24", 2),
        (44100, 0.1, "PCM_16", 1),
        (16000, 60.0, "PCM_16", 1),
    ],
)
def test_formats_and_lengths(tmp_path, rate, duration, subtype, channels):
    sound = np.repeat(0.7 * tone(440, rate, duration)[:, None], channels, axis=1)
    soundfile.write(tmp_path / "clip.wav", sound, rate, subtype=subtype)
    waveform = load_waveform(tmp_path / "clip.wav", 32000).numpy()
    assert waveform.shape == (160000,)
    n = round(min(duration, 5.0) * 32000)
    expected = tone(440, 32000)
    tolerance = 0.02 if subtype == "PCM_U8" else 0.01
    np.testing.assert_allclose(waveform[500 : n - 500], expected[500 : n - 500], atol=tolerance)
    assert not waveform[n + 500 :].any()


# Noise


@pytest.mark.parametrize(
    ("scenario", "files", "words"),
    [
        ("thunder", [], "must be one of clean, white, room, horse or an audio file; got 'thunder'"),
        ("white", [], "expected one audio file with 'white' in its name; found none"),
        ("white", ["white1.wav", "White2.wav"], "found White2.wav, white1.wav"),
        ("horse", ["horse.wav"], "horse.wav: silent in its first 0.0625 s"),
    ],
)
def test_bad_noise_is_one_line(tmp_path, scenario, files, words):
    for name in files:
        soundfile.write(tmp_path / name, np.zeros(1000), 16000)
    with pytest.raises(ValueError) as caught:
        load_noise(scenario, 16000, tmp_path)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_missing_noise_folder_and_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="noise_root .*gone: no such folder or file"):
        load_noise("white", 16000, tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="gone.wav: no such file"):
        load_noise(str(tmp_path / "gone.wav"), 16000)


def test_noise_with_nan(tmp_path):
    soundfile.write(tmp_path / "white.wav", np.full(100, np.nan), 16000, subtype="FLOAT")
    with pytest.raises(ValueError, match="white.wav: holds NaN"):
        load_noise("white", 16000, tmp_path)


def test_waveforms_of_no_clips(folder):
    waveforms, problems = load_waveforms(load_dataset("esc50", folder).clips[:0], 16000)
    assert waveforms.shape == (0, 80000) and problems == []
    assert usable(waveforms).dtype == torch.bool

"""What is noticed, said or refused of data: changed stems, short noises, names of classes, unused folds, what is left."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import unicodedata
from functools import partial

import numpy as np
import pandas as pd
import planted_bench
import pytest
import soundfile
import torch
from any_models import CLASSES, cnn
from esc_folder import make_folder, tone

from audioxai_utils import AudioClassifier, LogMel, explain_folder, explain_recording, workers
from audioxai_utils.audio import downloads, inputs
from audioxai_utils.audio.datasets import load_noise
from audioxai_utils.audio.own_data import labelled, load_own_dataset
from audioxai_utils.audit.planted import command as planted
from audioxai_utils.audit.stems import command as stems
from audioxai_utils.figures.recordings import recording_strip
from audioxai_utils.gallery.recordings_page import recordings_page

RATE = 16000


def noise_of(seconds: float, rate: int = RATE) -> np.ndarray:
    return 0.2 * np.random.default_rng(0).standard_normal(round(seconds * rate))


# Stems


@pytest.mark.parametrize(
    "change",
    [
        lambda stem: soundfile.write(stem, noise_of(0.3), RATE),
        lambda stem: stem.unlink(),
        lambda stem: shutil.copy(stem, stem.parent / "b.wav"),
        lambda stem: stem.parent.rename(stem.parent.parent / "background"),
    ],
)
def test_a_change_of_stems_is_a_change_of_the_dataset(tmp_path, change):
    folder = make_folder(tmp_path / "esc")
    without = inputs.dataset_state(folder)
    stem = folder / "stems" / "event" / "5-0.wav"
    stem.parent.mkdir(parents=True)
    soundfile.write(stem, noise_of(0.2), RATE)
    before = inputs.dataset_state(folder)
    assert before == inputs.dataset_state(folder) != without
    change(stem)
    assert inputs.dataset_state(folder) != before


# Noise


@pytest.mark.parametrize("seconds", [2.0, 5.0, 7.5])
def test_a_short_noise_goes_on_to_the_end_of_the_clip(tmp_path, seconds):
    soundfile.write(tmp_path / "hiss.wav", noise_of(1.0), RATE, "FLOAT")
    noise = load_noise(str(tmp_path / "hiss.wav"), RATE, seconds=seconds).numpy()
    n = np.arange(round(seconds * RATE)) % RATE
    np.testing.assert_allclose(noise, (noise_of(1.0) / np.abs(noise_of(1.0)).max())[n], atol=1e-6)


@pytest.mark.parametrize("name, rate", [("hiss.mp3", RATE), ("hiss.ogg", 22050), ("hiss.wav", 11025)])
def test_no_second_of_a_short_noise_is_silent_whatever_its_file(tmp_path, name, rate):
    soundfile.write(tmp_path / name, noise_of(1.3, rate), rate)
    levels = load_noise("white", RATE, tmp_path / name).reshape(50, -1).square().mean(1).sqrt()
    assert levels.min() > 0.5 * levels.max()


def test_a_noise_is_refused_for_clips_that_end_before_it_begins(tmp_path):
    path = tmp_path / "late.wav"
    soundfile.write(path, np.concatenate([np.zeros(2 * RATE), noise_of(3.0)]), RATE)
    with pytest.raises(ValueError, match="late.wav: silent in its first 1 s, so it cannot serve as noise"):
        load_noise(str(path), RATE, seconds=1.0)
    assert load_noise(str(path), RATE, seconds=3.0).any()


# A user's own sounds


def test_classes_are_met_however_their_accents_are_written(tmp_path):
    for name in ("Hühner", "car_horn"):
        folder = tmp_path / unicodedata.normalize("NFD", name)
        folder.mkdir()
        soundfile.write(folder / "a.wav", noise_of(0.2), RATE)
    classes = tuple(unicodedata.normalize("NFC", name) for name in ("dog", "hühner", "Car-Horn"))
    clips = labelled(load_own_dataset(tmp_path), classes).clips
    assert sorted(clips["label"]) == [1, 2]


def test_clips_in_unused_folds_are_left_out_and_said(tmp_path):
    path = make_folder(tmp_path / "esc") / "meta" / "esc50.csv"
    table = pd.read_csv(path)
    table.assign(fold=table["fold"].replace({1: 0, 2: 9})).to_csv(path, index=False)
    dataset = load_own_dataset(tmp_path / "esc")
    (line,) = dataset.problems
    assert line.startswith("12 clips: in a fold that is not used (0, 9; ")
    assert sorted(set(dataset.clips["fold"])) == [3, 4, 5] and dataset.n_listed == 30
    table.assign(fold=0).to_csv(path, index=False)
    dataset = load_own_dataset(tmp_path / "esc")
    assert dataset.problems == ["30 clips: all in other folds than 1 to 5, so that all are explained"]
    assert len(dataset.split("test")) == 30


def test_a_good_file_is_taken_without_writing_beside_it(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(b"weights")
    for checksum in (hashlib.md5(b"weights").hexdigest(), "sha256:" + hashlib.sha256(b"weights").hexdigest()):
        assert downloads.download("http://nowhere.invalid/weights.pt", path, checksum, 7) == path
    assert list(tmp_path.iterdir()) == [path]


# What was left out


def test_pieces_that_are_left_out_are_counted():
    late, pieces = [], partial(dict, a=("a: fine", True), b=("b: fine", True))
    assert workers.run("ab", pieces, dict.__getitem__, 1, stop=0.0, late=late.append) == 0
    assert workers.run("ab", pieces, dict.__getitem__, 1, late=late.append) == 0
    assert late == [2]


def test_a_part_of_the_cases_is_not_joined(tmp_path, capsys, monkeypatch):
    joined = []
    monkeypatch.setattr(planted, "join", lambda *given: joined.append(given))
    sounds = planted_bench.sounds()
    planted_bench.bench(sounds).write(tmp_path / "bench")
    given = [str(tmp_path / "bench"), str(tmp_path / "parts"), "--seconds", "1e-9"]
    assert planted.main([*given, "--join", str(tmp_path / "out")]) == 1
    line = "nothing is joined: 1 of 1 were left out, the time is over; run it again to go on\n"
    assert capsys.readouterr().err == line and not joined
    assert planted.main(given) == 0


def test_a_part_of_the_scenes_is_not_joined(tmp_path, capsys, monkeypatch):
    def run(names, *given, late=None, **more):
        if late is not None:
            late(1)
        return 0

    monkeypatch.setattr(stems, "read_scenes", lambda folder: [])
    monkeypatch.setattr(stems, "run", run)
    monkeypatch.setattr(stems, "joined", lambda *given: pd.DataFrame({"scene": ["a"]}))
    out = tmp_path / "out.parquet"
    assert stems.main([str(tmp_path), str(tmp_path / "parts"), "--join", str(out)]) == 1
    assert capsys.readouterr().err.startswith("nothing is joined: 1 of ") and not out.exists()


# Recordings


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Two recordings of one name, with eight reasons each."""
    folder = tmp_path_factory.mktemp("recordings")
    for place in ("mon", "tue"):
        (folder / place).mkdir()
        soundfile.write(folder / place / "a.wav", noise_of(8.0, 8000), 8000)
    quick = {"window": 1.0, "hop": 1.0, "n_reasons": 8, "method": "saliency", "check_gradient": False}
    return list(explain_folder(classifier(), folder, **quick))


def classifier() -> AudioClassifier:
    mel = LogMel(8000, n_fft=256, hop_length=128, n_mels=32)
    return AudioClassifier(cnn(), CLASSES, input=mel, head="softmax")


def test_recordings_of_one_name_are_told_apart(found, tmp_path):
    assert [set(each.table()["file"]) for each in found] == [{"mon/a.wav"}, {"tue/a.wav"}]
    text = recordings_page(found, tmp_path / "page.html").read_text()
    assert "<h2>mon/a.wav</h2>" in text and "<h2>tue/a.wav</h2>" in text
    assert recording_strip(found[1]).axes[0].get_title() == "tue/a.wav"
    assert dataclasses.replace(found[0], folder=None).name == "a.wav"


def test_no_step_at_all_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise_of(2.0), RATE)
    with pytest.raises(ValueError, match="hop must lie above 0 and not above seconds, 1; got 0"):
        explain_recording(classifier(), tmp_path / "a.wav", window=1.0, hop=0)


def test_a_number_is_one_window_on_the_strip_and_in_the_players(found, tmp_path):
    recording = found[0]
    assert len(recording.reasons) == 8
    reasons = [
        dataclasses.replace(each, p=0.1 if number in (1, 4) else 0.9)
        for number, each in enumerate(recording.reasons, 1)
    ]
    recording = dataclasses.replace(recording, reasons=reasons)
    strip, *pictures = (ax for ax in recording_strip(recording).axes if ax.get_label() != "<colorbar>")
    shown = [2, 3, 5, 6, 7, 8]
    assert [int(text.get_text()) for text in strip.texts] == shown
    titles = [picture.get_title() for picture in pictures]
    assert [int(title.split(" · ")[0]) for title in titles] == shown
    for number, title in zip(shown, titles, strict=True):
        assert f"0:{reasons[number - 1].start:04.1f}" in title
    text = recordings_page([recording], tmp_path / "page.html").read_text()
    for number, reason in enumerate(reasons, 1):
        assert f"{number}. {reason.class_name}, {reason.sound_start:.1f} s" in text


def test_a_player_says_what_of_its_sound_it_cannot_play(found, tmp_path):
    rate, sounds = 192000, []
    for high, low in ((0.3, 0.1), (0.1, 0.3), (0.0, 0.0)):
        sounds.append(high * tone(45000, rate, 0.5) + low * tone(1000, rate, 0.5))
    reasons = [
        dataclasses.replace(reason, sound=torch.from_numpy(sound))
        for reason, sound in zip(found[0].reasons, sounds)
    ]
    recording = dataclasses.replace(found[0], sample_rate=rate, reasons=reasons)
    text = recordings_page([recording], tmp_path / "page.html").read_text()
    first = f"1. {reasons[0].class_name}, {reasons[0].sound_start:.1f} s"
    words = "; sounds above 16 kHz: 90 % of its energy are not in this player; the file has them"
    assert f"{first}{words}" in text and text.count("sounds above") == 1

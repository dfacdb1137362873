"""What odd files are to recordings, to `explain` and to a folder of one's own: read whole, or told in one line."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest
import soundfile
import torch
from any_models import CLASSES, cnn

from audioxai_utils import AudioClassifier, LogMel, explain, explain_folder, explain_many, explain_recording
from audioxai_utils.audio import containers
from audioxai_utils.audio.own_data import load_own_dataset
from audioxai_utils.audio.streaming import sound_files, windows

RATE = 8000
QUICK = {"method": "lime", "n_samples": 4}


def noise_of(seconds: float, seed: int = 0) -> np.ndarray:
    return 0.2 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))


def classifier() -> AudioClassifier:
    mel = LogMel(RATE, n_fft=256, hop_length=128, n_mels=32)
    return AudioClassifier(cnn(), CLASSES, input=mel, head="softmax")


def cut(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def other_bit(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]


@pytest.mark.parametrize(
    "suffix, damage",
    [
        ("wav", cut),
        ("aiff", cut),
        ("flac", cut),
        ("ogg", cut),
        ("mp3", cut),
        ("ogg", other_bit),
        ("flac", other_bit),
        ("ogg", lambda data: data + data),
        ("mp3", lambda data: data + data),
    ],
)
def test_a_recording_that_is_not_whole_is_told_and_the_others_go_on(tmp_path, suffix, damage):
    soundfile.write(tmp_path / f"a.{suffix}", noise_of(6), RATE)
    data = (tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f"a.{suffix}").write_bytes(damage(data))
    soundfile.write(tmp_path / "b.wav", noise_of(6), RATE)
    refused, good = explain_folder(classifier(), tmp_path, window=2.0, n_reasons=1, **QUICK)
    assert refused.startswith(f"{tmp_path / f'a.{suffix}'}: ") and "\n" not in refused
    assert "decodes only in part" in refused or "damaged audio file" in refused
    assert good.seconds == 6.0 and len(good.probabilities) == 5


@pytest.mark.parametrize("suffix", ["wav", "aiff", "flac", "ogg", "mp3", "opus"])
@pytest.mark.parametrize("seconds, hop", [(2.0, 1.0), (2.0, 2.0), (1.7, 0.9)])
def test_a_whole_recording_is_read_whatever_its_windows(tmp_path, suffix, seconds, hop):
    form = {"format": "OGG", "subtype": "OPUS"} if suffix == "opus" else {}
    soundfile.write(tmp_path / f"a.{suffix}", noise_of(6), RATE, **form)
    *_, last = windows(tmp_path / f"a.{suffix}", seconds, hop, RATE)
    assert last.start + last.seconds == pytest.approx(6.0, abs=0.2)


def test_an_mp3_is_looked_into_also_where_no_file_can_be_mapped(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.mp3", noise_of(6), RATE)

    def refuse(*given, **more):
        raise OSError(19, "No such device")

    monkeypatch.setattr(containers.mmap, "mmap", refuse)
    assert containers.missing_part(tmp_path / "a.mp3", "MP3", 6 * RATE) is None
    assert "of about" in containers.missing_part(tmp_path / "a.mp3", "MP3", 3 * RATE)


def test_channels_that_cancel_are_told_by_whatever_reads_them(tmp_path):
    left = noise_of(6)
    soundfile.write(tmp_path / "a.wav", np.stack([left, -left], 1), RATE, "PCM_16")
    words = "its channels cancel each other .antiphase.; keep one of them"
    with pytest.raises(ValueError, match=f"a.wav: {words}"):
        explain(classifier(), tmp_path / "a.wav", **QUICK)
    with pytest.raises(ValueError, match=f"waveform: {words}"):
        explain(classifier(), np.stack([left, -left]), RATE, **QUICK)
    with pytest.raises(ValueError, match=f"a.wav: {words}"):
        explain_recording(classifier(), tmp_path / "a.wav", window=2.0, **QUICK)
    silence = explain(classifier(), np.zeros((2, RATE)), RATE, **QUICK)
    assert not silence.waveform.any()


def test_a_second_in_antiphase_does_not_end_a_recording(tmp_path):
    left, sign = noise_of(6), np.ones(6 * RATE)
    sign[2 * RATE : 3 * RATE] = -1
    soundfile.write(tmp_path / "a.wav", np.stack([left, sign * left], 1), RATE, "FLOAT")
    found = list(windows(tmp_path / "a.wav", 1.0, 1.0, RATE))
    assert len(found) == 6 and not found[2].samples.any() and found[3].samples.any()


def test_folders_of_recordings_are_walked_as_all_folders_are(tmp_path):
    """Linked folders and their loops, links to nothing, hidden files, a name that is not UTF-8."""
    real, folder = tmp_path / "real", tmp_path / "folder"
    for place in (real, folder / ".hidden"):
        place.mkdir(parents=True)
        soundfile.write(place / "a.wav", noise_of(3), RATE)
    (folder / "linked").symlink_to(real)
    (folder / "loop").symlink_to(folder)
    (folder / "._a.wav").write_bytes(b"of another system")
    (folder / "gone.wav").symlink_to("/nowhere/gone.wav")
    with open(os.fsencode(folder) + b"/\xff\xfe.wav", "wb") as file:
        file.write((real / "a.wav").read_bytes())
    names = [os.fsencode(path.relative_to(folder)) for path in sound_files(folder)]
    assert names == [b"gone.wav", b"linked/a.wav", b"\xff\xfe.wav"]
    found = list(explain_folder(classifier(), folder, window=1.0, n_reasons=1, **QUICK))
    assert [isinstance(each, str) for each in found] == [True, False, True]
    assert "no such file (a link to /nowhere/gone.wav, which is not there)" in found[0]
    assert found[2].endswith(r"\udcff\udcfe.wav: its name is not UTF-8; rename it")


def test_sounds_of_two_files_of_one_name_do_not_overwrite_each_other(tmp_path):
    """Nor do classes that are written alike; the same sound has the same name whenever it is written."""
    for place in ("x", "y"):
        (tmp_path / "in" / place).mkdir(parents=True)
        soundfile.write(tmp_path / "in" / place / "a.wav", noise_of(1), RATE, "FLOAT")
    some, out = (
        list(explain_folder(classifier(), tmp_path / "in", window=1.0, n_reasons=1, **QUICK)),
        tmp_path / "out",
    )
    names = (("a/b", 0.5), ("a b", 0.25))
    for _ in range(2):
        for recording, (name, level) in zip(some, names, strict=True):
            reason = dataclasses.replace(
                recording.reasons[0], class_name=name, sound=level * torch.ones(8), sound_start=0.0
            )
            (path,) = dataclasses.replace(recording, reasons=[reason]).save_sounds(out)
            assert (soundfile.read(path)[0] == level).all()
    assert sorted(path.name for path in out.iterdir()) == ["a-00000.00s-a_b-2.wav", "a-00000.00s-a_b.wav"]


def test_a_folder_of_ones_own_says_what_it_left_out(tmp_path):
    for name in ("dog/a", "dog/b", "cat/a", "cat/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / f"{name}.wav", noise_of(1), RATE)
    (tmp_path / "cat" / "gone.wav").symlink_to("/nowhere.wav")
    (tmp_path / "cat" / "m.m4a").write_bytes(b"no sound")
    for name in ("n.txt", "n.caf", "n.raw"):
        (tmp_path / "cat" / name).write_bytes(b"no sound")
    with open(os.fsencode(tmp_path) + b"/dog/\xff.wav", "wb") as file:
        file.write((tmp_path / "dog" / "a.wav").read_bytes())
    dataset = load_own_dataset(tmp_path)
    assert sorted(dataset.clips["clip"]) == ["b", "c", "cat-a", "dog-a"] and dataset.n_listed == 7
    said = "\n".join(dataset.problems)
    assert len(dataset.problems) == 4 and "which is not there" in said and "its name is not UTF-8" in said
    assert "m.m4a" in said and "3 clips: no sound, by its name (n.caf, n.raw, n.txt)" in said


def test_a_clip_that_is_not_there_is_a_row_and_the_others_go_on(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise_of(1), RATE)
    (tmp_path / "b.wav").symlink_to("/nowhere.wav")
    (tmp_path / "c.wav").write_bytes(b"no sound")
    clips = [tmp_path / name for name in ("none.wav", "b.wav", "c.wav", "a.wav")]
    table = explain_many(classifier(), clips, ["lime"], masks=["bin"], n_samples=4)
    assert table["clip"].tolist() == [str(path) for path in clips]
    assert table["refused"].ne("").tolist() == [True, True, True, False]
    assert table["refused"][0] == f"{clips[0]}: no such file"

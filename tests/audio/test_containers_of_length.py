"""Files of any length: those whose sizes have 64 bits, formats that are no MP3, and what ffmpeg is told to write."""

from __future__ import annotations

import json
import os
import stat
import sys

import numpy as np
import pytest
import soundfile

from audioxai_utils.audio.audio_files import read_samples

RATE = 48000
FORMATS = [
    ("RF64", "PCM_24"),
    ("RF64", "PCM_16"),
    ("W64", "PCM_24"),
    ("AU", "PCM_24"),
    ("CAF", "PCM_24"),
    ("FLAC", "PCM_16"),
]


def write(path, form: str, subtype: str, seed: int = 0, seconds: float = 3.0):
    sound = 0.003 * np.random.default_rng(seed).standard_normal((round(seconds * RATE), 2))
    soundfile.write(path, sound, RATE, subtype, format=form)
    return path


@pytest.mark.parametrize("form, subtype", FORMATS)
def test_a_whole_file_is_read_whatever_bytes_its_samples_are(tmp_path, form, subtype):
    for seed in range(4):
        samples, rate = read_samples(write(tmp_path / "a.wav", form, subtype, seed), 10.0)
        assert rate == RATE and samples.shape == (3 * RATE, 2)


@pytest.mark.parametrize("form", ["RF64", "WAV"])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_a_file_of_64_bits_that_is_cut_off_is_told(tmp_path, form, subtype):
    path = write(tmp_path / "a.wav", form, subtype)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(ValueError, match=r"a.wav: decodes only in part \(cut off: [\d,]+ of [\d,]+ bytes"):
        read_samples(path, 10.0)
    assert len(read_samples(path, 1.0)[0]) == RATE  # what is asked for is there


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script")
def test_ffmpeg_is_told_to_write_more_than_4_gib(tmp_path, monkeypatch):
    """The output options stand between the input and the output file, where ffmpeg looks for them."""
    write(tmp_path / "source.wav", "RF64", "FLOAT")
    script = tmp_path / "bin" / "ffmpeg"
    script.parent.mkdir()
    script.write_text(
        f"#!{sys.executable}\nimport json, shutil, sys\n"
        f"json.dump(sys.argv, open({str(tmp_path / 'given.json')!r}, 'w'))\n"
        f"shutil.copy({str(tmp_path / 'source.wav')!r}, sys.argv[-1])\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    (tmp_path / "phone.m4a").write_bytes(b"something")
    assert len(read_samples(tmp_path / "phone.m4a", 10.0)[0]) == 3 * RATE
    given = json.loads((tmp_path / "given.json").read_text())
    options = given[given.index("-i") + 2 : -1]
    assert options[options.index("-rf64") + 1] == "auto" and "pcm_f32le" in options

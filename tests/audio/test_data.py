"""Datasets, waveforms, noises and downloads on small folders and a server on this machine."""

from __future__ import annotations

import hashlib
import io
import socket
import zipfile

import numpy as np
import pytest
import soundfile
import torch
from esc_folder import CLASSES, make_folder, tone
from local_server import server  # noqa: F401 (a fixture)

from audioxai_utils.audio import datasets, downloads
from audioxai_utils.audio.datasets import (
    background_clips,
    load_dataset,
    load_noise,
    load_waveform,
)


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "sounds")


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_dataset_from_a_folder(tmp_path, suffix):
    dataset = load_dataset("esc50", make_folder(tmp_path / "sounds", suffix))
    assert dataset.classes == ("dog", "cat", "chainsaw") and dataset.problems == []
    assert dataset.clips.columns.tolist() == ["clip", "path", "fold", "target", "label", "category"]
    assert [len(dataset.split(name)) for name in ("train", "validation", "test")] == [18, 6, 6]
    assert set(dataset.split("train")["fold"]) == {1, 2, 3}
    assert set(zip(dataset.clips["target"], dataset.clips["label"])) == {(0, 0), (5, 1), (41, 2)}
    assert dataset.clips["clip"][0] == "1-100-A-0"


def test_esc10_takes_its_own_classes_and_numbers_them_anew(folder):
    dataset = load_dataset("esc10", folder)
    assert dataset.classes == ("dog", "chainsaw")
    assert set(zip(dataset.clips["target"], dataset.clips["label"])) == {(0, 0), (41, 1)}


@pytest.mark.parametrize(
    ("longest", "seconds"), [(0.2, 1.0), (1.3135, 1.4), (1.4, 1.4), (3.6077, 3.7), (4.95, 5.0), (7.0, 5.0)]
)
@pytest.mark.parametrize("suffix", [".flac", ".mp3"])
def test_clips_are_padded_to_the_longest_of_them(tmp_path, suffix, longest, seconds):
    """Of spoken digits padded to 5 s nine tenths would be silence; a header of an MP3 counts its encoder's too."""
    folder = make_folder(tmp_path / "sounds", suffix)
    path = sorted((folder / "audio").iterdir())[7]
    soundfile.write(path, 0.5 * tone(440, 8000, longest), 8000)
    dataset = load_dataset("esc50", folder)
    assert dataset.seconds == pytest.approx(seconds, abs=0.11 if suffix == ".mp3" else 1e-12)
    assert dataset.problems == []
    waveforms, problems = datasets.load_waveforms(dataset.clips[7:8], 16000, seconds=dataset.seconds)
    assert waveforms.shape == (1, round(16000 * dataset.seconds)) and not problems
    assert waveforms[0][: round(16000 * min(longest, 5) * 0.9)].abs().max() == pytest.approx(1, abs=0.02)


def test_data_root_from_the_environment(folder, monkeypatch):
    monkeypatch.setenv("AUDIOXAI_DATA", str(folder))
    assert load_dataset("esc50").root == folder.resolve()
    monkeypatch.setenv("AUDIOXAI_DATA", str(folder / "gone"))
    with pytest.raises(FileNotFoundError, match="no such folder"):  # and no download
        load_dataset("esc50")


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000, 96000])
def test_a_tone_stays_the_same_tone_at_every_rate(tmp_path, rate):
    soundfile.write(tmp_path / "tone.wav", 0.3 * tone(1000, rate), rate, subtype="FLOAT")
    waveform = load_waveform(tmp_path / "tone.wav", 32000).numpy()
    assert waveform.shape == (160000,) and waveform.dtype == np.float32
    np.testing.assert_allclose(waveform[2000:-2000], tone(1000, 32000)[2000:-2000], atol=5e-3)


def test_stereo_is_the_channels_mean_and_peak_is_one(tmp_path):
    left, right = tone(500, 16000), tone(1500, 16000)
    both = np.stack([0.6 * left, 0.2 * right], axis=1)
    soundfile.write(tmp_path / "stereo.wav", both, 16000, subtype="FLOAT")
    expected = 0.3 * left + 0.1 * right
    expected /= abs(expected).max()
    np.testing.assert_allclose(load_waveform(tmp_path / "stereo.wav", 16000), expected, atol=1e-6)


def test_peak_is_of_the_five_seconds_that_are_kept(tmp_path):
    samples = np.concatenate([0.25 * tone(440, 16000), 0.9 * tone(440, 16000)])
    soundfile.write(tmp_path / "long.wav", samples, 16000, subtype="FLOAT")
    np.testing.assert_allclose(load_waveform(tmp_path / "long.wav", 16000), tone(440, 16000), atol=2e-3)


def test_long_files_are_the_same_as_read_whole(tmp_path):
    from torchaudio.functional import resample

    samples = np.random.default_rng(0).standard_normal(44100 * 12).astype(np.float32) / 8
    soundfile.write(tmp_path / "long.wav", samples, 44100, subtype="FLOAT")
    whole = resample(torch.from_numpy(samples), 44100, 16000)[:80000]
    torch.testing.assert_close(load_waveform(tmp_path / "long.wav", 16000), whole / whole.abs().max())


def test_background_is_the_first_two_training_clips_of_each_class(folder):
    dataset = load_dataset("esc50", folder)
    clips = background_clips(dataset)["clip"].tolist()
    assert clips == [f"1-{100 + t}-{take}-{t}" for t, _ in CLASSES.values() for take in "AB"]
    assert background_clips(dataset, 3)["label"].tolist() == [0, 1, 2]
    assert sorted(background_clips(dataset, 8)["label"].value_counts()) == [2, 3, 3]
    assert len(background_clips(dataset, 1000)) == 18
    with pytest.raises(ValueError, match="n must be at least 1; got 0"):
        background_clips(dataset, 0)


def test_one_clip_a_class_is_the_first(folder):
    frame = datasets.load_dataset("esc50", folder).split("test")
    chosen = datasets.one_a_class(frame)
    assert chosen["label"].tolist() == sorted(set(frame["label"]))
    assert all(row.clip == frame[frame["label"] == row.label]["clip"].iloc[0] for row in chosen.itertuples())


def test_fingerprint_changes_with_any_sample_and_any_row(folder, tmp_path):
    before = datasets.fingerprint(load_dataset("esc50", folder))
    assert before == datasets.fingerprint(load_dataset("esc50", make_folder(tmp_path / "copy")))
    path = folder / "audio" / "1-100-A-0.wav"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    after = datasets.fingerprint(load_dataset("esc50", folder))
    assert len(after) == 12 and after != before


def test_noise_from_a_folder_a_file_and_a_path(tmp_path):
    for name, frequency in (("my_White-noise", 500), ("office_room", 250), ("a_horse", 125)):
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * tone(frequency, 16000), 16000)
    (tmp_path / "white_readme.txt").write_text("no audio")
    for scenario, frequency in (("white", 500), ("room", 250), ("horse", 125)):
        np.testing.assert_allclose(load_noise(scenario, 16000, tmp_path), tone(frequency, 16000), atol=2e-3)
    room = tmp_path / "office_room.wav"
    assert torch.equal(load_noise("white", 16000, room), load_noise("room", 16000, tmp_path))
    assert torch.equal(load_noise(str(room), 16000), load_noise("room", 16000, tmp_path))
    assert load_noise("clean", 16000, tmp_path) is None


def test_generated_noise_is_seeded():
    noise = load_noise("room", 16000, seed=1)
    assert noise.dtype == torch.float32 and noise.shape == (80000,) and noise.abs().max() == 1
    assert torch.equal(noise, load_noise("room", 16000, seed=1))
    assert not torch.equal(noise, load_noise("room", 16000, seed=2))


# Downloads, from a server on this machine


def names(folder) -> list[str]:
    """Files of a folder but the one by which it is locked."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


CONTENT = np.random.default_rng(0).bytes(700_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


def test_download_is_checked_and_not_repeated(server, tmp_path):
    server.files = {"/weights.pth": CONTENT}
    for _ in range(2):
        path = tmp_path / "new" / "w.pth"
        downloads.download(f"{server.url}/weights.pth", path, MD5, len(CONTENT), progress=False)
    assert path.read_bytes() == CONTENT and server.log == [None]
    assert names(path.parent) == ["w.pth"]


def test_interrupted_download_goes_on_where_it_stopped(server, tmp_path):
    server.files, server.break_at = {"/w": CONTENT}, 262_144
    with pytest.raises(ConnectionError, match="broke off at 262144 of 700000 bytes; run again"):
        downloads.download(f"{server.url}/w", tmp_path / "w", MD5, progress=False, attempts=1)
    assert not (tmp_path / "w").exists() and (tmp_path / "w.part").stat().st_size == 262_144
    downloads.download(f"{server.url}/w", tmp_path / "w", MD5, progress=False, attempts=1)
    assert (tmp_path / "w").read_bytes() == CONTENT and server.log == [None, "bytes=262144-"]


def test_a_break_is_resumed_within_one_call(server, tmp_path):
    server.files, server.break_at = {"/w": CONTENT}, 458_752
    downloads.download(f"{server.url}/w", tmp_path / "w", MD5, progress=False)
    assert (tmp_path / "w").read_bytes() == CONTENT and server.log == [None, "bytes=458752-"]


def test_server_without_ranges_starts_again(server, tmp_path):
    server.files, server.ranges = {"/w": CONTENT}, False
    (tmp_path / "w.part").write_bytes(CONTENT[:1000])
    downloads.download(f"{server.url}/w", tmp_path / "w", MD5, progress=False)
    assert (tmp_path / "w").read_bytes() == CONTENT


def test_whole_part_file_needs_no_more_bytes(server, tmp_path):
    server.files = {"/w": CONTENT}
    (tmp_path / "w.part").write_bytes(CONTENT)
    downloads.download(f"{server.url}/w", tmp_path / "w", MD5, progress=False)
    assert (tmp_path / "w").read_bytes() == CONTENT and server.log == ["bytes=700000-"]


def test_wrong_bytes_are_refused_and_deleted(server, tmp_path):
    server.files = {"/w": CONTENT[:-1] + b"!"}
    with pytest.raises(ValueError, match="checksum is not md5") as caught:
        downloads.download(f"{server.url}/w", tmp_path / "w", MD5, progress=False)
    assert "\n" not in str(caught.value) and names(tmp_path) == []
    with pytest.raises(ValueError, match="700000 bytes came, expected 5"):
        downloads.download(f"{server.url}/w", tmp_path / "w", size=5, progress=False)
    assert names(tmp_path) == []


def test_damaged_file_is_fetched_again(server, tmp_path):
    server.files = {"/w": CONTENT}
    (tmp_path / "w").write_bytes(CONTENT[:5000])
    downloads.download(f"{server.url}/w", tmp_path / "w", MD5, progress=False)
    assert (tmp_path / "w").read_bytes() == CONTENT


def test_no_network_and_no_file_are_one_line(server, tmp_path):
    with pytest.raises(ConnectionError, match="the server answered 404") as caught:
        downloads.download(f"{server.url}/gone", tmp_path / "w", progress=False)
    assert server.log == [None]  # a 404 is not asked for again
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ConnectionError, match="download failed, no connection") as caught:
        downloads.download(f"http://127.0.0.1:{port}/w", tmp_path / "w", progress=False, attempts=2)
    assert "\n" not in str(caught.value) and names(tmp_path) == []


def _archive(folder, extra: dict[str, bytes] | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for path in sorted(folder.rglob("*.*")):
            bundle.write(path, f"ESC-50-master/{path.relative_to(folder)}")
        bundle.writestr("ESC-50-master/README.md", "text")
        for name, content in (extra or {}).items():
            bundle.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def upstream(server, folder, tmp_path, monkeypatch):
    """ESC-50's archive on the server, and an empty data folder."""
    monkeypatch.delenv("AUDIOXAI_DATA", raising=False)
    monkeypatch.setattr(datasets, "default_data_root", lambda name: tmp_path / "data" / name)
    archive = _archive(folder)
    server.files = {"/esc.zip": archive}
    monkeypatch.setenv("AUDIOXAI_ESC50_URL", f"{server.url}/esc.zip")
    monkeypatch.setenv("AUDIOXAI_ESC50_CHECKSUM", "sha256:" + hashlib.sha256(archive).hexdigest())
    return server


def test_esc50_is_downloaded_once_for_both_sets(upstream, tmp_path):
    assert len(load_dataset("esc10", progress=False).clips) == 20
    assert len(load_dataset("esc50", progress=False).clips) == 30
    assert len(upstream.log) == 1
    assert names(tmp_path / "data") == ["esc50"]
    assert names(tmp_path / "data" / "esc50") == ["audio", "meta"]


def test_esc50_with_another_checksum_is_refused(upstream, tmp_path, monkeypatch):
    monkeypatch.setenv("AUDIOXAI_ESC50_CHECKSUM", "sha256:" + 64 * "0")
    with pytest.raises(ValueError, match="checksum is not sha256:000.*set AUDIOXAI_ESC50_CHECKSUM"):
        load_dataset("esc50", progress=False)
    assert names(tmp_path / "data") == []


@pytest.mark.parametrize(
    "name", ["../evil.wav", "/evil.wav", "ESC-50-master/audio/../../evil.wav", "..\\evil.wav", "C:/evil"]
)
def test_archive_cannot_write_outside_its_folder(folder, tmp_path, name):
    (tmp_path / "evil.zip").write_bytes(_archive(folder, {name: b"bad"}))
    with pytest.raises(ValueError, match="leads outside the archive; refused"):
        downloads.extract_dataset(tmp_path / "evil.zip", tmp_path / "in" / "esc50")
    assert not list(tmp_path.rglob("evil*.wav")) and list((tmp_path / "in").iterdir()) == []


def test_archive_with_a_link_is_refused(folder, tmp_path):
    link = zipfile.ZipInfo("ESC-50-master/audio/link.wav")
    link.external_attr = 0o120777 << 16
    (tmp_path / "evil.zip").write_bytes(_archive(folder, {link: b"/etc/passwd"}))
    with pytest.raises(ValueError, match="is a link or leads outside"):
        downloads.extract_dataset(tmp_path / "evil.zip", tmp_path / "esc50")


def test_damaged_or_foreign_archive_leaves_nothing(folder, tmp_path):
    content = bytearray(_archive(folder))
    content[2000] ^= 0xFF  # inside the first sound
    (tmp_path / "bad.zip").write_bytes(content)
    (tmp_path / "no.zip").write_bytes(b"<html>not found</html>")
    for name in ("bad.zip", "no.zip"):
        with pytest.raises(ValueError, match="damaged or not a zip archive"):
            downloads.extract_dataset(tmp_path / name, tmp_path / "in" / "esc50")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as bundle:
        bundle.writestr("other/readme.txt", "text")
    with pytest.raises(ValueError, match="holds no ESC-50"):
        downloads.extract_dataset(tmp_path / "other.zip", tmp_path / "in" / "esc50")
    assert list((tmp_path / "in").iterdir()) == []

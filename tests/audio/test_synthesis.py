"""Generated sound: the same on every machine, what its class should be, and whole or not there."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import pytest
import soundfile

from audioxai_utils.audio.generated import sound_events, synthesis
from audioxai_utils.audio.generated.synthesis import SAMPLE_RATE, TARGETS, synthesise_clip, synthesise_noise
from audioxai_utils.constants import REPOSITORY

# SHA-256 of event and background, int16 little endian. Whoever changes a sound raises VERSION
# (otherwise old folders stay in use) and renews this list.
DIGESTS_VERSION = "3"
DIGESTS = {
    "dog": "a0fde03a837acc55",
    "rooster": "3b3f6fc44354c4e3",
    "rain": "996d1a018f7375d3",
    "sea_waves": "f19fe2819b3afa82",
    "crackling_fire": "3455ab2219dc5c58",
    "crying_baby": "3d6e3830f491e439",
    "sneezing": "b32e8029413fa116",
    "clock_tick": "be7c86fc7e0d0958",
    "helicopter": "8f30b7e98ee6526b",
    "chainsaw": "24884ab0becb5c09",
}


def _digest(category: str) -> str:
    event, background = synthesise_clip(category, 3, 1)
    return hashlib.sha256(event.astype("<i2").tobytes() + background.astype("<i2").tobytes()).hexdigest()[:16]


def _run_python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@functools.cache
def _event(category: str, source: int) -> np.ndarray:
    """An event before recording and quantisation, unit peak."""
    voice, rng = np.random.default_rng([1, source]), np.random.default_rng([2, source])
    event = sound_events.EVENTS[category](voice, rng)
    return event / np.abs(event).max()


def _levels(signal: np.ndarray, frame: int = 320) -> np.ndarray:
    return np.sqrt(np.mean(signal[: len(signal) // frame * frame].reshape(-1, frame) ** 2, axis=1))


def _centroid(signal: np.ndarray) -> float:
    power = np.abs(np.fft.rfft(signal)) ** 2
    return float((power * np.fft.rfftfreq(len(signal), 1 / SAMPLE_RATE)).sum() / power.sum())


@pytest.mark.parametrize("category", TARGETS)
def test_samples_are_the_stored_ones(category):
    assert DIGESTS_VERSION == synthesis.VERSION
    assert _digest(category) == DIGESTS[category]


def test_samples_do_not_depend_on_vector_units():
    names = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    if not names:
        pytest.skip("this processor has no optional vector units")
    code = (
        "import sys; sys.path.insert(0, 'tests/audio'); import test_synthesis as t\n"
        "some = ('rooster', 'crackling_fire', 'crying_baby', 'chainsaw')\n"
        "print(all(t._digest(c) == t.DIGESTS[c] for c in some))"
    )
    assert _run_python(code, NPY_DISABLE_CPU_FEATURES=" ".join(names)).strip() == "True"


def test_clips_do_not_depend_on_order():
    first = synthesise_clip("dog", 3, 1)
    synthesise_clip("chainsaw", 0, 0)
    again = synthesise_clip("dog", 3, 1)
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert not np.array_equal(first[0], synthesise_clip("dog", 3, 0)[0])


def test_table_has_esc50s_layout_and_no_source_in_two_folds():
    table = synthesis.clip_table()
    assert table.columns.tolist() == ["filename", "fold", "target", "category", "esc10", "src_file", "take"]
    assert len(table) == 400 and table["filename"].is_unique
    assert set(table.groupby(["fold", "category"]).size()) == {8}
    assert table.groupby("src_file")["fold"].nunique().max() == 1
    row = table[table["category"] == "chainsaw"].iloc[0]
    assert row["filename"] == f"{row['fold']}-{row['src_file']}-{row['take']}-41.flac"


@pytest.mark.parametrize("category", ["dog", "rain", "clock_tick"])
def test_event_to_background_ratio_is_in_its_range(category):
    for source in range(3):
        event, background = (part.astype(np.float64) for part in synthesise_clip(category, source, 0))
        frames = _levels(event, 640)
        sounding = frames[frames > frames.max() * 10 ** (-30 / 20)]
        snr = 10 * np.log10(np.mean(sounding**2) / np.mean(background**2))
        assert synthesis.SNR_DB[0] - 0.1 <= snr <= synthesis.SNR_DB[1] + 0.1
        peak = np.abs(event + background).max() / 32767
        assert synthesis.PEAK[0] - 1e-3 <= peak <= synthesis.PEAK[1] + 1e-3


def test_pulse_train_is_the_sum_of_its_harmonics():
    f0 = np.linspace(3000.0, 3300.0, 400)
    phase = 2 * np.pi * np.cumsum(f0) / SAMPLE_RATE
    slow = sum(0.8**k * np.sin(k * phase) for k in range(1, 5))  # the fifth would exceed 15 kHz
    np.testing.assert_allclose(sound_events.pulse_train(f0, 0.8), slow, atol=1e-12)


def test_noise_shaping_has_the_asked_slope():
    gain = sound_events.power_law(-1.0)
    signal = sound_events.shaped_noise(np.random.default_rng(0), sound_events.N_SAMPLES, gain)
    power = np.abs(np.fft.rfft(signal)) ** 2
    frequency = np.fft.rfftfreq(len(signal), 1 / SAMPLE_RATE)
    octaves = [power[(frequency >= f) & (frequency < 2 * f)].mean() for f in (100, 200, 400, 800, 1600)]
    np.testing.assert_allclose(np.diff(10 * np.log10(octaves)), -6.02, atol=1.0)  # brown: -6 dB an octave


@pytest.mark.parametrize("source", range(3))
def test_clock_ticks_regularly(source):
    levels = _levels(_event("clock_tick", source), 160)
    onsets = np.flatnonzero((levels[1:] > 0.1 * levels.max()) & (levels[:-1] <= 0.03 * levels.max())) * 0.005
    assert len(onsets) >= 4
    np.testing.assert_allclose(np.diff(onsets), np.diff(onsets).mean(), atol=0.011)


@pytest.mark.parametrize("source", range(3))
def test_helicopter_pulses_at_blade_rate(source):
    levels = _levels(_event("helicopter", source), 160)
    spectrum = np.abs(np.fft.rfft(levels - levels.mean()))
    rates = np.fft.rfftfreq(len(levels), 160 / SAMPLE_RATE)
    assert 8.5 <= rates[rates > 5][spectrum[rates > 5].argmax()] <= 55.0  # the rate or its octave


@pytest.mark.parametrize("source", range(3))
def test_baby_wails_between_280_and_700_hz(source):
    event = _event("crying_baby", source)
    start = _levels(event, 320)[:480].argmax() * 320
    wail = event[start : start + 2048] * np.hanning(2048)
    correlation = np.correlate(wail, wail, "full")[2047:]
    lags = np.arange(SAMPLE_RATE // 750, SAMPLE_RATE // 270)
    assert 270 < SAMPLE_RATE / lags[correlation[lags].argmax()] < 750


def test_classes_differ_as_they_should():
    mean = {c: np.mean([_centroid(_event(c, s)) for s in range(2)]) for c in TARGETS}
    assert mean["rain"] > 2 * mean["sea_waves"] and mean["rain"] > 5 * mean["helicopter"]
    share = {c: np.mean([(_levels(_event(c, s)) > 0.02).mean() for s in range(2)]) for c in TARGETS}
    for continuous in ("rain", "sea_waves", "chainsaw", "helicopter"):
        assert share[continuous] > 0.9
    for sparse in ("dog", "sneezing", "clock_tick"):
        assert share[sparse] < 0.7
    frames = {c: _levels(_event(c, 0), 160) for c in ("crackling_fire", "chainsaw")}
    bursts = {c: levels.max() / np.median(levels) for c, levels in frames.items()}
    assert bursts["crackling_fire"] > 4 > bursts["chainsaw"]


@pytest.fixture
def tiny(monkeypatch):
    """Two classes, five clips each."""
    monkeypatch.setattr(synthesis, "TARGETS", {"dog": 0, "clock_tick": 38})
    monkeypatch.setattr(synthesis, "CLIPS_PER_FOLD", 1)


def test_folder_is_whole_and_stems_sum_to_the_mixture(tiny, tmp_path):
    root = synthesis.generate_dataset(tmp_path / "set", progress=False)
    table = pd.read_csv(root / "meta" / "esc50.csv")
    assert len(table) == 10 and synthesis.is_current(root)
    for name in table["filename"]:
        folders = [root / folder / name for folder in ("audio", "stems/event", "stems/background")]
        mixture, event, background = (soundfile.read(path, dtype="int16")[0].astype(int) for path in folders)
        assert soundfile.info(folders[0]).samplerate == SAMPLE_RATE and mixture.shape == (160000,)
        assert np.array_equal(mixture, event + background)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "set"]
    before = (root / "generated.json").stat().st_mtime_ns
    synthesis.generate_dataset(root, progress=False)
    assert (root / "generated.json").stat().st_mtime_ns == before


def test_interrupted_generation_leaves_nothing(tiny, tmp_path, monkeypatch):
    written = []

    def fail(job):
        written.append(job)
        if len(written) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(synthesis, "_write_clip", fail)
    with pytest.raises(KeyboardInterrupt):
        synthesis.generate_dataset(tmp_path / "set", progress=False)
    assert len(written) == 3 and [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_two_at_once_make_it_once(tiny, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(synthesis, "_write_clip", lambda job: (written.append(job), time.sleep(0.02)))
    work = {"target": synthesis.generate_dataset, "args": (tmp_path / "set", False)}
    threads = [threading.Thread(**work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(written) == 10 and synthesis.is_current(tmp_path / "set")


def test_stale_folder_is_made_again(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(synthesis, "_write_clip", lambda job: None)
    root = synthesis.generate_dataset(tmp_path / "set", progress=False)
    (root / "audio" / "old.flac").touch()
    monkeypatch.setattr(synthesis, "SNR_DB", (10.0, 11.0))
    assert not synthesis.is_current(root)
    synthesis.generate_dataset(root, progress=False)
    assert synthesis.is_current(root) and not (root / "audio" / "old.flac").exists()
    assert json.loads((root / "generated.json").read_text())["fingerprint"] == synthesis.fingerprint()


def test_someone_elses_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="no generated dataset"):
        synthesis.generate_dataset(tmp_path, progress=False)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_white_noise_is_white():
    power = np.abs(np.fft.rfft(synthesise_noise("white", 32000))) ** 2
    bands = [band.mean() for band in np.array_split(power, 8)]
    np.testing.assert_allclose(10 * np.log10(bands / np.mean(bands)), 0, atol=0.3)


def test_room_noise_hums_at_the_mains_frequency():
    noise = synthesise_noise("room", 16000)
    power = np.abs(np.fft.rfft(noise)) ** 2  # 0.2 Hz a bin
    hum = max((50, 60), key=lambda f: power[5 * f])
    around = np.median(power[5 * hum - 40 : 5 * hum + 40])
    assert power[5 * hum] > 100 * around
    assert power[: 5 * 1000].sum() > 0.9 * power.sum()


def test_horse_noise_is_intermittent():
    levels = 20 * np.log10(_levels(synthesise_noise("horse", 32000)))
    assert 0.2 < (levels < levels.max() - 30).mean() < 0.8


@pytest.mark.parametrize("scenario", ["white", "room", "horse"])
def test_noise_is_one_recording_at_every_rate(scenario):
    fine, coarse = synthesise_noise(scenario, 32000, seed=5), synthesise_noise(scenario, 16000, seed=5)
    assert fine.shape == (160000,) and coarse.shape == (80000,)
    assert np.abs(fine).max() == np.abs(coarse).max() == 1.0
    low = np.abs(np.fft.rfft(fine))[:30000], np.abs(np.fft.rfft(coarse))[:30000]
    assert np.corrcoef(*low)[0, 1] > 0.999999
    assert not np.allclose(coarse, synthesise_noise(scenario, 16000, seed=6))
    assert synthesise_noise(scenario, 16000, duration=1.5).shape == (24000,)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("clean", 16000), "noise_scenario must be one of white, room, horse; got 'clean'"),
        (("thunder", 16000), "noise_scenario must be one of"),
        (("white", 0), "sample_rate must be positive"),
        (("white", 16000, 0, 6.0), "duration within 0-5 s"),
    ],
)
def test_bad_noise_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        synthesise_noise(*arguments)


def test_unknown_category():
    with pytest.raises(ValueError, match="category must be one of dog, rooster"):
        synthesise_clip("unicorn", 0, 0)

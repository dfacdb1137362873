"""Stems are used where those of every test clip are there and add up to it; else one line says why not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import soundfile
import torch
from tiny_study import write_dataset

from audioxai_utils.audio.datasets import load_dataset, load_waveform
from audioxai_utils.audio.generated import synthesis
from audioxai_utils.audit import localisation
from audioxai_utils.study.clips import explained_clips

RATE = 16000
FIRST = "5-0-A-0"  # of the test fold


@pytest.fixture
def folder(tmp_path):
    """Tones with a half of each as event, and the other as background."""
    root = tmp_path / "tones"
    write_dataset(root)
    for part in ("event", "background"):
        (root / "stems" / part).mkdir(parents=True)
    for path in (root / "audio").iterdir():
        samples, rate = soundfile.read(path, dtype="int16")
        event = samples // 2
        soundfile.write(root / "stems" / "event" / path.name, event, rate)
        soundfile.write(root / "stems" / "background" / path.name, samples - event, rate)
    return root


def louder(path, gain=1.01):
    samples, rate = soundfile.read(path)
    soundfile.write(path, gain * samples, rate)


def study_of(dataset, n_clips=None):
    """What the clips and the conditions of a study ask of it: one clean condition."""
    sizes = SimpleNamespace(n_clips=n_clips)
    return SimpleNamespace(
        dataset=dataset,
        dtype=torch.float32,
        settings=SimpleNamespace(sizes=sizes, noise_root=None),
        noise_source=lambda name: name,
        conditions=[SimpleNamespace(noise_scenario="clean")],
    )


def test_stems_that_add_up_are_used(folder):
    dataset = load_dataset("esc50", folder)
    assert dataset.has_stems and dataset.problems == []
    study = study_of(dataset)
    for rate in (RATE, 32000, 22050):
        clips = explained_clips(study, rate, "clean")
        torch.testing.assert_close(sum(clips.stems), clips.waveforms, rtol=0, atol=2e-4)
    assert localisation.conditions_of_known_parts(study) == study.conditions


def test_quiet_clips_may_be_rounded_to_16_bits(folder):
    """At a peak of 0.005 one bit is more than a thousandth of it."""
    for path in folder.rglob(f"{FIRST}.wav"):
        louder(path, 0.01)
    assert load_dataset("esc50", folder).has_stems


@pytest.mark.parametrize("part", ["event", "background"])
def test_a_test_clip_without_one_of_its_stems_has_none_of_the_set_used(folder, part):
    (folder / "stems" / part / f"{FIRST}.wav").unlink()
    dataset = load_dataset("esc50", folder)
    (line,) = dataset.problems
    said = f"has no file of its name in stems/{part}; add it or remove the folder stems"
    assert line == f"no stems are used: {folder / 'audio' / FIRST}.wav: {said}"
    assert not dataset.has_stems and len(dataset.clips) == 15
    study = study_of(dataset)
    for shard in ((0, 1), (1, 2)):  # the second shard's clip has both
        assert explained_clips(study, RATE, "clean", shard).stems is None
    assert localisation.conditions_of_known_parts(study) == []


def test_stems_that_do_not_add_up_are_a_line(folder):
    """By 1 % of the event; a clip of a training fold is not looked at before somebody asks for it."""
    louder(folder / "stems" / "event" / "1-0-A-0.wav")
    dataset = load_dataset("esc50", folder)
    assert dataset.has_stems
    with pytest.raises(
        ValueError, match=r"1-0-A-0.wav: its stems do not add up to it; write both as WAV"
    ) as at:
        dataset.stems("1-0-A-0", RATE)
    assert "\n" not in str(at.value) and "they miss it by 0.002" in str(at.value)
    for target in range(3):
        louder(folder / "stems" / "event" / f"5-{target}-A-{target}.wav")
    dataset = load_dataset("esc50", folder)
    (line,) = dataset.problems
    assert line.startswith(
        "no stems are used: 3 clips: its stems do not add up to it; write both as WAV or FLAC"
    )
    assert FIRST in line and not dataset.has_stems
    assert dataset.stems(FIRST, RATE) is None


def test_a_stem_that_is_no_sound_is_a_line(folder):
    (folder / "stems" / "background" / f"{FIRST}.wav").write_bytes(b"no sound")
    (line,) = load_dataset("esc50", folder).problems
    assert line.startswith(f"no stems are used: {folder}") and "not a readable audio file" in line


def test_a_clip_that_is_left_out_needs_no_stems(folder):
    """A clip cut off is found when it is loaded, and then left out; the others' stems are used."""
    path = folder / "audio" / f"{FIRST}.wav"
    path.write_bytes(path.read_bytes()[:3000])
    dataset = load_dataset("esc50", folder)
    assert dataset.has_stems
    clips = explained_clips(study_of(dataset), RATE, "clean")
    assert len(clips) == 2 and len(clips.problems) == 1 and clips.stems[0].shape == clips.waveforms.shape


def test_generated_dataset_has_stems_that_sum_to_the_waveform(tmp_path, monkeypatch):
    monkeypatch.setattr(synthesis, "TARGETS", {"dog": 0, "clock_tick": 38})
    monkeypatch.setattr(synthesis, "CLIPS_PER_FOLD", 1)
    dataset = load_dataset("generated", tmp_path / "set", progress=False)
    assert dataset.classes == ("dog", "clock_tick") and len(dataset.clips) == 10 and dataset.has_stems
    for rate in (16000, 32000):
        path, clip = dataset.clips["path"][3], dataset.clips["clip"][3]
        event, background = dataset.stems(clip, rate)
        torch.testing.assert_close(event + background, load_waveform(path, rate), rtol=0, atol=2e-6)
        assert event.any() and background.any()
    with pytest.raises(KeyError, match="no clip 'nobody'"):
        dataset.stems("nobody", 16000)


def test_recorded_datasets_have_no_stems(tmp_path):
    write_dataset(tmp_path / "tones")
    dataset = load_dataset("esc50", tmp_path / "tones")
    assert not dataset.has_stems and dataset.problems == []
    assert dataset.stems(FIRST, RATE) is None

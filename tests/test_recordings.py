"""Long recordings: windows against slices of the file, the chosen reasons, memory, folders, and what ffmpeg reads."""

from __future__ import annotations

import dataclasses
import html
import inspect
import os
import re
import stat
import sys
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from torch import nn

from audioxai_utils import AudioClassifier, LogMel, explain, explain_folder, explain_recording
from audioxai_utils.audio.streaming import sound_files, windows
from audioxai_utils.figures.recordings import recording_strip
from audioxai_utils.gallery.recordings_page import recordings_page
from audioxai_utils.recordings import loudest_stretch
from audioxai_utils.run import recordings as command

RATE = 8000
EVENTS = [
    (12.0, 13.0, 400.0, 0),
    (31.0, 31.5, 2200.0, 1),
    (47.2, 48.0, 2200.0, 1),
]  # start, end (s), Hz, class


class ThreeBands(nn.Module):
    """Class 0 below 1 kHz, class 1 above 1.5 kHz, by the loudest frame; class 2 where neither is loud."""

    def forward(self, db):
        low, high = (db[:, 0, band].mean(1).amax(1) / 4 for band in (slice(4, 10), slice(20, 28)))
        return torch.stack([low, high, torch.full_like(low, -11.0)], 1)


def classifier():
    front_end = LogMel(RATE, n_fft=256, hop_length=128, n_mels=32)
    return AudioClassifier(ThreeBands(), ["low", "high", "nothing"], input=front_end, head="softmax")


def recording_of(path, seconds: float = 60.0, rate: int = RATE, **how):
    t = np.arange(round(seconds * rate)) / rate
    sound = 1e-4 * np.random.default_rng(0).standard_normal(len(t))
    for start, end, pitch, _ in EVENTS:
        inside = (t >= start) & (t < end)
        sound[inside] += 0.3 * np.sin(2 * np.pi * pitch * t[inside])
    soundfile.write(path, sound, rate, **how)
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return recording_of(tmp_path_factory.mktemp("long") / "evening.wav", subtype="FLOAT")


@pytest.fixture(scope="module")
def found(file):
    return explain_recording(
        classifier(),
        file,
        window=4.0,
        hop=2.0,
        target=["low", "high"],
        n_reasons=3,
        method="saliency",
        heard=True,
    )


def test_windows_are_slices_of_the_file(file):
    samples, _ = soundfile.read(file)
    pieces = list(windows(file, 4.0, 1.5, RATE))
    assert [piece.number for piece in pieces] == list(range(len(pieces)))
    for piece in pieces:
        first = round(piece.start * RATE)
        assert first == piece.number * 12000
        own = samples[first : first + 32000]
        np.testing.assert_array_equal(piece.samples[: len(own)], own)
        assert len(piece.samples) == 32000 and not piece.samples[len(own) :].any()
        assert piece.seconds == len(own) / RATE
    assert pieces[-1].start + pieces[-1].seconds == 60.0 and pieces[-2].start + 4.0 < 60.0


@pytest.mark.parametrize("seconds, expected", [(3.0, 1), (4.0, 1), (4.1, 2), (6.0, 2), (8.0, 3)])
def test_the_end_is_in_one_window_and_no_window_holds_nothing_new(tmp_path, seconds, expected):
    soundfile.write(tmp_path / "a.wav", 0.1 * np.ones(round(seconds * RATE)), RATE, "FLOAT")
    pieces = list(windows(tmp_path / "a.wav", 4.0, 2.0, RATE))
    assert len(pieces) == expected
    assert pieces[-1].start + pieces[-1].seconds == pytest.approx(seconds)


def test_reasons_are_where_the_sounds_are(found):
    heard = [(reason.class_name, round(reason.sound_start)) for reason in found.reasons]
    assert heard == [("low", 12), ("high", 31), ("high", 47)]
    for reason, (start, end, _, _) in zip(found.reasons, EVENTS):
        last = reason.sound_start + len(reason.sound) / RATE
        assert (
            reason.sound_start < start + 0.1
            and last > end - 0.1
            and last - reason.sound_start < end - start + 0.3
        )
        assert reason.p == pytest.approx(float(found.probabilities.loc[reason.start, reason.class_name]))
    starts = [reason.start for reason in found.reasons]
    assert min(np.diff(starts)) >= 4.0


def test_a_window_is_what_explain_says_of_that_piece(file, found):
    samples, _ = soundfile.read(file)
    reason = found.reasons[1]
    first = round(reason.start * RATE)
    alone = explain(
        classifier(), samples[first : first + 32000], RATE, target="high", method="saliency", masks=["topK_30_pos"],
        heard=True,
    )  # fmt: skip
    torch.testing.assert_close(alone.attribution, reason.explanation.attribution)
    pd.testing.assert_frame_equal(alone.scores, reason.explanation.scores)
    table = found.table()
    assert list(table["class"]) == ["low", "high", "high"] and {"FF_heard", "FidIn_heard"} <= set(table)
    assert table.loc[1, "FF_heard"] == pytest.approx(float(alone.scores.loc["topK_30_pos", "FF_heard"]))


def test_every_window_has_its_probabilities(file, found):
    model, samples = classifier(), torch.from_numpy(soundfile.read(file)[0])
    assert list(found.probabilities.index) == [2.0 * i for i in range(29)] and found.seconds == 60.0
    for start in (0.0, 30.0, 46.0):
        p = model.probabilities(samples[None, round(start * RATE) : round((start + 4) * RATE)])[0]
        np.testing.assert_allclose(found.probabilities.loc[start], p, atol=1e-6)


def test_without_a_target_the_most_probable_class_speaks(file):
    every = explain_recording(classifier(), file, window=4.0, n_reasons=2, method="saliency")
    assert {reason.class_name for reason in every.reasons} <= {"nothing", "low", "high"}
    assert explain_recording(classifier(), file, window=4.0, n_reasons=0).reasons == []
    sure = explain_recording(
        classifier(), file, window=4.0, target="low", n_reasons=5, least=0.5, method="saliency"
    )
    assert [round(reason.sound_start) for reason in sure.reasons] == [12]


def test_short_sounds_are_written(found, tmp_path):
    paths = found.save_sounds(tmp_path / "sounds")
    assert [path.name.split("-")[-1] for path in paths] == ["low.wav", "high.wav", "high.wav"]
    for path, reason in zip(paths, found.reasons):
        samples, rate = soundfile.read(path)
        assert rate == RATE
        np.testing.assert_allclose(samples, reason.sound, atol=1e-6)


def test_the_shortest_stretch_is_found_among_all():
    sound = torch.zeros(3000, dtype=torch.float64)
    sound[1000:1100], sound[2000:2010] = 1.0, 0.5
    first, last = loudest_stretch(sound, 100, 0.9)
    energy, best = sound.square(), None
    for length in range(1, 3001):
        sums = energy.unfold(0, length, 1).sum(1)
        if float(sums.max()) >= 0.9 * float(energy.sum()) * (1 - 1e-9):
            best = (int(sums.argmax()), length)
            break
    assert (first, last) == (best[0] - 10, best[0] + best[1] + 10)
    assert loudest_stretch(torch.zeros(50), 100) == (0, 50)


def test_memory_does_not_grow_with_the_recording(tmp_path):
    """Peak of a file ten times as long is the same, a few windows, where the file itself is larger."""
    peaks = []
    for minutes in (1, 10):
        path = tmp_path / f"{minutes}.wav"
        with soundfile.SoundFile(path, "w", RATE, 1) as out:
            for _ in range(minutes):
                out.write(np.zeros(60 * RATE))
        tracemalloc.start()
        n = sum(1 for _ in windows(path, 5.0, 2.5, RATE))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert n == 24 * minutes - 1
    assert peaks[1] < 1.2 * peaks[0] and peaks[1] < 10 * 60 * RATE * 8 / 10


def test_the_strip_shows_windows_and_reasons(found):
    figure = recording_strip(found)
    strip, *pictures = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    drawn = strip.collections[0].get_array().reshape(3, 29)
    order = [label.get_text() for label in strip.get_yticklabels()]
    np.testing.assert_allclose(drawn, found.probabilities[order].to_numpy().T)
    assert len(strip.patches) == len(pictures) == 3
    assert [patch.get_x() for patch in strip.patches] == [reason.start for reason in found.reasons]
    assert "high" in pictures[1].get_title() and pictures[0].get_title().startswith("1 · low")


@pytest.mark.parametrize("name", [r"$\frac{$", "a$x_$b\\", "<script>alert(1)</script>"])
def test_names_are_drawn_as_they_are_written(found, name, tmp_path):
    """Of classes and files, in the strip and on the page: no formula, no script."""
    reasons = [dataclasses.replace(reason, class_name=name) for reason in found.reasons]
    table = found.probabilities.rename(columns={"high": name})
    hostile = dataclasses.replace(
        found, reasons=reasons, probabilities=table, path=tmp_path / name.replace("/", "")
    )
    titles = [ax.get_title(loc) for ax in recording_strip(hostile).axes for loc in ("left", "center")]
    assert any(name in title.replace(r"\$", "$") for title in titles)
    text = recordings_page([hostile, f"{name}: refused"], tmp_path / "page.html", title=name).read_text()
    assert "<script>alert" not in text and html.escape(name) in text


# Folders and formats


def test_a_folder_is_explained_file_by_file_and_says_what_it_could_not_read(tmp_path):
    (tmp_path / "in").mkdir()
    recording_of(tmp_path / "b.flac", 20.0)
    recording_of(tmp_path / "in" / "c.ogg", 20.0)
    (tmp_path / "a.wav").write_bytes(b"no sound at all")
    (tmp_path / "notes.txt").write_text("not looked at")
    assert [path.name for path in sound_files(tmp_path)] == ["a.wav", "b.flac", "c.ogg"]
    refused, *good = explain_folder(
        classifier(), tmp_path, window=4.0, target="low", n_reasons=1, method="saliency"
    )
    assert "not a readable audio file" in refused and "\n" not in refused
    assert [each.path.name for each in good] == ["b.flac", "c.ogg"]
    assert all(round(each.reasons[0].sound_start) == 12 for each in good)
    with pytest.raises(ValueError, match="is no class of the model"):
        list(explain_folder(classifier(), tmp_path, window=4.0, target="bell"))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"hop": 5.0}, "hop must lie above 0 and not above seconds, 4; got 5"),
        ({"n_reasons": -1}, "n_reasons must be 0 or more"),
        ({"target": []}, "target must name classes"),
    ],
)
def test_wrong_options_are_refused(file, options, message):
    with pytest.raises(ValueError, match=message):
        explain_recording(classifier(), file, window=4.0, **options)


def test_what_is_missing_or_broken_is_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        list(windows(tmp_path / "none.wav", 4.0, 2.0, RATE))
    with pytest.raises(FileNotFoundError, match="holds no sound file"):
        sound_files(tmp_path)
    soundfile.write(tmp_path / "nan.wav", np.full(RATE, np.nan), RATE, "FLOAT")
    with pytest.raises(ValueError, match=r"nan.wav: holds NaN or infinite samples"):
        list(windows(tmp_path / "nan.wav", 4.0, 2.0, RATE))
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), RATE)
    with pytest.raises(ValueError, match=r"empty.wav: holds no samples"):
        list(windows(tmp_path / "empty.wav", 4.0, 2.0, RATE))


def test_m4a_without_ffmpeg_is_refused_in_a_clear_line(tmp_path, monkeypatch):
    (tmp_path / "phone.m4a").write_bytes(b"\0\0\0\x20ftypM4A ")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"phone.m4a: M4A needs ffmpeg, which is not installed; install it or"
    ):
        explain(classifier(), tmp_path / "phone.m4a", method="saliency")


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a script")
def test_what_ffmpeg_decodes_is_read_and_goes_away(tmp_path, monkeypatch):
    """A stand-in for ffmpeg: it fails on what it does not know, and writes the WAV it was told to write."""
    recording_of(tmp_path / "source.wav", 20.0, subtype="FLOAT")
    script = tmp_path / "bin" / "ffmpeg"
    script.parent.mkdir()
    script.write_text(
        f"#!{sys.executable}\nimport shutil, sys\n"
        "source, out = sys.argv[sys.argv.index('-i') + 1], sys.argv[-1]\n"
        "if 'broken' in source:\n    sys.stderr.write('moov atom not found'); sys.exit(1)\n"
        f"shutil.copy({str(tmp_path / 'source.wav')!r}, out)\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    for name in ("phone.m4a", "web.webm", "broken.aac"):
        (tmp_path / name).write_bytes(b"something")
    found = explain_recording(
        classifier(), tmp_path / "phone.m4a", window=4.0, target="low", n_reasons=1, method="saliency"
    )
    assert round(found.reasons[0].sound_start) == 12 and found.seconds == 20.0
    whole = explain(classifier(), tmp_path / "web.webm", method="saliency", target="low")
    assert len(whole.waveform) == 20 * RATE
    with pytest.raises(
        ValueError, match=r"broken.aac: not a readable audio file \(ffmpeg: moov atom not found\)"
    ):
        explain(classifier(), tmp_path / "broken.aac", method="saliency")
    assert [path.name for path in tmp_path.glob("tmp*")] == []


def test_a_folder_becomes_one_page_that_needs_nothing_else(found, tmp_path):
    path = recordings_page(
        [found, "a.wav: not a readable audio file"], tmp_path / "out" / "page.html", "My <folder>"
    )
    text = path.read_text()
    assert text.count("<audio") == 3 and text.count("data:image/png;base64,") == 1
    assert "My &lt;folder&gt;" in text and "a.wav: not a readable audio file" in text
    for number, reason in enumerate(found.reasons, 1):
        assert f"{number}. {reason.class_name}, {reason.sound_start:.1f} s" in text
    assert not re.search(r'src="(?!data:)', text)


MODEL = """
import torch
from torch import nn
from audioxai_utils import AudioClassifier, LogMel

class Bands(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, (40, 1))
        weight = torch.zeros(2, 1, 40, 1)
        weight[0, 0, :20], weight[1, 0, 20:] = 0.05, 0.05
        self.conv.weight, self.conv.bias = nn.Parameter(weight), nn.Parameter(torch.zeros(2))

    def forward(self, db):
        return self.conv((db + 60) / 10).clamp_min(0).mean((2, 3))

def load():
    front = LogMel(16000, n_fft=512, hop_length=160, n_mels=40)
    return AudioClassifier(Bands(), ["low", "high"], input=front, head="softmax")
"""


def test_one_command_writes_one_page_of_a_folder(tmp_path, capsys):
    t = np.arange(16000 * 6) / 16000
    tones = 0.3 * np.sin(2 * np.pi * 300 * t) * (t < 1) + 0.3 * np.sin(2 * np.pi * 4000 * t) * (t > 5)
    (tmp_path / "my").mkdir()
    soundfile.write(
        tmp_path / "my" / "tones.wav", tones + 1e-3 * np.random.default_rng(0).normal(size=t.size), 16000
    )
    (tmp_path / "my" / "empty.wav").write_bytes(b"")
    (tmp_path / "model.py").write_text(MODEL)
    out, sounds = tmp_path / "why.html", tmp_path / "sounds"
    words = [
        f"{tmp_path / 'model.py'}:load",
        str(tmp_path / "my"),
        "--out",
        str(out),
        "--sounds",
        str(sounds),
    ]
    assert command.main([*words, "--window", "1", "--reasons", "2", "--method", "saliency"]) == 0
    said = capsys.readouterr()
    assert "tones.wav: low at " in said.out and ", high at " in said.out and f"The page: {out}" in said.out
    assert said.err.count("\n") == 1 and "empty.wav: " in said.err
    text = out.read_text()
    assert text.count("<audio") == 2 and "empty.wav: " in text and "<h1>my</h1>" in text
    first, last = sorted(sounds.iterdir())
    assert first.name.endswith("low.wav") and last.name.endswith("high.wav")
    for wrong, line in (
        ([words[0], str(tmp_path / "none")], "no such folder"),
        ([f"{tmp_path / 'none.py'}:load", words[1]], "no file"),
        ([*words, "--target", "bell"], "target 'bell' is no class of the model"),
    ):
        assert command.main(wrong) == 2
        assert out.read_text() == text  # the page of before
        assert line in (said := capsys.readouterr().err) and said.count("\n") == (2 if "empty" in said else 1)


def test_the_command_has_the_functions_defaults():
    options = vars(command.parse(["model.py:load", "folder"]))
    known = inspect.signature(explain_recording).parameters
    assert {name: options[name] for name in command.GIVEN} == {
        name: known[name].default for name in command.GIVEN
    }
    assert command.parse(["model.py:load", "folder", "--reasons", "2"]).n_reasons == 2


def test_a_folder_of_which_nothing_is_read_is_no_success(tmp_path, capsys):
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / "empty.wav").write_bytes(b"")
    (tmp_path / "model.py").write_text(MODEL)
    out = tmp_path / "why.html"
    assert command.main([f"{tmp_path / 'model.py'}:load", str(tmp_path / "my"), "--out", str(out)]) == 2
    assert capsys.readouterr().err.endswith("my: none of its sound files could be read\n")
    assert "empty.wav: " in out.read_text()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_what_was_explained_before_an_error_is_on_the_page(found, tmp_path, error):
    def until(*recordings):
        yield from recordings
        raise error("at the next file")

    path = tmp_path / "page.html"
    with pytest.raises(error):
        recordings_page(until("a.wav: empty"), path)
    assert not path.exists()
    with pytest.raises(error, match="at the next file"):
        recordings_page(until("a.wav: empty", found), path)
    text = path.read_text()
    assert text.count("<audio") == 3 and "a.wav: empty" in text

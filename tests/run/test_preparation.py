"""What is made, fetched and refused before the first step of a run."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import soundfile
from local_server import server  # noqa: F401  (a server on this machine)

from audioxai_utils import constants
from audioxai_utils.audio import datasets, downloads, inputs
from audioxai_utils.run import command_line, preparation
from audioxai_utils.study.settings import Settings

WEIGHTS = np.random.default_rng(1).bytes(300_000)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty repository folder with results of its own."""
    for name in ("AUDIOXAI_DATA", "AUDIOXAI_RESULTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "REPOSITORY", tmp_path)
    monkeypatch.setattr(preparation, "_provide_dataset", lambda *given: None)
    return tmp_path


FILE = downloads.WEIGHTS["cnn14"].name


def served(monkeypatch, url: str) -> None:
    """Cnn14's weights are a few bytes at an address of this machine."""
    file = downloads.Weights(FILE, url, len(WEIGHTS), f"md5:{hashlib.md5(WEIGHTS).hexdigest()}")
    monkeypatch.setitem(downloads.WEIGHTS, "cnn14", file)


def settings(*words: str) -> Settings:
    return command_line.parse(["--profile", "paper", "--pretrained", "cnn14", *words]).settings


def test_weights_are_downloaded_once_checked_and_handed_on_as_a_path(place, server, monkeypatch, capfd):
    server.files = {"/w": WEIGHTS}
    served(monkeypatch, f"{server.url}/w")
    path = place / "data" / FILE
    planned = preparation.prepare(settings(), dry_run=True)
    assert planned.weights == str(path) and not path.exists() and server.log == []
    for _ in range(2):
        assert preparation.prepare(settings()).weights == str(path)
    assert path.read_bytes() == WEIGHTS and server.log == [None]
    assert FILE in capfd.readouterr().err  # the progress bar


@pytest.fixture
def own_results(place, monkeypatch):
    """Results of these studies beside nobody's own."""
    monkeypatch.setenv("AUDIOXAI_RESULTS", str(place / "results"))


def quick(*words: str) -> Settings:
    return preparation.prepare(command_line.parse(words).settings)


def test_a_quick_study_of_real_clips_takes_the_tagger_that_is_at_hand(place, own_results, capsys):
    assert quick("--dataset", "esc50").network == "cnn14"  # nothing was downloaded yet
    path = place / "data" / downloads.WEIGHTS["mn04"].name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(WEIGHTS)
    capsys.readouterr()
    found = quick("--dataset", "esc50")
    assert (found.network, found.weights) == ("mn04", str(path))
    assert quick("--dataset", "esc50", "--profile", "medium").network == "mn04"
    assert "--pretrained none does without it" in capsys.readouterr().out
    others = [
        ("--dataset", "esc50", "--pretrained", "none"),
        ("--dataset", "esc50", "--profile", "smoke"),
        (),
    ]
    assert {quick(*words).network for words in others} == {"cnn14"}


def test_a_full_width_network_from_scratch_is_announced(place, own_results, capsys):
    chosen = {
        "none at all": [],
        "none": ["--pretrained", "none"],
        "mn04": ["--pretrained", "mn04", "given.pt"],
    }
    (place / "given.pt").write_bytes(b"weights")
    said = {}
    for name, words in chosen.items():
        given = [str(place / word) if word == "given.pt" else word for word in words]
        made = command_line.parse(["--profile", "paper", "--dataset", "esc50", *given]).settings
        preparation.prepare(made, dry_run=True)
        said[name] = capsys.readouterr().out
    assert "trains a Cnn14 of full width from scratch" in said["none at all"]
    assert said["none"] == said["mn04"] == ""


def test_a_study_started_without_the_tagger_goes_on_without_it(place, own_results, capsys):
    (place / "data").mkdir(exist_ok=True)
    (place / "data" / downloads.WEIGHTS["mn04"].name).write_bytes(WEIGHTS)
    from_scratch = command_line.parse(["--dataset", "esc50", "--pretrained", "none"]).settings
    from_scratch.write()
    assert quick("--dataset", "esc50").network == "cnn14" and capsys.readouterr().out == ""
    (from_scratch.results / "settings.json").unlink()
    assert quick("--dataset", "esc50").network == "mn04"


def test_a_study_of_the_tagger_does_not_become_another_s_when_its_weights_are_gone(place, own_results):
    path = place / "data" / downloads.WEIGHTS["mn04"].name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(WEIGHTS)
    quick("--dataset", "esc50").write()
    path.unlink()
    with pytest.raises(
        preparation.NotPrepared, match="whose weights are not at .*--pretrained none begins anew"
    ):
        quick("--dataset", "esc50")
    assert quick("--dataset", "esc50", "--pretrained", "none").network == "cnn14"


def test_without_a_network_the_run_ends_in_one_line(place, monkeypatch, capfd):
    monkeypatch.setattr(downloads.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    served(monkeypatch, f"http://127.0.0.1:{port}/w")
    assert (
        command_line.main(["--profile", "paper", "--pretrained", "cnn14"]) == command_line.STUDY_FAILED == 1
    )
    printed = capfd.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert printed.err.startswith(f"run_all.sh: http://127.0.0.1:{port}/w: download failed, no connection")
    assert not (place / "results").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no sound", "not a readable audio file"),
        (b"", "not a readable audio file"),
        (np.zeros((0, 2)), "holds no samples"),
        (np.zeros((800, 2)), "silent in its first 5 s"),
        (np.stack([np.sin(np.arange(800)), -np.sin(np.arange(800))], 1), "its channels cancel each other"),
        (np.full((800, 2), np.nan), "holds NaN or infinite samples"),
        (None, "decodes only in part"),
    ],
)
def test_a_scenario_that_is_no_sound_is_refused_before_any_work(place, content, reason, capfd):
    path = place / "rain.wav"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        sound = np.sin(np.arange(8000)) if content is None else content
        soundfile.write(path, sound, 16000, "FLOAT")
    if content is None:
        path.write_bytes(path.read_bytes()[:9000])
    assert command_line.main(["--scenario", str(path)]) == command_line.BAD_OPTIONS
    printed = capfd.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert printed.err.startswith(
        f"run_all.sh: the noise of scenario rain must be an audio file that can be heard; {path}: {reason}"
    )
    assert not (place / "results").exists()


def test_a_folder_with_something_else_is_no_place_for_generated_sounds(tmp_path, capfd, monkeypatch):
    monkeypatch.delenv("AUDIOXAI_RESULTS", raising=False)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "letter.txt").touch()
    code = command_line.main(["--data-root", str(tmp_path / "data"), "--results", str(tmp_path / "results")])
    printed = capfd.readouterr()
    assert (
        code == command_line.STUDY_FAILED
        and printed.err.count("\n") == 1
        and "is no generated dataset" in printed.err
    )
    assert not (tmp_path / "results").exists()


# inputs: where things lie and whether they have changed


def test_where_a_dataset_lies(place, monkeypatch):
    assert inputs.dataset_folder("generated") == place / "data" / "generated"
    assert inputs.dataset_folder("esc10") == place / "data" / "esc50"  # where a download puts it
    (place / "data" / "esc10").mkdir(parents=True)
    assert inputs.dataset_folder("esc10") == place / "data" / "esc10"
    monkeypatch.setenv("AUDIOXAI_DATA", str(place / "mine"))
    assert inputs.dataset_folder("esc50") == place / "mine"
    assert inputs.dataset_folder("esc50", place / "given") == place / "given"


@pytest.fixture
def folder(tmp_path):
    """A small dataset on which csv, names, sizes and times can be changed."""
    (tmp_path / "d" / "meta").mkdir(parents=True)
    (tmp_path / "d" / "audio").mkdir()
    (tmp_path / "d" / "meta" / "esc50.csv").write_text("filename\na.wav\n")
    for name in "ab":
        (tmp_path / "d" / "audio" / f"{name}.wav").write_bytes(b"sound")
    return tmp_path / "d"


def _touch(folder: Path) -> None:
    os.utime(folder / "audio" / "a.wav", (1, 1))


@pytest.mark.parametrize(
    "change",
    [
        _touch,
        lambda folder: (folder / "audio" / "a.wav").unlink(),
        lambda folder: (folder / "audio" / "c.wav").touch(),
        lambda folder: (folder / "meta" / "esc50.csv").write_text("filename\nb.wav\n"),
    ],
)
def test_any_change_of_a_dataset_is_seen(folder, change):
    before = inputs.dataset_state(folder)
    (folder / "audio" / ".hidden").touch()
    assert inputs.dataset_state(folder) == before != inputs.ABSENT
    change(folder)
    assert inputs.dataset_state(folder) != before
    shutil.rmtree(folder)
    assert inputs.dataset_state(folder) == inputs.ABSENT


def test_notebooks_and_manifest_share_one_fingerprint(folder):
    import pandas as pd

    dataset = datasets.Dataset("esc50", folder, pd.DataFrame({"path": []}), ())
    assert datasets.fingerprint(dataset) == inputs.fingerprint(folder)["sha256"][:12]

"""Nothing can be written any more: the run ends in one line, what was computed is kept, the same command goes on."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess

import pytest
import toy_study

from audioxai_utils import files
from audioxai_utils.run import command_line, progress, step, workflow


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return toy_study.make(tmp_path_factory.mktemp("full") / "repository", fast=True)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 2 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place]
    if shutil.which("mount") is None or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here (that takes root)")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(place) -> None:
    with open(place / "others", "ab", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC


def one_line(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == command_line.STUDY_FAILED == 1
    assert "Traceback" not in done.stdout + done.stderr and "finished" not in done.stdout
    return done.stderr


def test_a_disk_that_is_full_from_the_start(repository, small_disk):
    results = small_disk / "results"
    fill(small_disk)
    told = one_line(toy_study.run(repository, results, *toy_study.SMALL))
    assert "No space left on device" in told and told.count("\n") == 1
    (small_disk / "others").unlink()
    done = toy_study.run(repository, results, *toy_study.SMALL)
    assert done.returncode == 0 and "finished" in done.stdout, done.stdout + done.stderr


def test_a_disk_that_fills_up_on_the_way_keeps_what_is_done(repository, small_disk, tmp_path):
    results = small_disk / "results"
    line, env = toy_study.command(repository, results, *toy_study.SMALL)
    with open(tmp_path / "said", "w") as said:
        run = subprocess.Popen(line, env=env, stdout=said, stderr=said)
    assert toy_study.wait_for(lambda: (results / "steps/01_data_and_noise.json").exists())
    fill(small_disk)
    assert run.wait(120) == 1, (tmp_path / "said").read_text()
    told = (tmp_path / "said").read_text()
    assert "did not finish" in told and "Traceback" not in told
    (small_disk / "others").unlink()
    done = toy_study.run(repository, results, *toy_study.SMALL)
    assert done.returncode == 0 and "finished" in done.stdout, done.stdout + done.stderr
    assert {path.stem for path in (results / "steps").glob("*.json")} == toy_study.STEPS
    assert not list(results.rglob(f"{files.PARTIAL}*"))


@pytest.mark.parametrize("folder", ["", "logs/events", ".snakemake", "notebooks"])
def test_a_folder_that_cannot_be_written(repository, tmp_path, folder):
    """Somebody else's, at any depth: one line that names it."""
    results = tmp_path / "results"
    if folder:
        (results / folder).parent.mkdir(parents=True, exist_ok=True)
        (results / folder).write_text("a file in its place")
    else:
        results.write_text("a file in its place")
    done = toy_study.run(repository, results, *toy_study.SMALL)
    assert (
        done.returncode in (1, 2)
        and "Traceback" not in done.stdout + done.stderr
        and "finished" not in done.stdout
    )
    assert folder in done.stderr and done.stderr.count("\n") <= 3, done.stderr


@pytest.mark.parametrize("folder", ["logs", ".snakemake"])
def test_a_folder_of_somebody_else(repository, tmp_path, folder):
    """Which may be read and not written; root is made to ask too."""
    mortal = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    if mortal and subprocess.run([*mortal, "true"], capture_output=True, check=False).returncode:
        pytest.skip("root cannot give up its rights here")
    (tmp_path / "results" / folder).mkdir(parents=True)
    os.chmod(tmp_path / "results" / folder, 0o555)
    line, env = toy_study.command(repository, tmp_path / "results", *toy_study.SMALL)
    done = subprocess.run([*mortal, *line], env=env, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    assert "Permission denied" in done.stderr and folder in done.stderr


def test_a_word_that_cannot_be_written_costs_no_work(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv(progress.EVENTS, str(tmp_path / "none"))
    monkeypatch.setattr("builtins.print", full)
    did = []
    assert step.reported("03", "out", lambda: did.append(1)) == 0 and did == [1]


def test_half_an_event_hides_no_other(tmp_path, monkeypatch):
    monkeypatch.setenv(progress.EVENTS, str(tmp_path))
    progress.tell("03", "started", text="x")
    with open(tmp_path / "03.jsonl", "a") as file:
        file.write('{"step": "03", "is": "at", "te')
    progress.tell("03", "done", text="y")
    assert [event["is"] for event in progress.Events(tmp_path).new()] == ["started", "done"]


@pytest.mark.parametrize(
    "code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EIO, errno.ENAMETOOLONG]
)
def test_whatever_the_system_says_is_one_line(tmp_path, monkeypatch, capsys, code):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code), str(tmp_path / "x"))

    monkeypatch.setattr(workflow, "remember_latest", refuse)
    words = ["--results", str(tmp_path / "results"), "--data-root", str(tmp_path / "data")]
    monkeypatch.setattr("audioxai_utils.run.preparation._provide_dataset", lambda *_: None)
    assert command_line.main(words) == command_line.STUDY_FAILED
    said = capsys.readouterr().err
    assert said == f"run_all.sh: {tmp_path / 'x'}: {os.strerror(code)}; the same command continues\n"
    assert json.loads((tmp_path / "results" / "settings.json").read_text())["profile"] == "quick"

"""The whole graph killed in the middle: nothing runs on, and the next run ends with the same numbers."""

from __future__ import annotations

import os
import signal
import subprocess

import pipeline_study
import pytest
import toy_study
from test_runner import children, program

from audioxai_utils import files

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """(repository, options, results) of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("resume")
    repository, words = pipeline_study.make(folder)
    done = toy_study.run(repository, folder / "whole", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return repository, words, folder / "whole"


def killed(repository, words, results, is_time) -> None:
    """Start a run, SIGKILL it as soon as ``is_time()``; all of its processes are gone soon after."""
    line, env = toy_study.command(repository, results, *words)
    run = subprocess.Popen(line, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert toy_study.wait_for(is_time, 300)
        family = {run.pid} | children(run.pid)
        programs = {pid: program(pid) for pid in family}
        assert any("run.notebook" in text for text in programs.values())  # a step
        assert any("ipykernel_launcher" in text for text in programs.values())  # its kernel
    finally:
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
    left = lambda: {programs[pid] for pid in family if toy_study.alive(pid)}
    assert toy_study.wait_for(lambda: not left(), 10), left()


def test_a_run_killed_twice_loses_the_running_clips_alone(reference, tmp_path):
    repository, words, whole = reference
    results = tmp_path / "results"
    results.mkdir()
    (results / "slow").touch()
    clips = lambda: sorted((results / "attributions").rglob("[!.]*.npz"))
    blocks = lambda: sorted((results / "scores" / "blocks").rglob("[!.]*.parquet"))
    scores = results / "scores" / f"{pipeline_study.CONDITION}.parquet"

    killed(repository, words, results, lambda: len(clips()) >= 3)  # of two methods, six clips each
    first = {path: path.stat().st_mtime_ns for path in clips()}
    assert 3 <= len(first) < 12 and not blocks()
    killed(repository, words, results, lambda: blocks())
    kept = {path: path.stat().st_mtime_ns for path in [*clips(), *blocks()]}
    assert kept.items() >= first.items() and len(clips()) == 12
    assert 1 <= len(blocks()) < 3 and not scores.exists()

    (results / "slow").unlink()
    done = toy_study.run(repository, results, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # nothing that was done is done again
    assert not list(results.rglob(f"{files.PARTIAL}*"))  # nor half a file left
    computed = (results / "computed").read_text().split()
    assert len(computed) <= 2 * (12 + 2)  # names of method and clip; each running step lost one clip at most
    pipeline_study.assert_same_numbers(results, whole)


def test_shards_give_the_same_numbers(reference, tmp_path):
    repository, words, whole = reference
    done = toy_study.run(repository, tmp_path / "results", *words, "--shards", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    pipeline_study.assert_same_numbers(tmp_path / "results", whole)
    assert not (tmp_path / "results" / "computed").read_text()  # the notebooks found everything done
    notebooks = lambda folder: {path.name for path in (folder / "notebooks").iterdir()}
    assert notebooks(tmp_path / "results") == notebooks(whole)
    steps = lambda folder: {path.stem for path in (folder / "steps").iterdir()}
    of_condition = [f"{notebook}-mel_db-white" for notebook in ("03_attributions", "04_mask_study")]
    assert steps(tmp_path / "results") - steps(whole) == {
        f"{step}-{i}of2" for step in of_condition for i in (1, 2)
    }
    assert (
        toy_study.run(repository, tmp_path / "results", *words, "--shards", "2").stdout.count("nothing to do")
        == 1
    )

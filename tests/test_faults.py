"""The fault campaign runs on a toy; what it finds of the real study is measured, not tested."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
import toy_study

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)


def test_a_killed_toy_survives(tmp_path):
    repository = toy_study.make(tmp_path / "repository", fast=True)
    line = [
        sys.executable,
        BENCHMARKS / "faults.py",
        "--repository",
        repository,
        "--only",
        "kills",
        "--kills",
        "1",
    ]
    line += ["--undisturbed", tmp_path / "undisturbed"]
    line += ["--study", "--spectrogram", "mel_db", "--scenario", "clean", "--method", "lime"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fault kills tried 1 survived 1 lost 0 silent 0 words 0" in done.stdout
    assert (tmp_path / "undisturbed" / "report" / "index.html").is_file()


def test_one_kernel_of_a_run_is_killed_and_named(benchmarks):
    """A step that waits for a kernel; what has no kernel any more is left alone."""
    import faults

    kernel = [sys.executable, "-c", "import time; time.sleep(60)", "-m", "ipykernel_launcher"]
    code = f"import subprocess, sys; sys.exit(subprocess.run({kernel!r}).returncode == -9)"
    run = subprocess.Popen([sys.executable, "-c", code, "02_fine_tuning.ipynb"], start_new_session=True)
    killed = faults._kill_a_kernel(run, 0.5, random.Random(0))
    assert run.wait(30) == 1 and killed.endswith(" of 02_fine_tuning.ipynb")
    assert faults._kill_a_kernel(run, 0.0, random.Random(0)) == ""


def test_a_run_without_kernels_is_left_out_and_not_counted(benchmarks, tmp_path, capsys):
    import faults

    class Study:
        seconds, n_started = 0.01, 0

        def fresh(self):
            return tmp_path

        def start(self, results):
            self.n_started += 1
            return subprocess.Popen(["true"])

    study = Study()
    assert list(faults.kernels(study, 2, random.Random(0))) == []
    assert study.n_started == faults.RUNS
    assert "left out" in capsys.readouterr().out


def test_the_fuzzer_counts_what_becomes_of_files(benchmarks):
    import fuzz

    counts, notes = fuzz.fuzz("record", 12)
    assert counts.total() == 12 and counts["refused"] > 0 and notes == []


def test_the_fuzzer_tells_a_crash_from_a_wrong_word_and_a_silent_mistake(benchmarks, tmp_path):
    import fuzz

    def refuse():
        raise ValueError(f"{tmp_path / 'a.csv'}: no csv")

    def nameless():
        raise ValueError("no csv")

    def two_lines():
        raise ValueError("a.csv: no\ncsv")

    def another():
        raise KeyError("a.csv")

    works = (lambda: "", lambda: "another number", refuse, nameless, two_lines, another)
    found = [fuzz.outcome(work, tmp_path / "a.csv", "bit")[0] for work in works]
    assert found == ["read", "silent", "refused", "words", "words", "words"]

"""The fault campaign runs on a toy; what it finds of the real study is measured, not tested."""

from __future__ import annotations

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
        "--files",
        "0",
        "--kills",
        "1",
    ]
    line += [
        word for name in ("disks", "kernels", "pairs", "damages", "clocks") for word in (f"--{name}", "0")
    ]
    line += ["--study", "--spectrogram", "mel_db", "--scenario", "clean", "--method", "lime"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fault kills tried 1 survived 1 lost 0 silent 0 words 0" in done.stdout


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

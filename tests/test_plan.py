"""The plan for a large set of clips: every number follows from a run's records, and is reckoned again here by
hand.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
SECONDS = {"saliency": 0.5, "lime": 2.0}  # of a clip
START, N, SCORING = 10.0, 40, 1.5


@pytest.fixture
def results(tmp_path):
    """A run on forty clips whose jobs take ten seconds to start."""
    spent = 0.0
    for method, seconds in SECONDS.items():
        folder = tmp_path / "attributions" / "mel_db" / "clean" / method
        folder.mkdir(parents=True)
        for i in range(N):
            each = seconds + 5 * (i == 0)  # one that warms up
            np.savez(
                folder / f"clip{i}.npz", seconds=np.array(each), attribution=np.zeros((64, 501), np.float32)
            )
            spent += each
    steps = {"03_attributions-mel_db-clean": {"seconds": START + spent, "threads": 1}}
    for i in (1, 2):  # scored in two shards, which the notebook merged
        steps[f"04_mask_study-mel_db-clean-{i}of2"] = {"seconds": START + SCORING * N / 2, "threads": 1}
    steps["04_mask_study-mel_db-clean"] = {"seconds": START, "threads": 1}
    steps["04_mask_study-mel_db-clean_2"] = {"seconds": 9999.0, "threads": 1}  # another condition's
    (tmp_path / "scores" / "mel_db").mkdir(parents=True)
    (tmp_path / "scores" / "mel_db" / "clean.parquet").write_bytes(b"x" * 400 * N)
    manifest = {
        "steps": steps,
        "device": "cpu",
        "settings": {"profile": "paper", "dataset": "esc50"},
        "hardware": {"processor": "a processor", "gpus": []},
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


def run(*words) -> subprocess.CompletedProcess:
    line = [sys.executable, "-P", ROOT / "benchmarks" / "plan.py", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)


def rows(page: str) -> dict[str, list[float]]:
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    found = [[condition.strip() for condition in line.strip("|").split("|")] for line in lines]
    return {words[0]: [float(word.replace(",", "")) for word in words[1:]] for words in found[1:]}


def test_the_plan_is_what_the_records_say(results):
    done = run(results, "--clips", 100_000, "--jobs", 10, "--hours", 2, "--memory", 64)
    assert done.returncode == 0, done.stderr
    planned = rows(done.stdout)
    # bytes of a clip: a mixture and two stems, spectrogram and attribution
    held = 4 * (3 * 5 * 32000 + 2 * 64 * 501)
    folders = -(-100_000 // (64 * 2**30 // held))
    clips = -(-100_000 // folders)
    shards = -(-clips * 5 // (2 * (2 * 3600 - 10)))  # the attributions of both methods take longest, 2.5 s
    jobs = folders * (shards + 1)
    assert folders == 4 and shards == 9
    stored = 2 * (results / "attributions/mel_db/clean/lime/clip0.npz").stat().st_size
    for work, seconds, size in (
        ("attributions (saliency, lime)", 2.5, stored),
        ("masks and scores", 1.5, 800),
    ):
        hours = (100_000 * seconds + jobs * START) / 3600
        longest = (-(-clips // shards) * seconds + START) / 3600
        expected = [seconds, jobs, longest, hours, hours / 10, round(size / 1e3), 100_000 * size / 1e12]
        assert planned[work] == pytest.approx(expected, abs=0.06), work
        assert longest <= 2
    assert planned["**all**"][0] == pytest.approx(4.0) and planned["**all**"][1] == 2 * jobs
    assert (
        f"**Planned:** {folders} results folders of {clips:,} clips each, {shards} shards a condition"
        in done.stdout
    )
    assert f"--shards {shards} --profile paper" in done.stdout and "A job starts in 10.0 s" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--condition", "mel_db/horse"),
            "no attributions of mel_db horse; its conditions are in attributions/",
        ),
        (("--hours", "0.001"), "--hours must be more than a job takes to start (10 s); got 0.001"),
    ],
)
def test_what_cannot_be_planned_is_one_line(results, words, message):
    done = run(results, *words)
    assert (
        done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1 and not done.stdout
    )


def test_a_folder_without_a_run_is_one_line(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 1 and "give the results folder of a finished run" in done.stderr


def test_the_committed_page_is_one_that_the_script_writes(results):
    """Its words, that is: the numbers are those of the run that it names."""
    words = lambda page: re.sub(r"[\d.,]+", "#", page)
    committed = words((ROOT / "benchmarks" / "AUDIOSET.md").read_text(encoding="utf-8")).splitlines()
    printed = words(run(results).stdout).splitlines()
    prose = [
        line
        for line in printed
        if line and "--profile" not in line and not line.startswith(("|", "**Measured"))
    ]
    assert [line for line in prose if line not in committed] == []

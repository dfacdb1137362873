"""The smoke study end to end, held against what was stored of it.

Its tables are compared with tolerances, and what its notebooks found in words, without their numbers. The
smoke profile computes in float64, so that threads and vector units change no printed digit;
AUDIOXAI_TEST_THREADS and ATEN_CPU_CAPABILITY can be set to see that.
``tests/store_notebooks.py --regression`` accepts new ones.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from regression import REGRESSION, ROOT, found, numbers

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    parent = Path(os.environ.get("AUDIOXAI_SMOKE_RESULTS") or tmp_path_factory.mktemp("study"))
    folder = parent / "generated-smoke"
    done = study(folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    return folder


def study(folder, *options):
    cores = os.environ.get("AUDIOXAI_TEST_THREADS")
    command = [sys.executable, "-P", "-m", "audioxai_utils.run.command_line", "--profile", "smoke"]
    command += ["--results", str(folder), *options, *(["--cores", cores] if cores else [])]
    own = environment(AUDIOXAI_RESULTS=str(folder.parent))  # the user's latest run stays the latest
    return subprocess.run(command, capture_output=True, text=True, env=own)


def environment(**changes):
    return os.environ | {"PYTHONPATH": str(ROOT)} | changes


@pytest.mark.parametrize("name", ["summary", "intervals", "accuracies"])
def test_numbers_are_those_of_the_stored_run(results, name):
    stored, ours = pd.read_csv(REGRESSION / f"{name}.csv"), numbers(results)[name]
    words = [column for column in stored if not pd.api.types.is_numeric_dtype(stored[column])]
    pd.testing.assert_frame_equal(ours[words], stored[words], check_dtype=False)
    for column in stored.columns.difference(words):
        np.testing.assert_allclose(
            ours[column].astype(float), stored[column].astype(float), rtol=1e-4, atol=1e-5, err_msg=column
        )


def test_notebooks_find_what_they_found(results):
    stored = json.loads((REGRESSION / "found.json").read_text(encoding="utf-8"))
    ours = found(results)
    assert ours.keys() == stored.keys()
    for stem, lines in stored.items():
        assert ours[stem] == lines, stem


def test_the_report_is_there_and_offline(results):
    page = (results / "report" / "index.html").read_text(encoding="utf-8")
    assert "gallery/index.html" in page
    for path in (results / "report").rglob("*.html"):
        text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", path.read_text(encoding="utf-8"))
        loaded = re.findall(
            r"""(?:src=|<link[^>]*href=|@import|url\()\s*["']?(?:https?:)?//[^"')\s]+""", text
        )
        assert loaded == [], path.name


def test_the_manifest_says_what_was_run(results):
    manifest = json.loads((results / "manifest.json").read_text())
    assert {"versions", "steps"} <= set(manifest) and len(manifest["steps"]) >= 12
    assert manifest["seed"] == 42 and manifest["device"] in ("cpu", "cuda") and manifest["data"]


def test_a_second_run_does_nothing(results):
    before = {path: path.stat().st_mtime_ns for path in results.rglob("*.csv")}
    done = study(results)
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in results.rglob("*.csv")} == before


def test_one_method_one_protocol_and_one_scenario_make_a_study(tmp_path):
    """No part of the graph takes for granted what was not asked for, nor that spectrograms are mel."""
    options = ("--method", "gradcam", "--protocol", "paper", "--scenario", "white", "--seed", "7")
    done = study(tmp_path / "small", *options, "--spectrogram", "stft_db", "--full-grid")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert (tmp_path / "small" / "report" / "index.html").is_file()
    assert json.loads((tmp_path / "small" / "manifest.json").read_text())["seed"] == 7
    scores = pd.read_parquet(tmp_path / "small" / "scores" / "stft_db" / "white.parquet")
    assert set(scores["method"]) == {"gradcam"} and set(scores["protocol"]) == {"paper"}


def test_every_notebook_runs_from_top_to_bottom_on_a_finished_run(results):
    """As a person opens them after a run, with nothing to set; last, since they write into the results."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "pytest",
        "--nbval-lax",
        "--nbval-kernel-name",
        "python3",
        "-p",
        "no:cacheprovider",
        "-q",
        str(ROOT / "notebooks"),
    ]
    env = environment(AUDIOXAI_RUN=str(results))
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env)
    assert done.returncode == 0, done.stdout[-6000:]


def test_a_notebook_runs_by_hand_from_any_folder(results, tmp_path):
    """papermill with a condition's names, outside the repository."""
    notebook, output = ROOT / "notebooks" / "03_attributions.ipynb", tmp_path / "white.ipynb"
    command = [
        sys.executable,
        "-m",
        "papermill",
        str(notebook),
        str(output),
        "-k",
        "python3",
        "-p",
        "results_dir",
        str(results),
        "-p",
        "spectrogram_type",
        "mel_db",
        "-p",
        "noise_scenario",
        "white",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment())
    assert done.returncode == 0, done.stderr[-3000:]
    assert "mel, white noise" in output.read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["white.ipynb"]

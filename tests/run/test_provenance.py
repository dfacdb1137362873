"""Records of steps and the manifest of a run."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path

import pytest

from audioxai_utils import constants
from audioxai_utils.audio import inputs
from audioxai_utils.run import manifest, records
from audioxai_utils.run.graph import Step
from audioxai_utils.study.settings import Settings


def write_step(folder: Path, step: Step = Step("01_data_and_noise"), seconds: float = 1, **given) -> Path:
    given = {"cpu_seconds": 1, "peak_memory": 10, "threads": 1} | given
    return records.write_step(folder, step, started=time.time() - seconds, **given)


def test_a_step_is_recorded_whole(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mel_db.pt").write_bytes(b"weights")
    path = write_step(
        tmp_path,
        Step("02_fine_tuning", "mel_db"),
        12.34567,
        peak_memory=5 * 10**8,
        threads=2,
        depends_on={"seed": 7},
        notebook="notebooks/02_fine_tuning-mel_db.ipynb",
    )
    record = json.loads(path.read_text())
    assert path == tmp_path / "steps" / "02_fine_tuning-mel_db.json"
    assert record["seconds"] == pytest.approx(12.346, abs=0.2)
    assert (record["peak_memory_bytes"], record["threads"], record["depends_on"]) == (
        5 * 10**8,
        2,
        {"seed": 7},
    )
    assert record["files"] == {"models/mel_db.pt": 7, "notebooks/02_fine_tuning-mel_db.ipynb": None}
    assert record["versions"]["torch"] == metadata.version("torch")
    assert record["versions"]["python"] == platform.python_version()
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_failed_write_leaves_the_old_record(tmp_path):
    write_step(tmp_path, seconds=1)
    with pytest.raises(TypeError):
        write_step(tmp_path, seconds=20, depends_on={"seed": object()})
    assert [entry.name for entry in (tmp_path / "steps").iterdir()] == ["01_data_and_noise.json"]
    assert records.read_steps(tmp_path, ["01_data_and_noise"])[0]["seconds"] == pytest.approx(1, abs=0.2)


def test_the_manifest_gathers_steps_data_and_versions(tmp_path):
    data = tmp_path / "data"
    (data / "audio").mkdir(parents=True)
    (data / "audio" / "b.wav").write_bytes(b"sound")
    settings = Settings(
        dataset="esc10", data_root=str(data), seed=7, device="cpu", results_dir=str(tmp_path / "results")
    )
    for name, seconds, peak in (("01_a", 1.5, 10), ("02_b", 2.25, 20)):
        write_step(settings.results, Step(name), seconds, peak_memory=peak)
    steps = records.read_steps(settings.results, ["01_a", "02_b", "03_not_run"])
    found = manifest.build_manifest(settings.results, settings, steps)
    assert json.loads((settings.results / "manifest.json").read_text()) == json.loads(json.dumps(found))
    assert (found["seed"], found["device"], found["settings"]["dataset"]) == (7, "cpu", "esc10")
    assert found["peak_memory_bytes"] == 20 and found["seconds"] == pytest.approx(3.75, abs=0.3)
    assert list(found["steps"]) == ["01_a", "02_b"]
    assert (
        found["data"] == {"dataset": inputs.fingerprint(data)}
        and found["fixed_seeds"] == constants.FIXED_SEEDS
    )
    installed = {entry.metadata["Name"] for entry in metadata.distributions()}
    assert installed | {"python"} == set(found["versions"])
    assert found["hardware"]["cores"] == len(os.sched_getaffinity(0)) and found["hardware"]["processor"]


def test_the_manifest_holds_noises_and_weights(tmp_path):
    (tmp_path / "cafe.wav").write_bytes(b"cups")
    (tmp_path / "w.pth").write_bytes(b"weights")
    settings = Settings(
        "paper",
        "esc50",
        data_root=str(tmp_path / "none"),
        scenarios=(str(tmp_path / "cafe.wav"), "white"),
        pretrained=("cnn14", str(tmp_path / "w.pth")),
    )
    assert manifest.data_fingerprints(settings) == {
        "noises": {"cafe": {"file": "cafe.wav", "sha256": hashlib.sha256(b"cups").hexdigest()}},
        "weights": {"file": "w.pth", "sha256": hashlib.sha256(b"weights").hexdigest()},
    }


def test_the_listed_seeds_are_the_ones_that_are_drawn_from():
    """What the manifest says is what the functions do by default."""
    import inspect

    from audioxai_utils.attributions import METHODS, gradient_check
    from audioxai_utils.audio.generated import synthesis
    from audioxai_utils.evaluation import bootstrap, comparisons, controls

    def default(function):
        return inspect.signature(function).parameters["seed"].default

    seeds = constants.FIXED_SEEDS
    assert seeds["generated clips and noises"] == synthesis.SEED
    assert default(METHODS["lime"]) == seeds["LIME"]
    assert default(controls.clip_seed) == seeds["random controls"]
    assert default(gradient_check.gradient_check) == seeds["gradient check"]
    assert {
        default(f) for f in (bootstrap.resampled_means, comparisons.mean_intervals, comparisons.beats_control)
    } == {seeds["bootstrap"]}
    assert Settings().seed == constants.SEED


def test_the_fingerprint_is_of_names_and_contents_alone(tmp_path):
    for place in ("one", "two"):
        (tmp_path / place / "meta").mkdir(parents=True)
        (tmp_path / place / "meta" / "a.csv").write_bytes(b"x" * 100_000)
        (tmp_path / place / "b.wav").write_bytes(b"sound")
    os.utime(tmp_path / "two" / "b.wav", (0, 0))
    (tmp_path / "two" / ".hidden").touch()
    found = inputs.fingerprint(tmp_path / "one")
    lines = [
        (name, hashlib.sha256(content).hexdigest())
        for name, content in (("b.wav", b"sound"), ("meta/a.csv", b"x" * 100_000))
    ]
    by_hand = hashlib.sha256("".join(f"{name}\0{digest}\n" for name, digest in lines).encode()).hexdigest()
    assert found == {"files": 2, "bytes": 100_005, "sha256": by_hand}
    assert inputs.fingerprint(tmp_path / "two") == found
    (tmp_path / "two" / "b.wav").rename(tmp_path / "two" / "c.wav")
    assert inputs.fingerprint(tmp_path / "two")["sha256"] != found["sha256"]


def test_the_commit_says_whether_files_differ(tmp_path):
    def git(*words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(
            ["git", "-C", tmp_path, *identity, *words], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    assert manifest.commit(tmp_path) == {"id": None, "dirty": None}
    git("init", "-q")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-q", "-m", "first")
    (tmp_path / "untracked").touch()
    assert manifest.commit(tmp_path) == {"id": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "a").write_text("2")
    assert manifest.commit(tmp_path)["dirty"] is True


def test_a_record_that_cannot_be_read_is_none(tmp_path):
    (tmp_path / "steps").mkdir()
    for damage in ("{", "[]", "{}", "null", ""):
        (tmp_path / "steps" / "01.json").write_text(damage)
        assert records.read_record(tmp_path, "01") == {} and records.read_steps(tmp_path, ["01"]) == []

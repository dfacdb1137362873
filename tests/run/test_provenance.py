"""Records of steps and the manifest of a run."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from importlib import metadata

import pytest

from audioxai_utils import constants
from audioxai_utils.audio import inputs
from audioxai_utils.run import manifest


def test_a_step_is_recorded_whole(tmp_path):
    path = manifest.write_step(
        tmp_path, "02_fine_tuning-mel_db", seconds=12.34567, peak_memory=5 * 10**8, threads=2,
        parameters={"seed": 7, "device": "cpu", "profile": "quick"}, notebook="notebooks/02_fine_tuning-mel_db.ipynb",
    )
    record = json.loads(path.read_text())
    assert path == tmp_path / "steps" / "02_fine_tuning-mel_db.json"
    assert (record["seconds"], record["peak_memory_bytes"], record["seed"], record["device"]) == (12.346, 5 * 10**8, 7, "cpu")
    assert record["versions"]["torch"] == metadata.version("torch")
    assert record["versions"]["python"] == platform.python_version()
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_failed_write_leaves_the_old_record(tmp_path):
    manifest.write_step(tmp_path, "a", seconds=1)
    with pytest.raises(TypeError):
        manifest.write_step(tmp_path, "a", seconds=2, parameters={"seed": object()})
    assert [entry.name for entry in (tmp_path / "steps").iterdir()] == ["a.json"]
    assert manifest.read_steps(tmp_path)[0]["seconds"] == 1


def test_the_manifest_gathers_steps_data_and_versions(tmp_path):
    data = tmp_path / "data"
    (data / "audio").mkdir(parents=True)
    (data / "audio" / "b.wav").write_bytes(b"sound")
    results = tmp_path / "results"
    settings = {"dataset": "esc10", "data_root": str(data), "noise_root": "", "seed": "7", "device": "cpu"}
    for name, seconds, peak in (("01_a", 1.5, 10), ("02_b", 2.25, None)):
        manifest.write_step(results, name, seconds=seconds, peak_memory=peak)
    (results / "config.json").write_text(json.dumps(settings))
    manifest = manifest.build_manifest(results)
    assert json.loads((results / "manifest.json").read_text()) == manifest
    assert (manifest["seconds"], manifest["peak_memory_bytes"], manifest["seed"]) == (3.75, 10, 7)
    assert {name: step["seconds"] for name, step in manifest["steps"].items()} == {"01_a": 1.5, "02_b": 2.25}
    assert manifest["data"] == {"dataset": inputs.fingerprint(data)} and manifest["fixed_seeds"] == constants.FIXED_SEEDS
    installed = {entry.metadata["Name"] for entry in metadata.distributions()}
    assert installed | {"python"} == set(manifest["versions"])
    assert manifest["hardware"]["cores"] == len(os.sched_getaffinity(0)) and manifest["hardware"]["processor"]


def test_the_manifest_holds_noises_weights_and_the_steps_of_this_run(tmp_path):
    (tmp_path / "cafe.wav").write_bytes(b"cups")
    (tmp_path / "w.pth").write_bytes(b"weights")
    settings = {"noise_files": {"cafe": str(tmp_path / "cafe.wav")}, "conditions": [["mel_db", "cafe"], ["mel_db", "white"]],
                "audioset_weights": str(tmp_path / "w.pth")}
    results = tmp_path / "results"
    for name in ("03-mel_db-cafe", "03-mel_db-horse"):
        manifest.write_step(results, name, seconds=2)
    (results / "config.json").write_text(json.dumps(settings))
    manifest = manifest.build_manifest(results, ["03-mel_db-cafe", "03-mel_db-white"])
    assert manifest["data"] == {
        "noises": {"cafe": {"file": "cafe.wav", "sha256": hashlib.sha256(b"cups").hexdigest()}},
        "audioset_weights": {"file": "w.pth", "md5": hashlib.md5(b"weights").hexdigest()},
    }
    assert list(manifest["steps"]) == ["03-mel_db-cafe"] and manifest["seconds"] == 2


def test_the_listed_seeds_are_the_ones_that_are_drawn_from():
    """What the manifest says is what the functions do by default."""
    import inspect

    from audioxai_utils.attributions import gradient_check
    from audioxai_utils.audio.generated import synthesis
    from audioxai_utils.evaluation import comparisons, controls, bootstrap
    from audioxai_utils.study import study
    from audioxai_utils.attributions import METHODS

    def default(function):
        return inspect.signature(function).parameters["seed"].default

    seeds = constants.FIXED_SEEDS
    assert synthesis.SEED == seeds["generated clips and noises"]
    assert default(METHODS["lime"]) == seeds["LIME"]
    assert default(controls.clip_seed) == seeds["random controls"]
    assert default(gradient_check.gradient_check) == seeds["gradient check"]
    assert {default(f) for f in (bootstrap.resampled_means, comparisons.mean_intervals, comparisons.beats_control)} == {
        seeds["bootstrap"]
    }
    assert study.Settings(device="cpu").seed == constants.SEED


def test_the_fingerprint_is_of_names_and_contents_alone(tmp_path):
    for place in ("one", "two"):
        (tmp_path / place / "meta").mkdir(parents=True)
        (tmp_path / place / "meta" / "a.csv").write_bytes(b"x" * 100_000)
        (tmp_path / place / "b.wav").write_bytes(b"sound")
    os.utime(tmp_path / "two" / "b.wav", (0, 0))
    (tmp_path / "two" / ".hidden").touch()
    found = inputs.fingerprint(tmp_path / "one")
    lines = [(name, hashlib.sha256(content).hexdigest()) for name, content in
             (("b.wav", b"sound"), ("meta/a.csv", b"x" * 100_000))]
    by_hand = hashlib.sha256("".join(f"{name}\0{digest}\n" for name, digest in lines).encode()).hexdigest()
    assert found == {"files": 2, "bytes": 100_005, "sha256": by_hand}
    assert inputs.fingerprint(tmp_path / "two") == found
    (tmp_path / "two" / "b.wav").rename(tmp_path / "two" / "c.wav")
    assert inputs.fingerprint(tmp_path / "two")["sha256"] != found["sha256"]


def test_the_commit_says_whether_files_differ(tmp_path):
    def git(*words):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(["git", "-C", tmp_path, *identity, *words], check=True, capture_output=True, text=True)
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


def test_a_broken_record_is_named(tmp_path):
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps" / "01.json").write_text("{")
    with pytest.raises(ValueError, match=r"01\.json must be a step's record in JSON"):
        manifest.read_steps(tmp_path)

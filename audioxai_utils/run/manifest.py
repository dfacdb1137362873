"""Where results come from: one record per finished step, and a manifest of the whole run."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

from .. import constants
from ..audio import inputs

# Packages whose version can change a number; the manifest lists every installed one.
KEY_PACKAGES = (
    "torch", "torchaudio", "numpy", "scipy", "scikit-image", "scikit-learn", "pandas", "captum", "shap", "lime",
    "librosa", "soundfile", "lightning",
)
STEP_FACTS = ("finished", "seconds", "cpu_seconds", "peak_memory_bytes", "threads")  # of each step in the manifest


def write_step(
    results_dir: str | Path,
    step: str,
    *,
    seconds: float,
    cpu_seconds: float | None = None,
    peak_memory: int | None = None,
    parameters: dict | None = None,
    notebook: str = "",
    threads: int | None = None,
    inputs_read: dict[str, str] | None = None,
) -> Path:
    """Record that a step ended well, in ``steps/<step>.json``.

    Parameters
    ----------
    results_dir : path
        Folder of the results.
    step : str
        Name of the step, such as ``03_attributions-mel_db-clean-lime``.
    seconds : float
        Wall-clock time of the step (s).
    cpu_seconds : float, optional
        Processor time of all its processes (s); it does not hang on what else the machine does.
    peak_memory : int, optional
        Largest resident memory of one of its processes (bytes).
    parameters : dict, optional
        What took effect in the notebook, its defaults included; ``seed`` and ``device`` are
        repeated at the top.
    notebook : str, optional
        Path of the executed notebook within ``results_dir``.
    threads : int, optional
        Threads that it was given.
    inputs_read : dict, optional
        Checksums of single files it was given, such as the AudioSet weights.

    Returns
    -------
    Path
        The record.
    """
    parameters = dict(parameters or {})
    record = {
        "step": step,
        "finished": _now(),
        "seconds": round(float(seconds), 3),
        "cpu_seconds": None if cpu_seconds is None else round(float(cpu_seconds), 3),
        "peak_memory_bytes": peak_memory,
        "threads": threads,
        "notebook": notebook,
        "parameters": parameters,
        "seed": parameters.get("seed", ""),
        "device": parameters.get("device", ""),
        "inputs": dict(inputs_read or {}),
        "hardware": hardware(),
        "commit": commit(),
        "versions": {"python": platform.python_version()} | _versions(KEY_PACKAGES),
    }
    path = Path(results_dir) / "steps" / f"{step}.json"
    write_json(path, record)
    return path


def read_steps(results_dir: str | Path, steps: Sequence[str] | None = None) -> list[dict]:
    """The records of finished steps in the order of their names: those of ``steps``, or all.

    Raises
    ------
    ValueError
        If a record is not JSON; names the file.
    """
    records = []
    for path in sorted(Path(results_dir, "steps").glob("*.json")):
        if steps is not None and path.stem not in steps:
            continue  # another run's, in the same folder
        try:
            records.append(json.loads(path.read_text(encoding="utf-8")))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} must be a step's record in JSON ({error}); delete it and run again") from error
    return records


def build_manifest(results_dir: str | Path, steps: Sequence[str] | None = None) -> dict:
    """Write ``manifest.json``: what the results of ``results_dir`` were computed with, from and how.

    Versions, commit (``dirty`` when tracked files differ from it), seeds, device, processor,
    fingerprint of the data, seconds and peak memory per step; only of ``steps`` where given.

    Returns
    -------
    dict
        The manifest.
    """
    results_dir = Path(results_dir)
    records = read_steps(results_dir, steps)
    settings = {}
    if (results_dir / "config.json").is_file():
        settings = json.loads((results_dir / "config.json").read_text(encoding="utf-8"))
    commits = {record["commit"]["id"] for record in records}
    manifest = {
        "written": _now(),
        "settings": settings,
        "seed": int(settings["seed"]) if settings.get("seed") else None,  # of initial weights and training
        "fixed_seeds": constants.FIXED_SEEDS,
        "device": settings.get("device", ""),
        "hardware": hardware(),
        "commit": commit(),
        "steps_of_other_commits": sorted(commits - {commit()["id"]}, key=str),
        "data": data_fingerprints(settings),
        "seconds": round(sum(record["seconds"] for record in records), 3),
        "peak_memory_bytes": max((record["peak_memory_bytes"] or 0 for record in records), default=0),
        "steps": {
            record["step"]: {name: record.get(name) for name in STEP_FACTS}
            for record in records
        },
        "versions": {"python": platform.python_version()} | _versions(),
    }
    write_json(results_dir / "manifest.json", manifest)
    return manifest


def data_fingerprints(settings: dict) -> dict[str, dict]:
    """Fingerprints of the dataset's folder and, where there are any, of the noise recordings in use."""
    found = {}
    if settings.get("dataset"):
        folder = inputs.dataset_folder(settings["dataset"], settings.get("data_root"))
        found |= {"dataset": inputs.fingerprint(folder)} if folder.is_dir() else {}
    scenarios = (scenario for _, scenario in settings.get("conditions", []))
    noises = inputs.recordings(scenarios, settings.get("noise_root", ""), settings.get("noise_files", {}))
    if noises:
        found["noises"] = {
            name: {"file": path.name, "sha256": inputs.file_digest(path)} for name, path in noises.items()
        }
    if settings.get("audioset_weights"):
        path = Path(settings["audioset_weights"])
        found["audioset_weights"] = {"file": path.name, "md5": inputs.file_digest(path, "md5")}
    return found


def commit(repository: Path = constants.REPOSITORY) -> dict:
    """``id`` of the checked-out commit and whether tracked files are ``dirty``; ``None`` without git."""
    try:
        done = [
            subprocess.run(["git", "-C", str(repository), *words], capture_output=True, text=True, check=True).stdout
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except (OSError, subprocess.CalledProcessError):  # no git, or not a clone (an unpacked archive)
        return {"id": None, "dirty": None}
    return {"id": done[0].strip(), "dirty": bool(done[1].strip())}


def hardware() -> dict:
    """Processor model and usable cores, memory (bytes), GPUs and operating system."""
    return {
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": [
            _field(path, "Model") or path.parent.name
            for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
        ],
        "system": platform.system() + " " + platform.machine(),
    }


def _field(path: str | Path, name: str) -> str:
    """Value of the first ``name : value`` line of a file of the system; empty where there is none."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _versions(names: tuple[str, ...] | None = None) -> dict[str, str]:
    """Version of each installed package among ``names``, or of all."""
    if names is None:
        found = {entry.metadata["Name"]: entry.version for entry in metadata.distributions()}
        return dict(sorted(found.items(), key=lambda item: item[0].lower()))
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def write_json(path: Path, record: dict) -> None:
    """Write JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        temporary.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)

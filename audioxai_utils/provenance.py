"""Where results come from: one record per finished step, and a manifest of the whole run."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

from . import config

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
        What the notebook was given; ``seed`` and ``device`` are repeated at the top.
    notebook : str, optional
        Path of the executed notebook within ``results_dir``.
    threads : int, optional
        Threads that it was given.

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
        "hardware": hardware(),
        "commit": commit(),
        "versions": {"python": platform.python_version()} | _versions(KEY_PACKAGES),
    }
    path = Path(results_dir) / "steps" / f"{step}.json"
    write_json(path, record)
    return path


def read_steps(results_dir: str | Path) -> list[dict]:
    """The records of all finished steps, in the order of their names.

    Raises
    ------
    ValueError
        If a record is not JSON; names the file.
    """
    records = []
    for path in sorted(Path(results_dir, "steps").glob("*.json")):
        try:
            records.append(json.loads(path.read_text(encoding="utf-8")))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} must be a step's record in JSON ({error}); delete it and run again") from error
    return records


def build_manifest(results_dir: str | Path) -> dict:
    """Write ``manifest.json``: what the results of ``results_dir`` were computed with, from and how.

    Versions, commit (``dirty`` when tracked files differ from it), seed, device, processor,
    fingerprint of the data, seconds and peak memory per step.

    Returns
    -------
    dict
        The manifest.
    """
    results_dir = Path(results_dir)
    records = read_steps(results_dir)
    settings = {}
    if (results_dir / "config.json").is_file():
        settings = json.loads((results_dir / "config.json").read_text(encoding="utf-8"))
    commits = {record["commit"]["id"] for record in records}
    manifest = {
        "written": _now(),
        "settings": settings,
        "seed": settings.get("seed", ""),
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
    """Fingerprint of the dataset's and, where there is one, of the noise recordings' folder."""
    folders = {}
    if settings.get("dataset"):
        folders["dataset"] = settings.get("data_root") or config.default_data_root(settings["dataset"])
    if settings.get("noise_root"):
        folders["noises"] = settings["noise_root"]
    return {name: fingerprint(folder) for name, folder in folders.items() if Path(folder).is_dir()}


def fingerprint(folder: str | Path) -> dict:
    """Number of files, bytes and SHA-256 over the names and contents of all files below ``folder``.

    The same files give the same digest wherever the folder lies and whenever they were
    written; hidden files are left out.
    """
    folder = Path(folder)
    digest, n_files, n_bytes = hashlib.sha256(), 0, 0
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    for name in sorted(name.as_posix() for name in names if not any(part.startswith(".") for part in name.parts)):
        with open(folder / name, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{name}\0{content}\n".encode())
        n_files, n_bytes = n_files + 1, n_bytes + (folder / name).stat().st_size
    return {"files": n_files, "bytes": n_bytes, "sha256": digest.hexdigest()}


def commit(repository: Path = config.REPOSITORY) -> dict:
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

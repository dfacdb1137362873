"""Where results come from: the machine, the code and the data, and a manifest of the whole run."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import constants
from ..audio import inputs
from ..files import write_json
from ..study.settings import Settings
from . import machine

# Packages whose version can change a number; the manifest lists every installed one.
KEY_PACKAGES = (
    "torch",
    "torchaudio",
    "numpy",
    "scipy",
    "scikit-image",
    "scikit-learn",
    "pandas",
    "captum",
    "shap",
    "lime",
    "librosa",
    "soundfile",
    "lightning",
)
STEP_FACTS = ("finished", "seconds", "cpu_seconds", "peak_memory_bytes", "threads")  # in the manifest


def build_manifest(results_dir: Path, settings: Settings, records: list[dict[str, Any]]) -> dict[str, Any]:
    """Write ``manifest.json``: what the results of ``results_dir`` were computed with, from and how.

    Versions, commit (``dirty`` when tracked files differ from it), settings, seeds, processor, fingerprint of
    the data, seconds and peak memory of the steps that have the ``records``.

    Returns
    -------
    dict
        The manifest.
    """
    here = commit()
    commits = {record["commit"]["id"] for record in records}
    manifest = {
        "written": now(),
        "settings": asdict(settings),
        "seed": settings.seed,  # of initial weights and training
        "fixed_seeds": constants.FIXED_SEEDS,
        "device": settings.device,
        "hardware": hardware(),
        "commit": here,
        "steps_of_other_commits": sorted(commits - {here["id"]}, key=str),
        "data": data_fingerprints(settings),
        "seconds": round(sum(record["seconds"] for record in records), 3),
        "peak_memory_bytes": max((record["peak_memory_bytes"] or 0 for record in records), default=0),
        "steps": {record["step"]: {name: record.get(name) for name in STEP_FACTS} for record in records},
        "versions": versions(),
    }
    write_json(results_dir / "manifest.json", manifest)
    return manifest


def data_fingerprints(settings: Settings) -> dict[str, dict]:
    """Fingerprints of the dataset's folder and, where there are any, of noise recordings and weights."""
    folder = inputs.dataset_folder(settings.dataset, settings.data_root)
    found = {"dataset": inputs.fingerprint(folder)} if folder.is_dir() else {}
    if noises := settings.recordings():
        found["noises"] = {name: _file(path) for name, path in noises.items()}
    if settings.weights:
        found["weights"] = _file(Path(settings.weights))
    return found


def _file(path: Path) -> dict:
    return {"file": path.name, "sha256": inputs.file_digest(path)}


def commit(repository: Path = constants.REPOSITORY) -> dict:
    """``id`` of the checked-out commit and whether tracked files are ``dirty``; ``None`` without git."""
    try:
        done = [
            subprocess.run(
                ["git", "-C", str(repository), *words], capture_output=True, text=True, check=True
            ).stdout
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except (OSError, subprocess.CalledProcessError):  # no git, or not a clone (an unpacked archive)
        return {"id": None, "dirty": None}
    return {"id": done[0].strip(), "dirty": bool(done[1].strip())}


def hardware() -> dict:
    """Processor model and usable cores, memory (bytes), GPUs and operating system."""
    return {
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": machine.cores(),
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


def versions(names: tuple[str, ...] | None = None) -> dict[str, str]:
    """Version of Python, and of each installed package, or of those of ``names``."""
    found = (
        {entry.metadata["Name"]: entry.version for entry in metadata.distributions()} if names is None else {}
    )
    for name in names or ():
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return {"python": platform.python_version()} | dict(
        sorted(found.items(), key=lambda item: item[0].lower())
    )


def now() -> str:
    """The time, to the second, as the records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")

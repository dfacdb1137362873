"""Records of finished steps: what each was run with and left behind, and why it would run again."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..audio.inputs import file_digest
from ..files import write_json
from .manifest import KEY_PACKAGES, commit, hardware, now, versions

if TYPE_CHECKING:
    from .graph import Graph, Step

SAVED = ("tables", "figures", "gallery")  # folders in which any notebook may leave something
CLOCK = 0.05  # seconds by which a file's time of change may be early
# What a step is there for, by the number of its notebook.
RESULTS = {
    "02": ["models/{0.spectrogram_type}.pt"],
    "03": ["attributions/{0.spectrogram_type}/{0.noise_scenario}/*/*.npz"],
    "04": ["scores/{0.spectrogram_type}/{0.noise_scenario}.parquet"],
    "00": ["report/**/*", "manifest.json"],
}


def write_step(
    results_dir: Path,
    step: Step,
    *,
    started: float,
    cpu_seconds: float,
    peak_memory: int,
    threads: int,
    depends_on: dict[str, Any] | None = None,
    parameters: dict[str, str] | None = None,
    notebook: str = "",
) -> Path:
    """Record that a step ended well, in ``steps/<step>.json``.

    Parameters
    ----------
    results_dir : Path
        Folder of the results.
    step : Step
    started : float
        When it was started (s, as `time.time` has it).
    cpu_seconds : float
        Processor time of all its processes (s); it does not depend on what else the machine does.
    peak_memory : int
        Largest resident memory of one of its processes (bytes).
    threads : int
        Threads that it was given.
    depends_on : dict, optional
        The options and inputs that it depends on (`Graph.depends_on`).
    parameters : dict, optional
        What the notebook was given.
    notebook : str, optional
        Path of the executed notebook within ``results_dir``.

    Returns
    -------
    Path
        The record.
    """
    record = {
        "step": step.name,
        "finished": now(),
        "seconds": round(max(0.0, time.time() - started), 3),
        "cpu_seconds": round(float(cpu_seconds), 3),
        "peak_memory_bytes": peak_memory,
        "threads": threads,
        "notebook": notebook,
        "parameters": parameters or {},
        "depends_on": depends_on or {},
        "files": _files_of(results_dir, step, notebook, started - CLOCK),
        "hardware": hardware(),
        "commit": commit(),
        "versions": versions(KEY_PACKAGES),
    }
    path = results_dir / "steps" / f"{step.name}.json"
    write_json(path, record | {"digest": _digest(record)})
    return path


def _files_of(results_dir: Path, step: Step, notebook: str, started: float) -> dict[str, str | None]:
    """Path -> content (``bytes digest``) of what a step left; None for its notebook, of a shard nothing.

    What appeared in ``tables`` and the like while it ran may be another step's: it is missed here as well as
    there.
    """
    if step.shard:
        return {}
    patterns = [pattern.format(step) for pattern in RESULTS.get(step.notebook[:2], ())]
    found = [path for each in patterns for path in sorted(results_dir.glob(each)) if _counts(path)]
    for folder in SAVED:
        saved = (path for path in sorted((results_dir / folder).rglob("*")) if _counts(path))
        found += [path for path in saved if path.stat().st_mtime >= started]
    contents = {str(path.relative_to(results_dir)): _content(path) for path in found}
    return contents | ({notebook: None} if notebook else {})


def _content(path: Path) -> str:
    return f"{path.stat().st_size} {file_digest(path)[:16]}"


def _counts(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")


def read_record(results_dir: Path, name: str) -> dict[str, Any]:
    """The record of a step; empty where there is none, or one that cannot be read."""
    try:
        record = json.loads((results_dir / "steps" / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    whole = isinstance(record, dict) and record.pop("digest", None) == _digest(record)
    return record if whole else {}


def _digest(record: dict[str, Any]) -> str:
    """Of all that a record says: a changed bit makes it none."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def read_steps(results_dir: Path, names: Iterable[str]) -> list[dict[str, Any]]:
    """The records of those steps that have one, in their order."""
    return [record for name in names if (record := read_record(results_dir, name))]


def lost(results_dir: Path, graph: Graph) -> dict[str, str]:
    """Record -> what is missing or damaged, of each finished step whose results are no longer whole.

    Contents are compared of files that are younger than the record, and of all where a run did not come to
    its end; else their sizes alone. What several steps recorded may be as any of them left it.
    """
    done = {name for name in graph.steps() if (results_dir / graph.record(name)).is_file()}
    closely, found = len(done) < len(graph.steps()), {}
    steps = {graph.record(name): read_record(results_dir, name) for name in graph.steps() if name in done}
    left: dict[str, list[str | None]] = {}
    for record in steps.values():
        for file, content in record.get("files", {}).items():
            left.setdefault(file, []).append(content)
    for path, record in steps.items():
        since = 0.0 if closely else (results_dir / path).stat().st_mtime
        files = record.get("files", {})
        damaged = (file for file in files if not _is_as(results_dir / file, left[file], since))
        file = next(damaged, None) if record else f"{path} (unreadable)"
        found |= {path: file} if file else {}
    return found


def _is_as(path: Path, left: list[str | None], since: float) -> bool:
    """Whether a file is there, with one of these contents (None: any); by its size, if it has not changed."""
    if not path.is_file() or None in left:
        return path.is_file()
    about = path.stat()
    if about.st_mtime > since:
        return _content(path) in left
    return any(str(content).startswith(f"{about.st_size} ") for content in left)


def reason(results_dir: Path, graph: Graph, step: Step, lost_results: dict[str, str]) -> str:
    """Why a step runs, in a few words: from its record, its options and the files it is made from."""
    path, record = results_dir / graph.record(step.name), read_record(results_dir, step.name)
    if graph.record(step.name) in lost_results:
        return f"lost, damaged or changed: {lost_results[graph.record(step.name)]}"
    if not record:
        return "not done yet"
    now_on, then = graph.depends_on(step), record.get("depends_on", {})
    changed = [name for name in {**then, **now_on} if then.get(name) != now_on.get(name)]
    written = path.stat().st_mtime
    sources = map(Path, graph.sources(step.notebook, bool(step.shard)))
    changed += [source.name for source in sources if source.stat().st_mtime > written]
    return f"changed: {', '.join(changed)}" if changed else "follows from a step above"

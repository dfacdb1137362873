"""A toy study in a folder of its own: the real graph and command line, tiny notebooks.

Not a test itself; used by test_workflow.py and test_runner.py.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
COMMON = ("results_dir",)
CONDITION = ("spectrogram_type", "noise_scenario")
SMALL = ("--spectrogram", "mel_db", "--scenario", "clean,white", "--method", "lime", "--method", "saliency")
STEPS = {  # of such a run
    "01_data_and_noise",
    "02_fine_tuning-mel_db",
    "05_metrics_and_tables",
    "06_listening_gallery",
    "00_report",
    *(
        f"{notebook}-mel_db-{s}"
        for notebook in ("03_attributions", "04_mask_study")
        for s in ("clean", "white")
    ),
}
SYNTHESIS = """
def generate_dataset(root, n_workers=1):
    if not (root / "meta").is_dir():
        for folder, name in (("meta", "esc50.csv"), ("audio", "a.wav")):
            (root / folder).mkdir(parents=True)
            (root / folder / name).write_text("toy")
"""
REPORT = """
def build(results_dir):
    (results_dir / "report").mkdir(exist_ok=True)
    (results_dir / "report" / "index.html").write_text("toy")
"""
# Does what a notebook's step leaves behind, without a kernel: the graph's tests need no more.
FAST_RUNNER = """
import json, os, sys, time
from pathlib import Path
from ..study.settings import FILE
from .graph import Graph, Step
from .progress import tell
from .records import write_step
started, words = time.time(), sys.argv[1:]
given = {words[i + 1]: words[i + 2] for i, word in enumerate(words) if word == "-p"}
step = Step(Path(words[0]).stem, *given.values())
tell(step.name, "started", text="started")
if Path("fail", step.name).exists():
    tell(step.name, "failed", text="FAILED after 0.0 s", error="ValueError: as asked", notebook=words[1])
    sys.exit(1)
pair = f"{step.spectrogram_type}/{step.noise_scenario}"
left = {"01": "tables/data.csv", "02": f"models/{step.spectrogram_type}.pt", "03": f"attributions/{pair}/lime/a.npz",
        "04": f"scores/{pair}.parquet", "05": "figures/means.png", "06": "gallery/index.html", "00": "report/index.html"}
if step.notebook[:2] in left:
    path = Path(left[step.notebook[:2]])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(given))
    Path("manifest.json").write_text("toy")
Path(words[1]).parent.mkdir(exist_ok=True)
Path(words[1]).write_text("executed")
write_step(Path.cwd(), step, started=started, cpu_seconds=0.1, peak_memory=1, threads=1, parameters=given,
           notebook=os.path.relpath(words[1]), depends_on=Graph(json.loads(Path(FILE).read_text())).depends_on(step))
tell(step.name, "done", text="done in 0.1 s")
"""


def write_notebook(path: Path, parameters: tuple[str, ...], *sources: str, tagged: bool = True) -> None:
    """A notebook with a parameters cell (every value ``""``) and the given code cells."""

    def cell(source: str, tags: list[str]) -> dict:
        return {
            "cell_type": "code",
            "execution_count": None,
            "id": f"c{abs(hash(source)) % 10**8}",
            "outputs": [],
            "metadata": {"tags": tags} if tags else {},
            "source": source.splitlines(keepends=True),
        }

    cells = [cell("\n".join(f'{name} = ""' for name in parameters), ["parameters"] if tagged else [])]
    cells += [cell(source, []) for source in sources]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.write_text(json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}))


def write_sound(path: Path, frequency: float) -> None:
    """A second of a tone."""
    import numpy as np
    import soundfile

    soundfile.write(path, 0.5 * np.sin(2 * np.pi * frequency * np.arange(16000) / 16000), 16000)


def make(folder: Path, fast: bool) -> Path:
    """A repository with the real graph; ``fast`` puts a stand-in for what executes notebooks."""
    package, notebooks = folder / "audioxai_utils", folder / "notebooks"
    shutil.copytree(REPOSITORY / "audioxai_utils", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "gallery" / "report.py").write_text(REPORT)
    with open(package / "audio" / "generated" / "synthesis.py", "a", encoding="utf-8") as file:
        file.write(SYNTHESIS)
    (package / "used.py").write_text("value = 1\n")
    (package / "unused.py").write_text("value = 2\n")
    if fast:
        (package / "run" / "notebook.py").write_text(FAST_RUNNER)
    notebooks.mkdir()
    shutil.copy(REPOSITORY / "notebooks" / "Snakefile", notebooks)
    shutil.copytree(REPOSITORY / "notebooks" / "slurm", notebooks / "slurm")
    write_notebook(notebooks / "00_report.ipynb", COMMON, "1")
    write_notebook(notebooks / "01_data_and_noise.ipynb", COMMON, "from audioxai_utils import constants")
    write_notebook(notebooks / "02_fine_tuning.ipynb", (*COMMON, CONDITION[0]), "1")
    write_notebook(notebooks / "03_attributions.ipynb", (*COMMON, *CONDITION), "import audioxai_utils.used")
    write_notebook(notebooks / "04_mask_study.ipynb", (*COMMON, *CONDITION), "1")
    write_notebook(notebooks / "05_metrics_and_tables.ipynb", COMMON, "1")
    write_notebook(notebooks / "06_listening_gallery.ipynb", COMMON, "1")
    return folder


def command(repository: Path, results: Path, *words: str) -> tuple[list[str], dict[str, str]]:
    """Command line and environment of a run of the toy study."""
    line = [
        sys.executable,
        "-P",
        "-m",
        "audioxai_utils.run.command_line",
        "--results",
        str(results),
        "--cores",
        "2",
        *words,
    ]
    return line, os.environ | {"PYTHONPATH": str(repository)}


def run(repository: Path, results: Path, *words: str) -> subprocess.CompletedProcess:
    """Run the toy study to its end."""
    line, env = command(repository, results, *words)
    return subprocess.run(line, env=env, capture_output=True, text=True, timeout=600, check=False)


def wait_for(condition, seconds: float = 60.0) -> bool:
    """Whether ``condition()`` became true within the time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def alive(pid: int) -> bool:
    """Whether a process runs (one that ended and waits to be collected does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def planned(repository: Path, results: Path, *words: str) -> set[str]:
    """Names of the steps that a run would do."""
    done = run(repository, results, *SMALL, "--dry-run", *words)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert f"{len(lines) - 1} steps to do" in lines[-1]
    return {line.split()[0] for line in lines[:-1]}

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
MODULES = ("__init__", "config", "inputs", "cli", "preparation", "graph", "workflow", "slurm", "sources", "progress",
           "provenance", "runner", "watch", "forkserver")
COMMON = ("profile", "dataset", "data_root", "noise_root", "results_dir", "seed", "device")
CONDITION = ("spectrogram_type", "noise_scenario")
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
FAST_RUNNER = '''
import json, sys
from pathlib import Path
if sys.argv[1] == "--report":
    name, values = "report", {}
else:
    words = sys.argv[sys.argv.index("--threads") + 2:]
    name, values = Path(sys.argv[2]).stem, dict(zip(words[1::3], words[2::3]))
print(f"[{name}] started", flush=True)
if Path("fail", name).exists():
    Path("logs/failed").mkdir(exist_ok=True)
    failure = {"step": name, "notebook": sys.argv[2], "error": "ValueError: as asked"}
    Path("logs/failed", name + ".json").write_text(json.dumps(failure))
    print(f"[{name}] FAILED after 0.0 s: ValueError: as asked", flush=True)
    sys.exit(1)
for folder, suffix in (("models", ".pt"), ("scores", ".parquet")):
    if name.startswith({"models": "02", "scores": "04"}[folder]):
        path = Path(folder, *name.split("-")[1:])
        path = path.with_name(path.name + suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(values))
record = {"step": name, "parameters": values, "argv": sys.argv[1:], "seconds": 0.1, "finished": "",
          "peak_memory_bytes": 1, "threads": 1, "commit": {"id": None}}
Path("steps", name + ".json").write_text(json.dumps(record))
print(f"[{name}] done in 0.1 s", flush=True)
'''


def write_notebook(path: Path, parameters: tuple[str, ...], *sources: str, tagged: bool = True) -> None:
    """A notebook with a parameters condition (every value ``""``) and the given code conditions."""
    def condition(source: str, tags: list[str]) -> dict:
        return {"condition_type": "code", "execution_count": None, "id": f"c{abs(hash(source)) % 10**8}", "outputs": [],
                "metadata": {"tags": tags} if tags else {}, "source": source.splitlines(keepends=True)}

    conditions = [condition("\n".join(f'{name} = ""' for name in parameters), ["parameters"] if tagged else [])]
    conditions += [condition(source, []) for source in sources]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.write_text(json.dumps({"conditions": conditions, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}))


def write_sound(path: Path, frequency: float) -> None:
    """A second of a tone."""
    import numpy as np
    import soundfile

    soundfile.write(path, 0.5 * np.sin(2 * np.pi * frequency * np.arange(16000) / 16000), 16000)


def make(folder: Path, fast: bool) -> Path:
    """A repository with the real graph; ``fast`` puts a stand-in for the runner."""
    package = folder / "audioxai_utils"
    package.mkdir(parents=True)
    for module in MODULES:
        shutil.copy(REPOSITORY / "audioxai_utils" / f"{module}.py", package)
    (package / "report.py").write_text(REPORT)
    (package / "synthesis.py").write_text(SYNTHESIS)
    (package / "used.py").write_text("value = 1\n")
    (package / "unused.py").write_text("value = 2\n")
    if fast:
        (package / "runner.py").write_text(FAST_RUNNER)
    notebooks = folder / "notebooks"
    notebooks.mkdir()
    shutil.copy(REPOSITORY / "notebooks" / "Snakefile", notebooks)
    shutil.copytree(REPOSITORY / "notebooks" / "slurm", notebooks / "slurm")
    write_notebook(notebooks / "01_data_and_noise.ipynb", (*COMMON, "conditions"), "from audioxai_utils import config")
    write_notebook(notebooks / "02_fine_tuning.ipynb", (*COMMON, CONDITION[0], "audioset_weights", "conditions"), "1")
    write_notebook(notebooks / "03_attributions.ipynb", (*COMMON, *CONDITION, "method"), "import audioxai_utils.used")
    write_notebook(notebooks / "04_mask_study.ipynb", (*COMMON, *CONDITION, "protocol"), "1")
    write_notebook(notebooks / "05_metrics_and_tables.ipynb", (*COMMON, "protocol", "methods", "conditions"), "1")
    write_notebook(notebooks / "06_listening_gallery.ipynb", COMMON, "1")
    return folder


def command(repository: Path, results: Path, *words: str) -> tuple[list[str], dict[str, str]]:
    """Command line and environment of a run of the toy study."""
    line = [sys.executable, "-P", "-m", "audioxai_utils.run.command_line", "--results", str(results), "--cores", "2", *words]
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

"""The study as a graph of notebooks: what each step reads, and running all of them.

``notebooks/Snakefile`` asks :class:`Study` for the parameters, sources and threads of its
rules; :func:`run` writes the configuration, starts Snakemake on it and turns what comes
back into a few readable lines.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from . import config
from .progress import Progress, duration, planned_steps
from .provenance import build_manifest, write_json
from .sources import PACKAGE, module_closure, notebook_sources, parameter_defaults

if TYPE_CHECKING:
    from .cli import Options

NOTEBOOKS = config.REPOSITORY / "notebooks"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
AUDIT = "07_audit"
JOBS_PER_GPU = 2  # notebooks at once on one GPU: LIME segments on the CPU, so one alone leaves it idle
PARAMETERS = ("profile", "dataset", "data_root", "noise_root", "seed", "device")  # of every notebook
CELL_PARAMETERS = ("spectrogram_type", "noise_scenario", "method")


# The graph's side: what notebooks/Snakefile asks


class Study:
    """One run's configuration, in the words of the rules of ``notebooks/Snakefile``."""

    def __init__(self, settings: dict, cores: int = 1):
        self.settings = settings
        self.cores = cores
        self.cells = [tuple(cell) for cell in settings["cells"]]
        self.methods = list(settings["methods"])
        self.spectrogram_types = list(dict.fromkeys(kind for kind, _ in self.cells))
        self.notebooks = NOTEBOOKS

    def sources(self, notebook: str) -> list[str]:
        """The notebook and the modules it imports: inputs of its rule."""
        return list(notebook_sources(self.notebooks / f"{notebook}.ipynb"))

    def module_sources(self, module: str) -> list[str]:
        """The module and those it imports: inputs of a rule without a notebook."""
        return [str(path) for path in module_closure({f"{PACKAGE.name}.{module}"})]

    def step(self, notebook: str, *wildcards: str) -> str:
        """Record of a finished step; ``wildcards`` are names, or values."""
        return f"steps/{self._name(notebook, wildcards)}.json"

    def executed(self, notebook: str, *wildcards: str) -> str:
        """Executed notebook of a step."""
        return f"notebooks/{self._name(notebook, wildcards)}.ipynb"

    @staticmethod
    def _name(notebook: str, wildcards: tuple[str, ...]) -> str:
        return "-".join([notebook, *(f"{{{w}}}" if w in CELL_PARAMETERS else w for w in wildcards)])

    def attributed(self, spectrogram_type: str, noise_scenario: str) -> list[str]:
        """Records of every method's attributions of one cell."""
        return [self.step("03_attributions", spectrogram_type, noise_scenario, m) for m in self.methods]

    def scored(self) -> list[str]:
        """Records of every cell's mask study."""
        return [self.step("04_mask_study", *cell) for cell in self.cells]

    def further(self) -> list[str]:
        """Notebooks of the whole study that come after the gallery: 07_..., 08_..., as found.

        The audit compares both protocols and at least two methods; a run with less leaves it out.
        """
        complete = self.settings["protocol"] == "both" and len(self.methods) > 1
        found = sorted(path.stem for path in self.notebooks.glob("0[7-9]_*.ipynb"))
        return [stem for stem in found if complete or stem != AUDIT]

    def arguments(self, notebook: str, **wildcards: str) -> str:
        """The notebook's parameters for the runner's command line; a change of it reruns the step.

        Empty values are left out: the notebook's own default stands. ``audioset_weights``,
        ``protocol``, ``cells`` ("mel_db/clean mel_db/white") and ``methods`` ("lime shap") go to
        the notebooks whose parameters cell names them.
        """
        values = {name: self.settings[name] for name in PARAMETERS} | wildcards
        optional = {
            "audioset_weights": self.settings["audioset_weights"],
            "protocol": self.settings["protocol"],
            "cells": " ".join("/".join(cell) for cell in self.cells),
            "methods": " ".join(self.methods),
        }
        accepted = parameter_defaults(self.notebooks / f"{notebook}.ipynb")
        values |= {name: value for name, value in optional.items() if name in accepted}
        return " ".join(shlex.join(["-p", name, value]) for name, value in values.items() if value)

    def threads(self, n_jobs: int = 1) -> int:
        """Threads of each of ``n_jobs`` steps that may run at once."""
        return max(1, self.cores // n_jobs)

    def gpu_share(self) -> int:
        """1 where a step may take a GPU, whose steps are then limited to ``JOBS_PER_GPU``; else 0."""
        return int(self.settings["device"] != "cpu" and n_gpus() > 0)

    @property
    def command(self) -> str:
        """Shell command of every notebook's rule."""
        return (
            "python -P -m audioxai_utils.runner {input[0]:q} {log[0]:q} "
            "--threads {threads} {params.arguments}"
        )


# Running it


def environment() -> dict[str, str]:
    """Environment of everything that is started: this package found, nothing written to the home."""
    inside = Path(sys.prefix) / "cache"
    folder = inside if sys.prefix != sys.base_prefix and os.access(sys.prefix, os.W_OK) else None
    cache_folder = folder or Path(os.environ.get("TMPDIR", "/tmp")) / f"audioxai-cache-{os.getuid()}"
    places = {
        "IPYTHONDIR": "ipython",
        "JUPYTER_CONFIG_DIR": "jupyter-config",
        "JUPYTER_DATA_DIR": "jupyter-data",
        "JUPYTER_RUNTIME_DIR": "jupyter-runtime",
        "MPLCONFIGDIR": "matplotlib",
        "NUMBA_CACHE_DIR": "numba",
        "XDG_CACHE_HOME": "xdg",
    }
    kept = {name: value for name, value in os.environ.items() if name != "JUPYTER_PATH"}
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return kept | {name: str(cache_folder / place) for name, place in places.items()} | {
        "PATH": programs,  # the rules' "python" is this one
        "PYTHONPATH": str(config.REPOSITORY),
        "PYTHONHASHSEED": "0",
        "AUDIOXAI_RUN_PID": str(os.getpid()),  # what the steps watch: they end with it
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTER_PLATFORM_DIRS": "1",
    }


def n_gpus() -> int:
    """NVIDIA devices of this machine, without asking torch (which takes seconds)."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


@contextmanager
def locked(results_dir: Path) -> Iterator[None]:
    """Hold the results folder for this process; the system lets go of it however the process ends.

    Raises
    ------
    BlockingIOError
        If another run holds it; the message names its process.
    """
    with open(results_dir / ".lock", "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise BlockingIOError(
                f"another run (process {file.read().strip() or 'unknown'}) works on {results_dir}; "
                "wait for it, or choose another folder with --results"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


# Dies with its parent, whichever way that ends: prctl(PR_SET_PDEATHSIG, SIGKILL), then the command.
_BOUND = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(1, 9)\n"
    "if os.getppid() != int(sys.argv[1]): sys.exit(1)\n"
    "os.execvp(sys.argv[2], sys.argv[2:])"
)


def bound(command: list[str]) -> list[str]:
    """The command that runs ``command`` so that the system ends it when this process ends (Linux)."""
    return [sys.executable, "-I", "-S", "-c", _BOUND, str(os.getpid()), *command]


def settings_of(options: Options) -> dict:
    """The run's configuration as the Snakefile reads it."""
    names = (*PARAMETERS, "audioset_weights", "protocol")
    settings = {name: getattr(options, name) for name in names}
    return settings | {"cells": [list(cell) for cell in options.cells], "methods": list(options.methods)}


def snakemake_command(options: Options, directory: Path, configuration: Path) -> list[str]:
    """Snakemake on this configuration, with its own lock off (ours cannot be left behind)."""
    command = [sys.executable, "-P", "-m", "snakemake", "--snakefile", str(NOTEBOOKS / "Snakefile")]
    command += ["--directory", str(directory), "--configfile", str(configuration), "--cores", str(options.cores)]
    command += ["--keep-going", "--rerun-incomplete", "--nolock", "--scheduler", "greedy", "--nocolor"]
    command += ["--resources", f"gpu={JOBS_PER_GPU * n_gpus()}"] if n_gpus() else []
    return [*command, "--dry-run"] if options.dry_run else command


def run(options: Options) -> int:
    """Run the study, or say what would run; return the exit code."""
    if options.dry_run:
        return _dry_run(options)
    results_dir = options.results_dir
    results_dir.mkdir(parents=True, exist_ok=True)
    with locked(results_dir):
        logs = results_dir / "logs"
        shutil.rmtree(logs / "failed", ignore_errors=True)
        logs.mkdir(exist_ok=True)
        configuration = results_dir / "config.json"
        write_json(configuration, settings_of(options))
        n_methods, n_cells = len(options.methods), len(options.cells)
        print(f"{options.profile} study on {options.dataset} sounds: {n_cells} cells x {n_methods} methods, "
              f"{options.cores} cores\nresults: {results_dir}", flush=True)
        progress = Progress(logs / time.strftime("run-%Y%m%d-%H%M%S.log"))
        code = progress.follow(bound(snakemake_command(options, results_dir, configuration)), environment())
        return _conclude(results_dir, progress, code)


def _dry_run(options: Options) -> int:
    """Print the steps that would run, with the reason; leave nothing behind."""
    with tempfile.TemporaryDirectory() as temporary:
        configuration = Path(temporary, "config.json")
        write_json(configuration, settings_of(options))
        directory = options.results_dir if options.results_dir.is_dir() else Path(temporary, "none")
        command = snakemake_command(options, directory, configuration)
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"run_all.sh: the plan cannot be made: {_last_error(done.stderr)}", file=sys.stderr)
        return 1
    steps = planned_steps(done.stdout + done.stderr)
    for name, reason in steps:
        print(f"{name:48s} {reason}")
    print(f"{len(steps)} steps to do; results: {options.results_dir}")
    return 0


def _conclude(results_dir: Path, progress: Progress, code: int) -> int:
    """Print what became of the run, last of all the failures or where the report is."""
    took = duration(time.monotonic() - progress.started)
    report = results_dir / "report" / "index.html"
    if code == 0:
        print("nothing to do: everything is up to date" if progress.total is None else f"finished in {took}")
        print(f"report: {report}")
        return 0
    failures = [json.loads(path.read_text("utf-8")) for path in sorted((results_dir / "logs/failed").glob("*.json"))]
    print(f"run_all.sh: the study did not finish ({took}); log: {progress.log}", file=sys.stderr)
    for failure in failures:
        print(f"  {failure['step']}: {failure['error']}\n    {failure['notebook']}", file=sys.stderr)
    for name in progress.running:
        print(f"  {name} ended without a word: killed, perhaps for want of memory", file=sys.stderr)
    if not failures and not progress.running:
        print(f"  {_last_error(progress.log.read_text('utf-8', 'replace'))}", file=sys.stderr)
    return 1


def _last_error(text: str) -> str:
    """The most telling line of what Snakemake said: the last one that names an error, else the last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["Snakemake ended without a word"]
    telling = [i for i, line in enumerate(lines) if re.search(r"(Error|Exception)\b", line)] or [len(lines) - 1]
    return " ".join(lines[telling[-1] : telling[-1] + (2 if lines[telling[-1]].endswith(":") else 1)])

"""Running the study: the settings are written, Snakemake started on them, and its progress told."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import constants
from ..audio import inputs
from ..files import locked, sweep
from ..study.settings import Settings, remember_latest
from . import machine, records, slurm
from .graph import JOBS_PER_GPU, NOTEBOOKS, Graph
from .preparation import NotPrepared
from .progress import EVENTS, Progress, duration
from .watch import RUN_PID, bound

# glibc gives large tensors back to the system and gets them zeroed anew at every operation; kept, and on huge
# pages where the kernel has them, a forward pass of the quick model takes about half the time.
MEMORY = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1073741824:glibc.malloc.hugetlb=1"
CACHES = {
    "IPYTHONDIR": "ipython",
    "JUPYTER_CONFIG_DIR": "jupyter-config",
    "JUPYTER_DATA_DIR": "jupyter-data",
    "JUPYTER_RUNTIME_DIR": "jupyter-runtime",
    "MPLCONFIGDIR": "matplotlib",
    "NUMBA_CACHE_DIR": "numba",
    "XDG_CACHE_HOME": "xdg",
}  # variable -> where it points in the cache folder, which is in the environment's own if that can be written


# Variables that would change a step: with MPLBACKEND=agg, as on clusters, notebooks show no figure
FROM_OUTSIDE = ("SNAKEMAKE_", "PYTHON", "JUPYTER", "IPYTHON", "MPL", "MATPLOTLIB", EVENTS)
KEPT = (  # the names of a cluster's partitions; where and how Python writes
    "SNAKEMAKE_SLURM_PARTITIONS",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONPYCACHEPREFIX",
    "PYTHONIOENCODING",
    "PYTHONUNBUFFERED",
    "PYTHONUTF8",
)


def environment() -> dict[str, str]:
    """Environment of all that is started: this package found, nothing written to the home, memory kept.

    What Snakemake, Python, Jupyter and matplotlib read from variables is left out, but for `KEPT`: no setting
    from outside changes what runs, or what a notebook shows.
    """
    inside = Path(sys.prefix) / "cache"
    folder = inside if sys.prefix != sys.base_prefix and os.access(sys.prefix, os.W_OK) else None
    cache_folder = folder or Path(os.environ.get("TMPDIR", "/tmp")) / f"audioxai-cache-{os.getuid()}"
    kept = {
        name: value for name, value in os.environ.items() if name in KEPT or not name.startswith(FROM_OUTSIDE)
    }
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    plugin = constants.REPOSITORY / "audioxai_utils" / "run" / "plugin"
    return kept | {name: str(cache_folder / place) for name, place in CACHES.items()} | {
        "PATH": programs,  # the rules' "python" is this one
        "PYTHONPATH": f"{constants.REPOSITORY}{os.pathsep}{plugin}",
        "PYTHONHASHSEED": "0",
        "PYTHONNOUSERSITE": "1",
        "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", MEMORY),
        RUN_PID: str(os.getpid()),  # what the steps watch: they end with it
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTER_PLATFORM_DIRS": "1",
    }  # fmt: skip


def states_of(settings: Settings) -> dict[str, Any]:
    """What the run reads besides its options, as it is now; a change reruns what depends on it."""
    weights = settings.weights
    return {
        "data": inputs.dataset_state(inputs.dataset_folder(settings.dataset, settings.data_root)),
        "noises": {name: inputs.file_digest(path)[:16] for name, path in settings.recordings().items()},
        "model": model_state(settings.model) if settings.model else "",
        "weights": f"sha256:{inputs.file_digest(weights)}" if weights else "",
        "answers": inputs.csv_state(settings.results / "listening"),
        "benchmarks": inputs.csv_state(settings.results / "benchmarks"),
    }


def model_state(spec: str) -> str:
    """Digest of a user's classifier: of its file, and of the weights that its function loads."""
    from ..study.own_model import load_own, own_digest

    return own_digest(spec, load_own(spec))


def resolved_device(device: str) -> str:
    """``cpu`` or ``cuda``; for ``auto`` it is asked of torch, unless there is no GPU to ask about."""
    if device != "auto":
        return device
    if not machine.gpus() and not any(
        Path(place).exists() for place in ("/dev/kfd", "/dev/dxg")
    ):  # ROCm, WSL
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def written(settings: Settings, folder: Path) -> tuple[Path, Graph]:
    """(``settings.json`` in ``folder``, the run's graph): the device is the one that takes effect."""
    settings = replace(settings, device=resolved_device(settings.device))
    path = settings.write(folder, states=states_of(settings))
    cores = settings.cores or machine.cores()
    return path, Graph(json.loads(path.read_text(encoding="utf-8")), cores)


def snakemake_command(graph: Graph, directory: Path, configuration: Path, again: list[str]) -> list[str]:
    """Snakemake on these settings, its own lock off (ours cannot be left behind); ``again`` is redone."""
    snakefile = NOTEBOOKS / "Snakefile"
    command = [sys.executable, "-P", "-m", "snakemake", "--snakefile", str(snakefile), "--logger", "audioxai"]
    command += ["--directory", str(directory), "--configfile", str(configuration)]
    command += ["--keep-going", "--rerun-incomplete", "--nolock", "--scheduler", "greedy", "--nocolor"]
    command += ["--forcerun", *again] if again else []
    if graph.job_cores:
        return command + slurm.snakemake_options(snakefile, graph.settings.slurm, directory)
    command += ["--profile", "none", "--workflow-profile", "none", "--cores", str(graph.cores)]
    gpus = [f"gpu={JOBS_PER_GPU * len(machine.gpus())}"] if machine.gpus() else []
    return [*command, "--default-resources", "step=1", "--resources", f"step={graph.at_once}", *gpus]


def run(settings: Settings) -> int:
    """Run the study; return the exit code. `NotPrepared` where it cannot begin."""
    results_dir = settings.results
    results_dir.mkdir(parents=True, exist_ok=True)
    on_slurm = settings.slurm is not None
    jobs = slurm.jobs_end_with(results_dir) if on_slurm else nullcontext()
    with locked(results_dir, wait=False) as held, jobs:
        if held:  # where nobody can hold it, what is half made may be another run's
            sweep(results_dir)
        logs = results_dir / "logs"
        for folder in (logs / "events", results_dir / slurm.LOGS):
            shutil.rmtree(folder, ignore_errors=True)
        (logs / "events").mkdir(parents=True)
        configuration, graph = written(settings, results_dir)
        remember_latest(results_dir)
        where = f"SLURM jobs of {graph.cores} cores" if on_slurm else f"{graph.cores} cores"
        print(
            f"{settings.profile} study on {settings.dataset} sounds: {len(graph.conditions)} conditions x "
            f"{len(settings.explained_by)} methods, {where}\nresults: {results_dir}",
            flush=True,
        )
        _check_sources(graph)
        again = list(records.lost(results_dir, graph))
        progress = Progress(logs / "events", logs / time.strftime("run-%Y%m%d-%H%M%S.log"))
        command = bound(snakemake_command(graph, results_dir, configuration, again))
        return _conclude(results_dir, progress, progress.follow(command, environment()))


def plan(settings: Settings) -> int:
    """Print the steps that would run, with the reason; leave nothing behind. `NotPrepared` as in `run`."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, results_dir = Path(temporary), settings.results
        configuration, graph = written(settings, folder)
        graph.job_cores = 0  # nothing is submitted
        _check_sources(graph)
        lost = records.lost(results_dir, graph)
        directory = results_dir if results_dir.is_dir() else folder / "none"
        command = [*snakemake_command(graph, directory, configuration, list(lost)), "--dry-run"]
        progress = Progress(folder, folder / "log", io.StringIO())
        if progress.follow(command, environment()):
            raise NotPrepared(f"the plan cannot be made: {_said(progress)}")
    by_record = {graph.record(name): step for name, step in graph.steps().items()}
    steps = [by_record[record] for record in dict.fromkeys(progress.planned)]
    for step in steps:
        print(f"{step.name:48s} {records.reason(results_dir, graph, step, lost)}")
    print(f"{len(steps)} steps to do; results: {results_dir}")
    return 0


def _check_sources(graph: Graph) -> None:
    """Raise `NotPrepared` where a notebook is none."""
    try:
        for step in graph.steps().values():
            graph.sources(step.notebook)
    except (OSError, ValueError) as error:
        raise NotPrepared(str(error)) from error


def _conclude(results_dir: Path, progress: Progress, code: int) -> int:
    """Print what became of the run, last of all the failures or where the report is."""
    took = duration(time.monotonic() - progress.started)
    report = results_dir / "report" / "index.html"
    if code == 0 and report.is_file():
        print(f"finished in {took}" if progress.total else "nothing to do: everything is up to date")
        print(f"report: {report}")
        return 0
    print(f"run_all.sh: the study did not finish ({took}); log: {progress.log}", file=sys.stderr)
    named = set()
    for failure in progress.failures:
        error = "the same" if failure["error"] in named else failure["error"]
        named.add(failure["error"])
        print(f"  {failure['step']}: {error}\n    {failure['notebook']}", file=sys.stderr)
    for name in progress.running:
        print(f"  {name} ended without a word: killed, perhaps for want of memory", file=sys.stderr)
    if not progress.failures and not progress.running:
        print(f"  {_said(progress)}", file=sys.stderr)
    return 1


def _said(progress: Progress) -> str:
    """The last thing that Snakemake gave as an error, in one line; else the last that it said at all."""
    said = progress.errors or [progress.log.read_text("utf-8", "replace")]
    lines = [line.strip() for line in said[-1].splitlines() if line.strip()]
    its_own = progress.errors and not lines[0].startswith("Traceback")
    return " ".join(lines[:2] if its_own else lines[-1:]) or "Snakemake ended without a word"

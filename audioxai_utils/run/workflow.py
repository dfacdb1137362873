"""Running the study: the configuration is written, Snakemake started on it, and its progress told."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from .. import constants
from ..audio import inputs
from . import forkserver, slurm
from .graph import JOBS_PER_GPU, NOTEBOOKS, PARAMETERS, n_gpus
from .progress import Progress, duration, planned_steps
from .manifest import write_json
from .watch import bound

if TYPE_CHECKING:
    from .command_line import Options

# glibc gives large tensors back to the system and gets them zeroed anew at every operation; kept, and on huge
# pages where the kernel has them, a forward pass of the quick model takes about half the time.
MEMORY = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1073741824:glibc.malloc.hugetlb=1"


# Running it


def environment() -> dict[str, str]:
    """Environment of everything that is started: this package found, nothing written to the home, memory kept."""
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
        "PYTHONPATH": str(constants.REPOSITORY),
        "PYTHONHASHSEED": "0",
        "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", MEMORY),
        "AUDIOXAI_RUN_PID": str(os.getpid()),  # what the steps watch: they end with it
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTER_PLATFORM_DIRS": "1",
    }


@contextmanager
def locked(results_dir: Path) -> Iterator[None]:
    """Hold the results folder for this process; the system lets go of it however the process ends.

    On a shared file system it holds for all machines where that system locks across them, as NFS 4 does.

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
        file.write(f"{os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def settings_of(options: Options) -> dict:
    """The run's configuration as the Snakefile, the manifest and the notebooks read it.

    Seed and device are the ones that take effect; ``states`` says what the run reads now, so
    that changed sounds or weights rerun what depends on them. ``slurm_cores``, those of each job, is 0
    where the steps run on this machine.
    """
    names = (*PARAMETERS, "audioset_weights", "protocol", "n_clips", "noise_files")
    settings = {name: getattr(options, name) for name in names}
    noises = inputs.recordings((name for _, name in options.conditions), options.noise_root, options.noise_files)
    weights = options.audioset_weights
    return settings | {
        "seed": options.seed or str(constants.SEED),
        "device": resolved_device(options.device),
        "conditions": [list(condition) for condition in options.conditions],
        "methods": list(options.methods),
        "shards": options.shards,
        "slurm_cores": 0 if options.slurm is None else options.cores,
        "states": {
            "data": inputs.dataset_state(inputs.dataset_folder(options.dataset, options.data_root)),
            "noises": {name: inputs.file_digest(path)[:16] for name, path in noises.items()},
            "audioset_weights": f"md5:{inputs.file_digest(weights, 'md5')}" if weights else "",
            "answers": inputs.csv_state(options.results_dir / "listening"),
            "benchmarks": inputs.csv_state(options.results_dir / "benchmarks"),
        },
    }


def resolved_device(device: str) -> str:
    """``cpu`` or ``cuda``; for ``""`` it is asked of torch, unless there is no GPU to ask about."""
    if device:
        return device
    if not n_gpus() and not any(Path(place).exists() for place in ("/dev/kfd", "/dev/dxg")):  # ROCm, WSL
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def snakemake_command(options: Options, directory: Path, configuration: Path) -> list[str]:
    """Snakemake on this configuration, with its own lock off (ours cannot be left behind)."""
    command = [sys.executable, "-P", "-m", "snakemake", "--snakefile", str(NOTEBOOKS / "Snakefile")]
    command += ["--directory", str(directory), "--configfile", str(configuration)]
    command += ["--keep-going", "--rerun-incomplete", "--nolock", "--scheduler", "greedy", "--nocolor"]
    if options.dry_run:
        return [*command, "--cores", str(options.cores), "--dry-run"]
    if options.slurm is not None:
        return command + slurm.snakemake_options(NOTEBOOKS / "Snakefile", options.slurm, directory, job_logs(directory))
    command += ["--cores", str(options.cores)]
    return command + (["--resources", f"gpu={JOBS_PER_GPU * n_gpus()}"] if n_gpus() else [])


def job_logs(results_dir: Path) -> Path:
    """Folder of what the run's SLURM jobs say."""
    return results_dir / "logs" / "slurm"


def run(options: Options) -> int:
    """Run the study, or say what would run; return the exit code."""
    if options.dry_run:
        return _dry_run(options)
    results_dir = options.results_dir
    results_dir.mkdir(parents=True, exist_ok=True)
    on_slurm = options.slurm is not None
    with locked(results_dir), slurm.jobs_end_with(results_dir) if on_slurm else nullcontext():
        logs = results_dir / "logs"
        for folder in (logs / "failed", job_logs(results_dir)):
            shutil.rmtree(folder, ignore_errors=True)
        logs.mkdir(exist_ok=True)
        configuration = results_dir / "config.json"
        write_json(configuration, settings_of(options))
        n_methods, n_conditions = len(options.methods), len(options.conditions)
        where = f"SLURM jobs of {options.cores} cores" if on_slurm else f"{options.cores} cores"
        print(f"{options.profile} study on {options.dataset} sounds: {n_conditions} conditions x {n_methods} methods, "
              f"{where}\nresults: {results_dir}", flush=True)
        progress = Progress(logs / time.strftime("run-%Y%m%d-%H%M%S.log"))
        command = bound(snakemake_command(options, results_dir, configuration))
        server = nullcontext("") if on_slurm else forkserver.started(environment(), logs / "forkserver.log")
        with server as address:
            variables = environment() | {forkserver.ADDRESS: address}
            code = progress.follow(command, variables, job_logs(results_dir) if on_slurm else None)
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
    told = set()
    for failure in failures:
        error = "the same" if failure["error"] in told else failure["error"]
        told.add(failure["error"])
        print(f"  {failure['step']}: {error}\n    {failure['notebook']}", file=sys.stderr)
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

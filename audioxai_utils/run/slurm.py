"""A run whose steps are SLURM jobs: how Snakemake is asked for them, and that none outlives the run.

The results folder, the repository and its environment must lie on a file system that all nodes
share, under the same paths.
"""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..study.settings import Settings

PROFILE = "slurm"  # folder beside the Snakefile, with the options of Snakemake that a run starts from
CORES = 4  # of each job, unless --cores says otherwise
LOGS = Path("logs", "slurm")  # folder, in that of the results, of what the jobs say
PROGRAMS = ("sbatch", "squeue", "scancel")
PATIENCE = 60.0  # seconds for cancelled jobs to end


def check(profile: str) -> None:
    """Raise a ValueError where SLURM's programs are missing, or ``profile`` is no profile of Snakemake."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        raise ValueError(
            f"--slurm needs SLURM's {', '.join(missing)}, and found none; run it where jobs are submitted"
        )
    if profile and not (Path(profile).is_dir() and any(Path(profile).glob("config*.yaml"))):
        raise ValueError(f"--slurm must be a folder with Snakemake's config.yaml; {profile} is none")


def job_cores(settings: Settings) -> int:
    """Cores of each job; 0 for a run whose steps are no jobs."""
    return 0 if settings.slurm is None else settings.cores or CORES


def job_prefix(results_dir: Path) -> str:
    """What the names of all jobs of a results folder begin with."""
    return f"audioxai-{hashlib.sha256(str(results_dir).encode()).hexdigest()[:12]}"


def snakemake_options(snakefile: Path, profile: str, results_dir: Path) -> list[str]:
    """Options that make Snakemake submit jobs; the user's ``profile`` goes before the repository's."""
    options = ["--executor", "slurm", "--profile", str(snakefile.parent / PROFILE)]
    options += ["--workflow-profile", profile or "none"]
    options += ["--slurm-jobname-prefix", job_prefix(results_dir)]
    return [*options, "--slurm-logdir", str(results_dir / LOGS)]


def jobs(prefix: str) -> list[str]:
    """Ids of this user's jobs that wait, run or are about to end, whose names begin with ``prefix``.

    Raises
    ------
    RuntimeError
        SLURM does not answer; one line.
    """
    command = ["squeue", "--me", "--noheader", "--format=%i %j"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        said = " ".join((getattr(error, "stderr", None) or str(error)).split())
        raise RuntimeError(f"squeue does not say which jobs there are ({said})") from error
    named = [line.split(maxsplit=1) for line in done.stdout.splitlines() if line.strip()]
    return [number for number, name in named if name.startswith(prefix)]


def cancel(prefix: str) -> list[str]:
    """Cancel the jobs of ``prefix`` and wait until they have ended.

    Returns
    -------
    list of str
        Their ids; empty where there were none.

    Raises
    ------
    RuntimeError
        They do not end, or SLURM does not answer; one line.
    """
    found = jobs(prefix)
    if not found:
        return []
    subprocess.run(["scancel", *found], capture_output=True, timeout=PATIENCE, check=False)
    end = time.monotonic() + PATIENCE
    while left := jobs(prefix):
        if time.monotonic() > end:
            raise RuntimeError(f"SLURM jobs {', '.join(left)} do not end; see squeue and scancel")
        time.sleep(0.5)
    return found


@contextmanager
def jobs_end_with(results_dir: Path) -> Iterator[None]:
    """No job of ``results_dir`` runs before the block, and none after it.

    Jobs that a killed run has left behind are cancelled first. SIGTERM and SIGHUP leave the block
    like Ctrl-C does; SIGKILL cannot, which is why the next run looks.

    Raises
    ------
    BlockingIOError
        Jobs of an earlier run do not end, or SLURM does not answer.
    """
    prefix = job_prefix(results_dir)
    try:
        left = cancel(prefix)
    except RuntimeError as error:
        raise BlockingIOError(f"an earlier run on {results_dir} may still work on it: {error}") from error
    if left:
        print(f"cancelled what an earlier run had left behind: SLURM jobs {', '.join(left)}", flush=True)
    signals, as_ctrl_c = (signal.SIGTERM, signal.SIGHUP), signal.default_int_handler
    before = {number: signal.signal(number, as_ctrl_c) for number in signals}
    try:
        yield
    finally:
        try:
            cancel(prefix)
        except RuntimeError as error:
            print(f"run_all.sh: {error}", file=sys.stderr)
        for number, handler in before.items():
            signal.signal(number, handler)

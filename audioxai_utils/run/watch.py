"""Nothing outlives the run: a process that ends when the one that started it has ended, whichever way."""

from __future__ import annotations

import os
import sys
import threading
import time

import psutil

RUN_PID = "AUDIOXAI_RUN_PID"  # environment variable with the process id of the run
SLURM_STEP = "slurmstepd"  # name of the process under which SLURM runs a job
LOOK = 0.2  # seconds between two looks at the ancestors


def watch_run() -> None:
    """End this process at once when one of its ancestors ends, up to the run itself.

    A shell stands between Snakemake and a step, so that the parent alone tells nothing. In a SLURM job, whose
    run may be on another machine, the last ancestor is SLURM's own process of the job; where neither is among
    them, only the parent is watched.
    """
    run_pid, watched = os.environ.get(RUN_PID, ""), []
    try:
        ancestors = psutil.Process().parents()
        for ancestor in ancestors:
            watched.append(ancestor)
            if str(ancestor.pid) == run_pid or ancestor.name() == SLURM_STEP:
                break
        else:
            watched = ancestors[:1]
    except psutil.NoSuchProcess:  # one has ended already
        os._exit(1)

    def end_with_them() -> None:
        while all(map(_lives, watched)):
            time.sleep(LOOK)
        os._exit(1)

    threading.Thread(target=end_with_them, name="ancestors", daemon=True).start()


def _lives(process: psutil.Process) -> bool:
    """Whether it runs, and neither has its id become another's nor does it wait to be collected."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# prctl(PR_SET_PDEATHSIG, SIGKILL), then the command; setpriv, which does the same, is not on every system
_BOUND = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execvp(sys.argv[1], sys.argv[1:])"


def bound(command: list[str]) -> list[str]:
    """The command that runs ``command`` so that the system ends it when this process ends (Linux)."""
    return [sys.executable, "-I", "-S", "-c", _BOUND, *command]

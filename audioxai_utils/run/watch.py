"""Nothing outlives the run: a process that ends when the one that started it has ended, whichever way."""

from __future__ import annotations

import os
import select
import sys
import threading
from pathlib import Path

SLURM_STEP = "slurmstepd"  # name of the process under which SLURM runs a job


def watch_ancestors(until: int | None = None) -> None:
    """End this process at once when one of its ancestors ends.

    A shell stands between Snakemake and this process, so that the parent alone tells
    nothing. The kernel is bound to this process by `bound`.

    Parameters
    ----------
    until : int, optional
        Process id of the last ancestor to watch, the run itself; where it is none of the
        ancestors (or not given), only the parent is watched. In a SLURM job, whose run may be
        on another machine, the last one is SLURM's own process of the job.
    """
    ancestors, pid, last = [], os.getppid(), False
    while pid > 1 and not last:
        ancestors.append(pid)
        last = pid == until or program_of(pid) == SLURM_STEP
        pid = parent_of(pid)
    if not last:
        ancestors = ancestors[:1]
    try:
        handles = [os.pidfd_open(pid) for pid in ancestors]
    except ProcessLookupError:  # one has ended already
        os._exit(1)

    def wait() -> None:
        poll = select.poll()  # a process's handle becomes readable when it ends
        for handle in handles:
            poll.register(handle, select.POLLIN)
        poll.poll()
        os._exit(1)

    threading.Thread(target=wait, name="ancestors", daemon=True).start()


def parent_of(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[1])  # the name in brackets may hold anything


def program_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def watch_run() -> None:
    """End this step at once when its run ends: `watch_ancestors` up to the run or the SLURM job."""
    run_pid = os.environ.get("AUDIOXAI_RUN_PID", "")
    watch_ancestors(int(run_pid) if run_pid.isdigit() else None)


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

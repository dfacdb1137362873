"""Nothing outlives the run: a process that ends when the one that started it has ended, whichever way."""

from __future__ import annotations

import functools
import os
import select
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

RUN_PID = "AUDIOXAI_RUN_PID"  # environment variable with the process id of the run
SLURM_STEP = "slurmstepd"  # name of the process under which SLURM runs a job
LOOK = 0.2  # seconds between two looks where the system does not say when a process ends


def watch_run() -> None:
    """End this process at once when one of its ancestors ends, up to the run itself.

    A shell stands between Snakemake and a step, so that the parent alone tells nothing. In a SLURM job, whose
    run may be on another machine, the last ancestor is SLURM's own process of the job; where neither is among
    them, only the parent is watched.
    """
    run_pid, ancestors, pid, last = os.environ.get(RUN_PID, ""), [], os.getppid(), False
    while pid > 1 and not last:
        ancestors.append(pid)
        last = str(pid) == run_pid or program_of(pid) == SLURM_STEP
        pid = parent_of(pid)
    if not last:
        ancestors = ancestors[:1]
    try:
        wait = _by_handles([os.pidfd_open(pid) for pid in ancestors])
    except ProcessLookupError:  # one has ended already
        os._exit(1)
    except (AttributeError, OSError):  # a Python, a kernel or a container without process handles
        wait = _by_looking({pid: _about(pid) for pid in ancestors})

    def end_with_them() -> None:
        wait()
        os._exit(1)

    threading.Thread(target=end_with_them, name="ancestors", daemon=True).start()


def _by_handles(handles: list[int]) -> Callable[[], object]:
    """Waits until a process's handle becomes readable, which is when it ends."""
    poll = select.poll()
    for handle in handles:
        poll.register(handle, select.POLLIN)
    return poll.poll


def _by_looking(processes: dict[int, list[str]]) -> Callable[[], object]:
    """Waits until a process has ended: it is gone, or its id is another's, which started at another time."""

    def wait() -> None:
        while all(about and _about(pid) == about for pid, about in processes.items()):
            time.sleep(LOOK)

    return wait


def _about(pid: int) -> list[str]:
    """Time of start of a process (in a list); empty where there is none, or one that has ended."""
    try:
        words = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
    except OSError:
        return []
    return [words[19]] if words[0] not in "ZX" else []


def parent_of(pid: int) -> int:
    """Process id of the parent; 0 where there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[1])  # the name in brackets may hold anything


def program_of(pid: int) -> str:
    """Name of a process's program; empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


# Where util-linux is missing or old: prctl(PR_SET_PDEATHSIG, SIGKILL), then the command.
_BOUND = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execvp(sys.argv[1], sys.argv[1:])"


@functools.cache
def _prefix() -> tuple[str, ...]:
    """What binds the command that follows it to this process."""
    found = (shutil.which("setpriv") or "", "--pdeathsig", "KILL", "--")
    works = found[0] and subprocess.run([*found, "true"], capture_output=True, check=False).returncode == 0
    return found if works else (sys.executable, "-I", "-S", "-c", _BOUND)


def bound(command: list[str]) -> list[str]:
    """The command that runs ``command`` so that the system ends it when this process ends (Linux)."""
    return [*_prefix(), *command]

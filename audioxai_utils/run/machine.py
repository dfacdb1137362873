"""What this machine, or the container or job that lends a part of it, lets a process use."""

from __future__ import annotations

import fcntl
import os
import re
import resource
from collections.abc import Iterator
from itertools import product
from pathlib import Path, PurePosixPath

import psutil

CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")
DEVICES = Path("/dev")


def cores() -> int:
    """Processor cores: those that the process may run on, or fewer by the quota of a control group."""
    quotas = [quota / period for quota, period in _quotas() if period]
    return max(1, int(min([len(os.sched_getaffinity(0)), *quotas])))


def memory() -> int:
    """Bytes of memory: what the system has left, or fewer by the limit of a control group."""
    limits = [
        int(text)
        for folder in _groups("memory")
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes")
        if (text := _text(folder / name)).isdigit()
    ]
    return min([psutil.virtual_memory().available, *limits])


def peak_memory() -> int:
    """Bytes of the largest memory that this program has held so far.

    Not ``ru_maxrss`` where Linux says better: that counts what the process held before it became this
    program, which is a copy of whatever started it.
    """
    mark = re.search(r"^VmHWM:\s*(\d+) kB$", _text(PROC / "self" / "status"), re.MULTILINE)
    return int(mark[1]) * 1024 if mark else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _quotas() -> Iterator[tuple[int, int]]:
    """(microseconds of processor time, in so many microseconds) of each control group that has a quota."""
    for folder in _groups("cpu"):
        words = _text(folder / "cpu.max").split()
        words = words or [_text(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
        if all(word.isdigit() for word in words):  # not "max", -1 or ""
            yield int(words[0]), int(words[1])


def _groups(controller: str) -> Iterator[Path]:
    """Folders of the control groups of this process and of those around them, by version 2 and version 1.

    A container may see its own group as the root, under a path that only its host knows.
    """
    for line in _text(PROC / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        roots = (controllers, controller) if controllers else ("", "unified")
        inner = PurePosixPath(path.lstrip("/"))
        if not controllers or controller in controllers.split(","):
            for root, group in product(roots, (inner, *inner.parents)):
                yield CGROUPS / root / group


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def gpus() -> list[str]:
    """Names of the NVIDIA devices that may be used, without asking torch (which takes seconds)."""
    found = [str(i) for i, _ in enumerate(DEVICES.glob("nvidia[0-9]*"))]
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None or not found:
        return found
    names = [name.strip() for name in chosen.split(",")]
    return [name for name in names if name and not name.startswith("-")]


def take_gpu(folder: Path, n_each: int) -> None:
    """Let this process, and what it starts, see one of several GPUs, which no more than ``n_each`` take.

    It is the one that the fewest of those hold that share ``folder``; the system gives it back when the
    process ends, however it ends.
    """
    names = gpus()
    if len(names) < 2:
        return
    chosen = names[os.getpid() % len(names)]  # where all are taken, or no file can be locked
    for place, number in product(range(n_each), range(len(names))):
        file = os.open(folder / f".gpu-{number}-{place}", os.O_RDWR | os.O_CREAT)  # closed by the system
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            continue
        chosen = names[number]
        break
    os.environ["CUDA_VISIBLE_DEVICES"] = chosen

"""One step of the study, in a process that ends with its run, tells how far it is, and leaves a record."""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from ..study.settings import FILE
from . import machine
from .graph import JOBS_PER_GPU, Graph, Step
from .progress import duration, tell
from .records import write_step
from .watch import watch_run

ANSI = re.compile(r"\x1b\[[0-9;]*m")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


class StepFailed(RuntimeError):
    """What stopped a step, in one line, and the exit ``code`` of its process."""

    def __init__(self, reason: str, code: int = 1):
        super().__init__(reason)
        self.code = code


def run_step(
    step: Step, work: Callable[[Graph | None], None], output: str, threads: int, **facts: Any
) -> int:
    """Do the ``work`` of a step in the current folder, the results'; return the exit code.

    The process ends with its run. It prints one line when it starts and one when it ends. A step that ended
    well is recorded in ``steps/``.

    Parameters
    ----------
    step : Step
    work : callable
        Is given the graph of the run; None where none was started in this folder.
    output : str
        What a reader looks into where the step has failed.
    threads : int
        Threads that it may use.
    **facts
        More for its record, as `write_step` takes them.
    """
    results_dir, started = Path.cwd(), time.time()
    watch_run()
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    graph = graph_of(results_dir)

    def recorded() -> None:
        take_gpu(step, graph, results_dir)
        work(graph)
        depends_on = graph.depends_on(step) if graph else None
        write_step(
            results_dir, step, started=started, threads=threads, depends_on=depends_on, **used(), **facts
        )

    return reported(step.name, output, recorded)


def reported(step: str, output: str, work: Callable[[], None]) -> int:
    """Do the ``work`` of a step, which leaves ``output``, between two lines; return the exit code."""
    started = time.monotonic()
    say(step, "started", "started")
    try:
        work()
    except Exception as error:  # whatever stops a step is told in one line; the log has the whole
        failed = isinstance(error, StepFailed)
        reason = str(error) if failed else one_line(type(error).__name__, str(error))
        if not failed:
            sys.excepthook(type(error), error, error.__traceback__)
        took = duration(time.monotonic() - started)
        say(step, "failed", f"FAILED after {took}: {reason}", error=reason, notebook=output)
        return error.code if failed else 1
    say(step, "done", f"done in {duration(time.monotonic() - started)}")
    return 0


def one_line(name: str, message: str, limit: int = 300) -> str:
    """``Name: message`` on one line, without terminal colours."""
    text = " ".join(ANSI.sub("", message).split())
    return f"{name}: {text}"[:limit] if text else name


def say(step: str, what: str, text: str, **more: str) -> None:
    """Tell the run, and whoever reads what this process prints, what becomes of a step (as `tell`)."""
    with suppress(OSError):
        print(f"[{step}] {text}", flush=True)
    tell(step, what, text=text, **more)


class Details:
    """Takes what a step's work writes to stderr; lines ``what: n/N`` go on to the run's heartbeat.

    All of it also goes to ``log``, where there is one.
    """

    def __init__(self, label: str, log: TextIO | None = None):
        self.label, self.log = label, log

    def write(self, text: str) -> None:
        """Tell the last line that says how far the work is."""
        if self.log is not None:
            self.log.write(text)
        lines = [line.strip() for line in text.splitlines()]
        found = [line for line in lines if re.fullmatch(r".{1,100}: \d+/\d+", line)]
        if found:
            say(self.label, "at", f"at {found[-1]}")

    def flush(self) -> None:
        """Nothing is kept back."""


def graph_of(results_dir: Path) -> Graph | None:
    """The graph of the run in a folder; None where none was started."""
    path = results_dir / FILE
    if not path.is_file():
        return None
    return Graph(json.loads(path.read_text(encoding="utf-8")) | {"results_dir": str(results_dir)})


def take_gpu(step: Step, graph: Graph | None, results_dir: Path) -> None:
    """Spread the steps of a run that ask for a GPU over those that there are."""
    if graph and graph.settings.device != "cpu" and graph.wants_gpu(step.notebook):
        machine.take_gpu(results_dir / "logs", JOBS_PER_GPU)


def used() -> dict[str, float]:
    """Processor seconds of this process and of those it started that have ended; largest memory of one."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu_seconds = sum(usage.ru_utime + usage.ru_stime for usage in (own, children))
    return {"cpu_seconds": cpu_seconds, "peak_memory": max(machine.peak_memory(), children.ru_maxrss * 1024)}

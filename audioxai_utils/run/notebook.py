"""Run one notebook as one step of the study: checked, bound to its parent, recorded.

``python -m audioxai_utils.run.notebook NOTEBOOK OUTPUT [--threads N] [-p NAME VALUE]...`` executes a
notebook into OUTPUT with the current folder as ``results_dir``; ``--report`` writes the
manifest and builds the report.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from .. import constants
from . import forkserver
from .forkserver import THREAD_VARIABLES
from .graph import CONDITION_PARAMETERS, study_of
from ..audio.inputs import file_digest, scenario_name
from .progress import duration
from .manifest import build_manifest, write_json, write_step
from ..study.sources import parameter_defaults
from .watch import bound, watch_run

ANSI = re.compile(r"\x1b\[[0-9;]*m")
LAUNCHER = "ipykernel_launcher"  # the module that the kernels of Python run
KERNEL_DIED = 138  # exit code, also papermill's own


class NotebookFailed(RuntimeError):
    """A cell raised an error, or the kernel died; the message is one line."""


# Nothing outlives the run


def bound_kernel_manager() -> type:
    """The class of kernel managers whose kernel is quiet, ends with this process, and may be waiting already."""
    from jupyter_client.manager import AsyncKernelManager

    class BoundKernelManager(AsyncKernelManager):
        def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
            return bound([*super().format_kernel_cmd(extra_arguments), "--Application.log_level=ERROR"])

        async def _async_launch_kernel(self, kernel_cmd: list[str], **kw) -> None:
            waiting = forkserver.take_kernel() if LAUNCHER in kernel_cmd else None
            try:
                if waiting is not None:
                    arguments = kernel_cmd[kernel_cmd.index(LAUNCHER) + 1 :]
                    waiting.start(arguments, kw["env"], kw.get("cwd") or os.getcwd())
            except BrokenPipeError:  # it has died while it waited
                waiting = None
            if waiting is None:
                return await super()._async_launch_kernel(kernel_cmd, **kw)
            provisioner = self.provisioner
            provisioner.process, provisioner.pid, provisioner.pgid = waiting, waiting.pid, waiting.pid
            self._reconcile_connection_info(provisioner.connection_info)

    return BoundKernelManager


# One notebook


def checked_parameters(notebook: Path, parameters: dict[str, str]) -> dict[str, str | int | float]:
    """The parameters in the types of the notebook's own defaults.

    Names are compared with the notebook's parameters cell, because papermill lets a misspelt
    one pass, and lets parameters of a notebook without that cell have no effect.

    Raises
    ------
    ValueError
        If the notebook has no cell tagged ``parameters``, that cell lacks one of the names,
        or a value is not of its type.
    FileNotFoundError
        If there is no such notebook.
    """
    if not notebook.is_file():
        raise FileNotFoundError(f"no notebook {notebook}")
    defaults = parameter_defaults(notebook)
    if not defaults:
        raise ValueError(f"{notebook.name} must have a cell tagged 'parameters' that assigns them; it has none")
    unknown = sorted(set(parameters) - set(defaults))
    if unknown:
        known = ", ".join(sorted(defaults))
        raise ValueError(f"{notebook.name} has no parameter {', '.join(unknown)}; it has {known}")
    return {name: _typed(name, text, defaults[name]) for name, text in parameters.items()}


def _typed(name: str, text: str, default: object) -> str | int | float:
    kind = type(default)
    if kind not in (int, float):
        return text
    try:
        return kind(text)
    except ValueError as error:
        raise ValueError(f"parameter {name} must be of type {kind.__name__}, as its default is; got {text!r}") from error


def execute(notebook: Path, output: Path, parameters: dict, stderr: Details | None = None) -> None:
    """Execute a notebook; ``output`` appears when it has ended, well or not.

    What its cells write to stderr also goes to ``stderr``.

    Raises
    ------
    NotebookFailed
        With one line naming the cell and its error, or saying that the kernel died. The
        executed notebook is written all the same, with the error in it.
    """
    forkserver.skip_slow_import()
    import papermill
    from nbclient.exceptions import DeadKernelError

    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.stem}-partial.ipynb")
    problem = None
    work = functools.partial(
        papermill.execute_notebook, notebook, partial, parameters, kernel_name="python3", progress_bar=False,
        stderr_file=stderr, cwd=constants.REPOSITORY, kernel_manager_class=bound_kernel_manager(),
        shutdown_kernel="immediate",  # all is on file by then; a kernel takes half a second to tidy up
    )
    try:
        _with_a_kernel(work)
    except papermill.PapermillExecutionError as error:
        problem = f"cell [{error.exec_count}]: {one_line(error.ename, error.evalue)}"
        os.replace(partial, output)
        raise NotebookFailed(problem) from error
    except DeadKernelError as error:
        problem = "the kernel died (killed, or out of memory)"
        _mark_dead(partial, problem)
        os.replace(partial, output)
        raise NotebookFailed(problem) from error
    os.replace(partial, output)


def _with_a_kernel(work: Callable[[], object]) -> None:
    """Do ``work``, and once more where its kernel did not start: two that start at once may draw one port."""
    try:
        work()
    except RuntimeError as error:
        if "died before replying" not in str(error):
            raise
        work()


def one_line(name: str, message: str, limit: int = 300) -> str:
    """``Name: message`` on one line, without terminal colours."""
    text = " ".join(ANSI.sub("", message).split())
    return f"{name}: {text}"[:limit] if text else name


def _mark_dead(path: Path, problem: str) -> None:
    """Say in the notebook that its kernel died; papermill leaves it looking completed."""
    import nbformat

    executed = nbformat.read(path, as_version=4)
    executed.cells.insert(0, nbformat.v4.new_markdown_cell(f"**This notebook did not finish: {problem}.**"))
    executed.metadata.setdefault("papermill", {})["exception"] = True
    nbformat.write(executed, path)


def processor_time() -> float:
    """Seconds of processor time of this process and of those that it started and that have ended.

    A fork of `forkserver` has not spent what importing the libraries took.
    """
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def peak_memory(who: int = resource.RUSAGE_CHILDREN) -> int:
    """Largest resident memory (bytes) of a process that this one started and that has ended, or of this one.

    A fork of `forkserver` counts of the libraries what it has touched.
    """
    return resource.getrusage(who).ru_maxrss * 1024


def run_notebook(notebook: Path, output: Path, parameters: dict[str, str], threads: int | None = None) -> int:
    """Execute a notebook as a step of the study in the current folder; return the exit code.

    Prints one line when it starts and one when it ends. A step that ended well is recorded
    in ``steps/``, one that failed in ``logs/failed/``.
    """
    results_dir, step = Path.cwd(), output.stem
    parameters = {"results_dir": str(results_dir)} | parameters
    names = {name: scenario_name(parameters[name]) for name in CONDITION_PARAMETERS if name in parameters}
    label = " ".join([notebook.stem, *names.values()])
    failure = results_dir / "logs" / "failed" / f"{step}.json"

    def work() -> None:
        given = checked_parameters(notebook, parameters)
        execute(notebook, output, given, Details(label))

    started = time.monotonic()
    code = told(label, work, lambda error: {"step": step, "notebook": str(output), "error": error}, failure)
    if code == 0:
        effective = parameter_defaults(notebook) | checked_parameters(notebook, parameters)
        weights = effective.get("audioset_weights")
        write_step(
            results_dir, step, seconds=time.monotonic() - started, peak_memory=peak_memory(), threads=threads,
            parameters=effective, notebook=os.path.relpath(output, results_dir), cpu_seconds=processor_time(),
            inputs_read={"audioset_weights": f"md5:{file_digest(weights, 'md5')}"} if weights else None,
        )
    return code


class Details:
    """Takes what a notebook's cells write to stderr; lines ``what: n/N`` go on to the terminal's heartbeat.

    They are printed as ``[label] at what: n/N``, which `audioxai_utils.run.progress` keeps for later. All of
    it also goes to ``log``, where there is one.
    """

    def __init__(self, label: str, log: TextIO | None = None):
        self.label, self.log = label, log

    def write(self, text: str) -> None:
        if self.log is not None:
            self.log.write(text)
        lines = [line.strip() for line in text.splitlines()]
        found = [line for line in lines if re.fullmatch(r".{1,100}: \d+/\d+", line)]
        if found:
            print(f"[{self.label}] at {found[-1]}", flush=True)

    def flush(self) -> None:
        """Nothing is kept back."""


def told(label: str, work: Callable[[], None], record: Callable[[str], dict], failure: Path) -> int:
    """Do ``work`` between two lines on standard output; a failure is recorded, 0 is the code of success.

    ``record`` makes of a one-line reason what is written to ``failure``.
    """
    started = time.monotonic()
    print(f"[{label}] started", flush=True)
    try:
        work()
    except Exception as error:  # whatever stops a step is told in one line; the log has the whole
        reason = str(error) if isinstance(error, NotebookFailed) else one_line(type(error).__name__, str(error))
        if not isinstance(error, NotebookFailed):
            sys.excepthook(type(error), error, error.__traceback__)
        failure.parent.mkdir(parents=True, exist_ok=True)
        write_json(failure, record(reason))
        print(f"[{label}] FAILED after {duration(time.monotonic() - started)}: {reason}", flush=True)
        return KERNEL_DIED if reason.startswith("the kernel died") else 1
    failure.unlink(missing_ok=True)
    print(f"[{label}] done in {duration(time.monotonic() - started)}", flush=True)
    return 0


# The report


def run_report(threads: int | None = None) -> int:
    """Manifest and report of the results in the current folder; return the exit code."""
    results_dir = Path.cwd()
    failure = results_dir / "logs" / "failed" / "report.json"

    def work() -> None:
        forkserver.skip_slow_import()
        from ..gallery import report

        study = study_of(results_dir)
        build_manifest(results_dir, study.steps() if study else None)
        report.build(results_dir)

    started = time.monotonic()
    log = str(results_dir / "logs" / "report.log")
    code = told("report", work, lambda error: {"step": "report", "notebook": log, "error": error}, failure)
    if code == 0:
        write_step(
            results_dir, "report", seconds=time.monotonic() - started, peak_memory=peak_memory(resource.RUSAGE_SELF),
            threads=threads, cpu_seconds=processor_time(),
        )
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of one step."""
    parser = argparse.ArgumentParser(prog="audioxai_utils.run.notebook", description=__doc__, allow_abbrev=False)
    parser.add_argument("notebook", nargs="?", type=Path)
    parser.add_argument("output", nargs="?", type=Path)
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="parameters")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report", type=int, metavar="THREADS")
    given = parser.parse_args(arguments)
    watch_run()
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(given.report or given.threads)))
    if given.report is not None:
        return run_report(given.report)
    if given.notebook is None or given.output is None:
        parser.error("needs a notebook and where to write the executed one")
    return run_notebook(given.notebook.resolve(), given.output.resolve(), dict(given.parameters), given.threads)


if __name__ == "__main__":
    code = forkserver.run("audioxai_utils.run.notebook", sys.argv[1:])
    sys.exit(main() if code is None else code)

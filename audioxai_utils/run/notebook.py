"""Run one notebook as one step of the study: checked, bound to its parent, recorded.

``python -m audioxai_utils.run.notebook NOTEBOOK OUTPUT [--threads N] [-p NAME VALUE]...`` executes a notebook
into OUTPUT with the current folder as ``results_dir``; before that of the report the manifest is written, and
after it the pages of the report are made.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from .. import constants
from ..files import PARTIAL, to_disk
from ..gallery.summaries import lift_summary
from ..study.sources import parameter_defaults
from .graph import CONDITION, REPORT, Graph, Step
from .manifest import build_manifest
from .records import read_steps
from .step import Details, StepFailed, one_line, run_step
from .watch import bound

KERNEL_DIED = 138  # exit code, also papermill's own

# Executing


def bound_kernel_manager() -> type:
    """The class of kernel managers whose kernel is quiet, and ends with this process."""
    from jupyter_client.manager import AsyncKernelManager

    class BoundKernelManager(AsyncKernelManager):
        def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
            return bound([*super().format_kernel_cmd(extra_arguments), "--Application.log_level=ERROR"])

    return BoundKernelManager


def check_parameters(notebook: Path, parameters: dict[str, str]) -> None:
    """Compare names with the notebook's own: papermill lets a misspelt one pass.

    Raises
    ------
    ValueError
        If the notebook has no cell tagged ``parameters``, or that cell lacks one of the names.
    FileNotFoundError
        If there is no such notebook.
    """
    if not notebook.is_file():
        raise FileNotFoundError(f"no notebook {notebook}")
    defaults = parameter_defaults(notebook)
    if not defaults:
        raise ValueError(
            f"{notebook.name} must have a cell tagged 'parameters' that assigns them; it has none"
        )
    unknown = sorted(set(parameters) - set(defaults))
    if unknown:
        known = ", ".join(sorted(defaults))
        raise ValueError(f"{notebook.name} has no parameter {', '.join(unknown)}; it has {known}")


def execute(notebook: Path, output: Path, parameters: dict[str, str], stderr: Details | None = None) -> None:
    """Execute a notebook; ``output`` appears when it has ended, well or not.

    What its cells write to stderr also goes to ``stderr``; what its summary shows is put under its title.

    Raises
    ------
    StepFailed
        With one line naming the cell and its error, or saying that the kernel died. The
        executed notebook is written all the same, with the error in it.
    """
    # JupyterLab brings a package with which jsonschema builds a grammar of web addresses at import, for two
    # seconds and a check that no notebook needs.
    sys.modules.setdefault("rfc3987_syntax", None)
    import papermill
    from nbclient.exceptions import DeadKernelError

    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f"{PARTIAL}-{output.name}")
    work = functools.partial(
        papermill.execute_notebook,
        *(
            str(path).replace("{", "{{").replace("}", "}}") for path in (notebook, partial)
        ),  # not to be filled in
        parameters,
        kernel_name="python3",
        progress_bar=False,
        stderr_file=stderr,
        cwd=constants.REPOSITORY,
        kernel_manager_class=bound_kernel_manager(),
        shutdown_kernel="immediate",  # all is on file by then; a kernel takes half a second to tidy up
    )
    try:
        _with_a_kernel(work)
        edit(partial, lift_summary)
    except papermill.PapermillExecutionError as error:
        raise StepFailed(f"cell [{error.exec_count}]: {one_line(error.ename, error.evalue)}") from error
    except DeadKernelError as error:
        problem = "the kernel died (killed, or out of memory)"
        edit(partial, functools.partial(mark_dead, problem=problem))
        raise StepFailed(problem, KERNEL_DIED) from error
    finally:
        if partial.is_file():
            to_disk(partial)
            os.replace(partial, output)


def _with_a_kernel(work: Callable[[], object]) -> None:
    """Do ``work``, and once more where its kernel did not start: two that start at once may draw one port.

    nbclient says so by a plain RuntimeError, and by subclasses of it what happens later.
    """
    try:
        work()
    except RuntimeError as error:
        if type(error) is not RuntimeError:
            raise
        work()


# The executed notebook


def edit(path: Path, change: Callable) -> None:
    """Change a notebook's content in its file."""
    import nbformat

    content = nbformat.read(path, as_version=4)
    change(content)
    nbformat.write(content, path)


def mark_dead(content, problem: str) -> None:
    """Say in the notebook that its kernel died; papermill leaves it looking completed."""
    import nbformat

    content.cells.insert(0, nbformat.v4.new_markdown_cell(f"**This notebook did not finish: {problem}.**"))
    content.metadata.setdefault("papermill", {})["exception"] = True


# The step


def run_notebook(notebook: Path, output: Path, parameters: dict[str, str], threads: int = 1) -> int:
    """Execute a notebook as a step of the study in the current folder; return the exit code (`run_step`)."""
    results_dir = Path.cwd()
    parameters = {"results_dir": str(results_dir)} | parameters
    step = Step(notebook.stem, *(parameters.get(name, "") for name in CONDITION))

    def work(graph: Graph | None) -> None:
        check_parameters(notebook, parameters)
        if graph and notebook.stem == REPORT:
            build_manifest(results_dir, graph.settings, read_steps(results_dir, graph.steps()))
        execute(notebook, output, parameters, Details(step.name))
        if notebook.stem == REPORT:
            from ..gallery.report import build

            build(results_dir)

    executed = os.path.relpath(output, results_dir)
    return run_step(step, work, str(output), threads, parameters=parameters, notebook=executed)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of one step."""
    parser = argparse.ArgumentParser(
        prog="audioxai_utils.run.notebook", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("notebook", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="parameters"
    )
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    notebook, output = given.notebook.resolve(), given.output.resolve()
    return run_notebook(notebook, output, dict(given.parameters), given.threads)


if __name__ == "__main__":
    sys.exit(main())

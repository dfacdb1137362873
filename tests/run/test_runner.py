"""One notebook as a step: checked names, readable failures, nothing left running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
import pytest
import toy_study

from audioxai_utils.run import notebook, step, watch

PARAMETERS = (*toy_study.COMMON, *toy_study.CONDITION)


def run_step(folder: Path, *sources: str, words: tuple[str, ...] = (), tagged: bool = True):
    """Run a notebook of these cells as a step in ``folder``; (process, executed notebook, record)."""
    toy_study.write_notebook(folder / "03_toy.ipynb", PARAMETERS, *sources, tagged=tagged)
    line = [
        sys.executable,
        "-P",
        "-m",
        "audioxai_utils.run.notebook",
        str(folder / "03_toy.ipynb"),
        "notebooks/03_toy-x.ipynb",
    ]
    line += ["--threads", "1", "-p", "spectrogram_type", "mel_db", *words]
    (folder / "events").mkdir(exist_ok=True)
    env = os.environ | {"PYTHONPATH": str(toy_study.REPOSITORY), "AUDIOXAI_EVENTS": str(folder / "events")}
    done = subprocess.run(line, env=env, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    return done, folder / "notebooks" / "03_toy-x.ipynb", folder / "steps" / "03_toy-mel_db.json"


def events(folder: Path) -> list[dict]:
    lines = (folder / "events/03_toy-mel_db.jsonl").read_text().split("\n")
    return [json.loads(line) for line in lines if line]


def test_a_step_is_executed_with_its_parameters_and_recorded(tmp_path):
    told = "import os\nfrom pathlib import Path\nfrom audioxai_utils import constants\n"
    told += "Path(results_dir, 'seen').write_text(f'{spectrogram_type} {os.environ[\"OMP_NUM_THREADS\"]} {os.getcwd()}')\n"
    told += "held = b'x' * 300_000_000"
    done, executed, record = run_step(tmp_path, told)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "seen").read_text() == f"mel_db 1 {toy_study.REPOSITORY}"
    start, end = done.stdout.splitlines()
    assert start == "[03_toy-mel_db] started" and end.startswith("[03_toy-mel_db] done in ")
    assert [event["is"] for event in events(tmp_path)] == ["started", "done"]
    assert "WARNING" not in done.stderr and "TCP" not in done.stderr
    cells = nbformat.read(executed, as_version=4).cells
    assert [cell.execution_count for cell in cells] == [1, 2, 3] and 'spectrogram_type = "mel_db"' in cells[
        1
    ].source
    written = json.loads(record.read_text())
    assert written["parameters"] == {"spectrogram_type": "mel_db", "results_dir": str(tmp_path)}
    assert written["notebook"] == "notebooks/03_toy-x.ipynb" and written["seconds"] > 0.5
    assert written["cpu_seconds"] > 0.3 and written["threads"] == 1
    assert 300e6 < written["peak_memory_bytes"] < 3000e6
    assert sorted(path.name for path in (tmp_path / "notebooks").iterdir()) == ["03_toy-x.ipynb"]


@pytest.mark.parametrize(
    "name", ["a{b}", "{results_dir}", "{run_uuid} {{x}", "}{", "100%{", "{}", "a 'b' \"c\" $d"]
)
def test_a_folder_may_be_called_anything(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    source = "from pathlib import Path\nPath(results_dir, 'seen').touch()"
    toy_study.write_notebook(folder / "03.ipynb", ("results_dir",), source)
    notebook.execute(folder / "03.ipynb", folder / "out.ipynb", {"results_dir": str(folder)})
    assert sorted(path.name for path in folder.iterdir()) == ["03.ipynb", "out.ipynb", "seen"]


def test_a_step_tells_how_far_it_is(tmp_path):
    source = "import sys\nprint('lime: 3/20', file=sys.stderr)\nprint('a: warning 1/2 of it', file=sys.stderr)\nprint('x: 1/1')"
    done, _, _ = run_step(tmp_path, source, words=("-p", "noise_scenario", "cafe_1"))
    assert done.stdout.splitlines()[:2] == [
        "[03_toy-mel_db-cafe_1] started",
        "[03_toy-mel_db-cafe_1] at lime: 3/20",
    ]
    assert len(done.stdout.splitlines()) == 3 and (tmp_path / "steps/03_toy-mel_db-cafe_1.json").is_file()


def test_a_step_imports_no_library_of_the_study():
    """What it needs is papermill; torch and pandas would cost each step seconds."""
    code = "import sys\nfrom audioxai_utils.run import notebook\nsys.modules['rfc3987_syntax'] = None\nimport papermill\n"
    code += "print(sorted({'torch', 'pandas', 'scipy', 'matplotlib', 'soundfile'} & set(sys.modules)))"
    env = os.environ | {"PYTHONPATH": str(toy_study.REPOSITORY)}
    assert (
        subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        ).stdout
        == "[]\n"
    )


def test_what_the_summary_shows_is_put_under_the_title(tmp_path):
    source = "from IPython.display import Markdown\nMarkdown('**45** of 100')"
    toy_study.write_notebook(tmp_path / "05.ipynb", ("results_dir",), "1", source)
    content = nbformat.read(tmp_path / "05.ipynb", as_version=4)
    content.cells[-1].metadata["tags"] = ["summary"]
    content.cells.insert(0, nbformat.v4.new_markdown_cell("**44** of 100", metadata={"tags": ["found"]}))
    content.cells.insert(0, nbformat.v4.new_markdown_cell("# A question"))
    nbformat.write(content, tmp_path / "05.ipynb")
    notebook.execute(tmp_path / "05.ipynb", tmp_path / "out.ipynb", {"results_dir": "x"})
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    assert [cell.source for cell in cells[:2]] == ["# A question", "**45** of 100"]
    assert [cell.metadata.get("tags", []) for cell in cells].count(["found"]) == 1 and cells[
        1
    ].cell_type == "markdown"


def test_a_failing_cell_is_told_in_one_line_and_kept(tmp_path):
    done, executed, record = run_step(
        tmp_path, "print('before')", "raise ValueError('no clip\\nin fold 5')", "print('after')"
    )
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].endswith("cell [4]: ValueError: no clip in fold 5")
    failure = events(tmp_path)[-1]
    assert (failure["is"], failure["notebook"]) == ("failed", str(executed))
    assert failure["error"] == "cell [4]: ValueError: no clip in fold 5"
    cells = nbformat.read(executed, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert [output.get("ename") for output in outputs if output.output_type == "error"] == ["ValueError"]
    assert "before\n" in [output.get("text") for output in outputs]
    assert "after\n" not in [output.get("text") for output in outputs]
    assert not record.exists()


def test_a_dead_kernel_fails_the_step(tmp_path):
    done, executed, record = run_step(
        tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "print(1)"
    )
    assert done.returncode == notebook.KERNEL_DIED
    assert events(tmp_path)[-1]["error"].startswith("the kernel died")
    assert "did not finish: the kernel died" in nbformat.read(executed, as_version=4).cells[0].source
    assert not record.exists()


def test_a_kernel_that_does_not_start_is_started_once_more():
    from nbclient.exceptions import DeadKernelError

    begun = []

    def work(error, n_failures):
        begun.append(error)
        if len(begun) <= n_failures:
            raise error

    notebook._with_a_kernel(lambda: work(RuntimeError("Kernel died before replying to kernel_info"), 1))
    assert len(begun) == 2
    for error, n_begun in (
        (RuntimeError("Kernel died before replying"), 2),
        (DeadKernelError("Kernel died"), 1),
    ):
        begun.clear()
        with pytest.raises(RuntimeError, match="Kernel died"):
            notebook._with_a_kernel(lambda error=error: work(error, 9))
        assert len(begun) == n_begun


@pytest.mark.parametrize(
    ("words", "tagged", "message"),
    [
        (
            ("-p", "methods", "shap"),
            True,
            "03_toy.ipynb has no parameter methods; it has noise_scenario, results_dir, spectrogram_type",
        ),
        ((), False, "03_toy.ipynb must have a cell tagged 'parameters'"),
    ],
)
def test_names_are_checked_before_anything_runs(tmp_path, words, tagged, message):
    done, executed, record = run_step(tmp_path, "print(1)", words=words, tagged=tagged)
    assert done.returncode == 1 and message in done.stdout.splitlines()[-1]
    assert not executed.exists() and not record.exists()


def test_a_missing_notebook_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no notebook .*missing.ipynb"):
        notebook.check_parameters(tmp_path / "missing.ipynb", {})


def test_one_line_is_one_line():
    assert step.one_line("ValueError", "\x1b[31mno\x1b[0m\n  clip") == "ValueError: no clip"
    assert step.one_line("KeyboardInterrupt", "") == "KeyboardInterrupt"
    assert len(step.one_line("E", "x" * 1000)) == 300


def children(pid: int) -> set[int]:
    """All living descendants of a process."""
    found = {child.pid for child in psutil.Process(pid).children(recursive=True)}
    return {child for child in found if toy_study.alive(child)}


def program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


@pytest.fixture(scope="module")
def sleeping(tmp_path_factory):
    """A toy study whose first notebook says its kernel's process and then sleeps."""
    repository = toy_study.make(tmp_path_factory.mktemp("sleeping") / "repository", fast=False)
    source = "import os, time\nfrom pathlib import Path\n"
    source += "Path(results_dir, 'kernel').write_text(str(os.getpid()))\ntime.sleep(600)"
    toy_study.write_notebook(repository / "notebooks" / "01_data_and_noise.ipynb", toy_study.COMMON, source)
    return repository


@pytest.mark.parametrize(
    "victim", ["audioxai_utils.run.command_line", "-m snakemake", "audioxai_utils.run.notebook"]
)
def test_nothing_is_left_behind_when_a_process_is_killed(sleeping, tmp_path, victim):
    line, env = toy_study.command(sleeping, tmp_path / "results", "--scenario", "clean", "--method", "lime")
    run = subprocess.Popen(line, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        kernel = tmp_path / "results" / "kernel"
        assert toy_study.wait_for(lambda: kernel.is_file() and kernel.read_text()), program(run.pid)
        family = {run.pid} | children(run.pid)
        assert int(kernel.read_text()) in family
        programs = {pid: program(pid) for pid in family}
        others = ("bash -c", "02_fine_tuning")  # which may run at the same time
        (chosen,) = [
            pid for pid, text in programs.items() if victim in text and not any(o in text for o in others)
        ]
        os.kill(chosen, signal.SIGKILL)
        printed, _ = run.communicate(timeout=60)
        left = lambda: {programs[pid] for pid in family if toy_study.alive(pid)}
        assert toy_study.wait_for(lambda: not left(), 10), left()
    finally:
        run.kill()
        run.wait()
    assert run.returncode == (-signal.SIGKILL if victim == "audioxai_utils.run.command_line" else 1), printed
    if victim == "audioxai_utils.run.notebook":
        assert "data_and_noise ended without a word" in printed.splitlines()[-1]


@pytest.mark.parametrize("collected", [True, False])
def test_a_process_ends_with_its_parent(collected):
    """Also where nobody collects the parent that was killed, as in a container without an init."""
    code = "import time\nfrom audioxai_utils.run import watch\nwatch.watch_run()\nprint(1, flush=True)\ntime.sleep(60)"
    starts = "import subprocess, sys, time\nchild = subprocess.Popen([sys.executable, '-c', sys.argv[1]], stdout=subprocess.PIPE)\n"
    starts += "child.stdout.readline()\nprint(child.pid, flush=True)\ntime.sleep(60)"
    env = os.environ | {"PYTHONPATH": str(toy_study.REPOSITORY)}
    env.pop(watch.RUN_PID, None)
    parent = subprocess.Popen(
        [sys.executable, "-c", starts, code], env=env, stdout=subprocess.PIPE, text=True
    )
    child = int(parent.stdout.readline())
    assert toy_study.alive(child)
    parent.kill()
    if collected:
        parent.wait()
    assert toy_study.wait_for(lambda: not toy_study.alive(child), 5)
    parent.wait()
    parent.stdout.close()


def test_the_run_is_watched_through_all_that_stands_between(tmp_path):
    """The run, a shell that outlives it and the step that the shell has started."""
    code = "import time\nfrom audioxai_utils.run import watch\nwatch.watch_run()\nprint(1, flush=True)\ntime.sleep(60)"
    (tmp_path / "step.py").write_text(code)
    run = "import os, subprocess, sys\nline = f'{sys.executable} {sys.argv[1]}; sleep 60'\n"
    run += "env = os.environ | {'AUDIOXAI_RUN_PID': str(os.getpid())}\nsubprocess.run(['bash', '-c', line], env=env)"
    env = os.environ | {"PYTHONPATH": str(toy_study.REPOSITORY)}
    line = [sys.executable, "-c", run, str(tmp_path / "step.py")]
    parent = subprocess.Popen(line, env=env, stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline() == "1\n"
    family = children(parent.pid)
    (watcher,) = [pid for pid in family if "step.py" in program(pid) and "bash" not in program(pid)]
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert toy_study.wait_for(lambda: not toy_study.alive(watcher), 5)
    for pid in family:  # the shell, and its sleep
        if toy_study.alive(pid):
            os.kill(pid, signal.SIGKILL)

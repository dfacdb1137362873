"""One notebook as a step: checked names, readable failures, nothing left running."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import toy_study

from audioxai_utils.run import forkserver, notebook, watch, workflow

PARAMETERS = (*toy_study.COMMON, *toy_study.CELL, "method")


@pytest.fixture(scope="module", params=["its own process", "a fork of the server"])
def started_as(request, tmp_path_factory):
    """What steps find in their environment: nothing, or a server of which they are forks."""
    if request.param == "its own process":
        yield {}
        return
    with forkserver.started(workflow.environment(), tmp_path_factory.mktemp("server") / "log") as address:
        yield {forkserver.ADDRESS: address}


@pytest.fixture
def step(started_as):
    """`run_step` in both ways in which a step may start."""
    return functools.partial(run_step, started_as)


def run_step(started_as: dict, folder: Path, *sources: str, words: tuple[str, ...] = (), tagged: bool = True):
    """Run a notebook of these cells as a step in ``folder``; (process, executed notebook, record)."""
    toy_study.write_notebook(folder / "03_toy.ipynb", PARAMETERS, *sources, tagged=tagged)
    line = [sys.executable, "-P", "-m", "audioxai_utils.run.notebook", str(folder / "03_toy.ipynb"), "notebooks/03_toy-x.ipynb"]
    line += ["--threads", "1", "-p", "method", "lime", *words]
    env = os.environ | {"PYTHONPATH": str(toy_study.REPOSITORY)} | started_as
    done = subprocess.run(line, env=env, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    return done, folder / "notebooks" / "03_toy-x.ipynb", folder / "steps" / "03_toy-x.json"


def failure(folder: Path) -> dict:
    return json.loads((folder / "logs/failed/03_toy-x.json").read_text())


def test_a_step_is_executed_with_its_parameters_and_recorded(step, tmp_path):
    told = "import os\nfrom pathlib import Path\nfrom audioxai_utils import config\n"
    told += "Path(results_dir, 'seen').write_text(f'{method} {os.environ[\"OMP_NUM_THREADS\"]} {os.getcwd()}')\n"
    told += "held = b'x' * 300_000_000"
    done, executed, record = step(tmp_path, told, words=("-p", "seed", "0012"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "seen").read_text() == f"lime 1 {toy_study.REPOSITORY}"
    start, end = done.stdout.splitlines()
    assert start == "[03_toy lime] started" and end.startswith("[03_toy lime] done in ")
    assert "WARNING" not in done.stderr and "TCP" not in done.stderr
    cells = nbformat.read(executed, as_version=4).cells
    assert [cell.execution_count for cell in cells] == [1, 2, 3] and 'seed = "0012"' in cells[1].source
    written = json.loads(record.read_text())
    defaults = dict.fromkeys(PARAMETERS, "")  # what took effect, whether given or not
    assert written["parameters"] == defaults | {"method": "lime", "seed": "0012", "results_dir": str(tmp_path)}
    assert written["seed"] == "0012" and written["inputs"] == {}
    assert written["notebook"] == "notebooks/03_toy-x.ipynb" and written["seconds"] > 0.5
    assert written["cpu_seconds"] > 0.3
    assert 300e6 < written["peak_memory_bytes"] < 3000e6
    assert sorted(path.name for path in (tmp_path / "notebooks").iterdir()) == ["03_toy-x.ipynb"]


def test_a_step_tells_how_far_it_is_and_what_weights_it_read(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"weights")
    source = "import sys\nprint('lime: 3/20', file=sys.stderr)\nprint('a: warning 1/2 of it', file=sys.stderr)\nprint('x: 1/1')"
    toy_study.write_notebook(tmp_path / "02.ipynb", (*PARAMETERS, "audioset_weights"), source)
    line = [sys.executable, "-P", "-m", "audioxai_utils.run.notebook", str(tmp_path / "02.ipynb"), "notebooks/02-x.ipynb"]
    line += ["-p", "audioset_weights", str(tmp_path / "w.pth"), "-p", "noise_scenario", "/some/where/Cafe 1.wav"]
    env = os.environ | {"PYTHONPATH": str(toy_study.REPOSITORY)}
    done = subprocess.run(line, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[:2] == ["[02 cafe_1] started", "[02 cafe_1] at lime: 3/20"]
    assert len(done.stdout.splitlines()) == 3
    written = json.loads((tmp_path / "steps/02-x.json").read_text())
    assert written["inputs"] == {"audioset_weights": f"md5:{hashlib.md5(b'weights').hexdigest()}"}
    assert written["parameters"]["noise_scenario"] == "/some/where/Cafe 1.wav"


def test_a_failing_cell_is_told_in_one_line_and_kept(step, tmp_path):
    done, executed, record = step(tmp_path, "print('before')", "raise ValueError('no clip\\nin fold 5')", "print('after')")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].endswith("cell [4]: ValueError: no clip in fold 5")
    assert failure(tmp_path) == {
        "step": "03_toy-x", "notebook": str(executed), "error": "cell [4]: ValueError: no clip in fold 5",
    }
    cells = nbformat.read(executed, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert [output.get("ename") for output in outputs if output.output_type == "error"] == ["ValueError"]
    assert "before\n" in [output.get("text") for output in outputs]
    assert "after\n" not in [output.get("text") for output in outputs]
    assert not record.exists()


def test_a_dead_kernel_fails_the_step(step, tmp_path):
    done, executed, record = step(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "print(1)")
    assert done.returncode == notebook.KERNEL_DIED
    assert failure(tmp_path)["error"].startswith("the kernel died")
    assert "did not finish: the kernel died" in nbformat.read(executed, as_version=4).cells[0].source
    assert not record.exists()


def test_a_kernel_that_died_while_it_waited_is_replaced_by_one_of_its_own(tmp_path, monkeypatch):
    ours, theirs = socket.socketpair()
    waiting = forkserver.WaitingKernel(ours)
    waiting.kill()
    assert waiting.wait() == -signal.SIGKILL
    monkeypatch.setattr(forkserver, "_kernel", waiting)
    toy_study.write_notebook(tmp_path / "03.ipynb", PARAMETERS, "print('of its own')")
    notebook.execute(tmp_path / "03.ipynb", tmp_path / "out.ipynb", {})
    assert "of its own" in (tmp_path / "out.ipynb").read_text() and forkserver.take_kernel() is None
    ours.close()
    theirs.close()


def test_a_kernel_that_does_not_start_is_started_once_more():
    begun = []

    def work(words, n_failures):
        begun.append(words)
        if len(begun) <= n_failures:
            raise RuntimeError(words)

    notebook._with_a_kernel(lambda: work("Kernel died before replying to kernel_info", 1))
    assert len(begun) == 2
    for words, n_begun in (("Kernel died before replying to kernel_info", 2), ("Kernel died", 1)):
        begun.clear()
        with pytest.raises(RuntimeError, match="Kernel died"):
            notebook._with_a_kernel(lambda: work(words, 9))
        assert len(begun) == n_begun


@pytest.mark.parametrize(("words", "tagged", "message"), [
    (("-p", "methods", "shap"), True, "03_toy.ipynb has no parameter methods; it has data_root, dataset"),
    ((), False, "03_toy.ipynb must have a cell tagged 'parameters'"),
])
def test_names_are_checked_before_anything_runs(step, tmp_path, words, tagged, message):
    done, executed, record = step(tmp_path, "print(1)", words=words, tagged=tagged)
    assert done.returncode == 1 and message in done.stdout.splitlines()[-1]
    assert not executed.exists() and not record.exists()


def test_a_missing_notebook_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no notebook .*missing.ipynb"):
        notebook.checked_parameters(tmp_path / "missing.ipynb", {})


def test_values_take_the_types_of_the_notebooks_defaults(tmp_path):
    path = tmp_path / "a.ipynb"
    toy_study.write_notebook(path, ("name",))
    path.write_text(path.read_text().replace('name = ', 'seed = 42\\nrate: float = 0.5\\nname = '))
    given = notebook.checked_parameters(path, {"seed": "007", "rate": "1", "name": "007"})
    assert given == {"seed": 7, "rate": 1.0, "name": "007"} and type(given["rate"]) is float
    with pytest.raises(ValueError, match="parameter seed must be of type int, as its default is; got 'x'"):
        notebook.checked_parameters(path, {"seed": "x"})


def test_one_line_is_one_line():
    assert notebook.one_line("ValueError", "\x1b[31mno\x1b[0m\n  clip") == "ValueError: no clip"
    assert notebook.one_line("KeyboardInterrupt", "") == "KeyboardInterrupt"
    assert len(notebook.one_line("E", "x" * 1000)) == 300


def children(pid: int) -> set[int]:
    """All living descendants of a process."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        if watch.parent_of(int(entry.name)) == pid and toy_study.alive(int(entry.name)):
            found |= {int(entry.name)} | children(int(entry.name))
    return found


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


@pytest.mark.parametrize("victim", ["audioxai_utils.run.command_line", "-m snakemake", "audioxai_utils.run.notebook"])
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
        (chosen,) = [pid for pid, text in programs.items() if victim in text and not any(o in text for o in others)]
        os.kill(chosen, signal.SIGKILL)
        printed, _ = run.communicate(timeout=60)
        left = lambda: {programs[pid] for pid in family if toy_study.alive(pid)}  # noqa: E731
        assert toy_study.wait_for(lambda: not left(), 10), left()
    finally:
        run.kill()
        run.wait()
    assert run.returncode == (-signal.SIGKILL if victim == "audioxai_utils.run.command_line" else 1), printed
    if victim == "audioxai_utils.run.notebook":
        assert "data_and_noise ended without a word" in printed.splitlines()[-1]

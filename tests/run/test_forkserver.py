"""Steps as forks of a process that has the libraries: the same as in a process of their own, and nothing left over."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import toy_study
from test_runner import PARAMETERS, children

from audioxai_utils.run import forkserver, watch, workflow

# A module like the runner, whose main a fork of the server calls.
ASKED = """
import os, sys, time
from pathlib import Path
def main(arguments):
    print("out", *arguments, os.environ.get("GIVEN"), os.getcwd(), "HOME" in os.environ)
    print("err", "torch" in sys.modules, "audioxai_utils.run.notebook" in sys.modules, file=sys.stderr)
    if arguments[0] == "sleep":
        Path(arguments[1]).write_text(str(os.getpid()))
        time.sleep(600)
    if arguments[0] == "raise":
        raise ValueError("as asked")
    if arguments[0] == "exit":
        sys.exit("in words")
    return None if arguments[0] == "none" else int(arguments[0])
"""
ASKS = "import sys; from audioxai_utils import forkserver; sys.exit(forkserver.run('asked', sys.argv[1:]))"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Holds the module that is asked for."""
    folder = tmp_path_factory.mktemp("asked")
    (folder / "asked.py").write_text(ASKED)
    return folder


@pytest.fixture(scope="module")
def address(folder):
    environment = workflow.environment()
    environment["PYTHONPATH"] += f"{os.pathsep}{folder}"
    with forkserver.started(environment, folder / "log") as address:
        yield address


def ask(address: str, folder: Path, *arguments: str) -> subprocess.Popen:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(toy_study.REPOSITORY), "GIVEN": "given", forkserver.ADDRESS: address}
    return subprocess.Popen([sys.executable, "-c", ASKS, *arguments], cwd=folder, env=env, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize(("arguments", "code", "said"), [
    (("0",), 0, ""), (("7", "and more"), 7, ""), (("raise",), 1, "ValueError: as asked"), (("exit",), 1, "in words"),
    (("none",), 0, ""),
])
def test_a_fork_has_the_arguments_streams_folder_and_environment_of_who_asked(address, folder, arguments, code, said):
    process = ask(address, folder, *arguments)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert out == f"out {' '.join(arguments)} given {folder} False\n"
    first, *rest = err.splitlines()
    assert first == "err True False"  # torch was there; this package's modules are each step's own
    assert (rest[-1] if rest else "") == said


def test_without_a_server_nothing_is_run(monkeypatch, tmp_path):
    monkeypatch.setattr(forkserver, "watch_run", lambda: None)  # this process is no step
    monkeypatch.delenv(forkserver.ADDRESS, raising=False)
    assert forkserver.run("asked", ["0"]) is None
    with forkserver.started(workflow.environment(), tmp_path / "log") as address:
        pass
    monkeypatch.setenv(forkserver.ADDRESS, address)  # of one that has ended
    assert forkserver.run("asked", ["0"]) is None


def test_a_run_with_nothing_to_do_imports_nothing(tmp_path):
    others = children(os.getpid())
    with forkserver.started(workflow.environment(), tmp_path / "log"):
        (server,) = children(os.getpid()) - others
        assert toy_study.wait_for(lambda: waits_for_requests(server))
        assert "libtorch" not in Path(f"/proc/{server}/maps").read_text()
    assert not toy_study.alive(server)
    assert not (tmp_path / "log").exists()  # it said nothing


def waits_for_requests(server: int) -> bool:
    """Whether the server is in its loop: it ignores SIGINT, and sleeps."""
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{server}/status").read_text().splitlines())
    return int(status["SigIgn"], 16) >> (signal.SIGINT - 1) & 1 == 1 and status["State"].startswith("S")


def test_where_the_system_refuses_a_server_steps_run_in_their_own_process(monkeypatch, tmp_path):
    monkeypatch.setattr(forkserver, "_place", lambda name: str(tmp_path / "no folder" / name))
    with forkserver.started(workflow.environment(), tmp_path / "log") as address:
        assert address == ""


def test_the_server_has_one_thread_when_it_forks():
    code = "import os; from audioxai_utils import forkserver; forkserver.import_libraries()\n"
    code += "print(len(os.listdir('/proc/self/task')))"
    env = workflow.environment() | forkserver.ONE_THREAD
    assert subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout == "1\n"


def test_a_command_whose_run_ends_before_it_is_answered_ends_too(folder, tmp_path):
    """Else it would do the work by itself, in a folder that another run may have by then."""
    others = children(os.getpid())
    with forkserver.started(workflow.environment(), tmp_path / "log") as address:
        (server,) = children(os.getpid()) - others
        assert toy_study.wait_for(lambda: waits_for_requests(server))
        os.kill(server, signal.SIGSTOP)
        starts = "import os, subprocess, sys; env = os.environ | {'AUDIOXAI_RUN_PID': str(os.getpid())}\n"
        starts += "asking = subprocess.Popen(['bash', '-c', '\"$@\"; true', '', sys.executable, '-c', *sys.argv[1:]], env=env)\n"
        starts += "print(asking.pid, flush=True); asking.wait()"
        env = workflow.environment() | {forkserver.ADDRESS: address}
        run = subprocess.Popen([sys.executable, "-c", starts, ASKS, "0"], cwd=folder, env=env, stdout=subprocess.PIPE, text=True)
        shell = int(run.stdout.readline())
        assert toy_study.wait_for(lambda: len(children(shell)) == 1)
        (asking,) = children(shell)
        assert toy_study.wait_for(lambda: "pidfd" in " ".join(os.readlink(f) for f in Path(f"/proc/{asking}/fd").iterdir()))
        run.kill()
        run.wait()
        assert toy_study.wait_for(lambda: not toy_study.alive(asking), 5)
        run.stdout.close()


@pytest.mark.parametrize("victim", ["who asked", "the fork", "the server"])
def test_a_fork_ends_with_who_asked_and_the_other_way_round(folder, tmp_path, victim):
    with forkserver.started(workflow.environment() | {"PYTHONPATH": f"{toy_study.REPOSITORY}:{folder}"}, tmp_path / "log") as address:
        process = ask(address, folder, "sleep", str(tmp_path / "pid"))
        assert toy_study.wait_for(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text())
        fork = int((tmp_path / "pid").read_text())
        (kernel,) = children(fork)
        os.kill({"who asked": process.pid, "the fork": fork, "the server": watch.parent_of(fork)}[victim], signal.SIGKILL)
        process.communicate(timeout=10)
        assert process.returncode == (-signal.SIGKILL if victim == "who asked" else forkserver.KILLED)
        assert toy_study.wait_for(lambda: not toy_study.alive(fork) and not toy_study.alive(kernel), 5)


def test_another_users_request_is_refused():
    def request(user):  # the other end of a socket
        return SimpleNamespace(getsockopt=lambda *_: struct.pack("iII", 1, user, 1))

    assert forkserver._is_own(request(os.getuid()))
    for other in (os.getuid() + 1, 3_000_000_000):
        assert not forkserver._is_own(request(other))


def test_another_users_server_is_told_nothing(monkeypatch):
    """Its name is free when ours has died, and anybody may take it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(forkserver._place("somebody else's"))
        listener.listen()
        monkeypatch.setenv(forkserver.ADDRESS, "somebody else's")
        monkeypatch.setattr(forkserver, "watch_run", lambda: None)
        monkeypatch.setattr(forkserver, "_is_own", lambda connection: False)
        assert forkserver.run("asked", ["0"]) is None
        accepted, _ = listener.accept()
        assert accepted.recv(1) == b""
        accepted.close()


def test_a_waiting_kernel_is_like_one_of_its_own(address, tmp_path):
    """Figures appear by themselves, threads are the step's, and no two kernels draw the same numbers."""
    source = "import os, sys\nwaited = 'lime' in sys.modules\n"
    source += "import numpy as np, torch\nfrom threadpoolctl import threadpool_info\nimport matplotlib.pyplot as plt\nfrom tqdm.auto import tqdm\n"
    source += "print(waited, torch.get_num_threads(), {pool['num_threads'] for pool in threadpool_info() if pool['user_api'] == 'blas'}, "
    source += "tqdm.__mro__[1].__module__, plt.get_backend(), os.getsid(0) == os.getpid(), '' in sys.path, 'JPY_PARENT_PID' in os.environ)\n"
    source += "print(np.random.random(), torch.rand(1).item())\nplt.plot([1, 2]);"
    toy_study.write_notebook(tmp_path / "03_toy.ipynb", PARAMETERS, source)
    line = [sys.executable, "-P", "-m", "audioxai_utils.run.notebook", str(tmp_path / "03_toy.ipynb"), "", "--threads", "2"]
    drawn, kernels = [], []
    for name, env in (("cold", {}), ("first", {forkserver.ADDRESS: address}), ("second", {forkserver.ADDRESS: address})):
        line[-3] = f"{name}.ipynb"
        subprocess.run(line, env=workflow.environment() | env, cwd=tmp_path, check=True, capture_output=True, timeout=120)
        outputs = nbformat.read(tmp_path / f"{name}.ipynb", as_version=4).cells[-1].outputs
        assert any("image/png" in output.get("data", {}) for output in outputs), outputs
        told, number = "".join(output["text"] for output in outputs if output.output_type == "stream").splitlines()
        waited, _, kernel = told.partition(" ")
        assert waited == str(name != "cold") and kernel.startswith("2 {2} ")
        kernels.append(kernel)
        drawn += number.split()
    assert len(set(drawn)) == 6 and len(set(kernels)) == 1, kernels


def test_importing_the_libraries_asks_for_no_gpu():
    """Whoever asks before the fork can use no GPU after it."""
    code = "import torch; from audioxai_utils import forkserver; asked = []\n"
    code += "for name in ('_cuda_getDeviceCount', '_cuda_init'): setattr(torch._C, name, lambda: asked.append(1) or 0)\n"
    code += "torch.cuda.is_available(); assert asked; asked.clear()\n"
    code += "forkserver.import_libraries(); import sys; assert 'captum.attr' in sys.modules; print(asked)"
    env = workflow.environment()
    assert subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout == "[]\n"

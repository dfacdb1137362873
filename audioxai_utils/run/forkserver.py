"""A process that has imported the libraries already, of which the steps of a run are forks.

A step and its notebook's kernel spend three to four seconds of processor time on importing torch, pandas, seaborn
and others, and a study has dozens of steps. A run therefore starts this server; the command of a step hands its
arguments, its environment and its streams to a fork of it, and a second fork, made before the first one does
anything else, waits to become the kernel. Only other people's libraries are imported beforehand: a step reads this
package's modules itself, but for this one and `watch`. Where there is no server (by hand, on SLURM, for a shard of
a cell), a step runs in its own process.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import secrets
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .watch import bound, watch_run

ADDRESS = "AUDIOXAI_FORKSERVER"  # environment variable with the name of the server's socket
KILLED = 137  # exit code of a step that ended without one: killed, or crashed
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
ONE_THREAD = dict.fromkeys(THREAD_VARIABLES, "1") | {"JE_ARROW_MALLOC_CONF": "background_thread:false"}  # to be forked
LIBRARIES = (
    "ipykernel.kernelapp",  # first: tqdm, which others import, asks whether it is in a kernel
    "papermill", "pandas", "pyarrow.parquet", "torch", "torchaudio", "scipy.signal", "scipy.stats", "seaborn", "soundfile",
    "captum.attr", "lime.lime_image",
)
UCRED = "iII"  # Linux's process, user and group of a socket's other end
INLINE = "module://matplotlib_inline.backend_inline"
PR_SET_PDEATHSIG = 1

_kernel: WaitingKernel | None = None  # in a fork of the server: the one that waits for its step's notebook


def skip_slow_import() -> None:
    """Leave out an optional part of jsonschema that costs each step two seconds.

    Where ``rfc3987_syntax`` is installed (JupyterLab brings it), jsonschema builds its grammar
    of web addresses at import, for a check that no notebook needs.
    """
    sys.modules.setdefault("rfc3987_syntax", None)


# The run's side


@contextmanager
def started(environment: dict[str, str], log: Path) -> Iterator[str]:
    """A server for as long as the block lasts; gives the value of ``AUDIOXAI_FORKSERVER`` for the run's steps.

    It imports nothing before the first step asks, and ends with this process, whichever way that ends. Where the
    system refuses a server, that value is "", and each step runs in its own process.

    Parameters
    ----------
    environment : dict
        In which the libraries are imported, in one thread; each step brings its own.
    log : pathlib.Path
        Takes what the server says; there is none when it said nothing.
    """
    name, server = f"audioxai-{os.getpid()}-{secrets.token_hex(16)}", None
    with socket.socket(socket.AF_UNIX) as listener, open(log, "wb") as said, suppress(OSError):
        listener.bind(_place(name))
        listener.listen(128)
        command = [sys.executable, "-P", "-m", "audioxai_utils.run.forkserver", str(listener.fileno())]
        server = subprocess.Popen(
            bound(command), env=environment | ONE_THREAD, pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL,
            stdout=said, stderr=said,
        )
    try:
        yield name if server else ""
    finally:
        if server:
            server.kill()  # its forks end with it
            server.wait()
        if not log.stat().st_size:
            log.unlink()


def _place(name: str) -> str:
    return f"\0{name}"  # Linux's sockets without a file: nothing is left behind, and no path is too long


def _is_own(connection: socket.socket) -> bool:
    """Whether the other end is a process of the same user; a socket without a file has no permissions."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(UCRED))
    return struct.unpack(UCRED, credentials)[1] == os.getuid()


# The server


def serve(listener: socket.socket) -> None:
    """Fork a step for each command of this user that asks, from the one thread of this process; does not return."""
    on_interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the run, which ends this
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system collects forks that have ended
    while True:
        connection, _ = listener.accept()
        with connection:
            if not _is_own(connection):  # who may ask may have any code run
                continue
            if "torch" not in sys.modules:  # at the first, so that a run with nothing to do imports nothing
                import_libraries()
            if os.fork() == 0:
                try:
                    listener.close()
                    signal.signal(signal.SIGINT, on_interrupt)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    _do_step(connection)
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(0)  # the command has the exit code, or sees that there is none


def import_libraries() -> None:
    """Import what most steps import; one that is missing is for the step to tell."""
    skip_slow_import()
    for library in LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(library)
    gc.collect()
    gc.freeze()  # a collection in a fork would copy every page that it looks at


def _do_step(connection: socket.socket) -> None:
    """In a fork of the server: one step, with the environment and the streams of the command that asked."""
    global _kernel
    die_with_parent()
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    with connection.makefile(encoding="utf-8") as lines:
        asked = json.loads(lines.readline())
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    _kernel = WaitingKernel(connection)
    connection.sendall(b"taken\n")
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    code = _code_of(asked["module"], asked["arguments"])
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(f"{code}\n".encode())


def _end_with(connection: socket.socket) -> None:
    """End this process when the command that asked for it has ended."""
    with suppress(OSError):
        connection.recv(1)
    os._exit(KILLED)


def _code_of(module: str, arguments: list[str]) -> int:
    """Exit code of a module's ``main``, as Python itself would give it."""
    try:
        return importlib.import_module(module).main(arguments) or 0
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1


# A step's side


def run(module: str, arguments: Sequence[str]) -> int | None:
    """Run ``module.main(arguments)`` in a fork of the run's server.

    Returns
    -------
    int or None
        Its exit code; ``KILLED`` where the fork ended without one; None where there is no server, and nothing
        was run.
    """
    name = os.environ.get(ADDRESS)
    if not name:
        return None
    watch_run()  # the fork, no descendant of the command's shell, could not
    asked = {"module": module, "arguments": list(arguments), "environment": dict(os.environ), "folder": os.getcwd()}
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile(encoding="utf-8") as answers:
        try:
            connection.connect(_place(name))
            if not _is_own(connection):
                return None
            socket.send_fds(connection, [b"."], [0, 1, 2])
            connection.sendall(json.dumps(asked).encode() + b"\n")
            taken = answers.readline()
        except OSError:
            return None
        if not taken:
            return None
        answer = ""
        with suppress(ConnectionError):
            answer = answers.readline()
        return int(answer or KILLED)


# The kernel's side


class WaitingKernel:
    """A fork of this process that becomes an IPython kernel when it is told to, and ends with this process.

    It is made while this process has a single thread. Offers what ``jupyter_client`` asks of the
    ``subprocess.Popen`` of a kernel.
    """

    stdin = stdout = stderr = None

    def __init__(self, connection: socket.socket) -> None:
        """Fork; the kernel does not keep ``connection``."""
        orders, self._orders = os.pipe()
        parent = os.getpid()
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._orders)
            connection.close()
            _wait_for_orders(orders, parent)
        os.close(orders)

    def start(self, arguments: list[str], environment: dict[str, str], folder: str) -> None:
        """Become a kernel with these arguments of ``ipykernel_launcher``, in this environment and folder.

        Raises
        ------
        BrokenPipeError
            If it has ended already.
        """
        asked = {"arguments": arguments, "environment": environment, "folder": folder}
        with open(self._orders, "w", encoding="utf-8") as pipe:
            json.dump(asked, pipe)

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        return self._collected(os.WNOHANG)

    def wait(self) -> int:
        """The exit code, once it has ended."""
        return self._collected(0)

    def _collected(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


def take_kernel() -> WaitingKernel | None:
    """The kernel that waits in a fork of the server, once; None anywhere else."""
    global _kernel
    kernel, _kernel = _kernel, None
    return kernel


def die_with_parent() -> None:
    """Have the system end this process when the one that forked it ends (Linux)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait_for_orders(orders: int, parent: int) -> None:
    """Wait in a fork, and become the kernel; does not return."""
    try:
        die_with_parent()
        with open(orders, encoding="utf-8") as pipe:
            text = pipe.read()
        if text and os.getppid() == parent:
            _become_kernel(**json.loads(text))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _become_kernel(arguments: list[str], environment: dict[str, str], folder: str) -> None:
    """What starting ``python -m ipykernel_launcher`` does, and what libraries take from the environment when imported."""
    import matplotlib
    import numpy as np
    import torch
    from ipykernel.kernelapp import IPKernelApp
    from threadpoolctl import threadpool_limits

    os.setsid()  # as jupyter_client starts a kernel: signals go to all that it starts
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.environ.clear()
    os.environ.update(environment, JPY_PARENT_PID=str(os.getppid()))
    os.chdir(folder)
    sys.argv = ["ipykernel_launcher", *arguments]
    sys.path.insert(0, "")
    threads = int(os.environ.get("OMP_NUM_THREADS") or 0)
    if threads:
        torch.set_num_threads(threads)
        threadpool_limits(threads, user_api="blas")
    np.random.seed()  # these two were seeded when they were imported: each kernel would draw the same numbers
    torch.default_generator.seed()
    matplotlib.rcParams["backend"] = os.environ.get("MPLBACKEND") or INLINE
    # ipykernel has read JPY_PARENT_PID when it was imported, in a process that is nobody's kernel.
    IPKernelApp.launch_instance(argv=[*arguments, f"--IPKernelApp.parent_handle={os.getppid()}"])


if __name__ == "__main__":
    from . import forkserver  # whose forks find their kernel in it

    forkserver.serve(socket.socket(fileno=int(sys.argv[1])))

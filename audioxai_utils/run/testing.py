"""The tests of the repository, as ``run_all.sh --test`` runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import constants
from .workflow import environment

TEST_CORES = 4  # more hold no more: the longest files set the end


def run_tests(arguments: Sequence[str], cores: int | None = None) -> int:
    """Run pytest on ``tests/``; its closing line is the last one printed.

    All tests together run on ``cores`` (at most `TEST_CORES`; None: all there are), a file on one of them;
    some tests, which ``arguments`` choose, run in one process.
    """
    command, threads = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"], {}
    cores = min(cores or len(os.sched_getaffinity(0)), TEST_CORES)
    if not arguments and cores > 1:
        command += ["-n", str(cores), "--dist", "loadfile", "--no-loadscope-reorder"]
        threads = {"OMP_NUM_THREADS": "1"}  # small tensors: a second thread costs more than it brings
    command += arguments
    if not any(Path(constants.REPOSITORY, word.split("::")[0]).exists() for word in arguments):
        command.append("tests")
    env = environment() | threads
    return subprocess.run(command, cwd=constants.REPOSITORY, env=env, check=False).returncode

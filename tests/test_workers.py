"""Pieces of work in other processes: what fails is counted, and the rest is done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial

import psutil
import pytest

from audioxai_utils.constants import REPOSITORY
from audioxai_utils.workers import run


def test_a_piece_that_fails_costs_no_other(capfd):
    pieces = partial(dict, a=("a: fine", True), c=("c: one method", False))
    assert run(["a", "missing", "c"], pieces, dict.__getitem__, 1) == 2
    said = capfd.readouterr()
    assert said.out.splitlines() == ["a: fine", "missing failed", "c: one method"]
    assert "KeyError: 'missing'" in said.err


def test_how_far_the_work_is_can_be_told_instead_of_a_line_a_piece(capfd):
    pieces, told = partial(dict, a=("a: fine", True), b=("b: fine", True), c=("c: one method", False)), []
    assert run(["a", "b", "c"], pieces, dict.__getitem__, 2, tell=lambda *given: told.append(given)) == 1
    assert told == [(1, 3), (2, 3), (3, 3)] and capfd.readouterr().out.splitlines() == ["c: one method"]


def test_a_process_that_dies_is_counted_and_nothing_begins_when_the_time_is_over(capfd):
    assert run(["a"], partial(dict, a=3), dict.__getitem__, 1) == 1  # no line: the process ends with an error
    assert run(["a"], partial(dict, a=("fine", True)), dict.__getitem__, 1, stop=0.0) == 0
    assert "a: left out, the time is over" in capfd.readouterr().out


# What is left when the process that gave the work is killed

SLEEPS = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from audioxai_utils.workers import end_with_parent, run

def nap(state, name):
    print(os.getpid(), flush=True)
    time.sleep(120)

def in_a_pool():
    with ProcessPoolExecutor(2, initializer=end_with_parent) as pool:
        list(pool.map(partial(nap, None), "ab"))

if __name__ == "__main__":
    {call}
"""


@pytest.mark.parametrize("call", ["run(['a', 'b'], dict, nap, 2)", "in_a_pool()"], ids=["run", "pool"])
def test_no_process_outlives_the_one_that_gave_the_work(call, tmp_path):
    script = tmp_path / "sleeps.py"
    script.write_text(SLEEPS.format(call=call))
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, env=environment) as process:
        workers = [psutil.Process(int(process.stdout.readline())) for _ in range(2)]
        assert all(worker.is_running() for worker in workers)
        process.send_signal(signal.SIGKILL)
        process.wait()
    until = time.monotonic() + 20
    while any(map(lives, workers)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(lives, workers))


def lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE

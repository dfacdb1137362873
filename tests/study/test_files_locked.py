"""A folder held by one at a time; where a file system cannot lock, work goes on; other errors are told."""

import errno
import fcntl
import os
import signal
import threading
import time

import pytest

from audioxai_utils.files import locked


def test_the_second_one_waits_until_the_first_lets_go(tmp_path):
    order, inside = [], threading.Event()

    def second():
        inside.wait()
        with locked(tmp_path / "made"):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with locked(tmp_path / "made"):
        inside.set()
        thread.join(0.3)
        assert thread.is_alive()
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


@pytest.mark.parametrize(
    "code, goes_on",
    [
        (errno.ENOLCK, True),
        (errno.ENOSYS, True),
        (errno.ENOTSUP, True),
        (errno.EBADF, True),
        (errno.EIO, False),
        (errno.EINTR, False),
    ],
)
@pytest.mark.parametrize("wait", [True, False])
def test_only_a_file_system_that_cannot_lock_is_passed_over(tmp_path, monkeypatch, code, goes_on, wait):
    def refused(*_):
        raise OSError(code, "refused")

    monkeypatch.setattr(fcntl, "flock", refused)
    ran = []
    if goes_on:
        with locked(tmp_path, wait) as held:
            ran.append(True)
            assert not held
    else:
        with pytest.raises(OSError, match="refused"), locked(tmp_path, wait):
            ran.append(True)
    assert bool(ran) == goes_on


def test_a_child_that_has_inherited_the_file_holds_nothing(tmp_path):
    with locked(tmp_path):
        if (child := os.fork()) == 0:
            time.sleep(60)
            os._exit(0)
    try:
        with locked(tmp_path, wait=False) as held:
            assert held
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_who_will_not_wait_is_told_who_holds_it(tmp_path):
    held = locked(tmp_path, wait=False)
    with locked(tmp_path), pytest.raises(BlockingIOError, match=f"process {os.getpid()} on"):
        held.__enter__()

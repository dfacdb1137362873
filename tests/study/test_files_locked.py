"""A folder held by one at a time; where a file system cannot lock, work goes on; other errors are told."""

import errno
import fcntl
import threading

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
    "code, goes_on", [(errno.ENOLCK, True), (errno.EBADF, True), (errno.EIO, False), (errno.EINTR, False)]
)
def test_only_a_file_system_that_cannot_lock_is_passed_over(tmp_path, monkeypatch, code, goes_on):
    def refused(*_):
        raise OSError(code, "refused")

    monkeypatch.setattr(fcntl, "flock", refused)
    ran = []
    if goes_on:
        with locked(tmp_path):
            ran.append(True)
    else:
        with pytest.raises(OSError, match="refused"), locked(tmp_path):
            ran.append(True)
    assert bool(ran) == goes_on

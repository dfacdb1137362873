"""One process at a time makes a dataset or fetches a file; the others wait and find it made."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What file systems answer that cannot lock a folder: without a lock service, without locks, or (NFS) for want of writing.
CANNOT_LOCK = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EBADF)


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Hold ``folder`` alone (it is made if missing); wait while another process or thread does.

    The kernel lets go when the holder ends, however it ends, and no lock file is left. Some network
    file systems cannot lock folders: then nobody waits, and work may be done twice, but what
    appears is still whole, because files are renamed into place.
    """
    import fcntl

    Path(folder).mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in CANNOT_LOCK:
                raise
        yield
    finally:
        os.close(descriptor)

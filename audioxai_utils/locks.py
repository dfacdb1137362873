"""One process at a time makes a dataset or fetches a file; the others wait and find it made."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
        except OSError:  # cannot lock here, see above
            pass
        yield
    finally:
        os.close(descriptor)

"""Many pieces of work in processes of their own, none of which outlives the one that started it."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

LOOK = 0.2  # seconds between two looks at how far the work is, and at the process that gave it


def run(
    names: Sequence[str],
    start: Callable[[], Any],
    one: Callable[[Any, str], tuple[str, bool]],
    n_workers: int,
    stop: float | None = None,
    tell: Callable[[int, int], None] | None = None,
    late: Callable[[int], None] | None = None,
) -> int:
    """Work on every name, each process on the next one left; the number that failed or whose process died.

    Parameters
    ----------
    start : callable
        What a process needs for all its pieces, made once in each; it and ``one`` must be picklable.
    one : callable
        That and a name to a line that is printed, and whether all of the piece went well.
    n_workers : int
        Processes, each with one thread.
    stop : float, optional
        Seconds since the epoch after which no piece is begun.
    tell : callable, optional
        Given the pieces that are over and all of them whenever one more is; then only a piece in which
        something failed prints its line.
    late : callable, optional
        Given the number of pieces that were left out because of ``stop``, where there are any.
    """
    context = multiprocessing.get_context("spawn")
    taken, over, failed, left = (context.Value("i", 0) for _ in range(4))
    given = (list(names), start, one, stop, taken, over, failed, left, tell is not None)
    workers = [context.Process(target=_work, args=given) for _ in range(min(n_workers, len(names)))]
    for worker in workers:
        worker.start()
    reported, living = 0, workers
    while living:
        living[0].join(timeout=LOOK)
        living = [worker for worker in workers if worker.is_alive()]
        while tell is not None and reported < over.value:
            reported += 1
            tell(reported, len(names))
    if late is not None and left.value:
        late(left.value)
    return failed.value + sum(worker.exitcode != 0 for worker in workers)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Where a command works, and in how many processes."""
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes, each with one thread")


def _work(names: list[str], start, one, stop: float | None, taken, over, failed, left, quiet: bool) -> None:
    import torch

    end_with_parent()
    torch.set_num_threads(1)
    state = start()
    while True:
        with taken.get_lock():
            number, taken.value = taken.value, taken.value + 1
        if number >= len(names):
            return
        name = names[number]
        if stop is not None and time.time() > stop:
            print(f"{name}: left out, the time is over", flush=True)
            with left.get_lock():
                left.value += 1
            continue
        try:
            line, went_well = one(state, name)
        except Exception:  # said and counted; the other pieces are worked on all the same
            traceback.print_exc()
            line, went_well = f"{name} failed", False
        with failed.get_lock():
            failed.value += not went_well
            over.value += 1
        if not (quiet and went_well):
            print(line, flush=True)


def end_with_parent() -> None:
    """End this process, one of `multiprocessing`'s, when the one that started it ends, however that does.

    Without it, one whose parent is killed goes on to the end of its work, or waits for more for ever.
    """
    parent = multiprocessing.parent_process().pid

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()

"""Judge all cases of a folder, and join them: ``python -m audioxai_utils.audit.planted FOLDER PARTS``."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch

from ...files import save_parquet, write_json
from .bench import Bench
from .judge import Effort, joined, judge_to, judged_methods

_bench: Bench | None = None  # of a worker process


def main(arguments: list[str] | None = None) -> int:
    """Judge what is not there yet; 1 where a case or a method failed."""
    given = parsed(arguments)
    parts = Path(given.parts)
    parts.mkdir(parents=True, exist_ok=True)
    effort = Effort(given.samples, given.clips, given.compared, methods=tuple(given.methods))
    names = [
        case.name
        for case in Bench.read(given.folder).counted()
        if not given.cases or case.name in given.cases
    ]
    names = [name for name in names if name not in given.done]
    stop = time.time() + given.seconds if given.seconds else None
    lines = run(names, given.folder, parts, effort, given.device, given.workers, stop)
    if given.join:
        join(parts, Path(given.join))
    return int(any("failed" in line for line in lines))


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="audioxai_utils.audit.planted", description=__doc__)
    parser.add_argument("folder", help="of prepared cases")
    parser.add_argument("parts", help="folder that gets three files a case")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes, each with one thread")
    parser.add_argument("--samples", type=int, default=Effort.n_samples, help="of LIME, SLIME and RISE")
    parser.add_argument("--clips", type=int, default=Effort.n_clips, help="of each case, at most")
    parser.add_argument("--compared", type=int, default=Effort.n_compared, help="clips explained twice")
    parser.add_argument("--seconds", type=float, help="no case is begun after these")
    parser.add_argument("--methods", nargs="+", default=judged_methods(), choices=judged_methods())
    parser.add_argument("--skip", nargs="+", default=(), choices=judged_methods(), help="methods left out")
    parser.add_argument("--cases", nargs="+", default=(), help="by name; all that count")
    parser.add_argument("--done", nargs="+", default=(), help="names of cases that are left out")
    parser.add_argument("--join", help="folder that gets all cases in two Parquet files")
    given = parser.parse_args(arguments)
    given.methods = [name for name in given.methods if name not in given.skip]
    return given


def run(
    names, folder, parts: Path, effort: Effort, device: str, n_workers: int, stop: float | None
) -> list[str]:
    """Judge cases in processes of their own; the lines that they say, printed as they come."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(n_workers, context, _start, (str(folder),)) as pool:
        waiting = {pool.submit(_one, name, str(parts), effort, device, stop): name for name in names}
        lines = []
        for done in as_completed(waiting):
            error = done.exception()
            if error is not None:
                traceback.print_exception(error)
            line = (
                done.result() if error is None else f"{waiting[done]} failed: {type(error).__name__}: {error}"
            )
            print(line, flush=True)
            lines.append(line)
    return lines


def _start(folder: str) -> None:
    global _bench
    torch.set_num_threads(1)
    _bench = Bench.read(folder)


def _one(name: str, parts: str, effort: Effort, device: str, stop: float | None) -> str:
    if stop is not None and time.time() > stop:
        return f"{name}: left out, the time is over"
    (case,) = (case for case in _bench.cases if case.name == name)
    return judge_to(_bench, case, Path(parts), effort, device)


def join(parts: Path, out: Path) -> None:
    """All cases in ``planted.parquet`` and ``planted_scores.parquet``; seconds and failures beside them."""
    for kind, name in (("points", "planted"), ("scores", "planted_scores")):
        save_parquet(joined(parts, kind), out / f"{name}.parquet")
    records = {
        path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(parts.glob("*.json"))
    }
    write_json(out / "planted.json", records)

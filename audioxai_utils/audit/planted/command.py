"""Judge all cases of a folder, and join them: ``python -m audioxai_utils.audit.planted FOLDER PARTS``."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from ...files import atomic_path, save_parquet, write_json
from .agreement import metric_means
from .bench import Bench
from .fills import FILLS, MASKS
from .judge import Effort, joined, judge_to, judged_methods, lighter


@dataclass(frozen=True)
class Given:
    """What every worker is told: folders, how much, where, and when no case is begun any more."""

    folder: str
    parts: str
    effort: Effort
    device: str
    stop: float | None


def main(arguments: list[str] | None = None) -> int:
    """Judge what is not there yet; 1 where a case or a method failed."""
    given = parsed(arguments)
    parts = Path(given.parts)
    parts.mkdir(parents=True, exist_ok=True)
    effort = Effort(
        given.samples,
        given.clips,
        given.compared,
        given.heard,
        tuple(given.methods),
        tuple(given.fills),
        tuple(given.masks),
    )
    bench = Bench.read(given.folder)
    names = [case.name for case in bench.counted() if not given.cases or case.name in given.cases]
    names = [name for name in names if name not in given.done]
    stop = time.time() + given.seconds if given.seconds else None
    n_failed = run(names, Given(given.folder, given.parts, effort, given.device, stop), given.workers)
    if given.join:
        join(bench, parts, Path(given.join))
    return int(n_failed > 0)


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="audioxai_utils.audit.planted", description=__doc__)
    parser.add_argument("folder", help="of prepared cases")
    parser.add_argument("parts", help="folder that gets three files a case")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes, each with one thread")
    parser.add_argument("--samples", type=int, default=Effort.n_samples, help="of LIME, SLIME and RISE")
    parser.add_argument("--clips", type=int, default=Effort.n_clips, help="of each case, at most")
    parser.add_argument("--compared", type=int, default=Effort.n_compared, help="clips explained twice")
    parser.add_argument("--heard", type=int, default=Effort.n_heard, help="clips whose sound is made")
    parser.add_argument("--fills", nargs="+", default=FILLS, choices=FILLS)
    parser.add_argument("--masks", nargs="+", default=MASKS, choices=MASKS)
    parser.add_argument("--seconds", type=float, help="no case is begun after these")
    parser.add_argument("--methods", nargs="+", default=judged_methods(), choices=judged_methods())
    parser.add_argument("--skip", nargs="+", default=(), choices=judged_methods(), help="methods left out")
    parser.add_argument("--cases", nargs="+", default=(), help="by name; all that count")
    parser.add_argument("--done", nargs="+", default=(), help="names of cases that are left out")
    parser.add_argument("--join", help="folder that gets all cases, as they are published")
    given = parser.parse_args(arguments)
    given.methods = [name for name in given.methods if name not in given.skip]
    return given


def run(names, given: Given, n_workers: int) -> int:
    """Judge cases in processes of their own, each of which takes the next one that is left; the number that
    failed, or were in the hands of a process that died.
    """
    context = multiprocessing.get_context("spawn")
    taken, failed = context.Value("i", 0), context.Value("i", 0)
    workers = [
        context.Process(target=_work, args=(list(names), given, taken, failed)) for _ in range(n_workers)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return failed.value + sum(worker.exitcode != 0 for worker in workers)


def _work(names: list[str], given: Given, taken, failed) -> None:
    torch.set_num_threads(1)
    bench = Bench.read(given.folder)
    cases = {case.name: case for case in bench.cases}
    while True:
        with taken.get_lock():
            number, taken.value = taken.value, taken.value + 1
        if number >= len(names):
            return
        if given.stop is not None and time.time() > given.stop:
            print(f"{names[number]}: left out, the time is over", flush=True)
            continue
        try:
            line = judge_to(bench, cases[names[number]], Path(given.parts), given.effort, given.device)
        except Exception:  # said, counted, and the other cases are judged all the same
            traceback.print_exc()
            line = f"{names[number]} failed"
        with failed.get_lock():
            failed.value += "failed" in line
        print(line, flush=True)


def join(bench: Bench, parts: Path, out: Path) -> None:
    """All cases in one place, as `published` reads them.

    ``planted.parquet`` has a row for each clip and method, ``planted_metrics.parquet`` the metrics' means
    over a case's clips, ``planted_cases.csv`` every case that was tried, ``planted.json`` what it took.
    """
    save_parquet(joined(parts, "points"), out / "planted.parquet")
    save_parquet(lighter(metric_means(joined(parts, "scores"))), out / "planted_metrics.parquet")
    tried = pd.DataFrame([case.to_dict() | {"counts": case.counts} for case in bench.cases])
    with atomic_path(out / "planted_cases.csv") as path:
        tried.assign(clips=tried["clips"].map(len)).rename(columns={"name": "case"}).to_csv(
            path, index=False, float_format="%.4g"
        )
    records = {
        path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(parts.glob("*.json"))
    }
    write_json(out / "planted.json", records)

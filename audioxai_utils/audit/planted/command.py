"""Judge all cases of a folder, and join them: ``python -m audioxai_utils.audit.planted FOLDER PARTS``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from ...attributions import METHODS
from ...files import atomic_path, save_parquet, write_json
from ...workers import add_options, run
from .agreement import metric_means
from .bench import Bench
from .fills import FILLS, JUDGED_MASKS
from .judge import Effort, joined, judge_to, judged_methods, lighter


def main(arguments: list[str] | None = None) -> int:
    """Judge what is not there yet; 1 where a case or a method failed, or is left of those to be joined."""
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
    working, late = (given.device, given.workers, stop), []
    n_failed = judge_cases(given.folder, parts, names, effort, *working, late=late.append)
    if given.join and late:
        return refuse_to_join(late[0], len(names))
    if given.join:
        join(bench, parts, Path(given.join))
    return int(n_failed > 0)


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="audioxai_utils.audit.planted", description=__doc__)
    parser.add_argument("folder", help="of prepared cases")
    parser.add_argument("parts", help="folder that gets three files a case")
    add_options(parser)
    parser.add_argument("--samples", type=int, default=Effort.n_samples, help="of LIME, SLIME and RISE")
    parser.add_argument("--clips", type=int, default=Effort.n_clips, help="of each case, at most")
    parser.add_argument("--compared", type=int, default=Effort.n_compared, help="clips explained twice")
    parser.add_argument("--heard", type=int, default=Effort.n_heard, help="clips whose sound is made")
    parser.add_argument("--fills", nargs="+", default=FILLS, choices=FILLS)
    parser.add_argument("--masks", nargs="+", default=JUDGED_MASKS, choices=JUDGED_MASKS)
    parser.add_argument("--seconds", type=float, help="no case is begun after these")
    every = tuple(dict.fromkeys([*judged_methods(), *METHODS]))
    parser.add_argument(
        "--methods", nargs="+", default=judged_methods(), choices=every, help="all that need no decoder"
    )
    parser.add_argument("--skip", nargs="+", default=(), choices=judged_methods(), help="methods left out")
    parser.add_argument("--cases", nargs="+", default=(), help="by name; all that count")
    parser.add_argument("--done", nargs="+", default=(), help="names of cases that are left out")
    parser.add_argument("--join", help="folder that gets all cases, as they are published")
    given = parser.parse_args(arguments)
    given.methods = [name for name in given.methods if name not in given.skip]
    return given


def judge_cases(
    folder: str | Path,
    parts: Path,
    names: Sequence[str],
    effort: Effort,
    device: str = "cpu",
    n_workers: int = 1,
    stop: float | None = None,
    tell: Callable[[int, int], None] | None = None,
    late: Callable[[int], None] | None = None,
) -> int:
    """Judge the named cases of a folder that ``parts`` does not hold yet; the number in which something
    failed. ``stop``, ``tell`` and ``late`` are as in `workers.run`.
    """
    one = partial(_one, parts=parts, effort=effort, device=device)
    return run(names, partial(Bench.read, folder), one, n_workers, stop, tell, late)


def _one(bench: Bench, name: str, parts: Path, effort: Effort, device: str) -> tuple[str, bool]:
    (case,) = (case for case in bench.cases if case.name == name)
    return judge_to(bench, case, parts, effort, device)


def refuse_to_join(n_late: int, n: int) -> int:
    """Say that a joined table would hold a part of all; 1, as the command's result."""
    said = f"nothing is joined: {n_late} of {n} were left out, the time is over; run it again to go on"
    print(said, file=sys.stderr)
    return 1


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

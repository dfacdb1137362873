"""What a study costs without its notebooks: attributions and scores of every condition, in seconds.

    python benchmarks/conditions.py results/esc50-paper
    python benchmarks/conditions.py results/esc50-paper --at-once 5 --threads 3

The classifiers are those of the run (notebook 02 wrote them); attributions and scores are stored where the
notebooks look for them, so that a run that comes after it finds them done. Each condition has a process of
its own; ``--at-once`` of them share a GPU. It is resumed by being started again. The table is
``benchmarks/conditions.csv`` of the results.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import torch
from measuring import peak_mb, synchronise

from audioxai_utils import open_study

COLUMNS = ("condition", "what", "clips", "seconds", "peak_mb", "device")


def condition_costs(results: str, number: int) -> pd.DataFrame:
    """Do everything of one condition; a row for its clips, each method and the scores."""
    study = open_study(results)
    condition, rows = study.conditions[number], []

    def timed(what: str, work) -> None:
        peak_mb(study.device, start=True)
        started = time.perf_counter()
        work()
        synchronise(study.device)
        seconds, peak = time.perf_counter() - started, peak_mb(study.device)
        rows.append((condition.name, what, len(condition.clips), seconds, peak, device_name(study.device)))
        print(f"{condition.name} {what}: {seconds:.1f} s, {peak:.0f} MB", flush=True)

    timed("clips", lambda: (condition.clips, condition.classifier, condition.probabilities))
    timed("background", condition.background)
    for method in study.settings.explained_by:
        timed(method, lambda method=method: condition.explained(method))
    timed("scores", condition.score_all)
    return pd.DataFrame(rows, columns=COLUMNS)


def device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def all_conditions(results: str, at_once: int, threads: int) -> pd.DataFrame:
    """Every condition in a process of its own, ``at_once`` of them together."""
    folder = Path(results) / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    names = [condition.name for condition in open_study(results).conditions]
    waiting, running, started = list(range(len(names))), {}, time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    while waiting or running:
        while waiting and len(running) < at_once:
            number = waiting.pop(0)
            words = [sys.executable, __file__, results, "--condition", str(number)]
            running[number] = subprocess.Popen(words, env=environment)
        ended = [number for number, process in running.items() if process.poll() is not None]
        for number in ended:
            if code := running.pop(number).returncode:
                for process in running.values():
                    process.terminate()
                sys.exit(f"{names[number]} failed with exit code {code}")
        time.sleep(0.2)
    parts = [pd.read_csv(folder / f"conditions-{name}.csv") for name in names]
    total = ("all", f"{at_once} at once", max(part["clips"].max() for part in parts))
    total += (time.perf_counter() - started, max(part["peak_mb"].max() for part in parts))
    total += (parts[0]["device"].iloc[0],)
    return pd.concat([*parts, pd.DataFrame([total], columns=COLUMNS)], ignore_index=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", help="results folder of a run whose classifiers are trained")
    parser.add_argument("--at-once", type=int, default=1, help="conditions computed together (default: 1)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of each")
    parser.add_argument("--condition", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    folder = Path(given.results) / "benchmarks"
    if given.condition is not None:
        table = condition_costs(given.results, given.condition)
        table.to_csv(folder / f"conditions-{table['condition'][0]}.csv", index=False)
        return
    table = all_conditions(given.results, given.at_once, given.threads)
    table.to_csv(folder / "conditions.csv", index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()

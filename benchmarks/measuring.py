"""What the benchmarks share: a fresh process for each measurement, what work costs, and where tables go."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import torch

from audioxai_utils.files import atomic_path, write_json
from audioxai_utils.gallery.speed import FOLDER, about_words
from audioxai_utils.run.machine import peak_memory
from audioxai_utils.run.manifest import commit, hardware
from audioxai_utils.run.workflow import environment
from audioxai_utils.workers import end_with_parent


def in_fresh_process(function: Callable, *given):
    """Run ``function`` alone in a new interpreter; its errors come through.

    Its environment is that of the study's steps, so glibc keeps the memory of large tensors: for
    this package's engines and for the libraries' own paths alike.
    """
    os.environ.update(environment())
    with multiprocessing.get_context("spawn").Pool(1, end_with_parent) as pool:
        found = pool.apply(function, given)
        pool.close()
        pool.join()  # it ends by itself, so that what it holds is let go
        return found


def cost(work: Callable, device: str = "cpu") -> dict:
    """Seconds by the clock and of the processor, MB that ``work()`` adds to the peak, and what it returns."""
    before = peak_mb(device, start=True)
    synchronise(device)
    start, start_cpu = time.perf_counter(), time.process_time()
    values = work()
    synchronise(device)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_mb": peak_mb(device) - before,
        "values": values,
    }


def synchronise(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def peak_mb(device: str, start: bool = False) -> float:
    """Largest memory so far: the GPU's allocations, else this process's resident set."""
    if torch.device(device).type == "cuda":
        if start:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated() / 2**20
    return peak_memory() / 2**20


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that every benchmark has."""
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    words = "results folder of a run, whose report then shows the tables"
    parser.add_argument("--results", type=results_folder, help=words)


def results_folder(words: str) -> Path:
    """The folder of that name; argparse makes one line of the error."""
    if not Path(words).is_dir():
        raise argparse.ArgumentTypeError(f"{words}: no such folder; give the results folder of a run")
    return Path(words)


def machine(arguments: argparse.Namespace) -> dict:
    """Processor, cores, memory, device, threads, torch, date and commit of a measurement."""
    return {
        "hardware": hardware(),
        "vector_units": torch.backends.cpu.get_cpu_capability(),
        "device": arguments.device,
        "threads": arguments.threads,
        "torch": torch.__version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
    }


def show(tables: dict[str, pd.DataFrame], setting: str, arguments: argparse.Namespace) -> None:
    """Print tables under what was measured where; keep both in ``--results``, if that is given."""
    about = {"setting": setting, **machine(arguments)}
    print(about_words(about))
    for table in tables.values():
        print(table.to_string(index=False, float_format=lambda value: f"{value:.4g}", na_rep=""), flush=True)
    if arguments.results:
        for name, table in tables.items():
            with atomic_path(arguments.results / FOLDER / f"{name}.csv") as path:
                table.to_csv(path, index=False)
            write_json(arguments.results / FOLDER / f"{name}.json", about)
        print(
            f"in {arguments.results / FOLDER}; the next ./run_all.sh on that folder puts them into its report"
        )

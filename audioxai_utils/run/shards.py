"""One shard of a condition: the clips of one job, without a notebook.

``python -m audioxai_utils.run.shards NOTEBOOK TYPE SCENARIO 2of8 [--threads N]`` computes in the current
folder what notebook 03_attributions or 04_mask_study would compute of those clips. The notebook then finds
their files and merges them; a file that is missing or no longer fits is computed there, so that a shard saves
time and changes no number.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING

from .graph import WILDCARDS, Graph, Step
from .step import Details, run_step

if TYPE_CHECKING:
    from ..study.condition import Condition


def shard_of(text: str) -> tuple[int, int]:
    """(number from 0, count) of ``2of8``; ValueError for anything else."""
    found = re.fullmatch(r"(\d+)of(\d+)", text)
    number, count = (int(word) for word in found.groups()) if found else (0, 0)
    if not 1 <= number <= count:
        raise ValueError(f"shard must be like 2of8, from 1of8 to 8of8; got {text!r}")
    return number - 1, count


def attribute(condition: Condition, shard: tuple[int, int]) -> None:
    """Attribute the shard's clips of a condition by every method."""
    part = condition.shard(shard)
    for method in condition.usable_methods if len(part.clips) else ():
        part.explained(method)


def score(condition: Condition, shard: tuple[int, int]) -> None:
    """Score the shard's clips of a condition, whole blocks of them."""
    from ..study.score import block_size

    for _ in condition.shard(shard, block_size(condition.study.device)).score_blocks():
        pass


WORK = {"03_attributions": attribute, "04_mask_study": score}


def run_shard(step: Step, threads: int) -> int:
    """Do a shard's work as a step of the study in the current folder; return the exit code (`run_step`)."""

    def work(graph: Graph | None) -> None:
        from ..study.study import open_study

        with redirect_stderr(Details(step.name, sys.stderr)):
            condition = open_study(Path.cwd()).condition(step.spectrogram_type, step.noise_scenario)
            WORK[step.notebook](condition, shard_of(step.shard))

    return run_step(step, work, f"logs/{step.name}.log", threads)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of one shard."""
    parser = argparse.ArgumentParser(
        prog="audioxai_utils.run.shards", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("notebook", choices=WORK)
    for name in WILDCARDS:
        parser.add_argument(name)
    parser.add_argument("--threads", type=int, default=1)
    given = vars(parser.parse_args(arguments))
    threads = given.pop("threads")
    return run_shard(Step(**given), threads)


if __name__ == "__main__":
    sys.exit(main())

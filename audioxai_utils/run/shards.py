"""One shard of a condition: the clips of one job, without a notebook.

``python -m audioxai_utils.run.shards NOTEBOOK 2of8 [--threads N] [-p NAME VALUE]...`` computes in the
current folder what notebook 03_attributions or 04_mask_study would compute of those clips. The
notebook then finds their files and merges them; a file that is missing or no longer fits is
computed there, so that a shard saves time and changes no number.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stderr
from pathlib import Path

from . import notebook
from .forkserver import THREAD_VARIABLES
from .graph import CONDITION_PARAMETERS, NOTEBOOKS, PARAMETERS
from ..audio.inputs import scenario_name
from .manifest import write_step
from ..study.sources import parameter_defaults
from .watch import watch_run


def shard_of(text: str) -> tuple[int, int]:
    """(number from 0, count) of ``2of8``; ValueError for anything else."""
    found = re.fullmatch(r"(\d+)of(\d+)", text)
    number, count = (int(word) for word in found.groups()) if found else (0, 0)
    if not 1 <= number <= count:
        raise ValueError(f"shard must be like 2of8, from 1of8 to 8of8; got {text!r}")
    return number - 1, count


def attribute(values: dict, shard: tuple[int, int]) -> None:
    """Attribute the shard's clips of a condition."""
    from ..study import pipeline, study

    settings, condition, classifier = _condition(values)
    clips = study.explained_clips(settings, classifier.spectrogram.sample_rate, condition[1], shard)
    for done, _ in enumerate(pipeline.attribute(settings, classifier, clips, condition, values["method"]), start=1):
        study.report_progress(values["method"], done, len(clips))


def score(values: dict, shard: tuple[int, int]) -> None:
    """Score the shard's clips of a condition, whole blocks of them."""
    from ..study import pipeline, study

    settings, condition, classifier = _condition(values)
    sample_rate = classifier.spectrogram.sample_rate
    clips = study.explained_clips(settings, sample_rate, condition[1], shard, pipeline.SCORE_BLOCK)
    methods, done = pipeline.methods_of(settings, condition, values["methods"]), 0
    for part in pipeline.score(settings, classifier, clips, condition, methods, study.protocols(values["protocol"])):
        done += part["clip"].nunique()
        study.report_progress("scores", done, len(clips))


WORK = {"03_attributions": attribute, "04_mask_study": score}


def _condition(values: dict):
    """(settings, condition, classifier) of a notebook's parameters."""
    from ..study import study

    names = (*PARAMETERS, "results_dir", "n_clips")
    settings = study.Settings(**{name: values[name] for name in names if name in values})
    kind = values["spectrogram_type"]
    return settings, (kind, values["noise_scenario"]), study.load_classifier(settings, kind)


def run_shard(notebook: str, shard: str, parameters: dict[str, str], threads: int) -> int:
    """Do a shard's work as a step of the study in the current folder; return the exit code."""
    results_dir, path = Path.cwd(), NOTEBOOKS / f"{notebook}.ipynb"
    names = [scenario_name(parameters[name]) for name in CONDITION_PARAMETERS if name in parameters]
    step, label = "-".join([notebook, *names, shard]), " ".join([notebook, *names, shard])
    values = parameter_defaults(path) | notebook.checked_parameters(path, {"results_dir": str(results_dir)} | parameters)

    def work() -> None:
        with redirect_stderr(notebook.Details(label, sys.stderr)):
            WORK[notebook](values, shard_of(shard))

    started, log = time.monotonic(), f"logs/{step}.log"
    failure = results_dir / "logs" / "failed" / f"{step}.json"
    code = notebook.told(label, work, lambda reason: {"step": step, "notebook": log, "error": reason}, failure)
    if code == 0:
        write_step(
            results_dir, step, seconds=time.monotonic() - started, cpu_seconds=notebook.processor_time(),
            peak_memory=notebook.peak_memory(resource.RUSAGE_SELF), threads=threads, parameters=values | {"shard": shard},
        )
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of one shard."""
    parser = argparse.ArgumentParser(prog="audioxai_utils.run.shards", description=__doc__, allow_abbrev=False)
    parser.add_argument("notebook", choices=WORK)
    parser.add_argument("shard")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="parameters")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    watch_run()
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(given.threads)))
    return run_shard(given.notebook, given.shard, dict(given.parameters), given.threads)


if __name__ == "__main__":
    sys.exit(main())

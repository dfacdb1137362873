"""The benchmark's tables as notebook 12 shows them: measured by this run, or as they are published.

The paper profile measures them where it has what they are made of, ESC-50 and the tagger's weights.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from ... import published
from ...attributions import METHODS
from ...audio.datasets import fingerprint
from ...audio.inputs import file_digest
from ...study.sources import digest, method_modules
from ...study.study import Study
from . import command, prepare
from .bench import Bench
from .judge import Effort, judged_methods

SLOW = "extremal_heard"  # as long as all others together
EFFORT = Effort(
    n_samples=500,
    n_compared=6,
    n_heard=10,
    methods=tuple(name for name in judged_methods() if name != SLOW),
)


@dataclass(frozen=True)
class Tables:
    """What planted causes gave.

    Attributes
    ----------
    cases : DataFrame
        Every case that was tried, with its proof (`published.planted_cases`).
    points : DataFrame
        A row for each clip and method (`published.planted_points`).
    scores : DataFrame
        Means over a case's clips of every metric (`published.planted_scores`).
    source : str
        Where they come from, a sentence.
    """

    cases: pd.DataFrame
    points: pd.DataFrame
    scores: pd.DataFrame
    source: str


def tables(study: Study) -> Tables:
    """The tables of a run: all cases prepared and judged in its folder, which goes on where it was stopped;
    else the published ones.

    Raises
    ------
    RuntimeError
        A case could not be judged; what was said of it is in the step's log.
    """
    if not study.settings.measures_planted:
        found = (published.planted_cases(), published.planted_points(), published.planted_scores())
        return Tables(*found, "These are the published tables of this package.")
    code = digest(__name__, *method_modules(name for name in METHODS if name in EFFORT.methods))
    weights = file_digest(study.settings.weights)[:12]
    key = f"{fingerprint(study.dataset)}-{weights}-{code}"  # of other sounds, weights or code: another folder
    return measured(study, study.results / "planted" / key)


def measured(study: Study, folder: Path, effort: Effort = EFFORT, **chosen) -> Tables:
    """Make, judge and join the cases in a folder; ``chosen`` are ``classifiers`` and ``plants`` (all)."""
    n_workers, parts = torch.get_num_threads(), folder / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    working = {"device": study.device, "n_workers": n_workers}
    tell = partial(study.progress, "planted causes made")
    given = (study.dataset.root, study.settings.weights, folder / "cases")
    prepare.make_cases(*given, **chosen, **working, tell=tell)
    bench = Bench.read(folder / "cases")
    names = [case.name for case in bench.counted()]
    tell = partial(study.progress, "planted causes judged")
    command.judge_cases(folder / "cases", parts, names, effort, **working, tell=tell)
    lost = [name for name in names if not (parts / f"{name}.json").is_file()]
    if lost:
        raise RuntimeError(f"{len(lost)} of {len(names)} cases could not be judged: {', '.join(lost)}")
    command.join(bench, parts, folder)
    points, scores = (pd.read_parquet(folder / f"{name}.parquet") for name in ("planted", "planted_metrics"))
    cases = pd.read_csv(folder / "planted_cases.csv", keep_default_na=False, na_values=[""])
    return Tables(cases, points, scores, source_of(names, parts, study.device))


def source_of(names: Sequence[str], parts: Path, device: str) -> str:
    """That the run measured the tables, on how many cases, and which methods gave no map in some."""
    records = [json.loads((parts / f"{name}.json").read_text(encoding="utf-8")) for name in names]
    failed = Counter(method for record in records for method in record["failed"])
    without = ", ".join(f"{method} (in {n} cases)" for method, n in failed.items())
    said = f" Errors were met by {without}; the cases' records say which." if failed else ""
    return f"This run measured them: {len(names)} cases, on {device.upper()}.{said}"

"""What a large set of clips would take on a cluster: jobs, hours and bytes, from what a run has measured.

    python benchmarks/plan.py results/esc10-paper --clips 2000000 --jobs 100 > benchmarks/AUDIOSET.md

Every number follows from the run's own records: `manifest.json` (seconds of each step), the attributions on
file (seconds of each clip) and the sizes of its files. Nothing is measured here.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from audioxai_utils.constants import DURATION, SPECTROGRAMS, STUDY_METHODS

GIB = 2**30
HELD = 3  # float32 waveforms of a clip in the merging step: the mixture and its two stems


@dataclass(frozen=True)
class Cost:
    """One kind of work on a clip of a condition: ``seconds`` of a job, ``n_bytes`` that it leaves in
    ``n_files``.
    """

    work: str
    seconds: float
    n_bytes: float
    n_files: int


def step_seconds(manifest: dict, step: str) -> tuple[float, int]:
    """(seconds, jobs) of a step with its shards, as the manifest has them."""
    found = [
        record["seconds"]
        for name, record in manifest["steps"].items()
        if name == step
        or (name.startswith(f"{step}-") and name.rpartition("-")[2].partition("of")[0].isdigit())
    ]
    if not found:
        raise ValueError(f"the manifest has no step {step}; plan from a run that has finished")
    return sum(found), len(found)


def seconds_of(file: Path) -> float:
    """Seconds that a stored attribution took."""
    with np.load(file) as content:
        return float(content["seconds"])


def costs(results: Path, condition: tuple[str, str]) -> tuple[list[Cost], float, int]:
    """Costs of all methods' attributions and of the scores of a condition, seconds that a job takes to start,
    clips.

    A clip's seconds are the methods' medians; what the attributions' step took beside its clips is a job's
    start (imports, loading, figures). The scores are what their step took without such a start.

    Raises
    ------
    FileNotFoundError, ValueError
        The folder holds no finished run, or not this condition.
    """
    path = results / "manifest.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give the results folder of a finished run")
    manifest, medians, spent, n_bytes, n = json.loads(path.read_text(encoding="utf-8")), {}, 0.0, 0.0, 0
    for method in STUDY_METHODS:
        files = sorted((results / "attributions" / Path(*condition) / method).glob("[!.]*.npz"))
        if files:
            seconds, n = [seconds_of(file) for file in files], len(files)
            medians[method], spent = float(np.median(seconds)), spent + sum(seconds)
            n_bytes += sum(file.stat().st_size for file in files) / n
    if not medians:
        raise FileNotFoundError(
            f"{results}: no attributions of {' '.join(condition)}; its conditions are in attributions/"
        )
    found = [Cost(f"attributions ({', '.join(medians)})", sum(medians.values()), n_bytes, len(medians))]
    seconds, jobs = step_seconds(manifest, "-".join(("03_attributions", *condition)))
    start = max(0.0, (seconds - spent) / jobs)
    seconds, jobs = step_seconds(manifest, "-".join(("04_mask_study", *condition)))
    scores = (results / "scores" / condition[0] / f"{condition[1]}.parquet").stat().st_size
    # blocks and the whole
    found.append(Cost("masks and scores", max(0.0, seconds - jobs * start) / n, 2 * scores / n, 0))
    return found, start, n


def clips_in_memory(spectrogram_type: str, memory: float) -> int:
    """Clips of one results folder whose merging steps keep within ``memory`` bytes.

    A merging step holds the waveforms of its condition, its spectrograms and the attributions of one method.
    """
    parameters = SPECTROGRAMS[spectrogram_type]
    n_samples = round(DURATION * parameters.sample_rate)
    return int(memory // (4 * (HELD * n_samples + 2 * parameters.n_bins * parameters.n_frames(n_samples))))


@dataclass(frozen=True)
class Shares:
    """How clips are shared out: ``folders`` of results of at most ``clips`` each, ``shards`` jobs a folder
    and work.
    """

    folders: int
    clips: int
    shards: int

    @classmethod
    def of(cls, n_clips: int, per_folder: int, longest: float, job_seconds: float) -> Shares:
        """Equal folders, and shards that take ``job_seconds`` at most where a clip takes ``longest``."""
        folders = math.ceil(n_clips / per_folder)
        clips = math.ceil(n_clips / folders)
        return cls(folders, clips, max(1, math.ceil(clips * longest / job_seconds)))


def plan(found: list[Cost], start: float, n_clips: int, shares: Shares, at_once: int) -> pd.DataFrame:
    """What each kind of work takes, and their sums: seconds, jobs, hours of the longest, of all and by the
    clock, bytes.
    """
    rows = []
    for cost in found:
        jobs = shares.folders * (shares.shards + (shares.shards > 1))  # the merging step is a job, too
        hours = (n_clips * cost.seconds + jobs * start) / 3600
        longest = (math.ceil(shares.clips / shares.shards) * cost.seconds + start) / 3600
        rows.append(
            {
                "work": cost.work,
                "s a clip": cost.seconds,
                "jobs": jobs,
                "longest job, h": longest,
                "all jobs, h": hours,
                "by the clock, h": max(longest, hours / min(jobs, at_once)),
                "kB a clip": cost.n_bytes / 1e3,
                "TB": n_clips * cost.n_bytes / 1e12,
            }
        )
    frame = pd.DataFrame(rows)
    total = frame.drop(columns="work").sum().to_dict() | {"longest job, h": frame["longest job, h"].max()}
    return pd.DataFrame([*rows, {"work": "**all**", **total}])


def table(frame: pd.DataFrame) -> str:
    """The plan in Markdown."""
    digits = {
        "s a clip": 3,
        "jobs": 0,
        "longest job, h": 2,
        "all jobs, h": 1,
        "by the clock, h": 1,
        "kB a clip": 0,
    }
    digits |= {"TB": 2}
    lines = ["| " + " | ".join(frame.columns) + " |", "|---|" + "---:|" * len(digits)]
    for row in frame.to_dict("records"):
        lines.append(
            "| " + " | ".join([row["work"], *(f"{row[name]:,.{n}f}" for name, n in digits.items())]) + " |"
        )
    return "\n".join(lines)


PAGE = """\
# {clips:,} clips on a cluster

Made by `benchmarks/plan.py` from a finished run; no number in it was typed. To plan from a run of your own:

```bash
python benchmarks/plan.py RESULTS --condition {kind}/{scenario} --clips {clips} --jobs {at_once} --hours {hours:g} \\
    --memory {memory:g} > benchmarks/AUDIOSET.md
```

AudioSet has about two million clips. This plan takes one window of {duration:g} s of each, as the study prepares
its clips, in one condition (`{kind}`, `{scenario}`), with the run's model and settings.

**Measured:** profile `{profile}` on `{dataset}`, {n} clips a condition, {threads}, device `{device}` ({machine}).
A job starts in {start:.1f} s. Seconds of a clip are the median of the run's; scores are those of every mask,
control and protocol of the run.

**Planned:** {folders:,} results folders of {per_folder:,} clips each, {shards} shards a condition, {at_once} jobs at once.

{table}

A job has the cores, or the GPU, that the run's steps had. Hours by the clock suppose that it gets them at once.

## How to run it

The steps that merge shards hold a condition's clips in memory: {limit:,} of them take {memory:g} GiB. So the clips
are split into folders, each with its own `--data-root` and `--results`:

```bash
./run_all.sh --slurm my-profile --shards {shards} --profile {profile} --dataset esc50 --data-root part-001 \\
    --results results/part-001 --spectrogram {kind} --scenario {scenario}
```

Attributions are one file a clip and method, {files:,.0f} files in all; delete `attributions/` of a folder when its
report is made, if the file system counts files.

## What this does not cover

Each results folder trains its own classifier on its folds 1 to 3: the hours above are without training, and the
graph cannot yet be given a classifier that was trained elsewhere. Downloading and decoding AudioSet are left out,
and so are queues; that a clip is read is counted in the start of a job, not in its seconds. Two jobs on one GPU,
slower disks or another model change the seconds: measure with a run of a few hundred clips on your own nodes
first, and make this page again.
"""


def page(results: Path, condition: tuple[str, str], given: argparse.Namespace) -> str:
    """The whole page."""
    found, start, n = costs(results, condition)
    manifest = json.loads((results / "manifest.json").read_text(encoding="utf-8"))
    limit = clips_in_memory(condition[0], given.memory * GIB)
    longest, job_seconds = max(cost.seconds for cost in found), 3600 * given.hours - start
    if job_seconds <= 0:
        raise ValueError(
            f"--hours must be more than a job takes to start ({start:.0f} s); got {given.hours:g}"
        )
    shares = Shares.of(given.clips, limit, longest, job_seconds)
    hardware, settings = manifest["hardware"], manifest["settings"]
    gpus = ", ".join(hardware["gpus"]) if manifest["device"] == "cuda" else ""
    threads = {
        record["threads"] for name, record in manifest["steps"].items() if name.startswith(("03", "04"))
    }
    return PAGE.format(
        clips=given.clips,
        kind=condition[0],
        scenario=condition[1],
        duration=DURATION,
        profile=settings["profile"],
        dataset=settings["dataset"],
        n=n,
        device=manifest["device"],
        machine=gpus or hardware["processor"],
        start=start,
        threads=f"{'/'.join(map(str, sorted(threads)))} thread(s) a job",
        at_once=given.jobs,
        hours=given.hours,
        table=table(plan(found, start, given.clips, shares, given.jobs)),
        per_folder=shares.clips,
        limit=limit,
        memory=given.memory,
        folders=shares.folders,
        shards=shares.shards,
        files=given.clips * found[0].n_files,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="folder of a finished run")
    parser.add_argument(
        "--condition", default="mel_db/clean", help="spectrogram type and scenario (default: mel_db/clean)"
    )
    parser.add_argument("--clips", type=int, default=2_000_000)
    parser.add_argument("--jobs", type=int, default=100, help="at once (default: 100)")
    parser.add_argument("--hours", type=float, default=3.0, help="of a job at most (default: 3)")
    parser.add_argument("--memory", type=float, default=64.0, help="GiB of a node (default: 64)")
    given = parser.parse_args()
    kind, _, scenario = given.condition.partition("/")
    try:
        print(page(given.results, (kind, scenario), given), end="")
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"plan.py: {error}")


if __name__ == "__main__":
    main()

"""Draw scenes, judge all methods on them, join: ``python -m audioxai_utils.audit.stems FOLDER PARTS``.

With ``--prepare ESC50 WEIGHTS LABELS`` the folder is made first.
"""

from __future__ import annotations

import argparse
import shutil
import time
from functools import partial
from pathlib import Path

from ...files import save_parquet
from ...workers import add_options, run
from ..planted.command import refuse_to_join
from ..planted.judge import Effort, joined, judged_methods
from .judge import CLASSES, REFERENCES, WEIGHTS, Stage, judge_to
from .scenes import SEED, read_scenes, scenes_of, write_scenes

N_SCENES, N_REFERENCES, GROUP = 50, 10, 4
SLOW = ("extremal_heard",)


def main(arguments: list[str] | None = None) -> int:
    """Judge what is not there yet; 1 where scenes or a method failed, or are left of those to be joined."""
    parser = argparse.ArgumentParser(prog="audioxai_utils.audit.stems", description=__doc__)
    parser.add_argument("folder", help="of scenes")
    parser.add_argument("parts", help="folder that gets two files a group of scenes")
    parser.add_argument("--prepare", nargs=3, metavar=("ESC50", "WEIGHTS", "LABELS"))
    parser.add_argument("--scenes", type=int, default=N_SCENES)
    add_options(parser)
    parser.add_argument("--samples", type=int, default=300, help="of LIME, SLIME and RISE")
    parser.add_argument("--group", type=int, default=GROUP, help="scenes explained together")
    parser.add_argument("--methods", nargs="+", default=judged_methods(), choices=judged_methods())
    parser.add_argument("--skip", nargs="+", default=SLOW, choices=judged_methods(), help="methods left out")
    parser.add_argument("--seconds", type=float, help="no group is begun after these")
    parser.add_argument("--join", help="file that gets all rows, as they are published")
    given = parser.parse_args(arguments)
    folder, parts = Path(given.folder), Path(given.parts)
    if given.prepare:
        prepare(*given.prepare, folder, given.scenes)
    parts.mkdir(parents=True, exist_ok=True)
    names = [scene.name for scene in read_scenes(folder)]
    groups = [" ".join(names[i : i + given.group]) for i in range(0, len(names), given.group)]
    methods = tuple(name for name in given.methods if name not in given.skip)
    effort = Effort(given.samples, methods=methods)
    one = partial(judge_to, folder=parts, effort=effort, device=given.device)
    stop = time.time() + given.seconds if given.seconds else None
    start, late = partial(Stage.read, folder, given.device), []
    n_failed = run(groups, start, one, given.workers, stop, late=late.append)
    if given.join and late:
        return refuse_to_join(late[0], len(groups))
    if given.join:
        save_parquet(joined(parts, "points"), given.join)
    return int(n_failed > 0)


def prepare(esc50: str, weights: str, labels: str, folder: Path, n_scenes: int) -> None:
    """Scenes of the test recordings, others of the training ones to compare with, and the tagger."""
    write_scenes(scenes_of(esc50, "test", n_scenes), folder)
    write_scenes(scenes_of(esc50, "train", N_REFERENCES, SEED + 1), folder / REFERENCES)
    shutil.copyfile(weights, folder / WEIGHTS)
    shutil.copyfile(labels, folder / CLASSES)

"""A user's own sounds, for a classifier that is trained already: ESC-50's layout, a folder for each class, or
a plain folder of unlabelled files.

Nothing is trained on them. Clips of the csv keep their folds: what is explained is fold 5. Without a csv
every fifth clip of a class is kept as a reference (Deep SHAP compares with them), and the others are
explained.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace
from pathlib import Path

import pandas as pd

from ..constants import OWN
from . import inputs
from .audio_files import FFMPEG_SUFFIXES, by_reason, check_file, read_length, shown
from .datasets import Dataset, find_files, used_folds
from .listing import clip_names, read_listing

LONGEST = 30.0  # s of a clip that are heard; `explain_recording` and shorter cuts are for longer ones
EVERY = 5  # clip of a class that is a reference
REFERENCE, EXPLAINED = 1, 5  # folds


def load_own_dataset(root: str | Path) -> Dataset:
    """The sounds of a folder, as long as the longest of them (at most 30 s), the shorter ones padded.

    Returns
    -------
    Dataset
        ``label`` counts its own categories; `labelled` gives those of a model. An unlabelled clip's category
        is "".

    Raises
    ------
    FileNotFoundError
        No such folder, or no sound in it that can be used.
    ValueError
        Two clips that would share a name, or a csv that cannot be read.
    """
    root = Path(root)
    if (root / "meta" / "esc50.csv").is_file():
        table, faults = read_listing(root)
        clips, problems = find_files(table, root / "audio", faults)
        n_listed = len(table) + len(faults)
        used, unused = used_folds(clips)
        if used.empty:
            unused = [f"{len(clips):,} clips: all in other folds than 1 to 5, so that all are explained"]
        clips, problems = clips if used.empty else used, [*problems, *unused]
    else:
        clips, problems, n_listed = _from_folders(root)
    if clips.empty:
        raise FileNotFoundError(
            f"data_root {root}: no sound in it can be used ({(problems or ['empty'])[0]})"
        )
    lengths = clips["path"].map(read_length)
    n_long = int((lengths > LONGEST).sum())
    if n_long:
        problems = [
            *problems,
            f"{n_long:,} clips: longer than {LONGEST:g} s; their first {LONGEST:g} s are heard",
        ]
    classes = tuple(sorted(set(clips["category"])))
    clips = clips.assign(label=clips["category"].map(classes.index))
    columns = ["clip", "path", "fold", "target", "label", "category"]
    seconds = float(min(LONGEST, lengths.max()))
    return Dataset(
        OWN,
        root,
        clips[columns].reset_index(drop=True),
        classes,
        problems,
        n_listed,
        seconds,
    )


def _from_folders(root: Path) -> tuple[pd.DataFrame, list[str], int]:
    """Clips of a folder whose subfolders, if there are any, name the classes."""
    sounds, found = (*inputs.AUDIO_SUFFIXES, *FFMPEG_SUFFIXES), inputs.files_below(root, to_nothing=True)
    names = [name for name in found if Path(name).suffix.lower() in sounds]
    bad = {}
    for name in names:
        try:
            check_file(root / name)
        except (OSError, ValueError) as error:
            bad[str(root / name)] = error
    kept = [name for name in names if str(root / name) not in bad]
    categories = [Path(name).parts[0] if len(Path(name).parts) > 1 else "" for name in kept]
    clips = pd.DataFrame({"category": categories, "path": [str(root / name) for name in kept]}, dtype=object)
    clips["clip"] = clip_names(kept)
    rank = clips.groupby("category").cumcount()
    fold = (rank % EVERY != EVERY - 1).map({True: EXPLAINED, False: REFERENCE})
    others = sorted(set(found).difference(names))
    unheard = [(name, f"{shown(name)}: no sound, by its name") for name in others]
    return clips.assign(fold=fold, target=0), by_reason([*bad.items(), *unheard]), len(names)


def labelled(dataset: Dataset, classes: tuple[str, ...]) -> Dataset:
    """The dataset with the labels of a model's classes, by name: "dog" and "Dog", "car_horn" and "Car horn".

    A category that is no class has label -1: whether the model is right about it is not known.
    """
    numbers = {_plain(name): number for number, name in enumerate(classes)}
    labels = dataset.clips["category"].map(lambda name: numbers.get(_plain(name), -1))
    return replace(dataset, clips=dataset.clips.assign(label=labels.astype("int64")), classes=tuple(classes))


def _plain(name: str) -> str:
    """Without case, signs between words, and how an accent is written: macOS takes them apart in names."""
    return " ".join(re.sub("[_-]", " ", unicodedata.normalize("NFKC", name)).casefold().split())

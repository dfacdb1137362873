"""Clips of ESC-50 for planted causes: who trains, who is tested, who compares; the same for everybody.

From each class the first clips in file order are taken that sound most of the time. The two classes of the
plant ``event`` give nothing else. Training clips are of folds 1 to 3, validation of 4, tests of 5.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ...audio.datasets import SPLITS, Dataset, load_dataset, load_waveform
from ...models.efficientat import load_efficientat
from .bench import REFERENCES, STORED_RATE, Bench, Sounds, as_stored

POOLS = ("chirping_birds", "clock_alarm")  # the two classes of `event`
SHORTCUT = "dog"  # the class of `cnn14` that gets the plant
PER_CLASS = {"train": (14, 2), "validation": (2, 0), "test": (4, 1)}  # of ESC-10's classes, of the others
N_POOL, N_TESTS = 6, 32
SOUNDING = 0.5  # share of a clip that must not be silent (-50 dB to its loudest tenth of a second)


@dataclass
class Material:
    """A bench without cases, and what its classifiers are trained on: clips and labels.

    ``train`` are all training clips with ESC-50's ids; ``splits`` are ESC-10's of training and validation
    with labels.
    """

    bench: Bench
    train: tuple[Sounds, torch.Tensor]
    splits: dict[str, tuple[Sounds, torch.Tensor]]


def read_material(root: str | Path, weights: str | Path) -> Material:
    """The clips of an ESC-50 folder, and the pretrained tagger."""
    dataset = load_dataset("esc50", root, progress=False)
    ten = tuple(sorted(load_dataset("esc10", root, progress=False).classes))
    pools, chosen = pools_of(dataset), {name: picked(dataset, name, ten) for name in SPLITS}
    sounds = {name: sounds_of_rows(rows, pools[name]) for name, rows in chosen.items()}
    splits = {}
    for name in ("train", "validation"):
        of_ten = np.flatnonzero(chosen[name]["category"].isin(ten))
        labels = [ten.index(category) for category in chosen[name]["category"].iloc[of_ten]]
        splits[name] = (some(sounds[name], of_ten), torch.tensor(labels))
    around = spread(chosen["train"])
    firsts = chosen["train"].reset_index(drop=True).drop_duplicates("category")
    references = {
        "mn04": some(sounds["train"], around[:REFERENCES]),
        "cnn14": some(sounds["train"], [firsts.index[firsts["category"] == name][0] for name in ten]),
    }
    hosts = np.flatnonzero(chosen["test"]["category"].isin(set(ten) - {SHORTCUT}))
    tests = {
        "mn04": some(sounds["test"], spread(chosen["test"])[:N_TESTS]),
        "cnn14": some(sounds["test"], hosts),
    }
    planted = {
        "mn04": tuple(i % 2 == 0 for i in range(REFERENCES)),
        "cnn14": tuple(name == SHORTCUT for name in ten),
    }
    bench = Bench(tests, references, planted, ten, network=load_efficientat(weights))
    targets = torch.tensor(chosen["train"]["target"].to_numpy())
    return Material(bench, (sounds["train"], targets), splits)


def picked(dataset: Dataset, split: str, ten: tuple[str, ...]) -> pd.DataFrame:
    """Rows of the first clips of each class that sound most of the time, with their ``samples``."""
    frames = []
    for category, rows in dataset.split(split).groupby("category"):
        n = PER_CLASS[split][0 if category in ten else 1]
        if category not in POOLS and n:
            frames.append(pd.DataFrame(_sounding(rows, n)))
    return pd.concat(frames, ignore_index=True)


def _sounding(rows: pd.DataFrame, n: int) -> list[dict]:
    found = []
    for row in rows.to_dict("records"):
        samples = as_stored(load_waveform(row["path"], STORED_RATE)[None])
        if sounding(samples)[0] >= SOUNDING:
            found.append({**row, "samples": samples[0]})
        if len(found) == n:
            break
    return found


def sounding(samples: np.ndarray) -> torch.Tensor:
    """Share of tenths of a second (n,) that are within 50 dB of the loudest, of int16 (n, samples)."""
    frames = torch.from_numpy(samples).double().unfold(1, STORED_RATE // 10, STORED_RATE // 10)
    power = frames.square().mean(2)
    return (power > 1e-5 * power.amax(1, keepdim=True)).double().mean(1)


def pools_of(dataset: Dataset) -> dict[str, tuple[np.ndarray, ...]]:
    """int16 (n, samples) of each of the two classes of `event`, in each split."""
    found = {}
    for name in SPLITS:
        rows = dataset.split(name)
        paths = [rows.loc[rows["category"] == pool, "path"][:N_POOL] for pool in POOLS]
        found[name] = tuple(
            as_stored(torch.stack([load_waveform(path, STORED_RATE) for path in each])) for each in paths
        )
    return found


def sounds_of_rows(rows: pd.DataFrame, pools: tuple[np.ndarray, ...]) -> Sounds:
    return Sounds(np.stack(rows["samples"].tolist()), tuple(rows["clip"]), pools)


def some(sounds: Sounds, index) -> Sounds:
    """Some of the clips, with the same pools."""
    return Sounds(sounds.samples[list(index)], tuple(sounds.names[i] for i in index), sounds.pools)


def spread(rows: pd.DataFrame) -> np.ndarray:
    """Places of the rows in an order that goes round the classes."""
    return np.argsort(rows.groupby("category").cumcount().to_numpy(), kind="stable")


# Another folder with these clips alone


def copy_clips(root: str | Path, folder: str | Path) -> int:
    """Copy what `read_material` reads to a smaller folder of the same layout; the number of clips."""
    dataset = load_dataset("esc50", root, progress=False)
    ten = load_dataset("esc10", root, progress=False).classes
    paths = sorted({Path(path) for path in _paths(dataset, ten)})
    table = pd.read_csv(Path(root) / "meta" / "esc50.csv", dtype=str, keep_default_na=False)
    names = {path.name for path in paths}
    for name in ("meta", "audio"):
        (Path(folder) / name).mkdir(parents=True, exist_ok=True)
    stems = table["filename"].map(lambda name: Path(name).stem)
    rows = table[stems.isin({Path(name).stem for name in names})]
    rows.to_csv(Path(folder) / "meta" / "esc50.csv", index=False)
    for path in paths:
        shutil.copyfile(path, Path(folder) / "audio" / path.name)
    return len(paths)


def _paths(dataset: Dataset, ten: tuple[str, ...]) -> Iterator[str]:
    for name in SPLITS:
        yield from picked(dataset, name, ten)["path"]
        rows = dataset.split(name)
        for pool in POOLS:
            yield from rows.loc[rows["category"] == pool, "path"][:N_POOL]

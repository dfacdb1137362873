"""Datasets in ESC-50's layout, waveforms by the protocol, and noise recordings.

Clips that cannot be used (missing, not audio, cut off, NaN) are one line a reason in a list of problems; the
others go on. What concerns a whole dataset (no folder, no csv, a column missing) is an error.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
import torch

from ..constants import DATASETS, DURATION, NOISE_SCENARIOS, OWN, check_choice, default_data_root
from . import inputs, stems
from .audio_files import by_reason, check_file, load_waveform, read_length, read_samples
from .generated.synthesis import generate_dataset, synthesise_noise
from .inputs import AUDIO_SUFFIXES, dataset_folder, match_noise
from .listing import clip_names, read_listing

SPLITS = {"train": (1, 2, 3), "validation": (4,), "test": (5,)}
ROLES = "folds 1 to 3 train, 4 validates, 5 is tested"
SHORTEST = 1.0  # s; a network that halves its frames five times needs half of it


@dataclass(frozen=True)
class Dataset:
    """Clips of a dataset and what is wrong with it.

    Attributes
    ----------
    name : str
        ``generated``, ``esc10`` or ``esc50``.
    root : Path
        Folder with ``meta/esc50.csv`` and ``audio/``.
    clips : pandas.DataFrame
        Columns clip (a name of its own, see `listing.clip_names`), path, fold, target (ESC-50's id),
        label (0..K-1), category, in file order.
    classes : tuple of str
        Category of each label.
    problems : list of str
        One line for each reason why listed clips were left out, or why stems are not used.
    n_listed : int
        Rows of the csv that are of this dataset.
    seconds : float
        Every clip is cut or padded to this length, see `common_length`.
    has_stems : bool
        Whether event and background of every test clip lie beside it and add up to it, see `stems`.
    """

    name: str
    root: Path
    clips: pd.DataFrame
    classes: tuple[str, ...]
    problems: list[str] = field(default_factory=list)
    n_listed: int = 0
    seconds: float = DURATION
    has_stems: bool = False

    @property
    def summary(self) -> str:
        """How many of the listed clips are used, and for what, in one line."""
        sizes = ", ".join(f"{len(self.split(name)):,} {name}" for name in SPLITS)
        return f"{len(self.clips):,} of {self.n_listed:,} listed clips are used: {sizes}"

    def split(self, name: str) -> pd.DataFrame:
        """Clips of ``train`` (folds 1-3), ``validation`` (4) or ``test`` (5)."""
        check_choice("split", name, SPLITS)
        found = self.clips[self.clips["fold"].isin(SPLITS[name])]
        if found.empty and self.name == OWN:  # nothing is trained on them, and a small folder has no others
            found = self.clips
        return found.reset_index(drop=True)

    def stems(
        self, clip: str, sample_rate: int, dtype: torch.dtype = torch.float32
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Event and background of a clip by its name, see `stems.load_stems`; None where there are none.

        Raises
        ------
        KeyError
            The dataset has no such clip.
        """
        rows = self.clips[self.clips["clip"] == clip]
        if rows.empty:
            raise KeyError(f"{self.name} has no clip {clip!r}")
        if not self.has_stems:
            return None
        return stems.load_stems(self.root, Path(rows["path"].iloc[0]), sample_rate, self.seconds, dtype)


def load_dataset(name: str, data_root: str | Path | None = None, progress: bool = True) -> Dataset:
    """Read a dataset; make or download it first where that is possible.

    Parameters
    ----------
    name : str
        ``generated`` (made on the spot), ``esc10`` or ``esc50`` (downloaded where no folder was
        given by ``data_root`` or ``AUDIOXAI_DATA`` and none is in ``data/``).
    data_root : str or Path, optional
        Folder with ``meta/esc50.csv`` and ``audio/`` (WAV, FLAC or Ogg).
    progress : bool
        Show a progress bar while generating or downloading.

    Raises
    ------
    FileNotFoundError
        No such folder, no csv, no audio files.
    ValueError
        Unknown name, a bad csv, clips that would share a name, a class without a training clip, or
        nothing to validate with or to test.
    ConnectionError
        The download failed.
    """
    check_choice("dataset", name, [each for each in DATASETS if each != OWN])
    root = _provide(name, data_root, progress)
    table, faults = read_listing(root)
    if name == "esc10" and "esc10" in table:
        table = table[table["esc10"].str.strip().str.lower().isin(("true", "1"))].reset_index(drop=True)
    n_listed = len(table) + len(faults)
    clips, problems = find_files(table, root / "audio", faults)
    clips, classes = _number_classes(clips, root)
    _check_splits(clips, root)
    clips, unused = used_folds(clips)
    columns = ["clip", "path", "fold", "target", "label", "category"]
    clips, seconds = clips[columns].reset_index(drop=True), common_length(clips["path"])
    dataset = Dataset(name, root, clips, classes, problems + unused, n_listed, seconds)
    given, tested = stems.has_folder(root), map(Path, dataset.split("test")["path"])
    lines = stems.find_faults(root, tested, dataset.seconds, name == "generated") if given else []
    return replace(dataset, problems=dataset.problems + lines, has_stems=given and not lines)


def common_length(paths: Iterable[str]) -> float:
    """Seconds to which the clips of a set are cut or padded: 5, or the longest clip where all are shorter.

    At least `SHORTEST`, and rounded up to a tenth of a second. Padded to 5 s, a spoken digit would be nine
    tenths of silence, and a mask of half of the bins would hold all of it.
    """
    longest = SHORTEST
    for path in paths:
        longest = max(longest, read_length(path))
        if longest >= DURATION:
            return DURATION
    return min(DURATION, math.ceil(round(10 * longest, 6)) / 10)


def load_waveforms(
    clips: pd.DataFrame, sample_rate: int, dtype: torch.dtype = torch.float32, seconds: float = DURATION
) -> tuple[torch.Tensor, list[str]]:
    """Waveforms of several clips, and a line for each that cannot be used.

    Parameters
    ----------
    clips : pandas.DataFrame
        Rows of `Dataset.clips`.
    sample_rate : int
        Hz.
    dtype : torch.dtype
        See `load_waveform`.

    Returns
    -------
    waveforms : torch.Tensor
        float32 (n, seconds * sample_rate), row i for row i of ``clips``; all NaN where clip i is unusable
        (see `usable`).
    problems : list of str
        One line for each reason why clips are unusable.
    """
    waveforms = torch.full((len(clips), round(seconds * sample_rate)), float("nan"))
    faults = []
    for i, path in enumerate(clips["path"]):
        try:
            waveforms[i] = load_waveform(path, sample_rate, dtype, seconds)
        except (OSError, ValueError) as error:
            faults.append((path, error))
    return waveforms, by_reason(faults)


def usable(waveforms: torch.Tensor) -> torch.Tensor:
    """Which rows of `load_waveforms` hold sound; bool (n,)."""
    return ~waveforms.isnan().any(dim=1)


def load_noise(
    noise_scenario: str,
    sample_rate: int,
    noise_root: str | Path | None = None,
    seed: int = 0,
    seconds: float = DURATION,
) -> torch.Tensor | None:
    """The interferer of a scenario: float32 (seconds * sample_rate,), peak 1; None for ``clean``.

    Its first 5 s, or all of a shorter recording, again from their beginning where a clip is longer.

    Parameters
    ----------
    noise_scenario : str
        ``clean``, ``white``, ``room``, ``horse``, or the path of an audio file.
    sample_rate : int
        Hz.
    noise_root : str or Path, optional
        Folder in which exactly one audio file has the scenario's name in its own, or an audio file
        that serves every scenario. Without it the noise is generated.
    seed : int
        Of generated noise.

    Raises
    ------
    FileNotFoundError, ValueError
        Unknown scenario, no or several matching files, or a file without sound in what is used of it.
    """
    if noise_scenario == "clean":
        return None
    path = Path(noise_scenario).expanduser()
    if noise_scenario not in NOISE_SCENARIOS:
        if path.suffix.lower() not in AUDIO_SUFFIXES:
            expected = f"one of {', '.join(NOISE_SCENARIOS)} or an audio file"
            raise ValueError(f"noise_scenario must be {expected}; got {noise_scenario!r}")
    elif noise_root:
        path = match_noise(noise_scenario, Path(noise_root).expanduser())
    else:
        noise = torch.from_numpy(synthesise_noise(noise_scenario, sample_rate, seed, DURATION)).float()
        return _repeated(noise, round(seconds * sample_rate))
    samples, rate = read_samples(path, DURATION)
    length = max(len(samples) / rate, 1 / sample_rate)
    noise = _repeated(load_waveform(path, sample_rate, seconds=length), round(seconds * sample_rate))
    if not noise.any():
        used = min(length, seconds)
        raise ValueError(f"{path}: silent in its first {used:.3g} s, so it cannot serve as noise")
    return noise


def _repeated(noise: torch.Tensor, n_samples: int) -> torch.Tensor:
    """(n_samples,) of a noise (samples,): its beginning, or it again and again."""
    return noise.repeat(-(-n_samples // len(noise)))[:n_samples]


def one_a_class(frame: pd.DataFrame) -> pd.DataFrame:
    """The first clip of every class, in the order of the labels."""
    return frame.drop_duplicates("label").sort_values("label").reset_index(drop=True)


def background_clips(dataset: Dataset, n: int | None = None) -> pd.DataFrame:
    """Deep SHAP's reference clips: the first training clips of each class, in file order.

    ``n`` clips in all, spread over the classes as evenly as they allow; None is two per class.
    """
    if n is not None and n < 1:
        raise ValueError(f"n must be at least 1; got {n}")
    train = dataset.split("train")
    rank = train.groupby("label").cumcount()
    if n is None:
        return train[rank < 2].reset_index(drop=True)
    order = train.assign(rank=rank).sort_values(["rank", "label"], kind="stable").index[:n]
    return train.loc[sorted(order)].reset_index(drop=True)


def fingerprint(dataset: Dataset) -> str:
    """First twelve hex digits of the SHA-256 in the manifest: over all files of the dataset's folder."""
    return inputs.fingerprint(dataset.root)["sha256"][:12]


def _provide(name: str, data_root: str | Path | None, progress: bool) -> Path:
    """The dataset's folder, made or downloaded where that is possible."""
    root = dataset_folder(name, data_root)
    if name == "generated":
        return generate_dataset(root, progress)
    if data_root or os.environ.get("AUDIOXAI_DATA") or root.exists():
        return root
    from .downloads import download_esc50

    return download_esc50(default_data_root("esc50"), progress)


def find_files(table: pd.DataFrame, audio: Path, faults: list) -> tuple[pd.DataFrame, list[str]]:
    """Rows whose file can be used, with columns clip and path; a line for each reason why others cannot."""
    root = audio.parent
    if not audio.is_dir() or not any(audio.iterdir()):
        raise FileNotFoundError(f"data_root {root}: its audio folder is missing or empty")
    clips = table.assign(path=[str(audio / name) for name in table["filename"]])
    clips["clip"] = clip_names(table["filename"].tolist())
    bad = {}
    for path in clips["path"]:
        try:
            check_file(path)
        except (OSError, ValueError) as error:
            bad[path] = error
    problems = by_reason([*faults, *bad.items()])
    if len(bad) == len(clips):
        if not problems:
            raise FileNotFoundError(f"{root}: its meta/esc50.csv lists no clip of this dataset")
        n = len(bad) + len(faults)
        raise FileNotFoundError(f"data_root {root}: none of its {n} listed clips can be used ({problems[0]})")
    return clips[~clips["path"].isin(bad)].copy(), problems


def _number_classes(clips: pd.DataFrame, root: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The clips with a column label, and the category of each label; a target has one, and it no other."""
    for one, many in (("target", "category"), ("category", "target")):
        for name, values in clips.groupby(one)[many]:
            if values.nunique() > 1:
                found = ", ".join(map(str, sorted(values.unique())))
                raise ValueError(f"{root}: {one} {name} has more than one {many}: {found}")
    targets = sorted(clips["target"].unique())
    categories = clips.drop_duplicates("target").set_index("target")["category"]
    trained = set(clips.loc[clips["fold"].isin(SPLITS["train"]), "target"])
    untrained = [categories[target] for target in targets if target not in trained]
    if untrained:
        raise ValueError(f"{root}: no training clip (folds 1-3) of class {', '.join(untrained)}")
    labels = {target: label for label, target in enumerate(targets)}
    return clips.assign(label=clips["target"].map(labels)), tuple(categories[target] for target in targets)


def _check_splits(clips: pd.DataFrame, root: Path) -> None:
    for split, folds in SPLITS.items():
        if not clips["fold"].isin(folds).any():
            raise ValueError(f"{root}: no clip that can be used in fold {folds[0]} ({split}); {ROLES}")


def used_folds(clips: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The clips of the five folds, and a line on those of others."""
    used = clips["fold"].isin([fold for folds in SPLITS.values() for fold in folds])
    others = sorted(clips.loc[~used, "fold"].unique())
    line = f"{(~used).sum():,} clips: in a fold that is not used ({', '.join(map(str, others))}; {ROLES})"
    return clips[used], [line] if others else []

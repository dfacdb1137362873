"""Datasets in ESC-50's layout, waveforms by the protocol, and noise recordings.

A clip that cannot be used (missing, not audio, empty, NaN) is one line in a list of problems; the
other clips go on. What concerns a whole dataset (no folder, no csv, a column missing) is an error.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch

from . import inputs
from ..constants import DATASETS, DURATION, NOISE_SCENARIOS, check_choice, default_data_root
from .inputs import AUDIO_SUFFIXES, dataset_folder, match_noise
from .noise import pad_or_cut, peak_normalise
from .generated.synthesis import generate_dataset, synthesise_noise

CSV_COLUMNS = ("filename", "fold", "target", "category")
SPLITS = {"train": (1, 2, 3), "validation": (4,), "test": (5,)}
MAX_RESAMPLING_KERNEL = 5e7  # taps; rates without a common divisor would need gigabytes


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
        Columns clip (file stem), path, fold, target (ESC-50's id), label (0..K-1), category,
        in file order.
    classes : tuple of str
        Category of each label.
    problems : list of str
        One line for each listed clip that was left out.
    """

    name: str
    root: Path
    clips: pd.DataFrame
    classes: tuple[str, ...]
    problems: list[str] = field(default_factory=list)

    def split(self, name: str) -> pd.DataFrame:
        """Clips of ``train`` (folds 1-3), ``validation`` (4) or ``test`` (5)."""
        check_choice("split", name, SPLITS)
        return self.clips[self.clips["fold"].isin(SPLITS[name])].reset_index(drop=True)


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
        Unknown name, a bad csv, or a class without a training clip.
    ConnectionError
        The download failed.
    """
    check_choice("dataset", name, DATASETS)
    root = _provide(name, data_root, progress)
    table = _read_csv(root)
    if name == "esc10" and "esc10" in table:
        table = table[table["esc10"].astype(str).str.lower().isin(("true", "1"))]
    clips, problems = _find_files(table, root)
    targets = sorted(clips["target"].unique())
    clips["label"] = clips["target"].map({target: label for label, target in enumerate(targets)})
    categories = clips.groupby("target")["category"].agg(lambda names: sorted(set(names)))
    _check_classes(clips, categories, root)
    columns = ["clip", "path", "fold", "target", "label", "category"]
    classes = tuple(categories[target][0] for target in targets)
    return Dataset(name, root, clips[columns].reset_index(drop=True), classes, problems)


def load_waveform(path: str | Path, sample_rate: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Mono waveform by the protocol: channel mean, resampled, cut or padded to 5 s, peak 1.

    It is resampled in ``dtype``: float32 as published, or float64, whose result is the same on every machine.

    Returns
    -------
    torch.Tensor
        float32 (5 * sample_rate,); a silent clip stays silent.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        Not audio, without samples, or with NaN or infinite samples.
    """
    return peak_normalise(_read_audio(path, sample_rate, dtype))


def load_waveforms(
    clips: pd.DataFrame, sample_rate: int, dtype: torch.dtype = torch.float32
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
        float32 (n, 5 * sample_rate), row i for row i of ``clips``; all NaN where clip i is unusable
        (see `usable`).
    problems : list of str
        One line for each unusable clip.
    """
    waveforms = torch.full((len(clips), round(DURATION * sample_rate)), float("nan"))
    problems = []
    for i, path in enumerate(clips["path"]):
        try:
            waveforms[i] = load_waveform(path, sample_rate, dtype)
        except (OSError, ValueError) as error:
            problems.append(str(error))
    return waveforms, problems


def usable(waveforms: torch.Tensor) -> torch.Tensor:
    """Which rows of `load_waveforms` hold sound; bool (n,)."""
    return ~waveforms.isnan().any(dim=1)


def load_noise(
    noise_scenario: str, sample_rate: int, noise_root: str | Path | None = None, seed: int = 0
) -> torch.Tensor | None:
    """The interferer of a scenario: float32 (5 * sample_rate,), peak 1; None for ``clean``.

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
        Unknown scenario, no or several matching files, or a file without sound.
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
        return torch.from_numpy(synthesise_noise(noise_scenario, sample_rate, seed, DURATION)).float()
    noise = load_waveform(path, sample_rate)
    if not noise.any():
        raise ValueError(f"{path}: silent in its first {DURATION:g} s, so it cannot serve as noise")
    return noise


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


def load_stems(
    dataset: Dataset, clip: str, sample_rate: int, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Event and background of a generated clip, on the scale of its peak-normalised mixture.

    Returns
    -------
    tuple of torch.Tensor or None
        float32 (5 * sample_rate,) each; their sum is `load_waveform` of the clip (to rounding).
        None where the dataset has no stems.

    Raises
    ------
    KeyError
        The dataset has no such clip.
    """
    rows = dataset.clips[dataset.clips["clip"] == clip]
    if rows.empty:
        raise KeyError(f"{dataset.name} has no clip {clip!r}")
    path = Path(rows["path"].iloc[0])
    paths = [dataset.root / "stems" / stem / path.name for stem in ("event", "background")]
    if not all(stem.is_file() for stem in paths):
        return None
    event, background = (_read_audio(stem, sample_rate, dtype) for stem in paths)
    peak = _read_audio(path, sample_rate, dtype).abs().max()
    divisor = peak if peak > 0 else torch.ones(())
    return event / divisor, background / divisor


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


def _read_audio(path: str | Path, sample_rate: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """float32 (5 * sample_rate,) at the file's own level, resampled in ``dtype``."""
    import soundfile
    from torchaudio.functional import resample

    with _open_audio(path) as file:
        rate = file.samplerate
        try:
            samples = file.read(math.ceil((DURATION + 0.1) * rate), dtype="float64", always_2d=True)
        except soundfile.SoundFileError as error:
            raise ValueError(f"{path}: damaged audio file ({error})") from error
    if len(samples) == 0:
        raise ValueError(f"{path}: holds no samples")
    waveform = torch.from_numpy(samples).to(dtype).mean(dim=1)  # (samples,)
    if not torch.isfinite(waveform).all():
        raise ValueError(f"{path}: holds NaN or infinite samples")
    if rate * sample_rate / math.gcd(rate, sample_rate) ** 2 > MAX_RESAMPLING_KERNEL:
        raise ValueError(f"{path}: cannot resample its {rate} Hz to {sample_rate} Hz; convert it first")
    return pad_or_cut(resample(waveform, rate, sample_rate), round(DURATION * sample_rate)).float()


def _open_audio(path: str | Path):
    import soundfile

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        return soundfile.SoundFile(path)
    except soundfile.SoundFileError as error:
        reason = str(error).rsplit(": ", 1)[-1].splitlines()[0]
        raise ValueError(f"{path}: not a readable audio file ({reason})") from error


def _read_csv(root: Path) -> pd.DataFrame:
    path = root / "meta" / "esc50.csv"
    if not root.is_dir():
        raise FileNotFoundError(f"data_root {root}: no such folder (it needs meta/esc50.csv and audio/)")
    if not path.is_file():
        raise FileNotFoundError(f"data_root {root}: it has no meta/esc50.csv")
    try:
        table = pd.read_csv(path)
    except (ValueError, UnicodeDecodeError) as error:  # pandas' parser errors are ValueErrors
        raise ValueError(f"{path}: not a readable csv ({str(error).splitlines()[0]})") from error
    missing = [column for column in CSV_COLUMNS if column not in table]
    if missing:
        raise ValueError(f"{path}: lacks the column {', '.join(missing)}; it needs {', '.join(CSV_COLUMNS)}")
    for column in ("fold", "target"):
        if not pd.api.types.is_integer_dtype(table[column]):
            raise ValueError(f"{path}: column {column} must hold whole numbers in every row")
    if table["filename"].duplicated().any():
        name = table.loc[table["filename"].duplicated(), "filename"].iloc[0]
        raise ValueError(f"{path}: lists {name} more than once")
    return table


def _find_files(table: pd.DataFrame, root: Path) -> tuple[pd.DataFrame, list[str]]:
    """Rows whose file can be used, with columns clip and path; a line for every other row."""
    audio = (root / "audio").resolve()
    if not audio.is_dir() or not any(audio.iterdir()):
        raise FileNotFoundError(f"data_root {root}: its audio folder is missing or empty")
    paths = [(audio / str(name)).resolve() for name in table["filename"]]
    faults = [_fault(path, audio) for path in paths]
    clips = table.assign(path=[str(path) for path in paths], clip=[path.stem for path in paths])
    clips = clips[[fault is None for fault in faults]].copy()
    problems = [fault for fault in faults if fault]
    if clips.empty:
        raise FileNotFoundError(
            f"data_root {root}: none of its {len(table)} listed clips can be used ({problems[0]})"
            if problems else f"{root}: its meta/esc50.csv lists no clip of this dataset"
        )
    return clips, problems


def _fault(path: Path, audio: Path) -> str | None:
    """One line on what is wrong with a listed file, from its header (and samples where they may be NaN)."""
    import soundfile

    if audio not in path.parents:
        return f"{path}: listed in meta/esc50.csv, but it lies outside {audio}"
    try:
        with _open_audio(path) as file:
            if file.frames == 0:
                return f"{path}: holds no samples"
            if file.subtype in ("FLOAT", "DOUBLE"):
                _read_audio(path, file.samplerate)
    except (OSError, ValueError, soundfile.SoundFileError) as error:
        return str(error)
    return None


def _check_classes(clips: pd.DataFrame, categories: pd.Series, root: Path) -> None:
    for target, names in categories.items():
        if len(names) > 1:
            found = ", ".join(map(str, names))
            raise ValueError(f"{root}: target {target} has more than one category: {found}")
    trained = set(clips.loc[clips["fold"].isin(SPLITS["train"]), "target"])
    untrained = [names[0] for target, names in categories.items() if target not in trained]
    if untrained:
        raise ValueError(f"{root}: no training clip (folds 1-3) of class {', '.join(map(str, untrained))}")

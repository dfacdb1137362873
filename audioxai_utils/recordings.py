"""Explain long recordings, and folders of them: where each class speaks, and why, in memory that stays
flat.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch

from .attributions import METHODS
from .audio.audio_files import shown
from .audio.streaming import Window, sound_files, windows
from .explanation import Explanation, as_classifier, explain
from .models.classifier import AudioClassifier

SECONDS = 5.0  # of a window
AT_ONCE = 8  # windows classified at once
ENERGY = 0.9  # share of a kept sound's energy that its short sound holds
MARGIN = 0.1  # s around it


@dataclass(frozen=True)
class Reason:
    """Why a class is heard in one window.

    Attributes
    ----------
    start : float
        Of the window in the recording (s).
    class_name, p : str, float
        The explained class and its probability in the window.
    explanation : Explanation
        Of the window.
    sound : torch.Tensor
        (samples,) the shortest stretch of the kept sound with `ENERGY` of its energy, with a margin.
    sound_start : float
        Where that begins in the recording (s).
    """

    start: float
    class_name: str
    p: float
    explanation: Explanation
    sound: torch.Tensor
    sound_start: float


@dataclass(frozen=True)
class Recording:
    """What a classifier hears in a recording.

    Attributes
    ----------
    path : Path
    sample_rate : int
        Of the sounds (Hz).
    seconds, window, hop : float
        Length of the recording, of a window and from one to the next (s).
    probabilities : pandas.DataFrame
        A row a window, by where it begins (``start``, s), a column a class.
    reasons : list of Reason
        In the order of time.
    mask : str
        Of the kept sounds.
    folder : Path, optional
        The folder of recordings that it was found in.
    """

    path: Path
    sample_rate: int
    seconds: float
    window: float
    hop: float
    probabilities: pd.DataFrame
    reasons: list[Reason]
    mask: str
    folder: Path | None = None

    @property
    def name(self) -> str:
        """Its path in the folder, so that it differs from all others there; without one the file's name."""
        inside = self.folder is not None and self.path.is_relative_to(self.folder)
        return self.path.relative_to(self.folder).as_posix() if inside else self.path.name

    def table(self) -> pd.DataFrame:
        """A row a reason: file (`name`), start, class, p, sound_start, sound_seconds, and the mask's heard
        scores.
        """
        rows = []
        for reason in self.reasons:
            scores = reason.explanation.scores.loc[self.mask]
            wanted = ["FidIn_heard", "FF_heard"] if "FF_heard" in scores else ["FidIn", "FF"]
            rows.append(
                {
                    "file": self.name,
                    "start": reason.start,
                    "class": reason.class_name,
                    "p": reason.p,
                    "sound_start": reason.sound_start,
                    "sound_seconds": len(reason.sound) / self.sample_rate,
                    **{name: float(scores[name]) for name in wanted},
                }
            )
        return pd.DataFrame(rows)

    def save_sounds(self, folder: str | os.PathLike) -> list[Path]:
        """Write every reason's short sound as WAV, named by file, second and class.

        Another sound of that name, such as of a file of the same name in another folder, stays: the new one's
        name then ends in a number.
        """
        Path(folder).mkdir(parents=True, exist_ok=True)
        paths = []
        for reason in self.reasons:
            name = "".join(sign if sign.isalnum() else "_" for sign in reason.class_name)
            sound = reason.sound.float().cpu().numpy()
            stem = f"{self.path.stem}-{reason.sound_start:08.2f}s-{name}"
            paths.append(_free(Path(folder), stem, sound))
            soundfile.write(paths[-1], sound, self.sample_rate, "FLOAT")
        return paths


def _free(folder: Path, stem: str, sound: np.ndarray) -> Path:
    """A name for a sound (samples,): ``stem``, or with a number where another sound has that."""
    number, path = 1, folder / f"{stem}.wav"
    while path.exists() and not np.array_equal(soundfile.read(path, dtype="float32")[0], sound):
        number += 1
        path = folder / f"{stem}-{number}.wav"
    return path


def explain_recording(
    classifier: AudioClassifier,
    path: str | os.PathLike,
    *,
    window: float = SECONDS,
    hop: float | None = None,
    target=None,
    n_reasons: int = 5,
    least: float = 0.0,
    method: str = "gradcam",
    mask: str = "topK_30_pos",
    **options,
) -> Recording:
    """Classify a recording of any length window by window, and explain where it speaks most.

    The file is read twice, each time from its beginning and one window at a time.

    Parameters
    ----------
    classifier : AudioClassifier
    path : path
        A sound file; M4A, AAC and WebM through ffmpeg where that is installed.
    window, hop : float
        Length of a window and the step to the next (s); hop is half a window by default.
    target : str, int or sequence of them, optional
        Classes that are looked for; None: in each window the most probable one, and what a
        detector of a single label detects.
    n_reasons : int
        Windows that are explained: the most probable ones that do not overlap.
    least : float
        Probability below which no window is explained.
    method, mask, **options
        As in `explain`, such as ``heard=True``. The gradient is proved on the first window.

    Raises
    ------
    TypeError, ValueError, FileNotFoundError
        As `explain`, in one line.
    """
    classifier = as_classifier(classifier, options.pop("spectrogram", None))
    hop = window / 2 if hop is None else hop
    if n_reasons < 0:
        raise ValueError(f"n_reasons must be 0 or more; got {n_reasons}")
    p, starts, seconds = _scan(classifier, Path(path), window, hop)
    columns = _columns(classifier, target)
    best = p[:, columns].argmax(1)
    own = p[np.arange(len(p)), np.array(columns)[best]]
    chosen = {number for number in _apart(own, starts, window, n_reasons) if own[number] >= least}
    reasons, check = [], options.pop("check_gradient", True)
    for piece in windows(path, window, hop, classifier.sample_rate):
        if piece.number not in chosen:
            continue
        column = columns[int(best[piece.number])]
        reasons.append(_reason(classifier, piece, column, method, mask, check, options))
        check = check and not METHODS.traits(method).gradients
    table = pd.DataFrame(p, columns=list(classifier.classes), index=pd.Index(starts, name="start"))
    return Recording(Path(path), classifier.sample_rate, seconds, window, hop, table, reasons, mask)


def explain_folder(
    classifier: AudioClassifier, folder: str | os.PathLike, **options
) -> Iterator[Recording | str]:
    """`explain_recording` of every sound file below a folder, one after the other.

    A file that cannot be read is one line instead, which begins with its path; what is wrong with the
    classifier or with ``options`` is raised.
    """
    classifier = as_classifier(classifier, options.pop("spectrogram", None))
    for path in sound_files(folder):
        try:
            yield replace(explain_recording(classifier, path, **options), folder=Path(folder))
        except (ValueError, OSError) as refusal:
            if not str(refusal).startswith(f"{shown(path)}: "):
                raise
            yield str(refusal)


def _scan(
    classifier: AudioClassifier, path: Path, window: float, hop: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Probabilities (windows, classes), where windows begin (s), and the recording's length (s)."""
    found, starts, held, seconds = [], [], [], 0.0

    def classify() -> None:
        found.append(classifier.probabilities(torch.stack(held)).double().cpu().numpy())
        held.clear()

    for piece in windows(path, window, hop, classifier.sample_rate):
        held.append(piece.samples)
        starts.append(piece.start)
        seconds = piece.start + piece.seconds
        if len(held) == AT_ONCE:
            classify()
    if held:
        classify()
    return np.concatenate(found), np.array(starts), seconds


def _columns(classifier: AudioClassifier, target) -> list[int]:
    if target is None:
        one_label = classifier.reading().one_label
        return [1] if one_label else list(range(len(classifier.classes)))  # of a detector what it detects
    several: Sequence = target if isinstance(target, (list, tuple)) else [target]
    if not several:
        raise ValueError("target must name classes, or be None for all; got an empty list")
    return [classifier.index(each) for each in several]


def _apart(p: np.ndarray, starts: np.ndarray, window: float, n: int) -> set[int]:
    """Numbers of the ``n`` most probable windows that do not overlap each other."""
    chosen: list[int] = []
    for number in np.argsort(-p, kind="stable").tolist():
        if len(chosen) == n:
            break
        if all(abs(starts[number] - starts[other]) >= window - 1e-9 for other in chosen):
            chosen.append(number)
    return set(chosen)


def _reason(
    classifier: AudioClassifier,
    piece: Window,
    column: int,
    method: str,
    mask: str,
    check: bool,
    options: dict,
) -> Reason:
    options = options | {"method": method, "masks": [mask], "check_gradient": check}
    found, rate = explain(classifier, piece.samples, target=column, **options), classifier.sample_rate
    kept = found.kept_audio(mask)[: round(piece.seconds * rate)]
    first, last = loudest_stretch(kept, rate)
    p = float(found.probabilities[found.target])
    return Reason(
        piece.start, found.target_name, p, found, kept[first:last].clone(), piece.start + first / rate
    )


def loudest_stretch(sound: torch.Tensor, sample_rate: int, share: float = ENERGY) -> tuple[int, int]:
    """First and last sample of the shortest stretch of a sound (samples,) with ``share`` of its energy.

    With a margin of `MARGIN` seconds; all of a silent sound.
    """
    total = torch.cat([sound.new_zeros(1), sound.double().square().cumsum(0).to(sound.device)]).double()
    if float(total[-1]) <= 0:
        return 0, len(sound)
    ends = torch.searchsorted(total, total + share * total[-1] * (1 - 1e-12))  # of a stretch from each sample
    lengths = torch.where(ends <= len(sound), ends - torch.arange(len(total), device=ends.device), len(total))
    first = int(lengths.argmin())
    margin = round(MARGIN * sample_rate)
    return max(0, first - margin), min(len(sound), first + int(lengths[first]) + margin)

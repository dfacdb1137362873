"""The known parts of a dataset's clips: event and background, as files beside them that add up to them.

``stems/event/`` and ``stems/background/`` hold a file of each clip's name. Whether they are used is decided
once for a dataset, by its test clips: what is measured of all is not known where one of them has no parts.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from .audio_files import by_reason, open_sound, read_waveform, shown

PARTS = ("event", "background")
CLOSE = 1e-3  # of the clip's peak, -60 dB
ROUNDING = 4 / 32768  # three files of 16 bits, resampled
REMEDY = "or remove the folder stems"


def has_folder(root: Path) -> bool:
    """Whether a dataset's folder holds stems at all."""
    return (root / "stems").is_dir()


def load_stems(
    root: Path, path: Path, sample_rate: int, seconds: float, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    """Event and background of the clip at ``path``, on the scale of its peak-normalised mixture.

    Returns
    -------
    tuple of torch.Tensor
        (seconds * sample_rate,) each; their sum is `load_waveform` of the clip (to rounding).

    Raises
    ------
    FileNotFoundError
        One of the two files is missing.
    ValueError
        One of them cannot be read, or they do not add up to the clip.
    """
    whole = read_waveform(path, sample_rate, dtype, seconds)
    event, background = _read_parts(root, path, whole, sample_rate, seconds)
    peak = whole.abs().max()
    divisor = peak if peak > 0 else torch.ones(())
    return event / divisor, background / divisor


def find_faults(root: Path, paths: Iterable[Path], seconds: float, generated: bool) -> list[str]:
    """A line for each reason why the stems of clips cannot be used; none where they can.

    Stems of ``generated`` sounds are written by this package, so that for them the files need only be there.
    """
    faults = []
    for path in paths:
        try:
            if generated:
                _files(root, path)
            else:
                _check(root, path, seconds)
        except (OSError, ValueError) as error:
            faults.append((str(path), error))
    return [f"no stems are used: {line}" for line in by_reason(faults)]


def _check(root: Path, path: Path, seconds: float) -> None:
    """Raise what `load_stems` would of a clip, at its own rate."""
    _files(root, path)
    with open_sound(path) as file:
        rate = file.samplerate
    try:
        whole = read_waveform(path, rate, seconds=seconds)
    except (OSError, ValueError):
        return  # the clip itself cannot be heard: it is left out, and said, where clips are loaded
    _read_parts(root, path, whole, rate, seconds)


def _files(root: Path, path: Path) -> list[Path]:
    """The files of a clip's two parts."""
    inside = path.relative_to(root / "audio")
    files = [root / "stems" / part / inside for part in PARTS]
    for part, file in zip(PARTS, files):
        if not file.is_file():
            raise FileNotFoundError(
                f"{shown(path)}: has no file of its name in stems/{part}; add it {REMEDY}"
            )
    return files


def _read_parts(
    root: Path, path: Path, whole: torch.Tensor, sample_rate: int, seconds: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Event and background (samples,) at the files' own level, which add up to ``whole`` (samples,)."""
    event, background = (
        read_waveform(file, sample_rate, whole.dtype, seconds) for file in _files(root, path)
    )
    peak, gap = float(whole.abs().max()), float((event + background - whole).abs().max())
    if gap > max(CLOSE * peak, ROUNDING):
        raise ValueError(
            f"{shown(path)}: its stems do not add up to it; write both as WAV or FLAC whose sum is the clip, "
            f"{REMEDY} (they miss it by {gap:.2g} of full scale, its peak is {peak:.2g})"
        )
    return event, background

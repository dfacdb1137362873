"""A long recording as overlapping windows: read once from its beginning, never held whole."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .audio_files import FFMPEG_SUFFIXES, check_phase, check_rates, check_whole, decoded, open_sound, shown
from .inputs import AUDIO_SUFFIXES, files_below
from .reading import as_mono


@dataclass(frozen=True)
class Window:
    """A piece of a recording: its number, where it begins (s), and its samples (n,), mono at the wanted rate.

    A last one that goes beyond the end is filled up with zeros; ``seconds`` is what of it is sound.
    """

    number: int
    start: float
    seconds: float
    samples: torch.Tensor


def windows(path: str | Path, seconds: float, hop: float, sample_rate: int) -> Iterator[Window]:
    """Overlapping windows of a sound file of any length, each resampled by itself.

    Parameters
    ----------
    path : str or Path
    seconds, hop : float
        Length of a window and step from one to the next (s), rounded to the file's samples; hop is at most
        the length. sample_rate : int Hz, of the windows.

    Raises
    ------
    FileNotFoundError, ValueError
        No sound file, a damaged one, sizes that do not fit; at its end, a file that is not whole, or whose
        channels cancel each other.
    """
    if not 0 < hop <= seconds:
        raise ValueError(f"hop must lie above 0 and not above seconds, {seconds:g}; got {hop:g}")
    path = Path(path)
    with open_sound(path) as file:
        rate = file.samplerate
        check_rates(rate, sample_rate, shown(path))
        length, step = round(seconds * rate), max(1, round(hop * rate))
        n = math.ceil(length * sample_rate / rate)
        number, held = 0, np.zeros((0, file.channels))
        n_read, energies = 0, np.zeros(2)  # of the mean and of all channels
        while True:
            read = decoded(file, length - len(held), path)
            held = np.concatenate([held, read])
            n_read += len(read)
            energies += np.square(read.mean(1)).sum(), np.square(read).mean(1).sum()
            if len(held) < length:
                check_whole(file, path, n_read)
                check_phase(*energies, shown(path))
            if number and len(read) == 0:
                return  # the window before it had all of this
            if not np.isfinite(read).all():
                raise ValueError(f"{shown(path)}: holds NaN or infinite samples")
            mono = as_mono(held.mean(1), rate, sample_rate)
            filled = torch.nn.functional.pad(mono, (0, max(0, n - len(mono))))[:n]
            yield Window(number, number * step / rate, len(held) / rate, filled)
            if len(held) < length:
                return
            held, number = held[step:], number + 1


def sound_files(folder: str | Path) -> list[Path]:
    """All sound files below a folder, by name, as `files_below`; those that ffmpeg must read come along.

    Raises
    ------
    FileNotFoundError
        No such folder, or none in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{shown(folder)}: no such folder")
    known = (*AUDIO_SUFFIXES, *FFMPEG_SUFFIXES)
    found = [folder / name for name in files_below(folder, to_nothing=True)]
    found = [path for path in found if path.suffix.lower() in known]
    if not found:
        raise FileNotFoundError(f"{shown(folder)}: holds no sound file ({', '.join(known)})")
    return found

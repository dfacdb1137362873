"""One sound file as the study hears it: opened, decoded, mono, resampled, cut or padded to 5 s.

Whatever cannot be heard as it was meant is refused in one line, ``path: reason (details)``: a file that is no
sound, is cut off, holds NaN, or whose channels cancel each other.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile
import torch

from ..constants import DURATION
from .containers import missing_part
from .noise import pad_or_cut, peak_normalise

LOWEST_RATE, HIGHEST_RATE = 1_000, 1_000_000  # Hz; outside of it a header is damaged
MAX_RESAMPLING_KERNEL = 5e7  # taps; rates without a common divisor would need gigabytes
ANTIPHASE = 1e-3  # -60 dB: a mean of channels below it is what rounding left of them
UNKNOWN_FRAMES = 2**62  # libsndfile's count of a FLAC whose header does not tell, or more
BLOCK = 2**16  # samples decoded at once where they are only counted
FFMPEG_SUFFIXES = (".m4a", ".aac", ".mp4", ".webm", ".mka", ".wma", ".amr", ".3gp")  # not libsndfile's
SHOWN = 3  # names in a line that speaks of many


def load_waveform(
    path: str | Path, sample_rate: int, dtype: torch.dtype = torch.float32, seconds: float = DURATION
) -> torch.Tensor:
    """Mono waveform by the protocol: channel mean, resampled, cut or padded to ``seconds``, peak 1.

    It is resampled in ``dtype``: float32 as published, or float64, whose result is the same on every machine.

    Returns
    -------
    torch.Tensor
        float32 (seconds * sample_rate,); a silent clip stays silent.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        Not audio, cut off within its first ``seconds``, without samples, with NaN or infinite ones, or with
        channels that cancel each other.
    """
    return peak_normalise(read_waveform(path, sample_rate, dtype, seconds))


def read_waveform(
    path: str | Path, sample_rate: int, dtype: torch.dtype = torch.float32, seconds: float = DURATION
) -> torch.Tensor:
    """As `load_waveform`, at the file's own level."""
    from torchaudio.functional import resample

    channels, rate = read_samples(path, seconds + 0.1)  # (samples, channels) float64
    check_rates(rate, sample_rate, shown(path))
    waveform = channels.to(dtype).mean(dim=1)  # (samples,)
    if not torch.isfinite(waveform).all():
        raise ValueError(f"{shown(path)}: holds NaN or infinite samples")
    check_phase(waveform.square().mean(), channels.square().mean(), shown(path))
    return pad_or_cut(resample(waveform, rate, sample_rate), round(seconds * sample_rate)).float()


def read_length(path: str | Path) -> float:
    """Length of a sound file in seconds, as its header says; of an MP3 that is an estimate.

    A streamed FLAC whose header does not tell is read to its end; ValueError where that cannot be decoded.
    """
    path = Path(path)
    with open_sound(path) as file:
        if file.frames < UNKNOWN_FRAMES:
            return file.frames / file.samplerate
        n_frames = 0
        while block := len(decoded(file, BLOCK, path)):
            n_frames += block
        return n_frames / file.samplerate


def check_phase(mono: float | torch.Tensor, channels: float | torch.Tensor, subject: str) -> None:
    """Raise a ValueError that begins with ``subject`` where rounding alone is left of the channels' mean.

    ``mono`` and ``channels`` are the mean squares of that and of all channels.
    """
    if mono < ANTIPHASE**2 * channels:
        raise ValueError(f"{subject}: its channels cancel each other (antiphase); keep one of them")


def check_rates(rate: int, sample_rate: int, subject: str) -> None:
    """Raise a ValueError that begins with ``subject`` unless ``rate`` can become ``sample_rate`` (Hz).

    Resampling multiplies by a kernel of as many taps as the two rates have multiples before they meet:
    `44101` to `32000` would take gigabytes.
    """
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise ValueError(
            f"{subject}: its sample rate is not between {LOWEST_RATE:,} and {HIGHEST_RATE:,} Hz ({rate:,} Hz)"
        )
    if rate * sample_rate / math.gcd(rate, sample_rate) ** 2 > MAX_RESAMPLING_KERNEL:
        raise ValueError(f"{subject}: cannot resample its {rate} Hz to {sample_rate} Hz; convert it first")


def check_file(path: str | Path) -> None:
    """Raise what `load_waveform` would where a look at the header, or for NaN at the samples, is enough."""
    with open_sound(Path(path)) as file:
        if file.frames == 0 or (file.frames >= UNKNOWN_FRAMES and read_length(path) == 0):
            raise ValueError(f"{shown(path)}: holds no samples")
        rate, may_hold_nan = file.samplerate, file.subtype in ("FLOAT", "DOUBLE")
    if may_hold_nan:
        read_waveform(path, rate)


def by_reason(faults: Iterable[tuple[str, Exception | str]]) -> list[str]:
    """One line for each reason why files were left out, however many there are.

    Parameters
    ----------
    faults : iterable of (str, Exception or str)
        A file's name and what was said of it; a message may begin with the path and end in details ``(...)``.
    """
    groups: dict[str, list[tuple[str, str]]] = {}
    for name, fault in faults:
        message = str(fault)
        reason = message.rpartition(f"{Path(name).name}: ")[2].partition(" (")[0]
        groups.setdefault(reason, []).append((shown(Path(name).name), message))
    lines = []
    for reason, found in groups.items():
        if len(found) == 1:
            lines.append(found[0][1])
            continue
        names = ", ".join(name for name, _ in found[:SHOWN])
        more = f" and {len(found) - SHOWN:,} more" if len(found) > SHOWN else ""
        lines.append(f"{len(found):,} clips: {reason} ({names}{more})")
    return lines


def shown(name: str | Path) -> str:
    """A file's name on one line: what cannot be printed, or is not UTF-8, as its escape."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in str(name))


class Forward(soundfile.SoundFile):
    """A sound file that is read once, from its beginning: seeking fails in a FLAC of unknown length."""

    def seekable(self) -> bool:
        """Never."""
        return False


class Converted(Forward):
    """A file that ffmpeg decodes into a temporary WAV, which goes away when it is closed."""

    folder: tempfile.TemporaryDirectory | None = None

    def __init__(self, path: Path) -> None:
        """ValueError where ffmpeg is not installed or cannot read the file."""
        name, kind = shown(path), path.suffix[1:].upper()
        if shutil.which("ffmpeg") is None:
            raise ValueError(
                f"{name}: {kind} needs ffmpeg, which is not installed; install it or convert to WAV"
            )
        self.folder = tempfile.TemporaryDirectory()
        wav = Path(self.folder.name) / "decoded.wav"
        # no options in what it is given: a path may begin with a dash
        line = ["ffmpeg", "-v", "error", "-nostdin", "-i", path.resolve(), "-vn", "-c:a", "pcm_f32le"]
        line += ["-rf64", "auto", wav]  # a WAV's sizes end at 4 GiB
        done = subprocess.run(line, capture_output=True, text=True, check=False, errors="replace")
        if done.returncode or not wav.is_file():
            self.folder.cleanup()
            said = (done.stderr.strip().splitlines() or ["no sound in it"])[-1]
            raise ValueError(f"{name}: not a readable audio file (ffmpeg: {said})")
        super().__init__(wav)

    def close(self) -> None:
        """Close it and remove what was decoded."""
        super().close()
        if self.folder is not None:
            self.folder.cleanup()


def read_samples(path: str | Path, seconds: float) -> tuple[torch.Tensor, int]:
    """The beginning of a file, at most ``seconds``: float64 (samples, channels), and its sample rate in Hz.

    Raises
    ------
    FileNotFoundError, ValueError
        As `load_waveform`, for what is asked for of the file.
    """
    path = Path(path)
    with open_sound(path) as file:
        rate = file.samplerate
        check_rates(rate, rate, shown(path))
        wanted = math.ceil(seconds * rate)
        samples = decoded(file, wanted, path)
        check_whole(file, path, len(samples), wanted)
    return torch.from_numpy(samples), rate


def decoded(file: soundfile.SoundFile, n: int, path: Path) -> np.ndarray:
    """The next ``n`` samples of a file, or those that are left: float64 (samples, channels).

    ValueError, which names ``path``, where they cannot be decoded.
    """
    try:
        return file.read(n, dtype="float64", always_2d=True)
    except soundfile.SoundFileError as error:
        raise ValueError(f"{shown(path)}: damaged audio file ({str(error).splitlines()[0]})") from error


def check_whole(file: Forward, path: Path, n_read: int, wanted: int | None = None) -> None:
    """Raise a ValueError unless a decoder gave all of a file, or the ``wanted`` samples of it.

    Parameters
    ----------
    file : Forward
        The open file.
    path : Path
    n_read : int
        Samples that were read of each channel.
    wanted : int, optional
        How many were asked for; None: all.
    """
    guessed = file.frames >= UNKNOWN_FRAMES or file.format == "MP3"
    announced = n_read if guessed else file.frames if wanted is None else min(wanted, file.frames)
    if n_read < announced:
        raise ValueError(f"{shown(path)}: decodes only in part ({n_read:,} of {announced:,} samples)")
    if n_read == 0:
        raise ValueError(f"{shown(path)}: holds no samples")
    looked_into = path.suffix.lower() not in FFMPEG_SUFFIXES
    lost = missing_part(path, file.format, n_read, n_read == wanted) if looked_into else None
    if lost:
        raise ValueError(f"{shown(path)}: decodes only in part ({lost})")


def open_sound(path: Path) -> Forward:
    """The file, or an error in one line; what libsndfile does not read comes through ffmpeg where that is
    installed.
    """
    name = shown(path)
    if "\0" in str(path):
        raise ValueError(f"{name}: its name holds a NUL")
    if any("\ud800" <= sign <= "\udfff" for sign in str(path)):
        raise ValueError(f"{name}: its name is not UTF-8; rename it")
    if path.suffix.lower() == ".raw":
        raise ValueError(f"{name}: samples without a header; convert it to WAV first")
    try:
        if path.is_file():
            return Converted(path) if path.suffix.lower() in FFMPEG_SUFFIXES else Forward(path)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{name}: not a readable audio file ({reason_of(error)})") from error
    except OSError as error:
        raise type(error)(f"{name}: {error.strerror or error}") from error
    target = f" (a link to {shown(path.readlink())}, which is not there)" if path.is_symlink() else ""
    raise FileNotFoundError(f"{name}: no such file{target}")


def reason_of(error: soundfile.LibsndfileError) -> str:
    """Why libsndfile cannot open a file that is there, without the file's name."""
    unknown = error.code in (1, 2)  # by the second it means that it found no beginning of an MP3
    return "no format that is known" if unknown else error.error_string.splitlines()[0].rstrip(".")

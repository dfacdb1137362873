"""Compressed sound files for pages: their loudness, their level on disk and how loud to play them.

Every file is stored as loud as it may be without clipping, up to one common loudness. A page then
only ever turns sounds down (browsers cannot turn them up, and a page opened from a folder may not
use Web Audio on its files): to equal loudness, or to their true levels against each other.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np

MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
TARGET_LOUDNESS = -20.0  # LUFS of a stored file, where its peaks allow it
PEAK_LIMIT = -1.5  # dB below full scale; MP3 decoders overshoot a little
SILENCE = -90.0  # dB RMS; below it a sound is not stored
LARGEST_CUT = 12.0  # dB; a page does not turn the other sounds down further to match one single click
BLOCK, STEP = 0.4, 0.1  # s, of BS.1770's gating
BEXT_OFFSET = -0.691  # dB, BS.1770's constant: a 997 Hz sine at full scale has -3.01 LUFS


@dataclass(frozen=True)
class StoredSound:
    """A sound as a page uses it; `data` is empty for silence.

    Attributes
    ----------
    data : bytes
        The MP3 file.
    seconds : float
        Duration of the original waveform.
    gain : float
        dB by which the file is louder than the waveform.
    loudness : float
        LUFS of the file.
    """

    data: bytes
    seconds: float
    gain: float
    loudness: float


def _k_weighting(sample_rate: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The two filters of ITU-R BS.1770-5, annex 1, moved to any sample rate: (b, a) pairs."""
    tangent, quality = np.tan(np.pi * 1681.974450955533 / sample_rate), 0.7071752369554196
    high = 10 ** (3.999843853973347 / 20)
    middle = high**0.4996667741545416
    divisor = 1 + tangent / quality + tangent**2
    poles = np.array([1, 2 * (tangent**2 - 1) / divisor, (1 - tangent / quality + tangent**2) / divisor])
    zeros = (
        np.array(
            [
                high + middle * tangent / quality + tangent**2,
                2 * (tangent**2 - high),
                high - middle * tangent / quality + tangent**2,
            ]
        )
        / divisor
    )
    shelf = (zeros, poles)
    tangent, quality = np.tan(np.pi * 38.13547087602444 / sample_rate), 0.5003270373238773
    divisor = 1 + tangent / quality + tangent**2
    poles = np.array([1, 2 * (tangent**2 - 1) / divisor, (1 - tangent / quality + tangent**2) / divisor])
    return [shelf, (np.array([1.0, -2.0, 1.0]), poles)]


def loudness(waveform, sample_rate: int) -> float:
    """Integrated loudness of a mono sound.

    Parameters
    ----------
    waveform : array (samples,)
        Full scale is 1.
    sample_rate : int
        Hz.

    Returns
    -------
    float
        LUFS; -inf for silence. Sounds of which every block falls below the absolute gate (or that
        are shorter than a block) are measured without gates.

    References
    ----------
    ITU-R BS.1770-5, annex 1, equations 1 to 7 (one channel); EBU R 128.
    """
    from scipy.signal import lfilter

    sound = np.asarray(waveform, dtype=float).reshape(-1)
    for b, a in _k_weighting(sample_rate):
        sound = lfilter(b, a, sound)
    size, step = round(BLOCK * sample_rate), round(STEP * sample_rate)
    starts = range(0, max(0, len(sound) - size) + 1, step)
    power = np.array([np.mean(sound[start : start + size] ** 2) for start in starts])
    levels = BEXT_OFFSET + 10 * np.log10(np.maximum(power, 1e-30))
    loud = levels > -70
    if loud.any():
        relative = BEXT_OFFSET + 10 * np.log10(power[loud].mean()) - 10
        loud &= levels > relative
    mean = power[loud].mean() if loud.any() else power.mean()
    return float(BEXT_OFFSET + 10 * np.log10(mean)) if mean > 0 else -np.inf


def store(waveform, sample_rate: int, compression: float = 0.85) -> StoredSound:
    """Compress a mono sound to MP3 (the one format that Chromium, Firefox and Safari all play).

    Parameters
    ----------
    waveform : array (samples,)
        Full scale is 1.
    sample_rate : int
        Hz; one of `MP3_RATES`. It is kept.
    compression : float
        soundfile's level with a variable rate, 0 (largest) to 1 (smallest). At 0.85 five seconds of
        white noise take 23 kB at 32 kHz (bandwidth 11 kHz) and 14 kB at 16 kHz (7.2 kHz); at 0.8, 28 kB
        at 32 kHz (15 kHz).

    Raises
    ------
    ValueError
        Sample rate that MP3 does not have; a waveform that is not finite or empty.
    """
    sound = np.asarray(waveform, dtype=float).reshape(-1)
    if sample_rate not in MP3_RATES:
        raise ValueError(f"sample_rate must be one of MP3's {MP3_RATES}; got {sample_rate}; resample first")
    if not len(sound) or not np.isfinite(sound).all():
        raise ValueError(f"waveform must be finite and not empty; got {len(sound)} samples")
    seconds = len(sound) / sample_rate
    rms = np.sqrt(np.mean(sound**2))
    if rms <= 10 ** (SILENCE / 20):
        return StoredSound(b"", seconds, 0.0, -np.inf)
    level = loudness(sound, sample_rate)
    gain = min(TARGET_LOUDNESS - level, PEAK_LIMIT - 20 * np.log10(np.abs(sound).max()))
    return StoredSound(
        _mp3(sound * 10 ** (gain / 20), sample_rate, compression), seconds, float(gain), level + gain
    )


def _mp3(sound: np.ndarray, sample_rate: int, compression: float) -> bytes:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(
        buffer,
        sound,
        sample_rate,
        format="MP3",
        subtype="MPEG_LAYER_III",
        compression_level=compression,
        bitrate_mode="VARIABLE",
    )
    return buffer.getvalue()


def player_html(waveform, sample_rate: int, words: str = "", compression: float = 0.85) -> str:
    """A player as HTML that holds the sound as MP3, about 20 kB for five seconds; as loud as peaks allow.

    ``words`` stand before it, in HTML; for the rest see `store`. In a notebook: ``IPython.display.HTML``.
    """
    stored = store(waveform, sample_rate, compression)
    if not stored.data:
        return f"<p>{words}<br>silent</p>"
    data = base64.b64encode(stored.data).decode()
    return f'<p>{words}<br><audio controls preload="metadata" src="data:audio/mpeg;base64,{data}"></audio></p>'


def matched_cuts(loudness: dict[str, float]) -> dict[str, float]:
    """dB (0 or less) by which a page turns each sound down so that all are heard equally loud.

    ``loudness`` holds LUFS of the files; none is turned down further than `LARGEST_CUT` for a single one.
    """
    common = max(min(loudness.values()), max(loudness.values()) - LARGEST_CUT)
    return {name: min(0.0, common - level) for name, level in loudness.items()}


def playback_volumes(sounds: dict[str, StoredSound]) -> dict[str, dict[str, float]]:
    """Volumes (0 to 1) at which a page plays sounds that are heard against each other.

    Returns
    -------
    dict
        Per audible sound ``matched`` and ``true`` (volumes) and ``gain``: dB by which matched playback
        lifts the sound above its true level, relative to the first sound.
    """
    audible = {name: sound for name, sound in sounds.items() if sound.data}
    if not audible:
        return {}
    matched = matched_cuts({name: sound.loudness for name, sound in audible.items()})
    quietest_file = min(sound.gain for sound in audible.values())
    true = {name: quietest_file - sound.gain for name, sound in audible.items()}
    first = next(iter(audible))
    offset = matched[first] - true[first]
    return {
        name: {
            "matched": round(10 ** (matched[name] / 20), 5),
            "true": round(10 ** (true[name] / 20), 5),
            "gain": round(matched[name] - true[name] - offset, 2),
        }
        for name in audible
    }

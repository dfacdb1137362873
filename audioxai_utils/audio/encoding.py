"""Compressed sound files for pages: how loud a sound is, and its MP3.

Every file is stored as loud as it may be without clipping, up to one common loudness. A page then only ever
turns sounds down (`gallery.players`): browsers cannot turn them up, and a page opened from a folder may not
use Web Audio on its files.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np

MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
TARGET_LOUDNESS = -20.0  # LUFS of a stored file, where its peaks allow it
PEAK_LIMIT = -1.5  # dB below full scale; MP3 decoders overshoot a little
SILENCE = -90.0  # dB RMS; below it a sound is not stored
BLOCK = 0.4  # s, of BS.1770's gating
LIFT = 100.0  # dB, for sounds below the absolute gate


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


def loudness(waveform, sample_rate: int) -> float:
    """Integrated loudness of a mono sound, measured by pyloudnorm.

    Parameters
    ----------
    waveform : array (samples,)
        Full scale is 1.
    sample_rate : int
        Hz.

    Returns
    -------
    float
        LUFS; -inf for silence. A sound of which every block falls below the absolute gate of -70 LUFS is
        measured as if it were 100 dB louder. One that is shorter than a block, or sounds behind its last
        whole block alone, is one block.

    References
    ----------
    ITU-R BS.1770-5, annex 1, equations 1 to 7 (one channel). "DeMan" are its filters for any sample rate.
    """
    from pyloudnorm import Meter

    sound = np.asarray(waveform, dtype=float).reshape(-1)
    if not sound.any():
        return -np.inf
    seconds = len(sound) / sample_rate
    for lift, block in ((0.0, min(BLOCK, seconds)), (LIFT, min(BLOCK, seconds)), (LIFT, seconds)):
        meter = Meter(sample_rate, "DeMan", block_size=block)
        level = float(meter.integrated_loudness(sound * 10 ** (lift / 20))) - lift
        if np.isfinite(level):
            break
    return level


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
    gain = float(min(TARGET_LOUDNESS - level, PEAK_LIMIT - 20 * np.log10(np.abs(sound).max())))
    return StoredSound(_mp3(sound * 10 ** (gain / 20), sample_rate, compression), seconds, gain, level + gain)


def _mp3(sound: np.ndarray, sample_rate: int, compression: float) -> bytes:
    import soundfile

    buffer, how = io.BytesIO(), {"compression_level": compression, "bitrate_mode": "VARIABLE"}
    soundfile.write(buffer, sound, sample_rate, format="MP3", subtype="MPEG_LAYER_III", **how)
    return buffer.getvalue()

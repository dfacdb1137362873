"""A sound of the user's, a file or an array, as mono samples at the rate that is wanted."""

from __future__ import annotations

import math
import numbers
import os
import warnings

import numpy as np
import torch
from torchaudio.functional import resample

from .audio_files import check_phase, check_rates, read_samples, shown

MOST_CHANNELS = 8  # a second axis this short is channels, as soundfile.read returns them
LOUDEST = 100.0  # 40 dB above full scale: integers that were taken for samples in [-1, 1]
MOST_SECONDS = 120.0  # of one clip; an explanation holds many pictures of it at once


def as_mono(waveform, sample_rate: int | None, wanted_rate: int) -> torch.Tensor:
    """Samples (n,) at ``wanted_rate`` of a path or of an array (n,) or (channels, n) at ``sample_rate``.

    Channels are averaged, and refused where they cancel each other; nothing is normalised. A peak above 100
    is warned of, and so are more than 8 channels of an array. ``sample_rate`` None is a file's own, or
    ``wanted_rate``.

    Raises
    ------
    FileNotFoundError, TypeError, ValueError
        What cannot be read as sound, in one line.
    """
    subject = "waveform"
    if isinstance(waveform, (str, os.PathLike)):
        subject = shown(waveform)
        samples, rate = read_samples(waveform, MOST_SECONDS + 1)
        waveform = samples.T  # (channels, samples)
        if sample_rate not in (None, rate):
            raise ValueError(
                f"sample_rate must be the file's own, {rate} Hz, or left out; got {sample_rate!r}"
            )
        sample_rate = rate
    samples = _as_tensor(waveform)
    if not samples.is_floating_point():
        raise TypeError(f"waveform must be floating point in [-1, 1]; got {samples.dtype}")
    if samples.ndim not in (1, 2) or samples.numel() == 0:
        raise ValueError(f"waveform must be (samples,) or (channels, samples); got {tuple(samples.shape)}")
    if samples.ndim == 2 and samples.shape[1] <= MOST_CHANNELS < samples.shape[0]:
        got = f"{tuple(samples.shape)}, which looks transposed: pass waveform.T"
        raise ValueError(f"waveform must be (channels, samples); got {got}")
    if not torch.isfinite(samples).all():
        raise ValueError("waveform must be finite; it holds NaN or infinite samples")
    samples = (
        samples.float() if samples.dtype.itemsize < 4 else samples
    )  # half precision is too coarse to resample
    peak = float(samples.abs().max())
    if peak > LOUDEST:
        warnings.warn(
            f"{subject} has its peak at {peak:.4g} where 1 is full scale; divide 16-bit integers by 2**15",
            stacklevel=4,
        )
    if samples.ndim == 2 and len(samples) > MOST_CHANNELS and subject == "waveform":
        warnings.warn(
            f"waveform has {len(samples)} rows, which are averaged as channels of one sound; of a batch of "
            "clips give each to explain_many",
            stacklevel=4,
        )
    if samples.ndim == 2:
        channels, samples = samples, samples.mean(0)
        check_phase(samples.square().mean(), channels.square().mean(), subject)
    return _resampled(samples, sample_rate, wanted_rate)


def _as_tensor(waveform) -> torch.Tensor:
    """An array as a tensor without gradient, whichever way its numbers lie in memory; TypeError for what is
    none.
    """
    try:
        if isinstance(waveform, np.ndarray):  # backwards, and of another machine's byte order, too
            waveform = np.ascontiguousarray(waveform, waveform.dtype.newbyteorder("="))
        samples = torch.as_tensor(waveform).detach()
        return samples.clone() if samples.is_inference() else samples
    except (TypeError, ValueError, RuntimeError) as error:
        pair = isinstance(waveform, tuple) and len(waveform) == 2 and np.ndim(waveform[1]) == 0
        hint = "pass waveform, sample_rate" if pair else "soundfile.read makes such an array"
        raise TypeError(
            "waveform must be a path, or an array of numbers (samples,) or (channels, samples); got "
            f"{type(waveform).__name__}: {hint}"
        ) from error


def _resampled(samples: torch.Tensor, sample_rate: int | None, wanted_rate: int) -> torch.Tensor:
    rate = wanted_rate if sample_rate is None else sample_rate
    if not isinstance(rate, numbers.Real) or not 1 <= rate < math.inf or rate != int(rate):
        raise ValueError(f"sample_rate must be a whole number of Hz; got {rate!r}")
    seconds = len(samples) / rate
    if seconds > MOST_SECONDS:
        raise ValueError(
            f"waveform must last {MOST_SECONDS:g} s at most; got {seconds:.1f} s: cut it into pieces"
        )
    rate = int(rate)
    check_rates(rate, wanted_rate, "sample_rate")
    return resample(samples, rate, wanted_rate) if rate != wanted_rate else samples

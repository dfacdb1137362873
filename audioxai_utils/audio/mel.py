"""Mel scales and filters: HTK's, Slaney's and Kaldi's, each written once.

References
----------
O'Shaughnessy (1987), Speech Communication: 2595 log10(1 + f / 700), HTK's. Slaney
(1998), Auditory Toolbox: linear below 1 kHz, logarithmic above. Povey et al. (2011), Kaldi: 1127 ln(1 + f /
700), and triangles that are straight over mel instead of over Hz.
"""

from __future__ import annotations

import math

import torch
from torchaudio.functional import melscale_fbanks

from ..constants import check_choice
from ..numerics import default_dtype

MEL_SCALES = ("htk", "slaney", "kaldi")
FACTORS = {"htk": 2595 / math.log(10), "kaldi": 1127.0}  # of ln(1 + f / 700)
# where the scale bends, and its slope above
SLANEY_HZ, SLANEY_MEL, SLANEY_STEP = 1000.0, 15.0, math.log(6.4) / 27


def hz_to_mel(hz: torch.Tensor, scale: str = "htk") -> torch.Tensor:
    """Mels of frequencies (Hz), any shape."""
    if scale != "slaney":
        return FACTORS[scale] * torch.log1p(hz / 700)
    bent = SLANEY_MEL + (hz.clamp_min(SLANEY_HZ) / SLANEY_HZ).log() / SLANEY_STEP
    return torch.where(hz < SLANEY_HZ, hz * SLANEY_MEL / SLANEY_HZ, bent)


def mel_to_hz(mel: torch.Tensor, scale: str = "htk") -> torch.Tensor:
    """Frequencies (Hz) of mels, any shape."""
    if scale != "slaney":
        return 700 * torch.expm1(mel / FACTORS[scale])
    bent = SLANEY_HZ * ((mel.clamp_min(SLANEY_MEL) - SLANEY_MEL) * SLANEY_STEP).exp()
    return torch.where(mel < SLANEY_MEL, mel * SLANEY_HZ / SLANEY_MEL, bent)


def mel_centres(n_mels: int, f_min: float, f_max: float, scale: str = "htk") -> torch.Tensor:
    """Centre frequency of each filter, Hz, (n_mels,)."""
    low, high = (float(hz_to_mel(torch.tensor(f, dtype=torch.float64), scale)) for f in (f_min, f_max))
    return mel_to_hz(torch.linspace(low, high, n_mels + 2, dtype=torch.float64)[1:-1], scale).float()


def mel_filters(
    n_freqs: int,
    f_min: float,
    f_max: float,
    n_mels: int,
    sample_rate: int,
    scale: str = "htk",
    norm: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Triangular filters (n_freqs, n_mels), float64.

    Parameters
    ----------
    n_freqs : int
        Bins of the STFT, n_fft // 2 + 1.
    scale : {"htk", "slaney", "kaldi"}
    norm : "slaney", optional
        Filters of equal area instead of equal height; torchaudio's, and so not for ``kaldi``.
    dtype : torch.dtype
        In which torchaudio computes HTK's and Slaney's.

    Raises
    ------
    ValueError
        An unknown scale or norm.
    """
    check_choice("mel_scale", scale, MEL_SCALES)
    if norm not in ((None,) if scale == "kaldi" else (None, "slaney")):
        raise ValueError(
            f"norm must be {'None' if scale == 'kaldi' else 'None or slaney'} with {scale}; got {norm!r}"
        )
    if scale != "kaldi":
        with default_dtype(dtype):
            return melscale_fbanks(n_freqs, f_min, f_max, n_mels, sample_rate, norm, scale).double()
    ends = hz_to_mel(torch.tensor([f_min, f_max], dtype=torch.float64), scale)
    edges = torch.linspace(float(ends[0]), float(ends[1]), n_mels + 2, dtype=torch.float64)
    # (n_freqs, 1)
    mel = hz_to_mel(torch.linspace(0, sample_rate / 2, n_freqs, dtype=torch.float64), scale)[:, None]
    step = edges[1] - edges[0]
    rising, falling = (mel - edges[:-2]) / step, (edges[2:] - mel) / step
    filters = torch.minimum(rising, falling).clamp_min(0)  # (n_freqs, n_mels)
    filters[-1] = 0.0  # Kaldi's banks leave out the highest bin
    return filters

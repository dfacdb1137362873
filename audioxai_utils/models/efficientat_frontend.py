"""What EfficientAT hears: Kaldi's mel filters on a pre-emphasised power spectrogram, with gradients.

Two ways lead to its input: `EfficientATMel` from a waveform at 32 kHz, the published one, and `StftToMel`
from the study's STFT in dB at 16 kHz, so that the same network can be explained on that representation too.

References
----------
Povey et al. (2011), The Kaldi Speech Recognition Toolkit (mel scale and filters).
Schmid, Koutini & Widmer (2023), Efficient Large-Scale Audio Tagging via Transformer-to-CNN Knowledge
Distillation.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from ..audio.mel import mel_filters

SAMPLE_RATE, N_FFT, WIN_LENGTH, HOP_LENGTH = 32000, 1024, 800, 320
N_MELS, F_MAX = 128, 15000.0  # filters from 0 to F_MAX Hz
PRE_EMPHASIS = 0.97
EPSILON = 1e-5  # power added before the logarithm: what is below 10 log10(EPSILON) = -50 dB is silence
OFFSET, SCALE = 4.5, 5.0

STFT_RATE, STFT_N_FFT, STFT_HOP = 16000, 512, 256  # of the study's stft_db


class EfficientATMel(nn.Module):
    """Normalised log-mel spectrogram of a waveform at 32 kHz.

    Input (batch, samples), output (batch, 1, 128, frames) with (samples - 1) // 320 + 1 frames, one each
    10 ms. Pre-emphasis x[t] - 0.97 x[t-1] (one sample fewer), STFT with a symmetric Hann window of 800
    samples in the middle of 1024, power, mel filters to a power p, then (ln(p + 1e-5) + 4.5) / 5.

    Attributes
    ----------
    sample_rate : int
        32000 Hz.
    floor_db : float
        -50 dB: the mel power of silence, 10 log10 of what is added before the logarithm.
    floor : float
        The same in units of the output, about -1.40.

    Notes
    -----
    The output is at least ``floor``, and no finite power reaches further down: a mask that wants silence must
    not go to -100 dB. Window and filters are kept in float64 and used in the waveform's dtype.
    """

    sample_rate = SAMPLE_RATE
    floor_db = 10 * math.log10(EPSILON)
    floor = (math.log(EPSILON) + OFFSET) / SCALE

    def __init__(self) -> None:
        super().__init__()
        window = torch.hann_window(WIN_LENGTH, periodic=False, dtype=torch.float64)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", kaldi_mel_filters(), persistent=False)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        if waveform.ndim != 2 or not waveform.is_floating_point():
            got = f"{waveform.dtype} {tuple(waveform.shape)}"
            raise ValueError(f"waveform must be floating and (batch, samples); got {got}")
        shortest = N_FFT // 2 + 2  # what the padding reflects, after the pre-emphasis
        if waveform.shape[1] < shortest:
            raise ValueError(f"waveform must have at least {shortest} samples; got {waveform.shape[1]}")
        emphasised = waveform[:, 1:] - PRE_EMPHASIS * waveform[:, :-1]  # (batch, samples - 1)
        stft = torch.stft(
            emphasised,
            N_FFT,
            HOP_LENGTH,
            WIN_LENGTH,
            window=self.window.to(waveform.dtype),
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        power = stft.real.square() + stft.imag.square()  # (batch, 513, frames)
        return normalised_log(self.filters.to(power.dtype) @ power).unsqueeze(1)  # (batch, 1, 128, frames)


class StftToMel(nn.Module):
    """The network's mel input from the study's ``stft_db``, a fixed map with gradients.

    Input (batch, 1, 257, frames) in dB (16 kHz, 512 samples, hop 256), output (batch, 1, 128, frames of
    10 ms); 313 frames become 500. Both transforms have bins 31.25 Hz apart, so that the filters fit as they
    are; those above 8 kHz stay at the floor. Power is multiplied, bin by bin, by the pre-emphasis' gain.
    Every new frame is the nearest old one: interpolated frames are means of two, which flattens noise, and a
    linear probe on ESC-50's validation fold reads them worse (84.5 % instead of 90 %).

    What no map of power can undo: windows of 32 ms instead of 25 ms, and a hop of 16 ms. Powers are brought
    to the same scale by the windows' energies (2 * 300 / 192), which is right for noise and for the mean over
    time; a steady tone comes out 1 dB too loud.
    """

    sample_rate = STFT_RATE

    def __init__(self) -> None:
        super().__init__()
        n_bins = STFT_N_FFT // 2 + 1
        frequencies = torch.arange(n_bins, dtype=torch.float64) * STFT_RATE / STFT_N_FFT  # Hz
        phase = 2 * math.pi * frequencies / SAMPLE_RATE
        gain = 1 + PRE_EMPHASIS**2 - 2 * PRE_EMPHASIS * torch.cos(phase)  # |1 - 0.97 exp(-i phase)|^2
        energies = [
            torch.hann_window(length, periodic=periodic, dtype=torch.float64).square().sum()
            for length, periodic in ((WIN_LENGTH, False), (STFT_N_FFT, True))
        ]
        scale = SAMPLE_RATE / STFT_RATE * energies[0] / energies[1]
        self.register_buffer("filters", kaldi_mel_filters()[:, :n_bins] * gain * scale, persistent=False)

    def forward(self, db: torch.Tensor) -> torch.Tensor:
        n_bins = self.filters.shape[1]
        if db.ndim != 4 or db.shape[1:3] != (1, n_bins):
            raise ValueError(
                f"db must be (batch, 1, {n_bins}, frames), the study's stft_db; got {tuple(db.shape)}"
            )
        power = torch.exp(db * (math.log(10) / 10))
        log_mel = normalised_log(self.filters.to(db.dtype) @ power)  # (batch, 1, 128, frames)
        frames = nearest_frames(db.shape[3]).to(db.device)
        return log_mel.index_select(3, frames)  # (batch, 1, 128, frames of 10 ms)


def normalised_log(mel_power: torch.Tensor) -> torch.Tensor:
    """(ln(p + 1e-5) + 4.5) / 5, the network's unit; any shape."""
    return (torch.log(mel_power + EPSILON) + OFFSET) / SCALE


def kaldi_mel_filters() -> torch.Tensor:
    """Kaldi's 128 mel filters between 0 and 15 kHz for 513 bins of 31.25 Hz, float64 (128, 513).

    Triangles of height 1 whose sides are straight on the mel scale, mel = 1127 ln(1 + f / 700), with corners
    at equal distances in mel. No filter reaches the bins above 15 kHz.
    """
    return mel_filters(N_FFT // 2 + 1, 0.0, F_MAX, N_MELS, SAMPLE_RATE, "kaldi").T


def nearest_frames(n_frames: int) -> torch.Tensor:
    """Index of the nearest of frames 16 ms apart, the earlier of two, each 10 ms from first to last."""
    new, old = HOP_LENGTH * STFT_RATE, STFT_HOP * SAMPLE_RATE  # the hops in one unit, 5 to 8
    indices = torch.arange((n_frames - 1) * old // new + 1)
    return (2 * indices * new + old - 1) // (2 * old)  # (new frames,)

"""Waveform to spectrogram and back, for the study's two representations.

Axes are (batch, 1, frequency, time) everywhere. Power is linear, ``db`` is
10 log10(max(power, 1e-10)) without any clipping from above (``top_db=None``).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import nn
from torchaudio.functional import amplitude_to_DB

from ..constants import DB_FLOOR, SPECTROGRAM_TYPES, SPECTROGRAMS, SpectrogramParameters, check_choice
from ..numerics import masked
from .mel import mel_centres, mel_filters

POWER_FLOOR = 1e-10  # -100 dB


@dataclass(frozen=True)
class SpectrogramBatch:
    """One batch of spectrograms.

    Attributes
    ----------
    db, power : torch.Tensor
        (batch, 1, frequency, time), decibels and linear power (mel power for mel types).
    phase : torch.Tensor
        (batch, 1, n_fft // 2 + 1, time) radians of the complex STFT.
    length : int
        Samples of the waveform they come from.
    """

    db: torch.Tensor
    power: torch.Tensor
    phase: torch.Tensor
    length: int

    @functools.cached_property
    def phasor(self) -> torch.Tensor:
        """exp(i phase), computed once for all masks of the batch; ``invert`` takes it for ``phase``.

        Frequencies lie next to each other in memory, as the inverse STFT wants them.
        """
        phase = self.phase.transpose(2, 3).contiguous()
        return torch.polar(torch.ones_like(phase), phase).transpose(2, 3)

    def __getitem__(self, index: slice) -> SpectrogramBatch:
        return SpectrogramBatch(self.db[index], self.power[index], self.phase[index], self.length)

    def __len__(self) -> int:
        return len(self.db)


def power_to_db(power: torch.Tensor) -> torch.Tensor:
    """Decibels of a linear power, with the floor at -100 dB; any shape."""
    return amplitude_to_DB(power, multiplier=10.0, amin=POWER_FLOOR, db_multiplier=0.0, top_db=None)


class Spectrogram(nn.Module):
    """Hann-windowed, centred, reflect-padded power spectrogram, linear or mel.

    Call it on a waveform (batch, samples) to get a :class:`SpectrogramBatch`.
    It follows the waveform's device after ``.to(device)``, and its dtype by itself. ``floor`` is the level
    of silence (dB).
    """

    floor = DB_FLOOR

    def __init__(self, parameters: SpectrogramParameters, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.settings = parameters
        self.name, self.sample_rate = parameters.name, parameters.sample_rate
        self.n_bins, self.hop_length = parameters.n_bins, parameters.hop_length
        self.register_buffer("window", torch.hann_window(parameters.n_fft, dtype=torch.float64))
        filters = None
        if parameters.n_mels is not None:
            p = parameters
            filters = mel_filters(
                p.n_fft // 2 + 1, p.f_min, p.f_max, p.n_mels, p.sample_rate, dtype=dtype
            )  # (n_fft // 2 + 1, n_mels), HTK
        self.register_buffer("filters", filters)
        self.register_buffer("inverse_filters", None if filters is None else torch.linalg.pinv(filters))

    @property
    def frequencies(self) -> torch.Tensor:
        """Centre frequency of every bin, Hz, (n_bins,)."""
        p = self.settings
        if p.n_mels is None:
            return torch.linspace(0, p.sample_rate / 2, p.n_bins)
        return mel_centres(p.n_mels, p.f_min, p.f_max)

    def forward(self, waveform: torch.Tensor) -> SpectrogramBatch:
        complex_stft = self._stft(waveform)
        power = self._power(complex_stft)
        return SpectrogramBatch(self._decibels(power), power, complex_stft.angle(), waveform.shape[1])

    def decibels(self, waveform: torch.Tensor) -> torch.Tensor:
        """``db`` of a waveform alone, without the cost of its phase."""
        return self._decibels(self._power(self._stft(waveform)))

    def _decibels(self, power: torch.Tensor) -> torch.Tensor:
        return power_to_db(power)

    def _stft(self, waveform: torch.Tensor) -> torch.Tensor:
        if waveform.ndim != 2 or not waveform.is_floating_point():
            raise ValueError(
                "waveform must be floating and (batch, samples); got "
                f"{waveform.dtype} {tuple(waveform.shape)}"
            )
        p = self.settings
        if waveform.shape[1] <= p.n_fft // 2:
            raise ValueError(f"waveform must be longer than {p.n_fft // 2} samples; got {waveform.shape[1]}")
        return torch.stft(
            waveform,
            p.n_fft,
            p.hop_length,
            window=self.window.to(waveform.dtype),
            center=True,
            pad_mode="reflect",
            return_complex=True,
        ).unsqueeze(1)  # (batch, 1, n_fft // 2 + 1, time)

    def _power(self, complex_stft: torch.Tensor) -> torch.Tensor:
        power = complex_stft.real.square() + complex_stft.imag.square()
        if self.filters is None:
            return power
        return self.filters.to(power.dtype).T @ power  # (batch, 1, n_bins, time)

    def invert(self, power: torch.Tensor, phase: torch.Tensor, length: int) -> torch.Tensor:
        """Waveform (batch, ``length``) of a (masked) power spectrogram with the original phase.

        Mel power goes back to linear power by the least squares of torchaudio's ``InverseMelScale``
        (smallest solution, negative values cut), here with the filters' pseudo-inverse computed
        once; the square root and the phase (radians, or exp(i phase)) then enter the inverse STFT.
        """
        power = power.transpose(2, 3)  # (batch, 1, time, n_bins): a frame's bins lie together all the way
        if self.inverse_filters is not None:
            power = power @ self.inverse_filters.to(power.dtype)  # (batch, 1, time, n_fft // 2 + 1)
        phasor = phase if phase.is_complex() else torch.polar(torch.ones_like(phase), phase)
        magnitude = power.relu().sqrt()  # its gradient at 0 is 0, a clamp's NaN
        # sooner than real times complex
        parts = torch.view_as_real(phasor.transpose(2, 3)) * magnitude.unsqueeze(-1)
        return self._istft(torch.view_as_complex(parts).squeeze(1).transpose(1, 2), length)

    def _istft(self, complex_stft: torch.Tensor, length: int) -> torch.Tensor:
        p, window = self.settings, self.window.to(complex_stft.real.dtype)
        return torch.istft(complex_stft, p.n_fft, p.hop_length, window=window, center=True, length=length)


def overlap_add(frames: torch.Tensor, window: torch.Tensor, hop_length: int) -> torch.Tensor:
    """Least-squares signal (batch, samples) of windowed frames (batch, window, time), as an inverse STFT's.

    In operations that can be traced, which ``torch.istft`` with its checks on values is not. Where hardly any
    window reaches, the signal fades out instead of being blown up.
    """
    n = (frames.shape[2] - 1) * hop_length + len(window)
    fold = {"output_size": (1, n), "kernel_size": (1, len(window)), "stride": (1, hop_length)}
    total = nn.functional.fold(frames * window[:, None], **fold)[:, 0, 0]
    weight = nn.functional.fold((window**2)[None, :, None].expand(1, -1, frames.shape[2]), **fold)[:, 0, 0]
    return total / weight.clamp_min(1e-6)


def get_spectrogram(spectrogram_type: str, dtype: torch.dtype = torch.float32) -> Spectrogram:
    """The study's spectrogram of that name (``stft_db`` or ``mel_db``); ValueError for another.

    ``dtype`` is the one in which torchaudio computes the mel filters: float32 as published, whose sixth
    digit depends on the machine's vector unit, or float64, the same everywhere.
    """
    check_choice("spectrogram_type", spectrogram_type, SPECTROGRAM_TYPES)
    return Spectrogram(SPECTROGRAMS[spectrogram_type], dtype)


# Sound of what a mask keeps and of what it removes


def power_of(spectrogram: nn.Module, db: torch.Tensor) -> torch.Tensor:
    """Power whose level is ``db``; what a front end added before its logarithm is taken off again."""
    power, settings = 10 ** (db / 10), getattr(spectrogram, "settings", None)
    added = 0.0 if getattr(settings, "clamped", True) else settings.offset
    return (power - added).clamp_min(0) if added else power


def kept_audio(
    batch: SpectrogramBatch, mask: torch.Tensor, spectrogram: Spectrogram, fill: float | None = None
) -> torch.Tensor:
    """Sound of the kept part: linear (mel) power times mask, inverted with the original phase.

    Parameters
    ----------
    batch : SpectrogramBatch
        Spectrograms of the clips.
    mask : torch.Tensor
        (batch, 1, frequency, time) in [0, 1].
    spectrogram : Spectrogram
        The transform that made ``batch``; its ``sample_rate`` is the sound's.
    fill : float, optional
        Level (dB) of what is masked; None is silence.

    Returns
    -------
    torch.Tensor
        (batch, samples). Nothing is normalised: kept and removed keep their true level.
    """
    if mask.shape != batch.power.shape:
        raise ValueError(f"mask {tuple(mask.shape)} does not fit the power {tuple(batch.power.shape)}")
    level = 0.0 if fill is None else power_of(spectrogram, torch.as_tensor(fill).to(batch.power))
    power = masked(batch.power, mask.to(batch.power.dtype), level)
    return spectrogram.invert(power, batch.phasor, batch.length)


def removed_audio(batch: SpectrogramBatch, mask: torch.Tensor, spectrogram: Spectrogram) -> torch.Tensor:
    """Sound of the removed part: as :func:`kept_audio` with 1 - mask."""
    return kept_audio(batch, 1 - mask, spectrogram)

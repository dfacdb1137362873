"""Virtual inspection: a model that takes waveforms is explained in time and frequency.

An inverse STFT with the clip's own phase stands in front of the model, so that it becomes a function of the
clip's picture, (batch, 1, frequency, time) in dB, and every attribution method and every mask works on it. A
mask acts on the power, and what is scored is what is heard: the model on the sound that the mask keeps.

The picture need not be invertible by itself. ``Bands`` shows a waveform in mel or constant-Q bands and
changes the clip's own STFT by what has changed in each band, so that the unchanged picture gives back the
very clip; the same model can be inspected as STFT, mel or constant-Q without being trained again.

References
----------
Vielhaben et al. (2024), Explainable AI for time series via Virtual Inspection Layers,
section 3.2 (short-time Fourier). Deviations: the picture is the level of a bin instead of its real and
imaginary part, and the bands above.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace

import torch
from torch import nn

from ..audio.mel import mel_centres, mel_filters
from ..audio.spectrograms import (
    POWER_FLOOR,
    Spectrogram,
    SpectrogramBatch,
    overlap_add,
    power_of,
    power_to_db,
)
from ..constants import DB_FLOOR, SpectrogramParameters, check_choice
from .reading import reading_of

WINDOW_SECONDS = 0.032  # of the STFT, rounded to a power of two samples
PICTURES = ("stft", "mel", "cqt")
N_MELS = 64
BANDS_PER_OCTAVE, OCTAVES = 12, 8


class VirtualInspection(nn.Module):
    """A model of waveforms as a function of one clip's picture.

    Parameters
    ----------
    on_waveform : nn.Module
        Waveforms (batch, samples) to scores (batch, classes).
    spectrogram : Spectrogram
        The picture; it has ``invert(power, phase, length)``, with gradients.
    batch : SpectrogramBatch
        Of the one clip whose phase is used, whatever the picture.

    Notes
    -----
    Input (n, 1, frequency, time) in dB, any number of pictures of this clip; output (n, classes).
    """

    casts = True  # the model inside gets its own dtype, whatever the picture's

    def __init__(self, on_waveform: nn.Module, spectrogram: nn.Module, batch: SpectrogramBatch) -> None:
        super().__init__()
        if len(batch) != 1:
            raise ValueError(
                f"batch must hold one clip, whose phase stands before the model; got {len(batch)}"
            )
        self.on_waveform, self.spectrogram, self.length = on_waveform, spectrogram, batch.length
        self.register_buffer("phasor", batch.phasor, persistent=False)
        self.reading = replace(reading_of(on_waveform), floor=getattr(spectrogram, "floor", DB_FLOOR))
        # the network's maps lie on it, of as many frames as it is given
        self.shares_axes = getattr(on_waveform, "spectrogram", None) is spectrogram
        on_picture = getattr(on_waveform, "on_picture", None) if self.shares_axes else None
        self.n_frames = getattr(on_picture, "n_frames", None)

    def forward(self, db: torch.Tensor) -> torch.Tensor:
        """Scores (n, classes) of pictures (n, 1, F, T) in dB."""
        return self.on_waveform(
            self.spectrogram.invert(power_of(self.spectrogram, db), self.phasor, self.length)
        )


class PictureAsSound:
    """The transform that methods are given as the clip's own where the model itself makes the sound of a
    picture.

    What is heard of a masked power is then its level: analysing the sound again and giving it the old phase
    would be another sound.
    """

    def __init__(self, batch: SpectrogramBatch, analysis: nn.Module | None = None) -> None:
        self.batch, self.shape, self.analysis = batch, batch.db.shape[1:], analysis

    def __call__(self, waveform: torch.Tensor) -> SpectrogramBatch:
        """The clip's picture, whatever the waveform."""
        return self.batch

    def invert(self, power: torch.Tensor, phase: torch.Tensor, length: int) -> torch.Tensor:
        """The power itself, (n, F * T)."""
        return power.flatten(1)

    def decibels(self, waveform: torch.Tensor) -> torch.Tensor:
        """Level (n, 1, F, T) of what `invert` returned."""
        return power_to_db(waveform.view(-1, *self.shape))


def inspection(kind: str, sample_rate: int) -> nn.Module:
    """The picture in which a model of waveforms is explained: ``stft``, ``mel`` or ``cqt`` (constant-Q
    bands).
    """
    check_choice("inspect_as", kind, PICTURES)
    n_fft = 2 ** round(math.log2(WINDOW_SECONDS * sample_rate))
    if kind == "stft":
        return Stft(SpectrogramParameters("stft", sample_rate, n_fft, n_fft // 2))
    if kind == "mel":
        filters = mel_filters(n_fft // 2 + 1, 0.0, sample_rate / 2, N_MELS, sample_rate)
        return Bands(
            filters, mel_centres(N_MELS, 0.0, sample_rate / 2), sample_rate, n_fft, n_fft // 4, "mel"
        )
    n_fft *= 4  # the lowest bands are narrow
    filters, centres = constant_q_filters(n_fft // 2 + 1, sample_rate)
    return Bands(filters, centres, sample_rate, n_fft, n_fft // 8, "cqt")


def constant_q_filters(n_freqs: int, sample_rate: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Triangles over log-frequency, 12 an octave and up to 8 octaves below half the rate, and their centres
    (Hz).

    Bands narrower than a bin are left out, so that the lowest octaves may have fewer.
    """
    n_bands, step = BANDS_PER_OCTAVE * OCTAVES, sample_rate / 2 / (n_freqs - 1)
    centres = sample_rate / 2 * 2 ** (-torch.arange(n_bands, 0, -1, dtype=torch.float64) / BANDS_PER_OCTAVE)
    centres = centres[centres * (2 ** (1 / BANDS_PER_OCTAVE) - 1) >= step]
    bins = torch.arange(n_freqs, dtype=torch.float64).clamp_min(1e-3) * step
    distance = BANDS_PER_OCTAVE * (bins[:, None] / centres).log2().abs()  # in bands
    return (1 - distance).clamp_min(0), centres.float()


class Stft(Spectrogram):
    """A linear spectrogram whose inverse is written in operations that can be traced."""

    def _istft(self, complex_stft: torch.Tensor, length: int) -> torch.Tensor:
        p = self.settings
        frames = torch.fft.irfft(complex_stft, p.n_fft, dim=1)
        waveform = overlap_add(frames, self.window.to(frames.dtype), p.hop_length)[:, p.n_fft // 2 :]
        return nn.functional.pad(waveform, (0, length - waveform.shape[1]))


@dataclass(frozen=True)
class CarriedBatch(SpectrogramBatch):
    """Pictures in bands, with the complex STFT (batch, 1, n_fft // 2 + 1, time) that their changes act on."""

    carrier: torch.Tensor | None = None

    @functools.cached_property
    def phasor(self) -> torch.Tensor:
        """The complex STFT, which ``invert`` takes."""
        return self.carrier

    def __getitem__(self, index: slice) -> CarriedBatch:
        return CarriedBatch(
            *(x[index] for x in (self.db, self.power, self.phase)), self.length, self.carrier[index]
        )


class Bands(Stft):
    """Power in overlapping bands of an STFT; the inverse multiplies the clip's own STFT by each band's
    change.

    Parameters
    ----------
    filters : torch.Tensor
        (n_fft // 2 + 1, n_bins), not negative. A bin of no band follows the nearest band.
    centres : torch.Tensor
        (n_bins,) Hz.
    """

    def __init__(
        self,
        filters: torch.Tensor,
        centres: torch.Tensor,
        sample_rate: int,
        n_fft: int,
        hop_length: int,
        name: str,
    ) -> None:
        super().__init__(SpectrogramParameters(name, sample_rate, n_fft, hop_length))
        self.n_bins, self.centres = filters.shape[1], centres
        bins = torch.linspace(0, sample_rate / 2, len(filters))
        nearest = nn.functional.one_hot((bins[:, None] - centres).abs().argmin(1), self.n_bins).to(filters)
        filters = torch.where(filters.sum(1, keepdim=True) > 0, filters, nearest)
        self.register_buffer("filters", filters)
        # (n_bins, n_freqs)
        self.register_buffer("spread", (filters / filters.sum(1, keepdim=True)).T.contiguous())

    @property
    def frequencies(self) -> torch.Tensor:
        """Centre frequency of every band, Hz, (n_bins,)."""
        return self.centres

    def forward(self, waveform: torch.Tensor) -> CarriedBatch:
        """Pictures (batch, 1, n_bins, time) of waveforms (batch, samples)."""
        carrier = self._stft(waveform)
        power = self._power(carrier)
        return CarriedBatch(power_to_db(power), power, carrier.angle(), waveform.shape[1], carrier)

    def invert(self, power: torch.Tensor, phase: torch.Tensor, length: int) -> torch.Tensor:
        """Waveform (batch, length) of a (masked) power; ``phase`` is the clip's `CarriedBatch.phasor`."""
        own = self._power(phase).to(power.dtype)
        gain = power.clamp_min(POWER_FLOOR) / own.clamp_min(POWER_FLOOR)  # (batch, 1, n_bins, time)
        amplitude = (self.spread.to(power.dtype).T @ gain).sqrt()  # (batch, 1, n_freqs, time)
        parts = torch.view_as_real(phase).to(power.dtype) * amplitude.unsqueeze(-1)
        return self._istft(torch.view_as_complex(parts).squeeze(1), length)

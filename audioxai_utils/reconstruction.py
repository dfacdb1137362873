"""Sound of what a mask keeps and of what it removes."""

from __future__ import annotations

import torch

from .spectrograms import Spectrogram, SpectrogramBatch


def kept_audio(batch: SpectrogramBatch, mask: torch.Tensor, spectrogram: Spectrogram) -> torch.Tensor:
    """Sound of the kept part: linear (mel) power times mask, inverted with the original phase.

    Parameters
    ----------
    batch : SpectrogramBatch
        Spectrograms of the clips.
    mask : torch.Tensor
        (batch, 1, frequency, time) in [0, 1].
    spectrogram : Spectrogram
        The transform that made ``batch``; its ``sample_rate`` is the sound's.

    Returns
    -------
    torch.Tensor
        (batch, samples). Nothing is normalised: kept and removed keep their true level.
    """
    if mask.shape != batch.power.shape:
        raise ValueError(f"mask {tuple(mask.shape)} does not fit the power {tuple(batch.power.shape)}")
    return spectrogram.invert(batch.power * mask.to(batch.power.dtype), batch.phasor, batch.length)


def removed_audio(batch: SpectrogramBatch, mask: torch.Tensor, spectrogram: Spectrogram) -> torch.Tensor:
    """Sound of the removed part: as :func:`kept_audio` with 1 - mask."""
    return kept_audio(batch, 1 - mask, spectrogram)

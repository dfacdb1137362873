"""A network between what this package knows, waveforms and pictures, and scores (batch, classes)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from .outputs import pick
from .reading import Reading, reading_of
from .wrapping import net_dtype


class Scores(nn.Module):
    """A network between what this package knows, pictures or waveforms, and scores (batch, classes).

    ``prepare`` makes the network's input, ``output`` takes the scores out of what it returns; one column
    becomes two by ``reading``: -z and z, or 1 - p and p.
    """

    casts = True  # the network gets its own dtype, the scores have the input's

    def __init__(self, net: nn.Module, prepare: Callable, output, reading: Reading) -> None:
        super().__init__()
        self.net, self.prepare, self.output, self.reading = net, prepare, output, reading
        self.n_frames = getattr(getattr(prepare, "__self__", None), "n_frames", None)  # of a `LogMel`'s input

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores (batch, classes) of what ``prepare`` takes."""
        prepared, dtype = self.prepare(x), net_dtype(self.net)
        if isinstance(prepared, torch.Tensor) and dtype is not None and prepared.is_floating_point():
            prepared = prepared.to(dtype)
        scores = pick(self.net(prepared), self.output).to(x.dtype)
        if self.reading.head == "binary":
            return torch.cat([-scores, scores], dim=1)
        if self.reading.head == "probabilities" and scores.shape[1] == 1:
            return torch.cat([1 - scores, scores], dim=1)
        return scores


class FromWaveform(nn.Module):
    """A model of pictures as one of waveforms (batch, samples): its spectrogram in front of it."""

    casts = True

    def __init__(self, spectrogram: nn.Module, on_picture: nn.Module) -> None:
        super().__init__()
        self.spectrogram, self.on_picture = spectrogram, on_picture
        self.reading = reading_of(on_picture)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Scores (batch, classes) of waveforms (batch, samples)."""
        if hasattr(self.spectrogram, "decibels"):
            return self.on_picture(self.spectrogram.decibels(waveform))
        return self.on_picture(self.spectrogram(waveform).db)


@dataclass(frozen=True)
class WaveformInput:
    """A waveform (B, N) in a network's shape; ``normalised`` is mean 0 and variance 1, as wav2vec2's."""

    channel: bool = False
    normalised: bool = False

    def __call__(self, waveform: torch.Tensor) -> torch.Tensor:
        """The network's input of waveforms (batch, samples)."""
        if self.normalised:
            variance = waveform.var(1, keepdim=True, correction=0)
            waveform = (waveform - waveform.mean(1, keepdim=True)) / (variance + 1e-7).sqrt()
        return waveform.unsqueeze(1) if self.channel else waveform

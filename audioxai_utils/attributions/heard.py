"""What is heard of masked clips, differentiable in the mask: inversion with their own phase, and re-analysis."""

from __future__ import annotations

from collections.abc import Callable

import torch

LEAST = 1e-10  # of a mask; its power's root has a gradient


class Sounds:
    """Phases of clips and the transform they come from; an index chooses among the clips.

    Parameters
    ----------
    spectrogram : callable
        Waveforms (batch, samples) to a batch with ``db``, ``phase`` and ``length``; it has ``invert(power, phase,
        length)``, both differentiable.
    phasor : Tensor (n, 1, F, T)
        exp(i phase); F is the STFT's.
    length : int
        Samples of a clip.
    """

    def __init__(self, spectrogram: Callable, phasor: torch.Tensor, length: int) -> None:
        self.spectrogram, self.phasor, self.length = spectrogram, phasor, length

    @classmethod
    def of(cls, waveform: torch.Tensor | None, spectrogram: Callable | None, db: torch.Tensor) -> Sounds:
        """Of waveforms (n, samples) whose spectrograms are ``db``; ValueError where one is missing or does not fit."""
        for name, value in (("waveform", waveform), ("spectrogram", spectrogram)):
            if value is None:
                raise ValueError(f"domain 'heard' needs {name}=, the clips' own; got none")
        if waveform.ndim != 2 or len(waveform) != len(db):
            raise ValueError(f"waveform must be ({len(db)}, samples), one per clip; got {tuple(waveform.shape)}")
        with torch.no_grad():
            batch = spectrogram(waveform.detach().to(db))
        if batch.db.shape != db.shape or not torch.allclose(batch.db, db, atol=0.01):
            raise ValueError("db must be spectrogram(waveform).db; it is another clip's or another transform's")
        return cls(spectrogram, torch.polar(torch.ones_like(batch.phase), batch.phase), batch.length)

    def __getitem__(self, index) -> Sounds:
        return Sounds(self.spectrogram, self.phasor[index], self.length)

    def masked(self, db: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Decibels (n, 1, F, T) of the sounds of clips whose power is multiplied by ``mask``."""
        power = 10 ** (db / 10) * mask.clamp_min(LEAST)
        waveform = self.spectrogram.invert(power, self.phasor, self.length)  # (n, samples)
        if hasattr(self.spectrogram, "decibels"):
            return self.spectrogram.decibels(waveform)
        return self.spectrogram(waveform).db

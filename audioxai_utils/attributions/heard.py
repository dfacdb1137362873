"""What is heard of masked clips, differentiable in the mask: inverted with their phase, analysed again."""

from __future__ import annotations

from collections.abc import Callable

import torch

LEAST = 1e-10  # of a mask; its power's root has a gradient


class Sounds:
    """Phases of clips and the transform they come from; an index chooses among the clips.

    Parameters
    ----------
    spectrogram : callable
        Waveforms (batch, samples) to a batch with ``db``, ``phase`` and ``length``; it has ``invert(power,
        phase, length)``, both differentiable.
    db, power : Tensor (n, 1, bins, T)
        Of the clips, as the transform made them.
    phasor : Tensor (n, 1, F, T)
        exp(i phase); F is the STFT's.
    length : int
        Samples of a clip.
    """

    def __init__(
        self, spectrogram: Callable, db: torch.Tensor, power: torch.Tensor, phasor: torch.Tensor, length: int
    ) -> None:
        self.spectrogram, self.db, self.power, self.phasor, self.length = (
            spectrogram,
            db,
            power,
            phasor,
            length,
        )

    @classmethod
    def of(cls, waveform: torch.Tensor | None, spectrogram: Callable | None, db: torch.Tensor) -> Sounds:
        """Of waveforms (n, samples) whose spectrograms are ``db``; ValueError where one is missing or does
        not fit.
        """
        for name, value in (("waveform", waveform), ("spectrogram", spectrogram)):
            if value is None:
                raise ValueError(f"domain 'heard' needs {name}=, the clips' own; got none")
        if waveform.ndim != 2 or len(waveform) != len(db):
            raise ValueError(
                f"waveform must be ({len(db)}, samples), one per clip; got {tuple(waveform.shape)}"
            )
        with torch.no_grad():
            batch = spectrogram(waveform.detach().to(db))
        if batch.db.shape != db.shape or not torch.allclose(batch.db, db, atol=0.01):
            raise ValueError(
                "db must be spectrogram(waveform).db; it is another clip's or another transform's"
            )
        return cls(spectrogram, batch.db, batch.power, batch.phasor, batch.length)

    def __getitem__(self, index) -> Sounds:
        return Sounds(self.spectrogram, self.db[index], self.power[index], self.phasor[index], self.length)

    def masked(self, db: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Decibels (n, 1, F, T) of the sounds of clips whose power is multiplied by ``mask``.

        ``db`` is the clips', and what it differs by from theirs changes the power by as many decibels.
        """
        power = self.power * 10 ** ((db - self.db) / 10) * mask.clamp_min(LEAST)
        waveform = self.spectrogram.invert(power, self.phasor, self.length)  # (n, samples)
        if hasattr(self.spectrogram, "decibels"):
            return self.spectrogram.decibels(waveform)
        return self.spectrogram(waveform).db

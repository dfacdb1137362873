"""A transform whose sound is its picture, for methods that want a waveform of any decibels. Not a test
itself.
"""

from types import SimpleNamespace

import torch


class PictureSound:
    """Waveforms are the decibels (n, 1, frequency, time) of their spectrogram, one bin after another."""

    sample_rate = 1000

    def __init__(self, n_bins: int) -> None:
        self.n_bins = n_bins

    def __call__(self, waveform: torch.Tensor) -> SimpleNamespace:
        db = waveform.reshape(len(waveform), 1, self.n_bins, -1)
        power, phase = 10 ** (db / 10), torch.zeros_like(db)
        return SimpleNamespace(db=db, power=power, phase=phase, phasor=phase, length=waveform.shape[1])

    def invert(self, power: torch.Tensor, phasor: torch.Tensor, length: int) -> torch.Tensor:
        return 10 * power.clamp_min(1e-30).log10().flatten(1)


def sound_of(db: torch.Tensor) -> dict:
    """What the registry's ``OF_THE_CLIP`` are of these decibels."""
    return {"waveform": db.flatten(1), "spectrogram": PictureSound(db.shape[2])}

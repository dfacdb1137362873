"""Where silence lies in a spectrogram, and whether its levels are decibels at all."""

from __future__ import annotations

import torch

from ..audio.spectrograms import SpectrogramBatch


def floor_of(spectrogram, sample_rate: int) -> float:
    """A spectrogram's level of silence (dB): its ``floor``, else what it makes of a second of zeros."""
    floor = getattr(spectrogram, "floor", None)
    if floor is None:
        levels = spectrogram(torch.zeros(1, sample_rate)).db
        floor, highest = float(levels.min()), float(levels.max())
        if not abs(highest - floor) < 1 or not abs(floor) < 1e6:
            raise ValueError(f"the spectrogram of silence is {floor:g} to {highest:g} dB; give floor=, in dB")
    return float(floor)


def check_levels(batch: SpectrogramBatch, floor: float) -> None:
    """ValueError unless ``db`` is 10 log10(power) down to the floor."""
    level = 10 * batch.power.double().clamp_min(1e-30).log10()
    error = (batch.db.double() - level.clamp_min(floor)).abs()
    # an offset at the floor is 3 dB
    worst = float(torch.where(level > floor + 20, error - 0.1, error - 4).max())
    if worst > 0:
        i = int(torch.where(level > floor + 20, error - 0.1, error - 4).argmax())
        got, expected = float(batch.db.flatten()[i]), float(level.clamp_min(floor).flatten()[i])
        raise ValueError(
            f"the spectrogram's db must be 10 log10(power) down to its floor of {floor:g} dB; got {got:.1f} "
            f"where that is {expected:.1f} (natural logarithms, a range below the maximum or another floor? "
            "give floor=)"
        )

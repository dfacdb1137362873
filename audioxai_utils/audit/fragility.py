"""Fragility: does an explanation stay what it is when a sound changes by less than can be heard?

White noise far below the clip is added, several draws at each level; where the class stays, the map of the
new sound is held against that of the old one by rank correlation. The worst draw is what a search that knows
nothing of the network finds; one along gradients finds more.

References
----------
Ghorbani et al. (2019), Interpretation of Neural Networks is Fragile, section 2 (random perturbation as the
baseline of an attack); the levels are of this module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd
import torch
from torch import nn

from ..evaluation.scoring import decibels, probabilities
from .planted.agreement import mean_with_interval
from .planted.measures import rank_correlation

LEVELS = (-60.0, -50.0, -40.0, -30.0)  # dB of the noise against the clip
N_DRAWS = 4

Explain = Callable[[str, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def with_noise(waveform: torch.Tensor, level_db: float, generator: torch.Generator) -> torch.Tensor:
    """Waveforms (n, samples) with white noise ``level_db`` dB against each one's own power."""
    noise = torch.randn(waveform.shape, generator=generator, dtype=torch.float64).to(waveform)
    rms = [values.square().mean(1, keepdim=True).sqrt() for values in (waveform, noise)]
    return waveform + 10 ** (level_db / 20) * rms[0] / rms[1] * noise


def fragility(
    explain: Explain,
    model: nn.Module,
    spectrogram: nn.Module,
    waveform: torch.Tensor,
    methods: Sequence[str],
    *,
    levels: Sequence[float] = LEVELS,
    n_draws: int = N_DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """Rank correlation of maps before and after noise, for each clip, method, level and draw.

    Parameters
    ----------
    explain : callable
        Method, pictures (n, 1, F, T), waveforms (n, samples) and classes (n,) to maps (n, 1, F, T).
    model, spectrogram : nn.Module
        Pictures to scores, and waveforms to pictures.
    waveform : Tensor (n, samples)
        Clips; of each the class that the model predicts is explained.

    Returns
    -------
    DataFrame
        clip (place among the clips), method, level_db, draw, similar (Spearman's ρ) and held: whether the
        class is still predicted.
    """
    db = decibels(waveform, spectrogram)
    target = probabilities(model, db).argmax(1)
    before = {name: explain(name, db, waveform, target) for name in methods}
    generator, frames = torch.Generator().manual_seed(seed), []
    for level in levels:
        for draw in range(n_draws):
            noisy = with_noise(waveform, level, generator)
            picture = decibels(noisy, spectrogram)
            held = (probabilities(model, picture).argmax(1) == target).tolist()
            for name in methods:
                after = explain(name, picture, noisy, target)
                similar = rank_correlation(before[name][:, 0], after[:, 0]).tolist()
                about = {"method": name, "level_db": level, "draw": draw}
                frames.append(
                    pd.DataFrame({"clip": range(len(db)), "similar": similar, "held": held} | about)
                )
    return pd.concat(frames, ignore_index=True)


def table(found: pd.DataFrame) -> pd.DataFrame:
    """A row for each method and level, of draws that hold the class.

    Returns
    -------
    DataFrame
        method, level_db, ``similar``, the mean, with ``_low`` and ``_high`` (95 %, over clips), and
        ``worst``, the mean over clips of the lowest draw.
    """
    rows = []
    for (method, level), part in found[found["held"]].groupby(["method", "level_db"], sort=False):
        clips = part.groupby("clip")["similar"]
        values = dict(zip(("similar", "similar_low", "similar_high"), mean_with_interval(clips.mean())))
        rows.append({"method": method, "level_db": level, **values, "worst": clips.min().mean()})
    return pd.DataFrame(rows)

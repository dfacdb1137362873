"""The optimised mask of the sound itself: what is kept is heard, and analysed again, at every step.

See ``optimised``, whose option ``domain`` this fixes. It is made for ears, and the scores of what is heard
(``*_heard``) judge it: its soft values let through a sound that is quiet where they are small, while the
study scores decibels that are scaled towards the floor by the same values, a picture that this mask has never
met.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from .registry import register
from .optimised import optimised


@register("optimised_heard", gradients=True)
def optimised_heard(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    *,
    waveform: torch.Tensor,
    spectrogram: Callable,
    area: float | None = None,
    n_steps: int = 100,
    seed: int = 0,
    batch_size: int = 8,
) -> torch.Tensor:
    """Each clip's mask, optimised on its sound, minus 1/2 (or the level that leaves ``area`` above 0).

    ``waveform`` (n, samples) are the clips whose ``spectrogram(waveform).db`` is ``db``.
    """
    return optimised(
        model, db, target, area=area, domain="heard", n_steps=n_steps, seed=seed, batch_size=batch_size,
        waveform=waveform, spectrogram=spectrogram,
    )

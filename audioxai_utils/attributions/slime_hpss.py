"""SLIME over what rings and what strikes: harmonic and percussive components in slices of time.

Every bin belongs to the component that takes the larger share of its power, by librosa's median
filtering; a segment is one component in one slice of time. Everything else is SLIME's. A weight reads
as "the tone here" or "the knock there", which bands and slices cannot say.

References
----------
Haunschmid et al. (2020), audioLIME, section 3: sources in slices of time as LIME's features, a hidden
one silent. Their sources come from a trained separator and overlap in a bin; here each bin goes to one
of two. FitzGerald (2010), harmonic/percussive separation by median filtering, as ``librosa`` has it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ..constants import check_choice
from ..models.reading import reading_of
from .components import ringing_and_striking
from .integrated_gradients import at_least
from .registry import register
from .slime import regular_grid, weigh_segments


@register("slime_hpss", budget="n_samples", one_by_one=True)
def slime_hpss(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    *,
    n_time: int = 10,
    kernel_size: int = 31,
    fill: float | str | None = "silence",
    n_samples: int = 1000,
    seed: int = 12345,
    batch_size: int | None = None,
) -> torch.Tensor:
    """Weights of harmonic and percussive segments in probability, spread over their bins.

    Parameters
    ----------
    n_time : int
        Slices of time, as equal as whole frames allow.
    kernel_size : int
        Frames of the harmonic and bins of the percussive median filter, 1 or more.
    fill : float, "silence" or "mean", optional
        Level of a hidden segment (dB), the model's floor, or each segment's mean, which None is too.
    n_samples, seed, batch_size : int
        As in ``slime``.
    """
    at_least(1, kernel_size=kernel_size)
    if isinstance(fill, str):
        fill = {"silence": reading_of(model).floor, "mean": None}[
            check_choice("fill", fill, ("silence", "mean"))
        ]
    slices = regular_grid(tuple(db.shape[2:]), "time", n_time, 1)
    return weigh_segments(
        model,
        db,
        target,
        lambda clip: component_segments(clip, slices, kernel_size),
        fill,
        n_samples,
        seed,
        batch_size,
    )


def component_segments(clip: torch.Tensor, slices: np.ndarray, kernel_size: int) -> np.ndarray:
    """Segment of each bin (F, T) of a (1, F, T) clip: two a slice, fewer where one has no bin."""
    segments = 2 * slices + is_percussive(clip, kernel_size)
    return np.unique(segments, return_inverse=True)[1].reshape(segments.shape)


def is_percussive(clip: torch.Tensor, kernel_size: int) -> np.ndarray:
    """Bins (F, T) of a (1, F, T) clip in dB whose percussive share of power is above a half."""
    return ringing_and_striking(clip, kernel_size)[1] > 0.5

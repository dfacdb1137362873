"""CoughLIME: LIME over parts of a sound that can be heard, hidden in power.

What a part is, ``components`` says: slices between the quietest moments, equal slices, bands of frequency, or
the components of a non-negative matrix factorisation, which overlap in a bin.

References
----------
Wullenweber et al. (2021), CoughLIME: Sonified Explanations for the Predictions of COVID-19 Cough Classifiers,
section 3 (components, silent where they are hidden). Deviations: parts are cut in the picture that the model
gets instead of in the waveform, so that bands are of its own bins; a bin's value is the sum of the
components' weights times their share of its power.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ..constants import check_choice
from .components import loudness_slices, nmf_shares, shares_of_segments, weigh
from .integrated_gradients import at_least
from .registry import register
from .slime import regular_grid

COMPONENTS = {"loudness": 10, "time": 10, "frequency": 8, "nmf": 6}  # kinds, and how many by default


@register("coughlime", budget="n_samples", one_by_one=True)
def coughlime(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    *,
    components: str = "loudness",
    n_components: int | None = None,
    fill: float | None = None,
    n_samples: int = 1000,
    seed: int = 12345,
    batch_size: int | None = None,
) -> torch.Tensor:
    """Weights of a clip's components in probability, spread over their bins.

    Parameters
    ----------
    components : "loudness" | "time" | "frequency" | "nmf"
        Slices between minima of the level, equal slices, bands of the spectrogram's bins, or a factorisation
        of the magnitude.
    n_components : int, optional
        How many; at most so many under ``loudness`` and ``nmf``. Default 10, 10, 8 and 6.
    fill : float, optional
        Level (dB) of what is hidden; default the model's silence.
    n_samples, seed, batch_size : int
        As in ``slime``; ``seed`` starts the factorisation too.
    """
    check_choice("components", components, COMPONENTS)
    at_least(1, n_components=n_components)
    cut = _cut(components, COMPONENTS[components] if n_components is None else n_components, seed)
    found = weigh(model, db, target, lambda number, clip: cut(clip), fill, n_samples, seed, batch_size)
    return torch.stack([each.map for each in found])


def _cut(components: str, n: int, seed: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """From a (1, F, T) clip in dB to shares (K, F, T)."""
    if components == "nmf":
        return lambda clip: nmf_shares(clip, n, seed)
    if components == "loudness":
        return lambda clip: shares_of_segments(loudness_slices(clip, n))
    return lambda clip: shares_of_segments(regular_grid(tuple(clip.shape[1:]), components, n, n))

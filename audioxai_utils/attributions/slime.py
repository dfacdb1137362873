"""SLIME: LIME over regular slices of time, bands of frequency, or both.

Everything but the segments is LIME's, see ``lime``: equal slices are less fitted to the clip
than superpixels, and their weights read as "when" and "in which band".

References
----------
Mishra et al. (2017), Local Interpretable Model-Agnostic Explanations for Music Content
Analysis, section 4: temporal, frequency and time-frequency segmentation. Their lasso over
chosen segments is LIME's ridge over all here; their hidden segments are silent, which is
``fill=-100.0`` where the model's floor is there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from ..models.inference import inference_copy
from ..numerics import at_once
from .integrated_gradients import at_least
from .lime import scaled_image
from .neighbourhoods import Neighbourhood, classify, regress
from .registry import register

GRIDS = ("time", "frequency", "both")


@register("slime", budget="n_samples", one_by_one=True)
def slime(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    *,
    grid: str = "both",
    n_time: int = 10,
    n_frequency: int = 8,
    fill: float | None = None,
    n_samples: int = 1000,
    seed: int = 12345,
    batch_size: int | None = None,
) -> torch.Tensor:
    """Weights of a regular grid's segments in probability, spread over their bins.

    Parameters
    ----------
    grid : "time" | "frequency" | "both"
        Slices of time, bands of frequency (of the spectrogram's bins: mel bands on ``mel_db``),
        or their product.
    n_time, n_frequency : int
        Slices and bands, as equal as whole frames and bins allow.
    fill : float, optional
        Level of a hidden segment (dB); default each segment's mean, as in ``lime``.
    n_samples, seed, batch_size : int
        Neighbours with the clip itself (2 or more), their random state, and how many at once.
    """
    segments = regular_grid(tuple(db.shape[2:]), grid, n_time, n_frequency)
    return weigh_segments(model, db, target, lambda clip: segments, fill, n_samples, seed, batch_size)


def weigh_segments(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    cut: Callable[[torch.Tensor], np.ndarray],
    fill: float | None,
    n_samples: int,
    seed: int,
    batch_size: int | None,
) -> torch.Tensor:
    """Weights of the segments (F, T), numbered from 0 without gaps, that ``cut`` makes of each (1, F, T)
    clip.
    """
    at_least(2, n_samples=n_samples)
    at_least(1, batch_size=batch_size)
    fast = inference_copy(model, db)
    size = at_once(batch_size, db.device)
    maps = []
    for clip, label in zip(db.cpu(), target.tolist()):
        segments = cut(clip)
        neighbourhood = gridded(clip, segments, fill, n_samples, seed)
        probability = classify(fast, neighbourhood, label, db, size)
        maps.append(regress(neighbourhood, probability)[segments])
    return torch.from_numpy(np.stack(maps)).to(db)[:, None]


def regular_grid(shape: tuple[int, int], grid: str, n_time: int, n_frequency: int) -> np.ndarray:
    """Segment number of each bin, (F, T), counted along time first; ValueError where it does not fit."""
    if grid not in GRIDS:
        raise ValueError(f"grid must be one of {', '.join(GRIDS)}; got {grid!r}")
    n_frequency, n_time = (1 if grid == "time" else n_frequency), (1 if grid == "frequency" else n_time)
    for name, n, extent in (("n_frequency", n_frequency, shape[0]), ("n_time", n_time, shape[1])):
        if not 1 <= n <= extent:
            raise ValueError(f"{name} must be 1 to {extent}, one bin each; got {n}")
    band = np.arange(shape[0]) * n_frequency // shape[0]
    piece = np.arange(shape[1]) * n_time // shape[1]
    return band[:, None] * n_time + piece  # (F, T)


def gridded(
    clip: torch.Tensor, segments: np.ndarray, fill: float | None, n_samples: int, seed: int
) -> Neighbourhood:
    """Neighbours of a (1, F, T) clip over ``segments``, drawn as lime draws them with ``seed``."""
    image, to_decibels = scaled_image(clip)
    n_segments = segments.max() + 1
    random_state = np.random.RandomState(seed)
    random_state.randint(0, high=1000)  # lime draws its segmentation's seed first, used or not
    visible = random_state.randint(0, 2, n_samples * n_segments).reshape(n_samples, n_segments).astype(bool)
    visible[0] = True
    means = np.bincount(segments.ravel(), image.ravel()) / np.bincount(segments.ravel())
    hidden = to_decibels(means[segments]) if fill is None else np.full_like(image, fill)
    return Neighbourhood(segments, visible, to_decibels(image), hidden)

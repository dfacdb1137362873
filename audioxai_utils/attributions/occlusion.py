"""Occlusion: how far the explained class's probability falls when a patch is silenced.

A window slides over time and frequency; what it covers is set to ``fill``. Each bin gets the
mean fall over the windows that cover it.

References
----------
Zeiler & Fergus (2014), Visualizing and Understanding Convolutional Networks, section 4.2, by
captum's Occlusion.
"""

from __future__ import annotations

import torch
from torch import nn

from ..models.inference import inference_copy
from ..models.reading import reading_of
from ..numerics import at_once
from .integrated_gradients import at_least
from .registry import register


class Probability(nn.Module):
    """Probabilities of the model's classes, (batch, classes)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, db: torch.Tensor) -> torch.Tensor:
        return reading_of(self.model).probabilities(self.model(db))


@register("occlusion")
def occlusion(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    *,
    window: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
    fill: float | None = None,
    batch_size: int | None = None,
) -> torch.Tensor:
    """Mean fall in probability over the patches that cover a bin.

    Parameters
    ----------
    window : (bins, frames), optional
        Size of the patch; default a quarter of the frequencies and an eighth of the time.
    stride : (bins, frames), optional
        Step of the patch, no larger than it; default half of the patch.
    fill : float, optional
        Level of a silenced bin (dB); default the model's floor.
    batch_size : int, optional
        Patches classified at once; default 16, on a GPU 128.
    """
    from captum.attr import Occlusion

    window = tuple(window or (max(1, db.shape[2] // 4), max(1, db.shape[3] // 8)))
    stride = tuple(stride or (max(1, size // 2) for size in window))
    for axis, size, step, extent in zip(("frequency", "time"), window, stride, db.shape[2:]):
        if not 1 <= step <= size <= extent:
            wanted = f"1 <= stride <= window <= {extent} in {axis}"
            raise ValueError(f"window and stride must be {wanted}; got {size} and {step}")
    at_least(1, batch_size=batch_size)
    explainer = Occlusion(Probability(inference_copy(model, db)))
    fill, size = reading_of(model).floor if fill is None else fill, at_once(batch_size, db.device)
    options = {"strides": (1, *stride), "baselines": float(fill), "perturbations_per_eval": size}
    clips = zip(db.split(1), target.tolist())
    with torch.no_grad():
        return torch.cat([explainer.attribute(clip, (1, *window), target=c, **options) for clip, c in clips])

"""Gradient SHAP: expected gradients between random background clips and the clip, in logits.

Each sample takes a background clip b and a point on the way from b to the clip X, both at
random, and gives gradient * (X - b). Their mean approaches values that add up to
g_c(X) - mean_b g_c(b), as ``n_samples`` grows.

References
----------
Lundberg & Lee (2017), A Unified Approach to Interpreting Model Predictions, as ``shap`` and
captum extend it to gradients; Erion et al. (2021), expected gradients, eq. 3.
"""

from __future__ import annotations

import torch
from torch import nn

from ..models.reading import reading_of
from .integrated_gradients import at_least
from .registry import register
from .shap import checked_background
from .smoothgrad import seeded


@register("gradient_shap", background=True, gradients=True)
def gradient_shap(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    *,
    background: torch.Tensor | None = None,
    n_samples: int = 64,
    seed: int = 0,
    batch_size: int = 16,
) -> torch.Tensor:
    """Expected gradients by captum's GradientShap, without its noise on the clip.

    Parameters
    ----------
    background : Tensor (n, 1, frequency, time), optional
        Reference clips in dB. Default: silence alone, the model's floor.
    n_samples : int
        Random points in all, 1 or more.
    seed : int
        Starts the draw of every clip.
    batch_size : int
        Points in one backward pass.
    """
    from captum.attr import GradientShap

    at_least(1, n_samples=n_samples, batch_size=batch_size)
    baselines = torch.full_like(db[:1], reading_of(model).floor)
    if background is not None:
        baselines = checked_background(background, db, model)
    explainer = GradientShap(model)
    attribution = torch.zeros_like(db)
    for clip, label in enumerate(target.tolist()):
        with seeded(seed):
            for first in range(0, n_samples, batch_size):
                n = min(batch_size, n_samples - first)
                one = db[clip : clip + 1]
                part = explainer.attribute(one, baselines, n_samples=n, stdevs=0.0, target=label)
                attribution[clip] += part[0].detach() * n
    return attribution / n_samples

"""Integrated gradients: the explained logit's rise from a baseline to the clip, shared out over the bins.

The values of a clip add up to g_c(X) - g_c(baseline) (completeness), up to the error of the
sum over ``n_steps`` points that stands for the integral.

References
----------
Sundararajan et al. (2017), Axiomatic Attribution for Deep Networks, eq. 1, by captum with
Gauss-Legendre points.
"""

from __future__ import annotations

import torch
from torch import nn

from ..models.reading import reading_of
from .registry import register
from .shap import checked_background


@register("integrated_gradients", gradients=True)
def integrated_gradients(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    *,
    background: torch.Tensor | None = None,
    n_steps: int = 50,
    batch_size: int = 16,
) -> torch.Tensor:
    """Integrated gradients in logits.

    Parameters
    ----------
    background : Tensor (n, 1, frequency, time), optional
        Reference clips in dB; their mean is the baseline. Default: silence, the model's floor.
    n_steps : int
        Points on the way from the baseline to the clip, 1 or more.
    batch_size : int
        Points in one backward pass.
    """
    from captum.attr import IntegratedGradients

    at_least(1, n_steps=n_steps, batch_size=batch_size)
    baseline = torch.full_like(db[:1], reading_of(model).floor)
    if background is not None:
        baseline = checked_background(background, db, model).mean(0, keepdim=True)
    explainer = IntegratedGradients(model)
    maps = [
        explainer.attribute(
            clip[None], baseline, target=int(label), n_steps=n_steps, internal_batch_size=batch_size
        ).detach()
        for clip, label in zip(db, target)
    ]
    return torch.cat(maps)


def at_least(minimum: int, **options: int | None) -> None:
    """ValueError for an option below ``minimum``; None is the option's default and passes."""
    for name, value in options.items():
        if value is not None and value < minimum:
            raise ValueError(f"{name} must be {minimum} or more; got {value}")

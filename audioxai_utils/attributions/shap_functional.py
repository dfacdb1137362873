"""What the study published as SHAP: E_b[grad g_c(b) * (X - b)], without a gradient at X.

``shap.DeepExplainer`` replaces gradients at modules. A Cnn14 whose ReLUs are functional calls
shows it none, and the rescale rule falls back to the plain gradient at each background clip b.
The values are not additive. Kept under its own name, to compare with the published figures;
``shap`` is Deep SHAP proper.
"""

from __future__ import annotations

import torch
from torch import nn

from .registry import register
from .saliency import input_gradient
from .shap import checked_background


@register("shap_functional", background=True, additive=True, gradients=True)
def shap_functional(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    *,
    background: torch.Tensor,
    chunk_size: int = 16,
) -> torch.Tensor:
    """Gradients at ``background`` (n, 1, F, T) times the difference to the clip, averaged; in logits.

    ``chunk_size`` background clips are held at once. The gradients are computed once per class.
    """
    background = checked_background(background, db, model)
    attribution = torch.zeros_like(db)
    for label in target.unique().tolist():
        chosen = target == label
        for part in background.split(chunk_size):
            gradient = input_gradient(model, part, torch.full((len(part),), label, device=db.device))
            products = (gradient * part).sum(0, keepdim=True)
            attribution[chosen] += gradient.sum(0, keepdim=True) * db[chosen] - products
    return attribution / len(background)

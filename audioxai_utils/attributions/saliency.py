"""Saliency: the gradient of the explained logit, signed, in logits per dB.

References
----------
Simonyan et al. (2013), Deep Inside Convolutional Networks, eq. 3, without the absolute value.
"""

from __future__ import annotations

import torch
from torch import nn

from .registry import register


@register("saliency", gradients=True)
def saliency(
    model: nn.Module, db: torch.Tensor, target: torch.Tensor, *, engine: str = "fast", batch_size: int = 16
) -> torch.Tensor:
    """d g_c / d X by one backward pass per ``batch_size`` clips; ``reference`` is captum's Saliency."""
    gradient = _captum_gradient if engine == "reference" else input_gradient
    parts = zip(db.split(batch_size), target.split(batch_size))
    return torch.cat([gradient(model, part, classes) for part, classes in parts])


def input_gradient(model: nn.Module, db: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Gradient of each clip's ``target`` logit with respect to that clip, (batch, 1, F, T)."""
    db = db.detach().requires_grad_()
    logits = model(db)
    return torch.autograd.grad(logits.gather(1, target[:, None]).sum(), db)[0]


def _captum_gradient(model: nn.Module, db: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    from captum.attr import Saliency

    return Saliency(model).attribute(db.detach().requires_grad_(), target=target, abs=False)

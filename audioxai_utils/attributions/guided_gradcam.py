"""Guided Grad-CAM: guided backpropagation where Grad-CAM sees positive evidence.

Guided backpropagation passes only positive gradients through every ``nn.ReLU``. It sees
modules alone: a functional ``relu`` would pass its plain gradient, so a model without any
``nn.ReLU`` is refused. What reaches a ReLU's output is clamped, as in the paper; captum's
GuidedBackprop clamps what leaves its input, and with it the gradient of a skip path that
begins there. Its GuidedGradCam takes the layer's axes as the input's and so cannot explain a
model that works on transposed spectrograms.

References
----------
Springenberg et al. (2015), Striving for Simplicity, section 3.4; Selvaraju et al. (2017),
Grad-CAM, section 3.2: the ReLU of their eq. 2 is taken here, and the upsampling is bilinear.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from .feature_maps import recorded
from .gradcam import gradcam
from .registry import register
from .saliency import input_gradient


@register("guided_gradcam", gradients=True, layers=True)
def guided_gradcam(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    *,
    layer: nn.Module | str | None = None,
    feature_axes: tuple[str, str] | None = None,
    batch_size: int = 16,
) -> torch.Tensor:
    """Guided gradients, in logits per dB, times the positive part of Grad-CAM.

    ``layer``, ``feature_axes`` and ``batch_size`` are Grad-CAM's.

    Raises
    ------
    ValueError
        The model calls no ``nn.ReLU``.
    """
    relus = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    with torch.no_grad(), recorded(relus) as calls:
        model(db[:1])
    if not calls:
        found = "calls none of its own" if relus else "has none"
        raise ValueError(f"guided_gradcam needs a model whose nonlinearities are nn.ReLU modules; it {found}")
    cam = gradcam(model, db, target, layer=layer, feature_axes=feature_axes, batch_size=batch_size)
    maps = []
    with guided(relus):
        for part, classes in zip(db.split(batch_size), target.split(batch_size)):
            maps.append(input_gradient(model, part, classes))
    return torch.cat(maps) * cam.clamp_min(0)


@contextmanager
def guided(relus: Iterable[nn.ReLU]) -> Iterator[None]:
    """Only positive gradients pass these ReLUs in here (Springenberg et al., figure 1, "guided")."""

    def clamp(relu: nn.ReLU, inputs: tuple, output: torch.Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda gradient: gradient.clamp_min(0))

    handles = [relu.register_forward_hook(clamp) for relu in relus]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

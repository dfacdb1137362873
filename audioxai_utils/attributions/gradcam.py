"""GradCAM: a layer's activations weighted by the explained logit's mean gradient, signed.

The layer's two last axes are taken as (frequency, time). A model that works on transposed
spectrograms says so by ``model.feature_axes = ("time", "frequency")``; the option
``feature_axes`` does the same for a model that cannot be changed.

References
----------
Selvaraju et al. (2017), Grad-CAM, eq. 1 and 2, without the ReLU of eq. 2 (negative evidence
is kept); upsampled to the input's bins bilinearly.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .registry import register

AXES = ("frequency", "time")


@register("gradcam")
def gradcam(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    *,
    layer: nn.Module | str | None = None,
    feature_axes: tuple[str, str] | None = None,
    batch_size: int = 16,
) -> torch.Tensor:
    """Class activation map of one layer, by captum's LayerGradCam.

    Parameters
    ----------
    layer : nn.Module or str, optional
        A module of the model, or its dotted name; default ``model.gradcam_layer``, else the
        last ``nn.Conv2d``. It must return (batch, channels, rows, columns).
    feature_axes : ("frequency", "time") or ("time", "frequency"), optional
        What the layer's rows and columns are; default ``model.feature_axes``, else
        ("frequency", "time").
    batch_size : int
        Clips in one backward pass.
    """
    coarse = class_activation(model, db, target, layer=layer, feature_axes=feature_axes, batch_size=batch_size)
    return functional.interpolate(coarse, db.shape[2:], mode="bilinear", align_corners=False)


def class_activation(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    *,
    layer: nn.Module | str | None = None,
    feature_axes: tuple[str, str] | None = None,
    batch_size: int = 16,
) -> torch.Tensor:
    """The map before it is spread over the input's bins: (batch, 1, f, t), one value a cell of the layer's own grid.

    Parameters are those of `gradcam`.
    """
    from captum.attr import LayerGradCam

    axes = tuple(feature_axes or getattr(model, "feature_axes", AXES))
    if sorted(axes) != sorted(AXES):
        raise ValueError(f'feature_axes must be ("frequency", "time") or ("time", "frequency"); got {axes}')
    cam = LayerGradCam(model, find_layer(model, layer))
    maps = []
    for part, classes in zip(db.split(batch_size), target.split(batch_size)):
        rows_columns = cam.attribute(part.detach().requires_grad_(), target=classes).detach()
        if rows_columns.ndim != 4:
            raise ValueError(f"layer must return (batch, channels, rows, columns); its map is {rows_columns.shape}")
        maps.append(rows_columns if axes == AXES else rows_columns.transpose(2, 3))  # (batch, 1, f, t)
    return torch.cat(maps)


def find_layer(model: nn.Module, layer: nn.Module | str | None = None) -> nn.Module:
    """The layer that GradCAM looks at; ValueError where it is not the model's."""
    modules = dict(model.named_modules())
    if isinstance(layer, str):
        if layer not in modules:
            raise ValueError(f"layer {layer!r} is no module of the model; see model.named_modules()")
        return modules[layer]
    chosen = layer if layer is not None else getattr(model, "gradcam_layer", None)
    if chosen is None:
        convolutions = [module for module in modules.values() if isinstance(module, nn.Conv2d)]
        if not convolutions:
            raise ValueError("the model has no nn.Conv2d; name the layer for GradCAM with layer=")
        return convolutions[-1]
    if not any(chosen is module for module in modules.values()):
        raise ValueError("layer must be one of the model's own modules, or its dotted name")
    return chosen

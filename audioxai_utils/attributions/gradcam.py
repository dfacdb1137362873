"""GradCAM: a layer's activations weighted by the explained score's mean gradient, signed.

The layer is the model's ``gradcam_layer``, else the last called convolution whose map is larger than 1 x 1;
of a transformer, its last layer norm over tokens or over the maps of a later stage. What rows and columns of
its map are, (frequency, time) or (time, frequency), is said by the option ``feature_axes``, by the module
around the layer that has an attribute of that name, wrapped or not, or found by what changes of the input do
to the map. A model of waveforms has maps on axes of its own, which are not those of the picture it is
inspected in: it is refused unless the option says them.

References
----------
Selvaraju et al. (2017), Grad-CAM, eq. 1 and 2, without the ReLU of eq. 2 (negative evidence
is kept); upsampled to the input's bins bilinearly.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .feature_maps import (
    AXES,
    KNOWN_AXES,
    as_map,
    axes_by_change,
    declared_axes,
    find_layer,
    named_layer,
    patch_grid,
    recorded,
)
from .registry import register


@register("gradcam", gradients=True, layers=True)
def gradcam(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    *,
    layer: nn.Module | str | None = None,
    feature_axes: tuple[str, ...] | None = None,
    batch_size: int = 16,
) -> torch.Tensor:
    """Class activation map of one layer.

    Parameters
    ----------
    layer : nn.Module or str, optional
        A module of the model, or its dotted name; default see the module's text. It returns (batch, channels,
        rows, columns), or (batch, tokens, channels).
    feature_axes : ("frequency", "time"), ("time", "frequency"), ("time",) or ("frequency",), optional
        What the map's rows and columns are; default see the module's text.
    batch_size : int
        Clips in one backward pass.
    """
    coarse = class_activation(
        model, db, target, layer=layer, feature_axes=feature_axes, batch_size=batch_size
    )
    size = db.shape[2], getattr(model, "n_frames", None) or db.shape[3]  # frames that the network was given
    fine = functional.interpolate(coarse, size, mode="bilinear", align_corners=False)
    return functional.pad(fine, (0, db.shape[3] - size[1]))  # what was padded or cut in front of the network


def class_activation(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    *,
    layer: nn.Module | str | None = None,
    feature_axes: tuple[str, ...] | None = None,
    batch_size: int = 16,
) -> torch.Tensor:
    """The map before it is spread over the bins: (batch, 1, f, t), one value a cell of the layer's own grid.

    Parameters are those of `gradcam`.
    """
    if feature_axes is not None and tuple(feature_axes) not in KNOWN_AXES:
        raise ValueError(
            f'feature_axes must be ("frequency", "time") or ("time", "frequency"); got {feature_axes}'
        )
    chosen, grid = layer_and_grid(model, db[:1], target[:1], layer)
    axes = tuple(feature_axes) if feature_axes else _axes(model, chosen, grid, db[:1])
    parts = zip(db.split(batch_size), target.split(batch_size))
    cams = torch.cat([weighted_maps(model, chosen, grid, part.detach(), classes) for part, classes in parts])
    if cams.ndim - 2 != len(axes):
        raise ValueError(f"feature_axes must name the {cams.ndim - 2} axes of the layer's map; got {axes}")
    if len(axes) == 1:
        return cams.unsqueeze(2 if axes == ("time",) else 3)
    return cams if axes == AXES else cams.transpose(2, 3)


def layer_and_grid(
    model: nn.Module, db: torch.Tensor, target: torch.Tensor, layer: nn.Module | str | None = None
) -> tuple[nn.Module, tuple[int, int] | None]:
    """The layer that is looked at, found on a clip (1, 1, F, T), and the grid of its tokens if any."""
    chosen = named_layer(model, layer)
    chosen = find_layer(model, db, target) if chosen is None else chosen
    return chosen, None if isinstance(chosen, (nn.Conv1d, nn.Conv2d)) else patch_grid(model, db)


def _axes(
    model: nn.Module, layer: nn.Module, grid: tuple[int, int] | None, clip: torch.Tensor
) -> tuple[str, ...]:
    if not getattr(model, "shares_axes", True):
        raise ValueError(
            "Grad-CAM's map lies on the network's own axes, which are not this picture's; say what they "
            'are with feature_axes=, such as ("time",), or use another method'
        )
    declared = declared_axes(model, layer)
    if declared is not None:
        return declared

    def activation(db: torch.Tensor) -> torch.Tensor:
        with recorded([layer]) as calls:
            model(db)
        _check_whole(1, calls[-1][1], len(db))
        return as_map(layer, calls[-1][1], grid)

    return axes_by_change(activation, clip, padded=getattr(model, "n_frames", None) is not None)


def _check_whole(n_calls: int, maps: torch.Tensor, n_clips: int) -> None:
    """Refuse the maps of a layer that sees a clip in parts."""
    if n_calls > 1 or len(maps) != n_clips:
        raise ValueError(
            f"layer is called {n_calls} times for {n_clips} clips, with {len(maps)} maps each: parts of a "
            "clip, and none is of the whole; name another with layer="
        )


def weighted_maps(
    model: nn.Module,
    layer: nn.Module,
    grid: tuple[int, int] | None,
    db: torch.Tensor,
    target: torch.Tensor,
    graph: bool = False,
) -> torch.Tensor:
    """The layer's maps, each weighted by its mean slope: (batch, 1, rows, columns) or (batch, 1, length).

    ``graph``: differentiable in ``db``, which requires a gradient then.
    """
    with recorded([layer]) as calls:
        score = model(db if graph else db.requires_grad_()).gather(1, target[:, None]).sum()
    if not calls:
        raise ValueError("layer is not called by the model on this clip; name another with layer=")
    activations = [each for _, each in calls]
    as_map(layer, activations[-1], grid)  # refuses before anything is differentiated
    slopes = torch.autograd.grad(score, activations, allow_unused=True, create_graph=graph)
    read = [(activation, slope) for activation, slope in zip(activations, slopes) if slope is not None]
    if not read:
        raise ValueError("the explained score does not read the layer; name another with layer=")
    _check_whole(len(read), activations[-1], len(db))
    ((activation, gradient),) = read
    parts = (activation, gradient) if graph else (activation.detach(), gradient.detach())
    maps, slopes = (as_map(layer, each, grid) for each in parts)
    # (batch, channels, 1, 1)
    weights = slopes.flatten(2).mean(2).view(*slopes.shape[:2], *[1] * (slopes.ndim - 2))
    return (weights * maps).sum(1, keepdim=True).to(db.dtype)

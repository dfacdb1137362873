"""Where in a model Grad-CAM looks, and how what it finds there lies on the spectrogram.

A layer gives maps (batch, channels, rows, columns), a sequence (batch, channels, length) as ``nn.Conv1d``
does, or tokens (batch, tokens, channels), which are put back on the grid of patches that the last convolution
cut. A layer norm over maps (batch, rows, columns, channels) gives those of a transformer in stages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

AXES = ("frequency", "time")
KNOWN_AXES = (AXES, AXES[::-1], ("time",), ("frequency",))
MOST_SPECIAL = 4  # tokens before the patches: class, distillation, registers
DECIDED = 0.2  # of 4; below it a change of half the input says nothing about a map's axes
SPANNED = 0.8  # lean of a change that lies in one half of a map


@contextmanager
def recorded(modules: list[nn.Module]) -> Iterator[list[tuple[nn.Module, torch.Tensor]]]:
    """(module, output) of every call in here, in order; of a tuple its first tensor."""
    calls: list[tuple[nn.Module, torch.Tensor]] = []

    def record(module, inputs, output) -> None:
        output = output[0] if isinstance(output, tuple) else output
        if isinstance(output, torch.Tensor):
            calls.append((module, output))

    handles = [module.register_forward_hook(record) for module in modules]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def named_layer(model: nn.Module, layer: nn.Module | str | None) -> nn.Module | None:
    """The layer that is asked for, or that the model declares; None where neither says one.

    Raises
    ------
    ValueError
        It is not the model's.
    """
    modules = dict(model.named_modules())
    if isinstance(layer, str):
        found = [name for name in modules if name == layer or name.endswith("." + layer)]
        if not found:
            raise ValueError(f"layer {layer!r} is no module of the model; see model.named_modules()")
        return modules[_inside(layer, found)]
    if layer is None:
        declared = (getattr(module, "gradcam_layer", None) for module in modules.values())
        return next((each for each in declared if isinstance(each, nn.Module)), None)
    if not any(layer is module for module in modules.values()):
        raise ValueError("layer must be one of the model's own modules, or its dotted name")
    return layer


def _inside(layer: str, found: list[str]) -> str:
    """The one of several names, all of which end so, that has the least put around it."""
    depth = min(name.count(".") for name in found)
    nearest = [name for name in found if name.count(".") == depth]
    if len(nearest) > 1:
        raise ValueError(
            f"layer {layer!r} is the end of {len(nearest)} names; say which: {', '.join(nearest[:4])}"
        )
    return nearest[0]


def find_layer(model: nn.Module, db: torch.Tensor, target: torch.Tensor) -> nn.Module:
    """The layer on a first clip (1, 1, F, T): the last called convolution that the score reads as a map.

    Its map is larger than 1 x 1, which leaves out the gates of squeeze-excitation, and it is called, and
    read, which leaves out unused heads. Where patches of a convolution go on as tokens, it is the last layer
    norm over tokens of which the score reads patches.

    Raises
    ------
    ValueError
        There is no such layer.
    """
    kinds = (nn.Conv1d, nn.Conv2d, nn.LayerNorm)
    with recorded([module for module in model.modules() if isinstance(module, kinds)]) as calls:
        scores = model(db.detach().requires_grad_())
    calls = [(module, output) for module, output in calls if output.requires_grad]
    score, outputs = scores.gather(1, target[:, None]).sum(), [output for _, output in calls]
    gradients = torch.autograd.grad(score, outputs, allow_unused=True) if outputs else ()
    read = [(module, output, g) for (module, output), g in zip(calls, gradients) if g is not None]
    maps = [(m, out, g) for m, out, g in read if isinstance(m, nn.Conv2d) and out.shape[2:].numel() > 1]
    if maps:
        place = max(i for i, (_, output, _) in enumerate(read) if output is maps[-1][1])
        return _behind(read[place + 1 :], maps[-1][1].shape[2:]) or maps[-1][0]
    sequences = [m for m, out, g in read if isinstance(m, nn.Conv1d) and out.ndim == 3 and out.shape[2] > 1]
    if not sequences:
        raise ValueError(
            "the model has no convolution with a map larger than 1 x 1 that its score reads; "
            "name a layer with layer="
        )
    return sequences[-1]


def _behind(read: list[tuple], grid: torch.Size) -> nn.Module | None:
    """The last layer norm behind the last convolution that is over its patches, or those of a later stage.

    A stage's maps are (batch, rows, columns, channels), as in Swin. A single such norm on the convolution's
    own grid belongs to it, as in ConvNeXt, and as many cells in another order are windows, as in MaxViT.
    """
    norms = [(m, out, g) for m, out, g in read if isinstance(m, nn.LayerNorm)]
    stages = [out for m, out, _ in norms if out.ndim == 4 and _norms_the_last(m, out)]
    found, n_patches = None, grid.numel()
    for module, output, gradient in norms:
        if _is_tokens(module, output, n_patches):
            found = module if bool(gradient[:, -n_patches:].any()) else found
        elif any(output is each for each in stages):
            cells = output.shape[1:3]
            later = 1 < cells.numel() < n_patches or (cells == grid and len(stages) > 1)
            found = module if later else found
    return found


def _norms_the_last(norm: nn.LayerNorm, output: torch.Tensor) -> bool:
    """Whether a layer norm's map has its channels last; one of a kind of its own may have them second."""
    size = tuple(norm.normalized_shape)
    return output.shape[3:] == size and (type(norm) is nn.LayerNorm or output.shape[1:2] != size)


def _channels_last(layer: nn.Module, output: torch.Tensor) -> bool:
    """Whether a map (batch, ?, ?, ?) has its channels last: a layer norm over that axis lies in the layer.

    Raises
    ------
    ValueError
        Its second axis is as long as its last.
    """
    norms = [module for module in layer.modules() if isinstance(module, nn.LayerNorm)]
    if not any(output.shape[3:] == tuple(norm.normalized_shape) for norm in norms):
        return False
    if type(layer) is nn.LayerNorm or output.shape[1] != output.shape[3]:
        return True
    raise ValueError(
        f"layer returns {tuple(output.shape)}, whose channels may be its second axis or its last; name one "
        "of its convolutions or layer norms"
    )


def _is_tokens(module: nn.Module, output: torch.Tensor, n_patches: int) -> bool:
    return (
        isinstance(module, nn.LayerNorm)
        and output.ndim == 3
        and 0 <= output.shape[1] - n_patches <= MOST_SPECIAL
    )


def patch_grid(model: nn.Module, db: torch.Tensor) -> tuple[int, int] | None:
    """Rows and columns of the last convolution's map larger than 1 x 1; None where there is none."""
    with torch.no_grad(), recorded([m for m in model.modules() if isinstance(m, nn.Conv2d)]) as calls:
        model(db)
    shapes = [
        tuple(output.shape[2:]) for _, output in calls if output.ndim == 4 and output.shape[2:].numel() > 1
    ]
    return shapes[-1] if shapes else None


def as_map(layer: nn.Module, output: torch.Tensor, grid: tuple[int, int] | None) -> torch.Tensor:
    """A layer's output, channels first or last, as (batch, channels, rows, columns) or (batch,
    channels, length).

    Raises
    ------
    ValueError
        It is neither a map, nor a sequence, nor tokens.
    """
    if output.ndim == 4:
        return output.permute(0, 3, 1, 2) if _channels_last(layer, output) else output
    if output.ndim == 3 and isinstance(layer, nn.Conv1d):
        return output
    if output.ndim != 3:
        raise ValueError(
            f"layer must return (batch, channels, rows, columns) or (batch, tokens, channels); its map is "
            f"{tuple(output.shape)}"
        )
    n_patches = grid[0] * grid[1] if grid else output.shape[1]
    if not 0 <= output.shape[1] - n_patches <= MOST_SPECIAL:
        return output.transpose(1, 2)  # a sequence of another kind, such as a recurrence's
    tokens = output[:, output.shape[1] - n_patches :].transpose(1, 2)
    return tokens.unflatten(2, grid) if grid else tokens


def declared_axes(model: nn.Module, layer: nn.Module) -> tuple[str, ...] | None:
    """``feature_axes`` of the innermost module around the layer that has them."""
    owners = [
        m
        for m in model.modules()
        if hasattr(m, "feature_axes") and any(layer is each for each in m.modules())
    ]
    return tuple(owners[-1].feature_axes) if owners else None


@torch.no_grad()
def axes_by_change(
    activation: Callable[[torch.Tensor], torch.Tensor], db: torch.Tensor, padded: bool = False
) -> tuple[str, ...]:
    """What the axes of a layer's map are: along time the map changes where half of the input's frames change.

    Where each cell sees the whole clip, a clip of twice the length tells: along time the map grows.

    Parameters
    ----------
    activation : callable
        Clips (1, 1, F, T) to the layer's map (1, channels, rows, columns) or (1, channels, length).
    db : torch.Tensor
        A clip (1, 1, F, T).
    padded : bool
        Whether the clip is known to be padded or cut in front of the network.

    Raises
    ------
    ValueError
        Changes spread over the whole map, so that it cannot be told, or the map is of other frames than the
        clip: the network pads or cuts it.
    """
    noise = torch.randn(db.shape, generator=torch.Generator().manual_seed(0)).to(db) * (db.std() + 1)
    first = {"frequency": torch.zeros_like(db), "time": torch.zeros_like(db)}  # what lies in the first half
    first["frequency"][:, :, : db.shape[2] // 2], first["time"][..., : db.shape[3] // 2] = 1, 1
    before, lean = activation(db), {}
    for name, half in first.items():
        change = (activation(db + noise * half) - before).abs().mean(1)[0]  # (rows, columns) or (length,)
        lean[name] = [_lean(change, axis) for axis in range(change.ndim)]
    if before.ndim == 3:
        evidence = 2 * (lean["time"][0] - lean["frequency"][0])
        found = ("time",) if evidence > 0 else ("frequency",)
    else:
        evidence = lean["time"][1] - lean["time"][0] + lean["frequency"][0] - lean["frequency"][1]
        found = AXES if evidence > 0 else AXES[::-1]
    if abs(evidence) >= DECIDED:
        second = (activation(db + noise * (1 - first["time"])) - before).abs().mean(1)[0]
        if "time" in found and not padded:
            _check_span(lean["time"][found.index("time")], second, found.index("time"))
        return found
    found = _axes_by_length(activation, db, before)
    if found is None:
        raise ValueError(
            "the axes of the layer's map cannot be told from what changes of the input do to it; give "
            'feature_axes=("frequency", "time"), ("time", "frequency") or ("time",)'
        )
    return found


def _axes_by_length(activation: Callable, db: torch.Tensor, before: torch.Tensor) -> tuple[str, ...] | None:
    """Likewise, for cells that see the whole clip: what grows with it is time; None where nothing does."""
    try:
        after = activation(torch.cat([db, db], 3))
    except (RuntimeError, ValueError, IndexError):  # the network takes clips of one length
        return None
    if after.ndim != before.ndim:
        return None
    grown = [axis for axis in range(2, before.ndim) if after.shape[axis] > before.shape[axis]]
    return {(2, 3): None, (3,): AXES, (2,): ("time",) if before.ndim == 3 else AXES[::-1]}.get(tuple(grown))


def _check_span(lean: float, second: torch.Tensor, axis: int) -> None:
    """Refuse a map in whose first half both halves of the clip's frames lie, or the first alone."""
    if not second.any() or (lean > SPANNED and _lean(second, axis) > SPANNED):
        raise ValueError(
            "the layer's map is of other frames than this clip: the network pads or cuts it; do that in "
            "front of it, by LogMel(n_frames=), or use another method"
        )


def _lean(change: torch.Tensor, axis: int) -> float:
    """How far a change lies in the first half along an axis, -1 to 1; 0 where it is one cell long."""
    n = change.shape[axis]
    if n == 1:
        return 0.0
    halves = [float(change.narrow(axis, start, n // 2).sum()) for start in (0, n - n // 2)]
    return (halves[0] - halves[1]) / max(sum(halves), 1e-30)

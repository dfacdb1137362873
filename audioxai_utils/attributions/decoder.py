"""A decoder that turns a classifier's feature maps into a mask, how it is trained, and the file it is kept
in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn
from torch.nn import functional

from ..models.checkpoints import load_state
from ..numerics import default_dtype
from .feature_maps import AXES, axes_by_change, declared_axes

WIDTH = 16  # channels of the decoder, at every level
AGAIN = "train one with decoder_training.train_decoder"
Fitted = TypeVar("Fitted", bound=nn.Module)
START = 1.5  # of the logits: the first masks keep most, and so the class, as in ``extremal``


@dataclass(frozen=True)
class Recipe:
    """How a decoder is trained; ``area_weight`` and ``smoothness`` are as in ``extremal``.

    With ``guide`` above 0, masks are drawn towards the loud bins of their clip, see ``lmac_ft``.
    """

    epochs: int = 20
    batch_size: int = 8
    learning_rate: float = 3e-3  # highest of one cycle
    area_weight: float = 2.0  # nats per unit of area
    smoothness: float = 0.5  # nats per mean absolute difference of neighbouring cells
    noise: float = 1.0  # dB, standard deviation on every bin
    mixed: float = 0.5  # share of the clips that another one is added to
    quieter: float = 10.0  # dB; the other one is 0 to this much quieter
    second: float = 0.1  # share of the clips whose second class is asked for instead of the predicted one
    guide: float = 0.0  # nats per nat of cross-entropy between a mask and its clip's loud bins
    loud: float = 0.35  # of the clip's largest log(1 + magnitude); bins from there on are loud
    alike: float = 0.6  # least correlation of the kept part with the clip at which the guide counts

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more; got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0; got {self.learning_rate}")
        if not self.guide >= 0:
            raise ValueError(f"guide must be 0 or more; got {self.guide}")


class Decoder(nn.Module):
    """Logits of a class's mask from feature maps, the finest first; each coarser level is added to the next
    finer.

    Parameters
    ----------
    channels : sequence of int
        Of each feature map.
    n_classes : int
        The classifier's; each scales and shifts every level's channels in its own way.
    width : int
        Channels of the decoder.
    """

    def __init__(self, channels: Sequence[int], n_classes: int, width: int = WIDTH) -> None:
        super().__init__()
        self.channels, self.n_classes, self.width = list(channels), n_classes, width
        self.classes = nn.ModuleList(nn.Embedding(n_classes, 2 * width) for _ in channels)
        for each in self.classes:
            nn.init.zeros_(each.weight)  # all classes begin alike
        self.takes = nn.ModuleList(nn.Conv2d(n, width, 1) for n in channels)
        self.norms = nn.ModuleList(nn.GroupNorm(1, width) for _ in channels)  # of each clip by itself
        self.refines = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)
        self.head = nn.Conv2d(width, 1, 3, padding=1)
        nn.init.constant_(self.head.bias, START)

    def forward(self, features: Sequence[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
        """Logits (n, 1, F', T') of the masks of classes (n,), at the resolution of the finest map."""
        return self.head(self.joined(features, target))

    def joined(self, features: Sequence[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
        """All maps as one (n, width, F', T')."""
        x = None
        levels = list(zip(features, self.takes, self.norms, self.classes, self.refines))
        for maps, take, norm, classes, refine in reversed(levels):
            scale, shift = classes(target)[:, :, None, None].chunk(2, dim=1)  # (n, width, 1, 1) each
            own = norm(take(maps)) * (1 + scale) + shift
            if x is not None:
                own = own + functional.interpolate(x, own.shape[2:], mode="bilinear", align_corners=False)
            x = functional.relu(refine(own))  # (n, width, F', T')
        return x


@contextmanager
def recorded(model: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, torch.Tensor]]:
    """Outputs of ``layers`` at each pass of the model in here, by name."""
    outputs: dict[str, torch.Tensor] = {}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: outputs.__setitem__(name, output)
        )
        for name in layers
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def features_of(
    model: nn.Module, db: torch.Tensor, layers: Sequence[str]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Logits (n, classes) and the feature maps of ``layers``, (n, channels, frequency, time) each."""
    with torch.no_grad(), recorded(model, layers) as outputs:
        logits = model(db)
    swapped = declared_axes(model, model.get_submodule(layers[0])) == AXES[::-1]
    return logits, [outputs[name].transpose(2, 3) if swapped else outputs[name] for name in layers]


def settle_axes(model: nn.Module, db: torch.Tensor, layer: str) -> None:
    """Let a copy of a model say what the axes of its maps are, by what changes of clips (n, 1, F, T) do to
    ``layer``'s.
    """
    if declared_axes(model, model.get_submodule(layer)) is not None:
        return

    def activation(clip: torch.Tensor) -> torch.Tensor:
        with recorded(model, [layer]) as outputs:
            model(clip)
        return outputs[layer]

    padded = getattr(model, "n_frames", None) is not None
    model.feature_axes = axes_by_change(activation, db[:1], padded)


def asked(logits: torch.Tensor, recipe: Recipe, draws: torch.Generator) -> torch.Tensor:
    """Classes (n,) whose masks are trained: the predicted ones, and here and there the second ones."""
    first, second = logits.topk(2, dim=1).indices.unbind(1)
    return torch.where(
        (torch.rand(len(logits), generator=draws) < recipe.second).to(first.device), second, first
    )


def feature_layers(model: nn.Module, db: torch.Tensor) -> list[str]:
    """The modules that give maps (n, channels, ., .), in the order of the pass.

    The model's children, or those of what it wraps or of its parts: the first generation that has some.

    Raises
    ------
    ValueError
        There is none: a decoder has nothing to read.
    """
    parents = [""]
    while parents:
        names = [
            f"{prefix}.{name}".lstrip(".")
            for prefix in parents
            for name, _ in model.get_submodule(prefix).named_children()
        ]
        with torch.no_grad(), recorded(model, names) as outputs:
            model(db)
        maps = [
            name for name, output in outputs.items() if isinstance(output, torch.Tensor) and output.ndim == 4
        ]
        if maps:
            return maps
        parents = names
    raise ValueError("model must have a module that returns maps (n, channels, ., .); it has none")


def read_decoder(path: str | Path) -> dict:
    """What a decoder's file holds; errors as `load_decoder`."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"decoder {path}: no such file; {AGAIN}")
    try:
        content = load_state(path)
    except ValueError as error:
        raise ValueError(f"decoder {error}; {AGAIN}") from error
    if {"decoder", "channels", "n_classes", "width", "layers", "info"} - set(content):
        raise ValueError(f"decoder {path}: holds no decoder; {AGAIN}")
    return content


def load_decoder(path: str | Path, like: torch.Tensor) -> tuple[Decoder, list[str]]:
    """Decoder of a file, with ``like``'s device and dtype and frozen, and the layers it reads.

    Raises
    ------
    FileNotFoundError
        No file at ``path``.
    ValueError
        It is not a decoder's.
    """
    content = read_decoder(path)
    sizes = (content["channels"], content["n_classes"], content["width"])
    return restored(lambda: Decoder(*sizes), content, path, like), content["layers"]


def restored(make: Callable[[], Fitted], content: dict, path: str | Path, like: torch.Tensor) -> Fitted:
    """What ``make`` gives, with the weights of a file's ``content``: frozen, of ``like``'s device and dtype.

    ValueError, which names ``path``, where the file holds the weights of another module.
    """
    # the weights drawn here are thrown away
    with torch.random.fork_rng(devices=[]), default_dtype(like.dtype):
        fitted = make()
    if set(fitted.state_dict()) != set(content["decoder"]):
        raise ValueError(f"decoder {path}: is another method's; {AGAIN}")
    fitted.load_state_dict(content["decoder"])
    return fitted.to(like).eval().requires_grad_(False)

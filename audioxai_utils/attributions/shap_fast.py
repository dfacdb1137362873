"""Deep SHAP's fast engine: the background's activations once, one forward per clip, backward by pairs.

``shap`` runs 2n clips forward and backward for each clip and n background clips. Here, for a
chunk of B background clips:

1. their inputs to every nonlinear module are recorded, in one forward pass for all clips;
2. each clip goes through the linear and nonlinear modules once, as a batch of one that is
   expanded to B without being copied;
3. the backward pass runs on B pairs: linear modules apply their transpose, nonlinear modules
   multiply by the pair's (f(x) - f(b)) / (x - b).

Everything happens in a copy of the model with its batch norms folded.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import nn
from torch.nn import functional

from ..models.inference import inference_copy
from ..models.untouched import evaluation_copy
from . import rescale

CAUSE = (
    "a nonlinearity that is no module (functional.relu, torch.max, ...) or a module that is no known "
    "nonlinearity hides from Deep SHAP over modules: use engine='exact', or nn.ReLU, nn.MaxPool1d/2d, ..."
)
CHUNK_SIZE = {"cpu": 10, "cuda": 50}
TOLERANCE = 1e-2  # of the logits' typical difference; float32's rounding stays far below
PROVED = 1e-5  # of one pair's difference in float64: only rounding and tiny differences are left
CONVOLUTIONS = {nn.Conv1d: nn.grad.conv1d_input, nn.Conv2d: nn.grad.conv2d_input}
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
MAX_POOLS = {nn.MaxPool1d: functional.max_pool1d, nn.MaxPool2d: functional.max_pool2d}
ELEMENTWISE = (
    nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.ReLU6,
    nn.Hardtanh,
)  # fmt: skip


class NotAdditive(ValueError):
    """Deep SHAP over modules misses the logit's difference on this model."""


def attribute(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    background: torch.Tensor,
    chunk_size: int | None,
) -> torch.Tensor:
    """Deep SHAP values (batch, 1, F, T); NotAdditive where they do not add up."""
    pairs = PairedModel(inference_copy(model, db))
    attribution = torch.zeros_like(db)
    rises, sizes, labels = [], [], target.tolist()
    for part in background.split(chunk_size or CHUNK_SIZE.get(db.device.type, 16)):
        background_logits = pairs.record(part)
        for i, label in enumerate(labels):
            products, logits = pairs.explain(db[i : i + 1], part, label)
            attribution[i] += products
            rises.append(logits[0, label] - background_logits[:, label])
            sizes.append(logits.abs().max())
    rises = [torch.cat(rises[i :: len(db)]) for i in range(len(db))]
    attribution /= len(background)
    _check_additivity(attribution, torch.stack(rises), float(torch.stack(sizes).max()))
    return attribution


def fits(model: nn.Module, db: torch.Tensor, target: torch.Tensor, background: torch.Tensor) -> bool:
    """Whether all that bends in the model is a module with a rule: a first pair adds up in float64.

    A small part that hides would pass for float32's rounding, on some clips and not on others.
    """
    clip, reference = db[:1].double(), background[:1].double()
    try:
        pairs = PairedModel(evaluation_copy(model).double().requires_grad_(False))
        below = pairs.record(reference)
        products, logits = pairs.explain(clip, reference, int(target[0]))
    # no copy, no float64, in place on an expanded clip, or a part that is run again backwards
    except (TypeError, RuntimeError, NotImplementedError, IndexError):
        return False
    rise = (logits - below)[0, int(target[0])]
    rounding = 1e-9 * float(products.abs().sum() + logits.abs().max())
    return bool((products.sum() - rise).abs() <= PROVED * rise.abs() + rounding)


def _check_additivity(attribution: torch.Tensor, rises: torch.Tensor, size: float) -> None:
    """Raise unless each clip's values add up to its mean ``rises`` (batch, n) over the background.

    ``size`` is the largest logit: a sum cannot be held to more digits than its terms have.
    """
    values, rises = attribution.double().flatten(1), rises.double()
    error = (values.sum(dim=1) - rises.mean(dim=1)).abs()
    rounding = 100 * torch.finfo(attribution.dtype).eps * (values.abs().sum(dim=1) + size)
    excess = error - TOLERANCE * rises.abs().mean(dim=1) - rounding
    worst = int(excess.argmax())
    if excess[worst] > 0:
        raise NotAdditive(
            f"Deep SHAP is not additive on this model, its values miss the logits' difference of "
            f"{float(rises[worst].mean()):.3g} by {float(error[worst]):.3g}: {CAUSE}"
        )


class PairedModel:
    """A model whose modules work on pairs of one clip and each of B background clips.

    Parameters
    ----------
    model : nn.Module
        A copy in eval mode that nobody else uses; its modules' ``forward`` are replaced.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._recording = False
        self._inputs: dict[nn.Module, list[torch.Tensor]] = defaultdict(list)  # per call, (B, ...)
        self._calls: dict[nn.Module, int] = defaultdict(int)
        for module in model.modules():
            if hasattr(module, "inplace"):
                module.inplace = False
            self._patch(module)

    @torch.no_grad()
    def record(self, background: torch.Tensor) -> torch.Tensor:
        """Keep what the nonlinear modules are given for (B, 1, F, T); return the logits (B, classes)."""
        self._inputs.clear()
        self._recording = True
        try:
            return self.model(background)
        finally:
            self._recording = False

    def explain(
        self, clip: torch.Tensor, background: torch.Tensor, label: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum over the recorded background of multiplier * difference, (1, F, T), and the clip's logits."""
        self._calls.clear()
        pairs = clip.expand(len(background), -1, -1, -1).requires_grad_()
        logits = self.model(pairs)
        (multipliers,) = torch.autograd.grad(logits[:, label].sum(), pairs)
        return (multipliers * (clip - background)).sum(dim=0), logits[:1].detach()

    def _patch(self, module: nn.Module) -> None:
        plain, kind = module.forward, type(module)
        if kind in ELEMENTWISE or (kind in MAX_POOLS and not module.return_indices):
            module.forward = lambda x: self._nonlinear(module, plain, x)
        elif _transpose(module, torch.Size([1, 1, 1, 1])) is not None:
            module.forward = lambda x: plain(x) if self._recording else _Linear.apply(x, plain, module)

    def _nonlinear(self, module: nn.Module, plain, x: torch.Tensor) -> torch.Tensor:
        if self._recording:
            self._inputs[module].append(x)
            return plain(x)
        background = self._inputs[module][self._calls[module]]
        self._calls[module] += 1
        if type(module) in MAX_POOLS:
            return rescale.MaxPool.apply(
                x, background, MAX_POOLS[type(module)], rescale.pool_arguments(module)
            )
        rule = rescale.ReLU if type(module) is nn.ReLU else rescale.Elementwise
        return rule.apply(x, background, plain)


class _Linear(torch.autograd.Function):
    """A linear (affine) module: forward on the first of equal clips, backward by its transpose."""

    @staticmethod
    def forward(ctx, x, plain, module):
        ctx.module, ctx.shape = module, x.shape
        return plain(x[:1]).expand(len(x), *[-1] * (x.ndim - 1))

    @staticmethod
    def backward(ctx, g):
        return _transpose(ctx.module, ctx.shape)(g), None, None


def _transpose(module: nn.Module, shape: torch.Size):
    """The transpose of a known linear module for inputs of ``shape``, else None."""
    kind = type(module)
    if kind is nn.Linear:
        return lambda g: g @ module.weight
    if kind in CONVOLUTIONS and module.padding_mode == "zeros" and not isinstance(module.padding, str):
        return lambda g: CONVOLUTIONS[kind](
            shape, module.weight, g, module.stride, module.padding, module.dilation, module.groups
        )
    if kind in BATCH_NORMS and module.track_running_stats and module.running_var is not None:
        scale = (module.running_var + module.eps).rsqrt()
        scale = scale if module.weight is None else scale * module.weight
        return lambda g: g * scale.view(1, -1, *[1] * (g.ndim - 2))
    return None

"""Trust checks: is the gradient that explains a model the gradient of that model?

A wrong gradient shows in no output. PyTorch's batch norm on CPU mixes up elements where its
input's strides are ambiguous, as with the usual 2-D ``bn0`` of audio models on a transposed
spectrogram; the attribution then has nothing to do with the model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from ..models.untouched import evaluation_copy, recurrent_gradients, untouched
from ..models.wrapping import is_differentiable, is_scripted
from ..numerics import tensor_float32
from .registry import check_spectrograms, methods_that_ask
from .saliency import input_gradient

STEP = 1e-6  # dB; small against the distance to kinks of ReLU and max, large against float64's rounding
JITTER = 1e-3  # dB; moves each comparison off ties and kinks, as silent frames make them
# float32 moves units across ReLU's kink; a mixed-up gradient differs by more than 1
OWN_TYPE_TOLERANCE = 0.05


class GradientCheckError(ValueError):
    """The model's input gradient is not the derivative of its logits."""


@dataclass(frozen=True)
class GradientCheck:
    """What a passed check found.

    n_compared : derivatives compared, of clips x directions (others crossed a kink)
    relative_error : largest difference over the largest derivative
    cosine : between the derivatives by gradient and by central differences
    own_type_error : relative L2 difference of the gradient in the model's own dtype to float64's
    """

    n_compared: int
    relative_error: float
    cosine: float
    own_type_error: float


def gradient_check(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor | None = None,
    n_directions: int = 8,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> GradientCheck:
    """Prove ``model``'s input gradient by central differences in float64.

    A float64 copy is differentiated on ``db``'s device and in its memory layout, and compared
    with (g_c(X + h v) - g_c(X - h v)) / 2h along random directions v, each time a thousandth of
    a dB off ``db``; a comparison with a kink between both ends is left out. Then the gradient
    in the model's own dtype is compared with float64's. The model is not changed.

    Parameters
    ----------
    model : nn.Module
        ``model(db)`` -> logits (batch, classes).
    db : Tensor (batch, 1, frequency, time)
        Clips in dB; give the shape and batch size that will be explained.
    target : Tensor (batch,), optional
        Explained classes; default the predicted ones.
    tolerance : float
        Largest relative error of a derivative.

    Raises
    ------
    GradientCheckError
        The gradient is wrong, or cannot be told; names the layer where it first goes wrong,
        counted from the logits, where one layer alone shows it.
    """
    check_spectrograms("db", db, model)
    generator = torch.Generator().manual_seed(seed)
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        untouched(model),
        recurrent_gradients(model, db.device),
    ):
        exact, clips = _float64(model), db.detach().clone()
        _check_differentiable(exact, clips)
        if target is None:
            target = exact(clips.double()).argmax(dim=1)
        target = target.detach().to(db.device, torch.long, copy=True)
        analytic, numeric = _derivatives(exact, clips.double(), target, n_directions, tolerance, generator)
        error, cosine = _compare(analytic, numeric)
        if not error <= tolerance:
            place = _first_wrong_layer(exact, clips.double(), target, tolerance, generator)
            raise GradientCheckError(_message("", error, cosine, place))
        own_error = _own_type_error(model, exact, clips + JITTER * _direction(clips, generator), target)
    return GradientCheck(len(numeric), error, cosine, own_error)


NO_GRADIENT = (
    "the model's outputs do not depend on its input by a gradient; methods that only ask for outputs need "
    "none: {}"
)
NO_COPY = (
    "the model's gradient cannot be checked: it cannot be copied in float64 ({}); pass "
    "check_gradient=False, or a method that needs no gradient"
)


def _float64(model: nn.Module) -> nn.Module:
    try:
        exact = evaluation_copy(model).double()
    except (TypeError, RuntimeError, NotImplementedError, copy.Error) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise GradientCheckError(NO_COPY.format(reason[:100])) from error
    for module in exact.modules():
        if hasattr(module, "inplace") and not isinstance(module, torch.jit.ScriptModule):
            module.inplace = False  # so that recorded inputs stay what they were
    return exact


def _check_differentiable(exact: nn.Module, clips: torch.Tensor) -> None:
    """Refuse a model that does not run in float64, or whose outputs have no gradient."""
    if not is_differentiable(exact):
        raise GradientCheckError(NO_GRADIENT.format(methods_that_ask()))
    clip = clips[:1].double().requires_grad_()
    try:
        scores = exact(clip)
        if scores.requires_grad:
            torch.autograd.grad(scores.sum(), clip, allow_unused=True, retain_graph=is_scripted(exact))
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        single = any(word in reason for word in ("dtype", "Double", "double"))  # a part that stays in float32
        hint = ", and check_gradient=False leaves the proof out" if single else ""
        raise GradientCheckError(
            f"the model's gradient cannot be checked in float64: {reason[:150]}; methods that only ask for "
            f"outputs need none{hint}"
        ) from error
    if not scores.requires_grad:
        raise GradientCheckError(NO_GRADIENT.format(methods_that_ask()))
    if is_scripted(exact):  # frozen, its weights are constants, and float32 they stay
        single = (scores == scores.float().double()).double().mean()
        if single >= 0.5:
            raise GradientCheckError(NO_COPY.format("frozen ScriptModule"))


def _message(where: str, error: float, cosine: float, place: str | None) -> str:
    if place:
        place = f"it first goes wrong (from the logits) in layer {place}"
    elif where:
        place = "the float64 copy's gradient is right: explain the network in float32, by net.float()"
    else:
        place = "no layer alone shows it, look at the functional calls in forward(), and for autocast"
    return (
        f"the model's input gradient{where} is wrong and would explain nothing: relative error {error:.2g}, "
        f"cosine {cosine:.3f} with the true one; {place}; batch norm on a transposed tensor is a usual cause "
        "(give it a contiguous one)"
    )


def _compare(found: torch.Tensor, expected: torch.Tensor) -> tuple[float, float]:
    """Largest difference over the largest expected value, and the cosine."""
    scale = torch.maximum(expected.abs().max(), found.abs().max()).clamp_min(1e-300)
    error = (found - expected).abs().max() / expected.abs().max().clamp_min(1e-12 * scale)
    if not bool(found.any() or expected.any()):
        return 0.0, 1.0  # a constant model: both are zero
    return float(error), float(
        torch.cosine_similarity(found.flatten() / scale, expected.flatten() / scale, dim=0)
    )


def _derivatives(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    n_directions: int,
    tolerance: float,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Directional derivatives by gradient and by differences, where both sides' slopes agree."""
    analytic, numeric, bends = [], [], []
    for _ in range(n_directions):
        clips, direction = db + JITTER * _direction(db, generator), _direction(db, generator)
        analytic.append((input_gradient(model, clips, target) * direction).sum(dim=(1, 2, 3)))
        with torch.no_grad():
            low, middle, high = (
                model(clips + step * direction).gather(1, target[:, None])[:, 0]
                for step in (-STEP, 0.0, STEP)
            )
        numeric.append((high - low) / (2 * STEP))
        bends.append((high - 2 * middle + low).abs() / STEP)
    analytic, numeric, bends = (torch.cat(each) for each in (analytic, numeric, bends))
    smooth = bends <= tolerance * numeric.abs().max()
    if smooth.sum() < max(1, len(smooth) // 4):
        raise GradientCheckError(
            f"the model's gradient cannot be checked: its logits are not smooth or not repeatable along "
            f"{int((~smooth).sum())} of {len(smooth)} directions"
        )
    return analytic[smooth], numeric[smooth]


def _own_type_error(model: nn.Module, exact: nn.Module, db: torch.Tensor, target: torch.Tensor) -> float:
    """Relative L2 difference between the gradients of the model and of its float64 copy."""
    with tensor_float32(False, db.device):
        own = input_gradient(model, db, target).double()
    gradient = input_gradient(exact, db.double(), target)
    error = float((own - gradient).norm() / gradient.norm().clamp_min(1e-300))
    if not error <= OWN_TYPE_TOLERANCE:
        own_type = next((p.dtype for p in model.parameters() if p.is_floating_point()), db.dtype)
        raise GradientCheckError(_message(f" in {own_type}", error, _compare(own, gradient)[1], None))
    return error


def _direction(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)


def _first_wrong_layer(
    model: nn.Module, db: torch.Tensor, target: torch.Tensor, tolerance: float, generator: torch.Generator
) -> str | None:
    """Name and kind of the last leaf whose own backward pass is wrong on what it met here."""
    for name, module, given, incoming in reversed(_recorded_calls(model, db, target)):
        x = given.detach().requires_grad_()  # keeps the strides, which matter
        (found,) = torch.autograd.grad(module(x), x, incoming)
        direction = _direction(x, generator)
        with torch.no_grad():
            low, middle, high = (
                float((incoming * module(x + step * direction)).sum()) for step in (-STEP, 0.0, STEP)
            )
        numeric, bend = (high - low) / (2 * STEP), abs(high - 2 * middle + low) / STEP
        noise = 1e-8 * float(incoming.norm() * direction.norm())
        wrong = (
            abs(float((found * direction).sum()) - numeric) > max(10 * tolerance, 1e-3) * abs(numeric) + noise
        )
        if wrong and bend <= 1e-3 * abs(numeric) + noise:
            return f"{name} ({type(module).__name__}, input {tuple(x.shape)} with strides {x.stride()})"
    return None


def _recorded_calls(model: nn.Module, db: torch.Tensor, target: torch.Tensor) -> list[tuple]:
    """(name, module, input, incoming gradient) of every differentiated leaf call, in order."""
    calls, handles = [], []

    def record(name: str) -> Callable:
        def hook(module, inputs, output) -> None:
            if isinstance(output, torch.Tensor) and output.requires_grad:
                call = [name, module, inputs[0].detach(), None]
                output.register_hook(lambda gradient: call.__setitem__(3, gradient))
                calls.append(call)

        return hook

    for name, module in model.named_modules():
        if not list(module.children()) and not isinstance(module, torch.jit.ScriptModule):  # takes no hooks
            handles.append(module.register_forward_hook(record(name)))
    try:
        input_gradient(model, db, target)
    finally:
        for handle in handles:
            handle.remove()
    return [tuple(call) for call in calls if call[3] is not None]

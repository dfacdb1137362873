"""A copy of a model that gives the same logits sooner: batch norms folded, channels last.

It takes any ``nn.Module``. What cannot be proved to be
the same on the model at hand is left as it is.
"""

from __future__ import annotations

import copy
from collections import Counter

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .reading import reading_of
from .untouched import evaluation_copy

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
IN_PLACE = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardswish, nn.SiLU)  # nonlinearities that can work so
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}  # of the largest logit, for rounding alone
ROUNDED = 10  # times that in probability: scores of some thousand are themselves no finer


@torch.no_grad()
def inference_copy(model: nn.Module, example: torch.Tensor, dtype: torch.dtype | None = None) -> nn.Module:
    """Copy ``model`` for inference; the model itself is not changed.

    A batch norm that takes a convolution's output is folded into that convolution, and a ReLU, hardswish or
    the like after it works in place, where the copy's logits on ``example`` and on noise around it stay
    the same up to rounding; each pair that changes them is left alone.

    Parameters
    ----------
    model : nn.Module
        ``model(db)`` -> logits.
    example : Tensor (n, 1, frequency, time)
        Clips of the kind that will follow, in dB, on the model's device; one is enough.
    dtype : torch.dtype, optional
        ``torch.bfloat16`` (or float16) runs convolutions in that type; what comes before the first of them,
        and linear layers, stay in the model's own.

    Returns
    -------
    nn.Module
        In eval mode, without parameter gradients; logits in the model's own dtype, or in
        ``dtype`` where one is given. A model that cannot be copied (it holds a lock, a file, a session) is
        returned itself, as it is.
    """
    if dtype not in (None, torch.bfloat16, torch.float16, example.dtype):
        raise ValueError(f"dtype must be None, torch.bfloat16, torch.float16 or the model's own; got {dtype}")
    plain = _copied(model)
    if plain is None:
        return model
    examples = _examples(example)
    sequences = _sequences(plain, examples)
    folded = _fold_proved(plain, examples, sequences) if sequences else plain
    if example.dtype == torch.float32 and not any(
        isinstance(m, torch.jit.ScriptModule) for m in folded.modules()
    ):
        folded = folded.to(memory_format=torch.channels_last)
    if dtype in (torch.bfloat16, torch.float16):
        _lower_precision(folded, dtype)
    return folded


def half_precision_copy(fused: nn.Module, example: torch.Tensor) -> nn.Module | None:
    """A copy of an `inference_copy` whose convolutions run in float16, for many questions on a GPU.

    float16 has the ten bits of mantissa that TF32 has, in half the bytes; what it lacks is range. Whoever
    asks the copy holds some of its answers against those of ``fused``, of every clip.

    Parameters
    ----------
    fused : nn.Module
        From `inference_copy`, with every parameter in float32.
    example : Tensor (n, 1, frequency, time)
        Clips in dB, float32, on a CUDA device.

    Returns
    -------
    nn.Module or None
        None on a processor, in another type, and for a model that cannot be asked so.
    """
    on_gpu = example.device.type == "cuda" and example.dtype == torch.float32
    return _in_half(fused, example) if on_gpu else None


@torch.no_grad()
def _in_half(fused: nn.Module, example: torch.Tensor) -> nn.Module | None:
    if any(each.dtype != torch.float32 for each in fused.parameters() if each.is_floating_point()):
        return None
    try:
        half = copy.deepcopy(fused)
        _lower_precision(half, torch.float16)
        half(example[:1])
    except Exception:  # whatever a network raises in float16, or where it is copied, is a reason for float32
        return None
    return half


def _copied(model: nn.Module) -> nn.Module | None:
    """A copy in eval mode without parameter gradients; None where the model holds what cannot be copied."""
    try:
        return evaluation_copy(model).requires_grad_(False)
    # whatever the part that refuses raises
    except (TypeError, RuntimeError, NotImplementedError, copy.Error):
        return None


def _examples(example: torch.Tensor) -> torch.Tensor:
    """``example``'s first clip and the same with noise of its own spread, (2, 1, F, T)."""
    clip = example[:1]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(clip.shape, generator=generator, dtype=torch.float64).to(clip)
    return torch.cat([clip, clip + noise * (clip.std() + 1)])


def _sequences(model: nn.Module, examples: torch.Tensor) -> list[tuple[str, str, str | None]]:
    """Names of (convolution, batch norm, nonlinearity or None) that hand one tensor on, each called once."""
    calls: list[tuple[str, torch.Tensor, torch.Tensor]] = []  # holds the tensors, so that identity is unique
    handles = []
    names = {module: name for name, module in model.named_modules()}

    def record(module, inputs, output) -> None:
        calls.append((names[module], inputs[0], output))

    for module in names:
        if type(module) in (*CONVOLUTIONS, *BATCH_NORMS, *IN_PLACE):
            handles.append(module.register_forward_hook(record))
    try:
        model(examples)
    finally:
        for handle in handles:
            handle.remove()
    n_calls = Counter(name for name, _, _ in calls)
    kinds = {name: type(module) for module, name in names.items()}
    sequences = []
    for conv, _, out in calls:
        norm = _next(calls, out, kinds, BATCH_NORMS)
        if kinds[conv] in CONVOLUTIONS and norm and n_calls[conv] == n_calls[norm[0]] == 1:
            then = _next(calls, norm[1], kinds, IN_PLACE)
            sequences.append((conv, norm[0], then[0] if then and n_calls[then[0]] == 1 else None))
    return [each for each in sequences if model.get_submodule(each[1]).track_running_stats]


def _next(calls: list, tensor: torch.Tensor, kinds: dict, wanted: tuple) -> tuple[str, torch.Tensor] | None:
    """The one call that takes ``tensor``, if it is of a wanted kind."""
    takers = [(name, output) for name, given, output in calls if given is tensor]
    return takers[0] if len(takers) == 1 and kinds[takers[0][0]] in wanted else None


def _fold_proved(plain: nn.Module, examples: torch.Tensor, sequences: list) -> nn.Module:
    """Fold all sequences, or, where the logits change, those that do not change them."""
    expected, says = plain(examples), reading_of(plain).probabilities
    tolerance = TOLERANCE.get(examples.dtype, 1e-2)

    def same(candidate: nn.Module) -> bool:
        try:
            found = candidate(examples)
            close = (found - expected).abs().max() <= tolerance * expected.abs().max()
        # the model itself uses what was folded or overwritten, or a hook makes the weight anew
        except (RuntimeError, AttributeError, TypeError):
            return False
        if expected.ndim == 2 and expected.shape[1] > 1:  # scores may share a large part that says nothing
            close &= (says(found) - says(expected)).abs().max() <= ROUNDED * tolerance
        return bool(close)

    folded = _folded(plain, sequences)
    if same(folded):
        return folded
    proved = []
    for conv, norm, then in sequences:
        for attempt in dict.fromkeys(((conv, norm, then), (conv, norm, None))):
            if same(_folded(plain, [attempt])):
                proved.append(attempt)
                break
    folded = _folded(plain, proved)
    return folded if same(folded) else plain


def _folded(plain: nn.Module, sequences: list) -> nn.Module:
    model = copy.deepcopy(plain)
    for conv_name, norm_name, then_name in sequences:
        conv, norm = model.get_submodule(conv_name), model.get_submodule(norm_name)
        weight, bias = folded_weights(
            conv.weight,
            conv.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        conv.weight, conv.bias = (nn.Parameter(each, requires_grad=False) for each in (weight, bias))
        parent, _, attribute = norm_name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, nn.Identity())
        if then_name:
            model.get_submodule(then_name).inplace = True
    return model


@torch.no_grad()
def folded_weights(
    kernel: torch.Tensor,
    shift: torch.Tensor | None,
    mean: torch.Tensor,
    variance: torch.Tensor,
    eps: float,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    transposed: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and bias, in ``kernel``'s type, of a convolution that does a batch norm's work too.

    ``shift`` is the convolution's own bias; ``mean``, ``variance``, ``eps``, ``weight`` and ``bias`` are the
    norm's. None is none. Computed in float64.
    """
    tensors = (kernel, shift, mean, variance, weight, bias)
    kernel_, shift, mean, variance, weight, bias = (t if t is None else t.double() for t in tensors)
    folded = fuse_conv_bn_weights(kernel_, shift, mean, variance, eps, weight, bias, transpose=transposed)
    return tuple(each.detach().to(kernel.dtype) for each in folded)


def _lower_precision(model: nn.Module, dtype: torch.dtype) -> None:
    """Run convolutions in ``dtype``; linear layers, which cost little, stay in their own. Each casts its
    input.
    """
    for module in model.modules():
        if type(module) in CONVOLUTIONS:
            module.to(dtype)
        if type(module) in (*CONVOLUTIONS, nn.Linear):
            module.register_forward_pre_hook(_cast, with_kwargs=True)


def _cast(module: nn.Module, given: tuple, named: dict) -> tuple[tuple, dict]:
    own = module.weight.dtype
    return tuple(each.to(own) for each in given), {name: each.to(own) for name, each in named.items()}

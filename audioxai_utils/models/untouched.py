"""A model is used in evaluation mode and given back exactly as it was found."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from .wrapping import BlackBox


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode in here; each module's own flag and every buffer's values come back, also after an
    error.

    The flags are set one by one and ``eval()`` is not called: what a module's own ``train`` does besides,
    merge weights or refuse, cannot be taken back.
    """
    modules = _parts(model)
    flags = [(each, each.training) for each in modules if hasattr(each, "training")]  # not frozen
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module in modules
        for name, buffer in module.named_buffers(recurse=False)
        if not isinstance(buffer, nn.UninitializedBuffer)
    ]
    try:
        _set_flags((module, False) for module, _ in flags)
        yield
    finally:
        _set_flags(flags)
        with torch.no_grad():
            for module, name, buffer, value in buffers:
                if _differs(buffer, value):
                    buffer.copy_(value)
                if getattr(module, name) is not buffer and not isinstance(module, torch.jit.ScriptModule):
                    setattr(module, name, buffer)


def _parts(model: nn.Module) -> list[nn.Module]:
    """A model's modules, and those of the networks that its black boxes call."""
    own = list(model.modules())
    called = [used for each in own if isinstance(each, BlackBox) for used in each.uses]
    return list(dict.fromkeys([*own, *(module for used in called for module in used.modules())]))


def _set_flags(flags: Iterable[tuple[nn.Module, bool]]) -> None:
    """Where they differ: to set an attribute of a module costs ten times a look at it."""
    for module, flag in flags:
        if module.training != flag:
            module.training = flag


def evaluation_copy(model: nn.Module) -> nn.Module:
    """A deep copy in evaluation mode; raises what the part raises that cannot be copied."""
    copied = copy.deepcopy(model)
    for module in copied.modules():
        if hasattr(module, "training"):
            module.training = False
    return copied


def _differs(now: torch.Tensor, before: torch.Tensor) -> bool:
    """Whether a buffer is to be put back; one on a GPU is, so that nobody waits for the comparison."""
    return now.device.type != "cpu" or not torch.equal(now, before)


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without parameter gradients in here; everything comes back at the end, also after an
    error.

    Besides what `evaluation_mode` puts back, each module gets its attributes, hooks and parameters, and each
    parameter its ``requires_grad`` and ``grad``: libraries leave hooks and even parameters behind (shap's
    ``x`` and ``y`` in nested blocks). Of a ScriptModule, which has no attributes of Python's, flags and
    buffers come back.
    """
    tensors = [(p, p.requires_grad, p.grad) for p in model.parameters()]
    plain = [module for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
    states = [(m.__dict__, {key: _shallow(value) for key, value in m.__dict__.items()}) for m in plain]
    try:
        with evaluation_mode(model):
            for parameter, _, _ in tensors:
                parameter.requires_grad_(False)
            yield
    finally:
        for live, saved in states:
            _restore(live, saved)
        for parameter, requires_grad, grad in tensors:
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad


def _shallow(value):
    return value.copy() if isinstance(value, (dict, list, set)) else value


def _restore(live: dict, saved: dict) -> None:
    """Bring a module's ``__dict__`` back; its containers stay the same objects."""
    for key in [key for key in live if key not in saved]:
        del live[key]
    for key, value in saved.items():
        container = live.get(key)
        if type(container) is not type(value) or not isinstance(value, (dict, list, set)):
            live[key] = value
        elif isinstance(value, list):
            container[:] = value
        else:
            container.clear()
            container.update(value)


@contextmanager
def recurrent_gradients(model: nn.Module, device: torch.device) -> Iterator[None]:
    """On CUDA, recurrences run without cuDNN in here, whose backward pass refuses evaluation mode."""
    if device.type == "cuda" and any(isinstance(module, nn.RNNBase) for module in model.modules()):
        with torch.backends.cudnn.flags(enabled=False):
            yield
    else:
        yield

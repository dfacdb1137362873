"""Any classifier as an ``nn.Module``: wrappers are taken off, and what is no module is put into one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter
from torch.optim.swa_utils import AveragedModel

from .using import modules_used

AROUND = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
COMPILED = "_orig_mod"  # the child that holds what torch.compile was given
ONNX_TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}


def unwrapped(net: nn.Module) -> nn.Module:
    """The network inside DataParallel, DistributedDataParallel, AveragedModel or ``torch.compile``."""
    while True:
        if isinstance(net, AROUND):
            net = net.module
        elif COMPILED in dict(net.named_children()):
            net = net.get_submodule(COMPILED)
        else:
            return net


def as_module(net) -> nn.Module:
    """``net`` as a module: itself without wrappers, or a `BlackBox` of a function or of an ONNX session.

    Raises
    ------
    TypeError
        It cannot be called.
    ValueError
        Its weights can have no gradient.
    """
    if isinstance(net, nn.Module):
        made = (values for values in net.parameters() if not isinstance(values, UninitializedParameter))
        if any(values.is_inference() for values in made):
            raise ValueError("net's weights were made in torch.inference_mode; make them in torch.no_grad()")
        return unwrapped(net)
    if hasattr(net, "get_inputs") and hasattr(net, "run"):
        return BlackBox(OnnxSession(net))
    if callable(net):
        return BlackBox(net)
    raise TypeError(
        f"net must be a torch.nn.Module, a function or an onnxruntime session; got {type(net).__name__}"
    )


class BlackBox(nn.Module):
    """A function from a tensor to scores, that answers and shows neither gradients nor layers.

    It is called with a tensor of its own without gradient, as it is on its device, and may return a tensor, a
    NumPy array, or a tuple or dict of them. A copy of the module shares the function. Modules that the
    function uses, ``uses``, are no parts of it, but in evaluation mode with it.
    """

    def __init__(self, function: Callable) -> None:
        super().__init__()
        self.function, self.uses = function, tuple(modules_used(function))

    def __deepcopy__(self, memo: dict) -> BlackBox:
        return BlackBox(self.function)

    @torch.no_grad()
    def forward(self, x: torch.Tensor):
        """What the function answers, as tensors on ``x``'s device."""
        return _as_tensors(self.function(x.detach()), x)


def _as_tensors(output, like: torch.Tensor):
    """Arrays as tensors on ``like``'s device; other things as they are."""
    if isinstance(output, torch.Tensor):
        return output.detach().clone()  # a function may use one tensor for all its answers
    if isinstance(output, (np.ndarray, np.generic)):
        return torch.from_numpy(np.array(output)).to(like.device)
    if isinstance(output, dict):
        return {key: _as_tensors(value, like) for key, value in output.items()}
    if isinstance(output, tuple) or (
        isinstance(output, list) and any(isinstance(each, np.ndarray) for each in output)
    ):
        return tuple(_as_tensors(value, like) for value in output)
    return output


class OnnxSession:
    """An ``onnxruntime.InferenceSession`` with one input, called on a tensor; several outputs come as a dict
    by name.
    """

    def __init__(self, session) -> None:
        inputs = session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in ONNX_TYPES:
            got = ", ".join(f"{each.name} {each.type}" for each in inputs)
            raise ValueError(f"net must be an ONNX session with one floating-point input; got {got}")
        self.session, self.input = session, inputs[0]

    def __call__(self, x: torch.Tensor):
        """The session's outputs for a batch, in pieces of its fixed size where it has one."""
        values = x.cpu().numpy().astype(ONNX_TYPES[self.input.type])
        # a fixed batch, or any
        size = self.input.shape[0] if isinstance(self.input.shape[0], int) else len(values)
        padded = np.concatenate([values, np.repeat(values[-1:], -len(values) % size, axis=0)])
        parts = [self._run(padded[i : i + size]) for i in range(0, len(padded), size)]
        names = [each.name for each in self.session.get_outputs()]
        found = {name: np.concatenate(rows)[: len(values)] for name, rows in zip(names, zip(*parts))}
        return found if len(names) > 1 else found[names[0]]

    def _run(self, values: np.ndarray) -> list[np.ndarray]:
        """The session's outputs; its refusals, which share no class and have many lines, as a ValueError."""
        try:
            return self.session.run(None, {self.input.name: values})
        except Exception as error:
            reason = " ".join(str(error).split())[:150]
            raise ValueError(
                f"the ONNX session does not take {values.shape}, its input is {self.input.shape}: {reason}; "
                "see the axes and the length that it was made for"
            ) from error


def is_differentiable(model: nn.Module) -> bool:
    """False where a part of the model is a black box."""
    return not any(isinstance(module, BlackBox) for module in model.modules())


def shows_layers(model: nn.Module) -> bool:
    """False where a part of the model is a black box or a ScriptModule, whose layers cannot be looked at."""
    return not any(isinstance(module, (BlackBox, torch.jit.ScriptModule)) for module in model.modules())


def is_scripted(model: nn.Module) -> bool:
    """Whether a part of the model is a ScriptModule, which keeps what it was made with."""
    return any(isinstance(module, torch.jit.ScriptModule) for module in model.modules())


def net_dtype(net: nn.Module) -> torch.dtype | None:
    """The network's own floating-point type; None where it has no parameters.

    A frozen ScriptModule's are constants by then, which it does not show: float32, as most have it.
    """
    unknown = torch.float32 if is_scripted(net) else None
    return next((p.dtype for p in net.parameters() if p.is_floating_point()), unknown)


def net_device(net: nn.Module) -> torch.device:
    """Where the network's parameters or buffers are; the CPU where it has none."""
    tensor = next(iter([*net.parameters(), *net.buffers()]), None)
    return torch.device("cpu") if tensor is None else tensor.device

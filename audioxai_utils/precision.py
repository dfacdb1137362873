"""Numbers that stay the same on every machine, thread and vector unit, and where they need not.

float32 results differ in their last digits between vector units and thread counts, and training
multiplies such a difference many times an epoch. Computing in float64 shrinks it; rounding a
model's state once in a while removes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """New tensors without a dtype of their own get ``dtype`` in here; not for several threads at once."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch computes in one thread in here: a sum over many numbers has one order, so one last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def tensor_float32(allowed: bool) -> Iterator[None]:
    """Whether CUDA may take float32 products in TF32, which has ten bits of mantissa; PyTorch's own choice comes back.

    Convolutions do so unless they are told not to. Nothing changes on a CPU; not for several threads at once.
    """
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = allowed
    try:
        yield
    finally:
        for backend, choice in zip(backends, before):
            backend.allow_tf32 = choice


def sent(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """``values`` on ``device``; to CUDA from pinned memory, so that the sender does not wait."""
    if device.type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


@torch.no_grad()
def round_to_bfloat16(tensors: Iterable[torch.Tensor]) -> None:
    """Round floating-point tensors to bfloat16's eight significant bits in place; they keep their dtype.

    Two states that differ by less than those bits become one, but for values next to a rounding
    edge: with a relative difference d, about 500 d of them stay apart.
    """
    for tensor in tensors:
        if tensor.is_floating_point():
            tensor.copy_(tensor.to(torch.bfloat16))

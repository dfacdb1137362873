"""Numbers that stay the same on every machine, thread and vector unit.

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


@torch.no_grad()
def round_to_bfloat16(tensors: Iterable[torch.Tensor]) -> None:
    """Round floating-point tensors to bfloat16's eight significant bits in place; they keep their dtype.

    Two states that differ by less than those bits become one, but for values next to a rounding
    edge: with a relative difference d, about 500 d of them stay apart.
    """
    for tensor in tensors:
        if tensor.is_floating_point():
            tensor.copy_(tensor.to(torch.bfloat16))

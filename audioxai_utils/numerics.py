"""Numbers that stay the same on every machine, thread and vector unit, their way to a GPU and back, and
masking.

float32 results differ in their last digits between vector units and thread counts, and training
multiplies such a difference many times an epoch. Computing in float64 shrinks it; rounding a
model's state once in a while removes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch

BATCH_SIZE = {"cpu": 16, "cuda": 128}  # a CPU wants a batch in its caches, a GPU wants many clips


def at_once(batch_size: int | None, device: torch.device) -> int:
    """How many pictures pass a model together: what the caller says, or what suits the device."""
    return batch_size or BATCH_SIZE.get(device.type, 64)


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
def tensor_float32(allowed: bool, device: torch.device) -> Iterator[None]:
    """Whether CUDA takes float32 products in TF32 (ten bits of mantissa) in here; PyTorch's own choice comes
    back.

    By itself PyTorch does so in convolutions alone. On another device nothing changes, nor where the caller
    has chosen by PyTorch's newer ``fp32_precision``; not for several threads at once.
    """
    before = _tf32_choice() if device.type == "cuda" else None
    if before is None:
        yield
        return
    _choose_tf32("high" if allowed else "highest", allowed)
    try:
        yield
    finally:
        _choose_tf32(*before)


@contextmanager
def without_modes() -> Iterator[None]:
    """No ``torch.autocast`` and no inference mode of the caller's in here; a network's own inside it stay."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


def _tf32_choice() -> tuple[str, bool] | None:
    """(of matrix products, of convolutions); None where PyTorch cannot say it in these words."""
    try:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:
        return None


def _choose_tf32(products: str, convolutions: bool) -> None:
    torch.set_float32_matmul_precision(products)
    torch.backends.cudnn.allow_tf32 = convolutions


@torch.no_grad()
def round_to_bfloat16(tensors: Iterable[torch.Tensor]) -> None:
    """Round floating-point tensors to bfloat16's eight significant bits in place; they keep their dtype.

    Two states that differ by less than those bits become one, but for values next to a rounding
    edge: with a relative difference d, about 500 d of them stay apart.
    """
    for tensor in tensors:
        if tensor.is_floating_point():
            tensor.copy_(tensor.to(torch.bfloat16))


# Between the host and a device


def to_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """``values`` on ``device``; to CUDA from pinned memory, so that the sender does not wait."""
    if device.type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def to_host(values: torch.Tensor) -> Callable[[], torch.Tensor]:
    """A call that gives ``values`` on the CPU; from CUDA it waits for what was asked for up to now, and no
    longer.
    """
    if values.device.type != "cuda":
        return values.cpu
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()

    def read() -> torch.Tensor:
        arrived.synchronize()
        return host

    return read


# What a mask does to values


def masked(values: torch.Tensor, mask: torch.Tensor, fill: float | torch.Tensor) -> torch.Tensor:
    """(X - fill) M + fill: where the mask is 0 the fill takes the place of the values; decibels or power
    alike.
    """
    return (values - fill) * mask + fill


def largest(values: torch.Tensor, n_kept: int) -> torch.Tensor:
    """True at the ``n_kept`` largest values of each row of (batch, d); among equal ones those that come
    first.
    """
    if values.isnan().any():
        raise ValueError("values must not be NaN: none of them is the largest then")
    if not n_kept:
        return torch.zeros_like(values, dtype=torch.bool)
    least = values.kthvalue(
        values.shape[1] - n_kept + 1, dim=1, keepdim=True
    ).values  # a fifth of a sort's time
    above, equal = values > least, values == least
    return above | (equal & (equal.cumsum(dim=1) <= n_kept - above.sum(dim=1, keepdim=True)))

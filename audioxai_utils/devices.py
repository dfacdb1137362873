"""Tensors on their way to a GPU and back, without either side waiting for the other."""

from __future__ import annotations

from collections.abc import Callable

import torch


def sent(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """``values`` on ``device``; to CUDA from pinned memory, so that the sender does not wait."""
    if device.type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def received(values: torch.Tensor) -> Callable[[], torch.Tensor]:
    """A call that gives ``values`` on the CPU; from CUDA it waits for what was asked for up to now, and no longer."""
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

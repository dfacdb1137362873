"""The largest values of a map, as many as asked for: of an attribution, of a power, of random numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def bin_ranks(scores: torch.Tensor) -> torch.Tensor:
    """Place of every bin of a clip when its scores are sorted downwards: 0 is the highest.

    Parameters
    ----------
    scores : (batch, ...) tensor

    Returns
    -------
    long tensor of the same shape
        Among equal scores those that lie first come first: low frequencies, then early times.
    """
    _check(scores=scores)
    order = scores.flatten(1).argsort(dim=1, descending=True, stable=True)  # (batch, d)
    ranks = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, ranks).reshape(scores.shape)


def first_bins(ranks: torch.Tensor, n_kept: torch.Tensor | Sequence[int]) -> torch.Tensor:
    """Binary mask of exactly ``n_kept`` bins per clip, the first by `bin_ranks`.

    Parameters
    ----------
    ranks : (batch, ...) long tensor
    n_kept : (batch,) integers between 0 and the bins of a clip

    Returns
    -------
    float32 tensor of the same shape
        A larger ``n_kept`` keeps all that a smaller one keeps.
    """
    _check(ranks=ranks)
    n_kept = torch.as_tensor(n_kept, device=ranks.device)
    d = ranks[0].numel()
    if n_kept.shape != (len(ranks),) or n_kept.is_floating_point():
        raise ValueError(f"n_kept must be one whole number per clip ({len(ranks)}); got {n_kept.tolist()}")
    if (n_kept < 0).any() or (n_kept > d).any():
        raise ValueError(f"n_kept must lie between 0 and the {d} bins of a clip; got {n_kept.tolist()}")
    return (ranks < n_kept.view(-1, *[1] * (ranks.ndim - 1))).float()


def _check(**tensors: torch.Tensor) -> None:
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{name} must be a torch tensor; got {type(tensor).__name__}")
        if tensor.ndim < 2 or not tensor.numel():
            raise ValueError(
                f"{name} must be (batch, ...) with values for each clip; got {tuple(tensor.shape)}"
            )
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} must be finite; it holds NaN or infinite values")

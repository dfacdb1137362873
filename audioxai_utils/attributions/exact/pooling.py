"""Max pooling in two dimensions as one operation of a trace, and its rules.

Its windows are only cut out where pairs of their entries are compared; what "deeplift" asks for is known from
the places of the maxima.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from .rules import MAX_RULES, Tensors, ratio


@torch.library.custom_op("audioxai::max_pool", mutates_args=())
def max_pool(
    x: torch.Tensor,
    kernel: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ceil_mode: bool,
) -> torch.Tensor:
    """As ``functional.max_pool2d``, with two numbers in every list."""
    return functional.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode)


def windows(x: torch.Tensor, kernel, stride, padding, dilation, ceil_mode: bool) -> torch.Tensor:
    """(..., cells, kernel), a window of every cell; padding holds the type's smallest number."""
    n, pads, steps = len(kernel), [], []
    for size, k, s, p, d in zip(x.shape[-n:], kernel, stride, padding, dilation):
        covered = size + 2 * p - d * (k - 1) - 1
        step = -(-covered // s) if ceil_mode else covered // s
        step -= ceil_mode and step * s >= size + p  # no window starts in the padding behind
        steps.append(step + 1)
        pads = [p, max(p, p + step * s - covered), *pads]
    if any(pads):
        x = torch.constant_pad_nd(x, pads, torch.finfo(x.dtype).min)
    first = x.ndim - n
    if list(kernel) == list(stride) and all(d == 1 for d in dilation):  # windows that do not meet are a view
        for i, (k, cells) in enumerate(zip(kernel, steps)):
            x = x.narrow(first + 2 * i, 0, k * cells).unflatten(first + 2 * i, (cells, k))
        within = [first + 1 + 2 * i for i in range(n)]
        return x.movedim(within, list(range(-n, 0)))
    for i, (k, s, d) in enumerate(zip(kernel, stride, dilation)):
        x = x.unfold(first + i, d * (k - 1) + 1, s)[..., ::d]
    return x


def rise_to_the_largest(operation, grad: torch.Tensor, x: Tensors, b: Tensors) -> Tensors:
    """A rise goes to the clip's largest entry, a fall to the reference's."""
    (x, *how), (b, *_) = operation.arguments(x), operation.arguments(b)
    (y_x, at_x), (y_b, at_b) = (functional.max_pool2d(v, *how, return_indices=True) for v in (x, b))
    at = torch.where(y_x > y_b, at_x, at_b).flatten(-2)
    rise, b_entries = (y_x - y_b).flatten(-2), b.flatten(-2)
    x_entries = x.flatten(-2).expand_as(b_entries)  # a single clip is not copied
    share = ratio(rise, x_entries.gather(-1, at) - b_entries.gather(-1, at)).mul_(grad.flatten(-2))
    return [torch.zeros_like(b_entries).scatter_add_(-1, at, share).view_as(b)]


def pairs_of_a_window(operation, grad: torch.Tensor, x: Tensors, b: Tensors) -> Tensors:
    """The pairwise rule on all windows; an entry of several windows gets the sum."""
    (x, *how), (b, *_) = operation.arguments(x), operation.arguments(b)
    with torch.enable_grad():
        leaf = b.detach().requires_grad_()
        cut = windows(leaf, *how)  # (..., rows, columns, k, l)
    entries = [v.detach().movedim((-2, -1), (0, 1)).flatten(0, 1) for v in (windows(x, *how), cut)]
    multipliers = MAX_RULES["shapley"](*entries).mul_(grad)  # (k l, ..., rows, columns)
    spread = multipliers.unflatten(0, cut.shape[-2:]).movedim((0, 1), (-2, -1))
    return list(torch.autograd.grad(cut, leaf, spread))


POOLING: dict[str, Callable] = {"deeplift": rise_to_the_largest, "shapley": pairs_of_a_window}

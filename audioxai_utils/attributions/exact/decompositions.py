"""Operations that are taken apart while a network is traced, so that few kinds remain.

PyTorch's public table does most. Here is what it keeps whole: norms whose statistics depend on the input,
magnitudes, and every maximum, which becomes ``amax`` over windows. A function that returns NotImplemented
leaves its operation as it is.
"""

from __future__ import annotations

import functools
import itertools
import math

import torch

from . import pooling

aten = torch.ops.aten
# Left whole, because a rule of their own is cheaper or more precise than that of their parts.
WHOLE = ("_safe_softmax", "logsumexp", "hardswish", "hardsigmoid", "silu")


@functools.cache
def decompositions() -> dict:
    """Operation to function, for ``make_fx``."""
    table = dict(torch.export.default_decompositions())
    for name in WHOLE:
        for overload in getattr(aten, name).overloads():
            table.pop(getattr(getattr(aten, name), overload), None)
    return table | OWN


def layer_norm(x, shape, weight, bias, eps):
    dims = list(range(-len(shape), 0))
    return _scaled(_standardised(x, dims, eps), weight, bias), None, None


def group_norm(x, weight, bias, n, channels, size, groups, eps):
    parts = _standardised(x.reshape(n, groups, -1), [-1], eps).reshape(x.shape)
    return _scaled(parts, *_per_channel(x, weight, bias)), None, None


def batch_norm(x, weight, bias, mean, var, training, momentum, eps):
    """By the batch's own statistics, which is how an instance norm is written; else it is affine."""
    if not training:
        return NotImplemented
    dims = [0, *range(2, x.ndim)]
    return _scaled(_standardised(x, dims, eps), *_per_channel(x, weight, bias)), None, None


def _standardised(x, dims, eps):
    centred = x - x.mean(dims, keepdim=True)
    return centred * torch.rsqrt((centred * centred).mean(dims, keepdim=True) + eps)


def _per_channel(x, *tensors):
    return [None if t is None else t.reshape(-1, *[1] * (x.ndim - 2)) for t in tensors]


def _scaled(x, weight, bias):
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def absolute(z):
    """A complex number's magnitude, by its parts."""
    if not z.is_complex():
        return NotImplemented
    parts = torch.view_as_real(z)
    return torch.sqrt((parts * parts).sum(-1))


def vector_norm(x, ord=2, dim=None, keepdim=False, dtype=None):
    if ord != 2 or dtype is not None or x.is_complex():
        return NotImplemented
    dim = list(range(x.ndim)) if dim is None else dim
    return torch.sqrt((x * x).sum(dim, keepdim=keepdim))


def variance(x, dim=None, correction=1, keepdim=False):
    if x.is_complex():
        return NotImplemented
    dim = list(range(x.ndim)) if not dim else list(dim)
    centred = x - x.mean(dim, keepdim=True)
    free = math.prod(x.shape[d] for d in dim) - (1 if correction is None else correction)
    return (centred * centred).sum(dim, keepdim=keepdim) / free


def log_of_base(base):
    return lambda x: torch.log(x) / math.log(base)


def filled_like(x, value, **given):
    return torch.full(x.shape, value, dtype=given.get("dtype") or x.dtype, device=x.device)


def largest(x):
    return x.amax()


def smallest(x, dim=(), keepdim=False):
    return -(-x).amax(dim, keepdim=keepdim)


def largest_along(x, dim, keepdim=False):
    return x.amax([dim], keepdim=keepdim), x.argmax(dim, keepdim=keepdim)


def smallest_along(x, dim, keepdim=False):
    return -(-x).amax([dim], keepdim=keepdim), x.argmin(dim, keepdim=keepdim)


def smaller(x, y):
    return -torch.maximum(-x, -y)


def max_pool(x, kernel, stride=(), padding=0, dilation=1, ceil_mode=False):
    """The largest entry of every window."""
    n = 3 if len(kernel) == 3 else 2
    how = (_listed(v) for v in (kernel, stride or kernel, padding, dilation))
    how = [v * n if len(v) == 1 else v for v in how]
    if n == 2:
        return _without_places(pooling.max_pool(x, *how, ceil_mode))
    return _without_places(pooling.windows(x, *how, ceil_mode).amax(list(range(-n, 0))))


def _listed(value):
    return [value] if isinstance(value, int) else list(value)


def adaptive_max_pool(x, sizes):
    """Cell i of n covers the entries from floor(i m / n) to ceil((i + 1) m / n)."""
    first = x.ndim - len(sizes)
    bounds = [[(i * m // n, -(-(i + 1) * m // n)) for i in range(n)] for m, n in zip(x.shape[first:], sizes)]
    cells = []
    for cell in itertools.product(*bounds):
        part = x
        for i, (start, stop) in enumerate(cell):
            part = part.narrow(first + i, start, stop - start)
        cells.append(part.amax(list(range(-len(sizes), 0))))
    return _without_places(torch.stack(cells, -1).reshape(*x.shape[:first], *sizes))


def _without_places(values):
    """Whole numbers where the places of the maxima belong: a network that uses them is refused."""
    return values, values.to(torch.int64)


OWN = {
    aten.native_layer_norm.default: layer_norm,
    aten.native_group_norm.default: group_norm,
    aten.native_batch_norm.default: batch_norm,
    aten.abs.default: absolute,
    aten.linalg_vector_norm.default: vector_norm,
    aten.var.correction: variance,
    aten.log2.default: log_of_base(2),
    aten.log10.default: log_of_base(10),
    aten.full_like.default: filled_like,
    aten.max.default: largest,
    aten.amin.default: smallest,
    aten.max.dim: largest_along,
    aten.min.dim: smallest_along,
    aten.minimum.default: smaller,
    aten.max_pool2d_with_indices.default: max_pool,
    aten.max_pool3d_with_indices.default: max_pool,
    aten.adaptive_max_pool2d.default: adaptive_max_pool,
    aten.adaptive_max_pool3d.default: adaptive_max_pool,
}

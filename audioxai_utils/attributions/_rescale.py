"""DeepLIFT's rescale rule for pairs of one clip x and B background clips b.

Each function's forward pass takes B equal copies of x and works on the first; its backward
pass multiplies the B gradients by (f(x) - f(b)) / (x - b), or, where x and b hardly differ, by
the derivative at b.
"""

from __future__ import annotations

import torch
from torch import nn

SMALL = {"elementwise": 1e-6, "max_pool": 1e-7}  # |x - b| below which shap does not divide


def _expanded(y: torch.Tensor, n: int) -> torch.Tensor:
    return y.expand(n, *[-1] * (y.ndim - 1))


class ReLU(torch.autograd.Function):
    """The quotient of a ReLU is exact however near x and b are; only 0 / 0 needs the derivative."""

    @staticmethod
    def forward(ctx, x, b, plain):
        ctx.x, ctx.b = x[:1], b
        return _expanded(x[:1].relu(), len(x))

    @staticmethod
    def backward(ctx, g):
        rise = ctx.x.relu() - ctx.b.relu()
        m = rise.div_(ctx.x - ctx.b)
        m = torch.where(m.isnan(), (ctx.b > 0).to(m.dtype), m)
        return m.mul_(g), None, None


class Elementwise(torch.autograd.Function):
    """Any function of one value, ``plain``."""

    @staticmethod
    def forward(ctx, x, b, plain):
        ctx.x, ctx.b, ctx.plain = x[:1], b, plain
        return _expanded(plain(x[:1]), len(x))

    @staticmethod
    def backward(ctx, g):
        with torch.enable_grad():
            b = ctx.b.detach().requires_grad_()
            y = ctx.plain(b)
            (derivative,) = torch.autograd.grad(y.sum(), b)
        difference = ctx.x - ctx.b
        quotient = (ctx.plain(ctx.x) - y.detach()) / difference
        return g * torch.where(difference.abs() < SMALL["elementwise"], derivative, quotient), None, None


def pool_arguments(module: nn.Module) -> tuple:
    """A max-pooling module's settings at the time of its call."""
    return module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode, True


class MaxPool(torch.autograd.Function):
    """A window's rise is put down to the bin that is largest in x and the bin that is largest in b.

    The part of the rise above the larger of both maxima's counterpart goes to x's bin, the part
    below to b's, as ``shap`` does it; bins chosen by several windows add up.
    """

    @staticmethod
    def forward(ctx, x, b, pool, arguments):
        y, ctx.x_largest = pool(x[:1], *arguments)
        ctx.x, ctx.y, ctx.b, ctx.pool, ctx.arguments = x[:1], y, b, pool, arguments
        return _expanded(y, len(x))

    @staticmethod
    def backward(ctx, g):
        reference, b_largest = ctx.pool(ctx.b, *ctx.arguments)
        larger = torch.maximum(ctx.y, reference)
        total = torch.zeros_like(ctx.b, memory_format=torch.contiguous_format).flatten(2)
        total.scatter_add_(2, _expanded(ctx.x_largest, len(g)).flatten(2), (g * (larger - reference)).flatten(2))
        total.scatter_add_(2, b_largest.flatten(2), (g * (ctx.y - larger)).flatten(2))
        difference = ctx.x - ctx.b
        quotient = total.view(ctx.b.shape) / difference
        zero = torch.zeros((), dtype=g.dtype, device=g.device)
        return torch.where(difference.abs() < SMALL["max_pool"], zero, quotient), None, None, None

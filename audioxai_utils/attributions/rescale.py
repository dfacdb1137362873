"""DeepLIFT's rescale rule for pairs of one clip x and B background clips b.

Each function's forward pass takes B equal copies of x and works on the first; its backward
pass multiplies the B gradients by (f(x) - f(b)) / (x - b), or, where x and b hardly differ, by
the derivative at b.
"""

from __future__ import annotations

import torch
from torch import nn

BLOCK = 2**17  # values; half a megabyte in float32
# |x - b| below which shap does not divide; of a maximum the quotient is at most 1, it needs none
SMALL = 1e-6


def _expanded(y: torch.Tensor, n: int) -> torch.Tensor:
    return y.expand(n, *[-1] * (y.ndim - 1))


class ReLU(torch.autograd.Function):
    """The rule in five plain operations: m = P / (P + N), P = max(x, b, 0), N = max(-x, -b, 0).

    Equal to the quotient wherever x and b differ, and to the derivative at b where they do
    not, so that it needs no threshold. On a CPU it runs over blocks that stay in the cache.
    """

    @staticmethod
    def forward(ctx, x, b, plain):
        ctx.x, ctx.b = x[:1], b
        return _expanded(x[:1].relu(), len(x))

    @staticmethod
    def backward(ctx, g):
        x, b = ctx.x, ctx.b
        positive, negative = x.relu(), x.clamp_max(-torch.finfo(x.dtype).tiny)
        product = torch.empty_like(b)
        n_pairs = max(1, BLOCK // x.numel()) if b.device.type == "cpu" else len(b)
        for block in (slice(i, i + n_pairs) for i in range(0, len(b), n_pairs)):
            part = torch.maximum(positive, b[block], out=product[block])
            part.div_(torch.minimum(negative, b[block]).neg_().add_(part)).mul_(g[block])
        return product, None, None


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
        return g * torch.where(difference.abs() < SMALL, derivative, quotient), None, None


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
        total.scatter_add_(
            2, _expanded(ctx.x_largest, len(g)).flatten(2), (g * (larger - reference)).flatten(2)
        )
        total.scatter_add_(2, b_largest.flatten(2), (g * (ctx.y - larger)).flatten(2))
        difference = ctx.x - ctx.b
        quotient = total.view(ctx.b.shape) / difference
        zero = torch.zeros((), dtype=g.dtype, device=g.device)
        return torch.where(difference == 0, zero, quotient), None, None, None

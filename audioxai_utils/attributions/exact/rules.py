"""Multipliers of one operation between a clip x and a reference b.

A rule takes the gradient with respect to the operation's output and returns those with respect to its
inputs u_1 ... u_n, such that sum_i m_i (u_i,x - u_i,b) = y_x - y_b. Here x and b are the lists of the
inputs' values. 0/0 is 0. The formulas are in ``docs/exact-shap.md``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

Tensors = list[torch.Tensor]


class NotExact(ValueError):
    """No exact values: the message names the operation without a rule, or what did not agree."""


# Affine in all inputs at once.
LINEAR = set(
    """
    add sub rsub neg sum mean view _unsafe_view reshape permute transpose t expand squeeze unsqueeze
    slice select cat stack split split_with_sizes unbind getitem clone alias detach _to_copy
    lift_fresh_copy constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d
    replication_pad2d avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d
    adaptive_avg_pool1d upsample_nearest1d upsample_nearest2d upsample_linear1d upsample_bilinear2d
    upsample_bicubic2d im2col col2im unfold as_strided index gather index_select flip roll repeat cumsum
    triu tril diagonal select_scatter slice_scatter copy view_as_real view_as_complex _fft_r2c _fft_c2c
    _fft_c2r real imag _conj _conj_physical conj_physical complex native_batch_norm
    _native_batch_norm_legit_no_training scatter_add index_add index_put
    """.split()
)
# Bilinear in these two arguments, affine in each and in the rest.
BILINEAR = {"mul": (0, 1), "mm": (0, 1), "bmm": (0, 1), "dot": (0, 1), "mv": (0, 1), "convolution": (0, 1)}
BILINEAR |= {"addmm": (1, 2), "baddbmm": (1, 2), "addmv": (1, 2)}
PRODUCTS = {"mul", "mm", "bmm"}
# Written in 0 and 1, so that a decision can have a multiplier too.
LOGIC = {
    "logical_not": lambda p: 1 - p,
    "logical_and": lambda p, q: p * q,
    "logical_or": lambda p, q: p + q - p * q,
    "logical_xor": lambda p, q: p + q - 2 * p * q,
}
LOGIC |= {name.replace("logical", "bitwise"): function for name, function in LOGIC.items()}
COMPARISONS = {"gt", "ge", "lt", "le", "eq", "ne"}


def ratio(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """p / q, and 0 where q is 0 or the quotient is no number."""
    return torch.where(q == 0, 0, p / q).nan_to_num(0, posinf=torch.inf, neginf=-torch.inf)


# Univariate closed forms, (y_x - y_b) / (x - b) without a difference of outputs.


def relu_slope(x, b):
    rise = torch.maximum(x.clamp_min(0), b)
    fall = torch.minimum(x.clamp_max(-torch.finfo(b.dtype).tiny), b)
    return rise.div_(fall.neg_().add_(rise)).nan_to_num_(0)  # of differences between infinite values


def decay(d):
    """(1 - e^-|d|) / |d| of differences; 1 at 0 and where a difference is no number."""
    towards = torch.copysign(d, torch.tensor(-1.0, dtype=d.dtype, device=d.device))  # -|d|
    return torch.expm1(towards).div_(towards).nan_to_num_(1)


def exp_slope(x, b):
    """Also the logarithmic mean of e^x and e^b."""
    return torch.maximum(x, b).exp_().mul_(decay(x - b))  # both -inf: 0


def log_slope(x, b):
    """log1p where x and b are near, else their own logarithms: (x - b) / b of 1e-5 and 1e4 rounds to -1."""
    d = x - b
    rise = torch.where(x < b / 2, x.log() - b.log(), torch.log1p(d / b))
    return torch.where(d == 0, 1 / b, rise / d)


def sigmoid_slope(x, b):
    high, low = torch.maximum(x, b), torch.minimum(x, b)
    return high.sigmoid() * (-low).sigmoid() * decay(high - low)


def tanh_slope(x, b):
    return 4 * sigmoid_slope(2 * x, 2 * b)


def clamp_slope(x, b, low=None, high=None):
    """A ramp: what of the way from b to x lies between the bounds."""
    return ratio(x.clamp(low, high) - b.clamp(low, high), x - b)


def hardswish_slope(x, b):
    inner_x, inner_b = x.clamp(-3, 3), b.clamp(-3, 3)
    rise = (inner_x - inner_b).div_(x - b).nan_to_num_(0).mul_(x + b)  # 0/0
    return rise.add_(inner_x + 6).add_(inner_b).div_(12)


def silu_slope(x, b):
    return (x.sigmoid() + b.sigmoid() + (x + b) * sigmoid_slope(x, b)) / 2


SLOPES = {
    "relu": relu_slope,
    "leaky_relu": lambda x, b, negative=0.01: negative + (1 - negative) * relu_slope(x, b),
    "abs": lambda x, b: ratio(x + b, x.abs() + b.abs()),
    "sqrt": lambda x, b: ratio(torch.ones_like(b), x.sqrt() + b.sqrt()),
    "rsqrt": lambda x, b: -x.rsqrt() * b.rsqrt() / (x.sqrt() + b.sqrt()),
    "reciprocal": lambda x, b: -(1 / x) * (1 / b),  # their product may be below the smallest number
    "log": log_slope,
    "log1p": lambda x, b: torch.where(
        x < (b - 1) / 2,
        log_slope(1 + x, 1 + b),
        ratio(torch.log1p((x - b) / (1 + b)), x - b) + (x == b) / (1 + b),
    ),
    "exp": exp_slope,
    "expm1": exp_slope,
    "sigmoid": sigmoid_slope,
    "tanh": tanh_slope,
    "silu": silu_slope,
    "hardswish": hardswish_slope,
    "hardsigmoid": lambda x, b: clamp_slope(x, b, -3, 3) / 6,
}


POWERS = {0.5: "sqrt", -0.5: "rsqrt", -1: "reciprocal"}


def univariate(slope: Callable) -> Callable:
    """The rule of a closed form; the operation's further arguments are handed to it."""

    def rule(operation, grad: torch.Tensor, x: Tensors, b: Tensors) -> Tensors:
        return [grad * slope(x[0], b[0], *operation.options)]

    return rule


def quotient(operation, grad: torch.Tensor, x: Tensors, b: Tensors) -> Tensors:
    """Rise over run; the derivative half-way where the rise is small and rounding hides the difference."""
    (x,), (b,) = x, b
    y_x, y_b, d = operation(x), operation(b), x - b
    size, slope = torch.maximum(y_x.abs(), y_b.abs()), ratio(y_x - y_b, d)
    middle = ((x + b) / 2).requires_grad_()
    with torch.enable_grad():
        y = operation(middle)
    tangent = (
        torch.autograd.grad(y, middle, torch.ones_like(y))[0] if y.requires_grad else torch.zeros_like(slope)
    )
    noise = 4 * torch.finfo(size.dtype).eps * size / d.abs()
    smooth = ((y_x - y_b).abs() <= 0.1 * size) & ((tangent - slope).abs() <= noise)
    return [grad * torch.where(smooth, tangent, slope)]


def path(n_points: int) -> Callable:
    """The gradient's mean between the inputs by Gauss-Legendre; one point is exact for a product of two."""
    points, weights = np.polynomial.legendre.leggauss(n_points)

    def rule(operation, grad: torch.Tensor, x: Tensors, b: Tensors) -> Tensors:
        total = [torch.zeros_like(value) for value in b]
        for point, weight in zip((points + 1) / 2, weights / 2):
            inputs = [(p * point + q * (1 - point)).requires_grad_() for p, q in zip(x, b)]
            with torch.enable_grad():
                y = operation(*inputs)
            if not y.requires_grad:
                raise NotExact(f"{operation.name} has neither a rule nor a derivative")
            for sum_, part in zip(total, torch.autograd.grad(y, inputs, grad * weight, allow_unused=True)):
                if part is not None:
                    sum_ += part
        if n_points > 1:
            _fits(operation, grad, x, b, total)
        return total

    return rule


def _fits(operation, grad: torch.Tensor, x: Tensors, b: Tensors, multiplied: Tensors) -> None:
    """NotExact where a mean gradient misses the rise, as across a kink."""
    rise = (grad * (operation(*(p.expand_as(q) for p, q in zip(x, b))) - operation(*b)).conj()).real
    shares = [(m * (p - q).conj()).real for m, p, q in zip(multiplied, x, b)]
    error = (sum(share.sum() for share in shares) - rise.sum()).abs()
    if error > 1e-4 * (rise.abs().sum() + sum(share.abs().sum() for share in shares)):
        raise NotExact(f"{operation.name} has no rule, and its mean gradient misses its rise")


def product(operation, grad: torch.Tensor, x: Tensors, b: Tensors) -> Tensors:
    """Each factor takes the mean of the other; matrices in their order."""
    (p_x, q_x), (p_b, q_b) = operation.arguments(x), operation.arguments(b)
    p, q = mean(p_x, p_b), mean(q_x, q_b)
    if operation.name == "mul":
        return operation.chosen([grad * q, grad * p])
    return operation.chosen([grad @ q.mT, p.mT @ grad])


def divide(operation, grad: torch.Tensor, x: Tensors, b: Tensors) -> Tensors:
    """A product with the reciprocal: each takes the mean of the other."""
    (p_x, q_x), (p_b, q_b) = operation.arguments(x), operation.arguments(b)
    return operation.chosen([grad * (1 / q_x + 1 / q_b) / 2, -grad * (p_x + p_b) / (2 * q_x * q_b)])


def decide(operation, grad: torch.Tensor, x: Tensors, b: Tensors) -> Tensors:
    """A step of height 0, 1 or -1 on the way between the two differences of what is compared."""
    (p_x, q_x), (p_b, q_b) = operation.arguments(x), operation.arguments(b)
    slope = grad * ratio(operation(*x) - operation(*b), (p_x - q_x) - (p_b - q_b))
    return operation.chosen([slope, -slope])


def choose(operation, grad: torch.Tensor, x: Tensors, b: Tensors) -> Tensors:
    """``where`` as c p + (1 - c) q; a decision that both share is a constant."""
    (c_x, p_x, q_x), (c_b, p_b, q_b) = operation.arguments(x), operation.arguments(b)
    c_x, c_b = c_x.to(grad.dtype), c_b.to(grad.dtype)
    taken = (c_x + c_b) / 2
    decision = torch.where(c_x == c_b, 0, grad * ((p_x - q_x) + (p_b - q_b)) / 2)
    return operation.chosen([decision, grad * taken, grad * (1 - taken)])


def lse_multipliers(x: torch.Tensor, b: torch.Tensor, dims) -> torch.Tensor:
    """Of a logsumexp: the logarithmic mean of each e^u over that of the sums."""
    s_x, s_b = x.logsumexp(dims, keepdim=True), b.logsumexp(dims, keepdim=True)
    scale = (torch.maximum(x, b) - torch.maximum(s_x, s_b)).exp_()
    return scale.mul_(decay(x - b)).div_(decay(s_x - s_b))  # both -inf: 0


def logsumexp(operation, grad: torch.Tensor, x: Tensors, b: Tensors) -> Tensors:
    _, dims, keepdim, *_ = [*operation.arguments(b), False]
    if not keepdim:
        for dim in sorted(d % b[0].ndim for d in dims):
            grad = grad.unsqueeze(dim)
    return [grad * lse_multipliers(x[0], b[0], dims)]


def log_softmax(operation, grad: torch.Tensor, x: Tensors, b: Tensors) -> Tensors:
    dim = operation.arguments(b)[1]
    return [grad - lse_multipliers(x[0], b[0], dim) * grad.sum(dim, keepdim=True)]


def softmax(operation, grad: torch.Tensor, x: Tensors, b: Tensors) -> Tensors:
    """exp after log_softmax; e^u is the probability, times the sum of the e^u where those are asked for."""
    dim, (x,), (b,) = operation.arguments(b)[1], x, b
    p_x, p_b = x.softmax(dim), b.softmax(dim)
    s_x, s_b = x.logsumexp(dim, keepdim=True), b.logsumexp(dim, keepdim=True)
    d, fall, most = x - b, s_x - s_b, torch.maximum(s_x, s_b)
    shares = torch.maximum(p_x * (s_x - most).exp(), p_b * (s_b - most).exp()).mul_(decay(d))
    to_logs = torch.maximum(p_x, p_b).mul_(decay(d.sub_(fall))).mul_(grad)
    return [to_logs.sub_(shares.mul_(to_logs.sum(dim, keepdim=True) / decay(fall)))]


def deeplift_max(x: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multipliers (k, ...): a rise goes to the clip's largest entry, a fall to the reference's."""
    (y_x, at_x), (y_b, at_b) = x.max(0, keepdim=True), b.max(0, keepdim=True)
    at = torch.where(y_x > y_b, at_x, at_b)
    share = ratio(y_x - y_b, x.expand_as(b).gather(0, at) - b.gather(0, at))
    return torch.zeros_like(b).scatter_(0, at, share)


def shapley_max(x: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multipliers (k, ...) of a tree of pairs, each shared out by its Shapley values."""
    half = len(b) // 2
    if half == 0:
        return torch.ones_like(b)
    (x_1, x_2, x_rest), (b_1, b_2, b_rest) = (v.split([half, half, len(v) - 2 * half]) for v in (x, b))
    first = (relu_slope(x_1 - x_2, b_1 - x_2) + relu_slope(x_1 - b_2, b_1 - b_2)) / 2
    second = (relu_slope(x_2 - x_1, b_2 - x_1) + relu_slope(x_2 - b_1, b_2 - b_1)) / 2
    winners = [(torch.maximum(x_1, x_2), x_rest), (torch.maximum(b_1, b_2), b_rest)]
    above = shapley_max(*(torch.cat(pair) for pair in winners))
    return torch.cat([first.mul_(above[:half]), second.mul_(above[:half]), above[half:]])


MAX_RULES = {"deeplift": deeplift_max, "shapley": shapley_max}


def maximum(multipliers: Callable) -> Callable:
    """The rule of ``maximum`` and ``amax``: their entries one behind the other on a first axis."""

    def rule(operation, grad: torch.Tensor, x: Tensors, b: Tensors) -> Tensors:
        if operation.name == "maximum":
            pair = [torch.stack(torch.broadcast_tensors(*operation.arguments(v))) for v in (x, b)]
            return operation.chosen(list((grad * multipliers(*pair)).unbind()))
        _, dims, _ = (*operation.arguments(b), [], False)[:3]
        dims = sorted(d % b[0].ndim for d in dims) or list(range(b[0].ndim))
        first = list(range(len(dims)))
        windows = [v[0].movedim(dims, first).flatten(0, len(dims) - 1) for v in (x, b)]  # (entries, ...)
        grad = multipliers(*windows) * grad.reshape(windows[1].shape[1:])
        return [grad.unflatten(0, [b[0].shape[d] for d in dims]).movedim(first, dims)]

    return rule


def mean(x: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (x + b) / 2


RULES = {
    "div": divide,
    "where": choose,
    "_softmax": softmax,
    "_safe_softmax": softmax,
    "_log_softmax": log_softmax,
    "logsumexp": logsumexp,
}
RULES |= {name: univariate(slope) for name, slope in SLOPES.items()}
RULES |= {name: path(1) for name in LOGIC} | dict.fromkeys(COMPARISONS, decide)
MIDPOINT, QUADRATURE = path(1), path(8)


def rule_of(operation, pointwise: bool, max_rule: str) -> Callable | None:
    """The rule of an operation whose ``positions`` hang on the input; None where it is affine in them."""
    name, positions = operation.name, operation.positions
    if name in LINEAR or (name == "div" and positions == [0]) or (name == "where" and 0 not in positions):
        return None
    if name in PRODUCTS and positions == [0, 1] and not operation.node.meta["val"].is_complex():
        return product
    if name in BILINEAR:
        return MIDPOINT if set(BILINEAR[name]) <= set(positions) else None
    if name == "pow" and positions == [0]:
        exponent = operation.arguments([None])[1]
        return MIDPOINT if exponent == 2 else RULES[POWERS[exponent]] if exponent in POWERS else quotient
    if name in ("amax", "maximum"):
        return maximum(MAX_RULES[max_rule])
    if name in RULES:
        return RULES[name]
    return quotient if pointwise and len(positions) == 1 else QUADRATURE

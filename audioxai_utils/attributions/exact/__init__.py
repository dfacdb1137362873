"""Deep SHAP by rules on operations instead of modules: exact on any differentiable network.

``shap.DeepExplainer`` and captum hook modules; what a network writes as functions, products, attention,
a recurrence or a norm breaks their sum. Here every operation y = f(u_1, ..., u_n) has multipliers m_i
between clip and reference with y_x - y_b = sum_i m_i (u_i,x - u_i,b); by the chain rule the values add up
to g_c(x) - mean_b g_c(b). How, and where the limits are, says ``docs/exact-shap.md``.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from .graph import Graph, find_batch
from .rules import MAX_RULES, NotExact
from .trace import Trace, modules_of, untouched

__all__ = ["NotExact", "exact_deep_shap"]

CHUNK_SIZE = {"cpu": 16, "cuda": 100}  # references at once
N_TRACES = 4  # input shapes that a module's traces are kept for
TRACES: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
ROUNDING = 1000  # last digits of what is summed that a sum may be off by


def exact_deep_shap(
    f: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    background: torch.Tensor,
    target: torch.Tensor | Callable[[torch.Tensor], torch.Tensor],
    *,
    max_rule: str = "shapley",
    chunk_size: int | None = None,
) -> torch.Tensor:
    """Deep SHAP values of ``x``, the mean over ``background``.

    Parameters
    ----------
    f : nn.Module or callable
        (n, ...) to outputs (n, classes), each row by itself. Modules that it has at hand (its own, a
        method's, a function's) are explained in evaluation mode and left as they were found.
    x : Tensor (batch, ...)
        float32 or float64: spectrograms, waveforms, anything.
    background : Tensor (n, ...)
        References of ``x``'s shape, type and device.
    target : Tensor (batch,) of integers, or callable
        The explained column of each clip, or a function from ``f``'s outputs to (n,) numbers.
    max_rule : "shapley" | "deeplift"
        How a maximum is shared out: by the Shapley values of pairs, or by what shap does, a rise to the
        clip's largest entry and a fall to the reference's. That jumps where entries tie, as in silence.
    chunk_size : int, optional
        References at once, by default 16 on a CPU and 100 on a GPU; it bounds the memory.

    Returns
    -------
    Tensor (batch, ...)
        Signed, in the output's unit; sums to f_c(x) - mean_b f_c(b) over all entries of a clip.

    Raises
    ------
    NotExact
        An operation has no rule, the traced outputs are not ``f``'s own, or the values do not add up.
    ValueError, TypeError
        What is given does not fit.
    """
    _check(x, background, target, max_rule, chunk_size)
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        _full_precision(x.device),
        untouched(modules_of(f)),
    ):
        x, background = x.detach().clone(), background.detach().clone()
        explained, columns = _explained(f, x, target)
        known = TRACES.setdefault(f, {}) if explained is f and isinstance(f, nn.Module) else {}
        size = chunk_size or CHUNK_SIZE.get(x.device.type, 16)
        run = functools.partial(_run, explained, x, background, columns, max_rule, size)
        key = x.shape[1:], x.dtype, x.device
        if key in known:
            try:
                return run(known[key])
            except NotExact:  # f has changed since; a new trace says it again where it has not
                del known[key]
        trace = Trace(explained, x[:1])
        find_batch(trace, x[:1])
        values = run(trace)
        if len(known) >= N_TRACES:
            del known[next(iter(known))]
        known[key] = trace
        return values


def _run(
    f: Callable,
    x: torch.Tensor,
    background: torch.Tensor,
    columns: list[int],
    max_rule: str,
    chunk_size: int,
    trace: Trace,
) -> torch.Tensor:
    """A chunk's references run once for all clips; each clip's multipliers are one backward pass."""
    own = torch.cat([_plain(f, clip[None]) for clip in x])
    total = torch.zeros(x.shape, dtype=torch.float64, device=x.device)
    above = Graph(trace, 1, max_rule)
    for chunk in background.split(chunk_size):
        clip, references = {}, chunk.detach().requires_grad_()
        below = _plain(f, chunk)
        outputs = Graph(trace, len(chunk), max_rule).ruled(references, clip)
        agree(outputs.detach(), below)
        for i, column in enumerate(columns):
            output, kept = above.kept(x[i : i + 1])
            agree(output, own[i : i + 1])
            clip.update(kept)
            more = i < len(x) - 1
            (multipliers,) = torch.autograd.grad(outputs[:, column].sum(), references, retain_graph=more)
            values = (multipliers * (x[i] - chunk)).double()
            adds_up(values.flatten(1), own[i, column], below[:, column])
            total[i] += values.sum(0)
    return (total / len(background)).to(x.dtype)


@torch.no_grad()
def _plain(f: Callable, rows: torch.Tensor) -> torch.Tensor:
    return f(rows)


def _explained(f: Callable, x: torch.Tensor, target) -> tuple[Callable, list[int]]:
    """A function to (n, columns), and each clip's column of it."""
    if callable(target):
        f, given = lambda rows, f=f: target(f(rows))[:, None], "target(f(x))"
        columns = [0] * len(x)
    else:
        given, columns = "f(x)", target.tolist()
    with torch.no_grad():
        outputs = f(x[:1])
    if not isinstance(outputs, torch.Tensor) or outputs.ndim != 2 or len(outputs) != 1:
        found = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        want = "(n,) numbers" if callable(target) else "a tensor (n, classes)"
        raise ValueError(
            f"{given} must be {want}; got {found} for one clip. Wrap the model in a function that is"
        )
    if not all(0 <= column < outputs.shape[1] for column in columns):
        raise ValueError(
            f"target must be in 0 ... {outputs.shape[1] - 1}; got {min(columns)} ... {max(columns)}"
        )
    return f, columns


def agree(traced: torch.Tensor, own: torch.Tensor) -> None:
    """NotExact where the graph computes something else than ``f`` itself."""
    scale = own.abs().max() + 1e-30
    error = ((traced - own).abs().max() / scale).item()
    if not error <= ROUNDING * torch.finfo(own.dtype).eps:
        raise NotExact(
            f"the traced operations miss f's own outputs by {error:.2g} of the largest: f branches on its "
            "input's values, draws random numbers, or mixes rows"
        )


def adds_up(values: torch.Tensor, above: torch.Tensor, below: torch.Tensor) -> None:
    """NotExact where values (references, entries) of a clip do not sum to the outputs' differences."""
    error = (values.sum(1) - (above - below).double()).abs()
    scale = values.abs().sum(1) + above.abs() + below.abs()
    worst = (error / scale.clamp_min(1e-300)).max().item()
    if not worst <= ROUNDING * torch.finfo(above.dtype).eps:
        raise NotExact(
            f"the values miss the outputs' difference by {worst:.2g} of their size: a rule does not fit f"
        )


def _check(x, background, target, max_rule, chunk_size) -> None:
    for name, value in {"x": x, "background": background}.items():
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"{name} must be a tensor (n, ...); got {type(value).__name__}")
        if value.dtype not in (torch.float32, torch.float64) or value.ndim < 2 or not len(value):
            raise ValueError(
                f"{name} must be float32 or float64 (n, ...); got {value.dtype} {tuple(value.shape)}"
            )
    if (background.shape[1:], background.dtype, background.device) != (x.shape[1:], x.dtype, x.device):
        like, got = ((tuple(v.shape[1:]), v.dtype, str(v.device)) for v in (x, background))
        raise ValueError(f"background must be like x, (n, *shape), type and device {like}; got {got}")
    if not callable(target) and (not isinstance(target, torch.Tensor) or target.shape != x.shape[:1]):
        raise ValueError(
            f"target must be a tensor of {len(x)} class indices, one a clip, or a callable; got {target!r}"
        )
    if max_rule not in MAX_RULES:
        raise ValueError(f"max_rule must be one of {', '.join(MAX_RULES)}; got {max_rule!r}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1; got {chunk_size}")


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """No autocast, and on CUDA no TF32 and no choice of algorithms that changes from call to call."""
    with torch.autocast(device.type, enabled=False):
        if device.type != "cuda":
            yield
            return
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            with torch.backends.cudnn.flags(
                enabled=True, benchmark=False, deterministic=True, allow_tf32=False
            ):
                yield
        finally:
            torch.set_float32_matmul_precision(before)

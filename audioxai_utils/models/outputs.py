"""Scores out of whatever a network returns, and what they can be."""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Mapping

import torch
from torch.nn import functional

FAINT = 1e-6  # -log prod(1 - p) below which it is sum p to the last digit
HALF = (torch.float16, torch.bfloat16)
ROUNDING = 1e-3  # of a row of probabilities that sums to 1, in half precision too


def class_names(classes) -> tuple[str, ...] | None:
    """Names of the outputs in their order, of a list or of a dict that numbers them either way.

    Raises
    ------
    TypeError, ValueError
        It has no order: a set, or numbers that are not those of the outputs.
    """
    if classes is None or (isinstance(classes, (list, tuple)) and all(isinstance(x, str) for x in classes)):
        return classes and tuple(classes)
    if isinstance(classes, (str, set, frozenset)):
        raise TypeError(f"classes must be a list of names in the order of the outputs; got {classes!r:.60}")
    if not isinstance(classes, Mapping):
        return tuple(str(name) for name in classes)
    for pairs in (list(classes.items()), [(number, name) for name, number in classes.items()]):
        named = {str(number): str(name) for number, name in pairs}
        if set(named) == set(map(str, range(len(pairs)))):
            return tuple(named[str(number)] for number in range(len(pairs)))
    raise ValueError(
        f"classes must be a list, or a dict that numbers its {len(classes)} names from 0 without gaps, "
        "such as id2label"
    )


def column_names(classes: tuple[str, ...] | None, n: int) -> tuple[str, ...]:
    """A name for each of ``n`` columns; one column is two, a detector's. ValueError for another number."""
    n = 2 if n == 1 else n
    if classes is None:
        return tuple(map(str, range(n)))
    if n == 2 and len(classes) == 1:
        return f"not {classes[0]}", classes[0]
    if len(classes) != n:
        raise ValueError(f"classes must name the model's {n} outputs; got {len(classes)} names")
    return classes


def check_number(name: str, value, what: str, low: float = -math.inf, high: float = math.inf) -> float:
    """``value``, a finite number from ``low`` to ``high``; TypeError or ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be {what}; got {value!r}")
    if not (math.isfinite(value) and low <= value <= high):
        bounds = f" from {low:g} to {high:g}" if high < math.inf else f" of {low:g} or more"
        raise ValueError(f"{name} must be {what}{bounds if low > -math.inf else ''}; got {value!r}")
    return value


def pick(raw, output=None, check: bool = True):
    """Scores (batch, columns) of a network's return value; ``output`` as `AudioClassifier` has it.

    Raises
    ------
    ValueError
        They are not there, or no tensor (batch, columns) (``check``).
    """
    found = _found(raw, output)
    if not check:
        return found
    if not isinstance(found, torch.Tensor):
        raise ValueError(
            f"net must return a tensor of scores; got {_described(found)}: say where with output="
        )
    if found.ndim < 2:  # one column, or one column of one clip
        found = found.reshape(-1, 1)
    if found.ndim != 2:
        raise ValueError(
            f"net must return logits (batch, classes); got {tuple(found.shape)}: give output=a function "
            "that makes them"
        )
    return found


def _found(raw, output):
    if output is None:
        return raw
    if isinstance(raw, torch.Tensor) and not callable(output):
        raise ValueError(f"output={output!r} is not in what net returns, {_described(raw)}; leave it out")
    try:
        if isinstance(output, str):
            return getattr(raw, output[1:]) if output.startswith(".") else raw[output]
        return raw[output] if isinstance(output, int) else output(raw)
    except (KeyError, IndexError, AttributeError, TypeError) as error:
        if callable(output):
            raise
        raise ValueError(f"output={output!r} is not in what net returns, {_described(raw)}") from error


def _described(raw) -> str:
    if isinstance(raw, torch.Tensor):
        return f"a tensor {tuple(raw.shape)}"
    if hasattr(raw, "keys"):
        return f"{_kind(raw)} with the keys {', '.join(repr(key) for key in list(raw)[:6])}"
    if isinstance(raw, (tuple, list)):
        return f"{_kind(raw)} of {len(raw)}, so output=0 and on"
    return _kind(raw) + (", which has .logits" if hasattr(raw, "logits") else "")


def _kind(raw) -> str:
    return f"a {type(raw).__name__}"


def check_columns(scores: torch.Tensor, head: str | None) -> tuple[str, bool]:
    """The head of scores (batch, columns) and whether they may be probabilities that exclude each other.

    Raises
    ------
    ValueError
        They do not fit the head, or it is None and they look like anything but softmax logits.
    """
    if not bool(torch.isfinite(scores).all()):
        raise ValueError("model returns NaN or infinite logits for this sound; it cannot be explained")
    n, unit = scores.shape[1], bool(((scores >= -1e-6) & (scores <= 1 + 1e-3)).all())
    sums = n > 1 and bool(((scores.sum(1) - 1).abs() < ROUNDING).all())
    shares = n > 1 and bool((scores >= 0).all() & ((scores.sum(1) - 100).abs() < 0.1).all())
    if shares and head != "probabilities":
        raise ValueError(
            "the model returns rows that sum to 100, which are percentages: divide them by 100, as by "
            "output=lambda y: y / 100, and give head='probabilities'"
        )
    if head is None:
        look = (
            "one column" if n == 1 else "outputs in [0, 1]" if unit else "rows that sum to 1" if sums else ""
        )
        if look:
            raise ValueError(
                f"the model returns {look}: say what they are with head='binary' (one logit), 'sigmoid' "
                "(logits of labels), 'softmax' (logits of classes) or 'probabilities'"
            )
        head = "softmax"
    if head == "softmax" and n == 1:
        raise ValueError(
            "head='softmax' of one column is always 1; give head='binary' or head='probabilities'"
        )
    if head == "softmax" and unit and sums:
        raise ValueError(
            "head='softmax' is for logits and these are probabilities already; give head='probabilities'"
        )
    if head == "sigmoid" and n == 1:
        raise ValueError("head='sigmoid' is for several labels; of one column give head='binary'")
    if head == "binary" and n != 1:
        raise ValueError(
            f"head='binary' is for one column; the model returns {n}: give head='sigmoid' or 'softmax'"
        )
    if head == "probabilities" and not unit:
        low, high = float(scores.min()), float(scores.max())
        raise ValueError(
            f"head='probabilities' wants outputs in [0, 1]; the model returns {low:.3g} to {high:.3g}"
        )
    if head == "sigmoid" and unit:
        warnings.warn(
            "all outputs lie in [0, 1]: head='sigmoid' is for logits, head='probabilities' for scores",
            stacklevel=2,
        )
    return head, sums


def joint_log_odds(scores: torch.Tensor, columns: list[int], head: str) -> torch.Tensor:
    """(batch, 1) log-odds that at least one of several classes is there.

    Of exclusive classes the probabilities add up; of independent labels it is 1 - prod(1 - p).
    """
    chosen = scores[:, columns]
    if head == "softmax":
        others = [column for column in range(scores.shape[1]) if column not in columns]
        return chosen.logsumexp(1, keepdim=True) - scores[:, others].logsumexp(1, keepdim=True)
    absent = functional.softplus(chosen).sum(1, keepdim=True)  # -log prod(1 - p)
    present = torch.log(-torch.expm1(-absent.clamp_min(FAINT)))
    of_faint = functional.logsigmoid(chosen).logsumexp(
        1, keepdim=True
    )  # log sum p, where the other underflows
    return absent + torch.where(absent < FAINT, of_faint, present)


def any_of(raw, columns: list[int], output, head: str, exclusive: bool) -> torch.Tensor:
    """(batch, 1) score that at least one of several classes is there, of what a network returns."""
    scores = pick(raw, output)
    scores = scores.float() if scores.dtype in HALF else scores
    if head == "probabilities":
        return joint_probability(scores, columns, exclusive)
    return joint_log_odds(scores, columns, head)


def joint_probability(p: torch.Tensor, columns: list[int], exclusive: bool) -> torch.Tensor:
    """(batch, 1) probability that at least one of several classes is there."""
    chosen = p[:, columns]
    return chosen.sum(1, keepdim=True) if exclusive else _any(chosen)


def _any(p: torch.Tensor) -> torch.Tensor:
    """1 - prod(1 - p) of (batch, n), to the last digit of small ones too."""
    below = p.clamp_max(1 - torch.finfo(p.dtype).eps)
    return -torch.expm1(torch.log1p(-below).sum(1, keepdim=True))


def numbers_of(target, raw, output=None) -> torch.Tensor:
    """(batch, 1) of a function of what ``output`` selects; ValueError for another shape."""
    values = target(raw if output is None else pick(raw, output, check=False))
    if not isinstance(values, torch.Tensor) or values.ndim != 1:
        got = tuple(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
        raise ValueError(f"target must return one number per clip, a tensor (batch,); got {got}")
    return values[:, None]


def of_larger_scores(target, raw, output=None) -> torch.Tensor:
    """(batch, 3): the numbers of a function of these scores, of 1000 times them, and of -1000 times.

    A probability stays in [0, 1], which a logit, a difference or a cosine does not. -1 where what it is given
    is no tensor.
    """
    found = raw if output is None else pick(raw, output, check=False)
    if not isinstance(found, torch.Tensor):
        return -numbers_of(target, raw, output).abs().expand(-1, 3) - 1
    return torch.cat([numbers_of(target, found * factor) for factor in (1, 1e3, -1e3)], 1)

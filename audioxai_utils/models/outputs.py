"""Scores out of whatever a network returns, and what they can be."""

from __future__ import annotations

import warnings

import torch
from torch.nn import functional

ROUNDING = 1e-3  # of a row of probabilities that sums to 1, in half precision too


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
    if found.ndim == 1:
        found = found[:, None]
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
    """The head of scores (batch, columns) and whether they are probabilities that exclude each other.

    Raises
    ------
    ValueError
        They do not fit the head, or it is None and they look like anything but softmax logits.
    """
    if not bool(torch.isfinite(scores).all()):
        raise ValueError("model returns NaN or infinite logits for this sound; it cannot be explained")
    n, unit = scores.shape[1], bool(((scores >= -1e-6) & (scores <= 1 + 1e-3)).all())
    sums = n > 1 and bool(((scores.sum(1) - 1).abs() < ROUNDING).all())
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
    return head, sums or n == 1


def joint_log_odds(scores: torch.Tensor, columns: list[int], head: str) -> torch.Tensor:
    """(batch, 1) log-odds that at least one of several classes is there.

    Of exclusive classes the probabilities add up; of independent labels it is 1 - prod(1 - p).
    """
    chosen = scores[:, columns]
    if head == "softmax":
        others = [column for column in range(scores.shape[1]) if column not in columns]
        return chosen.logsumexp(1, keepdim=True) - scores[:, others].logsumexp(1, keepdim=True)
    absent = functional.softplus(chosen).sum(1, keepdim=True)  # -log prod(1 - p)
    return absent + torch.log(-torch.expm1(-absent))


def joint_probability(p: torch.Tensor, columns: list[int], exclusive: bool) -> torch.Tensor:
    """(batch, 1) probability that at least one of several classes is there."""
    chosen = p[:, columns]
    return chosen.sum(1, keepdim=True) if exclusive else 1 - (1 - chosen).prod(1, keepdim=True)

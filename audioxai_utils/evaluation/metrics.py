"""How faithful and how concise a mask is, per clip.

``p`` are class probabilities (batch, classes): of the whole clip, of what the mask
keeps, of what it removes. c is the class predicted on the whole clip unless another is
given as ``target``, d = F * T.

p_c is the probability of class c by the model's head (`models.reading.Reading`): of a softmax, or of the
label's own sigmoid, whatever the other labels do; of a one-logit detector p is (1 - sigma(z), sigma(z)). FF,
AI, AD and AG are all of that one probability. FidIn is where heads differ: classes that exclude each other
are heard where they have the largest probability, labels of a sigmoid or binary head where theirs is above
the ``threshold``.

Two protocols. ``paper``: an increase of any size counts in AI, and a constant mask has
SPS = COMP = 0, as in the published runs. ``audited``: AI wants a rise above 1e-4 (a
rise smaller than that is rounding), COMP follows its definition (ln d for a constant
mask), and both conciseness scores of an all-zero mask are NaN.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ..constants import FAITHFULNESS_METRICS, LOWER_IS_BETTER, PROTOCOLS, check_choice

EPSILON = 1e-6
QUANTUS_OFFSET = 1e-7
BETTER = ("higher", "lower")
# other columns of scores
RESERVED = ("index", "mask", "target", "p_clip", "p_kept", "p_removed", "area", "degenerate")
AUDITED_RISE = 1e-4  # far above float32 rounding of a softmax, far below an audible change of mind


def faithfulness(
    p: torch.Tensor,
    p_kept: torch.Tensor,
    p_removed: torch.Tensor,
    protocol: str = "paper",
    target: torch.Tensor | None = None,
    threshold: float | torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """The five faithfulness scores.

    Parameters
    ----------
    p, p_kept, p_removed : torch.Tensor
        (batch, classes) probabilities.
    protocol : {"paper", "audited"}
    target : torch.Tensor, optional
        (batch,) classes c that are scored; None: the predicted ones, as in the study.
    threshold : float or (batch,) tensor, optional
        Probability above which a label is heard; None: the classes exclude each other, and the largest is.

    Returns
    -------
    dict of str to torch.Tensor
        Each (batch,). FF: fall of p_c when the mask is removed (-1 to 1). AI: 100 where p_c
        rises on the kept part, else 0. AG: relative rise, per cent of what was missing to 1.
        FidIn: 1 where the kept part is heard as c. AD: relative fall on the kept part, per cent.
        NaN where the model's answer to the part is no number.

    References
    ----------
    FF: Petsiuk et al. (2018); AI, AD: Chattopadhay et al. (2018); AG: Zhang et al. (2024);
    FidIn: Paissan et al. (2023).
    """
    check_choice("protocol", protocol, PROTOCOLS)
    if not p.shape == p_kept.shape == p_removed.shape or p.ndim != 2:
        shapes = ", ".join(str(tuple(x.shape)) for x in (p, p_kept, p_removed))
        raise ValueError(f"p, p_kept and p_removed must share one shape (batch, classes); got {shapes}")
    target = scored_class(p, target)[:, None]
    whole, kept, removed = (x.gather(1, target).squeeze(1) for x in (p, p_kept, p_removed))
    heard = p_kept.argmax(1) == target.squeeze(1) if threshold is None else kept > threshold
    asked = p_kept if threshold is None else kept[:, None]
    unknown = ~(asked.isfinite().all(1) & whole.isfinite())  # argmax and > answer to NaN too
    least = AUDITED_RISE if protocol == "audited" else 0.0
    return {
        "FF": whole - removed,
        "AI": (100.0 * (kept - whole > least).to(p.dtype)).masked_fill(unknown, math.nan),
        "AG": 100.0 * (kept - whole).clamp_min(0) / (1 - whole + EPSILON),
        "FidIn": heard.to(p.dtype).masked_fill(unknown, math.nan),
        "AD": 100.0 * (whole - kept).clamp_min(0) / (whole + EPSILON),
    }


def scored_class(p: torch.Tensor, target: torch.Tensor | None = None) -> torch.Tensor:
    """(batch,) long: the given classes, checked, or those predicted by ``p`` (batch, classes)."""
    if target is None:
        return p.argmax(1)
    if not isinstance(target, torch.Tensor) or target.is_floating_point() or target.shape != p.shape[:1]:
        got = f"{target.dtype} {tuple(target.shape)}" if isinstance(target, torch.Tensor) else repr(target)
        raise ValueError(f"target must be a tensor of {len(p)} class indices, one per clip; got {got}")
    if len(target) and not (int(target.min()) >= 0 and int(target.max()) < p.shape[1]):
        raise ValueError(f"target must lie between 0 and {p.shape[1] - 1}; got {target.tolist()}")
    return target.to(p.device, torch.long)


def is_constant(mask: torch.Tensor) -> torch.Tensor:
    """Whether each clip's mask has one value only, (batch,) bool: it then selects nothing."""
    values = mask.flatten(1)
    return values.amin(1) == values.amax(1)


def kept_area(mask: torch.Tensor) -> torch.Tensor:
    """Mean of the mask per clip, (batch,): the share of bins kept by a binary one."""
    return mask.double().flatten(1).mean(1)


def sparseness(mask: torch.Tensor, protocol: str = "paper") -> torch.Tensor:
    """SPS: Gini index of |M| per clip, (batch,) float64, 0 (even) to 1 (one bin).

    1 - 2 sum_i (v_(i) / |v|_1) (d - i + 0.5) / d with v ascending and i from 1. Under
    ``paper`` every value is first raised by 1e-7, as Quantus does and so the published
    runs: a mask of 17 bins out of 32064 then has 0.99928 instead of 0.99947.
    An all-zero mask has 0 under ``paper`` and NaN under ``audited``.

    References
    ----------
    Hurley & Rickard (2009); as an explanation metric Chalasani et al. (2020).
    """
    check_choice("protocol", protocol, PROTOCOLS)
    values = mask.flatten(1).abs()  # (batch, d)
    n_values = values.shape[1]
    offset = QUANTUS_OFFSET if protocol == "paper" else 0.0
    binary, n_ones = _ones(values)
    total = n_ones + n_values * offset
    gini = n_ones * (n_values - n_ones) / n_values / total  # closed form for zeros and ones
    if not binary.all():
        gini[~binary] = _gini_numerator(values[~binary]) / n_values / total[~binary]
    return torch.where(total > 0, gini, math.nan)


def _ones(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Which rows hold zeros and ones alone, and the sum of each row in float64; closed forms need no more."""
    # sooner than all(), as double() is than sum(dtype=...)
    binary = (values * values - values).abs().amax(1) == 0
    return binary, values.double().sum(1)


def _gini_numerator(values: torch.Tensor) -> torch.Tensor:
    """sum_i v_(i) (2 i - d - 1) per row, float64; an offset of all values cancels out of it."""
    n_values = values.shape[1]
    weights = torch.arange(1 - n_values, n_values, 2, device=values.device, dtype=torch.float64)
    if values.device.type == "cpu":  # NumPy's vectorised sort is several times faster than torch's
        ordered = torch.from_numpy(np.sort(values.detach().numpy(), axis=1))
    else:
        ordered = values.sort(1).values
    return (ordered.double() * weights).sum(1)  # a product by MKL would hang on where NumPy's array begins


def complexity(mask: torch.Tensor, protocol: str = "paper") -> torch.Tensor:
    """COMP: entropy (nats) of |M| / |M|_1 per clip, (batch,) float64, 0 to ln d.

    A constant mask has 0 under ``paper``, as published, and ln d under ``audited``.

    References
    ----------
    Bhatt et al. (2020).
    """
    check_choice("protocol", protocol, PROTOCOLS)
    values = mask.flatten(1).abs()  # (batch, d)
    binary, total = _ones(values)
    entropy = total.log()  # ln S - sum v ln v / S, whose sum is 0 over zeros and ones
    if not binary.all():
        soft = values[~binary].double()
        # 0 ln 0 = 0; xlogy takes six times as long
        logarithm = soft.clamp_min(torch.finfo(soft.dtype).tiny).log()
        entropy[~binary] -= (soft * logarithm).sum(1) / total[~binary]
    if protocol == "paper":
        return torch.where(is_constant(mask), torch.zeros_like(entropy), entropy)
    return torch.where(total > 0, entropy, math.nan)


# The table of metrics


@dataclass(frozen=True)
class Split:
    """What a metric can see of a batch of clips and one mask of each.

    Attributes
    ----------
    p, p_kept, p_removed : torch.Tensor
        (batch, classes) probabilities of the whole clips, of what the masks keep and of what they remove.
    target : torch.Tensor
        (batch,) explained classes.
    mask : torch.Tensor
        (batch, 1, frequency, time) in [0, 1].
    protocol : {"paper", "audited"}
    threshold : float or (batch,) tensor, optional
        As in `faithfulness`.
    """

    p: torch.Tensor
    p_kept: torch.Tensor
    p_removed: torch.Tensor
    target: torch.Tensor
    mask: torch.Tensor
    protocol: str = "paper"
    threshold: float | torch.Tensor | None = None


@dataclass(frozen=True)
class Metric:
    """``rule(split)`` gives one number per clip, (batch,); ``better`` says which way is better."""

    rule: Callable[[Split], torch.Tensor]
    better: str


METRICS: dict[str, Metric] = {}


def register_metric(name: str, rule: Callable[[Split], torch.Tensor], better: str = "higher") -> None:
    """Add a metric to the registry: from then on `explain` and the study score it with the seven.

    ``rule`` takes a `Split` and returns (batch,) numbers, NaN where the metric is not defined; ``better``
    is ``higher`` or ``lower``.
    """
    check_choice("better", better, BETTER)
    if name in METRICS or name in RESERVED:
        raise ValueError(f"metric {name!r} is registered already, or is the name of another column of scores")
    METRICS[name] = Metric(rule, better)


def further_scores(split: Split) -> dict[str, torch.Tensor]:
    """Scores of the metrics beside the study's seven, (batch,) each; ValueError for another shape."""
    scores = {name: metric.rule(split) for name, metric in METRICS.items() if name not in STUDY}
    for name, values in scores.items():
        if not isinstance(values, torch.Tensor) or values.shape != split.target.shape:
            got = tuple(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
            raise ValueError(
                f"metric {name!r} must return one number per clip, ({len(split.target)},); got {got}"
            )
    return scores


def _faithfulness_of(name: str, split: Split) -> torch.Tensor:
    return faithfulness(
        split.p, split.p_kept, split.p_removed, split.protocol, split.target, split.threshold
    )[name]


def _register_study() -> None:
    rules = {name: functools.partial(_faithfulness_of, name) for name in FAITHFULNESS_METRICS}
    rules["SPS"] = lambda split: sparseness(split.mask, split.protocol)
    rules["COMP"] = lambda split: complexity(split.mask, split.protocol)
    for name, rule in rules.items():
        register_metric(name, rule, "lower" if name in LOWER_IS_BETTER else "higher")


_register_study()
STUDY = tuple(METRICS)

"""Fourteen masks of an attribution, and what a mask leaves of a spectrogram.

Attributions and masks are (batch, 1, frequency, time). Every mask is computed per clip,
over all of its d = F * T values; values lie in [0, 1].

Two protocols. ``paper`` is Pak & Teryokhina (2025) to the letter. ``audited`` departs
from it where the published rule degenerates:

* ``topK_*`` keeps at most round(k d) bins, and ``topK_*_pos`` only those with L > 0
  (the published ``L+ >= quantile(L+)`` keeps everything once the quantile is 0);
* ``sigmoid`` and ``sigmoid_pos`` act on L / std(L), since raw attributions are so
  small that their sigmoid is 0.5 everywhere;
* ``minmax``, ``minmax_pos`` and ``pos_thresh_*`` divide by the span alone; published is the
  span + 1e-8, which makes masks of very small attributions smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from ..constants import DB_FLOOR, MASK_NAMES, PROTOCOLS, check_choice
from ..numerics import largest, masked

EPSILON = 1e-8
TOP_SHARES = {"topK_5": 0.05, "topK_30": 0.30, "topK_50": 0.50}
THRESHOLDS = {"pos_thresh_25": 0.25, "pos_thresh_50": 0.50, "pos_thresh_75": 0.75}

MASKS: dict[str, Callable[[torch.Tensor, str], torch.Tensor]] = {}


def register_mask(name: str, rule: Callable[[torch.Tensor, str], torch.Tensor]) -> None:
    """Add a mask to the registry.

    ``rule(values, protocol)`` takes one row of attributions per clip, (batch, d), and
    returns the mask in [0, 1] of the same shape.
    """
    if name in MASKS:
        raise ValueError(f"mask {name!r} is registered already")
    MASKS[name] = rule


def _minmax(values: torch.Tensor, protocol: str) -> torch.Tensor:
    low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    return (values - low) / _not_zero(high - low, protocol)


def _minmax_positive(values: torch.Tensor, protocol: str) -> torch.Tensor:
    positive = values.clamp_min(0)
    return positive / _not_zero(positive.amax(1, keepdim=True), protocol)


def _not_zero(span: torch.Tensor, protocol: str) -> torch.Tensor:
    """A divisor; as published it is made larger by a number, and the mask then depends on the map's unit."""
    return span + EPSILON if protocol == "paper" else span.clamp_min(torch.finfo(span.dtype).tiny)


def _sigmoid(values: torch.Tensor, original: torch.Tensor, protocol: str) -> torch.Tensor:
    if protocol == "audited":
        values = values / (original.std(1, keepdim=True) + torch.finfo(values.dtype).tiny)
    return torch.sigmoid(values)


def _at_least_quantile(values: torch.Tensor, share: float) -> torch.Tensor:
    threshold = torch.quantile(values, 1 - share, dim=1, keepdim=True)
    return (values >= threshold).to(values.dtype)


def _largest(values: torch.Tensor, share: float, positive_only: bool) -> torch.Tensor:
    """Exactly round(share * d) largest values; among equal ones those that come first."""
    n_kept = round(share * values.shape[1])
    mask = largest(values, n_kept).to(values.dtype)
    return mask * (values > 0) if positive_only else mask


def _top_k(share: float, positive: bool) -> Callable[[torch.Tensor, str], torch.Tensor]:
    def rule(values: torch.Tensor, protocol: str) -> torch.Tensor:
        if protocol == "audited":
            return _largest(values, share, positive_only=positive)
        return _at_least_quantile(values.clamp_min(0) if positive else values, share)

    return rule


def _positive_threshold(threshold: float) -> Callable[[torch.Tensor, str], torch.Tensor]:
    return lambda values, protocol: (_minmax_positive(values, protocol) >= threshold).to(values.dtype)


register_mask("minmax", _minmax)
register_mask("sigmoid", lambda values, protocol: _sigmoid(values, values, protocol))
register_mask("bin", lambda values, protocol: (values > 0).to(values.dtype))
register_mask("minmax_pos", _minmax_positive)
register_mask("sigmoid_pos", lambda values, protocol: _sigmoid(values.clamp_min(0), values, protocol))
for _name, _share in TOP_SHARES.items():
    register_mask(_name, _top_k(_share, positive=False))
    register_mask(f"{_name}_pos", _top_k(_share, positive=True))
for _name, _threshold in THRESHOLDS.items():
    register_mask(_name, _positive_threshold(_threshold))


def build_masks(
    attribution: torch.Tensor, protocol: str = "paper", names: Iterable[str] | None = None
) -> dict[str, torch.Tensor]:
    """All masks of a batch of attributions, or those of some names.

    Parameters
    ----------
    attribution : torch.Tensor
        (batch, 1, frequency, time), signed and raw.
    protocol : {"paper", "audited"}
    names : iterable of str, optional

    Returns
    -------
    dict of str to torch.Tensor
        ``names``, else the 14 names in the study's order (then whatever else was registered), each
        (batch, 1, frequency, time) in [0, 1].

    Raises
    ------
    ValueError
        Another shape, values that are not finite, or an unknown protocol or name.
    """
    check_choice("protocol", protocol, PROTOCOLS)
    if attribution.ndim != 4 or attribution.shape[1] != 1:
        raise ValueError(f"attribution must be (batch, 1, frequency, time); got {tuple(attribution.shape)}")
    if not torch.isfinite(attribution).all():
        raise ValueError("attribution must be finite; it holds NaN or infinite values")
    values = attribution.flatten(1)  # (batch, d)
    known = [*MASK_NAMES, *(name for name in MASKS if name not in MASK_NAMES)]
    names = known if names is None else [check_choice("names", name, known) for name in names]
    return {name: MASKS[name](values, protocol).view_as(attribution) for name in names}


def apply_mask(db: torch.Tensor, mask: torch.Tensor, fill: float | torch.Tensor = DB_FLOOR) -> tuple:
    """What a mask keeps and what it removes, in dB.

    Parameters
    ----------
    db, mask : torch.Tensor
        (batch, 1, frequency, time); the mask in [0, 1].
    fill : float or torch.Tensor
        Level that takes the place of what is masked: silence to the model, -100 dB in the study.
        A tensor broadcasts against ``db``.

    Returns
    -------
    kept, removed : torch.Tensor
        (X - fill) * M + fill and (X - fill) * (1 - M) + fill.
    """
    if db.shape[-2:] != mask.shape[-2:]:
        raise ValueError(f"mask {tuple(mask.shape)} does not fit db {tuple(db.shape)}")
    return masked(db, mask, fill), masked(db, 1 - mask, fill)

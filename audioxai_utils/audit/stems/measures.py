"""How well maps point at an event: in time, a tenth of a second at a time, and among the stems.

References
----------
Dumpis & Virtanen (2026), arXiv:2605.23293: intersection over union, frame F1 and pointing game in time.
Bolaños et al. (2025), arXiv:2506.04391: AUC per segment of 100 ms.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from ..planted.measures import Order, localised

SHARES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)  # of a profile's maximum, above which it says: here
AMONG = ("auc", "average_precision", "mass", "decoy_ratio", "auc_decoy")  # on the picture


def profiles(maps: torch.Tensor, n_segments: int) -> torch.Tensor:
    """Mean positive relevance (n, segments) in each segment of time of maps (n, F, T)."""
    return functional.adaptive_avg_pool1d(maps.double().clamp_min(0).mean(1, keepdim=True), n_segments)[:, 0]


def in_time(maps: torch.Tensor, there: torch.Tensor) -> dict[str, torch.Tensor]:
    """How well maps (n, F, T) of one label tell the segments in which its event is ``there`` (segments,).

    Returns
    -------
    dict of str to torch.Tensor (n,), float64
        ``auc_time``; ``pointing_time``, whether the highest segment is the event's; ``iou_5`` and so on, the
        intersection over union where what is above that per cent of the profile's maximum counts as found.
        The frame F1 of one event is 2 IoU / (1 + IoU).
    """
    profile = profiles(maps, len(there))
    order = Order(profile, there)
    found = {"auc_time": order.auc(), "pointing_time": order.pointing()}
    peak = profile.amax(1, keepdim=True)
    for share in SHARES:
        said = (profile > share * peak) & (peak > 0)
        both, either = (said & there).sum(1), (said | there).sum(1)
        found[f"iou_{share * 100:g}"] = both.double() / either
    return found


def among_stems(maps: torch.Tensor, own: torch.Tensor, others: torch.Tensor) -> dict[str, torch.Tensor]:
    """How maps (n, F, T) point at bins that their ``own`` event raises, and not at those of ``others``."""
    found = localised(maps, own, others & ~own)
    return {name: found[name] for name in AMONG}

"""How well maps point at a cause whose bins are known: against chance, against its decoy, in sound.

A map is a score of every bin. Equal scores, which segments and silent gradients have, are in no order: they
count as if it were drawn, and what is reported is the expectation over all orders.

References
----------
Arras et al. (2022), CLEVR-XAI, eq. 3 (relevance mass); Zhang et al. (2018), Top-down Neural Attention by
Excitation Backprop, section 4.1 (pointing game).
"""

from __future__ import annotations

import torch

from .cases import Truth

LEAST = 1e-3  # share of a map's mean relevance below which a mean counts as this, in ratios
FLAT = 0.05  # a marginal is told apart in time or frequency where its cells differ by more than this


class Order:
    """Bins of one map in falling order, in groups of equal scores.

    Parameters
    ----------
    scores, hits : torch.Tensor (d,)
        The map, and which bins are the cause's.

    Attributes
    ----------
    sizes, inside : torch.Tensor (groups,), float64
        Bins of each group, and how many of them are the cause's.
    """

    def __init__(self, scores: torch.Tensor, hits: torch.Tensor) -> None:
        _, group, sizes = torch.unique(-scores, return_inverse=True, return_counts=True)
        self.sizes = sizes.double()
        self.inside = torch.zeros_like(self.sizes).index_add_(0, group, hits.double())

    def auc(self) -> float:
        """Probability that a bin of the cause is above another one; .5 by chance, NaN without either."""
        outside = self.sizes - self.inside
        below = outside.sum() - outside.cumsum(0)
        return _ratio((self.inside * (below + outside / 2)).sum(), self.inside.sum() * outside.sum())

    def average_precision(self) -> float:
        """Mean precision at the bins of the cause; their share of all bins by chance."""
        precision = self.inside.cumsum(0) / self.sizes.cumsum(0)
        return _ratio((self.inside * precision).sum(), self.inside.sum())

    def precision(self) -> float:
        """Share of the cause among as many highest bins as it has; their share of all bins by chance."""
        n = self.inside.sum()
        before = self.sizes.cumsum(0) - self.sizes
        taken = ((n - before) / self.sizes).clamp(0, 1)
        return _ratio((self.inside * taken).sum(), n)

    def pointing(self) -> float:
        """Whether the highest bin is the cause's."""
        return _ratio(self.inside[0], self.sizes[0])


def _ratio(above: torch.Tensor, below: torch.Tensor) -> float:
    return float(above / below) if float(below) > 0 else float("nan")


def localised(attribution: torch.Tensor, cause: torch.Tensor, decoy: torch.Tensor) -> dict[str, float]:
    """How well one map points at the cause.

    Parameters
    ----------
    attribution : torch.Tensor (F, T)
        Signed; what is positive speaks for the class.
    cause, decoy : torch.Tensor (F, T), bool

    Returns
    -------
    dict of str to float
        ``auc``, ``average_precision``, ``precision`` and ``pointing`` of `Order`; ``mass``, the share of the
        positive relevance that lies on the cause; ``decoy_ratio``, mean positive relevance of a bin of the
        cause over that of the decoy, each at least a thousandth of the map's mean; ``auc_decoy``, the
        probability that a bin of the cause is above one of the decoy; ``auc_time`` and ``auc_frequency``, of
        the mean positive relevance in each frame and in each row. NaN where it is not defined.
    """
    scores, hits = attribution.flatten(), cause.flatten()
    order, either = Order(scores, hits), hits | decoy.flatten()
    positive = attribution.double().clamp_min(0)
    total = positive.sum()
    return {
        "auc": order.auc(),
        "average_precision": order.average_precision(),
        "precision": order.precision(),
        "pointing": order.pointing(),
        "mass": _ratio(positive[cause].sum(), total),
        "decoy_ratio": decoy_ratio(positive, cause, decoy),
        "auc_decoy": Order(scores[either], hits[either]).auc(),
        "auc_time": marginal_auc(positive, cause, 0),
        "auc_frequency": marginal_auc(positive, cause, 1),
    }


def decoy_ratio(positive: torch.Tensor, cause: torch.Tensor, decoy: torch.Tensor) -> float:
    """Mean relevance of a bin of the cause over that of a bin of the decoy; NaN without relevance."""
    least = LEAST * float(positive.mean())
    if not least > 0 or not bool(cause.any()) or not bool(decoy.any()):
        return float("nan")
    means = [max(float(positive[bins].mean()), least) for bins in (cause, decoy)]
    return means[0] / means[1]


def marginal_auc(positive: torch.Tensor, cause: torch.Tensor, axis: int) -> float:
    """AUC of mean relevance along time (``axis`` 0) or frequency (1); NaN where the cause is all along it.

    A frame is the cause's where it has at least half as many of its bins as the fullest frame.
    """
    filled = cause.double().mean(axis)
    hits = filled >= filled.max() / 2
    if not bool(cause.any()) or bool(hits.double().mean() > 1 - FLAT):
        return float("nan")
    return Order(positive.mean(axis), hits).auc()


def ranks(scores: torch.Tensor) -> torch.Tensor:
    """Rank of every bin (d,), float64, from 1; equal scores share their mean."""
    _, group, sizes = torch.unique(scores, return_inverse=True, return_counts=True)
    last = sizes.double().cumsum(0)
    return (last - (sizes - 1) / 2)[group]


def rank_correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    """Spearman's rho of two maps; NaN where one is constant."""
    sides = [ranks(each.flatten()) for each in (first, second)]
    sides = [side - side.mean() for side in sides]
    return _ratio(sides[0] @ sides[1], (sides[0] @ sides[0] * (sides[1] @ sides[1])).sqrt())


# Controls


def control_maps(
    known: Truth, mean: torch.Tensor, rows: slice, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """Maps that never ask the classifier, (n, 1, F, T) each.

    ``random``; ``level``, the picture in dB, whose highest bins are the loudest; ``energy``, its power;
    ``unusual``, its level above the training clips' mean (F,) of the bin; ``oracle``, by how many dB the
    plant changed each bin, the upper bound.
    """
    db = known.db[rows]
    random = torch.rand(db.shape, generator=generator, dtype=torch.float64).to(db)
    return {
        "random": random,
        "level": db - db.amin(),
        "energy": 10 ** (db / 10),
        "unusual": db - mean.to(db)[:, None],
        "oracle": known.change[rows],
    }

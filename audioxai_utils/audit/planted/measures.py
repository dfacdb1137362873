"""How well maps point at a cause whose bins are known: against chance, against its decoy, in sound.

A map is a score of every bin. Equal scores, which segments and silent gradients have, are in no order: they
count as if it were drawn, and what is reported is the expectation over all orders. Average precision alone
takes equal scores at once, as scikit-learn does, which gives large groups of them less.

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
    """Bins of maps in falling order, in groups of equal scores.

    Parameters
    ----------
    scores, hits : torch.Tensor (..., d)
        Maps, and which bins are the cause's; they broadcast.

    Attributes
    ----------
    sizes, inside : torch.Tensor (..., d), float64
        Bins of each group, and how many of them are the cause's; after the last group there are zeros.
    """

    def __init__(self, scores: torch.Tensor, hits: torch.Tensor) -> None:
        ordered, place = scores.sort(dim=-1, descending=True)
        group = _groups(ordered)
        hits = hits.double().expand(scores.shape).gather(-1, place)
        zeros = torch.zeros_like(hits)
        self.sizes = zeros.scatter_add(-1, group, torch.ones_like(hits))
        self.inside = zeros.scatter_add(-1, group, hits)

    def auc(self) -> torch.Tensor:
        """Probability that a bin of the cause is above another one; .5 by chance, NaN without either."""
        outside = self.sizes - self.inside
        below = outside.sum(-1, keepdim=True) - outside.cumsum(-1)
        pairs = self.inside.sum(-1) * outside.sum(-1)
        return _ratio((self.inside * (below + outside / 2)).sum(-1), pairs)

    def average_precision(self) -> torch.Tensor:
        """Mean precision at the bins of the cause; their share of all bins by chance."""
        precision = self.inside.cumsum(-1) / self.sizes.cumsum(-1)
        return _ratio((self.inside * precision).sum(-1), self.inside.sum(-1))

    def precision(self) -> torch.Tensor:
        """Share of the cause among as many highest bins as it has; their share of all bins by chance."""
        n = self.inside.sum(-1, keepdim=True)
        before = self.sizes.cumsum(-1) - self.sizes
        taken = ((n - before) / self.sizes.clamp_min(1)).clamp(0, 1)
        return _ratio((self.inside * taken).sum(-1), n[..., 0])

    def pointing(self) -> torch.Tensor:
        """Whether the highest bin is the cause's."""
        return _ratio(self.inside[..., 0], self.sizes[..., 0])


def _groups(ordered: torch.Tensor) -> torch.Tensor:
    """Number of the group of equal values that each of sorted values (..., d) is in, from 0."""
    new = torch.zeros(ordered.shape, dtype=torch.long, device=ordered.device)
    new[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    return new.cumsum(-1)


def _ratio(above: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
    return torch.where(below > 0, above / below, float("nan"))


def localised(attribution: torch.Tensor, cause: torch.Tensor, decoy: torch.Tensor) -> dict[str, torch.Tensor]:
    """How well maps of one clip point at the cause.

    Parameters
    ----------
    attribution : torch.Tensor (n, F, T)
        Signed; what is positive speaks for the class.
    cause, decoy : torch.Tensor (F, T), bool

    Returns
    -------
    dict of str to torch.Tensor (n,), float64
        ``auc``, ``average_precision``, ``precision`` and ``pointing`` of `Order`; ``mass``, the share of the
        positive relevance that lies on the cause; ``decoy_ratio``, mean positive relevance of a bin of the
        cause over that of the decoy, each at least a thousandth of the map's mean; ``auc_decoy``, the
        probability that a bin of the cause is above one of the decoy; ``auc_time`` and ``auc_frequency``, of
        the mean positive relevance in each frame and in each row. NaN where it is not defined.
    """
    scores, hits = attribution.flatten(1), cause.flatten()
    order, either = Order(scores, hits), (hits | decoy.flatten()).nonzero()[:, 0]
    positive = attribution.double().clamp_min(0)
    total = positive.sum(dim=(1, 2))
    return {
        "auc": order.auc(),
        "average_precision": order.average_precision(),
        "precision": order.precision(),
        "pointing": order.pointing(),
        "mass": _ratio((positive * cause).sum(dim=(1, 2)), total),
        "decoy_ratio": decoy_ratio(positive, cause, decoy),
        "auc_decoy": Order(scores[:, either], hits[either]).auc(),
        "auc_time": marginal_auc(positive, cause, 0),
        "auc_frequency": marginal_auc(positive, cause, 1),
    }


def decoy_ratio(positive: torch.Tensor, cause: torch.Tensor, decoy: torch.Tensor) -> torch.Tensor:
    """Mean relevance (n,) of a bin of the cause over that of a bin of the decoy; NaN without relevance."""
    least = LEAST * positive.mean(dim=(1, 2))
    means = [(positive * bins).sum(dim=(1, 2)) / bins.sum() for bins in (cause, decoy)]
    defined = (least > 0) & cause.any() & decoy.any()
    return torch.where(defined, torch.maximum(means[0], least) / torch.maximum(means[1], least), float("nan"))


def marginal_auc(positive: torch.Tensor, cause: torch.Tensor, axis: int) -> torch.Tensor:
    """AUC (n,) of mean relevance along time (``axis`` 0) or frequency (1); NaN where the cause is all along
    it.

    A frame is the cause's where it has at least half as many of its bins as the fullest frame.
    """
    filled = cause.double().mean(axis)
    hits = filled >= filled.max() / 2
    found = Order(positive.mean(1 + axis), hits).auc()
    return torch.where(cause.any() & (hits.double().mean() <= 1 - FLAT), found, float("nan"))


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

"""How a model's outputs are read: which head they are of, what silence is to it, when it hears a class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from ..constants import DB_FLOOR

HEADS = ("softmax", "sigmoid", "binary", "probabilities")


@dataclass(frozen=True)
class Reading:
    """What a model's scores (batch, classes) mean; a model carries its own as the attribute ``reading``.

    Attributes
    ----------
    head : {"softmax", "sigmoid", "binary", "probabilities"}
        ``softmax``: logits of classes that exclude each other. ``sigmoid``: logits of independent labels.
        ``binary``: one logit z, as the two columns -z and z. ``probabilities``: they are probabilities
        already.
    floor : float
        Level of silence (dB): what is masked goes there, and baselines lie there.
    threshold : float, optional
        A label is heard where its probability is above it; None: where it is the largest, as classes have it
        that exclude each other.

    Notes
    -----
    Methods that differentiate explain a column of the scores: a logit, or the probability itself
    under ``probabilities``. Methods that only ask, and every metric, use the probability of that column: with
    a sigmoid or binary head FF, AI, AD and AG are those of the label's own probability, whatever the other
    labels do, and FidIn is whether the label stays above its threshold on the kept part.
    """

    head: str = "softmax"
    floor: float = DB_FLOOR
    threshold: float | None = None

    def probabilities(self, scores: torch.Tensor) -> torch.Tensor:
        """Probabilities (batch, classes) of scores (batch, classes)."""
        if self.head == "softmax":
            return _of_several(scores).softmax(1)
        return scores if self.head == "probabilities" else scores.sigmoid()

    def log_present(self, scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """log p_c (batch,), in nats."""
        if self.head == "softmax":
            return -functional.cross_entropy(_of_several(scores), target, reduction="none")
        own = scores.gather(1, target[:, None])[:, 0]
        return _log(own) if self.head == "probabilities" else functional.logsigmoid(own)

    def log_absent(self, scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """log(1 - p_c) (batch,), in nats."""
        if self.head == "softmax":
            others = scores.scatter(1, target[:, None], -float("inf"))
            return others.logsumexp(1) - scores.logsumexp(1)
        own = scores.gather(1, target[:, None])[:, 0]
        return _log(1 - own) if self.head == "probabilities" else functional.logsigmoid(-own)


def _of_several(scores: torch.Tensor) -> torch.Tensor:
    """The scores; ValueError for a softmax of one column, which is 1 whatever the sound."""
    if scores.shape[1] < 2:
        raise ValueError(
            "model must have two classes or more; of one logit, use AudioClassifier(..., head='binary')"
        )
    return scores


def _log(p: torch.Tensor) -> torch.Tensor:
    return p.clamp_min(torch.finfo(p.dtype).tiny).log()


STUDY = Reading()  # softmax logits of dB spectrograms with the floor at -100 dB


def reading_of(model: nn.Module) -> Reading:
    """The model's own reading, else the study's."""
    reading = getattr(model, "reading", None)
    return reading if isinstance(reading, Reading) else STUDY

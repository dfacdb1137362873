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
    one_label : bool
        The two columns are absence and presence of a single label, as of a ``binary`` head: its absence is
        heard where its presence is not, and the one that is heard is the predicted one.

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
    one_label: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "one_label", self.one_label or self.head == "binary")

    def predicted(self, p: torch.Tensor) -> torch.Tensor:
        """Classes (batch,) of probabilities (batch, classes): the largest; of a single label its presence
        above the threshold.
        """
        if self.one_label and self.threshold is not None:
            return (p[:, 1] > self.threshold).long()
        return p.argmax(1)

    def thresholds(self, target: torch.Tensor) -> torch.Tensor | None:
        """Probabilities (batch,) above which classes (batch,) are heard; None: where they are the largest."""
        if self.threshold is None:
            return None
        present = torch.full(target.shape, self.threshold, dtype=torch.float64, device=target.device)
        return torch.where(target == 0, 1 - present, present) if self.one_label else present

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

"""What a model says of the sounds of one mask: the words beside the players."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..evaluation.scoring import MaskScorer
from .entries import PARTS


def sounds_of(scorer: MaskScorer, mask: torch.Tensor, classes: Sequence[str]) -> dict:
    """The fields of a `GalleryEntry` that are of its sounds: kept and removed, and what the model says of
    each sound as it is played, which may differ from what it says of the masked picture, the scored one.

    Parameters
    ----------
    scorer : MaskScorer
        Of one clip.
    mask : torch.Tensor
        (1, 1, frequency, time).
    classes : sequence of str
        The model's.
    """
    kept, removed = scorer.sounds(mask)
    p = torch.cat([scorer.p, scorer.of_sound(kept, removed)]).cpu()
    predicted, target = scorer.reading.predicted(p), int(scorer.target[0])
    named = [(classes[int(i)], float(row[i])) for row, i in zip(p, predicted)]
    return {
        "kept": kept[0].cpu(),
        "removed": removed[0].cpu(),
        "probabilities": dict(zip(PARTS, named)),
        "explained": dict(zip(PARTS, p[:, target].tolist())),
        "explained_class": classes[target],
        "heard": dict(zip(PARTS, _heard(scorer, p, target))),
        "by_sound": scorer.by_sound,
    }


def _heard(scorer: MaskScorer, p: torch.Tensor, target: int) -> list[bool | None]:
    """Whether the explained class is heard in each row of ``p``, as FidIn has it; None where a row is no
    number.
    """
    own = p[:, target]
    if scorer.threshold is None:
        heard, asked = p.argmax(1) == target, p
    else:
        heard, asked = own > scorer.threshold.cpu(), own[:, None]
    return [bool(is_heard) if known else None for is_heard, known in zip(heard, asked.isfinite().all(1))]

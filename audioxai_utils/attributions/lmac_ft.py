"""L-MAC, fine-tuned to be listened to: its masks are drawn towards the loud bins of their clip.

The decoder of ``lmac`` is trained for some more epochs (``decoders``). The terms of faithfulness stay. Where
what a mask keeps has a correlation (cosine) of 0.6 or more with its clip, the weights on area and
variation give way to the mean cross-entropy between the mask and the clip's loud bins, those with at
least 0.35 of its largest log(1 + magnitude). Elsewhere nothing changes.

References
----------
Paissan et al. (2024), Listenable Maps for Audio Classifiers, section 3, L-MAC FT;
thresholds, cosine, log(1 + magnitude), and that the guide takes the place of the area's weight are those of
the authors' recipe in SpeechBrain (recipes/ESC50/interpret, ``finetuning``). As there, the clip is the one
before others were mixed in. Deviations: those of ``lmac``; the guide weighs as much as the kept part's
cross-entropy, which in theirs have one weight (4) as well; and it counts for predicted classes alone, because
others may be those of the clip that was mixed in.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from .decoder import Recipe
from .lmac import lmac
from .registry import register


@register("lmac_ft", recipe=Recipe(epochs=10, learning_rate=1e-3, guide=1.0), after="lmac", layers=True)
def lmac_ft(
    model: nn.Module, db: torch.Tensor, target: torch.Tensor, *, decoder: str | Path, batch_size: int = 16
) -> torch.Tensor:
    """The fine-tuned decoder's mask of each clip minus 1/2; options as those of ``lmac``."""
    return lmac(model, db, target, decoder=decoder, batch_size=batch_size)

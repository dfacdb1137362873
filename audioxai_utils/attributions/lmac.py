"""L-MAC: masks by a trained decoder over the classifier's features, in one forward pass.

The decoder is trained once for a classifier, on its training clips alone (``decoders``), so that what
the mask keeps has the predicted class and what it removes has not. Then a clip costs one pass. What is
returned is the mask minus 1/2: mask ``minmax`` of it is the decoder's own (but for its extremes), and
``bin`` keeps where it is above 1/2.

References
----------
Paissan et al. (2024), Listenable Maps for Audio Classifiers, section 3 (decoder over frozen features,
kept and removed part in one objective). Deviations: the objective is that of ``extremal``, in
decibels and in power by turns, with total variation, which their code has at weight 0; and the decoder is
told the class, so that another than the predicted one can be explained, with less practice. Their second
stage, which makes the masks more listenable, is the method ``lmac_ft``.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ..models.inference import inference_copy
from .decoder import Recipe, features_of, load_decoder, settle_axes
from .extremal import upsampled
from .integrated_gradients import at_least
from .registry import register


@register("lmac", recipe=Recipe(), layers=True)
def lmac(
    model: nn.Module, db: torch.Tensor, target: torch.Tensor, *, decoder: str | Path, batch_size: int = 16
) -> torch.Tensor:
    """The decoder's mask of each clip minus 1/2.

    Parameters
    ----------
    decoder : path
        File that ``decoders.save_decoder`` wrote for this model.
    batch_size : int
        Clips in one forward pass.
    """
    at_least(1, batch_size=batch_size)
    fitted, layers = load_decoder(decoder, db)
    fast = inference_copy(model, db)
    settle_axes(fast, db, layers[0])
    maps = []
    with torch.no_grad():
        for part, classes in zip(db.split(batch_size), target.split(batch_size)):
            _, features = features_of(fast, part, layers)
            maps.append(upsampled(fitted(features, classes), part).sigmoid() - 0.5)
    return torch.cat(maps)

"""L2I: which of the sounds in a dictionary, as the classifier's own features activate them, speak for a
class.

An interpreter is trained once for a classifier, on its training clips alone (``interpreter``). Each
component k of a clip then has a relevance r_k in [-1, 1], its pooled activation times its weight for the
class, and a bin's value is the sum of r_k times the component's share of the bin. The sound is that of the
components whose relevance is above ``threshold``.

References
----------
Parekh et al. (2022), Listen to Interpret: Post-hoc Interpretability for Audio Networks with NMF, section 3
(dictionary, interpreter of hidden layers, relevance, soft mask of the relevant components). Deviations: maps
are read in eight bands of frequency; of exclusive classes, what Theta gives to all of them alike is taken
off; the sound's mask is that of log(1 + magnitude) and not of its exponential; the dictionary is
scikit-learn's, not a sparse one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from ..models.inference import inference_copy
from ..models.reading import reading_of
from .components import as_shares
from .decoder import features_of, settle_axes
from .integrated_gradients import at_least
from .interpreter import InterpreterRecipe, load_interpreter
from .registry import Found, register


@register("l2i", recipe=InterpreterRecipe(epochs=40), layers=True)
def l2i(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    *,
    decoder: str | Path,
    threshold: float = 0.1,
    batch_size: int = 16,
    waveform: torch.Tensor | None = None,
    spectrogram: Callable | None = None,
) -> Found:
    """Relevance of components, -1 to 1, spread by their shares of each bin.

    Parameters
    ----------
    decoder : path
        File of the interpreter that was trained for this model.
    threshold : float
        Relevance above which a component is kept as sound.
    batch_size : int
        Clips in one forward pass.
    waveform, spectrogram : Tensor (batch, samples), callable
        The clips' own; nothing is kept as sound without.
    """
    at_least(1, batch_size=batch_size)
    interpreter, layers = load_interpreter(decoder, db)
    fast = inference_copy(model, db)
    settle_axes(fast, db, layers[0])
    exclusive, maps, masks = reading_of(model).threshold is None, [], []
    with torch.no_grad():
        for part, classes in zip(db.split(batch_size), target.split(batch_size)):
            _, features = features_of(fast, part, layers)
            h, z = interpreter(features, part.shape[3])
            relevance = interpreter.relevance(z, classes, exclusive)  # (n, K)
            for own, r in zip(h, relevance):
                shares = as_shares(interpreter.dictionary.T[:, :, None] * own[:, None, :])  # (K, F, T)
                maps.append(torch.einsum("k,kft->ft", r, shares)[None])
                masks.append(shares[r > threshold].sum(0)[None])
        sound = None if waveform is None else kept(torch.stack(masks), waveform, spectrogram)
    return Found(torch.stack(maps), sound)


def kept(mask: torch.Tensor, waveform: torch.Tensor, spectrogram: Callable) -> torch.Tensor:
    """Sounds (batch, samples) of clips whose magnitude is multiplied by a mask (batch, 1, F, T)."""
    transform = getattr(spectrogram, "analysis", None) or spectrogram
    batch = transform(waveform)
    return transform.invert(batch.power * mask.to(batch.power).square(), batch.phasor, batch.length)

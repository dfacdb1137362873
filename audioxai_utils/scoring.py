"""Score masks on a model: what it says of the kept and of the removed part.

Level 3: brings together a model, a spectrogram, masks and metrics. Notebooks, the study
and ``explain`` all score through :func:`score_masks`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import torch
from torch import nn

from .config import FAITHFULNESS_METRICS
from .masks import apply_mask
from .metrics import complexity, faithfulness, is_constant, kept_area, sparseness
from .reconstruction import kept_audio, removed_audio
from .spectrograms import Spectrogram, SpectrogramBatch

CHUNK = 32  # spectrograms classified at once; bounds memory, not results


@torch.inference_mode()
def probabilities(model: nn.Module, db: torch.Tensor, chunk: int = CHUNK) -> torch.Tensor:
    """softmax(model(db)), (clips, classes), a chunk of clips at a time, in evaluation mode."""
    training = model.training
    model.eval()
    try:
        return torch.cat([model(part).softmax(1) for part in db.split(chunk)])
    finally:
        model.train(training)


def hear(batch: SpectrogramBatch, mask: torch.Tensor, spectrogram: Spectrogram) -> tuple[torch.Tensor, torch.Tensor]:
    """dB spectrograms of the kept and of the removed *sound*, re-analysed from the waveform."""
    kept = spectrogram(kept_audio(batch, mask, spectrogram)).db
    return kept, spectrogram(removed_audio(batch, mask, spectrogram)).db


def score_masks(
    model: nn.Module,
    spectrogram: Spectrogram,
    batch: SpectrogramBatch,
    masks: dict[str, torch.Tensor],
    protocol: str = "paper",
    heard: bool = False,
) -> pd.DataFrame:
    """All metrics of several masks of a batch of clips.

    Parameters
    ----------
    model : torch.nn.Module
        dB spectrograms to logits.
    spectrogram : Spectrogram
        The transform that made ``batch``; used where ``heard`` is set.
    batch : SpectrogramBatch
        The clips.
    masks : dict of str to torch.Tensor
        Name to mask (batch, 1, frequency, time).
    protocol : {"paper", "audited"}
    heard : bool
        Score the re-analysed sound too: the five faithfulness metrics with the suffix
        ``_heard``, against the probabilities of the same clip.

    Returns
    -------
    pandas.DataFrame
        One row per clip and mask: ``index`` (place in the batch), mask, target, p_clip,
        p_kept, p_removed, the seven metrics, area, degenerate.
    """
    p = probabilities(model, batch.db)
    parts = []
    for name, mask in masks.items():
        p_kept, p_removed = (probabilities(model, db) for db in apply_mask(batch.db, mask))
        scores = _score(p, p_kept, p_removed, mask, protocol)
        if heard:
            p_heard = [probabilities(model, db) for db in hear(batch, mask, spectrogram)]
            again = faithfulness(p, *p_heard, protocol)
            scores |= {f"{metric}_heard": again[metric] for metric in FAITHFULNESS_METRICS}
        parts.append(_frame(name, scores))
    return pd.concat(parts, ignore_index=True)


def _score(p, p_kept, p_removed, mask: torch.Tensor, protocol: str) -> dict[str, torch.Tensor]:
    target = p.argmax(1, keepdim=True)
    return {
        "target": target.squeeze(1),
        "p_clip": p.gather(1, target).squeeze(1),
        "p_kept": p_kept.gather(1, target).squeeze(1),
        "p_removed": p_removed.gather(1, target).squeeze(1),
        **faithfulness(p, p_kept, p_removed, protocol),
        "SPS": sparseness(mask, protocol),
        "COMP": complexity(mask, protocol),
        "area": kept_area(mask),
        "degenerate": is_constant(mask),
    }


def _frame(name: str, scores: dict[str, torch.Tensor]) -> pd.DataFrame:
    frame = pd.DataFrame({key: value.cpu().numpy() for key, value in scores.items()})
    frame.insert(0, "mask", name)
    frame.insert(0, "index", range(len(frame)))
    return frame


def most_probable(p: torch.Tensor, classes: tuple[str, ...]) -> Iterator[tuple[str, float]]:
    """(class name, probability) of each row of ``p`` (clips, classes)."""
    for value, place in zip(*p.max(1)):
        yield classes[int(place)], float(value)

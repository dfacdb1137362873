"""Score masks on a model: what it says of the kept and of the removed part.

Level 3: brings together a model, a spectrogram, masks and metrics. Notebooks, the study
and ``explain`` all score through :func:`score_masks`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import torch
from torch import nn

from ..constants import FAITHFULNESS_METRICS
from .controls import si_sdr
from .masks import apply_mask
from .metrics import (
    Split, complexity, faithfulness, further_scores, is_constant, kept_area, scored_class, sparseness,
)
from ..numerics import tensor_float32
from ..audio.spectrograms import kept_audio, removed_audio
from ..audio.spectrograms import Spectrogram, SpectrogramBatch

CHUNK = {"cpu": 32, "cuda": 64}  # spectrograms classified at once; bounds memory, not results


@torch.inference_mode()
def probabilities(model: nn.Module, db: torch.Tensor, chunk: int | None = None) -> torch.Tensor:
    """softmax(model(db)), (clips, classes), a chunk of clips at a time, in evaluation mode and in full float32."""
    training = model.training
    model.eval()
    try:
        with tensor_float32(False, db.device):
            parts = db.split(chunk or CHUNK.get(db.device.type, 32))
            return torch.cat([_checked(model(part)).softmax(1) for part in parts])
    finally:
        model.train(training)


def _checked(logits: torch.Tensor) -> torch.Tensor:
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ValueError(f"model must return logits (batch, classes); got {got}")
    return logits


def decibels(waveform: torch.Tensor, spectrogram: Spectrogram) -> torch.Tensor:
    """``db`` of a waveform, without the cost of its phase where the spectrogram can."""
    return spectrogram.decibels(waveform) if hasattr(spectrogram, "decibels") else spectrogram(waveform).db


class MaskScorer:
    """Probabilities of what masks keep and remove of one batch; equal masks are classified once.

    Most masks are the same under both protocols, and masks of equal area share their controls.
    A mask is recognised by its projection on a fixed random direction, clip by clip.
    ``target`` (batch,) holds the classes that are scored; None is the predicted ones. ``clean``
    (batch, samples) is what the kept sound should be, where that is known.
    """

    def __init__(
        self, model: nn.Module, spectrogram: Spectrogram, batch: SpectrogramBatch,
        target: torch.Tensor | None = None, clean: torch.Tensor | None = None,
    ) -> None:
        self.model, self.spectrogram, self.batch, self.clean = model, spectrogram, batch, clean
        self.p = probabilities(model, batch.db)  # (batch, classes)
        self.target = scored_class(self.p, target)  # (batch,)
        generator = torch.Generator().manual_seed(0)
        self._direction = torch.rand(batch.db[0].numel(), generator=generator, dtype=torch.float64).to(batch.db.device)
        self._known: dict[tuple, tuple[torch.Tensor, ...]] = {}
        self._si_sdr: dict[tuple, torch.Tensor] = {}

    def __call__(self, mask: torch.Tensor, heard: bool = False) -> tuple[torch.Tensor, ...]:
        """p_kept, p_removed (batch, classes) of the masked spectrogram, or of the masked sound re-analysed."""
        key = self._key(mask)
        if (key, heard) not in self._known:
            parts = self._hear(mask, key) if heard else apply_mask(self.batch.db, mask)
            self._known[key, heard] = probabilities(self.model, torch.cat(parts)).split(len(mask))
        return self._known[key, heard]

    def si_sdr(self, mask: torch.Tensor) -> torch.Tensor:
        """SI-SDR (batch,) in dB of the kept sound against ``clean``."""
        self(mask, heard=True)
        return self._si_sdr[self._key(mask)]

    def _key(self, mask: torch.Tensor) -> tuple:
        return tuple((mask.double().flatten(1) @ self._direction).tolist())

    def _hear(self, mask: torch.Tensor, key: tuple) -> tuple[torch.Tensor, ...]:
        """dB spectrograms of the kept and of the removed sound; the kept one is measured while it is there."""
        kept = kept_audio(self.batch, mask, self.spectrogram)
        if self.clean is not None:
            self._si_sdr[key] = si_sdr(kept, self.clean)
        removed = removed_audio(self.batch, mask, self.spectrogram)
        return tuple(decibels(sound, self.spectrogram) for sound in (kept, removed))


def score_masks(scorer: MaskScorer, masks: dict[str, torch.Tensor], protocol: str = "paper", heard: bool = False):
    """All metrics of several masks of a batch of clips.

    Parameters
    ----------
    scorer : MaskScorer
        Of the model, the clips and their scored classes; use one for all masks of these clips.
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
    parts = []
    for name, mask in masks.items():
        scores = _score(scorer, mask, protocol)
        if heard:
            again = faithfulness(scorer.p, *scorer(mask, heard=True), protocol, scorer.target)
            scores |= {f"{metric}_heard": again[metric] for metric in FAITHFULNESS_METRICS}
        parts.append(_frame(name, scores))
    return pd.concat(parts, ignore_index=True)


def _score(scorer: MaskScorer, mask: torch.Tensor, protocol: str) -> dict[str, torch.Tensor]:
    parts = (scorer.p, *scorer(mask))
    of_target = (p.gather(1, scorer.target[:, None]).squeeze(1) for p in parts)
    return {
        "target": scorer.target,
        **dict(zip(("p_clip", "p_kept", "p_removed"), of_target)),
        **faithfulness(*parts, protocol, scorer.target),
        "SPS": sparseness(mask, protocol),
        "COMP": complexity(mask, protocol),
        **further_scores(Split(*parts, scorer.target, mask, protocol)),
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

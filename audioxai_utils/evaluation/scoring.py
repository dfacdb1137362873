"""Score masks on a model: what it says of the kept and of the removed part.

Brings together a model, a spectrogram, masks and metrics. Notebooks, the study
and ``explain`` all score through :func:`score_masks`.
"""

from __future__ import annotations

import copy
import warnings

import pandas as pd
import torch
from torch import nn

from ..audio.spectrograms import Spectrogram, SpectrogramBatch, kept_audio
from ..constants import FAITHFULNESS_METRICS
from ..models.reading import reading_of
from ..models.untouched import evaluation_mode
from ..numerics import at_once, tensor_float32
from .controls import si_sdr
from .masks import apply_mask
from .metrics import (
    Split,
    complexity,
    faithfulness,
    further_scores,
    is_constant,
    kept_area,
    scored_class,
    sparseness,
)


@torch.no_grad()  # inference mode would leave its tensors in what a network keeps from call to call
def probabilities(model: nn.Module, db: torch.Tensor, chunk: int | None = None) -> torch.Tensor:
    """Probabilities (clips, classes) by the model's head, a chunk of clips at a time, in full float32.

    ``db`` are pictures (clips, 1, F, T), or waveforms (clips, samples) where the model takes those. The
    model's `Reading` says what its head is, a softmax where it has none. It is asked in evaluation mode;
    every module's own flag and every buffer come back.
    """
    reading = reading_of(model)
    with evaluation_mode(model), tensor_float32(False, db.device):
        parts = db.split(at_once(chunk, db.device))
        return torch.cat([reading.probabilities(_checked(model(part))) for part in parts])


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

    Parameters
    ----------
    model : nn.Module
        Pictures to scores; its `Reading` says what they are and where silence lies.
    spectrogram, batch : Spectrogram, SpectrogramBatch
    target : torch.Tensor, optional
        (batch,) classes that are scored; None is the predicted ones.
    clean : torch.Tensor, optional
        (batch, samples), what the kept sound should be, where that is known.
    fill : float, optional
        Level (dB) that takes the place of what is masked; None is the model's floor, and nothing in a sound.
    on_waveform : nn.Module, optional
        The same model on waveforms (batch, samples): what is heard is then asked about as it is, instead of
        being analysed for ``model`` again.
    waveform : torch.Tensor, optional
        (batch, samples) of the clips. Where it is given, masks act on the power alone: scores are those of
        the sound, by ``on_waveform``.
    """

    def __init__(
        self,
        model: nn.Module,
        spectrogram: Spectrogram,
        batch: SpectrogramBatch,
        target: torch.Tensor | None = None,
        clean: torch.Tensor | None = None,
        *,
        fill: float | None = None,
        on_waveform: nn.Module | None = None,
        waveform: torch.Tensor | None = None,
    ) -> None:
        self.model, self.spectrogram, self.batch, self.clean = model, spectrogram, batch, clean
        self.fill, self.on_waveform, self.by_sound = fill, on_waveform, waveform is not None
        self.reading = reading_of(model)
        whole = (model, batch.db) if waveform is None else (on_waveform, waveform)
        self.p = probabilities(*whole)  # (batch, classes)
        predicted = self.reading.predicted(self.p) if target is None else target
        self.target = scored_class(self.p, predicted)  # (batch,)
        generator = torch.Generator().manual_seed(0)
        self._direction = torch.rand(batch.db[0].numel(), generator=generator, dtype=torch.float64).to(
            batch.db.device
        )
        self._known: dict[tuple, tuple[torch.Tensor, ...]] = {}
        self._si_sdr: dict[tuple, torch.Tensor] = {}

    def __call__(self, mask: torch.Tensor, heard: bool = False) -> tuple[torch.Tensor, ...]:
        """p_kept, p_removed (batch, classes) of the masked spectrogram, or of the masked sound."""
        key, heard = self._key(mask), heard or self.by_sound
        if (key, heard) not in self._known:
            fill = self.reading.floor if self.fill is None else self.fill
            p = (
                self._heard(mask, key)
                if heard
                else probabilities(self.model, torch.cat(apply_mask(self.batch.db, mask, fill)))
            )
            self._known[key, heard] = p.split(len(mask))
        return self._known[key, heard]

    @property
    def threshold(self) -> torch.Tensor | None:
        """Probabilities (batch,) above which the scored classes are heard; None: where they are largest."""
        return self.reading.thresholds(self.target)

    def filled(self, fill: float | torch.Tensor) -> MaskScorer:
        """The same clips and classes with another level (dB) in the place of what is masked."""
        other = copy.copy(self)
        other.fill, other._known, other._si_sdr = fill, {}, {}
        return other

    def si_sdr(self, mask: torch.Tensor) -> torch.Tensor:
        """SI-SDR (batch,) in dB of the kept sound against ``clean``."""
        self(mask, heard=True)
        return self._si_sdr[self._key(mask)]

    def _key(self, mask: torch.Tensor) -> tuple:
        return tuple((mask.double().flatten(1) @ self._direction).tolist())

    def kept(self, mask: torch.Tensor) -> torch.Tensor:
        """Kept sound (batch, samples) of a mask."""
        return kept_audio(self.batch, mask, self.spectrogram, self.fill if self.by_sound else None)

    def sounds(self, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Kept and removed sound (batch, samples) of a mask."""
        return self.kept(mask), self.kept(1 - mask)

    def of_sound(self, *sounds: torch.Tensor) -> torch.Tensor:
        """Probabilities of sounds (batch, samples), one after another: (len(sounds) * batch, classes)."""
        if self.on_waveform is not None:
            return probabilities(self.on_waveform, torch.cat(sounds))
        return probabilities(self.model, torch.cat([decibels(each, self.spectrogram) for each in sounds]))

    def _heard(self, mask: torch.Tensor, key: tuple) -> torch.Tensor:
        """Probabilities (2 batch, classes) of kept and removed sound; the kept one is measured while it is
        there.
        """
        kept, removed = self.sounds(mask)
        if self.clean is not None:
            self._si_sdr[key] = si_sdr(kept, self.clean)
        return self.of_sound(kept, removed)


def score_masks(
    scorer: MaskScorer, masks: dict[str, torch.Tensor], protocol: str = "paper", heard: bool = False
):
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

    Raises
    ------
    ValueError
        A mask with values outside [0, 1].
    """
    parts = []
    for name, mask in masks.items():
        if ((mask < 0) | (mask > 1)).any():
            least, most = float(mask.min()), float(mask.max())
            raise ValueError(f"mask {name!r} must lie in [0, 1]; got {least:g} to {most:g}")
        scores = _score(scorer, mask, protocol)
        if heard:
            again = faithfulness(
                scorer.p, *scorer(mask, heard=True), protocol, scorer.target, scorer.threshold
            )
            scores |= {f"{metric}_heard": again[metric] for metric in FAITHFULNESS_METRICS}
        parts.append(_frame(name, scores))
    return pd.concat(parts, ignore_index=True)


def score_sound(
    scorer: MaskScorer, waveform: torch.Tensor, kept: torch.Tensor, protocol: str = "paper"
) -> pd.DataFrame:
    """The heard scores of sounds that a method keeps itself, without a mask.

    Parameters
    ----------
    scorer : MaskScorer
        Of the clips.
    waveform, kept : torch.Tensor
        (batch, samples) clips and what was kept of them; what was removed is their difference.

    Returns
    -------
    pandas.DataFrame
        One row per clip: target, p_clip, p_kept, p_removed and the five faithfulness metrics.
    """
    parts = (scorer.p, *scorer.of_sound(kept, waveform - kept).split(len(kept)))
    of_target = (p.gather(1, scorer.target[:, None]).squeeze(1) for p in parts)
    scores = faithfulness(*parts, protocol, scorer.target, scorer.threshold)
    return _frame(
        "sound",
        {"target": scorer.target, **dict(zip(("p_clip", "p_kept", "p_removed"), of_target)), **scores},
    )


def _score(scorer: MaskScorer, mask: torch.Tensor, protocol: str) -> dict[str, torch.Tensor]:
    parts = (scorer.p, *scorer(mask))
    of_target = (p.gather(1, scorer.target[:, None]).squeeze(1) for p in parts)
    return {
        "target": scorer.target,
        **dict(zip(("p_clip", "p_kept", "p_removed"), of_target)),
        **faithfulness(*parts, protocol, scorer.target, scorer.threshold),
        "SPS": sparseness(mask, protocol),
        "COMP": complexity(mask, protocol),
        **further_scores(Split(*parts, scorer.target, mask, protocol, scorer.threshold)),
        "area": kept_area(mask),
        "degenerate": is_constant(mask),
    }


def _frame(name: str, scores: dict[str, torch.Tensor]) -> pd.DataFrame:
    frame = pd.DataFrame({key: value.cpu().numpy() for key, value in scores.items()})
    frame.insert(0, "mask", name)
    frame.insert(0, "index", range(len(frame)))
    return frame


def warn_of_no_numbers(scores: pd.DataFrame) -> None:
    """Warn where the network's answer to what a mask keeps or removes is NaN."""
    asked = [name for name in ("p_kept", "p_removed", "FF_heard", "AD_heard") if name in scores]
    masks = scores.index[scores[asked].isna().any(axis=1)]
    if len(masks):
        warnings.warn(
            f"the network answers NaN to what {', '.join(masks)} keep or remove, as a division by the peak "
            "of silence does; its scores there are NaN: divide by the peak + 1e-8",
            stacklevel=4,  # the line that calls explain
        )

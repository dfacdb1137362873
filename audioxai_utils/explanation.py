"""Explain one clip: attribution, masks, sound and scores in a single call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn
from torchaudio.functional import resample

from .attributions import METHODS
from .checks import gradient_check
from .masks import build_masks
from .reconstruction import kept_audio, removed_audio
from .scoring import Splitter, probabilities, score_masks
from .spectrograms import Spectrogram, SpectrogramBatch, get_spectrogram


@dataclass(frozen=True)
class Explanation:
    """What a model hears in one clip.

    Attributes
    ----------
    waveform : torch.Tensor
        (samples,) at ``sample_rate`` Hz.
    spectrogram : Spectrogram
        The transform.
    batch : SpectrogramBatch
        Of this clip, a batch of one.
    method, protocol : str
    target : int
        The explained class.
    probabilities : torch.Tensor
        (classes,) of the whole clip.
    attribution : torch.Tensor
        (1, 1, frequency, time), raw and signed.
    masks : dict of str to torch.Tensor
        (1, 1, frequency, time) in [0, 1].
    scores : pandas.DataFrame
        One row per mask, indexed by its name.
    """

    waveform: torch.Tensor
    sample_rate: int
    spectrogram: Spectrogram
    batch: SpectrogramBatch
    method: str
    protocol: str
    target: int
    probabilities: torch.Tensor
    attribution: torch.Tensor
    masks: dict[str, torch.Tensor]
    scores: pd.DataFrame

    def kept_audio(self, mask: str | torch.Tensor = "bin") -> torch.Tensor:
        """Sound (samples,) of what a mask keeps; ``mask`` is a name or a tensor."""
        return kept_audio(self.batch, self._mask(mask), self.spectrogram)[0]

    def removed_audio(self, mask: str | torch.Tensor = "bin") -> torch.Tensor:
        """Sound (samples,) of what a mask removes."""
        return removed_audio(self.batch, self._mask(mask), self.spectrogram)[0]

    def _mask(self, mask: str | torch.Tensor) -> torch.Tensor:
        if isinstance(mask, torch.Tensor):
            return mask
        if mask not in self.masks:
            raise ValueError(f"mask must be one of {', '.join(self.masks)}; got {mask!r}")
        return self.masks[mask]


def explain(
    model: nn.Module,
    waveform: torch.Tensor | np.ndarray,
    sample_rate: int | None = None,
    *,
    spectrogram: str | Callable[[torch.Tensor], SpectrogramBatch] = "mel_db",
    method: str = "gradcam",
    masks: Sequence[str] | None = None,
    protocol: str = "paper",
    target: int | None = None,
    check_gradient: bool = True,
    heard: bool = False,
    **options,
) -> Explanation:
    """Explain a model's decision on one clip.

    Parameters
    ----------
    model : torch.nn.Module
        dB spectrograms (batch, 1, frequency, time) to logits (batch, classes).
    waveform : torch.Tensor or numpy.ndarray
        (samples,) or (channels, samples); channels are averaged.
    sample_rate : int, optional
        Hz; resampled where the spectrogram wants another rate. None: the spectrogram's.
    spectrogram : str or callable
        A name of the study, or an object with ``sample_rate`` that maps (batch, samples) to a
        :class:`SpectrogramBatch` and has ``invert(power, phase, length)``.
    method : str
        A name in :data:`attributions.METHODS`.
    masks : sequence of str, optional
        Masks to score; None is all of them.
    protocol : {"paper", "audited"}
    target : int, optional
        The class to attribute; None is the predicted one. Scores always follow the
        predicted class.
    check_gradient : bool
        Prove the input gradient by central differences first (skip it after the first clip).
    heard : bool
        Score the re-analysed sound too.
    **options
        The method's own, such as ``background=`` for ``shap``.

    Raises
    ------
    ValueError, TypeError
        What does not fit, in one line; ``checks.GradientCheckError`` where the gradient is wrong.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    transform = get_spectrogram(spectrogram) if isinstance(spectrogram, str) else spectrogram
    parameter = next(model.parameters())
    samples = _as_mono(waveform, sample_rate, transform.sample_rate).to(parameter)
    transform = transform.to(parameter.device) if isinstance(transform, nn.Module) else transform
    batch = transform(samples[None])
    p = probabilities(model, batch.db)[0]
    target = int(p.argmax()) if target is None else target
    if check_gradient:
        gradient_check(model, batch.db, torch.tensor([target], device=parameter.device))
    attribution = METHODS[method](model, batch.db, torch.tensor([target], device=parameter.device), **options)
    built = build_masks(attribution, protocol)
    unknown = [name for name in masks or () if name not in built]
    if unknown:
        raise ValueError(f"masks must be among {', '.join(built)}; got {unknown[0]!r}")
    built = {name: built[name] for name in masks or built}
    splitter = Splitter(model, transform, batch)
    scores = score_masks(splitter, built, protocol, heard).drop(columns="index").set_index("mask")
    return Explanation(
        samples, transform.sample_rate, transform, batch, method, protocol, target, p, attribution, built, scores
    )


def _as_mono(waveform, sample_rate: int | None, wanted_rate: int) -> torch.Tensor:
    samples = torch.as_tensor(waveform)
    if not samples.is_floating_point():
        raise TypeError(f"waveform must be floating point in [-1, 1]; got {samples.dtype}")
    if samples.ndim not in (1, 2) or samples.numel() == 0:
        raise ValueError(f"waveform must be (samples,) or (channels, samples); got {tuple(samples.shape)}")
    if not torch.isfinite(samples).all():
        raise ValueError("waveform must be finite; it holds NaN or infinite samples")
    samples = samples.mean(0) if samples.ndim == 2 else samples
    return resample(samples, sample_rate, wanted_rate) if sample_rate not in (None, wanted_rate) else samples

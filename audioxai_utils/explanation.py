"""Explain one clip: attribution, masks, sound and scores in a single call."""

from __future__ import annotations

import numbers
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn
from torchaudio.functional import resample

from .attributions import METHODS
from .attributions.gradient_check import gradient_check
from .constants import PROTOCOLS, check_choice
from .evaluation.masks import MASKS, build_masks
from .audio.spectrograms import kept_audio, removed_audio
from .evaluation.scoring import MaskScorer, score_masks
from .audio.spectrograms import Spectrogram, SpectrogramBatch, get_spectrogram

REQUIRED = {
    "background": ", reference clips (n, 1, frequency, time) in dB such as spectrogram(waveforms).db",
    "decoder": ", the file of one trained for this model with decoders.train_decoder and save_decoder",
}
MOST_CHANNELS = 8  # a second axis this short is channels, as soundfile.read returns them


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
        The explained class, which the scores follow too.
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
    model: nn.Module, waveform: torch.Tensor | np.ndarray, sample_rate: int | None = None, *,
    spectrogram: str | Callable[[torch.Tensor], SpectrogramBatch] = "mel_db", method: str = "gradcam",
    masks: Sequence[str] | None = None, protocol: str = "paper", target: int | None = None,
    check_gradient: bool = True, heard: bool = False, **options,
) -> Explanation:
    """Explain a model's decision on one clip; nothing is normalised, see `data.load_waveform` for that.

    Parameters
    ----------
    model : torch.nn.Module
        dB spectrograms (batch, 1, frequency, time) to logits (batch, classes).
    waveform, sample_rate : array (samples,) or (channels, samples), and Hz
        Floating point; channels are averaged. Resampled where the spectrogram wants another rate.
    spectrogram : str or callable
        One of the study's, or what gives a `SpectrogramBatch` and has ``sample_rate`` and ``invert``.
    method, masks, protocol : str, sequence of str, str
        One of `METHODS`; the masks to score, None for all; ``paper`` or ``audited``.
    target : int, optional
        Class that is attributed and scored; None is the predicted one.
    check_gradient, heard : bool
        Prove the input gradient first (once per model is enough); score the re-analysed sound too.
    **options
        The method's own, such as ``background=`` for ``shap``. Its ``waveform`` and ``spectrogram``, where it has
        them, are this clip's.

    Raises
    ------
    TypeError, ValueError
        What does not fit, in one line; `checks.GradientCheckError` where the gradient is wrong.
    """
    _check_choices(model, method, masks, protocol, options)
    samples, transform = _prepared(model, waveform, sample_rate, spectrogram)
    batch = transform(samples[None])
    scorer = MaskScorer(model, transform, batch, _as_target(target))
    if check_gradient:
        gradient_check(model, batch.db, scorer.target)
    sound = METHODS.taken(method, waveform=samples[None], spectrogram=transform)
    attribution = METHODS[method](model, batch.db, scorer.target, **sound, **options)
    return _scored(scorer, samples, method, attribution, masks, protocol, heard)


def _as_target(target: int | None) -> torch.Tensor | None:
    try:
        return None if target is None else torch.tensor([operator.index(target)])
    except TypeError:
        raise TypeError(f"target must be the index of a class; got {target!r}") from None


def _scored(
    scorer: MaskScorer, samples, method: str, attribution, masks, protocol: str, heard: bool
) -> Explanation:
    built = build_masks(attribution, protocol, masks or None)
    scores = score_masks(scorer, built, protocol, heard).drop(columns="index").set_index("mask")
    transform = scorer.spectrogram
    return Explanation(
        samples, transform.sample_rate, transform, scorer.batch, method, protocol, int(scorer.target),
        scorer.p[0], attribution, built, scores,
    )


def _check_choices(model, method: str, masks: Sequence[str] | None, protocol: str, options: dict) -> None:
    """Refuse what can be known to be wrong before anything is computed."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module that returns logits; got {type(model).__name__}")
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    check_choice("protocol", protocol, PROTOCOLS)
    if isinstance(masks, str):
        raise TypeError(f"masks must be a list of names; got {masks!r}, pass [{masks!r}]")
    unknown = [name for name in masks or () if name not in MASKS]
    if unknown:
        raise ValueError(f"masks must be among {', '.join(MASKS)}; got {unknown[0]!r}")
    for name in METHODS.required(method):
        if options.get(name) is None:
            raise TypeError(f"method {method!r} needs {name}={REQUIRED.get(name, '')}; got none")


def _prepared(model: nn.Module, waveform, sample_rate: int | None, spectrogram):
    """The clip as mono samples of the model's device and dtype, and the transform on that device."""
    transform = get_spectrogram(spectrogram) if isinstance(spectrogram, str) else spectrogram
    samples = _as_mono(waveform, sample_rate, transform.sample_rate)
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    if parameter is not None:
        samples = samples.to(parameter)
    elif samples.dtype not in (torch.float32, torch.float64):
        samples = samples.float()
    return samples, transform.to(samples.device) if isinstance(transform, nn.Module) else transform


def _as_mono(waveform, sample_rate: int | None, wanted_rate: int) -> torch.Tensor:
    samples = torch.as_tensor(waveform).detach()
    if not samples.is_floating_point():
        raise TypeError(f"waveform must be floating point in [-1, 1]; got {samples.dtype}")
    if samples.ndim not in (1, 2) or samples.numel() == 0:
        raise ValueError(f"waveform must be (samples,) or (channels, samples); got {tuple(samples.shape)}")
    if samples.ndim == 2 and samples.shape[1] <= MOST_CHANNELS < samples.shape[0]:
        got = f"{tuple(samples.shape)}, which looks transposed: pass waveform.T"
        raise ValueError(f"waveform must be (channels, samples); got {got}")
    if not torch.isfinite(samples).all():
        raise ValueError("waveform must be finite; it holds NaN or infinite samples")
    samples = samples.mean(0) if samples.ndim == 2 else samples
    if sample_rate is None:
        return samples
    if not isinstance(sample_rate, numbers.Real) or sample_rate < 1 or sample_rate != int(sample_rate):
        raise ValueError(f"sample_rate must be a whole number of Hz; got {sample_rate!r}")
    return resample(samples, int(sample_rate), wanted_rate) if sample_rate != wanted_rate else samples

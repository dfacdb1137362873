"""L-MAC-TD: a trained decoder's mask of the waveform's own STFT, made for what is heard.

The decoder reads the classifier's feature maps as that of ``lmac`` does, but its mask multiplies the complex
STFT of the waveform, and in training the classifier hears both sounds, what is kept and what is left of the
clip. The explanation is a sound. The map says how much of each bin of the classifier's picture is heard in
it: the root of the kept power's share, minus 1/2.

It is trained on training clips alone, by ``train_decoder(classifier.on_waveform, waveforms, SoundRecipe())``,
and explains models of pictures and of waveforms, which no other decoder here does. Hearing costs: a step of 8
clips of 5 s at 32 kHz takes about 1 s of one core beside the network's own passes, most of it the gradient
through the spectrogram; hence half the epochs of ``lmac``.

References
----------
Mancini et al. (2025), LMAC-TD: Producing Time Domain Explanations for Audio Classifiers, section 2 (decoder
over frozen features, the classifier on the sound that is kept and on what is removed, both in one objective).
Deviations: the mask is of an STFT and not of a learned transform, and the decoder is that of ``lmac`` and not
a SepFormer; area and total variation stand for their regularisation; clips are shifted and mixed in training.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from ..models.inference import inference_copy
from ..models.scores import FromWaveform
from .extremal import upsampled
from .integrated_gradients import at_least
from .registry import Found, register
from .sound_decoder import SoundRecipe, kept_sound, load_sound_decoder, settle_sound_axes, sound_features


@register("lmac_td", recipe=SoundRecipe(epochs=10), layers=True)
def lmac_td(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    *,
    waveform: torch.Tensor,
    spectrogram: Callable,
    decoder: str | Path,
    batch_size: int = 16,
) -> Found:
    """How much of each bin the decoder's sound keeps, minus 1/2, and that sound.

    Parameters
    ----------
    waveform, spectrogram : Tensor (batch, samples), callable
        The clips' own.
    decoder : path
        File of the decoder of sounds that was trained for this model.
    batch_size : int
        Clips in one forward pass.
    """
    at_least(1, batch_size=batch_size)
    fitted, layers = load_sound_decoder(decoder, db)
    waveform, analysis = waveform.to(db), getattr(spectrogram, "analysis", None) or spectrogram
    hear = inference_copy(as_heard(model, analysis), waveform[:1])
    settle_sound_axes(hear, waveform, layers, fitted.stft)
    maps, sounds = [], []
    with torch.no_grad():
        for part, classes in zip(waveform.split(batch_size), target.split(batch_size)):
            batch = fitted.stft(part)
            coarse = fitted(sound_features(hear, part, layers)[1], classes)
            sounds.append(kept_sound(fitted.stft, batch, upsampled(coarse, batch.power).sigmoid()))
            whole = analysis(part).power.clamp_min(torch.finfo(db.dtype).tiny)
            maps.append((analysis(sounds[-1]).power / whole).clamp(0, 1).sqrt() - 0.5)
    return Found(torch.cat(maps), torch.cat(sounds))


def as_heard(model: nn.Module, spectrogram: Callable) -> nn.Module:
    """The model as one of waveforms: what stands behind a picture, or with its spectrogram in front."""
    return getattr(model, "on_waveform", None) or FromWaveform(spectrogram, model)

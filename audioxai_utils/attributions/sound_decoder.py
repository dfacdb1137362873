"""A decoder whose mask lies on the STFT of the waveform itself, and how it is trained: by what is heard.

``hear`` below is the classifier as a function of waveforms (n, samples): a model of waveforms itself, or a
model of pictures with its spectrogram in front (`models.scores.FromWaveform`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..audio.spectrograms import Spectrogram, SpectrogramBatch
from ..constants import SpectrogramParameters
from ..models.reading import reading_of
from ..models.virtual_inspection import VirtualInspection
from ..numerics import default_dtype
from .decoder import (
    AGAIN,
    START,
    WIDTH,
    Decoder,
    Recipe,
    asked,
    features_of,
    read_decoder,
    restored,
    settle_axes,
)
from .extremal import penalty, upsampled
from .feature_maps import declared_axes, recorded


@dataclass(frozen=True)
class SoundRecipe(Recipe):
    """How a decoder of sounds is trained, beside what ``Recipe`` says; its ``noise`` is on every bin of the
    STFT.
    """

    n_fft: int = 1024  # samples of a window; the step is a quarter of it

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_fft < 8 or self.n_fft % 4:
            raise ValueError(f"n_fft must be a multiple of 4, 8 or more; got {self.n_fft}")
        if self.guide:
            raise ValueError(f"guide must be 0, a decoder of sounds has none; got {self.guide}")


class SoundDecoder(Decoder):
    """Logits of a class's mask of the STFT, from feature maps.

    Parameters
    ----------
    channels, n_classes, width
        As of `Decoder`.
    n_rows : int
        Of the finest map; each bin of the STFT learns what they have to do with it.
    n_fft : int
        Samples of a window.
    """

    def __init__(
        self, channels: Sequence[int], n_classes: int, n_rows: int, n_fft: int, width: int = WIDTH
    ) -> None:
        super().__init__(channels, n_classes, width)
        self.head = nn.Conv1d(width * n_rows, n_fft // 2 + 1, 1)
        nn.init.constant_(self.head.bias, START)
        # at this rate the frequencies are the bins' numbers
        self.stft = Spectrogram(SpectrogramParameters("stft", n_fft, n_fft, n_fft // 4))

    def forward(self, features: Sequence[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
        """Logits (n, 1, n_fft // 2 + 1, T') of the masks of classes (n,), in the finest map's steps."""
        return self.head(self.joined(features, target).flatten(1, 2))[:, None]


def new_sound_decoder(
    hear: nn.Module, waveform: torch.Tensor, layers: Sequence[str], recipe: SoundRecipe
) -> SoundDecoder:
    """One that knows nothing of the classifier, but where its maps' rows lie in frequency."""
    stft = Spectrogram(SpectrogramParameters("stft", recipe.n_fft, recipe.n_fft, recipe.n_fft // 4))
    settle_sound_axes(hear, waveform, layers, stft.to(waveform.device))
    logits, maps = sound_features(hear, waveform[:1], layers)
    n_rows = maps[0].shape[2]
    with default_dtype(waveform.dtype):
        decoder = SoundDecoder([m.shape[1] for m in maps], logits.shape[1], n_rows, recipe.n_fft)
        place = rows_of_bins(getattr(hear, "spectrogram", None), n_rows, recipe.n_fft)
        near = (1 - (place[:, None] - torch.arange(n_rows)).abs()).clamp_min(0)  # (n_freqs, n_rows)
        channel = torch.randn(decoder.width) / decoder.width**0.5
        decoder.head.weight.data = (channel[:, None] * near[:, None].to(channel)).flatten(1)[..., None]
    return decoder


def rows_of_bins(spectrogram, n_rows: int, n_fft: int) -> torch.Tensor:
    """Where each bin of the STFT (n_fft // 2 + 1,) lies among ``n_rows`` rows that share out a picture.

    Evenly, where the picture's own ``frequencies`` are not known.
    """
    share = np.linspace(0, 1, n_fft // 2 + 1)
    frequencies = getattr(spectrogram, "frequencies", None)
    if frequencies is not None:
        own = np.asarray(frequencies, dtype=float) / (spectrogram.sample_rate / 2)
        share = np.interp(share, own, (np.arange(len(own)) + 0.5) / len(own))
    return torch.from_numpy(share * n_rows - 0.5).clamp(0, n_rows - 1)


def sound_layers(hear: nn.Module, waveform: torch.Tensor) -> list[str]:
    """The maps that are read: of the part with the most maps (n, channels, ., .), the last one of each size.

    Where there are none, those of the convolutions of a waveform.

    Raises
    ------
    ValueError
        There are none either: a decoder has nothing to read.
    """
    names = {module: name for name, module in hear.named_modules()}
    with torch.no_grad(), recorded(list(names)) as calls:
        hear(waveform)
    maps = {names[m]: out.shape[2:] for m, out in calls if out.ndim == 4 and out.shape[2:].numel() > 1}
    if maps:
        parent, _ = Counter(name.rpartition(".")[0] for name in maps).most_common(1)[0]
        maps = {name: size for name, size in maps.items() if name.rpartition(".")[0] == parent}
    else:
        sequences = [(m, out) for m, out in calls if isinstance(m, nn.Conv1d) and out.ndim == 3]
        maps = {names[m]: out.shape[2:] for m, out in sequences if out.shape[2] > 1}
    if not maps:
        raise ValueError("model must have a module that returns maps (n, channels, ., .) or an nn.Conv1d")
    return list({size: name for name, size in maps.items()}.values())


def settle_sound_axes(
    hear: nn.Module, waveform: torch.Tensor, layers: Sequence[str], stft: Spectrogram
) -> None:
    """Let a copy of a classifier say what the axes of its maps are, by what changes of a clip's STFT do to
    them.
    """
    if declared_axes(hear, hear.get_submodule(layers[0])) is not None:
        return
    batch = stft(waveform[:1])
    picture = VirtualInspection(hear, stft, batch)
    if features_of(hear, waveform[:1], layers)[1][0].ndim == 3:
        hear.feature_axes = ("time",)
        return
    settle_axes(picture, batch.db, f"on_waveform.{layers[0]}")
    hear.feature_axes = picture.feature_axes


def sound_features(
    hear: nn.Module, waveform: torch.Tensor, layers: Sequence[str]
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Scores (n, classes) and maps (n, channels, frequency, time) of waveforms; a sequence has one row."""
    scores, maps = features_of(hear, waveform, layers)
    return scores, [m if m.ndim == 4 else m[:, :, None] for m in maps]


def kept_sound(stft: Spectrogram, batch: SpectrogramBatch, mask: torch.Tensor) -> torch.Tensor:
    """Sound (n, samples) of the clips' complex STFT times a mask (n, 1, F, T)."""
    return stft.invert(batch.power * mask.square(), batch.phasor, batch.length)


def sound_loss(
    decoder: SoundDecoder,
    hear: nn.Module,
    waveform: torch.Tensor,
    layers: Sequence[str],
    recipe: SoundRecipe,
    draws: torch.Generator,
) -> torch.Tensor:
    """Loss (n,) of waveforms (n, samples) in nats: -log p_c(kept) - log(1 - p_c(removed)), area, variation.

    Kept and removed are sounds that add up to the clip, and the classifier hears both.
    """
    scores, features = sound_features(hear, waveform, layers)
    target, batch = asked(scores, recipe, draws), decoder.stft(waveform)
    coarse = decoder(features, target)
    mask = upsampled(coarse, batch.power).sigmoid()
    kept = kept_sound(decoder.stft, batch, mask)
    of_kept, of_removed = hear(torch.cat([kept, waveform - kept])).split(len(waveform))
    reading = reading_of(hear)
    faithful = -reading.log_present(of_kept, target) - reading.log_absent(of_removed, target)
    return faithful + penalty(mask, coarse, recipe, None)


def augmented_sound(
    waveform: torch.Tensor, recipe: SoundRecipe, draws: torch.Generator, stft: Spectrogram
) -> torch.Tensor:
    """Clips shifted in time (circularly), some with another one added, with noise in dB on each bin."""
    n, n_samples = waveform.shape
    shifts = torch.randint(n_samples, (n,), generator=draws).tolist()
    waveform = torch.stack([clip.roll(shift) for clip, shift in zip(waveform, shifts)])
    other = waveform[torch.randperm(n, generator=draws).to(waveform.device)]
    gain = 10 ** (-recipe.quieter * torch.rand(n, 1, generator=draws) / 20)
    gain[torch.rand(n, generator=draws) >= recipe.mixed] = 0
    batch = stft(waveform + gain.to(waveform) * other)
    noise = recipe.noise * torch.randn(batch.power.shape, generator=draws)
    return stft.invert(batch.power * 10 ** (noise.to(waveform) / 10), batch.phasor, batch.length)


def load_sound_decoder(path: str | Path, like: torch.Tensor) -> tuple[SoundDecoder, list[str]]:
    """Decoder of a file, with ``like``'s device and dtype and frozen, and the layers it reads.

    Raises
    ------
    FileNotFoundError
        No file at ``path``.
    ValueError
        It is not a decoder's, or one of pictures.
    """
    content = read_decoder(path)
    weight = content["decoder"].get("head.weight")
    if "stft.window" not in content["decoder"]:
        given = "(classifier.on_waveform, waveforms, SoundRecipe())"
        raise ValueError(f"decoder {path}: holds no decoder of sounds; {AGAIN}{given}")
    width = content["width"]
    sizes = (
        content["channels"],
        content["n_classes"],
        weight.shape[1] // width,
        2 * (len(weight) - 1),
        width,
    )
    return restored(lambda: SoundDecoder(*sizes), content, path, like), content["layers"]

"""The study's classifiers on file: made, saved, and loaded with what is needed to use them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..attributions import METHODS
from ..audio.spectrograms import Spectrogram, SpectrogramBatch
from ..evaluation.scoring import MaskScorer, decibels, probabilities
from ..files import atomic_path
from ..models.checkpoints import load_state
from ..models.classifier import AudioClassifier
from ..models.cnn14 import Cnn14
from ..models.efficientat import EfficientAT
from ..models.inference import inference_copy
from ..models.reading import Reading, reading_of
from ..models.virtual_inspection import PictureAsSound, VirtualInspection
from ..models.wrapping import net_device, net_dtype
from ..numerics import default_dtype, to_device
from . import own_model
from .own_model import weights_digest
from .pretrained import NETWORK, picture_model, spectrogram_of

AGAIN = "run notebook 02_fine_tuning again"
NEEDED = ("model", "n_bins", "n_classes", "width", "classes", "info")


CHUNK = 16  # sounds classified at once


@dataclass(frozen=True)
class Classifier:
    """A trained model with what is needed to use it.

    Attributes
    ----------
    model : nn.Module
        Pictures (n, 1, F, T) in dB to scores; of a model of waveforms, waveforms (n, samples) to scores.
    on_waveform : nn.Module, optional
        Given where the model takes waveforms: masks then act on the power, and what is scored is the sound.
        Its picture model needs a clip's phase (`of`).
    """

    model: nn.Module
    spectrogram: Spectrogram
    classes: tuple[str, ...]
    info: dict
    digest: str
    on_waveform: nn.Module | None = None

    @property
    def by_sound(self) -> bool:
        """Whether masks act on the sound, so that clips are explained one at a time."""
        return self.on_waveform is not None

    def sound(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Waveforms (n, samples) as the classifier takes them, on its device."""
        return to_device(waveforms.to(self.dtype), self.device)

    def of(self, waveforms: torch.Tensor) -> tuple[nn.Module, SpectrogramBatch]:
        """Model of pictures and pictures of clips (n, samples); n = 1 of a model of waveforms."""
        batch = self.spectrogram(self.sound(waveforms))
        if not self.by_sound:
            return self.model, batch
        return VirtualInspection(self.on_waveform, self.spectrogram, batch), batch

    def taken(self, method: str, waveforms: torch.Tensor, batch: SpectrogramBatch | None = None) -> dict:
        """The options of a method that are the clips' sound (n, samples) and its transform."""
        if not self.by_sound:
            return METHODS.taken(method, waveform=self.sound(waveforms), spectrogram=self.spectrogram)
        own = {"domain": "power"} if "domain" in METHODS.options(method) else {}
        given = {"waveform": self.sound(waveforms), "spectrogram": PictureAsSound(batch, self.spectrogram)}
        return METHODS.taken(method, **given) | own

    def probabilities(self, waveforms: torch.Tensor) -> torch.Tensor:
        """What it says of waveforms (n, samples), (n, classes)."""
        parts = (self.sound(part) for part in waveforms.split(CHUNK))
        if self.by_sound:
            return torch.cat([probabilities(self.on_waveform, part) for part in parts])
        return torch.cat([probabilities(self.fused, decibels(part, self.spectrogram)) for part in parts])

    def scorer(self, waveforms: torch.Tensor, **options) -> MaskScorer:
        """Scores masks of clips (n, samples); ``options`` are `MaskScorer`'s."""
        sound = self.sound(waveforms)
        batch = self.spectrogram(sound)
        if not self.by_sound:
            return MaskScorer(self.fused, self.spectrogram, batch, **options)
        options |= {"on_waveform": self.on_waveform, "waveform": sound}
        return MaskScorer(self.on_waveform, self.spectrogram, batch, **options)

    @property
    def reading(self) -> Reading:
        """How its scores are read, and where silence lies."""
        return reading_of(self.model)

    @property
    def dtype(self) -> torch.dtype:
        """Of pictures and sounds; what a network runs in half precision is given float32."""
        own = net_dtype(self.model)
        return own if own in (torch.float32, torch.float64) else torch.float32

    @property
    def device(self) -> torch.device:
        return net_device(self.model)

    @property
    def sample_rate(self) -> int:
        """Of the sound that it takes, Hz."""
        return self.spectrogram.sample_rate

    @property
    def training_mean(self) -> torch.Tensor:
        """Mean dB of every bin over its training clips and frames, (1, 1, F, 1)."""
        if "training_mean" not in self.info:
            raise ValueError(f"the checkpoint holds no training mean; {AGAIN}")
        return torch.tensor(self.info["training_mean"], dtype=self.dtype)[None, None, :, None]

    @functools.cached_property
    def fused(self) -> nn.Module:
        """The model's copy for inference (`inference_copy`): the same logits to rounding, sooner."""
        generator = torch.Generator().manual_seed(0)
        second = self.sound(torch.randn(1, self.sample_rate, generator=generator, dtype=torch.float64))
        return inference_copy(self.model, second if self.by_sound else decibels(second, self.spectrogram))


def new_model(n_bins: int, n_classes: int, sizes, seed: int, dtype: torch.dtype) -> Cnn14:
    """An untrained Cnn14 of a profile's width (`constants.Profile`), its weights drawn from the seed."""
    torch.manual_seed(seed)
    with default_dtype(dtype):
        return Cnn14(n_bins, n_classes, sizes.width, sizes.dropout)


def save_classifier(
    path: Path, model: nn.Module, classes: tuple[str, ...], spectrogram_type: str, info: dict
) -> None:
    """Write a checkpoint that `load_classifier` reads with ``weights_only=True``; of a Cnn14 or of the
    probed tagger (`pretrained.picture_model`).
    """
    own = isinstance(model, Cnn14)
    net = model if own else model.net.network
    content = {
        "network": "cnn14" if own else NETWORK,
        "model": net.state_dict(),
        "n_bins": spectrogram_of("cnn14" if own else NETWORK, spectrogram_type, torch.float32).n_bins,
        "n_classes": net.n_classes,
        "width": net.width,
        "classes": list(classes),
        "spectrogram_type": spectrogram_type,
        "info": info,
    }
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def load_classifier(
    path: Path, classes: tuple[str, ...], spectrogram_type: str, dtype: torch.dtype, device: str
) -> Classifier:
    """The classifier that notebook 02 wrote; FileNotFoundError or ValueError where it cannot be used."""
    content = load_state(path)
    lacking = set(NEEDED) - set(content)
    if lacking:
        raise ValueError(f"{path}: lacks {', '.join(sorted(lacking))}; {AGAIN}")
    if tuple(content["classes"]) != classes:
        raise ValueError(f"{path}: was trained on other classes than the dataset has; use another --results")
    network = content.get("network", "cnn14")
    spectrogram = spectrogram_of(network, spectrogram_type, dtype).to(device)
    if content["n_bins"] != spectrogram.n_bins:
        bins = f"{content['n_bins']} bins, {spectrogram_type} has {spectrogram.n_bins}"
        raise ValueError(f"{path}: was trained on {bins}; {AGAIN}")
    model = _restored_model(path, content, spectrogram_type).eval().to(device)
    return Classifier(model, spectrogram, tuple(content["classes"]), content["info"], weights_digest(model))


def _restored_tagger(content: dict) -> EfficientAT:
    """The tagger of a checkpoint, with a probe's head."""
    head = content["model"]["classifier.weight"]
    with default_dtype(head.dtype):
        network = EfficientAT(content["n_classes"], content["width"])
        network.classifier = nn.Linear(head.shape[1], head.shape[0])
    network.load_state_dict(content["model"])
    return network


def save_own(path: Path, audio: AudioClassifier, spec: str, info: dict, seconds: float | None = None) -> None:
    """Write what is known of a user's classifier; the classifier is made by its own function again.

    ``seconds`` is the study's clip length (`own_model.answers`).
    """
    try:
        before = load_state(path).get("answers")
    except (FileNotFoundError, ValueError):  # none yet, or a damaged one
        before = None
    said = own_model.answers(audio, seconds, before)
    digest = own_model.own_digest(spec, audio, said)
    content = {"network": own_model.NAME, "digest": digest, "answers": said, "info": info}
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def own_classifier(path: Path, audio: AudioClassifier, spec: str, seconds: float | None = None) -> Classifier:
    """A user's classifier (which has looked at a sound) with what notebook 02 found out about it."""
    content = load_state(path) if path.is_file() else {}
    digest = own_model.own_digest(spec, audio, own_model.answers(audio, seconds, content.get("answers")))
    if content and content.get("digest") != digest:
        raise ValueError(f"{path}: is of another classifier than {spec} returns; {AGAIN}")
    if isinstance(audio.spectrogram, nn.Module):
        audio.spectrogram.name = own_model.NAME
    model = audio.on_waveform if audio.takes_waveform else audio.model
    on_waveform = model if audio.takes_waveform else None
    info = content.get("info", {})
    return Classifier(model.eval(), audio.spectrogram, audio.classes, info, digest, on_waveform)


def _restored_model(path: Path, content: dict, spectrogram_type: str) -> nn.Module:
    """The model of a checkpoint, in the dtype it was saved in; ValueError where a tensor does not fit."""
    try:
        if content.get("network", "cnn14") == NETWORK:
            network = _restored_tagger(content)
            return picture_model(network, spectrogram_type, network.classifier)
        like = content["model"].get("head.weight", torch.zeros(1))
        with default_dtype(like.dtype):
            model = Cnn14(content["n_bins"], content["n_classes"], content["width"])
        model.load_state_dict(content["model"])
        return model
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        # torch's own message has a line for each tensor
        lines = [line.strip() for line in str(error).splitlines()]
        reason = (lines[1] if len(lines) > 1 else lines[0])[:160].rstrip(". ")
        raise ValueError(f"{path}: does not fit the model ({reason}); {AGAIN}") from error

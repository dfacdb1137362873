"""The study's classifiers on file: made, saved, and loaded with what is needed to use them."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..audio.spectrograms import Spectrogram
from ..files import atomic_path
from ..models.checkpoints import load_state
from ..models.cnn14 import Cnn14
from ..models.efficientat import EfficientAT
from ..models.inference import inference_copy
from ..models.reading import Reading, reading_of
from ..numerics import default_dtype
from .pretrained import NETWORK, picture_model, spectrogram_of

AGAIN = "run notebook 02_fine_tuning again"
NEEDED = ("model", "n_bins", "n_classes", "width", "classes", "info")


@dataclass(frozen=True)
class Classifier:
    """A trained model with what is needed to use it."""

    model: nn.Module
    spectrogram: Spectrogram
    classes: tuple[str, ...]
    info: dict
    digest: str

    @property
    def reading(self) -> Reading:
        """How its scores are read, and where silence lies."""
        return reading_of(self.model)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

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
        second = torch.randn(1, self.sample_rate, generator=generator, dtype=torch.float64)
        return inference_copy(self.model, self.spectrogram.decibels(second.to(next(self.model.parameters()))))


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


def weights_digest(model: nn.Module) -> str:
    """Digest of a model's weights and buffers: one that is trained again to the same weights is the same."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode() + value.cpu().numpy().tobytes())
    return found.hexdigest()[:16]


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

"""Classifiers that hear a plant, and controls that meet it without it meaning anything.

``mn04`` is a pretrained tagger with a head of two classes, plant or not, on its frozen features; its control
has a head for the five families of ESC-50's classes, trained on the same clips, each with and without the
plant. ``cnn14`` is a small Cnn14 trained from scratch on all classes, one of which has the plant; its control
is trained without the plant. The decoy is in all clips of all four.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from ...models.classifier import AudioClassifier
from ...models.cnn14 import Cnn14
from ...models.efficientat import EfficientAT
from ...models.frontends import LogMel
from ...models.probe import Probed, fit_probe, pooled_features
from ...models.training import train_classifier
from ...study.profiles import PROFILES

INPUTS = {"mn04": "efficientat", "cnn14": "mel_db"}
PLANT_CLASSES = ("no plant", "plant")
FAMILIES = ("animals", "nature", "humans", "indoors", "outdoors")  # ESC-50's ids in tens
SMALL = replace(PROFILES["quick"], epochs=30)  # of the Cnn14; a sixteenth of its channels
BATCH_SIZE = 32


def understood(network: nn.Module, kind: str, classes) -> AudioClassifier:
    """A network as a classifier of sounds, ``mn04`` or ``cnn14``."""
    return AudioClassifier(network.eval(), classes, input=INPUTS[kind], head="softmax")


def small_cnn14(n_classes: int, seed: int = 0) -> Cnn14:
    """An untrained Cnn14 of mel spectrograms with a sixteenth of the channels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Cnn14(64, n_classes, width=SMALL.width, dropout=SMALL.dropout)


def features_of(network: EfficientAT, waveforms: torch.Tensor) -> torch.Tensor:
    """Frozen features (n, n_features) of waveforms (n, samples) at 32 kHz."""
    front_end = LogMel.efficientat()
    spectrogram = front_end.spectrogram().to(waveforms.device)
    with torch.inference_mode():
        batches = [front_end.to_input(spectrogram.decibels(part)) for part in waveforms.split(BATCH_SIZE)]
        return pooled_features(network, batches).clone()


def plant_head(with_plant: torch.Tensor, without: torch.Tensor) -> nn.Linear:
    """Two classes, plant or not, of features (n, n_features) of the same clips with and without the plant."""
    labels = torch.cat([torch.ones(len(with_plant)), torch.zeros(len(without))]).long()
    return fit_probe(torch.cat([with_plant, without]), labels)


def family_head(with_plant: torch.Tensor, without: torch.Tensor, targets: torch.Tensor) -> nn.Linear:
    """Families of classes, each with and without the plant; ``targets`` (n,) are ESC-50's ids."""
    return fit_probe(torch.cat([with_plant, without]), (targets // 10).repeat(2))


def headed(network: EfficientAT, head: nn.Linear, classes, device: str = "cpu") -> AudioClassifier:
    """The pretrained tagger with a head in place of its own, as a classifier of sounds."""
    return understood(Probed(network, head).to(device), "mn04", classes)


def trained_cnn14(
    train: tuple[torch.Tensor, torch.Tensor],
    validation: tuple[torch.Tensor, torch.Tensor],
    n_classes: int,
    seed: int = 0,
    profile=SMALL,
    device: str = "cpu",
) -> Cnn14:
    """A small Cnn14 trained from scratch on pictures (n, 1, 64, T) and labels (n,).

    Its weights are rounded to half precision, so that the stored network is the one that was proved.
    """
    model = small_cnn14(n_classes, seed)
    with torch.random.fork_rng(devices=[]):
        run = train_classifier(model, train, validation, profile, seed, device)
    return run.model.half().float().eval()


def half_state(network: nn.Module) -> dict[str, torch.Tensor]:
    """Its entries, floating ones in half precision, for a small file."""
    return {
        name: value.half() if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }


def full_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Back from `half_state`."""
    return {name: value.float() if value.dtype == torch.float16 else value for name, value in state.items()}

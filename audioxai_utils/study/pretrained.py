"""The pretrained tagger as the study's classifier: its pictures, a linear probe on its features, fine-tuning.

``mel_db`` is then the tagger's own log-mel spectrogram (128 Kaldi bins, silence at -50 dB), ``stft_db`` the
study's, from which a fixed map makes that log-mel.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pandas as pd
import torch
from torch import nn
from torch.nn import functional

from ..audio.spectrograms import Spectrogram, get_spectrogram
from ..constants import TAGGER
from ..models.efficientat import EfficientAT, load_efficientat
from ..models.efficientat_frontend import StftToMel
from ..models.frontends import LogMel
from ..models.probe import Probed, fit_probe, pooled_features
from ..models.reading import Reading
from ..models.scores import Scores
from ..models.training import TrainingRun, train_classifier
from ..numerics import at_once, to_device
from .profiles import Profile

NETWORK = TAGGER
PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # scikit-learn's C; the validation fold chooses
FINE_TUNING = {  # what is another one than in the profile where the whole tagger is trained
    "epochs": 5,
    "batch_size": 32,
    "learning_rate": 1e-4,
    "schedule": "one_cycle",
    "mixup": 0.3,
    "time_shift": True,
    "crop": 1.0,
    "masked": False,
    "gain_db": 6.0,
    "frozen_norms": True,
    "averaging": 0.0,
}


def spectrogram_of(network: str, spectrogram_type: str, dtype: torch.dtype) -> Spectrogram:
    """The spectrogram that a network is given under one of the study's names."""
    if network != NETWORK or spectrogram_type != "mel_db":
        return get_spectrogram(spectrogram_type, dtype)
    spectrogram = LogMel.efficientat().spectrogram()
    spectrogram.name = spectrogram_type
    return spectrogram


def picture_model(network: EfficientAT, spectrogram_type: str, head: nn.Linear) -> Scores:
    """The tagger with a probe's head, as a model of pictures (batch, 1, F, T) in dB."""
    prepare, front_end = front_end_of(spectrogram_type)
    floor = LogMel.efficientat().floor if spectrogram_type == "mel_db" else Reading().floor
    net = Probed(network, head, front_end).to(head.weight.dtype)
    model = Scores(net, prepare, None, Reading(floor=floor)).eval()
    model.n_classes = head.out_features  # what training asks for
    return model


def parts_of(model: Scores) -> dict[str, nn.Module]:
    """The probed tagger's parts by name, for a table (`cnn14.blocks`)."""
    first, *blocks, last = (module for module in model.net.network.features if list(module.parameters()))
    named = {f"inverted residual {i + 1}": block for i, block in enumerate(blocks)}
    return {
        "first convolution": first,
        **named,
        "last convolution": last,
        "probe": model.net.network.classifier,
    }


def front_end_of(spectrogram_type: str) -> tuple[Callable, nn.Module]:
    """What prepares a picture (batch, 1, F, T) in dB, and the module that makes its log-mel."""
    if spectrogram_type == "mel_db":
        return LogMel.efficientat().to_input, nn.Identity()
    return _as_it_is, StftToMel()


def _as_it_is(x: torch.Tensor) -> torch.Tensor:
    return x


def new_tagger(weights: str, spectrogram_type: str, n_classes: int, dtype: torch.dtype) -> Scores:
    """The tagger with its AudioSet weights and a head that says nothing yet: every logit is 0."""
    network = load_efficientat(weights).to(dtype)
    head = nn.Linear(network.n_features, n_classes).to(dtype)
    nn.init.zeros_(head.weight), nn.init.zeros_(head.bias)
    return picture_model(network, spectrogram_type, head)


def train_probe(
    model: Scores,
    spectrogram_type: str,
    train: tuple[torch.Tensor, torch.Tensor],
    validation: tuple[torch.Tensor, torch.Tensor],
    device: str = "cpu",
) -> TrainingRun:
    """Multinomial logistic regression on the tagger's features, with the penalty that validates best.

    Parameters
    ----------
    model : Scores
        From `new_tagger`.
    spectrogram_type : str
    train, validation : (torch.Tensor, torch.Tensor)
        dB spectrograms (clips, 1, frequency, time) and labels (clips,) long.
    device : {"cpu", "cuda"}

    Returns
    -------
    TrainingRun
        ``history`` has a row a penalty in the place of an epoch, with the column ``C``. Nothing is drawn:
        there is no seed.
    """
    started = time.perf_counter()
    network = model.net.network
    sides = {"train": train, "validation": validation}
    features = {
        side: (features_of(network, spectrogram_type, db, device), labels)
        for side, (db, labels) in sides.items()
    }
    heads, rows = [], []
    for i, c in enumerate(PENALTIES):  # heads are small: no gradient is wanted of them
        heads.append(fit_probe(*features["train"], c).to(train[0].dtype))
        row = {"epoch": i + 1, "C": c}
        for side, (x, labels) in features.items():
            logits = heads[-1](x)
            row[f"{side}_loss"] = float(functional.cross_entropy(logits.detach(), labels))
            row[f"{side}_accuracy"] = float((logits.argmax(1) == labels).double().mean())
        rows.append(row)
    history = pd.DataFrame(rows)
    best = int(history["validation_accuracy"].argmax())
    fitted = picture_model(network.cpu(), spectrogram_type, heads[best])
    return TrainingRun(fitted, history, best + 1, time.perf_counter() - started)


def fine_tune(
    model: Scores,
    spectrogram_type: str,
    train: tuple[torch.Tensor, torch.Tensor],
    validation: tuple[torch.Tensor, torch.Tensor],
    sizes: Profile,
    seed: int,
    device: str = "cpu",
) -> TrainingRun:
    """Train the whole tagger, from the probe's head on: mixup, circular time shifts, gain.

    Parameters
    ----------
    model, spectrogram_type, train, validation, device
        As in `train_probe`.
    sizes : Profile
        Epochs, optimiser and augmentation: the study's with `FINE_TUNING`.
    seed : int
        Of shuffling and augmentation.

    Returns
    -------
    TrainingRun
        ``history`` begins with the probe, as epoch 0; where no epoch validates better, the probe is kept.
    """
    started = time.perf_counter()
    probe = train_probe(model, spectrogram_type, train, validation, device)
    before = probe.history.iloc[[probe.best_epoch - 1]].drop(columns="C").assign(epoch=0)
    kept = {name: value.clone() for name, value in probe.model.state_dict().items()}
    tuned = train_classifier(probe.model, train, validation, sizes, seed, device)
    history = pd.concat([before, tuned.history], ignore_index=True)
    best = int(history["epoch"][history["validation_accuracy"].argmax()])
    if best == 0:
        tuned.model.load_state_dict(kept)
    return TrainingRun(tuned.model, history, best, time.perf_counter() - started)


def features_of(network: EfficientAT, spectrogram_type: str, db: torch.Tensor, device: str) -> torch.Tensor:
    """The tagger's features (clips, n_features) of dB spectrograms (clips, 1, F, T), on the CPU."""
    prepare, front_end = front_end_of(spectrogram_type)
    network, front_end = network.to(device), front_end.to(device, db.dtype)
    place = torch.device(device)
    parts = (prepare(to_device(part, place)) for part in db.split(at_once(None, place)))
    return pooled_features(network, parts, front_end).cpu()

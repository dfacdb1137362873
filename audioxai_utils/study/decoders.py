"""Decoders of methods that are trained: one file for a classifier, the clips, a recipe and a seed."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..attributions import METHODS, decoder_training
from ..attributions.sound_decoder import SoundRecipe
from ..files import locked
from ..models.scores import FromWaveform
from .attribute import method_digest
from .clips import decibels_of, split_clips
from .profiles import drawn
from .sources import digest

if TYPE_CHECKING:
    from .classifiers import Classifier
    from .materials import Materials


def fitted_decoder(study: Materials, classifier: Classifier, method: str) -> Path:
    """File of a method's decoder for a classifier; it is trained, on the training folds alone, where there is
    none.

    A method that comes after another one trains the other one's decoder further. One process trains, the
    others wait for it.
    """
    path, before = decoder_path(study, classifier, method), METHODS.traits(method).after
    if _is_usable(path):
        return path
    start = fitted_decoder(study, classifier, before) if before else None
    with locked(path.parent):
        if not _is_usable(path):
            clips = split_clips(study, classifier.sample_rate, "train")
            recipe, seed = decoder_recipe(study, method), study.settings.seed
            model, given = _trained_on(classifier, clips.waveforms, recipe)
            fitted = decoder_training.train_decoder(model, given, recipe, seed, start=start)
            decoder_training.save_decoder(fitted, path, n_clips=len(clips), classifier=classifier.digest)
    return path


def _trained_on(
    classifier: Classifier, waveforms: torch.Tensor, recipe: decoder_training.Recipe
) -> tuple[nn.Module, torch.Tensor]:
    """The model and the clips that a decoder is trained on: pictures, or sounds for a decoder of sounds."""
    if isinstance(recipe, SoundRecipe):
        own = classifier.on_waveform or FromWaveform(classifier.spectrogram, classifier.model)
        return own, waveforms.to(classifier.dtype)
    return classifier.model, decibels_of(waveforms, classifier.spectrogram, classifier.device)


def _is_usable(path: Path) -> bool:
    try:
        return bool(decoder_training.decoder_info(path))
    except (FileNotFoundError, ValueError):  # not trained yet, or what was is damaged
        return False


def decoder_path(study: Materials, classifier: Classifier, method: str) -> Path:
    """Where a method's decoder is: the name holds a key of the classifier, the recipe, what trains it, the
    training clips and its start.
    """
    before = METHODS.traits(method).after
    about = [
        classifier.digest,
        str(decoder_recipe(study, method)),
        str(study.settings.seed),
        method_digest(method),
        study.training_sounds,
    ]
    about += [digest(decoder_training.__name__)]
    about += [decoder_path(study, classifier, before).name] if before else []
    key = hashlib.sha256(" ".join(about).encode()).hexdigest()[:12]
    return study.results / "decoders" / f"{classifier.spectrogram.name}_{method}_{key}.pt"


def decoder_recipe(study: Materials, method: str) -> decoder_training.Recipe:
    """The method's recipe, with no more epochs than a classifier has whose weights are drawn."""
    recipe = METHODS.traits(method).recipe
    return dataclasses.replace(recipe, epochs=min(recipe.epochs, drawn(study.settings.sizes).epochs))


def training_seconds(study: Materials, classifier: Classifier, method: str) -> float:
    """What training cost before the method's first clip (s), all stages; 0 where nothing is trained."""
    if METHODS.traits(method).recipe is None:
        return 0.0
    return float(decoder_training.decoder_info(fitted_decoder(study, classifier, method))["seconds"])

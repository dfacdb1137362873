"""What every part of a study shares: its settings, its sounds, its device and its classifiers."""

from __future__ import annotations

import functools
import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from .. import constants
from ..audio import inputs
from ..audio.datasets import Dataset, load_dataset, load_waveforms, usable
from ..audio.own_data import labelled, load_own_dataset
from ..audio.spectrograms import Spectrogram
from ..models.classifier import AudioClassifier
from ..models.training import TrainingRun, train_classifier
from . import clips
from .classifiers import Classifier, load_classifier, new_model, own_classifier, save_classifier, save_own
from .own_model import load_own
from .pretrained import FINE_TUNING, NETWORK, fine_tune, new_tagger, spectrogram_of, train_probe
from .profiles import Profile, drawn
from .settings import Settings


class Materials:
    """What every part of a study shares.

    Attributes
    ----------
    settings : Settings
        Every option of the run.
    results : Path
        Folder of the results.
    backgrounds : dict
        Spectrogram type -> Deep SHAP's reference clips, once they were made (`Condition.background`).
    """

    def __init__(self, settings: Settings) -> None:
        self.settings, self.results = settings, settings.results
        self.backgrounds: dict[str, torch.Tensor] = {}
        self._classifiers: dict[str, Classifier] = {}

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64 if self.settings.sizes.reproducible else torch.float32

    @functools.cached_property
    def device(self) -> str:
        """``cpu`` or ``cuda``; ValueError where CUDA was asked for and there is none."""
        wanted, found = self.settings.device, torch.cuda.is_available()
        if wanted == "cuda" and not found:
            raise ValueError("device must be cpu here, PyTorch finds no CUDA; got 'cuda'")
        return "cuda" if found and wanted != "cpu" else "cpu"

    @functools.cached_property
    def dataset(self) -> Dataset:
        settings = self.settings
        if settings.dataset != constants.OWN and not settings.model:
            return load_dataset(settings.dataset, settings.data_root)
        return labelled(self._sounds, self.own_model.classes)

    @functools.cached_property
    def _sounds(self) -> Dataset:
        """The dataset with the labels of its own categories."""
        settings = self.settings
        if settings.dataset == constants.OWN:
            return load_own_dataset(settings.data_root)
        return load_dataset(settings.dataset, settings.data_root)

    @functools.cached_property
    def own_model(self) -> AudioClassifier:
        """The user's classifier, after a look at the first sound that can be used."""
        audio, sounds = load_own(self.settings.model, self.device), self._sounds
        frame, problems = sounds.split("test"), []
        for i in range(len(frame)):
            row = frame.iloc[i : i + 1]
            waveforms, problem = load_waveforms(row, audio.sample_rate, self.dtype, sounds.seconds)
            if usable(waveforms).all():
                audio.look(waveforms)
                return audio
            problems += problem
        raise ValueError(f"none of the {len(frame)} clips can be used; the first problem: {problems[0]}")

    @functools.cached_property
    def training_sounds(self) -> str:
        """Digest of the training clips' files that the profile reads, in their order, and of their length."""
        found = hashlib.sha256(str(self.dataset.seconds).encode())
        for path in clips.split_frame(self, "train")["path"]:
            found.update(inputs.file_digest(path).encode())
        return found.hexdigest()[:16]

    def noise_source(self, noise_scenario: str) -> str:
        """What ``load_noise`` takes for a scenario: its name, or the audio file it stands for."""
        if noise_scenario in constants.NOISE_SCENARIOS or inputs.is_recording(noise_scenario):
            return noise_scenario
        files = self.settings.noise_files
        if noise_scenario in files:
            return files[noise_scenario]
        paths = sorted(Path(self.settings.noise_root).glob("[!.]*")) if self.settings.noise_root else []
        found = [
            str(path)
            for path in paths
            if inputs.is_recording(path.name) and inputs.scenario_name(path.name) == noise_scenario
        ]
        return found[0] if found else noise_scenario  # load_noise refuses it

    def spectrogram(self, spectrogram_type: str) -> Spectrogram:
        """What the classifier is given under that name, on the study's device."""
        if spectrogram_type == constants.OWN:
            return self.own_model.spectrogram
        return spectrogram_of(self.settings.network, spectrogram_type, self.dtype).to(self.device)

    def new_model(self, spectrogram_type: str, seed: int | None = None) -> nn.Module:
        """A classifier before training: a Cnn14 of the profile's width, its weights drawn from the seed, or
        the pretrained tagger.
        """
        settings, n_classes = self.settings, len(self.dataset.classes)
        if settings.network == NETWORK:
            return new_tagger(settings.weights, spectrogram_type, n_classes, self.dtype)
        n_bins = constants.SPECTROGRAMS[spectrogram_type].n_bins
        seed = settings.seed if seed is None else seed
        return new_model(n_bins, n_classes, self.training, seed, self.dtype)

    @property
    def training(self) -> Profile:
        """How `train` goes about it: epochs, optimiser, augmentation."""
        settings, sizes = self.settings, self.settings.sizes
        if settings.network == NETWORK:
            return replace(sizes, **FINE_TUNING)
        return sizes if settings.weights else drawn(sizes)

    def train(
        self,
        model: nn.Module,
        spectrogram_type: str,
        train: tuple[torch.Tensor, torch.Tensor],
        validation: tuple[torch.Tensor, torch.Tensor],
    ) -> TrainingRun:
        """Train `new_model`'s classifier on (dB spectrograms, labels); of the tagger a probe, or all."""
        settings = self.settings
        if settings.network != NETWORK:
            return train_classifier(model, train, validation, self.training, settings.seed, self.device)
        given = (model, spectrogram_type, train, validation)
        if settings.fitting == "probe":
            return train_probe(*given, self.device)
        return fine_tune(*given, self.training, settings.seed, self.device)

    def checkpoint(self, spectrogram_type: str) -> Path:
        return self.results / "models" / f"{spectrogram_type}.pt"

    def save_classifier(self, model: nn.Module, spectrogram_type: str, info: dict) -> Path:
        """Write a trained model's checkpoint, with what was found out about it, that `classifier` reads."""
        path = self.checkpoint(spectrogram_type)
        save_classifier(path, model, self.dataset.classes, spectrogram_type, info)
        self._classifiers.pop(spectrogram_type, None)
        return path

    def save_own(self, info: dict) -> Path:
        """Write what was found out about the user's classifier; its own function makes it again."""
        path = self.checkpoint(constants.OWN)
        save_own(path, self.own_model, self.settings.model, info, self._sounds.seconds)
        self._classifiers.pop(constants.OWN, None)
        return path

    def classifier(self, spectrogram_type: str) -> Classifier:
        """The classifier of a spectrogram type that notebook 02 wrote, loaded once."""
        if spectrogram_type == constants.OWN and spectrogram_type not in self._classifiers:
            path, given = self.checkpoint(spectrogram_type), (self.own_model, self.settings.model)
            found = own_classifier(path, *given, self._sounds.seconds)
            self._classifiers[spectrogram_type] = found
        if spectrogram_type not in self._classifiers:
            path, classes = self.checkpoint(spectrogram_type), self.dataset.classes
            loaded = load_classifier(path, classes, spectrogram_type, self.dtype, self.device)
            self._classifiers[spectrogram_type] = loaded
        return self._classifiers[spectrogram_type]

    def progress(self, what: str, done: int, total: int) -> None:
        """A line on stderr at every tenth part: readable in a terminal, in a log and in a notebook's page."""
        if done == total or done * 10 // total > (done - 1) * 10 // total:
            print(f"{what}: {done}/{total}", file=sys.stderr, flush=True)

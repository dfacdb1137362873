"""The study that everybody carries: its settings, its conditions, and what it has on file.

A condition is a spectrogram type with a noise scenario. ``open_study(results_dir)`` opens a run, finished or
not; everything in it is read or made when it is first asked for.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from .. import constants
from ..attributions import METHODS
from ..audio import inputs
from ..audio.datasets import Dataset, background_clips, load_dataset, load_waveforms
from ..audio.own_data import labelled, load_own_dataset
from ..audio.spectrograms import Spectrogram
from ..files import save_figure, save_table
from ..models.classifier import AudioClassifier
from ..models.training import TrainingRun, train_classifier
from . import clips
from .classifiers import (
    Classifier,
    load_classifier,
    new_model,
    own_classifier,
    save_classifier,
    save_own,
)
from .condition import Condition, Pair
from .own_model import load_own
from .pretrained import NETWORK, new_tagger, spectrogram_of, train_probe
from .settings import Settings, results_of


def open_study(results_dir: str | Path | None = None) -> Study:
    """Open a run.

    Parameters
    ----------
    results_dir : path, optional
        Folder of the run. Not given or empty: ``AUDIOXAI_RUN``, else the run that was started last, else the
        quick study on generated sounds, which need not have been run.

    Raises
    ------
    FileNotFoundError, ValueError
        A folder was named in which no run was started, or whose settings cannot be read.
    """
    folder = results_of(results_dir)
    return Study(Settings() if folder is None else Settings.read(folder))


class Study:
    """One run of the study.

    Attributes
    ----------
    settings : Settings
        Every option of the run.
    results : Path
        Folder of the results.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings, self.results = settings, settings.results
        self._classifiers: dict[str, Classifier] = {}
        self._backgrounds: dict[str, torch.Tensor] = {}

    def __repr__(self) -> str:
        return f"Study({self.settings.profile}, {self.settings.dataset}, {self.results})"

    # What it is made of

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
        """The user's classifier, after a look at a first sound."""
        audio, sounds = load_own(self.settings.model, self.device), self._sounds
        first = sounds.split("test").head(1)
        waveforms, problems = load_waveforms(first, audio.sample_rate, self.dtype, sounds.seconds)
        if problems:
            raise ValueError(problems[0])
        audio.look(waveforms)
        return audio

    @functools.cached_property
    def conditions(self) -> list[Condition]:
        """The conditions of the run, in the order of the study's tables."""
        return [Condition(self, *pair) for pair in in_order(self.settings.conditions)]

    def condition(self, spectrogram_type: str, noise_scenario: str = "clean") -> Condition:
        """A condition, of the run or not; ``noise_scenario`` is a name or the path of an audio file."""
        constants.check_choice("spectrogram_type", spectrogram_type, self.settings.spectrogram_types)
        return Condition(self, spectrogram_type, noise_scenario)

    @property
    def main_condition(self) -> Condition:
        """The one that is shown in most depth: clean mel where it is computed, else the first mel one, else
        the first.
        """
        of_mel = [each for each in self.conditions if each.spectrogram_type == "mel_db"]
        clean = [each for each in of_mel if each.noise_scenario == "clean"]
        return (clean or of_mel or self.conditions)[0]

    @property
    def noise_scenarios(self) -> list[str]:
        """Scenarios of the run, clean first."""
        return list(dict.fromkeys(["clean", *(each.noise_scenario for each in self.conditions)]))

    @property
    def spectrogram_types(self) -> list[str]:
        return list(dict.fromkeys(each.spectrogram_type for each in self.conditions))

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

    # Classifiers

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
        return new_model(n_bins, n_classes, settings.sizes, seed, self.dtype)

    def train(
        self,
        model: nn.Module,
        spectrogram_type: str,
        train: tuple[torch.Tensor, torch.Tensor],
        validation: tuple[torch.Tensor, torch.Tensor],
    ) -> TrainingRun:
        """Train `new_model`'s classifier on (dB spectrograms, labels); of the tagger a probe."""
        settings = self.settings
        if settings.network == NETWORK:
            return train_probe(model, spectrogram_type, train, validation, self.device)
        return train_classifier(model, train, validation, settings.sizes, settings.seed, self.device)

    def checkpoint(self, spectrogram_type: str) -> Path:
        return self.results / "models" / f"{spectrogram_type}.pt"

    def save_classifier(self, model, spectrogram_type: str, info: dict) -> Path:
        """Write a checkpoint that `classifier` reads."""
        path = self.checkpoint(spectrogram_type)
        self._classifiers.pop(spectrogram_type, None)
        if spectrogram_type == constants.OWN:
            save_own(path, self.own_model, self.settings.model, info)
            return path
        save_classifier(path, model, self.dataset.classes, spectrogram_type, info)
        return path

    def classifier(self, spectrogram_type: str) -> Classifier:
        """The classifier of a spectrogram type that notebook 02 wrote, loaded once."""
        if spectrogram_type == constants.OWN and spectrogram_type not in self._classifiers:
            found = own_classifier(self.checkpoint(spectrogram_type), self.own_model, self.settings.model)
            self._classifiers[spectrogram_type] = found
        if spectrogram_type not in self._classifiers:
            path, classes = self.checkpoint(spectrogram_type), self.dataset.classes
            loaded = load_classifier(path, classes, spectrogram_type, self.dtype, self.device)
            self._classifiers[spectrogram_type] = loaded
        return self._classifiers[spectrogram_type]

    def refusals(self, spectrogram_type: str) -> dict[str, str]:
        """Method -> why it cannot explain this classifier, found out on a clip and written to its file."""
        condition, refused = self.condition(spectrogram_type).first(1), {}
        for method in self.settings.explained_by:
            traits = METHODS.traits(method)
            cheap = {traits.budget: 4} if traits.budget else {}
            try:
                options = condition.method_options(method) | cheap
                condition.attribute_once(method, options)
            except (ValueError, TypeError, NotImplementedError) as error:
                refused[method] = " ".join(str(error).split())
        self.save_classifier(None, spectrogram_type, condition.classifier.info | {"refused": refused})
        if len(refused) == len(self.settings.explained_by):
            raise ValueError(f"no method of this run can explain the classifier: {refused}")
        return refused

    def background(self, spectrogram_type: str) -> torch.Tensor:
        """The profile's reference clips for Deep SHAP, dB (n, 1, F, T), from the training folds."""
        if spectrogram_type not in self._backgrounds:
            frame = background_clips(self.dataset, self.settings.sizes.background_clips)
            found = clips.load_clips(self, frame, self.classifier(spectrogram_type).sample_rate)
            self._backgrounds[spectrogram_type] = Condition(
                self, spectrogram_type, "clean", found
            ).spectrograms
        return self._backgrounds[spectrogram_type]

    def split(self, spectrogram_type: str, split: str, noise_scenario: str = "clean"):
        """(dB spectrograms (n, 1, F, T) on the CPU, labels (n,), Clips) of ``train``, ``validation`` or
        ``test``.
        """
        spectrogram = self.spectrogram(spectrogram_type)
        found = clips.split_clips(self, spectrogram.sample_rate, split, noise_scenario)
        return clips.decibels_of(found.waveforms, spectrogram, torch.device(self.device)), found.labels, found

    # Files

    def path(self, folder: str, name: str, condition: Condition | None = None) -> Path:
        """File of a table or figure, without its suffix: ``<folder>/<name>[_<condition>]``."""
        return self.results / folder / (name if condition is None else f"{name}_{condition.name}")

    def save(self, name: str, content, condition: Condition | None = None, **how):
        """Save a frame under ``tables/`` (CSV, LaTeX) or a figure under ``figures/`` (PNG, SVG).

        Returns
        -------
        The frame, or the figure's picture, so that it can be a notebook cell's last value.
        """
        if isinstance(content, pd.DataFrame):
            save_table(content, self.path("tables", name, condition), **how)
            return content
        return save_figure(content, self.path("figures", name, condition), **how)

    def table(self, name: str, condition: Condition | None = None) -> pd.DataFrame:
        """A table that was saved; FileNotFoundError says what makes it."""
        path = self.path("tables", name, condition).with_suffix(".csv")
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such table; run the notebook that saves it first")
        return pd.read_csv(path, keep_default_na=True)

    def scores(self) -> pd.DataFrame:
        """Scores of all conditions of the run; FileNotFoundError where one is missing."""
        return pd.concat([each.scores() for each in self.conditions], ignore_index=True)

    def progress(self, what: str, done: int, total: int) -> None:
        """A line on stderr at every tenth part: readable in a terminal, in a log and in a notebook's page."""
        if done == total or done * 10 // total > (done - 1) * 10 // total:
            print(f"{what}: {done}/{total}", file=sys.stderr, flush=True)


def in_order(pairs) -> list[Pair]:
    """Pairs in the order of the study's tables, others after them by name."""
    pairs = list(dict.fromkeys(pairs))
    known = [pair for pair in constants.STUDY_CONDITIONS if pair in pairs]
    return [*known, *sorted(pair for pair in pairs if pair not in constants.STUDY_CONDITIONS)]

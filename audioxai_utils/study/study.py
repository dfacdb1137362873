"""The study that everybody carries: its settings, its conditions, and what it has on file.

A condition is a spectrogram type with a noise scenario. ``open_study(results_dir)`` opens a run, finished or
not; everything in it is read or made when it is first asked for.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from .. import constants
from ..attributions import METHODS
from ..audio import inputs
from ..audio.datasets import Dataset, background_clips, load_dataset
from ..audio.spectrograms import Spectrogram, get_spectrogram
from ..evaluation.scoring import MaskScorer, probabilities, score_masks
from ..files import save_figure, save_parquet, save_table
from ..words import condition_label
from . import attribute, clips, decoders, score
from .classifiers import Classifier, load_classifier, new_model, save_classifier
from .settings import Settings, results_of

Pair = tuple[str, str]  # spectrogram type, noise scenario


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
        return load_dataset(settings.dataset, settings.data_root)

    @functools.cached_property
    def conditions(self) -> list[Condition]:
        """The conditions of the run, in the order of the study's tables."""
        return [Condition(self, *pair) for pair in in_order(self.settings.conditions)]

    def condition(self, spectrogram_type: str, noise_scenario: str = "clean") -> Condition:
        """A condition, of the run or not; ``noise_scenario`` is a name or the path of an audio file."""
        constants.check_choice("spectrogram_type", spectrogram_type, constants.SPECTROGRAM_TYPES)
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
        """The study's spectrogram of that name, on the study's device."""
        return get_spectrogram(spectrogram_type, self.dtype).to(self.device)

    def new_model(self, spectrogram_type: str, seed: int | None = None):
        """An untrained Cnn14 of the profile's width, its weights drawn from the seed."""
        n_bins, n_classes = constants.SPECTROGRAMS[spectrogram_type].n_bins, len(self.dataset.classes)
        seed = self.settings.seed if seed is None else seed
        return new_model(n_bins, n_classes, self.settings.sizes, seed, self.dtype)

    def checkpoint(self, spectrogram_type: str) -> Path:
        return self.results / "models" / f"{spectrogram_type}.pt"

    def save_classifier(self, model, spectrogram_type: str, info: dict) -> Path:
        """Write a checkpoint that `classifier` reads."""
        path = self.checkpoint(spectrogram_type)
        save_classifier(path, model, self.dataset.classes, spectrogram_type, info)
        self._classifiers.pop(spectrogram_type, None)
        return path

    def classifier(self, spectrogram_type: str) -> Classifier:
        """The classifier of a spectrogram type that notebook 02 wrote, loaded once."""
        if spectrogram_type not in self._classifiers:
            path, classes = self.checkpoint(spectrogram_type), self.dataset.classes
            loaded = load_classifier(path, classes, spectrogram_type, self.dtype, self.device)
            self._classifiers[spectrogram_type] = loaded
        return self._classifiers[spectrogram_type]

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


class Condition:
    """A spectrogram type with a noise scenario: its classifier, its clips, their attributions and scores.

    Attributes
    ----------
    study : Study
    spectrogram_type, noise_scenario : str
        The scenario by name, also where it was given as an audio file.
    """

    def __init__(
        self, study: Study, spectrogram_type: str, noise_scenario: str, chosen: clips.Clips | None = None
    ) -> None:
        """``chosen`` are clips in the place of the study's own."""
        self.study, self.spectrogram_type = study, spectrogram_type
        self.source = study.noise_source(noise_scenario)
        self.noise_scenario = inputs.scenario_name(noise_scenario)
        self._chosen = chosen

    def __repr__(self) -> str:
        return f"Condition({self.spectrogram_type}, {self.noise_scenario})"

    @property
    def pair(self) -> Pair:
        """(spectrogram type, noise scenario), as in the columns of tables."""
        return self.spectrogram_type, self.noise_scenario

    @property
    def name(self) -> str:
        """In file names: ``mel_db_white``."""
        return "_".join(self.pair)

    @property
    def title(self) -> str:
        """In words: ``mel, white noise``."""
        return condition_label(*self.pair)

    @property
    def classifier(self) -> Classifier:
        return self.study.classifier(self.spectrogram_type)

    @property
    def spectrogram(self) -> Spectrogram:
        return self.classifier.spectrogram

    @functools.cached_property
    def clips(self) -> clips.Clips:
        """The test clips that are explained, mixed with the noise, with their stems where these are known."""
        if self._chosen is not None:
            return self._chosen
        return clips.explained_clips(self.study, self.classifier.sample_rate, self.source)

    def shard(self, shard: tuple[int, int], block: int = 1) -> Condition:
        """The same condition with a shard's clips alone (`clips.shard_rows`)."""
        return self.of(
            clips.explained_clips(self.study, self.classifier.sample_rate, self.source, shard, block)
        )

    def first(self, n: int | None) -> Condition:
        """The same condition with ``n`` of its clips, spread over the classes."""
        return self.of(self.clips.first(n))

    def of(self, chosen: clips.Clips) -> Condition:
        """The same condition with other clips."""
        return Condition(self.study, self.spectrogram_type, self.source, chosen)

    @functools.cached_property
    def spectrograms(self) -> torch.Tensor:
        """dB spectrograms (n, 1, F, T) of the clips, on the classifier's device and in its dtype."""
        return self.decibels(self.clips.waveforms)

    def decibels(self, waveforms: torch.Tensor) -> torch.Tensor:
        """dB spectrograms (n, 1, F, T) of waveforms (n, samples), on the classifier's device and in its
        dtype.
        """
        parts = waveforms.to(self.classifier.device, self.classifier.dtype).split(clips.LOAD_CHUNK)
        return torch.cat([self.spectrogram.decibels(part) for part in parts])

    def power(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Power (n, 1, F, T) of waveforms (n, samples), such as a stem's."""
        parts = waveforms.to(self.classifier.device, self.classifier.dtype).split(clips.LOAD_CHUNK)
        return torch.cat([self.spectrogram(part).power for part in parts])

    @property
    def labels(self) -> torch.Tensor:
        """True class indices, (n,) long."""
        return self.clips.labels

    @functools.cached_property
    def probabilities(self) -> torch.Tensor:
        """What the classifier says of the clips, (n, classes)."""
        return probabilities(self.classifier.fused, self.spectrograms)

    @property
    def targets(self) -> torch.Tensor:
        """The classes that are explained, (n,) long: the predicted ones."""
        return self.probabilities.argmax(1)

    def accuracy(self) -> tuple[float, pd.DataFrame]:
        """Test accuracy (per cent) on the whole test fold, and a row per clip: clip, category, label,
        predicted, p.
        """
        db, labels, found = self.study.split(self.spectrogram_type, "test", self.source)
        p = probabilities(self.classifier.fused, db.to(self.classifier.device)).cpu()
        frame = found.frame[["clip", "category", "label"]].assign(
            predicted=p.argmax(1).numpy(), p=p.amax(1).numpy()
        )
        return 100.0 * float((p.argmax(1) == labels).double().mean()), frame

    # Attributions

    def background(self) -> torch.Tensor:
        """The profile's reference clips for Deep SHAP, dB (n, 1, F, T), from the training folds."""
        return self.study.background(self.spectrogram_type)

    def method_options(self, method: str) -> dict:
        """The study's options of a method at this profile, by what the method says of itself."""
        traits, options = METHODS.traits(method), {}
        if traits.budget:
            options[traits.budget] = self.study.settings.sizes.lime_samples
        if traits.background:
            options["background"] = self.background()
        if traits.recipe is not None:
            options["decoder"] = decoders.fitted_decoder(self.study, self.classifier, method)
        return options

    def attribution_folder(self, method: str) -> Path:
        return self.study.results / "attributions" / self.spectrogram_type / self.noise_scenario / method

    def explained(self, method: str) -> pd.DataFrame:
        """Attribute every clip by a method, as far as it is not on file; a row a clip.

        Returns
        -------
        DataFrame
            clip, category, predicted, target, p, seconds; ``additivity_error`` (relative) for methods that
            promise to add up.
        """
        rows = self._explain(method)
        frame = pd.DataFrame(rows).drop(columns="computed")
        frame.insert(2, "predicted", [self.classifier.classes[target] for target in frame["target"]])
        if METHODS.traits(method).additive:
            frame["additivity_error"] = self.additivity_error(method)
        return frame

    def _explain(self, method: str) -> list[dict]:
        """A row a clip (`attribute.attribute`); progress is told of clips that are not on file."""
        options, rows = self.method_options(method), []
        made = attribute.attribute(
            self.classifier, self.clips, method, options, self.attribution_folder(method)
        )
        for row in made:
            rows.append(row)
            if row["computed"]:
                self.study.progress(f"{method} on {self.title}", len(rows), len(self.clips))
        return rows

    def attribute(self, method: str) -> torch.Tensor:
        """Attributions of the clips by a method, (n, 1, F, T), raw and signed; made where they are not on
        file.
        """
        self._explain(method)
        return self.attributions(method)

    def attributions(self, method: str) -> torch.Tensor:
        """Stored attributions (n, 1, F, T); FileNotFoundError where one is missing."""
        return self._stored(method)[0]

    def _stored(self, method: str) -> tuple[torch.Tensor, list[float]]:
        options, folder = self.method_options(method), self.attribution_folder(method)
        return attribute.load_attributions(self.classifier, self.clips, method, options, folder)

    def additivity_error(self, method: str) -> np.ndarray:
        """Relative additivity error per clip of a method that promises to add up."""
        from ..attributions.shap import additivity_error

        db, values = self.spectrograms, self.attributions(method)
        error = additivity_error(self.classifier.model, db, self.targets, self.background(), values.to(db))
        return error.cpu().numpy()

    def training_seconds(self, method: str) -> float:
        """What training cost before the method's first clip (s); 0 for a method that is not trained."""
        return decoders.training_seconds(self.study, self.classifier, method)

    @property
    def methods(self) -> list[str]:
        """Methods of the run that have attributions of this condition, the study's own first."""
        found = [
            method for method in self.study.settings.explained_by if self.attribution_folder(method).is_dir()
        ]
        if not found:
            raise FileNotFoundError(
                f"{self.attribution_folder('')}: no attributions; run 03_attributions first"
            )
        return found

    # Scores

    def scorer(self, n_clips: int | None = None) -> MaskScorer:
        """Scores masks of the clips, or of ``n_clips`` of them; all at once, so for few clips."""
        part = self.first(n_clips) if n_clips is not None else self
        like = next(self.classifier.model.parameters())
        return MaskScorer(
            self.classifier.fused, self.spectrogram, self.spectrogram(part.clips.waveforms.to(like))
        )

    def score(
        self, masks: dict[str, torch.Tensor], protocol: str = "audited", heard: bool = False
    ) -> pd.DataFrame:
        """All metrics of masks (n, 1, F, T) of the clips, a row per clip and mask (`scoring.score_masks`)."""
        return score_masks(self.scorer(), masks, protocol, heard)

    def score_blocks(self, methods: list[str] | None = None) -> Iterator[pd.DataFrame]:
        """Score all masks of the run's methods by its protocols, a block of clips at a time, as far as not on
        file.
        """
        methods, done = methods or self.methods, 0
        folder = self.study.results / "scores" / "blocks" / self.spectrogram_type / self.noise_scenario
        names = dict(zip(("spectrogram_type", "noise_scenario"), self.pair))
        for number, block in self.clips.blocks(score.BLOCK):
            part = self.of(block)
            attributed = {method: part._stored(method) for method in methods}
            protocols = list(self.study.settings.protocols)
            yield score.score_block(self.classifier, block, number, attributed, protocols, folder, names)
            done += len(block)
            self.study.progress(f"scores of {self.title}", done, len(self.clips))

    def score_all(self) -> pd.DataFrame:
        """Score everything (`score_blocks`), and save it as the condition's scores."""
        scores = pd.concat(self.score_blocks(), ignore_index=True)
        save_parquet(scores, self.scores_path)
        return scores

    @property
    def scores_path(self) -> Path:
        return self.study.results / "scores" / self.spectrogram_type / f"{self.noise_scenario}.parquet"

    def scores(self) -> pd.DataFrame:
        """The condition's saved scores: one row per protocol, clip, method, mask and control."""
        if not self.scores_path.is_file():
            raise FileNotFoundError(f"{self.scores_path}: no scores; run 04_mask_study first")
        return pd.read_parquet(self.scores_path)


def in_order(pairs) -> list[Pair]:
    """Pairs in the order of the study's tables, others after them by name."""
    pairs = list(dict.fromkeys(pairs))
    known = [pair for pair in constants.STUDY_CONDITIONS if pair in pairs]
    return [*known, *sorted(pair for pair in pairs if pair not in constants.STUDY_CONDITIONS)]

"""A condition of the study: a spectrogram type with a noise scenario, and all that is computed in it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import nn

from ..attributions import METHODS
from ..audio import inputs
from ..audio.spectrograms import Spectrogram
from ..evaluation.scoring import MaskScorer, decibels, score_masks
from ..files import read_parquet, save_parquet
from ..words import condition_label
from . import attribute, clips, decoders, score

if TYPE_CHECKING:
    from .classifiers import Classifier
    from .materials import Materials

Pair = tuple[str, str]  # spectrogram type, noise scenario


class Condition:
    """A spectrogram type with a noise scenario: its classifier, its clips, their attributions and scores.

    Attributes
    ----------
    study : Study
    spectrogram_type, noise_scenario : str
        The scenario by name, also where it was given as an audio file.
    """

    def __init__(
        self, study: Materials, spectrogram_type: str, noise_scenario: str, chosen: clips.Clips | None = None
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
        parts = self.classifier.sound(waveforms).split(clips.LOAD_CHUNK)
        return torch.cat([decibels(part, self.spectrogram) for part in parts])

    def power(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Power (n, 1, F, T) of waveforms (n, samples), such as a stem's."""
        parts = self.classifier.sound(waveforms).split(clips.LOAD_CHUNK)
        return torch.cat([self.spectrogram(part).power for part in parts])

    @property
    def labels(self) -> torch.Tensor:
        """True class indices, (n,) long."""
        return self.clips.labels

    @functools.cached_property
    def probabilities(self) -> torch.Tensor:
        """What the classifier says of the clips, (n, classes)."""
        return self.classifier.probabilities(self.clips.waveforms)

    @property
    def targets(self) -> torch.Tensor:
        """The classes that are explained, (n,) long: the predicted ones."""
        return self.classifier.reading.predicted(self.probabilities)

    def accuracy(self) -> tuple[float, pd.DataFrame]:
        """Test accuracy (per cent) on the whole test fold, and a row per clip: clip, category, label,
        predicted, p. Clips whose label is not known (-1) do not count; NaN where none is.
        """
        found = clips.split_clips(self.study, self.classifier.sample_rate, "test", self.source)
        p = self.classifier.probabilities(found.waveforms).cpu()
        predicted = self.classifier.reading.predicted(p)[:, None]
        frame = found.frame[["clip", "category", "label"]].assign(
            predicted=predicted[:, 0].numpy(), p=p.gather(1, predicted)[:, 0].numpy()
        )
        known = frame[frame["label"] >= 0]
        return 100.0 * float((known["label"] == known["predicted"]).mean()), frame

    # Attributions

    def background(self) -> torch.Tensor:
        """The profile's reference clips for Deep SHAP, dB (n, 1, F, T), from the training folds."""
        made, kind = self.study.backgrounds, self.spectrogram_type
        if kind not in made:
            made[kind] = self.decibels(
                clips.reference_clips(self.study, self.classifier.sample_rate).waveforms
            )
        return made[kind]

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

    @property
    def usable_methods(self) -> tuple[str, ...]:
        """The run's methods without those that cannot explain the classifier (`Study.refusals`)."""
        refused = self.classifier.info.get("refused", {})
        return tuple(method for method in self.study.settings.explained_by if method not in refused)

    def attribute_once(self, method: str, options: dict) -> None:
        """Attribute the clips by a method and keep nothing; what it refuses is its own error."""
        attribute.attributed(self.classifier, self.clips.waveforms, method, options)

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

        values, found = self.attributions(method), []
        n = 1 if self.classifier.by_sound else clips.LOAD_CHUNK  # each asks about the background again
        for start in range(0, len(self.clips), n):
            part = slice(start, start + n)
            model, batch = self.classifier.of(self.clips.waveforms[part])
            given = (batch.db, self.targets[part], self.background(), values[part].to(batch.db))
            found.append(additivity_error(model, *given).cpu().numpy())
        return np.concatenate(found)

    def each(self) -> Iterator[tuple[nn.Module, torch.Tensor, torch.Tensor]]:
        """Of each clip the model of its pictures, its picture (1, 1, F, T) in dB, and the explained class
        (1,).
        """
        for i, target in enumerate(self.targets):
            model, batch = self.classifier.of(self.clips.waveforms[i : i + 1])
            yield model, batch.db, target[None]

    def training_seconds(self, method: str) -> float:
        """What training cost before the method's first clip (s); 0 for a method that is not trained."""
        return decoders.training_seconds(self.study, self.classifier, method)

    @property
    def methods(self) -> list[str]:
        """Usable methods of the run that have attributions of this condition, the study's own first."""
        found = [method for method in self.usable_methods if self.attribution_folder(method).is_dir()]
        if not found:
            raise FileNotFoundError(
                f"{self.attribution_folder('')}: no attributions; run 03_attributions first"
            )
        return found

    # Scores

    def scorer(self, n_clips: int | None = None) -> MaskScorer:
        """Scores masks of the clips, or of ``n_clips`` of them; all at once, so for few clips."""
        part = self.first(n_clips) if n_clips is not None else self
        return self.classifier.scorer(part.clips.waveforms)

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
        for number, block in self.clips.blocks(score.block_size(self.study.device)):
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
        return read_parquet(self.scores_path)

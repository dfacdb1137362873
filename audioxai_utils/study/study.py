"""The study that everybody carries: its settings, its conditions, and what it has on file.

A condition is a spectrogram type with a noise scenario. ``open_study(results_dir)`` opens a run, finished or
not; everything in it is read or made when it is first asked for.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pandas as pd
import torch

from .. import constants
from ..attributions import METHODS
from ..files import read_table, save_figure, save_table
from . import clips
from .condition import Condition, Pair
from .materials import Materials
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


class Study(Materials):
    """One run of the study: its conditions and its files, over what they share (`Materials`)."""

    def __repr__(self) -> str:
        return f"Study({self.settings.profile}, {self.settings.dataset}, {self.results})"

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

    def refusals(self) -> dict[str, str]:
        """Method -> why it cannot explain the user's classifier, found out on a clip and written to its
        file.
        """
        condition, refused = self.condition(constants.OWN).first(1), {}
        for method in self.settings.explained_by:
            traits = METHODS.traits(method)
            cheap = {traits.budget: 4} if traits.budget else {}
            try:
                options = condition.method_options(method) | cheap
                condition.attribute_once(method, options)
            except (ValueError, TypeError, NotImplementedError) as error:
                refused[method] = " ".join(str(error).split())
        self.save_own(condition.classifier.info | {"refused": refused})
        if len(refused) == len(self.settings.explained_by):
            raise ValueError(f"no method of this run can explain the classifier: {refused}")
        return refused

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
        return read_table(path)

    def scores(self) -> pd.DataFrame:
        """Scores of all conditions of the run; FileNotFoundError where one is missing."""
        return pd.concat([each.scores() for each in self.conditions], ignore_index=True)


def in_order(pairs) -> list[Pair]:
    """Pairs in the order of the study's tables, others after them by name."""
    pairs = list(dict.fromkeys(pairs))
    known = [pair for pair in constants.STUDY_CONDITIONS if pair in pairs]
    return [*known, *sorted(pair for pair in pairs if pair not in constants.STUDY_CONDITIONS)]

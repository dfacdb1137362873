"""The clips of a condition: chosen, loaded, mixed with noise, with their stems where these are known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from ..audio.datasets import background_clips, load_noise, load_waveforms, usable
from ..audio.noise import mix_stems
from ..audio.spectrograms import Spectrogram
from ..evaluation.scoring import decibels
from ..numerics import one_thread, to_device

if TYPE_CHECKING:
    from .materials import Materials

LOAD_CHUNK = 16  # clips turned into spectrograms at once


@dataclass(frozen=True)
class Clips:
    """Clips of a condition: ``frame`` has a row and ``waveforms`` (n, samples) a row for each.

    ``stems`` are source and interferer, (n, samples) each, that add up to ``waveforms``: clip and
    noise of a noisy scenario, event and background of a clean generated clip or scene, else None.
    ``rows`` (n,) are the clips' rows in the list they were chosen from: unusable ones are left out of it.
    """

    frame: pd.DataFrame
    waveforms: torch.Tensor
    problems: list[str]
    stems: tuple[torch.Tensor, torch.Tensor] | None = None
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def labels(self) -> torch.Tensor:
        """Class indices, (n,) long."""
        return torch.tensor(self.frame["label"].tolist())

    def blocks(self, size: int) -> Iterator[tuple[int, Clips]]:
        """(number, clips) of each block of ``size`` rows; a block is the same whichever others are loaded."""
        rows = np.arange(len(self)) if self.rows is None else self.rows
        for number in np.unique(rows // size):
            first, last = np.searchsorted(rows, [number * size, (number + 1) * size])
            stems = None if self.stems is None else tuple(stem[first:last] for stem in self.stems)
            frame = self.frame.iloc[first:last].reset_index(drop=True)
            yield int(number), Clips(frame, self.waveforms[first:last], [], stems, rows[first:last])

    def first(self, n: int | None) -> Clips:
        """``n`` of the clips, spread over the classes as the study's own are; all of them for None."""
        chosen = self.frame["clip"].isin(choose(self.frame, n)["clip"]).to_numpy(copy=True)
        stems = None if self.stems is None else tuple(stem[chosen] for stem in self.stems)
        frame = self.frame[chosen].reset_index(drop=True)
        return replace(self, frame=frame, waveforms=self.waveforms[chosen], stems=stems, rows=None)


def is_correct(label: pd.Series, target: pd.Series) -> pd.Series:
    """Whether the explained class is the clip's; NA where that is not known (label -1)."""
    right = label == target
    return right if (label >= 0).all() else right.astype("boolean").mask(label < 0)


def choose(frame: pd.DataFrame, n: int | None) -> pd.DataFrame:
    """``n`` clips spread evenly over the classes, in file order; all of them for None."""
    if n is None or n >= len(frame):
        return frame.reset_index(drop=True)
    rank = frame.groupby("label").cumcount()
    picked = frame.assign(rank=rank).sort_values(["rank", "label"], kind="stable").index[:n]
    return frame.loc[sorted(picked)].reset_index(drop=True)


def load_clips(
    study: Materials,
    frame: pd.DataFrame,
    sample_rate: int,
    noise_scenario: str = "clean",
    may_be_none: bool = False,
) -> Clips:
    """Waveforms of the clips of ``frame``, mixed with the scenario's noise; unusable ones are left out.

    They are of the profile's dtype. None that can be used is a ValueError, unless there ``may_be_none``.
    """
    seconds = study.dataset.seconds
    waveforms, problems = load_waveforms(frame, sample_rate, study.dtype, seconds)
    good = usable(waveforms)
    rows = np.flatnonzero(good.numpy())
    frame, waveforms = frame.iloc[rows].reset_index(drop=True), waveforms[good].to(study.dtype)
    if frame.empty and not may_be_none:
        raise ValueError(f"none of the {len(good)} clips can be used; the first problem: {problems[0]}")
    source = study.noise_source(noise_scenario)
    noise = load_noise(source, sample_rate, study.settings.noise_root, seconds=seconds)
    if noise is None or frame.empty:
        return Clips(frame, waveforms, problems, rows=rows)
    with one_thread():  # a sum over threads would make a clip's last bit depend on their number
        mixture, *stems = mix_stems(waveforms, noise.to(study.dtype))
    return Clips(frame, mixture, problems, tuple(stems), rows)


def shard_rows(n: int, shard: tuple[int, int], block: int = 1) -> np.ndarray:
    """Rows out of ``n`` that are a shard's, in order: blocks of ``block`` rows are dealt out to the shards in
    turn.

    Parameters
    ----------
    n : int
        Number of rows.
    shard : tuple of int
        Number of the shard, from 0, and of shards.
    block : int
        Rows that stay together.
    """
    index, n_shards = shard
    if not 0 <= index < n_shards:
        raise ValueError(f"shard must be (number from 0, count) with the number below the count; got {shard}")
    rows = np.arange(n)
    return rows[rows // block % n_shards == index]


def explained_clips(
    study: Materials, sample_rate: int, noise_scenario: str, shard: tuple[int, int] = (0, 1), block: int = 1
) -> Clips:
    """The test clips that are explained, the same ones in every condition, with their stems where there are
    any.

    Of them, a ``shard`` in blocks (`shard_rows`) reads and keeps its own alone; it may have none.
    """
    frame = choose(study.dataset.split("test"), study.settings.sizes.n_clips)
    mine = shard_rows(len(frame), shard, block)
    clips = load_clips(study, frame.iloc[mine], sample_rate, noise_scenario, may_be_none=shard != (0, 1))
    clips = replace(clips, rows=mine[clips.rows])
    if clips.stems is None and len(clips) and study.dataset.has_stems:
        stems = [study.dataset.stems(clip, sample_rate, study.dtype) for clip in clips.frame["clip"]]
        clips = replace(clips, stems=tuple(torch.stack(stem) for stem in zip(*stems)))
    return clips


def split_clips(study: Materials, sample_rate: int, split: str, noise_scenario: str = "clean") -> Clips:
    """The clips of a split (``train``, ``validation``, ``test``) that the profile reads."""
    return load_clips(study, split_frame(study, split), sample_rate, noise_scenario)


def split_frame(study: Materials, split: str) -> pd.DataFrame:
    """The dataset's rows of the clips of a split that the profile reads."""
    frame = study.dataset.split(split)
    per_class = study.settings.sizes.clips_per_class
    if per_class is not None:  # of the test fold too
        frame = frame[frame.groupby(["label", "fold"]).cumcount() < per_class].reset_index(drop=True)
    return frame


def reference_clips(study: Materials, sample_rate: int) -> Clips:
    """The profile's reference clips for Deep SHAP, of the training folds."""
    return load_clips(
        study, background_clips(study.dataset, study.settings.sizes.background_clips), sample_rate
    )


def decibels_of(waveforms: torch.Tensor, spectrogram: Spectrogram, device: torch.device) -> torch.Tensor:
    """dB spectrograms (n, 1, F, T) of waveforms (n, samples), made on ``device``, on the CPU."""
    parts = (to_device(part, device) for part in waveforms.split(LOAD_CHUNK))
    return torch.cat([decibels(part, spectrogram).cpu() for part in parts])

"""One run of the study: its settings, its clips and its classifiers.

A condition is a spectrogram type with a noise scenario. What is computed in a condition is in ``pipeline``.
"""

from __future__ import annotations

import functools
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from .. import constants
from ..audio import inputs
from ..audio.datasets import Dataset, load_dataset, load_noise, load_stems, load_waveforms, usable
from ..numerics import to_device
from ..models.inference import inference_copy
from ..models.cnn14 import Cnn14, load_state
from ..audio.noise import mix_stems
from ..numerics import default_dtype, one_thread
from ..files import atomic_path
from ..evaluation.scoring import probabilities
from ..audio.spectrograms import Spectrogram, get_spectrogram

LOAD_CHUNK = 16  # clips turned into spectrograms at once


@dataclass(frozen=True)
class Settings:
    """One run's choices, as the notebooks' parameters give them; checked when made.

    Attributes
    ----------
    profile : str
        ``smoke``, ``quick`` or ``paper``.
    dataset : str
        ``generated``, ``esc10`` or ``esc50``.
    data_root, noise_root, results_dir : str
        Folders; empty is the default.
    seed : int
    device : str
        ``cpu``, ``cuda`` or empty for CUDA where there is one.
    n_clips : int
        Test clips that are explained; 0 is the profile's number.
    """

    profile: str = "quick"
    dataset: str = "generated"
    data_root: str = ""
    noise_root: str = ""
    results_dir: str = ""
    seed: int = constants.SEED
    device: str = ""
    n_clips: int = 0

    def __post_init__(self) -> None:
        constants.check_choice("profile", self.profile, constants.PROFILES)
        constants.check_choice("dataset", self.dataset, constants.DATASETS)
        device = self.device if self.device not in ("", "auto") else ("cuda" if torch.cuda.is_available() else "cpu")
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(f"device must be cpu here, PyTorch finds no CUDA; got {self.device!r}")
        if self.n_clips < 0:
            raise ValueError(f"n_clips must be a number of clips, or 0 for the profile's; got {self.n_clips}")
        object.__setattr__(self, "device", device)
        object.__setattr__(self, "seed", int(self.seed))

    @property
    def sizes(self) -> constants.Profile:
        sizes = constants.PROFILES[self.profile]
        return replace(sizes, n_clips=self.n_clips) if self.n_clips else sizes

    @property
    def results(self) -> Path:
        return Path(self.results_dir) if self.results_dir else constants.default_results_dir(self.profile, self.dataset)

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64 if self.sizes.reproducible else torch.float32

    @functools.cached_property
    def data(self) -> Dataset:
        return load_dataset(self.dataset, self.data_root or None)


@dataclass(frozen=True)
class Classifier:
    """A trained model with what is needed to use it."""

    model: Cnn14
    spectrogram: Spectrogram
    classes: tuple[str, ...]
    info: dict
    digest: str

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    @property
    def training_mean(self) -> torch.Tensor:
        """Mean dB of every bin over its training clips and frames, (1, 1, F, 1)."""
        if "training_mean" not in self.info:
            raise ValueError("the checkpoint holds no training mean; run notebook 02_fine_tuning again")
        return torch.tensor(self.info["training_mean"], dtype=self.dtype)[None, None, :, None]

    @functools.cached_property
    def folded(self) -> nn.Module:
        """The model's copy for inference (`inference.inference_copy`): the same logits to rounding, sooner."""
        generator = torch.Generator().manual_seed(0)
        second = torch.randn(1, self.spectrogram.sample_rate, generator=generator, dtype=torch.float64)
        return inference_copy(self.model, self.spectrogram.decibels(second.to(next(self.model.parameters()))))


@dataclass(frozen=True)
class Clips:
    """Clips of a condition: ``frame`` has a row and ``waveforms`` (n, samples) a row for each.

    ``stems`` are target and interferer, (n, samples) each, that add up to ``waveforms``: clip and
    noise of a noisy scenario, event and background of a clean generated clip, else None. ``places`` (n,)
    are the rows of the clips in the list they were chosen from: unusable ones are left out of it.
    """

    frame: pd.DataFrame
    waveforms: torch.Tensor
    problems: list[str]
    stems: tuple[torch.Tensor, torch.Tensor] | None = None
    places: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.frame)

    def blocks(self, size: int) -> Iterator[tuple[int, Clips]]:
        """(number, clips) of each block of ``size`` places; its clips do not hang on which others are loaded."""
        places = np.arange(len(self)) if self.places is None else self.places
        for number in np.unique(places // size):
            first, last = np.searchsorted(places, [number * size, (number + 1) * size])
            stems = None if self.stems is None else tuple(stem[first:last] for stem in self.stems)
            frame = self.frame.iloc[first:last].reset_index(drop=True)
            yield int(number), Clips(frame, self.waveforms[first:last], [], stems, places[first:last])


# --- clips -----------------------------------------------------------------------------------


def choose(frame: pd.DataFrame, n: int | None) -> pd.DataFrame:
    """``n`` clips spread evenly over the classes, in file order; all of them for None."""
    if n is None or n >= len(frame):
        return frame.reset_index(drop=True)
    rank = frame.groupby("label").cumcount()
    picked = frame.assign(rank=rank).sort_values(["rank", "label"], kind="stable").index[:n]
    return frame.loc[sorted(picked)].reset_index(drop=True)


def first_clips(clips: Clips, n: int | None) -> Clips:
    """``n`` of the clips, spread over the classes as the study's own are; all of them for None."""
    chosen = clips.frame["clip"].isin(choose(clips.frame, n)["clip"]).to_numpy(copy=True)
    stems = None if clips.stems is None else tuple(stem[chosen] for stem in clips.stems)
    frame = clips.frame[chosen].reset_index(drop=True)
    return replace(clips, frame=frame, waveforms=clips.waveforms[chosen], stems=stems, places=None)


def load_clips(
    settings: Settings, frame: pd.DataFrame, sample_rate: int, noise_scenario: str = "clean", may_be_none: bool = False
) -> Clips:
    """Waveforms of the clips of ``frame``, mixed with the scenario's noise; unusable ones are left out.

    They are of the profile's dtype. None that can be used is a ValueError, unless there ``may_be_none``.
    """
    waveforms, problems = load_waveforms(frame, sample_rate, settings.dtype)
    good = usable(waveforms)
    places = np.flatnonzero(good.numpy())
    frame, waveforms = frame.iloc[places].reset_index(drop=True), waveforms[good].to(settings.dtype)
    if frame.empty and not may_be_none:
        raise ValueError(f"none of the {len(good)} clips can be used; the first problem: {problems[0]}")
    noise = load_noise(scenario_argument(settings, noise_scenario), sample_rate, settings.noise_root or None)
    if noise is None or frame.empty:
        return Clips(frame, waveforms, problems, places=places)
    with one_thread():  # a sum over threads would make a clip's last bit hang on their number
        mixture, *stems = mix_stems(waveforms, noise.to(settings.dtype))
    return Clips(frame, mixture, problems, tuple(stems), places)


def shard_places(n: int, shard: tuple[int, int], block: int = 1) -> np.ndarray:
    """Rows out of ``n`` that are a shard's, in order: blocks of ``block`` rows are dealt out to the shards in turn.

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
    settings: Settings, sample_rate: int, noise_scenario: str, shard: tuple[int, int] = (0, 1), block: int = 1
) -> Clips:
    """The test clips that are explained, the same ones in every condition, with their stems where there are any.

    Of them, a ``shard`` in blocks (`shard_places`) reads and keeps its own alone; it may have none.
    """
    frame = choose(settings.data.split("test"), settings.sizes.n_clips)
    mine = shard_places(len(frame), shard, block)
    clips = load_clips(settings, frame.iloc[mine], sample_rate, noise_scenario, may_be_none=shard != (0, 1))
    clips = replace(clips, places=mine[clips.places])
    if clips.stems is None and len(clips) and settings.dataset == "generated":
        stems = [load_stems(settings.data, clip, sample_rate, settings.dtype) for clip in clips.frame["clip"]]
        clips = replace(clips, stems=tuple(torch.stack(stem) for stem in zip(*stems)))
    return clips


def split_spectrograms(settings: Settings, spectrogram: Spectrogram, split: str, noise_scenario: str = "clean"):
    """(dB spectrograms (n, 1, F, T) on the CPU, labels (n,), Clips) of a split; computed where the transform is."""
    clips, device = split_clips(settings, spectrogram.sample_rate, split, noise_scenario), spectrogram.window.device
    parts = clips.waveforms.to(settings.dtype).split(LOAD_CHUNK)
    db = torch.cat([spectrogram.decibels(to_device(part, device)).cpu() for part in parts])
    return db, torch.tensor(clips.frame["label"].tolist()), clips


def split_clips(settings: Settings, sample_rate: int, split: str, noise_scenario: str = "clean") -> Clips:
    """The clips of a split that the profile reads."""
    frame = settings.data.split(split)
    per_class = settings.sizes.clips_per_class
    if per_class is not None:  # of the test fold too
        frame = frame[frame.groupby(["label", "fold"]).cumcount() < per_class].reset_index(drop=True)
    return load_clips(settings, frame, sample_rate, noise_scenario)


def scenario_name(noise_scenario: str) -> str:
    """A scenario given as an audio file goes by its stem, in [a-z0-9_], in tables and file names."""
    return inputs.scenario_name(noise_scenario)


def scenario_argument(settings: Settings, name: str) -> str:
    """What ``load_noise`` takes for a scenario's name in a table: itself, or the audio file it stands for.

    The file is found in the run's ``config.json``, else in ``noise_root``.
    """
    if name in constants.NOISE_SCENARIOS or inputs.is_recording(name):
        return name
    path = settings.results / "config.json"
    files = json.loads(path.read_text(encoding="utf-8")).get("noise_files", {}) if path.is_file() else {}
    if name in files:
        return files[name]
    paths = sorted(Path(settings.noise_root).glob("*")) if settings.noise_root else []
    found = [str(path) for path in paths if inputs.is_recording(path.name) and scenario_name(path.name) == name]
    return found[0] if found else name  # load_noise refuses it


# --- the classifier --------------------------------------------------------------------------


def new_model(settings: Settings, spectrogram: Spectrogram) -> Cnn14:
    """An untrained Cnn14 of the profile's width, its weights drawn from the seed."""
    torch.manual_seed(settings.seed)
    sizes = settings.sizes
    with default_dtype(settings.dtype):
        return Cnn14(spectrogram.n_bins, len(settings.data.classes), sizes.width, sizes.dropout)


def checkpoint_path(settings: Settings, spectrogram_type: str) -> Path:
    return settings.results / "models" / f"{spectrogram_type}.pt"


def save_classifier(settings: Settings, model: Cnn14, spectrogram_type: str, info: dict) -> Path:
    """Write a checkpoint that ``load_classifier`` reads with ``weights_only=True``."""
    path = checkpoint_path(settings, spectrogram_type)
    content = {
        "model": model.state_dict(), "n_bins": model.n_bins, "n_classes": model.n_classes, "width": model.width,
        "classes": list(settings.data.classes), "spectrogram_type": spectrogram_type, "info": info,
    }
    with atomic_path(path) as temporary:
        torch.save(content, temporary)
    return path


def load_classifier(settings: Settings, spectrogram_type: str) -> Classifier:
    """The classifier that notebook 02 wrote; FileNotFoundError or ValueError where it cannot be used."""
    path = checkpoint_path(settings, spectrogram_type)
    content = load_state(path)
    lacking = {"model", "n_bins", "n_classes", "width", "classes", "info"} - set(content)
    if lacking:
        raise ValueError(f"{path}: lacks {', '.join(sorted(lacking))}; run notebook 02_fine_tuning again")
    if tuple(content["classes"]) != settings.data.classes:
        raise ValueError(f"{path}: was trained on other classes than {settings.dataset} has; use another --results")
    spectrogram = get_spectrogram(spectrogram_type, settings.dtype).to(settings.device)
    if content["n_bins"] != spectrogram.n_bins:
        bins = f"{content['n_bins']} bins, {spectrogram_type} has {spectrogram.n_bins}"
        raise ValueError(f"{path}: was trained on {bins}; run notebook 02_fine_tuning again")
    model = _restored_model(path, content).eval().to(settings.device)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return Classifier(model, spectrogram, tuple(content["classes"]), content["info"], digest)


def _restored_model(path: Path, content: dict) -> Cnn14:
    """The model of a checkpoint, in the dtype it was saved in; ValueError where a tensor does not fit."""
    try:
        like = content["model"].get("head.weight", torch.zeros(1))
        with default_dtype(like.dtype):
            model = Cnn14(content["n_bins"], content["n_classes"], content["width"])
        model.load_state_dict(content["model"])
        return model
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        # torch's own message has a line for each tensor
        lines = [line.strip() for line in str(error).splitlines()]
        reason = (lines[1] if len(lines) > 1 else lines[0])[:160].rstrip(". ")
        raise ValueError(f"{path}: does not fit the model ({reason}); run notebook 02_fine_tuning again") from error


def accuracy(settings: Settings, classifier: Classifier, noise_scenario: str) -> tuple[float, pd.DataFrame]:
    """Test accuracy (per cent) in a scenario, and a row per clip: clip, label, predicted, p."""
    db, labels, clips = split_spectrograms(settings, classifier.spectrogram, "test", noise_scenario)
    p = probabilities(classifier.folded, db.to(settings.device)).cpu()
    frame = clips.frame[["clip", "category", "label"]].assign(predicted=p.argmax(1).numpy(), p=p.amax(1).numpy())
    return 100.0 * float((p.argmax(1) == labels).double().mean()), frame


# --- small things the notebooks share --------------------------------------------------------


def spectrograms_of(classifier: Classifier, clips: Clips) -> torch.Tensor:
    """dB spectrograms (n, 1, F, T) of clips, on the classifier's device and in its dtype."""
    device = next(classifier.model.parameters()).device
    parts = clips.waveforms.to(device, classifier.dtype).split(LOAD_CHUNK)
    return torch.cat([classifier.spectrogram(part).db for part in parts])


def protocols(protocol: str) -> list[str]:
    """``both`` is both of them, in order."""
    constants.check_choice("protocol", protocol, (*constants.PROTOCOLS, "both"))
    return list(constants.PROTOCOLS) if protocol == "both" else [protocol]


def scenarios(conditions: str = "") -> list[str]:
    """Noise scenarios of ``conditions`` ("mel_db/clean mel_db/white"), clean first; empty: the study's four."""
    if not conditions:
        return list(constants.NOISE_SCENARIOS)
    return list(dict.fromkeys(["clean", *(condition.split("/", 1)[1] for condition in conditions.split())]))


def conditions_of(scores: pd.DataFrame) -> list[tuple[str, str]]:
    """Conditions of a frame, in the order of the study's tables."""
    found = list(dict.fromkeys(zip(scores["spectrogram_type"], scores["noise_scenario"])))
    return [*(c for c in constants.STUDY_CONDITIONS if c in found), *sorted(c for c in found if c not in constants.STUDY_CONDITIONS)]


def of_condition(frame: pd.DataFrame, condition: tuple[str, str]) -> pd.DataFrame:
    return frame[(frame["spectrogram_type"] == condition[0]) & (frame["noise_scenario"] == condition[1])]


def table_number(condition: tuple[str, str]) -> str:
    """II to VI for the study's conditions, else the condition's name."""
    return constants.TABLE_NUMBERS.get(condition, "_".join(condition))


def condition_title(condition: tuple[str, str]) -> str:
    return f"{condition[0]}, {condition[1]}"


def report_progress(what: str, done: int, total: int) -> None:
    """A line on stderr at every tenth part: readable in a terminal, in a log and in a notebook's page."""
    if done == total or done * 10 // total > (done - 1) * 10 // total:
        print(f"{what}: {done}/{total}", file=sys.stderr, flush=True)

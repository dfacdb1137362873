"""The study, step by step, on files: what the notebooks call.

A cell is a spectrogram type with a noise scenario. Everything is resumable: an attribution
is one file a clip, named by what it was computed from, and a finished one is not computed again.
"""

from __future__ import annotations

import functools
import hashlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from . import config
from .attributions import METHODS
from .data import Dataset, background_clips, load_dataset, load_noise, load_waveforms, usable
from .masks import build_masks
from .models import Cnn14, load_state
from .noise import mix
from .results import atomic_path, save_parquet
from .scoring import probabilities, score_masks
from .spectrograms import Spectrogram, get_spectrogram

LOAD_CHUNK = 64  # clips turned into spectrograms at once


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
    """

    profile: str = "quick"
    dataset: str = "generated"
    data_root: str = ""
    noise_root: str = ""
    results_dir: str = ""
    seed: int = 42
    device: str = ""

    def __post_init__(self) -> None:
        config.check_choice("profile", self.profile, config.PROFILES)
        config.check_choice("dataset", self.dataset, config.DATASETS)
        device = self.device if self.device not in ("", "auto") else ("cuda" if torch.cuda.is_available() else "cpu")
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError(f"device must be cpu here, PyTorch finds no CUDA; got {self.device!r}")
        object.__setattr__(self, "device", device)
        object.__setattr__(self, "seed", int(self.seed))

    @property
    def sizes(self) -> config.Profile:
        return config.PROFILES[self.profile]

    @property
    def results(self) -> Path:
        return Path(self.results_dir) if self.results_dir else config.default_results_dir(self.profile, self.dataset)

    @property
    def dtype(self) -> torch.dtype:
        return torch.float64 if self.sizes.double else torch.float32

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


@dataclass(frozen=True)
class Clips:
    """Clips of a cell: ``frame`` has a row and ``waveforms`` (n, samples) a row for each."""

    frame: pd.DataFrame
    waveforms: torch.Tensor
    problems: list[str]

    def __len__(self) -> int:
        return len(self.frame)


# --- clips -----------------------------------------------------------------------------------


def choose(frame: pd.DataFrame, n: int | None) -> pd.DataFrame:
    """``n`` clips spread evenly over the classes, in file order; all of them for None."""
    if n is None or n >= len(frame):
        return frame.reset_index(drop=True)
    rank = frame.groupby("label").cumcount()
    picked = frame.assign(rank=rank).sort_values(["rank", "label"], kind="stable").index[:n]
    return frame.loc[sorted(picked)].reset_index(drop=True)


def load_clips(settings: Settings, frame: pd.DataFrame, sample_rate: int, noise_scenario: str = "clean") -> Clips:
    """Waveforms of the clips of ``frame``, mixed with the scenario's noise; unusable ones are left out."""
    waveforms, problems = load_waveforms(frame, sample_rate)
    good = usable(waveforms)
    frame, waveforms = frame[good.numpy()].reset_index(drop=True), waveforms[good]
    if frame.empty:
        raise ValueError(f"none of the {len(good)} clips can be used; the first problem: {problems[0]}")
    noise = load_noise(noise_scenario, sample_rate, settings.noise_root or None)
    return Clips(frame, waveforms if noise is None else mix(waveforms, noise), problems)


def explained_clips(settings: Settings, sample_rate: int, noise_scenario: str) -> Clips:
    """The test clips that are explained, the same ones in every cell."""
    return load_clips(settings, choose(settings.data.split("test"), settings.sizes.n_clips), sample_rate, noise_scenario)


def split_spectrograms(settings: Settings, spectrogram: Spectrogram, split: str, noise_scenario: str = "clean"):
    """(dB spectrograms (n, 1, F, T), labels (n,), Clips) of a split."""
    frame = settings.data.split(split)
    per_class = settings.sizes.train_clips
    if per_class is not None and split != "test":
        frame = frame[frame.groupby(["label", "fold"]).cumcount() < per_class].reset_index(drop=True)
    clips = load_clips(settings, frame, spectrogram.sample_rate, noise_scenario)
    db = torch.cat([spectrogram(part.to(settings.dtype)).db for part in clips.waveforms.split(LOAD_CHUNK)])
    return db, torch.from_numpy(clips.frame["label"].to_numpy()).long(), clips


# --- the classifier --------------------------------------------------------------------------


def new_model(settings: Settings, spectrogram: Spectrogram) -> Cnn14:
    """An untrained Cnn14 of the profile's width, its weights drawn from the seed."""
    torch.manual_seed(settings.seed)
    sizes = settings.sizes
    model = Cnn14(spectrogram.n_bins, len(settings.data.classes), sizes.width, sizes.dropout)
    return model.to(settings.dtype)


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
    model = Cnn14(content["n_bins"], content["n_classes"], content["width"])
    model.load_state_dict(content["model"])
    model = model.to(next(iter(content["model"].values())).dtype).eval().to(settings.device)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    spectrogram = get_spectrogram(spectrogram_type).to(settings.device)
    return Classifier(model, spectrogram, tuple(content["classes"]), content["info"], digest)


def accuracy(settings: Settings, classifier: Classifier, noise_scenario: str) -> tuple[float, pd.DataFrame]:
    """Test accuracy (per cent) in a scenario, and a row per clip: clip, label, predicted, p."""
    db, labels, clips = split_spectrograms(settings, classifier.spectrogram, "test", noise_scenario)
    p = probabilities(classifier.model, db.to(settings.device)).cpu()
    frame = clips.frame[["clip", "category", "label"]].assign(predicted=p.argmax(1).numpy(), p=p.amax(1).numpy())
    return 100.0 * float((p.argmax(1) == labels).double().mean()), frame


# --- attributions ----------------------------------------------------------------------------


def method_options(settings: Settings, classifier: Classifier, method: str) -> dict:
    """The study's options of a method at this profile."""
    if method == "lime":
        return {"n_samples": settings.sizes.lime_samples, "seed": 12345}
    if method.startswith("shap"):
        frame = background_clips(settings.data, settings.sizes.background_clips)
        clips = load_clips(settings, frame, classifier.spectrogram.sample_rate)
        waveforms = clips.waveforms.to(settings.device, classifier.dtype)
        return {"background": torch.cat([classifier.spectrogram(part).db for part in waveforms.split(LOAD_CHUNK)])}
    return {}


@functools.cache
def source_digest() -> str:
    """Digest of the code that attributions are computed with: a changed method computes them anew."""
    folder = Path(__file__).parent
    files = [*sorted((folder / "attributions").glob("*.py"))]
    files += [folder / f"{name}.py" for name in ("spectrograms", "noise", "models", "inference")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files if file.is_file())).hexdigest()[:16]


def attribution_folder(settings: Settings, spectrogram_type: str, noise_scenario: str, method: str) -> Path:
    return settings.results / "attributions" / spectrogram_type / scenario_name(noise_scenario) / method


def scenario_name(noise_scenario: str) -> str:
    """A scenario given as an audio file goes by its stem in file names."""
    return noise_scenario if noise_scenario in config.NOISE_SCENARIOS else Path(noise_scenario).stem


def scenario_argument(settings: Settings, name: str) -> str:
    """What ``load_noise`` takes for a scenario's name in a table: itself, or the audio file in noise_root."""
    if name in config.NOISE_SCENARIOS or not settings.noise_root:
        return name
    files = [path for path in Path(settings.noise_root).glob(f"{name}.*")]
    return str(files[0]) if files else name


def _key(classifier: Classifier, waveform: torch.Tensor, method: str, options: dict) -> str:
    digest = hashlib.sha256(f"{source_digest()} {classifier.digest} {method}".encode())
    for name, value in sorted(options.items()):
        digest.update(name.encode())
        digest.update(value.cpu().numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode())
    digest.update(waveform.numpy().tobytes())
    return digest.hexdigest()[:24]


def attribute(
    settings: Settings, classifier: Classifier, clips: Clips, cell: tuple[str, str], method: str, shard=(0, 1)
) -> Iterator[dict]:
    """Attribute every clip (of a shard) of a cell by one method, one file a clip.

    Yields
    ------
    dict
        clip, seconds, target, p, computed (False where the file was there already).
    """
    folder = attribution_folder(settings, *cell, method)
    options = method_options(settings, classifier, method)
    for i in range(shard[0], len(clips), shard[1]):
        row, waveform = clips.frame.iloc[i], clips.waveforms[i]
        path, key = folder / f"{row['clip']}.npz", _key(classifier, waveform, method, options)
        record = _read_attribution(path, key)
        computed = record is None
        if computed:
            record = _attribute_clip(classifier, waveform, method, options) | {"key": key}
            with atomic_path(path) as temporary:
                np.savez(temporary, **record)
        scalars = {name: record[name].item() for name in ("seconds", "target", "p")}
        yield {"clip": row["clip"], "category": row["category"], **scalars, "computed": computed}


def _attribute_clip(classifier: Classifier, waveform: torch.Tensor, method: str, options: dict) -> dict:
    device = next(classifier.model.parameters()).device
    db = classifier.spectrogram(waveform[None].to(device, classifier.dtype)).db
    p = probabilities(classifier.model, db)[0]
    target = p.argmax()[None]
    started = time.perf_counter()
    attribution = METHODS[method](classifier.model, db, target, **options)
    if db.device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    return {
        "attribution": attribution[0, 0].cpu().numpy(), "target": np.array(int(target)),
        "p": np.array(float(p.max())), "seconds": np.array(seconds),
    }


def _read_attribution(path: Path, key: str | None = None) -> dict | None:
    """A stored attribution; None where there is none, or one of another key."""
    if not path.is_file():
        return None
    with np.load(path) as content:
        record = {name: content[name] for name in content.files}
    return record if key is None or str(record["key"]) == key else None


def load_attributions(settings: Settings, clips: Clips, cell: tuple[str, str], method: str) -> tuple[torch.Tensor, list]:
    """Attributions (n, 1, F, T) of a cell's clips, and the seconds each took.

    Raises
    ------
    FileNotFoundError
        One is missing: notebook 03 has to run first.
    """
    folder = attribution_folder(settings, *cell, method)
    records = [_read_attribution(folder / f"{clip}.npz") for clip in clips.frame["clip"]]
    missing = sum(record is None for record in records)
    if missing:
        raise FileNotFoundError(f"{folder}: {missing} of {len(clips)} attributions are missing; run 03_attributions")
    values = torch.from_numpy(np.stack([record["attribution"] for record in records])[:, None])
    return values, [float(record["seconds"]) for record in records]


# --- scores ----------------------------------------------------------------------------------


def score(
    settings: Settings, classifier: Classifier, clips: Clips, cell: tuple[str, str], method: str, protocol: str
) -> pd.DataFrame:
    """Scores of all masks of one method on a cell's clips, tidy: one row per clip and mask."""
    attribution, seconds = load_attributions(settings, clips, cell, method)
    parts = []
    for start in range(0, len(clips), 8):  # eight clips' masks in memory at once
        rows = slice(start, start + 8)
        waveforms = clips.waveforms[rows].to(settings.device, classifier.dtype)
        masks = build_masks(attribution[rows].to(settings.device, classifier.dtype), protocol)
        batch = classifier.spectrogram(waveforms)
        part = score_masks(classifier.model, classifier.spectrogram, batch, masks, protocol)
        parts.append(part.assign(index=part["index"] + start))
    scores = pd.concat(parts, ignore_index=True)
    place = scores.pop("index").to_numpy()
    frame = clips.frame.iloc[place].reset_index(drop=True)
    correct = frame["label"].to_numpy() == scores["target"].to_numpy()
    known = {
        "protocol": protocol, "spectrogram_type": cell[0], "noise_scenario": scenario_name(cell[1]), "method": method,
        "clip": frame["clip"], "category": frame["category"], "label": frame["label"], "correct": correct,
    }
    return pd.concat([pd.DataFrame(known), scores], axis=1).assign(seconds=np.array(seconds)[place])


def scores_path(settings: Settings, cell: tuple[str, str]) -> Path:
    return settings.results / "scores" / cell[0] / f"{scenario_name(cell[1])}.parquet"


def save_scores(settings: Settings, cell: tuple[str, str], scores: pd.DataFrame) -> Path:
    path = scores_path(settings, cell)
    save_parquet(scores, path)
    return path


def load_scores(settings: Settings, cells: str = "") -> pd.DataFrame:
    """Scores of ``cells`` ("mel_db/clean mel_db/white"; empty: all that there are); FileNotFoundError for none."""
    folder = settings.results / "scores"
    paths = [scores_path(settings, cell.split("/", 1)) for cell in cells.split()] or sorted(folder.glob("*/*.parquet"))
    missing = [path for path in paths if not path.is_file()]
    if missing or not paths:
        raise FileNotFoundError(f"{(missing or [folder])[0]}: no scores; run 04_mask_study first")
    return pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)


# --- small things the notebooks share --------------------------------------------------------


def spectrograms_of(classifier: Classifier, clips: Clips) -> torch.Tensor:
    """dB spectrograms (n, 1, F, T) of clips, on the classifier's device and in its dtype."""
    device = next(classifier.model.parameters()).device
    parts = clips.waveforms.to(device, classifier.dtype).split(LOAD_CHUNK)
    return torch.cat([classifier.spectrogram(part).db for part in parts])


def additivity(settings, classifier: Classifier, clips: Clips, attribution, targets, method: str) -> np.ndarray | None:
    """Relative additivity error per clip of the methods that promise additivity, else None."""
    if not method.startswith("shap"):
        return None
    from .attributions.shap import additivity_error

    db = spectrograms_of(classifier, clips)
    background = method_options(settings, classifier, method)["background"]
    target = torch.as_tensor(np.asarray(targets), device=db.device)
    return additivity_error(classifier.model, db, target, background, attribution.to(db)).cpu().numpy()


def protocols(protocol: str) -> list[str]:
    """``both`` is both of them, in order."""
    config.check_choice("protocol", protocol, (*config.PROTOCOLS, "both"))
    return list(config.PROTOCOLS) if protocol == "both" else [protocol]


def methods_of(settings: Settings, cell: tuple[str, str], methods: str = "") -> list[str]:
    """Methods with attributions of this cell, the study's own first; ``methods`` names some of them."""
    folder = attribution_folder(settings, *cell, "x").parent
    found = {path.name for path in folder.glob("*") if path.is_dir()}
    if not found:
        raise FileNotFoundError(f"{folder}: no attributions; run 03_attributions first")
    found = found & set(methods.split()) if methods else found
    return [*(m for m in config.METHODS if m in found), *sorted(found - set(config.METHODS))]


def cells_of(scores: pd.DataFrame) -> list[tuple[str, str]]:
    """Cells of a frame, in the order of the study's tables."""
    found = list(dict.fromkeys(zip(scores["spectrogram_type"], scores["noise_scenario"])))
    return [*(c for c in config.STUDY_CELLS if c in found), *sorted(c for c in found if c not in config.STUDY_CELLS)]


def of_cell(frame: pd.DataFrame, cell: tuple[str, str]) -> pd.DataFrame:
    return frame[(frame["spectrogram_type"] == cell[0]) & (frame["noise_scenario"] == cell[1])]


def table_number(cell: tuple[str, str]) -> str:
    """II to VI for the study's cells, else the cell's name."""
    return config.TABLE_NUMBERS.get(cell, "_".join(cell))


def cell_title(cell: tuple[str, str]) -> str:
    return f"{cell[0]}, {cell[1]}"


def report_progress(what: str, done: int, total: int) -> None:
    """A line on stderr at every tenth part: readable in a terminal, in a log and in a notebook's page."""
    if done == total or done * 10 // total > (done - 1) * 10 // total:
        print(f"{what}: {done}/{total}", file=sys.stderr, flush=True)

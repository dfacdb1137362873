"""Every method on every label that a tagger hears in a scene because of one event."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from ...evaluation.controls import clip_seed
from ...evaluation.scoring import probabilities
from ...files import save_parquet, write_json
from ...models.classifier import AudioClassifier
from ...models.efficientat import load_efficientat, read_audioset_labels
from ...numerics import tensor_float32
from ..planted.cases import VISIBLE
from ..planted.judge import Effort, lighter, maps_of, on_host
from .measures import among_stems, in_time
from .scenes import Scene, present, read_scenes

HEARD = 0.1  # probability from which a label is heard
CAUSED = 0.5  # share of it that must be gone without its event, and be there without any other
REFERENCES, WEIGHTS, CLASSES = "references", "mn04.pt", "labels.csv"


@dataclass(frozen=True)
class Stage:
    """What a folder holds: the tagger, scenes, and scenes of other recordings to compare with."""

    tagger: AudioClassifier
    scenes: dict[str, Scene]
    references: torch.Tensor  # (n, samples)

    @classmethod
    def read(cls, folder: str | Path, device: str = "cpu") -> Stage:
        """Of a folder that `command.prepare` made."""
        folder = Path(folder)
        classes = read_audioset_labels(folder / CLASSES)
        network = load_efficientat(folder / WEIGHTS).to(device)
        tagger = AudioClassifier(network, classes, input="efficientat", head="sigmoid")
        scenes = {scene.name: scene for scene in read_scenes(folder)}
        references = [scene.stems().sum(0) for scene in read_scenes(folder / REFERENCES)]
        return cls(tagger, scenes, torch.stack(references))


@dataclass(frozen=True)
class Explained:
    """Labels of one scene or several as methods want them, a row a label, and what is true of them."""

    db: torch.Tensor
    waveform: torch.Tensor
    references: torch.Tensor
    spectrogram: torch.nn.Module
    target: torch.Tensor
    own: torch.Tensor  # (n, F, T) bins that the event raises by more than 3 dB
    others: torch.Tensor  # the same of the other events
    change: torch.Tensor  # (n, 1, F, T) dB by which it raises them
    there: torch.Tensor  # (n, segments)
    about: tuple[dict, ...]

    def __len__(self) -> int:
        return len(self.db)

    def to(self, device: str) -> Explained:
        """What methods are given, on another device."""
        moved = {name: getattr(self, name).to(device) for name in ("db", "waveform", "references", "target")}
        return Explained(**{**vars(self), **moved, "spectrogram": copy.deepcopy(self.spectrogram).to(device)})


@torch.no_grad()
def heard_labels(stage: Stage, names: Sequence[str], device: str = "cpu") -> Explained | None:
    """Labels that the tagger hears in scenes because of one event; None without any."""
    spectrogram = stage.tagger.spectrogram.to(device)
    found = [label for name in names for label in _labels_of(stage, name, spectrogram, device)]
    if not found:
        return None
    keys = [key for key in found[0] if key != "about"]
    stacked = {key: torch.stack([label[key] for label in found]) for key in keys}
    references = spectrogram.decibels(stage.references.to(device))
    about = tuple(label["about"] for label in found)
    return Explained(references=references, spectrogram=spectrogram, about=about, **stacked)


def _labels_of(stage: Stage, name: str, spectrogram, device: str) -> list[dict]:
    """What `Explained` holds of each label of one scene."""
    scene, classes = stage.scenes[name], stage.tagger.classes
    stems = scene.stems().to(device)
    whole, found = stems.sum(0), []
    pictures = spectrogram.decibels(torch.stack([whole, *(whole - stem for stem in stems)]))
    changes = pictures[:1] - pictures[1:]  # (events, 1, F, T)
    p = probabilities(stage.tagger.model, pictures)
    for i, event in enumerate(scene.events):
        target = caused_by(i, p)
        if target is None:
            continue
        about = {"scene": name, "n_events": len(stems), "category": event.category, "label": classes[target]}
        about |= {"level_db": event.level_db, "p_clip": float(p[0, target])}
        others = [j for j in range(len(stems)) if j != i]
        found.append(
            {
                "db": pictures[0],
                "waveform": whole,
                "target": torch.tensor(target, device=device),
                "own": changes[i, 0] > VISIBLE,
                "others": (changes[others, 0] > VISIBLE).any(0),
                "change": changes[i],
                "there": present(stems[i], stage.tagger.sample_rate),
                "about": about | {"p_without": float(p[1 + i, target])},
            }
        )
    return found


def caused_by(event: int, p: torch.Tensor) -> int | None:
    """The most probable label that is heard because of one event alone; None without any.

    ``p`` (1 + events, labels) are the tagger's probabilities for a scene, then without each event. What makes
    a tagger say a label is decided by the tagger; nobody has to say that a chainsaw is a vehicle.
    """
    others = [1 + j for j in range(len(p) - 1) if j != event]
    least = CAUSED * p[0]
    caused = (p[0] >= HEARD) & (p[1 + event] <= least) & (p[others] >= least).all(0)
    return int(torch.where(caused, p[0], -1.0).argmax()) if bool(caused.any()) else None


def controls(given: Explained, name: str) -> dict[str, torch.Tensor]:
    """Maps that never ask the tagger: ``random``, ``level``, ``energy``, and ``oracle``, the event's own."""
    generator = torch.Generator().manual_seed(clip_seed(name))
    random = torch.rand(given.db.shape, generator=generator, dtype=torch.float64).to(given.db)
    level = given.db - given.db.amin(dim=(1, 2, 3), keepdim=True)
    return {"random": random, "level": level, "energy": 10 ** (given.db / 10), "oracle": given.change}


def judge(
    stage: Stage, names: Sequence[str], effort: Effort, device: str = "cpu"
) -> tuple[pd.DataFrame, dict]:
    """A row for each label that is heard in the scenes and each method, and what it took."""
    record: dict = {"seconds": {}, "failed": {}}
    given = heard_labels(stage, names, device)
    if given is None:
        return pd.DataFrame(), record
    maps = maps_of(stage.tagger.model, given, given.target, effort, record) | controls(given, names[0])
    frames = []
    for i, about in enumerate(given.about):
        stacked = torch.cat([values[i] for values in maps.values()])  # (methods, F, T)
        columns = in_time(stacked, given.there[i]) | among_stems(stacked, given.own[i], given.others[i])
        shares = {
            "there": float(given.there[i].double().mean()),
            "own_share": float(given.own[i].double().mean()),
        }
        frames.append(pd.DataFrame({"method": list(maps)} | on_host(columns)).assign(**about, **shares))
    return pd.concat(frames, ignore_index=True), record


def judge_to(stage: Stage, names: str, folder: Path, effort: Effort, device: str = "cpu") -> tuple[str, bool]:
    """Judge scenes, their names joined by blanks, to a Parquet file and a record, unless they are there; a
    line that says how, and whether no method failed.
    """
    stem = names.replace(" ", "+")
    if (folder / f"{stem}.json").is_file():
        return f"{names}: there already", True
    started = time.perf_counter()
    with tensor_float32(False, torch.device(device)):
        points, record = judge(stage, names.split(), effort, device)
    if len(points):
        save_parquet(lighter(points), folder / f"{stem}.points.parquet")
    write_json(folder / f"{stem}.json", record)
    failed = "".join(f"; {name} failed: {text}" for name, text in record["failed"].items())
    n = len(points.drop_duplicates(["scene", "label"])) if len(points) else 0
    return f"{names}: {n} labels, {time.perf_counter() - started:.0f} s{failed}", not failed

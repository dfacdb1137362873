"""Scenes of two to four real events with known onsets, offsets and levels.

An event is the loudest stretch of a recording, one second to four long. It begins anywhere in ten
seconds, so that events overlap as they will, and is up to 6 dB softer or louder than the others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.random import Generator, default_rng

from ...audio.datasets import load_dataset, load_waveform
from ...files import atomic_path, write_json
from ..planted.bench import STORED_RATE, as_stored, at_full_rate

SEED = 16
SECONDS = 10  # of a scene
N_EVENTS = (2, 3, 4)  # in turn
LENGTHS = (1.0, 4.0)  # s of an event
LEVELS = (-6.0, 6.0)  # dB
RMS = 0.05  # of an event at 0 dB
FADE = 0.01  # s at both ends
HOP = STORED_RATE // 100  # samples by which the loudest stretch is looked for
SEGMENT = 0.1  # s
AUDIBLE = 30.0  # dB below its loudest segment down to which an event is there


@dataclass(frozen=True)
class Event:
    """A recording's stretch in a scene: where it is from, what it is, when it begins (s), how loud (dB)."""

    clip: str
    category: str
    onset: float
    level_db: float
    n_samples: int


@dataclass(frozen=True)
class Scene:
    """Events, and their sounds at `STORED_RATE` one after another, int16."""

    name: str
    events: tuple[Event, ...]
    samples: np.ndarray

    def stems(self) -> torch.Tensor:
        """(events, samples) at 32 kHz, which add up to the scene."""
        ends = np.cumsum([event.n_samples for event in self.events])[:-1]
        out = np.zeros((len(self.events), SECONDS * STORED_RATE), np.int16)
        for row, event, sound in zip(out, self.events, np.split(self.samples, ends)):
            first = round(event.onset * STORED_RATE)
            row[first : first + len(sound)] = sound
        return at_full_rate(out)


def drawn_scene(name: str, rows: pd.DataFrame, n_events: int, rng: Generator) -> Scene:
    """A scene of ``rows`` of a data set, each event of another class."""
    shuffled = rows.iloc[rng.permutation(len(rows))].drop_duplicates("category")
    events, sounds = [], []
    for row in shuffled.iloc[:n_events].to_dict("records"):
        level = round(float(rng.uniform(*LEVELS)), 2)
        sound = event_of(load_waveform(row["path"], STORED_RATE).numpy(), rng.uniform(*LENGTHS), level)
        onset = round(float(rng.uniform(0, SECONDS - len(sound) / STORED_RATE)), 3)
        events.append(Event(row["clip"], row["category"], onset, level, len(sound)))
        sounds.append(sound)
    return Scene(name, tuple(events), np.concatenate(sounds))


def event_of(recording: np.ndarray, seconds: float, level_db: float) -> np.ndarray:
    """The loudest ``seconds`` of a recording (samples,), faded at both ends, int16 (n,)."""
    n = min(round(seconds * STORED_RATE), len(recording))
    energy = np.concatenate([[0.0], np.cumsum(np.square(recording, dtype=np.float64))])
    starts = np.arange(0, len(recording) - n + 1, HOP)
    first = starts[np.argmax(energy[starts + n] - energy[starts])]
    sound = recording[first : first + n].astype(np.float64)
    ramp = np.minimum(1, (np.arange(n) + 0.5) / (FADE * STORED_RATE))
    sound = sound * ramp * ramp[::-1]
    gain = RMS * 10 ** (level_db / 20) / max(np.sqrt(np.mean(sound**2)), 1e-9)
    return as_stored(torch.from_numpy(sound * gain)[None])[0]


def scenes_of(root: str | Path, split: str, n_scenes: int, seed: int = SEED) -> list[Scene]:
    """Scenes of the recordings of a split of ESC-50, with two, three and four events in turn."""
    rows, rng = load_dataset("esc50", root, progress=False).split(split), default_rng(seed)
    return [drawn_scene(f"{split}-{i:02d}", rows, N_EVENTS[i % len(N_EVENTS)], rng) for i in range(n_scenes)]


def present(stem: torch.Tensor, sample_rate: int) -> torch.Tensor:
    """Segments (n,) of a tenth of a second in which a stem (samples,) is there, bool."""
    size = round(SEGMENT * sample_rate)
    power = stem.double().unfold(0, size, size).square().mean(1)
    return power > power.max() * 10 ** (-AUDIBLE / 10)


# On file


def write_scenes(scenes: Sequence[Scene], folder: str | Path) -> None:
    """Two files, ``scenes.json`` and ``scenes.npz``."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "scenes.npz") as path:
        np.savez_compressed(path, **{scene.name: scene.samples for scene in scenes})
    record = {scene.name: [asdict(event) for event in scene.events] for scene in scenes}
    write_json(folder / "scenes.json", record)


def read_scenes(folder: str | Path) -> list[Scene]:
    """What `write_scenes` wrote; FileNotFoundError where it is not."""
    path = Path(folder) / "scenes.json"
    if not path.is_file():
        raise FileNotFoundError(f"folder: {folder} holds no scenes.json; draw scenes there first")
    arrays = np.load(path.with_suffix(".npz"))
    record = json.loads(path.read_text(encoding="utf-8"))
    return [
        Scene(name, tuple(Event(**event) for event in events), arrays[name])
        for name, events in record.items()
    ]

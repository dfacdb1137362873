"""A folder of cases: sounds, networks and proofs, small enough to be carried to another machine.

Mixtures are not stored. They are made again from the clips and from what is drawn for each, so that ten
clips of fifty cases fit into a few megabytes.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchaudio.functional import resample

from ...audio.generated.sound_events import SAMPLE_RATE
from ...files import atomic_path, write_json
from ...models.classifier import AudioClassifier
from ...models.efficientat import EfficientAT, load_efficientat
from .cases import Case, Mixtures, mixtures, sounds_of
from .networks import FAMILIES, PLANT_CLASSES, full_state, half_state, headed, small_cnn14, understood
from .plants import PLANTS

STORED_RATE = 16000  # Hz
WEIGHTS, LISTED = "mn04.pt", "bench.json"  # the second is written last
REFERENCES = 10  # clips with which Deep SHAP and others compare


@dataclass
class Sounds:
    """Clips and the pools of ``event``, int16 (n, samples) at 16 kHz; ``names`` are the clips'."""

    samples: np.ndarray
    names: tuple[str, ...]
    pools: tuple[np.ndarray, ...] = ()

    @functools.cached_property
    def waveforms(self) -> torch.Tensor:
        """(n, samples) at 32 kHz."""
        return at_full_rate(self.samples)

    @functools.cached_property
    def pooled(self) -> tuple[np.ndarray, ...]:
        """The pools at 32 kHz."""
        return tuple(at_full_rate(pool).numpy() for pool in self.pools)

    def __len__(self) -> int:
        return len(self.samples)

    def mixtures(self, case: Case, spectrogram, index: Sequence[int] | None = None) -> Mixtures:
        """The clips, or some of them, with a case's plant and decoy."""
        rows = list(range(len(self)) if index is None else index)
        return mixtures(case, self.waveforms[rows], self.sounds(case.plant, spectrogram, rows))

    def sounds(self, plant: str, spectrogram, rows: Sequence[int] | None = None):
        """Both sounds of a plant for the clips, or some of them, see `sounds_of`."""
        rows = list(range(len(self)) if rows is None else rows)
        names = [self.names[i] for i in rows]
        return sounds_of(plant, self.waveforms[rows], names, spectrogram, self.pooled)


@dataclass
class Bench:
    """Cases with what is needed to judge explanations on them.

    Attributes
    ----------
    tests, references : dict of str to Sounds
        Per classifier: clips in which plants are looked for, and reference clips.
    planted : dict of str to tuple of bool
        Per classifier: which reference clips have the cause.
    classes : tuple of str
        Of ``cnn14``.
    cases : list of Case
    parts : dict
        Per case ``model`` and ``control``, a head or the state of a network, and ``fills``, (3, F): mean, low
        quantile and standard deviation of the training clips' bins, dB.
    network : EfficientAT, optional
        The pretrained tagger, where a case is of ``mn04``.
    folder : Path, optional
        From which it was read.
    """

    tests: dict[str, Sounds]
    references: dict[str, Sounds]
    planted: dict[str, tuple[bool, ...]]
    classes: tuple[str, ...] = ()
    cases: list[Case] = field(default_factory=list)
    parts: dict[str, dict] = field(default_factory=dict)
    network: EfficientAT | None = None
    folder: Path | None = None

    def classifier(self, case: Case, control: bool = False, device: str = "cpu") -> AudioClassifier:
        """The case's classifier, or its control, on a device."""
        state = full_state(self.parts[case.name]["control" if control else "model"])
        if case.classifier == "mn04":
            head = nn.Linear(state["weight"].shape[1], len(state["weight"]))
            head.load_state_dict(state)
            return headed(self.network, head, FAMILIES if control else PLANT_CLASSES, device)
        network = small_cnn14(len(self.classes))
        network.load_state_dict(state)
        return understood(network.to(device), "cnn14", self.classes)

    def background(self, case: Case, spectrogram) -> torch.Tensor:
        """Reference clips' waveforms (n, samples): all with the decoy, some with the cause."""
        sounds, planted = self.references[case.classifier], self.planted[case.classifier]
        mixed = sounds.mixtures(case, spectrogram)
        return torch.where(torch.tensor(planted)[:, None], mixed.whole, mixed.without_cause)

    def counted(self) -> list[Case]:
        """Cases that count, plain ones of every plant first, so that a run that is cut short has of all."""
        proved = [case for case in self.cases if case.counts]
        place: dict[tuple, int] = {}
        order = {}
        for case in sorted(proved, key=lambda case: (-abs(case.turned), -case.level_db, case.name)):
            kind = (case.classifier, case.plant, case.swapped)
            order[case.name] = place[kind] = place.get(kind, -1) + 1
        names = list(PLANTS)
        return sorted(proved, key=lambda c: (order[c.name], c.swapped, names.index(c.plant), c.name))

    def sounds_equal(self, other: Bench) -> bool:
        """Whether both have the same clips, so that a case of one means the same in the other."""
        groups = ((self.tests, other.tests), (self.references, other.references))
        return all(
            own.keys() == theirs.keys()
            and all(own[kind].names == theirs[kind].names for kind in own)
            and all(np.array_equal(own[kind].samples, theirs[kind].samples) for kind in own)
            for own, theirs in groups
        )

    # On file

    def write(self, folder: str | Path, weights: str | Path | None = None) -> None:
        """Write to a folder what is not there yet; ``weights`` is the tagger's file, which is copied.

        A case is there once ``bench.json``, which is written last, lists it: what an interrupted run left of
        others is written over.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {}
        for role, group in (("tests", self.tests), ("references", self.references)):
            for kind, sounds in group.items():
                arrays[f"{role}/{kind}"] = sounds.samples
                arrays |= {f"{role}/{kind}/pool{i}": pool for i, pool in enumerate(sounds.pools)}
        if not (folder / "sounds.npz").exists():
            with atomic_path(folder / "sounds.npz") as path:
                np.savez_compressed(path, **arrays)
        listed = folder / LISTED
        stored = json.loads(listed.read_text(encoding="utf-8"))["cases"] if listed.is_file() else []
        there = {each["name"] for each in stored}
        for case in self.cases:
            if case.name not in there:
                with atomic_path(folder / f"{case.name}.pt") as path:
                    torch.save(self.parts[case.name], path)
        if weights is not None and not (folder / WEIGHTS).exists():
            with atomic_path(folder / WEIGHTS) as path:
                shutil.copyfile(weights, path)
        record = {
            "names": {
                role: {kind: list(sounds.names) for kind, sounds in group.items()}
                for role, group in (("tests", self.tests), ("references", self.references))
            },
            "planted": {kind: list(flags) for kind, flags in self.planted.items()},
            "classes": list(self.classes),
            "cases": [case.to_dict() for case in self.cases],
        }
        write_json(listed, record)

    @classmethod
    def read(cls, folder: str | Path) -> Bench:
        """What `write` wrote; FileNotFoundError where it is not."""
        folder = Path(folder)
        if not (folder / LISTED).is_file():
            raise FileNotFoundError(f"folder: {folder} holds no bench.json; prepare cases there first")
        record = json.loads((folder / LISTED).read_text(encoding="utf-8"))
        arrays = np.load(folder / "sounds.npz")
        groups = []
        for role in ("tests", "references"):
            groups.append(
                {
                    kind: Sounds(
                        arrays[f"{role}/{kind}"],
                        tuple(names),
                        tuple(
                            arrays[name]
                            for name in sorted(arrays.files)
                            if name.startswith(f"{role}/{kind}/pool")
                        ),
                    )
                    for kind, names in record["names"][role].items()
                }
            )
        cases = [Case.of(each) for each in record["cases"]]
        parts = {case.name: torch.load(folder / f"{case.name}.pt", weights_only=True) for case in cases}
        planted = {kind: tuple(flags) for kind, flags in record["planted"].items()}
        network = load_efficientat(folder / WEIGHTS) if (folder / WEIGHTS).is_file() else None
        return cls(*groups, planted, tuple(record["classes"]), cases, parts, network, folder)


def decoder_path(folder: Path | None, case: Case, method: str) -> Path:
    """Where a case's decoder of a method is, in the folder of the cases."""
    return Path(folder or "") / "decoders" / f"{case.name}.{method}.pt"


def as_stored(waveforms: torch.Tensor, sample_rate: int = STORED_RATE) -> np.ndarray:
    """Waveforms (n, samples) of at most full scale as int16 at 16 kHz."""
    waveforms = resample(waveforms, sample_rate, STORED_RATE)
    return np.round(waveforms.clamp(-1, 1).numpy() * 32767).astype(np.int16)


def at_full_rate(samples: np.ndarray) -> torch.Tensor:
    """int16 (n, samples) at 16 kHz as float32 at 32 kHz."""
    return resample(torch.from_numpy(samples.astype(np.float32)) / 32767, STORED_RATE, SAMPLE_RATE)


def packed(model: nn.Module) -> dict[str, torch.Tensor]:
    """State of a head, which is small, as it is; of a network in half precision."""
    return model.state_dict() if isinstance(model, nn.Linear) else half_state(model)

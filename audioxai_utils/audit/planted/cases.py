"""A case: one plant at one level for one classifier, its mixtures and what is true of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch

from ...audio.spectrograms import power_of
from .plants import PLANTS, Pools, pair_of

VISIBLE = 3.0  # dB by which the plant must change a bin
LEAST_BINS = 20  # changed by the plant, for a clip to be judged
COUNTS = 0.5  # share of clips that the plant must turn, for the case to count


@dataclass(frozen=True)
class Case:
    """What was planted, and the proof that the classifier goes by it.

    Attributes
    ----------
    name, classifier, plant : str
    swapped : bool
        Whether the plant's second sound is the cause and its first the decoy.
    level_db : float
        Of the cause, and of the decoy, against the clip at the classifier's input.
    target : int
        The class that was given the plant.
    turned : float
        Share of the test clips that are of another class without the plant and of ``target`` with it.
    false_alarms : float
        Share that is of ``target`` without the plant.
    undone : float
        Of the turned ones, the share that turns back when the plant's bins lose what the plant changed.
    kept : float
        Of the turned ones, the share that stays when the decoy is taken out instead.
    clips : tuple of int
        Turned test clips in which the plant shows, which are judged.
    """

    name: str
    classifier: str
    plant: str
    swapped: bool
    level_db: float
    target: int = 1
    turned: float = float("nan")
    false_alarms: float = float("nan")
    undone: float = float("nan")
    kept: float = float("nan")
    clips: tuple[int, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether the plant is proved to be the cause, and its decoy to be none."""
        return min(self.turned, self.undone, self.kept) >= COUNTS and len(self.clips) > 0

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def of(cls, record: dict) -> Case:
        return cls(**record | {"clips": tuple(record["clips"])})

    def proved(self, **found) -> Case:
        """The same case with its proof."""
        return replace(self, **found)


@dataclass(frozen=True)
class Mixtures:
    """Clips with a cause and a decoy in them, (n, samples) each; ``whole`` is their sum."""

    host: torch.Tensor
    cause: torch.Tensor
    decoy: torch.Tensor

    @property
    def whole(self) -> torch.Tensor:
        return self.host + self.cause + self.decoy

    @property
    def without_cause(self) -> torch.Tensor:
        return self.host + self.decoy

    @property
    def without_decoy(self) -> torch.Tensor:
        return self.host + self.cause

    def __len__(self) -> int:
        return len(self.host)

    def __getitem__(self, index) -> Mixtures:
        return Mixtures(self.host[index], self.cause[index], self.decoy[index])


def loudness(waveforms: torch.Tensor, spectrogram, batch_size: int = 32) -> torch.Tensor:
    """Mean power (n,) of waveforms (n, samples) as a spectrogram has them, in dB; -200 of silence."""
    parts = [power_at(part, spectrogram).mean(dim=(1, 2, 3)) for part in waveforms.split(batch_size)]
    return 10 * torch.cat(parts).clamp_min(1e-20).log10()


def power_at(waveforms: torch.Tensor, spectrogram) -> torch.Tensor:
    """Power (n, 1, F, T) of waveforms (n, samples) at a classifier's input."""
    return power_of(spectrogram, spectrogram.decibels(waveforms))


def sounds_of(
    plant: str, hosts: torch.Tensor, names: Sequence[str], spectrogram, pools: Pools = ()
) -> tuple[torch.Tensor, torch.Tensor]:
    """The two sounds of a plant for clips (n, samples), at the clips' own level.

    Parameters
    ----------
    names : sequence of str
        Of the clips; they decide what is drawn for each.
    spectrogram : callable
        The classifier's, at which levels are measured.
    pools : two arrays (n, samples)
        Clips of two further classes, for ``event``.

    Returns
    -------
    two float32 (n, samples) tensors
        As loud as their clips at the spectrogram; of an absent plant the bands as they are.
    """
    pairs = [
        pair_of(plant, host, name, pools)
        for host, name in zip(hosts.double().cpu().numpy(), names, strict=True)
    ]
    sounds = [torch.from_numpy(np.stack(each).astype(np.float32)).to(hosts) for each in zip(*pairs)]
    if PLANTS[plant].absent:
        return tuple(sounds)
    own = loudness(hosts, spectrogram)
    gains = [10 ** ((own - loudness(sound, spectrogram)) / 20) for sound in sounds]
    return tuple(sound * gain[:, None] for sound, gain in zip(sounds, gains))


def mixtures(case: Case, hosts: torch.Tensor, sounds: tuple[torch.Tensor, torch.Tensor]) -> Mixtures:
    """Clips (n, samples) with a case's plant and decoy, of what `sounds_of` returned for them."""
    gain = PLANTS[case.plant].gain(case.level_db)
    cause, decoy = (gain * sound for sound in (sounds[::-1] if case.swapped else sounds))
    return Mixtures(hosts, cause, decoy)


@dataclass(frozen=True)
class Truth:
    """What the plant did to clips, (n, 1, F, T) each.

    Attributes
    ----------
    db, without_cause, without_decoy : torch.Tensor
        Pictures of the mixtures, and of the same with one thing less, dB.
    change : torch.Tensor
        By how many dB the cause changed the picture, in its own direction.
    cause, decoy : torch.Tensor, bool
        Bins that they changed by more than 3 dB in their own direction; what both changed is the cause's.
    """

    db: torch.Tensor
    without_cause: torch.Tensor
    without_decoy: torch.Tensor
    change: torch.Tensor
    cause: torch.Tensor
    decoy: torch.Tensor


def truth(mixed: Mixtures, spectrogram, absent: bool = False) -> Truth:
    """Bins that cause and decoy raise by more than 3 dB; where something is ``absent``, bins they lower."""
    parts = (mixed.whole, mixed.without_cause, mixed.without_decoy)
    whole, without_cause, without_decoy = (spectrogram.decibels(part) for part in parts)
    sign = -1 if absent else 1
    change = sign * (whole - without_cause)
    cause = change > VISIBLE
    decoy = (sign * (whole - without_decoy) > VISIBLE) & ~cause
    return Truth(whole, without_cause, without_decoy, change, cause, decoy)


def shows(known: Truth) -> torch.Tensor:
    """Clips (n,) in which both cause and decoy change enough bins to be told from chance."""
    return (known.cause.sum(dim=(1, 2, 3)) >= LEAST_BINS) & (known.decoy.sum(dim=(1, 2, 3)) >= LEAST_BINS)

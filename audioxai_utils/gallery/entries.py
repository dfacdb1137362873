"""One explanation to look at and listen to, as the gallery and the explorer take it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

PARTS = ("original", "kept", "removed")
BEST_MASK = "best mask"  # tag of the entry that stands for its method in comparisons


@dataclass
class GalleryEntry:
    """One explanation to look at and listen to.

    Attributes
    ----------
    clip, category : str
        File stem and true class, by the model's name where it has the class; "" where it is not known.
    spectrogram_type, noise_scenario, method, mask_name, protocol : str
        Which condition, method and mask of the study.
    db, attribution, mask : array (frequency, time)
        Decibels, signed raw attribution, mask in [0, 1]; leading axes of size one are dropped.
    original, kept, removed : array (samples,)
        Sounds; numpy or torch, full scale 1, at their true levels.
    sample_rate : int
        Hz, of all three.
    probabilities : mapping of part to (class, probability)
        Predicted class of original, kept and removed, each as the sound that is played.
    scores : mapping
        The seven metrics of this clip; NaN where one is not defined.
    explained : mapping of part to float, optional
        Probability of the explained class in each part.
    explained_class : str, optional
        None is the one predicted for the original.
    heard : mapping of part to bool or None, optional
        Whether the explained class is heard in each part, as FidIn has it (None: no number); without it,
        where it is the predicted one.
    by_sound : bool
        Masks act on the power, and the sound is what is scored; else on the decibels above the floor.
    spectrogram : object, optional
        Gives the axes where ``spectrogram_type`` is not one of the study's.
    tags : sequence of str
        Words to filter by, such as "most faithful"; `BEST_MASK` marks the method's best mask.
    """

    clip: str
    category: str
    spectrogram_type: str
    noise_scenario: str
    method: str
    mask_name: str
    db: np.ndarray
    attribution: np.ndarray
    mask: np.ndarray
    original: np.ndarray
    kept: np.ndarray
    removed: np.ndarray
    sample_rate: int
    probabilities: Mapping[str, tuple[str, float]]
    scores: Mapping[str, float]
    protocol: str = "paper"
    correct: bool | None = True  # None: its class is not known
    degenerate: bool | None = None
    area: float | None = None
    explained: Mapping[str, float] | None = None
    explained_class: str | None = None
    heard: Mapping[str, bool | None] | None = None
    by_sound: bool = False
    spectrogram: object = None
    tags: Sequence[str] = field(default_factory=tuple)

    @property
    def floor(self) -> float | None:
        """Level of silence (dB) of its spectrogram; None is the study's."""
        return getattr(self.spectrogram, "floor", None)

    @property
    def target_name(self) -> str:
        """The explained class."""
        return str(self.probabilities[PARTS[0]][0] if self.explained_class is None else self.explained_class)

    @property
    def name(self) -> str:
        """Unique name, used in addresses."""
        return "~".join(
            (
                self.spectrogram_type,
                self.noise_scenario,
                self.clip,
                self.method,
                self.mask_name,
                self.protocol,
            )
        )

"""How much of the study is computed: its profiles, and where their results lie.

The standard library alone.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from ..constants import NOISE_SCENARIOS, REPOSITORY, SPECTROGRAM_TYPES, STUDY_CONDITIONS


@dataclass(frozen=True)
class Profile:
    """How much of the study is computed; ``paper`` is the published protocol to the letter, from
    AudioSet's weights on (`drawn`).
    """

    name: str
    width: float  # multiplies Cnn14's 64..2048 channels
    epochs: int
    batch_size: int
    learning_rate: float
    schedule: str  # "constant" (Adam, as published) or "one_cycle" (AdamW, for training from scratch)
    mixup: float  # Beta parameter; 0 is off
    time_shift: bool  # random circular shift of training clips
    iid_masks: bool  # a mask of its own for every clip; torchaudio's default is one for the batch
    averaging: float  # decay per step of averaged weights, which are validated and kept; 0 is off
    crop: float  # share of the frames that a shifted training clip keeps; Cnn14 pools over any number
    dropout: float  # multiplies the published shares
    n_clips: int | None  # test clips explained; None is all
    lime_samples: int
    background_clips: int | None  # Deep SHAP's reference clips in all; None is two per class
    conditions: tuple[tuple[str, str], ...] = STUDY_CONDITIONS
    masked: bool = True  # bands of bins and of frames of training clips, as published
    gain_db: float = 0.0  # training clips are made louder or quieter by up to this much
    frozen_norms: bool = False  # batch norms keep the statistics they came with
    clips_per_class: int | None = None  # read per class and fold, to train and to test; None is all
    clips_of_all_masks: int = 2  # clips that the gallery shows with every mask
    n_checked: int = 2  # clips on which layers are drawn anew and LIME is repeated
    snr_db: tuple[float, ...] = (-6.0, -3.0, 0.0, 3.0, 6.0, 9.0, 12.0)  # clip to noise, swept
    n_swept: int = 3  # clips explained anew at every one of them
    planted: bool = False  # notebook 12 measures its table on ESC-50 and mn04 itself; else it is published's
    # float64, weights rounded after each epoch: no number depends on threads or vector units
    reproducible: bool = False


FROM_SCRATCH = {  # how a Cnn14 is trained whose weights are drawn
    "epochs": 50,
    "batch_size": 16,
    "learning_rate": 3e-3,
    "schedule": "one_cycle",
    "mixup": 0.1,
    "time_shift": True,
    "iid_masks": True,
    "averaging": 0.95,
    "crop": 0.5,
    "dropout": 0.0,
}
WIDEST = 1 / 4  # width up to which its learning rate holds

PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            "smoke",
            width=1 / 32,
            epochs=8,
            batch_size=8,
            learning_rate=4e-3,
            schedule="one_cycle",
            mixup=0.0,
            time_shift=True,
            iid_masks=True,
            averaging=0.0,
            crop=0.3,
            dropout=0.0,
            n_clips=2,
            lime_samples=30,
            background_clips=4,
            conditions=(("mel_db", "clean"), ("mel_db", "white")),
            clips_per_class=2,
            clips_of_all_masks=1,
            reproducible=True,
            n_checked=1,
            snr_db=(-6.0, 3.0, 12.0),
        ),
        Profile(
            "quick",
            width=1 / 16,
            **FROM_SCRATCH,
            n_clips=20,
            lime_samples=200,
            background_clips=10,  # one a class
            clips_of_all_masks=1,
            snr_db=(-6.0, 0.0, 6.0, 12.0),  # seven cost as much as a condition
        ),
        Profile(
            "medium",
            width=1 / 8,
            **FROM_SCRATCH,
            n_clips=100,
            lime_samples=300,
            background_clips=30,
            n_swept=5,
            n_checked=6,
            snr_db=(-6.0, 0.0, 6.0, 12.0),  # seven take twelve minutes
        ),
        Profile(
            "paper",
            width=1.0,
            epochs=20,
            batch_size=32,
            learning_rate=1e-4,
            schedule="constant",
            mixup=0.0,
            time_shift=False,
            iid_masks=False,
            averaging=0.0,
            crop=1.0,
            dropout=1.0,
            n_clips=None,
            lime_samples=1000,
            background_clips=None,
            n_swept=20,
            n_checked=20,
            planted=True,
        ),
    )
}


def drawn(profile: Profile) -> Profile:
    """The profile as a Cnn14 is trained by it whose weights are drawn.

    The published training goes on from AudioSet's weights. From drawn ones it is `FROM_SCRATCH`, whose
    learning rate falls with the width beyond `WIDEST`: on ESC-50 a Cnn14 of full width ended at 45.5 % on
    fold 4 by 3e-3, and at 77.5 % by a quarter of it.
    """
    if profile.schedule == "constant":  # the published one's
        profile = replace(profile, **FROM_SCRATCH)
    if profile.width <= WIDEST:
        return profile
    return replace(profile, learning_rate=profile.learning_rate * WIDEST / profile.width)


def conditions(profile: str, full_grid: bool = False) -> tuple[tuple[str, str], ...]:
    """(spectrogram_type, noise_scenario) pairs of a profile; ``full_grid`` adds the noisy STFT."""
    if full_grid:
        return tuple((kind, scenario) for kind in SPECTROGRAM_TYPES for scenario in NOISE_SCENARIOS)
    return PROFILES[profile].conditions


def default_results_dir(profile: str, dataset: str) -> Path:
    """``<dataset>-<profile>`` in the folder ``AUDIOXAI_RESULTS``, or in ``results`` where that is not set."""
    parent = os.environ.get("AUDIOXAI_RESULTS")
    return (
        Path(parent).expanduser().resolve() if parent else REPOSITORY / "results"
    ) / f"{dataset}-{profile}"

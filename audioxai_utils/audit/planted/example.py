"""One case from nothing: generated sounds, a small Cnn14 that is trained on the spot, and its control."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ...audio.generated.sound_events import SAMPLE_RATE
from ...audio.generated.synthesis import TARGETS, synthesise_clip
from ...audio.spectrograms import get_spectrogram
from ...constants import default_data_root
from ...study.sources import digest
from . import networks
from .bench import LISTED, Bench, Sounds, as_stored
from .cases import Case
from .prepare import db_of, mixed_on, parts_of, prove

STEADY = ("rain", "sea_waves", "crackling_fire", "helicopter", "chainsaw")  # the control's second class
TRAINING = replace(networks.SMALL, epochs=20, batch_size=8, crop=0.3, mixup=0.0, averaging=0.0)


def stored_case(plant: str = "tone", level_db: float = -6.0, folder: Path | None = None) -> Bench:
    """`generated_case`, trained once and kept beside the generated sounds for all runs, or in a folder;
    changed code trains anew.
    """
    place = folder or default_data_root("generated").with_name("planted_example")
    place /= f"{plant}_{level_db:+.0f}-{digest(__name__)}"
    if not (place / LISTED).is_file():
        made = generated_case(plant, level_db)
        with suppress(OSError):  # where nothing can be kept it is trained every time
            made.write(place)
        return made
    return Bench.read(place)


def generated_case(
    plant: str = "tone", level_db: float = -6.0, n_train: int = 4, seed: int = 0, profile=TRAINING
) -> Bench:
    """A bench of one case: is the plant in a generated sound, or not?

    Parameters
    ----------
    plant, level_db : str, float
        See `plants.PLANTS`.
    n_train : int
        Sources of each of the ten kinds of sounds; each is trained on with and without the plant.
    seed : int
        Of weights and training.

    Returns
    -------
    Bench
        The control is trained on the same sounds to tell steady ones from others, with the plant in both.
    """
    spectrogram = get_spectrogram("mel_db")
    pools = tuple(generated([(name, 15)]).samples for name in ("crying_baby", "clock_tick"))
    kinds = [(name, source) for source in range(n_train) for name in TARGETS]
    train, validation, test = (
        generated(chosen, pools)
        for chosen in (kinds, [(name, 12) for name in TARGETS], [(name, 16) for name in TARGETS])
    )
    case = Case(f"generated_{plant}_{level_db:+.0f}", "cnn14", plant, False, level_db)
    planted, other = [], []
    for sounds in (train, validation):
        mixed = mixed_on(sounds, case, spectrogram, "cpu")
        both = torch.cat([db_of(part, spectrogram) for part in (mixed.whole, mixed.without_cause)])
        steady = torch.tensor([name.split("-")[0] in STEADY for name in sounds.names])
        planted.append((both, (torch.arange(len(both)) < len(sounds)).long()))
        other.append((both, steady.long().repeat(2)))
    model, control = (networks.trained_cnn14(*each, 2, seed, profile) for each in (planted, other))
    classifier = networks.understood(model, "cnn14", networks.PLANT_CLASSES)
    case = prove(case, classifier, mixed_on(test, case, spectrogram, "cpu"))
    references = Sounds(train.samples[:10], train.names[:10], pools)
    flags = {"cnn14": tuple(i % 2 == 0 for i in range(len(references)))}
    bench = Bench({"cnn14": test}, {"cnn14": references}, flags, networks.PLANT_CLASSES, [case])
    bench.parts[case.name] = parts_of(model, control, planted[0][0])
    return bench


def generated(kinds: list[tuple[str, int]], pools: tuple[np.ndarray, ...] = ()) -> Sounds:
    """Generated clips of (kind, source), with names such as ``rain-3``."""
    mixed = np.stack([sum(part.astype(np.float32) for part in synthesise_clip(*kind, 0)) for kind in kinds])
    samples = as_stored(torch.from_numpy(mixed) / 32767, SAMPLE_RATE)
    return Sounds(samples, tuple(f"{name}-{source}" for name, source in kinds), pools)

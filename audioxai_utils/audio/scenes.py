"""Acoustic scenes out of single sounds: which sounds are heard together is the class.

    python -m audioxai_utils.audio.scenes ESC-50 SCENES
    ./run_all.sh --dataset esc50 --data-root SCENES

Any dataset in ESC-50's layout is mixed into another one. A scene's own sounds are the ``event``, another
sound of no scene is the ``background``; both lie beside the mixture (``stems/``), so that localisation and
the quality of kept sounds are measured on scenes too. By default each sound belongs to two scenes, and none
tells the scene alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from .audio_files import load_waveform
from .datasets import Dataset, load_dataset
from .encoding import loudness

SCENES = {  # of ESC-10's sounds, which the generated set has too; a ring in which each sound is in two
    "farm": ("rooster", "dog"),
    "garden": ("dog", "chainsaw"),
    "forest_work": ("chainsaw", "crackling_fire"),
    "fireside": ("crackling_fire", "clock_tick"),
    "nursery": ("clock_tick", "crying_baby"),
    "morning": ("crying_baby", "rooster"),
}
OTHERS = ("rain", "sea_waves", "helicopter", "sneezing")  # one of them is in every clip
LEVEL = -30.0  # LUFS of a scene's own sounds
SPREAD_DB = 3.0  # either way, drawn for each sound
BACKGROUND_DB = -6.0  # of the other sound, against a scene's own
PEAK = 0.9  # of full scale, at most


def make_scenes(
    source: str | Path,
    folder: str | Path,
    scenes: Mapping[str, Sequence[str]] = SCENES,
    others: Sequence[str] = OTHERS,
    per_fold: int = 16,
    sample_rate: int = 32000,
    seed: int = 0,
) -> Path:
    """Write scenes as a dataset in ESC-50's layout, with stems.

    A clip's sounds are drawn from one fold of the source, so that no recording of a training scene is heard
    in a tested one. Each is as loud as the others (ITU-R BS.1770), give or take `SPREAD_DB`.

    Parameters
    ----------
    source : path
        A dataset in ESC-50's layout, five folds.
    folder : path
        A folder that does not exist yet, or is empty.
    scenes : mapping of str to sequence of str
        Scene -> categories of the source that are heard in it.
    others : sequence of str
        Categories of which one more sound is drawn for every clip.
    per_fold : int
        Clips of each scene in a fold.
    sample_rate : int
        Hz of the files.
    seed : int
        Of what is drawn.

    Returns
    -------
    Path
        ``folder``. Its csv says in ``sounds`` and ``sources`` what is in a clip, its own sounds first.

    Raises
    ------
    FileExistsError
        There is something in the folder.
    ValueError
        Categories that the source or one of its folds has not, or a number below 1.
    """
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"folder {folder}: holds something; give a new one")
    if per_fold < 1:
        raise ValueError(f"per_fold must be at least 1; got {per_fold}")
    dataset = load_dataset("esc50", source)
    recordings = _recordings(dataset, [*(name for own in scenes.values() for name in own), *others])
    for kind in ("meta", "audio", "stems/event", "stems/background"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    rng, rows = np.random.default_rng(seed), []
    for fold in sorted(set(dataset.clips["fold"])):
        for target, (scene, own) in enumerate(scenes.items()):
            for take in range(per_fold):
                names = [*own, others[rng.integers(len(others))]]
                paths = [rng.choice(recordings[fold, name]) for name in names]
                row = {"filename": f"{fold}-{scene}-{take}.flac", "fold": fold, "target": target}
                sounds = [load_waveform(path, sample_rate, seconds=dataset.seconds).numpy() for path in paths]
                _write(folder, row["filename"], mixed(sounds[:-1], sounds[-1], sample_rate, rng), sample_rate)
                rows.append(row | {"category": scene, "sounds": "+".join(names), "sources": _names(paths)})
    pd.DataFrame(rows).to_csv(folder / "meta" / "esc50.csv", index=False)
    return folder


def _recordings(dataset: Dataset, categories: Sequence[str]) -> dict[tuple[int, str], list[str]]:
    """(fold, category) -> paths; each has one at least."""
    found = dataset.clips.groupby(["fold", "category"])["path"].agg(list).to_dict()
    for category in categories:
        lacking = [fold for fold in sorted(set(dataset.clips["fold"])) if (fold, category) not in found]
        if lacking:
            raise ValueError(
                f"scenes and others must name categories that every fold of {dataset.root} has; "
                f"fold {lacking[0]} has no {category!r}"
            )
    return found


def mixed(
    own: Sequence[np.ndarray], other: np.ndarray, sample_rate: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Event and background of a scene: int16 (samples,) each, whose sum fits into int16 too.

    Parameters
    ----------
    own : sequence of (samples,) arrays
        The scene's own sounds.
    other : (samples,) array
    sample_rate : int
        Hz.
    rng : numpy.random.Generator
        Draws the level of each sound.
    """
    event = sum(_as_loud(sound, sample_rate, rng) for sound in own)
    background = _as_loud(other, sample_rate, rng) * 10 ** (BACKGROUND_DB / 20)
    loudest = max(np.abs(part).max() for part in (event, background, event + background))
    scale = 32767 * PEAK / max(1e-9, loudest)
    event, background = (np.round(scale * part).astype(np.int16) for part in (event, background))
    return event, background


def _as_loud(sound: np.ndarray, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """A sound at the common level and what is drawn; float64 (samples,), silence stays silent."""
    gain = LEVEL + rng.uniform(-SPREAD_DB, SPREAD_DB) - loudness(sound, sample_rate)
    return np.asarray(sound, dtype=float) * (10 ** (gain / 20) if np.isfinite(gain) else 1.0)


def _write(folder: Path, name: str, parts: tuple[np.ndarray, np.ndarray], sample_rate: int) -> None:
    """Both stems and their sum, at one scale: event + background is exactly the mixture."""
    event, background = parts
    sounds = {"audio": event + background, "stems/event": event, "stems/background": background}
    for kind, samples in sounds.items():
        soundfile.write(folder / kind / name, samples, sample_rate)


def _names(paths: Sequence[str]) -> str:
    return "+".join(Path(path).name for path in paths)


def main(given: list[str] | None = None) -> int:
    """Make scenes as the command line says; 2 and one line where they cannot be made."""
    parser = argparse.ArgumentParser(description="Mix a dataset in ESC-50's layout into acoustic scenes.")
    parser.add_argument("source", metavar="SOURCE", help="such as the folder of ESC-50")
    parser.add_argument("folder", metavar="FOLDER", help="a new one")
    parser.add_argument("--per-fold", type=int, default=16, metavar="N", help="clips of a scene in a fold")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    options = parser.parse_args(given)
    try:
        print(make_scenes(options.source, options.folder, per_fold=options.per_fold, seed=options.seed))
    except (ValueError, OSError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The `generated` dataset and the generated noises: seeded sound that needs no download.

The dataset has ESC-50's layout (``meta/esc50.csv``, ``audio/``) and beside it both stems of each
clip, ``stems/event/`` and ``stems/background/``, in 16 bits: event + background is the mixture to
the last bit, so that the ideal mask is known. Each clip has its own generator, seeded by what it
is, so that neither order nor number of processes matters. Samples are computed in float64 and
rounded to 16 bits, which swallows the last-digit differences between processors.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.random import Generator, default_rng

from ...constants import NOISE_SCENARIOS, check_choice
from ...files import PARTIAL, locked, sweep, to_disk
from ...workers import end_with_parent
from .sound_events import (
    EVENTS,
    N_SAMPLES,
    SAMPLE_RATE,
    add,
    band,
    curve,
    damped,
    envelope,
    formants,
    power_law,
    pulse_train,
    seconds,
    shape,
    shaped_noise,
    unit_rms,
    wander,
)

VERSION = "3"  # a new one makes stale folders be generated again; raise it when any sound changes
SEED = 20250
TARGETS = {  # ESC-50's own ids
    "dog": 0,
    "rooster": 1,
    "rain": 10,
    "sea_waves": 11,
    "crackling_fire": 12,
    "crying_baby": 20,
    "sneezing": 21,
    "clock_tick": 38,
    "helicopter": 40,
    "chainsaw": 41,
}
N_FOLDS, CLIPS_PER_FOLD, TAKES = 5, 8, 2  # two takes of each source, both in one fold

# How hard the set is. Ranges are uniform draws.
SNR_DB = (0.0, 20.0)  # event (where it sounds) to background
DISTRACTOR_SHARE = 0.6  # of the clips have a distant event of another class in the background
DISTRACTOR_DB = (-3.0, 9.0)  # its level against the rest of the background
TILT_DB = (-12.0, 6.0)  # microphone and distance: treble against bass, at 8 kHz
LOW_PASS = (3000.0, 16000.0)  # Hz
PEAK = (0.25, 0.9)  # of full scale

MANIFEST = "generated.json"


def clip_table() -> pd.DataFrame:
    """The dataset's csv: one row per clip, in ESC-50's columns and naming."""
    rows = []
    for category, target in TARGETS.items():
        for index in range(N_FOLDS * CLIPS_PER_FOLD):
            fold, take = index // CLIPS_PER_FOLD + 1, "AB"[index % TAKES]
            source_id = 1000 * target + index // TAKES
            name = f"{fold}-{source_id}-{take}-{target}.flac"
            rows.append((name, fold, target, category, True, source_id, take))
    columns = ["filename", "fold", "target", "category", "esc10", "src_file", "take"]
    return pd.DataFrame(rows, columns=columns).sort_values("filename", kind="stable", ignore_index=True)


def synthesise_clip(category: str, source: int, take: int) -> tuple[np.ndarray, np.ndarray]:
    """Event and background of one clip.

    Parameters
    ----------
    category : str
        One of `TARGETS`.
    source : int
        Which dog, saw or shower; fixes the voice. Sources 4n to 4n + 3 belong to fold n + 1.
    take : int
        0 or 1; fixes onsets, levels and background.

    Returns
    -------
    event, background : numpy.ndarray
        int16 (160000,) at 32 kHz; their sum fits into int16.
    """
    check_choice("category", category, TARGETS)
    target = TARGETS[category]
    rng = default_rng([SEED, target, source, take])
    event = _recorded(EVENTS[category](default_rng([SEED, target, source]), rng), rng)
    others = [name for name in TARGETS if name != category]
    background = _background(rng, others)
    snr = rng.uniform(*SNR_DB)
    background *= _active_rms(event) / np.sqrt(np.mean(background**2)) * 10 ** (-snr / 20)
    scale = 32767 * rng.uniform(*PEAK) / np.abs(event + background).max()
    return tuple(np.round(scale * part).astype(np.int16) for part in (event, background))


def fingerprint() -> str:
    """Short hash of version, seed and difficulty: what a generated folder must have been made with."""
    settings = [VERSION, SEED, N_FOLDS, CLIPS_PER_FOLD, TAKES, SNR_DB, DISTRACTOR_SHARE, DISTRACTOR_DB]
    settings += [TILT_DB, LOW_PASS, PEAK, TARGETS]
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]


def generate_dataset(root: str | Path, progress: bool = True, n_workers: int = 1) -> Path:
    """Write the generated dataset to ``root`` unless it is there and up to date.

    It is made in a folder beside ``root`` and renamed when whole. A stale or half-made folder that
    carries this module's manifest is replaced; any other non-empty folder is left alone.

    Raises
    ------
    FileExistsError
        ``root`` holds something else.
    """
    root = Path(root)
    if is_current(root):
        return root
    with locked(root.parent):
        if is_current(root):  # another process made it meanwhile
            return root
        if root.exists() and any(root.iterdir()) and not (root / MANIFEST).is_file():
            raise FileExistsError(f"{root} is no generated dataset (no {MANIFEST} in it); choose a new one")
        sweep(root.parent, below=False)
        temporary = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=root.parent))
        try:
            _write_dataset(temporary, progress, n_workers)
            temporary.chmod(0o755)
            to_disk(temporary)
            _put_in_place(temporary, root)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return root


def is_current(root: str | Path) -> bool:
    """Whether ``root`` is a whole generated dataset of this version."""
    try:
        manifest = json.loads((Path(root) / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("fingerprint") == fingerprint()


def synthesise_noise(
    noise_scenario: str, sample_rate: int, seed: int = 0, duration: float = 5.0
) -> np.ndarray:
    """A generated interferer.

    Parameters
    ----------
    noise_scenario : str
        ``white``; ``room`` (mains hum with harmonics and air handling); ``horse`` (hoof beats and
        whinnies with pauses).
    sample_rate : int
        Hz. Synthesised at 32 kHz, then resampled in the frequency domain.
    seed : int
        Another seed is another recording.
    duration : float
        Seconds, at most 5.

    Returns
    -------
    numpy.ndarray
        float64 (round(duration * sample_rate),), largest absolute value 1.

    Raises
    ------
    ValueError
        Unknown scenario (``clean`` has no noise), sample rate below 1, or duration out of range.
    """
    check_choice("noise_scenario", noise_scenario, NOISE_SCENARIOS[1:])
    if sample_rate < 1 or not 0 < duration <= 5.0:
        got = f"{sample_rate}, {duration}"
        raise ValueError(f"sample_rate must be positive and duration within 0-5 s; got {got}")
    rng = default_rng([SEED, 1000 + NOISE_SCENARIOS.index(noise_scenario), seed])
    noise = {"white": _white, "room": _room, "horse": _horse}[noise_scenario](rng)
    n_resampled = round(N_SAMPLES * sample_rate / SAMPLE_RATE)
    noise = np.fft.irfft(np.fft.rfft(noise), n_resampled)[: round(duration * sample_rate)]
    return noise / np.abs(noise).max()


def _recorded(event: np.ndarray, rng: Generator) -> np.ndarray:
    """The event as a microphone at some distance has it: tilted and low-passed."""
    tilt, edge = rng.uniform(*TILT_DB), rng.uniform(*LOW_PASS)
    return shape(event, lambda f: 10 ** (tilt / 20 * np.minimum(f, 16000) / 8000) / (1 + (f / edge) ** 4))


def _active_rms(event: np.ndarray) -> float:
    """RMS over the 20 ms frames within 30 dB of the loudest."""
    power = np.mean(event.reshape(-1, 640) ** 2, axis=1)
    return float(np.sqrt(power[power > 1e-3 * power.max()].mean()))


def _background(rng: Generator, others: list[str]) -> np.ndarray:
    """One kind of background, some pink hiss, and in some clips a distant event of another class."""
    kind = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    background = unit_rms(kind(rng)) + rng.uniform(0.05, 0.3) * _pink(rng)
    present, level, other = rng.random(), rng.uniform(*DISTRACTOR_DB), rng.integers(len(others))
    if present < DISTRACTOR_SHARE:
        event = EVENTS[others[other]](default_rng(rng.integers(2**32)), rng)
        background = background + 10 ** (level / 20) * unit_rms(shape(event, band(100, 4000)))
    return background


def _white(rng: Generator) -> np.ndarray:
    return rng.standard_normal(N_SAMPLES)


def _pink(rng: Generator) -> np.ndarray:
    return shaped_noise(rng, N_SAMPLES, power_law(-0.5))


def _brown(rng: Generator) -> np.ndarray:
    return shaped_noise(rng, N_SAMPLES, power_law(-1.0))


def _hum(rng: Generator) -> np.ndarray:
    """Mains hum and its harmonics."""
    phase = 2 * np.pi * rng.choice([50.0, 60.0]) * np.arange(N_SAMPLES) / SAMPLE_RATE
    harmonics = (1, 2, 3, 4, 5, 6, 8, 10)
    return sum(rng.uniform(0.1, 1.0) / k * np.sin(k * phase + rng.uniform(0, 6)) for k in harmonics)


def _wind(rng: Generator) -> np.ndarray:
    """Gusts of low noise."""
    gust = np.clip(1 + 0.8 * wander(rng, N_SAMPLES, 1.5), 0.1, None) ** 2
    return gust * shaped_noise(rng, N_SAMPLES, band(40, rng.uniform(250, 900)))


def _babble(rng: Generator) -> np.ndarray:
    """Distant voices: six pulse trains with vowel-like resonances and syllables."""
    out = np.zeros(N_SAMPLES)
    for _ in range(6):
        f0 = rng.uniform(90, 240) * (1 + 0.12 * wander(rng, N_SAMPLES, 4))
        vowel = formants([(rng.uniform(300, 800), 150, 1.0), (rng.uniform(900, 2200), 250, 0.5)], 0.01)
        out += np.clip(wander(rng, N_SAMPLES, 8), 0, None) * unit_rms(shape(pulse_train(f0, 0.85), vowel))
    return out


def _room(rng: Generator) -> np.ndarray:
    """Air handling below about 1 kHz, mains hum, and a faint fan tone."""
    air = shaped_noise(rng, N_SAMPLES, lambda f: power_law(-0.8)(f) * band(40, 2500)(f))
    fan = np.sin(2 * np.pi * rng.uniform(180, 420) * np.arange(N_SAMPLES) / SAMPLE_RATE)
    return air * (1 + 0.1 * wander(rng, N_SAMPLES, 2)) + 0.5 * unit_rms(_hum(rng)) + 0.08 * fan


def _horse(rng: Generator) -> np.ndarray:
    """Two gallops of hoof beats with a whinny before, between or after them."""
    out, gait = 0.003 * _pink(rng), rng.uniform(0.42, 0.6)
    for start in (rng.uniform(0.0, 0.5), rng.uniform(3.0, 3.5)):
        for beat in range(3):
            for step in (0.0, 0.22, 0.5):  # three-beat canter, then a pause
                onset, level = start + gait * (beat + step), rng.uniform(0.5, 0.9)
                add(out, damped(rng.uniform(120, 200), 0.012), onset, level)
                add(out, damped(rng.uniform(900, 1600), 0.004), onset, 0.4 * level)
    n = seconds(rng.uniform(1.0, 1.4))
    tremolo = np.sin(2 * np.pi * rng.uniform(9, 13) * np.arange(n) / SAMPLE_RATE)
    f0 = rng.uniform(700, 1000) * curve([0.8, 1.5, 1.4, 1.1, 0.8, 0.5], n) * (1 + 0.05 * tremolo)
    throat = formants([(1300, 500, 1.0), (2700, 800, 0.6), (4500, 1200, 0.3)])
    whinny = unit_rms(shape(pulse_train(f0, 0.9), throat)) + 0.25 * shaped_noise(rng, n, band(1000, 7000))
    add(out, whinny * (1 + 0.5 * tremolo) * envelope(n, 0.08, 0.8), rng.uniform(1.6, 1.9), 0.6)
    return out


BACKGROUNDS = (_pink, _brown, _hum, _wind, _babble)


def _write_dataset(root: Path, progress: bool, n_workers: int) -> None:
    from tqdm.auto import tqdm

    for folder in ("meta", "audio", "stems/event", "stems/background"):
        (root / folder).mkdir(parents=True)
    table = clip_table()
    jobs = [
        (root, row.filename, row.category, row.src_file % 1000, "AB".index(row.take))
        for row in table.itertuples()
    ]
    pause = 0.1 if sys.stderr.isatty() else 10  # seconds between two states; a log keeps them all
    bar = tqdm(
        total=len(jobs), desc="generating sounds", unit="clip", mininterval=pause, disable=not progress
    )
    with bar:
        if n_workers > 1:
            with ProcessPoolExecutor(n_workers, initializer=end_with_parent) as pool:
                for _ in pool.map(_write_clip, jobs, chunksize=10):
                    bar.update()
        else:
            for job in jobs:
                _write_clip(job)
                bar.update()
    table.to_csv(root / "meta" / "esc50.csv", index=False)
    manifest = {"version": VERSION, "fingerprint": fingerprint(), "n_clips": len(table)}
    (root / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _write_clip(job: tuple) -> None:
    import soundfile

    root, filename, category, source, take = job
    event, background = synthesise_clip(category, source, take)
    sounds = {"audio": event + background, "stems/event": event, "stems/background": background}
    for folder, samples in sounds.items():
        soundfile.write(root / folder / filename, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")


def _put_in_place(temporary: Path, root: Path) -> None:
    """Rename ``temporary`` to ``root``; what was there moves aside first and is deleted after."""
    if root.exists():
        old = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=root.parent))
        os.replace(root, old / "dataset")
        shutil.rmtree(old, ignore_errors=True)
    os.replace(temporary, root)

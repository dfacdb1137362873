"""Eight kinds of plants, each a pair of sounds of one kind: one is the cause, the other its decoy.

The two can change roles, so that no preference of a method for a place in the spectrogram passes for insight.
All are made at 32 kHz and stay below 8 kHz, where recordings at 16 kHz have sound too. ``lowpass`` takes
something away; its sounds are what is missing, with the opposite sign.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator, default_rng

from ...audio.generated.sound_events import (
    N_SAMPLES,
    SAMPLE_RATE,
    add,
    envelope,
    seconds,
    shape,
    shaped_noise,
)

SEED = 71  # of everything that is drawn for plants
HIGH, LOW = (2500.0, 7500.0), (300.0, 1500.0)  # Hz
CHIRP = (1000.0, 3500.0)  # Hz, up or down
MISSING = ((3500.0, 8000.0), (500.0, 1785.0))  # Hz; as wide as each other in mel
REVERBERATION = 1.2  # s to -60 dB
DELAY = 0.04  # s before the tail begins
EDGE = 0.05  # share of a band's edge frequency over which it begins and ends

Pools = Sequence[np.ndarray]
Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Plant:
    """``pair(rng, host, pools)`` gives two sounds (160000,) of any level, which a listener calls by their
    ``names``; ``levels`` (dB) are those tried.

    A level is that of the sound against the clip, both as the classifier's spectrogram has them. Of an
    ``absent`` plant the sounds are the bands that go missing, and the level is that of what is left of them.
    ``events`` takes clips of two further classes, its ``pools``.
    """

    pair: Callable[..., Pair]
    names: tuple[str, str]
    levels: tuple[float, ...]
    absent: bool = False

    def cause(self, swapped: bool) -> str:
        """What a listener calls the cause of a case."""
        return self.names[int(swapped)]

    def gain(self, level_db: float) -> float:
        """What its sounds are multiplied by; those that are not missing were brought to the clip's level."""
        return 10 ** (level_db / 20) - (1.0 if self.absent else 0.0)


def tones(rng: Generator, host: np.ndarray, pools: Pools) -> Pair:
    """A steady tone: 3 kHz, 1.2 kHz."""
    time = np.arange(N_SAMPLES) / SAMPLE_RATE
    return tuple(np.sin(2 * np.pi * (f * time + rng.random())) for f in (3000.0, 1200.0))


def click_trains(rng: Generator, host: np.ndarray, pools: Pools) -> Pair:
    """Clicks of a few milliseconds, four a second: ticks, knocks."""
    sounds = []
    for edges in (HIGH, LOW):
        clicks, onset = np.zeros(N_SAMPLES), rng.uniform(0, 0.25)
        while onset < 4.99:
            clicks[seconds(onset)] = rng.choice([-1.0, 1.0])
            onset += rng.uniform(0.2, 0.3)
        sounds.append(shape(clicks, band_gain(*edges)))
    return tuple(sounds)


def chirps(rng: Generator, host: np.ndarray, pools: Pools) -> Pair:
    """Two short chirps through the same band, apart in time: upwards, downwards."""
    sounds, slots = [], rng.permutation(4)
    for direction, own in ((1, slots[:2]), (-1, slots[2:])):
        out, n = np.zeros(N_SAMPLES), seconds(0.3)
        sweep = np.geomspace(*CHIRP[::direction], n)
        chirp = np.sin(2 * np.pi * np.cumsum(sweep) / SAMPLE_RATE) * np.sin(np.linspace(0, np.pi, n))
        for slot in own:
            add(out, chirp, 1.2 * slot + rng.uniform(0.05, 0.85))
        sounds.append(out)
    return tuple(sounds)


def hums(rng: Generator, host: np.ndarray, pools: Pools) -> Pair:
    """Seven harmonics that fall off: a hum of 120 Hz, a whine of 1050 Hz, which share no band."""
    time, sounds = np.arange(N_SAMPLES) / SAMPLE_RATE, []
    for pitch in (120.0, 1050.0):
        partials = [np.sin(2 * np.pi * (k * pitch * time + rng.random())) / k for k in range(1, 8)]
        sounds.append(np.sum(partials, axis=0))
    return tuple(sounds)


def noise_floors(rng: Generator, host: np.ndarray, pools: Pools) -> Pair:
    """The floor of a microphone: hiss, rumble."""
    return tuple(shaped_noise(rng, N_SAMPLES, band_gain(*edges)) for edges in (HIGH, LOW))


def tails(rng: Generator, host: np.ndarray, pools: Pools) -> Pair:
    """The late part of a room's reverberation on the clip: low, high."""
    n, sounds = seconds(REVERBERATION), []
    for edges in (LOW, HIGH):
        response = np.zeros(seconds(DELAY) + n)
        response[-n:] = rng.standard_normal(n) * envelope(n, 0.005, REVERBERATION / 6.9)
        size = 1 << (N_SAMPLES + len(response) - 1).bit_length()
        spectrum = np.fft.rfft(host, size) * np.fft.rfft(response, size)
        spectrum *= band_gain(*edges)(np.fft.rfftfreq(size, 1 / SAMPLE_RATE))
        sounds.append(np.fft.irfft(spectrum, size)[:N_SAMPLES])
    return tuple(sounds)


def events(rng: Generator, host: np.ndarray, pools: Pools) -> Pair:
    """A second sound event: a clip of one further class, a clip of another, each at any place."""
    chosen = [pool[rng.integers(len(pool))] for pool in pools]
    return tuple(np.roll(clip, rng.integers(N_SAMPLES)) for clip in chosen)


def missing_bands(rng: Generator, host: np.ndarray, pools: Pools) -> Pair:
    """What a codec takes away: all above 3.5 kHz, a band below of the same width in mel."""
    return tuple(shape(host, band_gain(*edges)) for edges in MISSING)


def band_gain(low: float, high: float) -> Callable[[np.ndarray], np.ndarray]:
    """1 between two frequencies (Hz) and 0 outside, with straight edges."""
    corners = [low * (1 - EDGE), low * (1 + EDGE), high * (1 - EDGE), high * (1 + EDGE)]
    return lambda f: np.interp(f, corners, [0.0, 1.0, 1.0, 0.0])


PLANTS: dict[str, Plant] = {
    "tone": Plant(tones, ("a high tone", "a low tone"), (-18.0, -12.0, -6.0, 0.0)),
    "clicks": Plant(click_trains, ("ticks", "knocks"), (-18.0, -12.0, -6.0, 0.0)),
    "chirp": Plant(chirps, ("rising chirps", "falling chirps"), (-18.0, -12.0, -6.0, 0.0)),
    "hum": Plant(hums, ("a hum", "a whine"), (-18.0, -12.0, -6.0, 0.0)),
    "noise": Plant(noise_floors, ("hiss", "rumble"), (-24.0, -18.0, -12.0, -6.0, 0.0)),
    "lowpass": Plant(missing_bands, ("no highs", "no middle"), (-6.0, -12.0, -24.0, -48.0), absent=True),
    "reverb": Plant(tails, ("a dull echo", "a bright echo"), (-18.0, -12.0, -6.0, 0.0)),
    "event": Plant(events, ("birds", "an alarm clock"), (-18.0, -12.0, -6.0, 0.0)),
}


def pair_of(plant: str, host: np.ndarray, name: str, pools: Pools = ()) -> Pair:
    """The two sounds of a plant for one clip, whose ``name`` decides what is drawn."""
    rng = default_rng([SEED, list(PLANTS).index(plant), zlib.crc32(name.encode())])
    return PLANTS[plant].pair(rng, host, pools)

"""Ten kinds of sound events from first principles: pulses, noise, resonances and envelopes.

Every event is a function of two seeded generators and returns `N_SAMPLES` samples at
`SAMPLE_RATE`: ``voice`` draws what belongs to the source (pitch, resonances, tempo) and is the
same for all takes of one source; ``rng`` draws what differs between takes (onsets, levels).
All arithmetic is float64.

References
----------
Moorer (1976), The synthesis of complex audio spectra by means of discrete summation formulas,
J. Audio Eng. Soc. 24(9): `pulse_train` is its finite one-sided sum.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

SAMPLE_RATE = 32000  # Hz
N_SAMPLES = 5 * SAMPLE_RATE


def seconds(duration: float) -> int:
    """Samples in ``duration`` seconds."""
    return round(duration * SAMPLE_RATE)


def shaped_noise(rng: Generator, n: int, gain: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """White noise times ``gain(frequency in Hz)``, scaled to RMS 1; (n,)."""
    size = _fft_size(n)
    spectrum = rng.standard_normal(size + 2).view(np.complex128)
    spectrum *= gain(np.fft.rfftfreq(size, 1 / SAMPLE_RATE))
    return unit_rms(np.fft.irfft(spectrum, size)[:n])


def shape(signal: np.ndarray, gain: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Filter without phase shift: the spectrum times ``gain(frequency in Hz)``."""
    size = _fft_size(len(signal))
    spectrum = np.fft.rfft(signal, size) * gain(np.fft.rfftfreq(size, 1 / SAMPLE_RATE))
    return np.fft.irfft(spectrum, size)[: len(signal)]


def _fft_size(n: int) -> int:
    """A fast transform's length of at least ``n``; a whole clip's own length (2**8 * 5**4) is one."""
    return n if n == N_SAMPLES else 1 << (n - 1).bit_length()


def band(low: float, high: float, order: float = 2.0) -> Callable[[np.ndarray], np.ndarray]:
    """Smooth band-pass gain with edges ``low`` and ``high`` in Hz."""
    return lambda f: 1.0 / (1.0 + (low / np.maximum(f, 1.0)) ** order) / (1.0 + (f / high) ** order)


def power_law(exponent: float, low: float = 30.0) -> Callable[[np.ndarray], np.ndarray]:
    """Gain f**exponent, flat below ``low`` Hz; -0.5 is pink, -1 brown."""
    return lambda f: np.maximum(f / low, 1.0) ** exponent


def formants(
    peaks: list[tuple[float, float, float]], floor: float = 0.03
) -> Callable[[np.ndarray], np.ndarray]:
    """Sum of resonances (centre Hz, bandwidth Hz, gain) on a small ``floor``."""
    return lambda f: floor + sum(g / np.sqrt(1.0 + ((f - c) / (b / 2)) ** 2) for c, b, g in peaks)


def pulse_train(f0: np.ndarray, brightness: float) -> np.ndarray:
    """Harmonics k of ``f0`` (Hz per sample) with amplitudes ``brightness``**k, none above 15 kHz."""
    phase = 2 * np.pi * np.cumsum(f0) / SAMPLE_RATE
    k, r = max(1, int(15000 / f0.max())), brightness
    numerator = r * np.sin(phase) - r ** (k + 1) * np.sin((k + 1) * phase) + r ** (k + 2) * np.sin(k * phase)
    return numerator / (1.0 - 2 * r * np.cos(phase) + r * r)


def curve(points: list[float], n: int) -> np.ndarray:
    """Straight lines through equally spaced ``points``; (n,)."""
    return np.interp(np.linspace(0.0, 1.0, n), np.linspace(0.0, 1.0, len(points)), points)


def wander(rng: Generator, n: int, rate: float) -> np.ndarray:
    """A slow random walk-like curve between -1 and 1, with ``rate`` new values a second."""
    return curve(list(rng.uniform(-1.0, 1.0, max(2, int(n / SAMPLE_RATE * rate) + 2))), n)


def envelope(n: int, attack: float, decay: float) -> np.ndarray:
    """Linear rise in ``attack`` seconds, exponential fall with time constant ``decay`` s, faded out."""
    t = np.arange(n) / SAMPLE_RATE
    fade = np.minimum(1.0, (n - np.arange(n)) / max(1, seconds(0.01)))
    return np.minimum(t / attack, 1.0) * np.exp(-np.maximum(t - attack, 0.0) / decay) * np.minimum(fade, 1.0)


def damped(frequency: float, decay: float, phase: float = 0.0) -> np.ndarray:
    """A sinusoid that falls by 1/e in ``decay`` seconds, cut after six of them."""
    t = np.arange(seconds(6 * decay) + 1) / SAMPLE_RATE
    return np.sin(2 * np.pi * frequency * t + phase) * np.exp(-t / decay)


def add(signal: np.ndarray, part: np.ndarray, onset: float, gain: float = 1.0) -> None:
    """Add ``part`` to ``signal`` in place from ``onset`` seconds; what reaches beyond the ends is cut."""
    start = seconds(onset)
    part = part[max(0, -start) : max(0, len(signal) - start)]
    signal[max(0, start) : max(0, start) + len(part)] += gain * part


def unit_rms(signal: np.ndarray) -> np.ndarray:
    """``signal`` with RMS 1; silence stays silence."""
    rms = np.sqrt(np.mean(signal * signal))
    return signal / rms if rms > 0 else signal


def clicks(rng: Generator, rate: float, modes: list[tuple[float, float]], spread: float) -> np.ndarray:
    """Poisson clicks, ``rate`` a second in all, each ringing one of ``modes`` (Hz, decay s).

    ``spread`` is the standard deviation of the clicks' levels in nepers.
    """
    size = 163840  # N_SAMPLES and the longest ring, 2**15 * 5
    spectrum = np.zeros(size // 2 + 1, dtype=complex)
    for frequency, decay in modes:
        impulses = np.zeros(N_SAMPLES)
        n = rng.poisson(5.0 * rate / len(modes))
        levels = np.exp(spread * rng.standard_normal(n)) * rng.choice([-1.0, 1.0], n)
        np.add.at(impulses, rng.integers(0, N_SAMPLES, n), levels)
        spectrum += np.fft.rfft(impulses, size) * np.fft.rfft(damped(frequency, decay, 0.5), size)
    return np.fft.irfft(spectrum, size)[:N_SAMPLES]


def dog(voice: Generator, rng: Generator) -> np.ndarray:
    """Barks: a quick rise and fall in pitch through a short throat, with breath noise."""
    out, pitch = np.zeros(N_SAMPLES), np.exp(voice.uniform(np.log(220), np.log(800)))
    length, roughness = voice.uniform(0.12, 0.32), voice.uniform(0.15, 0.6)
    throat = formants([(voice.uniform(600, 1300), 500, 1.0), (voice.uniform(1800, 3200), 900, 0.5)])
    pause, onset = voice.uniform(0.15, 0.9), rng.uniform(0.0, 1.5)
    for _ in range(rng.integers(1, 8)):
        n = seconds(length * rng.uniform(0.8, 1.2))
        f0 = pitch * rng.uniform(0.9, 1.1) * curve([0.75, 1.25, 1.0, 0.6], n)
        tone = unit_rms(shape(pulse_train(f0, 0.88), throat))
        bark = tone + roughness * shaped_noise(rng, n, band(500, 6000))
        add(out, bark * envelope(n, 0.012, length / 2.2), onset, rng.uniform(0.6, 1.0))
        onset += length + pause * rng.uniform(0.7, 1.6)
        if onset > 4.8:
            break
    return out


def rooster(voice: Generator, rng: Generator) -> np.ndarray:
    """Crowing: two or three short calls, then a long one that rises and falls; formants open."""
    out, pitch = np.zeros(N_SAMPLES), voice.uniform(420, 850)
    lengths = [voice.uniform(0.12, 0.3) for _ in range(voice.integers(1, 4))] + [voice.uniform(0.6, 1.5)]
    narrow = formants([(voice.uniform(900, 1400), 400, 1.0), (2600, 700, 0.4)])
    wide = formants([(voice.uniform(1500, 2300), 500, 1.0), (3600, 900, 0.5)])
    breath, onset = voice.uniform(0.05, 0.25), rng.uniform(0.0, 2.2)
    for _ in range(rng.integers(1, 3)):
        for i, length in enumerate(lengths):
            n = seconds(length)
            glide = [0.9, 1.35, 1.3, 1.1, 0.75] if i == len(lengths) - 1 else [0.85, 1.15, 1.0]
            f0 = pitch * curve(glide, n) * (1 + 0.015 * wander(rng, n, 40))
            source, opening = pulse_train(f0, 0.9), curve([0, 1, 0.4], n)
            call = (1 - opening) * shape(source, narrow) + opening * shape(source, wide)
            call = unit_rms(call) + breath * shaped_noise(rng, n, band(1200, 8000))
            add(out, call * envelope(n, 0.03, 1.2 * length), onset, 1.0 if i else 0.7)
            onset += length + rng.uniform(0.03, 0.12)
        onset += rng.uniform(0.4, 1.5)
    return out


def rain(voice: Generator, rng: Generator) -> np.ndarray:
    """Dense drops that ring between 1 and 10 kHz, over a broad hiss."""
    modes = [(voice.uniform(1000, 10000), voice.uniform(0.0004, 0.004)) for _ in range(6)]
    drops = unit_rms(clicks(rng, np.exp(voice.uniform(np.log(60), np.log(2500))), modes, 0.8))
    hiss = shaped_noise(rng, N_SAMPLES, band(voice.uniform(200, 1800), voice.uniform(3500, 12000)))
    return (voice.uniform(0.15, 1.0) * drops + hiss) * (1 + voice.uniform(0, 0.3) * wander(rng, N_SAMPLES, 1))


def sea_waves(voice: Generator, rng: Generator) -> np.ndarray:
    """Noise whose level and brightness follow a slow swell."""
    t = np.arange(N_SAMPLES) / SAMPLE_RATE
    swell = 0.5 + 0.5 * np.sin(2 * np.pi * t / voice.uniform(2.5, 9.0) + rng.uniform(0, 2 * np.pi))
    swell = np.clip(swell + 0.15 * wander(rng, N_SAMPLES, 2), 0.0, None) ** voice.uniform(0.6, 2.0)
    body = shaped_noise(rng, N_SAMPLES, band(60, voice.uniform(400, 1500)))
    foam = shaped_noise(rng, N_SAMPLES, band(voice.uniform(500, 1500), voice.uniform(3000, 9000)))
    floor = voice.uniform(0.1, 0.5)
    return body * (floor + swell) + voice.uniform(0.2, 1.0) * foam * (0.3 * floor + swell * swell)


def crackling_fire(voice: Generator, rng: Generator) -> np.ndarray:
    """Sparse snaps of very different strength, over a low rumble."""
    modes = [(voice.uniform(900, 7000), voice.uniform(0.0001, 0.001)) for _ in range(5)]
    snaps = unit_rms(clicks(rng, np.exp(voice.uniform(np.log(5), np.log(60))), modes, 1.0))
    snaps = 8 * np.tanh(snaps / 8)  # as a microphone limits them: otherwise all else would be inaudible
    rumble = shaped_noise(rng, N_SAMPLES, band(40, voice.uniform(150, 500)))
    hiss = shaped_noise(rng, N_SAMPLES, band(800, 9000))
    flicker = 1 + 0.5 * wander(rng, N_SAMPLES, 6)
    return snaps + flicker * (voice.uniform(0.2, 0.9) * rumble + voice.uniform(0.03, 0.25) * hiss)


def crying_baby(voice: Generator, rng: Generator) -> np.ndarray:
    """Wails between 350 and 600 Hz with vibrato, one a breath, and gasps between them."""
    out, pitch = np.zeros(N_SAMPLES), voice.uniform(350, 600)
    mouth = formants([(voice.uniform(900, 1500), 500, 1.0), (voice.uniform(2800, 3800), 800, 0.6)])
    length, gap, onset = voice.uniform(0.5, 1.4), voice.uniform(0.2, 0.6), rng.uniform(-0.4, 1.0)
    rate, depth, hoarse = voice.uniform(4.5, 7.5), voice.uniform(0.005, 0.035), voice.uniform(0.03, 0.3)
    while onset < 4.9:
        n = seconds(length * rng.uniform(0.7, 1.3))
        vibrato = 1 + depth * np.sin(2 * np.pi * rate * np.arange(n) / SAMPLE_RATE)
        f0 = pitch * rng.uniform(0.93, 1.07) * curve([0.85, 1.08, 1.05, 1.0, 0.78], n) * vibrato
        wail = unit_rms(shape(pulse_train(f0, 0.9), mouth)) + hoarse * shaped_noise(rng, n, band(900, 7000))
        add(out, wail * curve([0, 1, 0.95, 0.85, 0], n), onset, rng.uniform(0.6, 1.0))
        gasp = seconds(0.6 * gap)
        breath = shaped_noise(rng, gasp, band(700, 5000)) * curve([0, 0.5, 1, 0], gasp)
        add(out, breath, onset + n / SAMPLE_RATE + 0.2 * gap, rng.uniform(0.03, 0.15))
        onset += n / SAMPLE_RATE + gap * rng.uniform(0.8, 1.5)
    return out


def sneezing(voice: Generator, rng: Generator) -> np.ndarray:
    """A rising inhalation, then an explosion of breath with a short voiced tail."""
    out, onset = np.zeros(N_SAMPLES), rng.uniform(0.0, 2.5)
    pitch = voice.uniform(180, 450)
    throat = formants([(voice.uniform(500, 900), 300, 1.0), (1700, 500, 0.4)])
    inhale, burst, voiced = voice.uniform(0.25, 0.8), voice.uniform(0.1, 0.35), voice.uniform(0.1, 0.7)
    mouth, nose = band(voice.uniform(500, 1500), voice.uniform(4500, 11000)), band(900, 4500)
    quiet = voice.uniform(0.08, 0.3)
    for _ in range(rng.integers(1, 3)):
        n = seconds(inhale * rng.uniform(0.7, 1.2))
        add(out, shaped_noise(rng, n, nose) * curve([0, 0.3, 1, 0], n), onset, quiet)
        onset += n / SAMPLE_RATE + rng.uniform(0.02, 0.15)
        n = seconds(3 * burst)
        add(out, shaped_noise(rng, n, mouth) * envelope(n, 0.006, burst / 1.5), onset)
        tail = unit_rms(shape(pulse_train(pitch * curve([1.3, 1.0, 0.7], n), 0.85), throat))
        add(out, tail * envelope(n, 0.03, burst / 1.2), onset + 0.03, voiced)
        onset += 3 * burst + rng.uniform(0.3, 1.2)
    return out


CLOCK_MODES = ((900, 8500), (0.001, 0.014), (0.2, 1.0))  # Hz, decay s, gain


def clock_tick(voice: Generator, rng: Generator) -> np.ndarray:
    """Regular damped clicks; tick and tock differ a little."""
    out, period = np.zeros(N_SAMPLES), voice.choice([0.2, 0.25, 0.4, 0.5, 0.5, 1.0])
    draws = [[voice.uniform(low, high) for low, high in CLOCK_MODES] for _ in range(5)]
    beats, onset = [], rng.uniform(0.0, period)
    for detune in (1.0, voice.uniform(0.75, 1.25)):
        beat = np.zeros(seconds(0.1))
        for frequency, decay, gain in draws:
            add(beat, damped(frequency * detune, decay), 0.0, gain)
        add(beat, rng.standard_normal(seconds(0.0015)), 0.0, voice.uniform(0.1, 0.6))
        beats.append(beat)
    second = voice.uniform(0.4, 1.0)
    for i in range(int((5.0 - onset) / period) + 1):
        add(out, beats[i % 2], onset + i * period, (second if i % 2 else 1.0) * rng.uniform(0.85, 1.0))
    return out


def helicopter(voice: Generator, rng: Generator) -> np.ndarray:
    """Blade slaps: low harmonics of the blade rate, and noise that pulses with it."""
    rate = voice.uniform(9, 26) * (1 + 0.01 * wander(rng, N_SAMPLES, 1))
    slap = unit_rms(shape(pulse_train(rate, 0.93), band(voice.uniform(20, 60), voice.uniform(120, 400))))
    phase = 2 * np.pi * np.cumsum(rate) / SAMPLE_RATE
    pulse = np.exp(voice.uniform(1.0, 3.0) * (np.cos(phase) - 1))
    wash = shaped_noise(rng, N_SAMPLES, band(80, voice.uniform(500, 2500)))
    whine = np.sin(2 * np.pi * voice.uniform(900, 3500) * np.arange(N_SAMPLES) / SAMPLE_RATE)
    near = np.clip(curve(list(rng.uniform(0.35, 1.0, 3)), N_SAMPLES), 0.05, None)
    return near * (slap + wash * (0.25 + voice.uniform(0.6, 2.0) * pulse) + voice.uniform(0, 0.08) * whine)


def chainsaw(voice: Generator, rng: Generator) -> np.ndarray:
    """A two-stroke engine: a bright pulse train that revs, with exhaust noise in step."""
    idle, full = voice.uniform(45, 75), voice.uniform(90, 170)
    throttle = np.clip(curve(list(rng.uniform(-0.3, 1.4, rng.integers(3, 8))), N_SAMPLES), 0.0, 1.0)
    rate = idle + (full - idle) * throttle
    rate = rate * (1 + 0.02 * wander(rng, N_SAMPLES, 30))
    low, high = voice.uniform(300, 900), voice.uniform(1500, 3500)
    box = formants([(low, 400, 1.0), (high, 1500, 0.8), (6000, 3000, 0.4)], 0.1)
    source = pulse_train(rate, 0.95)
    exhaust = shaped_noise(rng, N_SAMPLES, band(400, voice.uniform(3000, 9000)))
    pulses = np.clip(source / np.sqrt(np.mean(source * source)), 0, 2)
    buzz = unit_rms(shape(source, box)) + voice.uniform(0.2, 0.9) * exhaust * (0.3 + pulses)
    return (0.35 + 0.65 * throttle) * buzz


EVENTS = {
    "dog": dog,
    "rooster": rooster,
    "rain": rain,
    "sea_waves": sea_waves,
    "crackling_fire": crackling_fire,
    "crying_baby": crying_baby,
    "sneezing": sneezing,
    "clock_tick": clock_tick,
    "helicopter": helicopter,
    "chainsaw": chainsaw,
}

"""An example that is not the study's: three kinds of sound of known place, and a spectrogram of one's own.

Notebook 09 trains a small model on them and explains it. Each sound is an event on a background, and
both are known separately, so that one can see whether an explanation points at the event.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from numpy.random import Generator, default_rng
from torch import nn

from ..audio.spectrograms import SpectrogramBatch, power_to_db
from ..evaluation.controls import control_masks, energy_kept, oracle_mask

SAMPLE_RATE = 22050  # Hz
SECONDS = 2.0
CLASSES = ("bird", "alarm", "drum")
BANDS = {"bird": (2500.0, 6000.0), "alarm": (450.0, 3000.0), "drum": (60.0, 500.0)}  # Hz, of the events
SNR_DB = (3.0, 12.0)  # event, over its second, to background


class PlainSpectrogram(nn.Module):
    """STFT with a Hamming window at 22.05 kHz: all that `explain` asks of a spectrogram.

    These are ``sample_rate``, a call on waveforms (batch, samples) that gives a `SpectrogramBatch`, and
    ``invert``. ``name``, ``hop_length`` and ``frequencies`` serve the figures.
    """

    name, sample_rate, n_fft, hop_length = "plain_db", SAMPLE_RATE, 512, 256

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hamming_window(self.n_fft, dtype=torch.float64))
        self.frequencies = torch.fft.rfftfreq(self.n_fft, 1 / self.sample_rate)  # Hz, (257,)

    def forward(self, waveform: torch.Tensor) -> SpectrogramBatch:
        window = self.window.to(waveform.dtype)
        stft = torch.stft(waveform, self.n_fft, self.hop_length, window=window, return_complex=True)
        stft = stft[:, None]  # (batch, 1, 257, time)
        power = stft.abs().square()
        return SpectrogramBatch(power_to_db(power), power, stft.angle(), waveform.shape[1])

    def invert(self, power: torch.Tensor, phase: torch.Tensor, length: int) -> torch.Tensor:
        """Waveform (batch, ``length``) of a masked power; ``phase`` is in radians, or exp(i phase)."""
        phasor = phase if phase.is_complex() else torch.polar(torch.ones_like(phase), phase)
        stft = (power.sqrt() * phasor)[:, 0]  # (batch, 257, time)
        return torch.istft(
            stft, self.n_fft, self.hop_length, window=self.window.to(power.dtype), length=length
        )


def make_clips(n_per_class: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sounds of the three classes in turn.

    Returns
    -------
    events, backgrounds : torch.Tensor
        float32 (3 * n_per_class, samples); their sum is the sound, whose peak is 1.
    labels : torch.Tensor
        long, places in `CLASSES`.
    """
    if n_per_class < 1:
        raise ValueError(f"n_per_class must be at least 1; got {n_per_class}")
    rng, pairs = default_rng(seed), []
    for _ in range(n_per_class):
        pairs += [_clip(rng, event) for event in (_bird, _alarm, _drum)]
    events, backgrounds = (torch.from_numpy(np.stack(stems)).float() for stems in zip(*pairs))
    return events, backgrounds, torch.arange(len(CLASSES)).repeat(n_per_class)


def against_truth(explanation, event: torch.Tensor, background: torch.Tensor, mask: str) -> pd.DataFrame:
    """Does a mask keep the event, and more of it than masks of its size that know nothing of the model?

    Parameters
    ----------
    explanation : explanation.Explanation
        Of the sum of ``event`` and ``background``, both (samples,).
    mask : str
        One of the explanation's masks, a binary one.

    Returns
    -------
    pandas.DataFrame
        Rows method, energy (the loudest bins), random and oracle (bins where the event is louder than the
        background). ``event`` and ``background``: share of each one's energy that is kept;
        ``snr_gain``: by how many dB the event stands out more than before; ``area``: share of kept bins.
    """
    powers = [explanation.spectrogram(stem[None]).power for stem in (event, background)]
    own = explanation.masks[mask]
    masks = {
        "method": own,
        **control_masks(own, explanation.batch.power),
        "oracle": oracle_mask(*powers).to(own),
    }
    rows = []
    for name, kept in masks.items():
        energy = {key: float(value) for key, value in energy_kept(kept, *powers).items()}
        rows.append(
            {
                "kind": name,
                "event": 10 ** (energy["source_kept"] / 10),
                "background": 10 ** (energy["interferer_kept"] / 10),
                "snr_gain": energy["snr_gain"],
                "area": float(kept.mean()),
            }
        )
    return pd.DataFrame(rows)


def _clip(rng: Generator, event) -> tuple[np.ndarray, np.ndarray]:
    """An event of a second somewhere in two seconds of background: falling noise and a steady hum."""
    n = int(SAMPLE_RATE * SECONDS)
    spectrum = np.fft.rfft(rng.standard_normal(n))
    spectrum /= np.maximum(np.fft.rfftfreq(n, 1 / SAMPLE_RATE) / 50, 1) ** 0.5
    background = np.fft.irfft(spectrum, n)
    hum = np.sin(2 * np.pi * rng.uniform(50, 8000) * np.arange(n) / SAMPLE_RATE)
    background = background / background.std() + rng.uniform(0, 1) * hum
    sound, start = event(rng), int(rng.uniform(0, n - SAMPLE_RATE))
    level = 10 ** (rng.uniform(*SNR_DB) / 20) * background.std() / sound[sound != 0].std()
    whole = np.zeros(n)
    whole[start : start + len(sound)] = level * sound
    peak = np.abs(whole + background).max()
    return whole / peak, background / peak


def _time() -> np.ndarray:
    """One second, s."""
    return np.arange(SAMPLE_RATE) / SAMPLE_RATE


def _bird(rng: Generator) -> np.ndarray:
    """Short rising chirps."""
    time, sound = _time(), np.zeros(SAMPLE_RATE)
    low, high, length = rng.uniform(2800, 3500), rng.uniform(4500, 5500), rng.uniform(0.06, 0.12)
    for onset in np.arange(rng.uniform(0, 0.1), 0.85, rng.uniform(0.14, 0.25)):
        place = np.clip((time - onset) / length, 0, 1)
        phase = 2 * np.pi * np.cumsum(low + (high - low) * place) / SAMPLE_RATE
        sound += np.sin(np.pi * place) ** 2 * np.sin(phase)
    return sound


def _alarm(rng: Generator) -> np.ndarray:
    """A tone with an overtone that slides up and down."""
    time = _time()
    pitch = rng.uniform(800, 1000) + rng.uniform(150, 300) * np.sin(2 * np.pi * rng.uniform(2, 4) * time)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    return np.sin(np.pi * time) ** 0.3 * (np.sin(phase) + 0.4 * np.sin(2 * phase))


def _drum(rng: Generator) -> np.ndarray:
    """Beats of a low, quickly damped tone."""
    time, sound, pitch = _time(), np.zeros(SAMPLE_RATE), rng.uniform(100, 180)
    for onset in np.arange(rng.uniform(0, 0.1), 0.95, rng.uniform(0.12, 0.3)):
        after = np.maximum(time - onset, 0)
        sound += (
            (time >= onset)
            * np.exp(-18 * after)
            * np.sin(2 * np.pi * pitch * (1 + np.exp(-40 * after)) * after)
        )
    return sound


def band_levels(spectrogram, waveform: torch.Tensor, n_bands: int = 20) -> np.ndarray:
    """Mean level (dB) of ``n_bands`` bands of waveforms (clips, samples), (clips, n_bands): what a model that
    is no network may look at.
    """
    power = spectrogram(waveform).power.mean((1, 3))  # (clips, frequency)
    return torch.stack([10 * part.mean(1).log10() for part in power.tensor_split(n_bands, 1)], dim=1).numpy()

"""Synthetic explanations for the tests of pages and pictures: chirps in noise, made-up attributions.

No model is behind them: probabilities and scores are drawn, so nothing here is a result.
"""

from __future__ import annotations

import numpy as np
import torch

from audioxai_utils.audio.spectrograms import get_spectrogram, kept_audio, removed_audio
from audioxai_utils.constants import SPECTROGRAMS, STUDY_METHODS
from audioxai_utils.evaluation.masks import build_masks
from audioxai_utils.gallery.entries import BEST_MASK, GalleryEntry

CLASSES = ("dog", "rooster", "sea_waves", "crying_baby")


def chirps(sample_rate: int, seed: int, seconds: float = 5.0) -> np.ndarray:
    """Two rising and falling calls with harmonics in soft noise, peak 1; float32 (samples,)."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    sound = 0.01 * rng.standard_normal(len(time))
    for onset in (0.15 + 0.05 * (seed % 5), 0.6):
        inside = np.clip((time / seconds - onset) / 0.25, 0, 1)
        pitch = (350 + 90 * (seed % 7)) * (1 + 0.5 * np.sin(np.pi * inside))
        phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
        sound += np.sin(np.pi * inside) ** 2 * sum(np.sin(k * phase) / k for k in (1, 2, 3, 5))
    return (sound / np.abs(sound).max()).astype(np.float32)


def made_up_attribution(db: torch.Tensor, method: str, seed: int) -> torch.Tensor:
    """A signed map that looks like the method's: scattered, smooth or in patches; (1, 1, F, T)."""
    generator = torch.Generator().manual_seed(seed)
    level = (db - db.min()) / (db.max() - db.min())
    noise = torch.randn(db.shape, generator=generator)
    if method == "gradcam":
        blurred = torch.nn.functional.avg_pool2d(level - level.mean() + 0.3 * noise, (9, 31), 1, (4, 15))
        return blurred[..., : db.shape[2], : db.shape[3]]
    if method == "lime":
        patches = torch.randn(1, 1, 6, 14, generator=generator)
        return 0.02 * torch.nn.functional.interpolate(patches, db.shape[2:]) * level
    return (level**2 if method == "saliency" else level - 0.4) * noise


def entries(
    n_clips: int = 2,
    conditions=(("mel_db", "clean"),),
    methods=STUDY_METHODS,
    mask_names=("topK_30_pos",),
    protocols=("paper",),
):
    """Yield a GalleryEntry per clip, condition, method, mask and protocol."""
    for number in range(n_clips):
        for spectrogram_type, noise_scenario in conditions:
            transform = get_spectrogram(spectrogram_type)
            waveform = chirps(SPECTROGRAMS[spectrogram_type].sample_rate, number)
            if noise_scenario != "clean":
                noise = np.random.default_rng(99).standard_normal(len(waveform)).astype(np.float32)
                waveform = 0.7 * waveform + 0.08 * noise
            batch = transform(torch.from_numpy(waveform)[None])
            for method in methods:
                attribution = made_up_attribution(batch.db, method, number)
                for protocol in protocols:
                    masks = build_masks(attribution, protocol=protocol)
                    for mask_name in mask_names:
                        yield _entry(
                            number,
                            spectrogram_type,
                            noise_scenario,
                            method,
                            mask_name,
                            protocol,
                            attribution,
                            masks[mask_name],
                            batch,
                            transform,
                            waveform,
                        )


def _entry(
    number,
    spectrogram_type,
    noise_scenario,
    method,
    mask_name,
    protocol,
    attribution,
    mask,
    batch,
    transform,
    waveform,
) -> GalleryEntry:
    draw = np.random.default_rng(abs(hash_of(number, method, mask_name)))
    category = CLASSES[number % len(CLASSES)]
    other = CLASSES[(number + 1) % len(CLASSES)]
    p = draw.random(3)
    return GalleryEntry(
        clip=f"5-{1000 + number}-A-{number}",
        category=category,
        spectrogram_type=spectrogram_type,
        noise_scenario=noise_scenario,
        method=method,
        mask_name=mask_name,
        protocol=protocol,
        db=batch.db,
        attribution=attribution,
        mask=mask,
        original=waveform,
        kept=kept_audio(batch, mask, transform),
        removed=removed_audio(batch, mask, transform),
        sample_rate=transform.sample_rate,
        correct=number % 3 != 2,
        probabilities={
            "original": (category, 0.5 + p[0] / 2),
            "kept": (category if p[1] > 0.4 else other, p[1]),
            "removed": (other, p[2]),
        },
        explained={"original": 0.5 + p[0] / 2, "kept": p[1], "removed": 1 - p[2]},
        scores={
            "FF": p[0],
            "AI": 100.0 * (p[1] > 0.5),
            "AG": 3 * p[2],
            "FidIn": float(p[1] > 0.4),
            "SPS": p[1],
            "AD": 100 * p[2],
            "COMP": np.nan if mask_name == "pos_thresh_75" else 10 * p[0],
        },
        tags=(BEST_MASK,) if mask_name == "topK_30_pos" else (),
    )


def hash_of(*words) -> int:
    """A number that is the same in every run."""
    return sum((index + 1) * byte for index, byte in enumerate(repr(words).encode()))

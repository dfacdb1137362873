"""Fragility against loops: maps that follow the sound, maps that do not, and what is left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from audioxai_utils.audio.spectrograms import get_spectrogram
from audioxai_utils.audit import fragility

CLIPS = 0.1 * torch.sin(torch.arange(160000) * torch.tensor([[0.1], [0.5]]))


class Loudest(nn.Module):
    """Two classes: which half of the rows is louder."""

    def forward(self, picture):
        return torch.stack([half.amax((1, 2, 3)) for half in picture.chunk(2, 2)], 1)


def explain(name, db, waveform, target):
    if name == "level":
        return db
    generator = torch.Generator().manual_seed(int(1e6 * abs(float(waveform.sum()))) % 2**31)
    return (
        torch.ones_like(db) * torch.arange(db.shape[3])
        if name == "still"
        else torch.rand(db.shape, generator=generator)
    )


def test_noise_has_its_level():
    noise = fragility.with_noise(CLIPS, -40.0, torch.Generator().manual_seed(0)) - CLIPS
    found = 10 * torch.log10(noise.square().mean(1) / CLIPS.square().mean(1))
    assert found.tolist() == pytest.approx([-40, -40], abs=1e-3)


def test_maps_are_held_against_themselves_and_clips_that_change_class_are_left_out():
    spectrogram = get_spectrogram("mel_db")
    methods, levels = ("still", "level", "lot"), (-80.0, 40.0)
    found = fragility.fragility(explain, Loudest(), spectrogram, CLIPS, methods, levels=levels, n_draws=2)
    assert len(found) == 3 * 2 * 2 * 2
    first = found[(found["method"] == "level") & (found["level_db"] == -80)].iloc[0]
    generator = torch.Generator().manual_seed(0)
    noisy = fragility.with_noise(CLIPS, -80.0, generator)
    sides = [spectrogram.decibels(each)[0].flatten() for each in (CLIPS, noisy)]
    assert first["similar"] == pytest.approx(spearmanr(*sides).statistic, abs=1e-6)
    quiet = found[found["level_db"] == -80]
    assert quiet["held"].all() and not found.loc[found["level_db"] == 40, "held"].all()
    table = fragility.table(found).set_index(["method", "level_db"])
    assert table.loc[("still", -80.0), "similar"] == pytest.approx(1) == table.loc[("still", -80.0), "worst"]
    assert abs(table.loc[("lot", -80.0), "similar"]) < 0.05
    worst = quiet[quiet["method"] == "level"].groupby("clip")["similar"].min().mean()
    assert table.loc[("level", -80.0), "worst"] == pytest.approx(worst)
    assert np.isfinite(table.to_numpy()).all()

"""Masks that hold under every fill, on a model whose evidence is known."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from torch import nn

from audioxai_utils.attributions import METHODS

robust = importlib.import_module("audioxai_utils.attributions.extremal_robust")


class Patch(nn.Module):
    """Class 0 wants all of one patch loud; nothing else is looked at."""

    def forward(self, db):
        logit = (db[:, 0, 8:24, 20:52].mean((1, 2)) + 50) * 0.3
        return torch.stack([logit, torch.zeros_like(logit)], 1)


def noise(n: int, level: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, 32, 64, generator=generator, dtype=torch.float64) * 3 + level


CLIPS, BACKGROUND = noise(2, -38.0, 1), noise(5, -65.0, 2)
CLIPS[:, :, 0, 0] = -80.0  # so that the clip's minimum is silence to the model, as the other fills are
ZERO = torch.tensor([0, 0])


def test_levels_against_numpy():
    fills = robust.Fills(CLIPS, BACKGROUND, -100.0)
    rows = np.moveaxis(BACKGROUND.numpy()[:, 0], 1, 0).reshape(32, -1)
    floor, minimum, mean, low = (level.numpy() for level in fills.levels)
    assert floor.item() == -100 and np.array_equal(minimum[:, 0, 0, 0], CLIPS.numpy().min((1, 2, 3)))
    np.testing.assert_allclose(mean[0, 0, :, 0], rows.mean(1))
    np.testing.assert_allclose(low[0, 0, :, 0], np.sort(rows, 1)[:, round(0.05 * rows.shape[1]) - 1])
    np.testing.assert_allclose(fills.spread[0, 0, :, 0], rows.std(1))
    mask = torch.zeros_like(CLIPS)
    for number, level in enumerate(fills.levels):  # nothing kept is the fill, all kept the clip
        everything = torch.arange(2)
        assert torch.equal(fills.apply(CLIPS, mask, number, everything), level.expand_as(CLIPS))
        torch.testing.assert_close(fills.apply(CLIPS, mask + 1, number, everything), CLIPS)


def test_the_mask_keeps_the_class_under_every_fill_and_its_removal_takes_it_away():
    found = METHODS["extremal_robust"](Patch(), CLIPS, ZERO, background=BACKGROUND, n_steps=60)
    mask, fills = (found > 0).double(), robust.Fills(CLIPS, BACKGROUND, -100.0)
    truth = torch.zeros(32, 64, dtype=torch.bool)
    truth[8:24, 20:52] = True
    for clip in found[:, 0] > 0:
        assert float((clip & truth).sum() / (clip | truth).sum()) > 0.5
    for number in range(len(fills.levels)):
        kept, removed = (
            Patch()(fills.apply(CLIPS, each, number, torch.arange(2))).softmax(1)[:, 0]
            for each in (mask, 1 - mask)
        )
        assert (kept > 0.5).all() and (removed < 0.5).all(), number


def test_a_clip_does_not_hang_on_its_batch_and_an_area_is_kept():
    for background in (None, BACKGROUND):
        options = {"background": background, "n_steps": 12, "area": 0.25}
        both = METHODS["extremal_robust"](Patch(), CLIPS, ZERO, **options)
        alone = METHODS["extremal_robust"](Patch(), CLIPS[1:], ZERO[1:], **options)
        torch.testing.assert_close(both[1:], alone)
        assert ((both > 0).double().mean((1, 2, 3)) == 0.25).all()


def test_what_it_refuses():
    with pytest.raises(ValueError, match="background must have shape"):
        METHODS["extremal_robust"](Patch(), CLIPS, ZERO, background=BACKGROUND[..., :5])
    with pytest.raises(ValueError, match="area"):
        METHODS["extremal_robust"](Patch(), CLIPS, ZERO, area=1.5)
    with pytest.raises(ValueError, match="grid must be"):
        METHODS["extremal_robust"](Patch(), CLIPS, ZERO, grid=(4, 4, 4))
    with pytest.raises(ValueError, match="noise must be 0 or more"):
        METHODS["extremal_robust"](Patch(), CLIPS, ZERO, noise=-1.0)


def test_a_coarser_grid_gives_a_smoother_mask():
    def steepness(cells: tuple[int, int]) -> float:
        found = METHODS["extremal_robust"](Patch(), CLIPS, ZERO, n_steps=20, area=0.3, grid=cells)
        return float(found.diff(dim=2).abs().amax() + found.diff(dim=3).abs().amax())

    assert steepness((4, 8)) < 0.5 * steepness((32, 64))

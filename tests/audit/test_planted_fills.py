"""Scores of planted causes' masks: fills of the picture, by ear, curves, and what holds under all of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from planted_bench import Listens

from audioxai_utils.audio.spectrograms import get_spectrogram
from audioxai_utils.audit.planted import fills, holding
from audioxai_utils.constants import FAITHFULNESS_METRICS
from audioxai_utils.evaluation.scoring import MaskScorer, score_masks


def test_insertion_and_deletion_against_a_sum_by_hand():
    names = pd.DataFrame({"method": "a", "mask": [f"topK_{100 * area:g}" for area in fills.AREAS]})
    kept = torch.linspace(0.3, 0.9, len(names), dtype=torch.float64)
    found = fills.areas_under(names, kept, 1 - kept, whole=0.95, nothing=0.1).iloc[0]
    x, y = [0, *fills.AREAS, 1], [0.1, *kept.tolist(), 0.95]
    by_hand = sum((x[i + 1] - x[i]) * (y[i] + y[i + 1]) / 2 for i in range(len(x) - 1))
    assert found["insertion"] == pytest.approx(by_hand)
    y = [0.95, *(1 - kept).tolist(), 0.1]
    by_hand = sum((x[i + 1] - x[i]) * (y[i] + y[i + 1]) / 2 for i in range(len(x) - 1))
    assert found["deletion"] == pytest.approx(by_hand)


@pytest.fixture(scope="module")
def tone() -> tuple:
    """A tone in faint noise, its rows, a model that hears class 1 while those are loud, and fills (3, F)."""
    spectrogram = get_spectrogram("mel_db")
    time = torch.arange(32000) / 32000
    noise = torch.randn(32000, generator=torch.Generator().manual_seed(0))
    clip = spectrogram((0.5 * torch.sin(2 * torch.pi * 1000 * time) + 1e-3 * noise)[None])
    level = clip.db[0, 0].mean(1)
    rows = slice(int(level.argmax()), int(level.argmax()) + 1)
    known = torch.stack([torch.full((64,), -50.0), torch.full((64,), -70.0), torch.ones(64)])
    return clip, rows, Listens(rows, float(level.max()) - 10), known


def test_fills_say_what_a_mask_of_the_cause_does(tone):
    """The cause alone decides: keeping it keeps the class under every fill but that which hides nothing."""
    clip, rows, model, known = tone
    cause = torch.full(clip.db.shape, 0.0)
    cause[:, :, max(0, rows.start - 1) : rows.stop + 1] = 1  # a tone leaks into its neighbours
    maps = {"oracle": cause, "wrong": -cause}
    found = fills.scored(model, get_spectrogram("mel_db"), clip, 1, maps, known)
    chosen = found[found["mask"] == "topK_5"].set_index(["method", "fill"])
    assert set(found["fill"]) == set(fills.FILLS)
    for fill in fills.FILLS:
        assert chosen.loc[("oracle", fill), ["FF", "FidIn", "AD"]].tolist() == pytest.approx(
            [1, 1, 0], abs=1e-2
        )
        assert chosen.loc[("wrong", fill), ["FF", "FidIn"]].tolist() == pytest.approx([0, 0], abs=1e-2)
    curves = found[found["mask"] == "all"].set_index(["method", "fill"])
    assert (curves.loc["oracle", "insertion"] > curves.loc["wrong", "insertion"]).all()
    assert (curves.loc["oracle", "deletion"] < curves.loc["wrong", "deletion"]).all()


def test_heard_scores_are_those_of_the_study(tone):
    """The same masks of a random map as the study scores them by ear, one at a time."""
    clip, _, _, known = tone
    model = Listens(slice(0, 64), -30.0)  # hears everything, so that every mask says something else
    model.scale.data /= 20
    spectrogram, a_map = get_spectrogram("mel_db"), torch.rand(clip.db.shape)
    found = fills.scored(model, spectrogram, clip, 1, {"a": a_map}, known, [fills.HEARD])
    scorer = MaskScorer(model, spectrogram, clip, torch.tensor([1]))
    study = score_masks(scorer, fills.masks_of(a_map), "audited", heard=True).set_index("mask")
    here = found[found["mask"] != "all"].set_index("mask").loc[study.index]
    assert here["FF"].nunique() > 5 and set(found["fill"]) == {fills.HEARD}
    for metric in FAITHFULNESS_METRICS:
        assert here[metric].tolist() == pytest.approx(
            study[f"{metric}_heard"].tolist(), abs=1e-4, nan_ok=True
        )


# Does a mask hold under any fill


def test_a_mask_is_held_against_limes_in_the_same_cases_under_each_fill():
    rng, rows = np.random.default_rng(0), []
    for case in range(8):
        luck = rng.random() / 2
        for fill in fills.FILLS:
            for method, gain, area in (("lime", 0.0, 0.6), ("extremal_robust", 0.2, 0.3)):
                gain = -gain if fill == "floor" else gain
                row = {"case": f"c{case}", "plant": f"p{case // 2}", "method": method, "mask": "bin"}
                row |= {"fill": fill, "SPS": 1 - area}
                rows.append(row | {"FidIn": luck + gain, "AD": 50.0})
    table = holding.held_under_fills(pd.DataFrame(rows), ["extremal_robust"])
    assert table["fill"].tolist() == list(fills.FILLS) and table["area"].tolist() == pytest.approx([0.3] * 6)
    assert table["FidIn_more"].tolist() == pytest.approx([-0.2, 0.2, 0.2, 0.2, 0.2, 0.2])
    for low, high in (("FidIn_low", "FidIn_high"), ("area_low", "area_high")):
        assert (table[high] - table[low]).abs().max() < 1e-9  # luck is the case's, and falls out
    said = holding.sentence(table)
    assert "worse under floor and better under minimum, mean, quantile, noise (paired" in said
    assert said.endswith(" By ear, in 8 cases, on 45%, LIME on 25%.")
    assert "at 30% of the bins where LIME has 60%" in said

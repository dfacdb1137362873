"""Soft masks beside their own values in other orders: the control, its scores against loops, the words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tiny_study
import torch

from audioxai_utils.audit import soft_masks
from audioxai_utils.evaluation.controls import clip_seed, control_masks, control_ranks, random_map, reordered
from audioxai_utils.evaluation.masks import build_masks
from audioxai_utils.evaluation.scoring import score_masks


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    study = tiny_study.make(tmp_path_factory.mktemp("tiny"), seconds=0.7)
    condition = study.condition("mel_db", "white")
    for method in ("saliency", "gradcam"):
        condition.attribute(method)
    condition.score_all()
    return condition


def test_a_binary_mask_s_values_in_another_order_are_the_control_of_its_area():
    power = random_map((3, 1, 5, 7), seed=4)
    mask = (random_map((3, 1, 5, 7), seed=9) > torch.tensor([0.2, 0.5, 1.0]).view(3, 1, 1, 1)).float()
    ranks = control_ranks(power, seed=1)
    for name, control in control_masks(mask, power, ranks=ranks).items():
        assert torch.equal(reordered(mask, ranks[name]), control)


def test_a_soft_mask_keeps_its_values_and_the_loudest_bin_gets_the_largest():
    power, mask = random_map((2, 1, 4, 6), seed=4), random_map((2, 1, 4, 6), seed=9)
    for name, ranks in control_ranks(power, seed=1).items():
        other = reordered(mask, ranks)
        assert torch.equal(other.flatten(1).sort(1).values, mask.flatten(1).sort(1).values), name
        assert not torch.equal(other, mask)
    loudest = reordered(mask, control_ranks(power)["energy"]).flatten(1)
    order = power.flatten(1).argsort(1, descending=True)
    assert (loudest.gather(1, order).diff(dim=1) <= 0).all()


def test_scores_of_own_values_are_those_of_one_clip_at_a_time(scored):
    found = soft_masks.own_value_scores(scored)
    names = list(scored.clips.frame["clip"])
    assert len(found) == len(names) * len(scored.methods) * len(soft_masks.SOFT) * 2
    assert not found[["FF", "AD"]].isna().any(axis=None)
    for (i, clip), method in zip(scored.clips.blocks(1), (scored.methods[0], scored.methods[-1])):
        one = scored.of(clip)
        scorer = one.scorer()
        ranks = control_ranks(scorer.batch.power, [clip_seed(names[i])])
        mask = build_masks(one.attributions(method).to(scorer.batch.db), "audited", ["sigmoid"])["sigmoid"]
        scores = score_masks(scorer, {"sigmoid": reordered(mask, ranks["random"])}, "audited")
        row = found[
            (found["clip"] == names[i])
            & (found["method"] == method)
            & (found["mask"] == "sigmoid")
            & (found["control"] == "random")
        ]
        assert row[["FF", "AD"]].to_numpy() == pytest.approx(scores[["FF", "AD"]].to_numpy(), abs=1e-5)


def test_both_kinds_of_control_are_compared_clip_by_clip(scored):
    table = soft_masks.against_own_values(scored)
    n = len(scored.methods) * len(soft_masks.SOFT) * 2 * len(soft_masks.JUDGED_BY)
    assert table["of"].value_counts().to_dict() == {soft_masks.BINS: n, soft_masks.VALUES: n}
    own = scored.scores()
    own = own[
        (own["protocol"] == "audited") & (own["mask"] == "minmax") & (own["method"] == scored.methods[0])
    ]
    other = soft_masks.own_value_scores(scored)
    other = other[(other["mask"] == "minmax") & (other["method"] == scored.methods[0])]
    ours, theirs = (
        frame[frame["control"] == name].set_index("clip")["AD"]
        for frame, name in ((own, ""), (other, "random"))
    )
    row = table[
        (table["of"] == soft_masks.VALUES)
        & (table["metric"] == "AD")
        & (table["control"] == "random")
        & (table["mask"] == "minmax")
        & (table["method"] == scored.methods[0])
    ]
    assert row["difference"].item() == pytest.approx((theirs - ours).mean(), abs=1e-9)  # less AD is better


def test_what_is_won_by_being_soft_alone_is_told():
    """A soft mask in any order keeps the class, as one in the method's does; whole bins do not."""
    rows = [
        ("random", "AD", soft_masks.BINS, "better"),
        ("random", "AD", soft_masks.BINS, "better"),
        ("random", "AD", soft_masks.VALUES, "undecided"),
        ("random", "AD", soft_masks.VALUES, "better"),
        ("energy", "AD", soft_masks.BINS, "worse"),
        ("energy", "AD", soft_masks.BINS, "better"),
        ("energy", "AD", soft_masks.VALUES, "worse"),
        ("energy", "AD", soft_masks.VALUES, "worse"),
    ]
    table = pd.DataFrame(rows, columns=["control", "metric", "of", "verdict"])
    found = soft_masks.counts(table)
    assert found["masks"].tolist() == [2, 2]
    assert np.array_equal(found[[soft_masks.BINS, soft_masks.VALUES]].to_numpy(), [[2, 1], [1, 0]])
    assert soft_masks.sentence(table) == (
        "Of the soft masks, in AD 2 of 2 are surely better than random whole bins, and 1 than their own values "
        "in random places."
    )

"""Masks against loops over sorted lists, under both protocols."""

import math

import numpy as np
import pytest
import torch

from audioxai_utils.constants import MASK_NAMES
from audioxai_utils.evaluation.masks import MASKS, apply_mask, build_masks, register_mask
from audioxai_utils.numerics import largest

SHARES = {"topK_5": 0.05, "topK_30": 0.3, "topK_50": 0.5}


def attribution(seed=0, shape=(3, 1, 7, 11)):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def quantile(values, q):
    """Linear interpolation between order statistics, from its definition."""
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def slow_mask(name, values):
    """The paper's mask of one clip, a list of numbers."""
    positive = [max(0.0, v) for v in values]
    low, high, top = min(values), max(values), max(positive)
    minmax_pos = [p / (top + 1e-8) for p in positive]
    if name == "minmax":
        return [(v - low) / (high - low + 1e-8) for v in values]
    if name == "minmax_pos":
        return minmax_pos
    if name == "bin":
        return [float(v > 0) for v in values]
    if name.startswith("sigmoid"):
        return [1 / (1 + math.exp(-v)) for v in (positive if name.endswith("pos") else values)]
    if name.startswith("pos_thresh"):
        return [float(v >= int(name[-2:]) / 100) for v in minmax_pos]
    source = positive if name.endswith("_pos") else values
    threshold = quantile(source, 1 - SHARES[name.removesuffix("_pos")])
    return [float(v >= threshold) for v in source]


@pytest.mark.parametrize("name", MASK_NAMES)
@pytest.mark.parametrize("shift", [0.0, -1.5, -10.0], ids=["mixed", "mostly negative", "all negative"])
def test_paper_masks_equal_slow_ones(name, shift):
    values = attribution() + shift
    mask = build_masks(values)[name]
    for clip in range(3):
        expected = slow_mask(name, values[clip].flatten().tolist())
        np.testing.assert_allclose(mask[clip].flatten().numpy(), expected, rtol=1e-9, atol=1e-12)


def test_there_are_fourteen_in_the_studys_order():
    assert tuple(build_masks(attribution())) == MASK_NAMES


@pytest.mark.parametrize("share", SHARES.values())
def test_audited_top_k_keeps_exactly_its_share(share):
    values = attribution()
    mask = build_masks(values, "audited")[f"topK_{round(100 * share)}"]
    assert mask.sum((1, 2, 3)).tolist() == [round(share * 77)] * 3
    for clip in range(3):  # whatever is kept is at least as large as whatever is not
        kept = mask[clip] > 0
        assert values[clip][kept].min() >= values[clip][~kept].max()


def test_audited_top_k_pos_is_never_all_ones():
    """Audit 1: with half of L at or below zero the published rule keeps everything."""
    values = attribution() - 1.0
    assert build_masks(values, "paper")["topK_50_pos"].min() == 1
    mask = build_masks(values, "audited")["topK_50_pos"]
    assert torch.equal(mask > 0, values > 0)


def test_audited_top_k_keeps_its_share_of_ties():
    mask = build_masks(torch.zeros(1, 1, 4, 5), "audited")
    assert mask["topK_50"].sum() == 10
    assert mask["topK_50_pos"].sum() == 0


def test_audited_sigmoid_spreads_and_the_published_one_does_not():
    """Audit 4: raw attributions are tiny, their sigmoid is one half everywhere."""
    values = attribution() * 1e-4
    assert build_masks(values, "paper")["sigmoid"].std() < 1e-4
    audited = build_masks(values, "audited")["sigmoid"]
    torch.testing.assert_close(audited[0], torch.sigmoid(values[0] / values[0].std()))


@pytest.mark.parametrize("protocol", ["paper", "audited"])
def test_masks_lie_in_the_unit_interval_also_for_constant_attributions(protocol):
    for values in (attribution(), torch.zeros(2, 1, 3, 3), torch.full((1, 1, 3, 3), -2.0)):
        for name, mask in build_masks(values, protocol).items():
            assert mask.shape == values.shape
            assert torch.isfinite(mask).all() and mask.min() >= 0 and mask.max() <= 1, name


@pytest.mark.parametrize("protocol", ["paper", "audited"])
def test_a_clips_masks_do_not_depend_on_its_neighbours(protocol):
    values = attribution()
    together = build_masks(values, protocol)
    for clip in range(3):
        alone = build_masks(values[clip : clip + 1], protocol)
        for name in MASK_NAMES:
            torch.testing.assert_close(together[name][clip : clip + 1], alone[name], msg=name)


def test_kept_and_removed_share_out_the_level():
    db, mask = 40 * attribution(1) - 30, torch.rand(3, 1, 7, 11, dtype=torch.float64)
    kept, removed = apply_mask(db, mask)
    torch.testing.assert_close(kept + removed, db - 100)
    torch.testing.assert_close(kept, (db + 100) * mask - 100)
    kept, _ = apply_mask(db, torch.zeros_like(db), fill=-7.0)
    assert torch.equal(kept, torch.full_like(db, -7.0))


@pytest.mark.parametrize(
    "bad, words",
    [
        (torch.zeros(3, 4), "batch, 1, frequency, time"),
        (torch.full((1, 1, 2, 2), math.nan), "finite"),
    ],
)
def test_bad_attributions_are_refused(bad, words):
    with pytest.raises(ValueError, match=words):
        build_masks(bad)


def test_unknown_protocol_and_misfit_are_refused():
    with pytest.raises(ValueError, match="paper, audited"):
        build_masks(attribution(), "published")
    with pytest.raises(ValueError, match="does not fit"):
        apply_mask(torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 4, 3))


@pytest.mark.parametrize("protocol", ["paper", "audited"])
def test_masks_asked_for_by_name_are_those_of_all_of_them(protocol):
    every = build_masks(attribution(), protocol)
    some = build_masks(attribution(), protocol, ["topK_30_pos", "minmax"])
    assert list(some) == ["topK_30_pos", "minmax"] and all(
        torch.equal(some[name], every[name]) for name in some
    )
    assert build_masks(attribution(), protocol, []) == {}
    with pytest.raises(ValueError, match="names must be one of minmax, .*; got 'best'"):
        build_masks(attribution(), protocol, ["best"])


def test_a_registered_mask_is_built_with_the_others():
    register_mask(
        "median", lambda values, protocol: (values > values.median(1, keepdim=True).values).to(values)
    )
    try:
        assert build_masks(attribution())["median"].mean() == pytest.approx(38 / 77)
        with pytest.raises(ValueError, match="registered already"):
            register_mask("median", lambda values, protocol: values)
    finally:
        del MASKS["median"]


@pytest.mark.parametrize("scale", [1e-3, 1e-9, 1e-30])
def test_audited_masks_do_not_depend_on_the_unit_of_the_map(scale):
    values = attribution()
    expected = build_masks(values, "audited")
    for name, mask in build_masks(values * scale, "audited").items():
        torch.testing.assert_close(mask, expected[name], rtol=0, atol=1e-9, msg=name)
    assert all(mask.isfinite().all() for mask in build_masks(values * 0, "audited").values())


def test_the_largest_of_what_is_not_a_number_is_refused():
    with pytest.raises(ValueError, match="must not be NaN"):
        largest(torch.tensor([[1.0, math.nan, 3.0]]), 2)


@pytest.mark.parametrize("n_kept", [0, 1, 5, 24, 50])
def test_of_equal_values_the_first_are_the_largest(n_kept):
    random = np.random.default_rng(n_kept)
    for values in (
        random.standard_normal((4, 50)),
        random.integers(-1, 2, (4, 50)) * 0.5,
        np.zeros((1, 50)) * -1,
    ):
        expected = np.zeros(values.shape, dtype=bool)
        for row, kept in zip(values.tolist(), expected):
            kept[sorted(range(50), key=lambda i: (-row[i], i))[:n_kept]] = True
        assert (largest(torch.from_numpy(values), n_kept).numpy() == expected).all()

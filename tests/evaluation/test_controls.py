"""Controls: exactly equal areas, the ideal mask, energies and SI-SDR against slow formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from audioxai_utils.evaluation import controls
from audioxai_utils.evaluation.selection import bin_ranks, first_bins


def power_maps(batch: int = 3, n_bins: int = 7, n_frames: int = 11, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((batch, 1, n_bins, n_frames), generator=generator, dtype=torch.float64) ** 3


def binary_masks(seed: int = 0) -> torch.Tensor:
    """Binary masks of very different areas, the last one empty."""
    maps = power_maps(4, seed=seed)
    return torch.stack([maps[0] > 0.9, maps[1] > 0.1, maps[2] >= 0, maps[3] > 2]).float()


def random_mask(n_kept, shape, seed=0) -> torch.Tensor:
    """As `control_masks` draws it."""
    return first_bins(bin_ranks(controls.random_map(shape, seed)), n_kept)


# Areas


def test_controls_keep_exactly_as_many_bins_as_a_binary_mask_clip_by_clip():
    mask = binary_masks()
    found = controls.control_masks(mask, power_maps(4, seed=1))
    assert set(found) == {"random", "energy"}
    for control in found.values():
        assert control.dtype == mask.dtype and set(control.unique().tolist()) <= {0.0, 1.0}
        assert control.sum(dim=(1, 2, 3)).tolist() == mask.sum(dim=(1, 2, 3)).tolist()


def test_controls_of_a_soft_mask_keep_the_nearest_area():
    mask = power_maps(5)
    for control in controls.control_masks(mask, power_maps(5, seed=1)).values():
        for ours, theirs in zip(control, mask):
            assert abs(float(ours.sum()) - math.fsum(theirs.flatten().tolist())) <= 0.5


def test_kept_bins_of_a_large_float32_mask_are_counted_not_rounded_away():
    mask = torch.full((1, 1, 257, 313), 1.0)
    mask[0, 0, 0, 0] = 0
    assert controls.kept_bins(mask).tolist() == [257 * 313 - 1]
    assert controls.kept_bins(mask * 0.3).tolist() == [round((257 * 313 - 1) * float(np.float32(0.3)))]


def test_equal_levels_do_not_change_the_area():
    silence = torch.full((2, 1, 6, 9), -100.0)
    mask = first_bins(bin_ranks(silence), [5, 54])
    assert mask.sum(dim=(1, 2, 3)).tolist() == [5, 54]


# What is kept


def test_energy_keeps_the_loudest_bins_in_power_and_in_decibels():
    power = power_maps() + 1e-6
    mask = first_bins(bin_ranks(power), [1, 20, 76])
    for clip, n_kept in zip(range(3), (1, 20, 76)):
        values = sorted(power[clip].flatten().tolist(), reverse=True)
        kept = power[clip][mask[clip] == 1]
        assert sorted(kept.tolist(), reverse=True) == values[:n_kept]
    assert torch.equal(mask, first_bins(bin_ranks(10 * power.log10()), [1, 20, 76]))


def test_random_masks_follow_the_seed_not_the_batch_and_are_nested():
    seeds = [controls.clip_seed(name) for name in ("a.wav", "b.wav", "c.wav")]
    masks = random_mask([10, 20, 30], (3, 1, 8, 9), seeds)
    alone = random_mask([20], (1, 1, 8, 9), seeds[1:2])
    assert torch.equal(masks[1:2], alone)
    larger = random_mask([25], (1, 1, 8, 9), seeds[1:2])
    assert (larger >= alone).all() and larger.sum() == 25
    assert not torch.equal(masks[0], random_mask([10], (1, 1, 8, 9), 1)[0])
    one_seed = random_mask([30, 30], (2, 1, 8, 9), 7)
    assert not torch.equal(one_seed[0], one_seed[1])


def test_clip_seeds_are_the_same_everywhere():
    assert controls.clip_seed("5-203128-A-0.wav", 12) == 3405482489
    assert controls.clip_seed("a", 0) != controls.clip_seed("a", 1) != controls.clip_seed("b", 1)


def test_random_masks_take_every_bin_equally_often():
    masks = random_mask([6] * 3000, (3000, 1, 4, 6))
    shares = masks.mean(dim=0)
    assert (shares - 0.25).abs().max() < 5 * math.sqrt(0.25 * 0.75 / 3000)


def test_ranks_made_once_give_the_same_controls():
    power, mask = power_maps(4, seed=1), binary_masks()
    ranks = controls.control_ranks(power, seed=9)
    first = controls.control_masks(mask, power, seed=9)
    second = controls.control_masks(mask, power, ranks=ranks)
    assert all(torch.equal(first[name], second[name]) for name in first)
    for name in ranks:
        assert all(sorted(clip.flatten().tolist()) == list(range(77)) for clip in ranks[name])


def test_oracle_keeps_what_is_louder_than_the_interferer():
    target, interferer = power_maps(seed=1), power_maps(seed=2)
    target[0, 0, 0], interferer[0, 0, 0] = 0.0, 0.0  # silent bins
    for threshold in (0.0, -6.0, 3.0):
        mask = controls.oracle_mask(target, interferer, threshold)
        for kept, t, c in zip(mask.flatten(), target.flatten(), interferer.flatten()):
            louder = t > 0 and (c == 0 or 10 * math.log10(t / c) > threshold)
            assert bool(kept) == louder


def test_no_mask_of_its_area_has_a_higher_snr_than_a_full_oracle():
    target, interferer = power_maps(seed=1), power_maps(seed=2)
    oracle = controls.oracle_mask(target, interferer)
    gain = controls.energy_kept(oracle, target, interferer)["snr_gain"]
    for control in controls.control_masks(oracle, target + interferer).values():
        assert (controls.energy_kept(control, target, interferer)["snr_gain"] < gain).all()


# Energy and SI-SDR


def test_energy_kept_against_sums():
    mask, target, interferer = power_maps(seed=3), power_maps(seed=1), power_maps(seed=2)
    found = controls.energy_kept(mask, target, interferer)
    for clip in range(3):
        for name, power in (("source_kept", target), ("interferer_kept", interferer)):
            pairs = list(zip(mask[clip].flatten().tolist(), power[clip].flatten().tolist()))
            share = math.fsum(m * p for m, p in pairs) / math.fsum(p for _, p in pairs)
            assert float(found[name][clip]) == pytest.approx(10 * math.log10(share), rel=1e-12)
    torch.testing.assert_close(found["snr_gain"], found["source_kept"] - found["interferer_kept"])


def test_energy_kept_at_its_ends():
    target = power_maps()
    everything = controls.energy_kept(torch.ones_like(target), target, torch.zeros_like(target))
    assert everything["source_kept"].abs().max() < 1e-12 and everything["interferer_kept"].isnan().all()
    nothing = controls.energy_kept(torch.zeros_like(target), target, target)
    assert nothing["source_kept"].tolist() == pytest.approx([-100] * 3)


def slow_si_sdr(estimate, reference) -> float:
    estimate = [x - math.fsum(estimate) / len(estimate) for x in estimate]
    reference = [x - math.fsum(reference) / len(reference) for x in reference]
    scale = math.fsum(e * r for e, r in zip(estimate, reference)) / math.fsum(r * r for r in reference)
    signal = math.fsum((scale * r) ** 2 for r in reference)
    return 10 * math.log10(signal / math.fsum((scale * r - e) ** 2 for e, r in zip(estimate, reference)))


def test_si_sdr_against_a_slow_one():
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn((2, 3, 200), generator=generator)
    estimate = 0.5 * reference + 0.2 * torch.randn((2, 3, 200), generator=generator) + 0.3
    found = controls.si_sdr(estimate, reference)
    assert found.shape == (2, 3) and found.dtype == torch.float64
    for value, e, r in zip(found.flatten(), estimate.reshape(6, -1), reference.reshape(6, -1)):
        assert float(value) == pytest.approx(slow_si_sdr(e.tolist(), r.tolist()), rel=1e-10)


def test_si_sdr_does_not_depend_on_scale_sign_or_offset():
    generator = torch.Generator().manual_seed(1)
    reference = torch.randn(500, generator=generator, dtype=torch.float64)
    estimate = reference + torch.randn(500, generator=generator, dtype=torch.float64)
    expected = controls.si_sdr(estimate, reference)
    for changed in (17 * estimate, -estimate, estimate + 3):
        torch.testing.assert_close(controls.si_sdr(changed, reference), expected)
    torch.testing.assert_close(controls.si_sdr(estimate, 0.01 * reference), expected)


@pytest.mark.parametrize("level", [1e-12, 1e-6, 1e6])
def test_si_sdr_of_soft_and_loud_sounds(level):
    generator = torch.Generator().manual_seed(2)
    reference = torch.randn(500, generator=generator, dtype=torch.float64)
    estimate = reference + 0.1 * torch.randn(500, generator=generator, dtype=torch.float64)
    for a, b in ((level, 1), (1, level), (level, level)):
        assert float(controls.si_sdr(a * estimate, b * reference)) == pytest.approx(
            slow_si_sdr(estimate.tolist(), reference.tolist()), rel=1e-9
        )


def test_si_sdr_has_the_decibels_of_orthogonal_noise():
    time = torch.arange(1000, dtype=torch.float64) / 1000
    reference, noise = torch.sin(2 * torch.pi * 5 * time), torch.cos(2 * torch.pi * 5 * time)
    for level in (10.0, 0.0, -7.0):
        found = controls.si_sdr(reference + 10 ** (-level / 20) * noise, reference)
        assert float(found) == pytest.approx(level, abs=1e-9)


def test_si_sdr_at_its_ends():
    signal = torch.tensor([1.0, -1.0, 2.0, -2.0])
    assert controls.si_sdr(signal, signal) > 150
    orthogonal = torch.tensor([1.0, 1.0, -1.0, -1.0]), torch.tensor([1.0, -1.0, 1.0, -1.0])
    assert controls.si_sdr(*orthogonal) < -150
    assert controls.si_sdr(torch.zeros(4), signal).isnan() and controls.si_sdr(signal, torch.zeros(4)).isnan()


@pytest.mark.parametrize("n, level", [(16000, 0.1), (15999, 0.3), (7, 1e-20), (8, 1e20)])
def test_si_sdr_of_a_constant_is_that_of_silence(n, level):
    constant, noise = torch.full((2, n), level), torch.randn(2, n, generator=torch.Generator().manual_seed(n))
    assert controls.si_sdr(constant, noise).isnan().all() and controls.si_sdr(noise, constant).isnan().all()
    assert controls.si_sdr(constant + level * noise, noise).isfinite().all()


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda m: controls.control_masks(m[:, 0], m), ValueError, "mask must be \\(batch, 1, frequency"),
        (lambda m: controls.control_masks(m, m[..., :-1]), ValueError, "shapes must agree"),
        (lambda m: controls.control_masks(m - 1, m), ValueError, "mask must lie in \\[0, 1\\]"),
        (lambda m: controls.control_masks(m * np.nan, m), ValueError, "mask must be finite"),
        (lambda m: controls.control_masks(m.numpy(), m), TypeError, "mask must be a torch tensor"),
        (lambda m: first_bins(bin_ranks(m), [1, 2]), ValueError, "one whole number per clip"),
        (lambda m: first_bins(bin_ranks(m), [1, 2, 78]), ValueError, "between 0 and the 77 bins"),
        (lambda m: controls.random_map(m.shape, [0, 1]), ValueError, "one per clip \\(3\\); got 2"),
        (lambda m: controls.oracle_mask(m, m - 50), ValueError, "interferer_power must be linear"),
        (lambda m: controls.si_sdr(torch.ones(3), torch.ones(4)), ValueError, "same shape"),
    ],
)
def test_wrong_arguments_end_in_one_line(call, error, message):
    with pytest.raises(error, match=message):
        call(power_maps())

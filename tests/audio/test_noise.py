"""Mixing against a slow float64 oracle, its identities and its errors."""

from __future__ import annotations

import math

import pytest
import torch

from audioxai_utils.audio.noise import alpha_for_snr, mix, mix_stems, pad_or_cut, peak_normalise, unit_rms


def _oracle(clip: list[float], noise: list[float], alpha: float) -> list[float]:
    """The protocol's formula, one sample at a time."""
    clip_rms = math.sqrt(sum(x * x for x in clip) / len(clip))
    noise_rms = math.sqrt(sum(x * x for x in noise) / len(noise))
    mixture = [alpha * c / clip_rms + (1 - alpha) * n / noise_rms for c, n in zip(clip, noise)]
    peak = max(abs(x) for x in mixture)
    return [x / peak for x in mixture]


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(3)
    shape = (2, 500)
    clip = torch.randn(shape, generator=generator, dtype=torch.float64) * torch.tensor([[0.01], [30.0]])
    return clip, torch.rand(shape, generator=generator, dtype=torch.float64) - 0.3


@pytest.mark.parametrize("alpha", [0.6, 0.1, 0.9])
def test_mix_is_the_published_formula(pair, alpha):
    clip, noise = pair
    got = mix(clip, noise, alpha)
    for row in range(len(clip)):
        expected = torch.tensor(_oracle(clip[row].tolist(), noise[row].tolist(), alpha), dtype=torch.float64)
        torch.testing.assert_close(got[row], expected, rtol=0, atol=1e-12)


def test_default_mixture_is_3_52_db(pair):
    mixture, clip_part, noise_part = mix_stems(*pair)
    snr = 10 * torch.log10(clip_part.square().mean(-1) / noise_part.square().mean(-1))
    torch.testing.assert_close(snr, torch.full((2,), 20 * math.log10(1.5), dtype=torch.float64))
    torch.testing.assert_close(mixture.abs().amax(-1), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("snr_db", [-6.0, 0.0, 3.5218, 12.0])
def test_alpha_for_snr_gives_that_ratio(pair, snr_db):
    _, clip_part, noise_part = mix_stems(*pair, alpha_for_snr(snr_db))
    got = 10 * torch.log10(clip_part.square().mean(-1) / noise_part.square().mean(-1))
    assert got.tolist() == pytest.approx([snr_db] * 2, abs=1e-9)


def test_stems_sum_to_the_mixture_exactly_in_float32(pair):
    clip, noise = (x.float() for x in pair)
    mixture, clip_part, noise_part = mix_stems(clip, noise[0])
    assert torch.equal(clip_part + noise_part, mixture)
    assert torch.equal(mixture, mix(clip, noise[0]))
    assert mixture.abs().max() == pytest.approx(1.0, abs=1e-6)


def test_level_of_the_input_does_not_matter(pair):
    clip, noise = pair
    torch.testing.assert_close(mix(1e-3 * clip, 50 * noise), mix(clip, noise))


def test_one_noise_serves_a_batch(pair):
    clip, noise = pair
    batch = mix(clip, noise[1])
    torch.testing.assert_close(batch[0], mix(clip[0], noise[1]))
    torch.testing.assert_close(batch[1], mix(clip[1], noise[1]))


def test_silence_contributes_zeros(pair):
    clip, noise = pair
    silent = torch.zeros_like(clip)
    torch.testing.assert_close(mix(silent, noise), peak_normalise(noise))
    torch.testing.assert_close(mix(clip, silent), peak_normalise(clip))
    assert torch.equal(mix(silent, silent), silent)


def test_pad_or_cut_appends_zeros_or_drops_the_end():
    waveform = torch.arange(1.0, 6.0)
    assert pad_or_cut(waveform, 7).tolist() == [1, 2, 3, 4, 5, 0, 0]
    assert pad_or_cut(waveform, 3).tolist() == [1, 2, 3]
    assert pad_or_cut(waveform, 5).tolist() == waveform.tolist()


def test_inputs_stay_as_they_were(pair):
    clip, noise = pair
    copies = clip.clone(), noise.clone()
    mix_stems(clip, noise)
    assert torch.equal(clip, copies[0]) and torch.equal(noise, copies[1])


@pytest.mark.parametrize(
    ("clip", "noise", "alpha", "error", "words"),
    [
        (torch.ones(5), torch.ones(6), 0.6, ValueError, "same length; got 5 and 6 samples"),
        (torch.ones(5), torch.tensor([0.0, 1.0, float("nan"), 0, 0]), 0.6, ValueError, "noise holds NaN"),
        (torch.tensor([float("inf")] * 5), torch.ones(5), 0.6, ValueError, "clip holds NaN or infinite"),
        (torch.ones(5), torch.ones(5), 1.5, ValueError, "alpha must lie between 0 and 1; got 1.5"),
        (torch.ones(5).short(), torch.ones(5), 0.6, TypeError, "clip must be a floating-point tensor"),
        (torch.ones(5), [1.0] * 5, 0.6, TypeError, "noise must be a floating-point tensor.*got list"),
        (torch.ones(2, 0), torch.ones(5), 0.6, ValueError, r"clip must have samples.*\(2, 0\)"),
    ],
)
def test_bad_input_is_one_clear_line(clip, noise, alpha, error, words):
    with pytest.raises(error, match=words) as caught:
        mix(clip, noise, alpha)
    assert "\n" not in str(caught.value)


def test_unit_rms_is_a_waveform_s_own_and_leaves_silence():
    waveforms = torch.stack(
        [torch.tensor([3.0, -3.0, 3.0, -3.0]), torch.zeros(4), torch.tensor([2.0, 0, 0, 0])]
    )
    expected = torch.stack(
        [torch.tensor([1.0, -1.0, 1.0, -1.0]), torch.zeros(4), torch.tensor([2.0, 0, 0, 0])]
    )
    torch.testing.assert_close(unit_rms(waveforms), expected)

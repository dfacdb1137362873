"""Sound of masked spectrograms."""

import pytest
import torch

from audioxai_utils.audio.spectrograms import get_spectrogram, kept_audio, removed_audio


@pytest.fixture(scope="module")
def stft():
    spectrogram = get_spectrogram("stft_db")
    torch.manual_seed(0)
    return spectrogram, spectrogram(torch.randn(2, 8000, dtype=torch.float64))


def test_everything_kept_is_the_clip_and_nothing_is_silence(stft):
    spectrogram, batch = stft
    ones = torch.ones_like(batch.power)
    whole = spectrogram.invert(batch.power, batch.phase, batch.length)
    torch.testing.assert_close(kept_audio(batch, ones, spectrogram), whole)
    assert removed_audio(batch, ones, spectrogram).abs().max() < 1e-12


def test_a_binary_mask_shares_out_the_sound(stft):
    """With one phase and disjoint bins the kept and the removed sound add up to the clip."""
    spectrogram, batch = stft
    mask = (torch.rand_like(batch.power) > 0.5).double()
    whole = spectrogram.invert(batch.power, batch.phase, batch.length)
    torch.testing.assert_close(
        kept_audio(batch, mask, spectrogram) + removed_audio(batch, mask, spectrogram), whole
    )


def test_a_soft_mask_acts_on_power(stft):
    spectrogram, batch = stft
    quarter = torch.full_like(batch.power, 0.25)
    whole = spectrogram.invert(batch.power, batch.phase, batch.length)
    torch.testing.assert_close(kept_audio(batch, quarter, spectrogram), 0.5 * whole)


@pytest.mark.parametrize("name", ["stft_db", "mel_db"])
def test_a_low_pass_mask_removes_the_high_tone(name):
    spectrogram = get_spectrogram(name)
    rate = spectrogram.sample_rate
    time = torch.arange(rate, dtype=torch.float64) / rate
    low, high = torch.sin(2 * torch.pi * 400 * time), torch.sin(2 * torch.pi * 5000 * time)
    batch = spectrogram((low + high)[None])
    mask = (spectrogram.frequencies < 2000).double()[None, None, :, None].expand_as(batch.power)
    whole = spectrogram.invert(batch.power, batch.phase, batch.length)[
        0
    ]  # the mel inverse alone weakens a high tone
    kept, removed = kept_audio(batch, mask, spectrogram)[0], removed_audio(batch, mask, spectrogram)[0]

    def level(sound, tone):  # dB of a tone in the middle of a sound
        middle = slice(rate // 4, 3 * rate // 4)
        return 20 * torch.log10((sound[middle] * tone[middle]).mean().abs() * 2)

    assert level(kept, low) - level(whole, low) > -0.1 and level(kept, high) < -30
    assert level(removed, high) - level(whole, high) > -0.1 and level(removed, low) < -30


def test_masks_that_do_not_fit_are_refused(stft):
    spectrogram, batch = stft
    with pytest.raises(ValueError, match="does not fit"):
        kept_audio(batch, torch.ones(2, 1, 64, 32), spectrogram)

"""Spectrograms against librosa and slow sums, and there and back again."""

import librosa
import numpy as np
import pytest
import torch
from torchaudio.transforms import InverseMelScale

from audioxai_utils.audio.spectrograms import get_spectrogram, power_to_db


@pytest.fixture(scope="module")
def waveform():
    return torch.from_numpy(np.random.default_rng(0).standard_normal((2, 12000)))


@pytest.mark.parametrize("name", ["stft_db", "mel_db"])
def test_power_equals_librosa(name, waveform):
    spectrogram = get_spectrogram(name)
    p = spectrogram.settings
    batch = spectrogram(waveform)
    expected = np.stack(
        [
            np.abs(librosa.stft(x, n_fft=p.n_fft, hop_length=p.hop_length, window="hann", pad_mode="reflect"))
            ** 2
            for x in waveform.numpy()
        ]
    )[:, None]
    if p.n_mels:
        filters = librosa.filters.mel(
            sr=p.sample_rate,
            n_fft=p.n_fft,
            n_mels=p.n_mels,
            fmin=p.f_min,
            fmax=p.f_max,
            htk=True,
            norm=None,
            dtype=float,
        )
        expected = np.einsum("mf,bcft->bcmt", filters, expected)
    assert batch.power.shape == (2, 1, p.n_bins, p.n_frames(12000))
    np.testing.assert_allclose(batch.power.numpy(), expected, rtol=2e-5, atol=1e-7 * expected.max())


def test_phase_is_that_of_the_linear_transform(waveform):
    batch = get_spectrogram("mel_db")(waveform)
    expected = librosa.stft(waveform[1].numpy(), n_fft=1024, hop_length=320, pad_mode="reflect")
    np.testing.assert_allclose(np.cos(batch.phase[1, 0].numpy() - np.angle(expected)), 1, atol=1e-9)


def test_decibels_have_the_floor_and_no_ceiling():
    power = torch.tensor([0.0, 1e-12, 1e-10, 1.0, 1e6], dtype=torch.float64)
    assert power_to_db(power).tolist() == pytest.approx([-100, -100, -100, 0, 60])


def test_linear_round_trip_is_exact(waveform):
    spectrogram = get_spectrogram("stft_db")
    batch = spectrogram(waveform)
    again = spectrogram.invert(batch.power, batch.phase, batch.length)
    torch.testing.assert_close(again, waveform, rtol=0, atol=1e-9)


def test_mel_inverse_equals_torchaudios(waveform):
    spectrogram = get_spectrogram("mel_db")
    batch = spectrogram(waveform.float())
    p = spectrogram.settings
    theirs = InverseMelScale(513, p.n_mels, p.sample_rate, p.f_min, p.f_max)(batch.power)
    ours = (spectrogram.inverse_filters.float().T @ batch.power).clamp_min(0)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5 * float(theirs.max()))


def test_mel_inverse_is_the_smallest_least_squares_solution(waveform):
    """Independent: numpy's minimum-norm solution of the filter bank, negative values cut."""
    spectrogram = get_spectrogram("mel_db")
    batch = spectrogram(waveform[:1])
    filters = spectrogram.filters.numpy()  # (n_stft, n_mels)
    linear = np.maximum(np.linalg.lstsq(filters.T, batch.power[0, 0].numpy(), rcond=None)[0], 0)
    expected = librosa.istft(
        np.sqrt(linear) * np.exp(1j * batch.phase[0, 0].numpy()), hop_length=320, n_fft=1024, length=12000
    )
    again = spectrogram.invert(batch.power, batch.phase, batch.length)[0].numpy()
    np.testing.assert_allclose(again, expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("name, bin_width", [("stft_db", 31.25), ("mel_db", None)])
def test_a_tone_peaks_at_its_frequency(name, bin_width):
    spectrogram = get_spectrogram(name)
    time = torch.arange(spectrogram.sample_rate) / spectrogram.sample_rate
    peak = int(spectrogram(torch.sin(2 * torch.pi * 3000 * time)[None]).db[0, 0].mean(1).argmax())
    centres = spectrogram.frequencies
    assert peak == int((centres - 3000).abs().argmin())
    if bin_width:
        assert float(centres[1] - centres[0]) == bin_width


def test_batches_and_single_clips_agree(waveform):
    spectrogram = get_spectrogram("mel_db")
    together = spectrogram(waveform)
    for i in range(2):
        torch.testing.assert_close(together[i : i + 1].db, spectrogram(waveform[i : i + 1]).db)


@pytest.mark.parametrize(
    "bad, words",
    [
        (torch.zeros(100), "batch, samples"),
        (torch.zeros(1, 100, dtype=torch.int16), "floating"),
        (torch.zeros(1, 200), "longer"),
    ],
)
def test_bad_waveforms_are_refused(bad, words):
    with pytest.raises(ValueError, match=words):
        get_spectrogram("stft_db")(bad)


def test_unknown_type_names_the_choices():
    with pytest.raises(ValueError, match="stft_db, mel_db.*'cqt'"):
        get_spectrogram("cqt")


def test_the_inverse_has_a_gradient_at_no_power(waveform):
    """What is not there gets none."""
    spectrogram = get_spectrogram("mel_db", torch.float64)
    batch = spectrogram(waveform.double())
    power = batch.power.clone()
    power[..., :20] = 0
    power.requires_grad_()
    spectrogram.invert(power, batch.phase, batch.length).square().sum().backward()
    assert torch.isfinite(power.grad).all() and float(power.grad.abs().max()) > 0
    assert float(power.grad[..., :18].abs().max()) == 0

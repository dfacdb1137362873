"""Front ends against the libraries whose networks they stand for, and back to sound."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch
from torchaudio.compliance import kaldi

from audioxai_utils.audio.mel import hz_to_mel, mel_centres, mel_filters, mel_to_hz
from audioxai_utils.models.efficientat_frontend import EfficientATMel
from audioxai_utils.models.frontends import LogMel, de_emphasised
from audioxai_utils.models.scores import WaveformInput


def noise(n: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    """Noise that fades from loud to silence, (2, n)."""
    generator = torch.Generator().manual_seed(seed)
    return (
        0.3 * torch.randn(2, n, generator=generator, dtype=torch.float64) * torch.linspace(1, 0, n) ** 3
    ).to(dtype)


def test_panns_is_librosa_s_log_mel():
    description, waveform = LogMel.panns(), noise(20000)
    batch = description.spectrogram()(waveform)
    for row, found in zip(waveform.numpy(), batch.db):
        power = librosa.feature.melspectrogram(
            y=row, sr=32000, n_fft=1024, hop_length=320, n_mels=64, fmin=50, fmax=14000, pad_mode="reflect"
        )
        expected = librosa.power_to_db(power, amin=1e-10, top_db=None)
        np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-4)
    assert torch.equal(description.to_input(batch.db), batch.db.transpose(2, 3)) and description.floor == -100


def test_efficientat_is_its_own_front_end():
    description, waveform = LogMel.efficientat(), noise(20000)
    found = description.to_input(description.spectrogram().decibels(waveform))
    torch.testing.assert_close(found, EfficientATMel()(waveform), rtol=0, atol=1e-9)
    assert description.floor == pytest.approx(-50)


def test_ast_is_kaldi_s_filter_bank_normalised_and_padded_to_1024_frames():
    description, waveform = LogMel.ast(), noise(16000, dtype=torch.float32)
    found = description.to_input(description.spectrogram().decibels(waveform))
    assert found.shape == (2, 1024, 128)
    for row, features in zip(waveform, found):
        bank = kaldi.fbank(
            row[None],
            htk_compat=True,
            sample_frequency=16000,
            use_energy=False,
            window_type="hanning",
            num_mel_bins=128,
            dither=0.0,
            frame_shift=10,
        )
        padded = torch.nn.functional.pad(bank, (0, 0, 0, 1024 - len(bank)))
        torch.testing.assert_close(features, (padded + 4.2677393) / (2 * 4.5689974), rtol=0, atol=2e-3)


def test_wav2vec2_is_normalised_by_itself():
    x = noise(4000)
    expected = torch.stack([(row - row.mean()) / torch.sqrt(row.var(correction=0) + 1e-7) for row in x])
    torch.testing.assert_close(WaveformInput(normalised=True)(x), expected)


@pytest.mark.parametrize("scale", ["htk", "slaney"])
def test_scales_are_librosa_s(scale):
    hz = np.array([0.0, 40.0, 999.0, 1001.0, 7000.0])
    mel = librosa.hz_to_mel(hz, htk=scale == "htk")
    np.testing.assert_allclose(hz_to_mel(torch.from_numpy(hz), scale).numpy(), mel, atol=1e-9)
    np.testing.assert_allclose(mel_to_hz(torch.from_numpy(mel), scale).numpy(), hz, atol=1e-7)
    centres = librosa.mel_frequencies(66, fmin=50, fmax=14000, htk=scale == "htk")[1:-1]
    np.testing.assert_allclose(mel_centres(64, 50.0, 14000.0, scale).numpy(), centres, rtol=1e-5)


def test_kaldi_s_filters_are_torchaudio_s_copy_of_them():
    banks, _ = kaldi.get_mel_banks(128, 512, 16000.0, 20.0, 0.0, 100.0, -500.0, 1.0)
    expected = torch.nn.functional.pad(banks, (0, 1)).T
    found = mel_filters(257, 20.0, 8000.0, 128, 16000, "kaldi")
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pre_emphasis": 0.97},
        {"win_length": 300},
        {"scale": 2.0**15, "offset": 1.0},
        {"window": "hamming"},
    ],
)
def test_the_inverse_of_the_transform_is_the_waveform(changes):
    """But for the ends, where pre-emphasis forgets a first sample."""
    spectrogram = LogMel(8000, n_fft=512, hop_length=100, **changes).spectrogram()
    waveform = noise(4000)
    found = spectrogram._istft(spectrogram._stft(waveform).squeeze(1), waveform.shape[1])
    torch.testing.assert_close(found[:, 700:], waveform[:, 700:], rtol=0, atol=1e-8)


def test_kaldi_s_frames_come_back_without_their_means():
    """A tone far above the frames' rate has hardly any mean."""
    t = torch.arange(8000, dtype=torch.float64) / 16000
    waveform = 0.5 * torch.sin(2 * torch.pi * 2000 * t)[None]
    spectrogram = LogMel.ast().spectrogram()
    found = spectrogram._istft(spectrogram._stft(waveform).squeeze(1), 8000)
    torch.testing.assert_close(found[:, 500:-500], waveform[:, 500:-500], rtol=0, atol=1e-3)


def test_silence_is_the_floor_and_the_network_s_number_for_it():
    for description in (LogMel.panns(), LogMel.efficientat(), LogMel.ast()):
        db = description.spectrogram().decibels(torch.zeros(1, 16000))
        torch.testing.assert_close(db, torch.full_like(db, description.floor), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"mel_scale": "bark"}, "mel_scale must be one of htk, slaney, kaldi"),
        ({"log": "log2"}, "log must be one of db, ln"),
        ({"axes": "(T, F)"}, "axes must be one of"),
        ({"win_length": 4096}, "win_length must be at most n_fft=1024"),
        ({"offset": 0.0}, "offset and scale must be above 0"),
        ({"hop_length": 0}, "hop_length must be 1 or more"),
    ],
)
def test_descriptions_that_cannot_be_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        LogMel(16000, **changes)


def test_axes_are_read_with_or_without_spaces():
    assert LogMel(16000, axes="(B,T,F)").axes == "(B, T, F)"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_de_emphasis_is_the_recursion_and_takes_pre_emphasis_back(dtype):
    from torchaudio.functional import lfilter

    waveform = torch.randn(2, 5000, dtype=dtype)
    a, b = torch.tensor([1.0, -0.97], dtype=dtype), torch.tensor([1.0, 0.0], dtype=dtype)
    found = de_emphasised(waveform, 0.97)
    rounding = 100 * torch.finfo(dtype).eps * float(found.abs().max())
    torch.testing.assert_close(found, lfilter(waveform, a, b, clamp=False), rtol=0, atol=rounding)
    emphasised = found[:, 1:] - 0.97 * found[:, :-1]
    torch.testing.assert_close(emphasised, waveform[:, 1:], rtol=0, atol=rounding)
    assert de_emphasised(waveform, 0.0) is waveform

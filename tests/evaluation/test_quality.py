"""Measures of kept sounds against slow oracles, identities and what is known of them."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from audioxai_utils.evaluation import quality

RATE = 16000


def noise(n: int = 1, samples: int = 8000, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, samples, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 0.1


def frames(sound):
    """Spectra (frames, frequencies) of one sound, one FFT after the other."""
    padded = np.pad(sound.numpy(), 256, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    return np.array([np.fft.rfft(window * padded[i : i + 512]) for i in range(0, len(sound) + 1, 128)])


def test_spectral_measures_are_their_definitions():
    kept, reference = noise(seed=1)[0], noise(seed=2)[0] + 0.5 * noise(seed=1)[0]
    own, wanted = np.abs(frames(kept)), np.abs(frames(reference))
    found = quality.sound_quality(kept[None], reference[None], RATE, reference[None])
    assert float(found["convergence"]) == pytest.approx(
        math.sqrt(((own - wanted) ** 2).sum() / (wanted**2).sum()), rel=1e-9
    )
    least = 20 * math.log10(wanted.max()) - 60
    levels = [np.maximum(20 * np.log10(each), least) for each in (own, wanted)]
    distance = np.mean([math.sqrt(np.mean((a - b) ** 2)) for a, b in zip(*levels)])
    assert float(found["lsd"]) == pytest.approx(distance, rel=1e-9)
    ratios = []
    for frequency in range(257):
        x, y = own[:, frequency] ** 2, wanted[:, frequency] ** 2
        kurtosis = [np.mean(z**4) / np.mean(z**2) ** 2 for z in (x, y)]
        ratios.append(math.log(kurtosis[0] / kurtosis[1]))
    assert float(found["musical_noise"]) == pytest.approx(np.mean(ratios), rel=1e-9)


def test_the_clean_sound_itself_is_best():
    clip, reference = noise(2, seed=3), noise(2, seed=4)
    found = quality.sound_quality(reference, clip, RATE, reference)
    assert (found["si_sdr"] > 100).all() and (found["sdr"] > 60).all()
    for name in ("lsd", "convergence"):
        torch.testing.assert_close(found[name], torch.zeros(2, dtype=torch.float64))
    whole = quality.sound_quality(clip, clip, RATE)
    assert set(whole) == {"musical_noise", "loudness"}
    assert all(float(each.abs().max()) < 1e-9 for each in whole.values())


def test_sdr_of_several_sounds_with_several_threads_is_that_of_each():
    sounds = torch.randn(4, 16000, generator=torch.Generator().manual_seed(0))
    estimates, before = sounds + 0.3 * sounds.flip(0), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        found = quality.sdr(estimates, sounds)
    finally:
        torch.set_num_threads(before)
    alone = [quality.sdr(estimates[i : i + 1], sounds[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(found, torch.cat(alone))


def test_sdr_lets_the_sound_be_filtered_and_si_sdr_does_not():
    """A delay of three samples is a filter; noise of a tenth of the power is 10 dB below in both."""
    reference = noise(1, 16000, seed=5)
    late = torch.nn.functional.pad(reference, (3, 0))[:, :-3]
    assert float(quality.sdr(late, reference)) > 25 > 5 > float(quality.si_sdr(late, reference))
    noisy = reference + noise(1, 16000, seed=6) * math.sqrt(0.1)
    assert float(quality.si_sdr(noisy, reference)) == pytest.approx(10, abs=0.3)
    assert float(quality.sdr(noisy, reference)) == pytest.approx(10, abs=0.6)


@pytest.mark.parametrize("level", [-40, 0, 20, 60])
def test_si_sdr_is_torchmetrics_without_its_import(level):
    from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio

    reference, other = noise(4, 16000, seed=7).double(), noise(4, 16000, seed=8).double()
    estimate = 0.3 * reference + 0.3 * 10 ** (-level / 20) * other
    expected = scale_invariant_signal_distortion_ratio(estimate, reference, zero_mean=True)
    torch.testing.assert_close(quality.si_sdr(estimate, reference), expected, rtol=1e-6, atol=1e-6)
    code = "from audioxai_utils.evaluation.controls import si_sdr; import sys, torch; si_sdr(torch.rand(2, 9), torch.rand(2, 9)); print('torchmetrics' in sys.modules)"
    found = subprocess.check_output([sys.executable, "-c", code], text=True, timeout=60)
    assert found.strip() == "False"


def test_holes_in_noise_are_musical_and_softness_is_none():
    """A random mask leaves bursts; half the amplitude is 6.02 LU lower and nothing else."""
    clip = noise(1, 32000, seed=7)
    window = torch.hann_window(512, dtype=torch.float64)
    spectrum = torch.stft(clip, 512, 128, window=window, return_complex=True)
    mask = torch.rand(spectrum.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) > 0.9
    holes = torch.istft(spectrum * mask, 512, 128, window=window, length=32000)
    softer = quality.sound_quality(clip / 2, clip, RATE)
    assert float(softer["loudness"]) == pytest.approx(-20 * math.log10(2), abs=1e-6)
    assert abs(float(softer["musical_noise"])) < 1e-9
    assert float(quality.musical_noise(holes, clip, RATE)) > 0.3
    smooth = torch.nn.functional.avg_pool2d(mask.double()[None], (5, 9), 1, (2, 4))[0]
    blurred = torch.istft(spectrum * smooth, 512, 128, window=window, length=32000)
    assert quality.musical_noise(blurred, clip, RATE) < quality.musical_noise(holes, clip, RATE)


def test_silence_has_no_quality():
    clip, silent = noise(2, seed=8), torch.zeros(2, 8000, dtype=torch.float64)
    kept = torch.stack([clip[0], silent[0]])
    found = quality.sound_quality(kept, clip, RATE, clip)
    assert all(torch.isfinite(found[name][0]) for name in found)
    assert all(found[name][1].isnan() for name in ("si_sdr", "sdr", "musical_noise", "loudness"))
    assert float(found["convergence"][1]) == pytest.approx(1.0)
    against_silence = quality.sound_quality(clip, clip, RATE, silent)
    assert all(against_silence[name].isnan().all() for name in ("si_sdr", "sdr", "lsd", "convergence"))


def voice(seconds: float = 1.5) -> torch.Tensor:
    """Vowels of a pulse train with pauses: enough for PESQ to find utterances, (1, samples)."""
    t = torch.arange(round(seconds * RATE), dtype=torch.float64) / RATE
    pitch = 120 + 20 * torch.sin(2 * torch.pi * 1.3 * t)
    phase = 2 * torch.pi * torch.cumsum(pitch, 0) / RATE
    buzz = sum(torch.sin(k * phase) / k for k in range(1, 20))
    return (buzz * (torch.sin(2 * torch.pi * 2.2 * t) > -0.3) * 0.1)[None]


@pytest.mark.parametrize(("name", "best"), [("stoi", 0.999), ("pesq", 4.5)])
def test_speech_is_better_the_less_noise_there_is(name, best):
    if name == "pesq":
        pytest.importorskip("pesq")  # compiled where it is installed; [speech] of pyproject.toml
    clean = voice()
    soft, loud = (clean + noise(1, clean.shape[1], seed=9) * gain for gain in (0.05, 2.0))
    values = [float(quality.speech_quality(each, clean, RATE)[name]) for each in (clean, soft, loud)]
    assert values[0] > values[1] > values[2] and values[0] > best, values
    silent = quality.speech_quality(torch.cat([0 * clean, clean]), torch.cat([clean, clean]), RATE)[name]
    assert silent[0].isnan() and silent[1] > best


def test_intelligibility_is_the_published_formula():
    """Correlations of short stretches in third-octave bands, by loops; the voice has pauses, so use noise."""
    clean = noise(1, 10000, seed=11)[0]
    kept = clean + noise(1, 10000, seed=12)[0]
    found = float(quality.speech_quality(kept[None], clean[None], 10000)["stoi"])
    window, hop = np.hanning(258)[1:-1], 128
    starts = range(0, 10000 - 256, hop)
    spectra = [
        np.array([np.fft.rfft(x.numpy()[i : i + 256] * window, 512) for i in starts]) for x in (clean, kept)
    ]
    centres = 150 * 2 ** (np.arange(15) / 3)
    grid = np.linspace(0, 10000, 513)[:257]
    edges = [[np.abs(grid - c * 2 ** (side / 6)).argmin() for side in (-1, 1)] for c in centres]
    x, y = ([np.sqrt((np.abs(s[:, a:b]) ** 2).sum(1)) for a, b in edges] for s in spectra)
    scores = []
    for m in range(30, len(starts) + 1):
        for j in range(15):
            a, b = x[j][m - 30 : m], y[j][m - 30 : m]
            b = np.minimum(b * np.linalg.norm(a) / np.linalg.norm(b), a * (1 + 10 ** (15 / 20)))
            scores.append(np.corrcoef(a, b)[0, 1])
    assert found == pytest.approx(np.mean(scores), abs=2e-3)


def test_a_word_too_short_for_a_measure_has_none():
    """pystoi gives 1e-5 for it, as if nothing were understood; PESQ refuses less than a quarter second."""
    word, short = voice(0.35), voice(0.2)
    assert quality.speech_quality(word, word, RATE)["stoi"].isnan()
    assert all(each.isnan() for each in quality.speech_quality(short, short, RATE).values())


def test_wrong_sounds_are_refused_in_one_line():
    clip = noise(2)
    for kept, message in (
        (clip[0], r"kept must be a floating-point tensor \(batch, samples\); got \(8000,\)"),
        (clip[:, :-1], r"clip must have the shape \(2, 7999\); got \(2, 8000\)"),
        (clip / 0, "kept must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            quality.sound_quality(kept, clip, RATE)
    with pytest.raises(ValueError, match=r"reference must have the shape \(2, 8000\)"):
        quality.sound_quality(clip, clip, RATE, clip[:1])


def test_without_pesq_there_is_intelligibility_alone(monkeypatch):
    monkeypatch.setattr(quality, "find_spec", lambda name: None)
    assert set(quality.speech_quality(noise(), noise(), RATE)) == {"stoi"}

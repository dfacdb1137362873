"""The sounds and the spectrogram that are not the study's: what notebook 09 takes for granted of them."""

import types

import numpy as np
import pytest
import torch

from audioxai_utils.audit import example
from audioxai_utils.evaluation.controls import kept_bins
from audioxai_utils.gallery.players import player_html


@pytest.fixture(scope="module")
def clips():
    return example.make_clips(4, seed=3)


def test_events_lie_in_their_bands_and_stand_out_as_much_as_they_should(clips):
    events, backgrounds, labels = clips
    assert labels.tolist() == [0, 1, 2] * 4 and events.shape == (12, 44100) == backgrounds.shape
    np.testing.assert_allclose((events + backgrounds).abs().amax(1), 1, atol=1e-6)
    frequencies = np.fft.rfftfreq(44100, 1 / example.SAMPLE_RATE)
    for event, background, label in zip(events.double().numpy(), backgrounds.double().numpy(), labels):
        power = np.abs(np.fft.rfft(event)) ** 2
        low, high = example.BANDS[example.CLASSES[label]]
        assert power[(frequencies >= low) & (frequencies <= high)].sum() > 0.97 * power.sum(), (
            example.CLASSES[label]
        )
        sounding = event[event != 0]
        snr = 20 * np.log10(sounding.std() / background.std())
        assert example.SNR_DB[0] - 0.01 < snr < example.SNR_DB[1] + 0.01 and len(sounding) <= 22050


def test_a_seed_gives_the_same_sounds_and_another_seed_others(clips):
    again, other = example.make_clips(4, seed=3), example.make_clips(4, seed=4)
    assert torch.equal(again[0], clips[0]) and not torch.equal(other[0], clips[0])
    assert torch.equal(example.make_clips(2, seed=3)[1], clips[1][:6])  # more sounds change none
    with pytest.raises(ValueError, match="n_per_class must be at least 1"):
        example.make_clips(0)


def test_the_spectrogram_is_the_transform_of_windowed_frames(clips):
    """Against NumPy's FFT frame by frame, edges reflected."""
    waveform = clips[1][:2].double()
    batch = example.PlainSpectrogram()(waveform)
    assert (
        batch.db.shape == batch.power.shape == batch.phase.shape == (2, 1, 257, 173) and batch.length == 44100
    )
    n = np.arange(512)
    window = 0.54 - 0.46 * np.cos(2 * np.pi * n / 512)  # Hamming, periodic
    padded = np.pad(waveform[1].numpy(), 256, mode="reflect")
    for frame in (0, 1, 90, 172):
        expected = np.fft.rfft(window * padded[256 * frame : 256 * frame + 512])
        np.testing.assert_allclose(batch.power[1, 0, :, frame], np.abs(expected) ** 2, rtol=1e-9, atol=1e-12)
        level = 10 * np.log10(np.maximum(np.abs(expected) ** 2, 1e-10))
        np.testing.assert_allclose(batch.db[1, 0, :, frame], level, atol=1e-8)


def test_inverting_everything_gives_the_sound_back(clips):
    spectrogram, waveform = example.PlainSpectrogram(), clips[0][:3].double()
    batch = spectrogram(waveform)
    for phase in (batch.phase, batch.phasor):
        torch.testing.assert_close(spectrogram.invert(batch.power, phase, 44100), waveform, rtol=0, atol=1e-9)
    assert not spectrogram.invert(0 * batch.power, batch.phase, 44100).any()


def test_truth_is_what_each_mask_keeps_of_either_stem(clips):
    events, backgrounds, _ = clips
    spectrogram = example.PlainSpectrogram()
    batch = spectrogram((events + backgrounds)[:1])
    mask = (torch.rand(batch.db.shape, generator=torch.Generator().manual_seed(0)) > 0.9).float()
    explanation = types.SimpleNamespace(spectrogram=spectrogram, batch=batch, masks={"bin": mask})
    table = example.against_truth(explanation, events[0], backgrounds[0], "bin").set_index("kind")
    power = [spectrogram(stem[:1]).power.double().numpy().ravel() for stem in (events, backgrounds)]
    n = int(kept_bins(mask))
    loudest = np.argsort(-batch.power.numpy().ravel(), kind="stable")[:n]
    energy = np.isin(np.arange(mask.numel()), loudest)
    chosen = {"method": mask.numpy().ravel() == 1, "energy": energy, "oracle": power[0] > power[1]}
    for kind, kept in chosen.items():
        shares = [stem[kept].sum() / stem.sum() for stem in power]
        assert table.loc[kind, ["event", "background"]].tolist() == pytest.approx(shares, rel=1e-5), kind
        assert table.loc[kind, "snr_gain"] == pytest.approx(10 * np.log10(shares[0] / shares[1]), abs=1e-4)
        assert table.loc[kind, "area"] == pytest.approx(kept.mean())
    assert table.loc["random", "area"] == pytest.approx(n / mask.numel())


def test_a_player_holds_the_sound(clips):
    import base64
    import io
    import re

    import soundfile

    html = player_html(clips[0][0].numpy(), example.SAMPLE_RATE, "a bird")
    assert html.startswith("<p>a bird<br>") and len(html) < 40_000
    data = base64.b64decode(re.search(r"data:audio/mpeg;base64,([^\"]+)", html)[1])
    decoded, rate = soundfile.read(io.BytesIO(data))
    assert rate == example.SAMPLE_RATE and abs(len(decoded) - 44100) <= 1152
    assert np.corrcoef(decoded[:44100], clips[0][0][: len(decoded)])[0, 1] > 0.98
    assert player_html(np.zeros(1000), 22050, "nothing") == "<p>nothing<br>silent</p>"

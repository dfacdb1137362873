"""The street of notebook 09: a mixture whose parts are known, and what was published of it."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from audioxai_utils import AudioClassifier, LogMel
from audioxai_utils.audit import street
from audioxai_utils.published import our_street

RATE = 8000


@pytest.fixture
def folder(tmp_path):
    times = np.arange(RATE) / RATE
    for number, name in enumerate(street.PARTS.values()):
        soundfile.write(
            tmp_path / f"{name}.wav", 0.2 * np.sin(2 * np.pi * 500 * (1 + 2 * number) * times), RATE
        )
    return tmp_path


def test_parts_sum_to_the_street_at_their_gains(folder):
    sound, parts = street.mixture(folder, RATE)
    torch.testing.assert_close(sum(parts.values()), sound)
    assert float(sound.abs().max()) == pytest.approx(1, abs=1e-6)
    levels = {name: float(part.square().mean().sqrt()) for name, part in parts.items()}
    assert [levels[name] / levels["dog"] for name in street.GAINS] == pytest.approx([1, 0.6, 0.3], rel=1e-3)
    (folder / f"{street.PARTS['rain']}.wav").unlink()
    with pytest.raises(FileNotFoundError, match=street.PARTS["rain"]):
        street.mixture(folder, RATE)


def test_a_silent_part_gives_silence(folder):
    silence = np.zeros(RATE)
    soundfile.write(folder / f"{street.PARTS['rain']}.wav", silence, RATE)
    sound, parts = street.mixture(folder, RATE)
    assert not parts["rain"].any() and float(sound.abs().max()) == pytest.approx(1, abs=1e-6)
    for recording in street.PARTS.values():
        soundfile.write(folder / f"{recording}.wav", silence, RATE)
    assert not street.mixture(folder, RATE)[0].any()


def test_a_label_that_hears_a_band_is_explained_by_the_part_that_lies_there(folder, monkeypatch):
    """Each label is the mean level of a third of the bands: the dog lies in the lowest."""
    monkeypatch.setattr(street, "METHOD_OPTIONS", {"saliency": {}, "integrated_gradients": {"n_steps": 4}})
    mel = LogMel(sample_rate=RATE, n_fft=256, hop_length=128, n_mels=30, offset=1e-5)
    net = nn.Sequential(nn.AvgPool2d((10, 1)), nn.Conv2d(1, 1, 1), nn.AdaptiveAvgPool2d((3, 1)), nn.Flatten())
    with torch.no_grad():
        net[1].weight.fill_(0.1), net[1].bias.zero_()
    tagger = AudioClassifier(net, ["Dog", "Siren", "Rain"], input=mel, head="sigmoid")
    found = street.street(tagger, folder, ("Dog", "Rain")).set_index(["target", "method"])
    assert (found["area"].round(2) == 0.3).all()
    for method in street.METHOD_OPTIONS:
        dog, rain = found.loc[("Dog", method)], found.loc[("Rain", method)]
        assert dog["keeps_dog"] > 0.6 > dog["keeps_rain"], method
        assert rain["keeps_rain"] > 0.6 > rain["keeps_dog"], method


def test_what_was_published_is_what_notebook_09_shows():
    table = our_street()
    assert list(table.columns) == ["target", "method", *street.SCORES, *(f"keeps_{p}" for p in street.PARTS)]
    assert set(table["method"]) == set(street.METHOD_OPTIONS) and set(table["target"]) == {"Dog", "Siren"}
    np.testing.assert_allclose(table["FF"], table["p_clip"] - table["p_removed"], atol=2e-4)


def test_the_summary_says_what_each_label_s_part_and_probability_become():
    dog, siren = street.summary(our_street()).splitlines()
    assert dog.startswith(
        "- Of what makes the label **Dog** the methods keep: Saliency 55% (the label is gone), "
    )
    assert "Grad-CAM 96% (the label stays)" in dog and "LIME 86% (the label stays)" in dog
    assert siren.count("the label is gone") == 3 and siren.endswith("random bins of the same area keep 30%.")

"""What practitioners have and what was read wrongly once: a second sigmoid, odd windows, half precision, parts."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from any_models import CLASSES, RATE, clip, cnn
from torch import nn
from torch.nn import functional

from audioxai_utils import AudioClassifier, LogMel, explain
from audioxai_utils.audio.reading import as_mono
from audioxai_utils.models.outputs import any_of, joint_log_odds, joint_probability
from audioxai_utils.models.wrapping import BlackBox

FRONT = {"sample_rate": RATE, "n_fft": 256, "hop_length": 100, "n_mels": 16}


class OfPicture(nn.Module):
    """A function of the picture (batch, 1, F, T) with a weight, so that it is a network."""

    def __init__(self, function, n: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.function, self.weight = function, nn.Parameter(torch.randn(n))

    def forward(self, x):
        return self.function(x, self.weight)


def described(net, **options) -> AudioClassifier:
    return AudioClassifier(
        net, CLASSES[: len(options.pop("classes", CLASSES))], **{"input": LogMel(**FRONT), **options}
    )


# Heads and outputs


@pytest.mark.parametrize("sigmoid", [True, False])
def test_a_probability_that_is_called_a_logit_is_warned_of(sigmoid):
    net = OfPicture(lambda x, w: (x.mean((1, 2, 3)) / 20 + w[0])[:, None])
    head = AudioClassifier(
        nn.Sequential(net, nn.Sigmoid()) if sigmoid else net, ["cough"], input=LogMel(**FRONT), head="binary"
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        explain(head, clip(), RATE, method="saliency", masks=["bin"])
    assert (
        any("head='probabilities' for what is a probability" in str(each.message) for each in said) == sigmoid
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_several_faint_classes_are_read_in_full_precision(dtype):
    p = torch.tensor([[1.2e-4, 1.9e-4, 0.5]]).to(dtype)
    expected = 1 - (1 - p.double()[:, :2]).prod(1)
    found = any_of(p, [0, 1], None, "probabilities", exclusive=False)
    torch.testing.assert_close(found[:, 0].double(), expected, rtol=1e-5, atol=0)
    logits = torch.tensor([[-18.0, -19.0, 3.0]]).to(dtype)
    odds = logits.double()[:, :2].sigmoid()
    odds = 1 - (1 - odds).prod(1)
    found = any_of(logits, [0, 1], None, "sigmoid", exclusive=False)
    torch.testing.assert_close(found[:, 0].double(), (odds / (1 - odds)).log(), rtol=1e-5, atol=1e-5)


def test_log_odds_of_any_are_smooth_and_finite_everywhere():
    faint = torch.tensor([[-120.0, -130.0], [-14.0, -14.2], [-13.0, -13.5], [0.5, 40.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: joint_log_odds(x, [0, 1], "sigmoid"), faint.requires_grad_())
    assert joint_log_odds(faint, [0, 1], "sigmoid")[0].item() == pytest.approx(-120, abs=1e-3)
    sure = torch.tensor([[1.0, 0.2]], requires_grad=True)
    joint_probability(sure, [0, 1], exclusive=False).sum().backward()
    assert sure.grad.isfinite().all()


def test_a_list_of_arrays_is_several_outputs():
    box = BlackBox(lambda x: [np.ones((len(x), 2), np.float32), np.zeros((len(x), 3), np.float32)])
    assert [each.shape for each in box(torch.zeros(4, 5))] == [(4, 2), (4, 3)]


# Sounds


@pytest.mark.parametrize("win_length", [550, 551, 401])
@pytest.mark.parametrize("pre_emphasis", [0.0, 0.97])
def test_a_kept_sound_lies_where_the_clip_does_whatever_the_window(win_length, pre_emphasis):
    front = LogMel(
        sample_rate=22050,
        n_fft=1024,
        hop_length=220,
        win_length=win_length,
        n_mels=40,
        pre_emphasis=pre_emphasis,
    )
    spectrogram = front.spectrogram().double()
    sound = torch.randn(1, 8000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    again = spectrogram._istft(spectrogram._stft(sound)[:, 0], 8000)
    inner = slice(1000, 7000)
    torch.testing.assert_close(again[:, inner], sound[:, inner], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_resampled_in_full(dtype):
    sound = torch.sin(torch.arange(44100) * (2 * torch.pi * 440 / 44100)).mul(0.5).to(dtype)
    assert torch.equal(as_mono(sound, 44100, 16000), as_mono(sound.float(), 44100, 16000))


@pytest.mark.parametrize("method", ["saliency", "integrated_gradients"])
def test_explaining_in_inference_mode_is_explaining(method):
    net = OfPicture(lambda x, w: x.square().mean(1, keepdim=True) * w)
    classifier = AudioClassifier(net, CLASSES, RATE, head="softmax")
    expected = explain(classifier, clip(), RATE, method=method, inspect_as="mel", masks=["bin"]).attribution
    with torch.inference_mode():
        sound = torch.as_tensor(clip()).clone()
        found = explain(classifier, sound, RATE, method=method, inspect_as="mel", masks=["bin"]).attribution
    torch.testing.assert_close(found, expected)


# Pictures


def test_what_is_hidden_in_another_picture_is_silent_there():
    """The front end's own floor, of a mel with an offset, is no silence of an STFT."""
    net = OfPicture(
        lambda x, w: x[:, :, 12:].mean((1, 2, 3))[:, None] * torch.tensor([[0.0, 0.0, 0.1]]) + w * 0
    )
    front = LogMel(**FRONT, scale=2.0**15, offset=1.0)
    found = [
        explain(
            described(net, input=front, head="softmax"),
            clip(),
            RATE,
            target=2,
            method="occlusion",
            inspect_as="stft",
            fill=fill,
            masks=["bin"],
        )
        for fill in (None, -100.0)
    ]
    torch.testing.assert_close(found[0].attribution, found[1].attribution)
    assert (found[0].attribution > 0).float().mean() > 0.2


def test_the_map_of_a_padded_input_lies_where_the_sound_is_as_heard_too():
    sound = torch.randn(RATE, generator=torch.Generator().manual_seed(0)) * 1e-3
    sound[int(0.75 * RATE) : int(0.87 * RATE)] *= 300
    net = cnn()
    front = LogMel(**FRONT, n_frames=4 * (RATE // 100))
    classifier = AudioClassifier(net, CLASSES, input=front, head="softmax")
    options = {"method": "gradcam", "masks": ["bin"], "check_gradient": False}
    seen, heard = (
        explain(classifier, sound, RATE, domain=domain, **options).attribution[0, 0].abs().sum(0)
        for domain in ("db", "heard")
    )
    assert torch.corrcoef(torch.stack([seen, heard]))[0, 1] > 0.9


# Methods


@pytest.mark.parametrize("method", ["rise", "segments", "lime", "coughlime"])
def test_a_score_that_does_not_change_has_no_map(method):
    net = OfPicture(lambda x, w: w.expand(len(x), 3) + 0 * x.mean((1, 2, 3))[:, None])
    options = {"rise": {"n_masks": 32}}.get(method, {"n_samples": 32})
    with pytest.warns(UserWarning, match="zero everywhere"):
        found = explain(described(net, head="softmax"), clip(), RATE, method=method, masks=["bin"], **options)
    assert not found.attribution.any() and found.scores.loc["bin", "area"] == 0


class Pads(nn.Module):
    """Pads or cuts a picture to so many frames."""

    def __init__(self, n_frames: int) -> None:
        super().__init__()
        self.n_frames_inside = n_frames

    def forward(self, x):
        return functional.pad(x, (0, self.n_frames_inside - x.shape[3]))


@pytest.mark.parametrize("n_frames, refused", [(200, True), (80, False), (30, True)])
def test_a_network_that_pads_or_cuts_a_clip_itself_has_no_map_of_it(n_frames, refused):
    """Of 65 frames; a fifth more is within what a map's cells blur."""
    convolutions = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1)]
    net = nn.Sequential(Pads(n_frames), *convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    classifier = described(net, head="softmax")
    if refused:
        with pytest.raises(ValueError, match="other frames than this clip"):
            explain(classifier, clip(), RATE, method="gradcam", masks=["bin"])
    else:
        assert explain(classifier, clip(), RATE, method="gradcam", masks=["bin"]).attribution.any()


class Chunks(nn.Module):
    """A network that reads a clip in four parts, one after another or as so many clips."""

    def __init__(self, at_once: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head, self.at_once = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4, 3), at_once

    def one(self, x):
        return self.head(functional.relu(self.conv(x)).mean((2, 3)))

    def forward(self, x):
        parts = x[..., : x.shape[3] // 4 * 4].chunk(4, 3)
        if self.at_once:
            return self.one(torch.cat(parts)).unflatten(0, (4, len(x))).mean(0)
        return torch.stack([self.one(part) for part in parts]).mean(0)


@pytest.mark.parametrize("at_once", [False, True])
def test_maps_of_parts_of_a_clip_are_no_map_of_the_clip(at_once):
    classifier = described(Chunks(at_once), head="softmax")
    with pytest.raises(ValueError, match="parts of a clip, and none"):
        explain(classifier, clip(), RATE, method="gradcam", layer="net.conv", masks=["bin"])


def test_guided_backpropagation_wants_relus_that_are_called():
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), OfPicture(lambda x, w: functional.relu(x).mean((2, 3))[:, :3] * w)
    )
    net[1].idle = nn.ReLU()
    with pytest.raises(ValueError, match="it calls none of its own"):
        explain(described(net, head="softmax"), clip(), RATE, method="guided_gradcam", masks=["bin"])

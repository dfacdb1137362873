"""Other tasks than naming a clip: a frame's or an event's score, a detector of one logit, likeness of two clips."""

from __future__ import annotations

import pytest
import torch
from any_models import MEL, RATE, clip, cnn
from torch import nn
from torch.nn import functional

from audioxai_utils import AudioClassifier, LogMel, explain
from audioxai_utils.attributions import METHODS
from audioxai_utils.evaluation.masks import MASKS
from audioxai_utils.models.reading import Reading

FRAME = MEL["hop_length"] / RATE  # s


class Events(nn.Module):
    """Logits (batch, time / 2, 2) of two events: each output frame sees three input frames of its own band."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, (32, 3), stride=(32, 2), padding=(0, 1))
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[0, 0, 4:12] = 0.02
            self.conv.weight[1, 0, 20:28] = 0.02
            self.conv.bias.fill_(1.0)

    def forward(self, db):
        return self.conv(db)[:, :, 0].transpose(1, 2)


class Embedder(nn.Module):
    """A unit vector (batch, 8) of the amplitudes of bands."""

    def forward(self, db):
        bands = (10 ** (db / 20)).mean(3)[:, 0].unflatten(1, (8, 4)).mean(2)
        return functional.normalize(bands, dim=1)


def detector():
    return AudioClassifier(Events(), input=LogMel(**MEL))


def tones(*pitches, seconds: float = 0.8):
    time = torch.arange(round(seconds * RATE)) / RATE
    noise = 0.01 * torch.randn(len(time), generator=torch.Generator().manual_seed(1))
    return noise + sum(0.3 * torch.sin(2 * torch.pi * pitch * time) for pitch in pitches)


# Frame-wise outputs


def test_a_frame_s_score_is_explained_by_its_own_frames():
    """By hand: the gradient of that frame's logit, which reaches three input frames and one band."""
    found = explain(
        detector(), clip(), RATE, target=lambda y: y[:, 12, 1], method="saliency", masks=["topK_5"]
    )
    db = found.batch.db.clone().requires_grad_()
    (expected,) = torch.autograd.grad(Events()(db)[:, 12, 1].sum(), db)
    torch.testing.assert_close(found.attribution, expected)
    frames, bins = (
        found.attribution[0, 0].any(0).nonzero()[:, 0],
        found.attribution[0, 0].any(1).nonzero()[:, 0],
    )
    assert frames.tolist() == [23, 24, 25] and bins.tolist() == list(range(20, 28))
    assert float(found.probabilities[1]) == pytest.approx(
        float(Events()(db.detach())[0, 12, 1].detach().sigmoid())
    )


def test_an_event_s_score_is_that_of_its_frames():
    """From 0.4 s on, the mean of the second event's logits; a mask that keeps it keeps the event."""
    first = round(0.4 / (2 * FRAME))

    def event(y):
        return y[:, first:, 1].mean(1)

    found = explain(
        detector(), clip(), RATE, target=event, method="integrated_gradients", masks=["bin", "topK_30_pos"]
    )
    assert found.target_name == "event"
    assert not found.attribution[0, 0, :, : 2 * first - 1].any()
    assert found.scores.loc["bin", "p_kept"] == pytest.approx(float(found.probabilities[1]), abs=1e-5)
    with torch.no_grad():
        whole, nothing = (Events()(db) for db in (found.batch.db, torch.full_like(found.batch.db, -100.0)))
    expected = float(event(whole) - event(nothing))
    assert float(found.attribution.sum()) == pytest.approx(expected, rel=1e-4)  # completeness


@pytest.mark.parametrize("method", ["segments", "coughlime", "slime", "rise"])
def test_a_black_box_is_asked_about_its_frames(method):
    net = Events().eval()
    classifier = AudioClassifier(lambda db: net(db.float()).detach().numpy(), input=LogMel(**MEL))
    options = {name: 32 for name in ("n_samples", "n_masks") if name in METHODS.options(method)}
    options |= {"n_segments": 10} if method == "segments" else {}
    options |= {"components": "time"} if method == "coughlime" else {}
    found = explain(
        classifier, clip(), RATE, target=lambda y: y[:, 20, 1], method=method, masks=["bin"], **options
    )
    own = found.attribution[..., 39:42].mean()
    assert own > 0 and own > 2 * found.attribution[..., :30].mean().abs()


def test_an_output_of_frames_without_a_target_is_asked_about():
    with pytest.raises(
        ValueError, match=r"net must return logits \(batch, classes\); got \(1, 26, 2\): give output="
    ):
        explain(detector(), clip(), RATE)
    clipwise = AudioClassifier(
        Events(), ["low", "high"], input=LogMel(**MEL), output=lambda y: y.amax(1), head="sigmoid"
    )
    assert (
        explain(clipwise, clip(), RATE, target="high", method="saliency", masks=["bin"]).target_name == "high"
    )
    with pytest.raises(
        ValueError, match=r"target must return one number per clip, a tensor \(batch,\); got \(1, 26\)"
    ):
        explain(detector(), clip(), RATE, target=lambda y: y[..., 1])


# A detector of one logit


def test_a_detector_of_one_logit_is_explained_for_and_against():
    classifier = AudioClassifier(cnn(1), ["siren"], input=LogMel(**MEL), head="binary", threshold=0.3)
    maps = [
        explain(classifier, clip(), RATE, target=name, method="saliency", masks=["bin"]).attribution
        for name in ("siren", "not siren")
    ]
    torch.testing.assert_close(maps[0], -maps[1])
    several = explain(classifier, clip(), RATE, target=lambda y: y[:, 0], method="saliency", masks=["bin"])
    torch.testing.assert_close(several.attribution, maps[0])


@pytest.mark.parametrize("probable", [False, True])
def test_the_threshold_of_a_single_label_decides_what_is_predicted_and_heard(probable):
    """Its absence was predicted above a half, and heard above the threshold of its presence."""
    net = cnn(1).double().eval()
    p = float(
        torch.sigmoid(AudioClassifier(net, input=LogMel(**MEL), head="binary").scores(clip()[None])[0, 1])
    )
    if probable:
        net = nn.Sequential(net, nn.Sigmoid())
    for threshold, predicted in ((p - 0.02, "siren"), (p + 0.02, "not siren")):
        kind = {"head": "probabilities" if probable else "binary", "threshold": threshold}
        classifier = AudioClassifier(net, ["siren"], input=LogMel(**MEL), **kind)
        found = explain(classifier, clip(), RATE, method="occlusion", masks=list(MASKS))
        assert found.target_name == predicted
        for target in ("siren", "not siren"):
            scores = explain(
                classifier, clip(), RATE, target=target, method="occlusion", masks=list(MASKS)
            ).scores
            present = scores["p_kept"] if target == "siren" else 1 - scores["p_kept"]
            assert scores["FidIn"].tolist() == ((present > threshold) == (target == "siren")).tolist()
        reading = classifier.reading()
        assert reading.one_label and reading.predicted(torch.tensor([[1 - p, p]])).item() == (
            predicted == "siren"
        )


def test_of_several_labels_the_most_probable_is_predicted_whatever_the_threshold():
    reading = Reading("sigmoid", threshold=0.9)
    assert reading.predicted(torch.tensor([[0.2, 0.4, 0.3]])).item() == 1 and not reading.one_label
    assert reading.thresholds(torch.tensor([0, 2])).tolist() == [0.9, 0.9]
    assert Reading().thresholds(torch.tensor([0])) is None


# Likeness of two clips


def test_two_clips_are_alike_by_what_they_share():
    """A low tone is in both and a high one in the first alone: the low one speaks for likeness, the other against."""
    embedder = AudioClassifier(Embedder(), input=LogMel(**MEL), head="softmax")
    both, other = tones(500, 2800), tones(500)
    anchor = embedder.scores(other[None].double())  # (1, 8)

    def likeness(embedding):
        return 20 * (functional.cosine_similarity(embedding, anchor.to(embedding)) - 0.8)

    bands = {"method": "slime", "grid": "frequency", "n_frequency": 8, "fill": -100.0, "n_samples": 100}
    found = explain(embedder, both, RATE, target=likeness, masks=["bin"], **bands)
    level = found.batch.db[0, 0].mean(1)
    low, high = int(level[:16].argmax()), 16 + int(level[16:].argmax())
    row = found.attribution[0, 0].mean(1)
    assert row[low] == row.max() > 0.2 and row[high] == row.min() < -0.1
    logit = torch.logit(found.probabilities[1].double())
    direct = functional.cosine_similarity(embedder.scores(both[None].double()), anchor) * 20 - 16
    torch.testing.assert_close(logit, direct[0].to(logit), rtol=1e-3, atol=1e-3)
    assert (
        found.scores.loc["bin", "p_kept"] > found.scores.loc["bin", "p_clip"]
    )  # without the high tone more alike
    turned = explain(embedder, both, RATE, target=lambda e: -likeness(e), masks=["bin"], **bands)
    torch.testing.assert_close(turned.attribution, -found.attribution, rtol=1e-3, atol=1e-4)

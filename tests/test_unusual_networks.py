"""Networks that do more than answer: what they change, what they keep, and how they run."""

from __future__ import annotations

import warnings

import any_models
import pandas as pd
import pytest
import torch
from any_models import CLASSES, MEL, RATE, Around, clip, cnn, described, lime
from torch import nn
from torch.utils.checkpoint import checkpoint

from audioxai_utils import AudioClassifier, LogMel, explain, explain_many

pytestmark = pytest.mark.usefixtures("same_weights")


# Networks that make their weights, or run their parts, in ways of their own


class Checkpointed(nn.Module):
    """Its parts are run again in the backward pass, to save memory."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.net, self.reentrant = cnn(), reentrant

    def forward(self, db):
        return checkpoint(self.net, db, use_reentrant=self.reentrant)


def normed() -> nn.Module:
    """Weights that a hook, and a parametrization, make anew at every call."""
    net = cnn()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        net[1] = nn.utils.weight_norm(net[1])
    net[5] = nn.utils.parametrizations.weight_norm(net[5])
    return net


@pytest.mark.parametrize("make", [normed, lambda: Checkpointed(False)], ids=["weight norm", "checkpoints"])
@pytest.mark.parametrize("method", ["saliency", "lime", "shap"])
def test_weight_norm_and_checkpoints(make, method):
    """LIME and Deep SHAP ended in a raw error: a fold put a weight where a hook makes one, a part ran twice."""
    classifier = described(make(), head="softmax")
    options = {"n_samples": 8} if method == "lime" else {}
    if method == "shap":
        options["background"] = classifier.pictures(torch.stack([clip(seed=s).flip(0) for s in (1, 2)]))
    found = explain(classifier, clip(), RATE, method=method, target=1, masks=["bin"], **options)
    assert found.attribution.any()
    if method == "shap":
        model = classifier.model.eval()
        with torch.no_grad():
            rise = (model(found.batch.db) - model(options["background"]).mean(0))[0, 1].double()
        values = found.attribution.double()
        assert float((values.sum() - rise).abs()) <= 1e-5 * float(values.abs().sum())


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_checkpoints_that_have_no_input_gradient_say_so_in_one_line():
    classifier = described(Checkpointed(True), head="softmax")
    with pytest.raises(
        ValueError, match="use_reentrant=True.*; methods that only ask for outputs need none"
    ) as e:
        explain(classifier, clip(), RATE, method="saliency")
    assert "\n" not in str(e.value) and lime(classifier).attribution.any()


def test_an_error_of_the_network_in_one_method_is_a_line_of_the_table():
    classifier = described(Checkpointed(True), head="softmax")
    found = explain_many(
        classifier, [clip()], ["saliency", "occlusion"], RATE, check_gradient=False, masks=["bin"]
    )
    refused = found.set_index("method")["refused"]
    assert (
        "use_reentrant" in refused["saliency"]
        and "\n" not in refused["saliency"]
        and refused["occlusion"] == ""
    )


# Networks that change what they are given, or give one tensor for all answers


class InPlace(nn.Module):
    """It clips and shifts its own input."""

    def __init__(self, net: nn.Module, in_place: bool) -> None:
        super().__init__()
        self.net, self.in_place = net, in_place

    def forward(self, x):
        if self.in_place:
            return self.net(x.clamp_(min=-0.2).add_(0.1))
        return self.net(x.clamp(min=-0.2) + 0.1)


@pytest.mark.parametrize("method", ["lime", "saliency", "occlusion"])
@pytest.mark.parametrize("of", ["module", "function"])
def test_a_network_that_changes_its_input_changes_nothing_else(of, method):
    """The picture that masks are laid on, and the user's waveform, were what the network had made of them."""
    if of == "function" and method == "saliency":
        pytest.skip("a function has no gradient")
    net, found = any_models.WaveNet(), []
    options = {"n_samples": 8} if method == "lime" else {}
    for in_place in (False, True):
        changing, sound = InPlace(net, in_place), clip().float()
        given = changing if of == "module" else lambda x, f=changing.eval(): f(x)
        classifier = AudioClassifier(given, CLASSES, RATE, input="(B, 1, N)", head="softmax")
        found.append(explain(classifier, sound, RATE, method=method, masks=["topK_30", "minmax"], **options))
        assert torch.equal(sound, clip().float()) and torch.equal(found[-1].waveform, sound)
    torch.testing.assert_close(found[0].attribution, found[1].attribution)
    pd.testing.assert_frame_equal(found[0].scores, found[1].scores)


def test_pictures_are_not_what_a_network_clips_them_to():
    """A soft mask of a picture that is clipped in place scores as another mask."""
    conv = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    nets = [Around(conv, before=lambda x: x.clamp(min=-30)), Around(conv, before=lambda x: x.clamp_(min=-30))]
    options = {"method": "occlusion", "masks": ["minmax"], "target": 1}
    plain, in_place = (
        explain(AudioClassifier(net, CLASSES, input="mel_db", head="softmax"), clip(1.0), RATE, **options)
        for net in nets
    )
    assert float(plain.batch.db.min()) < -31
    torch.testing.assert_close(in_place.batch.db, plain.batch.db)
    assert in_place.scores.loc["minmax", "p_kept"] == pytest.approx(plain.scores.loc["minmax", "p_kept"])


def test_a_function_that_uses_one_tensor_for_all_answers_is_read_in_time():
    net, answers = cnn().eval(), torch.zeros(64, 3)

    @torch.no_grad()
    def fresh(db):
        return net(db).softmax(1)

    def reused(db):
        answers[: len(db)] = fresh(db)
        return answers[: len(db)]

    found = [
        explain(
            described(each, head="probabilities"), clip(), RATE, method="occlusion", masks=["bin", "topK_30"]
        )
        for each in (fresh, reused)
    ]
    torch.testing.assert_close(found[0].attribution, found[1].attribution)
    torch.testing.assert_close(found[0].probabilities, found[1].probabilities)


def test_a_function_around_a_network_takes_what_soundfile_reads():
    """float64, which such a network refuses; and its missing gradient is called so."""
    net = cnn().eval()
    classifier = described(lambda db: net(db), head="softmax")
    assert clip().dtype == torch.float64 and lime(classifier).attribution.any()
    with pytest.raises(ValueError, match="do not depend on its input by a gradient; .*: .*lime"):
        explain(classifier, clip(), RATE, method="saliency")


def test_a_clip_that_a_network_hears_the_beginning_of_is_warned_of():
    classifier = AudioClassifier(cnn(), CLASSES, input=LogMel(**MEL, n_frames=51), head="softmax")
    with pytest.warns(UserWarning, match="hears the first 51 of this clip's 76 frames; cut the clip"):
        lime(classifier, clip(1.2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lime(classifier, clip(0.8))


@pytest.mark.parametrize("waveform", [False, True])
def test_autocast_around_the_call_lowers_no_precision(waveform):
    classifier = (
        AudioClassifier(any_models.WaveNet(), CLASSES, RATE, head="softmax") if waveform else described(cnn())
    )
    plain = lime(classifier)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = lime(classifier)
        assert torch.is_autocast_enabled("cpu")
    torch.testing.assert_close(found.probabilities, plain.probabilities, rtol=0, atol=0)
    torch.testing.assert_close(found.attribution, plain.attribution, rtol=0, atol=0)


def test_warnings_name_the_caller_s_line():
    classifier = described(cnn())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        explain(classifier, 1e4 * clip(), RATE, target=lambda y: y[:, 0].sigmoid(), method="saliency")
        explain(described(Around(cnn(), lambda y: 0 * y - 1)), clip(), RATE, method="saliency")
    assert [each.filename for each in told] == [__file__] * 3
    assert "full scale" in str(told[0].message) and "zero everywhere" in str(told[2].message)

"""What is explained of a classifier, and through which picture: targets, heads, descriptions, inspection."""

from __future__ import annotations

import any_models
import pytest
import torch
from any_models import CLASSES, MEL, RATE, Around, clip, cnn, options_of

from audioxai_utils import AudioClassifier, LogMel, apply_mask, explain
from audioxai_utils.attributions.gradient_check import gradient_check
from audioxai_utils.models.virtual_inspection import inspection

pytestmark = pytest.mark.usefixtures("same_weights")


# What takes the place of what is masked


@pytest.mark.parametrize("gain", [0.1, 0.001])
def test_a_front_end_s_own_silence_as_fill_is_its_silence_in_the_sound_too(gain):
    """EfficientAT adds 1e-5 before its logarithm: no sound, and no power of it, is at its -50 dB."""
    front, net = LogMel.efficientat(), cnn()
    sound = torch.randn(front.sample_rate, generator=torch.Generator().manual_seed(0)) * gain
    found = [
        explain(
            AudioClassifier(net, CLASSES, front.sample_rate, input=front),
            sound,
            method="saliency",
            domain="heard",
            fill=fill,
            masks=["topK_5"],
        )
        for fill in (None, -50.0)
    ]
    assert found[0].scores.loc["topK_5", "p_kept"] == pytest.approx(found[1].scores.loc["topK_5", "p_kept"])
    assert found[0].kept_audio("topK_5") == pytest.approx(found[1].kept_audio("topK_5"), abs=1e-7)


# Targets and heads


def test_a_sigmoid_label_is_scored_by_itself_and_its_threshold():
    classifier = any_models.make("multi-label logits")
    found = explain(classifier, clip(), RATE, method="saliency", target="rain", masks=["bin"])
    classifier.net.eval()
    with torch.no_grad():
        whole, kept, removed = (
            float(classifier.net(part)[0, 1].sigmoid())
            for part in (found.batch.db, *apply_mask(found.batch.db, found.masks["bin"]))
        )
    row = found.scores.loc["bin"]
    assert row["FF"] == pytest.approx(whole - removed, abs=1e-6) and row["FidIn"] == float(kept > 0.5)
    assert row["AD"] == pytest.approx(100 * max(0, whole - kept) / (whole + 1e-6), abs=1e-3)
    for threshold in (kept - 1e-3, kept + 1e-3):
        other = AudioClassifier(
            classifier.net, CLASSES, input=LogMel(**MEL), head="sigmoid", threshold=threshold
        )
        scores = explain(other, clip(), RATE, method="saliency", target="rain", masks=["bin"]).scores
        assert scores.loc["bin", "FidIn"] == float(kept > threshold)


@pytest.mark.parametrize(
    "head, joint",
    [
        ("softmax", lambda z: z.softmax(1)[:, :2].sum(1)),
        ("sigmoid", lambda z: 1 - (1 - z[:, :2].sigmoid()).prod(1)),
    ],
)
def test_several_classes_are_explained_as_one(head, joint):
    net = cnn().eval()
    classifier = AudioClassifier(net, CLASSES, input=LogMel(**MEL), head=head)
    found = explain(classifier, clip(), RATE, method="saliency", target=["rain", 0], masks=["bin"])
    assert found.target_name == "dog or rain"
    db = found.batch.db.clone().requires_grad_()
    p = joint(net(db))
    assert found.scores.loc["bin", "p_clip"] == pytest.approx(float(p), abs=1e-6)
    expected = torch.autograd.grad(torch.logit(p).sum(), db)[0]
    torch.testing.assert_close(found.attribution, expected, rtol=1e-3, atol=1e-7)


def test_a_function_of_the_output_is_explained():
    net = Around(cnn(), lambda y: {"logits": y, "embedding": y.square()}).eval()
    classifier = AudioClassifier(net, CLASSES, input=LogMel(**MEL), output="logits")
    raw = AudioClassifier(net, input=LogMel(**MEL))

    def difference(output):
        return output[:, 1] - output[:, 0]

    for each, target in ((classifier, difference), (raw, lambda output: difference(output["logits"]))):
        found = explain(each, clip(), RATE, method="saliency", target=target, masks=["bin"])
        db = found.batch.db.clone().requires_grad_()
        expected = torch.autograd.grad(difference(net(db)["logits"]).sum(), db)[0]
        torch.testing.assert_close(found.attribution, expected)
    with pytest.raises(
        ValueError, match=r"target must return one number per clip, a tensor \(batch,\); got \(1, 3\)"
    ):
        explain(classifier, clip(), RATE, target=lambda output: output)


@pytest.mark.parametrize(
    "changes, error, words",
    [
        ({"target": "Dog"}, ValueError, "target 'Dog' is no class of the model; there are dog, ..."),
        (
            {"target": ["dog", "rain", "siren"]},
            ValueError,
            "target must be some of the model's 3 classes; got 3",
        ),
        ({"fill": "silence"}, TypeError, "fill must be a level in dB"),
        ({"fill": True}, TypeError, "fill must be a level in dB"),
        ({"fill": float("nan")}, ValueError, "fill must be a level in dB, a finite number"),
        ({"fill": -float("inf")}, ValueError, "fill must be a level in dB, a finite number"),
        ({"domain": "power"}, ValueError, "domain must be one of db, heard"),
        ({"inspect_as": "wavelet"}, ValueError, "inspect_as must be one of stft, mel, cqt"),
        ({"spectrogram": "mel_db"}, ValueError, "spectrogram= is for a module by itself"),
    ],
)
def test_choices_that_do_not_fit_end_in_one_line(changes, error, words):
    with pytest.raises(error, match=words) as raised:
        explain(any_models.make("softmax logits"), clip(), RATE, **changes)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        ({"net": 3}, TypeError, "net must be a torch.nn.Module, a function or an onnxruntime session"),
        ({"head": "relu"}, ValueError, "head must be one of softmax, sigmoid, binary, probabilities"),
        ({"input": "cqt"}, ValueError, "input must be one of waveform"),
        ({"input": "waveform"}, ValueError, "sample_rate must be given in Hz for a model of waveforms"),
        ({"sample_rate": 44100}, ValueError, "sample_rate must be that of input, 8000 Hz; got 44100"),
        ({"classes": "dog"}, TypeError, "classes must be a list of names"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        AudioClassifier(**{"net": cnn(), "input": LogMel(**MEL)} | arguments)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"classes": ["dog", "rain"]}, "classes must name the model's 3 outputs; got 2 names"),
        ({"head": "binary"}, "head='binary' is for one column; the model returns 3"),
        ({"head": "probabilities"}, r"head='probabilities' wants outputs in \[0, 1\]"),
        ({"output": 1}, r"output=1 is not in what net returns, a tensor \(1, 3\); leave it out"),
        ({"output": "logits"}, "output='logits' is not in what net returns, a tensor"),
        (
            {"input": "waveform", "sample_rate": RATE},
            r"net takes neither \(B, N\), .*, nor \(B, 1, N\), .*; give input=",
        ),
    ],
)
def test_what_the_first_sound_shows_is_refused_in_one_line(options, words):
    net = Around(cnn(), lambda y: y - 1)  # below 0, so that nothing can be taken for a probability
    classifier = AudioClassifier(net, **{"input": LogMel(**MEL)} | options)
    with pytest.raises(ValueError, match=words) as raised:
        explain(classifier, clip(), RATE)
    assert "\n" not in str(raised.value)


# Virtual inspection


@pytest.mark.parametrize("picture", ["stft", "mel", "cqt"])
@pytest.mark.parametrize("kind", ["waveform (B, 1, N)", "own front end", "softmax logits"])
def test_through_a_picture_the_model_is_itself(kind, picture):
    """Logits through the layer are the model's, and its gradient is proved."""
    classifier = any_models.make(kind)
    bound = classifier.bound(clip()[None], "heard", picture)
    direct = classifier.scores(clip()[None])
    bound.model.eval()
    with torch.no_grad():
        assert float((bound.model(bound.batch.db) - direct).abs().max()) <= 1e-3
    found = gradient_check(bound.model, bound.batch.db, n_directions=3)
    assert found.relative_error < 1e-4


@pytest.mark.parametrize("picture", ["stft", "mel", "cqt"])
def test_what_is_scored_is_what_is_heard(picture):
    classifier = any_models.make("waveform (B, N)")
    found = explain(
        classifier,
        clip(),
        RATE,
        method="saliency",
        inspect_as=picture,
        masks=["topK_30", "minmax"],
        heard=True,
    )
    assert found.domain == "heard"
    for name in found.masks:
        kept, removed = (
            classifier.probabilities(f(name)[None])[0, found.target]
            for f in (found.kept_audio, found.removed_audio)
        )
        row = found.scores.loc[name]
        assert row["p_kept"] == pytest.approx(float(kept), abs=1e-6) and row["p_removed"] == pytest.approx(
            float(removed), abs=1e-6
        )
        assert row["FF"] == row["FF_heard"]


def test_a_binary_mask_of_the_picture_scores_as_its_sound():
    """Through the layer, to three digits."""
    classifier = any_models.make("waveform (B, N)")
    bound = classifier.bound(clip()[None])
    mask = (torch.rand(bound.batch.db.shape, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    bound.model.eval()
    with torch.no_grad():
        p = bound.model(apply_mask(bound.batch.db, mask, -100.0)[0]).softmax(1)
    sound = bound.spectrogram.invert(bound.batch.power * mask, bound.batch.phasor, bound.batch.length)
    torch.testing.assert_close(p, classifier.probabilities(sound), rtol=0, atol=5e-4)


@pytest.mark.parametrize("method", ["saliency", "lime", "rise", "extremal", "shap"])
def test_every_method_has_the_domain_of_what_is_heard(method):
    """A model of spectrograms, explained and scored on the sound that a mask keeps."""
    classifier = any_models.make("softmax logits")
    options = options_of(classifier, method)
    found = explain(classifier, clip(), RATE, method=method, domain="heard", masks=["bin"], **options)
    kept = classifier.probabilities(found.kept_audio("bin")[None])[0, found.target]
    assert found.domain == "heard" and found.scores.loc["bin", "p_kept"] == pytest.approx(
        float(kept), abs=1e-5
    )
    assert found.scores.loc["bin", "p_clip"] == pytest.approx(
        float(classifier.probabilities(clip()[None])[0, found.target])
    )


def test_bands_are_constant_q_and_cover_every_bin():
    bands = inspection("cqt", 16000)
    ratio = bands.frequencies[1:] / bands.frequencies[:-1]
    torch.testing.assert_close(ratio, torch.full_like(ratio, 2 ** (1 / 12)), rtol=1e-4, atol=0)
    torch.testing.assert_close(bands.spread.sum(0), torch.ones(len(bands.filters), dtype=torch.float64))

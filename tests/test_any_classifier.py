"""Every kind of model with every method: it works, proved, or is refused in one line that says what to do."""

from __future__ import annotations

import copy
import functools
import tempfile
from pathlib import Path

import any_models
import numpy as np
import pytest
import torch
from any_models import CLASSES, MEL, RATE, Around, Gated, clip, cnn
from torch import nn

from audioxai_utils import AudioClassifier, LogMel, apply_mask, explain, explain_many
from audioxai_utils.attributions import METHODS
from audioxai_utils.attributions.exact import exact_deep_shap
from audioxai_utils.attributions.feature_maps import axes_by_change
from audioxai_utils.attributions.gradient_check import gradient_check
from audioxai_utils.models.cnn14 import Cnn14
from audioxai_utils.models.virtual_inspection import inspection

QUICK = {"n_samples": 16, "n_masks": 16, "n_steps": 4}
NEEDS_TRAINING = ("lmac", "lmac_ft", "lmac_td", "l2i")  # a decoder; see the end of this file
BLACK_BOXES = ("function", "NumPy", "ONNX")
WAVEFORMS = ("waveform (B, N)", "waveform (B, 1, N)", "own front end")
ONLY_ASK = {"lime", "occlusion", "rise", "slime", "slime_hpss", "coughlime", "audiolime", "segments"}
WITHOUT_RELU = ("functional ReLU", "GELU", "GRU", "attention")
LOOKS_INSIDE = {"gradcam", "guided_gradcam"}
METHOD_NAMES = [name for name in METHODS if name not in NEEDS_TRAINING]


@pytest.fixture(autouse=True)
def same_weights():
    """Networks made in a test have the same weights whatever ran before it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def refusal(kind: str, method: str) -> str | None:
    """Words of the one line that is expected; None where the method must work."""
    if kind in BLACK_BOXES and method not in ONLY_ASK:
        return "do not depend on its input by a gradient; methods that only ask for outputs need none: .*lime"
    if kind == "half precision" and method not in ONLY_ASK:
        return r"gradient in torch.bfloat16 is wrong .* explain the network in float32, by net.float\(\)"
    if kind == "ScriptModule" and method in LOOKS_INSIDE:
        return "looks at the model's layers, which it does not show; methods that only ask: .*lime"
    if kind in WAVEFORMS and method in LOOKS_INSIDE:
        return "Grad-CAM's map lies on the network's own axes, which are not this picture's; say what"
    if kind in WITHOUT_RELU and method == "guided_gradcam":
        return "needs a model whose nonlinearities are nn.ReLU modules; it has none"
    return None


@functools.cache
def classifier_of(kind: str) -> AudioClassifier:
    if kind == "ONNX":
        pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    return any_models.make(kind)


def options_of(classifier: AudioClassifier, method: str) -> dict:
    options = {name: value for name, value in QUICK.items() if name in METHODS.options(method)}
    if "background" in METHODS.required(method):
        options["background"] = classifier.pictures(
            torch.stack([clip(seed=s).flip(0) * (s + 1) / 4 for s in (1, 2, 3)])
        )
    return options


@pytest.mark.parametrize("method", METHOD_NAMES)
@pytest.mark.parametrize("kind", list(any_models.KINDS))
def test_it_works_or_says_what_to_do(kind, method):
    classifier = classifier_of(kind)
    prove = method == "saliency" or kind == "half precision" or refusal(kind, method) is not None
    options = options_of(classifier, method) | {"method": method, "target": 1, "masks": ["bin", "topK_30"]}
    if refusal(kind, method) is not None:
        with pytest.raises((ValueError, TypeError), match=refusal(kind, method)) as raised:
            explain(classifier, clip(), RATE, check_gradient=prove, **options)
        assert "\n" not in str(raised.value)
        return
    found = explain(classifier, clip(), RATE, check_gradient=prove, heard=True, **options)
    assert torch.isfinite(found.attribution).all() and found.attribution.shape == found.batch.db.shape
    assert found.attribution.any() or method == "guided_gradcam"  # its two factors may have no sign in common
    assert found.scores.notna().all(axis=None) and found.scores["p_clip"].between(0, 1).all()
    assert torch.isfinite(found.kept_audio("bin")).all() and len(found.kept_audio("bin")) == len(
        found.waveform
    )
    if METHODS.traits(method).additive and method == "shap":
        assert_additive(classifier, found, options["background"])


def assert_additive(classifier, found, background):
    bound = classifier.bound(found.waveform[None])
    with torch.no_grad():
        bound.model.eval()
        rise = (bound.model(found.batch.db).double() - bound.model(background).double().mean(0))[0, 1]
        size = max(bound.model(background).abs().max(), found.attribution.abs().sum())
    assert float((found.attribution.double().sum() - rise).abs()) <= 1e-5 * float(size)


@pytest.mark.parametrize("kind", list(any_models.KINDS))
def test_scores_are_the_model_s_own_and_it_is_left_as_it_was(kind):
    """Probabilities by hand from the raw network, and every module's flag and buffer afterwards."""
    classifier = any_models.make(kind) if kind != "ONNX" else classifier_of(kind)
    modules = list(classifier.net.modules())
    for module in modules[1::2]:
        module.training = False
    flags = [module.training for module in modules]
    buffers = [buffer.clone() for buffer in classifier.net.buffers()]
    first = explain(classifier, clip(), RATE, method="lime", n_samples=8, masks=["bin"]).probabilities
    again = explain(classifier, clip(), RATE, method="lime", n_samples=8, masks=["bin"]).probabilities
    assert torch.equal(first, again) and flags == [module.training for module in modules]
    assert all(torch.equal(a, b) for a, b in zip(buffers, classifier.net.buffers()))
    torch.testing.assert_close(first, classifier.probabilities(clip()[None])[0])
    if classifier.reading().threshold is None:
        torch.testing.assert_close(first.sum(), torch.ones_like(first[0]), atol=1e-2, rtol=0)


# The silent faults, one by one


def test_one_logit_is_asked_about_and_then_explained():
    net = cnn(1)
    with pytest.raises(ValueError, match="returns one column: say what they are with head='binary'"):
        explain(AudioClassifier(net, input=LogMel(**MEL)), clip(), RATE, method="saliency")
    classifier = AudioClassifier(net, ["siren"], input=LogMel(**MEL), head="binary")
    found = explain(classifier, clip(), RATE, method="saliency", target="siren")
    db = found.batch.db.clone().requires_grad_()
    logit = net.eval()(db)
    expected = torch.autograd.grad(logit.sum(), db)[0]
    torch.testing.assert_close(found.attribution, expected)
    torch.testing.assert_close(found.probabilities, torch.cat([-logit[0], logit[0]]).sigmoid().detach())
    other = explain(classifier, clip(), RATE, method="saliency", target="not siren")
    torch.testing.assert_close(other.attribution, -expected)


def test_scores_in_the_unit_interval_get_no_second_softmax():
    """ "Dog" .60 next to "Speech" .88 stays .60."""
    p = torch.full((1, 527), 1e-4)
    p[0, 0], p[0, 1] = 0.88, 0.60
    net = Around(nn.Identity(), lambda db: p.expand(len(db), -1) + 0 * db.mean((2, 3)))
    with pytest.raises(ValueError, match=r"returns outputs in \[0, 1\]: say what they are with head="):
        explain(AudioClassifier(net, input=LogMel(**MEL)), clip(), RATE, method="lime", n_samples=4)
    names = ["Speech", "Dog", *map(str, range(525))]
    classifier = AudioClassifier(net, names, input=LogMel(**MEL), head="probabilities")
    found = explain(classifier, clip(), RATE, target="Dog", method="lime", n_samples=4, masks=["bin"])
    assert found.scores.loc["bin", "p_clip"] == pytest.approx(0.60)
    assert found.scores.loc["bin", "AI"] == 0 and found.scores.loc["bin", "FidIn"] == 1  # .60 is above .5


def test_a_declared_softmax_of_probabilities_is_refused_and_a_sigmoid_of_scores_is_told():
    net = Around(cnn(), lambda y: y.softmax(1))
    with pytest.raises(ValueError, match="these are probabilities already; give head='probabilities'"):
        AudioClassifier(net, input=LogMel(**MEL), head="softmax").scores(clip()[None])
    with pytest.warns(UserWarning, match="head='probabilities' for scores"):
        AudioClassifier(net, input=LogMel(**MEL), head="sigmoid").scores(clip()[None])


@pytest.mark.parametrize(
    "kind, words",
    [
        ("tuple", "got a tuple of 2, so output=0 and on: say where with output="),
        ("dict", "got a dict with the keys 'clipwise', 'other': say where with output="),
        (".logits", "got a Reply, which has .logits: say where with output="),
    ],
)
def test_outputs_that_are_no_tensor_are_asked_about(kind, words):
    classifier = AudioClassifier(any_models.make(kind).net, CLASSES, input=LogMel(**MEL))
    with pytest.raises(ValueError, match=words):
        explain(classifier, clip(), RATE)


@pytest.mark.parametrize("around", [nn.DataParallel, Around, lambda net: Around(nn.Sequential(net))])
def test_a_wrapper_does_not_turn_grad_cam(around):
    """Cnn14's maps are (time, frequency); what is put around it does not change that."""
    net = any_models.make("wrapper").net.net
    plain = AudioClassifier(net, CLASSES, input=LogMel(**MEL))
    wrapped = AudioClassifier(around(net), CLASSES, input=LogMel(**MEL))
    maps = [explain(each, clip(2.0), RATE, check_gradient=False).attribution for each in (plain, wrapped)]
    torch.testing.assert_close(*maps, rtol=0, atol=0)
    assert METHODS["gradcam"](Around(net), plain.pictures(clip(2.0)[None]), torch.tensor([1])).any()


def test_grad_cam_looks_at_the_last_called_map_and_not_at_gates_or_unused_heads():
    net = Gated()
    assert list(net.modules())[-1] is net.unused
    classifier = AudioClassifier(net, CLASSES, input=LogMel(**MEL))
    found, named = (explain(classifier, clip(), RATE, layer=layer).attribution for layer in (None, "second"))
    assert torch.equal(found, named) and found.std() > 0


@pytest.mark.parametrize("axes", ["(B, 1, F, T)", "(B, 1, T, F)", "(B, F, T)", "(B, T, F)"])
def test_grad_cam_s_axes_are_found_by_what_changes_of_the_input_do(axes):
    """A net that squares its input shows the one loud bin where it is."""

    class Spotter(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 1, bias=False)
            nn.init.ones_(self.conv.weight)

        def forward(self, x):
            total = (self.conv(x if x.ndim == 4 else x.unsqueeze(1)) / 100 + 1).square().sum((1, 2, 3))
            return torch.stack([total, -total], 1)

    classifier = AudioClassifier(Spotter(), input=LogMel(axes=axes, **MEL))
    db = torch.full((1, 1, 32, 50), -100.0)
    db[0, 0, 5, 40] = 0.0
    classifier.look(clip()[None])
    found = METHODS["gradcam"](classifier.model, db, torch.tensor([0]))
    assert divmod(int(found.argmax()), 50) == (5, 40)


def test_a_network_that_mixes_the_rows_of_a_batch_is_refused_and_its_wrapper_is_not():
    """As AmplitudeToDB(top_db=80) does on (batch, F, T): the floor hangs on the loudest clip of the batch."""

    class Mixing(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(32, 3)

        def forward(self, db):
            db = torch.maximum(db, db.amax() - 30)
            return self.head(db.mean((1, 3)) / 30)

    net = Mixing()
    rows = [net, lambda x: torch.cat([net(row[None]) for row in x])]
    mixed, apart = (AudioClassifier(f, CLASSES, input=LogMel(**MEL), head="softmax") for f in rows)
    with pytest.raises(ValueError, match="changes with the others in its batch"):
        explain(mixed, clip(), RATE, method="occlusion")
    assert explain(apart, clip().float(), RATE, method="occlusion", masks=["bin"]).attribution.any()
    with pytest.raises(ValueError, match="amax mixes rows"):
        exact_deep_shap(net, torch.randn(1, 1, 32, 9), torch.randn(2, 1, 32, 9), torch.tensor([0]))


def test_an_overflow_of_the_louder_row_is_no_mixing_of_rows():
    """20 dB more are infinite to this network, and 0 times that is NaN in the other row."""
    first = []

    def net(db):
        levels = db.mean((1, 3))[:, :3]
        first.append(levels[0])
        loud = (40 * (levels - first[0])).exp()
        return torch.eye(len(loud)).to(loud) @ loud

    classifier = AudioClassifier(net, CLASSES, input=LogMel(**MEL), head="softmax")
    classifier.look(clip()[None])
    mixed = net(torch.stack([torch.zeros(1, 32, 9), torch.full((1, 32, 9), 200.0)]))
    assert len(classifier.classes) == 3 and mixed[0].isnan().all()


def test_grad_cam_of_a_network_without_any_map_is_refused_in_words():
    class Sequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(32, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, frames):
            return self.head(self.lstm(frames)[0].mean(1))

    classifier = AudioClassifier(Sequence(), CLASSES, input=LogMel(axes="(B, T, F)", **MEL), head="softmax")
    with pytest.raises(ValueError, match="no convolution with a map larger than 1 x 1 .* name a layer with"):
        explain(classifier, clip(), RATE, method="gradcam")
    named = explain(classifier, clip(), RATE, method="gradcam", layer="lstm", masks=["bin"])
    assert named.attribution.any() and torch.equal(named.attribution[..., 0, :], named.attribution[..., 9, :])


@pytest.mark.parametrize("turned", [False, True])
def test_grad_cam_s_axes_of_cells_that_hear_the_whole_clip(turned):
    """As in a ResNet on a short clip: no half of the clip leans anywhere, but a longer one has more cells."""
    wide = nn.Conv2d(1, 4, (65, 65), 16, 32, bias=False)
    nn.init.ones_(wide.weight)

    def activation(db):
        return wide(db.transpose(2, 3) if turned else db) ** 2

    found = axes_by_change(activation, torch.zeros(1, 1, 64, 64))
    assert found == (("time", "frequency") if turned else ("frequency", "time"))


def test_grad_cam_s_axes_that_cannot_be_told_are_asked_about():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

        def forward(self, db):
            mixed = db.mean((2, 3), keepdim=True).expand(-1, -1, 16, 16)  # neither changes nor length tell
            return self.head(self.conv(mixed / 50).square().mean((2, 3)))

    classifier = AudioClassifier(Mixed(), input=LogMel(**MEL), head="softmax")
    with pytest.raises(ValueError, match=r'cannot be told .* give feature_axes=\("frequency", "time"\)'):
        explain(classifier, clip(), RATE)
    assert explain(classifier, clip(), RATE, feature_axes=("frequency", "time")).attribution.any()


def test_tokens_are_put_back_on_the_grid_of_patches():
    """By hand: the first layer norm's patch tokens, weighted by their mean gradient, on 4 x 6 patches."""
    classifier = any_models.make("attention")
    net = classifier.net.eval()
    found = explain(classifier, clip(), RATE, target=2)
    held = []
    handle = net.norm1.register_forward_hook(lambda module, inputs, output: held.append(output))
    logit = net(found.batch.db)[0, 2]
    handle.remove()
    (gradient,) = torch.autograd.grad(logit, held[0])
    weights = gradient[0, 1:].mean(0)
    cam = torch.stack([(weights * token).sum() for token in held[0][0, 1:].detach()]).view(1, 1, 4, 6)
    expected = nn.functional.interpolate(cam, found.batch.db.shape[2:], mode="bilinear", align_corners=False)
    torch.testing.assert_close(found.attribution, expected)


def test_batch_norm_statistics_do_not_drift_and_frozen_modules_stay_frozen():
    net = cnn().train()
    net[2].eval()
    classifier = AudioClassifier(net, CLASSES, input=LogMel(**MEL))
    before = copy.deepcopy(net.state_dict())
    for method in ("saliency", "gradcam", "lime"):
        explain(classifier, clip(), RATE, method=method, **options_of(classifier, method))
    assert net.training and not net[2].training and net[1].training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    broken = AudioClassifier(Around(net, lambda y: y / 0), CLASSES, input=LogMel(**MEL), head="softmax")
    with pytest.raises(ValueError, match="NaN or infinite"):
        explain(broken, clip(), RATE)
    assert net.training and not net[2].training


@pytest.mark.parametrize("around", [lambda net: net, nn.DataParallel])
def test_a_foreign_model_gets_no_spectrogram_that_it_did_not_name(around):
    with pytest.raises(ValueError, match="spectrogram must be named for a"):
        explain(around(cnn()), clip(), RATE)
    own = Cnn14(257, 3, 1 / 32)
    found = explain(around(own), clip(), RATE, method="saliency", check_gradient=False, masks=["bin"])
    assert found.spectrogram.name == "stft_db" and found.sample_rate == 16000


def test_masked_parts_go_to_the_model_s_own_silence():
    """A front end that adds 1e-5 has its silence at -50 dB: an empty mask is what it makes of zeros."""
    description = LogMel(log="ln", offset=1e-5, clamped=False, **MEL)
    classifier = AudioClassifier(cnn(), CLASSES, input=description, head="softmax")
    assert classifier.floor == pytest.approx(-50)
    found = explain(classifier, clip(), RATE, method="saliency", masks=["topK_30"])
    mask = found.masks["topK_30"]
    with torch.no_grad():
        classifier.net.eval()
        kept, removed = (found_p(classifier, part) for part in apply_mask(found.batch.db, mask, -50.0))
        silent = description.spectrogram().double().decibels(0 * clip()[None])
    assert found.scores.loc["topK_30", "p_kept"] == pytest.approx(float(kept[found.target]), abs=1e-5)
    assert found.scores.loc["topK_30", "p_removed"] == pytest.approx(float(removed[found.target]), abs=1e-5)
    assert float(silent.max()) == float(silent.min()) == pytest.approx(-50)
    louder = explain(classifier, clip(), RATE, method="saliency", masks=["topK_30"], fill=-30.0)
    kept = found_p(classifier, apply_mask(found.batch.db, mask, -30.0)[0])
    assert louder.scores.loc["topK_30", "p_kept"] == pytest.approx(float(kept[found.target]), abs=1e-5)


def found_p(classifier, db):
    with torch.no_grad():
        return classifier.model(db).softmax(1)[0]


def test_levels_that_are_not_decibels_of_the_power_are_refused():
    class Natural:
        """The study's mel spectrogram in natural logarithms."""

        sample_rate = 16000

        def __init__(self, change):
            from audioxai_utils.audio.spectrograms import get_spectrogram

            self.inner, self.change = get_spectrogram("stft_db"), change

        def __call__(self, waveform):
            batch = self.inner(waveform)
            return type(batch)(self.change(batch.db), batch.power, batch.phase, batch.length)

        def invert(self, power, phase, length):
            return self.inner.invert(power, phase, length)

    sound, net = clip(2.0), Cnn14(257, 3, 1 / 32)
    for change in (lambda db: db * 0.23, lambda db: torch.maximum(db, db.max() - 60)):
        with pytest.raises(
            ValueError, match=r"db must be 10 log10\(power\) down to its floor of .* give floor="
        ):
            explain(
                AudioClassifier(net, input=Natural(change), head="softmax"),
                sound,
                16000,
                check_gradient=False,
            )
    higher = AudioClassifier(net, input=Natural(lambda db: db.clamp_min(-80)), head="softmax")
    assert higher.floor == pytest.approx(-80)  # what it makes of silence
    found = explain(higher, sound, 16000, method="saliency", check_gradient=False, masks=["bin"])
    higher.net.eval()
    kept = found_p(higher, apply_mask(found.batch.db, found.masks["bin"], -80.0)[0])
    assert found.scores.loc["bin", "p_kept"] == pytest.approx(float(kept[found.target]), abs=1e-6)


def test_what_is_optimised_as_heard_is_the_sound_of_the_batch_s_own_power():
    """Where silence is -50 dB because 1e-5 is added, the power is not 10 ** (db / 10)."""
    from audioxai_utils.attributions.heard import Sounds

    spectrogram = LogMel(log="ln", offset=1e-5, clamped=False, **MEL).spectrogram()
    batch = spectrogram(clip()[None])
    sounds = Sounds.of(clip()[None], spectrogram, batch.db)
    mask = torch.rand(batch.db.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = spectrogram.decibels(spectrogram.invert(batch.power * mask, batch.phasor, batch.length))
    torch.testing.assert_close(sounds.masked(batch.db, mask), expected, rtol=0, atol=1e-6)
    louder = spectrogram.invert(batch.power * mask * 10**0.3, batch.phasor, batch.length)
    torch.testing.assert_close(
        sounds.masked(batch.db + 3, mask), spectrogram.decibels(louder), rtol=0, atol=1e-6
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="cuDNN's recurrences are on CUDA")
def test_a_recurrence_on_cuda_has_gradients_in_evaluation_mode():
    net = any_models.make("GRU").net.cuda().train()
    classifier = AudioClassifier(net, CLASSES, input=LogMel(**MEL), head="softmax")
    found = explain(classifier, clip(), RATE, method="saliency")
    assert found.attribution.any() and net.training and net.gru.training


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


# Tables, files, black boxes


def test_a_table_over_clips_and_methods(tmp_path):
    import soundfile

    path = tmp_path / "street.wav"
    soundfile.write(path, np.stack([clip().numpy(), clip().numpy()], 1), RATE)
    classifier = any_models.make("NumPy")
    table = explain_many(
        classifier,
        {"file": path, "array": clip()},
        ["lime", "saliency"],
        masks=["bin", "topK_30"],
        method_options={"lime": {"n_samples": 8}},
    )
    assert len(table) == 2 * (2 + 1) and list(table.columns[:4]) == ["clip", "method", "target_name", "mask"]
    refused = table[table["method"] == "saliency"]
    assert refused["refused"].str.contains("methods that only ask").all() and refused["FF"].isna().all()
    lime = table[table["method"] == "lime"].set_index(["clip", "mask"])
    assert lime["seconds"].gt(0).all() and lime["refused"].eq("").all()
    assert lime.loc[("file", "bin"), "p_clip"] == pytest.approx(
        lime.loc[("array", "bin"), "p_clip"], abs=1e-3
    )


@pytest.mark.parametrize(
    "name, write, error, words",
    [
        ("gone.wav", None, FileNotFoundError, "no such file"),
        ("text.wav", b"no sound", ValueError, "not a readable audio file"),
    ],
)
def test_files_that_cannot_be_read_end_in_one_line(tmp_path, name, write, error, words):
    if write:
        (tmp_path / name).write_bytes(write)
    with pytest.raises(error, match=words) as raised:
        explain(any_models.make("softmax logits"), tmp_path / name)
    assert "\n" not in str(raised.value)


def test_sounds_that_ask_for_too_much_are_refused():
    classifier = any_models.make("softmax logits")
    with pytest.raises(ValueError, match="cannot resample its 44101 Hz to 8000 Hz"):
        explain(classifier, clip(), 44101)
    with pytest.raises(ValueError, match="waveform must last 120 s at most; got 121.0 s"):
        explain(classifier, np.zeros(121 * RATE), RATE)


def test_a_model_that_cannot_be_copied_is_asked_and_its_gradient_not_taken_for_proved():
    import threading

    class Locked(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.lock = cnn(), threading.Lock()

        def forward(self, db):
            with self.lock:
                return self.net(db)

    classifier = AudioClassifier(Locked(), CLASSES, input=LogMel(**MEL), head="softmax")
    assert explain(classifier, clip(), RATE, method="lime", n_samples=8).attribution.any()
    with pytest.raises(ValueError, match="cannot be copied in float64 .* pass check_gradient=False"):
        explain(classifier, clip(), RATE, method="saliency")
    assert explain(classifier, clip(), RATE, method="saliency", check_gradient=False).attribution.any()


@pytest.mark.parametrize(
    "what", ["open file", "generator", "socket", "refuses"], ids=lambda what: what.replace(" ", "_")
)
def test_whatever_a_model_holds_it_can_be_asked(what):
    import socket

    class Refuses:
        def __deepcopy__(self, memo):
            raise RuntimeError("no\ncopy of this")

    makes = {
        "open file": tempfile.TemporaryFile,
        "generator": lambda: iter(clip()),
        "socket": socket.socket,
    }

    class Holding(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.held = cnn(), makes.get(what, Refuses)()

        def forward(self, db):
            return self.net(db)

    model = Holding()
    classifier = AudioClassifier(model, CLASSES, input=LogMel(**MEL), head="softmax")
    assert explain(classifier, clip(), RATE, method="lime", n_samples=8).attribution.any()
    if what != "generator":  # an iterator of an array can be copied
        with pytest.raises(
            ValueError, match="cannot be copied in float64 .* pass check_gradient=False"
        ) as told:
            explain(classifier, clip(), RATE, method="saliency")
        assert "\n" not in str(told.value)
    getattr(model.held, "close", str)()


def saved(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        torch.jit.save(module, file.name)
        return torch.jit.load(file.name)


FROZEN = r"copied in float64 \(frozen ScriptModule\); pass check_gradient=False, or a method that needs no gradient"
NO_GRADIENT = "do not depend on its input by a gradient; methods that only ask.*: .*lime"
SCRIPTED = {  # how it is made, and why it has no proved gradient
    "frozen": (lambda net, db: torch.jit.freeze(torch.jit.script(net)), FROZEN),
    "frozen, in training": (lambda net, db: torch.jit.freeze(torch.jit.script(net)).train(), FROZEN),
    "frozen, saved": (lambda net, db: saved(torch.jit.freeze(torch.jit.script(net))), FROZEN),
    "frozen trace": (lambda net, db: torch.jit.freeze(torch.jit.trace(net, db)), FROZEN),
    "frozen, in a module": (lambda net, db: Around(torch.jit.freeze(torch.jit.script(net))), FROZEN),
    "optimised": (lambda net, db: torch.jit.optimize_for_inference(torch.jit.script(net)), NO_GRADIENT),
    "optimised, in a module": (
        lambda net, db: Around(torch.jit.optimize_for_inference(torch.jit.script(net))),
        NO_GRADIENT,
    ),
    "traced": (lambda net, db: torch.jit.trace(net, db), None),
}


def pooled() -> nn.Sequential:
    """A network whose every layer can be optimised for inference."""
    first, last = list(cnn())[:7], nn.Linear(8, 3)
    return nn.Sequential(*first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), last).eval()


@pytest.mark.parametrize("kind", SCRIPTED)
def test_scripted_modules_of_every_kind(kind):
    """All methods that only ask work and find what they find of the module itself; others say what to do."""
    make, words = SCRIPTED[kind]
    net, db = pooled(), LogMel(**MEL).spectrogram().decibels(clip()[None].float())
    with torch.no_grad():
        both = [
            AudioClassifier(each, CLASSES, input=LogMel(**MEL), head="softmax")
            for each in (net, make(net, db))
        ]
    for method in sorted(ONLY_ASK):
        plain, scripted = (
            explain(each, clip(), RATE, method=method, target=1, **options_of(each, method)).attribution
            for each in both
        )
        torch.testing.assert_close(scripted, plain, rtol=1e-3, atol=1e-3 * float(plain.abs().max()))
    with pytest.raises(ValueError, match="looks at the model's layers, which it does not show") as raised:
        explain(both[1], clip(), RATE, method="gradcam")
    assert "\n" not in str(raised.value)
    if words is None:
        assert explain(both[1], clip(), RATE, method="saliency").attribution.any()
        return
    with pytest.raises(ValueError, match=words) as raised:
        explain(both[1], clip(), RATE, method="saliency")
    assert "\n" not in str(raised.value)
    if words == NO_GRADIENT:
        with pytest.raises(ValueError, match=words):
            explain(both[1], clip(), RATE, method="saliency", check_gradient=False)
    else:
        found = explain(both[1], clip(), RATE, method="saliency", check_gradient=False, target=1)
        expected = explain(both[0], clip(), RATE, method="saliency", target=1)
        torch.testing.assert_close(found.attribution, expected.attribution, rtol=1e-3, atol=1e-7)


class OneClip(nn.Module):
    """Its trace holds the number of clips of its example."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 3)

    def forward(self, db):
        return self.head(self.conv(db).mean((2, 3)).view(int(db.shape[0]), 4))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(
    "make, words",
    [
        (
            lambda db: torch.jit.optimize_for_inference(torch.jit.script(cnn().eval())),
            r"does not take \(1, 1, 32, 51\) in torch.float32: .* give the module that it was made of",
        ),
        (
            lambda db: torch.jit.freeze(torch.jit.script(pooled().double())),
            r"does not take \(1, 1, 32, 51\) in torch.float32: .* give the module that it was made of",
        ),
        (
            lambda db: torch.jit.trace(OneClip(), db),
            r"does not take \(2, 1, 32, 51\) in torch.float32: .* give the module that it was made of",
        ),
        (
            lambda db: torch.jit.trace(cnn().train(), torch.cat([db, 2 * db]), check_trace=False),
            r"change with the others of its batch.*call .eval\(\) on the module before",
        ),
        (
            lambda db: torch.jit.trace(nn.Sequential(nn.Dropout(0.5), pooled()), db, check_trace=False),
            r"or by chance: it was made in training mode; call .eval\(\) on the module before",
        ),
    ],
    ids=["optimised pool", "frozen float64", "fixed batch", "traced in training", "traced dropout"],
)
def test_scripted_modules_that_cannot_answer_say_so_in_one_line(make, words):
    db = LogMel(**MEL).spectrogram().decibels(clip()[None].float())
    classifier = AudioClassifier(make(db), CLASSES, input=LogMel(**MEL), head="softmax")
    for method in ("lime", "saliency", "gradcam"):
        with pytest.raises(ValueError, match=words) as raised:
            explain(classifier, clip(), RATE, method=method)
        assert "\n" not in str(raised.value)


def test_modules_that_do_more_than_set_a_flag_in_train_are_not_asked_to():
    """A net that merges weights when it is put into evaluation mode, and an exported program, which refuses
    to be.
    """

    class Merging(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.merged = cnn(), 0

        def train(self, mode=True):
            self.merged += not mode
            return super().train(mode)

        def forward(self, db):
            return self.net(db)

    merging = Merging()
    explain(
        AudioClassifier(merging, CLASSES, input=LogMel(**MEL), head="softmax"),
        clip(),
        RATE,
        method="saliency",
    )
    assert merging.merged == 0 and merging.training
    db = LogMel(**MEL).spectrogram().decibels(clip()[None].float())
    shapes = {0: torch.export.Dim("batch", min=1, max=256)}
    exported = torch.export.export(cnn().eval(), (torch.cat([db, db]),), dynamic_shapes=(shapes,)).module()
    classifier = AudioClassifier(exported, CLASSES, input=LogMel(**MEL), head="softmax")
    assert explain(classifier, clip(), RATE, method="lime", n_samples=8).attribution.any()


def test_the_package_shows_its_names_and_stays_light():
    import subprocess
    import sys

    import audioxai_utils

    assert {"explain", "AudioClassifier", "LogMel", "METHODS", "build_masks", "best_masks"} <= set(
        dir(audioxai_utils)
    )
    code = "import sys, audioxai_utils as a; dir(a); print({'torch', 'numpy', 'pandas'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
    )


# Decoders, presets and published weights


@pytest.mark.parametrize("axes", ["(B, 1, F, T)", "(B, 1, T, F)"])
def test_a_decoder_reads_a_network_inside_its_adapter(axes, tmp_path):
    from audioxai_utils.attributions import decoder_training

    classifier = AudioClassifier(cnn(), CLASSES, input=LogMel(axes=axes, **MEL), head="softmax")
    pictures = classifier.pictures(torch.stack([clip(seed=s) for s in range(4)]))
    classifier.look(clip()[None])
    fitted = decoder_training.train_decoder(classifier.model, pictures, decoder_training.Recipe(epochs=1))
    assert fitted.layers[0].startswith("net.")
    decoder_training.save_decoder(fitted, tmp_path / "decoder.pt")
    found = explain(classifier, clip(), RATE, method="lmac", decoder=tmp_path / "decoder.pt", masks=["bin"])
    assert found.attribution.any()


def test_a_decoder_of_a_black_box_is_refused(tmp_path):
    with pytest.raises(ValueError, match="lmac looks at the model's layers, which it does not show"):
        explain(any_models.make("NumPy"), clip(), RATE, method="lmac", decoder=tmp_path / "none.pt")


class PatchTransformer(nn.Module):
    """AST in small: (B, 1024, 128) in patches of 16 x 16 with a step of 10, two special tokens."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 16, 16, stride=10)
        self.special = nn.Parameter(torch.randn(1, 2, 16))
        self.position = nn.Parameter(torch.randn(1, 2 + 12 * 101, 16) / 4)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 3)

    def forward(self, features):
        x = self.patches(features.unsqueeze(1).transpose(2, 3)).flatten(2).transpose(1, 2)
        x = torch.cat([self.special.expand(len(x), -1, -1), x], 1) + self.position
        return any_models.Reply(self.head(self.norm(self.layer(x))[:, :2].mean(1)))


class Wav2Vec(nn.Module):
    """wav2vec2 in small: strided convolutions of (B, N), a transformer layer, a mean over time."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(1, 16, 10, stride=5), nn.Conv1d(16, 16, 8, stride=64)
        self.layer, self.head = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), nn.Linear(16, 3)

    def forward(self, waveform):
        x = nn.functional.gelu(self.conv2(nn.functional.gelu(self.conv1(waveform.unsqueeze(1)))))
        return any_models.Reply(self.head(self.layer(x.transpose(1, 2)).mean(1)))


def preset(name: str) -> AudioClassifier:
    return {
        "panns": lambda: AudioClassifier(Transposing(), CLASSES, input="panns", head="softmax"),
        "efficientat": lambda: AudioClassifier(efficientat(), CLASSES, input="efficientat", head="sigmoid"),
        "ast": lambda: AudioClassifier(
            PatchTransformer(), CLASSES, input="ast", output=".logits", head="softmax"
        ),
        "wav2vec2": lambda: AudioClassifier(Wav2Vec(), CLASSES, 16000, "wav2vec2", ".logits", head="softmax"),
    }[name]()


def efficientat() -> nn.Module:
    """A narrow net with the statistics of its own activations, without which untrained layers fade out."""
    from audioxai_utils.models.efficientat import EfficientAT

    net = EfficientAT(3, 0.1)
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the mean over all that was seen
    net.train()(torch.randn(8, 1, 128, 100))
    return net


class Transposing(nn.Module):
    """PANNs' order of axes, (B, 1, T, F), before our Cnn14."""

    def __init__(self):
        super().__init__()
        self.net = Cnn14(64, 3, 1 / 32)

    def forward(self, x):
        return self.net(x.transpose(2, 3))


@pytest.mark.parametrize("method", ["saliency", "gradcam", "lime", "occlusion", "shap"])
@pytest.mark.parametrize("name", ["panns", "efficientat", "ast", "wav2vec2"])
def test_presets_explain_networks_of_their_shapes(name, method):
    classifier = preset(name)
    sound, options = clip(2.0), options_of(classifier, method)
    if "background" in options:
        options["background"] = classifier.pictures(torch.stack([noisy(classifier, s) for s in (1, 2)]))
    if name == "wav2vec2" and method == "gradcam":
        with pytest.raises(ValueError, match="feature_axes="):
            explain(classifier, sound, RATE, method=method)
        options["feature_axes"] = ("time",)
    found = explain(classifier, sound, RATE, method=method, target=1, masks=["bin"], **options)
    assert found.attribution.any() and found.scores.notna().all(axis=None)


def noisy(classifier: AudioClassifier, seed: int) -> torch.Tensor:
    n = 2 * classifier.sample_rate
    return 0.1 * torch.randn(n, generator=torch.Generator().manual_seed(seed))


SHARED = Path(__file__).resolve().parents[2] / "shared" / "models" / "efficientat_mn04"


@pytest.mark.skipif(
    not (SHARED / "mn04_as_mAP_432.pt").is_file(), reason="the published weights are not here"
)
def test_a_published_tagger_as_a_spectrogram_model_and_as_a_waveform_model():
    """The same probabilities both ways, a proved gradient, and a mask that scores as its sound does."""
    from audioxai_utils.models.efficientat import load_efficientat, read_audioset_labels
    from audioxai_utils.models.efficientat_frontend import EfficientATMel

    net = load_efficientat(SHARED / "mn04_as_mAP_432.pt")
    labels = read_audioset_labels(SHARED / "class_labels_indices.csv")
    t = torch.arange(2 * 32000) / 32000
    beep = 0.3 * torch.sin(2 * torch.pi * 1000 * t) * (t % 0.5 < 0.25) + 0.003 * noisy_like(t)
    mel = AudioClassifier(net, labels, 32000, input=LogMel.efficientat(), head="sigmoid")
    wave = AudioClassifier(nn.Sequential(EfficientATMel(), net), labels, 32000, head="sigmoid")
    torch.testing.assert_close(
        mel.probabilities(beep[None]), wave.probabilities(beep[None]), rtol=0, atol=1e-4
    )
    found = explain(mel, beep, 32000, method="gradcam", masks=["topK_50"])
    assert found.target_name == "Dial tone" and mel.floor == pytest.approx(-50)
    heard = explain(wave, beep, 32000, method="saliency", target=found.target_name, masks=["topK_30"])
    bound = wave.bound(beep[None])
    with torch.no_grad():
        logits = bound.model(bound.batch.db)
        kept = bound.model(apply_mask(bound.batch.db, heard.masks["topK_30"], -100.0)[0]).sigmoid()[
            0, heard.target
        ]
    assert float((logits - wave.scores(beep[None])).abs().max()) <= 1e-3
    assert heard.scores.loc["topK_30", "p_kept"] == pytest.approx(float(kept), abs=5e-4)


def noisy_like(t: torch.Tensor) -> torch.Tensor:
    return torch.randn(t.shape, generator=torch.Generator().manual_seed(0))

"""Every kind of model with every method: it works, proved, or is refused in one line that says what to do."""

from __future__ import annotations

import functools

import any_models
import pytest
import torch
from any_models import ONLY_ASK, RATE, clip, options_of

from audioxai_utils import AudioClassifier, explain
from audioxai_utils.attributions import METHODS

pytestmark = pytest.mark.usefixtures("same_weights")
NEEDS_TRAINING = ("lmac", "lmac_ft", "lmac_td", "l2i")  # a decoder; see test_any_classifier_presets.py
BLACK_BOXES = ("function", "NumPy", "ONNX")
WAVEFORMS = ("waveform (B, N)", "waveform (B, 1, N)", "own front end")
WITHOUT_RELU = ("functional ReLU", "GELU", "GRU", "attention")
LOOKS_INSIDE = {"gradcam", "guided_gradcam"}
METHOD_NAMES = [name for name in METHODS if name not in NEEDS_TRAINING]


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

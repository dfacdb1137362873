"""One clip explained in one call."""

import numpy as np
import pytest
import torch

from audioxai_utils import explain
from audioxai_utils.checks import GradientCheckError
from audioxai_utils.config import MASK_NAMES
from audioxai_utils.models import Cnn14


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Cnn14(64, 4, 1 / 32).double().eval()


@pytest.fixture(scope="module")
def sound():
    time = np.arange(16000) / 32000
    return np.sin(2 * np.pi * 900 * time) + 0.1 * np.random.default_rng(0).standard_normal(16000)


@pytest.mark.parametrize("method, options", [("saliency", {}), ("gradcam", {}), ("lime", {"n_samples": 20})])
def test_everything_of_one_clip(model, sound, method, options):
    explanation = explain(model, sound, method=method, heard=True, **options)
    assert explanation.attribution.shape == explanation.batch.db.shape == (1, 1, 64, 51)
    assert tuple(explanation.masks) == MASK_NAMES == tuple(explanation.scores.index)
    assert explanation.target == int(explanation.probabilities.argmax())
    assert {"FF", "AI", "AG", "FidIn", "AD", "SPS", "COMP", "FF_heard"} <= set(explanation.scores.columns)
    kept, removed = explanation.kept_audio("bin"), explanation.removed_audio("bin")
    assert kept.shape == removed.shape == (16000,) and torch.isfinite(kept).all()


def test_shap_with_a_background(model, sound):
    background = explain(model, sound, method="saliency", check_gradient=False).batch.db + torch.randn(
        3, 1, 64, 51, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    explanation = explain(model, sound, method="shap", background=background)
    with torch.no_grad():
        logits, base = model(explanation.batch.db)[0], model(background).mean(0)
    expected = (logits - base)[explanation.target]
    torch.testing.assert_close(explanation.attribution.sum(), expected, rtol=1e-6, atol=1e-8)


def test_another_rate_and_channels_are_brought_to_the_spectrograms(model, sound):
    stereo = torch.from_numpy(np.stack([sound, sound]))
    assert explain(model, stereo, 16000).waveform.shape == (32000,)
    torch.testing.assert_close(explain(model, stereo, 32000).waveform, torch.from_numpy(sound))


def test_a_chosen_class_is_attributed(model, sound):
    chosen = explain(model, sound, method="saliency", target=2)
    assert chosen.target == 2
    x = chosen.batch.db.clone().requires_grad_()
    expected = torch.autograd.grad(model(x)[0, 2], x)[0]
    torch.testing.assert_close(chosen.attribution, expected)


def test_only_the_masks_asked_for(model, sound):
    assert list(explain(model, sound, masks=["bin", "topK_5"]).masks) == ["bin", "topK_5"]


@pytest.mark.parametrize("changes, words", [
    ({"method": "gradient"}, "method must be one of"), ({"masks": ["all"]}, "masks must be among"),
    ({"spectrogram": "cqt"}, "spectrogram_type must be one of"), ({"protocol": "new"}, "protocol must be one of"),
])
def test_unknown_names_end_in_one_line(model, sound, changes, words):
    with pytest.raises(ValueError, match=words) as error:
        explain(model, sound, **changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("bad, error", [
    (np.zeros(100, dtype=np.int16), TypeError), (np.full(9000, np.nan), ValueError), (np.zeros((2, 2, 2)), ValueError),
])
def test_bad_waveforms_are_refused(model, bad, error):
    with pytest.raises(error, match="waveform"):
        explain(model, bad)


def test_a_model_with_a_wrong_gradient_is_refused(sound):
    """A step in the forward pass that autograd does not see."""

    class Wrong(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(64, 3).double()

        def forward(self, db):
            x = db.mean(3).squeeze(1) / 30
            return self.linear(x + (x.detach() ** 2))

    with pytest.raises(GradientCheckError) as error:
        explain(Wrong(), sound, method="saliency")
    assert "\n" not in str(error.value)

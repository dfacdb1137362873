"""One clip explained in one call."""

import numpy as np
import pytest
import torch
from torch import nn

from audioxai_utils import AudioClassifier, explain
from audioxai_utils.attributions import METHODS
from audioxai_utils.attributions.gradient_check import GradientCheckError
from audioxai_utils.audio.spectrograms import get_spectrogram
from audioxai_utils.constants import MASK_NAMES
from audioxai_utils.models.cnn14 import Cnn14


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


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"method": "gradient"}, "method must be one of"),
        ({"masks": ["all"]}, "masks must be among"),
        ({"spectrogram": "cqt"}, "spectrogram must be one of"),
        ({"protocol": "new"}, "protocol must be one of"),
    ],
)
def test_unknown_names_end_in_one_line(model, sound, changes, words):
    with pytest.raises(ValueError, match=words) as error:
        explain(model, sound, **changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "bad, error",
    [
        (np.zeros(100, dtype=np.int16), TypeError),
        (np.full(9000, np.nan), ValueError),
        (np.zeros((2, 2, 2)), ValueError),
    ],
)
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
        explain(Wrong(), sound, method="saliency", spectrogram="mel_db")
    assert "\n" not in str(error.value)


def test_scores_follow_a_chosen_class(model, sound):
    """Every score against a loop over probabilities of the chosen class, which is not the predicted one."""
    predicted = explain(model, sound, method="saliency", check_gradient=False).target
    chosen = (predicted + 1) % 4
    explanation = explain(model, sound, method="saliency", target=chosen, masks=["bin", "minmax"], heard=True)
    db, c = explanation.batch.db, chosen
    with torch.no_grad():
        for name, row in explanation.scores.iterrows():
            mask = explanation.masks[name]
            whole, kept, removed = (
                model(x).softmax(1)[0].tolist()
                for x in (db, (db + 100) * mask - 100, (db + 100) * (1 - mask) - 100)
            )
            assert row["target"] == c and row["p_clip"] == pytest.approx(whole[c])
            assert row["FF"] == pytest.approx(whole[c] - removed[c], abs=1e-9)
            assert row["AD"] == pytest.approx(100 * max(0, whole[c] - kept[c]) / (whole[c] + 1e-6), abs=1e-6)
            assert row["AG"] == pytest.approx(
                100 * max(0, kept[c] - whole[c]) / (1 - whole[c] + 1e-6), abs=1e-6
            )
            assert row["FidIn"] == float(kept.index(max(kept)) == c)
            heard = explanation.spectrogram(explanation.removed_audio(name)[None]).db
            assert row["FF_heard"] == pytest.approx(whole[c] - model(heard).softmax(1)[0, c].item(), abs=1e-7)


def test_samples_by_channels_as_soundfile_reads_them_is_refused(model, sound):
    for shape in ((44100, 2), (44100, 1), (9, 8)):
        with pytest.raises(ValueError, match=r"looks transposed: pass waveform\.T") as error:
            explain(model, np.zeros(shape))
        assert "\n" not in str(error.value)
    quad = np.stack([sound, 0 * sound, -sound, 2 * sound])  # (4, samples) is what it says
    heard = explain(model, quad, method="saliency", check_gradient=False).waveform
    torch.testing.assert_close(heard, torch.from_numpy(sound / 2))


class Parameterless(torch.nn.Module):
    """Three bands' mean levels as logits: nothing to train."""

    def forward(self, db):
        return torch.stack([band.mean((1, 2, 3)) / 10 for band in db.split(22, dim=2)], dim=1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_model_without_parameters_is_explained(sound, dtype):
    model = Parameterless()
    explanation = explain(model, torch.from_numpy(sound).to(dtype), method="saliency", spectrogram="mel_db")
    sizes = [22, 22, 20]
    start = sum(sizes[: explanation.target])
    expected = torch.zeros_like(explanation.attribution)
    expected[:, :, start : start + sizes[explanation.target]] = 1 / (10 * sizes[explanation.target] * 51)
    torch.testing.assert_close(explanation.attribution, expected)


@pytest.mark.parametrize(
    "changes, error, words",
    [
        ({"method": "shap"}, TypeError, "needs background=, reference clips"),
        ({"method": "shap", "background": None}, TypeError, "needs background="),
        ({"target": 4}, ValueError, "target must lie between 0 and 3; got"),
        ({"target": -1}, ValueError, "target must lie between 0 and 3; got"),
        ({"target": 1.5}, TypeError, "target must be the index"),
        ({"target": "dog"}, ValueError, "target 'dog' is no class of the model; there are 0, 1, 2, ..."),
        ({"sample_rate": 44100.5}, ValueError, "sample_rate must be a whole number of Hz"),
        ({"sample_rate": 0}, ValueError, "sample_rate must be a whole number of Hz"),
        ({"sample_rate": float("nan")}, ValueError, "sample_rate must be a whole number of Hz"),
        ({"sample_rate": float("inf")}, ValueError, "sample_rate must be a whole number of Hz"),
        ({"masks": "bin"}, TypeError, "masks must be a list"),
        (
            {"classifier": lambda db: db},
            ValueError,
            "spectrogram must be named for a function, or say what it takes",
        ),
        ({"classifier": torch.nn.Flatten()}, ValueError, "spectrogram must be named for a Flatten"),
    ],
)
def test_choices_that_do_not_fit_end_in_one_line(model, sound, changes, error, words):
    with pytest.raises(error, match=words) as raised:
        explain(**{"classifier": model, "waveform": sound} | changes)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("protocol", ["paper", "audited"])
@pytest.mark.parametrize("method", ["saliency", "gradcam", "lime", "shap"])
def test_a_silent_clip_from_end_to_end(model, method, protocol):
    """Everything is finite; only the conciseness of an all-zero mask is undefined, and only when audited."""
    options = {"lime": {"n_samples": 20}}.get(method, {})
    if method == "shap":
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(3, 16000, dtype=torch.float64, generator=generator)
        options = {"background": get_spectrogram("mel_db")(noise).db}
    explanation = explain(model, np.zeros(16000), method=method, protocol=protocol, heard=True, **options)
    assert torch.isfinite(explanation.attribution).all()
    for name, mask in explanation.masks.items():
        assert torch.isfinite(mask).all() and mask.min() >= 0 and mask.max() <= 1
        scores = explanation.scores.loc[name].astype(float)
        undefined = {"SPS", "COMP"} if protocol == "audited" and not mask.any() else set()
        assert set(scores.index[scores.isna()]) == undefined, name
        assert not np.isinf(scores).any()
        # a silent clip is all floor: masked, it is the same floor
        assert scores["FF"] == scores["AD"] == scores["AG"] == 0 and scores["FidIn"] == 1
        assert not explanation.kept_audio(name).any() or explanation.kept_audio(name).abs().max() < 1e-9


def test_a_method_that_wants_the_sound_gets_it(model, sound):
    options = {"domain": "heard", "n_steps": 3, "grid": (4, 4)}
    for method in ("extremal", "extremal_20", "extremal_heard"):
        given = {name: value for name, value in options.items() if name in METHODS.options(method)}
        explanation = explain(model, sound, method=method, **given)
        expected = METHODS[method](
            model,
            explanation.batch.db,
            torch.tensor([explanation.target]),
            waveform=torch.from_numpy(sound)[None],
            spectrogram=get_spectrogram("mel_db"),
            **given,
        )
        torch.testing.assert_close(explanation.attribution, expected)
    with pytest.raises(TypeError, match="no option 'waveforms'"):
        explain(model, sound, method="extremal", waveforms=sound)


def test_a_map_of_zeros_is_said():
    """A network that is sure beyond the last digit, and one that does not listen."""
    deaf = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    classifier = AudioClassifier(deaf, sample_rate=8000, head="softmax")
    classifier.look(torch.zeros(1, 4000))
    with torch.no_grad():
        deaf[1].weight.zero_()
    with pytest.warns(UserWarning, match="occlusion is zero everywhere"):
        explain(classifier, torch.randn(4000), 8000, method="occlusion", masks=["topK_30"])

"""Attribution methods against the libraries, and what they promise about the model they explain."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import torch
from picture_sound import sound_of
from tiny_decoder import tiny_decoders
from torch import nn
from torch.nn import functional

from audioxai_utils import constants
from audioxai_utils.attributions import METHODS, register
from audioxai_utils.attributions.shap import additivity_error
from audioxai_utils.models.cnn14 import Cnn14

OPTIONS = {
    "lime": {"n_samples": 12},
    "slime": {"n_samples": 12},
    "rise": {"n_masks": 12},
    "extremal": {"n_steps": 12},
}


def lively_cnn14(n_bins: int = 32, n_classes: int = 4, width: float = 1 / 16, seed: int = 0) -> Cnn14:
    """A small Cnn14 with trained-looking batch norms, in training mode as a caller may leave it."""
    torch.manual_seed(seed)
    model = Cnn14(n_bins, n_classes, width).double()
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.2)
        elif name.endswith("running_var"):
            buffer.uniform_(0.05, 0.5)
    model.bn0.running_mean.fill_(-40.0)
    model.bn0.running_var.fill_(100.0)
    return model


def clips(n: int = 3, n_bins: int = 32, n_frames: int = 64, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, n_bins, n_frames, generator=generator, dtype=torch.float64) * 15 - 40


@pytest.fixture(scope="module")
def model() -> Cnn14:
    return lively_cnn14()


@pytest.fixture(scope="module")
def db() -> torch.Tensor:
    return clips()


@pytest.fixture(scope="module")
def background() -> torch.Tensor:
    return clips(4, seed=2)


TARGET = torch.tensor([1, 3, 0])


def options_of(name: str, background: torch.Tensor) -> dict:
    return {"background": background} if name.startswith("shap") else OPTIONS.get(name, {})


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def in_eval(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).eval()


# Values


def test_saliency_is_the_derivative_by_central_differences(model, db):
    attribution = METHODS["saliency"](model, db, TARGET)
    plain = in_eval(model)
    for clip, frequency, time in [(0, 3, 10), (1, 31, 63), (2, 0, 31)]:
        step = torch.zeros_like(db[:1])
        step[0, 0, frequency, time] = 1e-4
        with torch.no_grad():
            rise = plain(db[clip : clip + 1] + step) - plain(db[clip : clip + 1] - step)
        expected = float(rise[0, TARGET[clip]]) / 2e-4
        assert float(attribution[clip, 0, frequency, time]) == pytest.approx(expected, rel=1e-5, abs=1e-12)


def test_saliency_equals_captum(model, db):
    expected = METHODS["saliency"](model, db, TARGET, engine="reference")
    assert relative(METHODS["saliency"](model, db, TARGET, batch_size=2), expected) < 1e-12
    assert (expected < 0).any() and (expected > 0).any()


def test_gradcam_equals_a_slow_reading_of_the_paper(model, db):
    attribution = METHODS["gradcam"](model, db, TARGET)
    plain = in_eval(model)
    held = []
    plain.conv_block6.conv2.register_forward_hook(lambda module, inputs, output: held.append(output))
    logits = plain(db)
    (gradient,) = torch.autograd.grad(logits[torch.arange(3), TARGET].sum(), held[0])
    for clip in range(3):
        a = held[0][clip].detach()  # (channels, time, frequency)
        cam = sum(gradient[clip, k].mean() * a[k] for k in range(len(a))).T  # (frequency, time)
        expected = functional.interpolate(cam[None, None], (32, 64), mode="bilinear", align_corners=False)
        assert relative(attribution[clip : clip + 1], expected) < 1e-10


class TransposedSpotter(nn.Module):
    """Convolves (batch, 1, time, frequency); the logit is the energy of loud bins."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.ones_(self.conv.weight)

    def forward(self, db: torch.Tensor) -> torch.Tensor:
        total = self.conv(db.transpose(2, 3)).square().sum(dim=(1, 2, 3))
        return torch.stack([total, -total], dim=1)


@pytest.mark.parametrize("declared", ["attribute", "option"])
def test_gradcam_of_a_transposing_model_points_at_the_hot_bin(declared):
    spotter = TransposedSpotter()
    options = {"feature_axes": ("time", "frequency")} if declared == "option" else {}
    if declared == "attribute":
        spotter.feature_axes = ("time", "frequency")
    db = torch.zeros(1, 1, 6, 20)
    db[0, 0, 2, 15] = 5.0
    attribution = METHODS["gradcam"](spotter, db, torch.tensor([0]), **options)
    assert divmod(int(attribution.argmax()), 20) == (2, 15)
    assert float(attribution.sum()) > 0


def test_gradcam_layers_by_name_by_module_and_by_default(model, db):
    plain = copy.deepcopy(model)
    by_name = METHODS["gradcam"](plain, db, TARGET, layer="conv_block6.conv2")
    by_module = METHODS["gradcam"](plain, db, TARGET, layer=plain.conv_block6.conv2)
    assert torch.equal(by_name, METHODS["gradcam"](plain, db, TARGET)) and torch.equal(by_name, by_module)
    assert relative(METHODS["gradcam"](plain, db, TARGET, layer="conv_block4.conv1"), by_name) > 1e-3


def lime_oracle(model: nn.Module, clip: torch.Tensor, label: int, n_samples: int, seed: int) -> torch.Tensor:
    """PROTOCOL.md's words: top_labels=1 and lime's own defaults, classifier one image at a time."""
    from lime.lime_image import LimeImageExplainer

    low, high = float(clip.min()), float(clip.max())

    def classify(images):
        stacked = torch.stack([torch.from_numpy(image[..., 0]) * (high - low) + low for image in images])
        with torch.no_grad():
            return model(stacked[:, None]).softmax(dim=1).numpy()

    image = ((clip[0] - low) / (high - low)).numpy()
    explainer = LimeImageExplainer(random_state=seed)
    found = explainer.explain_instance(image, classify, top_labels=1, num_samples=n_samples)
    assert found.top_labels == [label]
    weights = dict(found.local_exp[label])
    return torch.from_numpy(np.vectorize(weights.get)(found.segments))[None]


def test_gradcam_is_its_own_grid_spread_over_the_bins(model, db):
    from audioxai_utils.attributions.gradcam import class_activation

    model = in_eval(model)
    target = model(db).argmax(1)
    coarse = class_activation(model, db, target)
    assert coarse.shape == (len(db), 1, db.shape[2] // 32, db.shape[3] // 32)
    spread = functional.interpolate(coarse, db.shape[2:], mode="bilinear", align_corners=False)
    assert torch.equal(spread, METHODS["gradcam"](model, db, target))


def test_fit_of_limes_surrogate_is_the_weighted_r2_of_the_library(model, db):
    """LimeImageExplainer reports the score of its own ridge regression."""
    from lime import lime_image

    from audioxai_utils.attributions.lime import _no_progress_bar, scaled_image
    from audioxai_utils.attributions.neighbourhoods import surrogate_fit

    model = in_eval(model)
    target = model(db[:1]).argmax(1)
    (fit,) = surrogate_fit(model, db[:1], target, n_samples=40)
    image, to_decibels = scaled_image(db[0])

    def classify(images):
        batch = torch.from_numpy(to_decibels(images[..., 0])).to(db)[:, None]
        with torch.no_grad():
            return model(batch).softmax(1).double().numpy()

    explainer = lime_image.LimeImageExplainer(random_state=12345)
    label = int(target)
    with _no_progress_bar(lime_image):
        known = explainer.explain_instance(image, classify, labels=(label,), top_labels=None, num_samples=40)
    score = known.score[label] if isinstance(known.score, dict) else known.score
    assert fit["r2"] == pytest.approx(score, abs=1e-4) and fit["superpixels"] == known.segments.max() + 1


def test_lime_reference_is_limes_explanation_of_the_top_label(model, db):
    plain = in_eval(model)
    target = plain(db).argmax(dim=1)
    attribution = METHODS["lime"](model, db, target, engine="reference", n_samples=20, seed=7)
    for clip in range(2):
        assert relative(attribution[clip], lime_oracle(plain, db[clip], int(target[clip]), 20, 7)) < 1e-9
    other = METHODS["lime"](model, db[:1], target[:1], engine="reference", n_samples=20, seed=8)
    assert relative(other[0], attribution[0]) > 1e-3


def test_shap_reference_is_deep_explainer_and_adds_up(model, db, background):
    import shap

    attribution = METHODS["shap"](model, db, TARGET, background=background, engine="reference")
    values = shap.DeepExplainer(in_eval(model), background).shap_values(db)  # (n, 1, F, T, classes)
    for clip in range(3):
        expected = torch.from_numpy(values[clip, ..., int(TARGET[clip])])
        assert relative(attribution[clip], expected) < 1e-9
    assert float(additivity_error(model, db, TARGET, background, attribution).max()) < 1e-9


def test_additivity_error_by_hand(model, db, background):
    plain = in_eval(model)
    with torch.no_grad():
        rise = float(plain(db[:1])[0, 1] - plain(background)[:, 1].mean())
    attribution = torch.full_like(db[:1], 1.25 * rise / db[:1].numel())
    error = additivity_error(model, db[:1], TARGET[:1], background, attribution)
    assert error.tolist() == pytest.approx([0.25], rel=1e-9)


class FunctionalCnn14(nn.Module):
    """The same Cnn14 with the nonlinearities hidden in functional calls, as the study had it."""

    def __init__(self, model: Cnn14) -> None:
        super().__init__()
        self.inner = copy.deepcopy(model)

    def forward(self, db: torch.Tensor) -> torch.Tensor:
        inner = self.inner
        x = inner.bn0(db.squeeze(1).contiguous()).transpose(1, 2).unsqueeze(1)
        for i in range(1, 7):
            block = getattr(inner, f"conv_block{i}")
            x = functional.relu(block.bn1(block.conv1(x)))
            x = functional.relu(block.bn2(block.conv2(x)))
            x = functional.avg_pool2d(x, 2) if i < 6 else x
        x = x.mean(dim=3)
        x = torch.max(x, dim=2)[0] + x.mean(dim=2)
        return inner.head(functional.relu(inner.fc1(x)))


def test_functional_model_is_refused_and_its_published_values_have_their_own_name(model, db, background):
    import shap

    hidden = FunctionalCnn14(model)
    assert relative(in_eval(hidden)(db), in_eval(model)(db)) < 1e-12
    with pytest.raises(ValueError, match="not additive.*functional.relu") as refused:
        METHODS["shap"](hidden, db, TARGET, background=background, engine="reference")
    explainer = shap.DeepExplainer(in_eval(hidden), background)
    published = explainer.shap_values(db, check_additivity=False)  # what the study ran
    with torch.no_grad():  # the lowest label, that of the third clip, is explained first
        risen = in_eval(hidden)(db)[2, 0] - in_eval(hidden)(background)[:, 0].mean()
    said = float(re.search(r"difference by ([\d.e+-]+)", str(refused.value))[1])
    assert said == pytest.approx(abs(published[2, ..., 0].sum() - float(risen)), rel=5e-3)
    for each in (hidden, model):
        attribution = METHODS["shap_functional"](each, db, TARGET, background=background, chunk_size=3)
        for clip in range(3):
            expected = torch.from_numpy(published[clip, ..., int(TARGET[clip])])
            assert relative(attribution[clip], expected) < 1e-9
    assert float(additivity_error(model, db, TARGET, background, attribution).min()) > 1e-3


@pytest.mark.parametrize("name", ["saliency", "gradcam", "lime", "shap", "shap_functional"])
def test_a_clip_does_not_depend_on_its_neighbours(name, model, db, background):
    options = options_of(name, background)
    together = METHODS[name](model, db, TARGET, **options)
    assert together.shape == db.shape and together.dtype == torch.float64
    for clip in range(3):
        alone = METHODS[name](model, db[clip : clip + 1], TARGET[clip : clip + 1], **options)
        assert relative(alone, together[clip : clip + 1]) < 1e-9


# What is left behind


def snapshot(model: nn.Module) -> list:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [
        (name, sorted(module.__dict__), module.training, *(len(getattr(module, hook)) for hook in hooks))
        for name, module in model.named_modules()
    ] + [(name, parameter.requires_grad, parameter.grad) for name, parameter in model.named_parameters()]


@pytest.fixture
def marked(model) -> Cnn14:
    """A model with a frozen parameter, a gradient, a submodule in eval mode and a user's hook."""
    marked = copy.deepcopy(model).train()
    marked.fc1.weight.requires_grad_(False)
    marked.head.bias.grad = torch.ones_like(marked.head.bias)
    marked.conv_block2.eval()
    marked.conv_block3.register_forward_hook(lambda module, inputs, output: None)
    return marked


@pytest.mark.parametrize("engine", ["fast", "reference"])
@pytest.mark.parametrize("name", ["saliency", "gradcam", "lime", "shap", "shap_functional"])
def test_the_model_is_left_as_it_was(name, engine, marked, db, background):
    before, state = snapshot(marked), copy.deepcopy(marked.state_dict())
    given = db[:1].clone().requires_grad_()
    with torch.no_grad():
        METHODS[name](marked, given, TARGET[:1], engine=engine, **options_of(name, background))
    assert snapshot(marked) == before and marked.head.bias.grad.sum() == 4 and given.grad is None
    assert all(torch.equal(state[key], value) for key, value in marked.state_dict().items())
    assert list(state) == list(marked.state_dict()) and torch.equal(given, db[:1])


class FailsLate(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("broken on purpose")


@pytest.mark.parametrize("engine", ["fast", "reference"])
@pytest.mark.parametrize("name", ["saliency", "gradcam", "lime", "shap", "shap_functional"])
def test_the_model_is_left_as_it_was_after_an_error(name, engine, marked, db, background):
    marked.dropouts[7] = FailsLate()
    before = snapshot(marked)
    with pytest.raises(RuntimeError, match="broken on purpose"):
        METHODS[name](marked, db[:1], TARGET[:1], engine=engine, **options_of(name, background))
    assert snapshot(marked) == before and marked.head.bias.grad.sum() == 4


def test_global_random_state_is_untouched(model, db, background, tmp_path):
    decoders = tiny_decoders(model, db, tmp_path)
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()
    for name in METHODS:
        options = {"decoder": decoders[name]} if name in decoders else options_of(name, background)
        METHODS[name](model, db[:1], TARGET[:1], **options, **METHODS.taken(name, **sound_of(db[:1])))
    assert np.array_equal(numpy_state, np.random.get_state()[1]) and torch.equal(
        torch_state, torch.get_rng_state()
    )


def test_methods_work_inside_inference_mode(model, db, background):
    expected = METHODS["saliency"](model, db, TARGET)
    with torch.inference_mode():
        inside = METHODS["saliency"](model, db.clone(), TARGET.clone())
    assert torch.equal(inside, expected)


# Refusals and the table


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": lambda db: db}, TypeError, "model must be a torch.nn.Module"),
        ({"db": np.zeros((3, 1, 32, 64))}, TypeError, "db must be a tensor"),
        (
            {"db": torch.zeros(3, 32, 64)},
            ValueError,
            r"db must have shape \(n, 1, frequency, time\); got \(3, 32, 64\)",
        ),
        ({"db": torch.zeros(3, 1, 32, 64, dtype=torch.long)}, TypeError, "floating-point decibels"),
        ({"db": torch.zeros(3, 1, 32, 64)}, ValueError, "float32.*float64"),
        ({"db": torch.full((3, 1, 32, 64), float("nan"), dtype=torch.float64)}, ValueError, "must be finite"),
        ({"target": 1}, TypeError, "target must be a tensor"),
        ({"target": torch.zeros(3)}, TypeError, "target must hold integers"),
        ({"target": torch.zeros(2, dtype=torch.long)}, ValueError, r"target must have shape \(3,\)"),
        ({"target": torch.tensor([0, -1, 2])}, ValueError, "target must be 0 or more; got -1"),
        ({"target": torch.tensor([0, 4, 2])}, ValueError, "target must be below 4"),
        ({"n_sample": 10}, TypeError, "has no option 'n_sample'; its options are"),
        ({"engine": "quick"}, ValueError, "engine must be one of fast, reference; got 'quick'"),
    ],
)
@pytest.mark.parametrize("name", ["saliency", "lime"])
def test_bad_input_is_refused_in_one_line(name, change, error, message, model, db):
    arguments = {"model": model, "db": db, "target": TARGET, **change}
    with pytest.raises(error, match=message) as caught:
        METHODS[name](**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lime", {"n_samples": 1}, "n_samples must be 2 or more"),
        ("lime", {"batch_size": 0}, "batch_size must be 1 or more"),
        ("gradcam", {"layer": "conv_block7"}, "layer 'conv_block7' is no module"),
        ("gradcam", {"layer": nn.Conv2d(1, 1, 1)}, "one of the model's own modules"),
        ("gradcam", {"feature_axes": ("time", "time")}, "feature_axes must be"),
        ("gradcam", {"layer": "fc1"}, r"layer must return \(batch, channels, rows, columns\)"),
        ("shap", {"background": clips(2, n_frames=32)}, r"background must have shape \(n, 1, 32, 64\)"),
        ("shap_functional", {"background": clips(2).float()}, "float32.*float64"),
    ],
)
def test_bad_options_are_refused(name, options, message, model, db):
    with pytest.raises(ValueError, match=message):
        METHODS[name](model, db, TARGET, **options)


def test_a_model_without_finite_logits_is_refused(model, db):
    broken = copy.deepcopy(model)
    broken.head.bias.data[0] = float("inf")
    with pytest.raises(ValueError, match="NaN or infinite logits"):
        METHODS["saliency"](broken, db, TARGET)


def test_table_of_methods_finds_files_and_takes_others(own_method):
    assert set(METHODS) >= {"saliency", "gradcam", "lime", "shap", "shap_functional"}
    with pytest.raises(KeyError, match="method must be one of .*gradcam, gradient_shap, "):
        METHODS["grad_cam"]

    def ones(model, db, target, *, scale: float = 1.0):
        return torch.full_like(db, scale)

    own_method("ones", ones)
    out = METHODS["ones"](TransposedSpotter(), torch.zeros(1, 1, 2, 3), torch.tensor([0]), scale=2.0)
    assert out.tolist() == [[[[2.0] * 3] * 2]]
    with pytest.raises(ValueError, match="registered already"):
        register("ones")(clips)
    METHODS.remove("ones")
    assert "ones" not in METHODS and len(METHODS) == len(constants.known_methods())
    own_method("ones", clips)  # the name is free again, for another function
    with pytest.raises(ValueError, match="method 'lime' is the package's own and stays"):
        METHODS.remove("lime")
    with pytest.raises(KeyError):
        METHODS.remove("grad_cam")


def test_import_is_light():
    import subprocess
    import sys

    code = "import sys, audioxai_utils.attributions; print({'captum', 'shap', 'lime', 'skimage'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
    )

"""Gradient, occlusion, random-mask and grid methods against identities, slow oracles and libraries."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from audioxai_utils.attributions import METHODS
from audioxai_utils.attributions.rise import random_masks
from audioxai_utils.attributions.slime import gridded, regular_grid
from audioxai_utils.models.cnn14 import Cnn14

TARGET = torch.tensor([1, 3])
SMALL = {
    "integrated_gradients": {"n_steps": 4},
    "smoothgrad": {"n_samples": 3},
    "gradient_shap": {"n_samples": 3},
    "occlusion": {"window": (16, 32)},
    "guided_gradcam": {},
    "rise": {"n_masks": 6},
    "slime": {"n_samples": 6},
    "slime_hpss": {"n_samples": 6, "kernel_size": 9},
    "coughlime": {"n_samples": 6},
    "audiolime": {"n_samples": 6},
    "segments": {"n_samples": 6, "n_segments": 4},
}


def trained_looking(n_bins: int = 32, n_classes: int = 4) -> Cnn14:
    torch.manual_seed(0)
    model = Cnn14(n_bins, n_classes, 1 / 32)
    generator = torch.Generator().manual_seed(5)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(torch.rand(buffer.shape, generator=generator) * 0.6 - 0.3)
        elif name.endswith("running_var"):
            buffer.copy_(torch.rand(buffer.shape, generator=generator) * 0.4 + 0.05)
    model.bn0.running_mean.fill_(-50.0)
    model.bn0.running_var.fill_(200.0)
    model.head.weight.data *= 0.1  # probabilities away from 0 and 1
    return model.double()


def clips(n: int, seed: int, n_frames: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, 32, n_frames, generator=generator, dtype=torch.float64) * 12 - 45


@pytest.fixture(scope="module")
def model() -> Cnn14:
    return trained_looking()


@pytest.fixture(scope="module")
def db() -> torch.Tensor:
    return clips(2, seed=1)


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-300))


class Polynomial(nn.Module):
    """Logits sum(a X^2) and sum(b X), whose gradients are known."""

    def __init__(self, n_bins: int = 4, n_frames: int = 5) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.a, self.b = (
            torch.randn(2, 1, 1, n_bins, n_frames, generator=generator, dtype=torch.float64) * 1e-3
        )

    def forward(self, db: torch.Tensor) -> torch.Tensor:
        return torch.stack([(self.a * db**2).sum(dim=(1, 2, 3)), (self.b * db).sum(dim=(1, 2, 3))], dim=1)


POLYNOMIAL = Polynomial()
POINTS = torch.linspace(-90, -10, 40, dtype=torch.float64).view(2, 1, 4, 5)
SQUARE, LINEAR = torch.tensor([0, 0]), torch.tensor([1, 1])


# Gradients


@pytest.mark.parametrize("with_background", [False, True])
def test_integrated_gradients_are_complete(with_background, model, db):
    """Their sum is the logit's rise from the baseline, better and better with more steps."""
    background = clips(3, seed=2) if with_background else None
    baseline = background.mean(0, keepdim=True) if with_background else torch.full_like(db[:1], -100.0)
    with torch.no_grad():
        plain = copy.deepcopy(model).eval()
        rise = (plain(db) - plain(baseline)).gather(1, TARGET[:, None])[:, 0]
    errors = []
    for n_steps in (4, 200):
        found = METHODS["integrated_gradients"](model, db, TARGET, background=background, n_steps=n_steps)
        errors.append(float(((found.sum(dim=(1, 2, 3)) - rise) / rise).abs().max()))
    assert errors[1] < 0.02 and errors[1] < errors[0] / 3, errors


def test_integrated_gradients_of_a_square_by_hand():
    """The integral of 2 a x along the straight way from s to x is a (x + s), times x - s."""
    found = METHODS["integrated_gradients"](POLYNOMIAL, POINTS, SQUARE, n_steps=3)
    assert torch.allclose(found, POLYNOMIAL.a * (POINTS**2 - 100.0**2), rtol=1e-6)


def test_smoothgrad_of_a_square_is_its_gradient_at_the_mean_noisy_clip():
    options = {"level": 2.0, "n_samples": 400}
    found = METHODS["smoothgrad"](POLYNOMIAL, POINTS, SQUARE, **options)
    noise = found / (2 * POLYNOMIAL.a) - POINTS  # mean of 400 draws, standard error 2 / 20
    assert 0.06 < float(noise.std()) < 0.14 and float(noise.abs().max()) < 0.5
    # each clip the same noise
    assert torch.equal(noise[0], noise[1]) or torch.allclose(noise[0], noise[1], atol=1e-9)
    assert relative(METHODS["smoothgrad"](POLYNOMIAL, POINTS, SQUARE, seed=1, **options), found) > 1e-4
    assert torch.allclose(
        METHODS["smoothgrad"](POLYNOMIAL, POINTS, LINEAR, n_samples=2), POLYNOMIAL.b.expand(2, 1, 4, 5)
    )


def test_smoothgrad_of_little_noise_is_the_gradient(model, db):
    found = METHODS["smoothgrad"](model, db, TARGET, level=1e-7, n_samples=2)
    assert relative(found, METHODS["saliency"](model, db, TARGET)) < 1e-3


def test_gradient_shap_by_hand():
    """On a line each sample is b (X - background), whatever the point; on a square it adds up in the mean."""
    background = POINTS[:1] * 0.5
    found = METHODS["gradient_shap"](
        POLYNOMIAL, POINTS, LINEAR, background=background, n_samples=5, batch_size=2
    )
    assert torch.allclose(found, POLYNOMIAL.b * (POINTS - background), rtol=1e-9)
    found = METHODS["gradient_shap"](
        POLYNOMIAL, POINTS, SQUARE, background=background, n_samples=2000, batch_size=500
    )
    assert relative(found, POLYNOMIAL.a * (POINTS**2 - background**2)) < 0.05


def test_gradient_shap_draws_all_of_the_background():
    background = torch.cat([POINTS[:1], POINTS[:1] + 30.0])
    found = METHODS["gradient_shap"](POLYNOMIAL, POINTS[:1], LINEAR[:1], background=background, n_samples=900)
    assert torch.allclose(found, POLYNOMIAL.b * -15.0, rtol=0.15)


# Occlusion, random masks


def test_occlusion_patch_by_patch(model, db):
    found = METHODS["occlusion"](model, db, TARGET, window=(16, 24), stride=(8, 20), fill=-90.0)
    plain = copy.deepcopy(model).eval()
    falls, times = torch.zeros_like(db), torch.zeros_like(db)
    for f in range(0, 17, 8):
        for t in (0, 20, 40):
            hidden = db.clone()
            hidden[..., f : f + 16, t : t + 24] = -90.0
            with torch.no_grad():
                fall = (plain(db).softmax(1) - plain(hidden).softmax(1)).gather(1, TARGET[:, None])
            falls[..., f : f + 16, t : t + 24] += fall[:, :, None, None]
            times[..., f : f + 16, t : t + 24] += 1
    assert bool((times > 0).all())
    assert relative(found, falls / times) < 1e-6
    assert METHODS["occlusion"](model, db, TARGET).std() > 0


def test_rise_mask_by_mask(model, db):
    options = {"n_masks": 30, "grid": (3, 5), "seed": 4}
    found = METHODS["rise"](model, db, TARGET, batch_size=7, **options)
    masks = torch.cat(list(random_masks(30, (3, 5), 0.5, 4, db, 7)))
    plain = copy.deepcopy(model).eval()
    for clip, label in enumerate(TARGET.tolist()):
        with torch.no_grad():
            p = torch.stack(
                [plain((db[clip : clip + 1] + 100) * m - 100).softmax(1)[0, label] for m in masks]
            )
        expected = (p.view(-1, 1, 1, 1) * masks).sum(0) / masks.sum(0) - p.mean()
        assert relative(found[clip], expected) < 1e-6
    assert relative(METHODS["rise"](model, db, TARGET, n_masks=30, grid=(3, 5), seed=5), found) > 0.01


def test_rise_masks_are_smooth_random_and_independent_of_the_batch():
    like = torch.zeros(1, 1, 33, 70)
    one, other = (torch.cat(list(random_masks(400, (4, 6), 0.3, 9, like, 8))) for _ in range(2))
    assert torch.equal(one, other) and one.shape == (400, 1, 33, 70)
    assert float(one.min()) == 0 and float(one.max()) == 1
    assert float((one.mean(0) - 0.3).abs().max()) < 0.1
    assert float(one.diff(dim=2).abs().max()) < 0.25 and float(one.diff(dim=3).abs().max()) < 0.2


class LoudBin(nn.Module):
    """Class 0 is as probable as one planted patch is loud."""

    def forward(self, db: torch.Tensor) -> torch.Tensor:
        level = db[:, 0, 4:8, 10:20].mean(dim=(1, 2)) / 10 + 5
        return torch.stack([level, -level], dim=1)


@pytest.mark.parametrize(
    "name", ["occlusion", "rise", "slime", "integrated_gradients", "smoothgrad", "gradient_shap"]
)
def test_planted_evidence_is_found(name):
    db = clips(1, seed=6) * 0.2 - 30
    options = {"occlusion": {"window": (4, 8)}, "slime": {"n_time": 16, "fill": -100.0}}.get(name, {})
    found = METHODS[name](LoudBin(), db, torch.tensor([0]), **options)[0, 0]
    inside = torch.zeros(32, 64, dtype=torch.bool)
    inside[4:8, 10:20] = True
    assert found[inside].mean() > found[~inside].mean() + 3 * found[~inside].std() / math.sqrt(8)
    f, t = divmod(int(found.argmax()), 64)
    assert 2 <= f <= 9 and 6 <= t <= 24


# SLIME


@pytest.mark.parametrize("grid", ["time", "frequency", "both"])
@pytest.mark.parametrize("fill", [None, -100.0])
def test_slime_is_the_lime_library_over_the_same_segments(grid, fill, model, db):
    from lime.lime_image import LimeImageExplainer

    options = {"n_samples": 25, "seed": 3, "n_time": 5, "n_frequency": 3}
    found = METHODS["slime"](model, db, TARGET, grid=grid, fill=fill, **options)
    segments = regular_grid((32, 64), grid, 5, 3)
    plain = copy.deepcopy(model).eval()
    for clip, label in enumerate(TARGET.tolist()):
        low, high = float(db[clip].min()), float(db[clip].max())

        def classify(images, low=low, high=high):
            batch = torch.stack([torch.from_numpy(image[..., 0]) * (high - low) + low for image in images])
            with torch.no_grad():
                return plain(batch[:, None]).softmax(1).numpy()

        hide = None if fill is None else (fill - low) / (high - low)
        explanation = LimeImageExplainer(random_state=3).explain_instance(
            ((db[clip, 0] - low) / (high - low)).numpy(),
            classify,
            labels=(label,),
            top_labels=None,
            num_samples=25,
            hide_color=hide,
            segmentation_fn=lambda image: segments,
        )
        expected = np.vectorize(dict(explanation.local_exp[label]).get)(explanation.segments)
        assert relative(found[clip, 0], torch.from_numpy(expected)) < 1e-6


def test_grids_by_hand():
    assert regular_grid((2, 5), "time", 2, 7).tolist() == [[0, 0, 0, 1, 1]] * 2
    assert regular_grid((3, 2), "frequency", 9, 2).tolist() == [[0, 0], [0, 0], [1, 1]]
    assert regular_grid((4, 4), "both", 2, 2).tolist() == [[0, 0, 1, 1]] * 2 + [[2, 2, 3, 3]] * 2
    sizes = np.bincount(regular_grid((64, 501), "both", 10, 8).ravel())
    assert len(sizes) == 80 and set(sizes) == {8 * 50, 8 * 51}


def test_hidden_slices_are_their_mean_or_the_level_that_is_asked_for():
    clip, segments = clips(1, seed=8)[0], regular_grid((32, 64), "time", 4, 1)
    hidden = gridded(clip, segments, None, 3, 0).hidden
    assert hidden[:, 16:32] == pytest.approx(float(clip[0, :, 16:32].mean()))
    assert gridded(clip, segments, -80.0, 3, 0).hidden == pytest.approx(-80.0)


# The shared contract


@pytest.mark.parametrize("name", list(SMALL))
def test_a_clip_does_not_depend_on_its_neighbours_and_seeds_fix_the_result(name, model, db):
    together = METHODS[name](model, db, TARGET, **SMALL[name])
    assert together.shape == db.shape and together.dtype == db.dtype and together.std() > 0
    for clip in range(2):
        alone = METHODS[name](model, db[clip : clip + 1], TARGET[clip : clip + 1], **SMALL[name])
        assert relative(alone, together[clip : clip + 1]) < 1e-9


def hooks_and_flags(model: nn.Module) -> list:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [
        (name, module.training, sorted(module.__dict__), *(len(getattr(module, hook)) for hook in hooks))
        for name, module in model.named_modules()
    ] + [(name, parameter.requires_grad, parameter.grad) for name, parameter in model.named_parameters()]


class Breaks(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("broken on purpose")


@pytest.mark.parametrize("name", list(SMALL))
def test_model_and_random_states_are_left_as_they_were_also_after_an_error(name, model, db):
    given = copy.deepcopy(model).train()
    given.fc1.weight.requires_grad_(False)
    before, state = hooks_and_flags(given), copy.deepcopy(given.state_dict())
    numpy_state, torch_state = np.random.get_state()[1].copy(), torch.get_rng_state()
    with torch.no_grad():
        METHODS[name](given, db[:1], TARGET[:1], **SMALL[name])
    assert hooks_and_flags(given) == before
    assert all(torch.equal(state[key], value) for key, value in given.state_dict().items())
    given.dropouts[7] = Breaks()
    before = hooks_and_flags(given)
    with pytest.raises(RuntimeError, match="broken on purpose"):
        METHODS[name](given, db[:1], TARGET[:1], **SMALL[name])
    assert hooks_and_flags(given) == before
    assert np.array_equal(numpy_state, np.random.get_state()[1]) and torch.equal(
        torch_state, torch.get_rng_state()
    )


@pytest.mark.parametrize("name", list(SMALL))
def test_a_class_out_of_range_is_refused(name, model, db):
    with pytest.raises(ValueError, match="target must be below 4"):
        METHODS[name](model, db, torch.tensor([0, 4]), **SMALL[name])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("integrated_gradients", {"n_steps": 0}, "n_steps must be 1 or more"),
        ("integrated_gradients", {"background": clips(2, 1, n_frames=32)}, "background must have shape"),
        ("smoothgrad", {"level": 0}, "level must be above 0 dB"),
        ("smoothgrad", {"n_samples": 0}, "n_samples must be 1 or more"),
        ("gradient_shap", {"batch_size": 0}, "batch_size must be 1 or more"),
        ("occlusion", {"window": (33, 4)}, "1 <= stride <= window <= 32 in frequency"),
        ("occlusion", {"window": (4, 4), "stride": (2, 5)}, "window <= 64 in time; got 4 and 5"),
        ("rise", {"n_masks": 1}, "n_masks must be 2 or more"),
        ("rise", {"share": 1.0}, "share must lie between 0 and 1"),
        ("rise", {"grid": (0, 4)}, "grid must be 1 or more; got 0"),
        ("slime", {"grid": "mel"}, "grid must be one of time, frequency, both; got 'mel'"),
        ("slime", {"n_time": 65}, "n_time must be 1 to 64"),
        ("slime_hpss", {"n_time": 65}, "n_time must be 1 to 64"),
        ("slime_hpss", {"kernel_size": 0}, "kernel_size must be 1 or more"),
        ("slime", {"n_samples": 1}, "n_samples must be 2 or more"),
        ("coughlime", {"components": "words"}, "components must be one of loudness, time, frequency, nmf"),
        ("coughlime", {"n_components": 0}, "n_components must be 1 or more"),
        ("audiolime", {"separator": "spleeter"}, "separator must be one of hpss, nmf; got 'spleeter'"),
        ("audiolime", {"separator": lambda w: w}, "separator of waveforms needs waveform= and spectrogram="),
        ("audiolime", {"n_time": 65}, "n_time must be 1 to 64"),
        ("segments", {}, "n_segments must be given where waveform= and a spectrogram="),
        ("segments", {"n_segments": 65}, "n_time must be 1 to 64"),
        ("segments", {"n_segments": 4, "share": 1.0}, "share must lie between 0 and 1"),
        ("segments", {"n_segments": 4, "surrogate": "tree"}, "surrogate must be one of linear, forest"),
    ],
)
def test_bad_options_are_refused_in_one_line(name, options, message, model, db):
    with pytest.raises(ValueError, match=message) as caught:
        METHODS[name](model, db, TARGET, **options)
    assert "\n" not in str(caught.value)


def test_memory_is_bounded_by_the_batch_size(model):
    """No forward pass sees more than ``batch_size`` spectrograms, however many are asked for."""
    sizes = []

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 1).double()

        def forward(self, db: torch.Tensor) -> torch.Tensor:
            sizes.append(len(db))
            return functional.relu(self.conv(db)).mean(dim=(2, 3))

    db, target = clips(5, seed=1), torch.tensor([0, 1, 0, 1, 1])
    for name, options in {
        "integrated_gradients": {"n_steps": 10},
        "smoothgrad": {"n_samples": 10},
        "gradient_shap": {"n_samples": 10},
        "rise": {"n_masks": 10},
        "slime": {"n_samples": 10},
        "slime_hpss": {"n_samples": 10},
        "coughlime": {"n_samples": 10},
        "audiolime": {"n_samples": 10},
        "segments": {"n_samples": 10, "n_segments": 4},
    }.items():
        sizes.clear()
        METHODS[name](Counting(), db, target, batch_size=4, **options)
        assert 0 < max(sizes) <= 4, name

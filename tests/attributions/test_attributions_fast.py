"""The fast engines give the libraries' values."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from audioxai_utils.attributions import METHODS, lime
from audioxai_utils.attributions.neighbourhoods import classified, prepare, regress
from audioxai_utils.attributions.shap import additivity_error
from audioxai_utils.attributions.shap_fast import PairedModel
from audioxai_utils.models.cnn14 import Cnn14

TARGET = torch.tensor([1, 3])


def trained_looking(model: nn.Module, seed: int = 5) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(torch.rand(buffer.shape, generator=generator) * 0.6 - 0.3)
        elif name.endswith("running_var"):
            buffer.copy_(torch.rand(buffer.shape, generator=generator) * 0.4 + 0.05)
    return model


def cnn14(dtype: torch.dtype) -> Cnn14:
    torch.manual_seed(0)
    model = trained_looking(Cnn14(32, 4, 1 / 16))
    model.bn0.running_mean.fill_(-50.0)
    model.bn0.running_var.fill_(200.0)
    model.head.weight.data *= 0.1  # probabilities away from 0 and 1
    return model.to(dtype)


def clips(n: int, seed: int, silent_from: int | None = None) -> torch.Tensor:
    """Tones in noise, in dB; the last frames may be silent, as short clips' are."""
    generator = torch.Generator().manual_seed(seed)
    tone = 30 * torch.exp(-((torch.arange(32) - 8 - 4 * torch.arange(n)[:, None]) ** 2) / 6.0)
    db = tone[:, None, :, None] + torch.randn(n, 1, 32, 96, generator=generator) * 6 - 60
    if silent_from is not None:
        db[..., silent_from:] = -100.0
    return db


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


PRECISIONS = [(torch.float64, 1e-9), (torch.float32, 1e-4)]


# LIME


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_lime_equals_the_library(dtype, tolerance):
    model, db = cnn14(dtype), clips(2, seed=1, silent_from=70).to(dtype)
    options = {"n_samples": 40, "seed": 99}
    expected = METHODS["lime"](model, db, TARGET, engine="reference", **options)
    found = METHODS["lime"](model, db, TARGET, engine="fast", **options)
    assert all(relative(found[i], expected[i]) < tolerance for i in range(2))
    other_batches = METHODS["lime"](model, db, TARGET, batch_size=7, **options)
    assert relative(other_batches, expected) < tolerance
    assert relative(METHODS["lime"](model, db, TARGET, n_samples=40, seed=98), expected) > 0.01


def test_lime_in_bfloat16_ranks_the_superpixels_alike():
    from scipy.stats import spearmanr

    model, db = cnn14(torch.float32), clips(2, seed=1)
    full = METHODS["lime"](model, db, TARGET, n_samples=300)
    half = METHODS["lime"](model, db, TARGET, n_samples=300, dtype=torch.bfloat16)
    assert relative(half, full) > 1e-5
    for i in range(2):
        assert spearmanr(full[i].flatten(), half[i].flatten()).statistic > 0.98
    with pytest.raises(ValueError, match="dtype=torch.bfloat16 needs engine='fast'"):
        METHODS["lime"](model, db, TARGET, engine="reference", dtype=torch.bfloat16)


class Half(nn.Module):
    """A copy that says something else of some of its batches."""

    def __init__(self, model, wrong) -> None:
        super().__init__()
        self.model, self.wrong, self.asked = model, wrong, []

    def forward(self, x):
        self.asked.append(len(x))
        logits = self.model(x)
        return self.wrong(logits) if len(self.asked) in (3, 4) else logits  # the second clip's batches


@pytest.mark.parametrize(
    "wrong",
    [lambda z: z * float("nan"), torch.zeros_like, lambda z: z + torch.linspace(0, 0.5, z.shape[1])],
    ids=["not finite", "all the same", "shifted"],
)
def test_a_clip_of_which_float16_says_something_else_is_asked_again(monkeypatch, wrong):
    """Of every clip some neighbours are asked both ways; the other clips of its call do not matter."""
    model, db = cnn14(torch.float32), clips(2, seed=1)
    half = Half(model, wrong)
    monkeypatch.setattr(lime, "half_precision_copy", lambda fused, example: half)
    found = METHODS["lime"](model, db, TARGET, n_samples=40, batch_size=20)
    assert half.asked == [20] * 4
    own = METHODS["lime"](model, db, TARGET, n_samples=40, batch_size=20, dtype=torch.float32)
    assert half.asked == [20] * 4 and all(relative(found[i], own[i]) < 1e-4 for i in range(2))


def test_float16_is_believed_where_it_agrees(monkeypatch):
    model, db = cnn14(torch.float32), clips(2, seed=1)
    half = Half(model, lambda logits: logits * 1.001)
    monkeypatch.setattr(lime, "half_precision_copy", lambda fused, example: half)
    asked = []
    monkeypatch.setattr(lime, "classified", lambda *given: asked.append(given[0]) or classified(*given))
    METHODS["lime"](model, db, TARGET, n_samples=40, batch_size=20)
    assert [each is half for each in asked] == [True, False] * 2


def test_a_silent_clip_gets_weights_of_nothing():
    db = torch.full((1, 1, 32, 96), -100.0)
    for engine in ("fast", "reference"):
        found = METHODS["lime"](cnn14(torch.float32), db, TARGET[:1], engine=engine, n_samples=10)
        assert float(found.abs().max()) < 1e-6


def test_neighbours_by_hand():
    clip = clips(1, seed=4)[0]
    found = prepare(clip, n_samples=5, seed=3)
    state = np.random.RandomState(3)
    state.randint(0, high=1000)
    n_segments = len(np.unique(found.segments))
    expected = state.randint(0, 2, 5 * n_segments).reshape(5, n_segments)
    assert found.visible[0].all() and np.array_equal(found.visible[1:], expected[1:])
    for segment in range(n_segments):
        inside = found.segments == segment
        assert found.hidden[inside] == pytest.approx(clip[0].numpy()[inside].mean(dtype=float), abs=1e-4)


def test_ridge_by_its_normal_equations():
    found = prepare(clips(1, seed=4)[0], n_samples=60, seed=3)
    y = np.random.default_rng(0).random(60)
    x = np.column_stack([np.ones(60), found.visible])
    cosine = [
        row @ np.ones(len(row)) / (np.linalg.norm(row) or 1) / len(row) ** 0.5 for row in found.visible * 1.0
    ]
    w = np.diag(np.exp(-((1 - np.array(cosine)) ** 2) / 0.25**2) ** 0.5)
    penalty = np.diag([0.0] + [1.0] * found.visible.shape[1])
    expected = np.linalg.solve(x.T @ w @ x + penalty, x.T @ w @ y)[1:]
    assert regress(found, y) == pytest.approx(expected, rel=1e-8, abs=1e-12)


# Deep SHAP


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_shap_equals_the_library(dtype, tolerance, chunk_size):
    model, db = cnn14(dtype), clips(2, seed=1, silent_from=70).to(dtype)
    background = torch.cat([clips(3, seed=2), clips(2, seed=3, silent_from=50)]).to(dtype)
    expected = METHODS["shap"](model, db, TARGET, background=background, engine="reference")
    found = METHODS["shap"](model, db, TARGET, background=background, chunk_size=chunk_size)
    assert all(relative(found[i], expected[i]) < tolerance for i in range(2))
    assert float(additivity_error(model, db, TARGET, background, found).max()) < 1e-3


class Zoo(nn.Module):
    """Every kind of module that the fast engine knows, a residual sum, and a ReLU used once."""

    def __init__(self, activation: nn.Module, repeated: bool = False) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.norm = nn.BatchNorm2d(1)
        self.conv1 = nn.Conv2d(1, 4, 3, stride=2, padding=1, groups=1)
        self.act1 = activation
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2)
        self.bn2 = nn.BatchNorm2d(4)
        self.act2 = self.act1 if repeated else copy.deepcopy(activation)
        self.average = nn.AdaptiveAvgPool2d((1, None))
        self.conv3 = nn.Conv1d(4, 6, 3, padding="same")
        self.bn3 = nn.BatchNorm1d(6)
        self.pool3 = nn.MaxPool1d(3)
        self.linear = nn.Linear(6 * 8, 4)

    def forward(self, db: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.act1(self.conv1(self.norm(db))))
        x = x + self.act2(self.bn2(self.conv2(x)))
        x = self.average(x).squeeze(2)
        return self.linear(self.pool3(self.bn3(self.conv3(x))).flatten(1))


ACTIVATIONS = [
    nn.ReLU(),
    nn.LeakyReLU(0.1),
    nn.ELU(),
    nn.SELU(),
    nn.GELU(),
    nn.Sigmoid(),
    nn.Tanh(),
    nn.Softplus(),
]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda module: type(module).__name__)
def test_shap_equals_the_library_on_other_modules(activation):
    model = trained_looking(Zoo(activation)).double()
    db, background = (clips(2, seed=1).double() + 60) / 10, (clips(3, seed=2).double() + 60) / 10
    expected = METHODS["shap"](model, db, TARGET, background=background, engine="reference")
    found = METHODS["shap"](model, db, TARGET, background=background)
    assert relative(found, expected) < 1e-9
    assert float(additivity_error(model, db, TARGET, background, found).max()) < 1e-9


def test_shap_adds_up_where_a_module_is_used_twice_and_windows_overlap():
    """shap keeps one activation per module and overwrites overlapping maxima; the fast engine does not."""
    model = trained_looking(Zoo(nn.ReLU(), repeated=True)).double()
    model.pool = nn.MaxPool2d(3, stride=2, padding=1)
    db, background = (clips(2, seed=1).double() + 60) / 10, (clips(3, seed=2).double() + 60) / 10
    found = METHODS["shap"](model, db, TARGET, background=background)
    assert float(additivity_error(model, db, TARGET, background, found).max()) < 1e-9


def test_shap_of_a_clip_that_is_the_background_is_zero():
    model, db = cnn14(torch.float64), clips(1, seed=1).double()
    assert float(METHODS["shap"](model, db, TARGET[:1], background=db).abs().max()) == 0.0


def test_shap_rescale_by_hand():
    """One ReLU and one linear layer: contribution_i = w_i (relu(x_i) - relu(b_i)), summed over b."""
    model = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(4, 1, bias=False)).double()
    x = torch.tensor([2.0, -1.0, 3.0, -2.0], dtype=torch.float64).view(1, 1, 1, 4)
    b = torch.tensor([[-1.0, 2.0, 1.0, -5.0], [2.0, -1.0, 3.0, 4.0]], dtype=torch.float64).view(2, 1, 1, 4)
    w = model[2].weight.detach().view(1, 1, 1, 4)
    expected = (w * (x.relu() - b.relu())).mean(dim=0, keepdim=True)
    found = METHODS["shap"](model, x, torch.tensor([0]), background=b)
    assert torch.allclose(found, expected, rtol=1e-12, atol=0)


class FunctionalReLU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3)
        self.linear = nn.Linear(4, 4)

    def forward(self, db: torch.Tensor) -> torch.Tensor:
        return self.linear(functional.relu(self.conv2(functional.relu(self.conv1(db)))).mean(dim=(2, 3)))


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_hidden_nonlinearities_are_refused_by_the_fast_engine_and_left_to_the_exact_one(scale):
    model = FunctionalReLU().double()
    model.linear.weight.data *= scale  # an untrained model's logits hardly differ
    db, background = (clips(2, seed=1).double() + 60) / 10, (clips(3, seed=2).double() + 60) / 10
    with pytest.raises(ValueError, match="not additive on this model.*functional.relu") as caught:
        METHODS["shap"](model, db, TARGET, background=background, engine="fast")
    assert "\n" not in str(caught.value)
    found = METHODS["shap"](model, db, TARGET, background=background)
    assert torch.equal(found, METHODS["shap"](model, db, TARGET, background=background, engine="exact"))
    assert float(additivity_error(model, db, TARGET, background, found).max()) < 1e-6  # of tiny differences
    with pytest.raises(ValueError, match="chunk_size must be 1 or more"):
        METHODS["shap"](model, db, TARGET, background=background, chunk_size=0)


def test_a_clip_runs_forward_once_per_chunk():
    """What makes it fast: convolutions see one clip, however many background clips there are."""
    model = copy.deepcopy(FunctionalReLU()).eval().requires_grad_(False)
    seen = []
    model.conv1.forward = lambda x, plain=model.conv1.forward: (seen.append(len(x)), plain(x))[1]
    pairs = PairedModel(model)
    background = clips(5, seed=2)
    pairs.record(background)
    pairs.explain(clips(1, seed=1), background, 0)
    assert seen == [5, 1]


@pytest.mark.parametrize("name", ["lime", "rise", "occlusion", "slime"])
def test_one_logit_has_no_probability_and_is_refused_instead_of_zeros(name):
    model = nn.Sequential(nn.Flatten(), nn.Linear(16 * 32, 1))
    with pytest.raises(ValueError, match="of one logit, use AudioClassifier"):
        METHODS[name](model, torch.randn(1, 1, 16, 32), torch.tensor([0]))

"""The inference copy gives the model's logits, and folds only what it can prove."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from audioxai_utils.models import inference
from audioxai_utils.models.cnn14 import Cnn14
from audioxai_utils.models.inference import half_precision_copy, inference_copy

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def shaken(model: nn.Module) -> nn.Module:
    """Batch norms as after training: no mean is 0, no variance 1."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, BATCH_NORMS):
            for tensor, low, high in (
                (module.running_mean, -1, 1), (module.running_var, 0.3, 3), (module.weight.data, 0.5, 2),
                (module.bias.data, -1, 1),
            ):  # fmt: skip
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)
    return model


def clips(n: int = 2, n_bins: int = 32, n_frames: int = 64) -> torch.Tensor:
    return torch.randn(n, 1, n_bins, n_frames, generator=torch.Generator().manual_seed(n)) * 3 - 2


def n_norms(model: nn.Module) -> int:
    return sum(isinstance(module, BATCH_NORMS) for module in model.modules())


@torch.no_grad()
def difference(model: nn.Module, fast: nn.Module, db: torch.Tensor) -> float:
    expected = copy.deepcopy(model).eval()(db)
    return float((fast(db) - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_cnn14_keeps_its_logits_with_all_twelve_norms_folded(dtype, tolerance):
    torch.manual_seed(0)
    model = shaken(Cnn14(32, 5, 1 / 16)).to(dtype).train()
    before = copy.deepcopy(model.state_dict())
    fast = inference_copy(model, clips(1).to(dtype))
    assert difference(model, fast, clips(4).to(dtype)) < tolerance
    # bn0 comes before any convolution
    assert n_norms(model) == 13 and n_norms(fast) == 1 and not fast.training
    assert model.training and all(
        torch.equal(before[key], value) for key, value in model.state_dict().items()
    )
    assert all(p.requires_grad for p in model.parameters()) and not any(
        p.requires_grad for p in fast.parameters()
    )
    assert not any(module._forward_hooks for module in model.modules())
    convolution = fast.conv_block2.conv1
    assert convolution.weight.is_contiguous(memory_format=torch.channels_last) == (dtype == torch.float32)


class Small(nn.Module):
    """A convolution, its batch norm and ReLU, and one of several ways to use them."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.way = way
        self.conv = nn.Conv2d(1, 3, 3, padding=1, bias=way != "no_bias")
        self.bn = nn.BatchNorm2d(3, affine=way != "no_affine", track_running_stats=way != "no_statistics")
        self.relu = nn.ReLU()

    def forward(self, db: torch.Tensor) -> torch.Tensor:
        x = self.conv(db)
        y = self.bn(x)
        z = self.relu(y)
        if self.way == "convolution_used_twice":
            z = z + x
        if self.way == "convolution_called_twice":
            z = z + self.conv(db.flip(3))
        if self.way == "norm_used_twice":
            z = z + y
        if self.way == "norm_after_relu":
            z = self.bn(self.relu(x))
        if self.way == "weights_read":
            z = z * self.bn.weight.sum()
        return z.square().mean(dim=(2, 3))


@pytest.mark.parametrize(
    ("way", "folds"),
    [
        ("plain", True), ("no_bias", True), ("norm_used_twice", True), ("no_affine", True), ("no_statistics", False),
        ("convolution_used_twice", False), ("convolution_called_twice", False), ("norm_after_relu", False),
        ("weights_read", False),
    ],
)  # fmt: skip
def test_only_what_stays_the_same_is_folded(way, folds):
    model = Small(way).double()
    model.bn.running_mean is None or model.bn.running_mean.fill_(0.7)
    model.bn.running_var is None or model.bn.running_var.fill_(2.5)
    fast = inference_copy(model, clips(1).double())
    assert difference(model, fast, clips(3).double()) < 1e-12
    assert (n_norms(fast) == 0) == folds
    assert fast.relu.inplace == (folds and way != "norm_used_twice")


def test_one_pair_that_cannot_be_folded_does_not_stop_the_others():
    model = nn.Sequential(
        nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1), nn.ReLU(), Small("weights_read")
    ).double()
    shaken(model)
    fast = inference_copy(model, clips(1).double())
    assert n_norms(fast) == 1 and isinstance(fast[1], nn.Identity)
    assert difference(model, fast, clips(3).double()) < 1e-12


def test_the_callers_hooks_go_along():
    model, seen = Small("plain"), []
    model.conv.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    fast = inference_copy(model, clips(1))
    seen.clear()
    fast(clips(3))
    assert seen == [(3, 3, 32, 64)]


def test_bfloat16_keeps_the_probabilities_roughly():
    torch.manual_seed(0)
    model = shaken(Cnn14(32, 5, 1 / 16))
    fast = inference_copy(model, clips(1), dtype=torch.bfloat16)
    assert fast.conv_block1.conv1.weight.dtype == torch.bfloat16 and fast.bn0.weight.dtype == torch.float32
    error = difference(model, fast, clips(4))
    assert 1e-5 < error < 0.05


def test_float16_is_taken_where_it_says_what_the_model_says():
    """What a GPU asks, on a processor: scores near the model's, nearer than bfloat16's."""
    torch.manual_seed(0)
    model = shaken(Cnn14(32, 5, 1 / 16))
    half = inference._near_in_half(model, clips(1))
    assert half.conv_block1.conv1.weight.dtype == torch.float16
    error = difference(model, half, clips(4))
    assert 1e-5 < error < inference.NEAR
    assert error < difference(model, inference_copy(model, clips(1), torch.bfloat16), clips(4)) / 2
    assert half_precision_copy(model, clips(1)) is None  # a processor has no use for it


class Large(Small):
    """Its middle is beyond float16's range (65,504), its scores are not."""

    def forward(self, x):
        return super().forward(x * 1e5) / 1e5


class OfOneType(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.weight = nn.Conv2d(1, 2, 3), nn.Parameter(torch.ones(2, 2))

    def forward(self, x):
        return self.conv(x).mean((2, 3)) @ self.weight


class Shifted(Small):
    """All scores lie near 3,000, where float16 knows steps of two, and tell classes apart by less."""

    def forward(self, x):
        return super().forward(x) / 10 + self.shift(torch.ones_like(x[:, :, 0, 0]))

    def __init__(self) -> None:
        super().__init__("plain")
        self.shift = nn.Linear(1, 3)
        self.shift.weight.data.zero_(), self.shift.bias.data.copy_(torch.tensor([3000.0, 3000.9, 3001.8]))


@pytest.mark.parametrize(
    "model",
    [lambda: Large("plain"), OfOneType, Shifted],
    ids=["out of range", "of one type", "large scores"],
)
def test_float16_is_left_where_a_model_cannot_be_asked_in_it(model):
    torch.manual_seed(0)
    assert inference._near_in_half(model().eval(), clips(1)) is None


def test_unknown_dtype_is_refused():
    with pytest.raises(ValueError, match="dtype must be None, torch.bfloat16"):
        inference_copy(Small("plain"), clips(1), dtype=torch.int8)


def test_a_model_without_layers_to_fold_is_only_copied():
    model = nn.Sequential(nn.Flatten(), nn.Linear(2048, 3))
    fast = inference_copy(model, clips(1))
    assert fast is not model and torch.equal(fast(clips(2)), model(clips(2)))
    assert functional.softmax(fast(clips(1)), dim=1).sum() == pytest.approx(1.0)

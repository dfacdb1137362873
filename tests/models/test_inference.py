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


@pytest.mark.parametrize("kind", inference.IN_PLACE)
@pytest.mark.parametrize("way", ["plain", "norm_used_twice"])
def test_a_nonlinearity_works_in_place_where_nothing_else_reads_its_input(kind, way):
    model = Small(way).double()
    model.relu = kind()
    model.bn.running_mean.fill_(0.7)
    fast = inference_copy(model, clips(1).double())
    assert difference(model, fast, clips(3).double()) < 1e-12 and n_norms(fast) == 0
    assert fast.relu.inplace == (way == "plain") and not model.relu.inplace


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


def test_float16_is_for_convolutions_and_nearer_than_bfloat16():
    """What a GPU asks, on a processor."""
    torch.manual_seed(0)
    model = shaken(Cnn14(32, 5, 1 / 16))
    half = inference._in_half(inference_copy(model, clips(1)), clips(1))
    assert half.conv_block1.conv1.weight.dtype == torch.float16 and half.head.weight.dtype == torch.float32
    error = difference(model, half, clips(4))
    assert 1e-5 < error < difference(model, inference_copy(model, clips(1), torch.bfloat16), clips(4)) / 2
    assert half_precision_copy(model, clips(1)) is None  # a processor has no use for it


class Own(nn.Module):
    """A convolution, and a tail that float16 may not pass."""

    def __init__(self, tail) -> None:
        super().__init__()
        self.conv, self.fc, self.tail = nn.Conv2d(1, 2, 3), nn.Linear(2, 2), tail

    def forward(self, x):
        return self.tail(self, self.conv(x).mean((2, 3)))


def of_float32(module, x):
    assert x.dtype == torch.float32
    return module.fc(x)


def by_type(module, x):
    if x.dtype != torch.float32:
        raise TypeError("float32 alone")
    return module.fc(x)


@pytest.mark.parametrize(
    "tail",
    [of_float32, by_type, lambda module, x: x @ module.fc.weight],
    ids=["asserts its type", "asks for its type", "multiplies with its own weight"],
)
def test_a_model_that_cannot_be_asked_in_float16_is_not(tail):
    assert inference._in_half(Own(tail).eval(), clips(1)) is None


def test_a_model_of_another_type_is_not_asked_in_float16():
    mixed = Own(lambda module, x: module.fc(x)).eval()
    assert inference._in_half(mixed, clips(1)) is not None
    mixed.fc.bfloat16()
    assert inference._in_half(mixed, clips(1)) is None


def test_layers_may_be_given_their_input_by_name():
    model = Own(lambda module, x: module.fc(input=x)).eval()
    half = inference._in_half(model, clips(1))
    assert difference(model, half, clips(4)) < 0.01


class Shifted(Small):
    """Scores near 3,000 tell classes apart by less than one, and the shift is read again: it must not be folded."""

    def __init__(self) -> None:
        super().__init__("plain")
        nn.init.constant_(self.conv.bias, 0.5)

    def forward(self, x):
        own = super().forward(x)
        return own / own.abs().max() + 3000 + torch.tensor([0.0, 0.1, 0.2]) * self.conv.bias


def test_scores_that_share_a_large_part_do_not_hide_a_wrong_fold():
    model = Shifted().eval()
    model.bn.running_mean.fill_(1.0)
    fast = inference_copy(model, clips(1))
    expected, found = (each(clips(3)).softmax(1) for each in (model, fast))
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_unknown_dtype_is_refused():
    with pytest.raises(ValueError, match="dtype must be None, torch.bfloat16"):
        inference_copy(Small("plain"), clips(1), dtype=torch.int8)


def test_a_model_without_layers_to_fold_is_only_copied():
    model = nn.Sequential(nn.Flatten(), nn.Linear(2048, 3))
    fast = inference_copy(model, clips(1))
    assert fast is not model and torch.equal(fast(clips(2)), model(clips(2)))
    assert functional.softmax(fast(clips(1)), dim=1).sum() == pytest.approx(1.0)

"""Guided Grad-CAM against the paper's rule, written as a ReLU of its own."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from audioxai_utils.attributions import METHODS
from audioxai_utils.attributions.guided_gradcam import guided
from audioxai_utils.models.cnn14 import Cnn14

TARGET = torch.tensor([1, 3])


class GuidedReLU(torch.autograd.Function):
    """relu whose gradient passes where both the input and the incoming gradient are positive."""

    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return x.clamp_min(0)

    @staticmethod
    def backward(context, gradient):
        (x,) = context.saved_tensors
        return gradient.clamp_min(0) * (x > 0)


class Guided(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return GuidedReLU.apply(x)


def test_guided_gradcam_is_guided_gradients_where_gradcam_is_positive():
    model = drawn(Cnn14(32, 4, 1 / 32)).double().eval()
    db = torch.randn(2, 1, 32, 64, generator=torch.Generator().manual_seed(1)).double()
    oracle = copy.deepcopy(model)
    for block in (getattr(oracle, f"conv_block{i}") for i in range(1, 7)):
        block.relu1, block.relu2 = Guided(), Guided()
    oracle.relu = Guided()
    x = db.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(oracle(x).gather(1, TARGET[:, None]).sum(), x)
    expected = gradient * METHODS["gradcam"](model, db, TARGET).clamp_min(0)
    found, plain = (METHODS[name](model, db, TARGET, batch_size=1) for name in ("guided_gradcam", "saliency"))
    size = expected.abs().max()
    assert size > 0 and (found - expected).abs().max() < 1e-9 * size
    assert (expected - plain).abs().max() > 1e-3 * plain.abs().max()


def test_guided_gradcam_refuses_what_it_cannot_guide():
    with pytest.raises(ValueError, match="needs a model whose nonlinearities are nn.ReLU modules"):
        METHODS["guided_gradcam"](
            nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten()), torch.zeros(1, 1, 2, 2), TARGET[:1]
        )


def drawn(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for values in network.parameters():
        values.data = torch.randn(values.shape, generator=generator, dtype=torch.float64)
    return network


class Skipping(nn.Module):
    """What goes into a ReLU goes past it too, as in a residual network that normalises first."""

    def __init__(self, relu: nn.Module) -> None:
        super().__init__()
        self.first, self.relu, self.second = nn.Conv2d(1, 4, 3), relu, nn.Conv2d(4, 4, 1)

    def forward(self, db: torch.Tensor) -> torch.Tensor:
        x = self.first(db)
        return x + self.second(self.relu(x))


def straight(relu: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), relu, nn.Conv2d(4, 4, 1), relu, nn.Conv2d(4, 4, 1))


@pytest.mark.parametrize(
    ("network", "relu"), [(Skipping, nn.ReLU()), (straight, nn.ReLU()), (straight, nn.ReLU(inplace=True))]
)
def test_what_reaches_a_relu_s_output_is_clamped_and_what_goes_past_it_is_not(network, relu):
    """captum's clamp the sum of both ways, at the input."""
    picture, gradients = torch.randn(2, 1, 6, 7, generator=torch.Generator().manual_seed(1)).double(), []
    for own in (relu, Guided()):
        db, model = picture.clone().requires_grad_(), drawn(network(own))
        with guided([relu]) if own is relu else nullcontext():
            gradients += torch.autograd.grad(model(db)[:, 1].sum(), db)
    torch.testing.assert_close(*gradients)
    assert (gradients[0] < 0).any() and not relu._forward_hooks

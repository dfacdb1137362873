"""Batch norms folded into the convolutions of a traced graph: the same values, whatever else uses them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from audioxai_utils.attributions.exact import exact_deep_shap, folding, graph

DOUBLE = torch.float64


def statistics(norm: nn.Module) -> nn.Module:
    """A batch norm that changes what it is given: statistics, scales and shifts of a trained one."""
    generator = torch.Generator().manual_seed(1)
    for values in (norm.running_mean, norm.weight, norm.bias):
        if values is not None:
            values.data = torch.randn(values.shape, generator=generator, dtype=DOUBLE)
    norm.running_var.data = 0.5 + torch.rand(norm.running_var.shape, generator=generator, dtype=DOUBLE)
    return norm.double()


class Net(nn.Module):
    """A convolution, a batch norm, and what ``join`` makes of both outputs."""

    def __init__(self, conv: nn.Module, norm: nn.Module, join=lambda mapped, normed: normed.relu()) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.join = conv.double(), statistics(norm), join

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mapped = self.conv(x)
        return self.join(mapped, self.norm(mapped)).flatten(2).mean(2)


FOLDED = {
    "plain": Net(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)),
    "shifted": Net(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4, eps=0.1)),
    "without scale": Net(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, affine=False)),
    "transposed": Net(nn.ConvTranspose2d(1, 4, 3), nn.BatchNorm2d(4)),
    "in groups": Net(nn.Conv2d(2, 4, 3, groups=2), nn.BatchNorm2d(4)),
}
LEFT = {
    "used twice": Net(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), lambda mapped, normed: mapped * normed.relu()),
    "transposed in groups": Net(nn.ConvTranspose2d(2, 4, 3, groups=2), nn.BatchNorm2d(4)),
}


def values(net: nn.Module, dtype: torch.dtype = DOUBLE) -> torch.Tensor:
    shape = (getattr(net.conv, "in_channels", 1), 8, 9)
    generator = torch.Generator().manual_seed(2)
    x, b = (torch.randn(n, *shape, generator=generator, dtype=DOUBLE).to(dtype) for n in (2, 3))
    return exact_deep_shap(net.to(dtype).eval(), x, b, torch.tensor([1, 3]))


@pytest.mark.parametrize("name", [*FOLDED, *LEFT])
def test_values_are_those_of_the_graph_as_it_was_written(monkeypatch, name):
    """Which norms are folded is counted; a fold that changed the outputs would be refused, not hidden."""
    done, fold = [], folding._fold
    monkeypatch.setattr(folding, "_fold", lambda *both: (done.append(name), fold(*both)))
    net = {**FOLDED, **LEFT}[name]
    folded = values(net)
    assert bool(done) == (name in FOLDED)
    monkeypatch.setattr(graph, "fold_batch_norms", lambda operations, alive: None)
    torch.testing.assert_close(folded, values(net), rtol=1e-10, atol=1e-13)


def test_a_change_of_the_norm_between_two_calls_counts():
    """A network's trace is kept for its next call, its weights are not."""
    net = Net(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))
    before = values(net)
    with torch.no_grad():
        net.norm.weight.mul_(2)
        net.norm.bias.mul_(2)
    torch.testing.assert_close(values(net), 2 * before)


def test_single_precision_adds_up_as_well():
    found = values(Net(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)), torch.float32)
    torch.testing.assert_close(
        found.double(), values(Net(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))), rtol=1e-3, atol=1e-6
    )

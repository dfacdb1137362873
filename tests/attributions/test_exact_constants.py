"""Exact Deep SHAP of functions that write into constants before they use them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from audioxai_utils.attributions.exact import exact_deep_shap

DOUBLE = torch.float64


def spectra(x: torch.Tensor) -> torch.Tensor:
    """Powers with a window shorter than the transform, which ``torch.stft`` pads by writing into zeros."""
    window = torch.hann_window(20, dtype=x.dtype)
    return torch.stft(x, 32, 16, 20, window, return_complex=True).abs().square().flatten(1)


def written_ones(x: torch.Tensor) -> torch.Tensor:
    weights = torch.ones(64, dtype=x.dtype)
    weights[10:20] = 0.5
    weights[15:].mul_(3)
    return (x * weights).tanh()


class OwnBuffer(nn.Module):
    """Writes into a copy that it makes of its buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weights", torch.linspace(0, 1, 64, dtype=DOUBLE))

    def forward(self, x):
        weights = self.weights.clone()
        weights[::2] = 2.0
        return (x * weights).tanh()


@pytest.mark.parametrize("f", [spectra, written_ones, OwnBuffer()], ids=["window", "ones", "buffer"])
def test_values_add_up_where_constants_are_written_into(f):
    generator = torch.Generator().manual_seed(0)
    x, background = (torch.randn(n, 64, generator=generator, dtype=DOUBLE) for n in (2, 3))
    target = torch.tensor([5, 12])
    values = exact_deep_shap(f, x, background, target)
    with torch.no_grad():
        rise = f(x)[[0, 1], target] - f(background)[:, target].mean(0)
    torch.testing.assert_close(values.sum(1), rise, rtol=1e-10, atol=1e-12)


def test_a_module_s_buffer_stays_as_it_was():
    net = OwnBuffer()
    before = net.weights.clone()
    x = torch.ones(1, 64, dtype=DOUBLE)
    exact_deep_shap(net, x, torch.zeros_like(x), torch.tensor([3]))
    assert torch.equal(net.weights, before)

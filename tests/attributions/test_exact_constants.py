"""Exact Deep SHAP of functions that write into tensors before they use them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from audioxai_utils.attributions.exact import NotExact, exact_deep_shap

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


def placed(x: torch.Tensor) -> torch.Tensor:
    """What hangs on the input is written into zeros."""
    out = torch.zeros(len(x), 64, dtype=x.dtype)
    out[:, :32] = x[:, 32:]
    return (out * x).tanh()


def scaled_in_place(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[:, 2:40] *= torch.linspace(0, 2, 38, dtype=x.dtype)
    y[:, 5] = 0.5
    return y.relu_() * x


def on_a_diagonal(x: torch.Tensor) -> torch.Tensor:
    y = torch.zeros(len(x), 64, 64, dtype=x.dtype)
    y.diagonal(dim1=1, dim2=2).copy_(x)
    return (y @ y.roll(1, 1)).sum(1).tanh()


@pytest.mark.parametrize(
    "f",
    [spectra, written_ones, OwnBuffer(), placed, scaled_in_place, on_a_diagonal],
    ids=["window", "ones", "buffer", "placed", "scaled", "diagonal"],
)
def test_values_add_up_where_f_writes_in_place(f):
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


def test_writing_the_input_into_a_constant_s_copy_is_refused_in_a_line():
    weights = torch.linspace(0, 1, 64, dtype=DOUBLE)

    def f(x):
        out = weights.expand(len(x), -1).clone()
        out[:, :4] = x[:, :4]
        return out * x

    x = torch.ones(1, 64, dtype=DOUBLE)
    with pytest.raises(NotExact, match="into a copy of a constant; torch.where"):
        exact_deep_shap(f, x, torch.zeros_like(x), torch.tensor([3]))

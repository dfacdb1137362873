"""Rounding that makes two nearly equal states one, and a default dtype that is given back."""

import pytest
import torch

from audioxai_utils.numerics import default_dtype, round_to_bfloat16


def test_default_dtype_ends_with_its_block_also_after_an_error():
    with pytest.raises(RuntimeError, match="inside"), default_dtype(torch.float64):
        assert torch.rand(1).dtype == torch.float64
        raise RuntimeError("inside")
    assert torch.rand(1).dtype == torch.float32


def test_rounding_keeps_eight_significant_bits_and_the_dtype():
    values = torch.tensor([1 + 2**-7, 1 + 2**-7 + 2**-10, -3.0, 0.0, 1e-30], dtype=torch.float64)
    expected = [1 + 2**-7, 1 + 2**-7, -3.0, 0.0]
    round_to_bfloat16([values])
    assert values.dtype == torch.float64 and values[:4].tolist() == expected
    assert values[4].item() == pytest.approx(1e-30, rel=2**-8)


def test_rounding_leaves_counts_alone():
    counts = torch.tensor([257, 1001])
    round_to_bfloat16([counts])
    assert counts.tolist() == [257, 1001]


def test_small_differences_end_and_few_stay():
    """Of values that differ by a share d, about 500 d fall on two sides of an edge."""
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(200_000, generator=generator, dtype=torch.float64) + 0.5
    near = values * (1 + 1e-5)
    round_to_bfloat16([values, near])
    assert 0 < (values != near).double().mean() < 2 * 500 * 1e-5

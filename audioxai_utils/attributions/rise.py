"""RISE: which bins were shown when random coarse masks left the explained class probable.

A bin's value is the mean probability over masks, weighted by how far they show the bin, minus
the mean probability over all masks: positive where showing the bin helps.

References
----------
Petsiuk et al. (2018), RISE: Randomized Input Sampling for Explanation of Black-box Models,
eq. 6 and section 3.2 (coarse grid, bilinear upsampling, random shift). Two deviations: each bin
is divided by what the drawn masks showed of it instead of by its expectation, and the mean
probability is subtracted, so that the values are signed. Hidden bins go to ``fill`` dB.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional

from ..models.inference import inference_copy
from ..models.reading import reading_of
from ..numerics import at_once, masked
from .integrated_gradients import at_least
from .registry import register

DRAWN = 8  # masks drawn together


@register("rise", budget="n_masks", one_by_one=True)
def rise(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    *,
    n_masks: int = 1000,
    grid: tuple[int, int] = (8, 16),
    share: float = 0.5,
    fill: float | None = None,
    seed: int = 0,
    batch_size: int | None = None,
) -> torch.Tensor:
    """Probability of the class where a bin is shown, above the mean.

    Parameters
    ----------
    n_masks : int
        Random masks, 2 or more; every clip meets the same ones.
    grid, share : (frequency, time), float
        Cells of a coarse mask, and the probability that one is shown, between 0 and 1.
    fill : float, optional
        Level of a hidden bin (dB); default the model's floor.
    seed : int
        Starts the masks, the same on every device.
    batch_size : int, optional
        Masked clips classified at once; default 16, on a GPU 128.
    """
    at_least(2, n_masks=n_masks)
    at_least(1, batch_size=batch_size, grid=min(grid))
    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1; got {share}")
    fast, reading = inference_copy(model, db), reading_of(model)
    fill = reading.floor if fill is None else fill
    weighted, shown, total = torch.zeros_like(db), torch.zeros_like(db[:1]), torch.zeros_like(db[:, 0, 0, 0])
    with torch.no_grad():
        size = at_once(batch_size, db.device)
        # what all masks have in common has no part in the map, and would leave its rounding there
        whole = [
            reading.probabilities(fast(db[i : i + 1]))[0, label] for i, label in enumerate(target.tolist())
        ]
        for masks in random_masks(n_masks, tuple(grid), share, seed, db, size):
            shown += masks.sum(0, keepdim=True)
            for clip, label in enumerate(target.tolist()):
                p = reading.probabilities(fast(masked(db[clip], masks, fill)))[:, label]  # (masks,)
                p = p - whole[clip]
                weighted[clip] += torch.einsum("n,ncft->cft", p, masks)
                total[clip] += p.sum()
    return weighted / shown.clamp_min(1e-12) - (total / n_masks).view(-1, 1, 1, 1)


def random_masks(
    n_masks: int, grid: tuple[int, int], share: float, seed: int, like: torch.Tensor, batch_size: int
) -> Iterator[torch.Tensor]:
    """Smooth random masks in [0, 1], (up to batch_size, 1, F, T) at a time.

    A grid one cell larger than asked for is upsampled, and a random part of it is cut out.
    """
    size = like.shape[2:]
    cell = [-(-extent // cells) for extent, cells in zip(size, grid)]  # bins and frames of a cell, rounded up
    upsampled = [(cells + 1) * step for cells, step in zip(grid, cell)]
    for coarse, shifts in _drawn(n_masks, grid, cell, share, seed, batch_size):
        fine = functional.interpolate(coarse.to(like), upsampled, mode="bilinear", align_corners=False)
        yield torch.stack(
            [fine[i, :, f : f + size[0], t : t + size[1]] for i, (f, t) in enumerate(shifts.tolist())]
        )


def _drawn(n_masks: int, grid, cell, share: float, seed: int, batch_size: int):
    """Coarse masks (n, 1, cells + 1, cells + 1) and their shifts (n, 2), a few draws at a time whatever the
    batch, so that no mask depends on it.
    """
    generator, coarse, shifts = torch.Generator().manual_seed(seed), [], []
    for first in range(0, n_masks, DRAWN):
        n = min(DRAWN, n_masks - first)
        coarse.append(torch.rand(n, 1, grid[0] + 1, grid[1] + 1, generator=generator) < share)
        shifts.append(torch.stack([torch.randint(0, step, (n,), generator=generator) for step in cell], 1))
    return zip(torch.cat(coarse).split(batch_size), torch.cat(shifts).split(batch_size))

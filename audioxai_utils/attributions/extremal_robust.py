"""Extremal perturbation whose mask holds under any fill: what is masked goes to another level at every step.

Everything but the fill is `extremal`'s. At each step one of these takes the place of what is masked: the
model's floor, the clip's minimum, the mean and a low quantile of each bin over the reference clips, that mean
with noise; or the power is masked, no lower than the floor, which is nearly what is heard. A mask is judged
by the mean of its objective over all of them without noise, so that none that lives on one fill is kept.

References
----------
Fong & Vedaldi (2017), section 4 (random perturbations against artefacts), and those of ``extremal``.
"""

from __future__ import annotations

import torch
from torch import nn

from ..models.inference import inference_copy
from ..models.reading import reading_of
from ..numerics import at_once, masked
from .extremal import (
    LEAST_GAIN,
    START,
    Draw,
    Plan,
    cut,
    masked_power,
    penalty,
    upsampled,
    wanted_area,
    with_mean,
)
from .integrated_gradients import at_least
from .registry import register
from .shap import checked_background

LOW = 0.05  # quantile of a bin
CHECK_EVERY = 10  # steps between two looks at the mask under every fill


@register("extremal_robust", background=True, gradients=True)
def extremal_robust(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    *,
    background: torch.Tensor | None = None,
    area: float | None = None,
    n_steps: int = 100,
    area_weight: float = 2.0,
    grid: tuple[int, int] = (32, 64),
    noise: float = 1.0,
    seed: int = 0,
    batch_size: int | None = None,
) -> torch.Tensor:
    """Each clip's optimised mask minus 1/2, or minus the level that leaves ``area`` above 0.

    Parameters
    ----------
    background : Tensor (n, 1, frequency, time), optional
        Reference clips in dB, of which a bin's mean, low quantile and spread are taken. Default: the clip.
    area, area_weight, grid, noise, n_steps, seed, batch_size
        As in ``extremal``.
    """
    at_least(1, batch_size=batch_size)
    if background is not None:
        background = checked_background(background, db, model)
    if len(grid) != 2:
        raise ValueError(f"grid must be (frequency, time) cells; got {grid}")
    grid = tuple(min(cells, extent) for cells, extent in zip(grid, db.shape[2:]))
    plan = Plan("both", grid, area, n_steps, 3, 0.3, area_weight, 0.5, 1, noise, seed)
    fast = inference_copy(model, db)
    parts = [
        _optimise(fast, db[rows], target[rows], plan, background)
        for rows in torch.arange(len(db), device=db.device).split(at_once(batch_size, db.device))
    ]
    return torch.cat(parts)


class Fills:
    """Levels that take the place of what is masked of clips (n, 1, F, T)."""

    def __init__(self, db: torch.Tensor, background: torch.Tensor | None, floor: float) -> None:
        known = db if background is None else background
        if background is None:  # each clip its own, so that none depends on its batch
            mean, low = known.mean(3, keepdim=True), known.quantile(LOW, 3, keepdim=True)
            self.spread = known.std(3, keepdim=True, correction=0)
        else:
            mean, low, self.spread = bins_of(known, correction=0)[:, None, None, :, None]
        self.floor, self.mean = floor, mean
        self.levels = (torch.full_like(db[:1, :, :1, :1], floor), db.amin((1, 2, 3), keepdim=True), mean, low)

    def __len__(self) -> int:
        return len(self.levels) + 2

    def apply(self, db: torch.Tensor, mask: torch.Tensor, number: int, rows, noise=None) -> torch.Tensor:
        """Clips ``db`` with a mask under fill ``number``; ``rows`` are their places among all."""
        if number == len(self) - 1:
            return masked_power(db, mask, self.floor)
        if number == len(self.levels):
            level = self._of(self.mean, rows)
            if noise is not None:
                level = (level + self._of(self.spread, rows) * noise).clamp_min(self.floor)
        else:
            level = self._of(self.levels[number], rows)
        return masked(db, mask, level)

    @staticmethod
    def _of(level: torch.Tensor, rows) -> torch.Tensor:
        return level[rows] if len(level) > 1 else level


def bins_of(db: torch.Tensor, correction: int = 1) -> torch.Tensor:
    """Mean, low quantile and standard deviation (3, F) of each bin over pictures (n, 1, F, T)."""
    rows = db.transpose(0, 2).flatten(1)  # (F, n T)
    low = rows.kthvalue(max(1, round(LOW * rows.shape[1])), 1)[0]
    return torch.stack([rows.mean(1), low, rows.std(1, correction=correction)])


def _loss(model, target, parts) -> torch.Tensor:
    """-log p_c(kept) - log(1 - p_c(removed)) per clip (n,), nats."""
    reading = reading_of(model)
    kept, removed = model(torch.cat(parts)).to(parts[0].dtype).chunk(2)
    return -reading.log_present(kept, target) - reading.log_absent(removed, target)


def _optimise(
    model: nn.Module, db: torch.Tensor, target: torch.Tensor, plan: Plan, background: torch.Tensor | None
) -> torch.Tensor:
    fills = Fills(db, background, reading_of(model).floor)
    coarse = torch.full((len(db), 1, *plan.grid), START, dtype=db.dtype, device=db.device, requires_grad=True)
    adam = torch.optim.Adam([coarse], lr=plan.learning_rate)
    generator = torch.Generator().manual_seed(plan.seed)
    best, score = torch.zeros_like(db), torch.full((len(db),), float("inf"), dtype=db.dtype, device=db.device)
    everything = torch.arange(len(db), device=db.device)
    for step in range(1, plan.n_steps + 1):
        draw = Draw(db, plan, generator)
        mask = draw.shift(upsampled(coarse, db)).sigmoid()
        noise = torch.randn((1, *db.shape[1:]), generator=generator).to(db)
        number = int(torch.randint(len(fills), (), generator=generator))
        clips = db + draw.noise
        parts = [fills.apply(clips, each, number, everything, noise) for each in (mask, 1 - mask)]
        loss = _loss(model, target, parts) + penalty(mask, coarse, plan, wanted_area(plan, step))
        adam.zero_grad(set_to_none=True)
        loss.sum().backward()
        adam.step()
        if step % CHECK_EVERY == 0 or step == plan.n_steps:
            found, candidate = _looked(model, db, target, coarse.detach(), plan, fills)
            better = found < score - LEAST_GAIN
            score = torch.where(better, found, score)
            best = torch.where(better[:, None, None, None], candidate, best)
    return best - 0.5 if plan.area is None else cut(best, plan.area)


@torch.no_grad()
def _looked(model, db, target, coarse, plan: Plan, fills: Fills) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean objective (n,) of the masks over all fills, without noise and jitter; and the masks."""
    logits = upsampled(coarse, db)
    mask = logits.sigmoid() if plan.area is None else with_mean(logits, plan.area)
    rows = torch.arange(len(db), device=db.device)
    losses = [
        _loss(model, target, [fills.apply(db, each, number, rows) for each in (mask, 1 - mask)])
        for number in range(len(fills))
    ]
    return sum(losses) / len(losses) + penalty(mask, coarse, plan, plan.area), mask

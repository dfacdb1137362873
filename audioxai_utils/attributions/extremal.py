"""Extremal perturbation: per clip, a small and smooth mask that keeps the class and whose removal takes it
away.

A coarse grid of values is upsampled bilinearly to z(f, t), and the mask is m = sigmoid(z). Adam
minimises, over the grid,

    -log p_c(kept) - log(1 - p_c(removed)) + area_weight * mean(m) + smoothness * TV(m)

What is returned is m - 1/2. Mask ``minmax`` of it is m again (but for its own extremes), and that
soft mask is what was extremal. ``bin`` keeps where m > 1/2 and ``topK`` cut m at other levels; they
put silence where m had left a little, which a classifier may never have met.

With ``area`` given, mean(m) is pulled towards it along a falling schedule instead, then set to it by
one shift of z, and what is returned is m minus its own quantile: ``minmax`` is still m (stretched
where a share far from what the class needs leaves m's extremes away from 0 and 1), and ``bin`` keeps
exactly that share of the bins.

Three domains. ``db`` masks decibels towards the model's floor (-100 dB in the study), as scores do: kept = (X
- floor) m + floor. ``power`` masks power, as the study's sounds are made: kept = X + 10 log10 m, no lower
than that. It needs no waveform, and for smooth masks it is close to the re-analysed sound. ``heard`` is that
sound itself: the masked power is inverted with the clip's own phase and analysed again, and the gradient goes
through both; it needs the options ``waveform`` and ``spectrogram``. The removed part has 1 - m in the place
of m. ``both`` alternates between ``db`` and ``power`` from step to step, so that one mask holds for what is
scored and, nearly, for what is heard.

Against adversarial patterns, which one model alone sees, the grid is coarse, the mask is shifted by
up to ``jitter`` bins and frames against the clip, and the clip gets ``noise`` dB of noise, anew at
every step. Every few steps the mask is tried without either; the best one seen is kept, and a clip
whose mask gets no better is done.

References
----------
Fong & Vedaldi (2017), Interpretable Explanations of Black Boxes by Meaningful Perturbation, section
4 (coarse mask, total variation, jitter); Fong et al. (2019), Understanding Deep Networks via
Extremal Perturbations and Smooth Masks, section 3 (fixed area: their penalty
compares the sorted mask with a step and makes it binary, here it is on the mean, and binary masks
are cut after); Paissan et al. (2024), Listenable Maps for Audio Classifiers, section 3 (kept and
removed part in one objective; their mask acts on the magnitude and comes from a decoder).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from ..models.inference import inference_copy
from ..models.reading import STUDY, reading_of
from ..numerics import at_once, largest, masked
from .heard import Sounds
from .integrated_gradients import at_least
from .registry import register

DOMAINS = {"both": ("db", "power"), "db": ("db",), "power": ("power",), "heard": ("heard",)}
START = 1.5  # of z everywhere: the first mask keeps most, and so the class
CHECK_EVERY = 10  # steps between two looks at the mask without noise and jitter
LEAST_GAIN = 0.005  # nats by which the objective must fall to count as better
AREA_WEIGHT = 300.0  # nats per squared miss of a given area
AREA = 0.2  # share of the bins that `extremal_20` keeps
AREA_REACHED = 0.5  # share of the steps after which the schedule asks for the given area itself


@dataclass(frozen=True)
class Plan:
    """The options of ``extremal``, checked.

    Attributes
    ----------
    domain : "both" | "db" | "power" | "heard"
        Where the mask acts while it is optimised; see the module's text.
    grid : (frequency, time)
        Cells of the coarse grid; at most one a bin and frame.
    area : float, optional
        Mean of the mask and share of the bins above 0, 0 to 1; ``area_weight`` is then unused.
        Default: as small as ``area_weight`` makes it.
    n_steps, patience : int
        Most steps, and the looks (10 steps each) without gain after which a clip is done.
    learning_rate : float
        Adam's, of the grid's logits.
    area_weight, smoothness : float
        Nats per unit of area, and per mean absolute difference of neighbouring cells.
    jitter : int
        Largest shift of the mask (bins and frames).
    noise : float
        Standard deviation of the noise on the clip (dB).
    seed : int
        Starts jitter and noise of every clip; the same on every device.
    """

    domain: str
    grid: tuple[int, int]
    area: float | None
    n_steps: int
    patience: int
    learning_rate: float
    area_weight: float
    smoothness: float
    jitter: int
    noise: float
    seed: int

    def __post_init__(self) -> None:
        if self.domain not in DOMAINS:
            raise ValueError(f"domain must be one of {', '.join(DOMAINS)}; got {self.domain!r}")
        if self.area is not None and not 0 < self.area < 1:
            raise ValueError(f"area must be None or a share between 0 and 1; got {self.area}")
        if min(self.grid) < 1:
            raise ValueError(f"grid must be (frequency, time) cells, 1 or more each; got {self.grid}")
        for name in ("n_steps", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more; got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0; got {self.learning_rate}")
        for name in ("area_weight", "smoothness", "jitter", "noise"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be 0 or more; got {getattr(self, name)}")


@register("extremal", gradients=True)
def extremal(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    *,
    domain: str = "both",
    grid: tuple[int, int] = (32, 64),
    area: float | None = None,
    n_steps: int = 100,
    patience: int = 3,
    learning_rate: float = 0.3,
    area_weight: float = 2.0,
    smoothness: float = 0.5,
    jitter: int = 1,
    noise: float = 1.0,
    seed: int = 0,
    batch_size: int | None = None,
    waveform: torch.Tensor | None = None,
    spectrogram: Callable | None = None,
) -> torch.Tensor:
    """Each clip's optimised mask minus 1/2, or minus the level that leaves ``area`` above 0.

    ``batch_size`` clips (8, on a GPU 128) are optimised at once, which bounds the memory: twice as many
    spectrograms pass the model. ``waveform`` (n, samples) and ``spectrogram``, the transform that made
    ``db`` of it, serve the domain ``heard`` alone. The other options are :class:`Plan`'s.
    """
    at_least(1, batch_size=batch_size)
    if len(grid) != 2:
        raise ValueError(f"grid must be (frequency, time) cells; got {grid}")
    grid = tuple(min(cells, extent) for cells, extent in zip(grid, db.shape[2:]))
    plan = Plan(
        domain, grid, area, n_steps, patience, learning_rate, area_weight, smoothness, jitter, noise, seed
    )
    sounds = Sounds.of(waveform, spectrogram, db) if domain == "heard" else None
    fast = inference_copy(model, db)
    parts = [
        _optimise(fast, db[rows], target[rows], plan, None if sounds is None else sounds[rows])
        for rows in torch.arange(len(db), device=db.device).split(at_once(batch_size, db.device))
    ]
    return torch.cat(parts)


def _optimise(
    model: nn.Module, db: torch.Tensor, target: torch.Tensor, plan: Plan, sounds: Sounds | None
) -> torch.Tensor:
    coarse = torch.full((len(db), 1, *plan.grid), START, dtype=db.dtype, device=db.device, requires_grad=True)
    adam = torch.optim.Adam([coarse], lr=plan.learning_rate)
    generator = torch.Generator().manual_seed(plan.seed)
    domains, best = DOMAINS[plan.domain], Best(db, plan, sounds)
    for step in range(1, plan.n_steps + 1):
        draw, active = Draw(db, plan, generator), best.active
        mask = draw.shift(upsampled(coarse[active], db)).sigmoid()
        clips, domain = db[active] + draw.noise, domains[step % len(domains)]
        loss = objective(model, clips, target[active], mask, domain, sounds and sounds[active])
        loss = loss + penalty(mask, coarse[active], plan, wanted_area(plan, step))
        adam.zero_grad(set_to_none=True)
        loss.sum().backward()
        adam.step()
        falling = plan.area is not None and step < AREA_REACHED * plan.n_steps
        if step == plan.n_steps or (step % CHECK_EVERY == 0 and not falling):
            best.look(model, db, target, coarse.detach())
            if not len(best.active):
                break
    return best.mask - 0.5 if plan.area is None else cut(best.mask, plan.area)


def wanted_area(plan: Plan, step: int) -> float | None:
    """The area asked for at a step: from the first mask's on, linearly, to the given one."""
    if plan.area is None:
        return None
    first = 1 / (1 + math.exp(-START))
    return first + (plan.area - first) * min(1.0, step / (AREA_REACHED * plan.n_steps))


class Best:
    """Each clip's best mask so far, and which clips may still get better."""

    def __init__(self, db: torch.Tensor, plan: Plan, sounds: Sounds | None) -> None:
        self.plan, self.sounds = plan, sounds
        self.mask = torch.zeros_like(db)
        self.score = torch.full((len(db),), float("inf"), dtype=db.dtype, device=db.device)
        self.waited = torch.zeros(len(db), dtype=torch.long, device=db.device)

    @property
    def active(self) -> torch.Tensor:
        """Numbers of the clips that are not done."""
        return (self.waited < self.plan.patience).nonzero()[:, 0]

    @torch.no_grad()
    def look(self, model: nn.Module, db: torch.Tensor, target: torch.Tensor, coarse: torch.Tensor) -> None:
        """Try the masks of the active clips in every domain, without noise and jitter."""
        active, domains = self.active, DOMAINS[self.plan.domain]
        sounds = self.sounds and self.sounds[active]
        logits = upsampled(coarse[active], db)
        mask = logits.sigmoid() if self.plan.area is None else with_mean(logits, self.plan.area)
        losses = [objective(model, db[active], target[active], mask, domain, sounds) for domain in domains]
        score = sum(losses) / len(domains) + penalty(mask, coarse[active], self.plan, self.plan.area)
        better = score < self.score[active] - LEAST_GAIN
        self.waited[active] = torch.where(better, 0, self.waited[active] + 1)
        chosen = active[better]
        self.score[chosen], self.mask[chosen] = score[better], mask[better]


class Draw:
    """One step's jitter and noise, the same for every clip, so that none depends on its batch."""

    def __init__(self, db: torch.Tensor, plan: Plan, generator: torch.Generator) -> None:
        self.jitter = plan.jitter
        self.shifts = torch.randint(0, 2 * plan.jitter + 1, (2,), generator=generator).tolist()
        self.noise = torch.randn((1, *db.shape[1:]), generator=generator).to(db) * plan.noise

    def shift(self, values: torch.Tensor) -> torch.Tensor:
        """Move (n, 1, F, T) by up to ``jitter`` along both axes; edges are repeated."""
        if not self.jitter:
            return values
        padded = functional.pad(values, (self.jitter,) * 4, mode="replicate")
        (f, t), (n_bins, n_frames) = self.shifts, values.shape[2:]
        return padded[:, :, f : f + n_bins, t : t + n_frames]


def objective(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    mask: torch.Tensor,
    domain: str,
    sounds: Sounds | None = None,
) -> torch.Tensor:
    """-log p_c(kept) - log(1 - p_c(removed)) per clip (n,), nats; ``heard`` wants the clips' ``sounds``."""
    reading = reading_of(model)
    apply = {"db": masked_db, "power": masked_power, "heard": sounds and sounds.masked}[domain]
    options = {} if domain == "heard" else {"floor": reading.floor}
    parts = [apply(db, each, **options) for each in (mask, 1 - mask)]
    kept, removed = model(torch.cat(parts)).to(db.dtype).split(len(db))
    return -reading.log_present(kept, target) - reading.log_absent(removed, target)


def masked_db(db: torch.Tensor, mask: torch.Tensor, floor: float = STUDY.floor) -> torch.Tensor:
    return masked(db, mask, floor)


def masked_power(db: torch.Tensor, mask: torch.Tensor, floor: float = STUDY.floor) -> torch.Tensor:
    """Level of the clip with its power times the mask, no lower than the floor (dB)."""
    return (db + 10 * mask.clamp_min(1e-10).log10()).clamp_min(floor)


def penalty(mask: torch.Tensor, coarse: torch.Tensor, plan: Plan, area: float | None) -> torch.Tensor:
    """Area, and total variation of the cells (mean absolute difference along both axes), per clip in nats."""
    cells, mean = coarse.sigmoid(), mask.mean(dim=(1, 2, 3))
    variation = sum(cells.diff(dim=axis).abs().sum(dim=(1, 2, 3)) for axis in (2, 3)) / cells[0].numel()
    size = plan.area_weight * mean if area is None else AREA_WEIGHT * (mean - area) ** 2
    return size + plan.smoothness * variation


def upsampled(coarse: torch.Tensor, db: torch.Tensor) -> torch.Tensor:
    """z at every bin, (n, 1, F, T)."""
    return functional.interpolate(coarse, db.shape[2:], mode="bilinear", align_corners=False)


def with_mean(logits: torch.Tensor, mean: float) -> torch.Tensor:
    """sigmoid(z + b) with each clip's b such that its mean is ``mean``, found by bisection."""
    flat = logits.flatten(1)
    level = math.log(mean / (1 - mean))
    low, high = level - flat.amax(1, keepdim=True), level - flat.amin(1, keepdim=True)
    for _ in range(30):
        middle = (low + high) / 2
        small = (flat + middle).sigmoid().mean(1, keepdim=True) < mean
        low, high = torch.where(small, middle, low), torch.where(small, high, middle)
    return (flat + high).sigmoid().view_as(logits)


def cut(mask: torch.Tensor, area: float) -> torch.Tensor:
    """The mask minus a level of each clip, so that exactly round(area F T) bins are above 0.

    Among bins of the same value at the level, those that come first are above.
    """
    flat = mask.flatten(1)
    n_kept = min(max(round(area * flat.shape[1]), 1), flat.shape[1] - 1)
    moved = flat - flat.sort(dim=1, descending=True).values[:, n_kept - 1 : n_kept + 1].mean(1, keepdim=True)
    keeps = largest(flat, n_kept)
    least = torch.finfo(flat.dtype).eps
    return torch.where(keeps, moved.clamp_min(least), moved.clamp_max(-least)).view_as(mask)


# Two uses under names of their own


@register("extremal_20", gradients=True)
def extremal_20(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    *,
    domain: str = "both",
    n_steps: int = 100,
    seed: int = 0,
    batch_size: int | None = None,
    waveform: torch.Tensor | None = None,
    spectrogram: Callable | None = None,
) -> torch.Tensor:
    """Each clip's mask of mean 0.2, minus the level that leaves a fifth of the bins above 0."""
    return extremal(
        model,
        db,
        target,
        area=AREA,
        domain=domain,
        n_steps=n_steps,
        seed=seed,
        batch_size=batch_size,
        waveform=waveform,
        spectrogram=spectrogram,
    )


@register("extremal_heard", gradients=True)
def extremal_heard(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    *,
    waveform: torch.Tensor,
    spectrogram: Callable,
    area: float | None = None,
    n_steps: int = 100,
    seed: int = 0,
    batch_size: int | None = None,
) -> torch.Tensor:
    """Each clip's mask, optimised on its sound, minus 1/2 (or the level that leaves ``area`` above 0).

    It is made for ears, and the scores of what is heard (``*_heard``) judge it: its soft values let through a
    sound that is quiet where they are small, while the study scores decibels that are scaled towards the
    floor by the same values, a picture that this mask has never met.

    ``waveform`` (n, samples) are the clips whose ``spectrogram(waveform).db`` is ``db``.
    """
    return extremal(
        model,
        db,
        target,
        area=area,
        domain="heard",
        n_steps=n_steps,
        seed=seed,
        batch_size=batch_size,
        waveform=waveform,
        spectrogram=spectrogram,
    )

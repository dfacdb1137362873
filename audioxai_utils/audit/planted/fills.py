"""What masks keep and remove under several fills: the scores of the metrics that are to be judged.

Masks of equal area come from a map's order, ``bin`` and ``minmax`` are the study's. The area under the
probability of what is kept, against area, is insertion; of what is removed, deletion.

References
----------
Petsiuk et al. (2018), RISE, section 4.1 (insertion and deletion); Rong et al. (2022), ROAD, for a fill with
noise, here about the training clips' mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from ...evaluation.masks import apply_mask, build_masks
from ...evaluation.metrics import complexity, faithfulness, sparseness
from ...evaluation.scoring import probabilities
from ...models.reading import reading_of
from ...numerics import largest

AREAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)  # of topK masks
STUDY_MASKS = ("bin", "minmax")
FILLS = ("floor", "minimum", "mean", "quantile", "noise")
LEAST_POINTS = 4  # of equal area, for a curve
MASKS = (*(f"topK_{area * 100:g}" for area in AREAS), *STUDY_MASKS)


def equal_area(attribution: torch.Tensor) -> dict[str, torch.Tensor]:
    """Masks of the highest bins of maps (n, 1, F, T), ``topK_1`` ... ``topK_50``."""
    flat = attribution.flatten(1)
    return {
        f"topK_{area * 100:g}": largest(flat, round(area * flat.shape[1])).view_as(attribution).float()
        for area in AREAS
    }


def masks_of(attribution: torch.Tensor, names: Sequence[str] = MASKS) -> dict[str, torch.Tensor]:
    """Masks of maps (n, 1, F, T) by name, in the order of ``MASKS``."""
    found = equal_area(attribution) | build_masks(attribution, "paper", STUDY_MASKS)
    return {name: mask for name, mask in found.items() if name in names}


def fill_levels(
    db: torch.Tensor, floor: float, known: torch.Tensor, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Levels (1, 1, F, T) or less that take the place of what is masked of one clip (1, 1, F, T).

    ``known`` (3, F) are mean, low quantile and standard deviation of the training clips' bins.
    """
    mean, low, deviation = known.to(db)[:, None, None, :, None]  # (1, 1, F, 1) each
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(db.shape, generator=generator).to(db)
    levels = (torch.tensor(floor).to(db), db.amin(), mean, low, (mean + deviation * noise).clamp_min(floor))
    return dict(zip(FILLS, levels))


@torch.inference_mode()
def scored(
    model,
    db: torch.Tensor,
    target: int,
    maps: dict[str, torch.Tensor],
    known: torch.Tensor,
    fills: Sequence[str] = FILLS,
    names: Sequence[str] = MASKS,
) -> pd.DataFrame:
    """Scores of every mask of one clip's maps under every fill.

    Parameters
    ----------
    model : nn.Module
    db : torch.Tensor (1, 1, F, T)
    target : int
    maps : dict of str to torch.Tensor (1, 1, F, T)
        By method.
    known : torch.Tensor (3, F)
        See `fill_levels`.
    fills, names : sequences of str
        The fills and masks that are scored.

    Returns
    -------
    DataFrame
        method, mask, fill, FF, AI, AG, FidIn, AD, SPS, COMP, area; and a row for each method and fill with
        mask ``all`` and the columns insertion and deletion.
    """
    masks = masks_of(torch.cat(list(maps.values())).float(), names)
    stacked = torch.cat(list(masks.values())).to(db)  # (masks of all methods, 1, F, T)
    rows = pd.DataFrame(
        [(method, mask) for mask in masks for method in maps], columns=["method", "mask"]
    ).assign(
        SPS=sparseness(stacked).cpu().numpy(),
        COMP=complexity(stacked).cpu().numpy(),
        area=stacked.double().mean(dim=(1, 2, 3)).cpu().numpy(),
    )
    p, frames = probabilities(model, db), []
    for fill, level in fill_levels(db, reading_of(model).floor, known).items():
        if fill not in fills:
            continue
        kept, removed = (
            torch.cat([probabilities(model, part) for part in halves])
            for halves in zip(*(apply_mask(db, part, level) for part in stacked.split(128)))
        )
        nothing = probabilities(model, level.expand(db.shape).contiguous())
        targets = torch.full((len(kept),), target, device=db.device)
        scores = faithfulness(p.expand_as(kept), kept, removed, "audited", targets)
        frame = rows.assign(fill=fill, **{name: value.cpu().numpy() for name, value in scores.items()})
        ends = float(p[0, target]), float(nothing[0, target])
        curves = areas_under(rows, kept[:, target].cpu(), removed[:, target].cpu(), *ends)
        frames += [frame, curves.assign(fill=fill)]
    return pd.concat(frames, ignore_index=True)


def areas_under(
    names: pd.DataFrame, kept: torch.Tensor, removed: torch.Tensor, whole: float, nothing: float
) -> pd.DataFrame:
    """Insertion and deletion of each method: areas under p against the share of bins, 0 to 1."""
    rows, equal = [], names["mask"].str.startswith("topK_")
    for method, here in names[equal].groupby("method", sort=False):
        if len(here) < LEAST_POINTS:
            continue  # no curve
        x = np.array([0.0, *here["mask"].str.removeprefix("topK_").astype(float) / 100, 1.0])
        inserted = np.array([nothing, *kept[here.index].tolist(), whole])
        deleted = np.array([whole, *removed[here.index].tolist(), nothing])
        areas = {"insertion": np.trapezoid(inserted, x), "deletion": np.trapezoid(deleted, x)}
        rows.append({"method": method, "mask": "all", **areas})
    return pd.DataFrame(rows)

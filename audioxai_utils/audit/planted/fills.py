"""What masks keep and remove under several fills: the scores of the metrics that are to be judged.

Masks of equal area come from a map's order, ``bin`` and ``minmax`` are the study's. The area under the
probability of what is kept, against area, is insertion; of what is removed, deletion. ``heard`` is no fill of
the picture: kept and removed part are turned back into sound, and the model is asked about that.

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

from ...audio.spectrograms import SpectrogramBatch, kept_audio
from ...evaluation.masks import apply_mask, build_masks
from ...evaluation.metrics import complexity, faithfulness, sparseness
from ...evaluation.scoring import decibels, probabilities
from ...models.reading import reading_of
from ...numerics import largest

AREAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)  # of topK masks
STUDY_MASKS = ("bin", "minmax")
HEARD = "heard"
FILLS = ("floor", "minimum", "mean", "quantile", "noise", HEARD)
AT_ONCE, SOUNDS_AT_ONCE = 128, 32  # masks; bounds memory, not results
LEAST_POINTS = 4  # of equal area, for a curve
JUDGED_MASKS = (*(f"topK_{area * 100:g}" for area in AREAS), *STUDY_MASKS)


def equal_area(attribution: torch.Tensor) -> dict[str, torch.Tensor]:
    """Masks of the highest bins of maps (n, 1, F, T), ``topK_1`` ... ``topK_50``."""
    flat = attribution.flatten(1)
    return {
        f"topK_{area * 100:g}": largest(flat, round(area * flat.shape[1])).view_as(attribution).float()
        for area in AREAS
    }


def masks_of(attribution: torch.Tensor, names: Sequence[str] = JUDGED_MASKS) -> dict[str, torch.Tensor]:
    """Masks of maps (n, 1, F, T) by name, in the order of ``JUDGED_MASKS``."""
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


def repeated(clip: SpectrogramBatch, n: int) -> SpectrogramBatch:
    """One clip ``n`` times, without copies."""
    parts = (part.expand(n, -1, -1, -1) for part in (clip.db, clip.power, clip.phase))
    return SpectrogramBatch(*parts, clip.length)


def _filled(model, db: torch.Tensor, masks: torch.Tensor, level: torch.Tensor) -> list[torch.Tensor]:
    """Probabilities of pictures with what masks keep, what they remove, and nothing: (n, n, 1) rows."""
    halves = [apply_mask(db, part, level) for part in masks.split(AT_ONCE)]
    kept, removed = (torch.cat([probabilities(model, part) for part in half]) for half in zip(*halves))
    return [kept, removed, probabilities(model, level.expand(db.shape).contiguous())]


def _heard(model, clip: SpectrogramBatch, masks: torch.Tensor, spectrogram) -> list[torch.Tensor]:
    """Probabilities of the sounds that masks keep and remove, and of silence: (n, n, 1) rows."""

    def asked(part: torch.Tensor) -> torch.Tensor:
        sound = kept_audio(repeated(clip, len(part)), part, spectrogram)
        return probabilities(model, decibels(sound, spectrogram))

    parts = masks.split(SOUNDS_AT_ONCE)
    return [
        torch.cat([asked(part) for part in parts]),
        torch.cat([asked(1 - part) for part in parts]),
        asked(torch.zeros_like(masks[:1])),
    ]


@torch.inference_mode()
def scored(
    model,
    spectrogram,
    clip: SpectrogramBatch,
    target: int,
    maps: dict[str, torch.Tensor],
    known: torch.Tensor,
    fills: Sequence[str] = FILLS,
    names: Sequence[str] = JUDGED_MASKS,
) -> pd.DataFrame:
    """Scores of every mask of one clip's maps under every fill, and heard.

    Parameters
    ----------
    model : nn.Module
    spectrogram : Spectrogram
    clip : SpectrogramBatch
        A single clip.
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
    db, masks = clip.db, masks_of(torch.cat(list(maps.values())).float(), names)
    stacked = torch.cat(list(masks.values())).to(db)  # (masks of all methods, 1, F, T)
    rows = pd.DataFrame(
        [(method, mask) for mask in masks for method in maps], columns=["method", "mask"]
    ).assign(
        SPS=sparseness(stacked).cpu().numpy(),
        COMP=complexity(stacked).cpu().numpy(),
        area=stacked.double().mean(dim=(1, 2, 3)).cpu().numpy(),
    )
    p, frames, levels = probabilities(model, db), [], fill_levels(db, reading_of(model).floor, known)
    for fill in fills:
        kept, removed, nothing = (
            _heard(model, clip, stacked, spectrogram)
            if fill == HEARD
            else _filled(model, db, stacked, levels[fill])
        )
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

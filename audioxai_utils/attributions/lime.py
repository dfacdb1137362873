"""LIME: how much each superpixel of a spectrogram adds to the explained class's probability.

The clip is scaled to [0, 1] by its own minimum and maximum and cut into superpixels by
quickshift (lime's defaults). In ``n_samples`` neighbours random superpixels are hidden, that
is set to their own mean; a weighted ridge regression from the superpixels' presence to the
probability gives each superpixel, and so each of its bins, a weight. The random state starts
at ``seed`` for every clip.

References
----------
Ribeiro et al. (2016), "Why should I trust you?", algorithm 1, as ``lime`` 0.2 implements it:
ridge instead of lasso, all superpixels kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from ..models.inference import half_precision_copy, inference_copy
from ..models.reading import reading_of
from ..numerics import at_once, to_host
from .neighbourhoods import Neighbourhood, ahead, classified, one_behind, prepare, regress, scaled_image
from .registry import register

N_PROVED = 16  # neighbours of every clip that are asked in float32 too where the others are in float16
NEAR = 0.03  # of the range of their probabilities, by which float16 may be off; TF32 is off by half as much
MOST_AHEAD = 16  # clips whose superpixels are cut in threads while a GPU classifies: they take longer


@register("lime", budget="n_samples", one_by_one=True)
def lime(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    *,
    engine: str = "fast",
    n_samples: int = 1000,
    seed: int = 12345,
    batch_size: int | None = None,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Superpixel weights in probability, spread over their bins.

    Parameters
    ----------
    engine : "fast" | "reference"
        ``reference`` is ``LimeImageExplainer``; ``fast`` takes the same superpixels, the same
        neighbours and the same regression, and classifies large batches composed on the device.
    n_samples : int
        Neighbours, the clip itself included; 2 or more.
    seed : int
        Starts the random state of every clip.
    batch_size : int, optional
        Neighbours classified at once; default 10 (lime's) for ``reference``, chosen by the
        device for ``fast``.
    dtype : torch.dtype, optional
        ``torch.bfloat16`` (or float16) runs the fast engine's convolutions in that type. By default a GPU
        runs them in float16 of each clip whose first neighbours say there what they say in TF32, of others
        in TF32.
    """
    if n_samples < 2:
        raise ValueError(f"n_samples must be 2 or more; got {n_samples}")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more; got {batch_size}")
    if engine == "reference":
        if dtype not in (None, db.dtype):
            raise ValueError(f"dtype={dtype} needs engine='fast'; the reference runs in the model's own type")
        clips = zip(db, target.tolist())
        return torch.stack(
            [_reference(model, clip, label, n_samples, seed, batch_size or 10) for clip, label in clips]
        )
    return _fast(model, db, target, n_samples, seed, batch_size, dtype)


def _fast(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    n_samples: int,
    seed: int,
    batch_size: int | None,
    dtype: torch.dtype | None,
) -> torch.Tensor:
    """Superpixel weights spread over their bins, (batch, 1, F, T)."""
    own = inference_copy(model, db, dtype)
    half = half_precision_copy(own, db) if dtype is None else None
    size = at_once(batch_size, db.device)
    n_workers = 0 if db.device.type == "cpu" else min(MOST_AHEAD, len(os.sched_getaffinity(0)))
    neighbourhoods = ahead(lambda clip: prepare(clip, n_samples, seed), db.cpu(), n_workers)

    def asked(clip: Neighbourhood, label: int) -> tuple[Callable[[], torch.Tensor], ...]:
        if half is None:
            return (to_host(classified(own, clip, label, db, size)),)
        few = replace(clip, visible=clip.visible[:N_PROVED])
        return tuple(to_host(classified(*each, label, db, size)) for each in ((half, clip), (own, few)))

    def answer(clip: Neighbourhood, label: int, reads: tuple) -> np.ndarray:
        p, *proof = (read() for read in reads)
        if proof and not _near(p[: len(proof[0])], proof[0]):
            p = classified(own, clip, label, db, size)
        return p.double().cpu().numpy()

    pairs = zip(neighbourhoods, target.tolist())
    found = one_behind((clip, label, asked(clip, label)) for clip, label in pairs)
    maps = [regress(clip, answer(clip, label, reads))[clip.segments] for clip, label, reads in found]
    return torch.from_numpy(np.stack(maps)).to(db)[:, None]


def _near(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether probabilities differ by little of what tells the neighbours apart; NaN does not."""
    return bool((found - expected).abs().max() <= NEAR * (expected.max() - expected.min()))


def _reference(
    model: nn.Module, clip: torch.Tensor, label: int, n_samples: int, seed: int, batch_size: int
) -> torch.Tensor:
    """One clip by ``LimeImageExplainer`` itself, (1, F, T)."""
    from lime import lime_image

    image, to_decibels = scaled_image(clip)

    def classify(images: np.ndarray) -> np.ndarray:  # (n, F, T, 3) -> (n, classes)
        batch = torch.from_numpy(to_decibels(images[..., 0])).to(clip)[:, None]
        with torch.no_grad():
            return reading_of(model).probabilities(model(batch)).double().cpu().numpy()

    explainer = lime_image.LimeImageExplainer(random_state=seed)
    with _no_progress_bar(lime_image):
        explanation = explainer.explain_instance(
            image, classify, labels=(label,), top_labels=None, num_samples=n_samples, batch_size=batch_size
        )
    weights = np.zeros(explanation.segments.max() + 1)
    for segment, weight in explanation.local_exp[label]:
        weights[segment] = weight
    return torch.from_numpy(weights[explanation.segments]).to(clip)[None]


@contextmanager
def _no_progress_bar(lime_image) -> Iterator[None]:
    """lime prints a progress bar per clip and has no option against it."""
    original = lime_image.tqdm
    lime_image.tqdm = lambda rows: rows
    try:
        yield
    finally:
        lime_image.tqdm = original

"""Neighbours of a clip with parts hidden, their classification in batches on the device, and the regression.

They are lime's: its superpixels, its draws and its ridge. LIME and SLIME share them.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..models.inference import inference_copy
from ..models.reading import reading_of
from ..numerics import at_once, tensor_float32, to_device

KERNEL_WIDTH, ALPHA = 0.25, 1.0  # lime's width of the proximity kernel and ridge penalty


@dataclass(frozen=True)
class Neighbourhood:
    """One clip before it is classified."""

    segments: np.ndarray  # (F, T), superpixel of each bin
    visible: np.ndarray  # (n_samples, superpixels), bool; the first row is the clip itself
    shown: np.ndarray  # (F, T), the clip in dB
    hidden: np.ndarray  # (F, T), each superpixel's mean in dB


def scaled_image(clip: torch.Tensor) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """A (1, F, T) clip as a float64 image (F, T) in [0, 1], and the way back to decibels."""
    decibels = clip[0].double().cpu().numpy()
    lowest, extent = decibels.min(), np.ptp(decibels)
    return (decibels - lowest) / (extent or 1.0), lambda image: image * extent + lowest


def prepare(clip: torch.Tensor, n_samples: int, seed: int) -> Neighbourhood:
    """Cut a (1, F, T) clip into superpixels and draw its neighbours, as lime does with ``seed``."""
    image, to_decibels = scaled_image(clip)
    random_state = np.random.RandomState(seed)
    segments = superpixels(image.tobytes(), image.shape, random_state.randint(0, high=1000))
    n_segments = segments.max() + 1
    means = np.bincount(segments.ravel(), image.ravel()) / np.bincount(segments.ravel())
    visible = random_state.randint(0, 2, n_samples * n_segments).reshape(n_samples, n_segments).astype(bool)
    visible[0] = True
    return Neighbourhood(segments, visible, to_decibels(image), to_decibels(means[segments]))


@functools.lru_cache(maxsize=32)  # a clip's superpixels are the same whichever model is asked about it
def superpixels(image: bytes, shape: tuple[int, int], random_seed: int) -> np.ndarray:
    """lime's superpixels (F, T) of a float64 image in [0, 1]; for reading only."""
    from lime.wrappers.scikit_image import SegmentationAlgorithm
    from skimage.color import gray2rgb

    segment = SegmentationAlgorithm(
        "quickshift", kernel_size=4, max_dist=200, ratio=0.2, random_seed=random_seed
    )
    return segment(gray2rgb(np.frombuffer(image).reshape(shape)))


def classify(
    model: nn.Module, clip: Neighbourhood, label: int, like: torch.Tensor, batch_size: int
) -> np.ndarray:
    """The class's probability for every neighbour, (n_samples,) float64."""
    return classified(model, clip, label, like, batch_size).double().cpu().numpy()


@torch.no_grad()
def classified(
    model: nn.Module, clip: Neighbourhood, label: int, like: torch.Tensor, batch_size: int
) -> torch.Tensor:
    """The class's probability for every neighbour, (n_samples,), on ``like``'s device and without waiting for
    it.

    On CUDA what is in float32 is taken in TF32: a regression over all neighbours does not notice.
    """
    shown, hidden = (
        to_device(torch.from_numpy(image).to(like.dtype), like.device) for image in (clip.shown, clip.hidden)
    )
    segments = to_device(torch.from_numpy(clip.segments), like.device).flatten()
    visible = to_device(torch.from_numpy(clip.visible), like.device)
    probabilities = []
    with tensor_float32(True, like.device):
        for rows in visible.split(batch_size):
            bins = rows.index_select(1, segments).view(-1, 1, *shown.shape)  # (rows, 1, F, T)
            logits = model(torch.where(bins, shown, hidden))
            probabilities.append(reading_of(model).probabilities(logits.to(like.dtype))[:, label])
    return torch.cat(probabilities)


def regress(clip: Neighbourhood, probability: np.ndarray) -> np.ndarray:
    """Ridge weights (superpixels,); neighbours count by exp(-cosine distance^2 / width^2)^(1/2)."""
    return proximity_weighted(clip.visible, probability)


def proximity_weighted(visible: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`regress` of any parts: which each neighbour shows, bool (n_samples, K), to ``values`` (n_samples,)."""
    return _surrogate(visible, values)[0].coef_


def _surrogate(visible: np.ndarray, values: np.ndarray):
    """(fitted ridge regression, presence of superpixels (n_samples, superpixels), weights of neighbours)."""
    from sklearn.linear_model import Ridge

    visible = visible.astype(np.float64)
    distance = 1 - np.sqrt(visible.mean(axis=1))  # cosine distance to the row of ones
    proximity = np.sqrt(np.exp(-(distance**2) / KERNEL_WIDTH**2))
    ridge = Ridge(alpha=ALPHA, fit_intercept=True).fit(visible, values, sample_weight=proximity)
    return ridge, visible, proximity


def surrogate_fit(
    model: nn.Module, db: torch.Tensor, target: torch.Tensor, n_samples: int = 1000, seed: int = 12345
) -> list[dict]:
    """How well LIME's linear model describes the classifier around each clip.

    Parameters are those of ``lime``; the same neighbours are classified anew.

    Returns
    -------
    list of dict
        Per clip ``superpixels`` (their number) and ``r2``: the share of the neighbours' weighted variance of
        probability that the linear model explains, 1 at best.
    """
    fast, found = inference_copy(model, db), []
    for image, label in zip(db.cpu(), target.tolist()):
        clip = prepare(image, n_samples, seed)
        probability = classify(fast, clip, label, db, at_once(None, db.device))
        ridge, visible, proximity = _surrogate(clip.visible, probability)
        r2 = ridge.score(visible, probability, sample_weight=proximity)
        found.append({"superpixels": visible.shape[1], "r2": float(r2)})
    return found


def ahead(function: Callable, items: Iterable, n_workers: int) -> Iterator:
    """``function`` of each item in order, computed up to ``n_workers`` items ahead in threads."""
    if n_workers < 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(n_workers) as pool:
        waiting: deque = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > n_workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def one_behind(items: Iterable) -> Iterator:
    """The items in order, each when the next one has been made: a device works on that while this one is
    read.
    """
    waiting: deque = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting

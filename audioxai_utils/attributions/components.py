"""Parts of a clip that overlap in a bin, and LIME over them.

A component has a share of every bin's power; the shares of a clip's components add up to 1. Hiding some of
them leaves the others' share of the power, and the rest goes to the level ``fill``. Slices and bands are the
case in which a share is 0 or 1.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..models.inference import inference_copy
from ..models.reading import reading_of
from ..numerics import at_once, tensor_float32
from .integrated_gradients import at_least
from .neighbourhoods import proximity_weighted

LOUDNESS_WINDOW = 5  # frames over which the level is averaged before its minima are looked for
NMF_STEPS = 200


@dataclass(frozen=True)
class Weighed:
    """A clip's components, (K, F, T) shares of power, and what each adds to the class's probability, (K,)."""

    shares: torch.Tensor
    weights: torch.Tensor

    @property
    def map(self) -> torch.Tensor:
        """Sum of the components' weights times their shares, (1, F, T)."""
        return torch.einsum("k,kft->ft", self.weights, self.shares)[None]

    def best(self, n: int) -> torch.Tensor:
        """Indices of the components with the ``n`` largest weights, those above 0 alone."""
        order = self.weights.argsort(descending=True)[:n]
        return order[self.weights[order] > 0]


def weigh(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    cut: Callable[[int, torch.Tensor], torch.Tensor],
    fill: float | None,
    n_samples: int,
    seed: int,
    batch_size: int | None,
) -> list[Weighed]:
    """LIME's ridge weights of the components that ``cut`` makes of each clip.

    Parameters
    ----------
    cut : callable
        Number and decibels (1, F, T) of a clip to shares (K, F, T).
    fill : float, optional
        Level (dB) of what is hidden; None is the model's floor.
    n_samples, seed, batch_size : int
        Neighbours with the clip itself, 2 or more; their random state, the same for every clip; how many are
        classified at once.
    """
    at_least(2, n_samples=n_samples)
    at_least(1, batch_size=batch_size)
    fast, size = inference_copy(model, db), at_once(batch_size, db.device)
    fill = reading_of(model).floor if fill is None else float(fill)
    found = []
    for number, (clip, label) in enumerate(zip(db, target.tolist())):
        shares = cut(number, clip).to(db)
        visible = drawn(n_samples, len(shares), seed)
        p = classified(fast, clip, shares, visible, label, fill, size)
        weights = proximity_weighted(visible, p.double().cpu().numpy())
        found.append(Weighed(shares, torch.from_numpy(weights).to(db)))
    return found


def drawn(n_samples: int, n_components: int, seed: int) -> np.ndarray:
    """Which components each neighbour shows, bool (n_samples, K); the first one shows all.

    As lime draws them over its segments with the same ``seed``.
    """
    random_state = np.random.RandomState(seed)
    random_state.randint(0, high=1000)  # lime draws its segmentation's seed first, used or not
    visible = random_state.randint(0, 2, n_samples * n_components).reshape(n_samples, n_components)
    visible[0] = 1
    return visible.astype(bool)


@torch.no_grad()
def classified(
    model: nn.Module,
    clip: torch.Tensor,
    shares: torch.Tensor,
    visible: np.ndarray,
    label: int,
    fill: float,
    batch_size: int,
) -> torch.Tensor:
    """The class's probability (n_samples,) where only visible components of a (1, F, T) clip are left."""
    power, floor, reading, p = 10 ** (clip / 10), 10 ** (fill / 10), reading_of(model), []
    with tensor_float32(True, clip.device):
        for rows in torch.from_numpy(visible).to(clip).split(batch_size):
            gain = (rows @ shares.flatten(1)).view(-1, 1, *clip.shape[1:])  # (rows, 1, F, T)
            scores = model(10 * (power * gain + floor * (1 - gain)).log10())
            p.append(reading.probabilities(scores.to(clip.dtype))[:, label])
    return torch.cat(p)


# Ways to cut


def shares_of_segments(segments: np.ndarray) -> torch.Tensor:
    """Shares (K, F, T), 0 or 1, of segments (F, T) numbered from 0 without gaps."""
    return torch.from_numpy(segments == np.arange(segments.max() + 1)[:, None, None]).double()


def loudness_slices(clip: torch.Tensor, n_slices: int) -> np.ndarray:
    """Slices of a (1, F, T) clip in dB between its quietest moments: segment number of each bin (F, T).

    The level of each frame is averaged over `LOUDNESS_WINDOW` frames; cuts are at the ``n_slices`` - 1 most
    prominent minima that are that many frames apart. A clip with fewer minima has fewer slices.
    """
    from scipy.ndimage import uniform_filter1d
    from scipy.signal import find_peaks

    power = (10 ** (clip[0].double().cpu().numpy() / 10)).sum(0)  # (T,)
    level = uniform_filter1d(10 * np.log10(power), LOUDNESS_WINDOW, mode="nearest")
    minima, about = find_peaks(-level, distance=LOUDNESS_WINDOW, prominence=0)
    order = np.argsort(-about["prominences"], kind="stable")[: n_slices - 1]
    cuts = np.zeros(clip.shape[2], dtype=int)
    cuts[minima[order]] = 1
    return np.broadcast_to(cuts.cumsum(), clip.shape[1:]).copy()


def nmf_shares(clip: torch.Tensor, n_components: int, seed: int) -> torch.Tensor:
    """Shares (K, F, T) of the components of a non-negative factorisation of a (1, F, T) clip's magnitude.

    Component k has W_k H_k of the magnitude, and its share of the power is that of W_k H_k in their sum.
    """
    from sklearn.decomposition import NMF
    from sklearn.exceptions import ConvergenceWarning

    magnitude = 10 ** (clip[0].double().cpu().numpy() / 20)  # (F, T)
    n = min(n_components, *magnitude.shape)
    model = NMF(n, init="nndsvda", max_iter=NMF_STEPS, tol=1e-4, random_state=seed)
    with warnings.catch_warnings():  # one that is not at its optimum yet is a decomposition all the same
        warnings.simplefilter("ignore", ConvergenceWarning)
        spectra = model.fit_transform(magnitude)  # (F, K)
    return as_shares(torch.from_numpy(spectra.T[:, :, None] * model.components_[:, None, :]))


def hpss_shares(clip: torch.Tensor, kernel_size: int) -> torch.Tensor:
    """Shares (2, F, T) of what rings and what strikes in a (1, F, T) clip, by median filtering."""
    return as_shares(torch.from_numpy(ringing_and_striking(clip, kernel_size).astype(float)))


def ringing_and_striking(clip: torch.Tensor, kernel_size: int) -> np.ndarray:
    """Shares of power (2, F, T) as librosa's median filters give them, of a (1, F, T) clip in dB."""
    decibels = clip[0].double().cpu().numpy()
    return _separated(decibels.tobytes(), decibels.shape, kernel_size)


@functools.lru_cache(maxsize=32)  # the same whichever method and model want it
def _separated(decibels: bytes, shape: tuple[int, int], kernel_size: int) -> np.ndarray:
    from librosa.decompose import hpss

    magnitude = 10 ** (np.frombuffer(decibels).reshape(shape) / 20)
    return np.stack(hpss(magnitude, kernel_size=kernel_size, mask=True))


def as_shares(parts: torch.Tensor) -> torch.Tensor:
    """Parts (K, F, T), 0 or more, over their sum; where all are 0 every part has the same share."""
    total = parts.sum(0)
    return torch.where(total > 0, parts / total.clamp_min(torch.finfo(parts.dtype).tiny), 1 / len(parts))

"""Segments: when a class is heard, by a surrogate of its log-odds over pieces of a tenth of a second.

In each neighbour whole windows of a few segments are silent, so that a sound longer than a segment can be
hidden; a surrogate then says how the log-odds log(p / (1 - p)) follow from the segments that are there. It
is a linear regression, or a random forest, which sees that one of two sounds is enough.

References
----------
Bolaños et al. (2025), Benchmarking Time-localized Explanations for Audio Classification Models
(arXiv:2506.04391): segments of 100 ms, log-odds, linear and random-forest surrogates. Deviations: hidden
segments are silent in the picture that the model gets; neighbours do not count by their distance; and a
forest's importance, which has no sign, gets that of the covariance of a segment with the log-odds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from ..constants import check_choice
from ..models.inference import inference_copy
from ..models.reading import reading_of
from ..numerics import at_once
from .integrated_gradients import at_least
from .neighbourhoods import Neighbourhood, classified
from .registry import register
from .slime import regular_grid

SURROGATES = ("linear", "forest")
N_TREES = 100
LEAST = 1e-6  # of p and of 1 - p, before their logarithms
ALPHA = 1.0  # ridge penalty of the linear surrogate


@register("segments", budget="n_samples", one_by_one=True)
def segments(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    *,
    surrogate: str = "linear",
    seconds: float = 0.1,
    n_segments: int | None = None,
    window: int = 3,
    share: float = 0.3,
    fill: float | None = None,
    n_samples: int = 1000,
    seed: int = 0,
    batch_size: int | None = None,
    waveform: torch.Tensor | None = None,
    spectrogram: Callable | None = None,
) -> torch.Tensor:
    """Weight of each segment of time in nats of log-odds (``linear``), or its signed importance (``forest``).

    Parameters
    ----------
    surrogate : "linear" | "forest"
        Ridge regression, or a random forest's decrease of variance, whose sizes add up to 1.
    seconds : float
        Length of a segment; a segment is one frame at least.
    n_segments : int, optional
        Their number, instead of ``seconds``; needed where ``waveform`` and ``spectrogram`` are not given.
    window, share : int, float
        Neighbouring segments hidden together, and the share of the clip that is hidden, 0 to 1.
    fill : float, optional
        Level (dB) of a hidden segment; default the model's silence.
    n_samples, seed, batch_size : int
        As in ``slime``.
    waveform, spectrogram : Tensor (batch, samples), callable
        The clips' own, for their length in seconds.
    """
    check_choice("surrogate", surrogate, SURROGATES)
    at_least(2, n_samples=n_samples)
    at_least(1, batch_size=batch_size, n_segments=n_segments, window=window)
    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1; got {share}")
    n = n_segments or _number(seconds, db.shape[3], waveform, spectrogram)
    grid = regular_grid(tuple(db.shape[2:]), "time", n, 1)
    visible = windows_hidden(n_samples, n, window, share, seed)
    fast, size = inference_copy(model, db), at_once(batch_size, db.device)
    fill = reading_of(model).floor if fill is None else float(fill)
    maps = []
    for clip, label in zip(db.double().cpu().numpy()[:, 0], target.tolist()):
        neighbourhood = Neighbourhood(grid, visible, clip, np.full_like(clip, fill))
        p = classified(fast, neighbourhood, label, db, size).double().cpu().numpy().clip(LEAST, 1 - LEAST)
        maps.append(_importance(surrogate, visible, np.log(p / (1 - p)), seed)[grid])
    return torch.from_numpy(np.stack(maps)).to(db)[:, None]


def windows_hidden(n_samples: int, n_segments: int, window: int, share: float, seed: int) -> np.ndarray:
    """Which segments each neighbour shows, bool (n_samples, n_segments); the first one shows all.

    Windows of ``window`` segments begin at random until ``share`` of the segments is hidden, one window at
    least.
    """
    random_state = np.random.RandomState(seed)
    n_windows = max(1, round(share * n_segments / window))
    visible = np.ones((n_samples, n_segments), dtype=bool)
    starts = random_state.randint(1 - window, n_segments, (n_samples, n_windows))
    for offset in range(window):
        at = starts + offset
        row, column = np.nonzero((at >= 0) & (at < n_segments))
        visible[row, at[row, column]] = False
    visible[0] = True
    return visible


def _number(seconds: float, n_frames: int, waveform: torch.Tensor | None, spectrogram) -> int:
    """Segments of a clip; ValueError where its length in seconds is not known."""
    rate = getattr(getattr(spectrogram, "analysis", spectrogram), "sample_rate", None)
    if waveform is None or rate is None:
        raise ValueError(
            "n_segments must be given where waveform= and a spectrogram= with a sample_rate are not"
        )
    if not seconds > 0:
        raise ValueError(f"seconds must be above 0; got {seconds}")
    return min(n_frames, max(1, round(waveform.shape[1] / rate / seconds)))


def _importance(surrogate: str, visible: np.ndarray, log_odds: np.ndarray, seed: int) -> np.ndarray:
    """What each segment (n_segments,) does to the log-odds (n_samples,) by the surrogate."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.linear_model import Ridge

    shown = visible.astype(np.float64)
    if surrogate == "linear":
        return Ridge(alpha=ALPHA).fit(shown, log_odds).coef_
    forest = RandomForestRegressor(N_TREES, random_state=seed, n_jobs=1).fit(shown, log_odds)
    covariance = (shown - shown.mean(0)).T @ (log_odds - log_odds.mean())
    return np.sign(covariance) * forest.feature_importances_

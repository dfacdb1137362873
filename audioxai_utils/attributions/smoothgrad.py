"""SmoothGrad: the explained logit's gradient, averaged over noisy copies of the clip, in logits per dB.

References
----------
Smilkov et al. (2017), SmoothGrad: removing noise by adding noise, eq. 2, by captum's NoiseTunnel
over its signed gradient. The noise has one level in dB for all clips, not a share of each clip's
extent: the same number of dB is the same change of sound on every clip.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from .integrated_gradients import at_least
from .registry import register


@register("smoothgrad", gradients=True)
def smoothgrad(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    *,
    level: float = 3.0,
    n_samples: int = 32,
    seed: int = 0,
    batch_size: int = 16,
) -> torch.Tensor:
    """Mean gradient over ``n_samples`` noisy copies.

    Parameters
    ----------
    level : float
        Standard deviation of the Gaussian noise (dB), above 0.
    n_samples : int
        Noisy copies of each clip, 1 or more.
    seed : int
        Starts the noise of every clip.
    batch_size : int
        Copies in one backward pass; another size draws the same noise.
    """
    from captum.attr import NoiseTunnel, Saliency

    if not 0 < level < float("inf"):
        raise ValueError(f"level must be above 0 dB; got {level}")
    at_least(1, n_samples=n_samples, batch_size=batch_size)
    tunnel, maps = NoiseTunnel(Saliency(model)), []
    for clip, label in zip(db, target.tolist()):
        with seeded(seed):
            maps.append(
                tunnel.attribute(
                    clip[None],
                    nt_samples=n_samples,
                    nt_samples_batch_size=min(batch_size, n_samples),
                    stdevs=float(level),
                    target=label,
                    abs=False,
                ).detach()
            )
    return torch.cat(maps)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Start the global random states of torch and NumPy, which captum draws from; put them back after."""
    state = np.random.get_state()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(state)

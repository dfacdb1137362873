"""audioLIME: LIME over the sources that a separator finds, in slices of time.

A separator is a function of the user's from a waveform to sources, a trained one as well, or one of two that
need no training: what rings and what strikes, or the components of a non-negative matrix factorisation. The
sources that speak most for the class are kept as they sound, not only as a map.

References
----------
Haunschmid et al. (2020), audioLIME: Listenable Explanations Using Source Separation, section 3 (sources in
slices of time as LIME's features, a hidden one silent). Deviation: a hidden source takes its share of each
bin's power with it, instead of its samples, so that every model can be asked, one of pictures too.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ..constants import check_choice
from .components import Weighed, as_shares, hpss_shares, nmf_shares, weigh
from .integrated_gradients import at_least
from .registry import Found, register

SEPARATORS = ("hpss", "nmf")
KERNEL_SIZE = 31  # frames and bins of the median filters


@register("audiolime", budget="n_samples")
def audiolime(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    *,
    separator: str | Callable[[torch.Tensor], torch.Tensor] = "hpss",
    n_sources: int = 4,
    n_time: int = 5,
    n_kept: int = 3,
    fill: float | None = None,
    n_samples: int = 1000,
    seed: int = 12345,
    batch_size: int | None = None,
    waveform: torch.Tensor | None = None,
    spectrogram: Callable | None = None,
) -> Found:
    """Weights of sources in slices of time in probability, spread by their shares of each bin's power.

    Parameters
    ----------
    separator : "hpss", "nmf" or callable
        A callable takes a waveform (samples,) and gives its sources (n, samples), which should add up to it.
    n_sources : int
        Components of ``nmf``.
    n_time : int
        Equal slices of time.
    n_kept : int
        The sound is that of so many source slices, those with the largest weights above 0.
    fill : float, optional
        Level (dB) of what is hidden; default the model's silence.
    n_samples, seed, batch_size : int
        As in ``slime``.
    waveform, spectrogram : Tensor (batch, samples), callable
        The clips' own. A separator of waveforms needs them, and nothing is kept as sound without.
    """
    at_least(1, n_sources=n_sources, n_time=n_time, n_kept=n_kept)
    if n_time > db.shape[3]:
        raise ValueError(f"n_time must be 1 to {db.shape[3]}, one frame each; got {n_time}")
    transform = getattr(spectrogram, "analysis", None) or spectrogram
    sources = None
    if callable(separator):
        sources = separated(separator, waveform, transform)
        powers = [transform(each).power[:, 0] for each in sources]  # (S, F, T) of each clip
    else:
        check_choice("separator", separator, SEPARATORS)

    def cut(number: int, clip: torch.Tensor) -> torch.Tensor:
        if separator == "hpss":
            shares = hpss_shares(clip, KERNEL_SIZE)
        elif separator == "nmf":
            shares = nmf_shares(clip, n_sources, seed)
        else:
            shares = as_shares(powers[number])
        return in_slices(shares, n_time)

    found = weigh(model, db, target, cut, fill, n_samples, seed, batch_size)
    attribution = torch.stack([each.map for each in found])
    if waveform is None or transform is None:
        return Found(attribution)
    if sources is None:
        return Found(attribution, kept_share(found, n_kept, waveform, transform))
    return Found(
        attribution, torch.stack([kept_sources(w, each, n_time, n_kept) for w, each in zip(found, sources)])
    )


def separated(
    separator: Callable, waveform: torch.Tensor | None, transform: Callable | None
) -> list[torch.Tensor]:
    """Sources (n, samples) of every clip; ValueError where they are none or nothing is there to separate."""
    if waveform is None or transform is None:
        raise ValueError("separator of waveforms needs waveform= and spectrogram=, the clips' own; got none")
    found = []
    with torch.no_grad():
        for clip in waveform:
            sources = torch.as_tensor(separator(clip.clone())).detach().to(clip)
            if sources.ndim != 2 or sources.shape[1] != len(clip) or not bool(sources.isfinite().all()):
                raise ValueError(
                    f"separator must return finite sources (n, {len(clip)}); got {tuple(sources.shape)}"
                )
            found.append(sources)
    return found


def in_slices(shares: torch.Tensor, n_time: int) -> torch.Tensor:
    """Shares (S, F, T) of sources as shares (S * n_time, F, T) of each in each slice, slices together."""
    place = torch.arange(shares.shape[2], device=shares.device) * n_time // shares.shape[2]  # (T,)
    window = place == torch.arange(n_time, device=shares.device)[:, None]  # (n_time, T)
    return (shares[:, None] * window[None, :, None].to(shares)).flatten(0, 1)


def kept_share(found: list[Weighed], n: int, waveform: torch.Tensor, transform: Callable) -> torch.Tensor:
    """Sounds (batch, samples) of the power that the best components have, with the clips' own phase."""
    with torch.no_grad():
        batch = transform(waveform)
        mask = torch.stack([each.shares[each.best(n)].sum(0)[None] for each in found])
        return transform.invert(batch.power * mask.to(batch.power), batch.phasor, batch.length)


def kept_sources(weighed: Weighed, sources: torch.Tensor, n_time: int, n: int) -> torch.Tensor:
    """Sound (samples,) of the best source slices, as the separator gave them."""
    kept, length = torch.zeros_like(sources[0]), sources.shape[1]
    for component in weighed.best(n).tolist():
        source, place = divmod(component, n_time)
        samples = slice(round(place * length / n_time), round((place + 1) * length / n_time))
        kept[samples] += sources[source, samples]
    return kept

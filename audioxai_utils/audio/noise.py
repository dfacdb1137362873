"""Mixing a clip with a interferer, as the study does, and with both parts kept apart."""

from __future__ import annotations

import torch

from ..constants import MIXING_ALPHA


def pad_or_cut(waveform: torch.Tensor, n_samples: int) -> torch.Tensor:
    """Zeros appended, or the end cut off, until the last axis has ``n_samples`` samples."""
    if n_samples < 1:
        raise ValueError(f"n_samples must be at least 1; got {n_samples}")
    missing = n_samples - waveform.shape[-1]
    if missing > 0:
        return torch.nn.functional.pad(waveform, (0, missing))
    return waveform[..., :n_samples]


def peak_normalise(waveform: torch.Tensor) -> torch.Tensor:
    """Each waveform (..., samples) divided by its largest absolute value; silence stays silence."""
    return waveform / _or_one(waveform.abs().amax(dim=-1, keepdim=True))


def unit_rms(waveform: torch.Tensor) -> torch.Tensor:
    """Each waveform (..., samples) divided by its root mean square; silence stays silence."""
    return waveform / _or_one(waveform.square().mean(dim=-1, keepdim=True).sqrt())


def alpha_for_snr(snr_db: float) -> float:
    """The ``alpha`` of `mix` that gives a clip-to-noise ratio in dB; 0.6 is +3.52 dB."""
    ratio = 10.0 ** (snr_db / 20.0)
    return ratio / (1.0 + ratio)


def mix(clip: torch.Tensor, noise: torch.Tensor, alpha: float = MIXING_ALPHA) -> torch.Tensor:
    """Peak-normalised ``alpha * clip + (1 - alpha) * noise``, each divided by its own RMS first.

    Parameters and errors are those of `mix_stems`, whose first result this is.

    Returns
    -------
    torch.Tensor
        The mixture (..., samples), largest absolute value 1.
    """
    return mix_stems(clip, noise, alpha)[0]


def mix_stems(
    clip: torch.Tensor, noise: torch.Tensor, alpha: float = MIXING_ALPHA
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mix, and return what the clip and what the noise contributed.

    Parameters
    ----------
    clip, noise : torch.Tensor
        Waveforms (..., samples) of one length (see `pad_or_cut`); leading axes broadcast.
    alpha : float
        Share of the clip, 0 to 1; the clip-to-noise ratio is 20 log10(alpha / (1 - alpha)) dB.

    Returns
    -------
    mixture, clip_part, noise_part : torch.Tensor
        (..., samples) each; ``clip_part + noise_part == mixture`` exactly. A silent clip or noise
        has no RMS to divide by: it contributes zeros, and the other is heard alone.

    Raises
    ------
    TypeError
        An argument is no floating-point tensor.
    ValueError
        Lengths differ, a sample is NaN or infinite, or ``alpha`` lies outside [0, 1].
    """
    _check_waveform("clip", clip)
    _check_waveform("noise", noise)
    if clip.shape[-1] != noise.shape[-1]:
        raise ValueError(
            f"clip and noise must have the same length; got {clip.shape[-1]} and {noise.shape[-1]} samples "
            "(cut or pad one with pad_or_cut)"
        )
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha must lie between 0 and 1; got {alpha}")
    clip_part, noise_part = alpha * unit_rms(clip), (1.0 - alpha) * unit_rms(noise)
    clip_part, noise_part = torch.broadcast_tensors(clip_part, noise_part)
    peak = _or_one((clip_part + noise_part).abs().amax(dim=-1, keepdim=True))
    clip_part, noise_part = clip_part / peak, noise_part / peak
    return clip_part + noise_part, clip_part, noise_part


def _check_waveform(name: str, waveform: torch.Tensor) -> None:
    if not isinstance(waveform, torch.Tensor) or not waveform.is_floating_point():
        got = f"a {waveform.dtype} tensor" if isinstance(waveform, torch.Tensor) else type(waveform).__name__
        raise TypeError(f"{name} must be a floating-point tensor (..., samples); got {got}")
    if waveform.ndim == 0 or waveform.shape[-1] == 0:
        raise ValueError(f"{name} must have samples on its last axis; got shape {tuple(waveform.shape)}")
    if not torch.isfinite(waveform).all():
        raise ValueError(f"{name} holds NaN or infinite samples")


def _or_one(divisor: torch.Tensor) -> torch.Tensor:
    """``divisor`` with 1 in place of 0."""
    return torch.where(divisor > 0, divisor, torch.ones_like(divisor))

"""Masks that know nothing of the classifier: what any method must beat, and what a perfect one could do.

`random` keeps bins drawn at random and `energy` the loudest ones, both exactly as many per clip as the
mask they stand beside; `all_ones` keeps everything; `oracle` is the ideal binary mask of the clip against
its interferer, where both are known separately. All masks are float (batch, 1, frequency, time).

References
----------
.. [1] D. Wang, "On Ideal Binary Mask As the Computational Goal of Auditory Scene Analysis", 2005.
.. [2] J. Le Roux, S. Wisdom, H. Erdogan, J. R. Hershey, "SDR - Half-Baked or Well Done?", ICASSP 2019.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import torch

from ..constants import DB_FLOOR
from .selection import bin_ranks, first_bins


def clip_seed(clip: str, seed: int = 0) -> int:
    """A seed that depends on the clip's name and ``seed`` alone, the same on every machine."""
    return zlib.crc32(f"{seed}:{clip}".encode())


def _check_maps(**tensors: torch.Tensor) -> None:
    """All are finite (batch, 1, frequency, time) tensors of one shape."""
    shapes = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{name} must be a torch tensor; got {type(tensor).__name__}")
        if tensor.ndim != 4 or tensor.shape[1] != 1 or not tensor.numel():
            raise ValueError(f"{name} must be (batch, 1, frequency, time); got shape {tuple(tensor.shape)}")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} must be finite; it holds NaN or infinite values")
        shapes[name] = tuple(tensor.shape)
    if len(set(shapes.values())) > 1:
        raise ValueError("shapes must agree; got " + ", ".join(f"{name} {shapes[name]}" for name in shapes))


def _check_power(**tensors: torch.Tensor) -> None:
    _check_maps(**tensors)
    for name, tensor in tensors.items():
        if (tensor < 0).any():
            raise ValueError(f"{name} must be linear and not below 0; got {tensor.min().item():.3g}")


def kept_bins(mask: torch.Tensor) -> torch.Tensor:
    """Bins that a mask keeps, per clip: their number, or the rounded sum of a soft mask's values.

    Parameters
    ----------
    mask : (batch, 1, frequency, time) tensor, values in [0, 1]

    Returns
    -------
    (batch,) long tensor
        Divided by frequency x time this is the kept area: exact for a binary mask, the nearest there
        is for a soft one.
    """
    _check_maps(mask=mask)
    if mask.min() < 0 or mask.max() > 1:
        raise ValueError(f"mask must lie in [0, 1]; got {mask.min().item():.3g} to {mask.max().item():.3g}")
    return mask.double().sum(dim=(1, 2, 3)).round().long()


def random_map(shape: Sequence[int], seed: int | Sequence[int] = 0) -> torch.Tensor:
    """Scores in [0, 1) drawn for each clip from its own seed; float64 on the CPU.

    Parameters
    ----------
    shape : (batch, 1, frequency, time)
    seed : int or (batch,) ints
        One number is the seed of the first clip, the next clip has the next. With seeds of their own
        (`clip_seed`) clips do not depend on the batch they come in.
    """
    seeds = range(seed, seed + shape[0]) if isinstance(seed, (int, np.integer)) else list(seed)
    if len(seeds) != shape[0]:
        raise ValueError(f"seed must be one number or one per clip ({shape[0]}); got {len(seeds)}")
    return torch.stack([torch.from_numpy(np.random.default_rng(s).random(tuple(shape[1:]))) for s in seeds])


def all_ones(mask: torch.Tensor) -> torch.Tensor:
    """The mask that keeps everything: what a method must not be mistaken for."""
    return torch.ones_like(mask)


def oracle_mask(
    source_power: torch.Tensor, interferer_power: torch.Tensor, threshold: float = 0.0
) -> torch.Tensor:
    """Ideal binary mask: bins where the target is louder than the interferer by ``threshold`` dB [1]_.

    Parameters
    ----------
    source_power, interferer_power : (batch, 1, frequency, time) tensors
        Linear power of the two stems of a mixture. A bin where both are silent is not kept.
    """
    _check_power(source_power=source_power, interferer_power=interferer_power)
    return (source_power > interferer_power * 10 ** (threshold / 10)).to(source_power.dtype)


def control_ranks(power: torch.Tensor, seed: int | Sequence[int] = 0) -> dict[str, torch.Tensor]:
    """Order in which the `random` and `energy` controls take the bins of each clip.

    Sorting is what controls cost: made once per batch, this serves all masks of its clips.

    Parameters
    ----------
    power : (batch, 1, frequency, time) tensor
        What the clips hold, linear or in dB.
    seed : int or (batch,) ints
        See `random_map`.
    """
    random = random_map(tuple(power.shape), seed).to(power.device)
    return {"random": bin_ranks(random), "energy": bin_ranks(power)}


def control_masks(
    mask: torch.Tensor,
    power: torch.Tensor,
    seed: int | Sequence[int] = 0,
    ranks: dict[str, torch.Tensor] | None = None,
) -> dict[str, torch.Tensor]:
    """The controls of equal area of a method's mask: `random` and `energy`, as binary masks.

    Parameters
    ----------
    mask : (batch, 1, frequency, time) tensor
        Values in [0, 1]. A soft mask is matched by the nearest area that is a whole number of bins.
    power : tensor of the same shape, linear or in dB
    seed : int or (batch,) ints
        See `random_map`.
    ranks : dict, optional
        ``control_ranks(power, seed)``, so that it is not computed for every mask.

    Returns
    -------
    dict of (batch, 1, frequency, time) tensors
        Both keep `kept_bins` of the mask, clip by clip. The same seed draws nested masks: two masks of
        one area have the same controls, which need be scored once. The controls that no mask changes
        are `all_ones` and `oracle_mask`.
    """
    _check_maps(mask=mask, power=power)
    ranks = control_ranks(power, seed) if ranks is None else ranks
    n_kept = kept_bins(mask)
    return {name: first_bins(ranks[name], n_kept).to(mask) for name in ("random", "energy")}


def reordered(mask: torch.Tensor, ranks: torch.Tensor) -> torch.Tensor:
    """The mask's own values in another order: the largest where ``ranks`` are 0, and so on.

    What `control_masks` is to a binary mask, for which both are the same, this is to a soft one: as large,
    and as soft.

    Parameters
    ----------
    mask : (batch, 1, frequency, time) tensor
    ranks : long tensor of the same shape
        One of `control_ranks`.
    """
    _check_maps(mask=mask, ranks=ranks)
    values = mask.flatten(1).sort(dim=1, descending=True).values
    return values.gather(1, ranks.flatten(1)).view_as(mask)


def energy_kept(
    mask: torch.Tensor, source_power: torch.Tensor, interferer_power: torch.Tensor
) -> dict[str, torch.Tensor]:
    """How much of the two stems' energy a mask lets through.

    Parameters
    ----------
    mask, source_power, interferer_power : (batch, 1, frequency, time) tensors
        The mask as it is heard, on linear power.

    Returns
    -------
    dict of (batch,) float64 tensors, in dB
        `source_kept` and `interferer_kept`: 10 log10 of the kept share of energy, 0 for all of it,
        never below -100 (nothing is kept); NaN where a stem has no energy. `snr_gain` is their
        difference, the gain in signal-to-noise ratio.
    """
    _check_power(mask=mask, source_power=source_power, interferer_power=interferer_power)
    kept = {}
    for name, power in (("source_kept", source_power), ("interferer_kept", interferer_power)):
        power = power.double()
        share = (mask * power).sum(dim=(1, 2, 3)) / power.sum(dim=(1, 2, 3))  # (batch,); 0 / 0 is NaN
        kept[name] = 10 * torch.log10(share.clamp(min=10 ** (DB_FLOOR / 10)))
    kept["snr_gain"] = kept["source_kept"] - kept["interferer_kept"]
    return kept


def _without_mean(signal: torch.Tensor) -> torch.Tensor:
    """In float64; zeros where nothing but rounding is left."""
    mean = signal.double().mean(dim=-1, keepdim=True)
    rest = signal.double() - mean
    return rest * (rest.abs().amax(dim=-1, keepdim=True) > 1e-12 * mean.abs())


def si_sdr(estimate: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    r"""Scale-invariant signal-to-distortion ratio in dB ([2]_, eq. 4).

    :math:`10 \log_{10} \|\alpha s\|^2 / \|\alpha s - \hat s\|^2` with
    :math:`\alpha = \hat s^\top s / \|s\|^2`, in float64 and from three inner products: what torchmetrics
    gives, without the seconds that its import costs every step of a study. Deviation: both signals lose their
    mean first, which the reference takes to be zero.

    Parameters
    ----------
    estimate, reference : (..., samples) tensors

    Returns
    -------
    (...) float64 tensor
        About 156 for a perfect estimate and -156 for one without any of the reference (rounding decides),
        NaN where either signal is silent.
    """
    if estimate.shape != reference.shape:
        raise ValueError(
            "estimate and reference must have the same shape; "
            f"got {tuple(estimate.shape)} and {tuple(reference.shape)}"
        )
    estimate, reference = map(_without_mean, (estimate, reference))
    whole, along, of_reference = (
        (a * b).sum(dim=-1) for a, b in ((estimate, estimate), (estimate, reference), (reference, reference))
    )
    target = along.square() / of_reference  # energies; 0 of silence, and 0 / 0 is NaN
    least = torch.finfo(torch.float64).eps * whole
    return 10 * (torch.maximum(target, least) / torch.maximum(whole - target, least)).log10()

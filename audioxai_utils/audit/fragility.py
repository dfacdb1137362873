"""Fragility: does an explanation stay what it is when a sound changes by less than can be heard?

Noise far below the clip is added; where the class stays, the map of the new sound is held against that of the
old one by rank correlation. White noise, one draw or several at each level, is what a search that knows
nothing of the network finds; `attack` follows the network's gradients to a change of that level which moves
its saliency map most.

References
----------
Ghorbani et al. (2019), Interpretation of neural networks is fragile, sections 2 and 3: random perturbations
and the top-k attack; arXiv:2606.14466 (2026), for the question put to audio. The levels are of this module.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import nn

from ..attributions import METHODS
from ..evaluation.scoring import decibels
from ..evaluation.selection import bin_ranks, first_bins
from ..models.wrapping import is_differentiable
from ..words import method_label
from .planted.agreement import mean_with_interval
from .planted.measures import rank_correlation

if TYPE_CHECKING:
    from ..study.condition import Condition

LEVELS = (-50.0, -30.0)  # dB of the change against the clip
N_DRAWS = 1
N_STEPS = 10
STEP = 0.5  # of the change's own size
TOP = 0.1  # share of the bins from which an attack draws relevance away
SHARPNESS = 10.0  # of the softplus in the place of a ReLU, which has no second derivative to follow
WHITE, ATTACK = "white noise", "attack"

Explain = Callable[[str, torch.Tensor, torch.Tensor], torch.Tensor]
Predict = Callable[[torch.Tensor], torch.Tensor]
Attack = Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]


def of_condition(condition: Condition, methods: Sequence[str] | None = None, **options) -> pd.DataFrame:
    """`fragility` of a condition's clips by its methods, with the study's options.

    A model of waveforms, whose picture keeps a clip's phase, and one without gradients are not attacked.
    """
    classifier, target = condition.classifier, condition.targets
    methods, done = methods or condition.methods, []
    own = {name: condition.method_options(name) for name in methods}

    def explain(name: str, waveform: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        maps = []
        for one, label in zip(waveform.split(1), target):  # clips of a model of waveforms have a model each
            model, batch = classifier.of(one)
            given = own[name] | classifier.taken(name, one, batch)
            maps.append(METHODS[name](model, batch.db, label[None], **given))
        done.append(name)
        condition.study.progress("maps of changed sounds", len(done), len(methods) * n_sounds)
        return torch.cat(maps)

    def attacked(waveform: torch.Tensor, target: torch.Tensor, level_db: float) -> torch.Tensor:
        pairs = zip(classifier.sound(waveform).split(1), target.split(1))  # one at a time, for the memory
        transform = classifier.model, classifier.spectrogram
        return torch.cat([attack(*transform, *pair, level_db) for pair in pairs]).to(waveform)

    if not classifier.by_sound and is_differentiable(classifier.model):
        options.setdefault("attack", attacked)
    per_level = options.get("n_draws", N_DRAWS) + ("attack" in options)
    n_sounds = 1 + per_level * len(options.get("levels", LEVELS))
    found = fragility(
        explain,
        lambda waveform: classifier.probabilities(waveform).argmax(1),
        condition.clips.waveforms,
        methods,
        target=target,
        **options,
    )
    return found.assign(clip=condition.clips.frame["clip"].to_numpy()[found["clip"]])


def fragility(
    explain: Explain,
    predict: Predict,
    waveform: torch.Tensor,
    methods: Sequence[str],
    *,
    target: torch.Tensor | None = None,
    levels: Sequence[float] = LEVELS,
    n_draws: int = N_DRAWS,
    attack: Attack | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Rank correlation of maps before and after a change, for each clip, method, level and draw.

    Parameters
    ----------
    explain : callable
        Method, waveforms (n, samples) and classes (n,) to maps (n, 1, F, T).
    predict : callable
        Waveforms (n, samples) to the classes (n,) that the model predicts.
    waveform : Tensor (n, samples)
    target : Tensor (n,), optional
        Classes that are explained; those that the model predicts.
    attack : callable, optional
        Waveforms, classes and a level (dB) to changed waveforms, such as `attack` of this module.

    Returns
    -------
    DataFrame
        clip (place among the clips), method, level_db, change (`WHITE` or `ATTACK`), draw, similar
        (Spearman's rho) and held: whether the class is still predicted.
    """
    target = predict(waveform) if target is None else target
    before = {name: explain(name, waveform, target) for name in methods}
    generator, frames = torch.Generator().manual_seed(seed), []
    for level in levels:
        changed = [(WHITE, i, with_noise(waveform, level, generator)) for i in range(n_draws)]
        if attack:
            changed.append((ATTACK, 0, attack(waveform, target, level)))
        for change, draw, sound in changed:
            held = (predict(sound) == target).tolist()
            for name in methods:
                after = explain(name, sound, target)
                similar = rank_correlation(before[name][:, 0], after[:, 0]).tolist()
                about = {"method": name, "level_db": level, "change": change, "draw": draw}
                rows = {"clip": range(len(waveform)), "similar": similar, "held": held}
                frames.append(pd.DataFrame(rows | about))
    return pd.concat(frames, ignore_index=True)


# Changes


def with_noise(waveform: torch.Tensor, level_db: float, generator: torch.Generator) -> torch.Tensor:
    """Waveforms (n, samples) with white noise ``level_db`` dB against each one's own power."""
    noise = torch.randn(waveform.shape, generator=generator, dtype=torch.float64).to(waveform)
    return waveform + at_level(noise, waveform, level_db)


def at_level(change: torch.Tensor, waveform: torch.Tensor, level_db: float) -> torch.Tensor:
    """A change (n, samples) scaled to ``level_db`` dB against the power of each waveform."""
    own, clip = (values.square().mean(1, keepdim=True).sqrt() for values in (change, waveform))
    return change * (10 ** (level_db / 20) * clip / own.clamp_min(torch.finfo(own.dtype).tiny))


def attack(
    model: nn.Module,
    spectrogram: nn.Module,
    waveform: torch.Tensor,
    target: torch.Tensor,
    level_db: float,
    *,
    n_steps: int = N_STEPS,
    seed: int = 0,
) -> torch.Tensor:
    """Waveforms changed so that saliency leaves the bins where it was highest, and the class stays.

    From white noise on, gradient steps of the sound lower the share of the absolute gradient that lies on the
    `TOP` of the bins; after each the change is scaled to its level again. Of all steps at which ``model``
    still predicts ``target``, the one with the lowest share is taken; where there is none, the noise. Steps
    follow a copy with softplus for ReLU (Ghorbani et al., section 3); where its gradient has no slope of
    its own either, the noise stays.

    Parameters
    ----------
    model, spectrogram : nn.Module
        Pictures in dB (n, 1, F, T) to logits (n, classes), and waveforms to pictures.
    waveform : Tensor (n, samples)
    target : Tensor (n,)
    level_db : float
        Power of the change against that of each waveform.

    Returns
    -------
    Tensor (n, samples)
    """
    soft = softened(model)
    with torch.enable_grad():
        first, _ = _relevance(model, spectrogram, waveform, target)
        n_bins = torch.full((len(waveform),), max(1, round(TOP * first[0].numel())), device=first.device)
        chosen = first_bins(bin_ranks(first), n_bins).to(first)
        change = with_noise(waveform, level_db, torch.Generator().manual_seed(seed)) - waveform
        best, lowest = waveform + change, torch.full((len(waveform),), torch.inf).to(waveform)
        for step in range(n_steps + 1):
            slope, logits = _relevance(model, spectrogram, waveform + change, target)
            share = _share(slope, chosen)
            better = (logits.argmax(1) == target) & (share < lowest)
            lowest = torch.where(better, share, lowest)
            best = torch.where(better[:, None], waveform + change, best)
            if step < n_steps:
                down = _descent(soft, spectrogram, waveform, change, target, chosen)
                change = at_level(change - STEP * change.norm(dim=1, keepdim=True) * down, waveform, level_db)
    return best.detach()


def _relevance(
    net: nn.Module, spectrogram: nn.Module, sound: torch.Tensor, target: torch.Tensor, graph: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Absolute input gradient (n, 1, F, T) of the targets' scores, and all scores (n, classes)."""
    picture = decibels(sound, spectrogram)
    scores = net(picture if graph else picture.requires_grad_())
    explained = scores.gather(1, target[:, None]).sum()
    return torch.autograd.grad(explained, picture, create_graph=graph)[0].abs(), scores


def _share(slope: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Share (n,) of the relevance (n, 1, F, T) that lies on the chosen bins."""
    return (slope * chosen).sum((1, 2, 3)) / slope.sum((1, 2, 3)).clamp_min(1e-30)


def _descent(soft, spectrogram, waveform, change, target, chosen) -> torch.Tensor:
    """Direction (n, samples) of length 1 that lowers the share; 0 where the gradient has no slope."""
    moved = change.clone().requires_grad_()
    share = _share(_relevance(soft, spectrogram, waveform + moved, target, True)[0], chosen)
    (down,) = torch.autograd.grad(share.sum(), moved, allow_unused=True)
    if down is None:
        return torch.zeros_like(change)
    return down / down.norm(dim=1, keepdim=True).clamp_min(1e-30)


def softened(model: nn.Module) -> nn.Module:
    """A copy with `nn.Softplus` for every `nn.ReLU`."""
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.Softplus(SHARPNESS))
    return model


# What came out


def table(found: pd.DataFrame) -> pd.DataFrame:
    """A row for each method, change and level, of changes that hold the class.

    Returns
    -------
    DataFrame
        method, change, level_db, ``similar``, the mean, with ``_low`` and ``_high`` (95 %, over clips),
        ``worst``, the mean over clips of the lowest draw, and ``clips`` whose class was held.
    """
    rows = []
    for keys, part in found[found["held"]].groupby(["method", "change", "level_db"], sort=False):
        clips = part.groupby("clip")["similar"]
        values = dict(zip(("similar", "similar_low", "similar_high"), mean_with_interval(clips.mean())))
        about = dict(zip(("method", "change", "level_db"), keys))
        rows.append({**about, **values, "worst": clips.min().mean(), "clips": len(clips)})
    columns = ["method", "change", "level_db", "similar", "similar_low", "similar_high", "worst", "clips"]
    return pd.DataFrame(rows, columns=columns)


def sentence(table: pd.DataFrame) -> str:
    """The loudest change in words, as Markdown; nothing of an empty table."""
    if table.empty or table["similar"].isna().all():
        return ""
    level = table["level_db"].max()
    loudest = table[table["level_db"] == level].dropna(subset="similar")
    noisy = loudest[loudest["change"] == WHITE].set_index("method")["similar"]
    if noisy.empty:
        return ""
    said = f"White noise {-level:.0f} dB below the clip leaves"
    said += f" {method_label(noisy.idxmax())} most alike (ρ = {noisy.max():.2f})"
    if len(noisy) > 1:
        said += f" and {method_label(noisy.idxmin())} least (ρ = {noisy.min():.2f})"
    aimed = loudest[loudest["change"] == ATTACK].set_index("method")["similar"]
    if "saliency" in aimed and "saliency" in noisy:
        said += (
            f"; a change of that level aimed at saliency takes its ρ from {noisy['saliency']:.2f} "
            f"to {aimed['saliency']:.2f}"
        )
    return f"{said}."

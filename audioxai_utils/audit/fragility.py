"""Fragility: does an explanation stay what it is when a sound changes by little?

Noise far below the clip is added; where the class stays, the map of the new sound is held against that of the
old one by rank correlation. White noise, one draw or several at each level, is what a search that knows
nothing of the network finds; `attack` follows the network's gradients to a change of that level which moves
a map most. A method whose map has a slope of its own is attacked at that (`aim_of`), every other one at the
saliency map, so that what an attack does to it is a bound from one side.

References
----------
Ghorbani et al. (2019), Interpretation of neural networks is fragile, sections 2 and 3: random perturbations
and the top-k attack, on saliency and on integrated gradients; arXiv:2606.14466 (2026), for the question put
to audio. The levels, and the attack on Grad-CAM, are of this module.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..attributions import METHODS
from ..attributions.gradcam import layer_and_grid, weighted_maps
from ..evaluation.ranks import rank_correlation
from ..evaluation.scoring import decibels
from ..evaluation.selection import bin_ranks, first_bins
from ..models.reading import reading_of
from ..models.wrapping import is_differentiable
from ..words import method_label
from .planted.agreement import mean_with_interval

if TYPE_CHECKING:
    from ..study.condition import Condition

LEVELS = (-50.0, -30.0)  # dB of the change against the clip
N_DRAWS = 1
N_STEPS = 10
STEP = 0.5  # of the change's own size
TOP = 0.1  # share of the bins from which an attack draws relevance away
SHARPNESS = 10.0  # of the softplus in the place of a ReLU, which has no second derivative to follow
PATH_POINTS = (0.125, 0.375, 0.625, 0.875)  # between baseline and clip, midpoints of four parts
WHITE, ATTACK = "white noise", "attack"
COLUMNS = ["method", "change", "level_db", "similar", "similar_low", "similar_high", "worst", "clips"]
COLUMNS += ["both_noise", "both_attack"]

Explain = Callable[[str, torch.Tensor, torch.Tensor], torch.Tensor]
Predict = Callable[[torch.Tensor], torch.Tensor]
Attack = Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]
# pictures, classes and whether with a graph, to relevance (n, ...), 0 or more
Relevance = Callable[[torch.Tensor, torch.Tensor, bool], torch.Tensor]
Aim = Callable[[nn.Module, torch.Tensor, torch.Tensor], Relevance]  # of a network, with a picture and a class


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

    def attacked(aim: Aim, waveform: torch.Tensor, target: torch.Tensor, level_db: float) -> torch.Tensor:
        if (aim, level_db) not in aimed:
            pairs = zip(classifier.sound(waveform).split(1), target.split(1))  # one at a time, for the memory
            transform = classifier.model, classifier.spectrogram
            aimed[aim, level_db] = torch.cat([attack(*transform, *pair, level_db, aim) for pair in pairs])
        return aimed[aim, level_db].to(waveform)

    aimed: dict[tuple, torch.Tensor] = {}  # of methods with the same aim once
    if not classifier.by_sound and is_differentiable(classifier.model):
        aims = {name: aim_of(name, classifier.model, own[name]) for name in methods}
        options.setdefault("attacks", {name: partial(attacked, aim) for name, aim in aims.items()})
    per_level = options.get("n_draws", N_DRAWS) + ("attacks" in options)
    n_sounds = 1 + per_level * len(options.get("levels", LEVELS))
    found = fragility(
        explain,
        lambda waveform: classifier.reading.predicted(classifier.probabilities(waveform)),
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
    attacks: Mapping[str, Attack] | None = None,
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
    attacks : mapping of str to callable, optional
        By method: waveforms, classes and a level (dB) to changed waveforms, such as `attack` of this module.

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
        noisy = [(WHITE, i, with_noise(waveform, level, generator)) for i in range(n_draws)]
        aimed = {name: [(ATTACK, 0, attacks[name](waveform, target, level))] for name in attacks or {}}
        for name in methods:
            for change, draw, sound in noisy + aimed.get(name, []):
                both = (maps.flatten(1).cpu() for maps in (before[name], explain(name, sound, target)))
                similar = rank_correlation(*both).tolist()
                held = (predict(sound) == target).tolist()
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
    aim: Aim | None = None,
    *,
    n_steps: int = N_STEPS,
    seed: int = 0,
) -> torch.Tensor:
    """Waveforms changed so that relevance leaves the places where it was highest, and the class stays.

    From white noise on, gradient steps of the sound lower the share of the relevance that lies on the `TOP`
    of the bins, or of a layer's cells; after each the change is scaled to its level again. Of all steps at
    which ``model`` still predicts ``target``, the one with the lowest share is taken; where there is none,
    the noise. Steps follow a copy with softplus for ReLU (Ghorbani et al., section 3); where its relevance
    has no slope either, the noise stays.

    Parameters
    ----------
    model, spectrogram : nn.Module
        Pictures in dB (n, 1, F, T) to logits (n, classes), and waveforms to pictures.
    waveform : Tensor (n, samples)
    target : Tensor (n,)
    level_db : float
        Power of the change against that of each waveform.
    aim : callable, optional
        What is lowered: `aim_at_saliency` (the default), `aim_at_gradcam` or one of `aim_at_path`.

    Returns
    -------
    Tensor (n, samples)
    """
    aim, soft, reading = aim or aim_at_saliency, softened(model), reading_of(model)
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        picture = decibels(waveform, spectrogram).detach()
        relevance, followed = (aim(net, picture, target) for net in (model, soft))
        first = relevance(picture, target, False)
        n_top = torch.full((len(waveform),), max(1, round(TOP * first[0].numel())), device=first.device)
        chosen = first_bins(bin_ranks(first), n_top).to(first)
        change = with_noise(waveform, level_db, torch.Generator().manual_seed(seed)) - waveform
        best, lowest = waveform + change, torch.full((len(waveform),), torch.inf).to(waveform)
        for step in range(n_steps + 1):
            picture = decibels(waveform + change, spectrogram).detach()
            share = _share(relevance(picture, target, False), chosen)
            held = reading.predicted(reading.probabilities(model(picture))) == target
            better = held & (share < lowest)
            lowest = torch.where(better, share, lowest)
            best = torch.where(better[:, None], waveform + change, best)
            if step < n_steps:
                down = _descent(followed, spectrogram, waveform, change, target, chosen)
                change = at_level(change - STEP * change.norm(dim=1, keepdim=True) * down, waveform, level_db)
    return best.detach()


def _share(relevance: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Share (n,) of the relevance (n, ...), 0 or more, that lies on the chosen places."""
    return (relevance * chosen).flatten(1).sum(1) / relevance.flatten(1).sum(1).clamp_min(1e-30)


def _descent(followed: Relevance, spectrogram, waveform, change, target, chosen) -> torch.Tensor:
    """Direction (n, samples) of length 1 that lowers the share; 0 where the relevance has no slope."""
    moved = change.clone().requires_grad_()
    share = _share(followed(decibels(waveform + moved, spectrogram), target, True), chosen)
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


# What an attack aims at: relevance (n, ...) of pictures, 0 or more


def slope(net: nn.Module, picture: torch.Tensor, target: torch.Tensor, graph: bool = False) -> torch.Tensor:
    """Input gradient (n, 1, F, T) of the targets' scores; ``graph``: differentiable in the picture."""
    picture = picture if graph else picture.detach().requires_grad_()
    return torch.autograd.grad(net(picture).gather(1, target[:, None]).sum(), picture, create_graph=graph)[0]


def aim_at_saliency(net: nn.Module, picture: torch.Tensor, target: torch.Tensor) -> Relevance:
    """The absolute input gradient."""
    return lambda picture, target, graph: slope(net, picture, target, graph).abs()


def aim_at_gradcam(net: nn.Module, picture: torch.Tensor, target: torch.Tensor) -> Relevance:
    """What speaks for the class in Grad-CAM's layer, on its own grid."""
    layer, grid = layer_and_grid(net, picture[:1], target[:1])

    def relevance(picture: torch.Tensor, target: torch.Tensor, graph: bool) -> torch.Tensor:
        return weighted_maps(net, layer, grid, picture, target, graph).clamp_min(0)

    return relevance


def aim_at_path(baseline: torch.Tensor | float) -> Aim:
    """What speaks for the class in integrated gradients from a baseline (1, 1, F, T) or level in dB."""

    def aim(net: nn.Module, picture: torch.Tensor, target: torch.Tensor) -> Relevance:
        def relevance(picture: torch.Tensor, target: torch.Tensor, graph: bool) -> torch.Tensor:
            way = picture - baseline
            slopes = [slope(net, baseline + share * way, target, graph) for share in PATH_POINTS]
            return (way * torch.stack(slopes).mean(0)).clamp_min(0)

        return relevance

    return aim


def aim_of(method: str, model: nn.Module, options: Mapping) -> Aim:
    """What an attack on a method aims at; of Deep SHAP and its kin the path from the references' mean."""
    if method in ("gradcam", "guided_gradcam"):
        return aim_at_gradcam
    if method in ("integrated_gradients", "shap", "gradient_shap"):
        references = options.get("background")
        return aim_at_path(
            reading_of(model).floor if references is None else references.mean(0, keepdim=True)
        )
    return aim_at_saliency


# What came out


def table(found: pd.DataFrame) -> pd.DataFrame:
    """A row for each method, change and level, of changes that hold the class.

    Returns
    -------
    DataFrame
        method, change, level_db, ``similar``, the mean, with ``_low`` and ``_high`` (95 %, over clips),
        ``worst``, the mean over clips of the lowest draw, and ``clips`` whose class was held. Of an attack
        ``both_noise`` and ``both_attack`` are the means over the clips that noise of its level holds too.
    """
    rows, held = [], found[found["held"]]
    by_noise = held[held["change"] == WHITE].groupby(["method", "level_db", "clip"])["similar"].mean()
    for keys, part in held.groupby(["method", "change", "level_db"], sort=False):
        clips = part.groupby("clip")["similar"]
        bounds = mean_with_interval(clips.mean(), within=(-1, 1))
        values = dict(zip(("similar", "similar_low", "similar_high"), bounds))
        about = dict(zip(("method", "change", "level_db"), keys))
        values |= {"worst": clips.min().mean(), "clips": len(clips)}
        if about["change"] == ATTACK and (about["method"], about["level_db"]) in by_noise.index:
            noisy = by_noise.loc[about["method"], about["level_db"]]
            both = clips.mean().to_frame(ATTACK).join(noisy.rename(WHITE), how="inner").mean()
            values |= {"both_noise": both[WHITE], "both_attack": both[ATTACK]}
        rows.append(about | values)
    return pd.DataFrame(rows, columns=COLUMNS)


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
    aimed = loudest[loudest["change"] == ATTACK].set_index("method").dropna(subset="both_noise")
    ends = [name for name in dict.fromkeys((noisy.idxmax(), noisy.idxmin())) if name in aimed.index]
    if ends:
        falls = ((method_label(name), *aimed.loc[name, ["both_noise", "both_attack"]]) for name in ends)
        fell = (f"{method} from {before:.2f} to {after:.2f}" for method, before, after in falls)
        said += f"; of clips that both leave in their class, an attack takes {' and '.join(fell)}"
    return f"{said}."

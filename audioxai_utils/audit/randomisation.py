"""Model randomisation: does an attribution depend on what the model learnt?

References
----------
Adebayo et al. (2018), Sanity checks for saliency maps, section 4: cascading randomisation.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import nn

from .. import constants
from ..attributions import METHODS, neighbourhoods
from ..evaluation.ranks import constant, spearman
from ..models.inference import inference_copy
from ..numerics import at_once

if TYPE_CHECKING:
    from ..study.condition import Condition

SSIM_WINDOW = 7  # bins; skimage's default
KINDS = {"absolute": 1, "signed": 2}  # of values compared -> extent of their range
UNDEFINED = {"spearman": float("nan"), "ssim": float("nan")}


def randomisation(condition: Condition, methods: Sequence[str] | None = None, seed: int = 0) -> pd.DataFrame:
    """`model_randomisation` of a condition's classifier by each of its methods, with the study's options."""
    classifier, frames = condition.classifier, []
    methods = methods or condition.methods
    for n_done, method in enumerate(methods, 1):
        options, waveforms = condition.method_options(method), condition.clips.waveforms
        together = 1 if classifier.by_sound else len(waveforms)
        for first in range(0, len(waveforms), together):
            part = waveforms[first : first + together]
            model, batch = classifier.of(part)
            own = options | classifier.taken(method, part, batch)
            target = condition.targets[first : first + together]
            table = model_randomisation(model, batch.db, target, method, own, seed)
            frames.append(table.assign(clip=table["clip"] + first))
        condition.study.progress(f"layers drawn anew, {method}", n_done, len(methods))
    return pd.concat(frames, ignore_index=True)


def model_randomisation(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    method: str,
    options: dict | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """How an attribution changes as the model's layers are drawn anew, cumulatively from the top.

    The stages are the model's direct children with parameters (of a wrapper those of what it holds), the last
    one first: for Cnn14 head, fc1, conv_block6 ... conv_block1, bn0. A stage draws its layers anew with
    ``reset_parameters``, on CPU and from ``seed``, and keeps those above it as drawn before; running means
    and variances of batch norms go with it. The model itself is not changed, the class explained stays.

    Parameters
    ----------
    model, db (batch, 1, frequency, time), target (batch,)
        As for every method, see ``attributions``.
    method : str
        A name in ``attributions.METHODS``.
    options : dict, optional
        Of the method; its ``waveform`` (batch, samples), where it has one, is the clips'.

    Returns
    -------
    DataFrame
        method, `stage` ("none" is the model as it is, explained a second time), `clip` (place in
        the batch), `kind` (``absolute`` values or ``signed`` ones), `spearman` over all bins, and `ssim`
        of the maps, each divided by its largest absolute value first (data range 1 and 2).
        Both are NaN, and `reason` says why, where one of the two attributions is constant, or where the
        method cannot explain the clip in the changed model.

    Raises
    ------
    ValueError
        The maps are too small for SSIM, a layer cannot be drawn anew, or the method cannot explain a clip in
        the model as it is.
    """
    stages = ["none", *_stages(model)]
    if min(db.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(f"db must have at least {SSIM_WINDOW} bins and frames; got {tuple(db.shape)}")
    explain, rows = _explainer(db, target, method, options or {}), []
    original = [explain(model, clip) for clip in range(len(db))]
    for stage, changed in zip(stages, _randomised(model, stages, seed)):
        for clip, first in enumerate(original):
            try:
                found = list(_likeness(first, explain(changed, clip)))
            except ValueError as error:  # what a method answers that cannot explain a model
                found = [{"kind": kind, **UNDEFINED, "reason": str(error)} for kind in KINDS]
            rows += [{"method": method, "stage": stage, "clip": clip, **values} for values in found]
    return pd.DataFrame(rows)


def _likeness(first: np.ndarray, second: np.ndarray) -> Iterator[dict]:
    """Rank correlation and SSIM of two maps (F, T), of their absolute values and of their signed ones."""
    sizes = (np.abs(first), np.abs(second))
    for (kind, extent), pair in zip(KINDS.items(), (sizes, (first, second))):
        if constant(pair[0]) or constant(pair[1]):
            yield {"kind": kind, **UNDEFINED, "reason": "an attribution is constant"}
        else:
            yield {
                "kind": kind,
                "spearman": spearman(*pair),
                "ssim": _ssim(*pair, data_range=extent),
                "reason": "",
            }


def _stages(model: nn.Module) -> list[str]:
    """Children with parameters from the top; ValueError where one of them cannot be drawn anew."""
    names, place = _with_parameters(model), ""
    while len(names) == 1 and (inner := _with_parameters(model.get_submodule(place + names[0]))):
        place, names = f"{place}{names[0]}.", inner
    names = [place + name for name in names][::-1]
    if not names:
        raise ValueError("model must have child modules with parameters; put its layers in nn.Sequential")
    for name in names:
        for inner, module in model.get_submodule(name).named_modules():
            has_own = any(True for _ in module.parameters(recurse=False))
            if has_own and not hasattr(module, "reset_parameters"):
                place = f"{name}.{inner}".rstrip(".")
                raise ValueError(f"{place} ({type(module).__name__}) has no reset_parameters(); give it one")
    return names


def _with_parameters(model: nn.Module) -> list[str]:
    return [name for name, child in model.named_children() if any(True for _ in child.parameters())]


def _randomised(model: nn.Module, stages: list[str], seed: int) -> Iterator[nn.Module]:
    """The model after each stage; drawn on CPU, so that every device gets the same weights."""
    device = next(model.parameters()).device
    changed = copy.deepcopy(model).cpu()
    for number, stage in enumerate(stages):
        if stage != "none":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed + number)
                for module in changed.get_submodule(stage).modules():
                    if hasattr(module, "reset_parameters"):
                        module.reset_parameters()
        yield copy.deepcopy(changed).to(device)


def _explainer(
    db: torch.Tensor, target: torch.Tensor, method: str, options: dict
) -> Callable[[nn.Module, int], np.ndarray]:
    """(model, place of a clip) -> its attribution (F, T) in float64; one clip at a time, which bounds memory.

    LIME's superpixels and neighbours do not depend on the model: its fast engine prepares them once.
    """
    if method != "lime" or set(options) - {"n_samples", "seed"}:
        sounds = options["waveform"].split(1) if "waveform" in options else [None] * len(db)
        own = [options if sound is None else options | {"waveform": sound} for sound in sounds]
        return lambda model, i: _map(METHODS[method](model, db[i : i + 1], target[i : i + 1], **own[i]))
    n_samples, seed = options.get("n_samples", 1000), options.get("seed", constants.FIXED_SEEDS["LIME"])
    prepared = [neighbourhoods.prepare(one.cpu(), n_samples, seed) for one in db]
    size = at_once(None, db.device)

    def explain(model: nn.Module, i: int) -> np.ndarray:
        fast, clip = inference_copy(model, db), prepared[i]
        found = neighbourhoods.classify(fast, clip, int(target[i]), db, size)
        return neighbourhoods.regress(clip, found)[clip.segments]

    return explain


def _map(attribution: torch.Tensor) -> np.ndarray:
    return attribution[0, 0].double().cpu().numpy()


def _ssim(first: np.ndarray, second: np.ndarray, data_range: float) -> float:
    from skimage.metrics import structural_similarity

    first, second = (values / np.abs(values).max() for values in (first, second))
    return float(structural_similarity(first, second, win_size=SSIM_WINDOW, data_range=data_range))

"""How far an attribution can be trusted: does it repeat, does it look at the model?

Two measurements on a trained classifier, each a tidy frame: :func:`lime_stability` and
:func:`model_randomisation`. The gradient check is in ``checks``, the additivity of Deep SHAP in
``audit``, the stability of ranks in ``comparisons``, louder and softer noise in ``sweep``.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import nn

from .. import constants
from ..study import study
from ..attributions import lime_fast
from ..attributions import METHODS
from ..attributions.lime import ALPHA, KERNEL_WIDTH
from ..models.inference import inference_copy
from ..evaluation.scoring import probabilities

CONSTANT = 1e-6  # of the largest value; a map that varies less than float32 rounds has no ranks
SSIM_WINDOW = 7  # bins; skimage's default


def spearman(first, second) -> float:
    """Rank correlation of two arrays of one size, ties at their mean rank; NaN where one is constant."""
    from scipy.stats import rankdata

    first, second = (np.asarray(values, dtype=np.float64).ravel() for values in (first, second))
    if _constant(first) or _constant(second):
        return float("nan")
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])


def _constant(values: np.ndarray) -> bool:
    return bool(np.ptp(values) <= CONSTANT * np.abs(values).max())


# --- LIME: does the regression fit, and do its weights hang on the seed? ----------------------


def lime_stability(
    settings: study.Settings, classifier: study.Classifier, clips: study.Clips, n_seeds: int = 5
) -> pd.DataFrame:
    """Fit and stability of LIME's weights over seeds, on the same superpixels, for every clip.

    The first seed is the study's. Every seed draws the neighbours that lime would draw with it
    on these superpixels; the predicted class is explained, as in the study.

    Returns
    -------
    DataFrame
        One row per clip: clip, target, `n_superpixels`, `n_samples`, `n_seeds`; `r2`, the R^2 of
        the weighted ridge regression on its own neighbours, mean over seeds; `r2_fresh`, the R^2
        of the same fit on the next seed's neighbours, which it has not seen; `spearman`, the mean
        rank correlation of the weights of two seeds, and `spearman_low`, the smallest one. NaN
        where the probability does not change or the weights are constant.

    Raises
    ------
    ValueError
        ``n_seeds`` is below 2.
    """
    if n_seeds < 2:
        raise ValueError(f"n_seeds must be 2 or more, to compare seeds; got {n_seeds}")
    db = study.spectrograms_of(classifier, clips)
    target = probabilities(classifier.model, db).argmax(1).tolist()
    fast, n_samples = inference_copy(classifier.model, db), settings.sizes.lime_samples
    seeds = [constants.FIXED_SEEDS["LIME"] + i for i in range(n_seeds)]
    rows = []
    for one, clip, c in zip(db, clips.frame["clip"], target):
        neighbourhood = lime_fast.prepare(one.cpu(), n_samples, seeds[0])
        drawn = [redrawn(neighbourhood, seed) for seed in seeds]
        size = lime_fast.BATCH_SIZE.get(db.device.type, 64)
        found = [lime_fast.classify(fast, each, c, db, size) for each in drawn]
        sizes = {"n_superpixels": drawn[0].visible.shape[1], "n_samples": n_samples, "n_seeds": n_seeds}
        agreement = _agreement([each.visible for each in drawn], found)
        rows.append({"clip": clip, "target": c, **sizes, **agreement})
    return pd.DataFrame(rows)


def redrawn(clip: lime_fast.Neighbourhood, seed: int) -> lime_fast.Neighbourhood:
    """The same superpixels with the neighbours that lime draws with ``seed``."""
    random_state = np.random.RandomState(seed)
    random_state.randint(0, high=1000)  # lime draws the segmentation's seed first
    visible = random_state.randint(0, 2, clip.visible.size).reshape(clip.visible.shape).astype(bool)
    visible[0] = True
    return replace(clip, visible=visible)


def _agreement(visible: list[np.ndarray], probability: list[np.ndarray]) -> dict[str, float]:
    """R^2 on own and on fresh neighbours, and the rank correlation of weights, over seeds."""
    from sklearn.linear_model import Ridge

    fits = [
        Ridge(alpha=ALPHA, fit_intercept=True).fit(rows, p, sample_weight=proximity(rows))
        for rows, p in zip(visible, probability)
    ]
    own = [_r2(*each) for each in zip(fits, visible, probability)]
    fresh_rows, fresh_p = [*visible[1:], visible[0]], [*probability[1:], probability[0]]
    fresh = [_r2(*each) for each in zip(fits, fresh_rows, fresh_p)]
    pairs = [spearman(first.coef_, second.coef_) for first, second in itertools.combinations(fits, 2)]
    means = {"r2": np.mean(own), "r2_fresh": np.mean(fresh), "spearman": np.mean(pairs)}
    return {name: float(value) for name, value in means.items()} | {"spearman_low": float(np.min(pairs))}


def proximity(visible: np.ndarray) -> np.ndarray:
    """LIME's weight of every neighbour (n_samples,): exp(-cosine distance^2 / width^2)^(1/2)."""
    distance = 1 - np.sqrt(visible.astype(np.float64).mean(axis=1))
    return np.sqrt(np.exp(-(distance**2) / KERNEL_WIDTH**2))


def _r2(ridge, visible: np.ndarray, probability: np.ndarray) -> float:
    if np.ptp(probability) == 0:
        return float("nan")  # nothing to explain
    return float(ridge.score(visible, probability, sample_weight=proximity(visible)))


# --- model randomisation: does the attribution hang on what the model learnt? -----------------


def model_randomisation(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    method: str,
    options: dict | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """How an attribution changes as the model's layers are drawn anew, cumulatively from the top.

    The stages are the model's direct children with parameters, the last one first: for Cnn14 head,
    fc1, conv_block6 ... conv_block1, bn0. A stage draws its layers anew with ``reset_parameters``,
    on CPU and from ``seed``, and keeps those above it as drawn before; running means and
    variances of batch norms go with it. The model itself is not changed, the class explained stays.

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
        Both are NaN where one of the two attributions is constant.

    References
    ----------
    Adebayo et al. (2018), Sanity checks for saliency maps, section 4: cascading randomisation.
    """
    stages = ["none", *_stages(model)]
    if min(db.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(f"db must have at least {SSIM_WINDOW} bins and frames; got {tuple(db.shape)}")
    explain, rows = _explainer(db, target, method, options or {}), []
    original = explain(model)
    for stage, changed in zip(stages, _randomised(model, stages, seed)):
        for i, pair in enumerate(zip(original, explain(changed))):
            rows += [{"method": method, "stage": stage, "clip": i, **values} for values in _likeness(*pair)]
    return pd.DataFrame(rows)


def _likeness(first: np.ndarray, second: np.ndarray) -> Iterator[dict]:
    """Rank correlation and SSIM of two maps (F, T), of their absolute values and of their signed ones."""
    sizes = (np.abs(first), np.abs(second))
    for kind, pair, extent in (("absolute", sizes, 1), ("signed", (first, second), 2)):
        yield {"kind": kind, "spearman": spearman(*pair), "ssim": _ssim(*pair, data_range=extent)}


def _stages(model: nn.Module) -> list[str]:
    """Children with parameters from the top; ValueError where one of them cannot be drawn anew."""
    names = [name for name, child in model.named_children() if any(True for _ in child.parameters())][::-1]
    if not names:
        raise ValueError("model must have child modules with parameters; put its layers in nn.Sequential")
    for name in names:
        for inner, module in model.get_submodule(name).named_modules():
            has_own = any(True for _ in module.parameters(recurse=False))
            if has_own and not hasattr(module, "reset_parameters"):
                place = f"{name}.{inner}".rstrip(".")
                raise ValueError(f"{place} ({type(module).__name__}) has no reset_parameters(); give it one")
    return names


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
) -> Callable[[nn.Module], np.ndarray]:
    """model -> attributions (batch, F, T) in float64, one clip at a time, which bounds memory.

    LIME's superpixels and neighbours do not hang on the model: its fast engine prepares them once.
    """
    if method != "lime" or set(options) - {"n_samples", "seed"}:
        sounds = options["waveform"].split(1) if "waveform" in options else [None] * len(db)
        own = [options if sound is None else options | {"waveform": sound} for sound in sounds]
        clips = list(zip(db.split(1), target.split(1), own))
        return lambda model: _maps([METHODS[method](model, *clip, **its) for *clip, its in clips])
    n_samples, seed = options.get("n_samples", 1000), options.get("seed", constants.FIXED_SEEDS["LIME"])
    prepared = [lime_fast.prepare(one.cpu(), n_samples, seed) for one in db]
    size = lime_fast.BATCH_SIZE.get(db.device.type, 64)

    def explain(model: nn.Module) -> np.ndarray:
        fast = inference_copy(model, db)
        found = [lime_fast.classify(fast, clip, c, db, size) for clip, c in zip(prepared, target.tolist())]
        return np.stack([lime_fast.regress(clip, p)[clip.segments] for clip, p in zip(prepared, found)])

    return explain


def _maps(parts: list[torch.Tensor]) -> np.ndarray:
    return torch.cat(parts)[:, 0].double().cpu().numpy()


def _ssim(first: np.ndarray, second: np.ndarray, data_range: float) -> float:
    from skimage.metrics import structural_similarity

    if _constant(first) or _constant(second):
        return float("nan")
    first, second = (values / np.abs(values).max() for values in (first, second))
    return float(structural_similarity(first, second, win_size=SSIM_WINDOW, data_range=data_range))

"""Sanity checks of attributions: is the gradient the model's, do the values add up, does LIME fit and repeat?

:func:`gradient`, :func:`additivity` and :func:`lime_stability` each take a condition. Whether a method looks
at the model at all is asked in `randomisation`.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional

from .. import constants
from ..attributions import neighbourhoods
from ..attributions.gradient_check import gradient_check
from ..attributions.neighbourhoods import ALPHA, KERNEL_WIDTH
from ..evaluation.frames import CONDITION
from ..evaluation.ranks import spearman
from ..models.cnn14 import Cnn14
from ..models.inference import inference_copy
from ..models.wrapping import is_differentiable
from ..numerics import at_once, tensor_float32
from ..words import method_label, percent

if TYPE_CHECKING:
    from ..study.condition import Condition
    from ..study.study import Study

N_GRADIENT_CLIPS = 2  # clips whose gradient is checked
LIME_CHECKS = {  # check -> column of `lime_stability`
    "LIME's fit on its own neighbours": "r2",
    "LIME's fit on fresh neighbours": "r2_fresh",
    "LIME's weights under other seeds": "spearman",
}
ANEW = " on a model drawn anew"
SAME_WINNER = "the same winner with other clips"


# Is the gradient that of the model?


def gradient(condition: Condition, n_clips: int = N_GRADIENT_CLIPS) -> pd.DataFrame:
    """The input gradient of the classifier's two layouts against central differences.

    Returns
    -------
    DataFrame
        The classifier as it is and, of a Cnn14, with ``bn0`` as it is usually written (`UsualCnn14`): layout,
        n_clips, `cosine` with the true gradient, `relative_error` of the directional derivatives (NaN for the
        usual layout, which `gradient_check` refuses).

    Raises
    ------
    GradientCheckError
        The gradient of the classifier as it is is wrong.
    """
    if not is_differentiable(condition.classifier.model):
        return pd.DataFrame(columns=["layout", "n_clips", "cosine", "relative_error"])
    checks = [gradient_check(*one) for one in itertools.islice(condition.each(), n_clips)]
    worst = min(checks, key=lambda check: check.cosine)
    model = condition.classifier.model
    layout = "affine bn0" if isinstance(model, Cnn14) else "as it is"
    rows = [(layout, worst.cosine, max(check.relative_error for check in checks))]
    if isinstance(model, Cnn14):
        db, target = condition.spectrograms[:n_clips], condition.targets[:n_clips]
        rows.append(("usual bn0", usual_gradient_cosine(model, db, target), float("nan")))
    frame = pd.DataFrame(rows, columns=["layout", "cosine", "relative_error"])
    frame.insert(1, "n_clips", len(checks))
    return frame


def usual_gradient_cosine(model: nn.Module, db: torch.Tensor, target: torch.Tensor) -> float:
    """Cosine between the input gradient of the usual Cnn14 and the right one, for the same weights."""
    right, usual = _gradient(model, db, target), _gradient(UsualCnn14(model), db, target)
    return float(functional.cosine_similarity(right.flatten(), usual.flatten(), dim=0))


class UsualCnn14(nn.Module):
    """The weights of our Cnn14 with ``bn0`` as it is usually written: 2-D, on a transposed view of the input.

    (batch, 1, frequency, time) turns into (batch, 1, time, frequency) for PANNs, and that into
    (batch, frequency, time, 1) for ``bn0``; its strides no longer tell one layout from the other.
    An input that is contiguous in PANNs' order does not show the fault.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, db: torch.Tensor) -> torch.Tensor:
        n, x = self.model.bn0, db.transpose(2, 3)  # (batch, 1, time, frequency)
        x = functional.batch_norm(
            x.transpose(1, 3), n.running_mean, n.running_var, n.weight, n.bias, training=False, eps=n.eps
        )
        return self.model.after_bn0(x.transpose(1, 3))


def _gradient(model: nn.Module, db: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    db = db.detach().clone().requires_grad_()
    with tensor_float32(False, db.device):
        logit = model(db).gather(1, target[:, None]).sum()
        return torch.autograd.grad(logit, db)[0]


# Do the values add up?


def additivity(condition: Condition, methods: tuple[str, ...] = ("shap", "shap_functional")) -> pd.DataFrame:
    """Relative additivity error per clip of methods with a background; what is not on file is made.

    Returns
    -------
    DataFrame
        method, clip, additivity_error: |sum of the values - (g_c(X) - mean_b g_c(b))| / |g_c(X) - mean_b
        g_c(b)|.
    """
    frames = []
    for method in methods:
        if condition.study.settings.network != "cnn14" and method not in condition.methods:
            continue  # the functional Cnn14 is the published one
        condition.attribute(method)
        error = condition.additivity_error(method)
        frames.append(
            pd.DataFrame({"method": method, "clip": condition.clips.frame["clip"], "additivity_error": error})
        )
    columns = ["method", "clip", "additivity_error"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


# LIME: does the regression fit, and do its weights depend on the seed?


def lime_stability(condition: Condition, n_seeds: int = 5) -> pd.DataFrame:
    """Fit and stability of LIME's weights over seeds, on the same superpixels, for every clip of a condition.

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
    n_samples = condition.study.settings.sizes.lime_samples
    seeds = [constants.FIXED_SEEDS["LIME"] + i for i in range(n_seeds)]
    rows = []
    for (model, db, target), clip in zip(condition.each(), condition.clips.frame["clip"]):
        fast, c = inference_copy(model, db), int(target)
        neighbourhood = neighbourhoods.prepare(db[0].cpu(), n_samples, seeds[0])
        drawn = [redrawn(neighbourhood, seed) for seed in seeds]
        size = at_once(None, db.device)
        found = [neighbourhoods.classify(fast, each, c, db, size) for each in drawn]
        sizes = {"n_superpixels": drawn[0].visible.shape[1], "n_samples": n_samples, "n_seeds": n_seeds}
        agreement = _agreement([each.visible for each in drawn], found)
        rows.append({"clip": clip, "target": c, **sizes, **agreement})
    return pd.DataFrame(rows)


def redrawn(clip: neighbourhoods.Neighbourhood, seed: int) -> neighbourhoods.Neighbourhood:
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


# What came out


def summary(study: Study) -> pd.DataFrame:
    """The checks of notebook 08, read from the tables that it saved: check, measure, value, n (clips)."""
    checked, errors, lime = (study.table(name) for name in ("gradient_check", "additivity", "lime_stability"))
    randomised, ranks = study.table("randomisation"), study.table("rank_stability")
    gradient_error = checked["relative_error"].max(), checked["n_clips"].max()
    rows = [("input gradient against central differences", "relative error", *gradient_error)]
    for method, error in errors.groupby("method", sort=False)["additivity_error"]:
        rows.append((f"{method_label(method)} adds up", "relative error, median", error.median(), len(error)))
    for check, column in LIME_CHECKS.items():
        measure = "Spearman" if column == "spearman" else "R²"
        rows.append((check, measure, lime[column].mean(), len(lime)))
    last = randomised[
        (randomised["stage"] == randomised["stage"].iloc[-1]) & (randomised["kind"] == "absolute")
    ]
    for method, values in last.groupby("method", sort=False)["spearman"]:
        rows.append((f"{method_label(method)}{ANEW}", "Spearman, absolute", values.mean(), len(values)))
    top = ranks[ranks["rank"] == 1].groupby(["protocol", *CONDITION, "metric"])["share"].max()
    rows.append((SAME_WINNER, "share of resamples", top.mean(), len(study.main_condition.clips)))
    return pd.DataFrame(rows, columns=["check", "measure", "value", "n"])


def sentence(checks: pd.DataFrame) -> str:
    """The checks in words, as Markdown.

    Parameters
    ----------
    checks : DataFrame
        From `summary`.
    """
    values = checks.set_index("check")["value"]
    own, fresh, seeds = (values[name] for name in LIME_CHECKS)
    first = []  # of a black box, or without Deep SHAP, one of them or both are missing
    if pd.notna(values.iloc[0]):
        first.append(
            f"The input gradient differs from central differences by {values.iloc[0]:.1e} (relative)"
        )
    if "SHAP adds up" in values:
        first.append(f"Deep SHAP misses its sum by {values['SHAP adds up']:.1e}")
    text = f"{', and '.join(first) or 'The model shows no gradient'}."
    text += (
        f" LIME's regression catches {percent(own)} of "
        f"the model's answer on its own copies and {percent(fresh)} on fresh ones; two seeds agree with a "
        f"rank correlation of {seeds:.2f}."
    )
    anew = values[values.index.str.endswith(ANEW)].dropna()
    if len(anew):
        text += (
            f" With every layer drawn anew {anew.idxmax().removesuffix(ANEW)} stays nearest to its map of "
            f"the trained model (ρ = {anew.max():.2f} of absolute values)."
        )
    return f"{text} The most frequent winner wins {percent(values[SAME_WINNER])} of the resamples."

"""Deep SHAP: the explained logit's difference from a background, shared out over the bins.

The values of a clip add up to g_c(X) - mean_b g_c(b) (additivity). All engines check that. ``fast`` and
``reference`` see only what are modules: a functional ``relu`` passes its plain gradient and the sum breaks.
``exact`` has rules for operations instead of modules and takes any differentiable network; see
`attributions.exact`. Unless an engine is named, a first pair of clip and reference is tried in float64: where
modules add up ``fast`` is taken, else ``exact``.

A maximum is shared out as ``shap`` does by ``fast`` and ``reference``, to the largest entry of clip and
reference ("deeplift"), and by the Shapley values of pairs by ``exact``, unless ``max_rule`` says otherwise.

References
----------
Lundberg & Lee (2017), A Unified Approach to Interpreting Model Predictions, section 4.2;
Shrikumar et al. (2017), Learning Important Features Through Propagating Activation
Differences, the rescale rule (section 3.5.1).
"""

from __future__ import annotations

import torch
from torch import nn

from ..models.untouched import untouched
from ..numerics import tensor_float32
from .registry import ENGINES, check_spectrograms, register
from .shap_fast import CAUSE, NotAdditive, attribute, fits


@register(
    "shap",
    background=True,
    additive=True,
    gradients=True,
    engines=(*ENGINES, "exact"),
    one_by_one=True,
)
def shap(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    *,
    background: torch.Tensor,
    engine: str | None = None,
    chunk_size: int | None = None,
    max_rule: str = "shapley",
) -> torch.Tensor:
    """Deep SHAP values in logits.

    Parameters
    ----------
    background : Tensor (n, 1, frequency, time)
        Reference clips in dB; the attribution is the mean over them.
    engine : "fast" | "reference" | "exact", optional
        ``reference`` is ``shap.DeepExplainer`` with its additivity check left on; default see the module's
        text.
    chunk_size : int, optional
        Reference clips held at once, which bounds the memory; not of ``reference``.
    max_rule : "shapley" | "deeplift"
        Of ``exact``.

    Raises
    ------
    ValueError
        The values do not add up to the logit's difference, or an operation has no rule.
    """
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be 1 or more; got {chunk_size}")
    background = checked_background(background, db, model)
    if engine == "reference":
        return _reference(model, db, target, background)
    if engine == "fast" or (engine is None and fits(model, db, target, background)):
        return attribute(model, db, target, background, chunk_size)
    from .exact import exact_deep_shap

    return exact_deep_shap(model, db, background, target, max_rule=max_rule, chunk_size=chunk_size)


def checked_background(background: torch.Tensor, db: torch.Tensor, model: nn.Module) -> torch.Tensor:
    """A copy of ``background``; ValueError unless it holds spectrograms like ``db``'s."""
    check_spectrograms("background", background, model)
    if background.shape[1:] != db.shape[1:]:
        like = ", ".join(map(str, db.shape[1:]))
        raise ValueError(f"background must have shape (n, {like}) like db; got {tuple(background.shape)}")
    return background.detach().clone()


class OneLogit(nn.Module):
    """The explained logit alone, (batch, 1)."""

    def __init__(self, model: nn.Module, label: int) -> None:
        super().__init__()
        self.model, self.label = model, label

    def forward(self, db: torch.Tensor) -> torch.Tensor:
        """(batch, 1)"""
        return self.model(db)[:, self.label : self.label + 1]


def _reference(
    model: nn.Module, db: torch.Tensor, target: torch.Tensor, background: torch.Tensor
) -> torch.Tensor:
    """``shap.DeepExplainer``, one explainer per explained class."""
    import shap as library

    attribution = torch.empty_like(db)
    for label in target.unique().tolist():
        logit = OneLogit(model, label)
        explainer = library.DeepExplainer(logit, background)
        for place in (target == label).nonzero()[:, 0].tolist():
            clip = db[place : place + 1]
            try:
                values = explainer.shap_values(clip)  # (1, 1, F, T, 1)
            except AssertionError as error:
                values = explainer.shap_values(clip, check_additivity=False)
                with torch.no_grad():
                    missing = values.sum() - (float(logit(clip)) - float(explainer.expected_value[0]))
                raise NotAdditive(
                    f"Deep SHAP is not additive on this model, its values miss the logits' difference by "
                    f"{abs(missing):.3g}: {CAUSE}"
                ) from error
            attribution[place] = torch.from_numpy(values[0, ..., 0]).to(attribution)
    return attribution


@torch.no_grad()
def additivity_error(
    model: nn.Module,
    db: torch.Tensor,
    target: torch.Tensor,
    background: torch.Tensor,
    attribution: torch.Tensor,
    batch_size: int = 16,
) -> torch.Tensor:
    """|sum of the attribution - (g_c(X) - mean_b g_c(b))| / |g_c(X) - mean_b g_c(b)| per clip.

    Parameters
    ----------
    model : nn.Module
        In the state in which it was explained; eval mode is set here and put back.
    db, attribution : Tensor (batch, 1, frequency, time)
    target : Tensor (batch,)
    background : Tensor (n, 1, frequency, time)

    Returns
    -------
    Tensor (batch,), float64
    """
    with untouched(model), tensor_float32(False, db.device):
        mean = sum(model(part).double().sum(0) for part in background.split(batch_size)) / len(background)
        logits = torch.cat([model(part).double() for part in db.split(batch_size)])
    difference = (logits - mean).gather(1, target.to(db.device).long()[:, None])[:, 0]
    error = attribution.to(difference).sum(dim=(1, 2, 3)) - difference
    return error.abs() / difference.abs().clamp_min(1e-12)

"""Localisation: does relevance lie on the source of a mixture of known parts, and does faithfulness agree?

Faithfulness asks the classifier what it heard; localisation asks where the source (the clip, or a generated
clip's event) is, and where its interferer. A method is measured by how much of its positive relevance lies on
the source, and its best mask by what it does for the sound; then both are held against faithfulness.

References
----------
Arras et al. (2022), CLEVR-XAI, eq. 3 and 4 (relevance mass and rank accuracy), with the ideal binary mask
of Wang (2005) in the place of an object's pixels; Wang et al. (2020), Score-CAM, section 4.3 (energy-based
pointing game), with the energies of both parts in the place of their box.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from ..evaluation import comparisons
from ..evaluation.bootstrap import interval, resampled_means
from ..evaluation.controls import oracle_mask
from ..evaluation.frames import CONDITION, methods_only, of_condition
from ..evaluation.ranks import rank_correlation
from ..study.clips import is_correct
from ..words import condition_label, method_label, percent, rho_words

if TYPE_CHECKING:
    from ..study.condition import Condition
    from ..study.study import Study

MEASURES = ("mass", "pointing", "si_sdr_gain")  # of localisation, in the figure
FAITHFULNESS = ("FidIn_heard", "FF_heard", "AD_heard")
LEAST_SI_SDR = -30.0  # dB; silence and what is below count as this
REFERENCE = "energy"  # the clip's own power as relevance: what knows nothing of the classifier
N_RESAMPLES = 2000
COLUMNS = [*CONDITION, "clip", "correct", "method", "mass", "rank", "pointing", "area", "source_share"]
AGREED = [*CONDITION, "measure", "metric", "n_methods", "n_clips", "spearman", "low", "high"]


# One attribution


def relevance_localisation(
    attribution: torch.Tensor, source_power: torch.Tensor, interferer_power: torch.Tensor
) -> dict[str, torch.Tensor]:
    """How much of the positive relevance lies on the source.

    Parameters
    ----------
    attribution : (batch, 1, frequency, time) tensor
    source_power, interferer_power : tensors of the same shape
        Linear power of the two parts of the mixture.

    Returns
    -------
    dict of (batch,) float64 tensors
        `mass`: share of the positive relevance inside the ideal binary mask; `rank`: share of the K most
        relevant bins inside it, K being its own bins and equal ones, such as a superpixel's, counting as any
        order of them would in the mean; `pointing`: relevance-weighted share of the source in
        the energy, without a threshold; by chance they are `area` (the ideal mask's share of bins), `area`
        again, and `source_share` (of all energy). NaN where there is no positive relevance or no source.

    Raises
    ------
    ValueError
        NaN or infinite relevance.
    """
    if not attribution.isfinite().all():
        raise ValueError("attribution must be finite; it holds NaN or infinite values")
    ideal = oracle_mask(source_power, interferer_power).double()
    positive, n_ideal = attribution.double().clamp_min(0), ideal.sum(dim=(1, 2, 3))
    energies = [(positive * power.double()).sum(dim=(1, 2, 3)) for power in (source_power, interferer_power)]
    whole = [power.double().sum(dim=(1, 2, 3)) for power in (source_power, interferer_power)]
    on_top = _on_top(attribution.flatten(1), ideal.flatten(1))
    nothing = torch.where((positive.sum(dim=(1, 2, 3)) > 0) & (n_ideal > 0), 0.0, float("nan"))
    return {
        "mass": (positive * ideal).sum(dim=(1, 2, 3)) / positive.sum(dim=(1, 2, 3)) + nothing,
        "rank": on_top / n_ideal + nothing,
        "pointing": energies[0] / (energies[0] + energies[1]) + nothing,
        "area": ideal.mean(dim=(1, 2, 3)),
        "source_share": whole[0] / (whole[0] + whole[1]),
    }


def _on_top(relevance: torch.Tensor, ideal: torch.Tensor) -> torch.Tensor:
    """How many of the K most relevant bins are ideal, (batch,), of (batch, d) with K ideal bins each; of the
    bins that are as relevant as the K-th their share.
    """
    found = []
    for values, inside in zip(relevance, ideal):
        k = int(inside.sum())
        least = values.kthvalue(len(values) - k + 1).values if k else values.max()
        above, equal = values > least, values == least
        left = (k - above.sum()) / equal.sum()
        found.append(inside[above].sum() + left * inside[equal].sum())
    return torch.stack(found)


# A condition of the study


def localisation(condition: Condition, methods: Sequence[str] | None = None) -> pd.DataFrame:
    """`relevance_localisation` of a condition's stored attributions, and of the clips' own power (`energy`).

    Parameters
    ----------
    condition : Condition
    methods : sequence of str, optional
        By default all that have attributions.

    Returns
    -------
    DataFrame
        One row per clip and method: condition, clip, `correct`, method, and the five measures.

    Raises
    ------
    ValueError
        The parts of the clips are not known: a clean condition of recorded clips.
    """
    clips = condition.clips
    if clips.stems is None:
        raise ValueError(
            f"clips of {condition.title} must be mixtures of known parts; take a noisy condition"
        )
    powers = [condition.power(stem) for stem in clips.stems]
    known = {
        **dict(zip(CONDITION, condition.pair)),
        "clip": clips.frame["clip"],
        "correct": is_correct(clips.frame["label"], pd.Series(condition.targets.cpu().numpy())),
    }
    rows = []
    for method, attribution in _attributions(condition, methods):
        values = relevance_localisation(attribution, *powers)
        rows.append(
            pd.DataFrame(known | {"method": method} | {k: v.cpu().numpy() for k, v in values.items()})
        )
    return pd.concat(rows, ignore_index=True)


def _attributions(condition: Condition, methods: Sequence[str] | None) -> Iterator[tuple[str, torch.Tensor]]:
    for method in methods or condition.methods:
        yield method, condition.attributions(method).to(condition.spectrograms)
    yield REFERENCE, 10 ** (condition.spectrograms / 10)


def localisations(study: Study) -> pd.DataFrame:
    """`localisation` of every condition of known parts, below each other; empty where there is none."""
    frames = [localisation(condition) for condition in conditions_of_known_parts(study)]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=COLUMNS)


def conditions_of_known_parts(study: Study) -> list[Condition]:
    """Conditions of clips whose parts are known: all of generated sounds and scenes, the noisy ones of
    recordings.
    """
    known = study.dataset.has_stems
    return [each for each in study.conditions if known or each.noise_scenario != "clean"]


def si_sdr_gains(scores: pd.DataFrame) -> pd.DataFrame:
    """Audited rows of the methods with `si_sdr_gain`: dB by which the kept sound is nearer to the clean one.

    Nearer than the unmasked sound, both inverted alike. Empty where no clip's parts are known.
    """
    if "si_sdr" not in scores:
        return scores.iloc[:0].assign(si_sdr_gain=[])
    audited = scores[scores["protocol"] == "audited"]
    keys = [*CONDITION, "clip"]
    whole = audited.loc[audited["control"] == "all_ones", [*keys, "si_sdr"]]
    both = methods_only(audited).merge(whole, on=keys, suffixes=("", "_whole"))
    silent = both["si_sdr"].isna() & both["si_sdr_whole"].notna()  # what is kept; the clip has its source
    both["si_sdr"] = both["si_sdr"].mask(silent, LEAST_SI_SDR)
    floored = [both[name].clip(lower=LEAST_SI_SDR) for name in ("si_sdr", "si_sdr_whole")]
    return both.assign(si_sdr_gain=floored[0] - floored[1]).drop(columns="si_sdr_whole")


def beside_faithfulness(localised: pd.DataFrame, scores: pd.DataFrame, best: pd.DataFrame) -> pd.DataFrame:
    """A row per clip and method: localisation, and the heard faithfulness of the method's best audited mask.

    Parameters
    ----------
    localised : DataFrame
        From `localisation`, conditions below each other.
    scores, best : DataFrame
        The run's scores with their controls, and ``tables.best_masks``.
    """
    chosen = best.loc[best["protocol"] == "audited", [*CONDITION, "method", "mask"]]
    gains = si_sdr_gains(scores).merge(chosen, on=[*CONDITION, "method", "mask"])
    columns = [*CONDITION, "method", "mask", "clip", *FAITHFULNESS, "si_sdr_gain"]
    both = localised.merge(gains[columns], on=[*CONDITION, "method", "clip"])
    if both.empty and len(localised):
        raise ValueError("localised and scores must share conditions, methods and clips; they share none")
    return both


def agreement(both: pd.DataFrame, n_resamples: int = N_RESAMPLES, seed: int = 0) -> pd.DataFrame:
    """Rank correlation over methods between localisation and faithfulness, with its 95 % interval over clips.

    Parameters
    ----------
    both : DataFrame
        From `beside_faithfulness`.

    Returns
    -------
    DataFrame
        Condition, measure, metric, n_methods, n_clips, spearman, low, high. AD counts as its negative, so
        that 1 means: what points better at the source is also more faithful. Clips on which a value is
        missing are left out. With fewer than three methods there is nothing to correlate (NaN).
    """
    rows = []
    for pair, here in both.groupby(CONDITION, sort=False):
        for measure, metric in itertools.product(MEASURES, FAITHFULNESS):
            sides = [here.pivot(index="clip", columns="method", values=name) for name in (measure, metric)]
            defined = sides[0].notna().all(axis=1) & sides[1].notna().all(axis=1)
            sign = -1 if comparisons.lower_is_better(metric) else 1
            values = [sides[0][defined].to_numpy(float), sign * sides[1][defined].to_numpy(float)]
            about = {**dict(zip(CONDITION, pair)), "measure": measure, "metric": metric}
            sizes = {"n_methods": values[0].shape[1], "n_clips": int(defined.sum())}
            rows.append({**about, **sizes, **_correlated(values, n_resamples, seed)})
    return pd.DataFrame(rows, columns=AGREED)


def _correlated(values: list[np.ndarray], n_resamples: int, seed: int) -> dict[str, float]:
    """Spearman's rho of the columns' means, and its interval over resampled rows."""
    n_clips, n_methods = values[0].shape
    if n_methods < 3 or n_clips < 1:
        return dict.fromkeys(("spearman", "low", "high"), float("nan"))
    rho = rank_correlation(*(part.mean(0, keepdims=True) for part in values))[0]
    if np.isnan(rho):  # all methods are alike
        return dict.fromkeys(("spearman", "low", "high"), float("nan"))
    drawn = rank_correlation(*(resampled_means(part, n_resamples, seed) for part in values))
    low, high = np.clip(interval(drawn[:, None], n_clips), -1, 1)
    return {"spearman": float(rho), "low": float(low[0]), "high": float(high[0])}


def means(both: pd.DataFrame) -> pd.DataFrame:
    """A row per condition and method with mean, ``_low`` and ``_high`` of localisation and faithfulness."""
    metrics = [*MEASURES, "rank", *FAITHFULNESS]
    wide = comparisons.with_intervals(comparisons.mean_intervals(both, metrics, n_resamples=N_RESAMPLES))
    chance = both.groupby([*CONDITION, "method"], sort=False)[["area", "source_share"]].mean().reset_index()
    return wide.merge(chance, on=[*CONDITION, "method"])


def summary(localised: pd.DataFrame, agreed: pd.DataFrame) -> str:
    """What points at the source, and whether faithfulness goes with it, as Markdown; a line a condition.

    Parameters
    ----------
    localised, agreed : DataFrame
        From `localisations` and `agreement`.
    """
    lines = []
    for pair, here in localised.groupby(CONDITION, sort=False):
        shares = here.pivot(index="clip", columns="method", values="mass")
        clips = shares.dropna().index  # on which every map has positive relevance
        here = here[here["clip"].isin(clips)] if len(clips) else here
        mass = here[here["method"] != REFERENCE].groupby("method", sort=False)["mass"].mean()
        rho = of_condition(agreed, pair).set_index(["measure", "metric"])["spearman"]
        power = here.loc[here["method"] == REFERENCE, "mass"].mean()
        beside = f"by chance {percent(here['area'].mean())}, the clips' own power {percent(power)}"
        best = f"{method_label(mass.idxmax())} has the largest share of its relevance on the source"
        words = [rho_words(rho[name, "FidIn_heard"]) for name in ("mass", "si_sdr_gain")]
        lines.append(
            f"- {condition_label(*pair)}: {best} ({percent(mass.max())}; {beside}). Over the methods the "
            f"fidelity of the sound goes with that share at {words[0]} and with the SI-SDR gain at "
            f"{words[1]}."
        )
    return "\n".join(lines) or "No clip of this run is a mixture of known parts."

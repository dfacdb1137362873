"""Does faithfulness agree with the truth? Where a clip is a mixture of known parts, the truth is known.

Faithfulness asks the classifier what it heard; the truth is where the clip (or a generated clip's event)
is, and where its interferer. A method is measured by how much of its positive relevance lies on the
clip, and its best mask by what it does for the sound; then both are held against faithfulness.

References
----------
Arras et al. (2022), CLEVR-XAI, eq. 3 and 4 (relevance mass and rank accuracy), with the ideal binary mask
of Wang (2005) in the place of an object's pixels; Wang et al. (2020), Score-CAM, section 4.3 (energy-based
pointing game), with the energies of both parts in the place of their box.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata

from ..evaluation import comparisons
from ..study import pipeline, study
from ..evaluation.controls import bin_ranks, first_bins, oracle_mask
from ..evaluation.frames import CONDITION, methods_only, of_condition
from ..evaluation.scoring import probabilities
from ..evaluation.bootstrap import interval, resampled_means

MEASURES = ("mass", "pointing", "si_sdr_gain")  # of the truth, in the figure
FAITHFULNESS = ("FidIn_heard", "FF_heard", "AD_heard")
LEAST_SI_SDR = -30.0  # dB; silence and what is below count as this
REFERENCE = "energy"  # the clip's own power as relevance: what knows nothing of the classifier
N_RESAMPLES = 2000


# --- one attribution -------------------------------------------------------------------------


def relevance_truth(
    attribution: torch.Tensor, source_power: torch.Tensor, interferer_power: torch.Tensor
) -> dict[str, torch.Tensor]:
    """How much of the positive relevance lies on the target.

    Parameters
    ----------
    attribution : (batch, 1, frequency, time) tensor
    source_power, interferer_power : tensors of the same shape
        Linear power of the two parts of the mixture.

    Returns
    -------
    dict of (batch,) float64 tensors
        `mass`: share of the positive relevance inside the ideal binary mask; `rank`: share of the K most
        relevant bins inside it, K being its own bins; `pointing`: relevance-weighted share of the target in
        the energy, without a threshold; by chance they are `area` (the ideal mask's share of bins), `area`
        again, and `source_share` (of all energy). NaN where there is no positive relevance or no target.
    """
    ideal = oracle_mask(source_power, interferer_power).double()
    positive, n_ideal = attribution.double().clamp_min(0), ideal.sum(dim=(1, 2, 3))
    energies = [(positive * power.double()).sum(dim=(1, 2, 3)) for power in (source_power, interferer_power)]
    whole = [power.double().sum(dim=(1, 2, 3)) for power in (source_power, interferer_power)]
    top = first_bins(bin_ranks(attribution), n_ideal.long()).double()
    nothing = torch.where((positive.sum(dim=(1, 2, 3)) > 0) & (n_ideal > 0), 0.0, float("nan"))
    return {
        "mass": (positive * ideal).sum(dim=(1, 2, 3)) / positive.sum(dim=(1, 2, 3)) + nothing,
        "rank": (top * ideal).sum(dim=(1, 2, 3)) / n_ideal + nothing,
        "pointing": energies[0] / (energies[0] + energies[1]) + nothing,
        "area": ideal.mean(dim=(1, 2, 3)),
        "source_share": whole[0] / (whole[0] + whole[1]),
    }


# --- a condition of the study ---------------------------------------------------------------------


def condition_truth(
    settings: study.Settings, classifier: study.Classifier, clips: study.Clips, condition: tuple[str, str],
    methods: Sequence[str],
) -> pd.DataFrame:
    """`relevance_truth` of the stored attributions of a condition, and of the clip's own power (`energy`).

    Returns
    -------
    DataFrame
        One row per clip and method: condition, method, clip, `correct`, and the five measures.

    Raises
    ------
    ValueError
        The parts of the clips are not known: a clean condition of recorded clips.
    """
    if clips.stems is None:
        raise ValueError(f"clips of {' '.join(condition)} must be mixtures of known parts; take a noisy condition")
    db = study.spectrograms_of(classifier, clips)
    powers = [_power(classifier, stem.to(db)) for stem in clips.stems]
    predicted = probabilities(classifier.folded, db).argmax(1).cpu().numpy()
    known = {
        **dict(zip(CONDITION, (condition[0], study.scenario_name(condition[1])))), "clip": clips.frame["clip"],
        "correct": clips.frame["label"].to_numpy() == predicted,
    }
    rows = []
    for method, attribution in _attributions(settings, clips, condition, methods, 10 ** (db / 10)):
        values = relevance_truth(attribution.to(db), *powers)
        rows.append(pd.DataFrame(known | {"method": method} | {k: v.cpu().numpy() for k, v in values.items()}))
    return pd.concat(rows, ignore_index=True)


def known_conditions(settings: study.Settings, conditions: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The conditions whose clips are mixtures of known parts: all of generated sounds, the noisy ones of recordings."""
    return [condition for condition in conditions if settings.dataset == "generated" or condition[1] != "clean"]


def _power(classifier: study.Classifier, waveforms: torch.Tensor) -> torch.Tensor:
    return torch.cat([classifier.spectrogram(part).power for part in waveforms.split(study.LOAD_CHUNK)])


def _attributions(settings, clips, condition, methods: Sequence[str], power: torch.Tensor) -> Iterator[tuple]:
    for method in methods:
        yield method, pipeline.load_attributions(settings, clips, condition, method)[0]
    yield REFERENCE, power


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
    floored = [both[name].clip(lower=LEAST_SI_SDR) for name in ("si_sdr", "si_sdr_whole")]
    return both.assign(si_sdr_gain=floored[0] - floored[1]).drop(columns="si_sdr_whole")


def beside_faithfulness(truth: pd.DataFrame, scores: pd.DataFrame, best: pd.DataFrame, condition: tuple[str, str]):
    """A row per clip and method of a condition: truth, and the heard faithfulness of the method's best audited mask.

    Parameters
    ----------
    truth : DataFrame
        From `condition_truth`.
    scores, best : DataFrame
        The run's scores with their controls, and ``tables.best_masks``.
    """
    chosen = of_condition(best[best["protocol"] == "audited"], condition)[["method", "mask"]]
    gains = of_condition(si_sdr_gains(scores), condition).merge(chosen, on=["method", "mask"])
    columns = ["method", "mask", "clip", *FAITHFULNESS, "si_sdr_gain"]
    both = of_condition(truth, condition).merge(gains[columns], on=["method", "clip"])
    if both.empty:
        raise ValueError(f"truth and scores must share methods and clips of {' '.join(condition)}; they share none")
    return both


def agreement(both: pd.DataFrame, n_resamples: int = N_RESAMPLES, seed: int = 0) -> pd.DataFrame:
    """Rank correlation over methods between every truth and every faithfulness, with its 95 % interval over clips.

    Parameters
    ----------
    both : DataFrame
        From `beside_faithfulness`.

    Returns
    -------
    DataFrame
        measure, metric, n_methods, n_clips, spearman, low, high. AD counts as its negative, so that 1
        means: whoever is truer is also more faithful. Clips on which a value is missing are left out. With
        fewer than three methods there is nothing to correlate (NaN).
    """
    rows = []
    for measure in MEASURES:
        for metric in FAITHFULNESS:
            sides = [both.pivot(index="clip", columns="method", values=name) for name in (measure, metric)]
            defined = sides[0].notna().all(axis=1) & sides[1].notna().all(axis=1)
            sign = -1 if comparisons.lower_is_better(metric) else 1
            values = [sides[0][defined].to_numpy(float), sign * sides[1][defined].to_numpy(float)]
            rows.append({"measure": measure, "metric": metric, "n_methods": values[0].shape[1],
                         "n_clips": int(defined.sum()), **_correlated(values, n_resamples, seed)})
    return pd.DataFrame(rows)


def _correlated(values: list[np.ndarray], n_resamples: int, seed: int) -> dict[str, float]:
    """Spearman's rho of the columns' means, and its interval over resampled rows."""
    n_clips, n_methods = values[0].shape
    if n_methods < 3 or n_clips < 1:
        return dict.fromkeys(("spearman", "low", "high"), float("nan"))
    rho = _spearman_of_rows(*(part.mean(0, keepdims=True) for part in values))[0]
    if np.isnan(rho):  # all methods are alike
        return dict.fromkeys(("spearman", "low", "high"), float("nan"))
    drawn = _spearman_of_rows(*(resampled_means(part, n_resamples, seed) for part in values))
    low, high = interval(drawn[:, None], n_clips)
    return {"spearman": float(rho), "low": float(low[0]), "high": float(high[0])}


def _spearman_of_rows(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Rank correlation of each row of ``first`` with the same row of ``second``; NaN where one is constant."""
    ranks = [rankdata(part, axis=1) for part in (first, second)]
    centred = [part - part.mean(1, keepdims=True) for part in ranks]
    sizes = [np.square(part).sum(1) for part in centred]
    with np.errstate(invalid="ignore"):
        return (centred[0] * centred[1]).sum(1) / np.sqrt(sizes[0] * sizes[1])


def means(both: pd.DataFrame) -> pd.DataFrame:
    """A row per method with mean, ``_low`` and ``_high`` of every truth and faithfulness; bars of the figure."""
    metrics = [*MEASURES, "rank", *FAITHFULNESS]
    wide = comparisons.with_intervals(comparisons.mean_intervals(both, metrics, n_resamples=N_RESAMPLES))
    chance = both.groupby("method", sort=False)[["area", "source_share"]].mean().reset_index()
    return wide.merge(chance, on="method")

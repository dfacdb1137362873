"""The twelve findings on the published protocol, each measured on the results of a run.

`FINDINGS` holds one function a finding, in order: it takes a study and says what was measured, what came out
under the paper's protocol, under the audited one, and what was published. `measure_findings` makes one table
of them. Notebook 07 tells what each finding means.
"""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from .. import constants
from ..audio.encoding import store
from ..evaluation.frames import CONDITION, methods_only, of_condition
from ..published import published_results
from ..words import METHOD_LABELS, condition_label, method_label, percent
from .fills import fill_rankings, fill_sensitivity
from .sanity_checks import additivity, gradient

if TYPE_CHECKING:
    from ..study.study import Study

SIGMOID_METHODS = ("saliency", "lime", "shap")  # whose raw values are tiny; Grad-CAM's are not
OF_CNN14 = "about the study's own Cnn14"  # a finding that another classifier cannot show
SOFT_MASKS = ("minmax", "minmax_pos")
COLUMNS = ["number", "finding", "measured", "paper", "audited", "published"]


def measure_findings(study: Study) -> pd.DataFrame:
    """Measure the twelve findings on a run that has both protocols.

    The tables that single findings are read from are saved on the way: ``shap_additivity``, ``gradients``,
    ``heard_gap``, ``round_trip`` and ``fill_sensitivity``.

    Returns
    -------
    DataFrame
        number, finding, measured (what, with its unit), paper, audited, published: words and numbers to be
        read.

    Raises
    ------
    FileNotFoundError
        A notebook from 02 to 05 has not run.
    """
    rows = [{"number": number, **measure(study)} for number, measure in enumerate(FINDINGS, 1)]
    return pd.DataFrame(rows, columns=COLUMNS)


# Masks


def all_ones_masks(study: Study) -> dict:
    """1: the k-quantile of a mostly non-positive attribution is 0, and "at least 0" keeps everything."""
    condition = study.main_condition
    theirs = published_degenerate_share(condition.pair)
    share = _by_protocol(
        methods_only(condition.scores()), "degenerate", method="saliency", mask="topK_50_pos"
    )
    return {
        "finding": "All-ones masks win",
        "measured": "constant masks, saliency + topK_50_pos",
        **{protocol: percent(value) for protocol, value in share.items()},
        "published": _unless_nan(theirs, f"{percent(theirs)} (implied by SPS)"),
    }


def constant_masks(study: Study) -> dict:
    """2: the published runs set the conciseness of a constant mask to 0, the best value."""
    comp = _by_protocol(study.main_condition.scores(), "COMP", control="all_ones")
    return {
        "finding": "Constant masks look concise",
        "measured": "COMP of the all-ones mask (nats)",
        **{protocol: f"{value:.2f}" for protocol, value in comp.items()},
        "published": "0 for every constant mask",
    }


def rounding_counts(study: Study) -> dict:
    """3: the last digits of (X + 100) - 100 raise the probability of an unmasked clip."""
    rise = _by_protocol(study.scores(), "AI", control="all_ones")
    theirs = published_value(study.main_condition.pair, "saliency", "topK_50_pos", "AI")
    return {
        "finding": "AI counts rounding",
        "measured": "AI of the all-ones mask (%)",
        **{protocol: f"{value:.1f}" for protocol, value in rise.items()},
        "published": _unless_nan(theirs, f"{theirs:.1f} (saliency + topK_50_pos)"),
    }


def sigmoid_masks(study: Study) -> dict:
    """4: raw attributions are so small that their sigmoid is one half everywhere."""
    condition = study.main_condition
    scores = methods_only(condition.scores())
    sparse = _by_protocol(scores[scores["method"].isin(SIGMOID_METHODS)], "SPS", mask="sigmoid")
    theirs = np.mean([published_value(condition.pair, each, "sigmoid", "SPS") for each in SIGMOID_METHODS])
    return {
        "finding": "Sigmoid masks select nothing",
        "measured": "SPS of sigmoid, mean of saliency, LIME, SHAP",
        **{protocol: f"{value:.4f}" for protocol, value in sparse.items()},
        "published": _unless_nan(theirs, f"{theirs:.4f}"),
    }


# Attributions


def which_shap(study: Study) -> dict:
    """5: DeepExplainer sees modules only, and the published Cnn14 has functional ones; where modules
    do not add up, ours follows every operation.
    """
    table = study.save("shap_additivity", additivity(study.main_condition))
    error = table.groupby("method")["additivity_error"].median()
    functional = (
        percent(error["shap_functional"]) + " (functional)" if "shap_functional" in error else OF_CNN14
    )
    return {
        "finding": "The published SHAP is not SHAP",
        "measured": "relative additivity error, median of the clips",
        "paper": functional,
        "audited": f"{error['shap']:.1e}" if "shap" in error else "SHAP is not among the methods",
        "published": "not checked (switched off)",
    }


def wrong_gradients(study: Study) -> dict:
    """6: the usual ``bn0`` has a wrong gradient on the CPU."""
    table = study.save("gradients", gradient(study.main_condition))
    cosine = table.set_index("layout")["cosine"]
    usual = f"{cosine['usual bn0']:.3f} (usual bn0)" if "usual bn0" in cosine else OF_CNN14
    right = f"{cosine.iloc[0]:.6f} ({cosine.index[0]})" if len(cosine) else "it has no gradient"
    return {
        "finding": "Wrong gradients of Cnn14",
        "measured": f"cosine with the true input gradient, on {study.device}",
        "paper": usual,
        "audited": right,
        "published": "not checked",
    }


# Sound and silence


def scored_is_not_heard(study: Study) -> dict:
    """7: scores mask decibels, the sound is made with the mask on linear power."""
    scores = study.scores()
    gap = study.save("heard_gap", heard_gap(scores))
    study.save("round_trip", round_trip(scores))
    soft = gap[gap["mask"].isin(SOFT_MASKS)]
    return {
        "finding": "Scored is not heard",
        "measured": "FidIn of soft masks (minmax, minmax_pos)",
        "paper": f"{soft['FidIn'].mean():.2f} scored",
        "audited": f"{soft['FidIn_heard'].mean():.2f} heard",
        "published": "heard was not scored",
    }


def silence(study: Study) -> dict:
    """8: what takes the place of masked bins decides who comes first."""
    best = study.table("best_masks")
    fills = pd.concat([fill_sensitivity(each, best) for each in study.conditions], ignore_index=True)
    study.save("fill_sensitivity", fills)
    order = fill_rankings(fills).loc[study.main_condition.pair]
    return {
        "finding": "The fill decides the ranking",
        "measured": "methods by FF at their best masks",
        "paper": f"silence: {order['silence']}",
        "audited": f"training mean: {order['training mean']}",
        "published": "-100 dB only",
    }


# What may be concluded


def controls(study: Study) -> dict:
    """9: without masks of equal area that know nothing of the model, a score means little."""
    marks = study.table("control_marks")["not_better_than"].fillna("")
    beaten = {control: (~marks.str.contains(control)).mean() for control in ("random", "energy")}
    return {
        "finding": "Most masks do not beat the loudest bins",
        "measured": "masks better in FF and AD (95 %)",
        "paper": f"than random: {percent(beaten['random'])}",
        "audited": f"than energy: {percent(beaten['energy'])}",
        "published": "no control",
    }


def uncertainty(study: Study) -> dict:
    """10: a winner without an interval may be luck."""
    clear = study.table("best_versus_second").groupby("protocol")["clear"].mean()
    return {
        "finding": "Winners without intervals",
        "measured": "table columns with a clear winner (95 %)",
        **{protocol: percent(clear[protocol]) for protocol in constants.PROTOCOLS},
        "published": "no interval",
    }


def last_epoch(study: Study) -> dict:
    """11: ``state_dict()`` kept without a copy is that of the last epoch."""
    condition = study.main_condition
    if study.settings.network == "cnn14":
        history = study.table(f"history_{condition.spectrogram_type}")
        history = history.set_index("epoch")["validation_accuracy"]
        kept = condition.classifier.info["best_epoch"]
        last, best = f"{100 * history.iloc[-1]:.1f} (last epoch)", f"{100 * history[kept]:.1f} (epoch {kept})"
    else:
        last, best = OF_CNN14, "no epochs here"
    return {
        "finding": "Last epoch sold as best",
        "measured": "validation accuracy (%) of the kept weights",
        "paper": last,
        "audited": best,
        "published": "epoch 20 of 20, for both types",
    }


def half_speed(study: Study) -> dict:
    """12: 32 kHz sounds in files that say 16 kHz."""
    condition = study.main_condition
    stored = stored_sound(condition.clips.waveforms[0], condition.classifier.sample_rate)
    rate, seconds = stored["sample_rate"], stored["seconds"]
    return {
        "finding": "Half-speed audio",
        "measured": "sample rate (Hz) and length (s) of kept sounds",
        "paper": f"{rate // 2}, {2 * seconds:.1f} (as published)",
        "audited": f"{rate}, {seconds:.1f}",
        "published": "16000 in the header of 32000 Hz",
    }


FINDINGS = (
    all_ones_masks,
    constant_masks,
    rounding_counts,
    sigmoid_masks,
    which_shap,
    wrong_gradients,
    scored_is_not_heard,
    silence,
    controls,
    uncertainty,
    last_epoch,
    half_speed,
)


# Measures


def mean_of(scores: pd.DataFrame, value: str, **where: str) -> float:
    """Mean of a column over the rows in which other columns have given values; NaN for none."""
    chosen = np.logical_and.reduce([scores[name] == wanted for name, wanted in where.items()])
    return float(scores.loc[chosen, value].mean())


def _by_protocol(scores: pd.DataFrame, value: str, **where: str) -> dict[str, float]:
    return {protocol: mean_of(scores, value, protocol=protocol, **where) for protocol in constants.PROTOCOLS}


def published_value(condition: tuple[str, str], method: str, mask: str, metric: str) -> float:
    """A published mean over all clips; NaN where it was not published."""
    rows = of_condition(published_results(), condition)
    rows = rows[(rows["subset"] == "all") & (rows["method"] == method) & (rows["mask"] == mask)]
    return float(rows[metric].iloc[0]) if len(rows) else math.nan


def published_degenerate_share(
    condition: tuple[str, str], method: str = "saliency", mask: str = "topK_50_pos"
) -> float:
    """Share of all-ones masks that explains a published SPS: a topK_50 mask has 0.5, an all-ones mask 0."""
    return 1 - published_value(condition, method, mask, "SPS") / 0.5


def _unless_nan(value: float, text: str) -> str:
    return "not published" if math.isnan(value) else text


def degenerate_shares(scores: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Share of clips whose mask has a single value: a row a method, a column a mask."""
    rows = methods_only(scores)
    rows = rows[rows["protocol"] == protocol]
    shares = rows.groupby(["method", "mask"], sort=False)["degenerate"].mean().unstack("mask")
    order = [method for method in METHOD_LABELS if method in shares.index]
    return shares.loc[[*order, *shares.index.difference(order, sort=False)]]


def heard_gap(scores: pd.DataFrame) -> pd.DataFrame:
    """Means of what is scored and of what is heard, per condition, method and mask (audited rows)."""
    rows = methods_only(scores[scores["protocol"] == "audited"])
    pairs = [column for metric in constants.FAITHFULNESS_METRICS for column in (metric, f"{metric}_heard")]
    return rows.groupby([*CONDITION, "method", "mask"], sort=False)[pairs].mean().reset_index()


def round_trip(scores: pd.DataFrame) -> pd.DataFrame:
    """What inversion alone costs: the all-ones mask heard, per condition."""
    rows = scores[(scores["protocol"] == "audited") & (scores["control"] == "all_ones")]
    columns = ["FidIn_heard", "AD_heard", *(["si_sdr"] if "si_sdr" in rows else [])]
    return rows.groupby(CONDITION, sort=False)[columns].mean().reset_index()


def ranking(best: pd.DataFrame, protocol: str, condition: tuple[str, str]) -> list[str]:
    """Methods of a condition from the best to the worst by the study's score."""
    rows = of_condition(best[best["protocol"] == protocol], condition)
    return rows.sort_values("score", ascending=False)["method"].tolist()


def stored_sound(waveform: torch.Tensor, sample_rate: int) -> dict:
    """Sample rate (Hz) and duration (s) of a sound after it was stored as the gallery stores it."""
    import soundfile

    with soundfile.SoundFile(io.BytesIO(store(waveform.numpy(), sample_rate).data)) as file:
        return {"sample_rate": file.samplerate, "seconds": file.frames / file.samplerate}


# Sentences of notebook 07's summary


def summary(study: Study) -> str:
    """What the audit changes, as Markdown: the rankings of both protocols, and what stands in their way."""
    condition, best = study.main_condition, study.table("best_masks")
    ranks = {p: " > ".join(map(method_label, ranking(best, p, condition.pair))) for p in constants.PROTOCOLS}
    row = study.table("findings").set_index("number")
    gap = study.table("heard_gap")
    worst = gap.loc[(gap["FidIn"] - gap["FidIn_heard"]).abs().idxmax()]
    where = condition_label(worst["spectrogram_type"], worst["noise_scenario"])
    constant, error = row.loc[1, "paper"], row.loc[5, "paper"].removesuffix(" (functional)")
    beaten = row.loc[9, "audited"].removeprefix("than energy: ")
    missed = "" if error == OF_CNN14 else f"its SHAP misses additivity by {error}, "
    return (
        f"By the study's own rule the methods rank {ranks['paper']} under its protocol and "
        f"{ranks['audited']} under the audited one ({condition.title}). The published saliency + topK_50_pos "
        f"keeps everything on {constant} of the clips, {missed}and of all masks {beaten} beat the loudest "
        "bins. The widest gap between what is scored and what is heard: "
        f"{method_label(worst['method'])} + {worst['mask']} ({where}) keeps the class on "
        f"{percent(worst['FidIn'])} of the clips as scored and on {percent(worst['FidIn_heard'])} as heard."
    )

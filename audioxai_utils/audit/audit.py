"""The twelve findings on the published protocol, each measured on this run's own results.

A finding is a row: number, finding, measured (what, in words), ours_paper, ours_audited, published. The
notebook 07_audit writes the numbers into its text and the table opens the report.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional

from .. import constants
from ..study import pipeline, study
from ..attributions import METHODS
from ..attributions.shap import additivity_error
from ..evaluation.frames import CONDITION
from ..evaluation.masks import apply_mask, build_masks
from ..evaluation.metrics import faithfulness
from ..numerics import tensor_float32
from ..published import published_results
from ..evaluation.scoring import probabilities

SIGMOID_METHODS = ("saliency", "lime", "shap")  # whose raw values are tiny; Grad-CAM's are not
FILLS = ("-100 dB", "clip minimum", "training mean")


def published_value(condition: tuple[str, str], method: str, mask: str, metric: str) -> float:
    """A published mean over all clips; NaN where it was not published."""
    rows = study.of_condition(published_results(), condition).query("subset == 'all' and method == @method and mask == @mask")
    return float(rows[metric].iloc[0]) if len(rows) else math.nan


def published_degenerate_share(condition: tuple[str, str], method: str = "saliency", mask: str = "topK_50_pos") -> float:
    """Share of all-ones masks that explains a published SPS: a topK_50 mask has 0.5, an all-ones mask 0."""
    return 1 - published_value(condition, method, mask, "SPS") / 0.5


def mean_of(scores: pd.DataFrame, value: str, **where: str) -> float:
    """Mean of a column over the rows in which other columns have given values; NaN for none."""
    chosen = np.logical_and.reduce([scores[name] == wanted for name, wanted in where.items()])
    return float(scores.loc[chosen, value].mean())


# --- 5: which SHAP ---------------------------------------------------------------------------


def shap_additivity(
    settings: study.Settings, classifier: study.Classifier, clips: study.Clips, condition: tuple[str, str], stored: Sequence[str] = ()
) -> pd.DataFrame:
    """Additivity error per clip of Deep SHAP and of what was published as SHAP, on the same weights.

    The attributions of the methods ``stored``, this run's, are read; the others are computed.
    """
    db = study.spectrograms_of(classifier, clips)
    target = probabilities(classifier.model, db).argmax(1)
    background = pipeline.reference_spectrograms(settings, classifier)
    frames = []
    for method in ("shap", "shap_functional"):
        if method in stored:
            attribution = pipeline.load_attributions(settings, clips, condition, method)[0].to(db)
        else:
            each = zip(db.split(1), target.split(1))
            attribution = torch.cat([METHODS[method](classifier.model, *one, background=background) for one in each])
        error = additivity_error(classifier.model, db, target, background, attribution)
        frames.append(pd.DataFrame({"method": method, "clip": clips.frame["clip"], "additivity_error": error.cpu().numpy()}))
    return pd.concat(frames, ignore_index=True)


# --- 6: gradients of the usual Cnn14 on this device ------------------------------------------


def usual_gradient_cosine(model: nn.Module, db: torch.Tensor, target: torch.Tensor) -> float:
    """Cosine between the input gradient of the usual Cnn14 and the right one, for the same weights and outputs."""
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


# --- 7: scored and heard ---------------------------------------------------------------------


def heard_gap(scores: pd.DataFrame) -> pd.DataFrame:
    """Means of what is scored and of what is heard, per condition, method and mask (audited rows)."""
    rows = scores[(scores["protocol"] == "audited") & (scores["control"] == "")]
    pairs = [column for metric in constants.FAITHFULNESS_METRICS for column in (metric, f"{metric}_heard")]
    return rows.groupby(["spectrogram_type", "noise_scenario", "method", "mask"], sort=False)[pairs].mean().reset_index()


def round_trip(scores: pd.DataFrame) -> pd.DataFrame:
    """What inversion alone costs: the all-ones mask heard, per condition."""
    rows = scores[(scores["protocol"] == "audited") & (scores["control"] == "all_ones")]
    columns = ["FidIn_heard", "AD_heard", *(["si_sdr"] if "si_sdr" in rows else [])]
    return rows.groupby(["spectrogram_type", "noise_scenario"], sort=False)[columns].mean().reset_index()


# --- 8: what silence is ----------------------------------------------------------------------


def fill_sensitivity(settings: study.Settings, condition: tuple[str, str], best: pd.DataFrame) -> pd.DataFrame:
    """FF, AD and FidIn of each method's best mask in a condition for three fills of what is masked.

    Parameters
    ----------
    best : DataFrame
        From ``tables.best_masks``; every row of the condition is tried.

    Returns
    -------
    DataFrame
        spectrogram_type, noise_scenario, protocol, method, mask, fill, FF, AD, FidIn (means over the clips).
    """
    classifier = study.load_classifier(settings, condition[0])
    scenario = study.scenario_argument(settings, condition[1])
    clips = study.explained_clips(settings, classifier.spectrogram.sample_rate, scenario)
    db = study.spectrograms_of(classifier, clips)
    values = (constants.DB_FLOOR, db.amin((1, 2, 3), keepdim=True), classifier.training_mean.to(db))
    p, rows = probabilities(classifier.folded, db), []
    for chosen in study.of_condition(best, condition).itertuples():
        attribution, _ = pipeline.load_attributions(settings, clips, condition, chosen.method)
        mask = build_masks(attribution.to(db), chosen.protocol, [chosen.mask])[chosen.mask]
        about = {"spectrogram_type": condition[0], "noise_scenario": condition[1], "protocol": chosen.protocol,
                 "method": chosen.method, "mask": chosen.mask}
        for name, fill in zip(FILLS, values):
            parts = [probabilities(classifier.folded, part) for part in apply_mask(db, mask, fill)]
            scores = faithfulness(p, *parts, chosen.protocol)
            means = {metric: float(scores[metric].mean()) for metric in ("FF", "AD", "FidIn")}
            rows.append({**about, "fill": name, **means})
    return pd.DataFrame(rows)


def fill_rankings(fills: pd.DataFrame, metric: str = "FF") -> pd.DataFrame:
    """The methods from the highest to the lowest by a metric, "lime > gradcam": a row per condition, a column per fill."""
    ordered = fills.sort_values([metric, "method"], ascending=[False, True])
    ranks = ordered.groupby([*CONDITION, "fill"], sort=False)["method"].agg(" > ".join)
    return ranks.unstack("fill")[list(FILLS)]


# --- the summary -----------------------------------------------------------------------------


def ranking(best: pd.DataFrame, protocol: str, condition: tuple[str, str]) -> list[str]:
    """Methods of a condition from the best to the worst by the study's score."""
    rows = study.of_condition(best, condition).query("protocol == @protocol").sort_values("score", ascending=False)
    return rows["method"].tolist()


def findings_table(rows: list[dict]) -> pd.DataFrame:
    """The twelve rows in order; ValueError unless every number from 1 to 12 is there once."""
    frame = pd.DataFrame(rows).sort_values("number", ignore_index=True)
    if frame["number"].tolist() != list(range(1, 13)):
        raise ValueError(f"findings must be numbered 1 to 12; got {frame['number'].tolist()}")
    return frame


# --- 12: what the file says ------------------------------------------------------------------


def stored_sound(waveform: torch.Tensor, sample_rate: int) -> dict:
    """Sample rate (Hz) and duration (s) of a sound after it was stored as the gallery stores it."""
    import io

    import soundfile

    from ..audio.encoding import store

    with soundfile.SoundFile(io.BytesIO(store(waveform.numpy(), sample_rate).data)) as file:
        return {"sample_rate": file.samplerate, "seconds": file.frames / file.samplerate}

"""What silence is: masks scored with several fills in the place of what they hide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from ..evaluation.frames import CONDITION, of_condition
from ..evaluation.masks import build_masks
from ..evaluation.metrics import faithfulness
from ..words import method_label

if TYPE_CHECKING:
    from ..study.condition import Condition

FILLS = ("silence", "clip minimum", "training mean")
FILL_METRICS = ("FF", "AD", "FidIn")


def fill_sensitivity(condition: Condition, best: pd.DataFrame, protocol: str = "audited") -> pd.DataFrame:
    """FF, AD and FidIn of each method's best mask in a condition for three fills of what is masked (silence
    is the classifier's floor).

    Parameters
    ----------
    condition : Condition
    best : DataFrame
        From ``tables.best_masks``; the rows of the condition and of ``protocol`` are tried.

    Returns
    -------
    DataFrame
        spectrogram_type, noise_scenario, protocol, method, mask, fill, FF, AD, FidIn (means over the clips).
    """
    db, classifier = condition.spectrograms, condition.classifier
    values = (classifier.reading.floor, db.amin((1, 2, 3), keepdim=True), classifier.training_mean.to(db))
    scorer = classifier.scorer(condition.clips.waveforms)
    scorers = [scorer.filled(fill) for fill in values]
    names, rows = dict(zip(CONDITION, condition.pair)), []
    for chosen in (
        of_condition(best[best["protocol"] == protocol], condition.pair).dropna(subset="mask").itertuples()
    ):
        mask = build_masks(condition.attributions(chosen.method).to(db), protocol, [chosen.mask])[chosen.mask]
        about = {**names, "protocol": protocol, "method": chosen.method, "mask": chosen.mask}
        for name, scorer in zip(FILLS, scorers):
            scores = faithfulness(scorer.p, *scorer(mask), protocol, scorer.target, scorer.threshold)
            means = {metric: float(scores[metric].mean()) for metric in FILL_METRICS}
            rows.append({**about, "fill": name, **means})
    return pd.DataFrame(rows)


def fill_rankings(fills: pd.DataFrame, metric: str = "FF") -> pd.DataFrame:
    """Methods from highest to lowest by a metric, "LIME > Grad-CAM": a row a condition, a column a fill."""
    ordered = fills.sort_values([metric, "method"], ascending=[False, True])
    ordered = ordered.assign(method=ordered["method"].map(method_label))
    ranks = ordered.groupby([*CONDITION, "fill"], sort=False)["method"].agg(" > ".join)
    conditions = pd.MultiIndex.from_frame(fills[CONDITION].drop_duplicates())
    return ranks.unstack("fill").loc[conditions, list(FILLS)].rename_axis(columns=None)

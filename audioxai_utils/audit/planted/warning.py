"""Does an explanation warn: does it differ from that of a control on the same clips, and from how many on?"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import t as student
from scipy.stats import wilcoxon

from .agreement import CONTROL_MAPS, judged_everywhere, with_intervals
from .plants import PLANTS

LEVEL = 0.05
CHANCE = {"auc": 0.5, "auc_time": 0.5, "auc_frequency": 0.5, "auc_decoy": 0.5}  # of a map that knows nothing
MOST = 1000  # clips; what would need more does not warn


def warnings_of(points: pd.DataFrame, measure: str = "auc") -> pd.DataFrame:
    """The difference between the planted model's and the control's measure, per case and method.

    Parameters
    ----------
    points : DataFrame
        With ``measure`` and ``control_<measure>``, a row for each clip and method.

    Returns
    -------
    DataFrame
        classifier, plant, level_db, case, method, n, difference, p (Wilcoxon's signed ranks, one-sided),
        ``p_control``, the same test of the control's measure against chance: where it is small, the map lies
        on the plant although the control has no use for it, a false alarm; NaN of a measure whose chance is
        not known. ``needed``, the clips from which on a paired t-test (two-sided) is expected to be
        significant; NaN where there would have to be more than a thousand, or where the difference has the
        wrong sign.
    """
    kept = points[~points["method"].isin(CONTROL_MAPS)].dropna(subset=[measure, f"control_{measure}"])
    keys = ["classifier", "plant", "level_db", "case", "method"]
    rows = []
    for key, part in kept.groupby(keys, sort=False, observed=True):
        own, control = (part[name].to_numpy(float) for name in (measure, f"control_{measure}"))
        difference = own - control
        rows.append(
            dict(zip(keys, key))
            | {
                "n": len(difference),
                "difference": difference.mean(),
                "p": p_value(difference),
                "p_control": p_value(control - CHANCE[measure]) if measure in CHANCE else np.nan,
                "needed": clips_needed(difference),
            }
        )
    return pd.DataFrame(rows)


def p_value(difference: np.ndarray) -> float:
    """Of the hypothesis that the difference is not above 0; 1 where all are 0."""
    if not np.any(difference):
        return 1.0
    return float(wilcoxon(difference, alternative="greater").pvalue)


def clips_needed(difference: np.ndarray) -> float:
    """Smallest number of clips n with mean / sd >= t(.975, n - 1) / sqrt(n)."""
    if len(difference) < 2 or not difference.mean() > 0:
        return float("nan")
    spread = difference.std(ddof=1)
    n = np.arange(2, MOST + 1)
    enough = difference.mean() * np.sqrt(n) >= student.ppf(1 - LEVEL / 2, n - 1) * spread
    return float(n[enough][0]) if enough.any() else float("nan")


def summarised(found: pd.DataFrame) -> pd.DataFrame:
    """Per method that was judged in all cases: share of them in which it ``warns`` with the clips at hand,
    and in which its map of the control is a ``false_alarm``, with ``_low`` and ``_high`` (95 %, over plants),
    and the median of clips ``needed``.
    """
    found = found[found["method"].map(judged_everywhere(found)).astype(bool)]
    shares = {"warns": found["p"] < LEVEL, "false_alarm": found["p_control"] < LEVEL}
    warns = found.assign(**{name: share.astype(float) for name, share in shares.items()})
    table = with_intervals(warns, ["method"], list(shares)).set_index("method")
    needed = found.assign(needed=found["needed"].fillna(np.inf)).groupby("method", sort=False, observed=True)
    table["needed"] = needed["needed"].median()
    return table.sort_values(["warns", "needed"], ascending=[False, True]).reset_index()


def by_level(found: pd.DataFrame) -> pd.DataFrame:
    """`summarised` at every level of the plants that are sounds; what is missing has no such level.

    Returns
    -------
    DataFrame
        level_db, method, n_cases, warns with its bounds and needed; the plainest level first.
    """
    sounds = found[~found["plant"].astype(str).map(lambda name: PLANTS[name].absent)]
    parts = [
        summarised(part).assign(level_db=level, n_cases=part["case"].nunique())
        for level, part in sounds.groupby("level_db", sort=False, observed=True)
    ]
    columns = ["level_db", "method", "n_cases", "warns", "warns_low", "warns_high", "needed"]
    table = pd.concat(parts, ignore_index=True)[columns]
    return table.sort_values("level_db", ascending=False, kind="stable", ignore_index=True)

"""Does a mask keep its class whatever takes the place of what is hidden, and at which share of the bins?"""

from __future__ import annotations

import pandas as pd

from .agreement import mean_with_interval, plants_of
from .fills import FILLS, HEARD

HELD_BY = ("FidIn", "AD")
BASIS = "lime"  # what others are held against, with the mask that the study prefers


def held_under_fills(scores: pd.DataFrame, methods=(BASIS,), mask: str = "bin") -> pd.DataFrame:
    """FidIn, AD and area of methods' binary masks under each fill, and their differences to LIME's.

    Parameters
    ----------
    scores : DataFrame
        Means over the clips of each case, from ``published.planted_scores`` or `agreement.metric_means`.
    methods : sequence of str
    mask : str
        One that keeps or hides bins whole: its area is 1 - SPS where ``scores`` have no column of it.

    Returns
    -------
    DataFrame
        method, fill, n_cases, area, FidIn and AD, means over the cases that were scored under the fill;
        ``<metric>_more`` with ``_low`` and ``_high`` is the difference to LIME in the same cases, 95 % over
        their plants.
    """
    kept = scores[scores["mask"] == mask]
    kept = kept.assign(area=kept.get("area", 1 - kept["SPS"])).astype(
        {"method": str, "fill": str, "case": str}
    )
    plants = plants_of(kept)
    rows = []
    for method in methods:
        for fill in (fill for fill in FILLS if (kept["fill"] == fill).any()):
            here = kept[kept["fill"] == fill].pivot(index="case", columns="method", values=[*HELD_BY, "area"])
            row = {"method": method, "fill": fill, "n_cases": len(here)}
            for metric in (*HELD_BY, "area"):
                more = (here[metric][method] - here[metric][BASIS]).to_numpy(float)
                names = (f"{metric}_more", f"{metric}_low", f"{metric}_high")
                found = mean_with_interval(more, plants.loc[here.index])
                row |= {metric: here[metric][method].mean()} | dict(zip(names, found))
            rows.append(row)
    return pd.DataFrame(rows)


def sentence(table: pd.DataFrame) -> str:
    """What a table of one method says of it, in Markdown; by ear apart, which may be of fewer cases."""
    ear, table = table[table["fill"] == HEARD], table[table["fill"] != HEARD]
    worse = table[(table["FidIn_high"] < 0) | (table["AD_low"] > 0)]["fill"].tolist()
    better = table[(table["FidIn_low"] > 0) | (table["AD_high"] < 0)]["fill"].tolist()
    first = table.iloc[0]
    said = [f"worse under {', '.join(worse) or 'no fill'}", f"better under {', '.join(better) or 'no fill'}"]
    lime = (table["FidIn"] - table["FidIn_more"]).min(), first["area"] - first["area_more"]
    return (
        f"keeps the class on {table['FidIn'].min():.0%} of the clips or more under every fill, LIME on "
        f"{lime[0]:.0%}, at {first['area']:.0%} of the bins where LIME has {lime[1]:.0%}; "
        f"{' and '.join(said)} (paired, 95 % over the plants)."
        + "".join(
            f" By ear, in {row.n_cases} cases, on {row.FidIn:.0%}, LIME on {row.FidIn - row.FidIn_more:.0%}."
            for row in ear.itertuples()
        )
    )

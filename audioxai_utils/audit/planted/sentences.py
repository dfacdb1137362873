"""What planted causes say, in sentences made of the numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ...evaluation.overview import printed
from ...words import method_label
from .agreement import (
    CONTROL_MAPS,
    STUDY_FILL,
    TRUTH,
    against_the_study,
    judged_everywhere,
    mean_with_interval,
    plants_of,
    truths,
    with_intervals,
)
from .fills import HEARD
from .warning import summarised

FILL_LABELS = {
    "floor": "silence",
    "minimum": "clip minimum",
    "mean": "training mean",
    "quantile": "low quantile of the bin",
    "noise": "training mean with noise",
    HEARD: "by ear",
}
LABELS = {
    "shap_silence": "SHAP against silence",
    "integrated_gradients_references": "Integrated gradients, references",
    "segments_forest": "Segments, forest",
    "level": "Level",
    "unusual": "Level above the mean",
}


def label(method: str) -> str:
    """Printed name of a method, a variant or a control."""
    return LABELS.get(method) or method_label(method)


def means_table(points: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """Means of measures over the cases with 95 % intervals over plants, as text; a row for each method, the
    highest of the first measure first. Of ``decoy_ratio`` it is the geometric mean.
    """
    if points.empty:
        return pd.DataFrame(columns=list(measures))
    ratios = [name for name in measures if name == "decoy_ratio"]
    points = points.assign(**{name: np.log(points[name].astype(float)) for name in ratios})
    cases = points.groupby(["plant", "case", "method"], observed=True)[list(measures)].mean().reset_index()
    table = with_intervals(cases, ["method"], measures).sort_values(measures[0], ascending=False)
    for name in ratios:
        bounds = [name, f"{name}_low", f"{name}_high"]
        table[bounds] = np.exp(table[bounds])
    return printed(table.assign(method=table["method"].map(label))).set_index("method")


def summary(
    points: pd.DataFrame,
    agreed: pd.DataFrame,
    by_ear: pd.DataFrame,
    chosen: pd.DataFrame,
    warned: pd.DataFrame,
) -> str:
    """The findings as Markdown, a line each.

    Parameters
    ----------
    points : DataFrame
        Rows of clips and methods; then ``agreement.agreement``, ``agreement.by_ear``, ``agreement.held_out``
        and ``warning.warnings_of`` of them.
    """
    lines = [*best_methods(points), *against_lime(points), best_rule(agreed)]
    return "\n".join([*lines, *heard(by_ear), regret(chosen), warns(warned), *conclusions(points, agreed)])


def conclusions(points: pd.DataFrame, agreed: pd.DataFrame) -> list[str]:
    """Which of the published study's conclusions planted causes confirm, as one line; none without its
    methods and its mask.
    """
    own = agreed[(agreed["metric"] == "FF") & (agreed["mask"] == "bin") & (agreed["fill"] == STUDY_FILL)]
    if not {"shap", "lime"} <= set(points["method"]) or own.empty:
        return []
    found = {measure: difference(points, "lime", "shap", measure) for measure in (TRUTH, "auc_decoy")}
    low, high = found[TRUTH][1:]
    more = ", ".join(
        f"{words} {found[measure][0]:+.2f} ({found[measure][1]:+.2f} to {found[measure][2]:+.2f})"
        for measure, words in ((TRUTH, "average precision"), ("auc_decoy", "AUC of cause against decoy"))
    )
    ranks = {method: place_of(points, method) for method in ("shap", "lime")}
    rho = own.iloc[0]
    return [
        f"- Of the published conclusions, that LIME explains better than SHAP {verdict(low, high)}: {more}; "
        f"SHAP is number {ranks['shap'][0]} and LIME number {ranks['lime'][0]} of {ranks['lime'][1]} "
        f"methods. That FF of the `bin` mask tells which explanation is right "
        f"{verdict(rho['spearman_low'], rho['spearman_high'])}: ρ = {rho['spearman']:.2f} "
        f"({rho['spearman_low']:+.2f} to {rho['spearman_high']:+.2f})."
    ]


def verdict(low: float, high: float) -> str:
    """What a 95 % interval says of a conclusion that wants the value above 0."""
    if low > 0:
        return "**is confirmed**"
    return "**is reversed**" if high < 0 else "**is not confirmed**"


def difference(points: pd.DataFrame, first: str, second: str, measure: str = TRUTH):
    """Mean difference of a measure between two methods over the cases with its interval over the plants."""
    cases = points.pivot_table(measure, "case", "method", "mean", observed=True)
    plants = plants_of(points).loc[cases.index.astype(str)]
    return mean_with_interval((cases[first] - cases[second]).to_numpy(float), plants)


def over_recordings(
    points: pd.DataFrame, first: str, second: str, measure: str = TRUTH
) -> tuple[float, float]:
    """95 % interval of the mean difference of a measure between two methods, recordings resampled, each with
    all of the cases in which a plant was put into it.
    """
    clips = points.pivot_table(measure, ["case", "clip"], "method", observed=True)
    more = (clips[first] - clips[second]).dropna()
    return mean_with_interval(more.to_numpy(float), more.index.get_level_values("clip"))[1:]


def best_methods(points: pd.DataFrame) -> list[str]:
    """Per classifier: which of the methods that were judged in all cases find the cause, beside the level and
    chance.
    """
    lines = []
    for classifier, here in points.groupby("classifier", sort=False, observed=True):
        means = here.groupby(["case", "method"], observed=True)[["average_precision", "auc_decoy"]].mean()
        means = means.groupby("method", observed=True).mean()
        order = (
            means[judged_everywhere(here)]
            .drop(index=list(CONTROL_MAPS), errors="ignore")
            .sort_values("average_precision")
        )
        best, worst = order.index[::-1][:3], order.index[0]
        level = means.loc["level", "average_precision"]
        n_clips, n_sounds = here.groupby(["case", "clip"], observed=True).ngroups, here["clip"].nunique()
        found = ", ".join(f"{label(m)} {order.loc[m].iloc[0]:.2f}" for m in best)
        above, apart = (
            [label(m) for m in order.index[::-1] if difference(here, m, "level", measure)[1] > 0]
            for measure in (TRUTH, "auc_decoy")
        )
        lines.append(
            f"- {classifier}, {here['case'].nunique()} cases, {n_clips} clips of {n_sounds} recordings: "
            f"{found} find the cause best (average precision; loudness alone {level:.2f}, "
            f"chance {here['truth_share'].mean():.2f}), "
            f"{label(worst)} worst ({order.loc[worst].iloc[0]:.2f}); surely better than loudness: "
            f"{', '.join(above) or 'none'}. By AUC of cause against decoy, which loudness cannot tell apart: "
            f"{', '.join(apart[:3]) or 'none'}{f' and {len(apart) - 3} more' if len(apart) > 3 else ''}, of "
            f"{len(order)} methods."
        )
    return lines


def against_lime(points: pd.DataFrame, first: str = "shap", second: str = "lime") -> list[str]:
    """What the study's winner and the method that it calls unsuitable find, over all cases; none without
    either.
    """
    cases = points.pivot_table(TRUTH, "case", "method", "mean", observed=True)
    if not {first, second} <= set(cases.columns):
        return []
    ratios = np.exp(np.log(points["decoy_ratio"].astype(float)).groupby(points["method"].astype(str)).mean())
    more, low, high = difference(points, first, second)
    by_sound = over_recordings(points, first, second)
    return [
        f"- Over all {len(cases)} cases {label(first)} has {cases[first].mean():.2f} and {label(second)} "
        f"{cases[second].mean():.2f}, a difference of {more:.2f} ({low:.2f} to {high:.2f} over plants, "
        f"{by_sound[0]:.2f} to {by_sound[1]:.2f} over recordings); a bin of the "
        f"cause has {ratios[first]:.1f} and {ratios[second]:.1f} times the decoy's relevance (geometric "
        "means)."
    ]


def place_of(points: pd.DataFrame, method: str) -> tuple[int, int]:
    """Place of a method by average precision over all cases, 1 is the best, and the number of methods."""
    known = truths(points).mean()
    return int((known > known[method]).sum()) + 1, len(known)


def best_rule(agreed: pd.DataFrame) -> str:
    """The metric, mask and fill that rank methods most nearly as the causes do, and the study's own FF."""
    ranked = ranked_everywhere(agreed)
    top = ranked.dropna(subset="spearman").iloc[0]
    named = rule_words(top["metric"], top["mask"], top["fill"])
    return (
        f"- Of {len(ranked)} metrics {named} ranks methods most nearly as the causes do: "
        f"ρ = {_rho(top)} over {top['n_cases']} cases{_of_the_study(agreed, STUDY_FILL, 'at silence')}."
    )


def heard(table: pd.DataFrame) -> list[str]:
    """Whether the metrics by ear rank methods as the causes do, beside those of the picture; no line where
    none ranks them.

    Parameters
    ----------
    table : DataFrame
        From ``agreement.by_ear``.
    """
    ear = ranked_everywhere(table[table["fill"] == HEARD]).dropna(subset="spearman")
    if ear.empty:
        return []
    top = ear.iloc[0]
    same = table[(table["metric"] == top["metric"]) & (table["mask"] == top["mask"])].set_index("fill")
    others = ", ".join(
        f"{FILL_LABELS[fill]} {_rho(same.loc[fill])}" for fill in (STUDY_FILL, "mean") if fill in same.index
    )
    return [
        f"- By ear, in {top['n_cases']} cases, {rule_words(top['metric'], top['mask'], '')} ranks methods "
        f"most nearly as the causes do: ρ = {_rho(top)} (of the picture: {others})"
        f"{_of_the_study(table, HEARD, 'by ear')}."
    ]


def ranked_everywhere(agreed: pd.DataFrame) -> pd.DataFrame:
    """The rules that rank methods in as many cases as any does."""
    return agreed[agreed["n_cases"] == agreed["n_cases"].max()]


def _of_the_study(agreed: pd.DataFrame, fill: str, words: str) -> str:
    own = agreed[(agreed["metric"] == "FF") & (agreed["mask"] == "bin") & (agreed["fill"] == fill)]
    return "".join(f"; FF of the study's `bin` mask {words} has {_rho(row)}" for _, row in own.iterrows())


def _rho(row: pd.Series) -> str:
    return f"{row['spearman']:.2f} ({row['spearman_low']:.2f} to {row['spearman_high']:.2f})"


def rule_words(metric: str, mask: str, fill: str) -> str:
    """A metric of a mask under a fill, in words."""
    if not mask:
        return "the likeness to the control's map"
    where = f"at {mask.removeprefix('topK_')} % of the bins" if mask.startswith("topK_") else f"of `{mask}`"
    if fill == HEARD:
        return f"{metric} {where}, by ear"
    return f"{metric} {where}" + (f" with the {FILL_LABELS[fill]} as fill" if fill in FILL_LABELS else "")


def regret(chosen: pd.DataFrame) -> str:
    """What choosing a method costs on plants that took no part in the choice."""
    means = with_intervals(chosen, ["way"], ["regret"])
    ways = "; ".join(
        f"{row.way} {row.regret:.2f} ({row.regret_low:.2f} to {row.regret_high:.2f})"
        for row in means.itertuples()
    )
    less, low, high = against_the_study(chosen)
    return (
        f"- Average precision lost by choosing a method, on plants that took no part in the choice: {ways}. "
        f"The first loses {less:.2f} ({low:.2f} to {high:.2f}) less than the study's."
    )


def warns(warned: pd.DataFrame) -> str:
    """Which method tells a planted model from its control most surely, and from how many clips on."""
    table = summarised(warned)
    first, most = table.iloc[0], table.loc[table["false_alarm"].idxmax()]
    return (
        f"- {label(first['method'])} warns most surely: significant in {first['warns']:.0%} of the "
        f"cases with the clips at hand, {first['needed']:.0f} clips needed (median, paired t-test). A "
        f"control has no use for the plant, and its map lies on it all the same in "
        f"{first['false_alarm']:.0%} of them; {label(most['method'])}'s, the most, in "
        f"{most['false_alarm']:.0%}."
    )

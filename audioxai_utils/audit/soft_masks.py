"""Soft masks beside their own values in another order.

A control of equal area keeps whole bins. A soft mask keeps a share of each, and half of a bin's level is not
half of the bins: what such a mask wins over its control may be won by being soft. Here its control
is as soft.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from ..evaluation.comparisons import beats_control
from ..evaluation.controls import clip_seed, control_ranks, reordered
from ..evaluation.frames import CONDITION, methods_only, of_protocol
from ..evaluation.masks import build_masks
from ..evaluation.scoring import score_masks
from ..study import score

if TYPE_CHECKING:
    from ..study.condition import Condition

SOFT = ("minmax", "sigmoid", "minmax_pos", "sigmoid_pos")
JUDGED_BY = ("FF", "AD")  # what goes when the mask is removed, and what stays when it is kept
BINS, VALUES = "whole bins", "own values"
PROTOCOL = "audited"


def own_value_scores(condition: Condition) -> pd.DataFrame:
    """Scores of every method's soft masks with their own values in other orders.

    Returns
    -------
    DataFrame
        Condition, clip, method, mask, control (``random``: in any order; ``energy``: the largest on the
        loudest bins), FF and AD, both of the audited protocol.
    """
    parts = []
    for _, block in condition.clips.blocks(score.block_size(condition.study.device)):
        part, names = condition.of(block), list(block.frame["clip"])
        scorer = part.scorer()
        ranks = control_ranks(scorer.batch.power, [clip_seed(name) for name in names])
        for method in condition.methods:
            values = part.attributions(method).to(scorer.batch.db)
            masks = build_masks(values, PROTOCOL, SOFT)
            for control, order in ranks.items():
                other = {name: reordered(mask, order) for name, mask in masks.items()}
                scores = score_masks(scorer, other, PROTOCOL)
                clip = [names[i] for i in scores["index"]]
                parts.append(scores.assign(clip=clip, method=method, control=control))
    found = pd.concat(parts, ignore_index=True).assign(**dict(zip(CONDITION, condition.pair)))
    return found[[*CONDITION, "clip", "method", "mask", "control", *JUDGED_BY]]


def against_own_values(condition: Condition) -> pd.DataFrame:
    """Every soft mask against both kinds of control, clip by clip.

    Returns
    -------
    DataFrame
        From `comparisons.beats_control`, with a column ``of``: whether the control keeps whole bins of the
        mask's area, or the mask's own values.
    """
    stored = of_protocol(condition.scores(), PROTOCOL, "scores")
    stored = stored[stored["mask"].isin(SOFT)]
    own, columns = methods_only(stored), [*CONDITION, "clip", "method", "mask", "control", *JUDGED_BY]
    bins = stored.loc[stored["control"].isin(["random", "energy"]), columns]
    kinds = {BINS: bins, VALUES: own_value_scores(condition)}
    tables = [
        beats_control(own[columns], controls=rows, metrics=JUDGED_BY).assign(of=kind)
        for kind, rows in kinds.items()
    ]
    return pd.concat(tables, ignore_index=True)


def counts(table: pd.DataFrame) -> pd.DataFrame:
    """How many soft masks are surely better than their control: a row for each control and metric, a column
    for each kind.
    """
    better = table.assign(better=table["verdict"].eq("better"))
    found = better.pivot_table(
        index=["control", "metric"], columns="of", values="better", aggfunc="sum", sort=False
    )[[BINS, VALUES]].astype(int)
    masks = table.groupby(["control", "metric"], sort=False).apply(lambda part: len(part) // 2)
    return found.assign(masks=masks).rename_axis(columns=None).reset_index()


def sentence(table: pd.DataFrame) -> str:
    """What the counts say of random orders, in Markdown."""
    rows = counts(table)
    rows = rows[rows["control"] == "random"]
    said = [
        f"in {row['metric']} {row[BINS]} of {row['masks']} are surely better than random whole "
        f"bins, and {row[VALUES]} than their own values in random places"
        for _, row in rows.iterrows()
    ]
    return f"Of the soft masks, {'; '.join(said)}."

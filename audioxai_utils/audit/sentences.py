"""The answer in five sentences, every number read from the tables of the run.

Each function returns one sentence, or None where its table was not computed.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from .. import files
from ..constants import OWN, STUDY_CONDITIONS
from ..evaluation.tables import table_name
from ..words import SCENARIO_LABELS, SPECTROGRAM_LABELS, condition_label, method_label

MAIN_CONDITION = ("mel_db", "clean")


def read_table(results_dir: Path, name: str) -> pd.DataFrame | None:
    """``tables/<name>.csv``, or None where it does not exist or holds nothing."""
    path = Path(results_dir) / "tables" / f"{name}.csv"
    if not path.is_file() or path.stat().st_size < 3:
        return None
    frame = files.read_table(path)
    return None if frame.empty else frame


def main_condition(results_dir: Path) -> tuple[str, str]:
    """Clean mel where the run has it, else the first of its conditions."""
    best = read_table(results_dir, "best_masks")
    if best is None:
        return MAIN_CONDITION
    found = list(zip(best["spectrogram_type"], best["noise_scenario"]))
    return MAIN_CONDITION if MAIN_CONDITION in found else found[0]


def study_tables(results_dir: Path, protocol: str) -> dict[tuple[str, str], pd.DataFrame]:
    """Tables of a protocol by condition (II-VI, and those of others), as far as they were computed."""
    best = read_table(results_dir, "best_masks")
    own = [] if best is None else list(zip(best["spectrogram_type"], best["noise_scenario"]))
    found = {
        condition: read_table(results_dir, f"{protocol}/table_{table_name(condition)}")
        for condition in dict.fromkeys((*STUDY_CONDITIONS, *own))
    }
    return {condition: table for condition, table in found.items() if table is not None}


def _first_by_rule(results_dir: Path, protocol: str, condition: tuple[str, str]) -> pd.Series | None:
    """The row that the study's rule puts first in a condition: the highest ``score`` of best_masks.csv."""
    best = read_table(results_dir, "best_masks")
    if best is None or "score" not in best:
        return None
    rows = best[(best["spectrogram_type"] == condition[0]) & (best["noise_scenario"] == condition[1])]
    rows = rows[rows["protocol"] == protocol] if "protocol" in rows else rows
    rows = rows.dropna(subset=["score", "mask"])
    return None if rows.empty else rows.loc[rows["score"].idxmax()]


def _protocol(results_dir: Path) -> str:
    """The paper's protocol where the run has it, else the audited one."""
    best = read_table(results_dir, "best_masks")
    alone = best is not None and "protocol" in best and "paper" not in set(best["protocol"])
    return "audited" if alone else "paper"


def _pair(row) -> str:
    return f"{method_label(row['method'])} with {row['mask']}"


def accuracy_sentence(results_dir: Path) -> str | None:
    """How good the explained classifiers are."""
    table = read_table(results_dir, "table_I")
    if table is None or table["test_acc"].isna().all():
        return None
    if set(table["spectrogram_type"]) == {OWN}:
        return f"It names {table['test_acc'].iloc[0]:.1f} % of the clips whose class it knows correctly."
    kinds = table["spectrogram_type"].replace(SPECTROGRAM_LABELS)
    parts = [f"{accuracy:.1f} % from {kind} spectrograms" for accuracy, kind in zip(table["test_acc"], kinds)]
    return f"Of the clean test clips the classifiers that are explained name {' and '.join(parts)} correctly."


def winner_sentence(results_dir: Path) -> str | None:
    """What wins under the paper's protocol, or the run's own."""
    main = main_condition(results_dir)
    first = _first_by_rule(results_dir, _protocol(results_dir), main)
    if first is None:
        return None
    return (
        f"By the study's own rule, {_pair(first)} comes first ({condition_label(*main)}): its kept part "
        "still leads to "
        f"the same class on {100 * first['FidIn']:.0f} % of the clips, and removing it lowers that class's "
        f"probability by {first['FF']:.2f} on average."
    )


def noise_sentence(results_dir: Path) -> str | None:
    """What noise does to the share of clips whose kept part keeps the class."""
    tables = study_tables(results_dir, _protocol(results_dir))
    means = {
        condition[1]: table["FidIn"].mean()
        for condition, table in tables.items()
        if condition[0] == main_condition(results_dir)[0]
    }
    noisy = {scenario: value for scenario, value in means.items() if scenario != "clean"}
    if "clean" not in means or not noisy:
        return None
    parts = [
        f"{100 * value:.0f} % with {SCENARIO_LABELS.get(scenario, scenario)}"
        for scenario, value in noisy.items()
    ]
    return (
        "Averaged over the methods at their best masks, the kept part keeps the class on "
        f"{100 * means['clean']:.0f} % "
        f"of the clean clips, and on {', '.join(parts)}."
    )


def area_sentence(results_dir: Path) -> str | None:
    """How much of the picture those masks keep, and how many keep all or nothing."""
    table = study_tables(results_dir, _protocol(results_dir)).get(main_condition(results_dir))
    if table is None or not {"area", "degenerate"} <= set(table):
        return None
    least, most = table.loc[table["area"].idxmin()], table.loc[table["area"].idxmax()]
    worst = table.loc[table["degenerate"].idxmax()]
    text = (
        f"These best masks keep between {100 * least['area']:.1f} % ({method_label(least['method'])}) and "
        f"{100 * most['area']:.1f} % ({method_label(most['method'])}) of the spectrogram"
    )
    if worst["degenerate"] > 0:
        return (
            f"{text}, and the mask of {method_label(worst['method'])} is constant, so that it selects "
            "nothing, on "
            f"{100 * worst['degenerate']:.0f} % of the clips."
        )
    return f"{text}, and none of them is constant on any clip."


def audited_sentence(results_dir: Path) -> str | None:
    """What changes when known flaws of the published protocol are mended."""
    main = main_condition(results_dir)
    first = _first_by_rule(results_dir, "audited", main)
    if first is None:
        return None
    before = _first_by_rule(results_dir, "paper", main)
    same = before is not None and (before["method"], before["mask"]) == (first["method"], first["mask"])
    text = (
        f"Under the audited protocol, which mends known flaws of the published one, {_pair(first)} "
        f"{'still ' if same else ''}comes first ({condition_label(*main)}), with the class kept on "
        f"{100 * first['FidIn']:.0f} % of the clips"
    )
    table = study_tables(results_dir, "audited").get(main)
    if table is None or "not_better_than" not in table:
        return f"{text}."
    beaten = table["not_better_than"].fillna("").astype(str).str.strip().ne("").sum()
    number = f"{beaten} of {len(table)}"
    return f"{text}; {number} methods do not surely beat both controls of the same area in FF and AD."


SENTENCES = (
    ("How good is the classifier?", accuracy_sentence),
    ("Which explanation comes first?", winner_sentence),
    ("What does noise do?", noise_sentence),
    ("How much is kept?", area_sentence),
    ("Does it hold under the audited protocol?", audited_sentence),
)

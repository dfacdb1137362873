"""The report's tables as HTML: the classifiers, each method at its best mask, and all methods of a run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ..evaluation.comparisons import scored_and_heard
from ..constants import STUDY_METHODS, STUDY_CONDITIONS, TABLE_NUMBERS
from ..audit.sentences import read_table, study_tables
from ..run.graph import study_of
from .html import MISSING, escape
from ..published import published_accuracies
from ..figures.style import condition_label
from ..evaluation.table_styles import BLUE, GREEN, ORANGE, YELLOW, style_table


def accuracies(results_dir: Path) -> str:
    """Table I, ours above the published one."""
    heading = '<h2 id="tables">Tables</h2><h3>Table I: the classifiers</h3>'
    ours = read_table(results_dir, "table_I")
    if ours is None:
        return heading + MISSING
    both = pd.concat([ours.assign(source="this run"), published_accuracies().assign(source="published")])
    names = {
        "spectrogram_type": "spectrogram",
        "train_acc": "training",
        "val_acc": "validation",
        "test_acc": "test",
    }
    shown = both[["source", *ours.columns]].rename(columns=names).sort_values("spectrogram", kind="stable")
    text = shown.to_html(index=False, float_format="{:.1f}".format, border=0, na_rep="n/a")
    return (
        f'{heading}<div class="scroll" tabindex="0" role="region" aria-label="Table I">{text}</div>'
        "<p>Accuracies in per cent and the epoch that was kept. The published classifier starts from AudioSet "
        "weights at full width and knows 50 classes.</p>"
    )


COLOUR_KEY = (
    f'<p class="key"><span style="background:{GREEN}">best</span><span style="background:{ORANGE}">worst</span> of '
    f'FF, AI, AG, FidIn and AD; <span style="background:{BLUE}">best</span><span style="background:{YELLOW}">worst'
    "</span> of SPS and COMP. An arrow up: higher is better. Area is the share that the mask keeps, degenerate the "
    "share of clips whose mask is constant.</p>"
)


def best_masks_part(results_dir: Path, protocol: str) -> str:
    """Tables II-VI of one protocol; what was not computed is said."""
    study, tables = study_of(results_dir), study_tables(results_dir, protocol)
    tables = {condition: table for condition, table in tables.items() if study is None or condition in study.conditions}
    heading = f"<h3>Tables II to VI, {protocol} protocol: each method at its best mask</h3>"
    if not tables:
        return heading + MISSING
    parts = [heading, COLOUR_KEY]
    for condition, table in tables.items():
        caption = f"Table {TABLE_NUMBERS[condition]}: {condition_label(*condition)}, {protocol} protocol."
        text = style_table(table, caption=caption).to_html()
        parts.append(
            f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">{text}</div>'
        )
    missing = [f"{TABLE_NUMBERS[condition]} ({condition_label(*condition)})" for condition in STUDY_CONDITIONS if condition not in tables]
    if missing:
        parts.append(f'<p class="missing">Not computed in this run: {escape("; ".join(missing))}.</p>')
    return "".join(parts)


def every_method_part(results_dir: Path) -> str:
    """All methods of a run that has more than the study's own, scored and heard; else nothing."""
    every = read_table(results_dir, "methods")
    if every is None or set(every["method"]) <= set(STUDY_METHODS):
        return ""
    parts = [
        '<h3 id="methods">All methods of this run, audited protocol: each at its best mask</h3><p>What the masked '
        "spectrogram scores beside what the sound of the same mask scores, with 95 % intervals over clips, and the seconds "
        "that one attribution takes.</p>"
    ]
    for condition in dict.fromkeys(zip(every["spectrogram_type"], every["noise_scenario"])):
        table, caption = scored_and_heard(every, condition, "audited"), f"{condition_label(*condition)}, audited protocol, all methods."
        if len(table):
            text = style_table(table, caption=caption).to_html()
            parts.append(f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">{text}</div>')
    return "".join(parts) if len(parts) > 1 else ""

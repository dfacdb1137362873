"""What the report's notebook shows: tables and figures of a run, each as something a cell can display.

Everything is read from what the run has written; what is not there is said not to be computed. Names that
come from a user's files are text here, whatever stands in them.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from IPython.display import HTML, Image, Markdown

from ..audit import trust
from ..audit.sentences import SENTENCES, read_table
from ..constants import STUDY_CONDITIONS, STUDY_METHODS, TABLE_NUMBERS
from ..evaluation.overview import scored_and_heard
from ..evaluation.table_styles import BLUE, GREEN, ORANGE, YELLOW, style_table
from ..published import published_accuracies
from ..words import SPECTROGRAM_LABELS, condition_label, method_label
from .html import MISSING, escape

COLOUR_KEY = (
    f'<p class="key"><span style="background:{GREEN}">best</span><span '
    f'style="background:{ORANGE}">worst</span> of '
    f'FF, AI, AG, FidIn and AD; <span style="background:{BLUE}">best</span><span '
    f'style="background:{YELLOW}">worst'
    "</span> of SPS and COMP.</p>"
)

TRUST_HEADINGS = {
    "gradient": "error of the gradient",
    "adds_up": "error of the sum",
    "learnt": "likeness without learning",
    "repeats": "agreement of seeds",
    "beats_random": "masks beating random bins",
    "beats_loudest": "masks beating the loudest",
    "heard": "class kept by ear",
    "refused": "cannot be used",
}
HEADINGS = {"not_better_than": "not better than", "degenerate": "constant", "COMP_rel": "COMP / ln d"}


def answer(study) -> HTML:
    """The answer in five sentences with the run's numbers, each after its question."""
    items = []
    for question, sentence in SENTENCES:
        text = sentence(study.results)
        words = escape(text) if text else '<span class="missing">not computed in this run.</span>'
        items.append(f"<li><strong>{escape(question)}</strong> {words}</li>")
    return HTML(f"<ol class='answer'>{''.join(items)}</ol>")


def figure(study, name: str, condition=None, words: str = "") -> Image | HTML:
    """A figure of the run, ``figures/<name>[_<condition>].png``; ``words`` stand for it where it cannot be
    seen.
    """
    path = study.path("figures", name, condition).with_suffix(".png")
    return Image(filename=str(path), retina=True, alt=words) if path.is_file() else HTML(MISSING)


def table_html(frame: pd.DataFrame, label: str, digits: int | None = None) -> str:
    """A frame as an HTML table of text, in a frame that scrolls where the page is narrower.

    Parameters
    ----------
    frame : DataFrame
    label : str
        What the table is, for readers who cannot see it.
    digits : int, optional
        Decimals of numbers; four significant digits if not given.
    """
    number = "{:.4g}" if digits is None else f"{{:z.{digits}f}}"
    text = frame.to_html(
        index=False, border=0, na_rep="n/a", classes="words", float_format=number.format, escape=True
    )
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">{text}</div>'


def findings(study) -> HTML:
    """What the audit found, in twelve rows."""
    table = read_table(study.results, "findings")
    if table is None:
        return HTML(MISSING)
    names = {"number": "no.", "paper": "paper protocol", "audited": "audited protocol"}
    return HTML(table_html(table.rename(columns=names), "What the audit found"))


def trusted(study) -> HTML:
    """Which methods can be trusted for this classifier: the checks of `audit.trust`, in words and numbers."""
    try:
        table = trust.trust(study)
    except FileNotFoundError:
        return HTML(MISSING)
    study.save("trust", table)
    shown = table.assign(method=table["method"].map(method_label)).rename(columns=TRUST_HEADINGS)
    if not (table["refused"] != "").any():
        shown = shown.drop(columns="cannot be used")
    return HTML(table_html(shown.map(_two_digits), "Which methods can be trusted"))


def _two_digits(value):
    """A number with two digits that count, as text; anything else as it is."""
    return f"{value:.2g}" if isinstance(value, float) and value == value else value


def accuracies(study) -> HTML:
    """Table I: accuracy (per cent) of this run's classifiers and of the published ones, and the epoch that
    was kept.
    """
    ours = read_table(study.results, "table_I")
    if ours is None:
        return HTML(MISSING)
    both = pd.concat([ours.assign(source="this run"), published_accuracies().assign(source="published")])
    both["spectrogram_type"] = both["spectrogram_type"].replace(SPECTROGRAM_LABELS)
    names = {
        "spectrogram_type": "spectrogram",
        "train_acc": "training",
        "val_acc": "validation",
        "test_acc": "test",
    }
    columns = [
        "spectrogram_type",
        "source",
        *(name for name in ours.columns if name not in ("spectrogram_type", "source")),
    ]
    shown = both[columns].rename(columns=names).sort_values("spectrogram", kind="stable")
    return HTML(table_html(shown, "Table I", digits=1))


def study_tables(study, protocol: str) -> HTML:
    """Tables II to VI of a protocol, each method at its best mask; what was not computed is said."""
    parts, missing = [], []
    own = [condition.pair for condition in study.conditions]
    for pair in dict.fromkeys((*STUDY_CONDITIONS, *own)):
        number = TABLE_NUMBERS.get(pair)
        table = (
            read_table(study.results, f"{protocol}/table_{number or '_'.join(pair)}") if pair in own else None
        )
        if table is None:
            missing += [f"{number} ({condition_label(*pair)})"] * (
                number is not None and not study.settings.model
            )
            continue
        parts.append(
            _styled(
                table, f"{f'Table {number}: ' if number else ''}{condition_label(*pair)}, {protocol} protocol"
            )
        )
    if not parts:
        return HTML(MISSING)
    note = (
        f'<p class="missing">Not computed in this run: {escape("; ".join(missing))}.</p>' if missing else ""
    )
    return HTML(COLOUR_KEY + "".join(parts) + note)


def every_method(study) -> HTML:
    """All methods of a run that has more than the study's own, scored and heard."""
    every = read_table(study.results, "methods")
    if every is None or set(every["method"]) <= set(STUDY_METHODS):
        return HTML('<p class="missing">This run explains by the study\'s own four methods alone.</p>')
    parts = []
    for condition in study.conditions:
        table = scored_and_heard(every, condition.pair, "audited")
        if len(table):
            parts.append(_styled(table, f"{condition.title}, audited protocol, all methods"))
    return HTML(COLOUR_KEY + "".join(parts) if parts else MISSING)


def _styled(table: pd.DataFrame, words: str) -> str:
    """A table of methods in the study's colours, with its heading."""
    table = table.assign(method=table["method"].map(method_label)).rename(columns=HEADINGS)
    text = style_table(table).to_html()
    return (
        f'<h4>{escape(words)}</h4><div class="scroll methods" tabindex="0" role="region" '
        f'aria-label="{escape(words)}">'
        f"{text}</div>"
    )


def gallery_words(study) -> Markdown:
    """Where one can listen, as far as the gallery is there."""
    folder = Path(study.results) / "report" / "gallery"
    if not (folder / "index.html").is_file():
        return Markdown("*Not computed in this run.*")
    words = "[The listening gallery](gallery/index.html) plays what each explanation keeps and removes."
    if (folder / "listening.html").is_file():
        words += (
            " [The listening test](gallery/listening.html) plays the kept sounds blind; take it before "
            "you look at "
            "the gallery."
        )
    return Markdown(words)

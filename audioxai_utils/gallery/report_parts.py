"""What the report's notebook shows: tables and figures of a run, each as something a cell can display.

Everything is read from what the run has written; what is not there is said not to be computed. Names that
come from a user's files are text here, whatever stands in them.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from IPython.display import HTML, Image, Markdown

from ..audit import trust
from ..audit.sentences import SENTENCES, accuracy_sentence, noise_sentence, read_table
from ..constants import STUDY_CONDITIONS, STUDY_METHODS, TABLE_NUMBERS
from ..evaluation.overview import scored_and_heard
from ..evaluation.table_styles import BLUE, GREEN, ORANGE, YELLOW, style_table
from ..evaluation.tables import table_name
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

ONE_PROTOCOL = '<p class="missing">This run has the {} protocol alone.</p>'
NOT_HERE = "not computed in this run."
UNKNOWN = "not known: no clip has a class that the classifier knows."
TRUST_HEADINGS = {
    "gradient": "error of the gradient",
    "adds_up": "error of the sum",
    "learnt": "likeness without learning",
    "repeats": "agreement of seeds",
    "beats_random": "masks beating random bins",
    "beats_loudest": "masks beating the loudest",
    "heard": "class kept by ear",
}
HEADINGS = {"not_better_than": "not better than", "degenerate": "constant", "COMP_rel": "COMP / ln d"}


def answer(study) -> HTML:
    """The answer in five sentences with the run's numbers, each after its question."""
    items, absent = [], _absent(study)
    for question, sentence in SENTENCES:
        text = sentence(study.results)
        words = escape(text) if text else f'<span class="missing">{absent.get(sentence, NOT_HERE)}</span>'
        items.append(f"<li><strong>{escape(question)}</strong> {words}</li>")
    return HTML(f"<ol class='answer'>{''.join(items)}</ol>")


def _absent(study) -> dict:
    """Why a sentence of the answer cannot be there, other than that it was not computed."""
    words = {}
    if _unlabelled(study):
        words[accuracy_sentence] = UNKNOWN
    if all(condition.noise_scenario == "clean" for condition in study.conditions):
        words[noise_sentence] = "this run has no noise."
    return words


def _unlabelled(study) -> bool:
    """Whether a model of the reader's own was asked about clips whose classes it does not know."""
    table = read_table(study.results, "table_I") if study.settings.model else None
    return table is not None and bool(table["test_acc"].isna().all())


def training(study, kind: str) -> Image | HTML:
    """How the classifier of a spectrogram type was trained, or that the reader's own was not."""
    if study.settings.model:
        return HTML("<p>This classifier is the reader's own. It came as it is, and nothing was trained.</p>")
    return figure(study, f"training_{kind}", words="Loss and accuracy of training and validation by epoch")


def confusion(study, kind: str) -> Image | HTML:
    """What the classifier of a spectrogram type confuses, as far as that is known."""
    if _unlabelled(study):
        return HTML(f"<p>What it confuses is {UNKNOWN}</p>")
    return figure(study, f"confusion_{kind}", words="Confusion matrix on the clean test fold")


def figure(study, name: str, condition=None, words: str = "") -> Image | HTML:
    """A figure of the run, ``figures/<name>[_<condition>].png``; ``words`` stand for it where it cannot be
    seen.
    """
    path = study.path("figures", name, condition).with_suffix(".png")
    return Image(filename=str(path), retina=True, alt=words) if path.is_file() else HTML(MISSING)


def front(study, protocol: str, words: str = "") -> Image | HTML:
    """Faithfulness against conciseness under a protocol, in the main condition, where the run has it."""
    if protocol not in study.settings.protocols:
        return HTML(ONE_PROTOCOL.format(study.settings.protocol))
    return figure(study, f"front_{protocol}_{table_name(study.main_condition.pair)}", words=words)


def intervals(study, words: str = "") -> Image | HTML:
    """The means of each method with their intervals: of both protocols in one figure, or of the run's own."""
    own = study.settings.protocol
    return figure(study, "intervals" if own == "both" else f"intervals_{own}", words=words)


def of_the_audit(study, name: str, words: str = "") -> Image | HTML:
    """A figure of the audit, which compares both protocols."""
    if study.settings.protocol != "both":
        return HTML(ONE_PROTOCOL.format(study.settings.protocol))
    return figure(study, name, words=words)


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
        one = study.settings.protocol != "both"
        return HTML(ONE_PROTOCOL.format(study.settings.protocol) if one else MISSING)
    names = {"number": "no.", "paper": "paper protocol", "audited": "audited protocol"}
    return HTML(table_html(table.rename(columns=names), "What the audit found"))


def planted(study) -> Markdown | HTML:
    """What planted causes say of methods and metrics, the lines that notebook 12 found."""
    table = read_table(study.results, "planted_found")
    return HTML(MISSING) if table is None else Markdown("\n".join(table["found"]))


def trusted(study) -> HTML:
    """Which methods can be trusted for this classifier: the checks of `audit.trust`, in words and numbers."""
    try:
        table = trust.trust(study)
    except FileNotFoundError:
        return HTML(MISSING)
    study.save("trust", table)
    verdict = [_verdict(row) for row in table.itertuples()]
    shown = table.assign(method=table["method"].map(method_label)).drop(columns=["doubts", "refused"])
    shown.insert(1, "verdict", verdict)
    return HTML(
        table_html(shown.rename(columns=TRUST_HEADINGS).map(_two_digits), "Which methods can be trusted")
    )


def _verdict(row) -> str:
    """What a row of `audit.trust` comes to."""
    if row.refused:
        return f"cannot be used: {row.refused}"
    if row.doubts:
        return f"in doubt: {row.doubts}"
    checked = any(getattr(row, check) == getattr(row, check) for check in trust.CHECKS)  # NaN is not itself
    return "passed every check that was made" if checked else "not checked"


def _two_digits(value):
    """A number with two digits that count, as text; anything else as it is."""
    return f"{value:.2g}" if isinstance(value, float) and value == value else value


def accuracies(study) -> HTML:
    """Table I: accuracy (per cent) of this run's classifiers and the epoch that was kept, beside the
    published ones; of a reader's own, which is another network, its accuracy on the clips of this run alone.
    """
    ours = read_table(study.results, "table_I")
    if ours is None:
        return HTML(MISSING)
    if _unlabelled(study):
        return HTML(f"<p>How often this classifier is right is {UNKNOWN}</p>")
    if study.settings.model:
        shown = ours[["spectrogram_type", "test_acc"]].set_axis(["spectrogram", "test"], axis=1)
        return HTML(table_html(shown, "Table I", digits=1))
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
    if protocol not in study.settings.protocols:
        return HTML(ONE_PROTOCOL.format(study.settings.protocol))
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
        return HTML(
            '<p class="missing">This run explains by no other methods than the study\'s own four.</p>'
        )
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

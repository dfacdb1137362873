"""Tables II-VI in the study's colours, as HTML and as LaTeX.

Every coloured cell sets its own dark text on a pale ground, so it reads the same on a light and on a
dark page; the best figure is bold and the worst in italics, so that nothing depends on colour alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..constants import CONCISENESS_METRICS, LOWER_IS_BETTER, STUDY_METRICS
from ..words import SPECTROGRAM_LABELS, column_label, combination_label, method_label, scenario_label

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

GREEN, ORANGE, BLUE, YELLOW = "#b7e1b0", "#fbc99b", "#aed4f5", "#f6e58d"
TEXT = "#111111"
NO_BREAK = "\N{NO-BREAK SPACE}"
COMPARED = ("this run", "published")  # but not rows "published, our mask", which are for reading
LAYOUT = [
    {"selector": "", "props": "margin: 0.3em 0 1em"},
    {"selector": "th, td", "props": "padding: 0.2em 0.6em; text-align: left; vertical-align: top"},
    {"selector": "th", "props": "white-space: nowrap"},
    {"selector": "td", "props": "font-variant-numeric: tabular-nums"},
    {"selector": "caption", "props": "text-align: left; padding: 0.4em 0.6em; white-space: nowrap"},
]
WORDS = {  # how the names in these columns are printed
    "method": method_label,
    "best": combination_label,
    "second": combination_label,
    "noise_scenario": scenario_label,
    "spectrogram_type": lambda name: SPECTROGRAM_LABELS.get(name, name),
}
DIGITS = {
    "AI": 2,
    "AG": 2,
    "AD": 2,
    "degenerate": 2,
    "seconds": 2,
} | dict.fromkeys(  # decimals; 3 where none are said
    ("train_acc", "val_acc", "test_acc"), 1
)


def metric_of(column: str) -> str | None:
    """The metric that a column shows (``FF_heard`` is FF), None for any other column."""
    name = column.removesuffix("_heard")
    return name if name in STUDY_METRICS else None


def best_and_worst(values: pd.Series, lower_is_better: bool) -> tuple[pd.Series, pd.Series]:
    """Boolean marks of the best and the worst values; ties share a mark, NaN has none.

    Where all values are equal, nothing is marked.
    """
    low, high = values.min(), values.max()
    if not low < high:  # equal, or nothing but NaN
        nothing = pd.Series(False, index=values.index)
        return nothing, nothing
    best, worst = (low, high) if lower_is_better else (high, low)
    return values == best, values == worst


def _colours(values: pd.Series, groups: pd.Series) -> pd.Series:
    """CSS of one metric's cells; rows of different groups are not compared with each other, "" with none."""
    css = pd.Series("", index=values.index)
    for group, part in values.groupby(groups):
        if group:
            css[part.index] = _group_colours(part)
    return css


def _groups(frame: pd.DataFrame, compared: Sequence[str]) -> pd.Series:
    """Which rows are compared with each other, as words; "" for rows that are only for reading."""
    if compared:
        return frame[list(compared)].astype(str).agg(" ".join, axis=1)
    if "source" not in frame:
        return pd.Series("all", index=frame.index)
    return frame["source"].where(frame["source"].isin(COMPARED), "")


def _group_colours(values: pd.Series) -> np.ndarray:
    metric = metric_of(values.name)
    good, bad = (BLUE, YELLOW) if metric in CONCISENESS_METRICS else (GREEN, ORANGE)
    best, worst = best_and_worst(values, metric in LOWER_IS_BETTER)
    bold = f"background-color: {good}; color: {TEXT}; font-weight: bold"
    italic = f"background-color: {bad}; color: {TEXT}; font-style: italic"
    return np.select([best, worst], [bold, italic], default="")


def _with_intervals(frame: pd.DataFrame, space: str) -> dict[str, dict[int, str]]:
    """Text of cells with an interval: ``0.712 [0.650, 0.771]``; a narrow cell breaks before the bracket."""
    texts: dict[str, dict[int, str]] = {}
    for column in frame.columns:
        low, high = f"{column}_low", f"{column}_high"
        if low in frame and high in frame:
            digits = DIGITS.get(metric_of(column) or column, 3)
            texts[column] = {
                row: f"{value:z.{digits}f} [{a:z.{digits}f},{space}{b:z.{digits}f}]"
                for row, value, a, b in zip(frame.index, frame[column], frame[low], frame[high])
                if not pd.isna(value)
            }
    return texts


def _format(column: str) -> str:
    """How a column's numbers are written; errors span orders of magnitude."""
    if column.endswith("error"):
        return "{:.1e}"
    digits = 1 if column.endswith(("(%)", "(s)")) else DIGITS.get(metric_of(column) or column, 3)
    return f"{{:z.{digits}f}}"  # no -0.000


def _heading(column: str, latex: bool) -> str:
    metric = metric_of(column)
    name = column_label(column)
    name = name.replace("_", r"\_").replace("%", r"\%") if latex else name
    if metric is None:
        return name
    up, down = (r" $\uparrow$", r" $\downarrow$") if latex else (" ↑", " ↓")
    return name + (down if metric in LOWER_IS_BETTER else up)


def style_table(
    frame: pd.DataFrame, caption: str | None = None, latex: bool = False, compared: Sequence[str] = ()
) -> Styler:
    """Colour a table of methods: per metric the best and the worst row.

    Green and orange for the faithfulness metrics, blue and yellow for SPS and COMP; arrows in the
    heading say which way is better. Bounds (``<metric>_low``, ``<metric>_high``) are shown in the
    metric's own cell. Missing values read "n/a". In a frame from ``tables.beside_published`` each
    source is coloured by itself.

    Parameters
    ----------
    frame : DataFrame
        From ``tables.study_table`` or of the same columns; its index is not shown.
    caption : str, optional
    latex : bool
        Escape text for LaTeX; call ``.to_latex(convert_css=True)``, or use `latex_table`.
    compared : sequence of str
        Columns whose rows of equal values are compared with each other; by default those of a source, else
        all.

    Returns
    -------
    pandas Styler
        The same frame always gives the same HTML.
    """
    frame = frame.reset_index(drop=True)
    texts = _with_intervals(frame, space=" " if latex else NO_BREAK)
    styler = frame.style.hide(axis="index")
    bounds = [column + side for column in texts for side in ("_low", "_high")]
    styler = styler.hide(axis="columns", subset=bounds)
    styler = styler.set_uuid(f"{zlib.crc32(frame.to_csv().encode()):08x}")
    formats = {column: _format(column) for column in frame.select_dtypes("floating").columns}
    formats |= {column: words for column, words in WORDS.items() if column in frame}
    styler = styler.format(formats, na_rep="n/a", escape="latex" if latex else "html")
    for column, cells in texts.items():
        for row, text in cells.items():
            styler = styler.format(lambda value, text=text: text, subset=([row], [column]))
    groups = _groups(frame, compared)
    for column in (column for column in frame.columns if metric_of(column)):
        styler = styler.apply(_colours, groups=groups, subset=[column], axis=0)
    styler = styler if latex else styler.set_table_styles(LAYOUT)
    styler = styler.format_index(lambda column: _heading(column, latex), axis="columns")
    return styler.set_caption(caption) if caption else styler


def latex_table(frame: pd.DataFrame, caption: str | None = None, label: str | None = None) -> str:
    r"""LaTeX source of the coloured table.

    It needs the packages ``booktabs`` and ``xcolor`` with the option ``table``.
    """
    styler = style_table(frame, latex=True)
    visible = [c for c in frame.columns if not c.endswith(("_low", "_high"))]
    columns = "".join("r" if pd.api.types.is_numeric_dtype(frame[column]) else "l" for column in visible)
    return styler.to_latex(
        convert_css=True,
        hrules=True,
        column_format=columns,
        caption=caption,
        label=label,
        position_float="centering",
    )

"""``meta/esc50.csv``: its rows read as the text that stands there, and one name for every clip.

Nothing is guessed: a category ``007`` or ``NA`` stays that, and a row that says too little is one line in a
list of faults.
"""

from __future__ import annotations

import csv
import posixpath
import re
import unicodedata
from collections import Counter
from pathlib import Path, PurePosixPath

import pandas as pd

from .audio_files import shown

COLUMNS = ("filename", "fold", "target", "category")
WHOLE_NUMBER = re.compile(r"\s*[+-]?\d{1,9}\s*")

Faults = list[tuple[str, str]]  # (name, what is wrong with it)


def read_listing(root: Path) -> tuple[pd.DataFrame, Faults]:
    """The rows that can be used, and what is wrong with each of the others.

    Returns
    -------
    table : pandas.DataFrame
        Every column of the csv as text but ``fold`` and ``target`` (whole numbers), in file order.
    faults : list of (str, str)
        Name and message of the rows that are left out.

    Raises
    ------
    FileNotFoundError
        No such folder, or no csv in it.
    ValueError
        Not a csv, a column is missing, a fold or target is no whole number, or a clip is listed twice.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"data_root {root}: no such folder (it needs meta/esc50.csv and audio/)")
    path = root / "meta" / "esc50.csv"
    if not path.is_file():
        raise FileNotFoundError(f"data_root {root}: it has no meta/esc50.csv")
    header, rows = _rows(path)
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise ValueError(f"{path}: lacks the column {', '.join(missing)}; it needs {', '.join(COLUMNS)}")
    kept, faults = [], []
    for line, row in rows:
        fault = _fault_of_row(dict(zip(header, row, strict=False)) if len(row) == len(header) else None, root)
        if fault:
            faults.append((f"line {line}", f"{path}, line {line}: {fault}"))
        else:
            kept.append(row)
    table = pd.DataFrame(kept, columns=header, dtype=object)
    for column in ("fold", "target"):
        table[column] = _whole_numbers(table[column], path)
    names = Counter(posixpath.normpath(name) for name in table["filename"])
    if names and names.most_common(1)[0][1] > 1:
        raise ValueError(f"{path}: lists {shown(names.most_common(1)[0][0])} more than once")
    return table, faults


def clip_names(filenames: list[str]) -> list[str]:
    """A name for every clip, under which its results are kept.

    It is the file's stem, with its folder where two share that. No two names differ by capitals alone, or by
    how an accent is written: file systems may take them for one.

    Raises
    ------
    ValueError
        Two files that no folder and no suffix tells apart; names both.
    """
    paths = [PurePosixPath(posixpath.normpath(name)) for name in filenames]
    forms = (
        lambda path: path.stem,
        lambda path: "-".join(path.with_suffix("").parts),
        lambda path: "-".join(path.parts),
    )
    names = [forms[0](path) for path in paths]
    for form in forms[1:]:
        shared = _shared(names)
        names = [
            form(path) if _plain(name) in shared else name for name, path in zip(names, paths, strict=True)
        ]
    for plain in sorted(_shared(names)):
        one, other, *_ = (path for name, path in zip(names, paths, strict=True) if _plain(name) == plain)
        raise ValueError(
            f"meta/esc50.csv: {shown(one)} and {shown(other)} would share their results; rename one of them"
        )
    return names


def _rows(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Names of the columns, and (line, fields) of every row that is not empty."""
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip() for name in next(reader, [])]
            rows = [(reader.line_num, row) for row in reader if row]
    except (csv.Error, OSError) as error:
        raise ValueError(f"{path}: not a readable csv ({error})") from error
    if not all(name.isprintable() for name in header):
        raise ValueError(f"{path}: not a readable csv (its first line is not UTF-8 text)")
    twice = [name for name, count in Counter(header).items() if count > 1 and name in COLUMNS]
    if twice:
        raise ValueError(f"{path}: has the column {twice[0]} more than once")
    return header, rows


def _fault_of_row(row: dict[str, str] | None, root: Path) -> str | None:
    """What is wrong with a row's names, in one line; None for a good one."""
    if row is None:
        return "its number of fields is not the header's"
    for column in ("filename", "category"):
        value = row[column]
        if not value.strip():
            return f"its {column} is empty"
        if "\0" in value:
            return f"its {column} holds a NUL ({shown(value)})"
        if any("\ud800" <= sign <= "\udfff" for sign in value):
            return f"its {column} is not UTF-8 ({shown(value)})"
    name = posixpath.normpath(row["filename"])
    if name.startswith(("/", "../")) or name in ("..", "."):
        return f"its file lies outside {root / 'audio'} ({shown(name)})"
    return None


def _whole_numbers(column: pd.Series, path: Path) -> pd.Series:
    for value in column:
        if not WHOLE_NUMBER.fullmatch(value):
            raise ValueError(
                f"{path}: column {column.name} must hold whole numbers in every row; got {shown(value)!r}"
            )
    return column.map(int).astype("int64")


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _shared(names: list[str]) -> set[str]:
    return {plain for plain, count in Counter(map(_plain, names)).items() if count > 1}

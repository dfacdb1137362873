"""Files of a study: they appear whole or not at all, and always under the same names."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it over ``path`` when the block ends well.

    Raises
    ------
    OSError
        Of the system's kind (PermissionError ...), in one line, where nothing can be written beside ``path``.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    except OSError as error:
        reason = f"{error.strerror or error}; choose another results folder"
        raise type(error)(f"{path}: cannot be written ({reason})") from error
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_table(frame: pd.DataFrame, stem: str | Path, index: bool = False, digits: int = 4) -> None:
    """Write ``stem``.csv (full precision) and ``stem``.tex (``digits`` decimals)."""
    stem = Path(stem)
    with atomic_path(stem.with_name(stem.name + ".csv")) as path:
        frame.to_csv(path, index=index)
    with atomic_path(stem.with_name(stem.name + ".tex")) as path:
        path.write_text(frame.to_latex(index=index, float_format=f"%.{digits}f", escape=True), encoding="utf-8")


def save_parquet(frame: pd.DataFrame, path: str | Path) -> None:
    """Write a tidy frame as Parquet."""
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary, index=False)

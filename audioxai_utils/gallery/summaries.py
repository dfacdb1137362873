"""What a notebook has found: its last cell (``summary``) shows it, one under its title (``found``) too."""

from __future__ import annotations

FOUND, SUMMARY = "found", "summary"


def lift_summary(notebook) -> None:
    """Put what the summary of an executed notebook shows under its title; what stood there goes."""
    if found := shown_by_summary(notebook):
        put_under_title(notebook, found)


def shown_by_summary(notebook) -> list:
    """A cell tagged ``found`` with the Markdown that the cell tagged ``summary`` shows; empty without any."""
    from nbformat.v4 import new_markdown_cell

    outputs = [output for cell in tagged(notebook, SUMMARY) for output in cell.get("outputs", [])]
    texts = [output.get("data", {}).get("text/markdown", "") for output in outputs]
    text = "\n\n".join(filter(None, texts)).strip()
    return [new_markdown_cell(text, metadata={"tags": [FOUND]})] if text else []


def put_under_title(notebook, found: list) -> None:
    """Make ``found`` the cells under the first Markdown cell, in place of those that are tagged so."""
    old = tagged(notebook, FOUND)
    rest = [cell for cell in notebook.cells if cell not in old]
    first = next((i for i, cell in enumerate(rest) if cell.cell_type == "markdown"), -1) + 1
    notebook.cells = [*rest[:first], *found, *rest[first:]]


def tagged(notebook, tag: str) -> list:
    """The cells with a tag."""
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]

"""Executed notebooks as pages of the report: nbconvert with the project's own template, nothing from a
network.

What was found comes first; parameters, imports and progress are folded away; pictures and sounds lie beside
the page as files, formulas become MathML, and controls that need a kernel are replaced by their static view.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import html
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from ..figures.style import TEMPLATES
from ..words import METHOD_LABELS, condition_label, method_label
from .summaries import FOUND, put_under_title, shown_by_summary, tagged

WIDGET = "application/vnd.jupyter.widget-view+json"
WIDGET_NOTE = (
    "<p class='missing'>Here the notebook has a control that needs a running kernel: open it in JupyterLab "
    "to use it.</p>"
)
FORMULA = re.compile(
    r"\$\$(?P<block>.+?)\$\$|(?<![\w$])\$(?P<inline>[^$\s<](?:[^$<]*[^$\s<])?)\$(?!\w)", re.S
)
KEPT_AS_IS = re.compile(r"(<(?:pre|code)\b.*?</(?:pre|code)>)", re.S)
INLINE_SOUND = re.compile(r'src="data:audio/(?P<kind>[\w.+-]+);base64,(?P<data>[A-Za-z0-9+/=\s]+)"')
PROGRESS = re.compile(r"^[^\n]*:\s+\d+/\d+\s*$|\d+%\|.*\|")  # Study.progress and tqdm
SETUP_TAGS = {"parameters", "injected-parameters", "imports"}
MARKDOWN_TABLE = re.compile(r"(?<=\n)(<table>.*?</table>)", re.S)  # mistune's; those of cells have attributes
NOTEBOOK_LINK = re.compile(r'href="(?P<path>[^":?#]*?)(?P<stem>[^"/:?#]+)\.ipynb(?P<rest>#[^"]*)?"')


def mathml(text: str) -> str:
    """HTML with ``$...$`` and ``$$...$$`` outside code replaced by MathML, which browsers draw themselves.

    A formula that latex2mathml cannot read stays as it was typed.
    """
    parts = KEPT_AS_IS.split(text)
    return "".join(part if KEPT_AS_IS.fullmatch(part) else FORMULA.sub(_formula, part) for part in parts)


def _formula(found: re.Match) -> str:
    from latex2mathml.converter import convert

    source = html.unescape(found["block"] or found["inline"])
    try:
        if found["block"]:  # may be wider than a small screen: reachable by keys, so that it can be scrolled
            return convert(source.strip(), display="block").replace("<math ", '<math tabindex="0" ', 1)
        return convert(source.strip())
    except Exception as error:  # the converter's own kinds of error; the reader still gets the formula
        return f"<code title='{html.escape(type(error).__name__)}'>{html.escape(source)}</code>"


def _static_outputs(notebook) -> None:
    """Replace outputs that need scripts: widgets by their static view, scripts by nothing."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            data.pop("application/javascript", None)
            if WIDGET in data:
                del data[WIDGET]
                if not {"text/html", "image/png", "text/markdown"} & set(data):
                    data["text/html"] = WIDGET_NOTE


def fold_progress(notebook, resources):
    """Take progress lines out of stderr, so that warnings alone look like warnings; a page folds them away.

    An nbconvert preprocessor: takes and returns (notebook, resources). A cell's progress becomes one output,
    which has ``progress`` (number of lines) and stands where its first line stood; empty lines go with the
    lines before them.
    """
    for cell in notebook.cells:
        outputs, folded = [], None
        for output in cell.get("outputs", []):
            if output.get("output_type") != "stream" or output.get("name") != "stderr":
                outputs.append(output)
                continue
            progress = True
            for line in output.text.splitlines(keepends=True):
                progress = bool(PROGRESS.search(line)) if line.strip() else progress
                if progress and folded is None:
                    folded = type(output)(output_type="stream", name="stdout", text="", progress=0)
                    outputs.append(folded)
                if progress:
                    folded.text += line
                    folded.progress += bool(line.strip())
                elif outputs and outputs[-1].get("name") == "stderr":
                    outputs[-1].text += line
                else:
                    outputs.append(type(output)(output_type="stream", name="stderr", text=line))
        if "outputs" in cell:
            cell.outputs = outputs
    return notebook, resources


def found_first(notebook):
    """Put what was found under the title: the cell tagged ``found``, else what the cell tagged ``summary``
    displayed.
    """
    put_under_title(notebook, tagged(notebook, FOUND) or shown_by_summary(notebook))
    if tagged(notebook, "injected-parameters"):  # defaults say nothing beside what was given
        defaults = tagged(notebook, "parameters")
        notebook.cells = [cell for cell in notebook.cells if cell not in defaults]
    return notebook


def setup_words(cell) -> str:
    """What a code cell is that no reader needs at first sight ("Parameters", "Imports"); "" for any other."""
    tags = set(cell.metadata.get("tags", []))
    if tags & SETUP_TAGS:
        return "Imports" if "imports" in tags else "Parameters"
    try:
        statements = ast.parse(cell.source).body
    except SyntaxError:  # a magic, or a cell that failed
        return ""
    return (
        "Imports"
        if statements and all(isinstance(node, (ast.Import, ast.ImportFrom)) for node in statements)
        else ""
    )


def _alt_text(output) -> str:
    """Words for a picture: the output's own ``alt`` if it has one."""
    about = output.get("metadata", {})
    return about.get("alt") or about.get("image/png", {}).get("alt") or "Figure drawn by the cell above"


def _width(output) -> str:
    """A picture's width in CSS pixels, where the output has one."""
    about = output.get("metadata", {})
    return str(about.get("width") or about.get("image/png", {}).get("width") or "")


def _exporter():
    """nbconvert's HTML exporter with the project's template and no addresses to load from."""
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor, ExtractOutputPreprocessor

    exporter = HTMLExporter(
        template_name="notebook",
        extra_template_basedirs=[str(TEMPLATES)],
        mathjax_url="",
        require_js_url="",
        jquery_url="",
        mermaid_js_url="",
        exclude_anchor_links=True,
    )
    exporter.register_preprocessor(CoalesceStreamsPreprocessor(), enabled=True)
    exporter.register_preprocessor(fold_progress, enabled=True)
    exporter.register_preprocessor(
        ExtractOutputPreprocessor(extract_output_types={"image/png", "image/jpeg"}), enabled=True
    )
    return exporter


def notebook_title(notebook, stem: str) -> str:
    """The notebook's first heading; for a notebook that runs several times, with the part that differs."""
    heading = next(
        (
            line.lstrip("# ").strip()
            for cell in notebook.cells
            if cell.cell_type == "markdown"
            for line in cell.source.splitlines()
            if line.startswith("# ")
        ),
        stem,
    )
    part = part_words(stem)
    return f"{heading} ({part})" if part else heading


def part_words(stem: str) -> str:
    """What differs in a notebook that runs several times, in words: ``mel, white noise`` of
    ``03_x-mel_db-white``.
    """
    values = stem.split("-", 2)[1:]
    if not values:
        return ""
    if len(values) == 1:
        return condition_label(values[0], "").rstrip(", ")
    scenario, _, method = (
        values[1].rpartition("-") if values[1].rpartition("-")[2] in METHOD_LABELS else (values[1], "", "")
    )
    return condition_label(values[0], scenario) + (f", {method_label(method)}" if method else "")


def sounds_to_files(text: str, folder: Path, address: str) -> str:
    """Move sounds embedded in HTML to files in ``folder``, which the page knows as ``address``."""

    def move(found: re.Match) -> str:
        data = base64.b64decode(found["data"])
        suffix = found["kind"].replace("x-", "").replace("mpeg", "mp3")
        name = f"{hashlib.sha256(data).hexdigest()[:12]}.{suffix}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        return f'src="{address}/{name}" preload="none"'

    return INLINE_SOUND.sub(move, text)


def relink(text: str, pages: Mapping[str, str], in_folder: str = "", up: str = "../") -> str:
    """Turn links to notebooks into links to their pages; a notebook without a page loses its address.

    Parameters
    ----------
    text : str
        HTML.
    pages : mapping of stem to title
    in_folder, up : str
        Where the pages and the report's folder lie, seen from this page. Links into the gallery are written
        from the report's folder.
    """

    def turn(found: re.Match) -> str:
        stem = found["stem"]
        match = stem if stem in pages else next((page for page in pages if page.startswith(f"{stem}-")), None)
        return (
            f'href="{in_folder}{quote(match)}.html{found["rest"] or ""}"'
            if match
            else f'title="{stem}.ipynb"'
        )

    return NOTEBOOK_LINK.sub(turn, text.replace('href="gallery/', f'href="{up}gallery/'))


def figures_by_content(results: Path, report: Path) -> dict[str, str]:
    """Address of each of a report's figures, seen from its folder, by the SHA-256 of the run's own file."""
    paths = [results / "figures" / path.name for path in sorted(report.glob("figures/*.png"))]
    return {hashlib.sha256(path.read_bytes()).hexdigest(): f"figures/{quote(path.name)}" for path in paths}


def notebook_body(
    path: Path,
    folder: Path,
    pages: Mapping[str, str],
    drawn: Mapping[str, str] | None = None,
    is_index: bool = False,
) -> str:
    """HTML of an executed notebook's cells; writes its pictures and sounds below ``folder``.

    Parameters
    ----------
    path : Path
        The executed notebook.
    folder : Path
        Where the page will lie.
    pages : mapping of stem to title
        All notebooks that have a page.
    drawn : mapping, optional
        From `figures_by_content`: a picture that lies there already is shown from there.
    is_index : bool
        The page is the report's index: its code is left out, the others' pages are in ``notebooks/``.
    """
    import nbformat

    notebook = found_first(nbformat.read(path, as_version=4))
    _static_outputs(notebook)
    exporter, files = _exporter(), f"{path.stem}_files"
    markdown = exporter.environment.filters["markdown2html"]
    exporter.register_filter("markdown2html", _with_context(markdown))
    about = {
        "unique_key": path.stem,
        "output_files_dir": files,
        "alt_text": _alt_text,
        "picture_width": _width,
        "setup_words": setup_words,
        "show_code": not is_index,
    }
    body, resources = exporter.from_notebook_node(notebook, about)
    where = ("notebooks/", "") if is_index else ("", "../")
    for name, data in resources["outputs"].items():
        figure = (drawn or {}).get(hashlib.sha256(data).hexdigest())
        if figure and f'src="{name}"' in body:
            body = body.replace(f'src="{name}"', f'src="{where[1]}{figure}"')
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return relink(sounds_to_files(scrolling_tables(body), folder / files, files), pages, *where)


def scrolling_tables(text: str) -> str:
    """Tables of Markdown text in a frame of their own, which scrolls where the page is narrower than they
    are.
    """
    return MARKDOWN_TABLE.sub(r'<div class="scroll" tabindex="0">\1</div>', text)


def _with_context(markdown):
    """nbconvert's Markdown filter followed by `mathml`."""
    from jinja2 import pass_context

    @pass_context
    def convert(context, source):
        return mathml(markdown(context, source))

    return convert

"""The report: one offline folder with an index, the notebooks' pages, tables, figures and the gallery.

The index is the page of the notebook 00_report, with what belongs to the folder after it: links to the other
pages, the tables as files, and what the run was made with. `build` reads what a run has written and invents
nothing.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .. import constants
from ..figures.pictures import palette_png
from ..study.settings import FILE as SETTINGS
from ..study.settings import Settings
from .html import MISSING, escape, navigation, page, readable_size, whole_directory, write_stylesheet
from .notebook_pages import figures_by_content, notebook_body, notebook_title
from .speed import FOLDER as BENCHMARKS

TITLE = "What does the classifier hear?"
INDEX = "00_report"  # stem of the notebook that becomes the index
NO_INDEX = f'<h1>{TITLE}</h1><p class="missing">The report\'s notebook, {INDEX}, was not run.</p>'


def build(results_dir: str | Path, notebooks: Sequence[str] | None = None) -> Path:
    """Write ``results_dir/report``: it appears whole, or the old one stays.

    The folder ``report/gallery``, which the gallery's notebook writes, is taken over.

    Parameters
    ----------
    results_dir : path
        Folder of a run, with any of tables/, figures/, notebooks/, manifest.json.
    notebooks : sequence of str, optional
        Stems of the executed notebooks that are this run's; those of its conditions, if not given.

    Returns
    -------
    Path
        report/index.html.

    Raises
    ------
    FileNotFoundError
        ``results_dir`` does not exist.
    """
    results_dir = Path(results_dir).resolve()
    if not results_dir.is_dir():
        raise FileNotFoundError(f"results_dir must be a folder with results; {results_dir} does not exist")
    report, owns = results_dir / "report", owner(results_dir)
    executed = [
        path
        for path in sorted(results_dir.glob("notebooks/[!.]*.ipynb"))
        if (path.stem in notebooks if notebooks is not None else owns(path.stem.replace("-", "_")))
    ]
    with whole_directory(report) as folder:
        write_stylesheet(folder / "assets")
        if (report / "gallery").is_dir():
            shutil.copytree(report / "gallery", folder / "gallery", copy_function=_link_or_copy)
        _copy_results(results_dir, folder, owns)
        drawn = figures_by_content(results_dir, folder)
        titles = _write_notebooks([path for path in executed if path.stem != INDEX], folder, drawn)
        index = next((path for path in executed if path.stem == INDEX), None)
        (folder / "index.html").write_text(_index(index, folder, titles, drawn), encoding="utf-8")
    return report / "index.html"


def owner(results_dir: Path) -> Callable[[str], bool]:
    """Whether a table, figure or notebook of a name is of the run whose settings are in the folder.

    Another run may have left its own there. A name that ends in a spectrogram type, a condition (and
    method), or the number of a condition's table (``training_mel_db``, ``masks_mel_db_white_lime``,
    ``front_paper_V``) belongs to that; what names none of them is of the whole study. Without settings, all
    is.
    """
    if not (results_dir / SETTINGS).is_file():
        return lambda name: True
    settings = Settings.read(results_dir)
    pairs, methods = settings.conditions, settings.explained_by

    def owns(name: str) -> bool:
        if any(
            name.endswith(f"_{number}") and pair not in pairs
            for pair, number in constants.TABLE_NUMBERS.items()
        ):
            return False
        for kind in constants.SPECTROGRAM_TYPES:
            _, found, rest = f"_{name}_".partition(f"_{kind}_")
            if found and not _owns_rest(kind, rest.strip("_"), pairs, methods):
                return False
        return True

    return owns


def _owns_rest(kind: str, rest: str, pairs, methods) -> bool:
    """Whether ``rest``, what follows a spectrogram type in a name, is one of its conditions here, and a
    method of it.
    """
    scenarios = [scenario for own, scenario in pairs if own == kind]
    if not rest:
        return bool(scenarios)
    named = [scenario for scenario in scenarios if f"{rest}_".startswith(f"{scenario}_")]
    method = rest.removeprefix(max(named, key=len, default="")).strip("_")
    return bool(named) and (method not in constants.known_methods() or method in methods)


def _link_or_copy(source: str, target: str) -> str:
    """A second name for a file where the file system has them, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def _copy_results(results_dir: Path, folder: Path, owns: Callable[[str], bool]) -> None:
    """Tables and figures of this run, benchmarks and manifest: the report needs nothing of the run's
    folder, where each figure lies in all its colours and as a drawing (SVG).
    """
    from PIL import Image

    for path in results_dir.glob("figures/[!.]*.png"):
        if owns(path.stem):
            (folder / "figures").mkdir(exist_ok=True)
            target = folder / "figures" / path.name
            try:
                with Image.open(path) as drawing:
                    target.write_bytes(palette_png(drawing))
            except OSError:  # no picture, which a page shows as such
                shutil.copy2(path, target)
    tables = [
        path
        for path in results_dir.glob("tables/**/[!.]*")
        if path.suffix in (".csv", ".tex") and owns(path.stem)
    ]
    benchmarks = results_dir.glob(f"{BENCHMARKS}/[!.]*")
    for path in (*tables, *benchmarks, results_dir / "manifest.json"):
        if path.is_file():
            target = folder / path.relative_to(results_dir)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)


def _write_notebooks(notebooks: list[Path], folder: Path, drawn: Mapping[str, str]) -> dict[str, str]:
    """One page per executed notebook; returns the titles by stem."""
    import nbformat

    titles = {path.stem: notebook_title(nbformat.read(path, as_version=4), path.stem) for path in notebooks}
    stems = list(titles)
    (folder / "notebooks").mkdir(exist_ok=True)
    for number, path in enumerate(notebooks):
        links = [("../index.html", "Report")]
        if (folder / "gallery" / "index.html").is_file():
            links.append(("../gallery/index.html", "Gallery"))
        if number > 0:
            links.append((f"{stems[number - 1]}.html", f"Previous: {titles[stems[number - 1]]}"))
        if number + 1 < len(stems):
            links.append((f"{stems[number + 1]}.html", f"Next: {titles[stems[number + 1]]}"))
        body = notebook_body(path, folder / "notebooks", titles, drawn)
        text = page(titles[path.stem], body, assets="../assets", navigation=navigation(links))
        (folder / "notebooks" / f"{path.stem}.html").write_text(text, encoding="utf-8")
    return titles


# The index


def _index(notebook: Path | None, folder: Path, titles: dict[str, str], drawn: Mapping[str, str]) -> str:
    """index.html of the report: the notebook's page, and what belongs to the folder."""
    body = NO_INDEX if notebook is None else notebook_body(notebook, folder, titles, drawn, is_index=True)
    links = [("index.html", "Report"), ("#notebooks", "Notebooks"), ("#files", "Files"), ("#run", "This run")]
    if (folder / "gallery" / "listening.html").is_file():
        links.insert(1, ("gallery/listening.html", "Listening test"))
    if (folder / "gallery" / "index.html").is_file():
        links.insert(1, ("gallery/index.html", "Gallery"))
    parts = [
        f'<div class="report">{body}</div>',
        _notebooks_part(titles),
        _files_part(folder),
        _manifest_part(folder),
    ]
    return page(TITLE, "\n".join(parts), navigation=navigation(links, "index.html"))


def _notebooks_part(titles: dict[str, str]) -> str:
    heading = '<h2 id="notebooks">Notebooks, as they were run</h2>'
    if not titles:
        return heading + MISSING
    return heading + _list((f"notebooks/{stem}.html", title, "") for stem, title in titles.items())


def _list(links) -> str:
    """A list of (address, words, note)."""
    items = "".join(
        f'<li><a href="{escape(address)}">{escape(words)}</a>{escape(note)}</li>'
        for address, words, note in links
    )
    return f"<ul>{items}</ul>"


def _files_part(folder: Path) -> str:
    """Links to every table and figure as a file."""
    parts = ['<h2 id="files">Tables and figures as files</h2>']
    for name, suffix, words in (
        ("tables", "csv", "tables (CSV; LaTeX beside them)"),
        ("figures", "png", "figures (PNG; in all colours and as drawings in the run's own folder)"),
    ):
        files = sorted((folder / name).rglob(f"*.{suffix}"))
        if files:
            links = [
                (
                    path.relative_to(folder).as_posix(),
                    path.relative_to(folder / name).as_posix(),
                    f" ({readable_size(path.stat().st_size)})",
                )
                for path in files
            ]
            parts.append(f"<details><summary>{len(files)} {words}</summary>{_list(links)}</details>")
    return "".join(parts) if len(parts) > 1 else parts[0] + MISSING


def _manifest_part(folder: Path) -> str:
    """What the run was made with, from manifest.json."""
    heading = '<h2 id="run">This run</h2>'
    path = folder / "manifest.json"
    if not path.is_file():
        return f'{heading}<p class="missing">No manifest was written.</p>'
    manifest = json.loads(path.read_text(encoding="utf-8"))
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in _facts(manifest))
    steps = "".join(
        f"<tr><td>{escape(step)}</td><td>{record.get('seconds', float('nan')):.1f}</td></tr>"
        for step, record in manifest.get("steps", {}).items()
    )
    table = (
        "<details><summary>Seconds per step</summary><div class='scroll'><table class='words'><thead><tr>"
        f"<th>step</th><th>seconds</th></tr></thead><tbody>{steps}</tbody></table></div></details>"
    )
    return (
        f'{heading}<dl class="facts">{facts}</dl>{table if steps else ""}<p><a href="manifest.json">The '
        f"whole "
        "manifest</a> lists every version and fingerprint.</p>"
    )


def _facts(manifest: dict) -> list[tuple[str, str]]:
    """Names and values worth reading first; what the manifest lacks is left out."""
    settings, hardware = manifest.get("settings", {}), manifest.get("hardware", {})
    commit, versions = manifest.get("commit") or {}, manifest.get("versions", {})
    data = manifest.get("data", {}).get("dataset", {})
    memory, seconds = manifest.get("peak_memory_bytes"), manifest.get("seconds")
    found = [
        f"{name} {versions[name]}"
        for name in ("python", "torch", "captum", "shap", "lime")
        if name in versions
    ]
    candidates = {
        "written": manifest.get("written"),
        "profile": settings.get("profile"),
        "clips to explain": settings.get("n_clips") or None,  # else the profile's
        "dataset": settings.get("dataset"),
        "data": f"{data['files']} files, SHA-256 {data['sha256'][:16]}…" if "sha256" in data else None,
        "seed": manifest.get("seed"),
        "device": manifest.get("device") or "chosen by the run",
        "commit": commit["id"][:12] + " with local changes" * bool(commit.get("dirty"))
        if commit.get("id")
        else None,
        "processor": f"{hardware['processor']}, {hardware['cores']} cores"
        if "processor" in hardware
        else None,
        "time of all steps": f"{seconds / 60:.1f} min" if seconds else None,
        "largest step in memory": readable_size(memory) if memory else None,
        "versions": ", ".join(found) or None,
    }
    return [(name, str(value)) for name, value in candidates.items() if value not in (None, "")]

"""The report: one offline folder with an index, the notebooks' pages, tables, figures and the gallery.

`build` reads what a run has written and invents nothing: what is not there is said not to be computed.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from pathlib import Path

from ..constants import PROTOCOLS
from ..audit.sentences import SENTENCES, read_table
from ..run.graph import Study, study_of
from .notebook_pages import notebook_body, notebook_title
from .html import MISSING, escape, navigation, page, readable_size, whole_directory, write_stylesheet
from .report_tables import accuracies, best_masks_part, every_method_part
from .speed import FOLDER as BENCHMARKS, speed_part

TITLE = "What does the classifier hear?"
QUESTION = (
    "<p>A sound classifier says what it hears. Four methods (saliency, Grad-CAM, LIME and SHAP) say which parts of the "
    "spectrogram speak for its decision, fourteen rules turn each answer into a mask, and each mask splits the sound "
    "into a part that is kept and a part that is removed. Do the kept parts carry the decision, are they small, and "
    "does it stay so when the sound is noisy?</p>"
)
# Figures shown in the index, by the start of their file names, with captions that stand alone.
MAIN_FIGURES = (
    ("transform_scheme", "From a sound to an explanation that can be seen, heard and scored."),
    (
        "one_clip_all_methods",
        "What each method points at in one clip: one row per spectrogram type and noise. Red speaks for the "
        "predicted class and blue against it.",
    ),
    (
        "front_paper_III",
        "Faithful or concise (paper protocol, mel, clean): one point per method and mask. Up and right is better; "
        "published points are hollow.",
    ),
    ("front_audited_III", "Faithful or concise under the audited protocol (mel, clean)."),
    (
        "intervals",
        "Mean and 95 % bootstrap interval of each method at its best mask (mel, clean): hollow under the paper's "
        "protocol, filled under the audited one.",
    ),
    (
        "scored_against_heard",
        "What is scored against what is heard: one point per condition, method and mask. On the line both agree.",
    ),
    (
        "fill_sensitivity",
        "How scores move with what takes the place of the masked bins (each condition, audited protocol).",
    ),
    ("training_mel_db", "Loss and accuracy of the mel classifier in training; the kept epoch is marked."),
    ("confusion_mel_db", "What the mel classifier confuses on the clean test fold."),
    (
        "area_paper_mel_db_clean",
        "Share of the spectrogram that each mask keeps (mel, clean, paper protocol).",
    ),
    (
        "scores_paper_mel_db_clean",
        "Means of the seven metrics (mel, clean, paper protocol); frames mark the best.",
    ),
)


def build(results_dir: str | Path) -> Path:
    """Write ``results_dir/report``: it appears whole, or the old one stays.

    The folder ``report/gallery``, which the gallery's notebook writes, is taken over.

    Parameters
    ----------
    results_dir : path
        Folder of a run, with any of tables/, figures/, notebooks/, manifest.json.

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
    report = results_dir / "report"
    study = study_of(results_dir)
    notebooks = sorted(results_dir.glob("notebooks/[!.]*.ipynb"))
    if study is not None:  # another run may have left its own in the same folder
        notebooks = [path for path in notebooks if path.stem in study.steps()]
    with whole_directory(report) as folder:
        write_stylesheet(folder / "assets")
        if (report / "gallery").is_dir():
            shutil.copytree(report / "gallery", folder / "gallery", copy_function=_link_or_copy)
        titles = _write_notebooks(notebooks, folder)
        _copy_results(results_dir, folder, study)
        (folder / "index.html").write_text(_index(results_dir, folder, titles), encoding="utf-8")
    return report / "index.html"


def _link_or_copy(source: str, target: str) -> str:
    """A second name for a file where the file system has them, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target


def _copy_results(results_dir: Path, folder: Path, study: Study | None) -> None:
    """Tables and figures of this configuration, benchmarks and manifest: the report needs nothing of the run's folder.

    Vector files are large; only those of the main figures come along.
    """
    figures = [path for path in sorted(results_dir.glob("figures/[!.]*.png")) if not study or study.owns(path.stem)]
    vectors = [path.with_suffix(".svg") for path in main_figures(figures)]
    tables = [path for path in results_dir.glob("tables/**/[!.]*") if path.suffix in (".csv", ".tex")]
    tables = [path for path in tables if not study or study.owns(path.stem)]
    benchmarks = results_dir.glob(f"{BENCHMARKS}/[!.]*")
    for path in (*figures, *vectors, *tables, *benchmarks, results_dir / "manifest.json"):
        if path.is_file():
            target = folder / path.relative_to(results_dir)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)


def main_figures(available: list[Path]) -> dict[Path, str]:
    """The figures that the index shows, with their captions, as far as they are there."""
    main = {}
    for start, caption in MAIN_FIGURES:
        found = next((p for p in available if p.stem == start or p.stem.startswith(f"{start}_")), None)
        if found is not None:
            main.setdefault(found, caption)
    return main


def _write_notebooks(notebooks: list[Path], folder: Path) -> dict[str, str]:
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
        body = notebook_body(path, folder / "notebooks", titles)
        text = page(titles[path.stem], body, assets="../assets", navigation=navigation(links))
        (folder / "notebooks" / f"{path.stem}.html").write_text(text, encoding="utf-8")
    return titles


# The index


def _index(results_dir: Path, folder: Path, titles: dict[str, str]) -> str:
    """index.html of the report."""
    parts = [
        f"<h1>{TITLE}</h1>",
        QUESTION,
        _answer(results_dir),
        _findings_part(results_dir, titles),
        _gallery_part(folder),
        _figures_part(folder),
        accuracies(results_dir),
        *(best_masks_part(results_dir, protocol) for protocol in PROTOCOLS),
        every_method_part(results_dir),
        speed_part(folder),
        _notebooks_part(titles),
        _downloads(folder),
        _manifest_part(results_dir),
    ]
    links = [
        ("index.html", "Report"),
        ("#audit", "Audit"),
        ("#tables", "Tables"),
        ("#notebooks", "Notebooks"),
        ("#run", "This run"),
    ]
    if (folder / "gallery" / "index.html").is_file():
        links.insert(1, ("gallery/index.html", "Gallery"))
    if (folder / "gallery" / "listening.html").is_file():
        links.insert(2, ("gallery/listening.html", "Listening test"))
    return page(TITLE, "\n".join(parts), navigation=navigation(links, "index.html"))


def _answer(results_dir: Path) -> str:
    """Five sentences, each with its question."""
    items = []
    for question, sentence in SENTENCES:
        text = sentence(results_dir)
        words = escape(text) if text else '<span class="missing">not computed in this run.</span>'
        items.append(f"<li><strong>{escape(question)}</strong> {words}</li>")
    return (
        '<section class="answer" aria-labelledby="answer"><h2 id="answer">The answer</h2>'
        f"<ol>{''.join(items)}</ol></section>"
    )


def _findings_part(results_dir: Path, titles: dict[str, str]) -> str:
    """The audit in twelve rows, with a link to how each was measured."""
    heading = '<h2 id="audit">What the audit found</h2>'
    table = read_table(results_dir, "findings")
    if table is None:
        return heading + MISSING
    names = {"number": "no.", "paper": "paper protocol", "audited": "audited protocol"}
    text = table.rename(columns=names).to_html(index=False, border=0, na_rep="n/a", classes="words")
    link = '<p><a href="notebooks/07_audit.html">How each was tested.</a></p>' if "07_audit" in titles else ""
    return (
        f"{heading}<p>Twelve weaknesses of the published protocol, measured on this run beside the published figures.</p>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="What the audit found">{text}</div>{link}'
    )


def _gallery_part(folder: Path) -> str:
    if not (folder / "gallery" / "index.html").is_file():
        return f'<h2 id="gallery-link">Listen</h2>{MISSING}'
    test = (
        '<p><a href="gallery/listening.html">The listening test</a> plays the kept sounds blind and in random order, asks '
        "what is heard and how clear it is, and saves the answers as a file. Take it before you look at the gallery.</p>"
    )
    return (
        '<h2 id="gallery-link">Listen</h2><p><a href="gallery/index.html">The listening gallery</a> plays what each '
        "explanation keeps and removes, beside its pictures and scores.</p>"
        + test * (folder / "gallery" / "listening.html").is_file()
    )


def _png_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels from the header of a PNG file."""
    with open(path, "rb") as file:
        return struct.unpack(">II", file.read(24)[16:24])


def _figure(path: Path, caption: str) -> str:
    width, height = _png_size(path)
    vector = path.with_suffix(".svg")
    link = f' <a href="figures/{escape(vector.name)}">(vector file)</a>' if vector.is_file() else ""
    return (
        f'<figure class="sheet"><img src="figures/{escape(path.name)}" width="{width // 2}" height="{height // 2}" '
        f'alt="{escape(caption)}" loading="lazy"><figcaption>{escape(caption)}{link}</figcaption></figure>'
    )


def _figures_part(folder: Path) -> str:
    """The main figures, and links to all others."""
    available = sorted((folder / "figures").glob("*.png"))
    main = main_figures(available)
    if not available:
        return f"<h2>Figures</h2>{MISSING}"
    others = "".join(
        f'<li><a href="figures/{escape(path.name)}">{escape(path.stem.replace("_", " "))}</a></li>'
        for path in available
        if path not in main
    )
    more = f"<details><summary>All other figures</summary><ul>{others}</ul></details>" if others else ""
    return "<h2>Main figures</h2>" + "".join(_figure(path, caption) for path, caption in main.items()) + more


def _notebooks_part(titles: dict[str, str]) -> str:
    heading = '<h2 id="notebooks">Notebooks, as they were run</h2>'
    if not titles:
        return heading + MISSING
    items = "".join(
        f'<li><a href="notebooks/{escape(stem)}.html">{escape(title)}</a></li>'
        for stem, title in titles.items()
    )
    return f"{heading}<ul>{items}</ul>"


def _downloads(folder: Path) -> str:
    """Links to every table as a file."""
    files = sorted((folder / "tables").rglob("*.csv"))
    if not files:
        return ""
    items = []
    for path in files:
        name, size = path.relative_to(folder / "tables").as_posix(), readable_size(path.stat().st_size)
        items.append(f'<li><a href="tables/{escape(name)}">{escape(name)}</a> ({size})</li>')
    summary = f"<summary>{len(files)} tables (CSV; LaTeX beside them)</summary>"
    return f"<h2>Tables as files</h2><details>{summary}<ul>{''.join(items)}</ul></details>"


def _manifest_part(results_dir: Path) -> str:
    """What the run was made with, from manifest.json."""
    heading = '<h2 id="run">This run</h2>'
    path = results_dir / "manifest.json"
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
        f'{heading}<dl class="facts">{facts}</dl>{table if steps else ""}<p><a href="manifest.json">The whole '
        "manifest</a> lists every version and fingerprint.</p>"
    )


def _facts(manifest: dict) -> list[tuple[str, str]]:
    """Names and values worth reading first; what the manifest lacks is left out."""
    settings, hardware = manifest.get("settings", {}), manifest.get("hardware", {})
    commit, versions = manifest.get("commit") or {}, manifest.get("versions", {})
    data = manifest.get("data", {}).get("dataset", {})
    memory, seconds = manifest.get("peak_memory_bytes"), manifest.get("seconds")
    candidates = {
        "written": manifest.get("written"),
        "profile": settings.get("profile"),
        "clips to explain": settings.get("n_clips") or None,  # else the profile's
        "dataset": settings.get("dataset"),
        "data": f"{data['files']} files, SHA-256 {data['sha256'][:16]}…" if "sha256" in data else None,
        "seed": manifest.get("seed"),
        "device": manifest.get("device") or "chosen by the run",
        "commit": commit["id"][:12] + (" with local changes" if commit.get("dirty") else "")
        if commit.get("id")
        else None,
        "processor": f"{hardware['processor']}, {hardware['cores']} cores"
        if "processor" in hardware
        else None,
        "time of all steps": f"{seconds / 60:.1f} min" if seconds else None,
        "largest step in memory": readable_size(memory) if memory else None,
        "versions": ", ".join(
            f"{name} {versions[name]}"
            for name in ("python", "torch", "captum", "shap", "lime")
            if name in versions
        )
        or None,
    }
    return [(name, str(value)) for name, value in candidates.items() if value not in (None, "")]

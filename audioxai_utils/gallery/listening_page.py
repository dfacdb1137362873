"""The listening test: a page beside the gallery that plays its kept sounds blind and saves the answers as
CSV.

It plays the gallery's own files. What a sound is (class, method, mask) is in the page's data, for the
file that it saves, and is shown nowhere; files are named by their content.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..figures.style import template
from ..files import atomic_path
from ..words import method_label
from .entries import BEST_MASK
from .html import escape, navigation, page, script_data
from .listening import CLARITY, COLUMNS, ORIGINAL, SOMETHING_ELSE
from .listening_gallery import read_gallery
from .players import matched_cuts

PAGE = "listening.html"
DATA_NAME = "AUDIOXAI_LISTENING"
READER = "it belongs into the folder listening of the study's results, and notebook 06 reads it there"
LENGTHS = (12, 24, 48)  # sounds of one sitting that are offered; 24 take about six minutes


def trials_of(entries: Sequence[dict], every_mask: bool = False) -> list[dict]:
    """What can be played, from a gallery's records: the kept sound of each, and each whole sound once.

    Parameters
    ----------
    entries : sequence of dict
        Of `gallery.read_gallery`.
    every_mask : bool
        Take all masks; else each method's best one alone, where entries are marked so.

    Returns
    -------
    list of dict
        file, volume (0 to 1, so that all are equally loud), seconds, and the columns of the answers
        that are known beforehand. Silent sounds are left out; ``silent`` of each trial says of which
        methods, in words, as `silent_sounds` counts them.
    """
    sounds = _sounds(entries, every_mask)
    audible = [(sound, facts) for sound, facts in sounds if sound["file"]]
    if not audible:
        raise ValueError("the gallery must hold a sound that can be heard; all of its kept sounds are silent")
    cuts = matched_cuts({sound["file"]: sound["lufs"] for sound, _ in audible})
    silent = ", ".join(f"{method_label(name)} {n}" for name, n in silent_sounds(entries, every_mask).items())
    return [
        facts
        | {"silent": silent}
        | {name: sound[name] for name in ("file", "seconds")}
        | {"volume": round(10 ** (cuts[sound["file"]] / 20), 4)}
        for sound, facts in audible
    ]


def silent_sounds(entries: Sequence[dict], every_mask: bool = False) -> dict[str, int]:
    """How many kept sounds of each method are silent and not played, of the whole sounds under `ORIGINAL`;
    methods without any are left out. Parameters as of `trials_of`.
    """
    silent = (facts["method"] for sound, facts in _sounds(entries, every_mask) if not sound["file"])
    return dict(sorted(Counter(silent).items()))


def _sounds(entries: Sequence[dict], every_mask: bool) -> list[tuple[dict, dict]]:
    """The record of each sound that is chosen, silent ones too, and what is known of it."""
    chosen = [entry for entry in entries if BEST_MASK in entry["tags"] and not every_mask] or list(entries)
    trials, wholes = [], {}
    for entry in chosen:
        whole, kept = entry["sounds"][0], entry["sounds"][1]
        trials.append((kept, _facts(entry, kept, entry["method"], entry["mask"], entry["protocol"])))
        wholes[entry["clip"], entry["spectrogram"], entry["scenario"]] = (
            whole,
            _facts(entry, whole, ORIGINAL, "", ""),
        )
    return [*trials, *wholes.values()]


def _facts(entry: dict, sound: dict, method: str, mask: str, protocol: str) -> dict:
    """Columns of the answers that do not depend on the listener."""
    return {
        "sound": sound["file"].partition(".")[0],
        "clip": entry["clip"],
        "category": entry["category"],
        "predicted": entry["explained"],
        "predicted_part": sound["class"],
        "spectrogram_type": entry["spectrogram"],
        "noise_scenario": entry["scenario"],
        "method": method,
        "mask": mask,
        "protocol": protocol,
    }


def write_listening_test(
    directory: str | Path,
    classes: Sequence[str] = (),
    title: str = "Listening test",
    links: Sequence[tuple[str, str]] = (),
    every_mask: bool = False,
    reader: str = READER,
) -> dict:
    """Write the test into a gallery's folder.

    Parameters
    ----------
    directory : path
        A folder that `gallery.write_gallery` wrote; gets listening.html and its data and script.
    classes : sequence of str
        What can be answered, beside the classes that occur in the gallery.
    title : str
        Heading of the page.
    links : sequence of (address, words)
        Navigation, relative to ``directory``.
    every_mask : bool
        See `trials_of`.
    reader : str
        What becomes of the saved file, in words.

    Returns
    -------
    dict of ``sounds`` (how many can be played), ``choices`` and ``silent`` (`silent_sounds`)

    Raises
    ------
    FileNotFoundError, ValueError
        No gallery, nothing to hear, or a class that is called like the answer "something else".
    """
    entries = read_gallery(directory)["entries"]
    trials, silent = trials_of(entries, every_mask), silent_sounds(entries, every_mask)
    found = (trial[name] for trial in trials for name in ("category", "predicted", "predicted_part"))
    choices = sorted({*map(str, classes), *found} - {""})  # the class of a clip may not be known
    if SOMETHING_ELSE in choices:
        raise ValueError(f"no class may be called {SOMETHING_ELSE!r}, which is an answer of its own")
    digest = hashlib.sha256(json.dumps([trials, choices], sort_keys=True).encode()).hexdigest()[:12]
    data = {
        "test": digest,
        "trials": trials,
        "choices": choices,
        "silent": silent,
        "else": SOMETHING_ELSE,
        "clarity": CLARITY,
        "columns": COLUMNS,
        "lengths": [n for n in LENGTHS if n < len(trials)] + [len(trials)],
    }
    folder = Path(directory)
    body = template("listening.html").replace("<!--title-->", escape(title))
    body = body.replace("<!--reader-->", f": {escape(reader)}")
    scripts = '<script src="assets/listening-data.js"></script>\n<script src="assets/listening.js"></script>'
    files = {
        "assets/listening-data.js": script_data(DATA_NAME, data),
        "assets/listening.js": template("listening.js"),
        PAGE: page(title, body, navigation=navigation(links, PAGE), scripts=scripts),
    }
    for name, text in files.items():
        with atomic_path(folder / name) as path:
            path.write_text(text, encoding="utf-8")
    return {"sounds": len(trials), "choices": len(choices) + 1, "silent": silent}

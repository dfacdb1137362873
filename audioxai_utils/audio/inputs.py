"""What a run reads: where its dataset lies, which files its noises are, and whether they have changed.

This module imports the standard library alone, so that the command line can check its options
before anything is installed.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from pathlib import Path

from .. import constants

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".opus", ".aif", ".aiff")
NOISE_KEYWORDS = {"white": "white", "room": "room", "horse": "horse"}  # in the names of the recordings
ABSENT = "absent"  # state of what is not there yet


# Noise scenarios


def is_recording(noise_scenario: str) -> bool:
    """Whether a scenario is given as an audio file instead of by name."""
    return (
        noise_scenario not in constants.NOISE_SCENARIOS
        and Path(noise_scenario).suffix.lower() in AUDIO_SUFFIXES
    )


def scenario_name(noise_scenario: str) -> str:
    """Name of a scenario in tables and file names: an audio file's is its stem in [a-z0-9_]."""
    if not is_recording(noise_scenario):
        return noise_scenario
    plain = (
        unicodedata.normalize("NFKD", Path(noise_scenario).stem).encode("ascii", "ignore").decode().lower()
    )
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_")


def match_noise(noise_scenario: str, root: str | Path, argument: str = "noise_root") -> Path:
    """The one audio file of a folder with the scenario's name in its own; ``root`` may be the file itself.

    Raises
    ------
    FileNotFoundError
        If there is no such folder or file.
    ValueError
        If none or several match; names ``argument``.
    """
    root = Path(root)
    if root.is_file():
        return root
    if not root.is_dir():
        raise FileNotFoundError(f"{argument} {root}: no such folder or file")
    keyword = NOISE_KEYWORDS[noise_scenario]
    files = sorted(file for file in root.iterdir() if file.suffix.lower() in AUDIO_SUFFIXES)
    files = [file for file in files if file.is_file() and file.name[0] != "."]  # macOS leaves ._white.wav
    matches = [file for file in files if keyword in file.stem.lower()]
    if len(matches) != 1:
        found = ", ".join(file.name for file in matches) or "none"
        raise ValueError(
            f"{argument} {root}: expected one audio file with {keyword!r} in its name; found {found}"
        )
    return matches[0]


# The dataset


def dataset_folder(dataset: str, data_root: str | Path | None = None) -> Path:
    """Where a dataset lies, or will lie once it is made or downloaded.

    That is ``data_root``, else ``AUDIOXAI_DATA``, else ``data/<dataset>``; a downloaded ESC-10 is
    a part of ``data/esc50``.
    """
    if data_root:
        return Path(data_root).expanduser().resolve()
    folder = constants.default_data_root(dataset)
    if dataset == "esc10" and not os.environ.get("AUDIOXAI_DATA") and not folder.exists():
        return constants.default_data_root("esc50")
    return folder


# Has it changed?


def dataset_state(folder: str | Path) -> str:
    """Short hash of the csv's content and of each sound's and stem's name, size and time of change.

    It reads no sound, so it takes milliseconds; a new copy of the same files is a change.
    """
    folder = Path(folder)
    csv = folder / "meta" / "esc50.csv"
    if not folder.is_dir():
        return ABSENT
    digest = hashlib.sha256(csv.read_bytes() if csv.is_file() else b"")
    audio = folder / "audio" if csv.is_file() else folder  # a user's own may lie in it, or in folders
    paths = [audio / name for name in files_below(audio)]
    if csv.is_file():
        paths += [folder / "stems" / name for name in files_below(folder / "stems")]
    for path in paths:
        about, name = path.stat(), os.path.relpath(path, audio)
        digest.update(os.fsencode(f"{name}\0{about.st_size}\0{about.st_mtime_ns}\n"))
    return digest.hexdigest()[:16]


def files_below(folder: str | Path, to_nothing: bool = False) -> list[str]:
    """Names of the files below a folder, with ``/``, sorted; hidden ones are left out, and links to nothing
    unless they are asked for.

    Links are followed: sounds are often kept elsewhere (git-annex, DVC). A folder met twice is read once.
    """
    found, seen = [], set()
    for place, folders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(place))
        folders[:] = [
            name
            for name in folders
            if name[0] != "." and os.path.realpath(os.path.join(place, name)) not in seen
        ]
        paths = (Path(place, name) for name in names if name[0] != ".")
        paths = (path for path in paths if path.is_file() or (to_nothing and path.is_symlink()))
        found += [path.relative_to(folder).as_posix() for path in paths]
    return sorted(found)


def file_digest(path: str | Path, algorithm: str = "sha256") -> str:
    """Hexadecimal digest of a file's content; `ABSENT` where there is no file."""
    if not Path(path).is_file():
        return ABSENT
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def csv_state(folder: str | Path) -> str:
    """Short hash of the CSV files in a folder, such as listeners' answers; `ABSENT` where there are none."""
    paths = sorted(Path(folder).glob("[!.]*.csv"))
    digest = hashlib.sha256(os.fsencode("".join(f"{path.name}\0{file_digest(path)}\n" for path in paths)))
    return digest.hexdigest()[:16] if paths else ABSENT


def fingerprint(folder: str | Path) -> dict:
    """Number of files, bytes and SHA-256 over the names and contents of all files below ``folder``.

    The same files give the same digest wherever the folder lies and whenever they were
    written; hidden files are left out.
    """
    folder = Path(folder)
    digest, n_files, n_bytes = hashlib.sha256(), 0, 0
    for name in files_below(folder):
        digest.update(os.fsencode(f"{name}\0{file_digest(folder / name)}\n"))
        n_files, n_bytes = n_files + 1, n_bytes + (folder / name).stat().st_size
    return {"files": n_files, "bytes": n_bytes, "sha256": digest.hexdigest()}

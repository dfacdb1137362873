"""Downloads that are resumed, checked against a checksum and appear whole or not at all.

`pooch` keeps and checks the files; the transfer itself is ours because pooch starts again from
zero after an interruption.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..files import PARTIAL, locked, to_disk

ESC50_URL = "https://github.com/karolpiczak/ESC-50/archive/master.zip"
# GitHub packs the archive of the current commit, so that its bytes may change. This sum was
# published by a project that fetched it in 2026 (645,695,005 bytes); the md5
# 7771e4b9d86d0945acce719c7a59305a in soundata and other loaders is of an older commit.
ESC50_CHECKSUM = "sha256:805afc618aff80eff0641d51311647871fead5807da68bb18e43a27db47a79ce"


@dataclass(frozen=True)
class Weights:
    """A file of published weights: its name, address, size in bytes and checksum."""

    name: str
    url: str
    size: int
    checksum: str


WEIGHTS = {
    "cnn14": Weights(  # Zenodo record 3987831
        "Cnn14_mAP=0.431.pth",
        "https://zenodo.org/records/3987831/files/Cnn14_mAP%3D0.431.pth?download=1",
        327428481,
        "md5:541141fa2ee191a88f24a3219fff024e",
    ),
    "mn04": Weights(
        "mn04_as_mAP_432.pt",
        "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/mn04_as_mAP_432.pt",
        4066513,
        "sha256:899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c",
    ),
}

MAX_UNPACKED = 4_000_000_000  # bytes; ESC-50 has 0.9e9
ATTEMPTS = 3
CHUNK = 1 << 16  # bytes; what an interruption may cost
TIMEOUT = (10, 60)  # seconds to connect, and between two chunks


def download(
    url: str,
    path: str | Path,
    md5: str | None = None,
    size: int | None = None,
    progress: bool = True,
    attempts: int = ATTEMPTS,
) -> Path:
    """Fetch ``url`` to ``path`` unless a good file is there already.

    An interrupted transfer leaves ``path`` + ``.part``; the next attempt or run goes on from there.

    Parameters
    ----------
    url : str
        http or https address.
    path : str or Path
        File to make; it appears only when it is whole and its checksum is right.
    md5 : str, optional
        Expected checksum in hex; another algorithm by prefix, as in ``sha256:...``.
    size : int, optional
        Expected bytes.
    progress : bool
        Show a progress bar.
    attempts : int
        Connections tried before giving up.

    Raises
    ------
    ConnectionError
        No network, or the server refused.
    ValueError
        What came has another size or checksum; it is deleted.
    """
    path = Path(path)
    if _is_good(path, md5, size):  # where it was installed for all, nobody may write
        return path
    with locked(path.parent):
        return _download(url, path, md5, size, progress, attempts)


def download_weights(network: str, folder: str | Path, progress: bool = True) -> Path:
    """The AudioSet weights of ``cnn14`` (327 MB) or ``mn04`` (4 MB) in a folder; errors as in `download`."""
    file = WEIGHTS[network]
    return download(file.url, Path(folder) / file.name, file.checksum, file.size, progress)


def download_esc50(root: str | Path, progress: bool = True) -> Path:
    """ESC-50 (646 MB) in ``root``; nothing is done when it is there.

    The archive's checksum (see `ESC50_CHECKSUM` for what it rests on) changes with the upstream
    repository. ``AUDIOXAI_ESC50_URL`` and ``AUDIOXAI_ESC50_CHECKSUM`` (``sha256:...``, ``md5:...``
    or ``none``) override it; zip's own CRC-32 of every member is checked in any case.

    Raises
    ------
    ConnectionError, ValueError
        As in `download`; or the archive is damaged or unsafe.
    """
    root = Path(root)
    if (root / "meta" / "esc50.csv").is_file():
        return root
    url = os.environ.get("AUDIOXAI_ESC50_URL") or ESC50_URL
    checksum = os.environ.get("AUDIOXAI_ESC50_CHECKSUM") or ESC50_CHECKSUM
    archive = root.parent / "ESC-50-master.zip"
    with locked(root.parent):
        if (root / "meta" / "esc50.csv").is_file():  # another process made it meanwhile
            return root
        try:
            _download(url, archive, None if checksum == "none" else checksum, None, progress, ATTEMPTS)
        except ValueError as error:
            raise ValueError(
                f"{error}, or check the archive yourself and set AUDIOXAI_ESC50_CHECKSUM, "
                "or unpack ESC-50 by hand and give its folder as data root"
            ) from error
        extract_dataset(archive, root)
        archive.unlink()
    return root


def extract_dataset(archive: str | Path, root: str | Path) -> Path:
    """Unpack ``*/meta/esc50.csv`` and ``*/audio/*`` of a zip archive to ``root``, whole or not at all.

    Raises
    ------
    ValueError
        Not a zip archive, a damaged member, a member whose path leaves the archive's folder or is a
        link, or no ESC-50 layout in it.
    """
    archive, root = Path(archive), Path(root)
    if root.exists() and any(root.iterdir()):
        raise ValueError(f"{root} is not empty; choose a new folder to unpack {archive.name}")
    root.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=root.parent))
    try:
        with zipfile.ZipFile(archive) as bundle:
            if sum(member.file_size for member in bundle.infolist()) > MAX_UNPACKED:
                raise ValueError(f"{archive}: would unpack to more than {MAX_UNPACKED:.0e} bytes; refused")
            for member in bundle.infolist():
                parts = _safe_parts(member, archive)
                if not member.is_dir() and parts[-2:-1] in (("meta",), ("audio",)) and len(parts) == 3:
                    target = temporary / parts[1] / parts[2]
                    target.parent.mkdir(exist_ok=True)
                    with bundle.open(member) as source, open(target, "wb") as sink:
                        shutil.copyfileobj(source, sink, CHUNK)  # checks the CRC at the end
        if not (temporary / "meta" / "esc50.csv").is_file() or not (temporary / "audio").is_dir():
            raise ValueError(f"{archive}: holds no ESC-50 (no meta/esc50.csv with audio/ beside it)")
        temporary.chmod(0o755)
        to_disk(temporary)
        os.replace(temporary, root)
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{archive}: damaged or not a zip archive ({error}); please delete it") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return root


def _safe_parts(member: zipfile.ZipInfo, archive: Path) -> tuple[str, ...]:
    """Path components of a member; ValueError for one that could end up outside the folder."""
    name = member.filename.replace("\\", "/")
    path = PurePosixPath(name)
    is_link = (member.external_attr >> 16) & 0o170000 == 0o120000
    if path.is_absolute() or ".." in path.parts or ":" in name or is_link:
        raise ValueError(f"{archive}: {member.filename!r} is a link or leads outside the archive; refused")
    return path.parts


def _download(url: str, path: Path, md5: str | None, size: int | None, progress: bool, attempts: int) -> Path:
    """`download` for who holds the folder already."""
    import pooch

    if _is_good(path, md5, size):
        return path
    if path.is_file():
        path.unlink()
    known_hash = _known_hash(md5)
    part = path.with_name(path.name + ".part")

    _fetch(url, part, size, progress, attempts)

    def hand_over(_url: str, output_file: str, _pooch) -> None:
        to_disk(part)
        os.replace(part, output_file)

    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")
    try:
        pooch.retrieve(url, known_hash=known_hash, fname=path.name, path=path.parent, downloader=hand_over)
    except ValueError as error:
        raise ValueError(f"{url}: the download's checksum is not {known_hash}; deleted, try again") from error
    finally:
        logger.setLevel(level)
    return path


def _known_hash(md5: str | None) -> str | None:
    """Algorithm and checksum, as pooch takes them."""
    return md5 if md5 is None or ":" in md5 else f"md5:{md5}"


def _is_good(path: Path, md5: str | None, size: int | None) -> bool:
    import pooch

    if not path.is_file() or (size is not None and path.stat().st_size != size):
        return False
    if md5 is None:
        return True
    algorithm, expected = _known_hash(md5).split(":", 1)
    return pooch.file_hash(str(path), alg=algorithm) == expected.lower()


def _fetch(url: str, part: Path, size: int | None, progress: bool, attempts: int) -> None:
    """Fill ``part``, going on from what it has; several attempts."""
    import requests

    for attempt in range(1, attempts + 1):
        try:
            expected = _transfer(url, part, size, progress)
        except requests.RequestException as error:
            status = getattr(error.response, "status_code", None)
            reason = f"the server answered {status}" if status else f"no connection ({type(error).__name__})"
            if status and status < 500:
                attempt = attempts  # asking again would not help
        else:
            reason = f"it broke off at {part.stat().st_size} of {expected} bytes"
            if expected is None or part.stat().st_size == expected:
                break
        if attempt >= attempts:
            raise ConnectionError(f"{url}: download failed, {reason}; run again to go on from there")
        time.sleep(attempt)
    if size is not None and part.stat().st_size != size:
        got = part.stat().st_size
        part.unlink()
        raise ValueError(f"{url}: {got} bytes came, expected {size}; deleted, please try again")


def _transfer(url: str, part: Path, size: int | None, progress: bool) -> int | None:
    """One connection; returns the bytes the whole file should have, None where the server does not say."""
    import requests
    from tqdm.auto import tqdm

    have = part.stat().st_size if part.is_file() else 0
    if size is not None and have == size:
        return size
    headers = {"Range": f"bytes={have}-"} if have else {}
    headers["Accept-Encoding"] = "identity"  # lengths are of the file itself
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:  # nothing after what we have: whole already, or not this file's part
            total = response.headers.get("Content-Range", "").rpartition("/")[2]
            if total.isdigit() and int(total) == have:
                return have
            part.unlink()
            raise requests.ConnectionError("the partial file did not fit")
        response.raise_for_status()
        start = have if response.status_code == 206 else 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        look = {"desc": part.stem, "unit": "B", "unit_scale": True, "disable": not progress}
        with tqdm(total=total, initial=start, **look) as bar, open(part, "ab" if start else "wb") as sink:
            try:
                for chunk in response.iter_content(CHUNK):
                    sink.write(chunk)
                    bar.update(len(chunk))
            except (requests.exceptions.ChunkedEncodingError, requests.ConnectionError):
                if total is None:
                    raise
    return total

"""The listening gallery: one offline folder of pictures and sounds, with filters and comparisons.

`write_gallery` takes prepared entries one by one, so that they need not fit in memory together, and
writes small pictures, MP3 files and one page that works from a folder, without a network, and (as
plain cards) without JavaScript.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ..audio import encoding
from ..constants import (
    LOWER_IS_BETTER,
    MASK_NAMES,
    NOISE_SCENARIOS,
    PROTOCOLS,
    SPECTROGRAM_TYPES,
    STUDY_METHODS,
    STUDY_METRICS,
)
from ..figures import pictures
from ..figures.style import (
    METHOD_COLOURS,
    METHOD_LABELS,
    SCENARIO_LABELS,
    SPECTROGRAM_LABELS,
    Axes,
    axes_of,
    condition_label,
    method_label,
    template,
    two_dimensional,
)
from .entries import BEST_MASK, PARTS, GalleryEntry
from .html import escape, navigation, page, read_script_data, script_data, whole_directory, write_stylesheet
from .players import playback_volumes

VERDICTS = {
    "class kept by ear": "good",
    "class lost by ear": "bad",
    "class kept as scored": "good",
    "class lost as scored": "bad",
}  # tags
DATA_NAME = "AUDIOXAI_GALLERY"  # of the page's data in its script
N_STATIC = 24  # cards shown where JavaScript is off


class _Assets:
    """Files of the gallery, each content once."""

    def __init__(self, folder: Path, compression: float):
        self.folder, self.compression = folder, compression
        self.known: dict[str, object] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def _file(self, data: bytes, suffix: str) -> str:
        name = hashlib.sha256(data).hexdigest()[:16] + suffix
        path = self.folder / name
        if not path.exists():
            path.write_bytes(data)
        return name

    def picture(self, key: bytes, draw, quality: int | None = 60) -> str:
        """Name of the picture that ``draw()`` gives; drawn once per key."""
        if key not in self.known:
            self.known[key] = self._file(pictures.encode(draw(), quality), ".webp")
        return self.known[key]

    def sound(self, waveform, sample_rate: int) -> tuple[str, encoding.StoredSound]:
        """Name ("" for silence) and levels of a sound; compressed once per content."""
        samples = np.asarray(waveform.detach().cpu() if hasattr(waveform, "detach") else waveform, np.float32)
        key = _digest("sound", samples, np.array([sample_rate]))
        if key not in self.known:
            stored = encoding.store(samples.reshape(-1), sample_rate, self.compression)
            self.known[key] = (self._file(stored.data, ".mp3") if stored.data else "", stored)
        return self.known[key]


def _digest(kind: str, *arrays) -> bytes:
    digest = hashlib.sha256(kind.encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()


def _checked_maps(entry: GalleryEntry) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """db, attribution and mask as (F, T) of one shape."""
    maps = [two_dimensional(getattr(entry, name), name) for name in ("db", "attribution", "mask")]
    if len({found.shape for found in maps}) != 1:
        raise ValueError(
            f"{entry.name}: db, attribution and mask must have one shape; got "
            f"{', '.join(str(found.shape) for found in maps)}"
        )
    if set(entry.probabilities) != set(PARTS):
        raise ValueError(
            f"{entry.name}: probabilities must have {', '.join(PARTS)}; got {', '.join(entry.probabilities)}"
        )
    return tuple(maps)


def _pictures(entry: GalleryEntry, assets: _Assets) -> dict[str, str]:
    """File names of an entry's pictures, which the page calls layers.

    A binary mask needs no pictures of its own for kept and removed: the page lays the mask (or its
    negative) over the spectrogram, which is the same, because what is not kept lies on the floor.
    """
    db, attribution, mask = _checked_maps(entry)
    layers = {
        "spectrogram": assets.picture(_digest("level", db), lambda: pictures.level_picture(db)),
        "attribution": assets.picture(
            _digest("over", db, attribution), lambda: pictures.attribution_picture(db, attribution)
        ),
        "mask": assets.picture(_digest("mask", mask), lambda: pictures.mask_picture(mask), None),
    }
    if not np.isin(mask, (0, 1)).all():
        for layer, share in (("kept", mask), ("removed", 1 - mask)):
            level = pictures.masked_db(db, share, entry.floor, entry.by_sound)
            layers[layer] = assets.picture(
                _digest("level", level), lambda level=level: pictures.level_picture(level)
            )
    return layers


def _sounds(entry: GalleryEntry, assets: _Assets) -> list[dict]:
    """What the page needs to play original, kept and removed, and what the model hears in them."""
    found = {part: assets.sound(getattr(entry, part), entry.sample_rate) for part in PARTS}
    volumes = playback_volumes({part: stored for part, (_, stored) in found.items()})
    records = []
    for part in PARTS:
        name, stored = found[part]
        predicted, probability = entry.probabilities[part]
        record = {
            "part": part,
            "file": name,
            "seconds": round(stored.seconds, 4),
            "class": str(predicted),
            "p": _number(probability),
            "lufs": _number(stored.loudness, 2),
            **volumes.get(part, {}),
        }
        if entry.explained is not None:
            record["explained"] = _number(entry.explained[part])
        record["heard"] = str(predicted) == entry.target_name if entry.heard is None else entry.heard[part]
        records.append(record)
    return records


def _number(value, digits: int = 5):
    """A number that JSON can hold; None for NaN and infinity."""
    value = float(value)
    return round(value, digits) if math.isfinite(value) else None


def _record(entry: GalleryEntry, assets: _Assets, axes: dict[str, dict]) -> dict:
    """One entry of the page's data; writes its files."""
    db = two_dimensional(entry.db, "db")
    mask = two_dimensional(entry.mask, "mask")
    where = axes_of(entry.spectrogram_type if entry.spectrogram is None else entry.spectrogram, db.shape[1])
    key = f"{entry.spectrogram_type}-{db.shape[1]}"
    axes.setdefault(key, _axes_record(where))
    area = float(mask.mean()) if entry.area is None else float(entry.area)
    constant = bool(np.ptp(mask) == 0) if entry.degenerate is None else bool(entry.degenerate)
    return {
        "id": entry.name,
        "clip": entry.clip,
        "category": entry.category,
        "explained": entry.target_name,
        "spectrogram": entry.spectrogram_type,
        "scenario": entry.noise_scenario,
        "words": condition_label(entry.spectrogram_type, entry.noise_scenario),
        "method": entry.method,
        "mask": entry.mask_name,
        "protocol": entry.protocol,
        "correct": None if entry.correct is None else bool(entry.correct),
        "degenerate": constant,
        "area": _number(area),
        "tags": [str(tag) for tag in entry.tags],
        "axes": key,
        "scores": {name: _number(entry.scores[name]) for name in STUDY_METRICS if name in entry.scores},
        "layers": _pictures(entry, assets),
        "sounds": _sounds(entry, assets),
    }


def _axes_record(axes: Axes) -> dict:
    return {
        "start": round(axes.start, 6),
        "end": round(axes.end, 6),
        "f": pictures.frequency_axis(axes),
        "t": pictures.time_axis(axes),
        "words": pictures.axes_words(axes),
        "mel": axes.mel,
        "upscaled": axes.n_bins < 128,
    }


def _data(records: list[dict], axes: dict, title: str, order: str) -> dict:
    """Everything the page's script reads."""
    return {
        "title": title,
        "entries": records,
        "axes": axes,
        "metrics": STUDY_METRICS,
        "lower": LOWER_IS_BETTER,
        "bestMask": BEST_MASK,
        "verdicts": VERDICTS,
        "order": {
            "spectrogram": SPECTROGRAM_TYPES,
            "scenario": NOISE_SCENARIOS,
            "method": STUDY_METHODS,
            "mask": MASK_NAMES,
            "protocol": PROTOCOLS,
            "first": order,
        },
        "labels": {"spectrogram": SPECTROGRAM_LABELS, "scenario": SCENARIO_LABELS, "method": METHOD_LABELS},
        "colours": METHOD_COLOURS,
    }


def _static_card(record: dict, axes: dict) -> str:
    """A card that needs no JavaScript: spectrogram, attribution and kept part, and three players."""
    scores = ", ".join(
        f"{name} {'n/a' if value is None else f'{value:.3g}'}" for name, value in record["scores"].items()
    )
    layers = "".join(_static_layer(record, axes, layer) for layer in ("spectrogram", "attribution", "kept"))
    players = "".join(
        f"<p>{sound['part']}: {escape(sound['class'].replace('_', ' '))} (p = {sound['p']})"
        + (
            f'<br><audio controls preload="none" src="assets/{sound["file"]}"></audio></p>'
            if sound["file"]
            else ", silent</p>"
        )
        for sound in record["sounds"]
    )
    head = f"{record['category'].replace('_', ' ')}: {method_label(record['method'])}, {record['mask']}"
    where = condition_label(record["spectrogram"], record["scenario"])
    return (
        f'<article class="card"><h3>{escape(head)}</h3><p>{escape(record["clip"])}, {escape(where)}, '
        f"{record['protocol']} protocol, kept area {100 * record['area']:.1f} %</p>{layers}{players}"
        f"<p>{scores}</p></article>"
    )


def _static_layer(record: dict, axes: dict, layer: str) -> str:
    """One picture with its axes; a kept part without a picture is the mask over the spectrogram."""
    names = record["layers"]
    words = f"{layer} of {escape(record['clip'])}; {axes['words']}"
    image = f'<img src="assets/{names.get(layer, names["spectrogram"])}" alt="{words}" loading="lazy">'
    if layer not in names:
        image += f'<img src="assets/{names["mask"]}" class="over" alt="" loading="lazy">'
    crisp = " crisp" if axes["upscaled"] else ""
    return (
        f'<figure><div class="plot">{axes["f"]}<div class="picture{crisp}">{image}</div>{axes["t"]}'
        f'<div class="units" aria-hidden="true">Hz↑ s→</div></div><figcaption>{layer}</figcaption></figure>'
    )


def _page(data: dict, links: Sequence[tuple[str, str]]) -> str:
    """index.html: the frame for the script, and plain cards for readers without it."""
    records = data["entries"]
    tagged = sorted(records, key=lambda record: BEST_MASK not in record["tags"])[:N_STATIC]
    cards = "".join(_static_card(record, data["axes"][record["axes"]]) for record in tagged)
    note = f"<p>JavaScript is off: {len(tagged)} of {len(records)} explanations are shown as plain cards.</p>"
    body = template("gallery.html").replace("<!--title-->", escape(data["title"]))
    body = body.replace("<!--static-->", f'{note}<div class="cards">{cards}</div>')
    scripts = '<script src="assets/gallery-data.js"></script>\n<script src="assets/gallery.js"></script>'
    return page(data["title"], body, navigation=navigation(links, "index.html"), scripts=scripts)


def _write_page(folder: Path, data: dict, links: Sequence[tuple[str, str]]) -> None:
    """The page, its data, its script and its stylesheet."""
    files = {"gallery-data.js": script_data(DATA_NAME, data), "gallery.js": template("gallery.js")}
    for name, content in files.items():
        (folder / "assets" / name).write_text(content, encoding="utf-8")
    write_stylesheet(folder / "assets")
    (folder / "index.html").write_text(_page(data, links), encoding="utf-8")


def read_gallery(directory: str | Path) -> dict:
    """Data of a gallery that `write_gallery` wrote: its entries as records, with their files and levels.

    Raises
    ------
    FileNotFoundError
        There is no gallery in ``directory``.
    """
    path = Path(directory) / "assets" / "gallery-data.js"
    if not path.is_file():
        raise FileNotFoundError(f"{directory}: holds no gallery; write one with gallery.write_gallery first")
    return read_script_data(DATA_NAME, path.read_text(encoding="utf-8"))


def write_gallery(
    entries: Iterable[GalleryEntry],
    directory: str | Path,
    title: str = "Listening gallery",
    links: Sequence[tuple[str, str]] = (),
    compression: float = 0.85,
    order: str = "as listed",
) -> dict:
    """Write the gallery as an offline folder; an older one is replaced when the new one is whole.

    Parameters
    ----------
    entries : iterable of GalleryEntry
        Read once, one by one; their order is the order of the cards.
    directory : path
        Gets index.html and assets/.
    title : str
        Heading of the page.
    links : sequence of (address, words)
        Navigation to other pages, relative to ``directory``.
    order : str
        What the order of the entries is, in words.
    compression : float
        Of the sounds, 0 (largest) to 1 (smallest), see `encoding.store`. With the default one explanation
        takes about 65 kB, so that 30 MB hold more than 400.

    Returns
    -------
    dict of ``entries``, ``files`` and ``bytes``

    Raises
    ------
    ValueError
        No entries, two with the same name, or maps and sounds that do not fit.
    """
    with whole_directory(directory) as folder:
        assets, axes, records = _Assets(folder / "assets", compression), {}, []
        for entry in entries:
            records.append(_record(entry, assets, axes))
        names = [record["id"] for record in records]
        if not names:
            raise ValueError("entries must hold at least one GalleryEntry; got none")
        if len(set(names)) < len(names):
            raise ValueError(f"entries must differ; got {max(names, key=names.count)} more than once")
        data = _data(records, axes, title, order)
        _write_page(folder, data, links)
        sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
        return {"entries": len(records), "files": len(sizes), "bytes": sum(sizes)}

"""Explanations as cards of HTML that hold their pictures and sounds and need no kernel."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence

import torch

from ..audio import encoding
from ..constants import LOWER_IS_BETTER, STUDY_METRICS
from ..figures import pictures
from ..figures.style import axes_of, template, two_dimensional
from ..words import condition_label, method_label
from .entries import PARTS, GalleryEntry
from .html import escape
from .players import stored_player

N_STATIC = 6  # most entries shown where there is no kernel
STATIC_SIZE = 600_000  # most characters they may take: a stored notebook stays below 1 MB with its figure


def static_entries(entries: Sequence[GalleryEntry], n: int = N_STATIC) -> list[GalleryEntry]:
    """Up to ``n`` entries, in their order, that differ most in clip, condition, method and mask."""
    seen, left, chosen = Counter(), list(enumerate(entries)), []
    while left and len(chosen) < n:
        place = min(range(len(left)), key=lambda i: sum(seen[trait] for trait in _traits(left[i][1])))
        chosen.append(left.pop(place))
        seen.update(_traits(chosen[-1][1]))
    return [entry for _, entry in sorted(chosen, key=lambda pair: pair[0])]


def _traits(entry: GalleryEntry) -> tuple:
    condition = (entry.spectrogram_type, entry.noise_scenario)
    return ("clip", entry.clip), ("condition", condition), ("method", entry.method), ("mask", entry.mask_name)


def cards_html(entries: Sequence[GalleryEntry], most: int = STATIC_SIZE) -> str:
    """Explanations as cards, as many as fit in ``most`` characters (the first in any case)."""
    cards, size = [], 0
    for entry in entries:
        card = f'<div class="card">{entry_html(entry, quality=30, compression=0.95)}</div>'
        size += len(card)
        if cards and size > most:
            break
        cards.append(card)
    return f'<div class="audioxai-cards">{"".join(cards)}</div>'


def entry_html(entry: GalleryEntry, quality: int = 60, compression: float = 0.85) -> str:
    """One explanation as HTML that holds its pictures (WebP ``quality``) and sounds (MP3 ``compression``)."""
    db, attribution, mask = (
        two_dimensional(getattr(entry, name), name) for name in ("db", "attribution", "mask")
    )
    axes = axes_of(
        entry.spectrogram if entry.spectrogram is not None else entry.spectrogram_type, db.shape[1]
    )
    layers = {
        "spectrogram": pictures.level_picture(db),
        "attribution": pictures.attribution_picture(db, attribution),
        "kept": pictures.level_picture(pictures.masked_db(db, mask, entry.floor, entry.by_sound)),
        "removed": pictures.level_picture(pictures.masked_db(db, 1 - mask, entry.floor, entry.by_sound)),
    }
    figures = "".join(
        f'<figure><div class="plot">{pictures.frequency_axis(axes)}<div class="picture"><img alt="{name}" '
        f'src="data:image/webp;base64,{_encoded(pictures.encode(picture, quality))}"></div>'
        f"{pictures.time_axis(axes)}</div>"
        f"<figcaption>{name} (Hz, s)</figcaption></figure>"
        for name, picture in layers.items()
    )
    scores = ", ".join(
        f"{name} {entry.scores[name]:.3g}{'↓' if name in LOWER_IS_BETTER else '↑'}"
        for name in STUDY_METRICS
        if name in entry.scores
    )
    title = f"{entry.category.replace('_', ' ')}: {method_label(entry.method)}, {entry.mask_name}"
    condition = condition_label(entry.spectrogram_type, entry.noise_scenario)
    where = f"{entry.clip}, {condition}, {entry.protocol} protocol"
    return (
        f'<div class="audioxai"><style>{template("widget.css")}</style>'
        f"<p><b>{escape(title)}</b><br>{escape(where)}; kept area {100 * mask.mean():.1f} %</p>"
        f'<div class="layers">{figures}</div><div '
        f'class="sounds">{_players(entry, compression)}</div><p>{scores}</p></div>'
    )


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _players(entry: GalleryEntry, compression: float) -> str:
    """Three players with what the model hears; all as loud as each other, as far as peaks allow."""
    parts = []
    for part in PARTS:
        waveform = torch.as_tensor(getattr(entry, part)).detach().cpu().reshape(-1).numpy()
        stored = encoding.store(waveform, entry.sample_rate, compression)
        name, p = entry.probabilities[part]
        words = f"{part}: {str(name).replace('_', ' ')} {100 * p:.1f} %"
        parts.append(
            stored_player(stored, f"{words}, played {stored.gain:+.1f} dB" if stored.data else words)
        )
    return "".join(parts)

"""Players of a page: a sound with its controls, and how loud sounds are played against each other."""

from __future__ import annotations

import base64

from ..audio.encoding import StoredSound, store
from .html import escape

LARGEST_CUT = 12.0  # dB; a page does not turn the other sounds down further to match one single click


def player_html(waveform, sample_rate: int, words: str = "", compression: float = 0.85) -> str:
    """A player as HTML that holds the sound as MP3, about 20 kB for five seconds; as loud as peaks allow.

    ``words`` stand before it; for the rest see `encoding.store`. In a notebook: ``IPython.display.HTML``.
    """
    return stored_player(store(waveform, sample_rate, compression), words)


def stored_player(stored: StoredSound, words: str) -> str:
    """A player of a compressed sound; silence is said in words."""
    if not stored.data:
        return f"<p>{escape(words)}<br>silent</p>"
    data = base64.b64encode(stored.data).decode()
    source = f"data:audio/mpeg;base64,{data}"
    return f'<p>{escape(words)}<br><audio controls preload="metadata" src="{source}"></audio></p>'


def players_html(sounds: dict, sample_rate: int, compression: float = 0.85) -> str:
    """Players of sounds {words: waveform (samples,)}, in rows as wide as the page."""
    players = "".join(player_html(sound, sample_rate, words, compression) for words, sound in sounds.items())
    return f'<div style="display: flex; flex-wrap: wrap; gap: 0 1.5rem">{players}</div>'


def matched_cuts(loudness: dict[str, float]) -> dict[str, float]:
    """dB (0 or less) by which a page turns each sound down so that all are heard equally loud.

    ``loudness`` holds LUFS of the files; none is turned down further than `LARGEST_CUT` for a single one.
    """
    common = max(min(loudness.values()), max(loudness.values()) - LARGEST_CUT)
    return {name: min(0.0, common - level) for name, level in loudness.items()}


def playback_volumes(sounds: dict[str, StoredSound]) -> dict[str, dict[str, float]]:
    """Volumes (0 to 1) at which a page plays sounds that are heard against each other.

    Returns
    -------
    dict
        Per audible sound ``matched`` and ``true`` (volumes) and ``gain``: dB by which matched playback
        lifts the sound above its true level, relative to the first sound.
    """
    audible = {name: sound for name, sound in sounds.items() if sound.data}
    if not audible:
        return {}
    matched = matched_cuts({name: sound.loudness for name, sound in audible.items()})
    quietest_file = min(sound.gain for sound in audible.values())
    true = {name: quietest_file - sound.gain for name, sound in audible.items()}
    first = next(iter(audible))
    offset = matched[first] - true[first]
    return {
        name: {
            "matched": round(10 ** (matched[name] / 20), 5),
            "true": round(10 ** (true[name] / 20), 5),
            "gain": round(matched[name] - true[name] - offset, 2),
        }
        for name in audible
    }

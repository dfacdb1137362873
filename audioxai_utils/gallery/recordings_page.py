"""One offline page of recordings: a strip each, and the reasons as sounds that can be played."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from pathlib import Path

import torch

from ..figures.recordings import recording_strip
from ..figures.style import template
from ..files import atomic_path
from ..recordings import Recording
from .html import escape, page
from .players import players_html

DPI = 110
RATE = 32000  # Hz of sounds whose own rate MP3 does not have
LOST = 0.5  # share of a sound's energy above which a player says what it lacks


def recordings_page(
    recordings: Iterable[Recording | str], path: str | Path, title: str = "Recordings"
) -> Path:
    """Write a page of what `explain_recording` or `explain_folder` gave, one recording at a time.

    Where one of them raises, or the user stops it, the page holds those before it, and the error goes on;
    where there are none, no page is written.

    Parameters
    ----------
    recordings : iterable of Recording or str
        A str is a file that was not read, and why.
    path : path
        The HTML file; pictures and sounds are in it.
    title : str

    Returns
    -------
    Path
        The file.
    """
    parts, refused = [], []
    try:
        for each in recordings:
            if isinstance(each, str):
                refused.append(f"<li>{escape(each)}</li>")
            else:
                parts.append(_section(each))
    except BaseException:  # a user's Ctrl-C too
        if parts:
            _write(parts, refused, Path(path), title)
        raise
    return _write(parts, refused, Path(path), title)


def _write(parts: list[str], refused: list[str], path: Path, title: str) -> Path:
    if refused:
        parts = [*parts, f"<h2>Not read</h2><ul>{''.join(refused)}</ul>"]
    body = f"<h1>{escape(title)}</h1>{''.join(parts)}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(
            page(title, body, head=f"<style>{template('style.css')}</style>"), encoding="utf-8"
        )
    return path


def _section(recording: Recording) -> str:
    buffer = io.BytesIO()
    recording_strip(recording).savefig(buffer, format="png", dpi=DPI, bbox_inches="tight")
    picture = base64.b64encode(buffer.getvalue()).decode()
    n, words = len(recording.reasons), ", ".join(dict.fromkeys(r.class_name for r in recording.reasons))
    caption = (
        f"{recording.seconds:.1f} s, {len(recording.probabilities)} windows, {n} explained: {words or 'none'}"
    )
    return (
        f"<h2>{escape(recording.name)}</h2><p>{escape(caption)}</p>"
        f'<img alt="{escape(caption)}" src="data:image/png;base64,{picture}">{_players(recording)}'
    )


def _players(recording: Recording) -> str:
    from torchaudio.functional import resample

    from ..audio.encoding import MP3_RATES

    rate, sounds = recording.sample_rate, {}
    for number, reason in enumerate(recording.reasons, 1):
        words = f"{number}. {reason.class_name}, {reason.sound_start:.1f} s"
        sound = reason.sound.float().cpu()
        if rate not in MP3_RATES:
            lost = share_above(sound, rate, RATE / 2)
            sound = resample(sound, rate, RATE)
            if lost > LOST:
                words += f"; sounds above {RATE // 2000} kHz: {100 * lost:.0f} % of its energy "
                words += "are not in this player; the file has them"
        sounds[words] = sound.numpy()
    return players_html(sounds, rate if rate in MP3_RATES else RATE)


def share_above(sound: torch.Tensor, sample_rate: int, frequency: float) -> float:
    """Share of a sound's (samples,) energy that lies above a frequency (Hz); 0 of silence."""
    power = torch.fft.rfft(sound.double()).abs().square()
    above = torch.fft.rfftfreq(len(sound), 1 / sample_rate) > frequency
    return float(power[above].sum() / power.sum()) if power.any() else 0.0

"""Does a sound file hold all that its header announces?

Decoders give what they find: half a WAV, or the first part of a chained Ogg, is a shorter sound to them. Here
the boxes of a file are read, never its samples.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

UNKNOWN_SIZE = 0x7FFFF000  # what encoders that write into a pipe announce, or more
# Capture, version, flags, position, serial, page, checksum, segments
OGG_HEADER = struct.Struct("<4sBBqIIIB")
OGG_FIRST, OGG_LAST = 2, 4  # flags of a stream's first and last page
XING_REACH = 256  # bytes of an MPEG frame in which its Xing or Info tag begins


def missing_part(path: str | Path) -> str | None:
    """What a decoder would leave out of a file, in a few words; None where it is whole or nobody can tell.

    Parameters
    ----------
    path : str or Path
        WAV, AIFF, Ogg and MP3 files are looked into, others are taken as they are.
    """
    with open(path, "rb") as file:
        start = file.read(12)
        file.seek(0)
        if start[:4] in (b"RIFF", b"RIFX") or start[:4] == b"FORM":
            return _chunks(file, ">" if start[:4] in (b"RIFX", b"FORM") else "<")
        if start[:4] == b"OggS":
            return _ogg_pages(file)
        return _mpeg(file)


def _chunks(file: BinaryIO, order: str) -> str | None:
    """RIFF and AIFF: chunks of a name and a size, padded to even bytes."""
    n_bytes, offset = file.seek(0, 2), 12
    while offset + 8 <= n_bytes:
        name, size = struct.unpack(f"{order}4sI", _at(file, offset, 8))
        if name in (b"data", b"SSND") and size < UNKNOWN_SIZE and offset + 8 + size > n_bytes:
            return f"cut off: {n_bytes - offset - 8:,} of {size:,} bytes of sound"
        offset += 8 + size + size % 2
    return None


def _ogg_pages(file: BinaryIO) -> str | None:
    """Ogg: pages, the last of a stream marked as such; another stream after it is a second link."""
    n_bytes, offset, ended = file.seek(0, 2), 0, False
    while offset + OGG_HEADER.size <= n_bytes:
        capture, _, flags, *_, segments = OGG_HEADER.unpack(_at(file, offset, OGG_HEADER.size))
        if capture != b"OggS":
            return "damaged: a page is not where it should be"
        if ended and flags & OGG_FIRST:
            return "only the first of the streams that were joined in it is read"
        ended = bool(flags & OGG_LAST)
        offset += OGG_HEADER.size + segments + sum(file.read(segments))
    return None if ended and offset <= n_bytes else "cut off: its last page is missing"


def _mpeg(file: BinaryIO) -> str | None:
    """MP3: a Xing or Info tag in the first frame announces the bytes of all; what follows is left out."""
    start, offset = file.read(10), 0
    if start[:3] == b"ID3":  # a tag of its own; the size has seven bits a byte
        offset = 10 + sum(byte << shift for byte, shift in zip(start[6:10], (21, 14, 7, 0), strict=True))
    frame = _at(file, offset, XING_REACH)
    place = max(frame.find(b"Xing"), frame.find(b"Info"))
    if frame[:1] != b"\xff" or place < 0 or len(frame) < place + 16:
        return None
    flags = int.from_bytes(frame[place + 4 : place + 8], "big")
    if flags & 3 != 3:
        return None
    announced = int.from_bytes(frame[place + 12 : place + 16], "big")
    rest = _at(file, offset + announced, 2)
    if rest[:1] == b"\xff" and rest[1:] >= b"\xe0":  # another frame, not a tag at the end
        return "only the first of the files that were joined in it is read"
    return None


def _at(file: BinaryIO, offset: int, n_bytes: int) -> bytes:
    file.seek(offset)
    return file.read(n_bytes)

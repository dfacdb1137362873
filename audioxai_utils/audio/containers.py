"""Does a sound file hold all that its header announces?

Decoders give what they find: half a WAV, or the first part of a chained Ogg, is a shorter sound to them. Here
the boxes of a file are read, never its samples.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

UNKNOWN_SIZE = 0x7FFFF000  # what encoders that write into a pipe announce, or more
IN_DS64, UNKNOWN_LONG = 0xFFFFFFFF, 2**62  # RF64's size of its data chunk; a size of 64 bits that is none
# Capture, version, flags, position, serial, page, checksum, segments
OGG_HEADER = struct.Struct("<4sBBqIIIB")
OGG_FIRST, OGG_LAST = 2, 4  # flags of a stream's first and last page
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # each byte with its bits turned round
MPEG_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # Hz, by version
MPEG_BITS = {  # kbit/s of layer III; of MPEG 1, and of the lower rates
    True: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
MPEG_SLACK = 3 * 1152  # samples that encoders put around the sound, and decoders take away again


def missing_part(path: str | Path, kind: str, n_samples: int, enough: bool = False) -> str | None:
    """What a decoder would leave out of a file, in a few words; None where it is whole or nobody can tell.

    Parameters
    ----------
    path : str or Path
        WAV, RF64, AIFF, Ogg and MP3 files are looked into, others are taken as they are.
    kind : str
        The format, as the decoder says.
    n_samples : int
        What was decoded of each channel.
    enough : bool
        It is all that was asked for: only what a decoder leaves out in silence in the middle is looked for.
    """
    with open(path, "rb") as file:
        start = file.read(12)
        file.seek(0)
        if start[:4] in (b"RIFF", b"RIFX", b"RF64", b"FORM"):
            return None if enough else _chunks(file, ">" if start[:4] in (b"RIFX", b"FORM") else "<")
        if start[:4] == b"OggS":
            return _ogg_pages(file, enough)
        if kind == "MP3" and not enough:  # in other samples chance makes frames
            return _mpeg(file, n_samples)
    return None


def _chunks(file: BinaryIO, order: str) -> str | None:
    """RIFF and AIFF: chunks of a name and a size, padded to even bytes; RF64 has its sound's size in ds64."""
    n_bytes, offset, long = file.seek(0, 2), 12, None
    while offset + 8 <= n_bytes:
        name, size = struct.unpack(f"{order}4sI", _at(file, offset, 8))
        if name == b"ds64":
            long = int.from_bytes(_at(file, offset + 16, 8), "little")
        known = size < UNKNOWN_SIZE
        if name == b"data" and size == IN_DS64 and long is not None:
            size, known = long, long < UNKNOWN_LONG
        if name in (b"data", b"SSND") and known and offset + 8 + size > n_bytes:
            return f"cut off: {n_bytes - offset - 8:,} of {size:,} bytes of sound"
        offset += 8 + size + size % 2
    return None


def _ogg_pages(file: BinaryIO, enough: bool) -> str | None:
    """Ogg: pages with a checksum, the last of a stream marked; a stream after it is a second link."""
    n_bytes, offset, ended = file.seek(0, 2), 0, False
    while offset + OGG_HEADER.size <= n_bytes:
        header = _at(file, offset, OGG_HEADER.size)
        capture, _, flags, *_, checksum, segments = OGG_HEADER.unpack(header)
        lengths = file.read(segments)
        body = file.read(sum(lengths))
        if len(body) < sum(lengths) or len(lengths) < segments:
            return None if enough else "cut off: its last page is missing"
        if capture != b"OggS" or checksum != ogg_checksum(
            header[:22] + bytes(4) + header[26:] + lengths + body
        ):
            return "damaged: a page is not what its checksum says"
        if ended and flags & OGG_FIRST:
            return "only the first of the streams that were joined in it is read"
        ended = bool(flags & OGG_LAST)
        if ended and enough:
            return None
        offset += len(header) + segments + len(body)
    return None if ended or enough else "cut off: its last page is missing"


def ogg_checksum(page: bytes) -> int:
    """CRC-32 of a page whose own checksum is 0: zlib's, but highest bit first and without inversions."""
    reflected = zlib.crc32(page.translate(REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reflected:032b}"[::-1], 2)


def _mpeg(file: BinaryIO, n_samples: int) -> str | None:
    """MP3: frames that follow each other; a tag in the first one says how many there should be."""
    data = _content(file)
    frames = _mpeg_frames(data)
    first = next(frames, None)
    if first is None:
        return None
    at, n_bytes, samples, _ = first
    n_more = n_gaps = 0
    for *_, after_gap in frames:
        n_more, n_gaps = n_more + 1, n_gaps + after_gap
    announced = _announced_frames(data[at : at + n_bytes])
    if announced is not None and n_more > announced + 2:
        return "only the first of the files that were joined in it is read"
    whole = samples * (n_more + 1 if announced is None else announced)
    if n_samples < whole - MPEG_SLACK:
        return f"{n_samples:,} of about {whole:,} samples; convert it to another format first"
    return "damaged: its frames do not follow each other" if n_gaps else None


def _content(file: BinaryIO) -> bytes | mmap.mmap:
    """A file's bytes, in no memory of ours where the file system can map them."""
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        return file.read()


def _mpeg_frames(data: bytes | mmap.mmap) -> Iterator[tuple[int, int, int, bool]]:
    """(offset, bytes, samples, whether something else lies before it) of every frame of layer III."""
    at, follows = _id3_size(data), False
    while 0 <= at < len(data):
        frame = _mpeg_frame(data, at)
        if frame and not follows:  # chance alone makes no second header where the first one says
            end = at + frame[0]
            frame = frame if end == len(data) or _mpeg_frame(data, end) else None
        if frame is None:
            at, follows = data.find(b"\xff", at + 1), False
            continue
        yield at, *frame, not follows
        at, follows = at + frame[0], True


def _id3_size(data: bytes | mmap.mmap) -> int:
    """Bytes of an ID3 tag at the start; its size has seven bits a byte."""
    if data[:3] != b"ID3":
        return 0
    return 10 + sum(byte << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=False))


def _mpeg_frame(data: bytes | mmap.mmap, at: int) -> tuple[int, int] | None:
    """(bytes, samples) of the layer III frame that begins there; None where none does."""
    if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] & 0xE6 != 0xE2:
        return None
    version, rate, bits = data[at + 1] >> 3 & 3, data[at + 2] >> 2 & 3, data[at + 2] >> 4
    if version not in MPEG_RATES or rate == 3 or bits in (0, 15):
        return None
    samples = 1152 if version == 3 else 576
    kilobits = MPEG_BITS[version == 3][bits - 1]
    n_bytes = samples // 8 * 1000 * kilobits // MPEG_RATES[version][rate] + (data[at + 2] >> 1 & 1)
    return (n_bytes, samples) if at + n_bytes <= len(data) else None


def _announced_frames(frame: bytes) -> int | None:
    """Number of frames by the tag in a file's first one; None without."""
    place = max(frame.find(b"Xing"), frame.find(b"Info"))
    if place < 0 or not int.from_bytes(frame[place + 4 : place + 8], "big") & 1:
        return None
    return int.from_bytes(frame[place + 8 : place + 12], "big")


def _at(file: BinaryIO, offset: int, n_bytes: int) -> bytes:
    file.seek(offset)
    return file.read(n_bytes)

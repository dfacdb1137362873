"""Damaged files, by the thousand, put before everything that reads a file.

    python benchmarks/fuzz.py --files 2500

Each file is a good one with bits, bytes, blocks or numbers changed, drawn from a seed; `faults.py` runs this
too. What becomes of it is one of

    read      nothing that its format can prove was changed
    refused   one line that names the file
    words     another error: several lines, no name, or of an unexpected kind
    crashed   the reader's process died
    hung      it took longer than a minute
    silent    what came back is not what was written, although the format can prove it: another number, a part
              of the sound, NaN, a name of another type, a row that is nowhere

WAV, AIFF and MP3 hold no checksum: there a changed sample is a sample, and only the file's length, its numbers
and that they are finite can be proved.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
from fuzzed_files import KINDS

from audioxai_utils.study.settings import FILE

OUTCOMES = ("read", "refused", "words", "crashed", "hung", "silent")
LIMIT = 60  # seconds for one file
MEMORY = 12 * 2**30  # bytes of addresses: a header that asks for more is an error of the reader
SPECIAL = [b"\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\1\0\0\0", bytes(16)]
TEXT = [
    b"\0",
    b'"',
    b",",
    b"\n",
    b"\r\n",
    b"\xff",
    "é".encode(),
    b"NaN",
    b"1e9",
    b"007",
    b"[",
    b"}",
    b"-1",
    b"null",
]


# Damage


def damaged(data: bytes, text: bool, draw: random.Random) -> tuple[bytes, str]:
    """(the file, what was done to it): one change of a kind drawn from ten, now and then several."""
    change = ""
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        name = draw.choice(
            ("bit", "header", "cut", "drop", "double", "insert", "zero", "number", "append", "swap")
        )
        change = name if not change else "several"
        data = _changed(data, name, TEXT if text else SPECIAL, draw)
    return data, change


def _changed(data: bytes, name: str, words: list[bytes], draw: random.Random) -> bytes:
    if not data:
        return data
    at, n = draw.randrange(len(data)), draw.choice((1, 4, 64, 1000))
    head = draw.randrange(min(128, len(data)))
    if name == "bit":
        return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
    if name == "header":
        return data[:head] + draw.randbytes(1) + data[head + 1 :]
    if name == "number":
        word = draw.choice(words)
        return data[:head] + word + data[head + len(word) :]
    if name == "swap":
        return data[:at] + data[at + n : at + 2 * n] + data[at : at + n] + data[at + 2 * n :]
    added = {
        "double": data[at : at + n],
        "insert": draw.choice([draw.randbytes(n), *words]),
        "zero": bytes(n),
    }
    return {
        "cut": data[:at],
        "drop": data[:at] + data[at + n :],
        "zero": data[:at] + bytes(len(data[at : at + n])) + data[at + n :],
        "append": data + draw.randbytes(n),
    }.get(name, data[:at] + added.get(name, b"") + data[at:])


# A process that reads, and one that watches it


def read_all(kind: str, first: int, n: int, folder: Path) -> Iterator[tuple[str, str]]:
    """(outcome, why) of files number ``first`` to ``n`` of a kind, in this process."""
    suffix, write, read, wrong = KINDS[kind]
    path = folder / f"damaged{suffix}"
    write(path)
    whole, good = path.read_bytes(), read(path)
    for number in range(first, n):
        data, change = damaged(
            whole, suffix in (".csv", ".json", ".jsonl"), random.Random(f"{kind} {number}")
        )
        path.write_bytes(data)
        signal.alarm(LIMIT)
        yield outcome(lambda: wrong(read(path), good, change), path, change)  # noqa: B023 (used at once)
        signal.alarm(0)


def outcome(work: Callable[[], str], path: Path, change: str) -> tuple[str, str]:
    """What became of one file, and why."""
    try:
        wrong = work()
    except Exception as error:
        message = str(error)
        named = path.name in message or path.parent.name in message or FILE in message
        kind = isinstance(error, (ValueError, FileNotFoundError)) and not isinstance(error, UnicodeError)
        good = kind and named and "\n" not in message and len(message) < 500
        return ("refused", "") if good else ("words", f"{change}: {type(error).__name__}: {message[:200]!r}")
    return ("silent", f"{change}: {wrong}") if wrong else ("read", "")


def fuzz(kind: str, n: int) -> tuple[Counter, list[str]]:
    """(counts of the outcomes, what was not as it should be) of ``n`` damaged files of a kind."""
    counts, notes, number = Counter(), [], 0
    while number < n:
        line = [sys.executable, __file__, "--read", kind, str(number), str(n)]
        worker = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for said in worker.stdout:
            found, why = json.loads(said)
            counts[found] += 1
            notes += [f"{kind} {number}: {found}: {why}"] if why else []
            number += 1
        error = worker.communicate()[1]
        if number < n:  # it ended in the middle of a file
            if worker.returncode >= 0:
                raise RuntimeError(f"the fuzzer itself failed on {kind}: {error[-2000:]}")
            found = "hung" if worker.returncode == -signal.SIGALRM else "crashed"
            counts[found] += 1
            notes.append(f"{kind} {number}: {found}: signal {-worker.returncode}")
            number += 1
    return counts, notes


def fuzz_all(n_files: int, kinds: list[str] | None = None) -> tuple[pd.DataFrame, list[str]]:
    """A row for each kind of file, and what was not as it should be."""
    rows, notes = [], []
    kinds = kinds or list(KINDS)
    for kind in kinds:
        counts, said = fuzz(kind, -(-n_files // len(kinds)))
        rows.append({"kind": kind, "tried": counts.total()} | {name: counts[name] for name in OUTCOMES})
        notes += said
        print(" ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
    return pd.DataFrame(rows), notes


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=2500, help="damaged files in all")
    parser.add_argument("--kinds", nargs="*", choices=KINDS, help="only these")
    parser.add_argument("--read", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        kind, first, n = given.read
        with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
            for found in read_all(kind, int(first), int(n), Path(folder)):
                print(json.dumps(found), flush=True)
        return 0
    table, notes = fuzz_all(given.files, given.kinds)
    print("\n".join(notes))
    total = table.drop(columns="kind").sum()
    print(" ".join(f"{name} {value}" for name, value in total.items()))
    return int(total[["words", "crashed", "hung", "silent"]].sum() > 0)


if __name__ == "__main__":
    sys.exit(main())

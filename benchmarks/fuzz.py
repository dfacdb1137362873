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
import csv
import io
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile
import torch

from audioxai_utils import files
from audioxai_utils.audio import audio_files, listing
from audioxai_utils.models.checkpoints import load_state
from audioxai_utils.run import progress, records
from audioxai_utils.run.graph import Step
from audioxai_utils.study import attribute
from audioxai_utils.study.settings import FILE, Settings

OUTCOMES = ("read", "refused", "words", "crashed", "hung", "silent")
LIMIT = 60  # seconds for one file
MEMORY = 12 * 2**30  # bytes of addresses: a header that asks for more is an error of the reader
RATE = 16000
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


# Kinds of file: each (write a good one, read it, what is wrong with what came back)


def sound(
    suffix: str, subtype: str, proved: bool, seconds: float = 2.0
) -> tuple[Callable, Callable, Callable]:
    """A sound file; ``proved`` formats have checksums, so that no sample may change."""

    def write(path: Path) -> None:
        time = np.arange(round(seconds * RATE)) / RATE
        draws = np.random.default_rng(0)
        waves = [np.sin(2 * np.pi * f * time) * (0.4 + 0.2 * time / seconds) for f in (440, 660)]
        samples = np.stack(waves, 1) + 0.01 * draws.standard_normal((len(time), 2))
        soundfile.write(path, samples, RATE, subtype, format="OGG" if suffix == ".opus" else None)

    def read(path: Path) -> torch.Tensor:
        audio_files.check_file(path)
        return audio_files.load_waveform(path, RATE)

    def wrong(found: torch.Tensor, good: torch.Tensor, change: str) -> str:
        if found.shape != good.shape or not torch.isfinite(found).all():
            return "another length, or not finite"
        same = (
            torch.equal(found, good) if proved else change != "cut" or torch.allclose(found, good, atol=1e-3)
        )
        return "" if same else "other samples"

    return write, read, wrong


def write_csv(path: Path) -> None:
    rows = [
        f"{fold}-{k}-A-{k}.wav,{fold},{k},{'dog cat 007 NA'.split()[k]}"
        for fold in range(1, 6)
        for k in range(4)
    ]
    (path.parent / "meta").mkdir(exist_ok=True)
    path.write_text("\n".join(["filename,fold,target,category", *rows, ""]))


def read_csv(path: Path) -> tuple[pd.DataFrame, int, bytes]:
    (path.parent / "meta" / "esc50.csv").write_bytes(path.read_bytes())
    table, faults = listing.read_listing(path.parent)
    listing.clip_names(table["filename"].tolist())
    return table, len(faults), path.read_bytes()


def wrong_csv(found: tuple, good: tuple, change: str) -> str:
    table, n_faults, data = found
    text = data.decode("utf-8-sig", "surrogateescape")
    header, *rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    if len(table) + n_faults != len(rows):
        return "a row that is nowhere"
    there = {tuple(row) for row in rows}
    names = [name.strip() for name in header]
    for row in table.astype(object).to_dict("records"):
        said = [
            each
            for each in there
            if len(each) == len(names) and dict(zip(names, each))["filename"] == row["filename"]
        ]
        if not any(_as_written(row, dict(zip(names, each))) for each in said):
            return f"retyped: {row}"
    return ""


def _as_written(row: dict, written: dict) -> bool:
    names = all(type(row[name]) is str and row[name] == written[name] for name in ("filename", "category"))
    return names and all(row[name] == int(written[name]) for name in ("fold", "target"))


def write_npz(path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((64, 101)).astype(np.float32)
    np.savez(path, attribution=values, target=3, p=0.5, seconds=1.0, key="0123456789abcdef")


def read_npz(path: Path) -> dict:
    found = attribute._read(path, "0123456789abcdef")
    if found is None:
        raise ValueError(f"{path}: counts as absent")
    return found


def write_parquet(path: Path) -> None:
    draws = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"score": draws.standard_normal(300), "clip": ["a", "b", "c"] * 100, "label": [0, 1, 2] * 100}
    )
    files.save_parquet(
        frame.assign(correct=frame["label"] > 0, lost=np.where(frame["label"] > 1, np.nan, 1)), path
    )


def write_checkpoint(path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 3))
    torch.save({"model": model.state_dict(), "classes": ["a", "b", "007"], "info": {"best_epoch": 1}}, path)


def write_settings(path: Path) -> None:
    Settings(seed=7, scenarios=("white",), results_dir=str(path.parent)).write(path.parent)
    path.write_bytes((path.parent / FILE).read_bytes())


def read_settings(path: Path) -> tuple[Settings, dict]:
    (path.parent / FILE).write_bytes(path.read_bytes())
    return Settings.read(path.parent), json.loads(path.read_bytes())


def wrong_settings(found: tuple, good: tuple, change: str) -> str:
    settings, written = found
    plain = json.loads(json.dumps({name: getattr(settings, name) for name in settings.__dataclass_fields__}))
    other = [name for name, value in written.items() if name in plain and repr(plain[name]) != repr(value)]
    return f"retyped: {other}" if other else ""


def write_record(path: Path) -> None:
    os.chdir(path.parent)
    about = {"started": 0.0, "cpu_seconds": 1.5, "peak_memory": 1, "threads": 1, "depends_on": {"seed": 1}}
    path.write_bytes(records.write_step(path.parent, Step("05"), notebook="a.ipynb", **about).read_bytes())


def read_record(path: Path) -> dict:
    (path.parent / "steps").mkdir(exist_ok=True)
    (path.parent / "steps" / "05.json").write_bytes(path.read_bytes())
    record = records.read_record(path.parent, "05")
    if not record:
        raise ValueError(f"{path}: counts as absent")
    records.lost(path.parent, OneStep())
    return record


class OneStep:
    """A graph of one step."""

    def steps(self) -> list[str]:
        return ["05"]

    def record(self, name: str) -> str:
        return f"steps/{name}.json"


def write_events(path: Path) -> None:
    lines = [{"step": "03", "is": what, "text": "x"} for what in ("started", "at", "done")]
    path.write_text("".join(f"\n{json.dumps(line)}\n" for line in lines))


def read_events(path: Path) -> list[dict]:
    folder = path.parent / "events"
    folder.mkdir(exist_ok=True)
    (folder / "03.jsonl").write_bytes(path.read_bytes())
    follows = progress.Progress(folder, path.parent / "log", io.StringIO())
    found = list(follows.events.new())
    for event in found:
        follows.take(event)
    return found


def differs(found: Any, good: Any, change: str) -> str:
    """Anything that is not equal."""
    if isinstance(good, pd.DataFrame):
        return "" if found.equals(good) else "other content"
    if isinstance(good, dict):
        same = isinstance(found, dict) and set(found) == set(good)
        return (
            ""
            if same and not any(differs(found[name], good[name], change) for name in good)
            else "other content"
        )
    if isinstance(good, torch.Tensor):
        return "" if torch.equal(found, good) else "other content"
    return "" if np.array_equal(found, good) and type(found) is type(good) else "other content"


def anything(found: Any, good: Any, change: str) -> str:
    """A format that proves nothing: it is enough that the reader goes on."""
    return ""


KINDS: dict[str, tuple[str, Callable, Callable, Callable]] = {
    "csv": (".csv", write_csv, read_csv, wrong_csv),
    "wav": (".wav", *sound(".wav", "PCM_16", proved=False)),
    "wav float": (".wav", *sound(".wav", "FLOAT", proved=False)),
    "aiff": (".aiff", *sound(".aiff", "PCM_24", proved=False)),
    "flac": (".flac", *sound(".flac", "PCM_16", proved=True)),
    "flac long": (".flac", *sound(".flac", "PCM_16", proved=True, seconds=7.0)),
    "ogg": (".ogg", *sound(".ogg", "VORBIS", proved=True)),
    "ogg long": (".ogg", *sound(".ogg", "VORBIS", proved=True, seconds=7.0)),
    "opus": (".opus", *sound(".opus", "OPUS", proved=True)),
    "mp3": (".mp3", *sound(".mp3", "MPEG_LAYER_III", proved=False)),
    "npz": (".npz", write_npz, read_npz, differs),
    "parquet": (".parquet", write_parquet, files.read_parquet, differs),
    "checkpoint": (".pt", write_checkpoint, load_state, differs),
    "settings": (".json", write_settings, read_settings, wrong_settings),
    "record": (".json", write_record, read_record, differs),
    "events": (".jsonl", write_events, read_events, anything),
}


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
        told = str(error)
        named = path.name in told or path.parent.name in told or FILE in told
        kind = isinstance(error, (ValueError, FileNotFoundError)) and not isinstance(error, UnicodeError)
        good = kind and named and "\n" not in told and len(told) < 500
        return ("refused", "") if good else ("words", f"{change}: {type(error).__name__}: {told[:200]!r}")
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

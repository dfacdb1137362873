"""What the fuzzer puts before the readers: for each kind of file a good one, its reader, and what is wrong with
what came back.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable
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

RATE = 16000


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

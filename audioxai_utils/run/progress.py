"""What happens in a run: steps and Snakemake append events to files of their own, which the run reads.

An event is a line of JSON: ``{"step": ..., "is": "started", ...}``. The folder of these files is in the
environment variable ``AUDIOXAI_EVENTS``; it is read in the same way whether the steps run here or on other
machines.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

EVENTS = "AUDIOXAI_EVENTS"
HEARTBEAT = 60.0  # seconds without a line after which the running steps are named
LOOK = 0.2  # seconds between two looks at the events
PATIENCE = 10.0  # seconds that Snakemake has to end its own jobs when it is asked to end


def tell(step: str, what: str, **more: Any) -> None:
    """Append an event to the step's file, where a run wants to know it.

    A disk that is full takes the word and not the work: whoever tells goes on. A line that follows half of
    one begins anew.
    """
    folder = os.environ.get(EVENTS)
    if folder:
        with suppress(OSError), open(Path(folder, f"{step}.jsonl"), "a", encoding="utf-8") as file:
            file.write("\n" + json.dumps({"step": step, "is": what} | more) + "\n")


class Events:
    """The events below a folder, as they come."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.read: dict[Path, int] = {}  # bytes

    def new(self) -> Iterator[dict]:
        """Whole lines since the last look, file by file."""
        for path in sorted(self.folder.glob("*.jsonl")):
            with open(path, "rb") as file:
                file.seek(self.read.get(path, 0))
                whole, newline, _ = file.read().rpartition(b"\n")
            self.read[path] = self.read.get(path, 0) + len(whole) + len(newline)
            for line in whole.splitlines():
                with suppress(ValueError):  # half a line, of a full disk
                    event = json.loads(line)
                    if isinstance(event, dict):
                        yield {"is": "", "step": "", "text": "", "record": "", "total": None} | event


def duration(seconds: float) -> str:
    """``8.3 s``, ``2 min 05 s`` or ``1 h 02 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


class Progress:
    """Follows one Snakemake process and prints a line for each step that starts or ends.

    Parameters
    ----------
    events : path
        Folder of the run's events.
    log : path
        File that keeps everything Snakemake and its steps say.
    stream : text file, optional
        Where the readable lines go; standard output when not given.
    """

    def __init__(self, events: Path, log: Path, stream: TextIO | None = None):
        self.events, self.log = Events(events), log
        self.stream = stream or sys.stdout
        self.total: int | None = None
        self.planned: list[str] = []  # records of the steps that Snakemake would do
        self.running: dict[str, float] = {}
        self.ended: dict[str, dict] = {}  # the last event of a step that is done or has failed
        self.details: dict[str, str] = {}  # how far a running step is, in its own words
        self.errors: list[str] = []  # of Snakemake itself
        self.started = self.spoken = time.monotonic()

    def follow(self, command: list[str], env: dict[str, str]) -> int:
        """Run ``command``, print its progress, and return its exit code."""
        variables = env | {EVENTS: str(self.events.folder)}
        with open(self.log, "wb") as log:
            process = subprocess.Popen(
                command, env=variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            while process.poll() is None:
                self._look()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(LOOK)
            self._look()
            return process.returncode
        finally:
            _end(process)

    @property
    def failures(self) -> list[dict]:
        """The events of the steps that have failed and were not done after all."""
        return [event for _, event in sorted(self.ended.items()) if event["is"] == "failed"]

    def _look(self) -> None:
        for event in self.events.new():
            self.take(event)
        if time.monotonic() > self.spoken + HEARTBEAT:
            self._beat()

    def take(self, event: dict) -> None:
        """Note an event; say it where a step starts or ends."""
        what, step = event["is"], str(event["step"]).replace("-", " ")
        if what == "plan" and self.total is None:
            self.total = event["total"]
            self._print(f"{self.total} {'step' if self.total == 1 else 'steps'} to do (log: {self.log})")
        elif what == "step":
            self.planned.append(event["record"])
        elif what == "error":
            self.errors.append(event["text"])
        elif what == "at":  # kept for the next heartbeat
            self.details[step] = event["text"]
        elif what == "started":
            self.running[step] = time.monotonic()
            self.ended.pop(step, None)  # a step that failed may be tried again
            self._print(f"{'':>7s}  {step}  started")
        elif what in ("done", "failed"):
            self.running.pop(step, None)
            self.details.pop(step, None)
            self.ended[step] = event
            place = f"{len(self.ended)}/{self.total or '?'}"
            self._print(f"{place:>7s}  {step}  {event['text']}")

    def _beat(self) -> None:
        now = self.spoken = time.monotonic()
        if self.running:
            self._print(f"{'...':>7s}  {duration(now - self.started)} so far; running:")
        for name, since in self.running.items():
            detail = f"; {self.details[name]}" if name in self.details else ""
            self._print(f"{'':>7s}  {name}  for {duration(now - since)}{detail}")

    def _print(self, line: str) -> None:
        self.spoken = time.monotonic()
        print(line, file=self.stream, flush=True)


def _end(process: subprocess.Popen) -> None:
    """End a process that still runs: first politely, so that it can end its own jobs."""
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

"""Readable progress of a run: Snakemake's own words go to a log, the steps' lines to the terminal."""

from __future__ import annotations

import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

HEARTBEAT = 60.0  # seconds without a line after which the running steps are named
LOOK = 1.0  # seconds between two looks at the logs of jobs that run elsewhere
STEP_LINE = re.compile(r"\[[^\]]+\] (started$|at .|done in .|FAILED after .)")
NOTHING_TO_DO = "Nothing to be done"


def duration(seconds: float) -> str:
    """``8.3 s``, ``2 min 05 s`` or ``1 h 02 min``."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def planned_steps(log: str) -> list[tuple[str, str]]:
    """(step, reason) of each job in the output of a Snakemake dry run."""
    steps = []
    for block in re.split(r"\n(?=(?:local)?rule \w+:\n)", log):
        output = re.search(r"^ +output: steps/([^,\s]+)\.json", block, re.MULTILINE)
        reason = re.search(r"^ +reason: (.*)$", block, re.MULTILINE)
        if output:
            steps.append((output.group(1), short_reason(reason.group(1) if reason else "")))
    return steps


def short_reason(reason: str) -> str:
    """Snakemake's reason in a few words, with file names instead of whole paths."""
    words = []
    for part in reason.split("; "):
        what, _, files = part.partition(": ")
        if what.startswith("Missing output"):
            words.append("not done yet")
        elif what.startswith("Input files updated by another job"):
            words.append("follows from a step above")
        elif what.startswith("Updated input files"):
            names = dict.fromkeys(Path(name).name for name in files.split(", "))
            words.append("changed: " + ", ".join(names))
        elif what.startswith("Set of input files has changed"):
            words.append("other inputs")
        elif what.startswith("Params have changed"):
            words.append("changed parameters")
        elif what:
            words.append(what[0].lower() + what[1:])
    words = list(dict.fromkeys(words))
    return words[0] if words[:1] == ["not done yet"] else "; ".join(words)


class Progress:
    """Follows one Snakemake process and prints a line for each step that starts or ends.

    Parameters
    ----------
    log : path
        File that keeps everything Snakemake says, and the steps' lines among it.
    stream : text file, optional
        Where the readable lines go; standard output when not given.
    """

    def __init__(self, log: Path, stream: TextIO | None = None):
        self.log = log
        self.stream = stream or sys.stdout
        self.total: int | None = None
        self.ended = 0
        self.running: dict[str, float] = {}
        self.failed: set[str] = set()  # a step that failed may be tried again
        self.details: dict[str, str] = {}  # how far a running step is, in its own words
        self.started = self.told = time.monotonic()

    def follow(self, command: list[str], env: dict[str, str], job_logs: Path | None = None) -> int:
        """Run ``command``, print its progress, and return its exit code.

        Where its steps run elsewhere, their lines are read from the files below ``job_logs``.
        """
        lines: queue.Queue[tuple[str, str | None]] = queue.Queue()
        process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, errors="replace",
        )
        for name in ("stdout", "stderr"):
            threading.Thread(target=_forward, args=(getattr(process, name), name, lines), daemon=True).start()
        ended = threading.Event()
        if job_logs is not None:
            threading.Thread(target=_forward_logs, args=(job_logs, lines, ended), daemon=True).start()
        try:
            with open(self.log, "w", encoding="utf-8") as log:
                self._relay(lines, log, 2)
                ended.set()
                self._relay(lines, log, int(job_logs is not None))
            return process.wait()
        finally:
            ended.set()
            _end(process)

    def _relay(self, lines: queue.Queue, log: TextIO, n_sources: int) -> None:
        """Sort lines until ``n_sources`` sources have ended."""
        while n_sources:
            try:
                source, line = lines.get(timeout=max(0.0, self.told + HEARTBEAT - time.monotonic()))
            except queue.Empty:
                self._beat()
                continue
            if line is None:
                n_sources -= 1
                continue
            log.write(line)
            log.flush()
            if source == "stdout" and line.startswith("["):
                self.step_line(line.rstrip("\n"))
            elif total := re.match(r"total\s+(\d+)\s*$", line):
                self.plan(int(total.group(1)) - 1)  # without the rule that only collects

    def plan(self, total: int) -> None:
        """Note how many steps there are; say it once."""
        if self.total is None:
            self.total = total
            self._print(f"{total} {'step' if total == 1 else 'steps'} to do (log: {self.log})")

    def step_line(self, line: str) -> None:
        """Print a runner's line ``[step] started|done ...|FAILED ...`` with its place in the count.

        ``[step] at ...`` is kept for the next heartbeat.
        """
        name, _, what = line[1:].partition("] ")
        if what.startswith("at "):
            self.details[name] = what[3:]
            return
        if what == "started":
            self.running[name] = time.monotonic()
            self.ended -= name in self.failed  # and is tried again
            self.failed.discard(name)
            place = ""
        elif what.startswith(("done", "FAILED")):
            self.running.pop(name, None)
            self.details.pop(name, None)
            self.failed |= {name} if what.startswith("FAILED") else set()
            self.ended += 1
            place = f"{self.ended}/{self.total or '?'}"
        else:
            place = ""
        self._print(f"{place:>7s}  {name}  {what}")

    def _beat(self) -> None:
        now = self.told = time.monotonic()
        if self.running:
            self._print(f"{'...':>7s}  {duration(now - self.started)} so far; running:")
        for name, since in self.running.items():
            detail = f"; {self.details[name]}" if name in self.details else ""
            self._print(f"{'':>7s}  {name}  for {duration(now - since)}{detail}")

    def _print(self, line: str) -> None:
        self.told = time.monotonic()
        print(line, file=self.stream, flush=True)


def _forward(pipe: TextIO, name: str, lines: queue.Queue) -> None:
    for line in pipe:
        lines.put((name, line))
    lines.put((name, None))


class _GrowingLogs:
    """The steps' own lines in log files that appear and grow below a folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.read: dict[Path, int] = {}  # bytes

    def new_lines(self) -> Iterator[str]:
        """Whole lines since the last look, in the order of the files' names."""
        for path in sorted(self.folder.rglob("*.log")):
            with open(path, "rb") as file:
                file.seek(self.read.get(path, 0))
                whole, newline, _ = file.read().rpartition(b"\n")
            self.read[path] = self.read.get(path, 0) + len(whole) + len(newline)
            lines = whole.decode("utf-8", "replace").splitlines()
            yield from (f"{line}\n" for line in lines if STEP_LINE.match(line))


def _forward_logs(folder: Path, lines: queue.Queue, ended: threading.Event) -> None:
    """Forward the lines of jobs until ``ended``, and what is there then."""
    logs = _GrowingLogs(folder)
    over = False
    while not over:
        over = ended.wait(LOOK)
        for line in logs.new_lines():
            lines.put(("stdout", line))
    lines.put(("stdout", None))


def _end(process: subprocess.Popen) -> None:
    """End a process that still runs: first politely, so that it can end its own jobs."""
    for end, patience in ((process.terminate, 10), (process.kill, None)):
        if process.poll() is None:
            end()
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                continue

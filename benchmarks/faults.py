"""A fault campaign: what a run makes of what happens to it in the field, and readers of damaged files.

    python benchmarks/faults.py --kills 20 --files 2500

A small smoke study is killed at random moments with all its processes, gets a full disk or a slow one, loses a
kernel, is started twice, finds its files damaged or their times changed; then the same command is given again.
Each fault ends as one of

    survived  the run ends well, and every attribution and score is that of a run that nothing disturbed
    lost      it does not end well, however often it is started
    silent    it says that it has finished, and a number is another or the report is not there
    words     it survives, but showed a traceback on the way

`--files` are damaged files for the fuzzer (`fuzz.py`); 0 leaves a part out. With 20 kills about an hour. The whole
smoke study instead, one kind of fault at a time, beside one undisturbed run that is kept:

    python benchmarks/faults.py --only kernels --kernels 2 --undisturbed /tmp/smoke --study --profile smoke
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from fuzz import fuzz_all

from audioxai_utils import files

REPOSITORY = Path(__file__).resolve().parents[1]
STUDY = "--profile smoke --spectrogram mel_db --scenario white --method saliency,gradcam --device cpu".split()
OUTCOMES = ("survived", "lost", "silent", "words")
TRIES = 3  # times that the command is given again
RUNS = 5  # in which a kernel is looked for
LONGEST = 3600.0  # seconds for one run
DAY = 86400.0
DAMAGE = {
    "half": lambda data: data[: len(data) // 2],
    "bit": lambda data: (
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
    ),
    "empty": lambda data: b"",
    "gone": None,
}


class Disturbed:
    """A study that is run again and again in folders of its own, and what an undisturbed run of it gave."""

    def __init__(self, repository: Path, folder: Path, words: list[str], kept: Path | None = None):
        self.folder, self.n_folders = folder, 0
        self.line = [sys.executable, "-P", "-m", "audioxai_utils.run.command_line", *words, "--results"]
        self.env = os.environ | {"PYTHONPATH": str(repository)}
        self.whole = kept or self.fresh()
        took = Path(f"{self.whole}.seconds")  # of the undisturbed run
        if not took.is_file():
            started = time.monotonic()
            done = self.run(self.whole)
            if done.returncode:
                raise RuntimeError(f"the undisturbed run failed: {done.stdout}{done.stderr}")
            took.write_text(str(time.monotonic() - started))
        self.seconds = float(took.read_text())
        self.bytes = sum(path.stat().st_size for path in self.whole.rglob("*") if path.is_file())
        self.good = contents(self.whole)

    def fresh(self) -> Path:
        """A folder for results; it is not there yet."""
        self.n_folders += 1
        return self.folder / f"results-{self.n_folders}"

    def copy(self) -> Path:
        """A copy of the undisturbed results, times included."""
        return shutil.copytree(self.whole, self.fresh(), symlinks=True)

    def start(self, results: Path) -> subprocess.Popen:
        """A run in a session of its own; what it says goes to a file beside its results."""
        with open(f"{results}.said", "ab") as said:
            return subprocess.Popen(
                [*self.line, results], env=self.env, stdout=said, stderr=said, start_new_session=True
            )

    def run(self, results: Path) -> subprocess.CompletedProcess:
        """A run to its end."""
        return subprocess.run(
            [*self.line, results], env=self.env, capture_output=True, text=True, timeout=LONGEST, check=False
        )

    def outcome(self, results: Path) -> str:
        """Give the command again until it ends well; see above for what comes back."""
        said = Path(f"{results}.said")
        message = said.read_text(errors="replace") if said.exists() else ""
        for _ in range(TRIES):
            done = self.run(results)
            message += done.stdout + done.stderr
            if done.returncode == 0:
                break
        else:
            print(message[-1500:])
            return "lost"
        found = contents(results)
        differ = [path for path in self.good if not np.array_equal(found.get(path), self.good[path])]
        half = list(results.rglob(f"{files.PARTIAL}*"))
        if differ or half or not (results / "report" / "index.html").is_file():
            print("differs:", *differ[:3], *half)
            return "silent"
        return "words" if "Traceback" in message else "survived"


def contents(results: Path) -> dict[str, np.ndarray]:
    """What a run has computed, without the seconds that it took: bytes of every attribution and score."""
    found = {}
    for path in (*results.glob("scores/[!b]*/*.parquet"), *results.glob("attributions/**/*.npz")):
        start = path.read_bytes()[:4]
        if start == b"PAR1":
            frame = pd.read_parquet(path).drop(columns="seconds")
            content = pd.util.hash_pandas_object(frame).to_numpy()
        elif start[:2] == b"PK":
            content = np.load(path)["attribution"]
        else:  # of a toy
            content = np.frombuffer(path.read_bytes(), np.uint8)
        found[str(path.relative_to(results))] = content
    return found


# Faults: each yields what became of one


def kills(study: Disturbed, n: int, draw: random.Random) -> Iterator[str]:
    """The whole process group at a random moment, again and again until the run is faster."""
    while n > 0:
        results, killed = study.fresh(), 0
        while killed < n:
            process, started = study.start(results), time.monotonic()
            try:
                process.wait(draw.uniform(0.02, 0.6) * study.seconds)
                study.seconds = min(study.seconds, time.monotonic() - started)  # faster than the first
                break
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                killed += 1
        found = study.outcome(results)
        yield from [found] * killed
        n -= killed


def disks(study: Disturbed, n: int, draw: random.Random) -> Iterator[str]:
    """A disk that is too small, by more or less, and has room again afterwards."""
    for _ in range(n):
        place = study.folder / "disk"
        place.mkdir(exist_ok=True)
        size = round(draw.uniform(0.05, 0.9) * study.bytes)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place]
        if (
            shutil.which("mount") is None
            or subprocess.run(mount, capture_output=True, check=False).returncode
        ):
            print("full disk: left out, none can be mounted here (that takes root)")
            return
        try:
            study.start(place / "results").wait(LONGEST)
            subprocess.run(["mount", "-o", f"remount,size={9 * study.bytes}", place], check=True)
            yield study.outcome(place / "results")
        finally:
            subprocess.run(["umount", "-l", place], check=True)


def slow_disks(study: Disturbed, n: int, draw: random.Random) -> Iterator[str]:
    """A disk that takes 20 to 100 writes and 0.2 to 2 MB a second, by the kernel's own limit."""
    limits = Path("/sys/fs/cgroup/blkio")
    place, image = study.folder / "slow", study.folder / "slow.img"
    for _ in range(n):
        place.mkdir(exist_ok=True)
        with open(image, "wb") as file:
            file.truncate(8 * study.bytes + 2**27)
        made = [["mkfs.ext4", "-q", "-F", image], ["mount", "-o", "loop,sync", image, place]]
        if not (limits / "blkio.throttle.write_bps_device").exists() or not all(map(_does, made)):
            print(
                "slow disk: left out, no disk can be mounted and limited here (root, and control groups v1)"
            )
            return
        disk = os.stat(place).st_dev
        slow = {"write_bps": round(2e6 * 10 ** -draw.random()), "write_iops": draw.randint(20, 100)}
        for what, most in slow.items():
            (limits / f"blkio.throttle.{what}_device").write_text(f"{os.major(disk)}:{os.minor(disk)} {most}")
        try:
            started = time.monotonic()
            found = study.outcome(place / "results")
            print(f"slow disk: {slow}, {time.monotonic() - started:.0f} s", flush=True)
            yield found
        finally:
            for what in slow:
                (limits / f"blkio.throttle.{what}_device").write_text(f"{os.major(disk)}:{os.minor(disk)} 0")
            subprocess.run(["umount", "-l", place], check=True)
            image.unlink()


def _does(line: list) -> bool:
    """Whether a command is there and ends well."""
    return (
        shutil.which(line[0]) is not None
        and not subprocess.run(line, capture_output=True, check=False).returncode
    )


def kernels(study: Disturbed, n: int, draw: random.Random) -> Iterator[str]:
    """A kernel, by SIGKILL at a random moment; the run names it, or starts another."""
    for _ in range(n):
        for _ in range(RUNS):  # one may have ended before the moment
            results = study.fresh()
            process = study.start(results)
            killed = _kill_a_kernel(process, draw.uniform(0.02, 0.7) * study.seconds, draw)
            process.wait(LONGEST)
            if killed:
                break
        else:
            print(f"kernel: left out, {RUNS} runs showed none to kill", flush=True)
            return
        said = Path(f"{results}.said").read_text(errors="replace")
        print(f"kernel: killed {killed}, exit code {process.returncode}", flush=True)
        named = process.returncode == 0 or "the kernel died" in said
        found = study.outcome(results)
        yield found if named else f"words: {said[-300:]}"


def _kill_a_kernel(process: subprocess.Popen, seconds: float, draw: random.Random) -> str:
    """Kill one of the kernels that a run has, ``seconds`` after its start; the notebook's step, or nothing."""
    moment = time.monotonic() + seconds
    while process.poll() is None:
        time.sleep(0.05)
        if time.monotonic() < moment:
            continue
        family = _children(process.pid)
        found = [each for each in family if "ipykernel_launcher" in " ".join(_words(each))]
        if found:
            chosen = draw.choice(found)
            step = " ".join(word for word in _words(chosen.parent()) if word.endswith(".ipynb"))
            chosen.kill()
            return f"{chosen.pid} of {step or 'a step'}"
    return ""


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:  # it has ended
        return []


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it has ended
        return []


def pairs(study: Disturbed, n: int, draw: random.Random) -> Iterator[str]:
    """Two runs at once: one is refused, the other ends."""
    for _ in range(n):
        results = study.fresh()
        codes = [process.wait(LONGEST) for process in [study.start(results), study.start(results)]]
        found = study.outcome(results)
        yield found if sorted(codes) == [0, 2] else f"words: exit codes {codes}"


def damages(study: Disturbed, n: int, draw: random.Random) -> Iterator[str]:
    """A file of every kind that a finished run has left: half, another bit, empty, gone."""
    for number in range(n):
        results, kinds = study.copy(), {}
        for path in sorted(results.rglob("*")):
            if path.is_file() and not path.name.startswith(".") and ".snakemake" not in path.parts:
                kinds.setdefault((path.relative_to(results).parts[0], path.suffix), []).append(path)
        change = list(DAMAGE.values())[number % len(DAMAGE)]
        for paths in kinds.values():
            path = draw.choice(paths)
            data = path.read_bytes()
            path.unlink()  # it may share its content with another
            if change and data:
                path.write_bytes(change(data))
        found = study.outcome(results)
        yield from [found] * len(kinds)


def clocks(study: Disturbed, n: int, draw: random.Random) -> Iterator[str]:
    """Times of a random half of the files, days before or after; the clock was put right, or wrong."""
    for _ in range(n):
        results = study.copy()
        for path in sorted(results.rglob("*")):
            if path.is_file() and draw.random() < 0.5:
                when = time.time() + draw.uniform(-400, 400) * DAY
                os.utime(path, (when, when))
        yield study.outcome(results)


FAULTS = {each.__name__: each for each in (kills, disks, slow_disks, kernels, pairs, damages, clocks)}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, n in zip(FAULTS, (20, 3, 2, 3, 2, 4, 2), strict=True):
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=int,
            default=n,
            metavar="N",
            help=f"{FAULTS[name].__doc__} ({n})",
        )
    parser.add_argument(
        "--files", type=int, default=2500, metavar="N", help="damaged files for the fuzzer (2500)"
    )
    parser.add_argument("--only", choices=FAULTS, help="one kind of fault, and no fuzzer")
    parser.add_argument(
        "--undisturbed", type=Path, metavar="FOLDER", help="results of the undisturbed run, made where absent"
    )
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    parser.add_argument("--repository", type=Path, default=REPOSITORY, help="whose study is run (this one)")
    parser.add_argument(
        "--study", nargs=argparse.REMAINDER, default=STUDY, help="options of the run, at the end"
    )
    given = parser.parse_args()
    asked = {name: getattr(given, name) for name in FAULTS if given.only in (None, name)}
    n_files = 0 if given.only else given.files
    rows = []
    with tempfile.TemporaryDirectory(prefix="faults") as folder:
        study = Disturbed(given.repository, Path(folder), given.study, given.undisturbed)
        print(f"an undisturbed run: {study.seconds:.0f} s, {len(study.good)} files of numbers", flush=True)
        for name, n in asked.items():
            found: Counter[str] = Counter()
            for outcome in FAULTS[name](study, n, random.Random(f"{name} {given.seed}")):
                print(name, outcome, flush=True)  # whoever stops the campaign has what it found so far
                found[outcome] += 1
            rows.append({"fault": name, "tried": found.total()} | {each: found[each] for each in OUTCOMES})
            rows[-1]["words"] += sum(n for word, n in found.items() if word not in OUTCOMES)
            print(*(f"{each} {value}" for each, value in rows[-1].items()), flush=True)
    table, notes = fuzz_all(n_files) if n_files else (pd.DataFrame(), [])
    print(*notes, sep="\n")
    tables = [each.to_string(index=False) for each in (pd.DataFrame(rows), table) if len(each)]
    print(*tables, sep="\n\n")
    bad = [row[name] for row in rows for name in ("lost", "silent", "words")]
    bad += [table[name].sum() for name in ("words", "crashed", "hung", "silent") if len(table)]
    return int(any(bad))


if __name__ == "__main__":
    sys.exit(main())

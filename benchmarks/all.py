"""Every benchmark, one after another: ours beside the libraries' own paths, and how cost grows.

    python benchmarks/all.py --results results/generated-quick

With `--results` the tables are kept in `benchmarks/` of that run's results, with a description of the
machine, and its report shows them when the run is started again (it makes the report alone). About
ten minutes on two idle cores; what else runs on the machine changes seconds, and processor seconds little.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
COMMANDS = (
    (
        "explain.py",
        "--width",
        "0.25",
        "--clips",
        "2",
        "--samples",
        "1000",
        "--background",
        "100",
        "--bfloat16",
    ),
    ("scores.py",),
    ("growth.py",),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", help="results folder of a run, whose report then shows the tables")
    parser.add_argument("--threads", type=int, help="default: one for each core")
    parser.add_argument(
        "--device", help="cpu (default) or cuda; the model is then of full width, as in the paper's profile"
    )
    given = parser.parse_args()
    options = [word for name, value in vars(given).items() if value for word in (f"--{name}", str(value))]
    on_gpu = (given.device or "").startswith("cuda")
    for script, *words in COMMANDS:
        if on_gpu and script == "explain.py":
            words[words.index("--width") + 1] = "1"
            words[words.index("--clips") + 1] = "64"  # as many as the study explains in one call
        print(f"\n{script} {' '.join(words)}", flush=True)
        if code := subprocess.run(
            [sys.executable, "-P", HERE / script, *words, *options], check=False
        ).returncode:
            sys.exit(code)


if __name__ == "__main__":
    main()

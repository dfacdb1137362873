"""How the cost of the fast engines grows with clips, LIME's samples, SHAP's background and the model's width.

    python benchmarks/growth.py --threads 2

One size grows at a time, each point in a fresh process. The others are small (`FIXED`, far below the
study's), so that it is done in minutes. Clips are explained one call each, as in the study: what a
call leaves behind would show as memory that grows. `--results` is as in all.py.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])

from explain import clips, warmed_up  # noqa: E402
from measuring import add_options, cost, in_fresh_process, show  # noqa: E402

from audioxai_utils.constants import SPECTROGRAM_TYPES  # noqa: E402

FIXED = {"clips": 1, "samples": 25, "background": 10, "width": 1 / 16}  # while another one grows
SIZES = {
    "clips": (50, 100, 200, 400), "samples": (250, 500, 1000, 2000), "background": (10, 25, 50, 100),
    "width": (1 / 8, 1 / 4, 1 / 2, 1.0),
}  # fmt: skip
GROWING = {
    "clips": ("lime", "shap"),
    "samples": ("lime",),
    "background": ("shap",),
    "width": ("lime", "shap"),
}


def measure(method: str, arguments: argparse.Namespace) -> dict:
    """What explaining the clips costs, one call each, in this process.

    Each is made when its turn comes: freed memory of many at once would hide what explaining takes.
    """
    one = argparse.Namespace(**{**vars(arguments), "clips": 1})
    explain, options, model, _, target = warmed_up(f"{method} fast", one)

    def work() -> None:
        for i in range(arguments.clips):
            explain(model, clips(1, arguments, arguments.seed + i), target, **options)

    return cost(work, arguments.device)


def point(grows: str, size: float, method: str, arguments: argparse.Namespace) -> dict:
    """One row of the table."""
    sizes = argparse.Namespace(**{**vars(arguments), **FIXED, grows: size})
    spent = in_fresh_process(measure, method, sizes)
    return {
        "grows": grows,
        "size": size,
        "method": method,
        "s/clip": spent["seconds"] / sizes.clips,
        "CPU s/clip": spent["cpu_seconds"] / sizes.clips,
        "s/unit": spent["cpu_seconds" if arguments.device == "cpu" else "seconds"] / size,
        "peak MB": spent["peak_mb"],
    }


def fits(points: pd.DataFrame) -> pd.DataFrame:
    """Per size that grows and method the exponent b of processor seconds = a size^b, and the memory at both
    ends.
    """
    rows = []
    for (grows, method), part in points.groupby(["grows", "method"], sort=False):
        spent, ends = part["s/unit"] * part["size"], part.sort_values("size")["peak MB"]
        exponent = np.polyfit(np.log(part["size"]), np.log(spent), 1)[0] if len(part) > 1 else np.nan
        rows.append(
            {
                "grows": grows,
                "method": method,
                "exponent": exponent,
                "peak MB, smallest size": ends.iloc[0],
                "peak MB, largest size": ends.iloc[-1],
            }
        )
    return pd.DataFrame(rows)


def parse(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, sizes in SIZES.items():
        kind = float if name == "width" else int
        words = f"sizes of the {name}; none leaves it out (default {' '.join(f'{size:g}' for size in sizes)})"
        parser.add_argument(f"--{name}", type=kind, nargs="*", default=list(sizes), help=words)
    parser.add_argument("--spectrogram", default="mel_db", choices=SPECTROGRAM_TYPES)
    parser.set_defaults(network="cnn14")
    add_options(parser)
    return parser.parse_args(given)


def main() -> None:
    arguments = parse()
    rows = []
    for grows, methods in GROWING.items():
        for method in methods:
            for size in getattr(arguments, grows):
                rows.append(point(grows, size, method, arguments))
                print(f"{grows} {size:g}, {method}: {rows[-1]['CPU s/clip']:.3g} CPU s a clip", flush=True)
    points = pd.DataFrame(rows)
    fixed = ", ".join(f"{name} {size:g}" for name, size in FIXED.items())
    setting = f"{arguments.spectrogram}, Cnn14, one size grows while the others are: {fixed}"
    show({"growth_fits": fits(points), "growth": points}, setting, arguments)


if __name__ == "__main__":
    main()

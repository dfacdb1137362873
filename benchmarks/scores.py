"""Time of sparseness and complexity of all fourteen masks: this package beside Quantus.

    python benchmarks/scores.py --clips 20 --threads 2

Both score the same masks, made from one seeded attribution a clip. Quantus takes one mask a call,
as the published runs used it. The last column is the largest difference of a value. `--results`
is as in all.py.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])

from measuring import add_options, cost, in_fresh_process, show  # noqa: E402

from audioxai_utils.constants import SPECTROGRAM_TYPES, SPECTROGRAMS  # noqa: E402
from audioxai_utils.evaluation.masks import build_masks  # noqa: E402
from audioxai_utils.evaluation.metrics import complexity, sparseness  # noqa: E402


def attributions(n: int, spectrogram_type: str, seed: int) -> torch.Tensor:
    """Seeded signed maps with heavy tails, (n, 1, F, T)."""
    settings = SPECTROGRAMS[spectrogram_type]
    shape = (n, 1, settings.n_bins, settings.n_frames(5 * settings.sample_rate))
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) ** 3


def ours(masks: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {
        name: np.stack([metric(mask).cpu().numpy() for metric in (sparseness, complexity)])
        for name, mask in masks.items()
    }


def by_quantus(masks: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """The same by one call a mask; constant masks are left to NaN, which Quantus refuses."""
    import quantus

    options = {"disable_warnings": True, "display_progressbar": False, "abs": True, "normalise": False}
    metrics = [quantus.Sparseness(**options), quantus.Complexity(**options)]
    found = {}
    for name, mask in masks.items():
        x, y = np.zeros(mask.shape[1:], dtype=np.float32)[None], np.zeros(1, dtype=int)
        rows = [
            [m(model=None, x_batch=x, y_batch=y, a_batch=one[None].numpy())[0] for one in mask]
            for m in metrics
        ]
        found[name] = np.array(rows)
    return found


def timed(
    function, masks: dict[str, torch.Tensor], n_times: int, device: str
) -> tuple[float, dict[str, np.ndarray]]:
    """Seconds a mask, the mean of ``n_times`` after one that does not count, and the values.

    They are seconds of processor time, and by the clock where a GPU works.
    """
    values = function(masks)
    found = cost(lambda: [function(masks) for _ in range(n_times)], device)
    clock = "cpu_seconds" if device == "cpu" else "seconds"
    return found[clock] / n_times / sum(len(mask) for mask in masks.values()), values


def measure(kind: str, arguments: argparse.Namespace) -> dict:
    """One row: both paths on the masks of one kind of spectrogram, in this process."""
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    masks = build_masks(attributions(arguments.clips, kind, arguments.seed), "paper")
    masks = {name: mask for name, mask in masks.items() if mask.flatten(1).std(1).min() > 0}
    there = {name: mask.to(arguments.device) for name, mask in masks.items()}
    (mine, own), (theirs, reference) = (
        timed(ours, there, 10, arguments.device),
        timed(by_quantus, masks, 1, arguments.device),
    )
    difference = max(np.abs(own[name] - reference[name]).max() for name in masks)
    clock = "CPU ms a mask" if arguments.device == "cpu" else "ms a mask"
    return {
        "spectrogram": kind,
        "masks": len(masks),
        f"ours, {clock}": 1000 * mine,
        f"Quantus, {clock}": 1000 * theirs,
        "ratio": theirs / mine,
        "difference": difference,
    }


def parse(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=20)
    add_options(parser)
    return parser.parse_args(given)


def main() -> None:
    arguments = parse()
    rows = [in_fresh_process(measure, kind, arguments) for kind in SPECTROGRAM_TYPES]
    show({"scores": pd.DataFrame(rows)}, f"all masks of {arguments.clips} clips", arguments)


if __name__ == "__main__":
    main()

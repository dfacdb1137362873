"""Scores on file: all masks of a condition's clips, a block of clips a file, with a key of all they were
computed from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..constants import PROTOCOLS
from ..evaluation.controls import all_ones, clip_seed, control_masks, control_ranks, energy_kept, oracle_mask
from ..evaluation.masks import MASKS, build_masks
from ..evaluation.metrics import METRICS
from ..evaluation.overview import EQUAL
from ..evaluation.scoring import MaskScorer, score_masks
from ..files import read_parquet, save_parquet
from .callables import code_digest
from .classifiers import Classifier
from .clips import is_correct
from .sources import digest

BLOCK = 8  # clips whose masks are in memory at once, and that are in one file
GPU_BLOCK = 100  # there a mask costs its calls, however many clips it is of


def block_size(device: str) -> int:
    """Clips of a block on a device."""
    return GPU_BLOCK if device == "cuda" else BLOCK


def score_block(
    classifier: Classifier,
    block,
    number: int,
    attributed: dict,
    protocols: list[str],
    folder: Path,
    names: dict,
) -> pd.DataFrame:
    """Score all masks of the methods on a block of clips, or read what was scored before.

    Under ``audited`` what is heard is scored too, and every mask has its controls: rows with ``control``
    random or energy of exactly the mask's area, those of `EQUAL` heard too, and all_ones and oracle once per
    clip. Where source and interferer are known, so is what a mask keeps of either (dB) and the SI-SDR (dB)
    of its sound.

    Parameters
    ----------
    classifier : Classifier
    block : Clips
    number : int
        Of the block, in the file's name.
    attributed : dict
        Method -> (attributions (n, 1, F, T), seconds of each).
    protocols : list of str
    folder : Path
        Of the condition's blocks.
    names : dict
        Columns that are the same in every row, such as the condition's.

    Returns
    -------
    pandas.DataFrame
        Tidy: one row per protocol, clip, method, mask and control ("" for the method itself).
    """
    path = folder / f"{number:06d}-{_key(classifier, block, attributed, protocols)}.parquet"
    stored = _stored(path)
    if stored is not None:
        return stored
    made = _Block.of(classifier, block)
    n_bins, n_frames = made.scorer.batch.db.shape[2:]
    scores = pd.concat(_scored(made, attributed, protocols), ignore_index=True)
    save_parquet(_tidy(scores.assign(n_bins=n_bins, n_frames=n_frames), block.frame, names), path)
    for old in folder.glob(f"{number:06d}-*.parquet"):
        if old != path:
            old.unlink(missing_ok=True)
    return read_parquet(path)


def _stored(path: Path) -> pd.DataFrame | None:
    """A block that was scored; None where there is none, or a damaged one."""
    try:
        return read_parquet(path)
    except (FileNotFoundError, ValueError):
        return None


def _key(classifier: Classifier, block, attributed: dict, protocols: list[str]) -> str:
    about = [digest(__name__), classifier.digest, *protocols]
    about += [f"{name} {code_digest(rule)}" for name, rule in sorted(MASKS.items())]
    about += [f"{name} {code_digest(each.rule)} {each.better}" for name, each in sorted(METRICS.items())]
    about += [*block.frame["clip"], *block.frame["category"], *block.frame["label"].astype(str)]
    found = hashlib.sha256(" ".join(about).encode())
    for waveforms in (block.waveforms, *(block.stems or ())):
        found.update(waveforms.numpy().tobytes())
    for method, (attribution, seconds) in attributed.items():
        found.update(f"{method} {seconds}".encode() + attribution.numpy().tobytes())
    return found.hexdigest()[:24]


def _scored(block: _Block, attributed: dict, protocols: list[str]) -> Iterator[pd.DataFrame]:
    """Scores of every method and protocol, with their controls and bounds under ``audited``."""
    for method, (attribution, seconds) in attributed.items():
        values = attribution.to(block.scorer.batch.db)
        for protocol in protocols:
            masks = build_masks(values, protocol)
            scores = block.score(masks, protocol)
            yield scores.assign(method=method, seconds=np.array(seconds)[scores["index"]])
            if protocol == "audited":
                yield from (frame.assign(method=method) for frame in block.controls(masks))
    if "audited" in protocols:
        yield from block.bounds()


class _Block:
    """A few clips of a condition with everything their masks are scored against."""

    def __init__(self, scorer: MaskScorer, names: list[str], stems) -> None:
        self.scorer, self.stems = scorer, stems
        self.powers = None if stems is None else [scorer.spectrogram(stem).power for stem in stems]
        self.ranks = control_ranks(scorer.batch.power, [clip_seed(name) for name in names])

    @classmethod
    def of(cls, classifier: Classifier, clips) -> _Block:
        stems = None if clips.stems is None else [classifier.sound(stem) for stem in clips.stems]
        scorer = classifier.scorer(clips.waveforms, clean=None if stems is None else stems[0])
        return cls(scorer, list(clips.frame["clip"]), stems)

    def score(self, masks: dict[str, torch.Tensor], protocol: str) -> pd.DataFrame:
        scores = score_masks(self.scorer, masks, protocol, heard=protocol == "audited")
        if protocol == "audited" and self.stems is not None:
            parts = [self._parts(mask) for mask in masks.values()]
            for name in parts[0]:
                scores[name] = torch.cat([values[name] for values in parts]).cpu().numpy()
        return scores.assign(protocol=protocol, control="")

    def _parts(self, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the mask keeps of source and interferer, and how near its sound is to the source."""
        return energy_kept(mask, *self.powers) | {"si_sdr": self.scorer.si_sdr(mask)}

    def controls(self, masks: dict[str, torch.Tensor]) -> Iterator[pd.DataFrame]:
        """random and energy at the area of every mask, heard too where all methods keep as much."""
        by_name: dict[str, dict[str, torch.Tensor]] = {"random": {}, "energy": {}}
        for name, mask in masks.items():
            for control, matched in control_masks(mask, self.scorer.batch.power, ranks=self.ranks).items():
                by_name[control][name] = matched
        for control, matched in by_name.items():
            for heard in (False, True):
                some = {name: mask for name, mask in matched.items() if (name == EQUAL) == heard}
                if some:
                    scores = score_masks(self.scorer, some, "audited", heard)
                    yield scores.assign(protocol="audited", control=control)

    def bounds(self) -> Iterator[pd.DataFrame]:
        """all_ones, and oracle where the stems are known."""
        masks = {"all_ones": all_ones(self.scorer.batch.db)}
        if self.stems is not None:
            masks["oracle"] = oracle_mask(*self.powers).to(self.scorer.batch.db)
        for name, mask in masks.items():
            for protocol in PROTOCOLS:
                yield self.score({"": mask}, protocol).assign(control=name, method="")


def _tidy(scores: pd.DataFrame, frame: pd.DataFrame, names: dict) -> pd.DataFrame:
    """Names of condition, method, mask, control and clip in front of the numbers."""
    clip = frame.iloc[scores.pop("index").to_numpy()].reset_index(drop=True)
    known = {
        "protocol": scores.pop("protocol"),
        **names,
        "method": scores.pop("method"),
        "mask": scores.pop("mask"),
        "control": scores.pop("control"),
        "clip": clip["clip"],
        "category": clip["category"],
        "label": clip["label"],
        "correct": is_correct(clip["label"], scores["target"]),
    }
    return pd.concat([pd.DataFrame(known), scores], axis=1)

"""Does what is faithful also sound good? Quality of the kept sounds of a condition, beside their
faithfulness.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch.nn import functional

from ..evaluation import bootstrap
from ..evaluation.frames import CONDITION
from ..evaluation.masks import build_masks
from ..evaluation.quality import BETTER, QualityMeter, speech_quality
from ..evaluation.scoring import score_masks
from ..words import combination_label, condition_label, percent
from .localisation import LEAST_SI_SDR

if TYPE_CHECKING:
    from ..study.condition import Condition

SMOOTHED = " smoothed"  # behind the name of a mask that was blurred
SIGMA = (1.0, 1.5)  # bins and frames of the blur
QUALITY = ("si_sdr", "sdr", "lsd", "convergence", "musical_noise", "loudness", "stoi", "pesq")
FAITHFUL = ("FF_heard", "FidIn_heard", "AD_heard")
BINARY = ("bin", "pos_thresh_25", "topK_5_pos", "topK_30_pos", "topK_50_pos")  # worth smoothing
EQUAL = 0.05  # FidIn by which two variants of a mask may differ and be called equally faithful


def smoothed(mask: torch.Tensor, sigma: tuple[float, float] = SIGMA) -> torch.Tensor:
    """A mask (n, 1, F, T) blurred by a Gaussian over bins and frames, in [0, 1]; edges are repeated."""
    for axis, width in enumerate(sigma):
        radius = math.ceil(3 * width)
        place = torch.arange(-radius, radius + 1, dtype=mask.dtype, device=mask.device)
        kernel = torch.exp(-(place**2) / (2 * width**2))
        shape, pad = [1, 1, 1, 1], [0, 0, 0, 0]
        shape[2 + axis] = len(place)
        pad[2 - 2 * axis : 4 - 2 * axis] = [radius, radius]
        kernel = (kernel / kernel.sum()).view(shape)
        mask = functional.conv2d(functional.pad(mask, pad, mode="replicate"), kernel)
    return mask.clamp(0, 1)


def quality(
    condition: Condition,
    methods: Sequence[str] | None = None,
    masks: Sequence[str] | None = None,
    n_clips: int | None = None,
    speech: bool = False,
) -> pd.DataFrame:
    """Quality and heard faithfulness of what the masks of a condition keep, a row per clip, method and mask.

    Binary masks come smoothed too (`smoothed`), as ``<mask> smoothed``. The whole clip, inverted by its own
    phase, is ``all`` with the mask ``all``.

    Parameters
    ----------
    condition : Condition
        Its attributions are on file. Where the clips' parts are known, the stem of the class is the
        reference.
    methods, masks : sequence of str, optional
        By default all that are on file, and the fourteen.
    n_clips : int, optional
        Spread over the classes, by default the profile's of notebook 11.
    speech : bool
        Measure STOI, and PESQ where it is installed, too: against the stem, else against the clip.

    Returns
    -------
    DataFrame
        spectrogram_type, noise_scenario, clip, method, mask, area, p_clip, FF_heard, FidIn_heard, AD_heard
        and the measures of `quality.sound_quality` and `quality.speech_quality` as far as they are known.
    """
    part = condition.first(n_clips or condition.study.settings.sizes.n_swept)
    scorer, waveform = part.scorer(), part.classifier.sound(part.clips.waveforms)
    like = scorer.batch.db
    source = None if part.clips.stems is None else part.clips.stems[0].to(like)
    frames = [_measured(scorer, {"all": torch.ones_like(like)}, waveform, source, speech)]
    frames[0] = frames[0].assign(method="all")
    for method in methods or condition.methods:
        built = build_masks(part.attributions(method).to(like), "audited", masks)
        soft = {name + SMOOTHED: smoothed(built[name]) for name in BINARY if name in built}
        frames.append(_measured(scorer, built | soft, waveform, source, speech).assign(method=method))
    table = pd.concat(frames, ignore_index=True)
    table.insert(0, "clip", part.clips.frame["clip"].to_numpy()[table.pop("index").to_numpy()])
    for name, value in zip(reversed(CONDITION), reversed(condition.pair)):
        table.insert(0, name, value)
    return table


def _measured(
    scorer, masks: dict, waveform: torch.Tensor, source: torch.Tensor | None, speech: bool
) -> pd.DataFrame:
    scores = score_masks(scorer, masks, "audited", heard=True)
    columns = ["index", "mask", "area", "p_clip", *FAITHFUL]
    rate, wanted = scorer.spectrogram.sample_rate, waveform if source is None else source
    parts, measure = [], QualityMeter(waveform, rate, source)
    for name, mask in masks.items():
        kept = scorer.kept(mask)
        measured = measure(kept)
        measured |= speech_quality(kept, wanted, rate) if speech else {}
        rows = pd.DataFrame({key: value.cpu().numpy() for key, value in measured.items()})
        parts.append(rows.assign(mask=name, index=range(len(rows))))
    return scores[columns].merge(pd.concat(parts), on=["index", "mask"], validate="one_to_one")


def means(table: pd.DataFrame) -> pd.DataFrame:
    """Mean of every measure over the clips where it is known, with 95 % intervals (``_low``,
    ``_high``).

    A row per condition, method and mask, with ``n`` clips. SI-SDR and SDR below `LEAST_SI_SDR` count as that.
    """
    measures = [name for name in (*FAITHFUL, *QUALITY, "area") if name in table]
    rows = []
    for keys, part in _floored(table).groupby([*CONDITION, "method", "mask"], sort=False):
        row = dict(zip([*CONDITION, "method", "mask"], keys)) | {"n": len(part)}
        found = bootstrap.means_with_intervals(part[measures].astype(float), measures)
        for name, each in zip(measures, found.itertuples()):
            row |= {name: each.mean, f"{name}_low": each.low, f"{name}_high": each.high}
        rows.append(row)
    return pd.DataFrame(rows)


def _floored(table: pd.DataFrame) -> pd.DataFrame:
    """Without the depths of a sound that has nothing of its reference, silence among them: one of them would
    be the mean, and without the silent ones a mask would be judged by its easy clips.
    """
    ratios = [name for name in ("si_sdr", "sdr") if name in table]
    keys = [*CONDITION, "clip"]
    whole = table[keys].merge(table.loc[table["method"] == "all", [*keys, *ratios]], "left", on=keys)[ratios]
    known = table[ratios].notna() | whole.set_axis(table.index).notna()  # else the clip's stem is silent
    floored = table[ratios].fillna(LEAST_SI_SDR).clip(lower=LEAST_SI_SDR).where(known)
    return table.assign(**{name: floored[name] for name in ratios})


def smoothing_gains(table: pd.DataFrame) -> pd.DataFrame:
    """What smoothing a binary mask changes, paired over clips: mean difference and its 95 % interval.

    Returns
    -------
    DataFrame
        Condition, method, mask, measure, n, difference, low, high; differences are smoothed minus plain.
    """
    keys, rows = [*CONDITION, "clip", "method"], []
    measures = [name for name in ("FidIn_heard", "FF_heard", *QUALITY) if name in table]
    table = _floored(table)
    soft = table[table["mask"].str.endswith(SMOOTHED)]
    soft = soft.assign(mask=soft["mask"].str.removesuffix(SMOOTHED))
    both = table.merge(soft, on=[*keys, "mask"], suffixes=("", "_soft"))
    for names, part in both.groupby([*CONDITION, "method", "mask"], sort=False):
        soft, plain = (part[[f"{name}{end}" for name in measures]] for end in ("_soft", ""))
        found = bootstrap.paired_difference(soft.to_numpy(dtype=float), plain.to_numpy(dtype=float))
        found.insert(0, "measure", measures)
        for name, value in zip(reversed([*CONDITION, "method", "mask"]), reversed(names)):
            found.insert(0, name, value)
        rows.append(found)
    return pd.concat(rows, ignore_index=True)


def measure_of(table: pd.DataFrame) -> str:
    """The measure to show first: SI-SDR where the clean sounds are known, else musical noise."""
    return "si_sdr" if "si_sdr" in table and table["si_sdr"].notna().any() else "musical_noise"


def summary(table: pd.DataFrame, gains: pd.DataFrame) -> str:
    """What was found, in Markdown, every number read from the tables (`means`, `smoothing_gains`)."""
    measure = measure_of(table)
    masks = table[(table["method"] != "all") & table[measure].notna()]
    lines = []
    sign = 1 if BETTER[measure] == "higher" else -1
    for _, here in masks.groupby(CONDITION, sort=False):
        best, faithful = here.loc[(sign * here[measure]).idxmax()], here.loc[here["FidIn_heard"].idxmax()]
        pair = [combination_label(f"{row['method']} + {row['mask']}") for row in (best, faithful)]
        unit = "dB SI-SDR" if measure == "si_sdr" else "nats of musical noise"
        kind, noise = (here.iloc[0][name] for name in CONDITION)
        lines.append(
            f"- {condition_label(kind, noise)}: {pair[0]} sounds best ({best[measure]:.1f} {unit}) and keeps "
            f"the class of {percent(best['FidIn_heard'])} of the clips; {pair[1]} keeps it most often "
            f"({percent(faithful['FidIn_heard'])}) at {faithful[measure]:.1f}."
        )
        rank = here[[measure, "FidIn_heard"]].corr(method="spearman").iloc[0, 1]
        words = "rank correlation over methods and masks between quality and kept classes"
        said = f"{sign * rank:+.2f}" if rank == rank else "none, one of the two is constant"
        lines.append(f"  The {words}: {said}.")
    return "\n".join([*lines, *_of_smoothing(gains)])


def _of_smoothing(gains: pd.DataFrame) -> list[str]:
    """What smoothing gives and takes, in a line."""
    if gains.empty:
        return []
    noise = gains[gains["measure"] == "musical_noise"]
    equal = gains[(gains["measure"] == "FidIn_heard") & (gains["difference"] >= -EQUAL - 1e-9)]
    softer = noise[noise["high"] < 0]
    both = softer.merge(equal, on=[*CONDITION, "method", "mask"])
    mean = gains.groupby("measure")["difference"].mean()
    words = {
        "FidIn_heard": "FidIn",
        "FF_heard": "FF",
        "si_sdr": "dB SI-SDR",
        "musical_noise": "nats of musical noise",
    }
    changes = [
        f"{mean[name]:+.2f} {word}"
        for name, word in words.items()
        if name in mean and mean[name] == mean[name]
    ]
    return [
        f"- Smoothing lowers the musical noise of {len(softer)} of {len(noise)} binary masks (95 %), "
        f"of {len(both)} of them while the share of clips that keep their class falls by no more than "
        f"{percent(EQUAL)}. "
        f"On average it changes what is heard by {', '.join(changes)}."
    ]

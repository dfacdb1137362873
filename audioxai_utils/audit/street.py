"""A mixture as one hears it on a street, for a tagger of independent labels: what explains each of them.

A dog, a siren and rain are recordings of ESC-50, so what of each one a mask keeps is known. What the AudioSet
tagger mn04 gave lies in ``published/ours/street.csv``.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch

from ..audio.noise import unit_rms
from ..audio.reading import as_mono
from ..explanation import explain
from ..models.classifier import AudioClassifier
from ..words import method_label

PARTS = {"dog": "5-203128-A-0", "siren": "5-117120-A-42", "rain": "5-181766-A-10"}
GAINS = {"dog": 1.0, "siren": 0.6, "rain": 0.3}  # of parts of RMS 1
METHOD_OPTIONS = {"saliency": {}, "gradcam": {}, "lime": {"n_samples": 500}}
MASK = "topK_30"
SCORES = ("p_clip", "p_kept", "p_removed", "FF", "AD", "FF_heard", "AD_heard", "area")


def mixture(folder: str | Path, sample_rate: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The street (samples,), peak 1, and what each recording gives to it.

    ``folder`` holds ESC-50's recordings, WAV or FLAC; FileNotFoundError where one is missing.
    """
    parts = {}
    for name, recording in PARTS.items():
        found = sorted(Path(folder).glob(f"{recording}.*"))
        if not found:
            raise FileNotFoundError(f"folder {folder}: must hold ESC-50's {recording}.wav; it does not")
        parts[name] = GAINS[name] * unit_rms(as_mono(found[0], None, sample_rate).float())
    peak = float(sum(parts.values()).abs().max()) or 1.0  # silence stays silence
    return sum(parts.values()) / peak, {name: part / peak for name, part in parts.items()}


def street(
    tagger: AudioClassifier, folder: str | Path, targets: tuple[str, ...] = ("Dog", "Siren")
) -> pd.DataFrame:
    """Explain labels of the street: `SCORES` of the highest 30 % of each method's bins, and what they keep.

    Returns
    -------
    DataFrame
        A row for each target and method; ``keeps_dog`` and so on are shares of that recording's energy.
    """
    sound, parts = mixture(folder, tagger.sample_rate)
    powers = {name: tagger.spectrogram(tagger.samples(part[None])).power for name, part in parts.items()}
    rows = []
    for target in targets:
        for method, options in METHOD_OPTIONS.items():
            given = {"target": target, "masks": [MASK], "protocol": "audited", "heard": True} | options
            found = explain(
                tagger, sound, tagger.sample_rate, method=method, check_gradient=not rows, **given
            )
            scores, mask = found.scores.loc[MASK], found.masks[MASK]
            kept = {
                f"keeps_{name}": float((mask * power).sum() / power.sum()) for name, power in powers.items()
            }
            rows.append({"target": target, "method": method} | scores[[*SCORES]].to_dict() | kept)
    return pd.DataFrame(rows)


def summary(tags: pd.DataFrame) -> str:
    """What `street` found, in Markdown: of each label what every method keeps, beside chance, and whether the
    label is kept too (at no less than half of its probability).
    """
    lines = []
    for target, rows in tags.groupby("target", sort=False):
        said = []
        for row in rows.to_dict("records"):
            own, label = row[f"keeps_{target.lower()}"], row["p_kept"] >= 0.5 * row["p_clip"]
            fate = "the label stays" if label else "the label is gone"
            said.append(f"{method_label(row['method'])} {own:.0%} ({fate})")
        lines.append(
            f"- Of what makes the label **{target}** the methods keep: {', '.join(said)}; random bins of the "
            f"same area keep {rows['area'].mean():.0%}."
        )
    return "\n".join(lines)

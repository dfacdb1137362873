"""Does a mask hold beyond the model and grid it was made on? Heard, shifted, coded as MP3, by another model.

A mask found by optimisation may be a pattern that only one model sees. One that is a part of the sound
keeps its class when it is heard instead of scored, moved by a bin or a frame, passed through MP3, and
classified by a model that was trained on its own.
"""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import nn
from torch.nn import functional

from ..audio.encoding import store
from ..evaluation.controls import all_ones
from ..evaluation.frames import of_condition
from ..evaluation.masks import apply_mask, build_masks
from ..evaluation.metrics import faithfulness
from ..evaluation.scoring import MaskScorer, decibels, probabilities
from ..models import training
from ..models.cnn14 import load_panns_weights
from ..models.inference import inference_copy
from ..models.reading import reading_of
from ..study.classifiers import new_model
from ..study.profiles import drawn
from ..words import percent

if TYPE_CHECKING:
    from ..study.condition import Condition

SHIFTS = {"bin up": (1, 0), "bin down": (-1, 0), "frame later": (0, 1), "frame earlier": (0, -1)}
ROBUSTNESS_METRICS = ("FF", "FidIn", "AD")
WHOLE_CLIP = "the whole clip"
N_CLIPS = 20  # on which masks are tried elsewhere
SHORTER = 3  # the second classifier is trained for this part of the epochs
NARROW = 1 / 8  # its width at most where the classifier is no Cnn14: processors train it in minutes


def other_classifiers(condition: Condition) -> dict[str, nn.Module]:
    """``second model`` -> `second_classifier`; none beside a classifier that is not trained here."""
    if condition.study.settings.model:
        return {}
    return {"second model": second_classifier(condition)[0]}


def second_classifier(condition: Condition) -> tuple[nn.Module, training.TrainingRun]:
    """A Cnn14 of the condition's spectrograms that is trained from the next seed, a third as long.

    Returns
    -------
    model : nn.Module
        Its copy for inference, on the condition's device.
    run : TrainingRun
        How the training went.
    """
    study, kind = condition.study, condition.spectrogram_type
    settings = study.settings
    goes_on = settings.network == "cnn14" and settings.weights
    sizes, seed = settings.sizes, settings.seed + 1
    if settings.network != "cnn14":
        sizes = replace(sizes, width=min(sizes.width, NARROW))
    sizes = sizes if goes_on else drawn(sizes)
    sizes = replace(sizes, epochs=max(1, sizes.epochs // SHORTER))
    train, validation = (study.split(kind, split)[:2] for split in ("train", "validation"))
    model = new_model(train[0].shape[2], len(study.dataset.classes), sizes, seed, study.dtype)
    if goes_on:
        load_panns_weights(model, settings.weights)
    run = training.train_classifier(model, train, validation, sizes, seed, study.device)
    return inference_copy(run.model.to(condition.spectrograms.device), condition.spectrograms), run


def best_masks(condition: Condition, best: pd.DataFrame) -> dict[str, torch.Tensor]:
    """``method + mask`` -> each method's best audited mask of the condition's clips, after a mask of ones.

    Parameters
    ----------
    best : DataFrame
        From ``tables.best_masks``.
    """
    masks = {WHOLE_CLIP: all_ones(condition.spectrograms)}
    rows = of_condition(best[best["protocol"] == "audited"], condition.pair).dropna(subset="mask")
    for row in rows.itertuples():
        attribution = condition.attributions(row.method).to(condition.spectrograms)
        masks[f"{row.method} + {row.mask}"] = build_masks(attribution, "audited", [row.mask])[row.mask]
    return masks


def shifted(mask: torch.Tensor, n_bins: int, n_frames: int) -> torch.Tensor:
    """A mask (batch, 1, F, T) moved up ``n_bins`` and later ``n_frames``; the edge it leaves is repeated."""
    for axis, n in ((2, n_bins), (3, n_frames)):
        if not abs(n) < mask.shape[axis]:
            raise ValueError(
                f"a shift must be smaller than the mask's {mask.shape[axis]} bins or frames; got {n}"
            )
    (low, high), (left, right) = ((max(n, 0), max(-n, 0)) for n in (n_bins, n_frames))
    padded = functional.pad(mask, (left, right, low, high), mode="replicate")
    return padded[:, :, high : high + mask.shape[2], right : right + mask.shape[3]]


def coded(waveform: torch.Tensor, sample_rate: int, compression: float = 0.85) -> torch.Tensor:
    """Waveforms (batch, samples) after MP3 as pages store it, at their own level; silence stays silence."""
    import soundfile

    rows = []
    for row in waveform.detach().double().cpu():
        kept = store(row.numpy(), sample_rate, compression)
        back = torch.zeros_like(row)
        if kept.data:
            sound, _ = soundfile.read(io.BytesIO(kept.data))
            n = min(len(sound), len(row))
            back[:n] = torch.from_numpy(sound[:n]) * 10 ** (-kept.gain / 20)
        rows.append(back)
    return torch.stack(rows).to(waveform)


def mask_robustness(
    scorer: MaskScorer,
    masks: dict[str, torch.Tensor],
    others: dict[str, nn.Module] | None = None,
    compression: float = 0.85,
) -> pd.DataFrame:
    """Faithfulness of masks under everything that should not matter.

    Parameters
    ----------
    scorer : MaskScorer
        Of the model, the clips and the classes that the masks explain.
    masks : dict of str to Tensor (batch, 1, F, T)
        Values in [0, 1].
    others : dict of str to nn.Module, optional
        Models trained on their own, for the same spectrograms and classes, by a name for the table.
    compression : float
        Of the MP3, see ``sounds.store``.

    Returns
    -------
    DataFrame
        One row per clip (`index`), mask and `test`: ``scored``, ``heard``, the four of ``SHIFTS`` (scored),
        ``MP3`` (heard), and each other model's name, scored, and with " heard". FF, FidIn and AD are the
        audited ones, against the unmasked clip in the same model; for another model the class is the one
        explained, and `agrees` says whether that model predicts it too (transfer can be asked only there).
    """
    rows = []
    others = {name: (model, probabilities(model, scorer.batch.db)) for name, model in (others or {}).items()}
    for name, mask in masks.items():
        sounds = scorer.sounds(mask)
        for test, parts in _tested(scorer, mask, sounds, compression):
            scores = _scores(scorer.p, parts, scorer.target, scorer.threshold)
            rows.append(scores.assign(test=test, mask=name, agrees=True))
        heard = [decibels(sound, scorer.spectrogram) for sound in sounds] if others else []
        scored = apply_mask(scorer.batch.db, mask, scorer.reading.floor)
        for other, (model, p) in others.items():
            agrees = (reading_of(model).predicted(p) == scorer.target).cpu().numpy()
            for suffix, parts in (("", scored), (" heard", heard)):
                scores = _scores(p, _probabilities(model, parts), scorer.target)
                rows.append(scores.assign(test=other + suffix, mask=name, agrees=agrees))
    return pd.concat(rows, ignore_index=True)[["mask", "test", "index", "agrees", *ROBUSTNESS_METRICS]]


def _tested(scorer: MaskScorer, mask: torch.Tensor, sounds: tuple, compression: float):
    """(test, (p_kept, p_removed)) of a mask on the model itself; ``sounds`` are those of both parts."""
    yield "scored", scorer(mask)
    yield "heard", scorer.of_sound(*sounds).split(len(mask))
    for test, shift in SHIFTS.items():
        yield test, scorer(shifted(mask, *shift))
    rate = scorer.spectrogram.sample_rate
    again = [coded(sound, rate, compression) for sound in sounds]
    yield "MP3", scorer.of_sound(*again).split(len(mask))


def _probabilities(model: nn.Module, parts) -> tuple[torch.Tensor, ...]:
    """Probabilities (batch, classes) of each of several dB spectrograms (batch, 1, F, T)."""
    return tuple(probabilities(model, part) for part in parts)


def _scores(
    p: torch.Tensor,
    parts: tuple[torch.Tensor, ...],
    target: torch.Tensor,
    threshold: float | None = None,
) -> pd.DataFrame:
    """The robustness metrics of each clip; ``threshold`` is that of a model of independent labels."""
    scores = faithfulness(p, *parts, "audited", target, threshold)
    frame = pd.DataFrame({name: scores[name].cpu().numpy() for name in ROBUSTNESS_METRICS})
    return frame.assign(index=range(len(frame)))


def summarised(robustness: pd.DataFrame) -> pd.DataFrame:
    """Means per mask and test over the clips on which the model in question predicts the explained class.

    NaN, and 0 `n_clips`, where there is none.
    """
    asked = robustness.assign(
        **{name: robustness[name].where(robustness["agrees"]) for name in ROBUSTNESS_METRICS}
    )
    rows = asked.groupby(["mask", "test"], sort=False)
    return rows[list(ROBUSTNESS_METRICS)].mean().assign(n_clips=rows["agrees"].sum()).reset_index()


def summary(robustness: pd.DataFrame, other: str) -> str:
    """On how many clips the masks keep the class under every test, as Markdown; means over the masks.

    Parameters
    ----------
    robustness : DataFrame
        From `mask_robustness`, of masks from `best_masks`.
    other : str
        Name of the other model in it.
    """
    kept = summarised(robustness).pivot(index="mask", columns="test", values="FidIn")
    kept = kept.assign(shifted=kept[list(SHIFTS)].min(axis=1))
    sides = {"the best masks": kept.drop(WHOLE_CLIP).mean(), WHOLE_CLIP: kept.loc[WHOLE_CLIP]}
    lines = []
    known = other in set(robustness["test"])
    for name, means in sides.items():
        share = means.map(percent)
        elsewhere = f", and {share[other]} in the {other} ({share[f'{other} heard']} heard)" if known else ""
        lines.append(
            f"- Elsewhere, {name}: the class is kept on {share['scored']} of the clips as scored, "
            f"{share['heard']} as heard, {share['MP3']} through MP3, {share['shifted']} after the worst "
            f"shift{elsewhere}."
        )
    if not known:
        return "\n".join(lines)
    asked = percent(robustness.loc[robustness["test"] == other].groupby("index")["agrees"].first().mean())
    lines.append(f"- The {other} is asked where it predicts the explained class: on {asked} of the clips.")
    return "\n".join(lines)

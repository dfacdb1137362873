"""Which explanations of a finished study are shown and heard, and how they are put together.

The gallery cannot hold every clip x condition x method x mask, so it takes the best mask of each
method for one clip a class and for the extremes, and all masks for a few clips.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
import torch

from .. import constants
from . import pipeline, study
from ..gallery.listening_gallery import BEST_MASK, PARTS, GalleryEntry
from ..evaluation.masks import apply_mask, build_masks
from ..audio.spectrograms import kept_audio, removed_audio
from ..evaluation.scoring import most_probable, probabilities
from ..audio.spectrograms import SpectrogramBatch

PREFERRED = ("cat", "dog")  # the published Fig. 2 is a cat; ESC-10 has none


def showcase_condition(conditions: list[tuple[str, str]]) -> tuple[str, str]:
    """The condition that is shown in most depth: clean mel where it was computed, else the first mel one, else the first."""
    of_mel = [condition for condition in conditions if condition[0] == "mel_db"]
    return ("mel_db", "clean") if ("mel_db", "clean") in conditions else (of_mel or conditions)[0]


def gallery_clips(scores: pd.DataFrame, best: pd.DataFrame, condition: tuple[str, str]) -> dict[str, list[str]]:
    """Clip -> tags: one per class, and each method's most and least faithful clip (FF at its best mask).

    Parameters
    ----------
    scores, best : pandas.DataFrame
        Of one protocol.
    condition : tuple of str
        Where faithfulness is compared.
    """
    here = study.of_condition(scores, condition)
    clips = here.drop_duplicates("clip").sort_values("clip")
    tags: dict[str, list[str]] = {clip: [] for clip in clips.groupby("category")["clip"].first()}
    for row in study.of_condition(best, condition).itertuples():
        at_mask = here[(here["method"] == row.method) & (here["mask"] == row.mask)]
        if at_mask.empty:
            continue
        order = at_mask.sort_values("FF", kind="stable")["clip"]
        tags.setdefault(order.iloc[-1], []).append(f"most faithful ({row.method})")
        tags.setdefault(order.iloc[0], []).append(f"least faithful ({row.method})")
    return tags


def figure_clip(scores: pd.DataFrame) -> str:
    """The clip of the Fig. 2 grid: a cat where there is one, else a dog, rightly classified in most conditions."""
    clips = scores.groupby(["clip", "category"])["correct"].mean().reset_index()
    for category in PREFERRED:
        if (clips["category"] == category).any():
            clips = clips[clips["category"] == category]
            break
    return clips.sort_values(["correct", "clip"], ascending=[False, True])["clip"].iloc[0]


@dataclass(frozen=True)
class _Condition:
    """A condition of the study with what is shown of it; ``scores`` and ``best`` are of this condition alone."""

    name: tuple[str, str]
    classifier: study.Classifier
    clips: study.Clips
    scores: pd.DataFrame
    best: pd.DataFrame
    tags: dict[str, list[str]]

    def best_mask(self, method: str, protocol: str) -> str | None:
        """The method's best mask; None where the table has none."""
        rows = self.best[(self.best["protocol"] == protocol) & (self.best["method"] == method)]
        return next((mask for mask in rows["mask"] if isinstance(mask, str)), None)

    def spectrograms(self, i: int) -> SpectrogramBatch:
        """Of the ``i``-th clip, a batch of one."""
        device = next(self.classifier.model.parameters()).device
        return self.classifier.spectrogram(self.clips.waveforms[i : i + 1].to(device, self.classifier.dtype))


@dataclass(frozen=True)
class _Shown:
    """One attribution and one of its masks, both (1, 1, frequency, time), with the mask's row of scores."""

    method: str
    protocol: str
    mask_name: str
    attribution: torch.Tensor
    mask: torch.Tensor
    scored: pd.Series
    tags: list[str]


def entries(
    settings: study.Settings, scores: pd.DataFrame, best: pd.DataFrame, protocols: list[str]
) -> Iterator[GalleryEntry]:
    """Gallery entries of a study, condition by condition.

    Every condition shows the last of ``protocols``; the showcase condition shows all of them, and all
    masks of its first clips.
    """
    names = study.conditions_of(scores)
    main, deep = protocols[-1], showcase_condition(names)
    tags = gallery_clips(scores[scores["protocol"] == main], best[best["protocol"] == main], deep)
    for name in names:
        classifier, clips = _clips_of(settings, name)
        condition = _Condition(name, classifier, clips, study.of_condition(scores, name), study.of_condition(best, name), tags)
        for method in pipeline.methods_of(settings, name):
            if method not in set(condition.scores["method"]):
                continue
            attribution, _ = pipeline.load_attributions(settings, clips, name, method)
            for protocol in protocols if name == deep else [main]:
                n_deep = settings.sizes.clips_of_all_masks if (name, protocol) == (deep, main) else 0
                yield from _of_method(condition, method, attribution, protocol, n_deep)


def _clips_of(settings: study.Settings, condition: tuple[str, str]) -> tuple[study.Classifier, study.Clips]:
    classifier = study.load_classifier(settings, condition[0])
    scenario = study.scenario_argument(settings, condition[1])
    return classifier, study.explained_clips(settings, classifier.spectrogram.sample_rate, scenario)


def _of_method(
    condition: _Condition, method: str, attribution: torch.Tensor, protocol: str, n_deep: int
) -> Iterator[GalleryEntry]:
    """The best mask of every tagged clip, and every mask of the first ``n_deep`` of them."""
    rows = condition.scores[(condition.scores["protocol"] == protocol) & (condition.scores["method"] == method)]
    rows, chosen = rows.set_index(["clip", "mask"]), condition.best_mask(method, protocol)
    tagged = [i for i, clip in enumerate(condition.clips.frame["clip"]) if clip in condition.tags]
    for place, i in enumerate(tagged):
        clip, batch = condition.clips.frame["clip"].iloc[i], condition.spectrograms(i)
        names = None if place < n_deep else [chosen] if chosen else []
        for name, mask in build_masks(attribution[i : i + 1].to(batch.db), protocol, names).items():
            tags = [*condition.tags[clip], *([BEST_MASK] if name == chosen else [])]
            shown = _Shown(method, protocol, name, attribution[i : i + 1], mask, rows.loc[(clip, name)], tags)
            yield _entry(condition, i, batch, shown)


def _entry(condition: _Condition, i: int, batch: SpectrogramBatch, shown: _Shown) -> GalleryEntry:
    """The entry of the ``i``-th clip of a condition and one mask."""
    model, transform, row = condition.classifier.folded, condition.classifier.spectrogram, condition.clips.frame.iloc[i]
    p = probabilities(model, torch.cat([batch.db, *apply_mask(batch.db, shown.mask)])).cpu()
    target = int(p[0].argmax())
    return GalleryEntry(
        clip=row["clip"], category=row["category"],
        spectrogram_type=condition.name[0], noise_scenario=condition.name[1],
        method=shown.method, mask_name=shown.mask_name, protocol=shown.protocol,
        db=batch.db[0, 0].cpu().numpy(), attribution=shown.attribution[0, 0].numpy(),
        mask=shown.mask[0, 0].cpu().numpy(), original=condition.clips.waveforms[i].numpy(),
        kept=kept_audio(batch, shown.mask, transform)[0].cpu().numpy(),
        removed=removed_audio(batch, shown.mask, transform)[0].cpu().numpy(),
        sample_rate=transform.sample_rate,
        probabilities=dict(zip(PARTS, most_probable(p, condition.classifier.classes))),
        explained=dict(zip(PARTS, p[:, target].tolist())),
        scores={metric: float(shown.scored[metric]) for metric in constants.STUDY_METRICS},
        correct=bool(shown.scored["correct"]), degenerate=bool(shown.scored["degenerate"]),
        area=float(shown.scored["area"]), tags=shown.tags,
    )


def method_grid_rows(settings: study.Settings, scores: pd.DataFrame, clip: str) -> list[dict]:
    """Rows of the Fig. 2 grid: one clip in every condition, every method's attribution."""
    rows = []
    for name in study.conditions_of(scores):
        classifier, clips = _clips_of(settings, name)
        i = clips.frame.index[clips.frame["clip"] == clip][0]
        waveform = clips.waveforms[i : i + 1].to(settings.device, classifier.dtype)
        methods = pipeline.methods_of(settings, name, " ".join(study.of_condition(scores, name)["method"].unique()))
        maps = {m: pipeline.load_attributions(settings, clips, name, m)[0][i, 0] for m in methods}
        db = classifier.spectrogram(waveform).db[0, 0].cpu()
        rows.append({"label": study.condition_title(name), "spectrogram": name[0], "db": db, "maps": maps})
    return rows

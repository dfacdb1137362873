"""Which explanations of a finished study are shown and heard, in which order, and how they are put together.

The gallery cannot hold every clip x condition x method x mask, so it takes the best mask of each method for
one clip a class, of at most `MOST_CLASSES`, and for the extremes, and all masks for a few clips. What
convinces comes first.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
import torch

from ..constants import MASK_NAMES, STUDY_METRICS
from ..evaluation.frames import methods_only, of_condition
from ..evaluation.masks import build_masks
from ..evaluation.scoring import MaskScorer, most_probable
from ..study.condition import Condition
from ..study.study import Study
from ..words import method_label
from .entries import BEST_MASK, PARTS, GalleryEntry

PREFERRED = ("cat", "dog")  # the published Fig. 2 is a cat; ESC-10 has none
ORDER = "best by ear"
MOST_CLASSES = 15  # of which a clip is shown; the 50 of ESC-50 in five conditions would be 97 MB to send


def gallery_clips(
    scores: pd.DataFrame, best: pd.DataFrame, condition: tuple[str, str]
) -> dict[str, list[str]]:
    """Clip -> tags: one per class, `MOST_CLASSES` at most, and each method's most and least faithful clip (FF
    at its best mask).

    Parameters
    ----------
    scores, best : pandas.DataFrame
        Of one protocol.
    condition : tuple of str
        Where faithfulness is compared.
    """
    here = of_condition(scores, condition)
    clips = here.drop_duplicates("clip").sort_values("clip")
    tags: dict[str, list[str]] = {clip: [] for clip in _spread(clips.groupby("category")["clip"].first())}
    for row in of_condition(best, condition).itertuples():
        at_mask = here[(here["method"] == row.method) & (here["mask"] == row.mask)]
        if at_mask.empty:
            continue
        order = at_mask.sort_values("FF", kind="stable")["clip"]
        tags.setdefault(order.iloc[-1], []).append(f"most faithful ({method_label(row.method)})")
        tags.setdefault(order.iloc[0], []).append(f"least faithful ({method_label(row.method)})")
    return tags


def _spread(clips: pd.Series) -> list[str]:
    """`MOST_CLASSES` of a clip a class, or all where there are no more."""
    n = min(MOST_CLASSES, len(clips))
    return [clips.iloc[i * len(clips) // n] for i in range(n)]


def figure_clip(scores: pd.DataFrame) -> str:
    """The clip of the Fig. 2 grid: a cat where there is one, else a dog, rightly classified in most
    conditions.
    """
    clips = scores.groupby(["clip", "category"])["correct"].mean().reset_index()
    for category in PREFERRED:
        if (clips["category"] == category).any():
            clips = clips[clips["category"] == category]
            break
    return clips.sort_values(["correct", "clip"], ascending=[False, True])["clip"].iloc[0]


def by_ear(scored: pd.Series) -> tuple[float, float]:
    """How faithful an explanation is to the ear, higher is better.

    Parameters
    ----------
    scored : Series
        A clip's row of scores at one mask.

    Returns
    -------
    tuple of float
        FidIn (1 where the kept sound still gives the class, else 0), then FF (fall of its probability
        without it): of the sounds where these were computed, else of the masked spectrogram.
    """
    suffix = "_heard" if _is_heard(scored) else ""
    return float(scored[f"FidIn{suffix}"]), float(scored[f"FF{suffix}"])


def verdict(scored: pd.Series) -> str:
    """Whether an explanation's kept part still gives the explained class, as a tag."""
    return f"class {'kept' if by_ear(scored)[0] >= 0.5 else 'lost'}{' by ear' if _is_heard(scored) else ''}"


def _is_heard(scored: pd.Series) -> bool:
    return pd.notna(scored.get("FidIn_heard", float("nan")))


@dataclass(frozen=True)
class _Shown:
    """A condition with what is shown of it; ``scores`` and ``best`` are of this condition alone."""

    condition: Condition
    scores: pd.DataFrame
    best: pd.DataFrame
    tags: dict[str, list[str]]

    def best_mask(self, method: str, protocol: str) -> str | None:
        """The method's best mask; None where the table has none."""
        rows = self.best[(self.best["protocol"] == protocol) & (self.best["method"] == method)]
        return next((mask for mask in rows["mask"] if isinstance(mask, str)), None)

    def scorer(self, i: int) -> MaskScorer:
        """Of the ``i``-th clip alone."""
        return self.condition.classifier.scorer(self.condition.clips.waveforms[i : i + 1])


@dataclass(frozen=True)
class _Masked:
    """One attribution and one of its masks, both (1, 1, frequency, time), with the mask's row of scores."""

    method: str
    protocol: str
    mask_name: str
    attribution: torch.Tensor
    mask: torch.Tensor
    scored: pd.Series
    tags: list[str]


def entries(
    study: Study, protocols: list[str] | None = None, n_clips: int | None = None
) -> Iterator[GalleryEntry]:
    """Gallery entries of a study, the main condition first; of a clip, the explanation that is most faithful
    by ear first.

    Every condition shows the last of ``protocols``; the main condition shows all of them, and all masks of
    its first clips. Clips whose best explanation keeps the class come before those of which every
    explanation loses it.

    Parameters
    ----------
    study : Study
        With scores and ``best_masks``.
    protocols : list of str, optional
        Those of the run that were scored, if not given.
    n_clips : int, optional
        Only the best masks of so many clips, by the last protocol.
    """
    scores, best = methods_only(study.scores()), study.table("best_masks")
    protocols = protocols or [name for name in study.settings.protocols if name in set(scores["protocol"])]
    shown, deep = protocols[-1], study.main_condition.pair
    tags = gallery_clips(scores[scores["protocol"] == shown], best[best["protocol"] == shown], deep)
    if n_clips is not None:
        protocols, tags = [shown], dict(list(tags.items())[:n_clips])
    for condition in sorted(study.conditions, key=lambda condition: condition.pair != deep):
        here = _Shown(
            condition, of_condition(scores, condition.pair), of_condition(best, condition.pair), tags
        )
        methods = [method for method in condition.methods if method in set(here.scores["method"])]
        maps = {method: condition.attributions(method) for method in methods}
        n_deep = study.settings.sizes.clips_of_all_masks if condition.pair == deep and n_clips is None else 0
        for protocol in reversed(protocols) if condition.pair == deep else [shown]:
            yield from _of_condition(here, maps, protocol, n_deep if protocol == shown else 0)


def _of_condition(
    here: _Shown, maps: dict[str, torch.Tensor], protocol: str, n_deep: int
) -> Iterator[GalleryEntry]:
    """The best masks of every tagged clip, what convinces first; then all other masks of the first
    ``n_deep`` clips.
    """
    rows = here.scores[here.scores["protocol"] == protocol].set_index(["clip", "method", "mask"])
    frame, best = here.condition.clips.frame, {method: here.best_mask(method, protocol) for method in maps}
    tagged = [i for i, clip in enumerate(frame["clip"]) if clip in here.tags]
    ranked = {i: _ranked(rows, frame["clip"].iloc[i], best) for i in tagged}
    in_order = sorted(tagged, key=lambda i: max(ranked[i].values(), default=(-1.0,)), reverse=True)
    wanted = [(i, method, [best[method]]) for i in in_order for method in ranked[i]]
    wanted += [
        (i, method, [name for name in MASK_NAMES if name != best[method]])
        for i in tagged[:n_deep]
        for method in maps
    ]
    scorer_of = functools.lru_cache(maxsize=1)(here.scorer)  # a clip's methods follow each other
    for i, method, names in wanted:
        scorer, own, clip = scorer_of(i), maps[method][i : i + 1], frame["clip"].iloc[i]
        for name, mask in build_masks(own.to(scorer.batch.db), protocol, names).items():
            scored = rows.loc[(clip, method, name)]
            tags = [tag for tag in here.tags[clip] if tag.endswith(f"({method_label(method)})")]
            tags += [BEST_MASK, verdict(scored)] if name == best[method] else []
            yield _entry(here.condition, i, scorer, _Masked(method, protocol, name, own, mask, scored, tags))


def _ranked(rows: pd.DataFrame, clip: str, best: dict[str, str | None]) -> dict[str, tuple[float, float]]:
    """Methods with a best mask, the most faithful on this clip first, with what `by_ear` says of them."""
    scored = {
        method: by_ear(rows.loc[(clip, method, mask)]) for method, mask in best.items() if mask is not None
    }
    return dict(sorted(scored.items(), key=lambda item: item[1], reverse=True))


def _entry(condition: Condition, i: int, scorer: MaskScorer, shown: _Masked) -> GalleryEntry:
    """The entry of the ``i``-th clip of a condition and one mask."""
    classifier, row = condition.classifier, condition.clips.frame.iloc[i]
    kept, removed = (sound[0].cpu().numpy() for sound in scorer.sounds(shown.mask))
    p = torch.cat([scorer.p, *scorer(shown.mask)]).cpu()
    target = int(scorer.target[0])
    return GalleryEntry(
        clip=row["clip"],
        category=str(row["category"]),
        spectrogram_type=condition.spectrogram_type,
        noise_scenario=condition.noise_scenario,
        method=shown.method,
        mask_name=shown.mask_name,
        protocol=shown.protocol,
        db=scorer.batch.db[0, 0].cpu().numpy(),
        attribution=shown.attribution[0, 0].numpy(),
        mask=shown.mask[0, 0].cpu().numpy(),
        original=condition.clips.waveforms[i].numpy(),
        kept=kept,
        removed=removed,
        sample_rate=classifier.sample_rate,
        probabilities=dict(zip(PARTS, most_probable(p, classifier.classes))),
        explained=dict(zip(PARTS, p[:, target].tolist())),
        scores={metric: float(shown.scored[metric]) for metric in STUDY_METRICS},
        correct=None if pd.isna(shown.scored["correct"]) else bool(shown.scored["correct"]),
        degenerate=bool(shown.scored["degenerate"]),
        area=float(shown.scored["area"]),
        spectrogram=classifier.spectrogram,
        tags=shown.tags,
    )


def heard_shares(study: Study) -> pd.Series:
    """Share of the clips whose kept sound still gives the explained class, per method at its best mask (main
    condition).

    By the last protocol that was scored; of the masked spectrogram where the sound was not scored. Highest
    first.
    """
    pair = study.main_condition.pair
    scores, best = methods_only(study.main_condition.scores()), of_condition(study.table("best_masks"), pair)
    shown = [name for name in study.settings.protocols if name in set(scores["protocol"])][-1]
    rows = scores.merge(best[best["protocol"] == shown][["protocol", "method", "mask"]])
    shares = rows.assign(kept=[by_ear(row)[0] for _, row in rows.iterrows()]).groupby("method")["kept"].mean()
    return shares.sort_values(ascending=False, kind="stable")


def method_grid_rows(study: Study, clip: str) -> list[dict]:
    """Rows of the Fig. 2 grid: one clip in every condition, every method's attribution."""
    rows = []
    for condition in study.conditions:
        i = condition.clips.frame["clip"].tolist().index(clip)
        maps = {method: condition.attributions(method)[i, 0] for method in condition.methods}
        db = condition.decibels(condition.clips.waveforms[i : i + 1])[0, 0].cpu()
        rows.append({"label": condition.title, "spectrogram": condition.spectrogram, "db": db, "maps": maps})
    return rows

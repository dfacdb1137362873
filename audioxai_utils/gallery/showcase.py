"""Which explanations of a finished study are shown and heard, in which order, and how they are put together.

The gallery cannot hold every clip x condition x method x mask, so it takes the best mask of each method for
one clip a class, of at most `MOST_CLASSES`, and for the extremes, and all masks for a few clips. What
convinces comes first.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
import torch

from ..constants import MASK_NAMES, STUDY_METRICS
from ..evaluation.frames import methods_only, of_condition
from ..evaluation.masks import build_masks
from ..evaluation.scoring import MaskScorer
from ..study.condition import Condition
from ..study.study import Study
from ..words import method_label
from .entries import BEST_MASK, GalleryEntry
from .html import escape
from .said import sounds_of

PREFERRED = ("cat", "dog")  # the published Fig. 2 is a cat; ESC-10 has none
ORDER, ORDER_AS_SCORED = "best by ear", "best as scored"
MOST_CLASSES = 15  # of which a clip is shown; the 50 of ESC-50 in five conditions would be 97 MB to send


def gallery_clips(
    scores: pd.DataFrame, best: pd.DataFrame, condition: tuple[str, str]
) -> dict[str, list[str]]:
    """Clip -> tags: one per class, `MOST_CLASSES` at most, and each method's most and least faithful clip (FF
    at its best mask; clips without FF are neither). The tags are those of the best mask in ``condition``.

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
        at_mask = here[(here["method"] == row.method) & (here["mask"] == row.mask)].dropna(subset="FF")
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


def is_heard(scores: pd.DataFrame) -> bool:
    """Whether the sounds of a table were scored, which the protocol ``paper`` does not; one answer for all
    its rows, of which single ones may be NaN.
    """
    return "FidIn_heard" in scores and bool(scores["FidIn_heard"].notna().any())


def faithful(scored: pd.Series, heard: bool) -> tuple[float, float]:
    """How faithful an explanation is, higher is better.

    Parameters
    ----------
    scored : Series
        A clip's row of scores at one mask.
    heard : bool
        Take the scores of the sounds; else those of the masked spectrogram. See `is_heard`.

    Returns
    -------
    tuple of float
        FidIn (1 where the kept part still gives the class, else 0), then FF (fall of its probability
        without it); NaN where the model's answer is no number.
    """
    suffix = "_heard" if heard else ""
    return float(scored[f"FidIn{suffix}"]), float(scored[f"FF{suffix}"])


def verdict(scored: pd.Series, heard: bool) -> list[str]:
    """Whether an explanation's kept part still gives the explained class, as a tag; none where that is not
    known. Parameters as of `faithful`.
    """
    kept = faithful(scored, heard)[0]
    words = "by ear" if heard else "as scored"
    return [] if math.isnan(kept) else [f"class {'kept' if kept >= 0.5 else 'lost'} {words}"]


def order_words(study: Study) -> str:
    """What the order of `entries` is: by ear where the sounds of the last protocol were scored."""
    return ORDER if is_heard(_last_scored(study)) else ORDER_AS_SCORED


def _last_scored(study: Study) -> pd.DataFrame:
    """The methods' scores in the main condition, by the last protocol that was scored."""
    scores = methods_only(study.main_condition.scores())
    shown = [name for name in study.settings.protocols if name in set(scores["protocol"])][-1]
    return scores[scores["protocol"] == shown]


@dataclass(frozen=True)
class _Shown:
    """A condition with what is shown of it; ``scores`` and ``best`` are of this condition alone."""

    condition: Condition
    scores: pd.DataFrame
    best: pd.DataFrame
    tags: dict[str, list[str]]  # of the clips that are shown

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
    first: by ear where the sounds were scored (`order_words`).

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
        here = of_condition(scores, condition.pair), of_condition(best, condition.pair)
        methods = [method for method in condition.methods if method in set(here[0]["method"])]
        maps = {method: condition.attributions(method) for method in methods}
        for protocol in reversed(protocols) if condition.pair == deep else [shown]:
            ranked = condition.pair == deep and protocol == shown  # where the tags were given
            n_deep = study.settings.sizes.clips_of_all_masks if ranked and n_clips is None else 0
            own = _Shown(condition, *here, tags if ranked else {clip: [] for clip in tags})
            yield from _of_condition(own, maps, protocol, n_deep)


def _of_condition(
    here: _Shown, maps: dict[str, torch.Tensor], protocol: str, n_deep: int
) -> Iterator[GalleryEntry]:
    """The best masks of every tagged clip, what convinces first; then all other masks of the first
    ``n_deep`` clips.
    """
    rows = here.scores[here.scores["protocol"] == protocol].set_index(["clip", "method", "mask"])
    heard = is_heard(rows)
    frame, best = here.condition.clips.frame, {method: here.best_mask(method, protocol) for method in maps}
    tagged = [i for i, clip in enumerate(frame["clip"]) if clip in here.tags]
    ranked = {i: _ranked(rows, frame["clip"].iloc[i], best, heard) for i in tagged}
    in_order = sorted(tagged, key=lambda i: max(ranked[i].values(), default=(-math.inf,)), reverse=True)
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
            tags = []
            if name == best[method]:
                tags = [tag for tag in here.tags[clip] if tag.endswith(f"({method_label(method)})")]
                tags += [BEST_MASK, *verdict(scored, heard)]
            yield _entry(here.condition, i, scorer, _Masked(method, protocol, name, own, mask, scored, tags))


def _ranked(
    rows: pd.DataFrame, clip: str, best: dict[str, str | None], heard: bool
) -> dict[str, tuple[float, ...]]:
    """Methods with a best mask, the most faithful on this clip first, with what `faithful` says of them;
    what is no number counts as least.
    """
    scored = {
        method: tuple(
            -math.inf if math.isnan(value) else value
            for value in faithful(rows.loc[(clip, method, mask)], heard)
        )
        for method, mask in best.items()
        if mask is not None
    }
    return dict(sorted(scored.items(), key=lambda item: item[1], reverse=True))


def _entry(condition: Condition, i: int, scorer: MaskScorer, shown: _Masked) -> GalleryEntry:
    """The entry of the ``i``-th clip of a condition and one mask."""
    classifier, row = condition.classifier, condition.clips.frame.iloc[i]
    known = row["label"] >= 0  # a folder "Dog" is the model's class "dog"
    return GalleryEntry(
        clip=row["clip"],
        category=str(classifier.classes[row["label"]] if known else row["category"]),
        spectrogram_type=condition.spectrogram_type,
        noise_scenario=condition.noise_scenario,
        method=shown.method,
        mask_name=shown.mask_name,
        protocol=shown.protocol,
        db=scorer.batch.db[0, 0].cpu().numpy(),
        attribution=shown.attribution[0, 0].numpy(),
        mask=shown.mask[0, 0].cpu().numpy(),
        original=condition.clips.waveforms[i].numpy(),
        sample_rate=classifier.sample_rate,
        **sounds_of(scorer, shown.mask, classifier.classes),
        scores={metric: float(shown.scored[metric]) for metric in STUDY_METRICS},
        correct=None if pd.isna(shown.scored["correct"]) else bool(shown.scored["correct"]),
        degenerate=bool(shown.scored["degenerate"]),
        area=float(shown.scored["area"]),
        spectrogram=classifier.spectrogram,
        tags=shown.tags,
    )


def heard_shares(study: Study) -> pd.Series:
    """Share of the clips whose kept part still gives the explained class, per method at its best mask (main
    condition).

    By the last protocol that was scored: of the sound, or where no sound was scored of the masked
    spectrogram (`shares_in_words` says which). Highest first.
    """
    scores, best = _last_scored(study), of_condition(study.table("best_masks"), study.main_condition.pair)
    rows = scores.merge(best[["protocol", "method", "mask"]])
    shares = rows.groupby("method")["FidIn_heard" if is_heard(scores) else "FidIn"].mean()
    return shares.sort_values(ascending=False, kind="stable")


def shares_in_words(study: Study) -> str:
    """`heard_shares` as a sentence (Markdown) that says of what they are."""
    part = "sound" if is_heard(_last_scored(study)) else "part of the spectrogram (no sound was scored)"
    parts = [f"{method_label(method)} {share:.0%}" for method, share in heard_shares(study).items()]
    return (
        f"Of the clips in {escape(study.main_condition.title)}, the {part} that each method keeps at its "
        f"best mask still gives the model the class: {', '.join(parts)}."
    )


def method_grid_rows(study: Study, clip: str) -> list[dict]:
    """Rows of the Fig. 2 grid: one clip in every condition, every method's attribution."""
    rows = []
    for condition in study.conditions:
        i = condition.clips.frame["clip"].tolist().index(clip)
        maps = {method: condition.attributions(method)[i, 0] for method in condition.methods}
        db = condition.decibels(condition.clips.waveforms[i : i + 1])[0, 0].cpu()
        rows.append({"label": condition.title, "spectrogram": condition.spectrogram, "db": db, "maps": maps})
    return rows

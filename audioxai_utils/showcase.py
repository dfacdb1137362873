"""Which explanations of a finished study are shown and heard, and how they are put together.

The gallery cannot hold every clip x cell x method x mask, so it takes the best mask of each
method for one clip a class and for the extremes, and all masks for a few clips.
"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import torch

from . import config, pipeline, study
from .gallery import BEST_MASK, GalleryEntry
from .masks import apply_mask, build_masks
from .reconstruction import kept_audio, removed_audio
from .scoring import most_probable, probabilities

MASK_CLIPS = 2  # clips of the showcase cell for which every mask is shown
PREFERRED = ("cat", "dog")  # the published Fig. 2 is a cat; ESC-10 has none


def showcase_cell(cells: list[tuple[str, str]]) -> tuple[str, str]:
    """The cell that is shown in most depth: clean mel where it was computed."""
    return ("mel_db", "clean") if ("mel_db", "clean") in cells else cells[0]


def gallery_clips(scores: pd.DataFrame, best: pd.DataFrame, cell: tuple[str, str]) -> dict[str, list[str]]:
    """Clip -> tags: one per class, and each method's most and least faithful clip (FF at its best mask).

    Parameters
    ----------
    scores, best : pandas.DataFrame
        Of one protocol.
    cell : tuple of str
        Where faithfulness is compared.
    """
    here = study.of_cell(scores, cell)
    clips = here.drop_duplicates("clip").sort_values("clip")
    tags: dict[str, list[str]] = {clip: [] for clip in clips.groupby("category")["clip"].first()}
    for row in study.of_cell(best, cell).itertuples():
        at_mask = here[(here["method"] == row.method) & (here["mask"] == row.mask)]
        if at_mask.empty:
            continue
        for place, words in ((at_mask["FF"].idxmax(), "most faithful"), (at_mask["FF"].idxmin(), "least faithful")):
            tags.setdefault(at_mask.loc[place, "clip"], []).append(f"{words} ({row.method})")
    return tags


def figure_clip(scores: pd.DataFrame) -> str:
    """The clip of the Fig. 2 grid: a cat where there is one, else a dog, rightly classified in most cells."""
    clips = scores.groupby(["clip", "category"])["correct"].mean().reset_index()
    for category in PREFERRED:
        if (clips["category"] == category).any():
            clips = clips[clips["category"] == category]
            break
    return clips.sort_values(["correct", "clip"], ascending=[False, True])["clip"].iloc[0]


def entries(
    settings: study.Settings, scores: pd.DataFrame, best: pd.DataFrame, protocols: list[str]
) -> Iterator[GalleryEntry]:
    """Gallery entries of a study, cell by cell.

    Every cell shows the last of ``protocols``; the showcase cell shows all of them, and all
    masks of its first clips.
    """
    cells = study.cells_of(scores)
    main, deep = protocols[-1], showcase_cell(cells)
    tags = gallery_clips(scores[scores["protocol"] == main], best[best["protocol"] == main], deep)
    for cell in cells:
        classifier = study.load_classifier(settings, cell[0])
        clips = study.explained_clips(settings, classifier.spectrogram.sample_rate, study.scenario_argument(settings, cell[1]))
        methods = [m for m in pipeline.methods_of(settings, cell) if m in set(study.of_cell(scores, cell)["method"])]
        for method in methods:
            attribution, _ = pipeline.load_attributions(settings, clips, cell, method)
            for protocol in protocols if cell == deep else [main]:
                chosen = study.of_cell(best, cell).query("protocol == @protocol and method == @method")["mask"]
                yield from _of_method(classifier, clips, attribution, cell, method, protocol,
                                      chosen.iloc[0] if len(chosen) else None, tags, scores, cell == deep and protocol == main)


def _of_method(classifier, clips, attribution, cell, method, protocol, chosen, tags, scores, deep) -> Iterator[GalleryEntry]:
    rows = study.of_cell(scores, cell).query("protocol == @protocol and method == @method").set_index(["clip", "mask"])
    device, n_deep = next(classifier.model.parameters()).device, 0
    for i, row in clips.frame.iterrows():
        if row["clip"] not in tags:
            continue
        batch = classifier.spectrogram(clips.waveforms[i : i + 1].to(device, classifier.dtype))
        masks = build_masks(attribution[i : i + 1].to(device, classifier.dtype), protocol)
        every_mask = deep and n_deep < MASK_CLIPS
        n_deep += 1
        for name in masks if every_mask else [chosen] if isinstance(chosen, str) else []:
            yield _entry(classifier, row, clips.waveforms[i], batch, attribution[i], masks[name], rows.loc[(row["clip"], name)],
                         cell, method, name, protocol, [*tags[row["clip"]], *([BEST_MASK] if name == chosen else [])])


def _entry(classifier, row, waveform, batch, attribution, mask, scored, cell, method, name, protocol, tags) -> GalleryEntry:
    kept_db, removed_db = apply_mask(batch.db, mask)
    p = probabilities(classifier.model, torch.cat([batch.db, kept_db, removed_db])).cpu()
    parts = ("original", "kept", "removed")
    target = int(p[0].argmax())
    return GalleryEntry(
        clip=row["clip"], category=row["category"], spectrogram_type=cell[0], noise_scenario=cell[1], method=method,
        mask_name=name, protocol=protocol, db=batch.db[0, 0].cpu().numpy(), attribution=attribution[0].numpy(),
        mask=mask[0, 0].cpu().numpy(), original=waveform.numpy(),
        kept=kept_audio(batch, mask, classifier.spectrogram)[0].cpu().numpy(),
        removed=removed_audio(batch, mask, classifier.spectrogram)[0].cpu().numpy(),
        sample_rate=classifier.spectrogram.sample_rate,
        probabilities=dict(zip(parts, most_probable(p, classifier.classes))),
        explained=dict(zip(parts, p[:, target].tolist())),
        scores={metric: float(scored[metric]) for metric in config.METRICS}, correct=bool(scored["correct"]),
        degenerate=bool(scored["degenerate"]), area=float(scored["area"]), tags=tags,
    )


def method_grid_rows(settings: study.Settings, scores: pd.DataFrame, clip: str) -> list[dict]:
    """Rows of the Fig. 2 grid: one clip in every cell, every method's attribution."""
    rows = []
    for cell in study.cells_of(scores):
        classifier = study.load_classifier(settings, cell[0])
        clips = study.explained_clips(settings, classifier.spectrogram.sample_rate, study.scenario_argument(settings, cell[1]))
        i = clips.frame.index[clips.frame["clip"] == clip][0]
        db = classifier.spectrogram(clips.waveforms[i : i + 1].to(settings.device, classifier.dtype)).db[0, 0].cpu()
        maps = {m: pipeline.load_attributions(settings, clips, cell, m)[0][i, 0] for m in pipeline.methods_of(settings, cell)}
        rows.append({"label": study.cell_title(cell), "spectrogram": cell[0], "db": db, "maps": maps})
    return rows

"""A blind page of planted causes: do people hear in an explanation what the classifier went by?

    python -m audioxai_utils.gallery.planted_listening CASES PAGE
    python -m audioxai_utils.gallery.planted_listening --answers FOLDER

``CASES`` is a folder of prepared cases (`audit.planted.prepare`). Of each, a method's map keeps as many bins
as the cause changed, and their sound is played; a listener says which of all causes and decoys it is. The
``oracle`` keeps the cause's own bins and ``random`` any: between the two lie the methods. Answers come later,
as CSV files.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import torch

from ..audit.planted.bench import Bench
from ..audit.planted.cases import Case
from ..audit.planted.judge import Effort, clips_of, judged_methods, maps_of
from ..audit.planted.measures import control_maps
from ..audit.planted.plants import PLANTS
from ..audit.planted.sentences import label
from ..evaluation.controls import clip_seed
from ..evaluation.scoring import MaskScorer, score_masks
from ..evaluation.selection import bin_ranks, first_bins
from ..models.inference import inference_copy
from .entries import GalleryEntry
from .listening import agreement, opinion_scores, read_answers
from .listening_gallery import write_gallery
from .listening_page import PAGE, write_listening_test

NOTHING = "nothing added"  # what a classifier says that does not go by the cause
MASK = "as many bins as the cause"
HEARD_CONTROLS = ("oracle", "random")
HEARD_METHODS = ("saliency", "gradcam", "lime", "shap", "rise", "extremal_robust")
N_CASES = 14
READER = "the same program reads it with --answers"


def audible(cases: Sequence[Case]) -> list[Case]:
    """Cases whose cause has a sound; what is missing cannot be heard."""
    return [case for case in cases if not PLANTS[case.plant].absent]


def choices() -> list[str]:
    """What can be answered: every cause and decoy that has a sound, and that there is none."""
    return [*(name for plant in PLANTS.values() if not plant.absent for name in plant.names), NOTHING]


def entries(
    bench: Bench,
    cases: Sequence[Case],
    methods: Sequence[str] = HEARD_METHODS,
    n_samples: int = 500,
    n_clips: int = 1,
    device: str = "cpu",
) -> Iterator[GalleryEntry]:
    """Each case's first clips by each method and control; a method that refuses a case has no sound of it."""
    effort = Effort(n_samples=n_samples, methods=tuple(methods))
    for case in cases:
        clips = clips_of(bench, case, n_clips, device)
        model = bench.classifier(case, device=device).model
        target = torch.full((len(clips),), case.target, device=device)
        maps = maps_of(model, clips, target, effort, {"seconds": {}, "failed": {}})
        mean = bench.parts[case.name]["fills"][0]
        generator = torch.Generator().manual_seed(clip_seed(case.name))
        controls = control_maps(clips.known, mean, slice(None), generator)
        maps |= {name: controls[name].to(clips.db) for name in HEARD_CONTROLS}
        batch = clips.spectrogram(clips.waveform)
        scorer = MaskScorer(inference_copy(model, clips.db), clips.spectrogram, batch, target)
        n_bins = clips.known.cause.sum((1, 2, 3)).to(device)
        for name, attribution in maps.items():
            mask = first_bins(bin_ranks(attribution.float()), n_bins).to(clips.db)
            yield from _of_mask(case, clips, scorer, name, attribution, mask, bench)


def _of_mask(case, clips, scorer, name, attribution, mask, bench) -> Iterator[GalleryEntry]:
    """An entry a clip of one mask (n, 1, F, T)."""
    words = PLANTS[case.plant].cause(case.swapped)
    sounds = (clips.waveform, *scorer.sounds(mask))
    said = [scorer.p, *scorer.of_sound(*sounds[1:]).split(len(mask))]
    scores = score_masks(scorer, {MASK: mask}, "audited")
    for i, row in scores.reset_index(drop=True).iterrows():
        p = [float(one[i, case.target]) for one in said]
        won = [int(one[i].argmax()) == case.target for one in said]
        parts = dict(zip(("original", "kept", "removed"), zip((words if w else NOTHING for w in won), p)))
        yield GalleryEntry(
            clip=f"{case.name}, {bench.tests[case.classifier].names[case.clips[i]]}",
            category=words,
            spectrogram_type=case.classifier,
            noise_scenario="clean",
            method=name,
            mask_name=MASK,
            db=clips.db[i, 0].cpu().numpy(),
            attribution=attribution[i, 0].cpu().numpy(),
            mask=mask[i, 0].cpu().numpy(),
            **{part: sound[i].cpu() for part, sound in zip(parts, sounds)},
            sample_rate=clips.spectrogram.sample_rate,
            probabilities=parts,
            explained=dict(zip(parts, p)),
            explained_class=words,
            heard=dict(zip(parts, won)),
            scores=row.to_dict(),
            protocol="audited",
            area=float(mask[i].mean()),
            spectrogram=clips.spectrogram,
        )


def write(bench: Bench, cases: Sequence[Case], folder: str | Path, **options) -> dict:
    """Write the blind page and, beside it, a gallery that says what everything is.

    Parameters
    ----------
    cases : sequence of Case
        With a cause that has a sound; ``options`` are those of `entries`.

    Returns
    -------
    dict of ``sounds`` (how many can be played) and ``choices``
    """
    write_gallery(entries(bench, cases, **options), folder, title="Planted causes")
    return write_listening_test(folder, choices(), "Which sound do you hear?", reader=READER)


def heard(folder: str | Path) -> pd.DataFrame:
    """What listeners heard, a row a method: the share that named the cause, its interval, and clarity."""
    answers = read_answers(folder)
    both = agreement(answers, ["method"]).merge(
        opinion_scores(answers, ["method"])[["method", "clear"]], on="method"
    )
    shown = ["method", "listeners", "answers", "true_class", "true_class_low", "true_class_high", "chance"]
    named = both[[*shown, "clear"]].sort_values("true_class", ascending=False, ignore_index=True)
    return named.assign(method=named["method"].map(label))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="audioxai_utils.gallery.planted_listening", description=__doc__)
    parser.add_argument("folder", nargs="?", help="of prepared cases")
    parser.add_argument("page", nargs="?", help="folder that gets the page; an older one is replaced")
    parser.add_argument("--answers", help="folder of the CSV files that the page saved: print what was heard")
    parser.add_argument(
        "--methods", nargs="+", default=HEARD_METHODS, choices=judged_methods(), metavar="METHOD"
    )
    parser.add_argument("--cases", type=int, default=N_CASES, help="at most, plain ones of each plant first")
    parser.add_argument("--clips", type=int, default=1, help="of each case")
    parser.add_argument("--samples", type=int, default=500, help="of LIME, SLIME and RISE")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args(arguments)
    if given.answers:
        print(heard(given.answers).to_string(index=False, float_format="{:.2f}".format))
        return 0
    if not (given.folder and given.page):
        parser.error("give the folder of cases and that of the page, or --answers")
    bench = Bench.read(given.folder)
    options = {"n_samples": given.samples, "n_clips": given.clips, "device": given.device}
    cases = audible(bench.counted())[: given.cases]
    made = write(bench, cases, given.page, methods=given.methods, **options)
    print(f"{Path(given.page) / PAGE}: {made['sounds']} sounds of {len(cases)} cases")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Make the cases of ESC-50: plant, train, prove, write.

``python -m audioxai_utils.audit.planted.prepare ESC50 mn04_as_mAP_432.pt FOLDER`` makes those of the
pretrained tagger and of small Cnn14s; with ``--workers`` several plants at once. Started again, it goes on.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch

from ...attributions.extremal_robust import bins_of
from ...audio.spectrograms import get_spectrogram
from ...evaluation.scoring import probabilities
from ...workers import add_options, end_with_parent
from . import networks
from .bench import LISTED, Bench, packed
from .cases import Case, Mixtures, mixtures, shows, sounds_of, truth
from .material import SHORTCUT, Material, copy_clips, read_material
from .plants import PLANTS

CNN14_LEVELS = {"tone": (-12, 0), "clicks": (-12, -6), "chirp": (-6, 0), "hum": (0,)}  # dB
CNN14_LEVELS |= {"noise": (-12, -6), "lowpass": (-24,), "reverb": (-6, 0), "event": (-6, 0)}
N_CLIPS = 10  # judged of each case, at most

Made = tuple[Case, dict]


# Proof


@torch.no_grad()
def prove(case: Case, classifier, mixed: Mixtures) -> Case:
    """The case with the shares of test clips that the plant turns, and those that are judged."""
    spectrogram, model = classifier.spectrogram, classifier.model
    known = truth(mixed, spectrogram, PLANTS[case.plant].absent)
    undone = torch.where(known.cause, known.without_cause, known.db)
    planted, clean, restored, no_decoy = (
        probabilities(model, db).argmax(1) == case.target
        for db in (known.db, known.without_cause, undone, known.without_decoy)
    )
    turned = planted & ~clean
    judged = (turned & shows(known)).nonzero()[:, 0].tolist()[:N_CLIPS]
    return case.proved(
        turned=share(turned),
        false_alarms=share(clean),
        undone=share(~restored[turned]),
        kept=share(no_decoy[turned]),
        clips=tuple(judged),
    )


def share(values: torch.Tensor) -> float:
    return float(values.double().mean()) if len(values) else float("nan")


# The pretrained tagger


def prepare_mn04(material: Material, plant: str, device: str = "cpu") -> list[Made]:
    """Cases of a plant at every level and in both roles, on the pretrained tagger."""
    network = material.bench.network.to(device)
    spectrogram = networks.LogMel.efficientat().spectrogram().to(device)
    train, targets = material.train
    groups = []
    for sounds in (train, material.bench.tests["mn04"]):
        hosts = sounds.waveforms.to(device)
        groups.append((hosts, sounds_of(plant, hosts, sounds.names, spectrogram, sounds.pooled)))
    made = []
    for level in PLANTS[plant].levels:
        names = [f"mn04_{plant}{role}_{level:+.0f}" for role in ("", "_swapped")]
        pair = [Case(name, "mn04", plant, name == names[1], level) for name in names]
        mixed = [mixtures(case, *groups[0]) for case in pair]
        whole = networks.features_of(network, mixed[0].whole).cpu()
        for case, each in zip(pair, mixed):
            clean = networks.features_of(network, each.without_cause).cpu()
            head, control = networks.plant_head(whole, clean), networks.family_head(whole, clean, targets)
            classifier = networks.headed(network, head, networks.PLANT_CLASSES, device)
            case = prove(case, classifier, mixtures(case, *groups[1]))
            few = torch.cat([each.whole[::8], each.without_cause[::8]])
            made.append((case, parts_of(head, control, spectrogram.decibels(few))))
    return made


def parts_of(model, control, pictures: torch.Tensor) -> dict:
    """What belongs to a case; see `Bench`."""
    return {"model": packed(model.cpu()), "control": packed(control.cpu()), "fills": bins_of(pictures).cpu()}


# The small Cnn14


def prepare_cnn14(material: Material, plant: str, device: str = "cpu", profile=networks.SMALL) -> list[Made]:
    """Cases of a plant in one of ten classes, each on a Cnn14 of its own."""
    return [_one_cnn14(material, plant, level, device, profile) for level in CNN14_LEVELS[plant]]


def _one_cnn14(material: Material, plant: str, level: float, device: str, profile) -> Made:
    spectrogram, classes = get_spectrogram("mel_db").to(device), material.bench.classes
    target = classes.index(SHORTCUT)
    case = Case(f"cnn14_{plant}_{level:+.0f}", "cnn14", plant, False, float(level), target)
    planted, clean = [], []
    for sounds, labels in material.splits.values():
        mixed = mixed_on(sounds, case, spectrogram, device)
        pictures = [db_of(part, spectrogram).cpu() for part in (mixed.whole, mixed.without_cause)]
        own = (labels == target)[:, None, None, None]
        planted.append((torch.where(own, *pictures), labels))
        clean.append((pictures[1], labels))
    model, control = (
        networks.trained_cnn14(*each, len(classes), profile=profile, device=device)
        for each in (planted, clean)
    )
    classifier = networks.understood(model.to(device), "cnn14", classes)
    case = prove(case, classifier, mixed_on(material.bench.tests["cnn14"], case, spectrogram, device))
    return case, parts_of(model, control, planted[0][0])


def mixed_on(sounds, case: Case, spectrogram, device: str) -> Mixtures:
    hosts = sounds.waveforms.to(device)
    return mixtures(case, hosts, sounds_of(case.plant, hosts, sounds.names, spectrogram, sounds.pooled))


def db_of(waveforms: torch.Tensor, spectrogram) -> torch.Tensor:
    return torch.cat([spectrogram.decibels(part) for part in waveforms.split(networks.BATCH_SIZE)])


# All of them

PREPARE = {"mn04": prepare_mn04, "cnn14": prepare_cnn14}
_material: Material | None = None  # of a worker process


def _start(root: str, weights: str) -> None:
    global _material
    end_with_parent()
    torch.set_num_threads(1)
    _material = read_material(root, weights)


def _one(kind: str, plant: str, device: str) -> list[Made]:
    return PREPARE[kind](_material, plant, device)


def make_cases(
    esc50: str | Path,
    weights: str | Path,
    folder: str | Path,
    classifiers: Sequence[str] = tuple(PREPARE),
    plants: Sequence[str] = tuple(PLANTS),
    device: str = "cpu",
    n_workers: int = 1,
    tell: Callable[[int, int], None] | None = None,
) -> None:
    """Make the cases that the folder does not hold yet, a plant of a classifier at a time in each process.

    Parameters
    ----------
    esc50, weights : path
        Folder of ESC-50, and the tagger's file.
    folder : path
        Of the cases; see `Bench`.
    tell : callable, optional
        Given the plants of classifiers that are over and all of them, in the place of a line a case.

    Raises
    ------
    ValueError
        The folder's cases are of other sounds.
    Exception
        Of the first plant that failed, once all others are written.
    """
    bench = read_material(esc50, weights).bench
    if (Path(folder) / LISTED).is_file():
        stored = Bench.read(folder)
        if not bench.sounds_equal(stored):
            raise ValueError(f"folder: {folder} holds cases of other sounds; choose another folder")
        bench.cases, bench.parts = stored.cases, stored.parts
    jobs = jobs_left(bench.cases, classifiers, plants)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(n_workers, context, _start, (esc50, weights)) as pool:
        failed = []
        for n_over, job in enumerate(as_completed([pool.submit(_one, *job, device) for job in jobs]), 1):
            if job.exception():
                failed.append(job.exception())
                continue
            for case, parts in job.result():
                bench.cases.append(case)
                bench.parts[case.name] = parts
                if tell is None:
                    print(said(case), flush=True)
            bench.write(folder, weights)
            if tell is not None:
                tell(n_over, len(jobs))
    if failed:
        raise failed[0]


def jobs_left(
    cases: Sequence[Case], classifiers: Sequence[str], plants: Sequence[str]
) -> list[tuple[str, str]]:
    """(classifier, plant) pairs of which no case is there; those of a pair are written together."""
    there = {(case.classifier, case.plant) for case in cases}
    return [(kind, plant) for kind in classifiers for plant in plants if (kind, plant) not in there]


def main(arguments: list[str] | None = None) -> None:
    """Make the cases and write them, or copy the clips that are needed."""
    parser = argparse.ArgumentParser(prog="prepare", description=__doc__)
    parser.add_argument("esc50", help="folder with meta/esc50.csv and audio/")
    parser.add_argument("weights", help="mn04_as_mAP_432.pt")
    parser.add_argument("folder", help="where the cases go")
    parser.add_argument("--classifiers", nargs="+", choices=tuple(PREPARE), default=tuple(PREPARE))
    parser.add_argument("--plants", nargs="+", choices=tuple(PLANTS), default=tuple(PLANTS))
    add_options(parser)
    parser.add_argument(
        "--copy", action="store_true", help="copy the clips that are needed to FOLDER, no more"
    )
    given = parser.parse_args(arguments)
    if given.copy:
        print(f"{copy_clips(given.esc50, given.folder)} clips copied to {given.folder}")
        return
    chosen = (given.classifiers, given.plants, given.device, given.workers)
    make_cases(given.esc50, given.weights, given.folder, *chosen)


def said(case: Case) -> str:
    """A line on a case's proof."""
    shares = (f"{name} {getattr(case, name):.2f}" for name in ("turned", "false_alarms", "undone", "kept"))
    return f"{case.name}: {', '.join(shares)}, {len(case.clips)} clips"


if __name__ == "__main__":
    main()

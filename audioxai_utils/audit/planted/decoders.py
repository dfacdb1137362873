"""Decoders for the cases of a folder.

``python -m audioxai_utils.audit.planted.decoders ESC50 mn04_as_mAP_432.pt FOLDER`` trains them. A decoder is
trained for one classifier, on what that was trained on: clips with the cause and without it, the decoy in all
of them. Once it is there, its method is judged like any other.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from ...attributions import METHODS, decoder_training
from ...attributions.decoder import Recipe
from ...attributions.sound_decoder import SoundRecipe
from ...models.scores import FromWaveform
from ...study.sources import digest
from ...workers import add_options, run
from .bench import Bench, Sounds, decoder_path
from .cases import Case
from .material import Material, read_material
from .prepare import db_of, mixed_on

TRAINED = tuple(name for name in METHODS if METHODS.traits(name).recipe is not None)


def training_clips(material: Material, case: Case) -> tuple[Sounds, torch.Tensor]:
    """Clips that a case's classifier was trained on, before anything was added, and their labels."""
    return material.train if case.classifier == "mn04" else material.splits["train"]


def trained_on(material: Material, case: Case, spectrogram) -> torch.Tensor:
    """Waveforms (n, samples) of the clips that a case's classifier was trained on."""
    sounds, labels = training_clips(material, case)
    mixed = mixed_on(sounds, case, spectrogram, "cpu")
    if case.classifier == "mn04":
        return torch.cat([mixed.whole, mixed.without_cause])
    return torch.where((labels == case.target)[:, None], mixed.whole, mixed.without_cause)


def train(
    material: Material, bench: Bench, case: Case, method: str, epochs: int | None = None, device: str = "cpu"
) -> Path:
    """Train a method's decoder for a case, unless there is one for this classifier, on these clips, by this
    recipe; its file.

    Parameters
    ----------
    bench : Bench
        The case's, read from the folder that gets the file.
    epochs : int, optional
        At most; default the recipe's.
    """
    path, traits = decoder_path(bench.folder, case, method), METHODS.traits(method)
    start = train(material, bench, case, traits.after, epochs, device) if traits.after else None
    recipe = replace(traits.recipe, epochs=min(traits.recipe.epochs, epochs or traits.recipe.epochs))
    key = trained_for(material, bench, case, recipe, start)
    if path.is_file() and decoder_training.decoder_info(path).get("trained_for") == key:
        return path
    classifier = bench.classifier(case, device=device)
    model, spectrogram = classifier.model, copy.deepcopy(classifier.spectrogram).cpu()
    given = trained_on(material, case, spectrogram)
    if isinstance(recipe, SoundRecipe):
        model = FromWaveform(classifier.spectrogram, model)
    else:
        given = db_of(given, spectrogram)
    fitted = decoder_training.train_decoder(model, given, recipe, start=start)
    path.parent.mkdir(exist_ok=True)
    decoder_training.save_decoder(fitted, path, n_clips=len(given), trained_for=key)
    return path


def trained_for(material: Material, bench: Bench, case: Case, recipe: Recipe, start: Path | None) -> str:
    """Digest of what a decoder is trained for, on and by: case, classifier, clips, recipe and start."""
    content = hashlib.sha256(repr((case, recipe, digest(decoder_training.__name__))).encode())
    for values in bench.parts[case.name]["model"].values():
        content.update(values.cpu().numpy().tobytes())
    content.update(training_clips(material, case)[0].samples.tobytes())
    content.update(decoder_training.decoder_info(start)["trained_for"].encode() if start else b"")
    return content.hexdigest()[:16]


def _one(state: tuple[Material, Bench], name: str, methods: Sequence[str], epochs: int | None, device: str):
    material, bench = state
    (case,) = (case for case in bench.cases if case.name == name)
    paths = [train(material, bench, case, method, epochs, device) for method in methods]
    seconds = (decoder_training.decoder_info(path)["seconds"] for path in paths)
    said = ", ".join(f"{method} {each:.0f} s" for method, each in zip(methods, seconds))
    return f"{name}: {said}", True


def _start(root: str, weights: str, folder: str) -> tuple[Material, Bench]:
    return read_material(root, weights), Bench.read(folder)


def main(arguments: list[str] | None = None) -> int:
    """Train what is not there yet; 1 where a case failed."""
    parser = argparse.ArgumentParser(prog="decoders", description=__doc__)
    parser.add_argument("esc50", help="folder with meta/esc50.csv and audio/")
    parser.add_argument("weights", help="mn04_as_mAP_432.pt")
    parser.add_argument("folder", help="of prepared cases")
    parser.add_argument("--methods", nargs="+", default=TRAINED, choices=TRAINED)
    parser.add_argument("--cases", nargs="+", default=(), help="by name; all that count")
    parser.add_argument("--epochs", type=int, help="at most; default the recipe's")
    add_options(parser)
    given = parser.parse_args(arguments)
    names = given.cases or [case.name for case in Bench.read(given.folder).counted()]
    start = partial(_start, given.esc50, given.weights, given.folder)
    one = partial(_one, methods=given.methods, epochs=given.epochs, device=given.device)
    return int(run(names, start, one, given.workers) > 0)


if __name__ == "__main__":
    raise SystemExit(main())

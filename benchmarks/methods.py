"""Every method on a classifier of one's own, clip by clip: processor seconds, best masks, scored beside heard.

    python benchmarks/methods.py my_model.py:load clips --background references --keep parts

``load`` returns an `AudioClassifier`, as for ``./run_all.sh --model``; ``clips`` and ``references`` are folders
of sounds. Each clip goes through ``explain_many`` with each method and all masks, heard too. What is done lies
in ``--keep`` as one file a method and clip, so that the same command goes on where it was stopped; another
model or other options want another folder. Methods that need a decoder get one that is trained for ``--epochs``
on the references; with 0 they refuse. A method's best mask is that of the study's rule, over all methods.
`--results` is as in all.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

import pandas as pd
import torch
from torch import nn

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])

from measuring import add_options, show  # noqa: E402

from audioxai_utils import AudioClassifier, explain_many  # noqa: E402
from audioxai_utils.attributions import METHODS, decoder_training  # noqa: E402
from audioxai_utils.attributions.decoder import feature_layers  # noqa: E402
from audioxai_utils.attributions.sound_decoder import SoundRecipe, sound_layers  # noqa: E402
from audioxai_utils.audio.reading import as_mono  # noqa: E402
from audioxai_utils.audio.streaming import sound_files  # noqa: E402
from audioxai_utils.constants import PROTOCOLS, STUDY_METRICS  # noqa: E402
from audioxai_utils.evaluation.tables import best_masks  # noqa: E402
from audioxai_utils.files import read_parquet, save_parquet, write_json  # noqa: E402
from audioxai_utils.models.untouched import evaluation_mode  # noqa: E402
from audioxai_utils.study.own_model import load_own, own_digest  # noqa: E402

HEARD = ("FF_heard", "FidIn_heard", "AD_heard")
COLUMNS = ("FF", "FidIn", "AD", "area", *HEARD)
HERE = {"spectrogram_type": "own", "noise_scenario": "clean"}  # the rule asks for a condition


def sounds(folder: Path) -> dict[str, Path]:
    """Files of sound below a folder, by their names in it; FileNotFoundError where there are none."""
    return {path.relative_to(folder).as_posix(): path for path in sound_files(folder)}


def about(arguments: argparse.Namespace, classifier: AudioClassifier) -> dict:
    """All that scores, decoders and seconds depend on."""
    options = ("model", "samples", "epochs", "protocol", "seed", "device", "threads")
    folders = {name: str(getattr(arguments, name).resolve()) for name in ("clips", "background")}
    digest = own_digest(arguments.model, classifier)
    return {name: getattr(arguments, name) for name in options} | folders | {"digest of the model": digest}


def claim(folder: Path, now: dict) -> None:
    """Say in ``folder`` what its parts depend on; ValueError where they are of another run."""
    file = folder / "about.json"
    if not file.is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise ValueError(f"--keep {folder}: holds something, but no about.json; give a new folder")
        write_json(file, now)
        return
    before = json.loads(file.read_text(encoding="utf-8"))
    differ = [f"{name} {before.get(name)}, not {now[name]}" for name in now if before.get(name) != now[name]]
    if differ:
        raise ValueError(f"--keep {folder}: its parts are of {'; '.join(differ)}; give a new folder")


class Options:
    """What each method is given; the references and the decoders are made when they are first needed."""

    def __init__(self, classifier: AudioClassifier, arguments: argparse.Namespace) -> None:
        self.classifier, self.arguments, self._waveforms = classifier, arguments, None

    def of(self, method: str) -> dict:
        traits, known = METHODS.traits(method), METHODS.options(method)
        given = {traits.budget: self.arguments.samples} if traits.budget else {}
        if "background" in METHODS.required(method):
            given["background"] = self.classifier.pictures(self.waveforms())
        if traits.recipe is not None and self.arguments.epochs:
            given["decoder"] = self.decoder(method)
        return {name: value for name, value in given.items() if name in known}

    def refusal(self, method: str) -> str:
        """Why no decoder can be trained for a method that wants one, or nothing."""
        recipe, classifier = METHODS.traits(method).recipe, self.classifier
        if recipe is None or not self.arguments.epochs:
            return ""
        if not list(classifier.net.parameters()):
            return f"method {method!r} needs a network's weights and maps; this one shows none"
        by_sound = isinstance(recipe, SoundRecipe)
        if classifier.takes_waveform and not by_sound:
            return f"method {method!r} needs a decoder of pictures; this classifier takes waveforms"
        model, given = self.trained_on(recipe)
        try:
            with evaluation_mode(classifier.net):
                (sound_layers if by_sound else feature_layers)(model, given[:1])
        except ValueError as refusal:  # it has no maps
            return str(refusal)
        return ""

    def waveforms(self) -> torch.Tensor:
        """The references (n, samples), as long as the shortest of them."""
        if self._waveforms is None:
            rate, paths = self.classifier.sample_rate, sounds(self.arguments.background).values()
            try:
                waveforms = [as_mono(path, None, rate).float() for path in paths]
            except (OSError, ValueError) as refusal:
                raise SystemExit(f"--background {refusal}") from refusal
            shortest = min(map(len, waveforms))
            self._waveforms = torch.stack([waveform[:shortest] for waveform in waveforms])
        return self._waveforms

    def trained_on(self, recipe: decoder_training.Recipe) -> tuple[nn.Module, torch.Tensor]:
        """Model and references of a decoder: pictures, or sounds (n, samples) for a decoder of sounds."""
        self.classifier.look(self.waveforms()[:1])
        if isinstance(recipe, SoundRecipe):
            return self.classifier.on_waveform, self.classifier.samples(self.waveforms())
        return self.classifier.model, self.classifier.pictures(self.waveforms())

    def decoder(self, method: str) -> Path:
        """File of a decoder for a method, trained where there is none."""
        path, traits = self.arguments.keep / f"{method}.decoder", METHODS.traits(method)
        if not path.is_file():
            start = self.decoder(traits.after) if traits.after else None
            recipe = dataclasses.replace(traits.recipe, epochs=self.arguments.epochs)
            fitted = decoder_training.train_decoder(
                *self.trained_on(recipe), recipe, self.arguments.seed, start=start
            )
            decoder_training.save_decoder(fitted, path)
            print(f"{method}: a decoder of {recipe.epochs} epochs, {fitted.seconds:.0f} s", flush=True)
        return path


def explained(
    classifier: AudioClassifier, options: Options, method: str, name: str, path: Path
) -> pd.DataFrame:
    """Scores of one method on one clip, of the kept file where there is one; a refusal is not kept."""
    arguments = options.arguments
    file = arguments.keep / method / f"{name}.parquet"
    if file.is_file():
        return read_parquet(file)
    refusal = options.refusal(method)
    if refusal:
        table = pd.DataFrame([{"clip": name, "method": method, "refused": refusal}])
    else:
        started = time.process_time()
        table = explain_many(
            classifier,
            {name: path},
            [method],
            method_options={method: options.of(method)},
            heard=True,
            protocol=arguments.protocol,
        )
        table["cpu_seconds"] = time.process_time() - started  # the clock's hang on who else is there
    seconds = table["cpu_seconds"].iloc[0] if "cpu_seconds" in table else float("nan")
    print(f"{method} {name}: {seconds:.1f} s {table['refused'].iloc[0]}", flush=True)
    if not table["refused"].any():
        save_parquet(table, file)
    return table


def summary(scores: pd.DataFrame) -> pd.DataFrame:
    """A row a method: clips, seconds, best mask and its mean scores, or why it refuses."""
    works = scores[scores["refused"] == ""]
    if works.empty:
        return scores.groupby("method")["refused"].first().reset_index()
    means = (
        works.groupby(["method", "mask"], sort=False)[list({*STUDY_METRICS, *COLUMNS})].mean().reset_index()
    )
    best = best_masks(means.assign(**HERE))[["method", "mask"]].merge(means, on=["method", "mask"])
    first = works.groupby(["method", "clip"], sort=False)["cpu_seconds"].first().groupby("method")
    cost = pd.DataFrame({"clips": first.size(), "cpu s a clip": first.median()}).reset_index()
    table = cost.merge(best[["method", "mask", *COLUMNS]], on="method")
    refused = scores[scores["refused"] != ""].groupby("method")["refused"].first().reset_index()
    return table.merge(refused, on="method", how="outer").sort_values("method", ignore_index=True)


def new_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", metavar="FILE:FUNCTION")
    parser.add_argument("clips", type=Path)
    parser.add_argument("--background", type=Path, help="references of Deep SHAP, and what trains decoders")
    parser.add_argument("--keep", type=Path, required=True, help="folder of what is done")
    parser.add_argument(
        "--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="METHOD"
    )
    parser.add_argument(
        "--samples", type=int, default=200, help="changed copies of a clip that methods ask about"
    )
    parser.add_argument("--epochs", type=int, default=0, help="of decoders")
    parser.add_argument("--protocol", default="audited", choices=PROTOCOLS)
    add_options(parser)
    return parser


def main(given: list[str] | None = None) -> None:
    parser = new_parser()
    arguments = parser.parse_args(given)
    arguments.background = arguments.background or arguments.clips
    torch.set_num_threads(arguments.threads)
    try:
        clips, _ = sounds(arguments.clips), sounds(arguments.background)
        classifier = load_own(arguments.model, arguments.device)
        claim(arguments.keep, about(arguments, classifier))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    options = Options(classifier, arguments)
    parts = [
        explained(classifier, options, method, name, path)
        for method in arguments.methods
        for name, path in clips.items()
    ]
    setting = f"{classifier!r}, {len(clips)} clips, {arguments.samples} changed copies, {arguments.protocol}"
    show({"methods": summary(pd.concat(parts, ignore_index=True))}, setting, arguments)


if __name__ == "__main__":
    main()

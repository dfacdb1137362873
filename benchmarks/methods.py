"""Every method on a classifier of one's own, clip by clip: seconds, best masks, scored beside heard.

    python benchmarks/methods.py my_model.py:load clips --background references --keep parts

``load`` returns an `AudioClassifier`, as for ``./run_all.sh --model``; ``clips`` and ``references`` are folders
of sounds. Each clip goes through ``explain_many`` with each method and all masks, heard too. What is done lies
in ``--keep`` as one file a method and clip, so that the same command goes on where it was stopped. Methods
that need a decoder get one that is trained for ``--epochs`` on the references; with 0 they refuse. A method's
best mask is that of the study's rule, over all methods. `--results` is as in all.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import pandas as pd
import torch

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])

from measuring import add_options, show  # noqa: E402

from audioxai_utils import AudioClassifier, explain_many  # noqa: E402
from audioxai_utils.attributions import METHODS, decoder_training  # noqa: E402
from audioxai_utils.audio import inputs  # noqa: E402
from audioxai_utils.audio.reading import as_mono  # noqa: E402
from audioxai_utils.constants import PROTOCOLS, STUDY_METRICS  # noqa: E402
from audioxai_utils.evaluation.tables import best_masks  # noqa: E402
from audioxai_utils.files import save_parquet  # noqa: E402
from audioxai_utils.study.own_model import load_own  # noqa: E402

HEARD = ("FF_heard", "FidIn_heard", "AD_heard")
COLUMNS = ("FF", "FidIn", "AD", "area", *HEARD)
HERE = {"spectrogram_type": "own", "noise_scenario": "clean"}  # the rule asks for a condition


def sounds(folder: Path) -> dict[str, Path]:
    """Files of sound below a folder, by their names in it."""
    names = [
        name for name in inputs.files_below(folder) if Path(name).suffix.lower() in inputs.AUDIO_SUFFIXES
    ]
    return {name: folder / name for name in names}


def references(classifier: AudioClassifier, folder: Path) -> torch.Tensor:
    """Pictures (n, 1, F, T) of a folder's sounds, as long as the shortest of them."""
    waveforms = [as_mono(path, None, classifier.sample_rate) for path in sounds(folder).values()]
    if not waveforms:
        raise SystemExit(f"--background {folder}: no sound in it")
    shortest = min(map(len, waveforms))
    return classifier.pictures(torch.stack([waveform[:shortest].float() for waveform in waveforms]))


class Options:
    """What each method is given; the references and the decoders are made when they are first needed."""

    def __init__(self, classifier: AudioClassifier, arguments: argparse.Namespace) -> None:
        self.classifier, self.arguments, self._pictures = classifier, arguments, None

    def of(self, method: str) -> dict:
        traits, known = METHODS.traits(method), METHODS.options(method)
        given = {traits.budget: self.arguments.samples} if traits.budget else {}
        if "background" in METHODS.required(method):
            given["background"] = self.pictures()
        if traits.recipe is not None and self.arguments.epochs:
            given["decoder"] = self.decoder(method)
        return {name: value for name, value in given.items() if name in known}

    def pictures(self) -> torch.Tensor:
        if self._pictures is None:
            self._pictures = references(self.classifier, self.arguments.background)
        return self._pictures

    def decoder(self, method: str) -> Path:
        """File of a decoder for a method, trained where there is none."""
        path = self.arguments.keep / f"{method}.decoder"
        if not path.is_file():
            traits = METHODS.traits(method)
            start = self.decoder(traits.after) if traits.after else None
            recipe = dataclasses.replace(traits.recipe, epochs=self.arguments.epochs)
            self.classifier.look(as_mono(next(iter(self.clips())), None, self.classifier.sample_rate)[None])
            fitted = decoder_training.train_decoder(
                self.classifier.model, self.pictures(), recipe, self.arguments.seed, start=start
            )
            decoder_training.save_decoder(fitted, path)
            print(
                f"{method}: a decoder of {self.arguments.epochs} epochs, {fitted.seconds:.0f} s", flush=True
            )
        return path

    def clips(self):
        return sounds(self.arguments.clips).values()


def explained(
    classifier: AudioClassifier, options: Options, method: str, name: str, path: Path
) -> pd.DataFrame:
    """Scores of one method on one clip, of the kept file where there is one."""
    arguments = options.arguments
    file = arguments.keep / method / f"{name.replace('/', '_')}.parquet"
    if not file.is_file():
        try:
            given = options.of(method)
        except (TypeError, ValueError) as refusal:
            table = pd.DataFrame([{"clip": name, "method": method, "refused": str(refusal)}])
        else:
            table = explain_many(
                classifier,
                {name: path},
                [method],
                method_options={method: given},
                heard=True,
                protocol=arguments.protocol,
            )
        save_parquet(table, file)
        seconds = table["seconds"].iloc[0] if "seconds" in table else float("nan")
        print(f"{method} {name}: {seconds:.1f} s {table['refused'].iloc[0]}", flush=True)
    return pd.read_parquet(file)


def summary(scores: pd.DataFrame) -> pd.DataFrame:
    """A row a method: clips, seconds, best mask and its mean scores, or why it refuses."""
    works = scores[scores["refused"] == ""]
    if works.empty:
        return scores.groupby("method")["refused"].first().reset_index()
    means = (
        works.groupby(["method", "mask"], sort=False)[list({*STUDY_METRICS, *COLUMNS})].mean().reset_index()
    )
    best = best_masks(means.assign(**HERE))[["method", "mask"]].merge(means, on=["method", "mask"])
    first = works.groupby(["method", "clip"], sort=False)["seconds"].first().groupby("method")
    cost = pd.DataFrame({"clips": first.size(), "s a clip": first.median()}).reset_index()
    table = cost.merge(best[["method", "mask", *COLUMNS]], on="method")
    refused = scores[scores["refused"] != ""].groupby("method")["refused"].first().reset_index()
    return table.merge(refused, on="method", how="outer").sort_values("method", ignore_index=True)


def parse(given: list[str] | None = None) -> argparse.Namespace:
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
    arguments = parser.parse_args(given)
    arguments.background = arguments.background or arguments.clips
    return arguments


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    classifier = load_own(arguments.model, arguments.device)
    options, clips = Options(classifier, arguments), sounds(arguments.clips)
    if not clips:
        raise SystemExit(f"{arguments.clips}: no sound in it")
    parts = [
        explained(classifier, options, method, name, path)
        for method in arguments.methods
        for name, path in clips.items()
    ]
    setting = f"{classifier!r}, {len(clips)} clips, {arguments.samples} changed copies, {arguments.protocol}"
    show({"methods": summary(pd.concat(parts, ignore_index=True))}, setting, arguments)


if __name__ == "__main__":
    main()

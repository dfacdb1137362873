"""What is computed in a condition of the study: attributions and scores, on files.

Everything is resumable: an attribution is one file a clip and scores are one file a block of clips,
with a key of all they were computed from, and a finished one is not computed again. So a condition's clips
can be shared out over jobs (``shards``), and what merges them finds their work done.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from .. import constants
from ..attributions import decoder_training
from ..attributions import METHODS
from ..evaluation.controls import all_ones, clip_seed, control_masks, control_ranks, energy_kept, oracle_mask
from ..audio.datasets import background_clips
from ..numerics import to_device
from ..locks import locked
from ..evaluation.masks import build_masks
from ..files import atomic_path, save_parquet
from ..evaluation.scoring import MaskScorer, probabilities, score_masks
from .sources import PACKAGE, module_closure
from .study import Classifier, Clips, Settings, load_clips, scenario_name, split_spectrograms, spectrograms_of

AT_ONCE = {"cpu": 1, "cuda": 16}  # clips attributed together; on a GPU the CPU's part of one runs beside another's
SCORE_BLOCK = 8  # clips whose masks are in memory at once
SOUND_TO_LOGITS = ("spectrograms", "noise", "models", "inference")  # modules every attribution hangs on


# --- attributions ----------------------------------------------------------------------------


def method_options(
    settings: Settings, classifier: Classifier, method: str, waveform: torch.Tensor | None = None
) -> dict:
    """The study's options of a method at this profile, by what the method says of itself.

    With the clips' ``waveform`` (n, samples), also the sound and its transform, where the method takes them.
    """
    traits, options = METHODS.traits(method), {}
    if traits.budget:
        options[traits.budget] = settings.sizes.lime_samples
    if traits.background:
        options["background"] = reference_spectrograms(settings, classifier)
    if traits.recipe is not None:
        options["decoder"] = fitted_decoder(settings, classifier, method)
    return options if waveform is None else options | clip_options(classifier, method, waveform)


def clip_options(classifier: Classifier, method: str, waveform: torch.Tensor) -> dict:
    """The options that are the clips' own sound (n, samples), as the classifier takes it, and its transform."""
    sound = to_device(waveform.to(classifier.dtype), next(classifier.model.parameters()).device)
    return METHODS.taken(method, waveform=sound, spectrogram=classifier.spectrogram)


def fitted_decoder(settings: Settings, classifier: Classifier, method: str) -> Path:
    """File of a method's decoder for a classifier; it is trained, on the training folds alone, where there is none.

    A method that comes after another one trains the other one's decoder further. One process trains, the
    others wait for it.
    """
    path, before = decoder_path(settings, classifier, method), METHODS.traits(method).after
    if path.is_file():
        return path
    start = fitted_decoder(settings, classifier, before) if before else None
    with locked(path.parent):
        if not path.is_file():
            db, _, clips = split_spectrograms(settings, classifier.spectrogram, "train")
            recipe = decoder_recipe(settings, method)
            fitted = decoder_training.train_decoder(classifier.model, db, recipe, settings.seed, start=start)
            decoder_training.save_decoder(fitted, path, n_clips=len(clips), classifier=classifier.digest)
    return path


def decoder_path(settings: Settings, classifier: Classifier, method: str) -> Path:
    """Where a method's decoder is: the name holds a key of the classifier, the recipe, what trains it and its start."""
    before = METHODS.traits(method).after
    about = [classifier.digest, str(decoder_recipe(settings, method)), str(settings.seed), source_digest(method)]
    about += [decoder_path(settings, classifier, before).name] if before else []
    sources = (PACKAGE / "decoders.py").read_bytes()
    key = hashlib.sha256(sources + " ".join(about).encode()).hexdigest()[:12]
    return settings.results / "decoders" / f"{classifier.spectrogram.settings.name}_{method}_{key}.pt"


def decoder_recipe(settings: Settings, method: str) -> decoder_training.Recipe:
    """The method's recipe, with no more epochs than the profile's classifier has."""
    recipe = METHODS.traits(method).recipe
    return dataclasses.replace(recipe, epochs=min(recipe.epochs, settings.sizes.epochs))


def reference_spectrograms(settings: Settings, classifier: Classifier) -> torch.Tensor:
    """The profile's reference clips, dB (n, 1, F, T), from the training folds."""
    frame = background_clips(settings.data, settings.sizes.background_clips)
    return spectrograms_of(classifier, load_clips(settings, frame, classifier.spectrogram.sample_rate))


def fitting_seconds(settings: Settings, classifier: Classifier, method: str) -> float:
    """What training cost before the method's first clip (s), all stages; 0 for a method that is not trained."""
    if METHODS.traits(method).recipe is None:
        return 0.0
    return float(decoder_training.decoder_info(fitted_decoder(settings, classifier, method))["seconds"])


@functools.cache
def source_digest(method: str) -> str:
    """Digest of the code that a method's attributions are computed with: a changed method computes them anew.

    That is its own module, those of ``attributions`` that it imports, directly or not, and the way from the
    sound to the logits.
    """
    function = inspect.unwrap(METHODS[method])
    files = {Path(inspect.getsourcefile(function)), *(PACKAGE / f"{name}.py" for name in SOUND_TO_LOGITS)}
    imported = module_closure({function.__module__}, siblings=False)
    files |= {file for file in imported if file.parent == PACKAGE / "attributions"}
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(files))).hexdigest()[:16]


def attribution_folder(settings: Settings, spectrogram_type: str, noise_scenario: str, method: str) -> Path:
    return settings.results / "attributions" / spectrogram_type / scenario_name(noise_scenario) / method


def _key(classifier: Classifier, waveform: torch.Tensor, method: str, options: dict) -> str:
    digest = hashlib.sha256(f"{source_digest(method)} {classifier.digest} {method}".encode())
    for name, value in sorted(options.items()):
        digest.update(name.encode())
        digest.update(_content(value))
    digest.update(waveform.numpy().tobytes())
    return digest.hexdigest()[:24]


def _content(value) -> bytes:
    """An option's value as bytes: a tensor's values, a file's content."""
    if isinstance(value, torch.Tensor):
        return value.cpu().numpy().tobytes()
    return value.read_bytes() if isinstance(value, Path) else repr(value).encode()


def attribute(
    settings: Settings, classifier: Classifier, clips: Clips, condition: tuple[str, str], method: str
) -> Iterator[dict]:
    """Attribute every clip of a condition by one method, one file a clip.

    Yields
    ------
    dict
        clip, seconds, target, p, computed (False where the file was there already).
    """
    if "gradient_error" not in classifier.info:
        raise ValueError(f"the {condition[0]} checkpoint holds no gradient check; run notebook 02_fine_tuning again")
    folder = attribution_folder(settings, *condition, method)
    options = method_options(settings, classifier, method)
    device = next(classifier.model.parameters()).device
    for start in range(0, len(clips), size := AT_ONCE.get(device.type, 1)):
        keys = [_key(classifier, waveform, method, options) for waveform in clips.waveforms[start : start + size]]
        rows = clips.frame.iloc[start : start + size].to_dict("records")
        records = [_read_attribution(folder / f"{row['clip']}.npz", key) for row, key in zip(rows, keys)]
        missing = [i for i, record in enumerate(records) if record is None]
        made = _attributed(classifier, clips.waveforms[[start + i for i in missing]], method, options) if missing else []
        for i, record in zip(missing, made):
            records[i] = record | {"key": keys[i]}
            with atomic_path(folder / f"{rows[i]['clip']}.npz") as temporary:
                np.savez(temporary, **records[i])
        for i, (row, record) in enumerate(zip(rows, records)):
            scalars = {name: record[name].item() for name in ("seconds", "target", "p")}
            yield {"clip": row["clip"], "category": row["category"], **scalars, "computed": i in missing}


def _attributed(classifier: Classifier, waveforms: torch.Tensor, method: str, options: dict) -> list[dict]:
    """A record of each clip (n, samples); those that are attributed at once share the seconds."""
    device = next(classifier.model.parameters()).device
    sound = to_device(waveforms.to(classifier.dtype), device)
    db = classifier.spectrogram(sound).db
    heard = clip_options(classifier, method, sound)
    p, target = probabilities(classifier.model, db).max(1)
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    attribution = METHODS[method](classifier.model, db, target, **heard, **options)
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - started) / len(db)
    found = zip(attribution[:, 0].cpu().numpy(), target.cpu().numpy(), p.double().cpu().numpy())
    return [{"attribution": a, "target": t, "p": each, "seconds": np.array(seconds)} for a, t, each in found]


def _read_attribution(path: Path, key: str | None = None) -> dict | None:
    """A stored attribution; None where there is none, or one of another key."""
    if not path.is_file():
        return None
    with np.load(path) as content:
        record = {name: content[name] for name in content.files}
    return record if key is None or str(record["key"]) == key else None


def load_attributions(settings: Settings, clips: Clips, condition: tuple[str, str], method: str) -> tuple[torch.Tensor, list]:
    """Attributions (n, 1, F, T) of a condition's clips, and the seconds each took.

    Raises
    ------
    FileNotFoundError
        One is missing: notebook 03 has to run first.
    """
    folder = attribution_folder(settings, *condition, method)
    records = [_read_attribution(folder / f"{clip}.npz") for clip in clips.frame["clip"]]
    missing = sum(record is None for record in records)
    if missing:
        raise FileNotFoundError(f"{folder}: {missing} of {len(clips)} attributions are missing; run 03_attributions")
    values = torch.from_numpy(np.stack([record["attribution"] for record in records])[:, None])
    return values, [float(record["seconds"]) for record in records]


def methods_of(settings: Settings, condition: tuple[str, str], methods: str = "") -> list[str]:
    """Methods with attributions of this condition, the study's own first; ``methods`` names some of them."""
    folder = attribution_folder(settings, *condition, "x").parent
    found = {path.name for path in folder.glob("*") if path.is_dir()}
    if not found:
        raise FileNotFoundError(f"{folder}: no attributions; run 03_attributions first")
    found = found & set(methods.split()) if methods else found
    return [*(m for m in constants.STUDY_METHODS if m in found), *sorted(found - set(constants.STUDY_METHODS))]


def additivity(settings, classifier: Classifier, clips: Clips, attribution, targets, method: str) -> np.ndarray | None:
    """Relative additivity error per clip of the methods that promise additivity, else None."""
    if not METHODS.traits(method).additive:
        return None
    from ..attributions.shap import additivity_error

    db = spectrograms_of(classifier, clips)
    background = reference_spectrograms(settings, classifier)
    target = torch.as_tensor(np.asarray(targets), device=db.device)
    return additivity_error(classifier.model, db, target, background, attribution.to(db)).cpu().numpy()


# --- scores ----------------------------------------------------------------------------------


def score(
    settings: Settings, classifier: Classifier, clips: Clips, condition: tuple[str, str], methods: list[str],
    protocols: list[str],
) -> Iterator[pd.DataFrame]:
    """Score all masks of the methods on a condition's clips, a block of clips at a time, one file a block.

    Under ``audited`` what is heard is scored too, and every mask has its controls: rows with ``control``
    random or energy of exactly the mask's area, and all_ones and oracle once per clip. Where target and
    interferer are known, so is what a mask keeps of either (dB) and the SI-SDR (dB) of its sound.

    Yields
    ------
    pandas.DataFrame
        Tidy: one row per protocol, clip, method, mask and control ("" for the method itself).
    """
    folder = settings.results / "scores" / "blocks" / condition[0] / scenario_name(condition[1])
    for number, block in clips.blocks(SCORE_BLOCK):
        attributed = {method: load_attributions(settings, block, condition, method) for method in methods}
        key = _block_key(classifier, block, attributed, protocols)
        path = folder / f"{number:06d}-{key}.parquet"
        if not path.is_file():
            frames = _score_block(_Part.of(classifier, block), attributed, protocols)
            save_parquet(_tidy(pd.concat(frames, ignore_index=True), block.frame, condition), path)
            for old in folder.glob(f"{number:06d}-*.parquet"):
                if old != path:
                    old.unlink(missing_ok=True)
        yield pd.read_parquet(path)


@functools.cache
def scoring_digest() -> str:
    """Digest of the code that scores are computed with: a change of it scores anew."""
    modules = {f"{__package__}.{name}" for name in ("scoring", "masks", "controls", "inference", "models")}
    files = [*module_closure(modules), Path(__file__)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def _block_key(classifier: Classifier, block: Clips, attributed: dict, protocols: list[str]) -> str:
    about = [scoring_digest(), classifier.digest, *protocols, *block.frame["clip"], *block.frame["label"].astype(str)]
    digest = hashlib.sha256(" ".join(about).encode())
    for waveforms in (block.waveforms, *(block.stems or ())):
        digest.update(waveforms.numpy().tobytes())
    for method, (attribution, seconds) in attributed.items():
        digest.update(f"{method} {seconds}".encode() + attribution.numpy().tobytes())
    return digest.hexdigest()[:24]


def _score_block(part: _Part, attributed: dict, protocols: list[str]) -> list[pd.DataFrame]:
    """Scores of every method and protocol, with their controls and bounds under ``audited``."""
    frames = []
    for method, (attribution, seconds) in attributed.items():
        values = attribution.to(part.scorer.batch.db)
        for protocol in protocols:
            masks = build_masks(values, protocol)
            scores = part.score(masks, protocol)
            frames.append(scores.assign(method=method, seconds=np.array(seconds)[scores["index"]]))
            if protocol == "audited":
                frames += [frame.assign(method=method) for frame in part.controls(masks)]
    return frames + part.bounds() if "audited" in protocols else frames


class _Part:
    """A few clips of a condition with everything their masks are scored against."""

    def __init__(self, scorer: MaskScorer, names: list[str], stems) -> None:
        self.scorer, self.stems = scorer, stems
        self.powers = None if stems is None else [scorer.spectrogram(stem).power for stem in stems]
        self.ranks = control_ranks(scorer.batch.power, [clip_seed(name) for name in names])

    @classmethod
    def of(cls, classifier: Classifier, clips: Clips) -> _Part:
        parameter, stems, clean = next(classifier.model.parameters()), None, None
        batch = classifier.spectrogram(clips.waveforms.to(parameter))
        if clips.stems is not None:
            stems = [stem.to(parameter) for stem in clips.stems]
            clean = stems[0]
        scorer = MaskScorer(classifier.folded, classifier.spectrogram, batch, clean=clean)
        return cls(scorer, list(clips.frame["clip"]), stems)

    def score(self, masks: dict[str, torch.Tensor], protocol: str) -> pd.DataFrame:
        scores = score_masks(self.scorer, masks, protocol, heard=protocol == "audited")
        if protocol == "audited" and self.stems is not None:
            truth = [self._truth(mask) for mask in masks.values()]
            for name in truth[0]:
                scores[name] = torch.cat([values[name] for values in truth]).cpu().numpy()
        return scores.assign(protocol=protocol, control="")

    def _truth(self, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        return energy_kept(mask, *self.powers) | {"si_sdr": self.scorer.si_sdr(mask)}

    def controls(self, masks: dict[str, torch.Tensor]) -> Iterator[pd.DataFrame]:
        """random and energy at the area of every mask."""
        by_name: dict[str, dict[str, torch.Tensor]] = {"random": {}, "energy": {}}
        for name, mask in masks.items():
            for control, matched in control_masks(mask, self.scorer.batch.power, ranks=self.ranks).items():
                by_name[control][name] = matched
        for control, matched in by_name.items():
            yield score_masks(self.scorer, matched, "audited").assign(protocol="audited", control=control)

    def bounds(self) -> list[pd.DataFrame]:
        """all_ones, and oracle where the stems are known."""
        masks = {"all_ones": all_ones(self.scorer.batch.db)}
        if self.stems is not None:
            masks["oracle"] = oracle_mask(*self.powers).to(self.scorer.batch.db)
        return [
            self.score({"": mask}, protocol).assign(control=name, method="")
            for name, mask in masks.items() for protocol in constants.PROTOCOLS
        ]


def _tidy(scores: pd.DataFrame, frame: pd.DataFrame, condition: tuple[str, str]) -> pd.DataFrame:
    """Names of clip, condition, method, mask and control in front of the numbers."""
    clip = frame.iloc[scores.pop("index").to_numpy()].reset_index(drop=True)
    known = {
        "protocol": scores.pop("protocol"), "spectrogram_type": condition[0], "noise_scenario": scenario_name(condition[1]),
        "method": scores.pop("method"), "mask": scores.pop("mask"), "control": scores.pop("control"),
        "clip": clip["clip"], "category": clip["category"], "label": clip["label"],
        "correct": clip["label"].to_numpy() == scores["target"].to_numpy(),
    }
    return pd.concat([pd.DataFrame(known), scores], axis=1)


def scores_path(settings: Settings, condition: tuple[str, str]) -> Path:
    return settings.results / "scores" / condition[0] / f"{scenario_name(condition[1])}.parquet"


def save_scores(settings: Settings, condition: tuple[str, str], scores: pd.DataFrame) -> Path:
    path = scores_path(settings, condition)
    save_parquet(scores, path)
    return path


def load_scores(settings: Settings, conditions: str = "") -> pd.DataFrame:
    """Scores of ``conditions`` ("mel_db/clean mel_db/white"; empty: all that there are); FileNotFoundError for none."""
    folder = settings.results / "scores"
    paths = [scores_path(settings, condition.split("/", 1)) for condition in conditions.split()] or sorted(folder.glob("*/*.parquet"))
    missing = [path for path in paths if not path.is_file()]
    if missing or not paths:
        raise FileNotFoundError(f"{(missing or [folder])[0]}: no scores; run 04_mask_study first")
    return pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)

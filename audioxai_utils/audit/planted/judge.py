"""Every method on every case of a folder: where its map points, and what the metrics say of it."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ...attributions import METHODS
from ...audio.spectrograms import kept_audio
from ...evaluation.controls import clip_seed, si_sdr
from ...evaluation.ranks import rank_correlation
from ...evaluation.selection import bin_ranks, first_bins
from ...files import save_parquet, write_json
from ...models.inference import inference_copy
from ...models.reading import reading_of
from ...numerics import tensor_float32
from .bench import Bench, decoder_path
from .cases import Case, Mixtures, Truth, power_at, truth
from .fills import FILLS, HEARD, JUDGED_MASKS, repeated, scored
from .measures import control_maps, localised
from .plants import PLANTS

# the same methods with another choice of what they compare with, or of the surrogate
VARIANTS = {
    "shap_silence": ("shap", {"background": "silence"}),
    "integrated_gradients_references": ("integrated_gradients", {"background": "references"}),
    "segments_forest": ("segments", {"surrogate": "forest"}),
}
EXACT = {"engine": "exact", "max_rule": "deeplift"}  # shap's own values, on any network
CUDA_BATCHES = {"rise": 256, "occlusion": 128, "gradient_shap": 64, "smoothgrad": 32}
CUDA_BATCHES |= {"integrated_gradients": 50, "extremal": 16, "extremal_20": 16, "extremal_robust": 16}
COMPARED = ("auc", "average_precision", "mass", "decoy_ratio", "auc_decoy")  # with the control's map
FAULTS = (ValueError, RuntimeError, TypeError, NotImplementedError, ImportError, OSError)  # of a method
ABOUT = ["classifier", "plant", "swapped", "level_db", "case", "clip"]


def needs_decoder(name: str) -> bool:
    """Whether a method or variant has to be trained first (`decoders`)."""
    return name in METHODS and "decoder" in METHODS.required(name)


def judged_methods() -> tuple[str, ...]:
    """Registered methods that need no trained decoder, then the variants."""
    return (*(name for name in METHODS if not needs_decoder(name)), *VARIANTS)


@dataclass(frozen=True)
class Effort:
    """How much is computed: neighbours or masks of methods that only ask, clips a case, methods."""

    n_samples: int = 1000
    n_clips: int = 10
    n_compared: int = 10  # clips of each case explained with the control too
    n_heard: int = 4  # clips whose sound is made: SI-SDR and heard scores
    methods: tuple[str, ...] = field(default_factory=judged_methods)
    fills: tuple[str, ...] = FILLS
    masks: tuple[str, ...] = JUDGED_MASKS


@dataclass(frozen=True)
class Clips:
    """What a case is judged on: pictures and sounds where the classifier is, and what is true of them."""

    case: Case
    spectrogram: torch.nn.Module
    mixed: Mixtures
    known: Truth
    db: torch.Tensor
    waveform: torch.Tensor
    references: torch.Tensor
    folder: Path | None = None  # of the cases

    def __len__(self) -> int:
        return len(self.db)

    def __getitem__(self, rows: slice) -> Clips:
        """Some of the clips, as methods need them."""
        return replace(self, db=self.db[rows], waveform=self.waveform[rows], mixed=self.mixed[rows])

    def to(self, device: str) -> Clips:
        """Pictures, sounds and transform on another device."""
        moved = {name: getattr(self, name).to(device) for name in ("db", "waveform", "references")}
        return replace(self, spectrogram=copy.deepcopy(self.spectrogram).to(device), **moved)


def clips_of(bench: Bench, case: Case, n_clips: int, device: str) -> Clips:
    """The case's turned clips, made again from what is stored."""
    spectrogram = bench.classifier(case).spectrogram
    mixed = bench.tests[case.classifier].mixtures(case, spectrogram, case.clips[:n_clips])
    known = truth(mixed, spectrogram, PLANTS[case.plant].absent)
    references = spectrogram.decibels(bench.background(case, spectrogram))
    on_device = (part.to(device) for part in (known.db, mixed.whole, references))
    return Clips(case, spectrogram.to(device), mixed, known, *on_device, bench.folder)


def attribute(
    name: str, model: torch.nn.Module, clips: Clips, target: torch.Tensor, n_samples: int
) -> torch.Tensor:
    """Map (n, 1, F, T) of a method or a variant; references are used where a method wants some."""
    method, changes = VARIANTS.get(name, (name, {}))
    options = dict(EXACT) if method == "shap" else {}
    if METHODS.traits(method).budget:
        options[METHODS.traits(method).budget] = n_samples
    options |= {name: value for name, value in changes.items() if name != "background"}
    if needs_decoder(name):
        options["decoder"] = decoder_path(clips.folder, clips.case, name)
    wanted = changes.get("background") or ("references" if METHODS.traits(method).background else None)
    if wanted == "silence":
        options["background"] = torch.full_like(clips.references[:1], reading_of(model).floor)
    elif wanted == "references":
        options["background"] = clips.references
    if clips.db.is_cuda and method in CUDA_BATCHES:
        options["batch_size"] = CUDA_BATCHES[method]
    sound = {"waveform": clips.waveform, "spectrogram": clips.spectrogram}
    return METHODS[method](model, clips.db, target, **options, **METHODS.taken(method, **sound))


# One case


def judge(bench: Bench, case: Case, effort: Effort = Effort(), device: str = "cpu"):
    """Every method's maps of a case, judged.

    Returns
    -------
    points : DataFrame
        A row for each clip and method: `measures.localised`, sound, and the same of the control's map.
    scores : DataFrame
        `fills.scored` of each clip.
    record : dict
        ``seconds`` of each method, and ``failed``: the message of each that gave no map.
    """
    clips, record = clips_of(bench, case, effort.n_clips, device), {"seconds": {}, "failed": {}}
    model, control = (bench.classifier(case, which, device).model for which in (False, True))
    target = torch.full((len(clips),), case.target, device=device)
    maps = maps_of(model, clips, target, effort, record)
    few = clips[: effort.n_compared]
    untrained = replace(effort, methods=tuple(name for name in effort.methods if not needs_decoder(name)))
    other = maps_of(control, few, control_target(control, few), untrained, record) if len(few) else {}
    seed = clip_seed(case.name)
    mean = bench.parts[case.name]["fills"][0]
    maps |= control_maps(clips.known, mean, slice(None), torch.Generator().manual_seed(seed))
    points, scores, fast = [], [], inference_copy(model, clips.db)
    started = time.perf_counter()
    for i in range(len(clips)):
        about = dict(zip(ABOUT, (case.classifier, case.plant, case.swapped, case.level_db, case.name)))
        about["clip"] = bench.tests[case.classifier].names[case.clips[i]]
        own = {name: values[i : i + 1].to(device) for name, values in maps.items()}
        points.append(points_of(clips, i, own, other, i < effort.n_heard).assign(**about))
        fills = [fill for fill in effort.fills if fill != HEARD or i < effort.n_heard]
        chosen = (bench.parts[case.name]["fills"].to(device), fills, effort.masks)
        clip = clips.spectrogram(clips.waveform[i : i + 1])
        scores.append(scored(fast, clips.spectrogram, clip, case.target, own, *chosen).assign(**about))
    record["seconds"]["judging"] = time.perf_counter() - started
    return pd.concat(points, ignore_index=True), pd.concat(scores, ignore_index=True), record


@torch.no_grad()
def control_target(control: torch.nn.Module, clips: Clips) -> torch.Tensor:
    """What is explained of the control: the class it predicts; of ``cnn14`` the class with the plant."""
    if clips.case.classifier == "cnn14":
        return torch.full((len(clips),), clips.case.target, device=clips.db.device)
    return control(clips.db).argmax(1)


def maps_of(
    model: torch.nn.Module, clips: Clips, target: torch.Tensor, effort: Effort, record: dict
) -> dict[str, torch.Tensor]:
    """Maps by method; what a method says instead of one is kept in ``record``, and reported at the end.

    A method that does not run on a GPU is run on the CPU.
    """
    maps = {}
    for name in effort.methods:
        started = time.perf_counter()
        try:
            maps[name] = finite(attribute(name, model, clips, target, effort.n_samples))
        except FAULTS as error:
            record["failed"][name] = f"{type(error).__name__}: {str(error)[:300]}"
            if not clips.db.is_cuda:
                continue
            on_cpu = (copy.deepcopy(model).cpu(), clips.to("cpu"), target.cpu())
            try:
                maps[name] = finite(attribute(name, *on_cpu, effort.n_samples)).to(clips.db)
            except FAULTS as again:
                record["failed"][name] += f"; on the CPU {type(again).__name__}: {str(again)[:300]}"
                continue
        taken = time.perf_counter() - started
        record["seconds"][name] = record["seconds"].get(name, 0.0) + taken
    return maps


def finite(maps: torch.Tensor) -> torch.Tensor:
    """The maps; ValueError where one holds a value that is no number."""
    if not bool(maps.isfinite().all()):
        raise ValueError("maps must be finite; they hold NaN or infinite values")
    return maps


def points_of(
    clips: Clips, i: int, maps: dict[str, torch.Tensor], control: dict[str, torch.Tensor], heard: bool
) -> pd.DataFrame:
    """A row for each method's map of clip ``i``; ``heard``: with the SI-SDR of its sound."""
    cause, decoy = (bins[i, 0].to(clips.db.device) for bins in (clips.known.cause, clips.known.decoy))
    stacked = torch.cat(list(maps.values())).float()  # (methods, 1, F, T)
    masks = first_bins(bin_ranks(stacked), cause.sum().repeat(len(maps)))
    power = power_at(clips.mixed.cause[i : i + 1].to(clips.db), clips.spectrogram)  # (1, 1, F, T)
    columns = localised(stacked[:, 0], cause, decoy)
    columns["energy_kept"] = (masks * power).sum(dim=(1, 2, 3)) / power.sum()
    columns["si_sdr"] = ratios_of(clips, i, masks) if heard else torch.full((len(maps),), float("nan"))
    shares = {
        f"{name}_share": float(bins.double().mean()) for name, bins in (("truth", cause), ("decoy", decoy))
    }
    frame = pd.DataFrame({"method": list(maps)} | on_host(columns)).assign(**shares)
    both = [name for name in maps if name in control and i < len(control[name])]
    if not both:
        return frame
    others = torch.cat([control[name][i : i + 1] for name in both]).to(stacked)
    own = stacked[[list(maps).index(name) for name in both]]
    found = localised(others[:, 0], cause, decoy)
    compared = {f"control_{measure}": found[measure] for measure in COMPARED}
    alike = rank_correlation(own.flatten(1).cpu(), others.flatten(1).cpu())
    columns = {"method": both, "similarity": alike} | on_host(compared)
    return frame.merge(pd.DataFrame(columns), on="method", how="left")


def on_host(columns: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Columns (n,) as NumPy's, float64."""
    return {name: values.double().cpu().numpy() for name, values in columns.items()}


def ratios_of(clips: Clips, i: int, masks: torch.Tensor) -> torch.Tensor:
    """SI-SDR (dB) to the cause of what masks (n, 1, F, T) keep; NaN where the cause has no sound."""
    if PLANTS[clips.case.plant].absent:
        return torch.full((len(masks),), float("nan"))
    batch, n = clips.spectrogram(clips.waveform[i : i + 1]), len(masks)
    sounds = kept_audio(repeated(batch, n), masks, clips.spectrogram)
    return si_sdr(sounds, clips.mixed.cause[i : i + 1].to(sounds).expand(n, -1))


# All cases


def judge_to(
    bench: Bench, case: Case, folder: Path, effort: Effort = Effort(), device: str = "cpu"
) -> tuple[str, bool]:
    """Judge a case and write two Parquet files and a record, unless they are there; a line that says how, and
    whether no method failed.

    Raises
    ------
    ValueError
        What is there was judged with another effort.
    """
    path, own = folder / f"{case.name}.json", json.loads(json.dumps(asdict(effort)))
    if path.is_file():
        there = json.loads(path.read_text(encoding="utf-8")).get("effort", own)
        if there != own:
            raise ValueError(f"{path} was judged with another effort, {there}; choose another folder")
        return f"{case.name}: there already", True
    started = time.perf_counter()
    with tensor_float32(False, torch.device(device)):
        points, scores, record = judge(bench, case, effort, device)
    save_parquet(lighter(points), folder / f"{case.name}.points.parquet")
    save_parquet(lighter(scores), folder / f"{case.name}.scores.parquet")
    write_json(path, record | {"effort": own})
    failed = "".join(f"; {name} failed: {text}" for name, text in record["failed"].items())
    line = f"{case.name}: {points['clip'].nunique()} clips, {time.perf_counter() - started:.0f} s{failed}"
    return line, not failed


def lighter(frame: pd.DataFrame) -> pd.DataFrame:
    """Floats of single precision, words as categories."""
    kinds = dict.fromkeys(frame.select_dtypes("float64"), "float32")
    kinds |= {name: "category" for name in frame.columns if frame[name].dtype.kind in "OT"}
    return frame.astype(kinds)


def joined(folder: Path, kind: str, names: Sequence[str] | None = None) -> pd.DataFrame:
    """All cases of a folder, ``points`` or ``scores``, below each other; FileNotFoundError without any."""
    paths = sorted(Path(folder).glob(f"*.{kind}.parquet"))
    paths = [path for path in paths if names is None or path.name.split(".")[0] in names]
    if not paths:
        raise FileNotFoundError(f"folder: {folder} holds no *.{kind}.parquet; judge cases there first")
    frames = [pd.read_parquet(path) for path in paths]
    words = dict.fromkeys(frames[0].select_dtypes("category"), "str")
    return lighter(pd.concat([frame.astype(words) for frame in frames], ignore_index=True))

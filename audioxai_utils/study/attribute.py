"""Attributions on file: one file a clip, with a key of all it was computed from; a finished one is not
computed again.

So the clips of a condition can be shared out over jobs, and what merges them finds their work done.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from ..attributions import METHODS
from ..constants import method_files
from ..files import atomic_path
from .callables import code_digest
from .classifiers import Classifier
from .sources import digest

RECORDED = ("attribution", "target", "p", "seconds", "device", "key")
# clips attributed together; on a GPU the CPU's part of one runs beside another's
AT_ONCE = {"cpu": 1, "cuda": 64}
ONE_BY_ONE = 8  # on a CPU, by methods that explain them one by one; a run that is cut off loses so many


def attribute(classifier: Classifier, clips, method: str, options: dict, folder: Path) -> Iterator[dict]:
    """Attribute every clip by one method, one file a clip in ``folder``.

    Parameters
    ----------
    classifier : Classifier
    clips : Clips
    method : str
    options : dict
        The method's own; the clips' sound and its transform are added where it takes them.
    folder : Path

    Yields
    ------
    dict
        clip, category, seconds (NaN where another device than the classifier's took them), target, p,
        computed (False where the file was there already).
    """
    if "gradient_error" not in classifier.info:
        raise ValueError("the checkpoint holds no gradient check; run notebook 02_fine_tuning again")
    for start in range(0, len(clips), size := n_at_once(classifier, method)):
        keys = attribution_keys(classifier, clips.waveforms[start : start + size], method, options)
        rows = clips.frame.iloc[start : start + size].to_dict("records")
        records = [_read(folder / f"{row['clip']}.npz", key) for row, key in zip(rows, keys)]
        missing = [i for i, record in enumerate(records) if record is None]
        waveforms = clips.waveforms[[start + i for i in missing]]
        made = attributed(classifier, waveforms, method, options) if missing else []
        for i, record in zip(missing, made):
            records[i] = record | {"key": keys[i]}
            with atomic_path(folder / f"{rows[i]['clip']}.npz") as temporary:
                np.savez(temporary, **records[i])
        for i, (row, record) in enumerate(zip(rows, records)):
            scalars = {"seconds": _seconds(record, classifier)}
            scalars |= {name: record[name].item() for name in ("target", "p")}
            yield {"clip": row["clip"], "category": row["category"], **scalars, "computed": i in missing}


def load_attributions(
    classifier: Classifier, clips, method: str, options: dict, folder: Path
) -> tuple[torch.Tensor, list[float]]:
    """Stored attributions (n, 1, F, T) of the clips, and the seconds each took; NaN on another device.

    Raises
    ------
    FileNotFoundError
        One is missing, cannot be read or was computed from something else: notebook 03 has to run first.
    """
    keys = attribution_keys(classifier, clips.waveforms, method, options)
    records = [_read(folder / f"{clip}.npz", key) for clip, key in zip(clips.frame["clip"], keys)]
    missing = sum(record is None for record in records)
    if missing:
        raise FileNotFoundError(
            f"{folder}: {missing} of {len(clips)} attributions are missing; run 03_attributions"
        )
    values = torch.from_numpy(np.stack([record["attribution"] for record in records])[:, None])
    return values, [_seconds(record, classifier) for record in records]


def _seconds(record: dict, classifier: Classifier) -> float:
    """What a stored attribution took; NaN where that was on another device than the classifier's."""
    return float(record["seconds"]) if str(record["device"]) == classifier.device.type else float("nan")


def attribution_keys(
    classifier: Classifier, waveforms: torch.Tensor, method: str, options: dict
) -> list[str]:
    """Key of each clip's attribution: the code, the classifier, the method's options and the clip's sound."""
    common = hashlib.sha256(f"{method_digest(method)} {classifier.digest} {method}".encode())
    for name, value in sorted(options.items()):
        common.update(name.encode())
        common.update(_content(value))
    keys = []
    for waveform in waveforms:
        own = common.copy()
        own.update(waveform.numpy().tobytes())
        keys.append(own.hexdigest()[:24])
    return keys


def method_digest(method: str) -> str:
    """Digest of the code that a method's attributions follow from: a changed method computes them anew."""
    if method in method_files():
        return digest(__name__, f"{METHODS.package}.{method_files()[method]}")
    return f"{digest(__name__)} {code_digest(METHODS[method])}"


def n_at_once(classifier: Classifier, method: str) -> int:
    """Clips that are attributed together: of a model of waveforms one, on a GPU many."""
    if classifier.by_sound:
        return 1
    alone = AT_ONCE.get(classifier.device.type, 1)
    return max(alone, ONE_BY_ONE) if METHODS.traits(method).one_by_one else alone


def _content(value) -> bytes:
    """An option's value as bytes: a tensor's values, a file's content."""
    if isinstance(value, torch.Tensor):
        return value.cpu().numpy().tobytes()
    return value.read_bytes() if isinstance(value, Path) else repr(value).encode()


def attributed(classifier: Classifier, waveforms: torch.Tensor, method: str, options: dict) -> list[dict]:
    """A record of each clip (n, samples); those that are attributed at once share the seconds.

    A clip's picture is made by itself: its last digits, and so the attribution's, are the same whichever
    clips a call holds.
    """
    models, batches = zip(*(classifier.of(waveform) for waveform in waveforms.split(1)))
    model, db = models[0], torch.cat([batch.db for batch in batches])
    heard = classifier.taken(method, waveforms, batches[0])  # a model of waveforms has one clip
    p = classifier.probabilities(waveforms)
    target = classifier.reading.predicted(p)
    wait = torch.cuda.synchronize if classifier.device.type == "cuda" else (lambda: None)
    wait()
    started = time.perf_counter()
    attribution = METHODS[method](model, db, target, **heard, **options)
    wait()
    seconds = (time.perf_counter() - started) / len(waveforms)
    own = p.gather(1, target[:, None])[:, 0].double().cpu().numpy()
    found = zip(attribution[:, 0].cpu().numpy(), target.cpu().numpy(), own)
    alike = {"seconds": np.array(seconds), "device": np.array(classifier.device.type)}
    return [{"attribution": a, "target": t, "p": each, **alike} for a, t, each in found]


def _read(path: Path, key: str) -> dict | None:
    """A stored attribution; None where there is none, one of another key, or one that cannot be read."""
    try:
        with np.load(path) as content:
            record = {name: content[name] for name in content.files}
    except Exception:  # NumPy and zipfile raise OSError, ValueError, BadZipFile, zlib.error, TokenError, ...
        return None
    return record if str(record.get("key")) == key and set(RECORDED) <= set(record) else None

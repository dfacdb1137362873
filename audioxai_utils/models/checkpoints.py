"""Checkpoints read safely: tensors and plain values alone, errors in one line."""

from __future__ import annotations

import pickle
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

# What checkpoints of AudioSet models hold besides tensors: scores as NumPy scalars. None of it runs code.
# the function that pickles of NumPy scalars name, in NumPy 1 by another path
SCALAR = np.float64(0).__reduce__()[0]
HARMLESS = [
    np.dtype,
    np.ndarray,
    *(type(np.dtype(kind)) for kind in "? f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 U S M m".split()),
    SCALAR,
    (SCALAR, "numpy.core.multiarray.scalar"),
]


LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how torch.save's files began before 1.6


def load_state(path: str | Path) -> dict:
    """Read a checkpoint with ``weights_only=True``.

    Raises
    ------
    FileNotFoundError
        No file at ``path``.
    ValueError
        Not a PyTorch checkpoint, one that holds more than tensors and plain values, or no dictionary; one
        line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        if zipfile.is_zipfile(path):  # torch itself compares no checksum: a changed weight is a weight to it
            with zipfile.ZipFile(path) as archive:
                if damaged := archive.testzip():
                    raise zipfile.BadZipFile(damaged)
        with torch.serialization.safe_globals(HARMLESS):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises UnpicklingError, RuntimeError, EOFError, OSError, KeyError, ...
        raise ValueError(f"{path}: not a readable PyTorch checkpoint ({_reason(path, error)})") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path}: holds a {type(state).__name__}, expected a dictionary of tensors")
    return state


def _reason(path: Path, error: Exception) -> str:
    """Why torch does not read a file, by what the file is and the kind of its error."""
    refused = isinstance(error, pickle.UnpicklingError)  # of an archive without damage: for its content
    if refused and zipfile.is_zipfile(path):
        return "it holds more than tensors and plain values; save the model's state_dict() alone"
    with open(path, "rb") as file:
        is_legacy = file.read(len(LEGACY)) == LEGACY
    if refused and is_legacy:
        return "damaged, or it holds more than tensors and plain values; save the model's state_dict() alone"
    with suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        if any(name.endswith("/constants.pkl") for name in archive.namelist()):
            return "it is a ScriptModule; save its state_dict() alone"
    if path.suffix == ".safetensors":
        return "safetensors; load it with safetensors.torch.load_file and save that with torch.save"
    return "damaged, or another kind of file"

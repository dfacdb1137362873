"""A bench of one planted case on a small network that is not trained, of generated sounds."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from audioxai_utils.audio.generated.synthesis import synthesise_clip
from audioxai_utils.audit.planted import networks
from audioxai_utils.audit.planted.bench import Bench, Sounds, as_stored
from audioxai_utils.audit.planted.cases import Case

CLASSES = ("dog", "rain", "rooster")


def clips(*names: str, source: int = 0) -> np.ndarray:
    mixed = [sum(synthesise_clip(name, source, 0)) for name in names]
    return as_stored(torch.from_numpy(np.stack(mixed).astype(np.float32)) / 32767, 32000)


def sounds(first: str = "rain") -> Sounds:
    pools = (clips("crying_baby"), clips("clock_tick"))
    return Sounds(clips(first, "sea_waves", "chainsaw"), ("a", "b", "c"), pools)


def bench(tests: Sounds) -> Bench:
    """A tone, said to be proved, in two of the clips; the model is its own control."""
    case = Case("cnn14_tone", "cnn14", "tone", False, -6.0, 0, 1.0, 0.0, 1.0, 1.0, (0, 2))
    references = Sounds(clips(*CLASSES, source=1), ("d", "e", "f"), tests.pools)
    made = Bench({"cnn14": tests}, {"cnn14": references}, {"cnn14": (True, False, False)}, CLASSES, [case])
    state = networks.half_state(networks.small_cnn14(len(CLASSES)))
    made.parts["cnn14_tone"] = {"model": state, "control": state, "fills": torch.zeros(3, 64)}
    return made


class Listens(nn.Module):
    """Hears class 1 where the mean of some rows of a picture is above a level; None: it hears nothing."""

    def __init__(self, rows: slice, level: float | None) -> None:
        super().__init__()
        self.rows, self.level, self.scale = rows, level, nn.Parameter(torch.ones(()))

    def forward(self, db):
        loud = db[:, 0, self.rows].mean((1, 2)) if self.level is not None else db.new_full((len(db),), -1e3)
        z = self.scale * (loud - (self.level or 0.0))
        return torch.stack([-z, z], 1)

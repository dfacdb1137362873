"""Pictures of what is not one class of one clip: four questions about one clip, and a recording of 40 s.

    python benchmarks/tasks.py --out figures

On the Cnn14 and the clips of a run (`--study`, default the last one). The questions are those of
docs/own-model.md, each a `target`: a label, two labels of which one is enough, the frames in which a detector hears
the label most, and the likeness with another clip of the class. The recording is the run's clips one after the other.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import nn
from torch.nn import functional

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])

from audioxai_utils import AudioClassifier, explain, explain_recording  # noqa: E402
from audioxai_utils.figures.drawing import (  # noqa: E402
    attribution_bar,
    label_axes,
    new_figure,
    show_attribution,
    styled,
)
from audioxai_utils.figures.recordings import recording_strip  # noqa: E402
from audioxai_utils.figures.style import axes_of  # noqa: E402
from audioxai_utils.study.study import open_study  # noqa: E402

METHOD, FRAMES, OFFSET = "integrated_gradients", 3, 0.8


class Frames(nn.Module):
    """A Cnn14 that answers frame by frame, (batch, frames, classes), before it pools time."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, db: torch.Tensor) -> torch.Tensor:
        m = self.model
        maps = m.maps(m.bn0(db.squeeze(1).contiguous()).transpose(1, 2).unsqueeze(1))
        return m.head(m.relu(m.fc1(maps.mean(dim=3).transpose(1, 2))))


def questions(model: nn.Module, classes: tuple[str, ...], clips: torch.Tensor, label: int) -> dict:
    """Title to the explanation of the first of two clips (2, samples) of a class."""
    whole = AudioClassifier(model, classes, input="mel_db", head="softmax")
    frames = AudioClassifier(Frames(model), input="mel_db")
    with torch.no_grad():
        heard = frames.net(whole.pictures(clips[:1]))[0, :, label].unfold(0, FRAMES, 1).mean(1)
        own, other = whole.scores(clips[:1]), whole.scores(clips[1:])
    first = int(heard.argmax())
    second = next(int(each) for each in own[0].argsort(descending=True) if int(each) != label)
    place = slice(first, first + FRAMES)
    asked = {
        f"why {classes[label]}?": (whole, label),
        f"why {classes[label]} or {classes[second]}?": (whole, [label, second]),
        f"why frames {first} to {first + FRAMES - 1}?": (frames, lambda y: y[:, place, label].mean(1)),
        "why like another clip?": (
            whole,
            lambda y: 20 * (functional.cosine_similarity(y, other) - OFFSET),
        ),
    }
    return {
        title: explain(classifier, clips[0], target=target, method=METHOD, masks=["topK_30"])
        for title, (classifier, target) in asked.items()
    }


@styled
def drawn(found: dict):
    """The clip under each question."""
    figure, grid = new_figure(1, len(found), (11, 2.6), sharey=True)
    for place, (ax, (title, each)) in enumerate(zip(grid[0], found.items())):
        db = each.batch.db[0, 0].numpy()
        axes = axes_of(each.spectrogram, db.shape[1])
        picture = show_attribution(ax, db, each.attribution[0, 0].numpy(), axes)
        label_axes(ax, axes, frequency=place == 0)
        ax.set_title(title.replace("_", " "))
    attribution_bar(figure, picture, wide=False, ax=grid[0], extend="both")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", help="results folder of the run; default the last one")
    parser.add_argument("--label", default="rooster")
    parser.add_argument("--clips", type=int, default=8, help="in the recording")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "figures")
    arguments = parser.parse_args()
    condition = open_study(arguments.study).condition("mel_db", "clean")
    model, classes = condition.classifier.model.eval(), condition.classifier.classes
    frame, sounds = condition.clips.frame, condition.clips.waveforms
    own = np.flatnonzero(frame["category"] == arguments.label)
    found = questions(model, classes, sounds[own[:2]], classes.index(arguments.label))
    drawn(found).savefig(arguments.out / "other_tasks.png", dpi=110)
    with tempfile.TemporaryDirectory() as folder:
        path, rate = Path(folder) / "minutes.wav", condition.classifier.sample_rate
        steps = np.linspace(0, len(sounds) - 1, arguments.clips).round().astype(int)
        soundfile.write(path, sounds[steps].flatten().numpy(), rate)
        classifier = AudioClassifier(model, classes, input="mel_db", head="softmax")
        night = explain_recording(classifier, path, window=5.0, n_reasons=3, method="gradcam")
        recording_strip(night).savefig(arguments.out / "recording.png", dpi=110)
    print(night.table().to_string(index=False))


if __name__ == "__main__":
    main()

"""Small classifiers of every kind that a user may have, for the matrix of models and methods. Not a test
itself.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from audioxai_utils import AudioClassifier, Cnn14, LogMel, explain
from audioxai_utils.attributions import METHODS

RATE = 8000
MEL = {"sample_rate": RATE, "n_fft": 256, "hop_length": 128, "n_mels": 32}
CLASSES = ["dog", "rain", "siren"]
QUICK = {"n_samples": 16, "n_masks": 16, "n_steps": 4}
ONLY_ASK = {"lime", "occlusion", "rise", "slime", "slime_hpss", "coughlime", "audiolime", "segments"}


def clip(seconds: float = 0.8, seed: int = 0) -> torch.Tensor:
    """A rising tone in the second half, over soft noise, (samples,) float64."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.arange(round(seconds * RATE), dtype=torch.float64) / RATE
    tone = torch.sin(2 * torch.pi * (600 + 900 * t) * t) * (t > seconds / 2)
    return 0.4 * tone + 0.02 * torch.randn(len(t), generator=generator, dtype=torch.float64)


def described(net: nn.Module, classes=CLASSES, **options) -> AudioClassifier:
    """A network of log-mel pictures as a classifier."""
    return AudioClassifier(net, classes, input=LogMel(**MEL), **options)


def lime(classifier: AudioClassifier, waveform: torch.Tensor | None = None, **options):
    """A quick explanation, of the clip where no other is given."""
    waveform = clip() if waveform is None else waveform
    return explain(classifier, waveform, RATE, method="lime", n_samples=8, masks=["bin"], **options)


class Normal(nn.Module):
    """Decibels to values around 0, so that small random networks have something to say."""

    def forward(self, x):
        return (x + 60) / 20


def cnn(n_out: int = 3) -> nn.Sequential:
    return nn.Sequential(
        Normal(),
        nn.Conv2d(1, 6, 5, stride=2, padding=2),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d((2, 2)),
        nn.Flatten(),
        nn.Linear(32, n_out),
    )


class Around(nn.Module):
    """A network whose outputs or inputs are changed by a function."""

    def __init__(self, net: nn.Module, after=None, before=None) -> None:
        super().__init__()
        self.net, self.after, self.before = net, after, before

    def forward(self, x):
        out = self.net(x if self.before is None else self.before(x))
        return out if self.after is None else self.after(out)


class Reply:
    """What Hugging Face's models return, in small."""

    def __init__(self, logits) -> None:
        self.logits = logits


class WaveNet(nn.Module):
    """Strided convolutions of a waveform (B, 1, N)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(1, 8, 64, stride=16),
            nn.ReLU(),
            nn.Conv1d(8, 8, 5, stride=2),
            nn.ReLU(),
        )
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.layers(10 * x).mean(2))


class Gated(nn.Module):
    """Squeeze-excitation by 1x1 convolutions that are registered last, and a head that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 6, 3, stride=2), nn.Conv2d(6, 8, 3, stride=2)
        self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.head = nn.Linear(8, 3)
        self.squeeze, self.excite = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
        self.unused = nn.Conv2d(8, 3, 1)

    def forward(self, db):
        x = self.relu2(self.second(self.relu1(self.first((db + 60) / 20))))
        gate = self.excite(self.relu3(self.squeeze(x.mean((2, 3), keepdim=True)))).sigmoid()
        return self.head((x * gate).mean((2, 3)))


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(1, 6, 3, stride=2), nn.Conv2d(6, 8, 3), nn.Linear(8, 3)

    def forward(self, db):
        x = functional.relu(self.first((db + 60) / 20))
        return self.head(functional.relu(self.second(x)).mean((2, 3)))


class Gelu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 6, 5, stride=3), nn.Linear(6, 3)

    def forward(self, db):
        return self.head(functional.gelu(self.conv((db + 60) / 20)).mean((2, 3)))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, (4, 3), stride=(4, 2))
        self.gru, self.head = nn.GRU(4 * 8, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, db):
        x = self.conv((db + 60) / 20).flatten(1, 2).transpose(1, 2)  # (batch, time, features)
        return self.head(self.gru(x)[0].mean(1))


class Attention(nn.Module):
    """A small vision transformer over patches, with a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 16, 8, stride=8)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(16), nn.LayerNorm(16), nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.wide, self.narrow, self.head = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 3)

    def forward(self, db):
        x = self.patches((db + 60) / 20).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.narrow(functional.gelu(self.wide(self.norm2(x))))
        return self.head(self.norm3(x)[:, 0])


def onnx_session():
    """Mean level of three bands times three weights, as an ONNX graph of a fixed batch of 2."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(0).standard_normal((32, 3)).astype(np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
        helper.make_node("Div", ["mean", "scale"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "w"], ["y"]),
    ]
    constants = {"axes": np.array([1, 3]), "scale": np.array(30, np.float32), "w": weight}
    graph = helper.make_graph(
        nodes,
        "bands",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 1, 32, "t"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def _cnn14() -> Cnn14:
    model = Cnn14(32, 3, 1 / 32)
    model.bn0.running_mean.fill_(-45.0)
    model.bn0.running_var.fill_(150.0)
    return model


def _numpy(db) -> np.ndarray:
    band = np.asarray(db)[:, 0].mean(2)
    return np.stack([band[:, :10].mean(1), band[:, 10:20].mean(1), band[:, 20:].mean(1)], 1) / 10


def _function(db: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(_numpy(db))


def _mel(net, axes: str = "(B, 1, F, T)", **options) -> AudioClassifier:
    return AudioClassifier(net, options.pop("classes", CLASSES), input=LogMel(axes=axes, **MEL), **options)


KINDS = {
    "softmax logits": lambda: _mel(cnn()),
    "one logit": lambda: _mel(cnn(1), classes=["siren"], head="binary"),
    "probabilities": lambda: _mel(Around(cnn(), lambda y: y.softmax(1)), head="probabilities"),
    "sigmoid scores": lambda: _mel(Around(cnn(), torch.sigmoid), head="probabilities"),
    "multi-label logits": lambda: _mel(cnn(), head="sigmoid"),
    "tuple": lambda: _mel(Around(cnn(), lambda y: (y, y.exp())), output=0),
    "dict": lambda: _mel(Around(cnn(), lambda y: {"clipwise": y, "other": None}), output="clipwise"),
    ".logits": lambda: _mel(Around(cnn(), Reply), output=".logits"),
    "waveform (B, N)": lambda: AudioClassifier(
        Around(WaveNet(), before=lambda x: x.unsqueeze(1)), CLASSES, RATE
    ),
    "waveform (B, 1, N)": lambda: AudioClassifier(WaveNet(), CLASSES, RATE),
    "(B, F, T)": lambda: _mel(Around(cnn(), before=lambda x: x.unsqueeze(1)), "(B, F, T)"),
    "(B, T, F)": lambda: _mel(Around(cnn(), before=lambda x: x.unsqueeze(1)), "(B, T, F)"),
    "(B, 1, T, F)": lambda: _mel(cnn(), "(B, 1, T, F)"),
    "ScriptModule": lambda: _mel(torch.jit.script(cnn())),
    "half precision": lambda: _mel(cnn().to(torch.bfloat16)),
    "compiled": lambda: _mel(torch.compile(cnn(), backend="eager")),
    "DataParallel": lambda: _mel(nn.DataParallel(_cnn14())),
    "wrapper": lambda: _mel(Around(_cnn14())),
    "squeeze-excitation": lambda: _mel(Gated()),
    "functional ReLU": lambda: _mel(Functional()),
    "GELU": lambda: _mel(Gelu()),
    "GRU": lambda: _mel(Recurrent(), head="softmax"),
    "attention": lambda: _mel(Attention()),
    "function": lambda: _mel(_function),
    "NumPy": lambda: _mel(_numpy),
    "ONNX": lambda: _mel(onnx_session()),
    "own front end": lambda: AudioClassifier(WaveNet(), CLASSES, RATE, input=lambda x: x.unsqueeze(1).abs()),
}


def make(kind: str) -> AudioClassifier:
    """A classifier of this kind; its weights are drawn from one seed and it is left in training mode."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return KINDS[kind]()


def options_of(classifier: AudioClassifier, method: str) -> dict:
    options = {name: value for name, value in QUICK.items() if name in METHODS.options(method)}
    if "background" in METHODS.required(method):
        options["background"] = classifier.pictures(
            torch.stack([clip(seed=s).flip(0) * (s + 1) / 4 for s in (1, 2, 3)])
        )
    return options

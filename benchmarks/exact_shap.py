"""Deep SHAP of seven kinds of networks: this package's exact rules, shap and captum, what they miss and cost.

    python benchmarks/exact_shap.py --background 10 --threads 1

One clip is explained against the same references by every path, each in a fresh process after a first
call. Error is |sum of the values - (f_c(x) - mean_b f_c(b))| relative to that difference. "ours, first"
holds the trace, which is kept for a module's next call of that input shape. The last column is processor
time over that of the network's own forward and backward pass on the references. `--results` is as in
all.py.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import pandas as pd
import torch
from torch import nn
from torch.nn import functional

sys.path[:0] = map(str, Path(__file__).resolve().parents[:2])

from measuring import add_options, cost, in_fresh_process, show  # noqa: E402

from audioxai_utils.attributions.exact import exact_deep_shap  # noqa: E402
from audioxai_utils.models.cnn14 import Cnn14  # noqa: E402

N_MELS, N_FRAMES, N_SAMPLES, N_CLASSES = 64, 501, 32000, 10
PATHS = ("ours, first", "ours", "shap", "captum")


class FunctionalConvolution(nn.Module):
    """Two convolutions whose nonlinearities are functions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm = nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.conv2, self.head = nn.Conv2d(32, 64, 3, padding=1), nn.Linear(64, N_CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool2d(functional.relu(self.norm(self.conv1(x))), 2)
        return self.head(functional.max_pool2d(functional.relu(self.conv2(x)), 2).mean((2, 3)))


class Recurrent(nn.Module):
    """A convolution to 125 frames, then a recurrent layer in both directions."""

    def __init__(self, layer: type) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 16, (4, 4), 4), nn.Linear(128, N_CLASSES)
        self.layer = layer(16 * 16, 64, batch_first=True, bidirectional=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.conv(x)).permute(0, 3, 1, 2).flatten(2)  # (n, 125, 256)
        return self.head(self.layer(x)[0].mean(1))


class Transformer(nn.Module):
    """Patches of 4 x 20 bins and frames, four encoder layers of 400 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(1, 64, (4, 20), (4, 20)), nn.Linear(64, N_CLASSES)
        layer = nn.TransformerEncoderLayer(64, 4, 128, activation="gelu", norm_first=True, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


class SqueezeExcitation(nn.Module):
    """Blocks of convolution, hardswish in place and a gate, with residuals."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, 32, 3, 2, 1), nn.Linear(32, N_CLASSES)
        self.convs = nn.ModuleList(nn.Conv2d(32, 32, 3, padding=1) for _ in range(3))
        self.gates = nn.ModuleList(nn.Linear(32, 32) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.hardswish(self.stem(x), inplace=True)
        for conv, gate in zip(self.convs, self.gates):
            y = functional.hardswish(conv(x), inplace=True)
            y = y * functional.hardsigmoid(gate(y.mean((2, 3))))[:, :, None, None]
            y += x
            x = y
        return self.head(x.mean((2, 3)))


class Waveform(nn.Module):
    """An M5-like net on samples."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (1, 32, 32, 64)
        kernels = ((80, 4), (3, 1), (3, 1))
        layers = [
            nn.Sequential(nn.Conv1d(a, b, *kernel), nn.BatchNorm1d(b), nn.ReLU(), nn.MaxPool1d(4))
            for a, b, kernel in zip(sizes, sizes[1:], kernels)
        ]
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(sizes[-1], N_CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(x[:, None]).mean(2))


class FrontEnd(nn.Module):
    """STFT, bands and logarithm inside the net."""

    def __init__(self) -> None:
        super().__init__()
        self.net = FunctionalConvolution()
        self.register_buffer("window", torch.hann_window(512))
        self.register_buffer("bands", torch.rand(N_MELS, 257) / 257)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        power = torch.stft(x, 512, 160, window=self.window, return_complex=True).abs() ** 2
        return self.net(torch.log(self.bands @ power + 1e-5)[:, None])


NETS = {
    "Cnn14, width 1/4": lambda: Cnn14(N_MELS, N_CLASSES, width=0.25, dropout=0.0),
    "functional convolution": FunctionalConvolution,
    "squeeze-excitation": SqueezeExcitation,
    "convolution + GRU": lambda: Recurrent(nn.GRU),
    "convolution + LSTM": lambda: Recurrent(nn.LSTM),
    "transformer, 400 tokens": Transformer,
    "waveform convolution": Waveform,
    "STFT + log bands": FrontEnd,
}


def build(name: str, arguments: argparse.Namespace) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A seeded net whose batch norms know its inputs, a clip and the references."""
    torch.manual_seed(arguments.seed)
    net = NETS[name]().to(arguments.device)
    shape = (N_SAMPLES,) if name in ("waveform convolution", "STFT + log bands") else (1, N_MELS, N_FRAMES)
    clip, *references = (
        (1.0 if i else 2.0) * torch.randn(1, *shape) for i in range(1 + arguments.background)
    )
    clip, references = clip.to(arguments.device), torch.cat(references).to(arguments.device)
    for module in net.modules():
        if hasattr(module, "momentum"):
            module.momentum = 1.0
    with torch.no_grad():
        net.train()(torch.cat([clip, references]))
    return net.eval(), clip, references


def explain(
    path: str, net: nn.Module, clip: torch.Tensor, references: torch.Tensor, column: int
) -> torch.Tensor:
    target = torch.tensor([column], device=clip.device)
    if path.startswith("ours"):
        return exact_deep_shap(net, clip, references, target, max_rule="deeplift")
    if path == "shap":
        import shap

        values = shap.DeepExplainer(net, references).shap_values(clip, check_additivity=False)
        return torch.from_numpy(values[..., column])
    from captum.attr import DeepLiftShap

    return DeepLiftShap(net).attribute(clip, references, target=column).detach()


def measure(name: str, path: str, arguments: argparse.Namespace) -> dict:
    """Error, seconds and memory of one path on one net; the first line of its error where it raises."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(arguments.threads)
    net, clip, references = build(name, arguments)
    with torch.no_grad():
        column = net(clip).argmax().item()
        difference = (net(clip)[0] - net(references).mean(0))[column].item()

    def both_ways() -> None:
        leaf = references.clone().requires_grad_()
        torch.autograd.grad(net(leaf)[:, column].sum(), leaf)

    def work() -> torch.Tensor:
        return explain(path, net, clip, references, column)

    both_ways()
    own = min(cost(both_ways, arguments.device)["cpu_seconds"] for _ in range(3))
    try:
        if path == "ours, first":  # imports done, another net traced
            small = nn.Linear(2, 2)
            exact_deep_shap(small, torch.ones(1, 2), -torch.ones(1, 2), torch.tensor([0]))
        found = cost(work, arguments.device)
        if path != "ours, first":
            again = cost(work, arguments.device)
            found |= {key: again[key] for key in ("seconds", "cpu_seconds", "values")}
    except Exception as error:  # what the libraries raise is their result
        return {"net": name, "path": path, "raises": f"{type(error).__name__}: {error}".splitlines()[0][:60]}
    return {
        "net": name,
        "path": path,
        "error": abs(found["values"].double().sum().item() - difference) / abs(difference),
        "s": found["seconds"],
        "CPU s": found["cpu_seconds"],
        "peak MB": found["peak_mb"],
        "x forward + backward": found["cpu_seconds"] / own,
    }


def parse(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--background", type=int, default=10)
    parser.add_argument("--nets", nargs="+", choices=list(NETS), default=list(NETS), metavar="NET")
    add_options(parser)
    return parser.parse_args(given)


def main() -> None:
    arguments = parse()
    rows = [in_fresh_process(measure, name, path, arguments) for name in arguments.nets for path in PATHS]
    setting = f"one clip, {arguments.background} references, seeded nets, max rule deeplift"
    show({"exact_shap": pd.DataFrame(rows)}, setting, arguments)


if __name__ == "__main__":
    main()

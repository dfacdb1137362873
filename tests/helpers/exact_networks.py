"""Small seeded networks of every kind of operation, Shapley values by their definition, and the miss of a sum."""

from __future__ import annotations

import itertools
import math

import torch
from torch import nn
from torch.nn import functional

from audioxai_utils.attributions.exact import exact_deep_shap
from audioxai_utils.models.cnn14 import Cnn14

SPECTROGRAM, WAVEFORM = (1, 16, 24), (3000,)


def shapley_values(f, x: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """By the definition, over all subsets of the entries of x (k,)."""
    k = len(x)
    values = torch.zeros(k, dtype=x.dtype)
    for i in range(k):
        for others in itertools.product([False, True], repeat=k - 1):
            chosen = torch.tensor([*others[:i], False, *others[i:]])
            weight = math.factorial(sum(others)) * math.factorial(k - 1 - sum(others)) / math.factorial(k)
            with_i = chosen.clone()
            with_i[i] = True
            values[i] += weight * (f(torch.where(with_i, x, b)[None]) - f(torch.where(chosen, x, b)[None]))[0]
    return values


def one(f, x, b, **options) -> torch.Tensor:
    """Values of one clip x (k,) to one reference b for f: (n, k) -> (n,)."""
    return exact_deep_shap(lambda rows: f(rows)[:, None], x[None], b[None], torch.tensor([0]), **options)[0]


class Net(nn.Module):
    """A body on what ``front`` makes of the input, and a linear head."""

    def __init__(self, body, n_features: int, **parts: nn.Module) -> None:
        super().__init__()
        self.parts, self.body, self.head = nn.ModuleDict(parts), body, nn.Linear(n_features, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x, **self.parts))


def convolution(x, conv, norm, conv2):
    x = functional.max_pool2d(functional.relu(norm(conv(x))), 2)
    return functional.max_pool2d(functional.relu(conv2(x)), 3, 2, padding=1, ceil_mode=True).mean((2, 3))


def recurrent(x, conv, cell):
    x = functional.relu(conv(x))  # (n, 4, 8, 12)
    return cell(x.permute(0, 3, 1, 2).flatten(2))[0].mean(1)


def time_first(x, cell):
    """Rows are the inner axis of what relu is given."""
    states = cell(x[:, 0].permute(2, 0, 1))[0]  # (time, n, features)
    return functional.relu(states.reshape(-1, states.shape[2])).reshape(states.shape).mean(0)


def attentive(x, inner, encoder):
    return encoder(inner(x[:, 0].transpose(1, 2))).mean(1)


def squeezed(x, conv, shrink, grow, swish):
    x = swish(conv(x))
    gate = functional.hardsigmoid(grow(functional.relu(shrink(x.mean((2, 3))))))
    y = x * gate[:, :, None, None]
    y += x
    return y.mean((2, 3))


def waveform(x, layers):
    x = layers(x[:, None])
    return functional.avg_pool1d(x, x.shape[-1]).permute(0, 2, 1)[:, 0]


def log_mel(power):
    def body(x, conv):
        spectrum = torch.stft(x, 128, 64, window=torch.hann_window(128, dtype=x.dtype), return_complex=True)
        mel = torch.linspace(0, 1, 16 * 65, dtype=x.dtype).reshape(16, 65) @ spectrum.abs() ** power
        return functional.relu(conv(10 * torch.log10(mel + 1e-3)[:, None])).mean((2, 3))

    return body


def everything(x, conv, group, instance, attention):
    """Norms, masks, comparisons, gates and reductions."""
    x = functional.silu(group(conv(x)))
    x = functional.elu(instance(x)) + functional.leaky_relu(x).clamp(-0.5, 2)
    y = (
        functional.adaptive_max_pool2d(x, 3).flatten(1)[:, :8]
        + x.amax((2, 3))
        - x.amin(3).mean(2)
        + x.max(3)[0].sum(2)
    )
    tokens = x.mean(2).transpose(1, 2)
    later = torch.triu(torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool), 1)
    tokens = attention(tokens, tokens, tokens, attn_mask=later, need_weights=False)[0]
    tokens = torch.where(tokens > 0.1, tokens * tokens, 0.3 * tokens) / (
        1 + tokens.abs().sum(-1, keepdim=True)
    )
    return (
        functional.normalize(y, dim=1)
        + torch.logsumexp(tokens, 1)
        + tokens.std(1)
        + functional.gelu(tokens).mean(1)
    )


def encoder(norm_first: bool) -> nn.Module:
    activation = "gelu" if norm_first else "relu"
    layer = nn.TransformerEncoderLayer(
        16, 4, 32, activation=activation, norm_first=norm_first, batch_first=True
    )
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def first_conv() -> nn.Conv2d:
    return nn.Conv2d(1, 8, 3, padding=1)


def recurrent_net(layer: type, **options) -> Net:
    width = 5 * (1 + options.get("bidirectional", False))
    return Net(recurrent, width, conv=nn.Conv2d(1, 4, 2, 2), cell=layer(32, 5, batch_first=True, **options))


def squeeze_excitation() -> Net:
    gate = {"shrink": nn.Linear(8, 4), "grow": nn.Linear(4, 8)}
    return Net(squeezed, 8, conv=first_conv(), swish=nn.Hardswish(inplace=True), **gate)


def attentive_net(norm_first: bool) -> Net:
    return Net(attentive, 16, inner=nn.Linear(16, 16), encoder=encoder(norm_first))


def convolutional() -> Net:
    return Net(convolution, 8, conv=first_conv(), norm=nn.BatchNorm2d(8), conv2=nn.Conv2d(8, 8, 3))


def waveform_net() -> Net:
    layers = nn.Sequential(nn.Conv1d(1, 8, 40, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(4))
    return Net(waveform, 8, layers=layers)


def net_of_everything() -> Net:
    norms = {"group": nn.GroupNorm(2, 8), "instance": nn.InstanceNorm2d(8, affine=True)}
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    return Net(everything, 8, conv=first_conv(), attention=attention, **norms)


NETS = {
    "functional convolution": convolutional,
    "gru": lambda: recurrent_net(nn.GRU, bidirectional=True),
    "lstm": lambda: recurrent_net(nn.LSTM, num_layers=2),
    "rnn, time first": lambda: Net(time_first, 5, cell=nn.RNN(16, 5)),
    "gru, time first": lambda: Net(time_first, 5, cell=nn.GRU(16, 5)),
    "transformer, pre-norm": lambda: attentive_net(True),
    "transformer, post-norm": lambda: attentive_net(False),
    "squeeze-excitation": squeeze_excitation,
    "waveform": waveform_net,
    "log-mel of power": lambda: Net(log_mel(2), 8, conv=first_conv()),
    "log-mel of magnitude": lambda: Net(log_mel(1), 8, conv=first_conv()),
    "everything": net_of_everything,
    "cnn14": lambda: calibrated_cnn14(),
}


def calibrated_cnn14() -> Cnn14:
    """Narrow, with batch norms that know its inputs, so that its logits move."""
    net = Cnn14(32, 4, width=1 / 16, dropout=0.0)
    for module in net.modules():
        if hasattr(module, "momentum"):
            module.momentum = 1.0
    with torch.no_grad():
        net.train()(draw((1, 32, 32), 8, torch.float32, 9))
    return net


def build(name: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A seeded net in evaluation mode, two clips and five references."""
    torch.manual_seed(0)
    net = NETS[name]().to(dtype).eval()
    shape = WAVEFORM if name in ("waveform", "log-mel of power", "log-mel of magnitude") else SPECTROGRAM
    shape = (1, 32, 32) if name == "cnn14" else shape
    return net, draw(shape, 2, dtype, 1), draw(shape, 5, dtype, 2)


def draw(shape, n: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(n, *shape, generator=generator, dtype=torch.float64)
    return (2 * values + 0.5 if seed == 1 else values).to(dtype)  # clips are louder than references


@torch.no_grad()
def additivity(net, x, b, target, values) -> torch.Tensor:
    """|sum of values - difference| / |difference| less what the outputs' last digits leave open."""
    outputs, below = net(x), net(b)
    difference = outputs.gather(1, target[:, None])[:, 0] - below[:, target].mean(0)
    open_ = 4 * torch.finfo(x.dtype).eps * torch.maximum(outputs.abs().max(), below.abs().max())
    error = (values.flatten(1).double().sum(1) - difference.double()).abs() - open_
    return error.clamp_min(0) / difference.abs()

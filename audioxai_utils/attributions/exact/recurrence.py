"""GRU, LSTM and RNN layers step by step while a network is traced, each step's gates as one operation.

PyTorch's own steps are some twenty operations, and others on a GPU. A second of sound has a hundred.
"""

from __future__ import annotations

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .rules import NotExact

LAYERS = {torch.gru: "gru", torch.lstm: "lstm", torch.rnn_tanh: "rnn_tanh", torch.rnn_relu: "rnn_relu"}


@torch.library.custom_op("audioxai::gru_gates", mutates_args=())
def gru_gates(inputs: torch.Tensor, state: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    """The next state (n, size), of gates (n, 3 size) by the input and by the state, and the state itself."""
    size = h.shape[1]
    r, z = (inputs + state)[:, : 2 * size].sigmoid().chunk(2, 1)
    new = torch.tanh(inputs[:, 2 * size :] + r * state[:, 2 * size :])
    return new + z * (h - new)


@torch.library.custom_op("audioxai::lstm_gates", mutates_args=())
def lstm_gates(gates: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """The next h and c side by side (n, 2 size), of gates (n, 4 size) and c."""
    i, f, g, o = gates.chunk(4, 1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return torch.cat([o.sigmoid() * c.tanh(), c], 1)


class Unrolled(TorchFunctionMode):
    """Recurrent layers that are called in here run as ``unrolled`` does; with projections as they are."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") == "_pack_padded_sequence":
            raise NotExact("_pack_padded_sequence has no rule: give padded clips of one length")
        if func not in LAYERS or kwargs:
            return func(*args, **(kwargs or {}))
        if not isinstance(args[2], (list, tuple)):
            raise NotExact(
                f"{LAYERS[func]} of a packed sequence has no rule: give padded clips of one length"
            )
        n_weights = len(args[2]) // (args[4] * (2 if args[7] else 1))
        return func(*args) if n_weights not in (2, 4) else unrolled(LAYERS[func], *args)


def unrolled(kind, x, state, weights, bias, n_layers, dropout, train, bidirectional, batch_first):
    """As ``torch.gru`` and its like, in evaluation mode: outputs, last h and, of an LSTM, last c."""
    x = x.transpose(0, 1) if batch_first else x  # (time, n, features)
    n_weights, last = (4 if bias else 2), []
    for layer in range(n_layers):
        both = []
        for direction in range(1 + bidirectional):
            i = layer * (1 + bidirectional) + direction
            own = [part[i] for part in (state if kind == "lstm" else [state])]
            outputs, own = _one_way(
                kind, x, own, weights[i * n_weights : (i + 1) * n_weights], direction == 1
            )
            both.append(outputs)
            last.append(own)
        x = torch.cat(both, 2)
    return x.transpose(0, 1) if batch_first else x, *(torch.stack(parts) for parts in zip(*last))


def _one_way(kind: str, x: torch.Tensor, state: list[torch.Tensor], weights, backwards: bool):
    """Outputs (time, n, size) of one layer in one direction, and its last [h] or [h, c]."""
    gates = functional.linear(x, weights[0], *weights[2:3])
    outputs, size = [], state[0].shape[1]
    for step in range(len(gates))[:: -1 if backwards else 1]:
        given = gates[step]
        own = functional.linear(state[0], weights[1], *weights[3:4])
        if kind == "gru":
            state = [gru_gates(given, own, state[0])]
        elif kind == "lstm":
            both = lstm_gates(given + own, state[1])
            state = [both[:, :size], both[:, size:]]
        else:
            state = [(given + own).tanh() if kind == "rnn_tanh" else (given + own).relu()]
        outputs.append(state[0])
    return torch.stack(outputs[::-1] if backwards else outputs), state

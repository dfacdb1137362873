"""GRU, LSTM and RNN layers while a network is traced, and the rules of the first two, over all steps.

A layer of GRU or LSTM stays one operation in each direction: PyTorch's own steps are some twenty, a second
of sound has a hundred. Its rule computes the multipliers within every step together and then goes back
through the steps, where a state's multipliers are those of the next state times the weights.
"""

from __future__ import annotations

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .rules import NotExact, Tensors, mean, sigmoid_slope, tanh_slope

LAYERS = {torch.gru: "gru", torch.lstm: "lstm", torch.rnn_tanh: "rnn_tanh", torch.rnn_relu: "rnn_relu"}


@torch.library.custom_op("audioxai::gru_layer", mutates_args=())
def gru_layer(
    x: torch.Tensor,
    h: torch.Tensor,
    w_x: torch.Tensor,
    w_h: torch.Tensor,
    b_x: torch.Tensor,
    b_h: torch.Tensor,
) -> torch.Tensor:
    """States (time, n, size) of a layer in one direction, of inputs (time, n, features) and a first state."""
    return torch.gru(x, h[None], [w_x, w_h, b_x, b_h], True, 1, 0.0, False, False, False)[0]


@torch.library.custom_op("audioxai::lstm_layer", mutates_args=())
def lstm_layer(
    x: torch.Tensor,
    h: torch.Tensor,
    w_x: torch.Tensor,
    w_h: torch.Tensor,
    b_x: torch.Tensor,
    b_h: torch.Tensor,
    c: torch.Tensor,
) -> torch.Tensor:
    """Likewise; behind the states lies the last cell, (time + 1, n, size)."""
    weights = [w_x, w_h, b_x, b_h]
    states, _, cell = torch.lstm(x, [h[None], c[None]], weights, True, 1, 0.0, False, False, False)
    return torch.cat([states, cell])


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
            given = list(weights[i * n_weights : (i + 1) * n_weights])
            given += [] if bias else [given[0].new_zeros(len(given[0]))] * 2
            outputs, own = _one_way(kind, x.flip(0) if direction else x, own, given)
            both.append(outputs.flip(0) if direction else outputs)
            last.append(own)
        x = torch.cat(both, 2)
    return x.transpose(0, 1) if batch_first else x, *(torch.stack(parts) for parts in zip(*last))


def _one_way(kind: str, x: torch.Tensor, state: list[torch.Tensor], weights: list[torch.Tensor]):
    """Outputs (time, n, size) of one layer in one direction, and its last [h] or [h, c]."""
    if kind == "gru":
        outputs = gru_layer(x, state[0], *weights)
        return outputs, [outputs[-1]]
    if kind == "lstm":
        outputs = lstm_layer(x, state[0], *weights, state[1])
        return outputs[:-1], [outputs[-2], outputs[-1]]
    outputs, h = [], state[0]
    for given in functional.linear(x, weights[0], weights[2]).unbind():
        h = given + functional.linear(h, weights[1], weights[3])
        h = h.tanh() if kind == "rnn_tanh" else h.relu()
        outputs.append(h)
    return torch.stack(outputs), [h]


# Rules: the multipliers of each step's gates for all steps together, then the way back through the steps


def gru_rule(operation, grad: torch.Tensor, x: Tensors, b: Tensors) -> Tensors:
    """Sums, products, sigmoids and tanh of h' = n + z (h - n), one after the other."""
    (_, _, w_x, w_h, _, _), halves = operation.arguments(b), []
    for arguments in (operation.arguments(x), operation.arguments(b)):
        given, own, before, _ = _parts(gru_layer, arguments)
        size = before.shape[2]
        r, z = (gates := (given + own)[..., : 2 * size]).sigmoid().chunk(2, 2)
        within, turned = own[..., 2 * size :], given[..., 2 * size :] + r * own[..., 2 * size :]
        halves.append((gates, r, z, within, turned, before - turned.tanh()))
    gates, r, z, within, turned, step = zip(*halves)
    kept = mean(*z)
    new = (1 - kept) * tanh_slope(*turned)
    opened = torch.cat([new * mean(*within), mean(*step)], 2) * sigmoid_slope(*gates)
    by_state = torch.cat([opened, new * mean(*r)], 2)
    h, states = torch.zeros_like(grad[0]), []
    for now, gate, keep in zip(*(part.flip(0).unbind() for part in (grad, by_state, kept))):
        h = h + now
        states.append(h)
        h = torch.addmm(h * keep, h.repeat(1, 3) * gate, w_h)
    to_gates = torch.stack(states[::-1]).repeat(1, 1, 3) * torch.cat([opened, new], 2)
    return _handed_on(operation, [to_gates @ w_x, h])


def lstm_rule(operation, grad: torch.Tensor, x: Tensors, b: Tensors) -> Tensors:
    """Of c' = f c + i g and h' = o tanh(c'), likewise."""
    (_, _, w_x, w_h, *_), halves = operation.arguments(b), []
    for arguments in (operation.arguments(x), operation.arguments(b)):
        given, own, _, cell = _parts(lstm_layer, arguments)
        i, f, g, o = (given + own).chunk(4, 2)
        forget, new, cells = f.sigmoid(), i.sigmoid() * g.tanh(), [cell]
        for keep, put in zip(forget.unbind(), new.unbind()):
            cells.append(torch.addcmul(put, keep, cells[-1]))
        cells = torch.stack(cells)
        halves.append((i, f, g, o, cells[:-1], cells[1:], cells[1:].tanh()))
    i, f, g, o, c, new, bent = zip(*halves)
    open_i, open_f, open_o = (mean(*(v.sigmoid() for v in gate)) for gate in (i, f, o))
    to_cell = open_o * tanh_slope(*new)
    by_gate = [mean(g[0].tanh(), g[1].tanh()) * sigmoid_slope(*i), mean(*c) * sigmoid_slope(*f)]
    by_gate = torch.cat([*by_gate, open_i * tanh_slope(*g), mean(*bent) * sigmoid_slope(*o)], 2)
    h, cell, gates = torch.zeros_like(grad[0]), grad[-1], []
    for now, through, gate, keep in zip(*(p.flip(0).unbind() for p in (grad[:-1], to_cell, by_gate, open_f))):
        h = h + now
        cell = torch.addcmul(cell, h, through)
        gates.append(torch.cat([cell, cell, cell, h], 1) * gate)
        h, cell = gates[-1] @ w_h, cell * keep
    return _handed_on(operation, [torch.stack(gates[::-1]) @ w_x, h, None, None, None, None, cell])


def _parts(layer, arguments: list) -> tuple:
    """Of a layer's arguments: its gates by input and by state, (time, n, gates) each, the states before each
    step and, of an LSTM, the first cell.
    """
    x, *first = arguments
    h, w_x, w_h, b_x, b_h, *cell = first
    n = x.shape[1]  # 1 for a clip, beside whose input a constant first state has the references' rows
    h, cell = h[:n], [part[:n] for part in cell]
    states = layer(x, h, w_x, w_h, b_x, b_h, *cell)[: len(x)]
    before = torch.cat([h[None], states[:-1]])
    return functional.linear(x, w_x, b_x), functional.linear(before, w_h, b_h), before, *(cell or [None])


def _handed_on(operation, multiplied: list) -> Tensors:
    if any(i >= len(multiplied) or multiplied[i] is None for i in operation.positions):
        raise NotExact(f"{operation.name} has no rule for weights that hang on the input")
    return operation.chosen(multiplied)


RULES = {"gru_layer": gru_rule, "lstm_layer": lstm_rule}

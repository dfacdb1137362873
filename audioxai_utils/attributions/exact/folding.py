"""Batch norms of a graph folded into the convolutions before them: two passes less for each pair."""

from __future__ import annotations

from collections.abc import Iterable

from ...models.inference import folded_weights

BATCH_NORMS = ("native_batch_norm", "_native_batch_norm_legit_no_training")
WEIGHT, BIAS, TRANSPOSED, GROUPS = 1, 2, 6, 8  # places among the arguments of ``convolution``


def fold_batch_norms(operations: Iterable, alive: set) -> None:
    """Fold each batch norm that takes a convolution's output, where nothing else does.

    Both must have constant weights; the sum of the operations stays the same, to rounding.

    Parameters
    ----------
    operations : iterable of graph.Operation
        Changed in place; a folded batch norm hands on what it is given.
    alive : set of torch.fx.Node
        Those that the output needs.
    """
    made_by = {operation.node: operation for operation in operations}
    for norm in made_by.values():
        source = made_by.get(norm.inputs[0])
        if norm.name not in BATCH_NORMS or source is None or source.name != "convolution":
            continue
        users = [user for user in source.node.users if user in alive]
        taken = {user.args[1] for user in norm.node.users if user in alive}
        simple = not source.template[TRANSPOSED] or source.template[GROUPS] == 1
        if simple and source.positions == norm.positions == [0] and users == [norm.node] and taken == {0}:
            _fold(norm, source)


def _fold(norm, source) -> None:
    weight, bias, mean, variance = norm.template[1:5]
    source.template[WEIGHT], source.template[BIAS] = folded_weights(
        source.template[WEIGHT],
        source.template[BIAS],
        mean,
        variance,
        norm.template[-1],
        weight,
        bias,
        source.template[TRANSPOSED],
    )
    norm.target = lambda rows, *_: (rows,)

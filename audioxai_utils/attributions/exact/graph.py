"""A traced graph at work: the clip's values are kept, a reference's gradients are the rules' multipliers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx

from .folding import fold_batch_norms
from .pooling import POOLING
from .recurrence import RULES as RECURRENT
from .rules import COMPARISONS, LINEAR, LOGIC, NotExact, rule_of
from .trace import Rows, Trace, in_place, name_of

aten = torch.ops.aten
SLOT = object()  # stands among a call's arguments where a tensor that depends on the input goes
INDEXING = {"index", "gather", "index_select", "index_put", "index_add", "scatter_add"}
DECISIONS = (
    COMPARISONS | LOGIC.keys() | (LINEAR - INDEXING - {"add", "sub", "_to_copy"})
)  # may return booleans
# What a network has after another shape of a batch than its own: sizes say it, whatever the strides.
RESHAPES = {"view", "_unsafe_view", "squeeze"}


def mapped(function: Callable, value):
    """``function`` on every leaf of nested lists, tuples and dictionaries."""
    if isinstance(value, (list, tuple)):
        return [mapped(function, part) for part in value]
    if isinstance(value, dict):
        return {key: mapped(function, part) for key, part in value.items()}
    return function(value)


class Operation:
    """One operation at a number of rows: called with the tensors that hang on the input, in their order.

    Attributes
    ----------
    inputs : list of torch.fx.Node
        Those tensors' nodes.
    positions : list of int
        Their places among the arguments.
    rule : callable or None
        None where the operation is affine in ``inputs``.
    """

    def __init__(self, node: fx.Node, trace: Trace, n: int, constants: dict) -> None:
        self.node, self.name, self.inputs, self.rule = node, name_of(node), [], None

        def bound(leaf):
            if isinstance(leaf, Rows):
                return leaf.at(n)
            if not isinstance(leaf, fx.Node):
                return leaf
            if leaf not in trace.dependent:
                return constants[leaf]
            self.inputs.append(leaf)
            return SLOT

        self.template, self.keywords = mapped(bound, trace.args[node])
        self.positions = [i for i, argument in enumerate(self.template) if argument is SLOT]
        self.target = node.target
        if self.inputs:
            self.target = out_of_place(node)
            self._adapt(trace, n)

    def _adapt(self, trace: Trace, n: int) -> None:
        """Decisions as 0 and 1; reshapes by their sizes, since a batch of one is no axis to squeeze."""
        target = self.target
        if self.name in RESHAPES:
            self.target, self.template = (
                aten.reshape.default,
                [SLOT, [size.at(n) for size in trace.sizes(self.node)]],
            )
        elif self.name in LOGIC:
            self.target = LOGIC[self.name]
        elif self.name == "copy":  # aten.copy has no derivative
            self.target = lambda over, source, *_: source.to(over.dtype).expand_as(over)
        elif self.name == "where":
            self.target = lambda decision, *values: target(decision.bool(), *values)
        elif self.name in COMPARISONS:
            self.target = lambda *values: target(*values).to(trace.dtype)

    def arguments(self, tensors: list[torch.Tensor]) -> list:
        """All arguments, with ``tensors`` where the input comes in."""
        tensors = iter(tensors)
        return mapped(lambda leaf: next(tensors) if leaf is SLOT else leaf, self.template)

    @property
    def options(self) -> list:
        """The arguments after the first."""
        return self.template[1:]

    def chosen(self, gradients: list) -> list:
        """Of one gradient an argument, those that are asked for."""
        return [gradients[i] for i in self.positions]

    def __call__(self, *tensors: torch.Tensor):
        return self.target(*self.arguments(tensors), **self.keywords)


def out_of_place(node: fx.Node) -> Callable:
    """``add`` for ``add_``, which decompositions leave behind; a wrong alias would show in the outputs."""
    return getattr(aten, node.target.overloadpacket.__name__[:-1]) if in_place(node) else node.target


class Graph:
    """A trace at ``n`` rows.

    Raises
    ------
    NotExact
        An operation has no rule; the message names it.
    """

    def __init__(self, trace: Trace, n: int, max_rule: str) -> None:
        self.trace, self.n, self.operations, constants = trace, n, [], {}
        for node in trace.nodes:
            if node.op == "get_attr":
                own = getattr(trace.module, node.target).detach()
                constants[node] = own.clone() if node in trace.written else own
            elif node.op == "call_function":
                if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
                    raise NotExact(
                        f"{name_of(node)} draws random numbers, so values are not exact; switch it off"
                    )
                operation = Operation(node, trace, n, constants)
                if node not in trace.dependent:
                    constants[node] = operation()
                    continue
                check(operation)
                pointwise = torch.Tag.pointwise in getattr(node.target, "tags", ())
                own = RECURRENT | {"max_pool": POOLING[max_rule]}
                operation.rule = own.get(operation.name) or rule_of(operation, pointwise, max_rule)
                self.operations.append(operation)
        fold_batch_norms(self.operations, set(trace.nodes))
        last = {node: operation for operation in self.operations for node in operation.inputs}
        self.done = {operation: [] for operation in self.operations}
        for node, operation in last.items():
            if node is not trace.output:
                self.done[operation].append(node)

    def run(self, rows: torch.Tensor, nonlinear: Callable) -> torch.Tensor:
        """Outputs of ``rows``; what is not affine is left to ``nonlinear(operation, tensors)``."""
        values = {self.trace.input: rows}
        for operation in self.operations:
            tensors = [values[node] for node in operation.inputs]
            values[operation.node] = nonlinear(operation, tensors) if operation.rule else operation(*tensors)
            for node in self.done[operation]:
                del values[node]
        return values[self.trace.output]

    @torch.no_grad()
    def kept(self, clip: torch.Tensor) -> tuple[torch.Tensor, dict]:
        """Outputs of ``clip``, and the inputs of what is not affine, by node."""
        store = {}

        def keep(operation: Operation, tensors: list[torch.Tensor]) -> torch.Tensor:
            store[operation.node] = tensors
            return operation(*tensors)

        return self.run(clip, keep), store

    def ruled(self, references: torch.Tensor, clip: dict) -> torch.Tensor:
        """Outputs of ``references``, whose gradients are multipliers to what ``clip`` holds at their time."""
        return self.run(references, lambda operation, tensors: Ruled.apply(operation, self, clip, *tensors))

    def spread(self, node: fx.Node, value: torch.Tensor) -> torch.Tensor:
        """One row's ``value`` of ``node``, so that it broadcasts to ``n`` rows."""
        if node not in self.trace.batch:
            return value
        dim, inner = self.trace.batch[node]
        outer = value.shape[dim] // inner
        if value.shape[dim] == 1:
            return value
        parts = value.unflatten(dim, (outer, 1, inner))
        shape = [*parts.shape[: dim + 1], self.n, *parts.shape[dim + 2 :]]
        return parts.expand(shape).flatten(dim, dim + 2)


def check(operation: Operation) -> None:
    """NotExact where a clip's and a reference's values cannot be compared."""
    value, name = operation.node.meta["val"], operation.name
    if isinstance(value, (list, tuple)):
        kind = None if name in LINEAR else "several outputs"
    elif value.dtype == torch.bool:
        kind = None if name in DECISIONS else "decisions"
    else:
        kind = None if value.is_floating_point() or value.is_complex() else "whole numbers"
    if name in INDEXING and any(node.meta["val"].dtype == torch.bool for node in operation.inputs):
        kind = "a choice of entries"
    if kind:
        raise NotExact(
            f"{name} makes {kind} of the input and has no rule; use another method than exact Deep SHAP"
        )


class Ruled(torch.autograd.Function):
    """The reference's value, with the rule's multipliers as its gradient."""

    @staticmethod
    def forward(ctx, operation: Operation, graph: Graph, clip: dict, *tensors: torch.Tensor) -> torch.Tensor:
        ctx.operation, ctx.graph, ctx.clip = operation, graph, clip
        ctx.save_for_backward(*tensors)
        return operation(*tensors)

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> tuple:
        operation, b = ctx.operation, list(ctx.saved_tensors)
        kept = zip(operation.inputs, ctx.clip[operation.node])
        x = [ctx.graph.spread(node, value) for node, value in kept]
        multiplied = operation.rule(operation, grad, x, b)
        return None, None, None, *(part.sum_to_size(like.shape) for part, like in zip(multiplied, b))


def find_batch(trace: Trace, row: torch.Tensor) -> None:
    """Set ``trace.batch``: the axis of a value that holds the rows, and how many entries a row has in a run.

    Where that axis holds more than rows, (rows x heads) or (time x rows), a row of NaN before another one
    says in which order. Where NaN gets lost, rows come first; a mistake would show as values that do not
    add up.
    """
    for node, (two, three) in trace.shapes.items():
        axes = [i for i, sizes in enumerate(zip(two, three)) if sizes[0] != sizes[1]]
        if len(axes) == 1:
            trace.batch[node] = axes[0], two[axes[0]] // 2
        elif not axes and node in trace.dependent:
            raise NotExact(
                f"{name_of(node)} mixes rows: what f says of a clip depends on the others in its batch"
            )
    if all(inner == 1 for _, inner in trace.batch.values()):
        return
    graph = Graph(trace, 2, "deeplift")
    _, kept = graph.kept(torch.cat([torch.full_like(row, torch.nan), row]))
    for operation in graph.operations:
        for node, value in zip(operation.inputs, kept.get(operation.node, ())):
            dim, inner = trace.batch.get(node, (0, 1))
            if inner > 1:
                lost = value.isnan().movedim(dim, 0).flatten(1).any(1)
                runs = [size for size in range(1, inner + 1) if inner % size == 0]
                fits = [
                    size
                    for size in runs
                    if torch.equal(lost, alternating(size, inner // size).to(lost.device))
                ]
                trace.batch[node] = dim, (fits or [inner])[0]


def alternating(inner: int, outer: int) -> torch.Tensor:
    """``inner`` times True, ``inner`` times False, all ``outer`` times."""
    return torch.tensor([True, False]).repeat_interleave(inner).repeat(outer)

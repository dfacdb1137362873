"""A network as a list of ATen operations that serves any number of rows.

``make_fx`` writes down what a network does to tensors of one shape, so 2 rows and 3 rows are both traced: a
size that differs is affine in the rows. With that, one graph runs the clip alone and any number of
reference clips. ``torch.export``, the public way to such a graph, keeps a GRU or an LSTM as one operation
and refuses networks that ``make_fx`` follows, so it is not used. ``make_fx`` may change: a test guards the
pinned version.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from .decompositions import decompositions
from .recurrence import Unrolled
from .rules import NotExact


@dataclass(frozen=True)
class Rows:
    """A size in a graph: ``fixed + each * rows``."""

    fixed: int
    each: int

    def at(self, n: int) -> int:
        return self.fixed + self.each * n


def modules_of(f: Callable) -> list[nn.Module]:
    """Every module of ``f``: its own, or those that a function or method has at hand."""
    holders = [f, getattr(f, "__self__", None), getattr(f, "func", None)]
    if inspect.isfunction(f):
        known = inspect.getclosurevars(f)
        holders += [*known.nonlocals.values(), *known.globals.values()]
    elif not isinstance(f, nn.Module):
        holders += getattr(f, "__dict__", {}).values()
    roots = [holder for holder in holders if isinstance(holder, nn.Module)]
    return list(dict.fromkeys(module for root in roots for module in root.modules()))


@contextmanager
def untouched(modules: list[nn.Module]) -> Iterator[None]:
    """Evaluation mode; each module gets its attributes, hooks, flags and buffers' values back."""
    containers = (dict, list, set)
    states = [
        (m, {k: (v, v.copy() if isinstance(v, containers) else v) for k, v in m.__dict__.items()})
        for m in modules
    ]
    buffers = [(b, b.detach().clone()) for m in modules for b in m.buffers(recurse=False)]
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module, state in states:
            for key in module.__dict__.keys() - state.keys():
                del module.__dict__[key]
            for key, (value, copy) in state.items():
                module.__dict__[key] = value
                if isinstance(value, list):
                    value[:] = copy
                elif isinstance(value, containers):
                    value.clear()
                    value.update(copy)
        with torch.no_grad():
            for buffer, saved in buffers:
                if not torch.equal(buffer, saved):
                    buffer.copy_(saved)


@contextmanager
def plain_operations() -> Iterator[None]:
    """No fused attention, encoder layer or recurrence in here, so that a trace shows their operations."""
    fastpath = torch.backends.mha.get_fastpath_enabled()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), Unrolled():
        try:
            torch.backends.mha.set_fastpath_enabled(False)
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fastpath)


class Trace:
    """The live operations of ``f`` on rows like ``row`` (1, ...).

    Attributes
    ----------
    nodes : list of torch.fx.Node
        In order of their computation; ``args[node]`` are its arguments and keywords, sizes as ``Rows``.
    dependent : set of torch.fx.Node
        Those that hang on the input.
    written : set of torch.fx.Node
        Constants that an operation writes into, and what they were made of.
    shapes : dict
        A node's shapes at 2 and at 3 rows, for tensors.
    batch : dict
        See ``graph.find_batch``.
    """

    def __init__(self, f: Callable, row: torch.Tensor) -> None:
        with plain_operations():
            self.module, self.nodes = _traced(f, row, 2)
            other, others = _traced(f, row, 3)
        if [name_of(node) for node in self.nodes] != [name_of(node) for node in others]:
            raise NotExact(
                "f does other operations on 3 rows than on 2: its graph serves one number of rows alone"
            )
        self.dtype, self.input, self.output = row.dtype, self.nodes[0], self.nodes[-1].args[0]
        self.args, self.shapes, self.dependent, self.batch = {}, {}, {self.input}, {}
        twin = dict(zip(others, self.nodes))
        for node, like in zip(self.nodes, others):
            self.args[node] = _merged([node.args, node.kwargs], [like.args, like.kwargs], twin, node)
            if isinstance(value := node.meta.get("val"), torch.Tensor):
                self.shapes[node] = tuple(value.shape), tuple(like.meta["val"].shape)
            if any(parent in self.dependent for parent in node.all_input_nodes):
                self.dependent.add(node)
            if (
                node.op == "get_attr"
                and getattr(self.module, node.target).shape != getattr(other, like.target).shape
            ):
                raise NotExact("f makes a constant of as many rows as its input has")
        self.written = _behind([node for node in self.nodes if in_place(node) and node not in self.dependent])
        if self.output not in self.dependent:
            raise NotExact("the outputs of f do not hang on its input")

    def sizes(self, node: torch.fx.Node) -> list[Rows]:
        """The shape of a node's tensor at any number of rows."""
        return [Rows(3 * two - 2 * three, three - two) for two, three in zip(*self.shapes[node])]


def _traced(f: Callable, row: torch.Tensor, n: int) -> tuple[torch.fx.GraphModule, list[torch.fx.Node]]:
    """The graph of ``f`` on ``n`` times ``row``: its module and the nodes that the output needs."""
    rows = row.repeat(n, *[1] * (row.ndim - 1))
    try:
        module = make_fx(lambda x: f(x), decomposition_table=decompositions())(rows)
        on_constants = written_constants(module.graph)
        # functionalize takes its time with views, and does not take constants
        if any(in_place(node) and node not in on_constants for node in module.graph.nodes):
            module = make_fx(functionalize(lambda x: f(x)), decomposition_table=decompositions())(rows)
    except NotExact:
        raise
    except (RuntimeError, NotImplementedError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if "non-functional tensor" in reason:
            reason = (
                "it writes what depends on its input into a copy of a constant; "
                "torch.where, or torch.cat of the parts, says the same without writing"
            )
        raise NotExact(f"f cannot be traced: {reason[:200]}") from error
    ends = [node for node in module.graph.nodes if node.op in ("output", "placeholder")]
    live = _behind(ends + written_constants(module.graph))
    return module, [node for node in module.graph.nodes if node in live]


def written_constants(graph: torch.fx.Graph) -> list[torch.fx.Node]:
    """Operations that write into what does not hang on the input, as into a window that is padded.

    Nothing reads what they return; what they wrote into is read.
    """
    dependent, found = set(), []
    for node in graph.nodes:
        if node.op == "placeholder" or any(parent in dependent for parent in node.all_input_nodes):
            dependent.add(node)
        elif node.op == "call_function" and in_place(node):
            found.append(node)
    return found


def _behind(nodes: list[torch.fx.Node]) -> set[torch.fx.Node]:
    """Nodes and all that they were made of."""
    found, todo = set(), list(nodes)
    while todo:
        node = todo.pop()
        if node not in found:
            found.add(node)
            todo += node.all_input_nodes
    return found


def in_place(node: torch.fx.Node) -> bool:
    """An ATen operation whose name says that it changes its input."""
    packet = getattr(node.target, "overloadpacket", None)
    return packet is not None and packet.__name__.endswith("_")


def name_of(node: torch.fx.Node) -> str:
    """An operation's name without its overload, and without the underscore of those in place."""
    if node.op != "call_function":
        return node.op
    name = getattr(node.target, "overloadpacket", node.target).__name__
    return name.removesuffix("_")


def _merged(two, three, twin: dict, node: torch.fx.Node):
    """The arguments at any number of rows, from those at 2 and at 3."""
    if isinstance(two, torch.fx.Node) and twin.get(three) is two:
        return two
    if type(two) is not type(three) and not (
        isinstance(two, (list, tuple)) and isinstance(three, (list, tuple))
    ):
        raise NotExact(f"{name_of(node)}: its arguments hang on the number of rows")
    if isinstance(two, (list, tuple)) and len(two) == len(three):
        return [_merged(a, b, twin, node) for a, b in zip(two, three)]
    if isinstance(two, dict) and two.keys() == three.keys():
        return {key: _merged(two[key], three[key], twin, node) for key in two}
    if type(two) is int and two != three:
        return Rows(3 * two - 2 * three, three - two)
    if two != three:
        raise NotExact(f"{name_of(node)}: its arguments hang on the number of rows")
    return two

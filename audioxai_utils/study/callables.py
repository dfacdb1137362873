"""Functions that a user adds, a method, a mask or a metric: what they are, as a digest that keys what they
made.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import inspect
import operator
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

from .sources import digest, package_modules

PLAIN = (str, bytes, int, float, complex, type(None))
NAME = operator.itemgetter(0)
REBINDING = ("STORE_GLOBAL", "STORE_DEREF")


def code_digest(function: Callable) -> str:
    """Digest of a callable's code, the same in every process.

    Of one of the package's it is that of its module (`digest`). Of another, such as a notebook's, it is of
    its module's file, where it has one, its source, what it is bound to, and the functions beside it and
    values that it names. What a function may change counts by its type alone: lists, dictionaries, objects
    that are not called, and variables that it rebinds.
    """
    return hashlib.sha256(_Text(function).of(function).encode()).hexdigest()[:16]


class _Text:
    """Values as text, those of one module with their source."""

    def __init__(self, function: Callable) -> None:
        while isinstance(function, functools.partial):
            function = function.func
        self.home, self.seen = getattr(inspect.unwrap(function), "__module__", None), set()

    def of(self, value) -> str:
        """A value as text; one that was met before by its name."""
        if isinstance(value, PLAIN):
            return repr(value)
        if isinstance(value, (tuple, frozenset)):
            parts = [self.of(each) for each in value]
            return repr(parts if isinstance(value, tuple) else sorted(parts))
        if isinstance(value, functools.partial):
            return self.of((value.func, value.args, tuple(sorted(value.keywords.items()))))
        if isinstance(value, types.MethodType):
            return self.of((value.__func__, value.__self__))
        if isinstance(value, types.CodeType):
            return self.of((value.co_code, value.co_names, value.co_varnames, value.co_consts))
        if isinstance(value, types.ModuleType):
            return _module(value.__name__)
        if hasattr(value, "__array__") and not isinstance(value, type):
            return _array(value)
        return self._code(inspect.unwrap(value))

    def _code(self, value) -> str:
        """A function or class, or an object by its class."""
        named = value if hasattr(value, "__qualname__") else type(value)
        name = f"{named.__module__}.{named.__qualname__}"
        if id(value) in self.seen:
            return name
        self.seen.add(id(value))
        about = [name, _module(named.__module__) if _in_its_file(named) else ""]
        if named.__module__ == self.home and self.home not in package_modules():
            about += [self._source(named)]
            about += [self.of(each) for each in self._bound(value)]
        return " ".join(about)

    def _source(self, named) -> str:
        try:
            return inspect.getsource(named)
        except (OSError, TypeError):  # typed into an interpreter
            made = [named] if isinstance(named, types.FunctionType) else vars(named).values()
            return self.of(tuple(each.__code__ for each in made if isinstance(each, types.FunctionType)))

    def _bound(self, value) -> Iterator:
        """Defaults, closure and named globals of a function; the attributes of an object that is called."""
        if isinstance(value, types.FunctionType):
            yield from (value.__defaults__, tuple(sorted((value.__kwdefaults__ or {}).items())))
            steps = [step for code in _codes(value.__code__) for step in dis.get_instructions(code)]
            changed = {step.argval for step in steps if step.opname in REBINDING}
            named = {step.argval for step in steps if step.opname == "LOAD_GLOBAL"}
            beside = {name: each for name, each in value.__globals__.items() if name in named}
            if _in_its_file(value):  # which holds its plain values
                beside = {name: each for name, each in beside.items() if not isinstance(each, PLAIN)}
            cells = zip(value.__code__.co_freevars, value.__closure__ or ())
            beside |= {name: cell.cell_contents for name, cell in cells if name not in changed}
            yield from (each for each in sorted(beside.items(), key=NAME) if each[0] not in changed)
        elif callable(value) and not isinstance(value, type):
            state = value.state_dict() if hasattr(value, "state_dict") else {}
            yield from sorted((getattr(value, "__dict__", {}) | state).items(), key=NAME)


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """A function's code and that of the functions that it makes."""
    yield code
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from _codes(each)


def _array(value) -> str:
    """An array's or a tensor's content; its type where that is not numbers alone."""
    try:
        values = (value.detach().cpu() if hasattr(value, "detach") else value).__array__()
    except (TypeError, RuntimeError):  # bfloat16, sparse
        values = None
    if values is None or values.dtype.hasobject:
        return type(value).__qualname__
    return f"{values.dtype} {values.shape} {hashlib.sha256(values.tobytes()).hexdigest()}"


def _module(name: str | None) -> str:
    """A module: of the package with all that it imports, of another its file."""
    if name in package_modules():
        return f"{name} {digest(name)}"
    file = _file(name)
    return f"{name} {hashlib.sha256(file.read_bytes()).hexdigest()}" if file else str(name)


def _in_its_file(value) -> bool:
    """Whether a function's code lies in its module's file, as what is typed into a notebook does not."""
    code = getattr(value, "__code__", None)
    return code is None or code.co_filename == str(_file(value.__module__))


def _file(name: str | None) -> Path | None:
    path = getattr(sys.modules.get(name), "__file__", None)
    return Path(path) if path and Path(path).is_file() else None

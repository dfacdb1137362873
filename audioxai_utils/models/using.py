"""Functions of a user's, and the modules that they use: a front end in a closure, a head in an attribute.

Such a module is part of the classifier without being part of the network: left in training mode it would drop
and drift, and a copy in float64 would call what was not copied.
"""

from __future__ import annotations

import copy
import dis
import functools
import types
from collections.abc import Callable, Iterable

from torch import nn

DEEPEST, LONGEST = 6, 1000  # steps from a function to what it uses; parts of a list that is looked into


class Using(nn.Module):
    """A function with the modules that it uses as its own parts.

    They are in evaluation mode with it, what they hold comes back, and a copy of it calls copies of them.
    """

    def __init__(self, function: Callable, used: list[nn.Module]) -> None:
        super().__init__()
        self.function, self.used = function, nn.ModuleList(used)

    def forward(self, x):
        """What the function makes of ``x``."""
        return self.function(x)

    def __deepcopy__(self, memo: dict) -> Using:
        copies = [copy.deepcopy(module, memo) for module in self.used]
        ids = {id(module): copied for module, copied in zip(self.used, copies)}
        copied = Using(with_modules(self.function, lambda module: ids.get(id(module), module)), copies)
        copied.training = self.training
        return copied


def using(function):
    """``function`` as a part of a model: a `Using` of the modules that it uses.

    A module, what uses none, and what is no function come back as they are.
    """
    if not callable(function) or isinstance(function, nn.Module):
        return function
    used = modules_used(function)
    return Using(function, used) if used else function


def modules_used(function: Callable) -> list[nn.Module]:
    """Modules that a function calls by a name: its closure's, its defaults', its module's, its object's."""
    found: dict[int, nn.Module] = {}
    with_modules(function, lambda module: found.setdefault(id(module), module))
    return list(found.values())


def with_modules(
    value, change: Callable[[nn.Module], nn.Module], known: dict | None = None, depth: int = DEEPEST
):
    """``value`` with every module that it uses changed; the same object where none is.

    It looks into functions, methods, partial functions, lists, tuples and dicts, and into the attributes of
    other callable objects; into the globals of a function only for modules and for the functions beside it.
    """
    known = {} if known is None else known  # by identity: one object is changed once, and a circle ends
    if id(value) in known or depth == 0:
        return known.get(id(value), value)
    known[id(value)] = value

    def inside(part):
        return with_modules(part, change, known, depth - 1)

    if isinstance(value, nn.Module):
        changed = change(value)
    elif isinstance(value, types.FunctionType):
        changed = _function(value, inside)
    elif isinstance(value, (types.MethodType, functools.partial)):
        changed = _bound(value, inside)
    elif type(value) in (list, tuple, dict) and len(value) > LONGEST:
        changed = value
    elif type(value) in (list, tuple):
        parts = [inside(part) for part in value]
        changed = value if _same(parts, value) else type(value)(parts)
    elif type(value) is dict:
        parts = {key: inside(part) for key, part in value.items()}
        changed = value if _same(parts.values(), value.values()) else parts
    elif callable(value) and not isinstance(value, type):
        changed = _object(value, inside)
    else:
        changed = value
    known[id(value)] = changed
    return changed


def _same(new: Iterable, old: Iterable) -> bool:
    return all(a is b for a, b in zip(new, old))


def _bound(value: types.MethodType | functools.partial, inside: Callable):
    """A method of an object, or a partial function, of which object or arguments are changed."""
    if isinstance(value, functools.partial):
        old = (value.func, value.args, value.keywords)
        function, arguments, keywords = new = tuple(inside(part) for part in old)
        return value if _same(new, old) else functools.partial(function, *arguments, **keywords)
    old = (value.__func__, value.__self__)
    owner = old[1] if isinstance(old[1], type) else inside(old[1])
    owner = _object(owner, inside) if owner is old[1] else owner  # which need not be callable
    new = (inside(old[0]), owner)
    return value if _same(new, old) else types.MethodType(*new)


def _function(function: types.FunctionType, inside: Callable) -> types.FunctionType:
    """A function of which the closure, the defaults and the globals that it names are changed."""
    beside = {name: function.__globals__[name] for name in _names(function) if name in function.__globals__}
    named = {name: inside(value) for name, value in beside.items() if _is_beside(value, function)}
    named = {name: value for name, value in named.items() if value is not beside[name]}
    cells = tuple(_cell(cell, inside) for cell in function.__closure__ or ())
    defaults, keywords = inside(function.__defaults__), inside(function.__kwdefaults__)
    old = (*(function.__closure__ or ()), function.__defaults__, function.__kwdefaults__)
    if not named and _same((*cells, defaults, keywords), old):
        return function
    scope = function.__globals__ | named if named else function.__globals__
    changed = types.FunctionType(function.__code__, scope, function.__name__, defaults, cells or None)
    changed.__kwdefaults__ = keywords
    return changed


def _names(function: types.FunctionType) -> set[str]:
    """Global names in a function's code and in that of the functions that it makes."""
    codes, names = [function.__code__], set()
    while codes:
        code = codes.pop()
        names.update(each.argval for each in dis.get_instructions(code) if each.opname == "LOAD_GLOBAL")
        codes += [each for each in code.co_consts if isinstance(each, types.CodeType)]
    return names


def _is_beside(value, function: types.FunctionType) -> bool:
    """Whether a global is looked into: a module, or a function of the same file."""
    return isinstance(value, nn.Module) or getattr(value, "__globals__", None) is function.__globals__


def _cell(cell: types.CellType, inside: Callable) -> types.CellType:
    try:
        content = cell.cell_contents
    except ValueError:  # not filled yet
        return cell
    changed = inside(content)
    return cell if changed is content else types.CellType(changed)


def _object(value, inside: Callable):
    """An object with the modules among its attributes changed, in a copy of it."""
    if isinstance(value, (nn.Module, type)) or not hasattr(value, "__dict__"):
        return value
    changed = {name: inside(part) for name, part in vars(value).items()}
    changed = {name: part for name, part in changed.items() if part is not vars(value)[name]}
    copied = copy.copy(value) if changed else value
    if copied is not value:  # what cannot be copied stays as it is
        vars(copied).update(changed)
    return copied

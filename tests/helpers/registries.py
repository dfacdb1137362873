"""What the package's registries hold beside the package's own, and how a test is rid of it.

Not a test itself; used by conftest.py. It imports nothing of the package by itself: where a registry was never
imported, nothing can have been added to it.
"""

from __future__ import annotations

import sys

ROOM = "audioxai_utils"


def added() -> list[str]:
    """Kind and name of every method, mask and metric that is not the package's own, such as ``mask median``."""
    return [f"{kind} {name}" for kind, _, names in _strangers() for name in names]


def take_back() -> list[str]:
    """Take out whatever is not the package's own; returns what `added` said before."""
    found = added()
    for _, remove, names in _strangers():
        for name in names:
            remove(name)
    return found


def _strangers() -> list[tuple]:
    """(kind, how to remove a name, names) of each registry that is imported."""
    found, modules = [], sys.modules
    if f"{ROOM}.attributions.registry" in modules:
        methods = modules[f"{ROOM}.attributions.registry"].METHODS
        own = modules[f"{ROOM}.constants"].known_methods()
        found.append(("method", methods.remove, [name for name in methods if name not in own]))
    for kind, module, table, own in (
        ("mask", "masks", "MASKS", "MASK_NAMES"),
        ("metric", "metrics", "METRICS", "STUDY"),
    ):
        if module := modules.get(f"{ROOM}.evaluation.{module}"):
            names = getattr(module, table)
            found.append((kind, names.pop, [name for name in names if name not in getattr(module, own)]))
    return found

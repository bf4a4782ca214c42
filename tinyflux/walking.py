"""What can be reached from a model: plain attributes, lists, tuples and dicts, all the way down.

Nothing has to be registered: whatever holds Tensors is found, each object once, so that shared and
cyclic parts count once.
"""

from collections import deque
from collections.abc import Mapping
from functools import partial
from types import MethodType, ModuleType

import numpy as np

from .checks import is_compiled
from .tensor import Tensor

# What has no parts to look into.
ATOMS = (
    *(str, bytes, int, float, complex, bool, type(None)),
    *(np.ndarray, np.generic, type, ModuleType),
)


def named_tensors(*models):
    """Every leaf Tensor that can be reached from `models`, with its path, each once."""
    return [(path, t) for path, t in reachable(*models) if isinstance(t, Tensor) and t.mark is None]


def reachable(*models):
    """Everything that can be reached from `models`, with its path: each once, depth first."""
    seen = set()
    for i, model in enumerate(models):
        stack = [("" if len(models) == 1 else f"[{i}]", model)]
        while stack:
            path, item = stack.pop()
            if isinstance(item, ATOMS) or id(item) in seen:
                continue
            seen.add(id(item))
            yield path.removeprefix("."), item
            if not isinstance(item, Tensor):
                stack.extend(reversed(list(parts(path, item))))


def parts(path, item):
    """The parts of a container or object, as (path, part)."""
    yield from inside(path, item)
    if isinstance(item, (list, tuple, dict, deque)):  # of a class of its own it has attributes too
        yield from attributes(path, item)


def inside(path, item):
    """The items of a container, or the attributes of an object."""
    if isinstance(item, Mapping):
        for key, part in item.items():
            yield f"{path}[{key!r}]", part
    elif isinstance(item, (list, tuple, deque)) or hasattr(type(item), "walked_as_a_list"):
        fields = getattr(item, "_fields", None)  # of a named tuple
        for i, part in enumerate(item):
            yield f"{path}.{fields[i]}" if fields else f"{path}[{i}]", part
    elif isinstance(item, MethodType):  # of a layer: m.encode
        yield path, item.__self__
    elif isinstance(item, partial):
        yield from inside(path, (item.func, *item.args, item.keywords))
    elif is_compiled(item):  # not what it has recorded
        yield path, item.f
    else:
        yield from attributes(path, item)


def attributes(path, item):
    """What stands in the slots and in the `__dict__` of an object."""
    for kind in reversed(type(item).__mro__):
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(item, name) and name not in ("__dict__", "__weakref__"):
                yield f"{path}.{name}", getattr(item, name)
    for name, part in getattr(item, "__dict__", {}).items():
        yield f"{path}.{name}", part

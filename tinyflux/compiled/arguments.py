"""The arguments of a compiled function: which are data, and what makes two calls alike."""

import copy
import re
from types import MethodType

import numpy as np

from ..checks import as_operand
from ..tensor import Tensor
from .kinds import PLAIN


def is_data(a):
    """Whether an argument is data that differs from call to call: an array, or a table of others.

    Plain numbers, strings and flags are not: a function may branch on them.
    """
    kind = type(a)
    if kind is np.ndarray or isinstance(a, np.generic):
        return True
    return kind is not Tensor and hasattr(kind, "__array__")


def mapped(tree, of, path):
    """A tuple, list or dict with `of(leaf, path)` in the place of every leaf."""
    if isinstance(tree, tuple):
        made = [mapped(v, of, f"{path}_{i}") for i, v in enumerate(tree)]
        return type(tree)(*made) if hasattr(tree, "_fields") else tuple(made)
    if isinstance(tree, list):
        made = like(tree, [])
        made[:] = [mapped(v, of, f"{path}_{i}") for i, v in enumerate(tree)]
        return made
    if isinstance(tree, dict):
        made = like(tree, {})
        dict.update(made, {k: mapped(v, of, f"{path}_{k}") for k, v in tree.items()})
        return made
    return of(tree, path)


def like(tree, plain):
    """A list or dict of its own for the parts of `tree`: `plain`, or a copy of what is more."""
    return plain if type(tree) is type(plain) else copy.copy(tree)


def containers(tree):
    """All tuples, lists and dicts in a tree, itself among them."""
    if not isinstance(tree, (tuple, list, dict)):
        return []
    parts = tree.values() if isinstance(tree, dict) else tree
    return [tree, *(found for part in parts for found in containers(part))]


def has_attributes(container):
    """Whether a tuple, list or dict of a class of the user's is more than its parts."""
    return bool(getattr(container, "__dict__", None))


def matcher(args, kwargs):
    """A quick test whether others are arrays of the same shapes and types; never, if these aren't.

    It is one expression, compiled once, because it runs in every call.
    """
    if kwargs or not all(type(a) is np.ndarray for a in args):
        return lambda args, kwargs: False
    tests, bound = [f"not kwargs and len(args) == {len(args)}"], {"ndarray": np.ndarray}
    for i, a in enumerate(args):
        bound[f"dtype_{i}"] = a.dtype
        array = f"type(args[{i}]) is ndarray"
        tests.append(f"{array} and args[{i}].shape == {a.shape} and args[{i}].dtype == dtype_{i}")
    return eval(f"lambda args, kwargs: {' and '.join(tests)}", bound)


def signature(args, kwargs):
    """(what a recording depends on, the arrays in the order of `mapped`)."""
    arrays, parts = [], []
    for a in args:
        if type(a) is np.ndarray:
            arrays.append(a)
            parts.append((a.shape, a.dtype))
        else:
            note(a, arrays, parts)
    if kwargs:
        parts.append("by name")  # what stands here otherwise is a tuple, or `Same`
        note(kwargs, arrays, parts)
    return tuple(parts), arrays


def note(a, arrays, parts):
    """Append an argument to the parts of a signature, and what it has of arrays to these."""
    kind = type(a)
    if isinstance(a, (tuple, list, dict)) and has_attributes(a):
        parts.append(Same(a))
    if isinstance(a, (tuple, list)):
        parts.append((kind, len(a)))
        for part in a:
            note(part, arrays, parts)
    elif isinstance(a, dict):
        parts.append((kind, tuple(map(told, a))))
        for part in a.values():
            note(part, arrays, parts)
    elif is_data(a):
        if not isinstance(a, np.generic):
            a = as_operand(a, "compiled")  # refuses a masked array
        arrays.append(a)
        parts.append((np.shape(a), a.dtype))
    else:
        parts.append((kind, written(a)) if isinstance(a, PLAIN) else Same(a))


def told(key):
    """A key of a dict with its type: 1, 1.0 and True are equal."""
    if isinstance(key, tuple):
        return type(key), tuple(map(told, key))
    return type(key), written(key) if isinstance(key, PLAIN) else key


def written(a):
    """A plain value as text; an integer to base 16, which has no limit of digits.

    A class made from such a type may print as it likes, so the type itself is asked.
    """
    if isinstance(a, int):
        return hex(int(a))
    kind = next(kind for kind in PLAIN if isinstance(a, kind))
    return repr(a) if kind is np.generic else kind.__repr__(a)


class Same:
    """An object that counts by identity, and is kept so that its identity stays its own."""

    __slots__ = ("thing",)

    def __init__(self, thing):
        self.thing = thing

    def __eq__(self, other):
        return isinstance(other, Same) and self.thing is other.thing

    def __hash__(self):
        return id(self.thing)


# ------------------------------------------------------------------------------- their names


def argument_names(f, args):
    """What the function calls its arguments."""
    code = getattr(f, "__code__", None)
    names = code.co_varnames[: code.co_argcount] if code else ()
    names = names[1:] if isinstance(f, MethodType) else names
    return [names[i] if i < len(names) else f"x{i}" for i in range(len(args))]


def closure(f):
    """What a function names, for finding Tensors and calling them by their names."""
    code = getattr(f, "__code__", None)
    if code is None:
        return f
    found = {n: f.__globals__[n] for n in code.co_names if n in f.__globals__}
    for name, cell in zip(code.co_freevars, f.__closure__ or ()):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not filled yet
            continue
    return found


def identifier(path):
    """`['model'].layers[0].weight` as `model_layers_0_weight`."""
    return re.sub(r"\W+", "_", path).strip("_") or "parameter"

"""Kinds of objects and names: plain values, what is written in C, whose module it is."""

import dis
import functools
import keyword
import sys
from types import CodeType, FunctionType

import numpy as np

PLAIN = (int, float, complex, str, bytes, bool, type(None), np.generic, np.dtype)
LIBRARIES = {"tinyflux", "numpy", "scipy"}
OURS = LIBRARIES | {"builtins"}
STANDARD = set(sys.stdlib_module_names) - {"__main__"}


def is_plain(thing):
    """Whether an object is a plain value, and nothing in it can be changed.

    A record can be, and what a class of the user's, made from such a type, adds to it.
    """
    return isinstance(thing, PLAIN) and not (
        isinstance(thing, np.void) or hasattr(thing, "__dict__")
    )


def is_written(name):
    """Whether an attribute may be written with a dot: `vars` has others, such as "lambda", too."""
    return str(name).isidentifier() and name.isascii() and not keyword.iskeyword(name)


def root(name):
    """The package of a module."""
    return (name or "").split(".")[0]


def is_in_c(kind):
    """Whether a class of Python's or NumPy's is written in C: what it holds has no name."""
    return root(kind.__module__) in OURS | STANDARD and not has_functions(kind)


@functools.lru_cache
def has_functions(kind):
    """Whether a class or one of its bases is written in Python."""
    return any(isinstance(part, FunctionType) for k in kind.__mro__ for part in vars(k).values())


@functools.cache
def globals_in(code):
    """The globals and modules that a function and those inside it name."""
    kinds = ("LOAD_GLOBAL", "STORE_GLOBAL", "LOAD_NAME", "IMPORT_NAME")
    names = [i.argval for i in dis.get_instructions(code) if i.opname in kinds]
    inner = [const for const in code.co_consts if isinstance(const, CodeType)]
    return list(dict.fromkeys([*names, *(name for c in inner for name in globals_in(c))]))

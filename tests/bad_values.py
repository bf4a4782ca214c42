"""Values that no argument is made for: each is a function that makes a fresh one.

`VALUES` is the table. Among them are objects that fight back (`Hostile` is what they raise), and
things that never end; these raise `Endless` when somebody has taken a great many items.
"""

import io
import itertools
import warnings
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np

import tinyflux as flux

# ------------------------------------------------------------------------------- what fights back


class Hostile(Exception):
    """Raised by the values below themselves: it may pass through."""


class Endless(Exception):
    """Somebody tried to take all items of something that has no end."""


def refuse(*args, **kwargs):
    raise Hostile("this value does not want to be used")


class Fighter:
    """An object that raises whatever is done to it, even printing it."""

    __repr__ = __str__ = __eq__ = __hash__ = __bool__ = __len__ = __iter__ = __getattr__ = refuse
    __call__ = __getitem__ = __float__ = __index__ = __contains__ = refuse
    __lt__ = __add__ = __sub__ = refuse


class Mute:
    """An ordinary object that cannot be printed."""

    __repr__ = refuse


class Unending:
    """Has a `__getattr__` that answers everything with itself, as mocks do."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self


class Liar:
    """Says that it has three items, and has none; that it is an array, and is none."""

    def __len__(self):
        return 3

    def __getitem__(self, i):
        raise IndexError(i)

    def __array__(self, dtype=None, copy=None):
        return "no array"


class Stubborn(np.ndarray):
    """An array of which no new one can be made: `__array_finalize__` raises."""

    def __array_finalize__(self, other):
        if getattr(other, "armed", False):
            refuse()


def stubborn():
    a = np.ones((5, 4)).view(Stubborn)
    a.armed = True
    return a


class Biting(np.ndarray):
    """An array that raises when it is compared, measured, printed or gone through."""

    __eq__ = __ne__ = __bool__ = __len__ = __repr__ = __str__ = __iter__ = __hash__ = refuse


# ------------------------------------------------------------------------------- what is odd


def endless():
    """An iterator without end, which complains where a real one would hang."""
    yield from itertools.repeat(1.0, 20_000)
    raise Endless("20,000 items taken")


def deep(kind, levels=1500):
    """Nested so deeply that recursion cannot follow."""
    value = kind()
    for _ in range(levels):
        value = kind({"a": value} if kind is dict else [value])
    return value


def in_itself(kind):
    """A list or dict that contains itself."""
    value = kind()
    value.append(value) if kind is list else value.update(a=value)
    return value


def frozen():
    t = flux.Tensor(np.ones(3))
    flux.freeze_(t)
    return t


def locked():
    a = np.ones((5, 4))
    a.flags.writeable = False
    return a


def matrix():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        return np.matrix(np.full((5, 4), 2.0))


def model():
    return flux.Dense(7, 2, init=flux.zeros_init)


def foreign_gradients():
    w = flux.Tensor(np.ones((2, 2)))
    return flux.Grads([w], [np.ones((2, 2))])


def of(value):
    """A maker of what never changes."""
    return lambda: value


# One function, which takes no arguments, for each.
VALUES = {
    # nothing, and what is no number
    "None": of(None), "NotImplemented": of(NotImplemented), "...": of(...), "''": of(""),
    "text": of("abc"), "digits": of("3"), "bytes": of(b"ab"), "object": object, "class": of(dict),
    "path": lambda: Path("somewhere"), "file": lambda: io.StringIO("1 2 3"),
    "str_": lambda: np.str_("a"), "datetime64": lambda: np.datetime64("2020-01-01"),
    "timedelta64": lambda: np.timedelta64(3, "D"), "module": of(np), "slice": of(slice(1, 2)),
    # numbers
    "-1": of(-1), "0": of(0), "2**63": of(2**63), "2**70": of(2**70), "-2**63": of(-(2**63)),
    "5000 digits": of(10**5000), "2.5": of(2.5), "nan": of(np.nan), "inf": of(np.inf),
    "-inf": of(-np.inf), "1e308": of(1e308), "1e-320": of(1e-320), "True": of(True), "1j": of(1j),
    "Decimal": lambda: Decimal("0.5"), "Decimal nan": lambda: Decimal("sNaN"),
    "Decimal 1e400": lambda: Decimal("1e400"), "Fraction": lambda: Fraction(1, 3),
    "float32": lambda: np.float32(2), "int8": lambda: np.int8(3), "bool_": of(np.True_),
    "complex64": lambda: np.complex64(1j), "longdouble": lambda: np.longdouble("1e400"),
    # functions
    "five arguments": of(lambda a, b, c, d, e: 0.0), "raises": of(refuse),
    "nothing back": of(lambda *a, **k: None), "text back": of(lambda *a, **k: "abc"),
    # containers
    "[]": list, "()": tuple, "{}": dict, "set": lambda: {1.0}, "[None]": lambda: [None],
    "ragged": lambda: [[1.0], [1.0, 2.0]], "strings": lambda: ["a", "b"], "[1]": lambda: [1],
    "deep list": lambda: deep(list), "deep tuple": lambda: deep(tuple),
    "deep dict": lambda: deep(dict), "list in itself": lambda: in_itself(list),
    "dict in itself": lambda: in_itself(dict), "odd keys": lambda: {None: 1, (2, 3): [4], 0.5: "x"},
    "range": of(range(3)), "long range": of(range(2**62)), "generator": lambda: (i for i in (1, 2)),
    "endless": endless, "memoryview": lambda: memoryview(b"abcd"),
    # arrays
    "objects": lambda: np.array([None, "a", 1.5], object), "texts": lambda: np.array(["a", "bc"]),
    "dates": lambda: np.array(["2020-01-01"] * 5, "M8[D]"),
    "records": lambda: np.ones(5, [("a", "f4"), ("b", "i2")]),
    "complex": lambda: np.ones((5, 4)) * 1j, "float16": lambda: np.full((5, 4), 2, np.float16),
    "longdoubles": lambda: np.full((5, 4), 2, np.longdouble), "ints": lambda: np.ones((5, 4), int),
    "bools": lambda: np.ones((5, 4), bool), "uint8": lambda: np.full((5, 4), 200, np.uint8),
    "0-d": lambda: np.array(2.0), "(0,)": lambda: np.ones(0), "(0, 3)": lambda: np.ones((0, 3)),
    "(5, 0)": lambda: np.ones((5, 0)), "(2, 2)": lambda: np.full((2, 2), 0.5),
    "huge view": lambda: np.broadcast_to(np.float64(1), (2**50, 4)), "read-only": locked,
    "big-endian": lambda: np.full((5, 4), 2, ">f8"), "matrix": matrix,
    "masked": lambda: np.ma.masked_array(np.ones((5, 4)), np.eye(5, 4)),
    "nans": lambda: np.full((5, 4), np.nan), "infs": lambda: np.full((5, 4), np.inf),
    "huge": lambda: np.full((5, 4), 1e308), "stubborn": stubborn,
    "biting": lambda: np.ones((5, 4)).view(Biting),
    # things of ours in the wrong place
    "Tensor": lambda: flux.Tensor(np.ones((2, 7))), "frozen Tensor": frozen,
    "[Tensor]": lambda: [flux.Tensor(np.ones(2))], "model": model,
    "Params": lambda: flux.params(model()), "Grads": foreign_gradients,
    "optimiser": lambda: flux.Momentum(0.1), "loader": lambda: flux.DataLoader(np.ones((3, 2))),
    # objects
    "fighter": Fighter, "mute": Mute, "mock": Unending, "liar": Liar,
}  # fmt: skip

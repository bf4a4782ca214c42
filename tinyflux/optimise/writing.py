"""An update as a list of NumPy calls, which is run as a whole or not at all.

If an exception came in the middle of an update, a moment would belong to one step and the parameter
to another. So the body of a rule is not run but written down, once, and a step runs the list by
`at_once`. (It is a little quicker, too.)

>>> g, u = np.array([1.0, 2.0]), np.empty(2)
>>> calls = written_down(lambda g, u, lr: np.multiply(g, lr, out=u), g, u, 0.5)
>>> calls == [(np.multiply, g, 0.5, u)] and u is calls[0][-1]
True
>>> from tinyflux.atomic import at_once
>>> at_once(calls)
>>> u
array([0.5, 1. ])
"""

from collections.abc import Callable
from functools import partial
from operator import setitem
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

# These want their output by name.
NAMED_OUT = (np.maximum, np.minimum)


class Written(NDArrayOperatorsMixin):
    """Stands for an array while a rule is written down: it notes what is done to it."""

    def __init__(self, array: Any, calls: list[tuple]) -> None:
        self.array, self.calls = array, calls

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, out: tuple = ()
    ) -> "Written":
        (target,) = out
        arrays = [plain(a) for a in inputs]
        if ufunc in NAMED_OUT:
            self.calls.append((partial(ufunc, out=target.array), *arrays))
        else:
            self.calls.append((ufunc, *arrays, target.array))
        return target

    def __array_function__(self, f: Callable, types: Any, args: tuple, kwargs: dict) -> None:
        # A line of Python in NumPy tells for whom such a function is: setitem does without.
        if f is not np.copyto or kwargs:
            raise TypeError(f"a rule that is written down calls np.{f.__name__}: use ufuncs")
        target, source = map(plain, args)
        self.calls.append((setitem, target, ..., source))


def plain(a: Any) -> Any:
    """What a `Written` stands for; anything else as it is."""
    return a.array if isinstance(a, Written) else a


def written_down(body: Callable, *args: Any) -> list[tuple]:
    """The NumPy calls of a function of arrays, which is not to branch on their values."""
    calls: list[tuple] = []
    body(*(Written(a, calls) for a in args))
    return calls


def in_one_pass(calls: list[tuple], work: list[Any]) -> list[tuple]:
    """Let BLAS do u = a * c, y += u (or y -= u) as y += c * a, where `work` u is not read again.

    That is what its axpy is for, but ger, for a matrix of one column, does the same and keeps to
    the thread that asks up to `groups.BLOCK` elements, where OpenBLAS's axpy does up to 10,000.
    Two threads would be hardly quicker, and wait for each other for milliseconds where something
    else runs on the machine.

    >>> x, u, c = np.ones(3), np.empty(3), np.array(0.5)
    >>> calls = in_one_pass([(np.multiply, x, c, u), (np.add, x, u, x)], [u])
    >>> [call[0].__name__ for call in calls]
    ['function dger']
    """
    from scipy.linalg import blas  # only large parameters need it, and it is slow to import

    ger = {"f": blas.sger, "d": blas.dger}
    found, rest = [], list(calls)
    while rest:
        one, two = rest[0], rest[1] if len(rest) > 1 else (None, None)
        fits = _fits(one, two) and two[1].dtype.char in ger
        if not fits or not _is_dead(one[-1], rest[2:], work):
            found.append(rest.pop(0))
            continue
        (_, a, c, _), (f, y, *_) = one, two
        sign, column = -1.0 if f is np.subtract else 1.0, y.reshape(1, -1).T
        found.append((ger[y.dtype.char], sign, a, c.reshape(1), 1, 1, column, 1, 1, 1))
        del rest[:2]
    return found


def _fits(one: tuple, two: tuple) -> bool:
    """Whether two calls are u = a * number and y += u, or y -= u."""
    if one[0] is not np.multiply or two[0] not in (np.add, np.subtract):
        return False
    (_, _, c, u), (_, y, added, out) = one, two
    return np.ndim(c) == 0 and y is out and added is u and u is not y


def _is_dead(u: Any, calls: list[tuple], work: list[Any]) -> bool:
    """Whether nothing reads a work array before it is written again."""
    if not any(u is w for w in work):
        return False
    for call in calls:
        inputs, output = ends_of(call)
        if any(a is u for a in inputs):
            return False
        if output is u:
            return True
    return True


def reads(calls: list[tuple], array: Any) -> bool:
    """Whether some call takes this array itself as an input."""
    return any(a is array for call in calls for a in ends_of(call)[0])


def ends_of(call: tuple) -> tuple[list[Any], Any]:
    """What a call reads, and what it writes to."""
    f, *args = call
    if isinstance(f, partial):
        return args, f.keywords["out"]
    return (args[2:], args[0]) if f is setitem else (args[:-1], args[-1])


def straight(body: Callable) -> Callable:
    """Mark the `delta` of a rule as one that may be written down.

    It consists of ufuncs with `out=`, of in-place operators and of `np.copyto`, and looks neither
    at a value nor at an attribute: its numbers all come from `constants`.

    Examples
    --------
    >>> import tinyflux as flux
    >>> flux.SGD.delta.straight
    True
    """
    body.straight = True  # type: ignore[attr-defined]
    return body


def is_straight(kind: type) -> bool:
    """Whether the `delta` of a rule may be written down."""
    return getattr(kind.delta, "straight", False)  # type: ignore[attr-defined]

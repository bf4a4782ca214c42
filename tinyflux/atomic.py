"""Several changes as one: all of them are made, or none, whatever exception comes, and when.

Between two lines of Python an exception may come at any time, such as the one of Ctrl-C. So what
belongs together is changed by one call into the interpreter, in which no Python runs.
"""

from collections import deque
from collections.abc import Iterable
from itertools import repeat, starmap
from operator import call, setitem
from typing import Any

consume = deque[object](maxlen=0).extend  # goes through an iterator and keeps nothing


def at_once(calls: Iterable[tuple]) -> None:
    """Run calls (function, *arguments) of C functions in order; no Python runs in between.

    ufuncs and methods are such; functions like np.copyto are not: their dispatch is in Python.
    """
    consume(starmap(call, calls))


def fill(targets: list[Any], sources: list[Any]) -> None:
    """Copy arrays into arrays, all of them or none."""
    at_once(zip(repeat(setitem), targets, repeat(...), sources))

"""Whether a function that was recorded again was written down as before.

What changed outside may be read by the rows alone, as a batch that is refilled in its place. Then
the program that is there is right, and need not be made again.
"""

import numpy as np

from ..tensor import Tensor
from .arguments import Same, written
from .kinds import PLAIN


class Content(Same):
    """A constant array, which counts by its values."""

    __slots__ = ()
    __hash__ = Same.__hash__

    def __eq__(self, other):
        a, b = self.thing, getattr(other, "thing", None)
        if a is b or not isinstance(b, np.ndarray) or a.dtype.hasobject:
            return a is b
        return (a.shape, a.dtype) == (b.shape, b.dtype) and a.tobytes() == b.tobytes()


def likeness(tape, seed, results, outside):
    """All that a program is made of, to be compared by ==.

    Parameters
    ----------
    tape : TracingTape
    seed : Tensor or None
    results : list
        The output, the gradients and what they are taken towards.
    outside : list of numpy.ndarray
        Arrays that others hold: the program reads them anew, so that they count by their place.
    """
    computed = [seed, *(t for t, _ in tape.arguments), *(row[4] for row in tape.rows)]
    told = Told({id(t): i for i, t in enumerate(computed)}, tape.constants, outside)
    rows = tape.rows
    return [*map(told.row, rows), rows.lines, rows.notes, rows.silenced, told.of(results)]


class Told:
    """How operands and parameters are told: what is computed by its number, constants by value."""

    def __init__(self, numbers, constants, outside):
        self.numbers, self.constants = numbers, constants
        self.outside = {id(a) for a in outside}

    def row(self, row):
        """One row; of operands that are no arrays, also the array that was made of them."""
        operation, operands, arrays, params, output, live = row
        given = [a for t, a in zip(operands, arrays) if type(t) is not Tensor and a is not t]
        parts = map(self.of, (operation, operands, given, params, live))
        return [*parts, np.shape(output._array), output.dtype]

    def of(self, thing):
        if type(thing) is Tensor:
            if id(thing) in self.numbers:
                return "row", self.numbers[id(thing)]
            leaf = id(thing) not in self.constants
            return (Same(thing), Same(thing._array)) if leaf else self.of(thing._array)
        if isinstance(thing, np.ndarray):
            owners = [a for a in (thing, thing.base) if id(a) in self.outside]
            if owners:
                face = thing.__array_interface__
                return Same(owners[0]), face["data"], face["typestr"], thing.shape, thing.strides
            return Content(thing)
        if isinstance(thing, (list, tuple)):
            return [type(thing), *map(self.of, thing)]
        if isinstance(thing, dict):
            return [type(thing), *map(self.of, thing.items())]
        if isinstance(thing, slice):
            return ["slice", self.of((thing.start, thing.stop, thing.step))]
        return (type(thing), written(thing)) if isinstance(thing, PLAIN) else Same(thing)

"""Recording everything: a tape for which every value counts, not only those that gradients flow to.

While a function is traced its arguments and all Tensors are tracked, so that whatever depends on
them becomes a row: comparisons, random draws and labels too. What would freeze a value that may be
different the next time (`if loss > 1:`, `float(t)`, a draw from `np.random`) is refused.
"""

import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

from ..errors import CannotCompileError
from ..primitive import Operation
from ..protocols import values
from ..tape import Tape, open_tape
from ..tensor import Tensor, recorded

HERE = str(Path(__file__).parents[1])
NUMPY = str(Path(np.__file__).parent)

# Results that follow from shapes and types alone are the same in every run.
BY_SHAPE = {
    *(np.shape, np.ndim, np.size, np.result_type, np.can_cast, np.iscomplexobj, np.isrealobj),
    *(np.zeros_like, np.ones_like, np.full_like, np.may_share_memory, np.shares_memory),
}
# The shape of these results depends on the values, so that no buffer can be prepared.
RAGGED = {
    *(np.nonzero, np.flatnonzero, np.argwhere, np.unique, np.histogram),
    *(np.array_repr, np.array_str, np.array2string),
}


class Everything(dict):
    """The sources of a tape that tracks every Tensor."""

    def __contains__(self, key):
        return True


class Rows(list):
    """Rows that remember the user's line from which they came, and in whose rule they were made."""

    def __init__(self):
        super().__init__()
        self.lines, self.notes = [], []
        self.rule = None  # (line, note) while the rule of a row is running

    def append(self, row):
        line, note = self.rule or (user_line(), "")
        self.lines.append(line)
        self.notes.append(note)
        super().append(row)


class TracingTape(Tape):
    """A tape that records all that is computed, and refuses what cannot be repeated."""

    tracing = True

    def __init__(self, training=True):
        super().__init__()
        self.training = training
        self.rows = Rows()
        self.sources = Everything()
        self.constants = {}  # id -> values that stand for constant arrays
        self.slopes = []  # pairs (gradient, of which value), to name them

    def tracks(self, t):
        return type(t) is Tensor

    def plain_call(self, function, args, kwargs):
        """Record a function without gradient."""
        if function in BY_SHAPE:
            return function(*values(args), **values(kwargs))
        name = function.__name__
        if function in RAGGED:
            raise refused(f"{name}, whose result has a shape that depends on the values")
        n = max((i + 1 for i, a in enumerate(args) if type(a) is Tensor), default=0)
        if any(type(v) is Tensor for v in kwargs.values()) or n == 0:
            raise refused(f"{name} with a recorded value inside a list or a keyword")
        if isinstance(function, np.ufunc):
            n = function.nin
        operation = without_rules(function, n)
        if len(args) > n:
            kwargs = {**dict(zip(operation.names[n:], args[n:], strict=False)), **kwargs}
        return operation(*args[:n], **kwargs)

    def going_back(self, operation, output, g):
        """The rule of a row begins: what it computes belongs to the line of that row."""
        place = next((k for k, row in enumerate(self.rows) if row[4] is output), None)
        line = "" if place is None else self.rows.lines[place]
        self.rows.rule = (line, f"rule of {operation.name}")
        if type(g) is Tensor:
            self.slopes.append((g, output))

    def lifted(self, operands):
        """Constant arrays as values too, for rules that call their methods."""
        return [self.constant(a) if isinstance(a, np.ndarray) else a for a in operands]

    def constant(self, array):
        """An array that is not computed here, as a value."""
        t = recorded(array, None)
        self.constants[id(t)] = t
        return t

    def draw(self, operation, params):
        """Record a random draw, made from numbers of its own while tracing."""
        sample = operation.kernel(**{**params, "rng": np.random.default_rng(0)})
        output = recorded(sample, self.mark)
        self.rows.append((operation, (), [], params, output, []))
        return output

    def detached(self, t):
        """Record that the gradient ends here."""
        return stopped(t)

    def read(self, t, how):
        """Refuse to read out a value that may be another one the next time."""
        raise refused(f"{how} of a value")


stopped = Operation("detach", lambda x: x, [None])


@cache
def without_rules(function, n):
    """A function without gradient as an operation of n operands."""
    return Operation(function, function, [None] * n)


def refused(what):
    return CannotCompileError(
        f"{user_line() or 'the function'}: {what} cannot be part of a compiled function, because "
        "it would stay as it is now. Use np.where or a product with a mask instead of a branch, "
        "or leave this part outside of compiled."
    )


def user_line():
    """`file.py:12` of the innermost frame that is neither ours nor NumPy's."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith((HERE, NUMPY)) and "importlib" not in name:
            return f"{Path(name).name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


class LoweringTape(TracingTape):
    """A tape for the inside of a kernel of ours, which may write into what it has just made."""

    def __init__(self):
        super().__init__()
        self.rebound = {}  # number of a row -> the Tensor that it overwrote with out=

    def write(self, ufunc, inputs, kwargs):
        """Record `ufunc(..., out=t)`: from here on `t` stands for the new value."""
        (out,) = kwargs.pop("out")
        result = ufunc(*inputs, **kwargs)
        if type(out) is not Tensor:
            raise refused(f"{ufunc.__name__} into an array")
        self.rebound[len(self.rows) - 1] = out
        out.data = result.data
        return out


@contextmanager
def recording_on(tape):
    """Everything in the block goes onto `tape`."""
    before = open_tape.get()
    open_tape.set(tape)
    try:
        yield tape
    finally:
        open_tape.set(before)
        tape.mark.open = False

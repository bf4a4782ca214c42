"""Recording everything: a tape for which every value counts, not only those that gradients flow to.

While a function is traced its arguments and all Tensors are tracked, so that whatever depends on
them becomes a row: comparisons, random draws and labels too. What would freeze a value that may be
different the next time (`if loss > 1:`, `float(t)`, a draw from `np.random`) is refused.
"""

import os
import sys
from contextvars import copy_context
from functools import cache
from pathlib import Path
from threading import get_ident

import numpy as np

from ..errors import CannotCompileError
from ..ops.state import Write
from ..primitive import Operation
from ..protocols import values
from ..tape import NOTHING, Tape, open_tape
from ..tensor import Tensor, wrapped

HERE = str(Path(__file__).parents[1])
NUMPY = str(Path(np.__file__).parent)
PYTHON = os.path.dirname(os.__file__)

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
# These read in an order that may be left to the memory of their operand.
ORDERED = {np.ravel, np.reshape}


class Everything(dict):
    """The sources of a tape that tracks every Tensor; `inner` while a gradient is taken in it."""

    inner = False

    def __contains__(self, key):
        return True

    def __or__(self, other):
        found = Everything()
        found.inner = True
        return found


class Rows(list):
    """Rows that remember the user's line from which they came, and in whose rule they were made.

    `silenced` says which floating-point errors are ignored (or raised) for a row, other than
    outside of the function: the body of a `with np.errstate(...)`.
    """

    def __init__(self, thread):
        super().__init__()
        self.lines, self.notes, self.silenced = [], [], []
        self.thread = thread  # that of the tape
        self.elsewhere = False  # whether another thread recorded one: nobody saw its code run
        self.rule = None  # (line, note) while the rule of a row is running
        self.outside = np.geterr()

    def append(self, row):
        operation, operands, arrays, *rest = row
        if operation.public in ORDERED and rest[0].get("order") in ("A", "K"):
            raise CannotCompileError(
                f"{user_line()}: {operation.name} with order={rest[0]['order']!r}, which goes by "
                "how its operand stands in memory, cannot be part of a compiled function, where "
                "that may be another way. Say order='C' or order='F'."
            )
        if any(isinstance(t, (list, tuple)) for t in operands):  # they count by their values
            pairs = zip(operands, arrays, strict=True)
            operands = tuple(a if isinstance(t, (list, tuple)) else t for t, a in pairs)
            row = (operation, operands, arrays, *rest)
        line, note = self.rule or (user_line(), "")
        now = np.geterr()
        self.elsewhere |= get_ident() != self.thread
        self.lines.append(line)
        self.notes.append(note)
        self.silenced.append({k: v for k, v in now.items() if v != self.outside[k]})
        super().append(row)


class TracingTape(Tape):
    """A tape that records all that is computed, and refuses what cannot be repeated."""

    tracing = True

    def __init__(self, training=True):
        super().__init__(NOTHING)
        self.trains = training
        self.rows = Rows(self.thread)
        self.sources = Everything()
        self.arguments = []  # pairs (value, name)
        self.constants = {}  # id -> values that stand for constant arrays
        self.slopes = []  # pairs (gradient, of which value), to name them
        self.lines = {}  # id of an output -> the user's line
        self.failure = None  # (operation, the user's line) where one raised

    @property
    def training(self):
        """Whether layers behave as in training: in a gradient that is taken here they do."""
        return self.trains or self.sources.inner

    def tracks(self, t):
        return type(t) is Tensor

    def leaves(self):
        """The leaf Tensors that the rows read, which nothing here computes."""
        made = {id(row[4]) for row in self.rows} | {id(t) for t, _ in self.arguments}
        made |= set(self.constants)
        found = {id(t): t for row in self.rows for t in row[1] if type(t) is Tensor}
        return [t for key, t in found.items() if key not in made]

    def plain_call(self, function, args, kwargs):
        """Record a function without gradient."""
        if function in BY_SHAPE:
            return function(*values(args), **values(kwargs))
        name = function.__name__
        if function in RAGGED:
            raise refused(f"{name}, whose result has a shape that depends on the values")
        n = max((i + 1 for i, a in enumerate(args) if type(a) is Tensor), default=0)
        if any(type(t) is Tensor for t in leaves((args[n:], kwargs))) or n == 0:
            raise refused(f"{name} with a recorded value inside a list or a keyword")
        if isinstance(function, np.ufunc):
            n = function.nin
        operation = without_rules(function, n)
        if len(args) > n:
            kwargs = {**dict(zip(operation.names[n:], args[n:], strict=False)), **kwargs}
        t = operation(*args[:n], **kwargs)
        t._array = np.asarray(t._array)[()]  # a flag of Python's has no type and no shape
        return t

    def going_back(self, operation, output, g):
        """The rule of a row begins: what it computes belongs to the line of that row."""
        rows = self.rows
        for row, line in zip(rows[len(self.lines) :], rows.lines[len(self.lines) :]):
            self.lines[id(row[4])] = line
        rows.rule = (self.lines.get(id(output), ""), f"rule of {operation.name}")
        if type(g) is Tensor:
            self.slopes.append((g, output))

    def lifted(self, operands):
        """Constant arrays as values too, for rules that call their methods."""
        return [self.constant(a) if isinstance(a, np.ndarray) else a for a in operands]

    def constant(self, array):
        """An array that is not computed here, as a value."""
        t = wrapped(array)
        self.constants[id(t)] = t
        return t

    def draw(self, operation, params):
        """Record a random draw, made from numbers of its own while tracing."""
        sample = operation.kernel(**{**params, "rng": np.random.default_rng(0)})
        output = wrapped(sample, self.mark)
        self.rows.append((operation, (), [], params, output, []))
        return output

    def note(self, operation, operands, arrays, params):
        """Record something that is done with a value, and from which none follows."""
        self.rows.append((operation, operands, list(arrays), params, wrapped(arrays[1]), []))

    def failed(self, operation):
        """Note that an operation raised: if the function goes on, it will always go on so."""
        self.failure = self.failure or (operation.name, user_line())

    def refuse_failed(self):
        """Refuse to go on behind an operation that raised."""
        if self.failure is not None:
            name, line = self.failure
            raise refused(f"going on where {name} raises", line)

    def refuse_read_and_written(self):
        """Refuse to read a buffer that is written to: which of its values would be seen?"""
        written = {id(row[1][0]) for row in self.rows if isinstance(row[0], Write)}
        for k, (operation, operands, _, params, *_) in enumerate(self.rows if written else ()):
            given = operands[1:] if isinstance(operation, Write) else operands
            if any(id(t) in written for t in leaves((given, params))):
                raise CannotCompileError(
                    f"{self.rows.lines[k] or 'the function'}: {operation.name} reads a buffer that "
                    "moving_average_ writes to in the same compiled function, where it would be "
                    "left open which of its values is meant. Do one of them outside of it."
                )

    def detached(self, t):
        """Record that the gradient ends here."""
        return stopped(t)

    def read(self, t, how):
        """Refuse to read out a value that may be another one the next time."""
        raise refused(f"{how} of a value")

    def refuse(self, what):
        """Refuse what has no fixed place in a program."""
        raise refused(what)


def leaves(tree):
    """Everything in nested tuples, lists, dicts and slices."""
    if isinstance(tree, slice):
        tree = (tree.start, tree.stop, tree.step)
    if isinstance(tree, dict):
        tree = tuple(tree.values())
    if not isinstance(tree, (tuple, list)):
        return [tree]
    return [leaf for part in tree for leaf in leaves(part)]


stopped = Operation("detach", lambda x: x, [None])


@cache
def without_rules(function, n):
    """A function without gradient as an operation of n operands."""
    return Operation(function, function, [None] * n)


REMEDIES = {  # by how the words for what is refused begin
    "bool(": "Use np.where or a product with a mask instead of a branch",
    "int(": "Write Tensor(a)[t] to look values up in an array",
    "a copy": "Write t.copy() for a copy",
    "x[mask]": "Use a product with the mask",
    "t.data": "Use the Tensor itself (also t.shape, t.dtype), or detach(t)",
    "np.asarray": "Use NumPy's functions on the value itself, Tensor(a)[t] to look up by it",
}


def refused(what, line=None):
    """The error for what every later call would find as it was when it was recorded."""
    line = line or user_line() or "the function"
    remedy = next((text + ", or leave" for k, text in REMEDIES.items() if what.startswith(k)), "")
    return CannotCompileError(
        f"{line}: {what} cannot be part of a compiled function, because every later call would "
        f"use what it is now. {remedy or 'Leave'} this part outside of compiled."
    )


def user_line():
    """`file.py:12` of the innermost frame that is neither ours nor NumPy's nor Python's."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if is_users(name):
            return f"{Path(name).name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""  # pragma: no cover - in a thread begun in C, which no tracer follows


@cache
def is_users(file):
    """Whether code of the user's, or of another package, stands in a file."""
    of_python = file.startswith(PYTHON) and "site-packages" not in file
    return not (file.startswith((HERE, NUMPY)) or of_python or "importlib" in file)


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
        out._array = result._array
        return out


def recorded_on(tape, f, *args, **kwargs):
    """What `f` returns; everything in it goes onto `tape`."""

    def run():
        open_tape.set(tape)
        return f(*args, **kwargs)

    try:  # a context is left for certain, whatever exception comes, and when
        return copy_context().run(run)
    finally:
        tape.mark.open = False

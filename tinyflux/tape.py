"""The tape: a flat list of what was computed, in the order in which it was computed.

Because a value can only be computed from values that are already there, this list is sorted by
construction: walking it backwards meets every operation after all that depend on it. So there is
no graph to sort, nothing recursive, and a million operations are freed as one list.

One row of the list is a tuple

    (operation, operands, arrays, params, output, live)

`operands` as they were passed (Tensors and plain values), `arrays` the same with every Tensor
replaced by its array, `params` the keyword arguments (axis, keepdims, ...), `output` the recorded
result, and `live` the positions of the operands that a gradient flows to.
"""

from collections import deque
from contextvars import ContextVar
from threading import get_ident

from .errors import out_refused
from .tensor import Mark, Tensor

# The tape that records in this thread and task, or None.
open_tape: ContextVar = ContextVar("open_tape", default=None)

# What a tape keeps of arrays that somebody else may write to: what one way back reads; what it
# reads if it is repeated or recorded; or nothing.
FOR_ONCE, FOR_GOOD, NOTHING = 0, 1, 2

CLOSED = Mark()  # what a tape has when it is closed: the mark of no value at all
CLOSED.open = False


def recording():
    """The tape that records here and now, or None.

    A task that was begun inside a gradient may outlive it, and finds the closed tape still set.
    """
    tape = open_tape.get()
    return tape if tape is not None and tape.mark.open else None


class Tape:
    """The rows recorded by one call of `gradient` or `pullback`, printable as a program.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> value, back = flux.pullback(lambda a, b: np.sin(a) * b, 1.0, 2.0)
    >>> print(back.tape)
    x1 = Tensor            () float64
    x2 = Tensor            () float64
    x3 = sin(x1)           () float64
    x4 = multiply(x3, x2)  () float64
    """

    __slots__ = ("keeps", "mark", "rows", "sources", "spare", "thread", "used")
    tracing = False  # True for the tape of `compiled`, on which everything counts
    training = True  # whether layers behave as in training; `compiled` also records their use

    def __init__(self, keeps=FOR_ONCE, spare=None):
        self.rows = []
        self.mark = Mark()
        self.sources = {}  # id -> leaf Tensor: the leaves that gradients are taken for
        self.keeps = keeps
        self.used = []  # the memory of copies, that comes from `spare`; see `borrowing.py`
        self.spare = deque() if spare is None else spare
        self.thread = get_ident()

    def __len__(self):
        return len(self.rows)

    def write(self, ufunc, inputs, kwargs):
        """What `out=` does while this tape records."""
        raise out_refused(ufunc.__name__)

    def give_back(self):
        """The memory of copies, for the next gradient."""
        self.spare.extend(self.used)
        self.used = []

    def close(self):
        """End the recording: from now on nothing is tracked."""
        mark, self.mark, self.sources = self.mark, CLOSED, {}
        mark.open = False

    def tracks(self, t):
        """Whether a gradient flows to `t` on this tape."""
        return type(t) is Tensor and (t.mark is self.mark or id(t) in self.sources)

    def __str__(self):
        names: dict[int, str] = {}
        lines = []

        def name(value):
            if type(value) is not Tensor:
                return in_short(value)
            if id(value) not in names:
                names[id(value)] = f"x{len(names) + 1}"
                lines.append((f"{names[id(value)]} = Tensor", value))
            return names[id(value)]

        made = {id(output) for *_, output, _ in self.rows}
        for _, operands, *_ in self.rows:
            for t in operands:
                if type(t) is Tensor and id(t) not in made:
                    name(t)
        for operation, operands, _, params, output, _ in self.rows:
            given = [name(t) for t in operands] + [f"{k}={in_short(v)}" for k, v in params.items()]
            names[id(output)] = f"x{len(names) + 1}"
            lines.append((f"{names[id(output)]} = {operation.name}({', '.join(given)})", output))
        width = max((len(text) for text, _ in lines), default=0)
        return "\n".join(f"{text:{width}}  {t.shape} {t.dtype}" for text, t in lines)


def in_short(value):
    """A plain value in a few characters: numbers as they are, arrays by their shape."""
    shape = getattr(value, "shape", None)
    if shape:
        return f"array{shape}"
    name = getattr(value, "__name__", None) or getattr(value, "name", None)
    return str(name) if name else str(value)

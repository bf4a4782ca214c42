"""A program: the rows of a tape as values and nodes, down to what NumPy itself computes.

Operations of ours are replaced by what their kernels do: the kernel runs once more on recorded
values, so that it writes down its own NumPy calls. Nothing about an operation is said twice.
"""

from contextvars import copy_context
from typing import NamedTuple

import numpy as np

from ..errors import FluxError
from ..ops.random import Event
from ..tensor import Tensor, wrapped
from .simpler import simpler
from .trace import LoweringTape, recorded_on


class Value:
    """Something that is computed or given: a name, a shape and a dtype.

    `node` computes it; without a node it is `given` ("argument", "parameter") or a constant.
    """

    __slots__ = ("const", "dtype", "given", "name", "node", "shape", "tensor")

    def __init__(self, data, name="", *, given=None, node=None, const=None, tensor=None):
        self.shape, self.dtype = np.shape(data), np.result_type(data)
        self.name, self.given, self.node = name, given, node
        self.const, self.tensor = const, tensor

    def __repr__(self):
        return self.name or repr(self.const)


class Origin(NamedTuple):
    """Where a row came from: the user's line, which rule made it, what is silenced there."""

    line: str = ""
    note: str = ""
    silenced: tuple = ()


class Node:
    """One NumPy call: an operation, its operands (Values), its parameters, its output."""

    __slots__ = ("operands", "operation", "origin", "output", "params")

    def __init__(self, operation, operands, params, origin):
        self.operation, self.operands, self.params = operation, operands, params
        self.origin, self.output = origin, None

    def __repr__(self):
        return f"{self.output} = {self.operation.name}({', '.join(map(repr, self.operands))})"


class Program:
    """Nodes in the order of execution, what goes in and what comes out.

    Parameters
    ----------
    names : dict
        id of a leaf Tensor -> what to call it.
    outside : set of int
        The ids of arrays that others hold and may change.

    Attributes
    ----------
    nodes : list of Node
    arguments : list of Value
        In the order of the call.
    parameters : list of Value
        The leaf Tensors that were met (`value.tensor`).
    results : list of Value or None
        The output first, then one gradient for each wanted Tensor.
    passes : list of (str, int)
        What was done to it, and how many nodes there were afterwards.
    seed : Value or None
        The gradient of an output that is an array: given when the way back begins.
    """

    def __init__(self, names, outside=frozenset()):
        self.nodes, self.arguments, self.parameters, self.results = [], [], [], []
        self.passes, self.seed = [], None
        self.names, self.outside = names, outside
        self.values = {}  # id of a Tensor -> Value
        self.numbers = {}  # how many values have the same kind of name
        self.lowering = []  # the operations whose kernels are being written down
        self.kept = []  # the Tensors, so that no id is used twice

    def argument(self, t, name):
        """Make a Tensor an argument."""
        self.bring(t, Value(t._array, name, given="argument"))
        self.arguments.append(self.values[id(t)])

    def bring(self, t, value):
        """From now on the Tensor `t` stands for `value`, which is returned."""
        self.values[id(t)] = value
        self.kept.append(t)
        return value

    def forget(self):
        """Let go of the Tensors that were recorded, and so of their arrays: all are Values now."""
        self.values, self.kept = {}, []

    def name_slopes(self, slopes):
        """Call the gradient of h1 d_h1."""
        for g, output in slopes:
            made, of = self.values.get(id(g)), self.values.get(id(output))
            if made is not None and of is not None and made.node is not None and of.name:
                made.name = made.name or f"d_{of.name}"

    def is_fixed(self, const):
        """Whether a constant is a number, which cannot be changed by anyone."""
        if not isinstance(const, np.ndarray):
            return isinstance(const, (int, float, np.generic))
        return not any(const.strides) and not self.is_theirs(const)

    def is_theirs(self, array):
        """Whether others hold an array, or what it is a view of, and may change it."""
        return id(array) in self.outside or id(array.base) in self.outside

    def value(self, t):
        """The Value of an operand."""
        if type(t) is not Tensor:
            return Value(t, const=t)
        if id(t) not in self.values:
            name = self.names.get(id(t), f"parameter_{len(self.parameters)}")
            self.bring(t, Value(t._array, name, given="parameter", tensor=t))
            self.parameters.append(self.values[id(t)])
        return self.values[id(t)]

    def add_tape(self, tape, around=None, name="", shape=()):
        """Append the rows of a tape.

        The tape of a kernel comes from `around` as a whole, and `name` is for its values of that
        `shape`.
        """
        for t in tape.constants.values():
            self.bring(t, Value(t._array, const=t._array))
        rebound = getattr(tape, "rebound", {})
        rows = tape.rows
        for k, (operation, operands, arrays, params, output, _) in enumerate(rows):
            given = [self.value(t) for t in operands]
            called = self.name_for(operation) if not rows.notes[k] else ""
            called = called or (name if np.shape(output._array) == shape else "")
            origin = Origin(rows.lines[k], rows.notes[k], tuple(rows.silenced[k].items()))
            if around is not None:
                silenced = {**dict(around.silenced), **rows.silenced[k]}
                origin = around._replace(silenced=tuple(silenced.items()))
            made = self.add(operation, given, arrays, params, output, origin, called)
            self.bring(output, made)
            if k in rebound:
                self.values[id(rebound[k])] = made

    def name_for(self, operation):
        """A name for the output of a row of the user's: h1, h2, ... for layers."""
        if operation.public is not operation:
            return ""
        kind = "h" if operation.name == "dense" else operation.name
        self.numbers[kind] = self.numbers.get(kind, 0) + 1
        return f"{kind}{self.numbers[kind]}"

    def add(self, operation, given, arrays, params, output, origin, name):
        """Append one operation, lowered to NumPy calls; returns the Value of its output."""
        origin = origin._replace(note=origin.note or operation.name)
        if operation.public is operation:
            ways = () if isinstance(operation, Event) else (operation.kernel, operation.body)
        else:
            ways = simpler(operation, params, arrays)
        if ways and operation not in self.lowering:
            made = self.lowered(operation, ways, given, arrays, params, origin, name)
            if made is not None and (made.shape, made.dtype) == (output.shape, output.dtype):
                return made
        node = Node(operation, given, params, origin)
        node.output = Value(output._array, name, node=node)
        self.nodes.append(node)
        return node.output

    def lowered(self, operation, ways, given, arrays, params, origin, name):
        """The Value of an operation after writing down one way to do it; None if none can be."""
        for function in ways:
            inside = [
                wrapped(a) if v.const is None or isinstance(a, np.ndarray) else a
                for v, a in zip(given, arrays)
            ]
            try:
                tape, out = copy_context().run(on_its_own_tape, function, inside, params)
                if type(out) is Tensor:  # anything else does not depend on the operands any more
                    break
            except (FluxError, TypeError, AttributeError, ValueError, RecursionError):
                continue
        else:
            return None
        for t, v in zip(inside, given):
            if type(t) is Tensor:
                self.bring(t, v)
        self.lowering.append(operation)
        self.add_tape(tape, origin, name, np.shape(getattr(out, "_array", out)))
        self.lowering.pop()
        return self.value(out)


def on_its_own_tape(function, operands, params):
    """(tape, result) of a kernel, under settings that are nobody's: what it silences is seen."""
    np.seterr(all="call")
    np.seterrcall(lambda *_: None)
    tape = LoweringTape()
    return tape, recorded_on(tape, function, *operands, **params)

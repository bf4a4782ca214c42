"""A program: the rows of a tape as values and nodes, down to what NumPy itself computes.

Operations of ours are replaced by what their kernels do: the kernel runs once more on recorded
values, so that it writes down its own NumPy calls. Nothing about an operation is said twice.
"""

import numpy as np

from ..errors import FluxError
from ..tensor import Tensor, recorded
from .trace import LoweringTape, recording_on


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


class Node:
    """One NumPy call: an operation, its operands (Values), its parameters, its output."""

    __slots__ = ("line", "note", "operands", "operation", "output", "params")

    def __init__(self, operation, operands, params, line, note):
        self.operation, self.operands, self.params = operation, operands, params
        self.line, self.note, self.output = line, note, None

    def __repr__(self):
        return f"{self.output} = {self.operation.name}({', '.join(map(repr, self.operands))})"


class Program:
    """Nodes in the order of execution, what goes in and what comes out.

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
    """

    def __init__(self, names):
        self.nodes, self.arguments, self.parameters, self.results = [], [], [], []
        self.passes = []
        self.names = names  # id of a leaf Tensor -> what to call it
        self.values = {}  # id of a Tensor -> Value
        self.numbers = {}  # how many values have the same kind of name
        self.lowering = []  # the operations whose kernels are being written down
        self.kept = []  # the Tensors, so that no id is used twice

    def argument(self, t, name):
        """Make a Tensor an argument."""
        self.values[id(t)] = value = Value(t.data, name, given="argument")
        self.arguments.append(value)
        self.kept.append(t)

    def name_slopes(self, slopes):
        """Call the gradient of h1 d_h1."""
        for g, output in slopes:
            made, of = self.values.get(id(g)), self.values.get(id(output))
            if made is not None and of is not None and made.node is not None and of.name:
                made.name = made.name or f"d_{of.name}"

    def value(self, t):
        """The Value of an operand."""
        if type(t) is not Tensor:
            return Value(t, const=t)
        if id(t) not in self.values:
            name = self.names.get(id(t), f"parameter_{len(self.parameters)}")
            self.values[id(t)] = Value(t.data, name, given="parameter", tensor=t)
            self.parameters.append(self.values[id(t)])
            self.kept.append(t)
        return self.values[id(t)]

    def add_tape(self, tape, note="", name="", shape=()):
        """Append the rows of a tape; `name` is for its values of that `shape`."""
        for t in tape.constants.values():
            self.values[id(t)] = Value(t.data, const=t.data)
            self.kept.append(t)
        rebound = getattr(tape, "rebound", {})
        for k, (operation, operands, arrays, params, output, _) in enumerate(tape.rows):
            given = [self.value(t) for t in operands]
            line, own = tape.rows.lines[k], note or tape.rows.notes[k]
            called = self.name_for(operation) if not tape.rows.notes[k] else ""
            called = called or (name if np.shape(output.data) == shape else "")
            made = self.add(operation, given, arrays, params, output, line, own, called)
            self.values[id(output)] = made
            if k in rebound:
                self.values[id(rebound[k])] = made
            self.kept.append(output)

    def name_for(self, operation):
        """A name for the output of a row of the user's: h1, h2, ... for layers."""
        if operation.public is not operation:
            return ""
        kind = "h" if operation.name == "dense" else operation.name
        self.numbers[kind] = self.numbers.get(kind, 0) + 1
        return f"{kind}{self.numbers[kind]}"

    def add(self, operation, given, arrays, params, output, line, note, name):
        """Append one operation, lowered to NumPy calls; returns the Value of its output."""
        if operation.public is operation and operation not in self.lowering:
            made = self.lowered(operation, given, arrays, params, line, note, name)
            if made is not None:
                return made
        node = Node(operation, given, params, line, note or operation.name)
        node.output = Value(output.data, name, node=node)
        self.nodes.append(node)
        return node.output

    def lowered(self, operation, given, arrays, params, line, note, name):
        """The Value of an operation of ours after writing down what it does; None if it cannot."""
        for function in (operation.kernel, operation.body):
            tape = LoweringTape()
            inside = [
                recorded(a, None) if v.const is None or isinstance(a, np.ndarray) else a
                for v, a in zip(given, arrays)
            ]
            try:
                with recording_on(tape), np.errstate(all="ignore"):
                    out = function(*inside, **params)
                break
            except (FluxError, TypeError, AttributeError, ValueError, RecursionError):
                continue
        else:
            return None
        tape.rows.lines = [line] * len(tape.rows)
        tape.rows.notes = [note or operation.name] * len(tape.rows)
        for t, v in zip(inside, given):
            if type(t) is Tensor:
                self.values[id(t)] = v
                self.kept.append(t)
        self.lowering.append(operation)
        self.add_tape(tape, note or operation.name, name, np.shape(getattr(out, "data", out)))
        self.lowering.pop()
        return self.value(out)

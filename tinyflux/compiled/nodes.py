"""Questions about nodes: which function, a view, a draw? And one Value in the place of another."""

import numpy as np

from ..ops.index import is_basic
from ..ops.random import Draw, Event

VIEWS = {np.reshape, np.transpose, np.swapaxes, np.moveaxis, np.expand_dims, np.squeeze, np.ravel,
         np.broadcast_to, np.flip, np.fliplr, np.flipud, np.diagonal, np.rot90, np.matrix_transpose,
         np.linalg.matrix_transpose}  # fmt: skip


def function_of(node):
    """The NumPy function of a node, or the name of an operation of ours."""
    public = node.operation.public
    return node.operation.name if public is node.operation else public


def is_view(node):
    """Whether the output of a node is (normally) a view of its operand."""
    f = function_of(node)
    return f in VIEWS or (f == "getitem" and is_basic(node.params["index"]))


def is_elementwise(node):
    """Whether the output may be written over an operand of the same shape."""
    f = function_of(node)
    return f == "cleared" or (isinstance(f, np.ufunc) and f.signature is None)


def is_draw(node):
    """Whether a node draws random numbers, so that two are never the same."""
    return isinstance(node.operation, Draw)


def is_event(node):
    """Whether a node does more than compute: a draw, or a write to the state of a model."""
    return isinstance(node.operation, Event)


def replace_values(program, new):
    """Put `new[v]` in the place of every Value v, everywhere."""

    def resolve(v):
        while v in new:
            v = new[v]
        return v

    for node in program.nodes:
        node.operands = [resolve(v) for v in node.operands]
    program.results = [None if v is None else resolve(v) for v in program.results]


def is_number(const):
    """Whether an operand is a plain number."""
    return isinstance(const, (int, float, np.generic)) and not isinstance(const, (bool, np.bool_))

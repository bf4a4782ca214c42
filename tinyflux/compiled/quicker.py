"""Passes that write down the same in a form that NumPy runs faster."""

import math

import numpy as np

from ..ops.nn import beside, is_tall, ones
from ..primitive import OPERATIONS
from .nodes import function_of, is_number
from .program import Node, Value


def sum_by_product(program):
    """Sum the rows or columns of a matrix as a product with ones, which BLAS does faster."""
    kept = []
    for node in program.nodes:
        if is_along_matrix(node, {np.sum}) and node.operands[0].dtype.char in "fd":
            first = node.params["axis"] in (0, (0,))
            (x,) = node.operands
            vector = ones(x.shape[0 if first else 1], x.dtype.char)
            weights = Value(vector, const=vector)
            operands = [weights, x] if first else [x, weights]
            kept += in_its_place(node, Node(OPERATIONS[np.matmul], operands, {}, node.origin))
        else:
            kept.append(node)
    program.nodes = kept


def one_term(program):
    """A product with a single number in it is a multiplication, or nothing if that number is 1.

    Such are the products of one observation with one feature, and the sums over a batch of one. To
    multiply is also safer: the product of BLAS takes 0 times nan for 0.
    """
    kept = []
    for node in program.nodes:
        x, single = node.operands if function_of(node) is np.matmul else (None, None)
        if x is None or 1 not in (math.prod(x.shape), math.prod(single.shape)):
            kept.append(node)
            continue
        if math.prod(single.shape) != 1:
            x, single = single, x
        if single.const is ones(1, x.dtype.char) and x.const is None:  # made once: the same array
            node.operation, node.operands = OPERATIONS[np.reshape], [x]
            node.params = {node.operation.names[1]: node.output.shape}
        else:
            operands = [
                in_shape(x, node.output.shape, node, kept),
                in_shape(single, (), node, kept),
            ]
            node.operation, node.operands = OPERATIONS[np.multiply], operands
        kept.append(node)
    program.nodes = kept


def in_shape(value, shape, node, kept):
    """A Value in another shape: itself, or a view that is added to the nodes `kept`."""
    if value.shape == shape:
        return value
    reshape = OPERATIONS[np.reshape]
    kept.append(made(reshape, value, {reshape.names[1]: shape}, shape, value.dtype, node.origin))
    return kept[-1].output


def made(operation, operand, params, shape, dtype, origin):
    """A new node of one operand, with an output of this shape and type."""
    node = Node(operation, [operand], params, origin)
    node.output = Value(np.empty(shape, dtype), node=node)
    return node


def max_by_columns(program):
    """Compare short rows turned on their side: NumPy then takes them all at once."""
    kept = []
    for node in program.nodes:
        extremes = {np.max, np.amax, np.min, np.amin}
        if is_along_matrix(node, extremes) and node.params["axis"] not in (0, (0,)):
            (x,) = node.operands
            if is_tall(x.shape):
                like, params = (x.shape[::-1], x.dtype, node.origin), {"dtype": x.dtype}
                turned = made(OPERATIONS[np.transpose], x, {}, *like)
                copy = made(OPERATIONS["cast"], turned.output, params, *like)
                top = Node(node.operation, [copy.output], {"axis": 0}, node.origin)
                kept += [turned, copy, *in_its_place(node, top)]
                continue
        kept.append(node)
    program.nodes = kept


def float_masks(program):
    """Turn a comparison into numbers before it is multiplied: NumPy then need not convert."""
    kept = []
    for node in program.nodes:
        floats = node.output.dtype.char in "fd" and function_of(node) is np.multiply
        for i, v in enumerate(node.operands if floats else ()):
            other = node.operands[1 - i]
            if v.dtype == bool and v.shape == node.output.shape and other.dtype != bool:
                dtype = node.output.dtype
                mask = made(OPERATIONS["cast"], v, {"dtype": dtype}, v.shape, dtype, node.origin)
                mask.output.name = "mask"
                node.operands[i] = mask.output
                kept.append(mask)
        kept.append(node)
    program.nodes = kept


def spread_bounds(program):
    """Compare with an array of equal numbers instead of one: NumPy does so twice as fast."""
    made_once = {}
    for node in program.nodes:
        out = node.output
        if function_of(node) not in {np.maximum, np.minimum} or out.dtype.char not in "fd":
            continue
        for i, v in enumerate(node.operands):
            shape = beside(out.shape, out.dtype.itemsize)
            if is_number(v.const) and node.operands[1 - i].dtype == out.dtype and shape:
                key = shape, out.dtype, repr(v.const)
                if key not in made_once:
                    array = np.full(shape, v.const, out.dtype)
                    array.flags.writeable = False
                    made_once[key] = Value(array, const=array)
                node.operands[i] = made_once[key]


def is_along_matrix(node, functions):
    """Whether a node reduces a matrix over one of its two axes by one of the functions."""
    if function_of(node) not in functions or set(node.params) - {"axis", "keepdims"}:
        return False
    (x,) = node.operands
    one = node.params.get("axis") in (0, (0,), 1, -1, (1,), (-1,))
    return one and len(x.shape) == 2 and x.const is None


def in_its_place(node, reduced):
    """The nodes that give what `node` gave, from `reduced`, which lacks the axis."""
    x, output = node.operands[0], node.output
    if not node.params.get("keepdims"):
        reduced.output, output.node = output, reduced
        return [reduced]
    length = x.shape[1 if node.params["axis"] in (0, (0,)) else 0]
    reduced.output = Value(np.empty(length, output.dtype), node=reduced)
    node.operation, node.operands = OPERATIONS[np.reshape], [reduced.output]
    node.params = {OPERATIONS[np.reshape].names[1]: output.shape}
    return [reduced, node]  # the axis of one element is only a view

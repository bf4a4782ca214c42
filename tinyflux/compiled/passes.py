"""Passes: each makes the list of nodes shorter or cheaper, with the same results.

A pass is a function of the program that changes `program.nodes` (and the values in them). They run
in the order of `PASSES`.
"""

import math

import numpy as np

from ..ops.index import is_basic
from ..ops.nn import is_tall, ones
from ..ops.random import Draw, Event
from ..primitive import OPERATIONS
from .program import Node, Value

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


def replace_values(program, new):
    """Put `new[v]` in the place of every Value v, everywhere."""

    def resolve(v):
        while v in new:
            v = new[v]
        return v

    for node in program.nodes:
        node.operands = [resolve(v) for v in node.operands]
    program.results = [None if v is None else resolve(v) for v in program.results]


def prune(program):
    """Leave out what no result depends on; draws stay, so that the next one draws the same.

    What writes to the state of a model stays too.
    """
    wanted = set(program.results)
    kept = []
    for node in reversed(program.nodes):
        if node.output in wanted or is_event(node):
            wanted.update(node.operands)
            kept.append(node)
    program.nodes = kept[::-1]


def unalias(program):
    """Leave out rows that only give their operand another name."""
    new = {}
    for node in program.nodes:
        f, (x, *_) = function_of(node), node.operands or [None]
        if f in ("alias", "detach") or (f == "cast" and x.dtype == node.output.dtype):
            new[node.output] = x
    program.nodes = [node for node in program.nodes if node.output not in new]
    replace_values(program, new)


def share(program):
    """Compute equal rows once."""
    seen, new, kept = {}, {}, []
    for node in program.nodes:
        node.operands = [new.get(v, v) for v in node.operands]
        key = (node.operation, tuple(map(identity, node.operands)), spelled(node.params))
        if is_event(node) or key not in seen:
            seen[key] = node.output
            kept.append(node)
        else:
            new[node.output] = seen[key]
    program.nodes = kept
    replace_values(program, new)


def is_draw(node):
    """Whether a node draws random numbers, so that two are never the same."""
    return isinstance(node.operation, Draw)


def is_event(node):
    """Whether a node does more than compute: a draw, or a write to the state of a model."""
    return isinstance(node.operation, Event)


def identity(value):
    """What makes two operands the same."""
    return value if value.const is None else spelled(value.const)


def spelled(param):
    """A parameter as something that can be compared; arrays and objects count by identity."""
    if isinstance(param, dict):
        return tuple((k, spelled(v)) for k, v in param.items())
    if isinstance(param, (tuple, list)):
        return type(param), tuple(map(spelled, param))
    if isinstance(param, slice):
        return slice, spelled(param.start), spelled(param.stop), spelled(param.step)
    if isinstance(param, (bool, int, float, str, type(None), np.generic, np.dtype)):
        return type(param), repr(param)
    return id(param)


def fold(program):
    """Compute what depends on numbers alone now."""
    new, kept = {}, []
    for node in program.nodes:
        node.operands = [new.get(v, v) for v in node.operands]
        constant = all(v.const is not None and program.is_fixed(v.const) for v in node.operands)
        if constant and node.operands and not is_event(node):
            with np.errstate(all="ignore"):
                result = node.operation.kernel(*[v.const for v in node.operands], **node.params)
            new[node.output] = Value(result, const=result)
        else:
            kept.append(node)
    program.nodes = kept
    replace_values(program, new)


def unspread(program):
    """Use a number itself where it was spread out to the shape of the other operand."""
    for node in program.nodes:
        if is_elementwise(node):
            for i, v in enumerate(node.operands):
                others = [u.shape for k, u in enumerate(node.operands) if k != i]
                inner = unspread_value(program, v)
                if others and inner is not None:
                    if np.broadcast_shapes(inner.shape, *others) == node.output.shape:
                        node.operands[i] = inner


def unspread_value(program, v):
    """What a Value was spread out from, or None."""
    if v.node is not None and function_of(v.node) is np.broadcast_to:
        return v.node.operands[0]
    array = v.const if isinstance(v.const, np.ndarray) and v.shape else None
    if array is not None and array.size and not any(array.strides) and program.is_fixed(array):
        return number(array[(0,) * array.ndim])
    return None


def number(x):
    """A NumPy scalar as a constant Value."""
    return Value(x, const=x)


def times_one(program):
    """Leave out products with 1, and quotients by 1."""
    new = {}
    for node in program.nodes:
        node.operands = [new.get(v, v) for v in node.operands]
        value, factor = scaling(node) or (None, 0)
        if factor == 1 and value.dtype == node.output.dtype:
            new[node.output] = value
    program.nodes = [node for node in program.nodes if node.output not in new]
    replace_values(program, new)


def scale_once(program):
    """Multiply with one number instead of with two: (x * a) * b is x * (a b).

    Only where one of them is a power of 2, so that no bit of the result changes, unless a number
    leaves the range of its type on the way.
    """
    uses = count_uses(program)
    for node in program.nodes:
        inner = scaling(node)
        before = None if inner is None else scaling(inner[0].node)
        if before is not None and uses[inner[0]] == 1 and before[0].dtype == node.output.dtype:
            a, b = float(before[1]), float(inner[1])
            product = node.output.dtype.type(a * b)
            normal = np.finfo(product.dtype).tiny <= abs(product) < np.inf
            if 0.5 in (abs(math.frexp(a)[0]), abs(math.frexp(b)[0])) and normal:
                node.operation = OPERATIONS[np.multiply]
                node.operands = [before[0], number(product)]


def scaling(node):
    """(operand, factor) if a node multiplies an array with a constant number, else None.

    A division by a power of 2 is such a product, to the last bit.
    """
    if node is None or node.output.dtype.char not in "fd":
        return None
    f, (value, *others) = function_of(node), node.operands or [None]
    factor = factor_of(others[0]) if f in (np.multiply, np.divide) else None
    if f is np.multiply and factor is None:
        value, factor = others[0], factor_of(value)
    if factor is None or value.const is not None or value.shape != node.output.shape:
        return None
    if f is np.divide:
        if abs(math.frexp(factor)[0]) != 0.5:
            return None
        factor = 1 / factor
    return value, node.output.dtype.type(factor)


def factor_of(value):
    """The number that a Value is, or None."""
    const = value.const
    is_number = isinstance(const, (int, float, np.generic))
    return float(const) if is_number and not isinstance(const, (bool, np.bool_)) else None


def count_uses(program):
    """How often each Value is read."""
    uses = dict.fromkeys([v for v in program.results if v is not None], 1)
    for node in program.nodes:
        for v in node.operands:
            uses[v] = uses.get(v, 0) + 1
    return uses


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
        x, one = node.operands if function_of(node) is np.matmul else (None, None)
        if x is None or 1 not in (math.prod(x.shape), math.prod(one.shape)):
            kept.append(node)
            continue
        if math.prod(one.shape) != 1:
            x, one = one, x
        shaped = in_shape(x, node.output.shape, node, kept)
        if one.const is ones(1, x.dtype.char) and x.const is None:
            node.operation, node.operands = OPERATIONS[np.reshape], [x]
            node.params = {node.operation.names[1]: node.output.shape}
        else:
            node.operation = OPERATIONS[np.multiply]
            node.operands = [shaped, in_shape(one, (), node, kept)]
        kept.append(node)
    program.nodes = kept


def in_shape(value, shape, node, kept):
    """A Value in another shape: itself, or a view that is added to the nodes `kept`."""
    if value.shape == shape:
        return value
    reshape = OPERATIONS[np.reshape]
    view = Node(reshape, [value], {reshape.names[1]: shape}, node.origin)
    view.output = Value(np.empty(shape, value.dtype), node=view)
    kept.append(view)
    return view.output


def float_masks(program):
    """Turn a comparison into numbers before it is multiplied: NumPy then need not convert."""
    kept = []
    for node in program.nodes:
        floats = node.output.dtype.char in "fd" and function_of(node) is np.multiply
        for i, v in enumerate(node.operands if floats else ()):
            other = node.operands[1 - i]
            if v.dtype == bool and v.shape == node.output.shape and other.dtype != bool:
                params = {"dtype": node.output.dtype}
                mask = Node(OPERATIONS["cast"], [v], params, node.origin)
                mask.output = Value(np.empty(v.shape, node.output.dtype), node=mask)
                mask.output.name = "mask"
                node.operands[i] = mask.output
                kept.append(mask)
        kept.append(node)
    program.nodes = kept


def max_by_columns(program):
    """Compare short rows turned on their side: NumPy then takes them all at once."""
    kept = []
    for node in program.nodes:
        extremes = {np.max, np.amax, np.min, np.amin}
        if is_along_matrix(node, extremes) and node.params["axis"] not in (0, (0,)):
            (x,) = node.operands
            if is_tall(x.shape):
                turned = Node(OPERATIONS[np.transpose], [x], {}, node.origin)
                turned.output = Value(np.empty(x.shape[::-1], x.dtype), node=turned)
                params = {"dtype": x.dtype}
                copy = Node(OPERATIONS["cast"], [turned.output], params, node.origin)
                copy.output = Value(np.empty(x.shape[::-1], x.dtype), node=copy)
                top = Node(node.operation, [copy.output], {"axis": 0}, node.origin)
                kept += [turned, copy, *in_its_place(node, top)]
                continue
        kept.append(node)
    program.nodes = kept


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


PASSES = [prune, unalias, fold, share, unspread, times_one, fold, scale_once, sum_by_product,
          one_term, max_by_columns, float_masks, share, prune]  # fmt: skip


def run_passes(program):
    """All passes in order; `program.passes` says what each did."""
    program.passes.append(("recorded", len(program.nodes)))
    for one in PASSES:
        one(program)
        program.passes.append((one.__name__, len(program.nodes)))

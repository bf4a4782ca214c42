"""Passes: each takes a list of nodes and returns a shorter or a cheaper one, with the same results.

A pass is a function of the program that changes `program.nodes` (and the values in them). They run
in the order of `PASSES`.
"""

import numpy as np

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
    return function_of(node) in VIEWS or (
        node.operation.name in ("getitem", "alias", "detach")
        and basic(node.params.get("index", ()))
    )


def basic(index):
    """Whether an index makes a view."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(isinstance(i, (int, slice, type(None), type(...), np.integer)) for i in parts)


def is_elementwise(node):
    """Whether the output may be written over an operand of the same shape."""
    return isinstance(function_of(node), np.ufunc) and function_of(node).signature is None


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
    """Leave out what no result depends on."""
    wanted = set(program.results)
    kept = []
    for node in reversed(program.nodes):
        if node.output in wanted:
            wanted.update(node.operands)
            kept.append(node)
    program.nodes = kept[::-1]


def share(program):
    """Compute equal rows once."""
    seen, new = {}, {}
    kept = []
    for node in program.nodes:
        node.operands = [new.get(v, v) for v in node.operands]
        key = None
        if not is_draw(node):
            key = (id(node.operation), tuple(map(identity, node.operands)), spelled(node.params))
        if key is not None and key in seen:
            new[node.output] = seen[key]
        else:
            seen[key] = node.output
            kept.append(node)
    program.nodes = kept
    replace_values(program, new)


def is_draw(node):
    """Whether a node draws random numbers, so that two are never the same."""
    return hasattr(node.operation, "draws")


def identity(value):
    """What makes two operands the same."""
    if value.const is None:
        return id(value)
    small = isinstance(value.const, (int, float, bool, np.generic))
    return (type(value.const), repr(value.const)) if small else ("array", id(value.const))


def spelled(params):
    """Parameters as text, arrays by identity."""
    return repr({k: (id(v) if isinstance(v, np.ndarray) else v) for k, v in params.items()})


def fold(program):
    """Compute what depends on constants alone now."""
    new, kept = {}, []
    for node in program.nodes:
        node.operands = [new.get(v, v) for v in node.operands]
        constant = all(v.const is not None and small(v.const) for v in node.operands)
        if constant and node.operands and not is_draw(node):
            with np.errstate(all="ignore"):
                result = node.operation.kernel(*[v.const for v in node.operands], **node.params)
            new[node.output] = Value(result, const=result)
        else:
            kept.append(node)
    program.nodes = kept
    replace_values(program, new)


def small(const):
    """Whether a constant is a number, which cannot be changed by anyone."""
    return isinstance(const, (int, float, bool, np.generic)) or (
        isinstance(const, np.ndarray) and (const.ndim == 0 or not any(const.strides))
    )


def unspread(program):
    """Use a number itself where it was spread out to the shape of the other operand."""
    for node in program.nodes:
        if is_elementwise(node):
            for i, v in enumerate(node.operands):
                spread = v.const if isinstance(v.const, np.ndarray) else None
                if spread is not None and spread.ndim and not any(spread.strides) and spread.size:
                    other = [u.shape for k, u in enumerate(node.operands) if k != i]
                    if np.broadcast_shapes(*other) == node.output.shape and other:
                        node.operands[i] = number(spread[(0,) * spread.ndim])
                elif v.node is not None and function_of(v.node) is np.broadcast_to:
                    inner = v.node.operands[0]
                    other = [u.shape for k, u in enumerate(node.operands) if k != i]
                    if other and np.broadcast_shapes(inner.shape, *other) == node.output.shape:
                        node.operands[i] = inner


def number(x):
    """A NumPy scalar as a constant Value."""
    return Value(x, const=x)


def scale_once(program):
    """Multiply with one number instead of with two: (x * a) * b is x * (a b)."""
    uses = count_uses(program)
    for node in program.nodes:
        inner = scaling(node)
        if inner is None or inner[0].node is None:
            continue
        value, factor = inner
        before = scaling(value.node)
        if before is not None and uses[value] == 1 and before[0].dtype == node.output.dtype:
            product = np.asarray(factor * before[1]).astype(node.output.dtype)[()]
            node.operands = [before[0], number(product)]


def scaling(node):
    """(operand, factor) if a node multiplies an array with a constant number, else None."""
    if node is None or function_of(node) is not np.multiply:
        return None
    for value, other in (node.operands, node.operands[::-1]):
        number = isinstance(other.const, (int, float, np.generic)) and not isinstance(
            other.const, bool
        )
        if number and value.const is None and value.shape == node.output.shape:
            return value, other.const
    return None


def count_uses(program):
    """How often each Value is read."""
    uses = dict.fromkeys([v for v in program.results if v is not None], 1)
    for node in program.nodes:
        for v in node.operands:
            uses[v] = uses.get(v, 0) + 1
    return uses


def sum_by_product(program):
    """Sum the rows of a matrix as a product with ones, which BLAS does faster."""
    for node in program.nodes:
        x = node.operands[0] if node.operands else None
        if function_of(node) is not np.sum or len(x.shape) != 2 or x.dtype.char not in "fd":
            continue
        axis, other = node.params.get("axis"), set(node.params) - {"axis", "keepdims"}
        if other or axis not in (0, (0,), 1, -1, (1,)) or node.params.get("keepdims"):
            continue
        first = axis in (0, (0,))
        vector = np.ones(x.shape[0 if first else 1], x.dtype)
        ones = Value(vector, const=vector)
        node.operation, node.params = OPERATIONS[np.matmul], {}
        node.operands = [ones, x] if first else [x, ones]


PASSES = [prune, fold, share, unspread, fold, scale_once, sum_by_product, share, prune]


def run_passes(program):
    """All passes in order; `program.passes` says what each did."""
    program.passes.append(("recorded", len(program.nodes)))
    for one in PASSES:
        one(program)
        program.passes.append((one.__name__, len(program.nodes)))


__all__ = ["PASSES", "Node", "run_passes"]

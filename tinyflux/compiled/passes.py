"""Passes: each makes the list of nodes shorter or cheaper, with the same results.

A pass is a function of the program that changes `program.nodes` (and the values in them). They run
in the order of `PASSES`. Here are those that simplify; `quicker.py` has those that choose a form.
"""

import math

import numpy as np

from ..primitive import OPERATIONS
from .nodes import function_of, is_elementwise, is_event, is_number, replace_values
from .program import Value
from .quicker import float_masks, max_by_columns, one_term, spread_bounds, sum_by_product
from .trace import leaves


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
        given = [a for a in leaves(node.params) if isinstance(a, np.ndarray)]  # an index, say
        constant = constant and not any(map(program.is_theirs, given))
        if constant and node.operands and not is_event(node):
            with np.errstate(all="ignore"):
                result = node.operation.kernel(*[v.const for v in node.operands], **node.params)
            new[node.output] = Value(result, const=result)
        else:
            kept.append(node)
    program.nodes = kept
    replace_values(program, new)


def unspread(program):
    """Use a value itself where it was spread out to the shape of the other operand."""
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
    return float(value.const) if is_number(value.const) else None


def count_uses(program):
    """How often each Value is read."""
    uses = dict.fromkeys([v for v in program.results if v is not None], 1)
    for node in program.nodes:
        for v in node.operands:
            uses[v] = uses.get(v, 0) + 1
    return uses


PASSES = [prune, unalias, fold, share, unspread, times_one, fold, scale_once, sum_by_product,
          one_term, max_by_columns, float_masks, share, prune,
          spread_bounds]  # fmt: skip


def run_passes(program):
    """All passes in order; `program.passes` says what each did."""
    program.passes.append(("recorded", len(program.nodes)))
    for one in PASSES:
        one(program)
        program.passes.append((one.__name__, len(program.nodes)))

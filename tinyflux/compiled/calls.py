"""How a node is spelled: the text of one NumPy call, with `{out}` where its output goes.

`s` is the `Source` that the text becomes part of: it gives names to values and constants. A
spelling is one text, or a list of them where it takes several lines.
"""

import math

import numpy as np

from ..ops.index import HOLE, is_basic
from .memory import REDUCTIONS, is_reduction
from .nodes import function_of, is_number

# These want their output by name; the others take it as the last argument, which is quicker.
NAMED_OUT = {np.maximum, np.minimum, np.fmax, np.fmin}

# Bytes from which on `matmul` is quicker than the method `dot`, which fills the output with zeros
# first, but takes less to call.
LARGE = 1 << 16

# Between numbers these are seven times quicker than their ufuncs.
OPERATORS = {np.add: "{} + {}", np.subtract: "{} - {}", np.multiply: "{} * {}",
             np.divide: "{} / {}", np.negative: "-{}"}  # fmt: skip


def spelling(s, node, has_out):
    """The call of a node; `has_out` says whether its output goes into memory that is there."""
    f = function_of(node)
    if isinstance(f, np.ufunc) and f is not np.matmul:
        return ufunc(s, f, node, has_out)
    args = [s.name(v) for v in node.operands]
    if f is np.matmul:
        return product(s, node, args, has_out)
    if is_reduction(node):
        return reduction(s, node, args, has_out)
    if f in SPELLED and (has_out or f not in INTO):
        return SPELLED[f](s, node, args)
    return call(s, f, node, args, has_out)


def ufunc(s, f, node, has_out):
    """`f(a, b, out)`, plain numbers as arrays of one element; of numbers alone `a / b`."""
    operands = node.operands
    # Not for whole numbers: their operators warn where the ufuncs wrap around in silence.
    number = node.output.shape == () and node.output.dtype.kind == "f"
    if f in OPERATORS and number and not has_out:
        return OPERATORS[f].format(*map(s.name, operands))
    dtypes = {v.dtype for v in operands if not is_number(v.const) and v.dtype.kind == "f"}
    args = []
    for v in operands:
        weak = type(v.const) in (int, float) or v.dtype in dtypes
        if is_number(v.const) and weak and len(dtypes) == 1 and fits(v.const, *dtypes):
            args.append(s.as_array(v.const, *dtypes))
        else:
            args.append(s.name(v))
    if has_out:
        args.append("out={out}" if f in NAMED_OUT else "{out}")
    name = s.numpy(f.__name__) if getattr(np, f.__name__, None) is f else s.give(f.__name__, f)
    return f"{name}({', '.join(args)})"


def fits(const, dtype):
    """Whether a number stays finite in another type; if not, NumPy is to warn in every call."""
    with np.errstate(all="ignore"):
        return np.isfinite(dtype.type(const)) or not math.isfinite(const)


def product(s, node, args, has_out):
    """A product of matrices: `a.dot(b, out)` up to two axes, unless the output is large."""
    flat = all(0 < len(v.shape) <= 2 for v in node.operands)
    same = len({v.dtype for v in (*node.operands, node.output)}) == 1
    small = math.prod(node.output.shape) * node.output.dtype.itemsize < LARGE
    out = ["{out}"] * has_out
    if flat and same and small:
        return f"{args[0]}.dot({', '.join([*args[1:], *out])})"
    return f"{s.numpy('matmul')}({', '.join([*args, *out])})"


def reduction(s, node, args, has_out):
    """`add.reduce(x, axis=0)` for a sum, and so on."""
    name = s.numpy(REDUCTIONS[function_of(node)]) + ".reduce"
    params = {"axis": None, **node.params}
    shown = [*args, *(f"{k}={s.literal(v)}" for k, v in params.items())]
    return f"{name}({', '.join([*shown, 'out={out}'] if has_out else shown)})"


def call(s, f, node, args, has_out):
    """Any other function, as it was called."""
    if isinstance(f, str):
        name = s.give(f, node.operation.kernel)
    elif getattr(np, f.__name__, None) is f:
        name = s.numpy(f.__name__)
    elif getattr(np.linalg, f.__name__, None) is f:
        name = s.numpy("linalg") + f".{f.__name__}"
    else:
        name = s.give(f.__name__, f)
    shown = [*args, *(f"{k}={s.literal(v)}" for k, v in node.params.items())]
    return f"{name}({', '.join([*shown, 'out={out}'] if has_out else shown)})"


def transpose(s, node, args):
    """x.T, or with the order of the axes."""
    axes = node.params.get("axes")
    return f"{args[0]}.T" if axes is None else f"{args[0]}.transpose({s.literal(axes)})"


def reshape(s, node, args):
    """x.reshape(shape), reading in another order, or as a copy, where that was asked for."""
    given = [s.literal(node.output.shape)]
    for name, usual in (("order", "C"), ("copy", None)):
        value = node.params.get(name, usual)
        given += [] if value == usual else [f"{name}={value!r}"]
    return f"{args[0]}.reshape({', '.join(given)})"


def ravel(s, node, args):
    """x.ravel(): a copy where the elements do not stand one after another, unlike reshape."""
    order = node.params.get("order", "C")
    return f"{args[0]}.ravel({'' if order == 'C' else repr(order)})"


def getitem(s, node, args):
    """x[index]."""
    return f"{args[0]}[{s.index(node.params['index'])}]"


def pick(s, node, args):
    """x[index] where the index is computed."""
    return f"{args[0]}[{index_with(node, args[1:], s.index)}]"


def cast(s, node, args):
    """x in another type, or x copied."""
    return ["{out}[...] = " + args[0]]


def join(s, node, args):
    """The operands one after another."""
    axis = node.params.get("axis", 0)
    return f"{s.numpy('concatenate')}(({', '.join(args)},), axis={axis}, out={{out}})"


def scatter(s, node, args):
    """Zeros, to which elements are added."""
    where = node.params["index"]
    if is_basic(where):
        return ["{out}.fill(0)", f"{{out}}[{s.index(where)}] = {args[0]}"]
    return ["{out}.fill(0)", f"{s.numpy('add')}.at({{out}}, {s.literal(where)}, {args[0]})"]


def place(s, node, args):
    """The same where the index is computed."""
    where = index_with(node, args[1:], s.literal)
    return ["{out}.fill(0)", f"{s.numpy('add')}.at({{out}}, ({where}), {args[0]})"]


def index_with(node, names, text):
    """The text of an index, computed parts by their names."""
    rest = iter(names)
    parts = [next(rest) if i is HOLE else text(i) for i in node.params["index"]]
    return ", ".join(parts) + ("," if len(parts) == 1 else "")


INTO: dict = {"cast": cast, "join": join, "scatter": scatter, "place": place}
SPELLED: dict = {
    **INTO, np.transpose: transpose, np.reshape: reshape, np.ravel: ravel, "getitem": getitem,
    "pick": pick,
}  # fmt: skip

"""Attaches `+ - * / @ ** []`, `.sum()`, `.T`, ... to Tensor: each is NumPy's function.

Outside a gradient the result is a plain array, as everywhere.
"""

import numpy as np

from .checks import refuse_masked
from .errors import change_refused
from .ops.index import picked
from .primitive import OPERATIONS, primitive, sample
from .protocols import no_gradient
from .tape import recording
from .tensor import Tensor

BINARY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "truediv": np.divide,
    "matmul": np.matmul,
    "mod": np.remainder,
}
COMPARE = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}
METHODS = (
    "sum mean prod max min var std cumsum cumprod argmax argmin argsort any all round "
    "ravel squeeze swapaxes diagonal trace repeat take dot clip sort"
).split()


def binary(function):
    """The two operators of a ufunc: t + x and x + t."""
    operation = OPERATIONS[function]

    def forward(self, other):
        return operation(self, other)

    def reflected(self, other):
        return operation(other, self)

    return forward, reflected


def method(function):
    """A NumPy function as a method: t.sum(axis=0) is np.sum(t, axis=0)."""

    def call(self, *args, **kwargs):
        return function(self, *args, **kwargs)

    call.__doc__ = f"`np.{function.__name__}` of this Tensor, with its arguments."
    return call


def power(self, exponent):
    """t ** x, with NumPy's own short cuts for small exponents.

    NumPy takes them for floating-point numbers; `compiled` also records whole ones.
    """
    if type(exponent) in (int, float) and exponent in SHORT and self.dtype.kind == "f":
        return OPERATIONS[SHORT[exponent]](self)
    return OPERATIONS[np.power](self, exponent)


SHORT = {2: np.square, 1: np.positive, 0.5: np.sqrt, -1: np.reciprocal}


def reshape(self, *shape, **kwargs):
    """`np.reshape` to a shape that is given as one tuple or as several numbers."""
    return np.reshape(self, shape[0] if len(shape) == 1 else shape, **kwargs)


def transpose(self, *axes):
    """`np.transpose` with axes that are given as one tuple, as several numbers, or not at all."""
    return np.transpose(self, axes[0] if len(axes) == 1 else axes or None)


def item(self, index):
    """t[index]; the index may hold whole numbers that `compiled` records."""
    return picked(self, index)


def item_set(self, index, value):
    """t[i] = v: into the parameter itself, outside a gradient only."""
    if recording() is not None or self.mark is not None:
        raise change_refused("t[i] = v")
    refuse_masked(index, "t[i] = v")
    refuse_masked(value, "t[i] = v")
    self._array[index] = value._array if type(value) is Tensor else value


def identity(self):
    """hash(t): by identity, although == is elementwise.

    What `compiled` records stands for numbers, which would be looked up by their values.
    """
    tape = recording()
    if tape is not None and tape.tracing and not hasattr(self, "trainable"):
        tape.read(self, "hash(...), as in a set or a dict,")
    return object.__hash__(self)


@primitive(lambda g, y, *, dtype: g, samples=[sample((3, 4), dtype=np.float64)])
def cast(x, *, dtype):
    """x in another floating-point type; the gradient comes back in its own."""
    return np.asarray(x).astype(dtype)


def converted(x, dtype):
    """x in a type that has no gradients."""
    return np.asarray(x).astype(dtype)


def astype(self, dtype, copy=True):
    """A copy in another type; a type without gradients (int, bool) gives a plain array."""
    if np.dtype(dtype).kind != "f":
        return no_gradient(converted, (self,), {"dtype": np.dtype(dtype)})
    return cast(self, dtype=np.dtype(dtype))


def flatten(self, order="C"):
    """All elements in one axis."""
    return np.ravel(self, order=order)


def rows(self):
    """The parts along the first axis."""
    if self.ndim == 0:
        raise TypeError("a Tensor without axes cannot be iterated over")
    return (self[i] for i in range(len(self)))


def unknown(self, name):
    """An attribute of arrays that Tensors do not have, said with the remedy."""
    if not name.startswith("_") and hasattr(np.ndarray, name):
        tape = recording()
        if tape is not None and tape.tracing:
            raise AttributeError(
                f"a value that `compiled` records has no {name!r}; use functions of NumPy whose "
                "result has a fixed shape, or leave this part outside of compiled"
            )
        if tape is not None and tape.tracks(self):
            raise AttributeError(
                f"Tensor has no {name!r} of its own; use functions of NumPy, or detach(t).{name} "
                "where no gradient is to flow"
            )
        other = f", or np.{name}(t)" if hasattr(np, name) else ""
        raise AttributeError(f"Tensor has no {name!r} of its own; use t.data.{name}{other}")
    hint = REMEDIES.get(name, f"; use np.{name}(t)" if hasattr(np, name) else "")
    raise AttributeError(f"Tensor has no attribute {name!r}{hint}")


REMEDIES = {  # what other libraries have
    name: "; gradients come from gradient(loss, params(model))"
    for name in ("grad", "backward", "requires_grad")
} | {"detach": "; use flux.detach(t)"}


for name, function in BINARY.items():
    forward, reflected = binary(function)
    setattr(Tensor, f"__{name}__", forward)
    setattr(Tensor, f"__r{name}__", reflected)
for name, function in COMPARE.items():
    setattr(Tensor, f"__{name}__", method(function))
for name in METHODS:
    setattr(Tensor, name, method(getattr(np, name)))

attached = {
    "__pow__": power,
    "__rpow__": lambda self, base: OPERATIONS[np.power](base, self),
    "__neg__": lambda self: OPERATIONS[np.negative](self),
    "__pos__": lambda self: OPERATIONS[np.positive](self),
    "__abs__": lambda self: OPERATIONS[np.absolute](self),
    "__floordiv__": method(np.floor_divide),
    "__rfloordiv__": lambda self, other: np.floor_divide(other, self),
    "__getitem__": item,
    "__setitem__": item_set,
    "__iter__": rows,
    "__contains__": lambda self, value: bool(np.any(np.equal(self, value))),
    "__hash__": identity,
    "__getattr__": unknown,
    "T": property(np.transpose, doc="The transpose."),
    "mT": property(np.matrix_transpose, doc="The transpose of the last two axes."),
    "reshape": reshape,
    "transpose": transpose,
    "astype": astype,
    "flatten": flatten,
    "copy": lambda self: OPERATIONS[np.positive](self),
}
for name, function in attached.items():
    setattr(Tensor, name, function)

"""How NumPy's own functions reach us: the protocols that it looks for on a Tensor.

`np.exp(t)` asks for `__array_ufunc__`, `np.sum(t)` for `__array_function__`, `np.asarray(t)` for
`__array__`. Where no gradient flows to an argument, NumPy's function is called on the plain arrays.
"""

import sys
from opcode import opmap

import numpy as np

from .checks import as_array, real_array, refuse_masked
from .errors import RecordingError, change_refused, no_rule, out_refused
from .primitive import OPERATIONS, PLAIN
from .tape import open_tape, recording
from .tensor import Tensor, locked


def array_ufunc(self, ufunc, method, *inputs, **kwargs):
    """What NumPy calls for `np.exp(t)`, `array * t` and every other ufunc on a Tensor."""
    if method == "__call__" and not kwargs:
        operation = OPERATIONS.get(ufunc)
        if operation is not None:
            return operation(*inputs)
    if not touches_tape((inputs, kwargs)):
        return getattr(ufunc, method)(*plain(inputs), **plain(kwargs))
    if "out" in kwargs:
        return open_tape.get().write(ufunc, inputs, kwargs)
    if ufunc in PLAIN and method == "__call__":
        return no_gradient(ufunc, inputs, kwargs)
    if method != "__call__":
        whole = {
            ("add", "reduce"): np.sum,
            ("multiply", "reduce"): np.prod,
            ("maximum", "reduce"): np.max,
            ("minimum", "reduce"): np.min,
            ("add", "accumulate"): np.cumsum,
            ("multiply", "accumulate"): np.cumprod,
        }.get((ufunc.__name__, method))
        if whole is None:
            raise no_rule(f"{ufunc.__name__}.{method}")
        return whole(*inputs, **{"axis": 0, **kwargs})
    if kwargs:
        raise no_rule(f"{ufunc.__name__} with {', '.join(kwargs)}")
    operation = OPERATIONS.get((ufunc.__name__, "scipy.special"))
    special = sys.modules.get("scipy.special")
    if operation is not None and getattr(special, ufunc.__name__, None) is ufunc:
        return operation(*inputs)
    raise no_rule(ufunc.__name__)


def array_function(self, function, types, args, kwargs):
    """What NumPy calls for `np.sum(t)`, `np.concatenate([t, a])`, ... on a Tensor."""
    operation = OPERATIONS.get(function)
    if operation is not None and operation.body is None:
        operands, params = operation.from_call(args, kwargs)
        dtype = params.get("dtype")
        if dtype is not None and np.dtype(dtype).kind in "biu" and touches_tape(operands):
            raise no_rule(f"{operation.name} with dtype={np.dtype(dtype)}")
        return operation(*operands, **params)
    if not touches_tape((args, kwargs)):
        return function(*plain(args), **plain(kwargs))
    if operation is not None:
        if kwargs.get("out") is not None:
            raise out_refused(operation.name)
        for part in leaves((args, kwargs)):
            refuse_masked(part, operation.name)
        renamed = operation.renamed if kwargs else {}
        return operation.body(*args, **{renamed.get(k, k): v for k, v in kwargs.items()})
    if function in PLAIN:
        return no_gradient(function, args, kwargs)
    raise no_rule(f"{function.__module__}.{function.__name__}".removeprefix("numpy."))


def no_gradient(function, args, kwargs):
    """A function without gradient gets the plain arrays; `compiled` makes it a row all the same."""
    tape = recording()
    if tape is not None and tape.tracing:
        return tape.plain_call(function, args, kwargs)
    return function(*values(args), **values(kwargs))


def array(self, dtype=None, copy=None):
    """What NumPy calls for `np.asarray(t)`: refused while a gradient flows to `t`."""
    tape = open_tape.get()
    if tape is not None and tape.tracing:
        tape.read(self, "np.asarray")
    if (tape is not None and tape.tracks(self)) or (self.mark is not None and self.mark.open):
        raise RecordingError(
            "a value that is being recorded cannot be turned into a plain array unnoticed: its "
            "gradient would be lost. Use detach(t) where that is what you want; to make one array "
            "of several such values write np.stack([s, t])."
        )
    if self.mark is not None:  # there may be a way back yet that reads it
        return np.array(locked(self), dtype=dtype, copy=copy is not False)
    return np.array(self._array, dtype=dtype, copy=copy)


def refuse_reading(t, how):
    """Within `compiled`, what is read out would stay as it is now."""
    tape = recording()
    if tape is not None and tape.tracing:
        tape.read(t, how)


def data(self):
    """The values themselves; read-only if they are recorded."""
    refuse_reading(self, "t.data")
    return self._array if self.mark is None else locked(self)


def put_data(self, array):
    """t.data = array: the parameter is another array from now on."""
    refuse_reading(self, "t.data = ...")
    if self.mark is not None:
        raise change_refused("t.data = array")
    checked = real_array(array, "t.data = array")
    self._array = array if type(array) is np.ndarray else checked


Tensor.data = property(data, put_data)
Tensor.__array__ = array  # type: ignore[attr-defined]
Tensor.__array_ufunc__ = array_ufunc  # type: ignore[attr-defined]
Tensor.__array_function__ = array_function  # type: ignore[attr-defined]


def detach(t):
    """The plain array behind `t`, cut off from the tape on purpose.

    Parameters
    ----------
    t : Tensor or array_like

    Returns
    -------
    numpy.ndarray
        A copy, through which no gradient flows.

    Examples
    --------
    >>> import tinyflux as flux
    >>> flux.gradient(lambda x: x * flux.detach(x), 3.0)
    (array(3.),)
    """
    tape = recording()
    if tape is not None and tape.tracing and tape.tracks(t):
        return tape.detached(t)
    return np.array(t._array if isinstance(t, Tensor) else as_array(t, "detach"))


def is_stored():
    """Whether NumPy asks for a float in order to write it into an array: a[i] = t."""
    frame = sys._getframe(2)
    return frame.f_code.co_code[frame.f_lasti] == opmap["STORE_SUBSCR"]


def in_numpy():
    """Whether a function of NumPy asks for a float, as np.sum(a, initial=t) does."""
    return sys._getframe(2).f_globals.get("__name__", "").startswith("numpy.")


def guarded(name):
    """A method of Tensor that reads its value out, which `compiled` refuses."""
    read = getattr(Tensor, name)
    how = f"{name.strip('_')}(...)" if name != "__reduce__" else "a copy or pickle"

    def method(self, *args):
        tape = recording()
        if tape is not None and tape.tracing:
            tape.read(self, how)
        if tape is not None and name == "__float__" and tape.tracks(self) and is_stored():
            raise RecordingError(
                "a[i] = t: a plain array cannot keep a value that is being recorded, its gradient "
                "would be lost. Collect the values in a list and write np.stack(values)."
            )
        lost = name == "tolist" or (name == "__float__" and in_numpy())
        if lost and tape is not None and tape.tracks(self):
            np.asarray(self)  # is refused, and says why
        return read(self, *args)

    method.__doc__ = read.__doc__
    return method


def whole(self, *_):
    """What Python calls for `a_list[t]`, `range(t)`, `round(t)`."""
    refuse_reading(self, "int(...) or round(...)")
    raise TypeError("a Tensor stands for no whole number of Python's; use int(t) or np.round(t)")


for name in ("__float__", "__int__", "__bool__", "__reduce__", "item", "tolist"):
    setattr(Tensor, name, guarded(name))
Tensor.__index__ = Tensor.__round__ = whole  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------- looking inside


def leaves(tree):
    """Everything that stands in nested tuples, lists and dicts."""
    stack = [tree]
    while stack:
        item = stack.pop()
        if isinstance(item, (tuple, list)):
            stack.extend(item)
        elif isinstance(item, dict):
            stack.extend(item.values())
        else:
            yield item


def touches_tape(tree):
    """Whether a gradient flows to anything in `tree`."""
    tape = open_tape.get()
    return tape is not None and any(tape.tracks(t) for t in leaves(tree))


def replaced(tree, of):
    """`tree` with every Tensor `t` in nested tuples, lists and dicts replaced by `of(t)`.

    Tuples and lists without one stay as they are, of whatever class.
    """
    if type(tree) is Tensor:
        return of(tree)
    if isinstance(tree, (tuple, list)) and any(type(t) is Tensor for t in leaves(tree)):
        return (tuple if isinstance(tree, tuple) else list)(replaced(t, of) for t in tree)
    if isinstance(tree, dict):
        return {k: replaced(t, of) for k, t in tree.items()}
    return tree


def plain(tree):
    """Tensors as arrays; one that is being recorded elsewhere raises."""
    return replaced(tree, np.asarray)


def values(tree):
    """Tensors as arrays, for functions that have no gradient to lose."""
    return replaced(tree, lambda t: t._array)

"""NumPy functions in terms of cheaper ones, in the very steps in which NumPy computes them.

`np.mean` is a sum and a division, wrapped in Python that costs more than both. Written out, its
parts can be shared with the backward pass and get their memory like any other row.
"""

import numpy as np

from ..ops.reduce import number_of


def mean(x, *, axis=None, keepdims=False):
    """The sum, divided by the number."""
    return np.sum(x, axis=axis, keepdims=keepdims) / number_of(x, axis)


def var(x, *, axis=None, keepdims=False, ddof=0):
    """The mean square of the deviations from the mean."""
    d = x - mean(x, axis=axis, keepdims=True)
    return np.sum(d * d, axis=axis, keepdims=keepdims) / max(number_of(x, axis) - ddof, 0)


def std(x, *, axis=None, keepdims=False, ddof=0):
    """The root of the variance."""
    return np.sqrt(var(x, axis=axis, keepdims=keepdims, ddof=ddof))


SIMPLER = {np.mean: (mean, {"axis", "keepdims"}), np.var: (var, {"axis", "keepdims", "ddof"}),
           np.std: (std, {"axis", "keepdims", "ddof"})}  # fmt: skip


def simpler(operation, params, arrays):
    """The ways to write an operation of NumPy's in simpler steps: one, or none."""
    function, known = SIMPLER.get(operation.public, (None, ()))
    if function is None or set(params) - known or arrays[0].dtype.char not in "fd":
        return ()
    return (function,) if number_of(arrays[0], params.get("axis")) else ()

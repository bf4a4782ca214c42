"""The gradient that a backward pass begins with: 1 for a loss, which must be one real number."""

import numpy as np

from .checks import FLOATS, as_array, numeric
from .errors import NotScalarError
from .tape import open_tape
from .tensor import Tensor

ONES = {kind: kind(1) for kind in (np.float32, np.float64, np.longdouble)}


def one_like(out):
    """The gradient of a loss towards itself; a loss that is no number is refused."""
    data = out._array if type(out) is Tensor else out
    if type(data) in ONES:
        return ONES[type(data)]
    dtype = getattr(data, "dtype", None)
    if dtype is not None and dtype in FLOATS and data.ndim == 0:  # (np.dtype("f8") == None holds)
        return dtype.type(1)
    if isinstance(data, (float, int)):
        return 1.0
    if data is None:
        raise NotScalarError("the function returned None; did you forget `return`?")
    if shape := getattr(data, "shape", None):
        raise NotScalarError(
            f"the function returned an array of shape {shape}, and a gradient is defined for one "
            "number: add .sum() or .mean(), or use jacobian"
        )
    if dtype is not None and dtype.kind in "iub":
        return 1.0  # a count: a number, with no gradient
    raise NotScalarError(f"the function returned {brief_type(data)}; one real number is wanted")


def brief_type(value):
    """The type of a value for a message."""
    if value is None:
        return "None"
    dtype = getattr(value, "dtype", None)
    return f"a number of dtype {dtype}" if dtype is not None else f"a {type(value).__name__}"


def fitting_seed(seed, out):
    """`seed` in the shape and dtype of the output."""
    if type(seed) not in ONES and type(seed) is not Tensor:
        seed = numeric(as_array(seed, "back"), "back")
    if np.shape(seed) != np.shape(out._array):
        raise ValueError(
            f"back: the seed has shape {np.shape(seed)}, the value has {np.shape(out._array)}"
        )
    tape = open_tape.get()
    if tape is not None and tape.tracks(seed):
        return seed
    seed = np.asarray(seed, out._array.dtype)
    return tape.constant(seed) if tape is not None and tape.tracing else seed

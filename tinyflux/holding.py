"""What is no operand of a call, but among its keywords: held as it was when it was recorded.

An index, a mask or a shift may be an array, have one in it, or be read like one. To all of these
somebody may write before the way back reads them.
"""

from copy import deepcopy

import numpy as np

from .checks import refuse_masked
from .tensor import Tensor

# Types of values that nobody can write to.
ATOMS = {int, float, bool, str, type(None), type(...), *(type(np.dtype(t)) for t in "fdg")}


def held(value):
    """A parameter of a call with copies of the arrays in it."""
    if type(value) in ATOMS:
        return value
    if isinstance(value, slice):  # of which an end may be an array
        return slice(held(value.start), held(value.stop), held(value.step))
    if hasattr(value, "_make"):  # a named tuple
        return value._make(map(held, value))
    if isinstance(value, (tuple, list)):
        return (tuple if isinstance(value, tuple) else list)(map(held, value))
    if isinstance(value, dict):
        return value | {k: held(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        refuse_masked(value, "an index or a keyword")
        return value.copy()
    if isinstance(value, memoryview):
        return np.array(value)
    return deepcopy(value) if is_like_an_array(value) else value


def is_like_an_array(value):
    """Whether something else has memory to which one can write: a pandas column, an array.array."""
    if hasattr(type(value), "__array__"):
        return not isinstance(value, (np.generic, Tensor))
    try:
        return not memoryview(value).readonly
    except TypeError:
        return False

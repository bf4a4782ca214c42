"""Checks of arguments that several modules share: the error names what came and what was wanted."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

__all__ = ["as_callable", "as_integer", "as_real"]


def as_callable(value: Any, name: str) -> Any:
    """Return `value` if it can be called; `name` is what the error calls it.

    Raises
    ------
    TypeError
        If it cannot; most often the function was called instead of passed.

    Examples
    --------
    >>> as_callable(None, "throttle: f")
    Traceback (most recent call last):
    TypeError: throttle: f is None, but it must be a function: pass f itself, not f()
    """
    if not callable(value):
        raise TypeError(f"{name} is {value!r}, but it must be a function: pass f itself, not f()")
    return value


def as_integer(value: Any, name: str, *, least: int) -> int:
    """Return `value` as an int; `name` is what the error calls it.

    Raises
    ------
    TypeError
        If `value` is not an integer: a bool, a float (even a whole one), a string, ...
    ValueError
        If `value` is smaller than `least`.

    Examples
    --------
    >>> as_integer(128, "batchsize", least=1)
    128
    >>> as_integer(12.5, "batchsize", least=1)
    Traceback (most recent call last):
    TypeError: batchsize is 12.5 (float), but it must be an integer of at least 1
    """
    wanted = f"an integer of at least {least}"
    try:
        # To Python a bool is an int; as a count it is a mistake.
        number = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise TypeError(f"{name} is {value!r} ({type(value).__name__}), but it must be {wanted}")
    if number < least:
        raise ValueError(f"{name} is {number}, but it must be {wanted}")
    return number


def as_real(value: Any, name: str, *, least: float = 0.0) -> float:
    """Return `value` as a float; infinity is allowed, NaN is not.

    Raises
    ------
    TypeError
        If `value` is not a real number (a bool is none either).
    ValueError
        If `value` is NaN or smaller than `least`.

    Examples
    --------
    >>> as_real(2, "timeout")
    2.0
    >>> as_real(-1, "timeout")
    Traceback (most recent call last):
    ValueError: timeout is -1, but it must be a number of at least 0
    """
    wanted = f"a number of at least {least:g}"
    try:
        if isinstance(value, (str, bool, np.bool_)):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(
            f"{name} is {value!r} ({type(value).__name__}), but it must be {wanted}"
        ) from None
    if math.isnan(number) or number < least:
        raise ValueError(f"{name} is {value!r}, but it must be {wanted}")
    return number


FLOATS = (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.longdouble))


def real_array(data, who):
    """`data` as an array of real floating-point numbers, or a TypeError that says what to do."""
    if isinstance(data, np.ma.MaskedArray):
        raise TypeError(f"{who}: got a masked array, whose mask would be lost; use .filled(value)")
    try:
        array = np.asarray(data)
    except ValueError as error:  # ragged lists
        raise TypeError(f"{who}: the lists do not form an array: {error}") from None
    if array.dtype.newbyteorder("=") in FLOATS:
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    got = f"{who}: got dtype {array.dtype}; wanted real floating-point numbers"
    if array.dtype.kind in "biu":
        remedy = "integers have no gradient: use x.astype(np.float32) or write 2.0 instead of 2"
    elif array.dtype.kind == "c":
        remedy = "complex numbers are not supported: pass real and imaginary parts as two arrays"
    elif array.dtype == np.float16:
        remedy = "float16 overflows at 65504 in ordinary sums: use x.astype(np.float32)"
    else:
        remedy = "make it np.array(..., dtype=np.float32)"
    raise TypeError(f"{got} ({remedy})")


def as_operand(value, who):
    """A list, a pandas column, ... as a plain array; what has no plain form is refused."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{who}: got a masked array, whose mask would be lost; fill it")
    if value is None or isinstance(value, np.generic):
        return value
    return np.asarray(value)

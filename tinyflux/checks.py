"""Checks of arguments that several modules share: the error names what came and what was wanted."""

from __future__ import annotations

import inspect
import math
import operator
from typing import Any

import numpy as np

LARGEST = 2**63 - 1  # what NumPy can count to


def brief(value: Any) -> str:
    """A value in one line, for a message: cut short, and never an error of its own."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # nested too deeply, an integer of 5000 digits, a broken __repr__
        return "<it cannot be printed>"
    return text if len(text) <= 60 else text[:57] + "..."


def shown(value: Any) -> str:
    """A value and its type in one line, for a message."""
    return f"{brief(value)} ({type(value).__name__})"


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
    TypeError: throttle: f is None, but it must be a function: f itself, not what f() returns
    """
    if not callable(value):
        text = "None" if value is None else shown(value)
        raise TypeError(
            f"{name} is {text}, but it must be a function: f itself, not what f() returns"
        )
    return value


def as_flag(value: Any, name: str) -> bool:
    """Return `value` as a bool; 0 and 1 will do.

    Raises
    ------
    TypeError
        If it is anything else: "False" and [False] would count as true.

    Examples
    --------
    >>> as_flag("False", "shuffle")
    Traceback (most recent call last):
    TypeError: shuffle is 'False' (str), but it must be True or False
    """
    if not isinstance(value, (bool, int, np.bool_)) or value not in (0, 1):
        raise TypeError(f"{name} is {shown(value)}, but it must be True or False")
    return bool(value)


def as_integer(value: Any, name: str, *, least: int, most: float = LARGEST) -> int:
    """Return `value` as an int; `name` is what the error calls it.

    Raises
    ------
    TypeError
        If `value` is not an integer: a bool, a float (even a whole one), a string, ...
    ValueError
        If `value` is smaller than `least`, or larger than `most`, to which NumPy can count.

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
        raise TypeError(f"{name} is {shown(value)}, but it must be {wanted}")
    if not least <= number <= most:
        end = "" if number < least else " and below 2**63"
        raise ValueError(f"{name} is {brief(number)}, but it must be {wanted}{end}")
    return number


def to_float(value: Any) -> float:
    """A real number as a float; a TypeError for what is none, as dates, flags and arrays are."""
    if isinstance(value, (str, bytes, bool)) or getattr(value, "ndim", False):
        raise TypeError
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind not in "fiu":
        raise TypeError
    return float(value)


def is_whole(n: Any) -> bool:
    """Whether `n` is a whole number: no flag, and no span of time, which NumPy counts as one."""
    return isinstance(n, (int, np.integer)) and not isinstance(n, (bool, np.timedelta64))


def as_number(value: Any, name: str, wanted: str = "a real number") -> float:
    """Return `value` as a float, NaN included.

    Raises
    ------
    TypeError
        If `value` is not a real number (a bool, a string, a complex number, an array).

    Examples
    --------
    >>> as_number(None, "the score")
    Traceback (most recent call last):
    TypeError: the score is None (NoneType), but it must be a real number
    """
    try:
        return to_float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{name} is {shown(value)}, but it must be {wanted}") from None


def as_real(
    value: Any, name: str, *, least: float = 0.0, most: float = math.inf, finite: bool = False
) -> float:
    """Return `value` as a float; infinity is allowed unless it is to be `finite`, NaN is not.

    Raises
    ------
    TypeError
        If `value` is not a real number (a bool is none either).
    ValueError
        If `value` is NaN, smaller than `least`, larger than `most`, or infinite against the wish
        for a finite one.

    Examples
    --------
    >>> as_real(2, "timeout")
    2.0
    >>> as_real(-1, "timeout")
    Traceback (most recent call last):
    ValueError: timeout is -1, but it must be a number of at least 0
    """
    wanted = "a finite number" if finite else "a number"
    wanted += "" if least == -math.inf else f" of at least {least:g}"
    wanted += "" if most == math.inf else f" and at most {most:g}"
    number = as_number(value, name, wanted)
    if not least <= number <= most or (finite and math.isinf(number)):
        raise ValueError(f"{name} is {brief(value)}, but it must be {wanted}")
    return number


def item(things: Any, i: Any, who: str, what: str) -> Any:
    """`things[i]`; what is no place in them is refused in the words of their owner."""
    try:
        if isinstance(i, (bool, np.bool_)):  # to Python True is 1; as a place it is a mistake
            raise TypeError
        return things[i]
    except (IndexError, TypeError) as error:
        kind = IndexError if isinstance(error, IndexError) else TypeError
        raise kind(
            f"{who}: {brief(i)} is not the index of a {what}; there are {len(things)}, counted "
            "from 0"
        ) from None


FLOATS = (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.longdouble))


def refuse_masked(data, who):
    """Refuse a masked array, of which `np.asarray` would take the hidden values too."""
    if isinstance(data, np.ma.MaskedArray):
        raise TypeError(f"{who}: got a masked array, whose mask would be lost; use .filled(value)")


def as_array(data, who):
    """`data` as an array of any type; lists of unequal length and masked arrays are refused."""
    refuse_masked(data, who)
    try:
        array = np.asarray(data)
    except ValueError as error:  # ragged lists
        raise TypeError(f"{who}: the lists do not form an array: {error}") from None
    if array.ndim > 1 and isinstance(data, (list, tuple)):
        for part in data:
            refuse_masked(part, who)
    return array


def real_array(data, who):
    """`data` as an array of real floating-point numbers, or a TypeError that says what to do."""
    array = as_array(data, who)
    if array.dtype.newbyteorder("=") in FLOATS:
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    what = shown(data) if array.dtype.kind == "O" else f"dtype {array.dtype}"
    got = f"{who}: got {what}; wanted real floating-point numbers"
    if array.dtype.kind in "biu":
        remedy = "integers have no gradient: use x.astype(np.float32) or write 2.0 instead of 2"
    elif array.dtype.kind == "c":
        remedy = "complex numbers are not supported: pass real and imaginary parts as two arrays"
    elif array.dtype == np.float16:
        remedy = "float16 overflows at 65504 in ordinary sums: use x.astype(np.float32)"
    else:
        remedy = "make it np.array(..., dtype=np.float32)"
    raise TypeError(f"{got} ({remedy})")


def misfit_of(f, args, kwargs):
    """Why `f` does not take these arguments, in Python's words; "" if it does, or nobody knows."""
    try:
        inspect.signature(f).bind(*args, **kwargs)
    except TypeError as misfit:
        return str(misfit)
    except ValueError:  # written in C, without a signature
        pass
    return ""


def is_compiled(f):
    """Whether a function was made by `compiled`, which need not be imported to ask."""
    return hasattr(type(f), "lend")


def as_operand(value, who):
    """A list, a pandas column, ... as a plain array; what has no plain form is refused."""
    array = value if isinstance(value, np.generic) else as_array(value, who)
    if array.dtype.kind in "fiubc":
        return array
    raise TypeError(f"{who}: got {shown(value)}; numbers or an array of numbers are wanted")


def no_input(who, array):
    """The error for an input that holds no real numbers, with the remedy where they are text."""
    remedy = ": x.astype(np.float32)" if array.dtype.kind in "USO" else ""
    return TypeError(f"{who}: got x with dtype {array.dtype}; real numbers are wanted{remedy}")


def numeric(array, who):
    """`array`, if it holds real numbers."""
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{who}: got dtype {array.dtype}; real numbers are wanted")
    return array

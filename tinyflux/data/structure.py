"""What data is: arrays, in tuples, named tuples and dicts, with equally many observations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..checks import brief, is_whole, refuse_masked, shown

__all__ = ["arrays", "together", "treemap"]

DEEPEST = 100  # how many tuples and dicts may be in one another


def treemap(
    f: Callable[..., Any], data: Any, *others: Any, who: str = "data", depth: int = 0
) -> Any:
    """Apply `f` to the arrays in tuples, named tuples and dicts; the result has the same form.

    With `others`, data of the same form, `f` gets one array of each.

    Raises
    ------
    ValueError
        If the forms differ: other types, lengths or keys.
    """
    if not isinstance(data, (tuple, dict)):
        return f(data, *others)
    if depth > DEEPEST:
        raise ValueError(f"{who}: the data is nested too deeply, or contains itself")
    inner: dict[str, Any] = {"who": who, "depth": depth + 1}
    for other in others:
        if type(other) is not type(data) or _keys(other) != _keys(data):
            raise ValueError(
                f"{who}: got {brief(data)} and {brief(other)}, but all must have the same form"
            )
    if isinstance(data, dict):
        return {k: treemap(f, data[k], *(o[k] for o in others), **inner) for k in data}
    parts = [treemap(f, *entries, **inner) for entries in zip(data, *others)]
    return type(data)(*parts) if hasattr(data, "_fields") else tuple(parts)


def _keys(data: Any) -> Any:
    return data.keys() if isinstance(data, dict) else len(data)


def together(data: tuple[Any, ...]) -> Any:
    """One argument stands for itself, several for their tuple."""
    return data[0] if len(data) == 1 else data


def arrays(data: Any, who: str) -> tuple[Any, int]:
    """Turn every entry of `data` into an array; return that and the number of observations.

    Raises
    ------
    TypeError
        If an entry has no observations (a number, None, ...), or there is no entry at all.
    ValueError
        If entries have different numbers of observations, or none.
    """
    data = treemap(lambda entry: _as_array(entry, who), data, who=who)
    leaves = list(_named(data, "data"))
    if not leaves:
        raise TypeError(f"{who}: got {brief(data)}, but at least one array is needed")
    first, n = leaves[0][0], len(leaves[0][1])
    for name, array in leaves:
        if len(array) != n:
            raise ValueError(
                f"{who}: {first} has {n} observations, but {name} has {len(array)}; "
                "axis 0 of all arrays must have the same length"
            )
    if n == 0:
        shapes = ", ".join(f"{name} has shape {array.shape}" for name, array in leaves)
        raise ValueError(f"{who}: there is no observation in the data ({shapes})")
    return data, n


def _as_array(entry: Any, who: str) -> np.ndarray:
    refuse_masked(entry, who)
    try:
        array = np.asarray(entry)
    except ValueError as error:
        wrong = str(error).rstrip(".")
        raise ValueError(
            f"{who}: cannot make an array of a {type(entry).__name__}: {wrong}. Arrays that belong "
            "together come in a tuple, (x, y); a list of pairs is put together by batch(pairs)"
        ) from None
    if array.ndim == 0:
        hint = "; options go by name, as batchsize=32 does" if is_whole(entry) else ""
        raise TypeError(
            f"{who}: got {shown(entry)}, which has no axis of observations; "
            f"wanted arrays of at least one dimension, or a tuple or dict of them{hint}"
        )
    return array


def _named(data: Any, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays in `data`, each with the expression that leads to it."""
    if isinstance(data, dict):
        for key in data:
            yield from _named(data[key], f"{name}[{key!r}]")
    elif isinstance(data, tuple):
        for i, entry in enumerate(data):
            yield from _named(entry, f"{name}[{i}]")
    else:
        yield name, data

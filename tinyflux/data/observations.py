"""Observations in other arrangements: split, shuffled, stacked, cut in pieces."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..checks import as_array, as_flag, as_integer, brief, is_whole, shown
from ..generators import generator
from .structure import arrays, together, treemap

__all__ = ["batch", "chunk", "shuffleobs", "splitobs", "unbatch"]


def splitobs(
    *data: Any,
    at: float | Sequence[float] = 0.8,
    shuffle: bool = False,
    rng: np.random.Generator | int | None = None,
) -> tuple[Any, ...]:
    """Split the observations into parts, the remainder being the last.

    Parameters
    ----------
    *data
        Data, see `tinyflux.data`; several arguments are split alike, as one tuple.
    at : float, int or sequence of them
        The size of each part but the last: a float is a share of the whole, between 0 and 1, an
        int a number of observations. n observations at `(0.7, 0.2)` give three parts, of
        0.7 n and 0.2 n rounded (halves up), and the rest.
    shuffle : bool
        True draws at random which observation goes where. Otherwise the parts are views.
    rng : numpy.random.Generator, int or None
        See `tinyflux.generators.generator`.

    Returns
    -------
    tuple
        The parts, each of the form of the data.

    Raises
    ------
    TypeError, ValueError
        If the data has no observations or unequally many, or `at` leaves a part empty.

    Examples
    --------
    >>> import numpy as np
    >>> train, test = splitobs(np.arange(10), at=0.7)
    >>> train, test
    (array([0, 1, 2, 3, 4, 5, 6]), array([7, 8, 9]))
    >>> (x, y), (x_test, y_test) = splitobs(np.zeros((10, 2)), np.arange(10))
    >>> x.shape, y_test
    ((8, 2), array([8, 9]))
    """
    whole, n = arrays(together(data), "splitobs")
    shares = at if isinstance(at, Sequence) and not isinstance(at, str) else (at,)
    sizes = [_size(share, n) for share in shares]
    sizes.append(n - sum(sizes))
    if min(sizes) < 1:
        raise ValueError(
            f"splitobs: at={brief(at)} cuts {n} observations into parts of {sizes}, the last one "
            "being the rest; each needs at least one observation"
        )
    if as_flag(shuffle, "splitobs: shuffle"):
        whole = _shuffled(whole, n, rng)
    ends = np.cumsum(sizes).tolist()
    return tuple(_slices(whole, [0, *ends[:-1]], ends))


def _size(share: Any, n: int) -> int:
    """The number of observations that one entry of `at` asks for."""
    if isinstance(share, (float, np.floating)):
        if not 0 < share < 1:
            raise ValueError(
                f"splitobs: at has {brief(share)}, but a share must be between 0 and 1; "
                "a number of observations is an int"
            )
        return math.floor(n * float(share) + 0.5)
    if not is_whole(share):
        raise TypeError(
            f"splitobs: at has {shown(share)}, but a part is a share such as 0.8 or a number of "
            "observations, and several are a list"
        )
    return as_integer(share, "splitobs: at", least=1)


def _slices(data: Any, starts: Sequence[int], ends: Sequence[int]) -> Iterator[Any]:
    for lo, hi in zip(starts, ends):
        yield treemap(lambda a, lo=lo, hi=hi: a[lo:hi], data)


def shuffleobs(*data: Any, rng: np.random.Generator | int | None = None) -> Any:
    """Return the observations in random order, as copies; all arrays in the same order.

    Parameters
    ----------
    *data
        Data, see `tinyflux.data`; several arguments are shuffled alike and returned as a tuple.
    rng : numpy.random.Generator, int or None
        See `tinyflux.generators.generator`.

    Raises
    ------
    TypeError, ValueError
        If the data has no observations or unequally many.

    Examples
    --------
    >>> import numpy as np
    >>> x, y = shuffleobs(np.arange(5), 10 * np.arange(5), rng=0)
    >>> bool((y == 10 * x).all()), sorted(x.tolist())
    (True, [0, 1, 2, 3, 4])
    """
    return _shuffled(*arrays(together(data), "shuffleobs"), rng)


def _shuffled(data: Any, n: int, rng: np.random.Generator | int | None) -> Any:
    order = generator(rng).permutation(n)
    return treemap(lambda a: a.take(order, axis=0), data)


def batch(observations: Sequence[Any]) -> Any:
    """Stack observations on a new axis 0; the inverse of `unbatch`.

    Parameters
    ----------
    observations : sequence
        Arrays of one shape, or numbers, or tuples, named tuples or dicts of such.

    Raises
    ------
    ValueError
        If there is no observation, or their shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> x, y = batch([(np.zeros(2), 0), (np.ones(2), 1), (np.ones(2), 1)])
    >>> x.shape, y
    ((3, 2), array([0, 1, 1]))
    """
    if not np.iterable(observations) or not hasattr(observations, "__len__"):
        raise TypeError(f"batch: got {shown(observations)}, but a list of observations is needed")
    observations = list(observations)
    if not observations:
        raise ValueError("batch: got no observation, but at least one is needed")
    return treemap(_stack, *observations, who="batch")


def _stack(*entries: Any) -> np.ndarray:
    entries = tuple(as_array(entry, "batch") for entry in entries)
    shapes = {entry.shape: None for entry in entries}
    if len(shapes) > 1:
        listed = ", ".join(map(str, shapes))
        raise ValueError(f"batch: got shapes {listed}, but all observations must have one shape")
    return np.stack(entries)


def unbatch(*data: Any) -> list[Any]:
    """List the observations one by one, without their axis 0; views where they are arrays.

    Raises
    ------
    TypeError, ValueError
        If the data has no observations or unequally many.

    Examples
    --------
    >>> import numpy as np
    >>> [x.tolist() for x in unbatch(np.arange(6).reshape(3, 2))]
    [[0, 1], [2, 3], [4, 5]]
    """
    whole, n = arrays(together(data), "unbatch")
    parts: list[Any] = [None] * n  # at once, so that what cannot be kept is refused at once
    for i in range(n):
        parts[i] = treemap(lambda a, i=i: a[i], whole)
    return parts


def chunk(data: Any, n: int | None = None, *, size: int | None = None) -> list[Any]:
    """Cut into `n` consecutive pieces, or into pieces of `size`; the pieces are views.

    Parameters
    ----------
    data
        Data, see `tinyflux.data`.
    n : int
        The number of pieces; the first are longer by one where it does not divide the number of
        observations.
    size : int
        In place of `n`: the length of each piece but the last, which has what is left.

    Raises
    ------
    TypeError, ValueError
        If not exactly one of `n` and `size` is given, or there are fewer observations than pieces.

    Examples
    --------
    >>> import numpy as np
    >>> chunk(np.arange(5), 2)
    [array([0, 1, 2]), array([3, 4])]
    >>> chunk(np.arange(5), size=2)
    [array([0, 1]), array([2, 3]), array([4])]
    """
    whole, total = arrays(data, "chunk")
    if (n is None) == (size is None):
        raise TypeError(f"chunk: got n={n} and size={size}, but exactly one of them is needed")
    if size is not None:
        size = as_integer(size, "chunk: size", least=1)
        cuts = [*range(0, total, size), total]
    else:
        n = as_integer(n, "chunk: n", least=1)
        if n > total:
            raise ValueError(f"chunk: cannot cut {total} observations into {n} pieces")
        each, longer = divmod(total, n)
        cuts = [each * i + min(i, longer) for i in range(n + 1)]
    return list(_slices(whole, cuts[:-1], cuts[1:]))

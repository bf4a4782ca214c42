"""`DataLoader`: the observations in batches, epoch after epoch."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ..checks import as_array, as_callable, as_flag, as_integer, shown
from ..generators import generator
from .structure import arrays, together, treemap

__all__ = ["DataLoader", "ncycle"]


class DataLoader:
    """Iterate over observations in batches; each iteration is one epoch.

    Parameters
    ----------
    *data
        An array, or a tuple, named tuple or dict of arrays with equally many observations (axis 0).
        Several arguments count as their tuple, so `DataLoader(X, Y)` is `DataLoader((X, Y))`.
        Lists become arrays; arrays are never copied.
    batchsize : int
        Observations per batch. Larger than the data, it warns and shrinks to all of it.
    shuffle : bool
        True draws a new order for every iteration.
    partial : bool
        False leaves out a last batch that is shorter than the others.
    rng : numpy.random.Generator, int or None
        What the order is drawn from. A seed is used once, so that epochs differ; None asks for the
        default generator at each iteration.
    collate : callable, optional
        Gets the list of the observations of a batch; what it returns is the batch. It may pad
        sequences of unequal length, for example.

    Attributes
    ----------
    data, batchsize, shuffle, partial, rng, collate
        As given, with arrays in `data`, the shrunken `batchsize`, and a Generator for a seed.

    Raises
    ------
    TypeError, ValueError
        If the data has no observations or unequally many, or `batchsize` is not a positive int.

    Notes
    -----
    A batch has the form of the data: an array for an array, a tuple for a tuple, and so on, always
    with the axis of observations, also at `batchsize=1`. Without `shuffle` the arrays in it are
    views, so writing to one changes the data; with `shuffle` they are copies.

    The order belongs to the iteration: two at once do not disturb each other. A loader can be
    pickled and deep-copied, its Generator with it.

    Examples
    --------
    >>> import numpy as np
    >>> loader = DataLoader(np.zeros((5, 2)), np.arange(5), batchsize=2)
    >>> [(x.shape, y.tolist()) for x, y in loader]
    [((2, 2), [0, 1]), ((2, 2), [2, 3]), ((1, 2), [4])]
    >>> len(loader)
    3
    >>> loader
    DataLoader((float64(5, 2), int64(5)), batchsize=2)
    """

    def __init__(
        self,
        *data: Any,
        batchsize: int = 1,
        shuffle: bool = False,
        partial: bool = True,
        rng: np.random.Generator | int | None = None,
        collate: Callable[[list[Any]], Any] | None = None,
    ):
        self.data, self._n = arrays(together(data), "DataLoader")
        self.batchsize = as_integer(batchsize, "DataLoader: batchsize", least=1)
        if self.batchsize > self._n:
            warnings.warn(
                f"batchsize is {self.batchsize}, but there are only {self._n} observations; "
                f"it is now {self._n}",
                stacklevel=2,
            )
            self.batchsize = self._n
        self.shuffle = as_flag(shuffle, "DataLoader: shuffle")
        self.partial = as_flag(partial, "DataLoader: partial")
        self.rng = None if rng is None else generator(rng)
        self.collate = None if collate is None else as_callable(collate, "DataLoader: collate")
        # Where the latest iteration is: its order (None: as in the data) and its next batch.
        # None has begun, which is as if one had just ended.
        self._place: dict[str, Any] = {"order": None, "next": len(self)}
        self._resume: dict[str, Any] | None = None

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return self._n // self.batchsize + (self.partial and self._n % self.batchsize > 0)

    @property
    def ended(self) -> bool:
        """Whether the last batch of the epoch has been drawn (or none of it yet).

        Examples
        --------
        >>> loader = DataLoader([10, 20, 30])
        >>> [loader.ended for batch in loader]
        [False, False, True]
        """
        return self._place["next"] >= len(self)

    def __iter__(self) -> Iterator[Any]:
        resume, self._resume = self._resume, None
        place = dict(resume or {})  # its own: a copy of the loader may begin there, too
        if not place:
            order = generator(self.rng).permutation(self._n) if self.shuffle else None
            place = {"order": order, "next": 0}
        self._place = place
        return self._batches(place)

    def _batches(self, place: dict[str, Any]) -> Iterator[Any]:
        """The rest of the epoch that `place` belongs to."""
        order, size = place["order"], self.batchsize
        for i in range(place["next"], len(self)):
            place["next"] = i + 1
            rows = slice(i * size, (i + 1) * size)
            if order is None:
                batch = treemap(operator.itemgetter(rows), self.data)
            else:
                batch = treemap(operator.methodcaller("take", order[rows], 0), self.data)
            if self.collate is not None:
                count = min(size, self._n - rows.start)
                batch = self.collate([treemap(operator.itemgetter(k), batch) for k in range(count)])
            yield batch

    def state(self) -> dict[str, Any]:
        """Return where the latest iteration is, and the state of the loader's own Generator.

        Together with the default generator's state this lets a checkpoint go on in mid-epoch.

        Returns
        -------
        dict
            `order` (the permutation, an array of ints, or None), `next` (the number of the next
            batch, from 0), `rng` (the state as NumPy gives it, or None), and what the number of a
            batch depends on: `observations`, `batchsize`, `partial`.

        Examples
        --------
        >>> loader = DataLoader([10, 20, 30])
        >>> for batch in loader:
        ...     break
        >>> loader.state()["next"]
        1
        """
        order = self._place["order"]
        return {
            "order": None if order is None else order.copy(),
            "next": self._place["next"],
            "rng": None if self.rng is None else self.rng.bit_generator.state,
            "observations": self._n,
            "batchsize": self.batchsize,
            "partial": self.partial,
        }

    def restore_(self, state: dict[str, Any]) -> None:
        """Go back to a `state()`: the next iteration gives the rest of that epoch.

        If the epoch was over, the next iteration is a new one.

        Raises
        ------
        ValueError
            If the state belongs to a loader with other data or options.

        Examples
        --------
        >>> loader = DataLoader([10, 20, 30])
        >>> loader.restore_({"order": None, "next": 1, "rng": None})
        >>> [batch.tolist() for batch in loader]
        [[20], [30]]
        """
        if not isinstance(state, dict) or not {"order", "next", "rng"} <= state.keys():
            raise TypeError(f"the state must be what state() returned; got {shown(state)}")
        order, at = state["order"], as_integer(state["next"], "restore_: next", least=0)
        order = None if order is None else np.array(as_array(order, "restore_: order"))
        if order is not None and (order.ndim != 1 or order.dtype.kind not in "iu"):
            raise TypeError(f"the order in the state must be whole numbers; got {shown(order)}")
        begun = at < len(self)
        fits = {
            "number of batches": at <= len(self),
            "shuffle": not begun or (order is not None) == self.shuffle,
            "number of observations": (
                (order is None or np.array_equal(np.sort(order), np.arange(self._n)))
                and state.get("observations", self._n) == self._n  # older states do not tell
            ),
            "batchsize": state.get("batchsize", self.batchsize) == self.batchsize,
            "partial": state.get("partial", self.partial) == self.partial,
            "rng": (state["rng"] is None) == (self.rng is None),
        }
        if not all(fits.values()):
            wrong = " and ".join(name for name, good in fits.items() if not good)
            raise ValueError(
                f"the state is from a loader with another {wrong} than {self!r}; "
                "it can only be restored into one that was made alike"
            )
        if self.rng is not None:
            self.rng.bit_generator.state = state["rng"]
        self._place = {"order": order, "next": at}
        self._resume = dict(self._place) if begun else None

    def __repr__(self) -> str:
        options = [f"batchsize={self.batchsize}"]
        options += ["shuffle=True"] * self.shuffle + ["partial=False"] * (not self.partial)
        if self.collate is not None:
            options.append(f"collate={getattr(self.collate, '__name__', self.collate)}")
        return f"DataLoader({_outline(self.data)}, {', '.join(options)})"


def _outline(data: Any) -> str:
    """The data as one reads it: dtypes and shapes in the place of the arrays."""
    if isinstance(data, dict):
        return "{" + ", ".join(f"{key!r}: {_outline(data[key])}" for key in data) + "}"
    if isinstance(data, tuple):
        names = [f"{name}=" for name in getattr(data, "_fields", ())] or [""] * len(data)
        inner = ", ".join(name + _outline(entry) for name, entry in zip(names, data))
        comma = "," if len(data) == 1 and not names[0] else ""
        return f"{type(data).__name__ if names[0] else ''}({inner}{comma})"
    return f"{data.dtype}({', '.join(map(str, data.shape))})"


class ncycle:
    """Go through `data` `n` times; a loader that shuffles does so anew each time.

    Parameters
    ----------
    data : iterable
        A list, a `DataLoader`, ...
    n : int
        How often, at least 0.

    Raises
    ------
    TypeError, ValueError
        If `data` is not iterable or `n` not an integer of at least 0; if `data` is a generator or
        another iterator, which is empty after the first time, and `n` is above 1.

    Examples
    --------
    >>> list(ncycle([(1, 2), (3, 4)], 2))
    [(1, 2), (3, 4), (1, 2), (3, 4)]
    """

    def __init__(self, data: Iterable[Any], n: int):
        # A loader that is asked for an iterator begins an epoch.
        if not isinstance(data, DataLoader) and not np.iterable(data):
            raise TypeError(
                f"ncycle: data is {shown(data)}, but it must be something to go through"
            )
        self.data = data
        self.n = as_integer(n, "ncycle: n", least=0)
        if isinstance(data, Iterator) and self.n > 1:
            raise ValueError(
                f"ncycle: data is an iterator ({type(data).__name__}), which is empty after its "
                f"first use, so it cannot be used {self.n} times; make a list of it"
            )

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.n):
            yield from self.data

    def __len__(self) -> int:
        return self.n * len(self.data)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return f"ncycle({self.data!r}, {self.n})"

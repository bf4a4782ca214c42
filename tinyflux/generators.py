"""Where random numbers come from: NumPy Generators, and one default that `seed_` resets.

Every function that draws takes `rng=` and hands it to `generator`. NumPy's own global state
(`np.random.seed`, `np.random.rand`) is neither used nor changed.
"""

from __future__ import annotations

import math
import os
import threading
from typing import Any

import numpy as np

from .checks import as_integer, shown

__all__ = ["generator", "seed_"]

# Made when it is first asked for. A dict is changed in one go, so threads need no lock, which an
# exception at a bad moment (Ctrl-C) could leave locked for good.
_default: dict[str, np.random.Generator] = {}
_forking = threading.local()  # per thread, while it forks: where the child starts
_spawning = threading.Lock()


def generator(rng: np.random.Generator | int | None = None) -> np.random.Generator:
    """Return the Generator that `rng` stands for.

    Parameters
    ----------
    rng : numpy.random.Generator, int or None
        A Generator is returned as it is. An int is the seed of a new one. None stands for the
        default of this process: seeded by `seed_`, otherwise from the entropy of the operating
        system. Ask for the default whenever you draw, instead of keeping it: `seed_` replaces it.

    Raises
    ------
    TypeError
        If `rng` is anything else, the older `np.random.RandomState` included.
    ValueError
        If `rng` is a negative int.

    Notes
    -----
    Threads may draw from the default at once; which of them gets which numbers is up to them. After
    a `fork` the child draws from a stream of its own: the k-th child of a process has the k-th
    stream spawned from the parent's seed. So no two processes draw the same numbers, unless
    `seed_` makes them, and a seeded program that forks repeats itself all the same. A process
    that is not forked but started anew begins unseeded.

    Examples
    --------
    >>> a, b = generator(7), generator(7)
    >>> a.integers(100, size=3).tolist() == b.integers(100, size=3).tolist()
    True
    >>> generator(a) is a
    True
    """
    if isinstance(rng, np.random.Generator):
        return rng
    if rng is not None:
        try:
            return np.random.default_rng(as_integer(rng, "rng", least=0, most=math.inf))
        except TypeError:
            raise TypeError(
                f"rng is {shown(rng)}, but it must be a numpy.random.Generator, "
                "a seed (an integer of at least 0) or None; np.random.default_rng(seed) makes one"
            ) from None
    default = _default.get("rng")
    return _default.setdefault("rng", np.random.default_rng()) if default is None else default


def seed_(n: int) -> None:
    """Start the default generator anew from the seed `n`.

    Parameters
    ----------
    n : int
        The seed, at least 0.

    Raises
    ------
    TypeError, ValueError
        If `n` is not an integer, or negative.

    Examples
    --------
    >>> seed_(1)
    >>> first = generator().random()
    >>> seed_(1)
    >>> generator().random() == first
    True
    """
    _default["rng"] = np.random.default_rng(as_integer(n, "seed_: n", least=0, most=math.inf))


def _before_fork() -> None:
    """Lay out a stream for the child; two threads that fork at once lay out two."""
    with _spawning:
        _forking.heir = _spawn(_default["rng"]) if _default else None


def _spawn(rng: np.random.Generator) -> np.random.SeedSequence:
    """The next child of the sequence that `rng` was seeded with."""
    seeds: Any = rng.bit_generator.seed_seq
    return seeds.spawn(1)[0]


def _after_fork_in_child() -> None:  # pragma: no cover - in a child no tracer follows
    """Take up the child's own stream.

    The inherited generator has a lock of its own, which a thread of the parent may have held when
    the process was forked; that is one more reason not to go on with it.
    """
    global _spawning
    _spawning = threading.Lock()
    _default.clear()
    if _forking.heir is not None:
        _default["rng"] = np.random.default_rng(_forking.heir)


if hasattr(os, "register_at_fork"):  # pragma: no branch - not where nothing forks (Windows)
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)

"""Is it time to stop? Three triggers that answer, and a callback that acts on it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..atomic import fill
from ..checks import as_callable, as_flag, as_integer, as_number, as_real, shown
from ..walking import named_tensors
from .steering import stop

__all__ = ["early_stopping", "patience", "plateau", "stop_early"]


def patience(predicate: Callable[..., Any], wait: int) -> Callable[..., bool]:
    """Make a trigger: True once `predicate` has held in `wait` calls in a row.

    Parameters
    ----------
    predicate : callable
        Gets the arguments of the trigger.
    wait : int
        At least 0; 0 makes a trigger that is always True.

    Returns
    -------
    callable
        It stays True as long as the predicate goes on to hold.

    Raises
    ------
    TypeError, ValueError
        If `predicate` is not callable or `wait` not an integer of at least 0.

    Examples
    --------
    >>> low = patience(lambda score: score < 1, 2)
    >>> [low(score) for score in (0, 5, 0, 0, 0)]
    [False, False, False, True, True]
    """
    as_callable(predicate, "patience: predicate")
    wait = as_integer(wait, "patience: wait", least=0)
    count = 0

    def trigger(*args: Any, **kwargs: Any) -> bool:
        nonlocal count
        held = predicate(*args, **kwargs)
        if getattr(held, "ndim", 0):
            raise TypeError(f"patience: predicate returned {shown(held)}; wanted True or False")
        count = count + 1 if held else 0
        return count >= wait

    trigger.answers = True  # type: ignore[attr-defined]  # as a callback nobody would listen
    return trigger


def _drop(best: Any, score: Any) -> float:
    """How much `score` is below `best`; of floats, since NumPy's inf - inf would warn."""
    return as_number(best, "the best score") - as_number(score, "the score")


def early_stopping(
    f: Callable[..., Any],
    delay: int,
    *,
    distance: Callable[[Any, Any], Any] = _drop,
    init_score: Any = math.inf,
    min_dist: float = 0,
) -> Callable[..., bool]:
    """Make a trigger: True once the score has failed to improve `delay` times in a row.

    Parameters
    ----------
    f : callable
        Gives the score; gets the arguments of the trigger.
    delay : int
        At least 0.
    distance : callable
        `distance(best, score)` is the improvement: `best - score` unless told, so lower is better.
        Where higher is better: `distance=lambda best, score: score - best, init_score=-np.inf`.
    init_score : object
        The best score before the first.
    min_dist : float
        An improvement below this one counts as none. At 0 a score equal to the best is good enough;
        see `plateau`.

    Raises
    ------
    TypeError, ValueError
        If `f` is not callable or `delay` not an integer of at least 0.

    Notes
    -----
    As in Flux 0.12, but for `init_score`, which is infinite as since Flux 0.16.8 (with 0 every
    positive loss is "no improvement"), and NaN, which is never an improvement and never the best.

    Examples
    --------
    >>> losses = iter([3.0, 2.0, 2.5, 2.2, 1.0])
    >>> trigger = early_stopping(lambda: next(losses), 2)
    >>> [trigger() for _ in range(5)]
    [False, False, False, True, False]
    """
    stuck = _no_gain("early_stopping", f, distance, init_score, min_dist, float)
    return patience(stuck, as_integer(delay, "early_stopping: delay", least=0))


def plateau(
    f: Callable[..., Any],
    width: int,
    *,
    distance: Callable[[Any, Any], Any] = _drop,
    init_score: Any = math.inf,
    min_dist: float = 1e-6,
) -> Callable[..., bool]:
    """Make a trigger: True once the score has stood still `width` times in a row.

    Parameters
    ----------
    f : callable
        Gives the score; gets the arguments of the trigger.
    width : int
        At least 0.
    distance : callable
        `distance(last, score)`, whose absolute value counts; `last - score` unless told.
    init_score : object
        The score before the first.
    min_dist : float
        A smaller distance counts as none.

    Raises
    ------
    TypeError, ValueError
        If `f` is not callable or `width` not an integer of at least 0.

    Notes
    -----
    A NaN score counts as not moving, and the one after it is compared with the one before it.

    Examples
    --------
    >>> losses = iter([3.0, 2.0, 2.0, 2.0, 1.0])
    >>> trigger = plateau(lambda: next(losses), 2)
    >>> [trigger() for _ in range(5)]
    [False, False, False, True, False]
    """
    flat = _no_gain("plateau", f, distance, init_score, min_dist, abs)
    return patience(flat, as_integer(width, "plateau: width", least=0))


def _no_gain(
    who: str,
    f: Callable[..., Any],
    distance: Callable[[Any, Any], Any],
    known: Any,
    min_dist: float,
    size: Callable[[float], float],
) -> Callable[..., bool]:
    """A predicate: whether the `size` of the distance from the `known` score is below `min_dist`.

    The score becomes the known one, unless the size is negative or NaN.
    """
    as_callable(f, f"{who}: f")
    as_callable(distance, f"{who}: distance")
    min_dist = as_real(min_dist, f"{who}: min_dist", least=-math.inf)
    if distance is _drop:
        as_number(known, f"{who}: init_score")

    def no_gain(*args: Any, **kwargs: Any) -> bool:
        nonlocal known
        score = f(*args, **kwargs)
        gain = size(as_number(distance(known, score), f"{who}: the distance"))
        if gain >= 0:
            known = score
        return not gain >= min_dist  # also where the gain is NaN

    return no_gain


def _tensors(ps: Any) -> list[Any]:
    """The parameters in a list of them, or all that a model has: its buffers, too."""
    given = []
    for p in ps if np.iterable(ps) else [ps]:
        if isinstance(p, np.ndarray) or not isinstance(getattr(p, "data", None), np.ndarray):
            break
        given.append(p)
    else:
        return given
    found = [t for _, t in named_tensors(ps)]
    if not found:
        raise TypeError(f"stop_early: ps holds {shown(p)}; write params(model), or the model")
    return found


class stop_early:
    """A callback that stops when `f` has not got below its best for `delay` calls.

    Parameters
    ----------
    f : callable
        Gives the score, lower being better; takes nothing, or the state of training.
    delay : int
        At least 1.
    ps : Params or model
        What is put back: the parameters, or of a model all that it keeps, also the running
        statistics of a BatchNorm.
    restore : bool
        True puts back the parameters of the best call at the end, in place: when this callback
        stops the training as well as when the training ends by itself.

    Attributes
    ----------
    best : float
        The best score; infinite before the first.

    Raises
    ------
    TypeError, ValueError
        If `f` is not callable or `delay` not an integer of at least 1.

    Notes
    -----
    An equal score is no improvement, and NaN is none. If no score was finite, nothing is put back.
    The end of training is that of one `train_`: give it `epochs=`, rather than calling it in a
    loop, if it shall not go back to the best parameters after every epoch.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> p = SimpleNamespace(data=np.zeros(1))
    >>> watch = stop_early(lambda: abs(p.data[0] - 2), 5, [p])
    >>> for _ in range(4):
    ...     p.data += 1
    ...     watch()
    >>> watch.flush()
    >>> p.data
    array([2.])
    """

    def __init__(
        self,
        f: Callable[..., Any],
        delay: int,
        ps: Any,
        restore: bool = True,
    ):
        as_callable(f, "stop_early: f")
        functools.update_wrapper(self, f, updated=())  # the loop asks for the signature
        self.f = f
        self.delay = as_integer(delay, "stop_early: delay", least=1)
        self.ps = _tensors(ps)
        self.restore = as_flag(restore, "stop_early: restore")
        self.best = math.inf
        self._kept: list[np.ndarray] = []
        self._stuck = 0

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        score = as_number(self.f(*args, **kwargs), "stop_early: the score")
        if score < self.best:
            kept = [p.data.copy() for p in self.ps] if self.restore else []
            self.best, self._stuck, self._kept = score, 0, kept  # in one line: they belong together
            return
        self._stuck += 1
        if self._stuck >= self.delay:
            self.flush()
            stop()

    def flush(self) -> None:
        """Put back the parameters of the best call, if `restore`; `train_` calls it at its end."""
        fill([p.data for p in self.ps], self._kept)

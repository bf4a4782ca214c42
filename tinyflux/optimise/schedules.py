"""Schedules of the learning rate, or of any other field: functions s(t) of the step t = 1, 2, ...

A schedule knows no optimiser: `Scheduler` (in `scheduler.py`) brings the two together.

The formulas are those of ParameterSchedulers.jl, which go with Flux.
"""

from collections.abc import Callable, Iterator
from itertools import count
from math import asin, ceil, cos, inf, isfinite, pi, sin
from typing import Annotated, Any

import numpy as np

from ..checks import LARGEST, as_number, as_real, brief, shown
from ..errors import FluxError
from .fields import Declared, Flag, Law, Period, Positive, Unit, as_whole


def as_step(t: Any, name: str) -> Any:
    """`t` as a number of steps, which may be a fraction."""
    number = as_real(t, name, least=1)
    if number > LARGEST:
        raise ValueError(f"{name} is {brief(t)}, but it must be a number below 2**63")
    return int(number) if number.is_integer() else number


class ScheduleOver(FluxError, ValueError):
    """A schedule of so many steps was asked for one behind them."""


class Schedule(Declared):
    """Base of the schedules: `s(t)` is the value of step t = 1, 2, ...; iterating yields them all.

    A schedule of your own defines `at(t)`, which is called with a `t` that is checked.

    Raises
    ------
    TypeError, ValueError
        If t is no number of at least 1, or there is no finite value at that step.

    Examples
    --------
    >>> from itertools import islice
    >>> list(islice(Step(1.0, decay=0.5, step_sizes=2), 5))
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """

    def __call__(self, t: int) -> float:
        who = type(self).__name__
        if type(t) is not int or not 1 <= t <= LARGEST:
            t = as_step(t, f"{who}: the step t")
        try:
            value = self.at(t)
        except (OverflowError, ZeroDivisionError):
            value = inf
        if isinstance(value, complex) or (isinstance(value, float) and not isfinite(value)):
            raise ValueError(f"{who}: {brief(self)} has no finite value at step {t}")
        return value

    def at(self, t: int) -> float:
        """The value at step `t`, a number of at least 1."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[float]:
        return map(self, count(1))


def _stages(value: Any) -> int | tuple[int, ...]:
    whole = isinstance(value, (list, tuple)) or getattr(value, "ndim", False)
    return tuple(map(as_whole, value)) if whole else as_whole(value)


Stages = Annotated[
    Any, Law(_stages, lambda v: np.size(v) > 0 and np.min(v) >= 1, "steps >= 1, a number or a list")
]


Function = Annotated[Any, Law(lambda s: s, callable, "a schedule, or any function of the step")]
Given = Annotated[
    Any,
    Law(
        lambda v: None if v is None else as_number(v, "value"),
        lambda v: v is None or isfinite(v),
        "a finite number, or None",
    ),
]


class Constant(Schedule):
    """The same value at every step.

    Examples
    --------
    >>> Constant(0.1)(7)
    0.1
    """

    value: float

    def at(self, t: int) -> float:
        return self.value


class Step(Schedule):
    """start * decay**(completed stages); a single `step_sizes` repeats for ever, a list ends.

    Examples
    --------
    >>> [Step(1.0, 0.5, [2, 1])(t) for t in range(1, 6)]
    [1.0, 1.0, 0.5, 0.25, 0.25]
    """

    start: float
    decay: float
    step_sizes: Stages

    def at(self, t: int) -> float:
        if isinstance(self.step_sizes, int):
            return self.start * self.decay ** ((t - 1) // self.step_sizes)
        left, done = t - 1, 0
        for size in self.step_sizes:
            left, done = left - size, done + (left >= size)
        return self.start * self.decay**done


class Exp(Schedule):
    """start * decay**(t - 1).

    Examples
    --------
    >>> Exp(1.0, decay=0.5)(3)
    0.25
    """

    start: float
    decay: float

    def at(self, t: int) -> float:
        return self.start * self.decay ** (t - 1)


class Poly(Schedule):
    """start * (1 - (t - 1) / max_iter)**degree, for t up to max_iter.

    Examples
    --------
    >>> Poly(1.0, degree=2, max_iter=10)(6)
    0.25
    """

    start: float
    degree: float
    max_iter: Period

    def at(self, t: int) -> float:
        _within(self, t, self.max_iter)
        return self.start * (1 - (t - 1) / self.max_iter) ** self.degree


class Inv(Schedule):
    """start / (1 + (t - 1) * decay)**degree.

    Examples
    --------
    >>> Inv(1.0, decay=1.0, degree=2)(3)
    0.1111111111111111
    """

    start: float
    decay: float
    degree: float

    def at(self, t: int) -> float:
        return self.start / (1 + (t - 1) * self.decay) ** self.degree


class Triangle(Schedule):
    """From the smaller of l0 and l1 up to the larger and down again, straight, in one period.

    min(l0, l1) + abs(l0 - l1) * 2 / pi * abs(asin(sin(pi * (t - 1) / period))).

    Examples
    --------
    >>> [round(Triangle(0.0, 1.0, period=4)(t), 9) for t in range(1, 6)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    l0: float
    l1: float
    period: Positive

    def at(self, t: int) -> float:
        return _between(self, 2 / pi * abs(asin(sin(_angle(t - 1, self.period)))))


class Sin(Schedule):
    """min(l0, l1) + abs(l0 - l1) * abs(sin(pi * (t - 1) / period)).

    Examples
    --------
    >>> Sin(0.0, 1.0, period=2)(2)
    1.0
    """

    l0: float
    l1: float
    period: Positive

    def at(self, t: int) -> float:
        return _between(self, abs(sin(_angle(t - 1, self.period))))


class CosAnneal(Schedule):
    """From the larger of l0 and l1 down to the smaller along a cosine, anew after each period.

    min(l0, l1) + abs(l0 - l1) * (1 + cos(pi * s / period)) / 2, where s is (t - 1) mod period; with
    `restart=False` it is t - 1.

    Loshchilov & Hutter (2017), "SGDR: stochastic gradient descent with warm restarts", eq. 5.

    Examples
    --------
    >>> [round(CosAnneal(0.0, 1.0, period=4)(t), 3) for t in range(1, 6)]
    [1.0, 0.854, 0.5, 0.146, 1.0]
    """

    l0: float
    l1: float
    period: Positive
    restart: Flag = True

    def at(self, t: int) -> float:
        at = (t - 1) % self.period if self.restart else t - 1
        return _between(self, (1 + cos(_angle(at, self.period))) / 2)


class OneCycle(Schedule):
    """Up to maxval along a cosine in the first part of nsteps, then down to nearly 0 along another.

    With up = ceil(percent_start * nsteps):
    startval + (maxval - startval) * (1 - cos(pi * (t - 1) / up)) / 2 for t <= up, and behind that
    endval + (maxval - endval) * (1 + cos(pi * (t - 1 - up) / (nsteps - up))) / 2.

    Parameters
    ----------
    nsteps : int
        How many steps there are; one more is an error.
    maxval : float
        The largest value.
    startval, endval : float, optional
        The first value, and the one behind the last: maxval / 25 and maxval / 1e5.
    percent_start : float
        The part of the steps on the way up, from 0 to 1.

    Notes
    -----
    Smith & Topin (2019), "Super-convergence: very fast training of neural networks using large
    learning rates".

    Examples
    --------
    >>> [round(OneCycle(8, maxval=1.0)(t), 3) for t in (1, 2, 3, 5, 8)]
    [0.04, 0.52, 1.0, 0.75, 0.067]
    """

    nsteps: Period
    maxval: float
    startval: Given = None
    endval: Given = None
    percent_start: Unit = 0.25

    def at(self, t: int) -> float:
        _within(self, t, self.nsteps)
        top, up = self.maxval, ceil(self.percent_start * self.nsteps)
        low = top / 25 if self.startval is None else self.startval
        end = top / 1e5 if self.endval is None else self.endval
        if t <= up:
            return low + (top - low) * (1 - cos(pi * (t - 1) / up)) / 2
        return end + (top - end) * (1 + cos(pi * (t - 1 - up) / (self.nsteps - up))) / 2


class Loop(Schedule):
    """schedule(1), ..., schedule(period), and from the beginning again.

    Examples
    --------
    >>> [Loop(Exp(1.0, 0.5), 2)(t) for t in (1, 2, 3)]
    [1.0, 0.5, 1.0]
    """

    schedule: Function
    period: Period

    def at(self, t: int) -> float:
        return self.schedule((t - 1) % self.period + 1)


class Sequence(Schedule):
    """Schedules one after the other, each from its t = 1: pairs of a schedule and its steps.

    The last one goes on past its end.

    Examples
    --------
    >>> warm_up = Sequence((Constant(0.01), 2), (Exp(0.1, 0.5), 10))
    >>> [warm_up(t) for t in (1, 2, 3, 4)]
    [0.01, 0.01, 0.1, 0.05]
    """

    def __init__(self, *stages: tuple[Callable[[int], float], int]) -> None:
        if not stages:
            raise TypeError("Sequence: got no stage; wanted pairs such as (Exp(0.1, 0.5), 10)")
        for stage in stages:
            if not (isinstance(stage, (tuple, list)) and len(stage) == 2 and callable(stage[0])):
                raise TypeError(
                    f"Sequence: got {shown(stage)}; wanted a pair of a schedule and its steps, "
                    "such as (Exp(0.1, 0.5), 10)"
                )
        steps = [as_real(n, "Sequence: the steps of a stage") for _, n in stages]
        for n in steps:
            if not n.is_integer() and isfinite(n):
                raise ValueError(f"Sequence: the steps of a stage are {n}; wanted a whole number")
        whole = [int(n) if isfinite(n) else n for n in steps]
        schedules = [schedule for schedule, _ in stages]
        self._stages = tuple(zip(schedules, whole, strict=True))

    def at(self, t: int) -> float:
        for schedule, steps in self._stages[:-1]:
            if t <= steps:
                return schedule(t)
            t -= int(steps)
        return self._stages[-1][0](t)

    def __repr__(self) -> str:
        return f"Sequence({', '.join(map(repr, self._stages))})"


def _between(s: Any, fraction: float) -> float:
    return min(s.l0, s.l1) + abs(s.l0 - s.l1) * fraction


def _angle(t: float, period: float) -> float:
    """How far round the circle t is, where a period is half of it."""
    angle = pi * t / period
    if not isfinite(angle):
        raise OverflowError
    return angle


def _within(s: Schedule, t: int, last: int) -> None:
    if t > last:
        raise ScheduleOver(f"{s!r} ends at step {last}; got step {t}.")

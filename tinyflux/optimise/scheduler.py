"""`Scheduler`: a schedule and an optimiser brought together, as a callback of training or by hand.

>>> from tinyflux.optimise import SGD
>>> from tinyflux.optimise.schedules import Exp
>>> opt = SGD(0.1)
>>> advance = Scheduler(opt, Exp(0.1, decay=0.5))
>>> for step in range(3):
...     print(opt.lr)
...     advance()
0.1
0.05
0.025
"""

from collections.abc import Callable
from typing import Any

from ..checks import as_callable, brief, shown
from .schedules import ScheduleOver


class Scheduler:
    """Sets a field of an optimiser (or of a rule in a chain) to schedule(t), with t = 1 at once.

    Each call goes on to the next t; made for `cb=`. Behind the last step of a schedule that ends
    (OneCycle, Poly) it may be called once; that another step was made is an error.

    Parameters
    ----------
    opt : UpdateRule
        Whose field is set: `opt`, or in a chain `opt[1]`.
    schedule : callable
        s(t); any function of t = 1, 2, ... will do.
    field : str
        Which field.

    Examples
    --------
    >>> from tinyflux.optimise import ADAM, ClipNorm, Optimiser
    >>> from tinyflux.optimise.schedules import OneCycle
    >>> opt = Optimiser(ClipNorm(1.0), ADAM())
    >>> cb = Scheduler(opt[1], OneCycle(1000, maxval=0.01))
    >>> opt
    Optimiser(ClipNorm(threshold=1.0), ADAM(lr=0.0004))
    """

    def __init__(self, opt: Any, schedule: Callable[[int], float], field: str = "lr") -> None:
        if not isinstance(field, str) or not hasattr(opt, field) or isinstance(opt, type):
            raise TypeError(
                f"Scheduler: {shown(opt)} has no field {brief(field)}; wanted a rule such as "
                "ADAM(), or the place in a chain, as in Scheduler(opt[1], schedule)"
            )
        as_callable(schedule, "Scheduler: schedule")
        self.opt, self.schedule, self.field, self.t = opt, schedule, field, 0
        self.over = False
        self()

    def __call__(self) -> None:
        try:
            value = self.schedule(self.t + 1)
        except ScheduleOver:
            if self.over or not self.t:
                raise
            self.over = True  # it is an error only if another step is made
            return
        setattr(self.opt, self.field, value)
        self.over = False
        self.t += 1  # not before: a value that is refused is no step

    def __repr__(self) -> str:
        return f"<Scheduler of {self.field!r} of {self.opt!r}, t = {self.t}: {self.schedule!r}>"

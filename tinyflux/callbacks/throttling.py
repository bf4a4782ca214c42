"""`throttle`: look often, but act seldom."""

from __future__ import annotations

import functools
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from ..checks import as_callable, as_flag, as_real

__all__ = ["throttle"]


class throttle:
    """Wrap `f` so that it runs at most once every `timeout` seconds, however often it is called.

    Parameters
    ----------
    f : callable
        What to call; all arguments are passed on.
    timeout : float
        Seconds from the end of one run to the earliest start of the next; 0 and infinity are fine.
    leading : bool
        True runs `f` at once when nothing has run for `timeout` seconds.
    trailing : bool
        True remembers the latest call that came too early, and makes up for it when it is due.

    Raises
    ------
    TypeError
        If `f` is not callable or `timeout` not a number.
    ValueError
        If `timeout` is negative or NaN.

    Notes
    -----
    A call returns the value of the last run that was completed, None before. If `f` raises, so does
    the call, and the next call may run at once. Calls that come while `f` is running (from another
    thread, or from `f` itself) come too early.

    The modes are those of Flux 0.12; with neither `leading` nor `trailing` the *first* call of a
    window runs at its end. But Flux has a timer, and here there is no thread: a call that has
    become due runs when the next one comes, or in `flush()`, which `train_` calls at its end. For
    `timeout=2` and calls with the time as argument:

    ================  ==================  ===========================================
    mode              calls at            runs at (argument)
    ================  ==================  ===========================================
    leading           0, 1, 2.1, 3        0 (0), 2.1 (2.1)
    trailing          0, 0.5, 1, 2.5      2.5 (1); the call at 2.5 is due at 4.5
    both              0, 0.5, 1, 2.5      0 (0), 2.5 (1); the call at 2.5 is due at 4.5
    neither           0, 0.5, 1, 2.5      2.5 (0)
    ================  ==================  ===========================================

    (Flux runs the last three at 2.) The clock is `time.monotonic`, which does not jump when
    somebody sets the time. A copy or a pickle starts afresh.

    Examples
    --------
    >>> look = throttle(print, 60)
    >>> for step in range(1000):
    ...     look("step", step)
    step 0
    """

    def __init__(
        self,
        f: Callable[..., Any],
        timeout: float,
        *,
        leading: bool = True,
        trailing: bool = False,
    ):
        as_callable(f, "throttle: f")
        # The loop asks for the signature, to learn whether to pass the state: show that of f.
        functools.update_wrapper(self, f, updated=())
        self.f = f
        self.answers = getattr(f, "answers", False)  # a trigger stays one
        self.timeout = as_real(timeout, "throttle: timeout")
        self.leading = as_flag(leading, "throttle: leading")
        self.trailing = as_flag(trailing, "throttle: trailing")
        self._opens = -math.inf
        self._result: Any = None
        self._later: deque[tuple[tuple[Any, ...], dict[str, Any]]] = deque(maxlen=1)
        self._running = threading.Lock()  # never waited for: who finds it taken came too early

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._running.acquire(blocking=False):
            self._postpone(args, kwargs)
            return self._result
        try:
            if time.monotonic() < self._opens:
                self._postpone(args, kwargs)
            elif self._later:
                self._run(*self._later.pop())
                self._postpone(args, kwargs)
            elif self.leading:
                self._run(args, kwargs)
            else:
                self._later.append((args, kwargs))
                self._opens = time.monotonic() + self.timeout
            return self._result
        finally:
            self._running.release()

    def _postpone(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Remember a call that came too early, in the place of the one before it, or drop it."""
        if self.trailing:
            self._later.append((args, kwargs))

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._opens = -math.inf  # so it stays if f raises
        self._result = self.f(*args, **kwargs)
        self._opens = time.monotonic() + self.timeout

    def flush(self) -> Any:
        """Run the postponed call, if there is one, without waiting; then flush `f` if it can be.

        Returns
        -------
        object
            The value of the last completed run.

        Examples
        --------
        >>> look = throttle(print, 60, trailing=True)
        >>> for step in range(1000):
        ...     look("step", step)
        step 0
        >>> look.flush()
        step 999
        """
        if self._later and self._running.acquire(blocking=False):
            try:
                self._run(*self._later.pop())
            finally:
                self._running.release()
        if hasattr(self.f, "flush"):
            self.f.flush()
        return self._result

    def __reduce__(self) -> tuple[Any, ...]:
        remake = functools.partial(throttle, leading=self.leading, trailing=self.trailing)
        return remake, (self.f, self.timeout)

    def __repr__(self) -> str:
        name = getattr(self.f, "__name__", repr(self.f))
        modes = f"leading={self.leading}, trailing={self.trailing}"
        return f"throttle({name}, {self.timeout:g}, {modes})"

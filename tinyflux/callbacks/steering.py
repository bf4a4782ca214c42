"""Steering the loop from inside: `stop`, `skip`, and `epochs`, which counts aloud."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NoReturn

from ..checks import as_callable, as_integer

__all__ = ["SkipDatum", "StopTraining", "epochs", "phase", "skip", "stop"]

phase: ContextVar[str | None] = ContextVar("tinyflux_phase", default=None)
"""What the training loop of this context is doing: None, "loss" or "callback"; the loop sets it."""


class StopTraining(Exception):
    """Ends the running `train_`, which catches it; raised by `stop`."""


class SkipDatum(Exception):
    """Leaves out the datum whose loss is being computed; caught by `train_`, raised by `skip`."""


def stop() -> NoReturn:
    """End the running `train_`, over all its epochs; to be called by a callback or the loss.

    From a callback the update of this step has already happened; from the loss it does not.

    Raises
    ------
    RuntimeError
        If nothing is being trained.

    Examples
    --------
    >>> stop()
    Traceback (most recent call last):
    RuntimeError: stop() ends the train_ that is running, but none is running here; ...
    """
    if phase.get() is None:
        raise RuntimeError(
            "stop() ends the train_ that is running, but none is running here; "
            "call it in a callback or in the loss, and in a loop of your own use break"
        )
    raise StopTraining


def skip() -> NoReturn:
    """Leave out this datum: no update, no callback; to be called by the loss.

    Raises
    ------
    RuntimeError
        If nothing is being trained, or in a callback, where the update has already happened.

    Examples
    --------
    >>> skip()
    Traceback (most recent call last):
    RuntimeError: skip() leaves out the datum whose loss train_ is computing, but none is; ...
    """
    if phase.get() == "callback":
        raise RuntimeError(
            "skip() was called in a callback, when the update with this datum has already been "
            "made; call it in the loss"
        )
    if phase.get() != "loss":
        raise RuntimeError(
            "skip() leaves out the datum whose loss train_ is computing, but none is; "
            "call it in the loss, and in a loop of your own use continue"
        )
    raise SkipDatum


def _info(line: str) -> None:
    print(f"[ Info: {line}")


def epochs(n: int, *, log: Callable[[str], Any] | None = _info) -> Iterator[int]:
    """Count from 1 to `n`, announcing each epoch before it begins.

    Parameters
    ----------
    n : int
        At least 0.
    log : callable or None
        Gets the line, "Epoch 1" and so on. It is printed after `[ Info: ` unless told, as Flux
        does; None is silent; `logging.getLogger(...).info` logs.

    Raises
    ------
    TypeError, ValueError
        If `n` is not an integer of at least 0.

    Examples
    --------
    >>> for epoch in epochs(2):
    ...     print("hello")
    [ Info: Epoch 1
    hello
    [ Info: Epoch 2
    hello
    """
    if log is not None:
        as_callable(log, "epochs: log")
    return _count(as_integer(n, "epochs: n", least=0), log)


def _count(n: int, log: Callable[[str], Any] | None) -> Iterator[int]:
    """The generator behind `epochs`, which checks its argument before the first step."""
    for i in range(1, n + 1):
        if log is not None:
            log(f"Epoch {i}")
        yield i

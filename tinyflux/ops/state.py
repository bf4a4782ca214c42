"""State that a function itself changes while it runs: running statistics."""

import numpy as np

from ..checks import as_array, as_real, numeric, real_array, shown
from ..errors import RecordingError
from ..tape import recording
from ..tensor import Tensor
from .random import Event, repeating


def buffer(data):
    """A Tensor that is saved with a model but never trained: the state of a layer.

    Parameters
    ----------
    data : array_like of float32, float64 or longdouble
        Copied.

    Returns
    -------
    Tensor
        Its `trainable` is None: `params` leaves it out, `freeze_` and `thaw_` change nothing.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> mean = flux.buffer(np.zeros(2))
    >>> flux.thaw_(mean)
    >>> len(flux.params(mean))
    0
    """
    t = Tensor(real_array(data, "buffer"))
    t.trainable = None
    return t


def follow(running, value, *, momentum):
    """running += momentum * (value - running), if the outcome is finite."""
    with np.errstate(over="ignore", under="ignore"):
        new = ((1 - momentum) * running + momentum * value).astype(running.dtype)
    if np.isfinite(new).all():
        running[...] = new
    return running


class Write(Event):
    """An operation whose purpose is what it writes to: its first operand."""


moving_average = Write("moving_average", follow, [None, None], samples=())


def moving_average_(running, value, momentum=0.1):
    """Let a buffer follow a value: running += momentum * (value - running), without gradient.

    What a layer notes of its inputs, such as the mean of a normalisation. In a compiled function it
    is done anew in every call, other than `self.mean = ...`.

    Parameters
    ----------
    running : Tensor
        Made by `buffer`, or frozen; its array is changed in place.
    value : array_like
        Of its shape. If the outcome is not finite, nothing is changed.
    momentum : float, default 0.1
        In [0, 1]: the weight of the new value.

    Raises
    ------
    TypeError, ValueError
        If `running` is no such Tensor, or the shapes differ.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> mean = flux.buffer(np.zeros(2))
    >>> flux.moving_average_(mean, np.array([1.0, 2.0]))
    >>> mean
    Tensor([0.1, 0.2])
    """
    if not isinstance(running, Tensor) or running.mark is not None or running.trainable:
        raise TypeError(
            f"moving_average_: a buffer or a frozen Tensor is wanted, got {shown(running)}"
        )
    momentum = as_real(momentum, "moving_average_: momentum", most=1)
    if not running._array.flags.writeable:
        raise ValueError("moving_average_: the array of the buffer is read-only")
    what = "moving_average_: the value"
    array = value._array if isinstance(value, Tensor) else numeric(as_array(value, what), what)
    if array.shape != running.shape:
        raise ValueError(f"{what} has shape {array.shape}; {running.shape} is wanted")
    tape = recording()
    if tape is not None and tape.tracing:
        tape.note(moving_average, (running, value), (running._array, array), {"momentum": momentum})
    elif isinstance(value, Tensor) and value.mark is not None and tape is None and value.mark.open:
        raise RecordingError("moving_average_: the value belongs to a recording of another thread")
    elif not repeating():
        follow(running._array, array, momentum=momentum)

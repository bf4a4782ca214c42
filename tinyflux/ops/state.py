"""State that a function itself changes while it runs: running statistics."""

import numpy as np

from ..checks import as_array, as_real, numeric, shown
from ..errors import RecordingError
from ..primitive import Operation
from ..tape import recording
from ..tensor import Tensor
from .random import repeating


def average(value, *, running, momentum):
    """running += momentum * (value - running), unless a value is not finite."""
    if np.isfinite(value).all():
        np.add(running, momentum * (value - running), out=running, casting="same_kind")
    return running


class Write(Operation):
    """An operation whose purpose is what it writes to: it is never left out."""

    writes = True


moving_average = Write("moving_average", average, [None], samples=())


def moving_average_(running, value, momentum=0.1):
    """Let an array follow a value: running += momentum * (value - running), without gradient.

    What a layer notes of its inputs, such as the mean of a normalisation. In a compiled function it
    is done anew in every call, other than `self.mean = ...`.

    Parameters
    ----------
    running : numpy.ndarray of float
        A plain array of the model, which `save` stores with it; it is changed in place.
    value : array_like
        Of its shape. If not all of it is finite, nothing is changed.
    momentum : float, default 0.1
        In [0, 1]: the weight of the new value.

    Raises
    ------
    TypeError, ValueError
        If `running` is no writeable array of floats, or the shapes differ.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> mean = np.zeros(2)
    >>> flux.moving_average_(mean, np.array([1.0, 2.0]))
    >>> mean
    array([0.1, 0.2])
    """
    if not isinstance(running, np.ndarray) or running.dtype.kind != "f":
        raise TypeError(f"moving_average_: a plain array of floats is wanted, got {shown(running)}")
    momentum = as_real(momentum, "moving_average_: momentum")
    if momentum > 1:
        raise ValueError(f"moving_average_: momentum is in [0, 1], got {momentum}")
    if not running.flags.writeable:
        raise ValueError("moving_average_: the array is read-only")
    what = "moving_average_: the value"
    array = value.data if isinstance(value, Tensor) else numeric(as_array(value, what), what)
    if array.shape != running.shape:
        raise ValueError(f"{what} has shape {array.shape}; {running.shape} is wanted")
    tape = recording()
    params = {"running": running, "momentum": momentum}
    if tape is not None and tape.tracing:
        tape.note(moving_average, value, array, params)
    elif isinstance(value, Tensor) and value.mark is not None and tape is None and value.mark.open:
        raise RecordingError("moving_average_: the value belongs to a recording of another thread")
    elif not repeating():
        average(array, **params)

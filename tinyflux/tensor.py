"""`Tensor`: an array that can stand on a tape.

A Tensor holds a NumPy array (`_array`) and nothing that can be computed with: it knows no
operation. Arithmetic reaches it from above (`operators.py`), NumPy's functions through the two
protocols that `protocols.py` attaches. There are two kinds:

* a **leaf**, made by you: a parameter, `Tensor(np.zeros(3))`. Its `mark` is None.
* a **recorded** value, made by an operation inside `gradient`. Its `mark` is that of the tape on
  which it stands; when the tape is closed, the value is an ordinary array in a wrapper.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .checks import real_array
from .errors import RecordingError


class Mark:
    """What the values of one tape have in common; `open` as long as that tape records."""

    open = True


class Tensor:
    """An array of real numbers that gradients can be taken with respect to.

    Parameters
    ----------
    data : array_like of float32, float64 or longdouble
        The values. They are copied, so that training never changes an array of yours.

    Attributes
    ----------
    data : numpy.ndarray
        The values themselves. Those of a parameter may be read and written freely, those of a
        recorded value may be read.
    trainable : bool or None
        False takes the Tensor out of `params(model)`, see `freeze_`; None for good, see `buffer`.

    Raises
    ------
    TypeError
        For integers, complex numbers, float16, masked arrays and what cannot be made an array.

    Notes
    -----
    Outside `gradient` a Tensor behaves like the array it holds, and every result is a plain array:
    `W -= step` makes W the name of one and leaves the Tensor as it was; write `W.data -= step`.
    Equality is elementwise, as in NumPy; in a dict or a set a Tensor counts by identity.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> W = flux.Tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> W @ np.ones(2)
    array([3., 7.])
    >>> flux.gradient(lambda: np.sum(W**2), flux.params(W))[W]
    array([[2., 4.],
           [6., 8.]])
    """

    __slots__ = ("__weakref__", "_array", "mark", "trainable")

    _array: Any  # what `data` shows to everybody else
    mark: Mark | None

    def __init__(self, data):
        self._array = np.array(real_array(data, "Tensor"), order="C")
        self.mark = None
        self.trainable = True

    shape = property(lambda self: self._array.shape, doc="The shape of the array.")
    ndim = property(lambda self: self._array.ndim, doc="The number of axes.")
    size = property(lambda self: self._array.size, doc="The number of elements.")
    dtype = property(lambda self: self._array.dtype, doc="The type of the elements.")

    def __repr__(self):
        text = repr(np.asarray(self._array)).removeprefix("array(").removesuffix(")")
        kind = ", recorded" if self.mark is not None else ""
        return "Tensor(" + text.replace("\n      ", "\n       ") + kind + ")"

    def __format__(self, spec):
        if spec and self._array.size != 1:
            raise TypeError(f"{spec!r} formats one number, not a Tensor of shape {self.shape}")
        return format(self._array if spec == "" else self.item(), spec)

    def __len__(self):
        return len(self._array)

    def __float__(self):
        return float(self._array)

    def __int__(self):
        return int(self._array)

    def __bool__(self):
        return bool(self._array)

    def item(self):
        """The single element as a Python number.

        Examples
        --------
        >>> import tinyflux as flux
        >>> flux.Tensor([2.5]).item()
        2.5
        """
        return self._array.item()

    def tolist(self):
        """The elements as nested lists of Python numbers.

        Examples
        --------
        >>> import tinyflux as flux
        >>> flux.Tensor([[1.0, 2.0]]).tolist()
        [[1.0, 2.0]]
        """
        return self._array.tolist()

    def numpy(self):
        """The values as a plain array, outside a gradient; inside, see `detach`.

        Examples
        --------
        >>> import tinyflux as flux
        >>> flux.Tensor([1.0, 2.0]).numpy()
        array([1., 2.])
        """
        return np.asarray(self)

    def __reduce__(self):
        if self.mark is not None and self.mark.open:
            raise RecordingError("a value that is being recorded cannot be copied or pickled")
        data = self._array if self.mark is None else np.array(self._array)  # that may be read-only
        return _restore, (data, getattr(self, "trainable", True))

    def __copy__(self):
        remake, (data, trainable) = self.__reduce__()
        return remake(data.copy(), trainable)

    if TYPE_CHECKING:  # attached from above, by operators.py and protocols.py
        data: Any

        def __getattr__(self, name: str) -> Any: ...

        __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __getattr__
        __truediv__ = __rtruediv__ = __matmul__ = __rmatmul__ = __getattr__
        __pow__ = __rpow__ = __mod__ = __lt__ = __le__ = __gt__ = __ge__ = __getattr__
        __getitem__ = __getattr__

        def __neg__(self) -> Any: ...


def wrapped(data, mark=None):
    """A Tensor of an array that is taken as it is, not copied: a leaf, or on the tape of `mark`."""
    t = new(Tensor)
    t._array = data
    t.mark = mark
    return t


def locked(t):
    """The array of a recorded value, from now on read-only: a way back may read it."""
    t._array.setflags(write=False)
    return t._array


new = object.__new__


def _restore(data, trainable):
    """A leaf again, from a pickle or a deep copy (the array is already nobody else's)."""
    t = wrapped(data)
    t.trainable = trainable
    return t

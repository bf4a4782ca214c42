"""Dropout."""

import numpy as np

from ..checks import as_array, is_whole, numeric, shown
from ..errors import ShapeError
from ..generators import generator
from ..ops.random import dropout_mask
from ..tensor import Tensor
from .modes import TwoModes, training
from .printing import constructor


class Dropout(TwoModes):
    """Sets elements to 0 with probability p while training, and scales the others by 1 / (1 - p).

    Parameters
    ----------
    p : float
        In [0, 1].
    axis : int or tuple of int, optional
        The axes along which the draws differ; along the others one draw serves for all.
    rng : numpy.random.Generator or int, optional

    Raises
    ------
    ValueError
        If `p` is not a probability.

    Notes
    -----
    Active while a gradient is taken; see `testmode_`. Source: Srivastava et al., "Dropout: a simple
    way to prevent neural networks from overfitting" (2014); scaled in training, as in Flux.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> flux.Dropout(0.5)(np.ones(3))
    array([1., 1., 1.])
    """

    def __init__(self, p, axis=None, *, rng=None):
        if not isinstance(p, (int, float, np.floating)) or isinstance(p, bool) or not 0 <= p <= 1:
            raise ValueError(f"Dropout: p is a probability, got {shown(p)}")
        self.p = p if isinstance(p, int) else float(p)
        if axis is not None and not all(is_whole(a) for a in listed(axis)):
            raise TypeError(
                f"Dropout: axis is a whole number or a tuple of them, got {shown(axis)}"
            )
        self.axis = axis
        self.rng = None if rng is None else generator(rng)

    def __call__(self, x):
        known = isinstance(x, Tensor) or (type(x) is np.ndarray and x.dtype.kind in "fiub")
        x = x if known else numeric(as_array(x, repr(self)), repr(self))
        if self.p == 0 or not training(self):
            return x
        shape = np.shape(x)
        if self.axis is not None:
            if not all(-len(shape) <= a < len(shape) for a in listed(self.axis)):
                raise ShapeError(repr(self), f"got x with shape {shape}, which has no such axis.")
            drawn = {a % len(shape) for a in listed(self.axis)}
            shape = tuple(n if i in drawn else 1 for i, n in enumerate(shape))
        dtype = np.result_type(x)
        dtype = dtype if dtype.kind == "f" else np.dtype(np.float64)
        return x * dropout_mask(rng=self.rng, shape=shape, p=self.p, dtype=dtype)

    def __repr__(self):
        return constructor(self, self.p, **({} if self.axis is None else {"axis": self.axis}))


def listed(axis):
    """One axis, or several, as a tuple."""
    return tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)

"""`Grads`: what the loss wants changed in the parameters."""

import math
from collections.abc import Mapping

import numpy as np

from .checks import as_array, as_callable, as_number, brief, numeric, shown
from .errors import NotAskedError
from .params import Params
from .tensor import Tensor

PLAIN = {np.ndarray, type(None)}
NUMERIC = (np.ndarray, np.generic, Tensor, int, float, type(None))


class Grads(Mapping):
    """The gradients of one call: a mapping from each parameter to an array, or to None.

    Parameters
    ----------
    params : Params, or iterable of Tensor
    arrays : list or tuple of numpy.ndarray or None
        One for each parameter, in their order.

    Raises
    ------
    NotAskedError
        (a KeyError) from `gs[W]` if `W` was not among the parameters.

    Notes
    -----
    `None` stands for a parameter that the loss does not depend on. The arrays are yours: they share
    memory with nothing, and what you change in them (clipping, say) the next `update_` uses.

    Arithmetic works parameter by parameter (`2 * gs`, `gs1 + gs2`, `-gs`, `gs / 3`), where None
    counts as zero; so does `gs.map(f)`. `gs.norm()` is the norm of all of them as one vector.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> w, unused = flux.Tensor([3.0, 4.0]), flux.Tensor(0.0)
    >>> gs = flux.gradient(lambda: 0.5 * np.sum(w**2), flux.Params([w, unused]))
    >>> gs[w], gs[unused], gs.norm()
    (array([3., 4.]), None, 5.0)
    >>> (2 * gs)[w]
    array([6., 8.])
    """

    __array_ufunc__ = None  # np.float64(2) * gs is ours
    __eq__, __hash__ = object.__eq__, object.__hash__  # by identity

    def __init__(self, params, arrays):
        # What becomes of the original does not concern the gradients.
        self.params = params.copy() if type(params) is Params else Params(params)
        if not isinstance(arrays, (list, tuple)):
            raise TypeError(f"Grads: arrays is {shown(arrays)}, but it must be a list of arrays")
        if not PLAIN.issuperset(map(type, arrays)):
            for g in arrays:
                if not isinstance(g, NUMERIC):
                    raise TypeError(f"Grads: got {shown(g)}; arrays of numbers or None are wanted")
        if len(arrays) != len(self.params):
            raise ValueError(f"Grads: got {len(arrays)} arrays for {len(self.params)} parameters")
        self._arrays = list(arrays)  # in the order of params

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Grads map parameters to arrays and are no array: use gs[W] or gs.values()")

    def __getitem__(self, t):
        for p, g in zip(self.params, self._arrays, strict=True):
            if p is t:
                return g
        if not isinstance(t, Tensor):
            raise NotAskedError(
                f"the gradient of a parameter W is gs[W], not gs[{brief(t)}]; in their order they "
                "are gs.values()"
            )
        raise NotAskedError(
            f"no gradient was asked for this array of shape {t.shape}; the gradients are those of "
            f"{self.params!r}. Add it to the parameters given to gradient."
        )

    def __setitem__(self, t, g):
        old = self[t]  # raises for an array that is not there
        if g is not None:
            g = numeric(as_array(g, "Grads"), "Grads")
            if g.shape != t.shape:
                raise ValueError(f"a gradient of shape {t.shape} is wanted, got {g.shape}")
        place = next(i for i, p in enumerate(self.params) if p is t)
        self._arrays[place] = (
            None if g is None else np.array(g, dtype=(t if old is None else old).dtype)
        )

    def __contains__(self, t):
        return t in self.params

    def __iter__(self):
        return iter(self.params)

    def __len__(self):
        return len(self.params)

    def values(self):
        """The arrays in the order of the parameters.

        Examples
        --------
        >>> import numpy as np, tinyflux as flux
        >>> w = flux.Tensor([3.0, 4.0])
        >>> flux.gradient(lambda: np.sum(w**2), flux.params(w)).values()
        [array([6., 8.])]
        """
        return list(self._arrays)

    def items(self):
        """Pairs of parameter and array.

        Examples
        --------
        >>> import numpy as np, tinyflux as flux
        >>> w = flux.Tensor([3.0, 4.0])
        >>> flux.gradient(lambda: np.sum(w**2), flux.params(w)).items()
        [(Tensor([3., 4.]), array([6., 8.]))]
        """
        return list(zip(self.params, self._arrays, strict=True))

    def map(self, f):
        """New Grads of `f(array)`; None stays None.

        Examples
        --------
        >>> import numpy as np, tinyflux as flux
        >>> w = flux.Tensor([3.0, 4.0])
        >>> gs = flux.gradient(lambda: np.sum(w**2), flux.params(w))
        >>> gs.map(lambda g: np.minimum(g, 7.0))[w]
        array([6., 7.])
        """
        as_callable(f, "Grads.map: f")
        return Grads(self.params, [None if g is None else f(g) for g in self._arrays])

    def norm(self):
        """The Euclidean norm of all gradients taken as one vector.

        Examples
        --------
        >>> import numpy as np, tinyflux as flux
        >>> w, b = flux.Tensor([3.0]), flux.Tensor(4.0)
        >>> flux.gradient(lambda: 0.5 * np.sum(w**2 + b**2), flux.params(w, b)).norm()
        5.0
        """
        parts = (g.astype(np.float64, copy=False) for g in self._arrays if g is not None)
        return math.hypot(*map(_length, parts))

    def copy(self):
        """The same gradients in new arrays."""
        return self.map(np.array)

    def __neg__(self):
        return self.map(np.negative)

    def __mul__(self, factor):
        factor = _factor(factor)
        return self.map(lambda g: np.multiply(g, factor).astype(g.dtype, copy=False))

    __rmul__ = __mul__

    def __truediv__(self, divisor):
        divisor = _factor(divisor)
        return self.map(lambda g: np.divide(g, divisor).astype(g.dtype, copy=False))

    def __add__(self, other):
        if not isinstance(other, Grads):
            return NotImplemented
        if self.params != other.params:
            raise ValueError(f"gradients of different parameters: {self.params} and {other.params}")
        pairs = zip(self._arrays, other._arrays, strict=True)
        return Grads(self.params, [_sum(a, b) for a, b in pairs])

    def __radd__(self, other):  # sum([...]) begins with 0
        return self if type(other) is int and other == 0 else NotImplemented

    def __sub__(self, other):
        return self + -other if isinstance(other, Grads) else NotImplemented

    def __repr__(self):
        shown = ("None" if g is None else f"array{np.shape(g)}" for g in self._arrays)
        names = self.params.names()
        return f"Grads({', '.join(f'{n}: {g}' for n, g in zip(names, shown, strict=True))})"


def _length(a):
    """The Euclidean norm, also where the squares would overflow or vanish."""
    top = float(np.max(np.abs(a), initial=0))
    if 1e-100 < top < 1e100 or not 0 < top < math.inf:
        return float(np.linalg.norm(a))
    return top * float(np.linalg.norm(a / top))


def _factor(value):
    """A number by which all gradients are multiplied; it may be one that is recorded."""
    if isinstance(value, Tensor) and value.ndim == 0:
        return value
    number = as_number(value, "the factor of Grads")
    return value if isinstance(value, (np.generic, np.ndarray)) else number


def _sum(a, b):
    """a + b in a new array, where None is zero."""
    if a is None or b is None:
        return None if a is b else np.array(b if a is None else a)
    return a + b

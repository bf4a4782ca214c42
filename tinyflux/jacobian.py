"""Derivatives of functions that return arrays, and second derivatives: many gradients, stacked."""

import numpy as np

from .checks import as_callable
from .gradient import as_params, gradient, pullback
from .grads import Grads


def jacobian(f, *args):
    """All first derivatives of a function that returns an array.

    Parameters
    ----------
    f, *args
        As for `gradient`, but `f` returns an array of any shape.

    Returns
    -------
    tuple of numpy.ndarray, or Grads
        One array of shape `output.shape + input.shape` per argument (or parameter).

    Raises
    ------
    NotScalarError
        If `f` returns nothing, or several arrays.

    Notes
    -----
    One backward pass for each element of the output.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> flux.jacobian(lambda x: x**2, np.array([1.0, 2.0]))[0]
    array([[2., 0.],
           [0., 4.]])
    """
    value, back = pullback(f, *args)
    shape = np.shape(value)
    rows = []
    for place in np.ndindex(shape):
        seed = np.zeros(shape, np.result_type(value))
        seed[place] = 1
        rows.append(back(seed))
    if rows and isinstance(rows[0], Grads):
        of = [stacked(column, shape) for column in zip(*[r.values() for r in rows], strict=True)]
        return Grads(rows[0].params, of)
    if not rows:
        of = [np.zeros(shape + t.shape, t.dtype) for t in back.wanted.values()]
        return tuple(of) if back.ps is None else Grads(back.ps, of)
    return tuple(stacked(column, shape) for column in zip(*rows, strict=True))


def hessian(f, x):
    """All second derivatives of a function of one array that returns a number.

    Parameters
    ----------
    f : callable
    x : array_like of float, or a number

    Returns
    -------
    numpy.ndarray
        Of shape `x.shape + x.shape`.

    Raises
    ------
    NotScalarError
        If `f` does not return one real number.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> flux.hessian(lambda x: x[0] * x[1] ** 2, np.array([1.0, 3.0]))
    array([[0., 6.],
           [6., 2.]])
    """
    as_callable(f, "hessian: f")
    if as_params((x,)) is not None:
        raise TypeError("hessian: got parameters; it takes one array, as in hessian(f, x)")

    def slope(x):
        g, nothing = gradient(f, x)[0], np.where(False, x, 0)  # so that it depends on x for certain
        return nothing if g is None else g + nothing

    return jacobian(slope, x)[0]


def stacked(column, shape):
    """The rows of a Jacobian, one per output element, as one array (None: no influence)."""
    known = [g for g in column if g is not None]
    if not known:
        return None
    rows = [np.zeros(known[0].shape, known[0].dtype) if g is None else g for g in column]
    return np.reshape(np.stack(rows), shape + known[0].shape)

"""What NumPy lacks: softmax and its relatives, and the dense layer in one row.

Softmax and logsoftmax are shifted by the maximum, so that nothing overflows; classes stand on the
last axis.
"""

from functools import lru_cache
from math import prod

import numpy as np

from ..checks import as_flag, brief, is_whole, numeric, shown
from ..primitive import OPERATIONS, fitted, fused, primitive, sample
from ..tensor import Tensor
from .singular import mended

CLASSES = [sample((3,)), sample((2, 3)), sample((2, 3, 4), axis=1), sample((2, 3), axis=(0, 1))]


@lru_cache(maxsize=64)
def ones(n, dtype):
    """A vector of ones, made once for each batch size."""
    vector = np.ones(n, dtype)
    vector.flags.writeable = False
    return vector


def beside(shape, itemsize=4):
    """The shape of a constant that arrays of `shape` are compared with most quickly.

    np.maximum and np.minimum go over two arrays twice as fast as over an array and a number: as
    large an array as stays in the cache, then a row, and for rows that are short, or as long as
    that, a number after all.
    """
    most = (1 << 16) // itemsize
    if prod(shape) <= most:
        return shape
    return shape[-1:] if 64 <= shape[-1] <= most and len(shape) > 1 else ()


@lru_cache(maxsize=32)
def zeros(shape):
    """What arrays of `shape` are compared with, made once; float32."""
    constant = np.zeros(beside(shape), np.float32)
    constant.flags.writeable = False
    return constant


def sums(x, axis):
    """np.sum over `axis` with keepdims; for rows a product with ones, which is much faster."""
    if axis == -1 and type(x) is np.ndarray and x.ndim == 2:
        return np.dot(x, ones(x.shape[1], x.dtype.char))[:, None]
    return np.sum(x, axis=axis, keepdims=True)


def is_tall(shape):
    """Whether a matrix has many short rows."""
    return shape[0] >= 32 and shape[1] <= 48


def tops(x, axis):
    """np.max over `axis` with keepdims; short rows turned on their side, which is much faster."""
    if axis == -1 and type(x) is np.ndarray and x.ndim == 2 and is_tall(x.shape):
        return np.maximum.reduce(x.T.copy(), axis=0)[:, None]
    return np.maximum.reduce(x, axis=axis, keepdims=True)


def check_axis(axis, x, name):
    """Refuse what is no axis of x, and no tuple of them; None stands for all."""
    for a in axis if isinstance(axis, tuple) else (axis,):
        if a is not None and not is_whole(a):
            raise TypeError(f"{name}: axis is {shown(axis)}; a whole number or a tuple is wanted")
        if a is not None and not -x.ndim <= a < x.ndim:
            raise ValueError(f"{name}: axis {brief(axis)} is no axis of shape {x.shape}")


def needs_axes(x, name, axis):
    """x as an array with axes, of float32 or wider (sums overflow in float16), or an error."""
    x = x if isinstance(x, Tensor) else np.asarray(x)
    if x.ndim == 0:
        raise ValueError(f"{name}: got a single number; the classes are wanted along an axis")
    if x.size == 0 and x.shape[-1] == 0:
        raise ValueError(f"{name}: got shape {x.shape}, which has no classes on the last axis")
    if type(axis) is not int or not -x.ndim <= axis < x.ndim:
        check_axis(axis, x, name)
    if x.dtype.kind == "f":
        return x if x.dtype.itemsize > 2 else x.astype(np.float32)
    return numeric(x, name).astype(np.float64)


@primitive(lambda g, y, *, axis=-1: y * (g - sums(g * y, axis)), samples=CLASSES)
def softmax(x, *, axis=-1):
    r"""Turn scores into probabilities: exp(x) / sum(exp(x)) over the classes.

    Parameters
    ----------
    x : array_like, shape (..., classes)
    axis : int or tuple of int, default -1

    Returns
    -------
    numpy.ndarray
        Of the shape of `x`, positive, with sums of 1. Shifting all scores changes nothing; scores
        of any size are fine.

    Notes
    -----
    Works as the activation of a Dense. For training prefer the losses that take scores
    (`logitcrossentropy`).

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> flux.softmax(np.array([0.0, 0.0, np.log(2.0)]))
    array([0.25, 0.25, 0.5 ])
    """
    x = needs_axes(x, "softmax", axis)
    with np.errstate(over="ignore", under="ignore"):  # exp(-1000) is 0
        y = x - tops(x, axis)
        y = np.exp(y, out=y) if y.dtype.kind == "f" else np.exp(y)
        y /= sums(y, axis)
    return y


@primitive(lambda g, y, *, axis=-1: g - np.exp(y) * sums(g, axis), samples=CLASSES)
def logsoftmax(x, *, axis=-1):
    """The logarithm of `softmax`: x - logsumexp(x), accurate where softmax is almost 0.

    Takes what `softmax` takes.

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> flux.logsoftmax(np.array([0.0, 1000.0]))
    array([-1000.,     0.])
    """
    x = needs_axes(x, "logsoftmax", axis)
    with np.errstate(under="ignore"):
        y = x - tops(x, axis)
        y -= np.log(sums(np.exp(y), axis))
    return y


def logsumexp_slope(g, y, x, *, axis=-1, keepdims=False):
    """softmax(x), towards each class; nothing where nobody asks, even if all are -inf."""
    g = g if keepdims or axis is None else np.expand_dims(g, axis)
    return mended(g * softmax(x, axis=axis), g)  # exp(x - y) loses the digits of a large y


@primitive(logsumexp_slope, samples=[*CLASSES, sample((2, 3), keepdims=True)])
def logsumexp(x, *, axis=-1, keepdims=False):
    """log(sum(exp(x))) over the classes: a smooth maximum.

    Parameters
    ----------
    x : array_like
    axis : int or tuple of int, default -1
    keepdims : bool, default False

    Examples
    --------
    >>> import numpy as np, tinyflux as flux
    >>> float(flux.logsumexp(np.array([1000.0, 1000.0])) - 1000)
    0.693147180559945
    """
    x = needs_axes(x, "logsumexp", axis)
    keepdims = as_flag(keepdims, "logsumexp: keepdims")
    top = tops(x, axis)
    top = np.where(np.isfinite(top), top, 0)  # a row of -inf is -inf, not nan
    with np.errstate(divide="ignore", over="ignore", under="ignore"):
        y = np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True)) + top
    return y if keepdims else np.squeeze(y, axis=axis)


# ------------------------------------------------------------------------------- dense


def dense_kernel(x, weight, bias, *, activation=None):
    """`dense`, in one new array."""
    # The method `dot` is quicker, but takes 0 times nan for 0 where one side is a single number.
    flat = x.ndim <= 2 and x.size > 1 and weight.size > 1
    y = x.dot(weight) if flat else np.matmul(x, weight)
    if bias is not None:
        np.add(y, bias, out=y)
    return y if activation is None else activation.kernel(y, out=y)


def dense_joint(g, y, arrays, live, *, activation=None):
    """With z the pre-activation: dz = g f'(y); dx = dz W^T, dW = x^T dz, db = sum of dz."""
    x, weight, bias = arrays
    if activation is not None:
        g = fitted(activation.rules[0](g, y), y)
    whole = g
    if x.ndim != 2:  # one observation, or several axes of them, as rows
        dx = weight.dot(g) if x.ndim == 1 else g.dot(weight.T)
        x, g = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
    found = []
    for i in live:
        if i == 0:
            found.append(g.dot(weight.T) if arrays[0].ndim == 2 else dx)
        elif i == 1:
            found.append(x.T.dot(g))
        elif bias.shape != weight.shape[1:] or bias.dtype != g.dtype:  # somebody put it there
            found.append(fitted(whole, bias))
        else:  # a product with ones is twice as fast as sum(axis=0)
            found.append(g.T.dot(ones(len(g), g.dtype.char)))
    return found


@fused(
    dense_kernel,
    dense_joint,
    needs=((1,), (0,), ()),
    samples=[
        sample((3, 4), (4, 2), (2,)),
        sample((4,), (4, 2), (2,)),
        sample((2, 3, 4), (4, 2), (2,)),
        sample((3, 4), (4, 2), by=lambda f, x, w: f(x, w, None)),
        sample(
            (3, 4), (4, 2), (2,), by=lambda f, x, w, b: f(x, w, b, activation=OPERATIONS[np.tanh])
        ),
        sample((0, 4), (4, 2), (2,)),
    ],
)
def dense(x, weight, bias, *, activation=None):
    """activation(x @ weight + bias), for an activation whose slope follows from its output."""
    y = np.matmul(x, weight)
    if bias is not None:
        y = y + bias
    return y if activation is None else activation.public(y)

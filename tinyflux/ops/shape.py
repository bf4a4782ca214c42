"""Derivatives of what only moves elements about: the gradient moves the other way."""

import numpy as np

from ..primitive import composed, rule, sample, without_gradient
from .index import getitem
from .products import mT

# ------------------------------------------------------------------------------- new shape


def shaped_back(g, y, x, **_):
    """The elements in the same order, in the shape that they had."""
    return np.reshape(g, np.shape(x))


def reshape_slope(g, y, x, order="C", **_):
    """Back to the shape of x, reading in the same order."""
    if order not in ("C", "F"):
        raise ValueError(
            f"order {order!r} depends on how an array lies in memory; write order='C' or 'F'"
        )
    return np.reshape(g, np.shape(x), order=order)


rule(
    np.reshape,
    reshape_slope,
    samples=[
        sample((3, 4), by=lambda f, x: f(x, (2, 6))),
        sample((3, 4), by=lambda f, x: f(x, -1)),
        sample((2, 6), by=lambda f, x: f(x, (3, 4), order="F")),
    ],
)
rule(np.ravel, reshape_slope, samples=[sample((3, 4)), sample((3, 4), order="F"), sample(())])
rule(np.expand_dims, shaped_back, samples=[sample((3,), axis=0), sample((3, 4), axis=(0, -1))])
rule(np.squeeze, shaped_back, samples=[sample((1, 3, 1)), sample((1, 3, 1), axis=0)])
for atleast in (np.atleast_1d, np.atleast_2d, np.atleast_3d):

    @composed(atleast, samples=[sample(()), sample((3,)), sample((3, 4))])
    def atleast_nd(*xs, f=atleast):
        made = [np.reshape(x, f(np.empty(np.shape(x))).shape) for x in xs]
        return made[0] if len(made) == 1 else tuple(made)


def broadcast_slope(g, y, x, **_):
    """Nothing to do here: the engine sums over the axes along which x was repeated."""
    return g


rule(
    np.broadcast_to,
    broadcast_slope,
    samples=[sample((3,), shape=(2, 3)), sample((3, 1), shape=(3, 4))],
)


@composed(
    np.broadcast_arrays,
    samples=[
        sample((3,), (2, 1), by=lambda f, a, b: f(a, b)[0]),
        sample((3,), (2, 1), by=lambda f, a, b: f(a, b)[1]),
    ],
)
def broadcast_arrays(*xs):
    shape = np.broadcast_shapes(*[np.shape(x) for x in xs])
    return tuple(np.broadcast_to(x, shape) for x in xs)


# ------------------------------------------------------------------------------- axes


def transposed_back(g, y, x, axes=None):
    """The inverse permutation."""
    return np.transpose(g, None if axes is None else np.argsort(np.asarray(axes) % np.ndim(x)))


rule(
    np.transpose,
    transposed_back,
    samples=[sample((3, 4)), sample((2, 3, 4), axes=(2, 0, 1)), sample((2, 3, 4), axes=(-1, 0, 1))],
)
rule(
    np.swapaxes,
    lambda g, y, x, axis1, axis2: np.swapaxes(g, axis1, axis2),
    samples=[sample((2, 3, 4), axis1=0, axis2=-1)],
)
rule(
    np.moveaxis,
    lambda g, y, x, source, destination: np.moveaxis(g, destination, source),
    samples=[
        sample((2, 3, 4), source=0, destination=-1),
        sample((2, 3, 4), source=(0, 1), destination=(2, 0)),
    ],
)
rule(np.linalg.matrix_transpose, lambda g, y: mT(g), samples=[sample((2, 3, 4))])
rule(np.matrix_transpose, lambda g, y: mT(g), samples=[sample((2, 3, 4))])


@composed(np.rollaxis, samples=[sample((2, 3, 4), axis=2), sample((2, 3, 4), axis=0, start=2)])
def rollaxis(x, axis, start=0):
    order = list(range(np.ndim(x)))
    axis, start = axis % np.ndim(x), start + np.ndim(x) if start < 0 else start
    order.remove(axis)
    order.insert(start - (axis < start), axis)
    return np.transpose(x, order)


# ------------------------------------------------------------------------------- order

rule(
    np.flip,
    lambda g, y, x, axis=None: np.flip(g, axis),
    samples=[sample((3, 4)), sample((3, 4), axis=0)],
)
rule(np.fliplr, lambda g, y: np.fliplr(g), samples=[sample((3, 4))])
rule(np.flipud, lambda g, y: np.flipud(g), samples=[sample((3, 4))])
rule(
    np.roll,
    lambda g, y, x, shift, axis=None: np.roll(g, np.negative(np.asarray(shift, int)), axis),
    samples=[sample((3, 4), shift=2), sample((3, 4), shift=(1, -1), axis=(0, 1))],
)
rule(
    np.rot90,
    lambda g, y, x, k=1, axes=(0, 1): np.rot90(g, -k, axes),
    samples=[sample((3, 4)), sample((2, 3, 3), k=3, axes=(1, 2))],
)


def rearranged(function, x, *args, **kwargs):
    """A function that only copies elements, by applying it to their numbers: x[numbers]."""
    numbers = np.arange(np.size(x)).reshape(np.shape(x))
    return getitem(np.reshape(x, -1), index=(function(numbers, *args, **kwargs),))


def rearranging(function, samples):
    """Declare such a function."""
    composed(function, samples=samples)(lambda x, *a, **k: rearranged(function, x, *a, **k))


rearranging(np.repeat, [sample((3,), repeats=2), sample((2, 3), repeats=[1, 2], axis=0)])
rearranging(np.tile, [sample((3,), reps=2), sample((2, 3), reps=(2, 1, 2))])
rearranging(np.resize, [sample((2, 3), new_shape=(4, 2))])


@composed(
    np.pad,
    samples=[
        sample((3,), pad_width=1),
        sample((2, 3), pad_width=((1, 0), (2, 1)), constant_values=3.0),
        sample((4, 3), pad_width=1, mode="reflect"),
        sample((3,), pad_width=(1, 2), mode="edge"),
        sample((3,), pad_width=2, mode="wrap"),
        sample((3,), pad_width=2, mode="symmetric"),
    ],
)
def pad(x, pad_width, mode="constant", **kwargs):
    if mode == "constant":
        inside = np.pad(np.zeros(np.shape(x), bool), pad_width, constant_values=True)
        frame = np.pad(np.zeros(np.shape(x), np.result_type(x)), pad_width, **kwargs)
        numbers = np.pad(np.arange(np.size(x)).reshape(np.shape(x)), pad_width)
        return (
            np.where(inside, frame, getitem(np.reshape(x, -1), index=(numbers,)))
            if np.size(x)
            else frame
        )
    if mode not in ("edge", "reflect", "symmetric", "wrap"):
        raise ValueError(
            f"pad: mode {mode!r} has no derivative rule; constant, edge, reflect, "
            "symmetric and wrap have"
        )
    if kwargs.get("reflect_type", "even") != "even":
        raise ValueError("pad: reflect_type 'odd' has no derivative rule; 'even' has")
    return rearranged(np.pad, x, pad_width, mode=mode, **kwargs)


@composed(
    np.insert,
    samples=[
        sample((4,), (), by=lambda f, x, v: f(x, 1, v)),
        sample((2, 3), (2, 2), by=lambda f, x, v: f(x, [0, 2], v, axis=1)),
        sample((2, 3), (3,), by=lambda f, x, v: f(x, -1, v, axis=0)),
        sample((2, 3), (2,), by=lambda f, x, v: f(x, slice(2), v)),
    ],
)
def insert(x, obj, values, axis=None):
    n, more = np.size(x), np.size(values)
    numbers = np.arange(n).reshape(np.shape(x))
    others = np.arange(n, n + more).reshape(np.shape(values))
    both = np.concatenate([x, values], axis=None).astype(np.zeros_like(x).dtype)
    return getitem(both, index=(np.insert(numbers, constant(obj), others, axis),))


@composed(
    np.delete,
    samples=[
        sample((4,), obj=1),
        sample((3, 4), obj=[0, -1], axis=1),
        sample((2, 3), obj=slice(None, None, 2)),
    ],
)
def delete(x, obj, axis=None):
    return rearranged(np.delete, x, constant(obj), axis)


def constant(index):
    """An index as NumPy reads it, an empty list too; one that is recorded raises."""
    index = index if isinstance(index, slice) else np.asarray(index)
    return index.astype(int) if np.size(index) == 0 else index


@composed(np.full_like, samples=[sample((2, 3), (3,)), sample((2, 3), (), shape=(4,))])
def full_like(a, fill_value, dtype=None, *args, shape=None, **kwargs):
    y = np.zeros_like(a, dtype, *args, shape=shape, **kwargs)
    return np.broadcast_to(fill_value, y.shape).astype(y.dtype)


without_gradient(
    np.shape, np.ndim, np.size, np.zeros_like, np.ones_like, np.empty_like,
    np.result_type, np.can_cast, np.iscomplexobj, np.isrealobj, np.array_repr, np.array_str,
    np.array2string, np.shares_memory, np.may_share_memory, np.array_equal, np.allclose,
)  # fmt: skip

"""Derivatives of indexing: what was picked out is put back among zeros; duplicates add up."""

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from ..errors import no_rule
from ..primitive import composed, primitive, sample, without_gradient
from ..tape import recording
from ..tensor import Tensor
from .elementwise import floats


def is_basic(index):
    """Whether an index makes a view, so that no element is picked twice."""
    parts = index if isinstance(index, tuple) else (index,)
    basic = (int, slice, type(None), type(Ellipsis), np.integer)
    return all(isinstance(i, basic) and not isinstance(i, bool) for i in parts)


def at(index, **_):
    """A sample of x[index]."""
    return lambda f, x: f(x, index=index)


@primitive(
    lambda g, y, x, *, index: scatter(g, index=index, shape=np.shape(x)),
    needs=((),),
    samples=[
        sample((4,), by=at(1)),
        sample((4, 3), by=at((slice(None, None, -2), None))),
        sample((4, 3), by=at(np.array([0, 0, 2]))),
        sample((3, 3), by=at((..., 1))),
        sample((4, 3), by=at(np.arange(12).reshape(4, 3) % 2 == 0)),
        sample((4, 3), by=at(([0, 1, 0], [1, 1, 1]))),
        sample((4, 3, 2), by=at(([1, 1], slice(1), [0, 0]))),
    ],
)
def getitem(x, *, index):
    """x[index], for every kind of index that NumPy knows."""
    return x[index]


@primitive(
    lambda g, y, x, *, index, shape: getitem(g, index=index),
    needs=((),),
    samples=[sample((3,), by=lambda f, x: f(x, index=np.array([0, 2, 2]), shape=(4,)))],
)
def scatter(x, *, index, shape):
    """Zeros of `shape` to which the elements of x are added at `index`."""
    y = np.zeros(shape, np.result_type(x))
    if is_basic(index):
        y[index] = x
    else:
        np.add.at(y, index, x)
    return y


# An index that is itself recorded (by `compiled`): its arrays are operands, HOLE marks where.
HOLE = type("Hole", (), {"__repr__": lambda self: "HOLE"})()


def with_holes(index):
    """The index with a HOLE for every Tensor in it."""
    parts = index if type(index) is tuple else (index,)
    return tuple(HOLE if type(i) is Tensor else i for i in parts)


def pulled_out(index):
    """The Tensors of an index, in order."""
    return [i for i in (index if type(index) is tuple else (index,)) if type(i) is Tensor]


def filled(index, arrays):
    """The index with arrays in its holes again."""
    rest = iter(arrays)
    return tuple(next(rest) if i is HOLE else i for i in index)


def place_joint(g, y, operands, live, *, index, shape):
    """What was placed is picked out."""
    return [pick(g, *operands[1:], index=index) if i == 0 else None for i in live]


@primitive(joint=place_joint, samples=())
def place(x, *arrays, index, shape):
    """`scatter` with recorded indices."""
    y = np.zeros(shape, np.result_type(x))
    np.add.at(y, filled(index, arrays), x)
    return y


def pick_joint(g, y, operands, live, *, index):
    """What was picked out is placed among zeros."""
    shape = np.shape(operands[0])
    return [place(g, *operands[1:], index=index, shape=shape) if i == 0 else None for i in live]


@primitive(joint=pick_joint, samples=())
def pick(x, *arrays, index):
    """`getitem` with recorded indices."""
    return x[filled(index, arrays)]


def picked(x, index):
    """x[index], whether or not a part of the index is recorded."""
    arrays = pulled_out(index)
    if arrays:
        if any(t.dtype == bool for t in arrays):
            recording().refuse("x[mask], whose result has a shape that depends on the values,")
        return pick(x, *arrays, index=with_holes(index))
    return getitem(x, index=index)


def along(axis, n, indices):
    """The index tuple that takes `indices` along one axis."""
    axis %= n
    return (slice(None),) * axis + (indices,)


@composed(
    np.take,
    samples=[
        sample((4, 3), indices=[0, 2, 2], axis=0),
        sample((4, 3), indices=5),
        sample((4, 3), indices=[-1, 4], axis=1, mode="clip"),
        sample((3,), indices=[[0, 1], [2, 0]]),
    ],
)
def take(x, indices, axis=None, *, mode="raise"):  # by position NumPy has out= before it
    indices = indices if type(indices) is Tensor else np.asarray(indices)
    if indices.dtype.kind in "bu":  # no mask, and room for the length
        indices = indices.astype(np.intp)
    if axis is None:
        x, axis = np.reshape(x, -1), 0
    n = np.shape(x)[axis]
    if mode != "raise":
        indices = indices % max(n, 1) if mode == "wrap" else np.clip(indices, 0, n - 1)
    return picked(x, along(axis, np.ndim(x), indices))


@composed(
    np.compress,
    samples=[
        sample((4,), by=lambda f, x: f([True, False, True], x)),
        sample((3, 2), by=lambda f, x: f([0, 1, 1], x, axis=0)),
    ],
)
def compress(condition, x, axis=None):
    if axis is None:
        x, axis = np.reshape(x, -1), 0
    return np.take(x, np.flatnonzero(condition), axis=axis)


@composed(
    np.take_along_axis,
    samples=[
        sample((2, 3), by=lambda f, x: f(x, np.array([[0, 0], [2, 1]]), axis=1)),
        sample((3,), by=lambda f, x: f(x, np.array([2, 2]), axis=None)),
    ],
)
def take_along_axis(x, indices, axis=-1):
    if axis is None:
        x, axis = np.reshape(x, -1), 0
    axis = normalize_axis_index(axis, np.ndim(x))
    if np.result_type(indices).kind not in "iu":
        raise IndexError("take_along_axis: the indices must be whole numbers")
    if np.ndim(indices) != np.ndim(x):
        raise ValueError(
            f"take_along_axis: indices of shape {np.shape(indices)} and values of {np.shape(x)} "
            "must have the same number of axes (one for axis=None)"
        )
    grid = []
    for i, n in enumerate(np.shape(x)):
        shape = [1] * np.ndim(x)
        shape[i] = n
        grid.append(indices if i == axis else np.arange(n).reshape(shape))
    return picked(x, tuple(grid))


@composed(np.sort, samples=[sample((5,)), sample((3, 4), axis=0), sample((3, 4), axis=None)])
def sort(x, axis=-1, kind=None, *, stable=None):
    if axis is None:
        x, axis = np.reshape(x, -1), 0
    return np.take_along_axis(x, np.argsort(x, axis=axis, kind="stable"), axis=axis)


def interp_joint(g, y, arrays, live, *, left=None, right=None):
    """The line between two knots: x gets its slope, and its ends share g."""
    x, xp, fp = arrays
    last = np.size(xp) - 1
    after = np.clip(np.searchsorted(xp, x, side="right"), min(1, last), last)
    before = np.maximum(after - 1, 0)
    begin, end = np.less(x, picked(xp, 0)), np.greater(x, picked(xp, last))
    step = picked(xp, after) - picked(xp, before)
    step = step + np.equal(step, 0)
    slope = (picked(fp, after) - picked(fp, before)) / step
    slope = g * np.where(np.logical_or(begin, end), 0, slope)
    share = np.clip((x - picked(xp, before)) / step, 0, 1)
    g = g if left is None else np.where(begin, 0, g)
    g = g if right is None else np.where(end, 0, g)

    def to_knots(g):
        back = {"index": (HOLE,), "shape": np.shape(xp)}
        return place(g * (1 - share), before, **back) + place(g * share, after, **back)

    return [slope if i == 0 else to_knots(-slope if i == 1 else g) for i in live]


@primitive(joint=interp_joint, samples=())
def interpolate(x, xp, fp, *, left=None, right=None):
    """np.interp; at a knot its slope is that of the line to the right."""
    return np.interp(x, xp, fp, left, right)


def rising(f, x, xp, fp, **params):
    """f at x, with knots that rise."""
    return f(x, np.cumsum(np.abs(xp)) - 2, fp, **params)


@composed(
    np.interp,
    samples=[
        sample((5,), (4,), (4,), by=rising),
        sample((2, 3), (3,), (3,), by=lambda f, *arrays: rising(f, *arrays, left=0.5)),
        sample((), (3,), (3,), by=lambda f, *arrays: rising(f, *arrays, right=0.5)),
    ],
)
def interp(x, xp, fp, left=None, right=None, period=None):
    if period is not None:
        raise no_rule("interp with period")
    x, xp, fp = (floats(a, "interp") for a in (x, xp, fp))  # differences of integers may wrap
    left, right = (end if end is None else np.asarray(end) for end in (left, right))
    return interpolate(x, xp, fp, left=left, right=right)


@composed(np.bincount, samples=[sample((4,), by=lambda f, w: f([0, 2, 2, 1], w, 5))])
def bincount(x, weights=None, minlength=0):
    if type(x) is Tensor and recording().tracing:
        recording().refuse("bincount, whose result has a shape that depends on the values,")
    x = np.asarray(x)
    shape = np.bincount(x, minlength=minlength).shape
    if np.shape(weights) != x.shape:
        raise ValueError(
            f"bincount: weights of shape {np.shape(weights)} for numbers of shape {x.shape}; one "
            "weight for each number is wanted"
        )
    weights = weights.astype(np.result_type(weights, np.float64))
    return scatter(weights, index=(x,), shape=shape)


without_gradient(
    np.argsort, np.argwhere, np.nonzero, np.flatnonzero, np.searchsorted, np.digitize,
    np.argpartition, np.isin,
)  # fmt: skip

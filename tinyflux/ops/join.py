"""Derivatives of joining and splitting: each part gets its piece of the gradient."""

from itertools import pairwise

import numpy as np

from ..primitive import composed, primitive, sample
from ..protocols import values


def pieces(g, y, arrays, live, axis=0):
    """The slices of `g` that came from the operands in `live`."""
    ends = np.cumsum([np.shape(a)[axis] for a in arrays])
    found = []
    for i in live:
        n = np.shape(arrays[i])[axis]
        index = [slice(None)] * g.ndim
        index[axis] = slice(int(ends[i]) - n, int(ends[i]))
        found.append(g[tuple(index)])
    return found


@primitive(joint=pieces, samples=[sample((2, 3), (1, 3)), sample((2, 1), (2, 3), axis=1)])
def join(*parts, axis=0):
    """np.concatenate of the operands."""
    return np.concatenate(parts, axis=axis)


def listed(*shapes, **params):
    """A sample of a function that takes a list of arrays."""
    return sample(*shapes, by=lambda f, *arrays: f(list(arrays), **params))


@composed(
    np.concatenate,
    samples=[
        listed((2, 3), (1, 3)),
        listed((2, 1), (2, 3), axis=-1),
        listed((2, 2), (3,), axis=None),
        listed((0, 3), (2, 3)),
    ],
)
def concatenate(arrays, axis=0):
    parts = tuple(arrays)
    if axis is None:
        parts, axis = tuple(np.ravel(a) for a in parts), 0
    return join(*parts, axis=axis)


@composed(np.stack, samples=[listed((3,), (3,)), listed((2, 3), (2, 3), axis=-1), listed((), ())])
def stack(arrays, axis=0):
    parts = list(arrays)
    shapes = {np.shape(a) for a in parts}
    if len(shapes) != 1:
        raise ValueError(f"stack: all arrays must have one shape, got {sorted(shapes)}")
    return np.concatenate([np.expand_dims(a, axis) for a in parts], axis=axis)


@composed(np.vstack, samples=[listed((3,), (3,)), listed((2, 3), (1, 3))])
def vstack(tup):
    return np.concatenate([np.atleast_2d(a) for a in tup], axis=0)


@composed(np.hstack, samples=[listed((3,), (2,)), listed((2, 3), (2, 1)), listed((), (2,))])
def hstack(tup):
    parts = [np.atleast_1d(a) for a in tup]
    return np.concatenate(parts, axis=0 if parts[0].ndim == 1 else 1)


@composed(np.dstack, samples=[listed((3,), (3,)), listed((2, 3), (2, 3))])
def dstack(tup):
    return np.concatenate([np.atleast_3d(a) for a in tup], axis=2)


@composed(np.column_stack, samples=[listed((3,), (3,)), listed((3, 2), (3,))])
def column_stack(tup):
    columns = [a if np.ndim(a) > 1 else np.reshape(a, (-1, 1)) for a in tup]
    return np.concatenate(columns, axis=1)


@composed(np.append, samples=[sample((2, 3), (2,)), sample((2, 3), (1, 3), axis=0)])
def append(x, values, axis=None):
    return np.concatenate([x, values], axis=axis)


def nested(*shapes):
    """A sample of rows of two blocks, and a last row of one."""
    return sample(*shapes, by=lambda f, a, b, c, d, e: f([[a, b], [c, d], [e]]))


@composed(
    np.block,
    samples=[
        nested((2, 3), (2, 1), (4,), (0,), (1, 4)),
        listed((2, 3), (2, 1)),
        listed((), (3,)),
        sample((3,)),
    ],
)
def block(arrays):
    n = np.block(values(arrays)).ndim  # raises what NumPy raises
    return assembled(arrays, n)


def assembled(tree, n):
    """The blocks of nested lists, each with n axes, joined from the inside to the outside."""
    if not isinstance(tree, list):
        return np.reshape(tree, (1,) * (n - np.ndim(tree)) + np.shape(tree))
    return np.concatenate([assembled(t, n) for t in tree], axis=-depth(tree))


def depth(tree):
    """How many lists stand around a block."""
    return 1 + depth(tree[0]) if isinstance(tree, list) else 0


# ------------------------------------------------------------------------------- splitting


@composed(
    np.array_split,
    samples=[
        sample((7, 2), by=lambda f, x: f(x, 3)[0]),
        sample((7,), by=lambda f, x: f(x, [2, 5])[1]),
    ],
)
def array_split(x, indices_or_sections, axis=0):
    n = np.shape(x)[axis]
    at = (slice(None),) * (axis % np.ndim(x))
    if np.ndim(indices_or_sections) == 0:
        parts = np.array_split(np.arange(n), indices_or_sections)
        points = np.cumsum([0] + [len(part) for part in parts]).tolist()
    else:  # as slices, which may run backwards or past the end
        points = [0, *indices_or_sections, n]
    return [x[(*at, slice(*cut))] for cut in pairwise(points)]


@composed(
    np.split,
    samples=[
        sample((6, 2), by=lambda f, x: f(x, 3)[2]),
        sample((3, 4), by=lambda f, x: f(x, [1], axis=1)[1]),
    ],
)
def split(x, indices_or_sections, axis=0):
    if np.ndim(indices_or_sections) == 0 and np.shape(x)[axis] % indices_or_sections:
        raise ValueError(
            f"split: {np.shape(x)[axis]} rows do not divide into {indices_or_sections} "
            "equal parts; use array_split"
        )
    return array_split(x, indices_or_sections, axis)


for name, axis in ((np.vsplit, 0), (np.dsplit, 2)):

    @composed(name, samples=[sample((2, 2, 2), by=lambda f, x: f(x, 2)[1])])
    def split_along(x, indices_or_sections, axis=axis):
        return split(x, indices_or_sections, axis)


@composed(
    np.hsplit,
    samples=[sample((4,), by=lambda f, x: f(x, 2)[1]), sample((2, 4), by=lambda f, x: f(x, 2)[0])],
)
def hsplit(x, indices_or_sections):
    return split(x, indices_or_sections, 0 if np.ndim(x) == 1 else 1)

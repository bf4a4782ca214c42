"""Derivatives of products of matrices and of tensors.

For C = A B:  dL/dA = G B^T  and  dL/dB = A^T G.
"""

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from ..errors import no_rule
from ..primitive import composed, primitive, rule, sample


def mT(x):
    """The matrix transpose: the last two axes exchanged."""
    return x.T if x.ndim == 2 else np.swapaxes(x, -1, -2)


def column(x):
    """A vector, or a stack of them, as columns."""
    return np.expand_dims(x, -1)


def row(x):
    """A vector, or a stack of them, as rows."""
    return np.expand_dims(x, -2)


# ------------------------------------------------------------------------------- products


def matmul_left(g, y, a, b):
    """G B^T, where a vector counts as a row on the left and as a column on the right."""
    if b.ndim == 1:
        return column(g) * b if a.ndim > 1 else g * b
    if a.ndim == 1:
        return np.matmul(row(g), mT(b))[..., 0, :]
    return np.matmul(g, mT(b))


def matmul_right(g, y, a, b):
    """A^T G, likewise."""
    if a.ndim == 1:
        return column(a) * row(g) if b.ndim > 1 else g * a
    if b.ndim == 1:
        return np.matmul(mT(a), column(g))[..., 0]
    return np.matmul(mT(a), g)


rule(
    np.matmul,
    matmul_left,
    matmul_right,
    needs=((1,), (0,)),
    samples=[
        sample((3, 4), (4, 2)),
        sample((4,), (4,)),
        sample((4,), (4, 2)),
        sample((3, 4), (4,)),
        sample((2, 1, 3, 4), (5, 4, 2)),
        sample((2, 3, 4), (4,)),
        sample((4,), (2, 4, 3)),
        sample((2, 0), (0, 3)),
    ],
)


@composed(
    np.dot,
    samples=[
        sample((3, 4), (4, 2)),
        sample((4,), (4,)),
        sample((), (3,)),
        sample((2, 3, 4), (5, 4, 2)),
        sample((2, 3, 4), (4,)),
    ],
)
def dot(a, b):
    if np.ndim(a) == 0 or np.ndim(b) == 0:
        return a * b
    if np.ndim(b) <= 2:
        return np.matmul(a, b)
    return np.tensordot(a, b, axes=(-1, -2))


@composed(np.inner, samples=[sample((3,), (3,)), sample((2, 3), (4, 3)), sample((), (3,))])
def inner(a, b):
    return a * b if np.ndim(a) == 0 or np.ndim(b) == 0 else np.tensordot(a, b, axes=(-1, -1))


@composed(np.outer, samples=[sample((3,), (4,)), sample((2, 2), (3,))])
def outer(a, b):
    return np.ravel(a)[:, None] * np.ravel(b)[None, :]


@composed(np.vdot, samples=[sample((3,), (3,)), sample((2, 3), (2, 3))])
def vdot(a, b):
    return np.matmul(np.ravel(a), np.ravel(b))


@composed(
    np.tensordot,
    samples=[
        sample((3, 4, 2), (4, 2, 5)),
        sample((3, 4), (4, 5), axes=1),
        sample((3, 4, 2), (5, 3, 4), axes=([1, 0], [2, 1])),
        sample((2,), (3,), axes=0),
    ],
)
def tensordot(a, b, axes=2):
    na, nb = np.ndim(a), np.ndim(b)
    if np.ndim(axes) == 0:
        axes = (range(na - int(axes), na), range(int(axes)))
    of_a, of_b = (
        [normalize_axis_index(i, n) for i in np.atleast_1d(x)]
        for x, n in zip(axes, (na, nb), strict=True)
    )
    rest_a = [i for i in range(na) if i not in of_a]
    rest_b = [i for i in range(nb) if i not in of_b]
    shape_a, shape_b = np.shape(a), np.shape(b)
    if [shape_a[i] for i in of_a] != [shape_b[i] for i in of_b]:
        raise ValueError(f"tensordot: axes {axes} of shapes {shape_a} and {shape_b} do not match")
    inside = int(np.prod([shape_a[i] for i in of_a], dtype=int))
    left = np.reshape(
        np.transpose(a, rest_a + of_a),
        (-1, inside) if inside else (int(np.prod([shape_a[i] for i in rest_a], dtype=int)), 0),
    )
    right = np.reshape(
        np.transpose(b, of_b + rest_b),
        (inside, -1) if inside else (0, int(np.prod([shape_b[i] for i in rest_b], dtype=int))),
    )
    shape = [shape_a[i] for i in rest_a] + [shape_b[i] for i in rest_b]
    return np.reshape(np.matmul(left, right), shape)


@composed(np.kron, samples=[sample((2,), (3,)), sample((2, 3), (3, 2)), sample((2,), (2, 3))])
def kron(a, b):
    n = max(np.ndim(a), np.ndim(b))
    sa = (1,) * (n - np.ndim(a)) + np.shape(a)
    sb = (1,) * (n - np.ndim(b)) + np.shape(b)
    pairs = np.reshape(a, [k for s in sa for k in (s, 1)]) * np.reshape(
        b, [k for s in sb for k in (1, s)]
    )
    return np.reshape(pairs, [s * t for s, t in zip(sa, sb, strict=True)])


@composed(
    np.cross, samples=[sample((3,), (3,)), sample((4, 3), (4, 3)), sample((3, 4), (3, 4), axis=0)]
)
def cross(a, b, axisa=-1, axisb=-1, axisc=-1, axis=None):
    if axis is not None:
        axisa = axisb = axisc = axis
    a, b = np.moveaxis(a, axisa, -1), np.moveaxis(b, axisb, -1)
    if np.shape(a)[-1] != 3 or np.shape(b)[-1] != 3:
        raise ValueError(f"cross: vectors of 3 components are wanted, got {a.shape}, {b.shape}")
    turn = lambda x, k: np.roll(x, k, axis=-1)
    return np.moveaxis(turn(a, -1) * turn(b, 1) - turn(a, 1) * turn(b, -1), -1, axisc)


rule(
    np.vecdot,
    lambda g, y, a, b: column(g) * b,
    lambda g, y, a, b: column(g) * a,
    needs=((1,), (0,)),
    samples=[sample((3,), (3,)), sample((2, 1, 3), (4, 3))],
)
if hasattr(np, "matvec"):  # pragma: no branch - NumPy has them since 2.2
    rule(
        np.matvec,
        lambda g, y, a, b: column(g) * row(b),
        lambda g, y, a, b: np.matmul(mT(a), column(g))[..., 0],
        needs=((1,), (0,)),
        samples=[sample((3, 4), (4,)), sample((3, 4), (2, 4)), sample((2, 3, 4), (4,))],
    )
    rule(
        np.vecmat,
        lambda g, y, a, b: np.matmul(b, column(g))[..., 0],
        lambda g, y, a, b: column(a) * row(g),
        needs=((1,), (0,)),
        samples=[sample((3,), (3, 4)), sample((2, 3), (3, 4)), sample((3,), (2, 3, 4))],
    )


def slid_over(g, a, v):
    """`g` correlated with v; zeros stand for what mode="same" and "valid" leave away."""
    missing = np.size(a) + np.size(v) - 1 - np.size(g)
    return np.correlate(np.pad(g, (missing // 2, missing - missing // 2)), np.atleast_1d(v))


rule(
    np.convolve,
    lambda g, y, a, v, mode="full": slid_over(g, a, v),
    lambda g, y, a, v, mode="full": slid_over(g, v, a),
    needs=((1,), (0,)),
    samples=[
        sample((5,), (2,)),
        sample((3,), (6,), mode="same"),
        sample((4,), (4,), mode="same"),
        sample((5,), (3,), mode="valid"),
    ],
)


@composed(
    np.correlate,
    samples=[
        sample((5,), (2,)),
        sample((2,), (5,)),
        sample((3,), (4,), mode="same"),
        sample((4,), (3,), mode="full"),
    ],
)
def correlate(a, v, mode="valid"):
    if len(a) < len(v):
        return np.convolve(v, a[::-1], mode)[::-1]
    return np.convolve(a, v[::-1], mode)


@composed(np.polyval, samples=[sample((4,), (2, 3)), sample((3,), (2,)), sample((1,), ())])
def polyval(p, x):
    if isinstance(x, np.poly1d):
        raise no_rule("polyval at a polynomial")
    y = np.zeros_like(x)
    for c in np.copy(p):
        y = y * x + c
    return y


# ------------------------------------------------------------------------------- einsum


def einsum_joint(g, y, arrays, live, subscripts, **_):
    """For each operand, the einsum of the gradient with all the others.

    A letter that stands twice in the operand is a diagonal: the second becomes a letter of its own,
    tied to the first by a unit matrix. One that stands nowhere else was summed out: ones bring
    it back.
    """
    given, out = subscripts.split("->")
    given = given.split(",")
    sizes = {
        c: n
        for s, a in zip(given, arrays, strict=True)
        for c, n in zip(s, np.shape(a), strict=True)
        if n != 1
    }
    found = []
    for k in live:
        parts = [out] + given[:k] + given[k + 1 :]
        one = np.ones((), np.result_type(g))  # small integers would wrap in their own type
        others = [*arrays[:k], *arrays[k + 1 :]]
        operands = [g, *(a if np.result_type(a).kind in "fc" else a * one for a in others)]
        target, spare = "", iter(c for c in LETTERS if c not in subscripts)
        dtype = np.result_type(arrays[k])
        for c in given[k]:
            n = sizes.get(c, 1)
            if c in target:
                double = next(spare)
                parts.append(c + double)
                operands.append(np.eye(n, dtype=dtype))
                target += double
            else:
                target += c
        known = "".join(parts)
        for c in dict.fromkeys(target):
            if c not in known:
                parts.append(c)
                operands.append(np.ones(sizes.get(c, 1), dtype))
        d = np.einsum(",".join(parts) + "->" + target, *operands, optimize=True)
        shape = np.broadcast_shapes(np.shape(d), np.shape(arrays[k]))  # others may have length 1
        found.append(d if np.shape(d) == shape else np.broadcast_to(d, shape))
    return found


LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
NUMBERED = LETTERS[26:] + LETTERS[:26]  # how NumPy numbers them, which decides their order


@primitive(joint=einsum_joint, samples=())
def explicit_einsum(*operands, subscripts, optimize=False):
    """np.einsum with one letter per axis and an explicit output."""
    return np.einsum(subscripts, *operands, optimize=optimize)


def einsum_sample(subscripts, *shapes):
    """A sample of einsum, whose first argument is no array."""
    return sample(*shapes, by=lambda f, *arrays: f(subscripts, *arrays))


@composed(
    np.einsum,
    samples=[
        einsum_sample("ij,jk->ik", (2, 3), (3, 4)),
        einsum_sample("ij,jk", (2, 3), (3, 4)),
        einsum_sample("ii->i", (3, 3)),
        einsum_sample("ii", (3, 3)),
        einsum_sample("ij->", (2, 3)),
        einsum_sample("i,i,i->i", (3,), (3,), (3,)),
        einsum_sample("...ij,...j->...i", (2, 3, 4), (4,)),
        einsum_sample("ji->ij", (2, 3)),
        einsum_sample("iij,jk->k", (3, 3, 2), (2, 4)),
        einsum_sample("i,j->ij", (2,), (3,)),
        einsum_sample("ij,i->j", (2, 3), (2,)),
        einsum_sample("i,ji->j", (3,), (3, 1)),
        sample((2, 3), (3, 4), by=lambda f, a, b: f(a, [0, 1], b, [1, 2], [0, 2])),
    ],
)
def einsum(*args, optimize=False):
    if not isinstance(args[0], str):  # the form einsum(a, [0, 1], b, [1, 2], [0, 2])
        named = lambda s: "".join("..." if i is ... else NUMBERED[i] for i in s)
        lists = [named(s) for s in args[1::2]]
        out = "->" + named(args[-1]) if len(args) % 2 else ""
        args = (",".join(lists) + out, *args[: 2 * len(lists) : 2])
    return explicit_einsum(*args[1:], subscripts=explicit(*args), optimize=optimize)


def explicit(subscripts, *operands):
    """The subscripts with the output written out, and letters in the place of dots."""
    subscripts = subscripts.replace(" ", "")
    given, arrow, out = subscripts.partition("->")
    given = given.split(",")
    free = [c for c in LETTERS if c not in subscripts]
    if len(given) != len(operands):
        raise ValueError(
            f"einsum: {len(given)} subscripts ({subscripts}), {len(operands)} operands"
        )
    most = 0
    for k, (s, x) in enumerate(zip(given, operands, strict=True)):
        if "..." in s:
            dots = np.ndim(x) - len(s.replace("...", ""))
            most = max(most, dots)
            given[k] = s.replace("...", "".join(free[:dots][::-1]))
        elif len(s) != np.ndim(x):
            raise ValueError(f"einsum: {s!r} names {len(s)} axes, the operand has {np.ndim(x)}")
    dots = "".join(free[:most][::-1])
    if not arrow:
        letters = "".join(given)
        out = dots + "".join(sorted(c for c in set(letters) - set(dots) if letters.count(c) == 1))
    return ",".join(given) + "->" + out.replace("...", dots)

"""Derivatives of linear algebra: diagonals, solving, factorisations, norms.

The rules for factorisations follow M. B. Giles, "An extended collection of matrix derivative
results for forward and reverse mode algorithmic differentiation" (2008), and for Cholesky
I. Murray, "Differentiation of the Cholesky decomposition" (2016).
"""

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from ..errors import no_rule
from ..primitive import composed, primitive, rule, sample, without_gradient
from .index import scatter
from .products import column, mT, row
from .reduce import deviation, spread
from .singular import mended

# ------------------------------------------------------------------------------- diagonals


def on_diagonal(g, x, offset, axis1, axis2):
    """`g`, a diagonal, back in its place among zeros."""
    m, n = x.shape[axis1], x.shape[axis2]
    k = np.shape(g)[-1]
    block = np.where(np.eye(k, dtype=bool), column(g), 0)
    start = (min(max(-offset, 0), m), min(max(offset, 0), n))
    width = [(0, 0)] * (g.ndim - 1) + [(start[0], m - k - start[0]), (start[1], n - k - start[1])]
    return np.moveaxis(np.pad(block, width), (-2, -1), (axis1, axis2))


rule(
    np.diagonal,
    lambda g, y, x, offset=0, axis1=0, axis2=1: on_diagonal(g, x, offset, axis1, axis2),
    samples=[
        sample((3, 3)),
        sample((3, 4), offset=1),
        sample((4, 2), offset=-1),
        sample((2, 3, 4), axis1=1, axis2=2),
        sample((2, 3, 4), axis1=-1, axis2=0),
    ],
)


@composed(
    np.trace,
    samples=[sample((3, 3)), sample((3, 4), offset=1), sample((2, 3, 3), axis1=1, axis2=2)],
)
def trace(x, offset=0, axis1=0, axis2=1):
    return np.sum(np.diagonal(x, offset, axis1, axis2), axis=-1)


@composed(np.diag, samples=[sample((3,)), sample((3,), k=-1), sample((3, 4)), sample((3, 4), k=1)])
def diag(x, k=0):
    if np.ndim(x) == 2:
        return np.diagonal(x, k)
    n = x.size + abs(k)
    rows = np.arange(x.size) + max(-k, 0)
    return scatter(x, index=(rows, rows + k), shape=(n, n))


rule(np.tril, lambda g, y, x, k=0: np.tril(g, k), samples=[sample((3, 4)), sample((2, 3, 3), k=-1)])
rule(np.triu, lambda g, y, x, k=0: np.triu(g, k), samples=[sample((3, 4)), sample((2, 3, 3), k=1)])

# ------------------------------------------------------------------------------- np.linalg


def well_conditioned(rng, shape):
    """Matrices far from singular, with eigenvalues far from each other."""
    n = shape[-1]
    return rng.uniform(-0.3, 0.3, shape) + (
        np.diag(np.arange(1.0, n + 1)) if shape[-1:] == shape[-2:-1] else 0
    )


def symmetric(f, x):
    """f of a positive definite matrix made of x."""
    return f(np.matmul(x, np.swapaxes(x, -1, -2)))


SQUARE = [sample((3, 3)), sample((2, 2, 2))]
rule(
    np.linalg.inv,
    lambda g, y: -np.matmul(np.matmul(mT(y), g), mT(y)),
    samples=SQUARE,
    domain=well_conditioned,
)
rule(
    np.linalg.det,
    lambda g, y, x: np.expand_dims(g * y, (-2, -1)) * mT(np.linalg.inv(x)),
    samples=SQUARE,
    domain=well_conditioned,
)


def solve_right(g, a, b):
    """A^-T G: what the right-hand side is worth."""
    if np.ndim(b) == 1:
        return np.linalg.solve(mT(a), column(g))[..., 0]
    return np.linalg.solve(mT(a), g)


def solve_left(g, y, a, b):
    """-A^-T G Y^T."""
    s = solve_right(g, a, b)
    if np.ndim(b) == 1:
        return -column(s) * row(y)
    return -np.matmul(s, mT(y))


rule(
    np.linalg.solve,
    solve_left,
    lambda g, y, a, b: solve_right(g, a, b),
    samples=[sample((3, 3), (3,)), sample((3, 3), (3, 2)), sample((2, 2, 2), (2, 2, 1))],
    domain=well_conditioned,
)


def cholesky_slope(g, y, *, upper=False):
    """L^-T phi(L^T G) L^-1, made symmetric; phi halves the diagonal of the lower triangle."""
    if upper:
        y, g = mT(y), mT(g)
    inverse = np.linalg.inv(y)
    p = np.tril(np.matmul(mT(y), g))
    p = p - 0.5 * np.tril(np.triu(p))
    s = np.matmul(mT(inverse), np.matmul(p, inverse))
    return 0.5 * (s + mT(s))


rule(
    np.linalg.cholesky,
    cholesky_slope,
    domain=well_conditioned,
    samples=[sample((3, 3), by=symmetric), sample((2, 2, 2), by=symmetric)],
)


@primitive(lambda g, y, x: np.expand_dims(g[..., 1], (-2, -1)) * mT(np.linalg.inv(x)), samples=())
def sign_and_logdet(x):
    """The two results of np.linalg.slogdet side by side on the last axis."""
    return np.stack(np.linalg.slogdet(x), axis=-1)


@composed(
    np.linalg.slogdet,
    domain=well_conditioned,
    samples=[
        sample((3, 3), by=lambda f, x: f(x)[1]),
        sample((2, 2, 2), by=lambda f, x: f(x).logabsdet),
    ],
)
def slogdet(a):
    both = sign_and_logdet(a)
    return result_like(np.linalg.slogdet, np.sign(both[..., 0]), both[..., 1])


def eigh_slope(g, y, x, *, UPLO="L"):
    """V (diag(gw) + F * (V^T gV)) V^T with F = 1 / (w_j - w_i), 0 on the diagonal.

    Vectors of equal values may turn freely: who asks for their slope gets nan.
    """
    w, v = y[..., 0, :], y[..., 1:, :]
    gw, gv = g[..., 0, :], g[..., 1:, :]
    gap = row(w) - column(w)
    unit = np.eye(np.shape(w)[-1], dtype=np.result_type(w))
    equal, turned = np.equal(gap, 0), np.matmul(mT(v), gv)
    undefined = np.logical_and(np.logical_and(equal, unit == 0), np.not_equal(turned, 0))
    turned = turned * (np.logical_not(equal) / (gap + equal))
    inside = np.where(undefined, np.nan, turned) + row(gw) * unit
    s = np.matmul(np.matmul(v, inside), mT(v))
    return 0.5 * (s + mT(s))


@primitive(eigh_slope, samples=())
def values_over_vectors(x, *, UPLO="L"):
    """The results of np.linalg.eigh in one matrix: the eigenvalues as a row on top."""
    w, v = np.linalg.eigh(x, UPLO)
    return np.concatenate([w[..., None, :], v], axis=-2)


@composed(
    np.linalg.eigh,
    domain=well_conditioned,
    samples=[
        sample((3, 3), by=lambda f, x: symmetric(lambda s: f(s)[0], x)),
        sample((2, 2, 2), by=lambda f, x: symmetric(lambda s: f(s).eigenvectors ** 2, x)),
    ],
)
def eigh(a, UPLO="L"):
    both = values_over_vectors(a, UPLO=UPLO)
    return result_like(np.linalg.eigh, both[..., 0, :], both[..., 1:, :])


def result_like(function, *values):
    """`values` in the named tuple that a function of np.linalg returns."""
    return type(function(np.eye(1)))(*values)


def pnorm_slope(g, y, x, *, ord=2, axis=None, keepdims=False):
    """sign(x) (|x| / y)^(ord-1), and 0 for an element that is 0."""
    g, y = spread(g, x, axis, keepdims), spread(y, x, axis, keepdims)
    nothing = np.equal(y, 0)  # by one 0 alone where ord is negative
    y = y + nothing
    if ord == 2:
        return mended(g * (x / y), g)
    share, sign = np.abs(x) / y, np.where(nothing, 0, np.sign(x))
    return mended(g * (sign * (share + np.equal(share, 0)) ** (ord - 1)), g)


@primitive(pnorm_slope, samples=())
def pnorm(x, *, ord=2, axis=None, keepdims=False):
    """(sum |x|^ord)^(1/ord) over one axis, or several for ord = 2."""
    if ord == 2:
        return np.sqrt(np.sum(np.square(x), axis=axis, keepdims=keepdims))
    total = np.sum(np.abs(x) ** ord, axis=axis, keepdims=keepdims)
    return total ** np.reciprocal(ord, dtype=total.dtype)


@composed(
    np.linalg.norm,
    samples=[
        sample((3,)),
        sample((3, 4)),
        sample((3, 4), axis=0),
        sample((3, 4), ord=1, axis=1),
        sample((3, 4), ord=3, axis=0, keepdims=True),
        sample((4,), ord=np.inf),
        sample((3, 4), ord=1),
        sample((2, 3, 4), ord="fro", axis=(0, 2)),
        sample((3, 4), ord=-np.inf),
    ],
)
def norm(x, ord=None, axis=None, keepdims=False):
    if np.result_type(x).kind in "biu":  # as NumPy: the squares of small integers do not fit
        x = x.astype(float)
    if ord is None and axis is None:
        return pnorm(x, keepdims=keepdims)
    n = np.ndim(x)
    axes = normalize_axis_tuple(range(n) if axis is None else axis, n)
    if len(axes) not in (1, 2):
        raise ValueError(f"norm: one axis is wanted or two, got axis={axis} of shape {np.shape(x)}")
    if ord is None or (ord in ("fro", "f") and len(axes) == 2):
        return pnorm(x, axis=axes, keepdims=keepdims)
    if isinstance(ord, str):
        raise ValueError(f"norm: ord={ord!r} has no derivative rule here")
    if abs(ord) == np.inf or (abs(ord) == 1 and len(axes) == 2):
        rows, columns = axes if len(axes) == 2 else (None, axes[0])
        if abs(ord) == 1:
            rows, columns = columns, rows
        sums = np.abs(x) if rows is None else np.sum(np.abs(x), axis=columns, keepdims=True)
        if ord > 0 and np.size(x) == 0:  # which has the norm 0
            return np.sum(sums, axis=axes, keepdims=keepdims)
        return (np.max if ord > 0 else np.min)(sums, axis=axes, keepdims=keepdims)
    if len(axes) == 1 and ord != 0:
        return pnorm(x, ord=ord, axis=axes[0], keepdims=keepdims)
    raise ValueError(f"norm: ord={ord!r} over {len(axes)} axes has no derivative rule here")


@composed(
    np.linalg.matrix_power,
    domain=well_conditioned,
    samples=[
        sample((3, 3), n=1),
        sample((2, 2, 2), n=3),
        sample((3, 3), n=-2),
        sample((2, 2), n=13),
    ],
)
def matrix_power(a, n):
    unit = np.linalg.matrix_power(np.zeros(np.shape(a), np.result_type(a)), n * 0)
    if n == 0:
        return unit
    a, n = (a, n) if n > 0 else (np.linalg.inv(a), -n)
    if n == 3:  # which NumPy multiplies from the left
        return np.matmul(np.matmul(a, a), a)
    y = a if n % 2 else None
    while n := n // 2:
        a = np.matmul(a, a)
        if n % 2:
            y = a if y is None else np.matmul(y, a)
    return y


def chain_joint(g, y, arrays, live):
    """The product of all that stands on the left, g, and of all on the right, transposed."""
    first, last = arrays[0], arrays[-1]
    first = first if np.ndim(first) == 2 else np.expand_dims(first, 0)
    last = last if np.ndim(last) == 2 else np.expand_dims(last, 1)
    chain = [first, *arrays[1:-1], last]
    g = np.reshape(g, (np.shape(first)[0], np.shape(last)[1]))
    flipped = [mT(a) for a in chain]
    found = [np.linalg.multi_dot([*flipped[:i][::-1], g, *flipped[:i:-1]]) for i in live]
    return [np.reshape(d, np.shape(arrays[i])) for d, i in zip(found, live, strict=True)]


@primitive(joint=chain_joint, samples=())
def chain_product(*arrays):
    """np.linalg.multi_dot of the operands."""
    return np.linalg.multi_dot(arrays)


@composed(
    np.linalg.multi_dot,
    samples=[
        sample((2, 3), (3, 4), by=lambda f, *arrays: f(arrays)),
        sample((3,), (3, 4), (4,), by=lambda f, *arrays: f(arrays)),
        sample((2, 3), (3, 1), (1, 4), (4,), by=lambda f, *arrays: f(arrays)),
    ],
)
def multi_dot(arrays):
    return np.dot(*arrays) if len(arrays) == 2 else chain_product(*arrays)


def cov_slope(g, y, x, *, rowvar=True, bias=False, ddof=None, dtype=None):
    """(g + g^T) (x - mean) / (n - ddof), where each row is a variable."""
    rows = np.atleast_2d(x)
    turned = not rowvar and rows.shape[1] ** 2 == np.size(y)  # one row is not, in NumPy 2.0
    rows = rows.T if turned else rows
    k, n = rows.shape
    ddof = (0 if bias else 1) if ddof is None else ddof
    g = np.reshape(g, (k, k)) / max(n - ddof, 0)
    d = np.matmul(g + g.T, deviation(rows, 1))
    return np.reshape(d.T if turned else d, np.shape(x))


@primitive(cov_slope, samples=())
def covariance(x, *, rowvar=True, bias=False, ddof=None, dtype=None):
    """np.cov of one array."""
    return np.cov(x, None, rowvar, bias, ddof, dtype=dtype)


@composed(
    np.cov,
    samples=[
        sample((3, 5)),
        sample((5,), (2, 5)),
        sample((5, 3), rowvar=False, bias=True),
        sample((5,), ddof=0),
    ],
)
def cov(m, y=None, rowvar=True, bias=False, ddof=None, fweights=None, aweights=None, *, dtype=None):
    if fweights is not None or aweights is not None:
        raise no_rule("cov with weights")
    if y is not None:
        flat, m, y = np.ndim(m) == 1, np.atleast_2d(m), np.atleast_2d(y)
        m = m if rowvar or flat else m.T
        y = y if rowvar or len(y) == 1 else y.T
        m, rowvar = np.concatenate([m, y]), True
    return covariance(m, rowvar=rowvar, bias=bias, ddof=ddof, dtype=dtype)


without_gradient(np.linalg.matrix_rank)

# ------------------------------------------------------------------------------- other names

# What the array API calls differently: the last axes are meant, and options have names.

composed(np.linalg.matmul, samples=[sample((2, 3, 4), (4, 2))])(lambda a, b: np.matmul(a, b))
composed(np.linalg.outer, samples=[sample((3,), (4,))])(lambda a, b: np.outer(a, b))
composed(np.linalg.tensordot, samples=[sample((3, 4), (4, 5), axes=1)])(
    lambda a, b, *, axes=2: np.tensordot(a, b, axes)
)
composed(np.linalg.cross, samples=[sample((4, 3), (4, 3)), sample((3, 4), (3, 4), axis=0)])(
    lambda a, b, *, axis=-1: np.cross(a, b, axis=axis)
)
composed(np.linalg.diagonal, samples=[sample((2, 3, 4)), sample((3, 4), offset=1)])(
    lambda x, *, offset=0: np.diagonal(x, offset, -2, -1)
)
composed(np.linalg.trace, samples=[sample((2, 3, 3)), sample((3, 4), offset=1)])(
    lambda x, *, offset=0: np.trace(x, offset, -2, -1)
)
composed(np.linalg.matrix_norm, samples=[sample((2, 3, 4)), sample((3, 4), ord=1, keepdims=True)])(
    lambda x, *, keepdims=False, ord="fro": np.linalg.norm(x, ord, (-2, -1), keepdims)
)


@composed(np.linalg.vecdot, samples=[sample((2, 3), (3,)), sample((3, 2), (3, 2), axis=0)])
def vecdot(a, b, *, axis=-1):
    a, b = np.moveaxis(a, axis, -1), np.moveaxis(b, axis, -1)
    return np.matmul(row(a), column(b))[..., 0, 0]


@composed(
    np.linalg.vector_norm,
    samples=[
        sample((3, 4)),
        sample((3, 4), axis=0, ord=3),
        sample((2, 3, 4), axis=(2, 0), ord=1, keepdims=True),
    ],
)
def vector_norm(x, *, axis=None, keepdims=False, ord=2):
    n = np.ndim(x)
    axes = normalize_axis_tuple(range(n) if axis is None else axis, n)
    rest = [a for a in range(n) if a not in axes]
    length, shape = int(np.prod([np.shape(x)[a] for a in axes])), [np.shape(x)[a] for a in rest]
    y = np.linalg.norm(np.reshape(np.transpose(x, [*axes, *rest]), (length, *shape)), ord, 0)
    return np.expand_dims(y, tuple(axes)) if keepdims else y

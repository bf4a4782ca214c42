"""NumPy is the vocabulary: which functions are differentiable, with all their arguments."""

import re

import numpy as np
import pytest
import scipy.special as sp

import tinyflux as flux
from tests.laws import differences
from tests.suites import a_third
from tinyflux.primitive import OPERATIONS, PLAIN

ELEMENTWISE = """
add subtract multiply divide power float_power negative positive absolute fabs sign reciprocal
square sqrt cbrt exp exp2 expm1 log log2 log10 log1p sin cos tan arcsin arccos arctan arctan2 sinh
cosh tanh arcsinh arccosh arctanh hypot sinc maximum minimum fmax fmin clip where logaddexp
logaddexp2 deg2rad rad2deg degrees radians nan_to_num remainder mod true_divide abs pow acos asin
atan
"""
REDUCTIONS = """
sum mean prod max min amax amin var std average cumsum cumprod diff ptp linalg.norm nansum nanmean
median quantile percentile trapezoid cov
"""
LINEAR = """
matmul dot inner outer vdot tensordot einsum kron trace diag diagonal tril triu cross linalg.inv
linalg.det linalg.slogdet linalg.solve linalg.cholesky linalg.eigh linalg.matrix_power
linalg.multi_dot vecdot convolve correlate polyval
"""
SHAPES = """
reshape ravel transpose permute_dims matrix_transpose swapaxes moveaxis rollaxis expand_dims
squeeze atleast_1d atleast_2d atleast_3d broadcast_to broadcast_arrays concatenate concat stack
vstack hstack dstack column_stack split array_split vsplit hsplit dsplit repeat tile flip fliplr
flipud roll rot90 pad append insert delete block
"""
INDEXING = "take take_along_axis compress sort select interp"
CONSTANT = """
equal not_equal less less_equal greater greater_equal logical_and logical_or logical_not isnan
isinf isfinite sign floor ceil rint round trunc floor_divide heaviside argmax argmin argsort any
all count_nonzero shape ndim size zeros_like ones_like nonzero searchsorted isclose allclose
array_equal
"""
UFUNCS_OF_SCIPY = "expit logit erf erfc gammaln xlogy psi"


def numpy_function(name):
    f = np
    for part in name.split("."):
        f = getattr(f, part)
    return f


NAMES = " ".join([ELEMENTWISE, REDUCTIONS, LINEAR, SHAPES, INDEXING]).split()
NEWER = "cumulative_sum cumulative_prod matvec vecmat".split()  # than NumPy 2.0
MISSING = [name for name in NEWER if not hasattr(np, name)]


@pytest.mark.parametrize("name", [*NAMES, *(n for n in NEWER if n not in MISSING)])
def test_has_a_derivative(name):
    f = numpy_function(name)
    assert f in OPERATIONS or f in PLAIN
    assert (f in OPERATIONS) != (name == "sign")


@pytest.mark.parametrize("name", CONSTANT.split())
def test_is_constant(name):
    assert numpy_function(name) in PLAIN


@pytest.mark.parametrize("name", UFUNCS_OF_SCIPY.split())
def test_ufunc_of_scipy_has_a_derivative(name):
    assert (name, "scipy.special") in OPERATIONS


def test_nothing_is_both():
    assert not PLAIN & set(OPERATIONS)


# --- functions without a rule --------------------------------------------------------------------

UNKNOWN = {
    name: f
    for module in (np, np.linalg, np.fft)
    for name, f in sorted(vars(module).items())
    if (isinstance(f, np.ufunc) or hasattr(f, "_implementation"))
    and f not in PLAIN
    and f not in OPERATIONS
}  # fmt: skip
# They take no array that could be recorded, or take one where a gradient means nothing.
OTHER_ARGUMENTS = {
    "apply_along_axis", "apply_over_axes", "array2string", "fromfunction", "piecewise", "savetxt",
    "save", "savez", "savez_compressed", "ix_", "copyto", "putmask", "place", "put",
    "fill_diagonal", "put_along_axis", "choose", "einsum_path", "histogram2d", "histogramdd",
    "lexsort", "ravel_multi_index", "unravel_index", "unpackbits", "packbits",
    "datetime_as_string", "busday_count", "busday_offset", "is_busday", "histogram_bin_edges",
    "min_scalar_type", "fftfreq", "common_type",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(UNKNOWN) - OTHER_ARGUMENTS))
def test_a_function_without_a_rule_names_itself(name):
    """Rather than compute something whose gradient would be lost."""
    f = UNKNOWN[name]

    def loss(x):
        for args in ((x,), (x, x), (x, x, x), (x, 1), (x, 1, 1)):
            try:
                f(*args)
            except TypeError as error:
                if isinstance(error, flux.NotDifferentiableError):
                    raise
                continue  # not the number of arguments that it wants
            return pytest.fail(f"{name} returned a value")
        return pytest.fail(f"{name} could not be called")

    with pytest.raises(flux.NotDifferentiableError) as caught:
        flux.gradient(loss, np.eye(2) + 0.5)
    module = getattr(f, "__module__", "numpy")  # an older ufunc has none
    full = f"{module}.{f.__name__}".removeprefix("numpy.")  # linalg.svd
    assert str(caught.value).startswith(f"{full} has no derivative rule, so it cannot be used")
    assert "detach(t)" in str(caught.value)


@pytest.mark.parametrize("f", [sp.j0, sp.gamma, sp.ndtr])
def test_a_ufunc_of_scipy_without_a_rule_names_itself(f):
    with pytest.raises(flux.NotDifferentiableError, match=f"^{f.__name__} has no derivative rule"):
        flux.gradient(lambda x: np.sum(f(x)), np.ones(2))


def test_outside_a_gradient_every_function_works():
    t = flux.Tensor(np.eye(2) + 0.5)
    np.testing.assert_array_equal(np.linalg.pinv(t), np.linalg.pinv(t.data))
    np.testing.assert_array_equal(np.nanmedian(t), np.nanmedian(t.data))
    np.testing.assert_array_equal(sp.j0(t), sp.j0(t.data))


@pytest.mark.parametrize(
    "f",
    [
        lambda x, s: np.sum(x, initial=s), lambda x, s: np.max(x, axis=0, initial=s),
        lambda x, s: np.prod(x, None, None, None, False, s),
        lambda x, s: np.pad(x, 1, constant_values=s), lambda x, s: np.roll(x, s),
        lambda x, s: np.var(x, mean=np.mean(x, keepdims=True)), lambda x, s: np.sum([s, s]),
        lambda x, s: np.where(x > 0, x, [s, s]), lambda x, s: np.full((2,), s),
        lambda x, s: np.nan_to_num(x, nan=s), lambda x, s: np.linspace(0, s, 3),
        lambda x, s: np.unique(x), lambda x, s: np.histogram([1.0], weights=[s]),
        lambda x, s: np.nextafter(x, s),
        lambda x, s: np.quantile(x, s), lambda x, s: np.interp(x, [0.0, 1.0], [1.0, 2.0], left=s),
        lambda x, s: np.delete(x, s), lambda x, s: np.insert(x, s, 1.0),
        lambda x, s: np.append(x, [s, s]), lambda x, s: np.polyval([s, s], x),
        lambda x, s: np.cov(x, aweights=x), lambda x, s: np.nansum(x, initial=s),
    ],
)  # fmt: skip
def test_an_argument_whose_gradient_would_be_lost_raises(f):
    """Also where NumPy would quietly make a number of it."""
    with pytest.raises((flux.RecordingError, flux.NotDifferentiableError)):
        flux.gradient(lambda x, s: np.sum(f(x, s)), np.array([1.0, 2.0]), 0.5)


def test_plain_functions_give_plain_results_of_recorded_values():
    def f(x):
        assert type(np.argmax(x)) is np.int64 and type(np.isnan(x)) is np.ndarray
        assert type(np.zeros_like(x)) is np.ndarray and np.shape(x) == (3,)
        assert type(np.sign(x * 2)) is np.ndarray and type(np.round(x, 1)) is np.ndarray
        assert np.any(x > 2) and not np.all(x > 2) and np.count_nonzero(x > 1) == 2
        return np.sum(x * np.floor(x))

    np.testing.assert_array_equal(flux.gradient(f, np.array([1.5, 0.5, 2.5]))[0], [1, 0, 2])


# --- calls ---------------------------------------------------------------------------------------
# Each is computed with x and y of shape (3, 4), v and w of (4,), c of (2, 3, 4), q of (3, 3) far
# from singular, s a number, all between 0.2 and 0.9 but for the diagonal of q; m is a mask.

CALLS = """
np.add(x, v); np.subtract(s, x); np.multiply(c, x); np.divide(v, c); np.true_divide(x, 2)
np.power(x, 3); np.power(x, 2.5); np.power(2.0, x); np.power(x, y); np.float_power(x, v); x**2
x**-1; x**0.5; x**0; 2**x; x**y; x**np.int64(3); x**np.array([0, 1, 2, 3]); np.reciprocal(x)
np.negative(x); np.remainder(x, y); np.mod(x, 0.15); x % y; np.fabs(x); abs(-x)
np.clip(x, 0.31, 0.69); np.clip(x, None, 0.5); np.clip(x, 0.5, None)
np.clip(x, a_min=0.31, a_max=0.69); np.clip(x, v, 1); np.clip(x, min=0.5); np.clip(x, max=v)
np.clip(0.5, x, y); np.where(m, x, y); np.where(m, x, 0.0); np.where(x > 0.5, v, x)
np.where(m, s, 1); np.maximum(x, y); np.minimum(x, 0.5); np.fmax(v, x); np.fmin(x, s)
np.hypot(x, v); np.arctan2(x, y); np.arctan2(-x, -y); np.arctan2(1.0, x); np.logaddexp(x, v)
np.logaddexp2(x, 0.5); np.arccosh(x + 1); np.sinc(x); np.sinc(x - 0.5); np.nan_to_num(x)
np.nan_to_num(x, nan=1.0); np.nan_to_num(x, copy=True, posinf=3); np.deg2rad(x); np.degrees(x)
np.exp2(x); np.cbrt(x); sp.expit(x); sp.logit(x); sp.erf(x); sp.erfc(x); sp.gammaln(x)
sp.xlogy(x, y); sp.xlogy(2, x); sp.xlogy(v, 3.0); sp.psi(x); np.sum(x); np.sum(x, 0)
np.sum(x, axis=1); np.sum(x, -1); np.sum(c, axis=(0, -1)); np.sum(x, axis=())
np.sum(c, axis=(0, 2), keepdims=True); np.sum(x, axis=0, keepdims=True); np.sum(x, initial=2.5)
np.sum(x, where=m); np.sum(x, axis=0, where=m, initial=1.0); np.sum(x, axis=1, where=m[0])
np.sum(s); np.sum(x, keepdims=True); np.sum(x, axis=1, dtype=np.float32); np.mean(x)
np.mean(x, 0); np.mean(c, axis=(0, -1), keepdims=True); np.mean(x, axis=0, where=m)
np.mean(x, where=m); np.mean(x, axis=1, where=m); np.mean(x, axis=()); np.mean(s); np.prod(x)
np.mean(x, dtype=np.float32)
np.prod(x, 0); np.prod(c, axis=(0, 2)); np.prod(c, axis=(0, 1), keepdims=True)
np.prod(x, axis=1, initial=3.0); np.prod(x, where=m); np.prod(s, initial=2)
np.prod(x, axis=0, where=m, initial=2.0); np.max(x); np.max(x, 0); np.max(c, axis=(0, -1))
np.max(x, axis=1, keepdims=True); np.amax(x, axis=-1); np.max(x, initial=0.55)
np.max(x, axis=0, initial=0.55); np.max(x, axis=0, where=m, initial=-1); np.min(x); np.min(x, 0)
np.min(c, axis=(1, -1), keepdims=True); np.amin(x); np.min(x, initial=0.35)
np.min(x, where=m, initial=9.0); np.var(x); np.var(x, 0)
np.var(c, axis=(0, 2), ddof=1, keepdims=True); np.var(x, axis=1, correction=1); np.var(x, where=m)
np.var(x, axis=1, where=m, ddof=1); np.std(x); np.std(x, axis=0)
np.std(c, axis=(0, -1), ddof=1, keepdims=True); np.std(x, correction=1); np.std(x, where=m)
np.std(x, axis=1, where=m); np.std(s + np.zeros(3) * x[0, :3] + x[1, :3]); np.average(x)
np.average(x, axis=0); np.average(x, weights=y); np.average(x, axis=1, weights=v)
np.average(c, axis=(1, 2), weights=x); np.average(x, axis=0, weights=y, keepdims=True)
np.average(x, axis=1, weights=v, returned=True)[1]; np.average(x, returned=True)[0]
np.average(x, axis=1, weights=[1, 2, 3, 4]); np.average(c, axis=(2, 1), weights=x.T); np.cumsum(x)
np.cumsum(x, 0); np.cumsum(c, axis=-1); np.cumsum(s); np.cumprod(x); np.cumprod(x, axis=0)
np.cumprod(c, axis=-2); np.cumprod(x, 1); np.diff(x); np.diff(x, 2); np.diff(x, n=2, axis=0)
np.diff(x, axis=-2); np.diff(v, prepend=0.0); np.diff(x, append=y)
np.diff(x, prepend=s, append=1.0); np.diff(x, axis=0, prepend=v[None]); np.diff(x, n=0); np.ptp(x)
np.ptp(x, axis=0); np.ptp(x, axis=1, keepdims=True); np.ptp(x, -1); np.linalg.norm(x)
np.linalg.norm(v); np.linalg.norm(x, axis=0); np.linalg.norm(x, axis=-1, keepdims=True)
np.linalg.norm(v, 1); np.linalg.norm(v, 3); np.linalg.norm(v, np.inf); np.linalg.norm(v, -np.inf)
np.linalg.norm(x, "fro"); np.linalg.norm(x, ord=1); np.linalg.norm(x, np.inf)
np.linalg.norm(x, -1); np.linalg.norm(c, axis=(1, 2)); np.linalg.norm(c, "fro", axis=(0, 2))
np.linalg.norm(x, 1.5, axis=1); np.linalg.norm(c); np.linalg.norm(c, ord=np.inf, axis=(1, 2))
np.linalg.norm(x, 2, axis=1, keepdims=True); np.linalg.norm(x, axis=(0, 1), keepdims=True)
np.linalg.norm(x, -np.inf, axis=0); x @ v; v @ v; v @ x.T; c @ v; x @ y.T; c @ y.T; v @ c.mT
np.matmul(x, c.mT); [0.5] * 4 @ v; 1.0 * m @ v; np.dot(x, v); np.dot(v, w); np.dot(x, y.T)
np.dot(s, x); np.dot(x, 2); np.dot(c, v); np.dot(c, x.T); np.dot(c, np.moveaxis(c, 1, 2))
x.dot(v); np.inner(x, y); np.inner(v, w); np.inner(c, x); np.inner(s, x); np.outer(v, w)
np.outer(x, v); np.vdot(v, w); np.vdot(x, y); np.kron(v, w); np.kron(x, v); np.kron(x, q)
np.tensordot(c, x); np.tensordot(x, y, axes=([0, 1], [0, 1])); np.tensordot(x, v, 1)
np.tensordot(c, x, axes=(-1, 1)); np.tensordot(c, q, axes=[[1], [0]]); np.tensordot(v, w, axes=0)
np.tensordot(x, y, axes=((1, 0), (1, 0))); np.einsum("ij,ij->", x, y); np.einsum("ij,j", x, v)
np.einsum("ij->ji", x); np.einsum("ii", q); np.einsum("ii->i", q); np.einsum("i,j->ij", v, w)
np.einsum("ij,kj->ik", x, y); np.einsum("...j,j->...", c, v); np.einsum("bij,ij->b", c, x)
np.einsum("ij,ij,j->i", x, y, v); np.einsum("ij->", x); np.einsum("ij->j", x)
np.einsum(x, [0, 1], v, [1], [0]); np.einsum("bi...,i...->b...", c, x); np.einsum("i...->...", c)
np.einsum("ij,jk,kl->il", x, y.T, q, optimize=True); np.einsum("ii,ij->j", q, x)
np.einsum("i,i", v, v); np.einsum("ij,jk", x, y.T); np.einsum("i j -> j i", x); np.trace(q)
np.trace(x); np.trace(x, 1); np.trace(q, offset=-1); np.trace(c, axis1=1, axis2=2)
np.trace(c, 0, 0, 1); np.diagonal(q); np.diagonal(x, 1); np.diagonal(x, offset=-2)
np.diagonal(c, 0, 1, 2); np.diagonal(c, axis1=-1, axis2=0); np.diag(v); np.diag(q); np.diag(v, 1)
np.diag(x, k=-1); np.diag(v, -2); np.tril(x); np.tril(x, -1); np.triu(c, k=1); np.triu(x)
np.cross(v[:3], w[:3]); np.cross(x[:, :3], v[:3]); np.cross(x, y, axis=0)
np.cross(q, x[:, 1:], axisa=0); np.cross(q, q.T, 0, 0, 1)
np.cross(x, y.T, axisa=0, axisb=1, axisc=0); np.linalg.inv(q); np.linalg.det(q)
np.linalg.slogdet(q)[1]; np.linalg.slogdet(q).logabsdet; np.linalg.solve(q, x)
np.linalg.solve(q, v[:3]); np.linalg.solve(np.stack([q, q.T]), c); np.linalg.cholesky(q @ q.T)
np.linalg.cholesky(q @ q.T, upper=True); np.linalg.eigh(q @ q.T)[0]
np.linalg.eigh(q @ q.T, "U").eigenvalues; np.linalg.eigh(q @ q.T).eigenvectors ** 2
np.linalg.inv(np.stack([q, q.T])); np.linalg.det(np.stack([q, 2 * q])); np.reshape(x, (4, 3))
np.reshape(x, -1); np.reshape(x, (2, -1), order="F"); np.reshape(x, shape=(6, 2)); x.reshape(2, 6)
x.reshape((6, -1)); np.ravel(x); np.ravel(x, "F"); np.ravel(x.T); x.ravel(order="F"); x.flatten()
np.transpose(x); np.transpose(c, (2, 0, 1)); np.transpose(c, axes=[-1, 0, 1])
np.permute_dims(c, (1, 2, 0)); x.T; c.mT; c.transpose(1, 0, 2); np.matrix_transpose(c)
np.swapaxes(c, 0, -1); np.swapaxes(c, axis1=1, axis2=2); np.moveaxis(c, 0, -1)
np.moveaxis(c, [0, 1], [-1, 0]); np.moveaxis(c, source=-1, destination=0); np.rollaxis(c, 2)
np.rollaxis(c, 0, 3); np.rollaxis(c, -1, 1); np.rollaxis(c, axis=1, start=0); np.expand_dims(x, 0)
np.expand_dims(x, axis=(0, -1)); np.expand_dims(x, -2); np.squeeze(x[:1]); x[:, :1].squeeze(1)
np.squeeze(x[None, :, None], axis=(0, 2)); np.atleast_1d(s); np.atleast_2d(v); np.atleast_3d(x)
np.atleast_3d(v); np.atleast_1d(s, x)[1]; np.broadcast_to(v, (3, 4))
np.broadcast_to(x, shape=(2, 3, 4)); np.broadcast_to(s, (2,)); np.broadcast_arrays(x, v)[1]
np.broadcast_arrays(x[:, :1], c)[0]; np.concatenate([x, y]); np.concatenate((x, y), 1)
np.concatenate([x, v[None]], axis=-2); np.concatenate([x, v], axis=None)
np.concatenate([x, np.ones((1, 4))]); np.concat([x, y], axis=1); np.concatenate(c)
np.concatenate([x, x]); np.concatenate([x[:0], x]); np.stack([x, y]); np.stack((v, w, v), axis=1)
np.stack([s, s, 1.0]); np.stack([x, y], -1); np.vstack([x, v]); np.vstack((v, w))
np.hstack([v, w]); np.hstack([x, q]); np.dstack([x, y]); np.dstack([v, w])
np.column_stack([v, w]); np.column_stack((x, v[:3])); np.vstack(c); np.split(x, 2, axis=1)[1]
np.split(x, [1, 3], -1)[2]; np.split(v, 4)[3]; np.array_split(v, 3)[0]; np.split(v, [1, 9])[1]
np.array_split(x, 2)[1]; np.array_split(x, [1], axis=1)[0]; np.vsplit(x, 3)[0]
np.hsplit(x, [1])[1]; np.hsplit(v, 2)[1]; np.dsplit(c, 2)[0]; np.vsplit(x, (1,))[1]
np.repeat(x, 2); np.repeat(x, 2, axis=0); np.repeat(x, [1, 0, 2], axis=0); np.repeat(v, repeats=3)
np.repeat(s, 3); np.tile(v, 2); np.tile(x, (2, 1)); np.tile(x, reps=(2, 1, 2)); np.flip(x)
np.flip(x, 0); np.flip(c, axis=(0, -1)); np.fliplr(x); np.flipud(x); np.roll(x, 1)
np.roll(x, -2, axis=1); np.roll(x, (1, 2), axis=(0, 1)); np.roll(x, 5, 0)
np.roll(x, shift=1, axis=(0, 1)); np.rot90(x); np.rot90(x, 2); np.rot90(c, k=-1, axes=(1, 2))
np.rot90(x, 3, (1, 0)); np.pad(v, 1); np.pad(x, (1, 2)); np.pad(x, ((0, 1), (2, 0)))
np.pad(v, 2, "constant", constant_values=3); np.pad(x, 1, mode="edge"); np.pad(x, 2, "reflect")
np.pad(v, 2, mode="symmetric"); np.pad(v, (1, 3), "wrap")
np.pad(x, [(1, 1), (0, 2)], constant_values=((1, 2), (3, 4)))
np.pad(v, 3, mode="reflect", reflect_type="even"); x[0]; x[-1, 2]; x[1:]; x[::-1, ::2]; x[None]
x[..., 1]; x[:, None, 1:3]; x[[0, 0, 2]]; x[m]; x[[0, 1], [2, 2]]; x[:, [3, 0, 3]]
x[np.array([[0, 1], [2, 0]])]; x[m[:, 0]]; x[1, [0, 0]]; x[[True, False, True]]; c[0, :, [1, 1]]
c[..., None, 0]; c[np.ix_([0, 1], [2, 0], [1, 1])]; x[()]; s[()]; x[np.int64(1)]; x[:0]
x[-2:, -3:-1]; s[None]; x[x > 0.5]; x[np.argsort(v)[:3], 1]; x[slice(0, 2)]
x[x.argmax(axis=0), np.arange(4)]; np.take(x, 3); np.take(x, [0, 0, 5])
np.take(x, [1, 0], axis=0); np.take(x, indices=[[0, 1]], axis=-1)
np.take(x, [-1, 9], axis=1, mode="clip"); np.take(x, [5, -5], mode="wrap"); np.take(x, 1, 1)
x.take([1], axis=0); np.take_along_axis(x, np.argsort(x, axis=1), axis=1)
np.take_along_axis(x, np.argsort(x, 0)[:2], 0); np.take_along_axis(x, np.array([3, 3]), None)
np.take_along_axis(c, np.zeros((2, 3, 1), int), axis=-1)
np.compress([True, False, True], x, axis=0); np.compress([0, 1], x); np.compress(m[0], x, 1)
np.sort(x); np.sort(x, axis=0); np.sort(x, axis=None); np.sort(c, 1); np.sort(x, kind="stable")
x.sort(axis=0); np.bincount([0, 2, 2, 1], v); np.bincount([1, 0, 1, 3], weights=w, minlength=6)
np.full_like(x, s); np.full_like(x[0], v, shape=(2, 4)); np.copy(x)
np.nansum(x, 1); np.nansum(x, axis=1, where=m, initial=2.0); np.nansum(np.where(m, x, np.nan))
np.nansum(c, (0, -1), keepdims=True); np.nanmean(x, -1); np.nanmean(x, axis=1, where=m)
np.nanmean(np.where(m, x, np.nan), axis=1, keepdims=True); np.nanmean(x, dtype=np.float32)
np.median(x); np.median(x, 1); np.median(c, axis=(0, -1), keepdims=True); np.median(s)
np.median(x, overwrite_input=True); np.quantile(x, 0.3); np.quantile(x, [0, 0.5, 1], 0)
np.quantile(v, q=[[0.1, 0.4], [0.5, 1]]); np.quantile(c, 0.7, axis=(2, 0), method="linear")
np.quantile(x, [0.25], axis=-1, keepdims=True, overwrite_input=True); np.percentile(x, 30)
np.percentile(x, (12.5, 99), axis=1); np.percentile(c, q=0, axis=1, keepdims=True)
np.trapezoid(v); np.trapezoid(x, dx=s); np.trapezoid(x, v); np.trapezoid(c, x=v[:3], axis=1)
np.trapezoid(x, y, axis=0); np.trapezoid([1, 2, 3, 4], v); np.cov(x); np.cov(v, w); np.cov(x, v)
np.cov(x, rowvar=False); np.cov(x.T, v, False); np.cov(x.T, y.T, 0, True); np.cov(x, bias=True)
np.cov(v, ddof=2); np.cov(x, dtype=np.float64); np.linalg.matrix_power(q, 3)
np.linalg.matrix_power(q, -1); np.linalg.matrix_power(np.stack([q, q.T]), 6)
np.linalg.matrix_power(q, n=1); np.linalg.multi_dot([x, v]); np.linalg.multi_dot((q, x, v))
np.linalg.multi_dot([v, y.T, q, x, w]); np.linalg.multi_dot([x, y.T, q]); np.vecdot(x, v)
np.vecdot(c, x); np.convolve(v, w); np.convolve(v, [1, 2], "same"); np.convolve(2.0, v)
np.convolve(v, np.ravel(x), mode="valid"); np.correlate(v, w); np.correlate(v, [1, 2], "full")
np.correlate(v[:2], w, "same"); np.polyval(v, x); np.polyval([1, 2, 3], x); np.polyval(v, 2)
np.polyval(v, s); np.append(x, y); np.append(x, v[None], 0); np.append(v, 1.0); np.append([1, 2], s)
np.insert(v, 1, s); np.insert(x, [0, 2], s, axis=1); np.insert(x, 1, v, 0); np.insert(x, 2, 7.0)
np.insert(x, slice(0, 2), y[:2], axis=0); np.insert([1.0, 2.0], -1, v); np.delete(v, 1)
np.delete(x, [0, -1], axis=1); np.delete(x, slice(None, None, 2)); np.delete(x, m[:, 0], 0)
np.block([v, s]); np.block([[x, y], [y, np.ones((3, 4))]]); np.block([[v], [x]]); np.block([[[s]]])
np.block([v, x[:1]]); np.block(x); np.interp(x, [0.3, 0.5, 0.7], [1, 3, 2])
np.interp(s, v.cumsum(), w); np.interp(x, np.cumsum(v), w, left=1.0)
np.interp(0.5, [0.0, 1.0, 2.0], v[:3], right=0); np.interp(x, [0.2, 0.4], w[:2], 1.0, 2.0)
np.interp(x, [0.5], w[:1]); np.matvec(x, v); np.matvec(c, x[:2]); np.vecmat(v, x.T)
np.vecmat(x[:2, :3], c); np.cumulative_sum(v); np.cumulative_sum(x, axis=0, dtype=np.float32)
np.cumulative_sum(x, axis=-1, include_initial=True); np.cumulative_prod(x, axis=0)
np.cumulative_prod(s); np.cumulative_prod(v, include_initial=True)
np.select([m, x > 0.5], [x, y], 0.25); np.select([m], [x]); np.select([m, ~m], [x, v], default=s)
"""
CALLS = [call.strip() for call in CALLS.replace("\n", ";").split(";") if call.strip()]
CALLS = [call for call in CALLS if not any(f"np.{name}(" in call for name in MISSING)]
if np.lib.NumpyVersion(np.__version__) < "2.1.0":  # which brought these keywords
    CALLS = [c for c in CALLS if not re.search(r"clip\(x, (min|max)=|reshape\(x, shape=", c)]


def operands():
    rng = np.random.default_rng(1)
    lattice = rng.permutation(np.linspace(0.2, 0.9, 68)[1:-1])
    shapes = {"x": (3, 4), "y": (3, 4), "v": (4,), "w": (4,), "c": (2, 3, 4), "q": (3, 3), "s": ()}
    values = {}
    for name, shape in shapes.items():
        n = int(np.prod(shape))
        values[name], lattice = lattice[:n].reshape(shape), lattice[n:]
    values["q"] = values["q"] + np.diag([1.0, 2.5, 4.0])
    return values


OPERANDS = operands()
MASK = np.array([[1, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 0]], bool)


CALLS += [  # what stood in NumPy's way at some time
    "np.mean(q, axis=1, where=np.eye(3) > 0)", "np.var(x, mean=np.float64(0.5))",
    "np.std(x, axis=0, mean=np.zeros((1, 4)), keepdims=True)", "np.diff(x, n=0, prepend=9.0)",
    "np.einsum('ij,ik,k->', m.T[:2] > -9, m.T[:2] > 0, x[:, 0])",
    "np.einsum('ij,k->', np.full((300, 3), 2, np.uint8), v)", "np.einsum(x, [0, 26])",
    "np.linalg.solve(np.stack([q, q + np.eye(3), q.T, q @ q]), v[:3])",
    "np.linalg.solve(np.stack([q, q + np.eye(3), q.T]), v[:3])",
    "np.linalg.vector_norm(x, axis=(0, 1), ord=1)", "np.linalg.vector_norm(x, axis=(1, 0))",
    "np.linalg.vector_norm(v, axis=())",
    "np.linalg.vector_norm(x, axis=(0, 1), ord=np.inf, keepdims=True)",
    "np.take(x[0], np.array([True, False, True]))",
    "np.take(np.resize(v, 300), np.array([200], np.uint8), mode='wrap')",
    "np.power(np.array([2, 3, 5, 7], np.uint8), x)", "np.float_power(np.int8(3), x)",
    "np.diagonal(x, 7)", "np.trace(q, -5)", "np.diff(a=x)", "np.repeat(a=x, repeats=2)",
    "np.tile(A=x, reps=2)", "np.pad(array=x, pad_width=1)", "np.clip(a=x, a_min=0.1, a_max=0.9)",
    "np.compress(condition=[1, 0], a=x, axis=0)", "np.nan_to_num(x, True, 1.0)",
]  # fmt: skip


@pytest.mark.parametrize("call", a_third(CALLS))
def test_call(call):
    """The recorded value is NumPy's, and the gradient agrees with differences."""
    code = compile(call, call, "eval")
    names = [n for n in code.co_names if n in OPERANDS]
    x = [np.array(OPERANDS[n]) for n in names]
    run = lambda *a: eval(code, {"np": np, "sp": sp, "m": MASK, **dict(zip(names, a, strict=True))})
    if call == "x.sort(axis=0)":  # of an array this works in place
        wanted = np.sort(x[0], axis=0)
        plain = lambda x: np.sort(x, axis=0)
    else:
        wanted, plain = run(*x), run
    value, back = flux.pullback(run, *x)
    assert type(back.output) is flux.Tensor
    assert np.shape(value) == np.shape(wanted) and np.result_type(value) == np.result_type(wanted)
    single = np.result_type(wanted) == np.float32
    np.testing.assert_allclose(value, wanted, rtol=1e-6 if single else 1e-13)
    weights = np.random.default_rng(2).standard_normal(np.shape(wanted))
    found = back(weights)
    if single:  # too coarse for differences
        plain = lambda *a: eval(call.replace("float32", "float64"), {"np": np, "x": a[0]})
    for k, a in enumerate(x):
        direction = np.random.default_rng(3 + k).standard_normal(a.shape)
        moved = lambda b: np.sum(plain(*x[:k], b, *x[k + 1 :]) * weights)  # noqa: B023
        got = 0.0 if found[k] is None else np.sum(found[k] * direction)
        np.testing.assert_allclose(
            got, differences(moved, [a], [direction]), rtol=1e-5 if single else 2e-7, atol=2e-8
        )


@pytest.mark.parametrize(
    "call, error",
    [
        ("np.max(np.zeros((0, 3)) * x[:0, :3])", ValueError), ("np.sum(x, axis=2)", ValueError),
        ("np.reshape(x, (5, 5))", ValueError), ("x @ y", ValueError), ("x[7]", IndexError),
        ("np.concatenate([x, v])", ValueError), ("np.stack([x, v])", ValueError),
        ("x + v[:3]", ValueError), ("np.split(x, 2)", ValueError), ("np.take(x, 99)", IndexError),
        ("np.squeeze(x, 0)", ValueError), ("np.transpose(x, (0, 0))", ValueError),
        ("np.moveaxis(x, 5, 0)", ValueError), ("np.linalg.inv(x)", np.linalg.LinAlgError),
        ("np.linalg.inv(0 * q)", np.linalg.LinAlgError), ("np.einsum('ij,jk', x, y)", ValueError),
        ("np.cross(v, w)", ValueError), ("np.sum()", TypeError),
        ("np.tensordot(x, y, 1)", ValueError), ("np.broadcast_to(x, (2, 2))", ValueError),
        ("np.sum(x, colour=3)", TypeError), ("np.pad(x, 1, 'mean')", ValueError),
        ("np.linalg.norm(x, 2)", ValueError), ("np.repeat(x, [1, 2], axis=0)", ValueError),
        ("np.average(x, axis=0, weights=v)", (TypeError, ValueError)),
        ("np.diff(x, n=-1)", ValueError),
        ("np.take_along_axis(x, np.zeros((2, 2), int), 1)", (ValueError, IndexError)),
        ("np.concatenate([])", ValueError), ("np.expand_dims(x, 9)", ValueError),
        ("np.einsum('ij,jk', x)", ValueError), ("np.einsum('ijk->i', x)", ValueError),
        ("np.block([[x, x], x])", ValueError), ("np.delete(x, 9, axis=0)", IndexError),
        ("np.insert(x, 9, 1.0, axis=0)", IndexError), ("np.median(x, axis=2)", ValueError),
        ("np.quantile(x, 1.5)", ValueError), ("np.convolve(v, w, 'odd')", ValueError),
        ("np.trapezoid(x, v, axis=0)", ValueError), ("np.linalg.matrix_power(x, 2)", ValueError),
        ("np.linalg.matrix_power(q, 0.5)", TypeError), ("np.linalg.multi_dot([x])", ValueError),
        ("np.interp(x, v, w[:2])", ValueError),
        ("np.quantile(x, 0.5, method='lower')", flux.NotDifferentiableError),
        ("np.percentile(x, 5, weights=x, method='inverted_cdf')", flux.NotDifferentiableError),
        ("np.interp(x, v, w, period=1)", flux.NotDifferentiableError),
        ("np.cov(x, fweights=[1, 1, 2, 1])", flux.NotDifferentiableError),
        ("np.polyval(v, np.poly1d([1, 2]))", flux.NotDifferentiableError),
    ],
)  # fmt: skip
def test_misuse_raises_what_numpy_raises(call, error):
    code = compile(call, call, "eval")
    names = [n for n in code.co_names if n in OPERANDS] or ["x"]
    run = lambda *a: eval(code, {"np": np, **dict(zip(names, a, strict=True))})
    x = [OPERANDS[n] for n in names]
    with pytest.raises(error):
        flux.pullback(run, *x)
    if "norm" not in call and "mean" not in call and error is not flux.NotDifferentiableError:
        # which NumPy can, and we refuse
        with pytest.raises(error):
            run(*x)
